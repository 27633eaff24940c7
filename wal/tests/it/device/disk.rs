//! A loop device with a file system of its own, taken apart again when it is dropped. The tests of a node use it too.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::shut_down::shut_down;

/// Where images and mount points are made, so that the script can take away what a killed test left there.
const PLACE: &str = "PONTOON_TEST_DIR";
const DISK_BYTES: u64 = 512 << 20;
/// The unit of what a disk refuses to read.
const BLOCK_BYTES: usize = 4096;
/// How long a file may still be in use after it was closed.
const UNMOUNT_WAIT: Duration = Duration::from_secs(10);
/// How long nbdfuse may take to show its file, and to end.
const FUSE_WAIT: Duration = Duration::from_secs(10);

/// A kind of file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    Ext4,
    Xfs,
}

impl FileSystem {
    fn name(self) -> &'static str {
        match self {
            FileSystem::Ext4 => "ext4",
            FileSystem::Xfs => "xfs",
        }
    }
}

impl fmt::Display for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a device counted since it was made.
#[derive(Clone, Copy, Debug)]
pub struct Counters {
    pub written_bytes: u64,
    pub flushes: u64,
}

/// A mounted file system on a loop device.
pub struct Disk {
    file_system: FileSystem,
    device: String,
    is_mounted: bool,
    /// Serves the file under the loop device and fails on command.
    failing: Option<Child>,
    place: TempDir,
}

impl Disk {
    /// On a sparse file. The error says why this machine cannot.
    pub fn new(file_system: FileSystem) -> Result<Disk, String> {
        check_machine(file_system, &[])?;
        let place = place();
        let image = place.path().join("image");
        File::create(&image).unwrap().set_len(DISK_BYTES).unwrap();
        Disk::on(file_system, place, &image, None)
    }

    /// On memory whose writes fail while [`Disk::fail_writes`] says so, and that stalls while [`Disk::freeze`] does.
    pub fn failing(file_system: FileSystem) -> Result<Disk, String> {
        check_machine(file_system, &["nbdkit", "nbdfuse", "fusermount3"])?;
        let place = place();
        let trigger = place.path().join("trigger");
        let served = [
            "--filter=error".to_string(),
            "memory".to_string(),
            DISK_BYTES.to_string(),
            "error-pwrite=EIO".to_string(),
            "error-pwrite-rate=100%".to_string(),
            format!("error-pwrite-file={}", trigger.display()),
        ];
        Disk::served(file_system, place, &served)
    }

    /// On a file of which [`Disk::refuse`] makes single blocks unreadable. The error filter knows no places.
    pub fn refusing(file_system: FileSystem) -> Result<Disk, String> {
        check_machine(file_system, &["nbdkit", "nbdfuse", "fusermount3", "dd"])?;
        let place = place();
        let (image, refused) = (place.path().join("image"), place.path().join("refused"));
        File::create(&image).unwrap().set_len(DISK_BYTES).unwrap();
        let (image, refused) = (image.display(), refused.display());
        let refuse = format!(
            "if [ -e {refused} ]; then while read -r at; do \
             if [ $4 -lt $((at + {BLOCK_BYTES})) ] && [ $(($4 + $3)) -gt $at ]; then echo EIO refused >&2; exit 1; fi; \
             done <{refused}; fi;"
        );
        let served = [
            "eval".to_string(),
            format!("get_size=echo {DISK_BYTES}"),
            format!("pread={refuse} dd if={image} iflag=skip_bytes,count_bytes skip=$4 count=$3 bs=1M status=none"),
            format!("pwrite=dd of={image} oflag=seek_bytes seek=$4 conv=notrunc bs=1M status=none"),
            "can_write=exit 0".to_string(),
            "can_flush=exit 0".to_string(),
            "flush=exit 0".to_string(),
        ];
        Disk::served(file_system, place, &served)
    }

    /// On what a server shows that fails as it is told.
    fn served(file_system: FileSystem, place: TempDir, served: &[String]) -> Result<Disk, String> {
        if !Path::new("/dev/fuse").exists() {
            return Err("this machine has no /dev/fuse".to_string());
        }
        let fuse = place.path().join("fuse");
        fs::create_dir(&fuse).unwrap();
        let image = fuse.join("image");
        let mut child = Command::new("nbdfuse")
            .arg(&image)
            .args(["--command", "nbdkit", "--single", "--exit-with-parent"])
            .args(served)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let until = Instant::now() + FUSE_WAIT;
        while !image.exists() {
            if let Some(status) = child.try_wait().unwrap() {
                return Err(format!("nbdfuse ended with {status}"));
            }
            assert!(Instant::now() < until, "nbdfuse shows its file");
            std::thread::sleep(Duration::from_millis(10));
        }
        Disk::on(file_system, place, &image, Some(child))
    }

    fn on(file_system: FileSystem, place: TempDir, image: &Path, failing: Option<Child>) -> Result<Disk, String> {
        let attached = Command::new("losetup").args(["--find", "--show"]).arg(image).output().unwrap();
        let device = String::from_utf8(attached.stdout).unwrap().trim().to_string();
        let mut disk = Disk { file_system, device, is_mounted: false, failing, place };
        if !attached.status.success() {
            return Err(format!("no loop device: {}", String::from_utf8_lossy(&attached.stderr).trim()));
        }
        fs::create_dir(disk.directory()).unwrap();
        match file_system {
            // Nothing is written later than now in the background, and root keeps no blocks back.
            FileSystem::Ext4 => {
                run("mkfs.ext4", &["-q", "-m0", "-Elazy_itable_init=0,lazy_journal_init=0", &disk.device])
            }
            FileSystem::Xfs => run("mkfs.xfs", &["-q", &disk.device]),
        }
        disk.mount();
        Ok(disk)
    }

    pub fn file_system(&self) -> FileSystem {
        self.file_system
    }

    /// Where it is mounted.
    pub fn directory(&self) -> PathBuf {
        self.place.path().join("mounted")
    }

    pub fn mount(&mut self) {
        run("mount", &["-t", self.file_system.name(), &self.device, &text(&self.directory())]);
        self.is_mounted = true;
    }

    pub fn unmount(&mut self) {
        // A ring that was just closed lets go of its files a little later.
        let until = Instant::now() + UNMOUNT_WAIT;
        while !Command::new("umount").arg(self.directory()).output().unwrap().status.success() {
            assert!(Instant::now() < until, "nobody uses the disk any more");
            std::thread::sleep(Duration::from_millis(10));
        }
        self.is_mounted = false;
    }

    /// As if the power went: what was not synced is gone, and nothing can be written until it is mounted again.
    pub fn lose_power(&self) {
        shut_down(&File::open(self.directory()).unwrap()).unwrap();
    }

    /// Whether writes to the device fail from now on.
    pub fn fail_writes(&self, fail: bool) {
        assert!(self.failing.is_some(), "this disk cannot fail");
        let trigger = self.place.path().join("trigger");
        if fail { fs::write(trigger, "") } else { fs::remove_file(trigger) }.unwrap();
    }

    /// The device refuses to read the one block with this content from now on, and nobody has it in a cache.
    pub fn refuse(&mut self, block: &[u8]) {
        assert_eq!(block.len(), BLOCK_BYTES);
        self.settle();
        self.unmount();
        let mut image = File::open(self.place.path().join("image")).unwrap();
        let (mut stored, mut found) = (vec![0; BLOCK_BYTES], Vec::new());
        for at in (0..DISK_BYTES).step_by(BLOCK_BYTES) {
            image.read_exact(&mut stored).unwrap();
            if stored == block {
                found.push(at);
            }
        }
        let [at] = found[..] else { panic!("the block stands in {} places", found.len()) };
        fs::write(self.place.path().join("refused"), format!("{at}\n")).unwrap();
        let served = File::open(self.place.path().join("fuse/image")).unwrap();
        rustix::fs::fadvise(&served, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        self.mount();
    }

    /// Whether the device answers nothing from now on.
    pub fn freeze(&self, freeze: bool) {
        let server = self.failing.as_ref().expect("this disk cannot stall");
        let signal = if freeze { Signal::STOP } else { Signal::CONT };
        kill_process(Pid::from_child(server), signal).unwrap();
    }

    /// Writes back all that waits for it.
    pub fn settle(&self) {
        rustix::fs::syncfs(File::open(self.directory()).unwrap()).unwrap();
    }

    pub fn counters(&self) -> Counters {
        let name = self.device.trim_start_matches("/dev/");
        let stat = fs::read_to_string(format!("/sys/block/{name}/stat")).unwrap();
        let fields: Vec<u64> = stat.split_whitespace().map(|field| field.parse().unwrap()).collect();
        // The order stands in the kernel's page on block statistics; a sector is always 512 bytes there.
        Counters { written_bytes: fields[6] * 512, flushes: fields[15] }
    }
}

impl Drop for Disk {
    /// Runs while a failed test unwinds too, so it takes away what it can and complains about the rest.
    fn drop(&mut self) {
        let complain = |what: &str, done: io::Result<std::process::ExitStatus>| match done {
            Ok(status) if status.success() => {}
            failed => eprintln!("left behind in {}: {what}: {failed:?}", self.place.path().display()),
        };
        if self.failing.is_some() {
            self.freeze(false);
        }
        if self.is_mounted {
            complain("umount", Command::new("umount").arg(self.directory()).status());
        }
        if !self.device.is_empty() {
            complain("losetup", Command::new("losetup").args(["--detach", &self.device]).status());
        }
        if let Some(child) = &mut self.failing {
            let fuse = self.place.path().join("fuse");
            complain("fusermount3", Command::new("fusermount3").arg("-u").arg(fuse).status());
            let until = Instant::now() + FUSE_WAIT;
            while child.try_wait().is_ok_and(|status| status.is_none()) {
                if Instant::now() > until {
                    let _ = child.kill();
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

fn place() -> TempDir {
    let parent = std::env::var_os(PLACE).map_or_else(std::env::temp_dir, PathBuf::from);
    tempfile::Builder::new().prefix("disk-").tempdir_in(parent).unwrap()
}

/// Says what is missing here, if something is.
fn check_machine(file_system: FileSystem, tools: &[&str]) -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("needs root".to_string());
    }
    if !fs::read_to_string("/proc/filesystems")
        .unwrap_or_default()
        .split_whitespace()
        .any(|it| it == file_system.name())
    {
        return Err(format!("the kernel has no {file_system}"));
    }
    let mkfs = format!("mkfs.{file_system}");
    let mut tools = tools.to_vec();
    tools.extend([mkfs.as_str(), "losetup", "mount", "umount"]);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |tool: &str| std::env::split_paths(&path).any(|directory| directory.join(tool).exists());
    match tools.into_iter().find(|tool| !is_there(tool)) {
        Some(missing) => Err(format!("{missing} is not installed")),
        None => Ok(()),
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_string()
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {problem}");
}
