//! One Raft group, as a pure function of time and events.
//!
//! Several replicas keep the same log. As long as a majority of them lives and can talk, the log grows, and an entry
//! once committed stands at its index for ever, whatever crashes. Each replica is one [`Raft`]. It owns no clock, no
//! disk and no socket: [`Raft::step`] takes the time and one [`Event`] and appends what follows to a list of
//! [`Effect`]s. Production and simulation drive the same function, and neither has an ordering rule to remember.
//!
//! The algorithm is that of Ongaro and Ousterhout (2014), with pre-vote from Ongaro's thesis. This page says where
//! each part lives and where it departs from the paper.
//!
//! # How to drive it
//!
//! 1. Make a replica with [`Raft::new`] from what its log held ([`Restored`]).
//! 2. Hand it every event through [`Raft::step`], and [`Event::Timer`] when [`Raft::deadline`] has come.
//! 3. Carry out the effects in order. [`Effect::Append`] goes to the log; when it is durable, and only then, answer
//!    [`Event::Durable`] with its number. One answer may speak for many writes. [`Effect::Send`] may leave at once.
//! 4. After [`Effect::Committed`], apply [`Raft::entries`] up to it, in order, and say so with [`Event::Applied`].
//! 5. Read what [`Effect::Fetch`] names from the log and answer [`Event::Fetched`], whenever the log can.
//!    [`Effect::Apply`] brings what was fetched for the machine.
//!
//! # Terms and elections
//!
//! Time is cut into terms, each with at most one leader. An unsupported follower campaigns when its randomly drawn
//! deadline passes. It first asks for pre-votes, which change nothing anywhere; only if a quorum would agree does it
//! enter a new term and ask for votes. A replica votes once per term, and only for a log that is at least as good as
//! its own, so a new leader has every committed entry. The code is in `raft/election.rs`.
//!
//! There are no heartbeats here. A core that leads thousands of groups says so to each peer in one beacon, and the
//! beacon's word reaches each group as [`Event::Claimed`] and its silence as [`Event::Lapsed`]. A follower whose leader
//! is confirmed has no deadline and refuses pre-votes. All this is a hint: when it is wrong, an election comes too
//! early or too late, and nothing unsafe follows.
//!
//! # Replication
//!
//! The leader appends a proposal, hands out the write and sends it to its peers in one step; the disks of all work at
//! once. An entry is committed when any quorum holds it durably, so two followers can commit what the leader's own
//! disk has not finished. Only entries of the own term are counted; an empty entry opens each term so that there
//! soon is one. The leader's side is in `raft/replicate.rs`, the follower's in `raft/append.rs`, and what the leader
//! knows of a peer in `progress.rs`.
//!
//! When two logs differ, the refusal carries a hint: the last entry that can agree, judged by its term. Each side
//! skips whole terms, so a round is lost per differing term and not per differing entry.
//!
//! A leader whose peers hold its whole log and know its commit index sends nothing and has no deadline.
//!
//! # Memory
//!
//! The newest entries are in memory with their payloads, a window of a limited size. Of all others the log knows the
//! identities, by the first entry of each term, so that the rules above work over the whole log. What is durable,
//! committed and applied may leave the window; the machine after a start, and peers that are far behind, get it back
//! through a fetch from the log (`raft/fetch.rs`). The beginning of the log can be given up (`raft/compact.rs`); a peer
//! that needs it waits for a snapshot.
//!
//! # Durability
//!
//! Every write has a number (law 13). Acknowledgements, votes, refusals and requests for votes are held back, inside
//! the replica, until the last write before them is durable; the own vote and the leader's own copy count under
//! the same rule. What was overwritten while a slow sync ran can therefore not be acknowledged by that sync. Term,
//! vote, truncation and entries of one step are one [`pontoon_types::Write`], survive together, and are replayed in
//! the order of writing (law 14). The code is in `durable.rs` and `raft/promise.rs`.
//!
//! # Members and leaders that change
//!
//! Members come and go by entries of the log, one voter at a time or through a joint configuration from any set to any
//! other. A configuration is in force as soon as its entry is in the log. `raft/members.rs` has the rules and the
//! argument, [`membership`] the arithmetic. A learner receives everything and counts for nothing.
//!
//! A leader hands over to a voter that has its whole log, with a permit that is good for one campaign against it
//! (`raft/transfer.rs`). [`Priority`] says who campaigns first, and decides nothing.
//!
//! # Faults of the disk
//!
//! A log that was opened again may know an entry without its payload, or not know what was voted. Such a replica follows,
//! and neither campaigns with what it has not got nor promises what it does not know. `raft/restore.rs` and
//! `raft/lost_vote.rs` have the rules and the argument for each.
//!
//! # Laws
//!
//! - *Election safety:* a term has at most one leader. A second one is refused.
//! - *Log matching:* logs that share an entry share everything before it.
//! - *Leader completeness:* a leader has every committed entry; nothing committed is ever cut.
//! - *Law 5:* a permit to campaign against a leader is for one campaign, in the next term, against that leader.
//! - *Law 11:* a message for another replica is ignored, and so is the answer of a stranger. That a replica is who it says
//!   is checked before its message gets here.
//! - *Law 13:* what is said is durable first.
//! - *Missing payloads:* a replica that misses one follows, and commits and acknowledges nothing at or beyond it.
//! - *Lost vote:* a replica that has lost it never votes, and promises nothing before all others have told their terms.
//!
//! What a peer says against a law is dropped, changes nothing and comes out as [`Effect::Refused`]: one wrong peer must
//! not stop the healthy ones (`raft/refuse.rs`).
//!
//! `raft/check.rs` asserts the invariants of a replica after every step of a debug build. The assertions that guard
//! committed entries are on in release builds too: a replica that finds a law broken by itself must stop.
//!
//! # What it leaves out
//!
//! - Applying: the caller reads [`Raft::entries`] and [`Raft::committed`].
//! - The way of a snapshot: a peer that needs one is named ([`Effect::NeedsSnapshot`]), and one that is durable is taken in
//!   ([`Event::Install`]). What it holds and how it travels is the caller's business.
//! - Where members live, and what a removed replica does with its data: the caller reads [`Raft::configuration`].
//! - The quorum round of a linearizable read: [`Raft::read_index`] and [`Raft::confirms`] are its two halves, and
//!   one round serves all groups of a core.
//! - Check-quorum: whether a quorum still hears a leader is known outside; [`Event::Lapsed`] makes it resign.
//! - How it becomes known that a disk was put back to an earlier state (law 12): the caller says [`Event::Forgot`].

mod config;
mod durable;
mod effect;
mod event;
mod log;
mod lost;
pub mod membership;
mod mutation;
mod progress;
mod quorum;
mod raft;
mod random;

pub use config::{Config, Identities, Restored};
pub use effect::{ChangeRefused, Effect, Fetch, Law, ProposalRefused, Reader, Role, TransferRefused};
pub use event::{Event, MembersChange, Priority, Unfetched};
pub use log::NoTerm;
#[cfg(feature = "mutations")]
pub use mutation::Mutation;
pub use quorum::{VoteResult, committed_index, quorum, vote_result};
pub use raft::{Raft, TERM_MAX};
