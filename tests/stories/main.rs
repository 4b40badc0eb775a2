//! The life of a fleet, played through the program: with only the commands that a person at that place would type.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Helpers of tests are tests.

#[path = "../bundles/mod.rs"]
mod bundles;
#[path = "../serial/cable.rs"]
#[allow(dead_code)] // Not all that it can.
mod cable;
#[path = "../common/mod.rs"]
mod common;
#[path = "../faults/mod.rs"]
mod faults_of_the_system;
#[path = "../skips/mod.rs"]
mod skips;
#[path = "../cli/support/mod.rs"]
mod support;

use common as random;

mod admit;
mod bad_files;
mod bases;
mod board;
mod browser;
mod card;
mod changed_bytes;
mod choices;
mod clinic;
mod columns;
mod compacted;
mod copied_card;
mod copy_decides;
mod dead_base;
mod decisions;
mod encrypted;
mod examples;
mod faults;
mod flood;
mod gathering;
mod heap;
mod held_writes;
mod history;
mod http;
mod insider;
mod join;
mod keeper;
mod keeping_both;
mod keyless;
mod keys;
mod late_application;
mod leaving;
mod line;
mod made_of_rows;
mod migration_forms;
mod migrations;
mod network;
mod new_board;
mod newcomer;
mod older_program;
mod other_keys;
mod over_lines;
mod proposed;
mod prose;
mod proxies;
mod pruned;
mod random_fleets;
mod random_upgrades;
mod report;
mod restored_base;
mod restored_board;
mod retired;
mod rotate;
mod run;
mod same_tables;
mod schema_advice;
mod screens;
mod second_history;
mod skipped_versions;
mod small_memory;
mod station;
mod stolen;
mod strange_files;
mod two_hosts;
mod typed;
mod untracked;
mod upgrade;
mod weekly;
#[path = "../wrong/mod.rs"]
mod wrong;
mod wrong_files;
mod wrong_states;
