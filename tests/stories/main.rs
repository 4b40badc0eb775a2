//! Stories of fleets, each played through the program with the commands that a person at that place types.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests are tests.

#[path = "../cli/support/mod.rs"]
mod support;

mod stolen;
