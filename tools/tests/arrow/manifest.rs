//! Who may depend on whom.

use super::Violation;
use super::source::Law;

/// One crate: where it is, and what its manifest may name.
pub(crate) struct Crate {
    pub(crate) directory: &'static str,
    /// Crates of the workspace.
    arrow: &'static [&'static str],
    /// Crates of the workspace that only its tests use.
    tests: &'static [&'static str],
    /// Crates from outside, or none if the crate is a shell and may use any but the runtime.
    outside: Option<&'static [&'static str]>,
}

/// The runtime, which only the shell of a node names.
const RUNTIME: &str = "glommio";
const RUNTIME_HOME: &str = "engine/node";

/// What a pure crate may use: data only, no clock, no file, no socket, no thread.
const DATA: &[&str] = &["bytes", "crc32fast", "rkyv", "thiserror"];

/// The table of the arrow.
pub(crate) const CRATES: &[Crate] = &[
    Crate { directory: "engine/types", arrow: &[], tests: &[], outside: Some(DATA) },
    Crate { directory: "engine/raft", arrow: &["pontoon-types"], tests: &[], outside: Some(DATA) },
    Crate {
        directory: "wal",
        arrow: &["pontoon-types"],
        tests: &[],
        outside: Some(&["bytes", "crc32fast", "rkyv", "thiserror", "crossbeam-channel", "libc", "memmap2", "rustix"]),
    },
    Crate { directory: "shard-router", arrow: &["pontoon-types"], tests: &[], outside: Some(DATA) },
    Crate { directory: "engine/wire", arrow: &["pontoon-types"], tests: &[], outside: Some(DATA) },
    Crate {
        directory: "engine/multiraft",
        arrow: &["pontoon-types", "pontoon-raft", "pontoon-wal", "pontoon-router", "pontoon-wire"],
        // Its tests take the crate itself with the bugs that were put in on purpose.
        tests: &["pontoon-multiraft"],
        outside: Some(DATA),
    },
    Crate {
        directory: "engine/client",
        arrow: &["pontoon-types", "pontoon-router", "pontoon-wire"],
        tests: &[],
        outside: None,
    },
    Crate {
        directory: "engine/node",
        arrow: &["pontoon-types", "pontoon-raft", "pontoon-wal", "pontoon-router", "pontoon-wire", "pontoon-multiraft"],
        tests: &["pontoon-client"],
        outside: None,
    },
    Crate {
        directory: "engine/sim",
        arrow: &["pontoon-types", "pontoon-raft", "pontoon-wal", "pontoon-router", "pontoon-wire", "pontoon-multiraft"],
        // Its tests take the crate itself with the bugs that were put in on purpose.
        tests: &["pontoon-sim"],
        outside: None,
    },
    Crate {
        directory: "bench",
        arrow: &[
            "pontoon-types",
            "pontoon-raft",
            "pontoon-wal",
            "pontoon-router",
            "pontoon-wire",
            "pontoon-multiraft",
            "pontoon-client",
            "pontoon",
        ],
        tests: &[],
        outside: None,
    },
    Crate {
        directory: "tools",
        arrow: &["pontoon-types", "pontoon-wal", "pontoon-wire", "pontoon-client", "pontoon", "pontoon-sim"],
        tests: &[],
        outside: None,
    },
];

/// The dependencies of one manifest that the table does not allow.
pub(crate) fn check(path: &str, text: &str) -> Vec<Violation> {
    let Some(directory) = path.strip_suffix("/Cargo.toml") else {
        return Vec::new();
    };
    let violation = |line: usize, what: String| Violation { path: path.to_string(), line, law: Law::Arrow, what };
    let Some(row) = CRATES.iter().find(|row| row.directory == directory) else {
        return vec![violation(1, "the crate has no row in the table".to_string())];
    };
    dependencies(text)
        .into_iter()
        .filter(|dependency| !allows(row, dependency))
        .map(|dependency| violation(dependency.line, dependency.name))
        .collect()
}

fn allows(row: &Crate, dependency: &Dependency) -> bool {
    let name = dependency.name.as_str();
    if name == RUNTIME {
        return row.directory == RUNTIME_HOME;
    }
    if name == "pontoon" || name.starts_with("pontoon-") {
        return row.arrow.contains(&name) || dependency.tests_only && row.tests.contains(&name);
    }
    dependency.tests_only || row.outside.is_none_or(|outside| outside.contains(&name))
}

/// One dependency as a manifest names it.
#[derive(Debug, PartialEq, Eq)]
struct Dependency {
    name: String,
    line: usize,
    tests_only: bool,
}

/// All dependencies of a manifest, those of single targets too.
fn dependencies(text: &str) -> Vec<Dependency> {
    let (mut found, mut tests_only) = (Vec::new(), None);
    for (line, number) in text.lines().zip(1..) {
        let line = line.trim();
        if let Some(section) = line.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            let (table, name) = match section.split_once("dependencies.") {
                Some((before, name)) => (format!("{before}dependencies"), Some(name)),
                None => (section.to_string(), None),
            };
            let in_tests = table.ends_with("dev-dependencies");
            tests_only = (table.ends_with("dependencies") && name.is_none()).then_some(in_tests);
            if let Some(name) = name {
                found.push(Dependency { name: name.trim_matches('"').to_string(), line: number, tests_only: in_tests });
            }
        } else if let Some(tests_only) = tests_only
            && let Some((name, value)) = line.split_once('=')
            && !line.starts_with('#')
        {
            let own = name.split('.').next().unwrap_or_default().trim().trim_matches('"').to_string();
            // A renamed package counts by its own name.
            let renamed = value.split_once("package").and_then(|(_, package)| package.split('"').nth(1));
            found.push(Dependency { name: renamed.map_or(own, str::to_string), line: number, tests_only });
        }
    }
    found
}

#[test]
fn every_way_to_name_a_dependency_is_seen() {
    let text = "
[package]
name = \"x\"
[dependencies]
bytes.workspace = true
thiserror = { workspace = true }
hidden = { package = \"glommio\", version = \"1\" } # why
# commented = \"1\"
[target.'cfg(unix)'.dependencies]
libc = \"0.2\"
[dev-dependencies.proptest]
version = \"1\"
[build-dependencies]
cc = \"1\"
[features]
default = []
";
    let found: Vec<(String, bool)> = dependencies(text).into_iter().map(|it| (it.name, it.tests_only)).collect();
    let expected = [
        ("bytes", false),
        ("thiserror", false),
        ("glommio", false),
        ("libc", false),
        ("proptest", true),
        ("cc", false),
    ];
    assert_eq!(found, expected.map(|(name, tests_only)| (name.to_string(), tests_only)));
}
