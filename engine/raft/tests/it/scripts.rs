//! Runs the scripts in `tests/scripts`: one situation per file, as commands and the trace they print.
//!
//! A file is a row of blocks. A block is commands, one a line, then `---`, then the trace, then an empty line. Lines
//! that begin with `#` say why. `PONTOON_UPDATE_SCRIPTS=1` writes the traces anew; read them before you commit them.
//!
//! A trace names an event at the left margin and its effects below it. `r2 write w3 term=2 vote=r1 [4@2]` is a write
//! handed to the log, `r1→r2 …` a message that leaves, `(lost)` one that a partition swallows.
//!
//! Commands (a replica is a number; `A>B` names the direction from A to B):
//!
//! - `cluster n=3 …`: starts replicas 1 to n. Options: `founders` (so many are the group, the others wait), `seed`,
//!   `append_entries`, `append_bytes`, `inflight_messages`, `inflight_bytes`, `uncommitted_bytes`, `window_bytes`,
//!   `fetch_bytes`, `restored` (how many of the newest entries a start brings into memory), and `log1=1,1,2 term1=3` for
//!   what replica 1's disk holds (terms by index).
//! - `campaign R`, `timer R`, `claim R [to=S] [term=T]`, `lapse R…`, `peer-up R S`, `peer-restarted R S`: events.
//! - `fill R N`: proposes N small commands. `propose R a b`: one batch, after asking whether it is admitted. `xN` is a payload of N bytes.
//! - `rot R I…`: these payloads rot on the disk and are missing at the next start; `rot-vote R`: term and vote do.
//!   `mend R I…`: these are there again; `scrub R I…`: these rot and are reported while the replica runs. `postpone R`: an event.
//!   `decay R I…`: these rot, and nobody is told.
//! - `fetched R [S]`: the log of R answers all that it was asked for, or only what S needs; `cold R` / `warm R`: whether
//!   `stabilize` leaves that to `fetched`. `lazy R`: its machine applies only with `apply R [I]`. `compact R I`, `shed R`:
//!   events. `window R` prints what is in memory. `snapshot A>B I`: B has stored a snapshot that A made at I.
//! - `change R voter=4,5 learner=6 remove=1 [joint] [stay]`: changes the members, after asking; `joint` goes through a joint
//!   configuration even if it need not, `stay` does not leave it. `leave R`: leaves it. `transfer R S`: hands over.
//!   `prefer R P`: how eager R is.
//! - `durable R [wN]`: writes under way, all or through wN, are durable. `slow R` / `fast R`: whether `stabilize`
//!   leaves that replica's writes under way.
//! - `deliver` (all that is queued now), `deliver A>B [K] [copy]` (the K-th message on that way, counted from 1, else all;
//!   `copy` leaves it queued), `drop A>B [K]`, `queue`.
//! - `inject A>B term=T previous=I@T [entries=I@T,…] [commit=I]`: an Append from nowhere; `inject A>B term=T matched=I`: an
//!   acknowledgement from nowhere; `inject A>B term=T vote=I@T [permit=L@T]`: a request for a vote, its log ending there;
//!   `inject A>B term=T now`: a TimeoutNow;
//!   `inject A>B term=T pre-vote=granted`: a pre-vote.
//! - `stabilize`: delivers and syncs until nothing is under way.
//! - `pass 1s`: moves time and fires no timer. `advance 1s`: moves time and fires timers; messages wait. `run 1s`: the same, stabilizing after each timer.
//! - `partition R…` (cuts these off from all others), `cut A>B`, `heal`, `crash R [keep=K]` (K writes under way reach
//!   the disk all the same), `restart R` (crashes first if it runs).
//! - `status [R]`, `members [R]` (what is in force), `log [R]`, `read R` (its read index), `confirms R T`.
//! - `?command` must make a replica refuse what it hears, and no other command may.
//! - `!command` must panic; the message is printed and the replica it broke is not used again. `(command)` prints nothing.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use pontoon_raft::membership::Change;
use pontoon_raft::{Config, Event, MembersChange, Priority, Raft, Reader};
use pontoon_types::{Body, Entry, EntryKind, HardState, Index, LogId, Message, Permit, ReplicaId, Term, WriteNumber};

use crate::checker::Disk;
use crate::cluster::{Cluster, format_message, members_in};
use crate::membership::member;

#[test]
fn scripts_print_their_traces() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut paths: Vec<_> = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 18, "the scripts are found");
    let update = std::env::var_os("PONTOON_UPDATE_SCRIPTS").is_some();
    let mut wrong = Vec::new();
    for path in paths {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# "), "{name} begins with the reason for the script");
        let printed = run(&name, &text, &Config::default());
        if update {
            fs::write(&path, &printed).unwrap();
        } else if printed != text {
            wrong.push(difference(&name, &text, &printed));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The first line that differs, which is nearly always the one that explains the rest.
fn difference(name: &str, expected: &str, printed: &str) -> String {
    let (mut expected, mut printed) = (expected.lines(), printed.lines());
    for line in 1.. {
        let (left, right) = (expected.next(), printed.next());
        if left != right {
            let (left, right) = (left.unwrap_or("(end)"), right.unwrap_or("(end)"));
            return format!("{name}:{line}: expected\n  {left}\nprinted\n  {right}");
        }
    }
    unreachable!("the texts differ")
}

/// The text of a script with its traces printed anew.
pub fn run(name: &str, text: &str, config: &Config) -> String {
    let mut runner = Runner { config: config.clone(), cluster: None };
    let mut printed = String::new();
    let mut lines = text.lines().enumerate();
    let mut commands = 0;
    while let Some((number, line)) = lines.next() {
        if line == "---" {
            printed += "---\n";
            let trace = runner.cluster.as_mut().map(|cluster| std::mem::take(&mut cluster.trace)).unwrap_or_default();
            printed += if trace.is_empty() { "(nothing)\n" } else { &trace };
            // The old trace is skipped up to the empty line that ends it.
            for (_, old) in lines.by_ref() {
                if old.is_empty() {
                    break;
                }
            }
            printed += "\n";
            continue;
        }
        printed += line;
        printed += "\n";
        if !line.is_empty() && !line.starts_with('#') {
            commands += 1;
            let outcome = catch_unwind(AssertUnwindSafe(|| runner.command(line)));
            assert!(outcome.is_ok(), "{name}:{}: {line}: {}", number + 1, panic_text(outcome));
        }
    }
    assert!(commands > 0, "{name} has commands");
    printed.truncate(printed.trim_end().len());
    printed + "\n"
}

fn panic_text(outcome: std::thread::Result<()>) -> String {
    match outcome {
        Ok(()) => "no panic".into(),
        Err(payload) => match payload.downcast::<String>() {
            Ok(text) => *text,
            Err(payload) => payload.downcast::<&str>().map_or("a panic without text".into(), |text| text.to_string()),
        },
    }
}

struct Runner {
    config: Config,
    cluster: Option<Cluster>,
}

impl Runner {
    fn command(&mut self, line: &str) {
        if let Some(line) = line.strip_prefix('!') {
            let outcome = catch_unwind(AssertUnwindSafe(|| self.command(line)));
            assert!(outcome.is_err(), "{line} does not panic");
            let text = panic_text(outcome);
            return self.cluster().print(format_args!("panic: {text}"));
        }
        if let Some(line) = line.strip_prefix('?') {
            let before = self.cluster().trace.len();
            self.cluster().tolerant = true;
            self.command(line);
            self.cluster().tolerant = false;
            return assert!(self.cluster().trace[before..].contains(" refuses what "), "{line} is not refused");
        }
        if let Some(line) = line.strip_prefix('(').and_then(|line| line.strip_suffix(')')) {
            let before = self.cluster.as_ref().map_or(0, |cluster| cluster.trace.len());
            self.command(line);
            return self.cluster().trace.truncate(before);
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let (verb, arguments) = words.split_first().expect("a command has a verb");
        if *verb == "cluster" {
            self.cluster = Some(start(self.config.clone(), arguments));
            return;
        }
        let cluster = self.cluster();
        match *verb {
            "campaign" | "timer" | "postpone" | "claim" | "lapse" | "peer-up" | "peer-restarted" | "propose"
            | "shed" | "compact" => {
                event(cluster, verb, arguments);
            }
            "fill" => fill(cluster, arguments),
            "snapshot" => {
                let (from, to) = direction(arguments[0]);
                cluster.install(from, to, Index(arguments[1].parse().expect("an index")));
            }
            "change" | "leave" | "transfer" | "prefer" => govern(cluster, verb, arguments),
            "deliver" | "drop" | "queue" => messages(cluster, verb, arguments),
            "inject" => inject(cluster, arguments),
            "durable" => durable(cluster, arguments),
            "fetched" => {
                let one = arguments.get(1).map(|word| Reader::Peer(replica(word)));
                let id = replica(arguments[0]);
                let readers: Vec<Reader> = cluster.nodes[&id].fetches.keys().copied().collect();
                let chosen = readers.into_iter().filter(|reader| one.is_none_or(|one| one == *reader));
                chosen.for_each(|reader| cluster.serve(id, reader));
            }
            "cold" | "warm" => cluster.node(replica(arguments[0])).cold = *verb == "cold",
            "lazy" => cluster.node(replica(arguments[0])).lazy = true,
            "apply" => {
                let id = replica(arguments[0]);
                let through = arguments.get(1).map_or(Index(u64::MAX), |word| Index(word.parse().expect("an index")));
                cluster.apply(id, through);
                let applied = cluster.nodes[&id].applied;
                cluster.print(format_args!("{id} has applied {applied}"));
            }
            "slow" | "fast" => cluster.node(replica(arguments[0])).slow = *verb == "slow",
            "stabilize" => cluster.stabilize(),
            "advance" => cluster.advance(span(arguments[0]), false),
            "run" => cluster.advance(span(arguments[0]), true),
            "pass" => cluster.now = cluster.now + span(arguments[0]),
            "partition" | "cut" | "heal" => network(cluster, verb, arguments),
            "crash" | "restart" => restart(cluster, verb, arguments),
            "rot" | "rot-vote" | "scrub" | "decay" | "mend" => rot(cluster, verb, arguments),
            "status" | "members" | "log" | "window" | "read" | "confirms" => show(cluster, verb, arguments),
            _ => panic!("there is no command {verb}"),
        }
    }

    fn cluster(&mut self) -> &mut Cluster {
        self.cluster.as_mut().expect("a script begins with a cluster")
    }
}

fn start(mut config: Config, arguments: &[&str]) -> Cluster {
    let mut disks: BTreeMap<ReplicaId, Disk> = BTreeMap::new();
    let (mut count, mut founders, mut seed, mut restored) = (3, None, 1, usize::MAX);
    for (key, value) in arguments.iter().map(|argument| argument.split_once('=').expect("an option is key=value")) {
        let number = || value.parse::<usize>().expect("the option is a number");
        match key {
            "n" => count = number() as u64,
            "founders" => founders = Some(number() as u64),
            "seed" => seed = number() as u64,
            "append_entries" => config.append_entries_max = number(),
            "append_bytes" => config.append_bytes_max = number(),
            "inflight_messages" => config.inflight_messages_max = number(),
            "inflight_bytes" => config.inflight_bytes_max = number(),
            "uncommitted_bytes" => config.uncommitted_bytes_max = number(),
            "window_bytes" => config.window_bytes_max = number(),
            "fetch_bytes" => config.fetch_bytes_max = number(),
            "restored" => restored = number(),
            _ if key.starts_with("log") => {
                let disk = disks.entry(replica(&key[3..])).or_default();
                disk.entries = value.split(',').enumerate().map(|(place, term)| stored(place, term)).collect();
                let last = disk.entries.last().map_or(Term(0), |entry| entry.id.term);
                disk.hard_state.term = disk.hard_state.term.max(last);
            }
            _ if key.starts_with("term") => {
                let disk = disks.entry(replica(&key[4..])).or_default();
                disk.hard_state = HardState { term: Term(number() as u64), vote: None };
            }
            _ => panic!("there is no option {key}"),
        }
    }
    let cluster = Cluster::with_spares(config, count, founders.unwrap_or(count), seed, disks);
    if restored < usize::MAX { cluster.with_restored_entries(restored) } else { cluster }
}

fn stored(place: usize, term: &str) -> Entry {
    named(&format!("{}@{term}", place + 1))
}

/// An entry that carries its own name.
fn named(id: &str) -> Entry {
    Entry::command(log_id(id), Bytes::from(id.to_owned()))
}

fn log_id(word: &str) -> LogId {
    let (index, term) = word.split_once('@').expect("an entry is index@term");
    LogId::new(Index(index.parse().expect("an index")), Term(term.parse().expect("a term")))
}

fn event(cluster: &mut Cluster, verb: &str, arguments: &[&str]) {
    let id = replica(arguments[0]);
    match verb {
        "campaign" => {
            cluster.print(format_args!("{id} campaign"));
            cluster.step(id, Event::Campaign);
        }
        "postpone" => {
            cluster.print(format_args!("{id} postpone"));
            cluster.step(id, Event::Postpone);
        }
        "shed" => {
            cluster.print(format_args!("{id} shed"));
            cluster.step(id, Event::Shed);
        }
        "compact" => {
            let to = Index(arguments[1].parse().expect("an index"));
            cluster.print(format_args!("{id} compact up to {to}"));
            cluster.step(id, Event::Compact(to));
        }
        "timer" => {
            let now = cluster.now;
            cluster.print(format_args!("{id} timer at {now}"));
            cluster.step(id, Event::Timer);
        }
        "propose" => propose(cluster, id, &arguments[1..]),
        "claim" => {
            let to = option(arguments, "to").map(replica);
            let term = option(arguments, "term").map(|term| Term(term.parse().expect("a term")));
            let term = term.unwrap_or_else(|| cluster.raft(id).term());
            for other in cluster.ids().into_iter().filter(|&other| to.map_or(other != id, |to| to == other)) {
                if !cluster.cut.contains(&(id, other)) {
                    cluster.print(format_args!("{other} hears that {id} leads term {term}"));
                    cluster.step(other, Event::Claimed { leader: id, term });
                }
            }
        }
        "lapse" => {
            for id in arguments.iter().copied().map(replica) {
                cluster.print(format_args!("{id} support lapsed"));
                cluster.step(id, Event::Lapsed);
            }
        }
        _ => {
            let peer = replica(arguments[1]);
            cluster.print(format_args!("{id} {verb} {peer}"));
            cluster.step(id, if verb == "peer-up" { Event::PeerUp(peer) } else { Event::PeerRestarted(peer) });
        }
    }
}

fn propose(cluster: &mut Cluster, id: ReplicaId, words: &[&str]) {
    let payload = |word: &&str| match word.strip_prefix('x').and_then(|bytes| bytes.parse::<usize>().ok()) {
        Some(bytes) => Bytes::from(vec![b'x'; bytes]),
        None => Bytes::from(word.to_string()),
    };
    let payloads: Vec<Bytes> = words.iter().map(payload).collect();
    let forced = words.is_empty();
    match cluster.raft(id).admit(payloads.iter().map(Bytes::len).sum()) {
        Err(refused) if !forced => cluster.print(format_args!("{id} refuses: {refused} ({refused:?})")),
        _ => {
            let line = format!("{id} propose {}", words.join(" "));
            cluster.print(format_args!("{}", line.trim_end()));
            cluster.step(id, Event::Propose(payloads));
        }
    }
}

/// Proposes so many small commands in one batch.
fn fill(cluster: &mut Cluster, arguments: &[&str]) {
    let count: usize = arguments[1].parse().expect("a number of commands");
    cluster.step(replica(arguments[0]), Event::Propose(vec![Bytes::from_static(b"x"); count]));
}

/// Changes of the members and of the leader.
fn govern(cluster: &mut Cluster, verb: &str, arguments: &[&str]) {
    let id = replica(arguments[0]);
    let line = format!("{id} {verb} {}", arguments[1..].join(" "));
    let (refused, event) = match verb {
        "prefer" => (None, Event::Prefer(Priority(arguments[1].parse().expect("a priority")))),
        "transfer" => {
            let to = replica(arguments[1]);
            let refused = cluster.raft(id).admit_transfer(to).err();
            (refused.map(|refused| format!("{refused} ({refused:?})")), Event::Transfer(to))
        }
        _ => {
            let change = if verb == "leave" { MembersChange::Leave } else { change(&arguments[1..]) };
            let refused = cluster.raft(id).admit_change(&change).err();
            (refused.map(|refused| format!("{refused} ({refused:?})")), Event::Change(change))
        }
    };
    cluster.print(format_args!("{}", line.trim_end()));
    match refused {
        Some(refused) => cluster.print(format_args!("  {id} refuses: {refused}")),
        None => cluster.step(id, event),
    }
}

fn change(arguments: &[&str]) -> MembersChange {
    let named = |key| option(arguments, key).map(|ids| ids.split(',').map(replica).collect::<Vec<_>>());
    let voters = named("voter").into_iter().flatten().map(|id| Change::Voter(member(id.0)));
    let learners = named("learner").into_iter().flatten().map(|id| Change::Learner(member(id.0)));
    let removed = named("remove").into_iter().flatten().map(Change::Remove);
    let changes = voters.chain(learners).chain(removed).collect();
    match arguments.contains(&"joint") {
        true => MembersChange::Joint { changes, auto_leave: !arguments.contains(&"stay") },
        false => MembersChange::Simple(changes),
    }
}

fn messages(cluster: &mut Cluster, verb: &str, arguments: &[&str]) {
    let way = arguments.first().map(|argument| direction(argument));
    let on_way: Vec<usize> = (0..cluster.queue.len())
        .filter(|&place| way.is_none_or(|way| way == (cluster.queue[place].from, cluster.queue[place].to)))
        .collect();
    let chosen = match arguments.get(1).and_then(|word| word.parse::<usize>().ok()) {
        Some(number) => vec![*on_way.get(number - 1).expect("so many messages are queued")],
        None => on_way,
    };
    match verb {
        "queue" => {
            for place in chosen {
                let line = format_message(&cluster.queue[place]);
                cluster.print(format_args!("queued {line}"));
            }
        }
        "deliver" if arguments.contains(&"copy") => {
            for place in chosen {
                let message = cluster.queue[place].clone();
                cluster.receive(message);
            }
        }
        "deliver" => {
            let taken: Vec<_> = chosen.iter().rev().map(|&place| cluster.queue.remove(place)).collect();
            taken.into_iter().rev().for_each(|message| cluster.receive(message));
        }
        _ => {
            for &place in chosen.iter().rev() {
                let message = cluster.queue.remove(place);
                cluster.print(format_args!("dropped {}", format_message(&message)));
            }
        }
    }
}

fn inject(cluster: &mut Cluster, arguments: &[&str]) {
    let (from, to) = direction(arguments[0]);
    let index = |key| option(arguments, key).map(|word| Index(word.parse().expect("an index")));
    let term = Term(option(arguments, "term").expect("a term").parse().expect("a term"));
    let body = match (index("matched"), option(arguments, "vote"), option(arguments, "pre-vote")) {
        (Some(matched), ..) => Body::AppendResponse { matched },
        (_, Some(last), _) => Body::Vote { last: log_id(last), permit: option(arguments, "permit").map(permit) },
        _ if arguments.contains(&"now") => Body::TimeoutNow,
        (.., Some(answer)) => Body::PreVoteResponse { granted: answer == "granted" },
        _ => Body::Append {
            previous: log_id(option(arguments, "previous").expect("a previous entry")),
            entries: option(arguments, "entries").map_or(Vec::new(), |ids| ids.split(',').map(named).collect()),
            commit: index("commit").unwrap_or_default(),
        },
    };
    cluster.receive(Message { from, to, term, body });
}

fn permit(word: &str) -> Permit {
    let (leader, term) = word.split_once('@').expect("a permit is leader@term");
    Permit { leader: replica(leader), term: Term(term.parse().expect("a term")) }
}

fn durable(cluster: &mut Cluster, arguments: &[&str]) {
    let id = replica(arguments[0]);
    let count = match arguments.get(1).and_then(|word| word.strip_prefix('w')) {
        Some(number) => cluster.writes_through(id, WriteNumber(number.parse().expect("a write number"))),
        None => usize::MAX,
    };
    cluster.durable(id, count);
}

fn network(cluster: &mut Cluster, verb: &str, arguments: &[&str]) {
    match verb {
        "heal" => cluster.cut.clear(),
        "cut" => {
            cluster.cut.insert(direction(arguments[0]));
        }
        _ => {
            let inside: Vec<ReplicaId> = arguments.iter().copied().map(replica).collect();
            for outside in cluster.ids().into_iter().filter(|id| !inside.contains(id)) {
                for &id in &inside {
                    cluster.cut.insert((id, outside));
                    cluster.cut.insert((outside, id));
                }
            }
        }
    }
}

fn restart(cluster: &mut Cluster, verb: &str, arguments: &[&str]) {
    let id = replica(arguments[0]);
    let kept = option(arguments, "keep").map_or(0, |kept| kept.parse().expect("a number of writes"));
    if cluster.nodes[&id].raft.is_some() {
        cluster.print(format_args!("{id} crashed"));
        cluster.crash(id, kept);
    }
    if verb == "restart" {
        cluster.print(format_args!("{id} started"));
        cluster.start(id);
    }
}

fn rot(cluster: &mut Cluster, verb: &str, arguments: &[&str]) {
    let id = replica(arguments[0]);
    let indexes: Vec<Index> = arguments[1..].iter().map(|word| Index(word.parse().expect("an index"))).collect();
    let shown: Vec<String> = indexes.iter().map(|index| index.to_string()).collect();
    let shown = shown.join(" ");
    match verb {
        "rot-vote" => {
            cluster.print(format_args!("{id}'s term and vote rot"));
            cluster.node(id).disk.rot_vote();
        }
        "mend" => cluster.node(id).disk.lost.retain(|index| !indexes.contains(index)),
        "decay" => {
            cluster.print(format_args!("{id}'s payloads rot, unseen: {shown}"));
            for index in &indexes {
                cluster.node(id).disk.rot(*index);
                cluster.node(id).disk.unseen.insert(*index);
            }
        }
        _ => {
            cluster.print(format_args!("{id}'s payloads rot: {shown}"));
            let held = cluster.nodes[&id].disk.entries.len() as u64;
            let rotten = indexes.iter().filter(|index| index.0 <= held);
            rotten.for_each(|index| cluster.node(id).disk.rot(*index));
        }
    }
    if verb == "scrub" {
        cluster.step(id, Event::Lost(indexes));
    }
}

fn show(cluster: &mut Cluster, verb: &str, arguments: &[&str]) {
    let one = arguments.first().copied().map(replica);
    for id in cluster.ids().into_iter().filter(|&id| one.is_none_or(|one| one == id)) {
        let line = match &cluster.nodes[&id].raft {
            None => "is down".into(),
            Some(raft) => match verb {
                "status" => status(raft),
                "members" => format!("members {} since {}", raft.configuration(), raft.configuration_at()),
                "log" => log(&cluster.nodes[&id].written),
                "window" => window(raft),
                "confirms" => {
                    let term = Term(arguments[1].parse().expect("a term"));
                    format!("confirms term {term}: {}", raft.confirms(term))
                }
                _ => format!("read index {}", raft.read_index().map_or("none".into(), |index| index.to_string())),
            },
        };
        cluster.print(format_args!("{id} {line}"));
    }
}

fn status(raft: &Raft) -> String {
    let named = |id: Option<ReplicaId>| id.map_or("none".into(), |id| id.to_string());
    let missing: Vec<String> = raft.missing().map(|index| index.to_string()).collect();
    let lost = if missing.is_empty() { String::new() } else { format!(" missing={}", missing.join(",")) };
    let lost = lost + if raft.is_vote_lost() { " vote-lost" } else { "" };
    format!(
        "{} term={} vote={} leader={} last={} durable={} committed={} deadline={}{lost}",
        raft.role(),
        raft.term(),
        named(raft.vote()),
        named(raft.leader()),
        raft.last(),
        raft.durable(),
        raft.committed(),
        raft.deadline().map_or("none".into(), |deadline| deadline.to_string()),
    )
}

/// What is in memory, and what is known of the rest.
fn window(raft: &Raft) -> String {
    let held: Vec<String> =
        raft.entries(raft.first_held(), Index(u64::MAX)).map(|entry| entry.id.to_string()).collect();
    format!("holds [{}] of {}..{}, applied={}", held.join(" "), raft.compacted(), raft.last(), raft.applied())
}

fn log(written: &Disk) -> String {
    let lost = |entry: &Entry| written.lost.contains(&entry.id.index);
    let entry = |entry: &Entry| match entry.kind {
        _ if lost(entry) => format!("{}=", entry.id),
        EntryKind::Command => format!("{}={}", entry.id, entry.payload.escape_ascii()),
        EntryKind::Configuration => format!("{}={}", entry.id, members_in(entry)),
    };
    let entries: Vec<String> = written.entries[written.compacted.index.0 as usize..].iter().map(entry).collect();
    format!("log {}", if entries.is_empty() { "is empty".into() } else { entries.join(" ") })
}

fn replica(word: &str) -> ReplicaId {
    ReplicaId(word.parse().expect("a replica is a number"))
}

fn direction(word: &str) -> (ReplicaId, ReplicaId) {
    let (from, to) = word.split_once('>').expect("a way is A>B");
    (replica(from), replica(to))
}

fn option<'a>(arguments: &[&'a str], key: &str) -> Option<&'a str> {
    arguments.iter().find_map(|argument| argument.strip_prefix(key)?.strip_prefix('='))
}

fn span(word: &str) -> Duration {
    match word.strip_suffix("ms") {
        Some(number) => Duration::from_millis(number.parse().expect("milliseconds")),
        None => Duration::from_secs(word.strip_suffix('s').expect("a span is in s or ms").parse().expect("seconds")),
    }
}
