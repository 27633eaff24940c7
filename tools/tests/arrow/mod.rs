//! Holds the arrow between the crates and the bans of the pure ones, so that a machine keeps the rule and no reader has
//! to.
//!
//! [`manifest`] has the table of allowed dependencies and [`source`] the laws of the code. Both are pure functions
//! over a path and a text; [`samples`] shows each of them a bad sample and sees it refused. Here the workspace is read
//! and given to them.

mod lexer;
mod manifest;
mod samples;
mod source;
mod words;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

/// One place where a law is broken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    path: String,
    line: usize,
    law: source::Law,
    what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.path, self.line, self.law.sentence(), self.what)
    }
}

/// Directories that are not part of the product.
const OUTSIDE: [&str; 3] = ["target", ".git", "data"];

/// The files that hold text and are looked at.
const TEXTS: [&str; 10] = ["rs", "toml", "md", "hex", "sh", "yml", "yaml", "json", "txt", "script"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tools lies in the workspace").to_path_buf()
}

/// All text files of the workspace, each with its path below the root.
fn texts() -> Vec<(String, String)> {
    let root = root();
    let (mut found, mut directories) = (Vec::new(), vec![root.clone()]);
    while let Some(directory) = directories.pop() {
        let entries = std::fs::read_dir(&directory).expect("a directory of the workspace can be listed");
        for path in entries.map(|entry| entry.expect("an entry can be read").path()) {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
            if path.is_dir() && !OUTSIDE.contains(&name) {
                directories.push(path);
            } else if path.is_file() && TEXTS.contains(&extension) {
                let text = std::fs::read_to_string(&path).expect("a text file of the workspace can be read");
                let below = path.strip_prefix(&root).expect("found below the root");
                found.push((below.to_str().expect("paths of the workspace are text").replace('\\', "/"), text));
            }
        }
    }
    found.sort();
    found
}

/// Fails with one line for each broken law.
fn hold(violations: Vec<Violation>) {
    let lines: Vec<String> = violations.iter().map(Violation::to_string).collect();
    assert!(lines.is_empty(), "{} broken laws\n{}", lines.len(), lines.join("\n"));
}

#[test]
fn the_arrow_is_held() {
    let manifests: Vec<(String, String)> =
        texts().into_iter().filter(|(path, _)| path.ends_with("Cargo.toml")).collect();
    let found: BTreeSet<&str> = manifests.iter().filter_map(|(path, _)| path.strip_suffix("/Cargo.toml")).collect();
    let listed: BTreeSet<&str> = manifest::CRATES.iter().map(|row| row.directory).collect();
    assert_eq!(found, listed, "every crate has a row in the table of dependencies");
    hold(manifests.iter().flat_map(|(path, text)| manifest::check(path, text)).collect());
}

#[test]
fn the_laws_of_the_code_are_held() {
    let sources: Vec<(String, String)> = texts().into_iter().filter(|(path, _)| path.ends_with(".rs")).collect();
    for row in manifest::CRATES {
        let own = sources.iter().filter(|(path, _)| path.starts_with(&format!("{}/src/", row.directory)));
        assert!(own.count() > 0, "{} has sources that are looked at", row.directory);
    }
    hold(sources.iter().flat_map(|(path, text)| source::check(path, text)).collect());
}

#[test]
fn no_text_names_a_machine() {
    hold(texts().iter().flat_map(|(path, text)| words::check(path, text)).collect());
}
