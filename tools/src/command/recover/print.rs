//! The plan of a recovery, for people and for programs.

use std::fmt::Write;

use comfy_table::{Table, presets};
use pontoon::quorum_loss::plan::{GroupPlan, Plan, SurvivingReplica, Verdict};
use pontoon_types::{LogId, Member, NodeId};
use serde_json::{Value, json};

/// The plan as it is printed, and kept beside what was before.
pub(super) fn text(plan: &Plan) -> String {
    let mut text = String::new();
    let count = |is: fn(&Verdict) -> bool| plan.groups.iter().filter(|group| is(&group.verdict)).count();
    let anew = count(|verdict| matches!(verdict, Verdict::Recover(_)));
    let alone = count(|verdict| matches!(verdict, Verdict::LeftAlone(_)));
    let refused = count(|verdict| matches!(verdict, Verdict::Refused(_)));
    let mut line = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    let (survive, lost) = (nodes(&plan.survivors), nodes(&plan.lost));
    line(format!("cluster {}: {survive} survive, {lost} are taken for lost for good", plan.cluster));
    line(format!(
        "of {} groups {anew} begin anew, {alone} are left alone, {refused} cannot be recovered, and {} are on no survivor",
        plan.groups.len() + plan.absent.len(),
        plan.absent.len()
    ));
    if !plan.groups.is_empty() {
        line(table(plan).to_string());
    }
    for group in &plan.groups {
        match &group.verdict {
            Verdict::LeftAlone(why) => line(format!("{} is left alone: {why}", group.group)),
            Verdict::Refused(why) => line(format!("{} cannot be recovered: {why}", group.group)),
            Verdict::Recover(_) => {}
        }
    }
    for group in &plan.absent {
        line(format!("{group} is on no survivor: nothing of it is known, and nothing is done about it"));
    }
    if anew > 0 {
        unknown(plan, &mut text);
    }
    text.truncate(text.trim_end().len());
    text
}

/// What nobody can know, in sentences.
fn unknown(plan: &Plan, text: &mut String) {
    let recovered = || plan.groups.iter().filter_map(|group| Some((group, group.recovery()?)));
    let may_miss = recovered().filter(|(_, recovery)| recovery.may_miss).count();
    let safe = recovered().count() - may_miss;
    let unproven: u64 = recovered().map(|(group, _)| group.unproven_entries()).sum();
    let dropped: Vec<String> = recovered().flat_map(|(group, _)| dropped(group)).collect();
    let mut line = |line: String| {
        let _ = writeln!(text, "{line}");
    };
    line("what is not known:".to_string());
    if may_miss > 0 {
        line(format!(
            "- in {may_miss} groups the lost members were a quorum by themselves: WRITES THAT THEY ACKNOWLEDGED BEHIND THE LAST \
             ENTRY OF THE BASE MAY BE MISSING, and nobody can say how many"
        ));
    }
    if safe > 0 {
        line(format!(
            "- in {safe} groups each quorum had a survivor in it: nothing that was acknowledged is missing, unless somebody was \
             just removing a survivor from such a group"
        ));
    }
    line(format!(
        "- {unproven} entries are kept though nothing shows that they were committed: a write whose client heard \"unknown\" may \
         come to be done"
    ));
    if !dropped.is_empty() {
        line(format!("- entries that the base does not have go, and may have been committed: {}", dropped.join(", ")));
    }
}

/// The survivors of a group whose entries go, in words.
fn dropped(group: &GroupPlan) -> impl Iterator<Item = String> + '_ {
    let words = |(node, entries): (NodeId, u64)| {
        let first = group.survivors[&node].last.index.0 + 1 - entries;
        format!("{entries} of {} on {node}, from index {first} on", group.group)
    };
    group.dropped().into_iter().map(words)
}

fn table(plan: &Plan) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header([
        "group",
        "what is done",
        "from",
        "last entries",
        "lost",
        "committed at least",
        "unproven",
        "may miss writes",
        "goes on with",
        "members",
    ]);
    for group in &plan.groups {
        let last = |(node, of): (&NodeId, &SurvivingReplica)| format!("{node} {}", of.last);
        let (what, may_miss, entry, voters) = match &group.verdict {
            Verdict::Recover(recovery) => {
                let voters: Vec<Member> = recovery.configuration.members().iter().map(|(member, _)| *member).collect();
                let may_miss = if recovery.may_miss { "YES" } else { "no" };
                ("begins anew", may_miss, recovery.entry.to_string(), members(&voters))
            }
            Verdict::LeftAlone(_) => ("left alone", "-", "-".to_string(), "-".to_string()),
            Verdict::Refused(_) => ("NOT RECOVERED", "-", "-".to_string(), "-".to_string()),
        };
        table.add_row([
            group.group.to_string(),
            what.to_string(),
            group.base.to_string(),
            group.survivors.iter().map(last).collect::<Vec<_>>().join(", "),
            members(&group.lost),
            group.committed.to_string(),
            group.unproven_entries().to_string(),
            may_miss.to_string(),
            entry,
            voters,
        ]);
    }
    table
}

fn nodes(nodes: &[NodeId]) -> String {
    let names: Vec<String> = nodes.iter().map(NodeId::to_string).collect();
    if names.is_empty() { "none".to_string() } else { names.join(" ") }
}

fn members(members: &[Member]) -> String {
    let names: Vec<String> = members.iter().map(|member| format!("{} on {}", member.replica, member.node)).collect();
    if names.is_empty() { "none".to_string() } else { names.join(", ") }
}

/// The plan for programs.
pub(super) fn json(plan: &Plan, is_done: bool) -> Value {
    let numbers = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect::<Vec<_>>();
    json!({
        "cluster": plan.cluster.to_string(),
        "survivors": numbers(&plan.survivors),
        "lost": numbers(&plan.lost),
        "nodes": numbers(&plan.nodes),
        "groups": plan.groups.iter().map(group_json).collect::<Vec<_>>(),
        "absent": plan.absent.iter().map(|group| group.0).collect::<Vec<_>>(),
        "done": is_done,
    })
}

fn group_json(group: &GroupPlan) -> Value {
    let survivor = |(node, of): (&NodeId, &SurvivingReplica)| {
        json!({
            "node": node.0,
            "replica": of.replica.0,
            "last": id(of.last),
            "term": of.hard_state.term.0,
            "vote": of.hard_state.vote.map(|vote| vote.0),
            "vote_lost": of.vote_lost,
            "committed": id(of.committed),
            "members": of.members().to_string(),
            "unusable": of.unusable,
        })
    };
    let mut object = json!({
        "group": group.group.0,
        "base": group.base.0,
        "survivors": group.survivors.iter().map(survivor).collect::<Vec<_>>(),
        "lost": group.lost.iter().map(member_json).collect::<Vec<_>>(),
        "committed": id(group.committed),
        "unproven_entries": group.unproven_entries(),
        "dropped": group.dropped().iter().map(|(node, entries)| json!({ "node": node.0, "entries": entries })).collect::<Vec<_>>(),
    });
    match &group.verdict {
        Verdict::LeftAlone(why) => object["left_alone"] = json!(why),
        Verdict::Refused(why) => object["refused"] = json!(why),
        Verdict::Recover(recovery) => {
            let members: Vec<Value> =
                recovery.configuration.members().iter().map(|(member, _)| member_json(member)).collect();
            object["recovery"] = json!({
                "entry": id(recovery.entry),
                "generation": recovery.generation.0,
                "may_miss_writes": recovery.may_miss,
                "members": members,
            });
        }
    }
    object
}

fn id(id: LogId) -> Value {
    json!({ "index": id.index.0, "term": id.term.0 })
}

fn member_json(member: &Member) -> Value {
    json!({ "node": member.node.0, "replica": member.replica.0 })
}
