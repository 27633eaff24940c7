//! The simulated shell: the cores of a whole cluster on one thread, in virtual time, from one seed.
//!
//! [`run`] draws everything from a seed: the size of the cluster, its timing, its load, its faults ([`options`]), and
//! then every delay, loss and crash. The code under test is the code that runs in production, the pure cores of
//! `pontoon-multiraft` over the logs of `pontoon-wal`, and both are driven as the node drives them: events in, effects
//! out, bytes of frames between cores, groups of records to a disk. What is simulated is what lies outside: the network
//! ([`network`]), the medium under each log ([`disk`], [`damage`]), processes ([`process`]) and clocks ([`clock`]), and
//! clients ([`client`]).
//!
//! A run has three phases. First faults happen while clients load the cluster. Then everything heals, and within a
//! bound each group must serve and all replicas must converge. Last, with nobody asking for anything, groups must be
//! asleep. What must hold is checked after every turn ([`invariants`]) and over the histories of the clients at the end
//! ([`history`], [`linear`]). What breaks is reported as a [`Violation`]: the law's name, the seed, the time, and the
//! last lines of the trace.
//!
//! # Laws
//!
//! - The same seed and overrides give the same run, byte by byte: no clock, no thread, no unordered map and no
//!   floating point takes part. [`Report`] carries a digest over everything that happened. [`jobs`] runs many seeds on
//!   threads; a single run never leaves its own.
//! - Nothing that this shell does to a core is impossible in production, except that its network is worse than TCP.
//! - A checker that has never failed proves nothing: with the feature `mutations`, bugs are put into the Raft core, around it and
//!   under the log on purpose, and tests hold that they are found.
//!
//! # Left out
//!
//! Splits and merges. A disk that lies about a sync: no log survives that, so it is only one of the bugs put in on purpose. A log whose
//! damage is refused stays down or gets its good bytes back; nothing restores it from peers yet.

pub mod client;
pub mod clock;
pub mod connection;
pub mod damage;
pub mod disk;
pub mod draw;
pub mod faults;
mod fetch;
pub mod history;
mod images;
pub mod invariants;
pub mod jobs;
pub mod lease_law;
pub mod linear;
pub mod liveness;
pub mod network;
pub mod network_faults;
pub mod once;
mod operator;
pub mod options;
pub mod oracle;
mod orders;
pub mod parts;
pub mod process;
pub mod process_faults;
pub mod queue;
pub mod quorum_loss;
pub mod random;
pub mod read_law;
pub mod repeats;
pub mod replica_log;
pub mod report;
pub mod shrink;
pub mod start;
mod store;
pub mod sync;
pub mod trace;
mod truth;
pub mod turn;
pub mod violation;
pub mod world;

use pontoon_types::Time;

pub use jobs::run_many;
#[cfg(feature = "mutations")]
pub use options::DiskMutation;
pub use options::{Handicap, Options, Overrides};
pub use parts::Part;
pub use report::{Counts, Report};
pub use violation::{Broken, Violation};

use crate::world::World;

/// Runs one seed from the first start to the last check.
pub fn run(seed: u64, overrides: &Overrides) -> Report {
    let options = Options::draw(seed, overrides);
    let mut world = World::new(options.clone(), overrides.trace, overrides.protocol);
    let result = phases(&mut world);
    let mut counts = world.counts;
    counts.checked = world.invariants.checked;
    counts.elections = world.invariants.elections();
    counts.configurations = world.configurations_applied();
    counts.reads_checked = world.read_law.checked;
    counts.overlaps = world.invariants.overlaps;
    counts.entries_committed = world.invariants.entries_committed();
    (counts.repeated, counts.forgotten) = world.invariants.not_executed();
    counts.payloads_restored = world.disks.values().map(|disk| disk.oracle().restored).sum();
    counts.history = world.history.operations_on_keys() as u64;
    let (ended, digest) = (world.now(), world.trace.digest());
    let trace = if overrides.trace || result.is_err() { world.trace.lines() } else { Vec::new() };
    let protocol = world.protocol.unwrap_or_default();
    match result {
        Ok(undecided) => {
            counts.undecided = undecided;
            Report { options, ended, counts, digest, violation: None, trace, protocol }
        }
        Err(broken) => {
            let violation = Some(Violation { seed, at: ended, broken, trace });
            Report { options, ended, counts, digest, violation, trace: Vec::new(), protocol }
        }
    }
}

fn phases(world: &mut World) -> Result<u64, Broken> {
    world.begin();
    world.run_until(Time(0) + world.options.duration)?;
    // What was begun with a lost quorum is ended before everything has to work again.
    while world.loss.is_under_way() {
        world.run_until(world.now() + world.options.core.election_timeout)?;
    }
    world.liveness_phase()?;
    world.history.check(&world.invariants)
}
