//! The tests of the wire: golden bytes, round trips, damage, the reader, commands.

mod allocation;
mod command;
mod damage;
mod golden;
mod hello;
mod messages;
mod reader;
mod round_trip;
mod samples;
mod strategies;
