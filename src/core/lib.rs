//! What a microcontroller and a board share: no `std`, no allocation, nothing of SQLite.
//!
//! | folder | what lives there | may import |
//! |---|---|---|
//! | [`model`] | ids, version vectors, values | nothing |
//! | [`wire`] | frames, checkpoints, certificates, records; `wire/FORMAT.md` is the format byte by byte | `model` |
//! | [`merge`] | two versions and what their authors had seen → dominated, concurrent, winner | `model` |
#![no_std]
#![deny(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod merge;
pub mod model;
pub mod wire;
