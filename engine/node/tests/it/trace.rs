//! The trace of real processes, read as a checker outside would read it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use pontoon_client::{Client, ClientOptions};
use serde_json::Value;

use crate::support::{Process, directories};

/// What a checker keeps of a replica between two lines.
#[derive(Default)]
struct Seen {
    term: u64,
    vote: Option<u64>,
    commit: u64,
}

fn number(line: &Value, field: &str) -> u64 {
    line[field].as_u64().unwrap_or_else(|| panic!("{field} is a number in {line}"))
}

/// All lines of all nodes.
fn read(dir: &Path) -> Vec<Value> {
    let files = std::fs::read_dir(dir).unwrap().map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap());
    let texts: Vec<String> = files.collect();
    let lines = texts.iter().flat_map(|text| text.lines());
    lines.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

#[test]
fn a_trace_tells_enough_to_check_the_protocol_from_outside() {
    let nodes = directories(3, 4, 1);
    let dir = nodes.root.path().join("trace");
    std::fs::create_dir(&dir).unwrap();
    let arguments = ["--trace-dir", dir.to_str().unwrap()];
    let processes: Vec<Process> = (0..3).map(|node| Process::start(&arguments, nodes.dir(node))).collect();
    let options = ClientOptions { timeout: Duration::from_secs(10), ..ClientOptions::default() };
    let mut client = Client::connect(&nodes.addresses(), options).unwrap();
    for number in 0..20_u8 {
        client.put([number * 12], b"a value that no trace tells").unwrap();
    }
    for process in processes {
        process.terminate();
    }

    let lines = read(&dir);
    assert!(lines.iter().all(|line| !line.to_string().contains("value")), "what clients store is not told");
    let mut replicas: BTreeMap<(u64, u64), Seen> = BTreeMap::new();
    let mut leaders: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    let mut sent = BTreeSet::new();
    for line in &lines {
        let (node, group, term) = (number(line, "node"), number(line, "group"), number(line, "term"));
        let seen = replicas.entry((node, group)).or_default();
        let (vote, commit) = (line["vote"].as_u64(), number(line, "commit"));
        assert!(seen.term <= term && seen.commit <= commit, "neither falls: {line}");
        assert!(seen.term < term || seen.vote.is_none() || seen.vote == vote, "a vote stands: {line}");
        *seen = Seen { term, vote, commit };
        if line["role"] == "leader" {
            let leader = leaders.entry((group, term)).or_insert(node);
            assert_eq!(*leader, node, "a term has one leader: {line}");
        }
        assert_eq!(line["configuration"]["incoming"].as_array().unwrap().len(), 3, "{line}");
        if line["kind"] == "send" {
            sent.insert((group, line["message"].to_string()));
        }
    }
    let received: Vec<&Value> = lines.iter().filter(|line| line["kind"] == "receive").collect();
    assert!(!received.is_empty());
    for line in received {
        let message = (number(line, "group"), line["message"].to_string());
        assert!(sent.contains(&message), "what is received was sent: {line}");
    }
    assert_eq!(leaders.keys().map(|(group, _)| group).collect::<BTreeSet<_>>().len(), 4, "each group had a leader");
}
