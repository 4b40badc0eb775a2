//! The life of a fleet, played through the program: with only the commands that a person at that place would type.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Helpers of tests are tests.

mod admit;
mod compacted;
mod leaving;
mod new_board;
mod rotate;
#[path = "../cli/support/mod.rs"]
mod support;
