//! The laws of the code.

use super::Violation;
use super::lexer::{self, Token};

/// What a text may break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Law {
    Arrow,
    File,
    Socket,
    Thread,
    Clock,
    Environment,
    Async,
    Random,
    Unordered,
    Global,
    Print,
    Prose,
    Length,
    UnsafeHome,
    UnsafeReason,
    Machine,
}

impl Law {
    /// All laws, so that a test can ask for a bad sample of each.
    pub(crate) const ALL: [Law; 16] = [
        Law::Arrow,
        Law::File,
        Law::Socket,
        Law::Thread,
        Law::Clock,
        Law::Environment,
        Law::Async,
        Law::Random,
        Law::Unordered,
        Law::Global,
        Law::Print,
        Law::Prose,
        Law::Length,
        Law::UnsafeHome,
        Law::UnsafeReason,
        Law::Machine,
    ];

    /// The law in words.
    pub(crate) fn sentence(self) -> &'static str {
        match self {
            Law::Arrow => "the arrow does not allow this dependency",
            Law::File => "this code names no file",
            Law::Socket => "this code names no socket",
            Law::Thread => "this code names no thread",
            Law::Clock => "this code reads no clock",
            Law::Environment => "this code reads no environment",
            Law::Async => "this code is not async",
            Law::Random => "this code draws no random numbers",
            Law::Unordered => "this code has no maps without an order",
            Law::Global => "this code has no global state",
            Law::Print => "this code prints nothing",
            Law::Prose => "a file opens with prose (`//!`)",
            Law::Length => "a file is at most 800 lines long",
            Law::UnsafeHome => "unsafe code lives in files that open with allow(unsafe_code)",
            Law::UnsafeReason => "a comment with SAFETY stands at most four lines above unsafe code",
            Law::Machine => "a text names no path of one machine",
        }
    }
}

/// The longest file, lines.
const LINES_MAX: usize = 800;

/// How far above unsafe code its reason may stand, lines.
const REASON_LINES_MAX: usize = 4;

/// The crates whose sources are pure.
const PURE: [&str; 6] = [
    "engine/types/src/",
    "engine/raft/src/",
    "engine/multiraft/src/",
    "engine/wire/src/",
    "shard-router/src/",
    "wal/src/",
];

/// The modules of the log that may name files and threads.
const WAL_FILES: [&str; 5] =
    ["wal/src/file.rs", "wal/src/file/", "wal/src/prepare.rs", "wal/src/prepare/", "wal/src/cold.rs"];

/// The one file of the log that may name threads and clocks: the keeper rests by time, and decides nothing by it.
const WAL_KEEPER: &str = "wal/src/keeper/thread.rs";

/// The simulator, and the one file of it that may name threads.
const SIM: &str = "engine/sim/src/";
const SIM_JOBS: &str = "engine/sim/src/jobs.rs";

/// The laws that one source file breaks.
pub(crate) fn check(path: &str, text: &str) -> Vec<Violation> {
    let source = lexer::read(text);
    let mut broken = Vec::new();
    if !text.starts_with("//!") {
        broken.push((1, Law::Prose, "the first line".to_string()));
    }
    let lines = text.lines().count();
    if lines > LINES_MAX {
        broken.push((lines, Law::Length, format!("{lines} lines")));
    }
    check_unsafe(&source, &mut broken);
    let bans = bans(path);
    if !bans.is_empty() {
        let tokens = lexer::without_tests(&source.tokens);
        broken.extend(named(&tokens).into_iter().filter(|(_, law, _)| bans.contains(law)));
    }
    let violation = |(line, law, what)| Violation { path: path.to_string(), line, law, what };
    broken.into_iter().map(violation).collect()
}

/// What is banned in a file.
fn bans(path: &str) -> &'static [Law] {
    if WAL_FILES.iter().any(|home| path.starts_with(home)) {
        // Its files and threads are what it is for; the rest holds there too.
        &[Law::Socket, Law::Clock, Law::Environment, Law::Async, Law::Random, Law::Unordered, Law::Global, Law::Print]
    } else if path == WAL_KEEPER {
        // The system's own crate counts as a file, and says how low the thread's priority is.
        &[Law::Socket, Law::Environment, Law::Async, Law::Random, Law::Unordered, Law::Global, Law::Print]
    } else if PURE.iter().any(|home| path.starts_with(home)) {
        &[
            Law::File,
            Law::Socket,
            Law::Thread,
            Law::Clock,
            Law::Environment,
            Law::Async,
            Law::Random,
            Law::Unordered,
            Law::Global,
            Law::Print,
        ]
    } else if path.starts_with(SIM) && path != SIM_JOBS {
        &[Law::Thread]
    } else {
        &[]
    }
}

/// Everything that a law may ban: line, law, and what was named.
fn named(tokens: &[Token]) -> Vec<(usize, Law, String)> {
    let mut found = Vec::new();
    for (path, line) in lexer::paths(tokens) {
        found.extend(laws_of_path(&path).iter().map(|law| (line, *law, path.clone())));
    }
    for (at, token) in tokens.iter().enumerate() {
        let next = tokens.get(at + 1).map_or("", |token| token.text.as_str());
        let law = match token.text.as_str() {
            "async" | "await" => Law::Async,
            "print" | "println" | "eprint" | "eprintln" | "dbg" if next == "!" => Law::Print,
            "static" if is_state(&tokens[at + 1..]) => Law::Global,
            _ => continue,
        };
        found.push((token.line, law, token.text.clone()));
    }
    found
}

/// The laws that stand against a path.
fn laws_of_path(path: &str) -> &'static [Law] {
    let begins = |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    let has = |words: &[&str]| path.split("::").any(|word| words.contains(&word));
    if path == "std::*" {
        // Everything comes in by a star, so nothing could be told apart afterwards.
        &[Law::File, Law::Socket, Law::Thread, Law::Clock, Law::Environment]
    } else if ["std::fs", "memmap2", "rustix", "libc"].into_iter().any(begins) {
        &[Law::File]
    } else if begins("std::net") || begins("std::os::unix::net") {
        &[Law::Socket]
    } else if begins("std::thread") || begins("crossbeam_channel") {
        &[Law::Thread]
    } else if begins("std::env") {
        &[Law::Environment]
    } else if path == "std::time" || path == "std::time::*" || has(&["Instant", "SystemTime"]) {
        &[Law::Clock]
    } else if ["rand", "getrandom", "fastrand"].into_iter().any(begins) || has(&["RandomState"]) {
        &[Law::Random]
    } else if has(&["HashMap", "HashSet"]) {
        &[Law::Unordered]
    } else if has(&["thread_local", "lazy_static"]) {
        &[Law::Global]
    } else {
        &[]
    }
}

/// Whether a static item holds what can change.
fn is_state(item: &[Token]) -> bool {
    let mut declaration = item.iter().take_while(|token| token.text != "=" && token.text != ";");
    declaration.any(|token| {
        let word = token.text.as_str();
        let lazy = word.starts_with("Lazy") || word.starts_with("Once");
        word == "mut"
            || word == "RwLock"
            || word.ends_with("Mutex")
            || word.ends_with("Cell")
            || word.starts_with("Atomic")
            || lazy
    })
}

/// Whether one of the attributes at the beginning of a file allows unsafe code.
fn opens_with_allowance(mut tokens: &[Token]) -> bool {
    while lexer::begins_with(tokens, &["#", "!", "["]) {
        if lexer::begins_with(&tokens[3..], &["allow", "(", "unsafe_code"]) {
            return true;
        }
        let end = tokens.iter().position(|token| token.text == "]").unwrap_or(tokens.len() - 1);
        tokens = &tokens[end + 1..];
    }
    false
}

/// Unsafe code outside its home, and unsafe code without a reason.
fn check_unsafe(source: &lexer::Source, broken: &mut Vec<(usize, Law, String)>) {
    let home = opens_with_allowance(&source.tokens);
    for token in source.tokens.iter().filter(|token| token.text == "unsafe") {
        if !home {
            broken.push((token.line, Law::UnsafeHome, token.text.clone()));
        }
        let near = |line: usize| line <= token.line && line + REASON_LINES_MAX >= token.line;
        if !source.comments.iter().any(|(line, comment)| near(*line) && comment.contains("SAFETY")) {
            broken.push((token.line, Law::UnsafeReason, token.text.clone()));
        }
    }
}
