//! What a run says about itself. The text depends on the seed and the code only: no clock, no address, no order of a
//! hash table is in it, so two runs of one seed print the same bytes.

use std::fmt;

use pontoon_types::Time;

use crate::options::Options;
use crate::violation::Violation;

/// How much happened in a run: a run in which nothing happens checks nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Things on the agenda that came due.
    pub steps: u64,
    /// Turns of all cores.
    pub turns: u64,
    /// Views of replicas that were checked.
    pub checked: u64,
    /// Leaders elected.
    pub elections: u64,
    /// Of these, those elected while an older one still took itself for the leader.
    pub overlaps: u64,
    /// Entries committed.
    pub entries_committed: u64,
    /// Operations begun by clients.
    pub operations: u64,
    /// Operations completed.
    pub completed: u64,
    /// Writes acknowledged.
    pub writes_acknowledged: u64,
    /// Answers to reads that were checked for their round (law 6).
    pub reads_checked: u64,
    /// Gets and scans served.
    pub reads_served: u64,
    /// Definite refusals heard.
    pub refusals: u64,
    /// Operations that were refused until their time was over.
    pub given_up: u64,
    /// Operations with an unknown outcome.
    pub unknown: u64,
    /// Attempts after one without an answer.
    pub asked_again: u64,
    /// Frames of clients that arrived once more.
    pub duplicates: u64,
    /// Sessions that clients opened again.
    pub reopened: u64,
    /// Entries whose request had been carried out before.
    pub repeated: u64,
    /// Entries whose request was forgotten.
    pub forgotten: u64,
    /// Operations on single keys in the histories.
    pub history: u64,
    /// Keys whose history was too wide to decide.
    pub undecided: u64,
    /// Frames between nodes.
    pub frames: u64,
    /// Frames lost.
    pub frames_lost: u64,
    /// Frames that arrived twice.
    pub frames_duplicated: u64,
    /// Frames changed on their way.
    pub frames_corrupted: u64,
    /// Frames that a core refused.
    pub frames_refused: u64,
    /// Frames in the name of a replica that does not exist.
    pub frames_strange: u64,
    /// Frames that a core had to ignore (law 11).
    pub frames_ignored: u64,
    /// Spells of very late frames.
    pub lags: u64,
    /// Links that became narrow.
    pub narrow_links: u64,
    /// Disks that became slow.
    pub slow_disks: u64,
    /// Disks that were full for a while.
    pub full_disks: u64,
    /// Writes that were to fail, in part or as a whole.
    pub write_errors: u64,
    /// Earlier images of disks that came back.
    pub old_images: u64,
    /// Requests for keys of other ranges that were refused.
    pub foreign: u64,
    /// Scrubs of running logs.
    pub scrubs: u64,
    /// Checkpoints that became durable, those that came as snapshots included.
    pub checkpoints: u64,
    /// Checkpoints that their stores gave up.
    pub checkpoints_failed: u64,
    /// Checkpoints that rotted or were gone.
    pub checkpoints_rotten: u64,
    /// Starts of replicas whose state was not there.
    pub stateless_starts: u64,
    /// Chunks that were changed between a store and a frame.
    pub chunks_changed: u64,
    /// Times that a log was given up to a checkpoint.
    pub compactions: u64,
    /// Times that a log was replaced by a snapshot.
    pub snapshots: u64,
    /// Replicas that came to life.
    pub created: u64,
    /// Replicas that were destroyed.
    pub destroyed: u64,
    /// Links that broke.
    pub links_broken: u64,
    /// Partitions.
    pub partitions: u64,
    /// Crashes of nodes.
    pub crashes: u64,
    /// Crashes and starts that took the power.
    pub power_cuts: u64,
    /// Nodes stopped as they should be.
    pub stops: u64,
    /// Appends that no sync had reported and that were there at the next start.
    pub appends_kept: u64,
    /// Appends that no sync had reported and that were gone.
    pub appends_lost: u64,
    /// Pauses of cores.
    pub pauses: u64,
    /// Jumps of clocks.
    pub clock_jumps: u64,
    /// Pauses between a look at the clock and the events it was for.
    pub late_events: u64,
    /// Syncs of groups of records that finished.
    pub syncs: u64,
    /// Syncs that failed.
    pub sync_errors: u64,
    /// Fetches that a log has answered.
    pub fetches: u64,
    /// Times that it could not yet, because the entries were not in memory.
    pub cold_reads: u64,
    /// Syncs that a core was told of, because they took so long.
    pub stalls: u64,
    /// Entries that a replica could not read.
    pub parked: u64,
    /// Logs that were sealed.
    pub seals: u64,
    /// Times that a log had to wait for a segment.
    pub segment_waits: u64,
    /// Logs that fenced themselves.
    pub logs_fenced: u64,
    /// Logs that were opened.
    pub opens: u64,
    /// Of these, those that had been closed.
    pub clean_opens: u64,
    /// Of these, those that ended in a torn write.
    pub torn_tails: u64,
    /// Segments read by them.
    pub segments: u64,
    /// Starts for which the disk had to be asked again.
    pub starts_in_vain: u64,
    /// Disks damaged.
    pub damages: u64,
    /// Of these, those that the log refused to open on.
    pub damages_refused: u64,
    /// Payloads of durable entries that rotted under an intact directory.
    pub payloads_lost: u64,
    /// Votes that logs reported as lost.
    pub votes_lost: u64,
    /// Of these, those that came back and are durable again.
    pub payloads_restored: u64,
    /// Quorums that were lost for good.
    pub quorums_lost: u64,
    /// Groups that began anew then.
    pub begun_anew: u64,
    /// Of these, those that may miss writes by their plan.
    pub may_miss: u64,
    /// Of these, those that do miss something that was committed.
    pub misses: u64,
    /// Groups that were left alone, because they could decide.
    pub left_alone: u64,
    /// Lost nodes that came back.
    pub came_back: u64,
    /// Nodes that were down from then on.
    pub nodes_lost: u64,
    /// Orders given: another leader, other members.
    pub orders: u64,
    /// Of these, those that a core refused.
    pub orders_refused: u64,
    /// Of these, those that an operator heard to be done.
    pub orders_done: u64,
    /// Configurations applied by the replica that was furthest at the end, in all groups.
    pub configurations: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  cluster: turns {}, elections {} (overlapping {}), entries committed {}, views checked {}, syncs {}",
            self.turns, self.elections, self.overlaps, self.entries_committed, self.checked, self.syncs
        )?;
        writeln!(
            f,
            "  clients: operations {}, completed {} (writes {}, reads {}), refusals {}, given up {}, unknown {}, asked again {}, \
             duplicates {}, reopened {}, repeated {}, forgotten {}",
            self.operations,
            self.completed,
            self.writes_acknowledged,
            self.reads_served,
            self.refusals,
            self.given_up,
            self.unknown,
            self.asked_again,
            self.duplicates,
            self.reopened,
            self.repeated,
            self.forgotten
        )?;
        writeln!(f, "  histories: operations on keys {}, keys undecided {}", self.history, self.undecided)?;
        writeln!(
            f,
            "  faults: frames {} (lost {}, doubled {}, changed {}, refused {}), links broken {}, partitions {}, \
             crashes {} (power cuts {}), stops {}, pauses {}, clock jumps {}, late events {}, late {}, narrow {}, strange {}, ignored {}, foreign {}, orders {} (refused {}, done {}), configurations {}",
            self.frames,
            self.frames_lost,
            self.frames_duplicated,
            self.frames_corrupted,
            self.frames_refused,
            self.links_broken,
            self.partitions,
            self.crashes,
            self.power_cuts,
            self.stops,
            self.pauses,
            self.clock_jumps,
            self.late_events,
            self.lags,
            self.narrow_links,
            self.frames_strange,
            self.frames_ignored,
            self.foreign,
            self.orders,
            self.orders_refused,
            self.orders_done,
            self.configurations
        )?;
        writeln!(
            f,
            "  logs: opened {} (closed before {}, torn {}, segments {}), in vain {}, seals {}, unsynced appends kept {} \
             and lost {}, fetches {} (cold {})",
            self.opens,
            self.clean_opens,
            self.torn_tails,
            self.segments,
            self.starts_in_vain,
            self.seals,
            self.appends_kept,
            self.appends_lost,
            self.fetches,
            self.cold_reads
        )?;
        writeln!(
            f,
            "  disks: syncs stalled {}, failed {}, logs fenced {}, waits for a segment {}, damaged {} (refused {}, nodes lost {}), \
             payloads lost {} (restored {}), votes lost {}, scrubs {}, slow {}, full {}, writes to fail {}, old images {}, unreadable {}",
            self.stalls,
            self.sync_errors,
            self.logs_fenced,
            self.segment_waits,
            self.damages,
            self.damages_refused,
            self.nodes_lost,
            self.payloads_lost,
            self.payloads_restored,
            self.votes_lost,
            self.scrubs,
            self.slow_disks,
            self.full_disks,
            self.write_errors,
            self.old_images,
            self.parked
        )?;
        write!(
            f,
            "\n  states: checkpoints {} (failed {}, rotten {}, starts without {}, chunks changed {}), logs given up {}, replaced {}, \
             replicas made {}, destroyed {}",
            self.checkpoints,
            self.checkpoints_failed,
            self.checkpoints_rotten,
            self.stateless_starts,
            self.chunks_changed,
            self.compactions,
            self.snapshots,
            self.created,
            self.destroyed
        )?;
        if self.quorums_lost > 0 {
            write!(
                f,
                "\n  quorums lost {}: groups begun anew {} (may miss writes {}, do {}), left alone {}; nodes that came back {}",
                self.quorums_lost, self.begun_anew, self.may_miss, self.misses, self.left_alone, self.came_back
            )?;
        }
        Ok(())
    }
}

/// The result of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The options, expanded.
    pub options: Options,
    /// The virtual time at the end.
    pub ended: Time,
    /// How much happened.
    pub counts: Counts,
    /// Stands for everything that happened, in order, bytes of frames included.
    pub digest: u64,
    /// What was broken, if anything was.
    pub violation: Option<Violation>,
    /// The whole trace, if it was asked for and nothing was broken.
    pub trace: Vec<String>,
    /// The protocol events of all cores, if they were asked for: a line of JSON each.
    pub protocol: Vec<String>,
}

impl Report {
    /// Whether no law was broken.
    pub fn passed(&self) -> bool {
        self.violation.is_none()
    }

    /// One line: the seed, the outcome, and enough to tell two runs apart.
    pub fn summary(&self) -> String {
        let (seed, digest, counts) = (self.options.seed, self.digest, &self.counts);
        let outcome = match &self.violation {
            None => "passed".to_string(),
            Some(violation) => format!("FAILED: {}", violation.broken),
        };
        format!(
            "seed {seed} digest {digest:016x} ended {} turns {} committed {} completed {} unknown {} crashes {}: {outcome}",
            self.ended, counts.turns, counts.entries_committed, counts.completed, counts.unknown, counts.crashes
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.summary())?;
        write!(f, "{}{}", self.options, self.counts)?;
        let lines = match &self.violation {
            None => &self.trace,
            Some(violation) => {
                writeln!(f, "  {violation}\n  the trace up to there:")?;
                &violation.trace
            }
        };
        lines.iter().try_for_each(|line| writeln!(f, "    {line}"))
    }
}
