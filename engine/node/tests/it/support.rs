//! Directories, ports and processes for the tests.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pontoon::{ClusterId, InitPlan, LogOptions, NodeId, init};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// How long anything that should happen may take on a machine that does much else.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Ports below the range from which the kernel gives them out, so that no outgoing connection has one.
static NEXT_PORT: AtomicU16 = AtomicU16::new(0);

/// An address of this machine that nobody listens at.
pub fn free_address() -> SocketAddr {
    loop {
        let step = NEXT_PORT.fetch_add(1, Ordering::Relaxed);
        let port = 15_000 + ((std::process::id() as u16).wrapping_mul(97).wrapping_add(step)) % 15_000;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// The data directories of an initialised cluster.
pub struct Directories {
    pub root: TempDir,
    pub cluster: ClusterId,
    pub nodes: Vec<(NodeId, PathBuf, SocketAddr)>,
}

/// Small logs, so that a test does not prepare gigabytes.
pub fn small_log() -> LogOptions {
    LogOptions { segment_bytes: 1 << 20, max_log_bytes: 64 << 20, ..LogOptions::default() }
}

/// Initialises a cluster of nodes numbered from `first`.
pub fn directories_from(first: u64, nodes: u64, ranges: u32, cores: u16) -> Directories {
    directories_with(first, nodes, ranges, cores, small_log())
}

/// The same with logs of the given sizes.
pub fn directories_with(first: u64, nodes: u64, ranges: u32, cores: u16, log: LogOptions) -> Directories {
    let root = tempfile::tempdir().unwrap();
    let nodes: Vec<_> = (first..first + nodes)
        .map(|node| (NodeId(node), root.path().join(format!("n{node}")), free_address()))
        .collect();
    let cluster = init(&InitPlan { nodes: nodes.clone(), ranges, cores, log }).unwrap();
    Directories { root, cluster, nodes }
}

/// Initialises a cluster of nodes numbered from one.
pub fn directories(nodes: u64, ranges: u32, cores: u16) -> Directories {
    directories_from(1, nodes, ranges, cores)
}

impl Directories {
    pub fn dir(&self, node: usize) -> &Path {
        &self.nodes[node].1
    }

    pub fn address(&self, node: usize) -> SocketAddr {
        self.nodes[node].2
    }

    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|(_, _, address)| *address).collect()
    }

    /// Starts a node as a process and waits until it serves.
    pub fn start(&self, node: usize) -> Process {
        Process::start(&[], self.dir(node))
    }
}

/// A running `pontoond`.
pub struct Process {
    child: Child,
    pub address: SocketAddr,
    lines: Arc<Mutex<Vec<String>>>,
}

/// `pontoond` with these arguments.
pub fn pontoond(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pontoond"));
    command.args(arguments).env_remove("RUST_LOG");
    command
}

impl Process {
    /// Starts `pontoond` and waits for its ready line.
    pub fn start(arguments: &[&str], dir: &Path) -> Process {
        let mut child = pontoond(arguments)
            .arg("--data-dir")
            .arg(dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let kept = lines.clone();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                kept.lock().unwrap().push(line);
            }
        });
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        let Some(address) = ready.trim().strip_prefix("listening on ") else {
            let status = child.wait().unwrap();
            std::thread::sleep(Duration::from_millis(100));
            panic!("no ready line but {ready:?}, {status}, {:?}", lines.lock().unwrap());
        };
        Process { address: address.parse().unwrap(), child, lines }
    }

    /// What it has logged so far.
    pub fn lines_with(&self, part: &str) -> Vec<String> {
        self.lines.lock().unwrap().iter().filter(|line| line.contains(part)).cloned().collect()
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; the exit code.
    pub fn terminate(self) -> Option<i32> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        self.exit_code()
    }

    /// The exit code of one that ends by itself.
    pub fn exit_code(mut self) -> Option<i32> {
        let give_up = Instant::now() + PATIENCE;
        while Instant::now() < give_up {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("did not stop: {:?}", self.lines.lock().unwrap());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command that is expected to end by itself: its exit code and what it wrote to standard error.
pub fn run(command: &mut Command) -> (i32, String) {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).unwrap();
        text
    });
    let give_up = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > give_up {
            child.kill().unwrap();
            panic!("it does not end: {}", reader.join().unwrap());
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    (status.code().unwrap_or(-1), reader.join().unwrap())
}

/// All files under a directory with their bytes, to see that nothing was changed.
pub fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            match std::fs::read(&path) {
                Ok(bytes) => found.push((path, bytes)),
                // A running node prepares and removes files.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => panic!("{}: {error}", path.display()),
            }
        }
    }
    found.sort();
    found
}
