//! The life of a fleet, played through the program: with the commands that a person at that place would type.

mod copied_card;
mod gathering;
mod restored_base;
mod same_tables;
#[path = "../cli/support/mod.rs"]
mod support;
