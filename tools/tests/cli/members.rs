//! Members and leaders as an operator changes them.

use serde_json::{Value, json};

use super::{Cluster, code, error_line, out};

impl Cluster {
    /// What `pontoon members` says of a group, once it has a leader.
    fn members(&self, group: &str) -> Value {
        let output = self.run("members", &[group, "--output", "json"]);
        assert_eq!(code(&output), 0, "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

/// The nodes of the members with this standing.
fn nodes(members: &Value, standing: &str) -> Vec<u64> {
    let all = members["members"].as_array().unwrap().iter();
    let mut nodes: Vec<u64> =
        all.filter(|member| member["standing"] == standing).map(|member| member["node"].as_u64().unwrap()).collect();
    nodes.sort_unstable();
    nodes
}

#[test]
fn members_are_shown_changed_and_changed_back() {
    let cluster = Cluster::start();
    let before = cluster.members("g2");
    assert_eq!((nodes(&before, "voter"), &before["changing"]), (vec![1, 2, 3], &json!(false)));
    let table = out(&cluster.run("members", &["2"]));
    assert!(["standing", "voter", "leads", "n3"].iter().all(|part| table.contains(part)), "{table}");

    let leader = before["leader"].as_u64().unwrap();
    let gone = if leader == 3 { 2 } else { 3 };
    let stay: Vec<String> = (1..=3).filter(|node| *node != gone).map(|node| node.to_string()).collect();
    let stay = stay.join(",");
    let plan = cluster.run("members", &["g2", "--set", &stay, "--dry-run"]);
    assert_eq!(code(&plan), 0, "{plan:?}");
    assert!(out(&plan).starts_with("step 1 of 1: voters "), "{plan:?}");
    assert_eq!(cluster.members("g2")["generation"], before["generation"], "a plan changes nothing");

    assert_eq!(code(&cluster.run("members", &["g2", "--set", &stay])), 0);
    let smaller = cluster.members("g2");
    assert_eq!(nodes(&smaller, "voter").len(), 2, "{smaller}");
    let again = cluster.run("members", &["g2", "--set", &stay]);
    assert!(code(&again) == 0 && out(&again).starts_with("g2 has these members already"), "{again:?}");
    assert_eq!(cluster.members("g2")["generation"], smaller["generation"]);

    let back = cluster.run("members", &["g2", "--set", "n1,n2,n3", "--output", "json"]);
    assert_eq!(code(&back), 0, "{back:?}");
    let back: Value = serde_json::from_slice(&back.stdout).unwrap();
    assert_eq!(nodes(&back, "voter"), [1, 2, 3]);
    assert_eq!(back["plan"].as_array().unwrap().len(), 2, "a new replica is a learner first: {back}");
    assert_eq!(code(&cluster.run("put", &["k", "v"])), 0);
}

#[test]
fn a_leadership_is_handed_over() {
    let cluster = Cluster::start();
    let leader = cluster.members("g3")["leader"].as_u64().unwrap();
    let (to, learner) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    let output = cluster.run("transfer", &["g3", "--to", &to.to_string()]);
    assert_eq!(code(&output), 0, "{output:?}");
    assert!(out(&output).ends_with(&format!("n{to} leads g3\n")), "{output:?}");
    assert_eq!(cluster.members("g3")["leader"], to);
    let again = cluster.run("transfer", &["g3", "--to", &format!("n{to}")]);
    assert_eq!((code(&again), out(&again)), (0, format!("n{to} leads g3 already\n")));

    let prefer = |priority: &str| cluster.run("prefer", &["g3", "--node", &to.to_string(), "--priority", priority]);
    assert_eq!((code(&prefer("8")), code(&prefer("9"))), (0, 2));
    let status = cluster.run("status", &["--groups", "--output", "json"]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    let priorities = |node: u64| -> Vec<u64> {
        let cores = status["cores"].as_array().unwrap().iter().filter(|core| core["node"] == node);
        let groups = cores.flat_map(|core| core["groups"].as_array().unwrap());
        groups.filter(|group| group["group"] == 3).map(|group| group["priority"].as_u64().unwrap()).collect()
    };
    assert_eq!((priorities(to), priorities(leader)), (vec![8], vec![0]));

    let voters = format!("{leader},{to}");
    assert_eq!(code(&cluster.run("members", &["g3", "--set", &voters, "--learners", &learner.to_string()])), 0);
    assert_eq!(nodes(&cluster.members("g3"), "learner"), [learner]);
    let refused = cluster.run("transfer", &["g3", "--to", &learner.to_string()]);
    assert_eq!(code(&refused), 2, "{refused:?}");
    assert!(error_line(&refused).contains("make it a voter first"), "{refused:?}");
}

#[test]
fn what_cannot_be_is_a_usage_error_and_what_cannot_be_now_is_not() {
    let mut cluster = Cluster::start();
    for (arguments, says) in [
        (&["g2", "--set", "1,2,9"][..], "n9 is no node of the cluster"),
        (&["g2", "--set", "1,2", "--learners", "2"], "n2 is named twice"),
        (&["g2", "--set", "1,2,3,4,5,6,7,8,9,10"], "at most 9"),
    ] {
        let output = cluster.run("members", arguments);
        assert_eq!(code(&output), 2, "{output:?}");
        assert!(error_line(&output).contains(says), "{output:?}");
    }
    for arguments in [&["group"][..], &["g2", "--set", "one"], &["g2", "--learners", "3"], &["g2", "--dry-run"]] {
        assert_eq!(code(&cluster.run("members", arguments)), 2, "{arguments:?}");
    }
    let unknown = cluster.run("members", &["g99"]);
    assert!(code(&unknown) == 1 && error_line(&unknown).contains("no range has group g99"), "{unknown:?}");

    let leader = cluster.members("g2")["leader"].as_u64().unwrap();
    let silent = if leader == 3 { 2 } else { 3 };
    cluster.nodes.remove(silent as usize - 1).stop().unwrap();
    let output = cluster.run("transfer", &["g2", "--to", &silent.to_string(), "--timeout-ms", "15000"]);
    assert_eq!(code(&output), 10, "{output:?}");
    error_line(&output);
}
