//! What a microcontroller and a board share: no `std`, no allocation, nothing of SQLite.
//!
//! | folder | what lives there | may import |
//! |---|---|---|
//! | [`model`] | ids, values; hexadecimal digits, the check sum | nothing |
//! | [`wire`] | frames, checkpoints, certificates, records; `wire/FORMAT.md` is the format byte by byte | `model` |
//! | [`merge`] | two versions and what their authors had seen → dominated, concurrent, winner | `model`, `wire` |
//! | [`link`] | the serial link: a stream of bytes over a bad line, as a state machine | `model` |
//! | [`session`] | two ends that talk: who they are, what each has and lacks, as a state machine over a small trait of the log | `model`, `wire` |
#![no_std]
#![deny(unsafe_code)]

#[cfg(test)]
extern crate std;
// The link's simulation serves unit tests here and the long ones under `tests/link/`, by one name.
#[cfg(test)]
extern crate self as packmule_core;

pub mod link;
pub mod merge;
pub mod model;
pub mod session;
pub mod wire;
