//! Real files on the real disk, over both append paths.
#![allow(unsafe_code)]

use std::fs;
use std::os::fd::{BorrowedFd, RawFd};
use std::path::Path;
use std::process::Command;

use pontoon_types::{CoreWriteNumber, GroupId, Write};
use pontoon_wal::{AppendPath, Log, LogError, Options};

use crate::append_path::over_both;
use crate::common::{IDENTITY, Opened, apply, created, entries, entry, model_of, opened, vote};

/// The directory of the log of the child that runs under a limit on the size of files.
const LIMITED: &str = "PONTOON_WAL_LIMITED";

pub fn options(append_path: AppendPath) -> Options {
    Options {
        segment_bytes: 256 << 10,
        max_log_bytes: 32 << 20,
        group_bytes_max: 64 << 10,
        ready_segments: 2,
        checkpoint_segments: 3,
        append_path,
    }
}

/// What the shell does through its ring.
pub fn fdatasync(fd: RawFd) -> std::io::Result<()> {
    // SAFETY: the log keeps the descriptor open until the sync is finished.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    Ok(rustix::fs::fdatasync(fd)?)
}

/// One durable core write; waits when the next segment is still being prepared.
pub fn commit(log: &mut Log, number: u64, writes: &[(GroupId, Write)]) {
    log.append(CoreWriteNumber(number), writes);
    while log.is_gathered() {
        match log.begin_sync().unwrap() {
            Some(sync) => drop(log.finish_sync(fdatasync(sync.fd)).unwrap()),
            None => std::thread::sleep(std::time::Duration::from_millis(1)),
        }
    }
}

/// Opens a log on real files and reads all of it.
pub fn open_with(path: &Path, options: &Options) -> (Log, Opened) {
    let (mut log, recovered) = Log::open(path, IDENTITY, options).unwrap();
    let opened = opened(&mut log, recovered);
    (log, opened)
}

fn open(path: &Path, append_path: AppendPath) -> (Log, Opened) {
    open_with(path, &options(append_path))
}

#[test]
fn clean_stops_and_crashes_over_many_segments() {
    over_both(|append_path| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        Log::create(&path, IDENTITY, &options(append_path), &created(2)).unwrap();
        let mut model = model_of(&created(2));
        let mut next = 1;
        for life in 0..6_u64 {
            let (mut log, recovered) = open(&path, append_path);
            assert_eq!(recovered.groups, model, "life {life}");
            assert_eq!(recovered.clean, life == 0 || life % 2 == 0);
            assert_eq!(log.incarnation().0, life + 1);
            assert!(recovered.torn_tail.is_none());
            // On a file system without O_DIRECT the log says so, and reads what the cache has after it was dropped.
            assert_eq!(recovered.read_past_cache, o_direct_works(directory.path()));
            for number in 1..=40 {
                let writes = [entries(2, vec![entry(next, 1, vec![next as u8; 9000])]), vote(3, next, 2)];
                commit(&mut log, number, &writes);
                apply(&mut model, &writes);
                next += 1;
            }
            let stats = log.stats();
            assert_eq!((stats.groups, stats.entries, stats.writes), (40, 40, 80));
            assert!(stats.bytes >= 40 * 12_288);
            // Odd lives begin after a clean stop of an even one; the others are dropped like a killed process.
            if life % 2 == 1 {
                log.close().unwrap();
            }
        }
        assert!(fs::read_dir(&path).unwrap().count() > 8);
    });
}

fn o_direct_works(directory: &Path) -> bool {
    use std::os::unix::fs::OpenOptionsExt;
    let probe = directory.join("probe");
    fs::write(&probe, [0; 4096]).unwrap();
    let flags = rustix::fs::OFlags::DIRECT.bits() as i32;
    fs::OpenOptions::new().read(true).custom_flags(flags).open(&probe).is_ok()
}

#[test]
fn a_torn_tail_on_the_real_disk_is_cut_and_left_in_place() {
    over_both(|append_path| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        Log::create(&path, IDENTITY, &options(append_path), &created(2)).unwrap();
        let (mut log, _) = open(&path, append_path);
        commit(&mut log, 1, &[vote(2, 1, 1)]);
        commit(&mut log, 2, &[vote(2, 2, 1)]);
        commit(&mut log, 3, &[entries(2, vec![entry(1, 2, vec![1; 9000])])]);
        drop(log);
        let tail = path.join("slot-001.seg");
        let mut bytes = fs::read(&tail).unwrap();
        // The creation and two votes come first, behind the header; the middle block of the last group is lost.
        bytes[5 * 4096..6 * 4096].fill(0);
        fs::write(&tail, &bytes).unwrap();
        let (log, recovered) = open(&path, append_path);
        let torn = recovered.torn_tail.as_ref().expect("the tail is torn");
        assert_eq!((torn.file.as_str(), torn.offset), ("slot-001.seg", 4 * 4096));
        assert!(recovered.rewritten, "the second vote lost its proof with the group behind it");
        assert_eq!(recovered.groups[&GroupId(2)].hard_state.term.0, 2);
        assert!(recovered.groups[&GroupId(2)].entries.is_empty());
        drop(log);
        assert!(fs::read(&tail).unwrap() == bytes, "the old tail is not changed");
        assert_eq!(open(&path, append_path).1.groups, recovered.groups);
    });
}

#[test]
fn bytes_of_a_reader_outlive_the_log_and_its_files() {
    over_both(|append_path| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        Log::create(&path, IDENTITY, &options(append_path), &created(2)).unwrap();
        let (mut log, _) = open(&path, append_path);
        for number in 1..=50 {
            commit(&mut log, number, &[entries(2, vec![entry(number, 1, vec![number as u8; 9000])])]);
        }
        log.close().unwrap();
        let (log, mut recovered) = open(&path, append_path);
        let entries = std::mem::take(&mut recovered.groups.get_mut(&GroupId(2)).unwrap().entries);
        drop(recovered);
        log.close().unwrap();
        fs::remove_dir_all(&path).unwrap();
        assert_eq!(entries.len(), 50);
        for entry in entries {
            assert!(entry.payload.iter().all(|byte| *byte == entry.id.index.0 as u8));
            assert_eq!(entry.payload.as_ptr() as usize % 16, 0, "payloads are aligned in memory as on the disk");
        }
    });
}

#[test]
fn a_second_owner_a_second_creation_and_no_log_are_refused() {
    over_both(|append_path| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        assert!(matches!(Log::open(&path, IDENTITY, &options(append_path)), Err(LogError::NotALog { .. })));
        assert!(matches!(Log::open(directory.path(), IDENTITY, &options(append_path)), Err(LogError::NotALog { .. })));
        Log::create(&path, IDENTITY, &options(append_path), &created(2)).unwrap();
        assert!(matches!(
            Log::create(&path, IDENTITY, &options(append_path), &created(2)),
            Err(LogError::NotEmpty { .. })
        ));
        let (log, _) = open(&path, append_path);
        let error = Log::open(&path, IDENTITY, &options(append_path)).err().unwrap();
        assert!(matches!(error, LogError::InUse { .. }), "{error}");
        assert!(error.to_string().contains("open in another process"));
        drop(log);
        open(&path, append_path).0.close().unwrap();
    });
}

#[test]
fn an_interrupted_preparation_is_removed_at_the_next_open() {
    over_both(|append_path| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        Log::create(&path, IDENTITY, &options(append_path), &created(2)).unwrap();
        fs::write(path.join("slot-009.new"), [0; 5000]).unwrap();
        open(&path, append_path).0.close().unwrap();
        assert!(!path.join("slot-009.new").exists());
    });
}

#[test]
fn forty_starts_of_an_idle_log_stay_within_max_log_bytes() {
    over_both(|append_path| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let options = Options { segment_bytes: 1 << 20, max_log_bytes: 8 << 20, append_path, ..Options::default() };
        Log::create(&path, IDENTITY, &options, &created(2)).unwrap();
        for start in 1..=40_u64 {
            let (log, recovered) = open_with(&path, &options);
            assert!(recovered.resumed && recovered.clean == (start == 1), "start {start}");
            assert_eq!(log.incarnation().0, start);
            assert!(log.bytes() <= 5 << 20 && !log.is_full(), "start {start}: {} bytes", log.bytes());
            drop(log);
            let on_disk: u64 = fs::read_dir(&path).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
            assert!(on_disk <= (5 << 20) + 8192, "start {start}: {on_disk} bytes of files");
        }
        // What such a log writes next is as durable as ever.
        let (mut log, _) = open_with(&path, &options);
        commit(&mut log, 1, &[vote(2, 7, 1)]);
        drop(log);
        let (_, recovered) = open_with(&path, &options);
        assert_eq!(recovered.groups[&GroupId(2)].hard_state.term.0, 7);
        assert!(!recovered.resumed);
    });
}

/// Two durable writes, then one that goes across the limit. Once that is lifted nothing more may follow.
fn write_across_the_limit(path: &Path) {
    let (mut log, _) = open(path, AppendPath::Write);
    commit(&mut log, 1, &[vote(2, 1, 1)]);
    commit(&mut log, 2, &[vote(2, 2, 1)]);
    log.append(CoreWriteNumber(3), &[entries(2, vec![entry(1, 2, vec![1; 9000])])]);
    let error = log.begin_sync().unwrap_err();
    // A second attempt at the rest would have failed with the limit itself.
    let short = std::io::Error::from(std::io::ErrorKind::WriteZero).to_string();
    assert!(matches!(&error, LogError::Fenced { why } if why.contains(&short)), "{error}");
    let limits = rustix::process::getrlimit(rustix::process::Resource::Fsize);
    let lifted = rustix::process::Rlimit { current: limits.maximum, ..limits };
    rustix::process::setrlimit(rustix::process::Resource::Fsize, lifted).unwrap();
    log.append(CoreWriteNumber(4), &[vote(2, 4, 1)]);
    assert!(matches!(log.begin_sync(), Err(LogError::Fenced { .. })));
    assert!(matches!(log.begin_seal(), Err(LogError::Fenced { .. })));
    assert!(matches!(log.close(), Err(LogError::Fenced { .. })));
}

/// With a directory in the environment this is its own child. The limit is that of a whole process, and a signal comes
/// with it that would end it, so a shell sets both before the child begins.
#[test]
fn case_22_a_short_write_fences_the_log() {
    if let Ok(path) = std::env::var(LIMITED) {
        return write_across_the_limit(path.as_ref());
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    Log::create(&path, IDENTITY, &options(AppendPath::Write), &created(2)).unwrap();
    // The child finds its segments prepared.
    open(&path, AppendPath::Write).0.close().unwrap();
    // The header, the creation and two votes are four blocks; of the next group half a block has room.
    let limit_bytes = 4 * 4096 + 2048;
    let limited = format!("trap '' XFSZ && ulimit -S -f {} && exec \"$0\" \"$@\"", limit_bytes / 512);
    let mut child = Command::new("sh");
    child.args(["-c", &limited]).arg(std::env::current_exe().unwrap());
    child.args(["--exact", "files::case_22_a_short_write_fences_the_log", "--nocapture", "--test-threads=1"]);
    let output = child.env(LIMITED, &path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tail = fs::read(path.join("slot-001.seg")).unwrap();
    assert!(tail[4 * 4096..limit_bytes].iter().any(|byte| *byte != 0), "the write was begun");
    assert!(tail[limit_bytes..].iter().all(|byte| *byte == 0), "and neither ended nor followed by another");
    let (_, recovered) = open(&path, AppendPath::Write);
    assert_eq!(recovered.torn_tail.as_ref().unwrap().offset, 4 * 4096);
    assert_eq!(recovered.groups[&GroupId(2)].hard_state.term.0, 2);
    assert!(recovered.groups[&GroupId(2)].entries.is_empty());
}
