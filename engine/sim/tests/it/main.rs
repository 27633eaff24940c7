//! The tests of the simulator: runs that pass, runs that repeat themselves, checkers that notice, bugs that are found.

mod determinism;
mod disks;
mod linearizability;
mod mutations;
mod seeds;
mod shrinking;
