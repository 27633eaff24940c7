//! `pontoon members`, `transfer` and `prefer`: who belongs to a group, and who leads it.
//!
//! The first two look first, say what they are going to do, and then do it. What is refused or cut short can be asked for again: it
//! goes on from the members as they are then.

use std::io::Write;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use comfy_table::{Table, presets};
use pontoon_client::{Client, ClientError, GroupMember, GroupMembers, MembersWish, Order, plan_members};
use pontoon_types::{GroupId, NodeId};
use serde_json::{Value, json};

use super::Cluster;
use crate::failure::Failure;

/// How to print.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// Shows the members of a group, or changes them.
///
/// Without --set it shows them. With it the group gets exactly these voters and learners; a node without a replica becomes a
/// learner first and is promoted when it has caught up. Exits with 2 when that cannot be, and with 10 when it cannot be now.
#[derive(Args)]
pub struct Members {
    #[command(flatten)]
    cluster: Cluster,
    /// The group, as `pontoon status --groups` shows it: g2, or 2.
    #[arg(value_parser = group)]
    group: GroupId,
    /// The nodes that are to vote, separated by commas: all of them, those that vote now included.
    #[arg(long, value_delimiter = ',', value_name = "NODES", value_parser = node)]
    set: Vec<NodeId>,
    /// The nodes that are to receive entries without a vote; all others that do so now are removed.
    #[arg(long, value_delimiter = ',', value_name = "NODES", value_parser = node, requires = "set")]
    learners: Vec<NodeId>,
    /// Show the plan and do nothing.
    #[arg(long, requires = "set")]
    dry_run: bool,
    /// A table for people, or one JSON object.
    #[arg(long, short, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// Hands the leadership of a group over to another voter.
///
/// Exits with 2 when that cannot be, and with 10 when it cannot be now or did not come about.
#[derive(Args)]
pub struct Transfer {
    #[command(flatten)]
    cluster: Cluster,
    /// The group, as `pontoon status --groups` shows it: g2, or 2.
    #[arg(value_parser = group)]
    group: GroupId,
    /// The node that is to lead.
    #[arg(long, value_name = "NODE", value_parser = node)]
    to: NodeId,
}

/// Makes a node more or less eager to lead a group.
///
/// It decides who campaigns first when a leader is lost, and never who wins. The node forgets it when it ends.
#[derive(Args)]
pub struct Prefer {
    #[command(flatten)]
    cluster: Cluster,
    /// The group, as `pontoon status --groups` shows it: g2, or 2.
    #[arg(value_parser = group)]
    group: GroupId,
    /// The node.
    #[arg(long, value_name = "NODE", value_parser = node)]
    node: NodeId,
    /// From 0, which campaigns first, to 8, which waits for two election timeouts more.
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=8))]
    priority: u8,
}

impl Prefer {
    /// Runs the command.
    pub fn run(&self) -> Result<(), Failure> {
        Ok(self.cluster.connect()?.prefer(self.node, self.group, self.priority)?)
    }
}

impl Members {
    /// Runs the command.
    pub fn run(&self) -> Result<(), Failure> {
        let mut client = self.cluster.connect_for_orders()?;
        let mut now = client.members(self.group)?;
        let wish = MembersWish { voters: self.set.clone(), learners: self.learners.clone() };
        let plan = if wish.voters.is_empty() { Vec::new() } else { plan_members(&now, &wish)? };
        if self.output == Output::Table && !self.set.is_empty() {
            print_plan(&now, &plan)?;
        }
        if !self.dry_run {
            for (place, step) in plan.iter().enumerate() {
                self.take_step(&mut client, &now, step)
                    .map_err(|error| explain(&error, self.group, place + 1, plan.len()))?;
                now = client.members(self.group)?;
            }
        }
        let mut out = std::io::stdout().lock();
        match self.output {
            Output::Table => writeln!(out, "{}", table(&now))?,
            Output::Json => {
                let mut object = as_json(&now);
                object["plan"] = plan.iter().map(wish_as_json).collect();
                writeln!(out, "{object:#}")?;
            }
        }
        Ok(out.flush()?)
    }

    fn take_step(&self, client: &mut Client, now: &GroupMembers, step: &MembersWish) -> Result<(), ClientError> {
        let MembersWish { voters, learners } = step.clone();
        client.order(self.group, Order::Members { generation: now.generation, voters, learners })
    }
}

impl Transfer {
    /// Runs the command.
    pub fn run(&self) -> Result<(), Failure> {
        let mut client = self.cluster.connect_for_orders()?;
        let now = client.members(self.group)?;
        let mut out = std::io::stdout().lock();
        if now.leader == self.to {
            return Ok(writeln!(out, "{} leads {} already", self.to, self.group)?);
        }
        writeln!(out, "{}: {} hands over to {}", self.group, now.leader, self.to)?;
        out.flush()?;
        let order = Order::Transfer { term: now.term, to: self.to };
        client.order(self.group, order).map_err(|error| explain(&error, self.group, 1, 1))?;
        Ok(writeln!(out, "{} leads {}", self.to, self.group)?)
    }
}

/// What went wrong in a step, and what is there now.
fn explain(error: &ClientError, group: GroupId, step: usize, steps: usize) -> Failure {
    let code = Failure::from(error.clone()).code();
    let place = if steps > 1 { format!("step {step} of {steps}: ") } else { String::new() };
    let more = match error {
        ClientError::Unknown => format!("; `pontoon members {group}` shows what has come of it"),
        _ if step > 1 => "; the steps before it are done, and the same command goes on from there".to_string(),
        _ => String::new(),
    };
    Failure::new(code, format!("{place}{error}{more}"))
}

fn print_plan(now: &GroupMembers, plan: &[MembersWish]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    if plan.is_empty() {
        writeln!(out, "{} has these members already", now.group)?;
    }
    for (step, place) in plan.iter().zip(1..) {
        writeln!(out, "step {place} of {}: {}", plan.len(), describe(step))?;
    }
    Ok(out.flush()?)
}

fn describe(wish: &MembersWish) -> String {
    let list = |nodes: &[NodeId]| nodes.iter().map(NodeId::to_string).collect::<Vec<_>>().join(" ");
    match wish.learners.is_empty() {
        true => format!("voters {}", list(&wish.voters)),
        false => format!("voters {}, learners {}", list(&wish.voters), list(&wish.learners)),
    }
}

fn table(now: &GroupMembers) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header(["node", "replica", "standing", "log", "state"]);
    for member in &now.members {
        table.add_row([
            member.node.to_string(),
            member.replica.to_string(),
            member.standing.to_string(),
            member.matched.0.to_string(),
            state(now, member).to_string(),
        ]);
    }
    let changing = if now.is_changing { ", changing" } else { "" };
    let GroupMembers { group, generation, leader, term, last, .. } = now;
    format!("{group} {generation}{changing}: {leader} leads in term {term}, last entry {}\n{table}", last.0)
}

/// What the leader knows of a member.
fn state(now: &GroupMembers, member: &GroupMember) -> &'static str {
    match member.follows {
        _ if member.node == now.leader => "leads",
        true => "follows",
        false => "behind or silent",
    }
}

fn as_json(now: &GroupMembers) -> Value {
    let member = |member: &GroupMember| {
        json!({
            "node": member.node.0,
            "replica": member.replica.0,
            "standing": member.standing.to_string(),
            "matched": member.matched.0,
            "follows": member.follows,
        })
    };
    json!({
        "group": now.group.0,
        "generation": now.generation.0,
        "changing": now.is_changing,
        "leader": now.leader.0,
        "term": now.term.0,
        "last": now.last.0,
        "members": now.members.iter().map(member).collect::<Vec<_>>(),
    })
}

fn wish_as_json(wish: &MembersWish) -> Value {
    let numbers = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect::<Vec<_>>();
    json!({ "voters": numbers(&wish.voters), "learners": numbers(&wish.learners) })
}

fn group(text: &str) -> Result<GroupId, String> {
    number(text, 'g').map(GroupId)
}

fn node(text: &str) -> Result<NodeId, String> {
    number(text, 'n').map(NodeId)
}

/// A number, with or without the letter before it with which it is shown.
fn number(text: &str, letter: char) -> Result<u64, String> {
    u64::from_str(text.strip_prefix(letter).unwrap_or(text)).map_err(|error| format!("{error}; write {letter}2, or 2"))
}
