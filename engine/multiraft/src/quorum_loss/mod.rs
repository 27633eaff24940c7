//! How groups begin anew with the survivors, when a quorum of their members is lost for good: every decision, and nothing of
//! directories and files.
//!
//! ```text
//! what a log and a store hold of a replica ─▶ Found        what of it counts                          found
//! what all survivors have found            ─▶ Plan         which groups begin anew, from which log     plan
//! a plan and a survivor                    ─▶ Fate         what becomes of each replica there          rebirth
//! ```
//!
//! A shell reads the survivors, plans, and does with each replica what its fate says: the node offline on data directories, the
//! simulator on the disks of a run. Both write the new logs with `pontoon_wal::transplant`, which empties the entries that
//! named the members before. Decision 0006 has the reasons.

mod found;
mod plan;
mod rebirth;

pub use found::{Found, Held, counts, term_at};
pub use plan::{GroupPlan, Plan, Recovery, Rules, SurvivingReplica, Verdict, plan};
pub use rebirth::{Fate, Rebirth};
