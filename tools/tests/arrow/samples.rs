//! Each law is shown bad samples and is seen refusing them, and good samples and is seen letting them pass: a guard
//! that was never seen failing guards nothing.

use std::collections::BTreeSet;

use super::source::Law;
use super::{Violation, manifest, source, words};

/// Any file, by the checks that it meets in the workspace.
fn check(path: &str, text: &str) -> Vec<Violation> {
    let mut found = words::check(path, text);
    if path.ends_with(".rs") {
        found.extend(source::check(path, text));
    }
    if path.ends_with("Cargo.toml") {
        found.extend(manifest::check(path, text));
    }
    found
}

/// The laws broken by lines of code in a file that is otherwise in order.
fn broken(path: &str, code: &str) -> Vec<Law> {
    check(path, &format!("//! Prose.\n{code}\n")).into_iter().map(|violation| violation.law).collect()
}

/// Code that breaks one law in every pure crate.
const BAD_CODE: &[(Law, &str)] = &[
    (Law::File, "use std::fs;"),
    (Law::File, "use std::fs::File;"),
    (Law::File, "use std::{fmt, fs::{self, File}};"),
    (Law::File, "fn f() { std::fs::remove_file(x); }"),
    (Law::File, "fn f() { ::std::fs::remove_file(x); }"),
    (Law::File, "use memmap2::Mmap;"),
    (Law::Socket, "use std::net::TcpStream;"),
    (Law::Socket, "use std::os::unix::net::UnixStream;"),
    (Law::Thread, "use std::thread;"),
    (Law::Thread, "fn f() { std::thread::spawn(g); }"),
    (Law::Clock, "use std::time::Instant;"),
    (Law::Clock, "use std::time::{Duration, SystemTime};"),
    (Law::Clock, "use std::time::*;"),
    (Law::Clock, "use std::time;"),
    (Law::Clock, "use std::time as clock;"),
    (Law::Clock, "fn f() -> u64 { Instant::now() }"),
    (Law::Clock, "use std::*;"),
    (Law::Environment, "fn f() { std::env::var(\"HOME\"); }"),
    (Law::Async, "async fn f() {}"),
    (Law::Async, "fn f() { g.await }"),
    (Law::Random, "use rand::Rng;"),
    (Law::Random, "fn f() { getrandom::fill(x); }"),
    (Law::Random, "use std::hash::RandomState;"),
    (Law::Unordered, "use std::collections::HashMap;"),
    (Law::Unordered, "use std::collections::{BTreeMap, HashSet};"),
    (Law::Unordered, "fn f(x: &std::collections::HashMap<u8, u8>) {}"),
    (Law::Global, "static mut X: u8 = 0;"),
    (Law::Global, "static X: AtomicU64 = AtomicU64::new(0);"),
    (Law::Global, "static X: std::sync::Mutex<u8> = std::sync::Mutex::new(0);"),
    (Law::Global, "thread_local! { static X: u8 = 0; }"),
    (Law::Global, "static X: std::sync::LazyLock<u8> = f;"),
    (Law::Global, "static X: OnceLock<u8> = OnceLock::new();"),
    (Law::Global, "lazy_static! {}"),
    (Law::Print, "fn f() { println!(\"x\"); }"),
    (Law::Print, "fn f() { eprintln!(\"x\"); }"),
    (Law::Print, "fn f() { dbg!(x); }"),
    (Law::UnsafeHome, "// SAFETY: it is fine.\nfn f() { unsafe { g() } }"),
    (Law::UnsafeHome, "mod m {\n#![allow(unsafe_code)]\n// SAFETY: it is fine.\nfn f() { unsafe { g() } }\n}"),
    (Law::UnsafeHome, "#[allow(unsafe_code)]\n// SAFETY: it is fine.\nfn f() { unsafe { g() } }"),
    (Law::UnsafeReason, "#![allow(unsafe_code)]\nfn f() { unsafe { g() } }"),
    (Law::UnsafeReason, "#![allow(unsafe_code)]\n// SAFETY: too far.\n\n\n\n\nfn f() { unsafe { g() } }"),
    (Law::UnsafeReason, "#![allow(unsafe_code)]\nconst X: &str = \"SAFETY: a literal\"; unsafe fn g() {}"),
];

/// Code that looks like a breach and is none.
const GOOD_CODE: &[&str] = &[
    "// std::fs and HashMap, Instant and println!",
    "/// `std::thread` /* async */\nfn f() {}",
    "const X: &str = \"std::fs::File println! static mut\";",
    "const X: &str = r#\"Instant::now() \" HashMap\"#;",
    "use std::time::Duration;",
    "use std::{fmt, io, path::Path};",
    "fn f(x: &'static str) -> impl Iterator<Item = char> + 'static { x.chars() }",
    "static TABLE: [u8; 2] = [1, 2];",
    "struct Field { mapping: std::sync::OnceLock<u8>, count: AtomicU64 }",
    "fn instant(fs: u8, net: u8, thread: u8) { fs::read(net, thread) }",
    "#[cfg(test)]\nmod tests { use std::collections::HashMap; fn f() { println!(\"x\") } }",
    "#![allow(unsafe_code)]\n// SAFETY: it is fine.\nfn f() { unsafe { g() } }",
    "#![allow(unsafe_code)]\n// SAFETY: a longer reason,\n// over three lines,\n// is near enough.\nfn f() { unsafe { g() } }",
    "#![deny(unsafe_code)]",
    "#![warn(missing_docs)]\n#![allow(unsafe_code)]\n// SAFETY: it is fine.\nfn f() { unsafe { g() } }",
];

/// Samples that depend on more than a line of code.
fn other_bad_samples() -> Vec<(Law, &'static str, String)> {
    let with = |dependency: &str| format!("[package]\nname = \"x\"\n[dependencies]\n{dependency}.workspace = true\n");
    let for_tests = |dependency: &str| format!("[dev-dependencies]\n{dependency} = {{ workspace = true }}\n");
    vec![
        (Law::Prose, "bench/src/main.rs", "fn main() {}\n".to_string()),
        (Law::Prose, "wal/tests/it/main.rs", "/// Not the file's own prose.\nmod x;\n".to_string()),
        (Law::Length, "tools/src/main.rs", format!("//! Prose.\n{}", "\n".repeat(800))),
        (Law::Machine, "docs/README.md", format!("see /{}/x\n", "work")),
        (Law::Machine, "tools/src/main.rs", format!("//! Prose.\nconst X: &str = \"/{}/me\";\n", "home")),
        (Law::Arrow, "engine/types/Cargo.toml", with("pontoon-raft")),
        (Law::Arrow, "engine/raft/Cargo.toml", with("pontoon-wire")),
        (Law::Arrow, "engine/raft/Cargo.toml", with("tokio")),
        (Law::Arrow, "engine/wire/Cargo.toml", with("pontoon-router")),
        (Law::Arrow, "engine/multiraft/Cargo.toml", with("pontoon")),
        (Law::Arrow, "engine/client/Cargo.toml", with("pontoon-multiraft")),
        (Law::Arrow, "engine/sim/Cargo.toml", with("glommio")),
        (Law::Arrow, "engine/sim/Cargo.toml", for_tests("glommio")),
        (Law::Arrow, "engine/sim/Cargo.toml", with("pontoon")),
        (Law::Arrow, "engine/node/Cargo.toml", with("pontoon-client")),
        (Law::Arrow, "engine/raft/Cargo.toml", for_tests("pontoon-sim")),
        (Law::Arrow, "bench/Cargo.toml", with("pontoon-sim")),
        (Law::Arrow, "somewhere/Cargo.toml", with("bytes")),
    ]
}

#[test]
fn each_ban_is_seen_failing_in_every_pure_crate() {
    let homes = ["types", "raft", "multiraft", "wire"].map(|name| format!("engine/{name}/src/deep/x.rs"));
    for home in homes.iter().map(String::as_str).chain(["shard-router/src/lib.rs", "wal/src/log.rs"]) {
        for (law, code) in BAD_CODE {
            assert!(broken(home, code).contains(law), "{law:?} is held against {code:?} in {home}");
        }
    }
}

#[test]
fn what_only_looks_like_a_breach_passes() {
    for code in GOOD_CODE {
        assert_eq!(broken("engine/raft/src/x.rs", code), [], "{code}");
    }
}

#[test]
fn the_other_laws_are_seen_failing() {
    for (law, path, text) in other_bad_samples() {
        let found: Vec<Law> = check(path, &text).into_iter().map(|violation| violation.law).collect();
        assert_eq!(found, [law], "{path}: {text}");
    }
}

#[test]
fn every_law_has_a_bad_sample() {
    let others = other_bad_samples();
    let shown: BTreeSet<Law> =
        BAD_CODE.iter().map(|(law, _)| *law).chain(others.iter().map(|(law, _, _)| *law)).collect();
    assert_eq!(shown, Law::ALL.into_iter().collect());
}

#[test]
fn the_exceptions_are_as_wide_as_they_are_written() {
    let (file, thread) = ("use std::fs;", "use std::thread;");
    for home in ["wal/src/file.rs", "wal/src/file/direct.rs", "wal/src/prepare.rs", "wal/src/prepare/zeros.rs"] {
        assert_eq!(broken(home, file), []);
        assert_eq!(broken(home, thread), []);
        assert_eq!(broken(home, "use std::time::Instant;"), [Law::Clock]);
    }
    assert_eq!(broken("wal/src/filed.rs", file), [Law::File]);
    assert_eq!(broken("wal/src/keeper/thread.rs", "use std::{thread, time::Instant};"), []);
    assert_eq!(broken("wal/src/keeper/plan.rs", file), [Law::File]);
    assert_eq!(broken("wal/src/keeper/mod.rs", "use std::{thread, time::Instant};"), [Law::Thread, Law::Clock]);
    assert_eq!(broken("engine/sim/src/jobs.rs", thread), []);
    assert_eq!(broken("engine/sim/src/world.rs", thread), [Law::Thread]);
    assert_eq!(broken("engine/sim/src/world.rs", file), []);
    assert_eq!(broken("engine/client/src/session.rs", "use std::{fs, net, thread, time::Instant};"), []);
    assert_eq!(broken("engine/raft/tests/it/main.rs", "use std::fs; use std::collections::HashMap;"), []);
}

#[test]
fn a_violation_reads_as_a_sentence() {
    let found = check("engine/raft/src/x.rs", "//! Prose.\n\nuse std::fs::File;\n");
    let lines: Vec<String> = found.iter().map(Violation::to_string).collect();
    assert_eq!(lines, ["engine/raft/src/x.rs:3: this code names no file: std::fs::File"]);
}

#[test]
fn good_manifests_pass() {
    let own = "[dependencies]\npontoon-types.workspace = true\nbytes.workspace = true\n[dev-dependencies]\nproptest = \"1\"\n";
    assert_eq!(check("engine/raft/Cargo.toml", own), []);
    let node = "[dependencies]\nglommio.workspace = true\n[dev-dependencies]\npontoon-client.workspace = true\n";
    assert_eq!(check("engine/node/Cargo.toml", node), []);
    assert_eq!(check("Cargo.toml", "[workspace.dependencies]\nglommio = \"1\"\n"), []);
}
