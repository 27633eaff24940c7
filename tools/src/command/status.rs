//! `pontoon status`: what every core of every node leads, holds and has counted.

use std::io::Write;

use clap::{Args, ValueEnum};
use comfy_table::{Table, presets};
use pontoon_client::{Client, CoreStatus, Routes};
use pontoon_types::{CoreId, LogId, NodeId};
use pontoon_wire::client::{Condition, CoreStanding, GroupRole, GroupStatus};
use serde_json::{Value, json};

use super::Cluster;
use crate::failure::{Failure, UNHEALTHY};

/// How to print.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// Shows the state of the cluster.
#[derive(Args)]
pub struct Status {
    #[command(flatten)]
    cluster: Cluster,
    /// A table for people, or one JSON object.
    #[arg(long, short, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// List every group too.
    #[arg(long)]
    groups: bool,
}

/// One core's answer, or why there is none.
type Answer = (NodeId, String, CoreId, Result<CoreStatus, String>);

impl Status {
    /// Runs the command.
    pub fn run(&self) -> Result<(), Failure> {
        let mut client = self.cluster.connect()?;
        let routes = client.routes()?;
        let answers = ask_every_core(&mut client, &routes);
        let leaderless = leaderless(&routes, &answers);
        match self.output {
            Output::Table => self.print_tables(&answers)?,
            Output::Json => {
                let cores: Vec<Value> = answers.iter().map(as_json).collect();
                let object = json!({ "cores": cores, "ranges": routes.ranges.len(), "leaderless": leaderless });
                writeln!(std::io::stdout(), "{object:#}")?;
            }
        }
        let silent = answers.iter().filter(|(.., answer)| answer.is_err()).count();
        let still = standing_still(&answers);
        if silent == 0 && leaderless == 0 && still == 0 {
            return Ok(());
        }
        let cores = answers.len();
        let ranges = routes.ranges.len();
        let mut line =
            format!("{silent} of {cores} cores do not answer, {leaderless} of {ranges} ranges have no leader");
        if still > 0 {
            line.push_str(&format!(", {still} replicas stand still (see --groups)"));
        }
        Err(Failure::new(UNHEALTHY, line))
    }

    fn print_tables(&self, answers: &[Answer]) -> Result<(), Failure> {
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header([
            "node",
            "address",
            "core",
            "incarnation",
            "standing",
            "groups",
            "leads",
            "log bytes",
            "entries",
            "syncs",
            "requests",
            "elections won",
            "checkpoints",
            "snapshots",
        ]);
        for (node, address, core, answer) in answers {
            let mut row = vec![node.to_string(), address.clone(), core.to_string()];
            match answer {
                Ok(status) => row.extend([
                    status.incarnation.0.to_string(),
                    standing_name(status.standing).to_string(),
                    status.groups.len().to_string(),
                    led(status).to_string(),
                    status.counters.log_bytes.to_string(),
                    status.counters.log_entries.to_string(),
                    status.counters.syncs.to_string(),
                    status.counters.requests.to_string(),
                    status.counters.elections_won.to_string(),
                    status.counters.checkpoints.to_string(),
                    status.counters.snapshots_received.to_string(),
                ]),
                Err(why) => row.push(why.clone()),
            }
            table.add_row(row);
        }
        let mut out = std::io::stdout().lock();
        writeln!(out, "{table}")?;
        if self.groups {
            writeln!(out, "{}", group_table(answers))?;
        }
        Ok(())
    }
}

fn ask_every_core(client: &mut Client, routes: &Routes) -> Vec<Answer> {
    let mut answers = Vec::new();
    for (node, address) in &routes.nodes {
        for core in (0..routes.cores).map(CoreId) {
            let answer = client.status(*node, core).map_err(|error| error.to_string());
            answers.push((*node, address.clone(), core, answer));
        }
    }
    answers
}

/// Ranges that no answering core leads.
fn leaderless(routes: &Routes, answers: &[Answer]) -> usize {
    let leads = |group| {
        answers
            .iter()
            .filter_map(|(.., answer)| answer.as_ref().ok())
            .any(|status| status.groups.iter().any(|member| member.group == group && member.role == GroupRole::Leader))
    };
    routes.ranges.iter().filter(|(descriptor, _)| !leads(descriptor.group)).count()
}

/// Replicas that do not apply what is committed, and are not about to.
fn standing_still(answers: &[Answer]) -> usize {
    let statuses = answers.iter().filter_map(|(.., answer)| answer.as_ref().ok());
    let stands_still = |group: &&GroupStatus| !matches!(group.condition, Condition::Well | Condition::Loading);
    statuses.flat_map(|status| &status.groups).filter(stands_still).count()
}

fn led(status: &CoreStatus) -> usize {
    status.groups.iter().filter(|group| group.role == GroupRole::Leader).count()
}

fn standing_name(standing: CoreStanding) -> &'static str {
    match standing {
        CoreStanding::Registered => "registered",
        CoreStanding::Waiting => "waiting",
        CoreStanding::Refused => "refused",
    }
}

fn group_table(answers: &[Answer]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header([
        "group",
        "node",
        "role",
        "term",
        "leader",
        "last",
        "durable",
        "committed",
        "applied",
        "checkpoint",
        "log bytes since",
        "condition",
        "priority",
    ]);
    let statuses = answers.iter().filter_map(|(.., answer)| answer.as_ref().ok());
    let mut rows: Vec<_> = statuses.flat_map(|status| status.groups.iter().map(|group| (status.node, group))).collect();
    rows.sort_by_key(|(node, group)| (group.group, *node));
    for (node, group) in rows {
        table.add_row([
            group.group.to_string(),
            node.to_string(),
            group.role.to_string(),
            group.term.to_string(),
            group.leader.map_or("-".to_string(), |leader| leader.to_string()),
            group.last.to_string(),
            group.durable.to_string(),
            group.committed.to_string(),
            group.applied.to_string(),
            checkpoint_of(group),
            group.log_bytes.to_string(),
            group.condition.to_string(),
            group.priority.to_string(),
        ]);
    }
    table
}

/// The last entry of a group's checkpoint, if it has one.
fn checkpoint_of(group: &GroupStatus) -> String {
    if group.checkpoint == LogId::default() { "-".to_string() } else { group.checkpoint.to_string() }
}

fn as_json((node, address, core, answer): &Answer) -> Value {
    let mut object = json!({ "node": node.0, "address": address, "core": core.0 });
    match answer {
        Err(why) => object["error"] = json!(why),
        Ok(status) => {
            object["incarnation"] = json!(status.incarnation.0);
            object["standing"] = json!(standing_name(status.standing));
            object["leads"] = json!(led(status));
            object["log_bytes"] = json!(status.counters.log_bytes);
            object["log_entries"] = json!(status.counters.log_entries);
            object["syncs"] = json!(status.counters.syncs);
            object["requests"] = json!(status.counters.requests);
            object["elections_won"] = json!(status.counters.elections_won);
            object["checkpoints"] = json!(status.counters.checkpoints);
            object["checkpoint_bytes"] = json!(status.counters.checkpoint_bytes);
            object["checkpoint_failures"] = json!(status.counters.checkpoint_failures);
            object["snapshots_sent"] = json!(status.counters.snapshots_sent);
            object["snapshots_received"] = json!(status.counters.snapshots_received);
            object["groups"] = status
                .groups
                .iter()
                .map(|group| {
                    json!({
                        "group": group.group.0,
                        "role": group.role.to_string(),
                        "term": group.term.0,
                        "leader": group.leader.map(|leader| leader.0),
                        "last": group.last.index.0,
                        "durable": group.durable.0,
                        "committed": group.committed.0,
                        "applied": group.applied.0,
                        "checkpoint": group.checkpoint.index.0,
                        "log_bytes": group.log_bytes,
                        "condition": group.condition.to_string(),
                        "priority": group.priority,
                    })
                })
                .collect();
        }
    }
    object
}
