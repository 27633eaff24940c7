//! A lost quorum, from the operator's side.

use std::path::{Path, PathBuf};

use pontoon::{InitPlan, LogOptions, Node, NodeConfig, NodeId, init};
use pontoon_client::{Client, ClientOptions};
use serde_json::Value;
use tempfile::TempDir;

use super::{code, error_line, free_address, out, pontoon};

/// Three nodes that have run, and hold a few keys.
struct Lived {
    dir: TempDir,
    nodes: Vec<(NodeId, PathBuf, std::net::SocketAddr)>,
}

impl Lived {
    fn new() -> Lived {
        let dir = tempfile::tempdir().unwrap();
        let node = |node: u64| (NodeId(node), dir.path().join(format!("n{node}")), free_address());
        let nodes: Vec<_> = (1..=3).map(node).collect();
        let log = LogOptions { segment_bytes: 1 << 20, max_log_bytes: 64 << 20, ..LogOptions::default() };
        init(&InitPlan { nodes: nodes.clone(), ranges: 4, cores: 1, log }).unwrap();
        let lived = Lived { dir, nodes };
        let running: Vec<Node> = (0..3).map(|place| lived.start(place)).collect();
        let mut client = lived.client(&[0, 1, 2]);
        (0..40_u8).for_each(|key| client.put(vec![key * 6], vec![key]).unwrap());
        running.into_iter().for_each(|node| node.stop().unwrap());
        lived
    }

    fn start(&self, place: usize) -> Node {
        Node::start(NodeConfig { pin: false, ..NodeConfig::new(&self.nodes[place].1) }).unwrap()
    }

    fn client(&self, of: &[usize]) -> Client {
        let addresses: Vec<_> = of.iter().map(|place| self.nodes[*place].2).collect();
        let options = ClientOptions { timeout: std::time::Duration::from_secs(30), ..ClientOptions::default() };
        Client::connect(&addresses, options).unwrap()
    }

    fn path(&self, place: usize) -> &str {
        self.nodes[place].1.to_str().unwrap()
    }
}

/// All files below a directory with their bytes, but the lock.
fn image(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let (mut found, mut open) = (Vec::new(), vec![dir.to_path_buf()]);
    while let Some(dir) = open.pop() {
        for path in std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                open.push(path);
            } else if !path.ends_with("LOCK") {
                found.push((path.clone(), std::fs::read(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_plan_comes_first_and_what_is_done_can_be_undone_or_confirmed() {
    let lived = Lived::new();
    let one = lived.path(0);
    let before = image(lived.dir.path());
    let planned = pontoon(&["recover", "--survivors", one]);
    assert_eq!(code(&planned), 10, "{planned:?}");
    assert!(error_line(&planned).contains("4 groups wait for a recovery; nothing was changed"));
    let text = out(&planned);
    for part in ["n1 survive, n2 n3 are taken for lost", "MAY BE MISSING", "begins anew", "r2 on n2, r3 on n3", "YES"] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    let planned = pontoon(&["recover", "--survivors", one, "--output", "json"]);
    let json: Value = serde_json::from_slice(&planned.stdout).unwrap();
    let group = &json["groups"][0];
    assert_eq!((&json["done"], &json["lost"]), (&false.into(), &serde_json::json!([2, 3])));
    assert_eq!(group["recovery"]["may_miss_writes"], true, "{json}");
    // The log notes how far its entries are committed, though there is no checkpoint of them.
    let known = group["committed"]["index"].as_u64().unwrap();
    assert!(known > 0, "{json}");
    let last = group["survivors"][0]["last"]["index"].as_u64().unwrap();
    assert_eq!(group["unproven_entries"], last - known, "{json}");
    assert!(before == image(lived.dir.path()), "a plan changes nothing");

    let done = pontoon(&["recover", "--survivors", one, "--i-understand"]);
    assert_eq!(code(&done), 0, "{done:?}");
    assert!(out(&done).contains("4 groups begin anew at the next start"));
    let kept = std::fs::read_to_string(lived.nodes[0].1.join("recovery").join("plan")).unwrap();
    assert!(kept.contains("MAY BE MISSING"), "{kept}");
    // What was before can be looked at, and what is now is whole.
    let recovery = lived.nodes[0].1.join("recovery");
    for dir in [one, recovery.to_str().unwrap()] {
        let verified = pontoon(&["wal", "verify", dir]);
        assert_eq!(code(&verified), 0, "{verified:?}");
    }
    let again = pontoon(&["recover", "--survivors", one]);
    assert_eq!((code(&again), error_line(&again).contains("confirm or undo that first")), (2, true), "{again:?}");
    let undone = pontoon(&["recover", "undo", one]);
    assert_eq!((code(&undone), &out(&undone)[..]), (0, "n1 is what it was before its recovery\n"), "{undone:?}");
    assert!(before == image(lived.dir.path()), "to the byte");

    assert_eq!(code(&pontoon(&["recover", "--survivors", one, "--i-understand"])), 0);
    let node = lived.start(0);
    let mut client = lived.client(&[0]);
    assert!((0..40_u8).filter(|key| client.get(vec![key * 6]).unwrap().as_deref() == Some(&[*key])).count() > 0);
    let running = pontoon(&["recover", "undo", one]);
    assert_eq!((code(&running), error_line(&running).contains("in use by another process")), (4, true), "{running:?}");
    let confirmed = pontoon(&["recover", "confirm", one]);
    assert_eq!(code(&confirmed), 0, "beside the running node: {confirmed:?}");
    client.put("after", "this").unwrap();
    node.stop().unwrap();
    let undone = pontoon(&["recover", "undo", one]);
    assert_eq!((code(&undone), error_line(&undone).contains("nothing to undo")), (2, true), "{undone:?}");
}

#[test]
fn what_runs_or_has_a_majority_is_refused() {
    let lived = Lived::new();
    let node = lived.start(0);
    let running = pontoon(&["recover", "--survivors", lived.path(0), "--i-understand"]);
    assert_eq!((code(&running), error_line(&running).contains("in use by another process")), (4, true), "{running:?}");
    node.stop().unwrap();
    let before = image(lived.dir.path());
    let two = &["recover", "--survivors", lived.path(0), lived.path(1)][..];
    let planned = pontoon(two);
    assert_eq!(code(&planned), 0, "{planned:?}");
    assert!(out(&planned).contains("g2 is left alone: a majority of its voters survives"), "{planned:?}");
    let refused = pontoon(&[two, &["--i-understand"]].concat());
    assert_eq!((code(&refused), error_line(&refused).contains("nothing was changed")), (2, true), "{refused:?}");
    assert!(before == image(lived.dir.path()));
    for arguments in [&["recover"][..], &["recover", "--i-understand"], &["recover", "undo"]] {
        assert_eq!(code(&pontoon(arguments)), 2, "{arguments:?}");
    }
    assert_eq!(code(&pontoon(&["recover", "--survivors", "nowhere"])), 4);
}
