//! Groups that have lost a quorum for good begin anew with the survivors.

mod faults;
mod nodes;
