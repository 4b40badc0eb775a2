//! The life of a fleet, played through the program: with the commands that a person at that place would type.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Helpers of tests are tests.

mod compacted;
mod copied_card;
mod gathering;
mod restored_base;
mod same_tables;
#[path = "../cli/support/mod.rs"]
mod support;
