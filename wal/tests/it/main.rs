//! All tests of the log, in one binary. The numbers in the names of `cases` are those of the design's list of cases.
// A failed unwrap fails the test, in a helper as well.
#![allow(clippy::unwrap_used)]

mod allocation;
mod append_path;
mod cases;
mod cold;
mod commit_path;
mod common;
mod damage;
mod device;
mod ends;
mod faults;
mod files;
mod fuzz;
mod golden;
mod guided;
mod inspect;
mod keeping;
mod kill;
mod model;
mod reading;
mod repair;
mod restarts;
mod room;
mod rotting;
mod space;
mod transplant;
mod unknown;
mod unreadable;
