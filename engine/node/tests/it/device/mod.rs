//! Nodes on real devices that fail, stall and lose power, each a loop device of its own.
//!
//! These tests need root and loop devices, so they are ignored unless `wal/tests/loop.sh` runs them. Where something
//! is missing they say `SKIPPED` with the reason on the standard error and pass.
// Why a test was skipped is for a person to read.
#![allow(clippy::print_stderr)]

mod core;
#[allow(dead_code, reason = "the log's own tests use all of it")]
#[path = "../../../../../wal/tests/it/device/disk.rs"]
mod disk;
mod power;
#[path = "../../../../../wal/tests/it/device/shut_down.rs"]
mod shut_down;
mod stall;
mod store;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use disk::{Disk, FileSystem};
use pontoon_client::{Client, ClientOptions};

use crate::support::PATIENCE;

/// Runs a test on a disk that fails and stalls on command.
fn on_failing_disk(test: impl FnOnce(&mut Disk)) {
    on(Disk::failing(FileSystem::Ext4), test);
}

fn on(disk: Result<Disk, String>, test: impl FnOnce(&mut Disk)) {
    match disk {
        Ok(mut disk) => test(&mut disk),
        Err(why) => eprintln!("SKIPPED on {}: {why}", FileSystem::Ext4),
    }
}

/// Copies a directory with all that is in it.
fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(status.success());
}

/// A key of range `number` of 16.
fn key(number: u16) -> Vec<u8> {
    [&(number % 16 * 4096).to_be_bytes()[..], format!("key{number}").as_bytes()].concat()
}

fn client(addresses: &[SocketAddr], timeout: Duration) -> Client {
    Client::connect(addresses, ClientOptions { timeout, ..ClientOptions::default() }).unwrap()
}

#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < give_up, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Writes until it is told to stop: for each key, the rounds of its newest acknowledged write and of its newest write.
struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<BTreeMap<u16, (u64, u64)>>,
}

impl Load {
    fn start(addresses: Vec<SocketAddr>) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut client = client(&addresses, Duration::from_secs(5));
            let mut known = BTreeMap::new();
            let mut round = 0;
            while !told.load(Ordering::Relaxed) {
                round += 1;
                for number in 0..16 {
                    let of: &mut (u64, u64) = known.entry(number).or_default();
                    of.1 = round;
                    if client.put(key(number), round.to_string()).is_ok() {
                        of.0 = round;
                    }
                }
            }
            known
        });
        Load { stop, thread }
    }

    /// Ends it, and checks that what was acknowledged is there, or something that was written later.
    fn verify(self, addresses: &[SocketAddr]) {
        self.stop.store(true, Ordering::Relaxed);
        let known = self.thread.join().unwrap();
        let mut client = client(addresses, PATIENCE);
        for (number, (acknowledged, sent)) in known {
            let found =
                client.get(key(number)).unwrap().map_or(0, |value| str::from_utf8(&value).unwrap().parse().unwrap());
            assert!(
                acknowledged > 0 && (acknowledged..=sent).contains(&found),
                "{number}: {acknowledged} {found} {sent}"
            );
        }
    }
}
