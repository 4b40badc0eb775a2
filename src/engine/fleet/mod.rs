//! The fleet: devices, whom we trust, how far each stream is applied here and acknowledged by peers.
//!
//! May import `store`, `table`.
//!
//! | file | what it does |
//! |---|---|
//! | `admission` | devices that ask the fleet to sign their certificates |
//! | `clocks` | clocks that are far off |
//! | `copies` | copies of a device's card, of which one is behind |
//! | `devices` | devices, their numbers and names |
//! | `gaps` | per-device streams in which a base went on over frames that it has not |
//! | `links` | what sessions have carried, for people |
//! | `membership` | whose acknowledgements count, what is stable, who is retired |
//! | `open` | making a database a device, and opening it |
//! | `peers` | what peers acknowledged, and what they have of our own log |
//! | `positions` | how far each stream is applied |
//! | `readers` | who can read what this device encrypts |
//! | `revocation` | who is revoked, and who says so |
//! | `roster` | the list of devices, for people |
//! | `routes` | by which way groups came here |
//! | `statements` | what is said of what is here, by what differs from what the other end said |
//! | `succession` | fleet keys that follow one another |
//! | `trust` | certificates verified and stored; trust given and taken |

pub(crate) mod admission;
pub(crate) mod clocks;
pub(crate) mod copies;
pub(crate) mod devices;
pub(crate) mod gaps;
pub(crate) mod links;
pub(crate) mod membership;
pub(crate) mod open;
pub(crate) mod peers;
pub(crate) mod positions;
pub(crate) mod readers;
pub(crate) mod revocation;
pub(crate) mod roster;
pub(crate) mod routes;
pub(crate) mod statements;
pub(crate) mod succession;
pub(crate) mod trust;
