//! The life of a fleet, played through the program: with the commands that a person at that place would type.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Helpers of tests are tests.

mod compacted;
#[path = "../cli/support/mod.rs"]
mod support;
