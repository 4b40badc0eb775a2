//! Who there is: devices, whom we trust, how far each stream has come here and at others.
//!
//! May import `store`, `table`.
//!
//! | file | what it does |
//! |---|---|
//! | `clocks` | clocks that are far off |
//! | `devices` | devices, their numbers and names |
//! | `membership` | who is waited for, what is stable, who was retired |
//! | `open` | a database is made a device, and opened |
//! | `peers` | what peers have, also of our own log |
//! | `positions` | how far each stream is applied |
//! | `roster` | the list of devices, for people |
//! | `trust` | certificates judged and kept; trust given and taken |

pub(crate) mod clocks;
pub(crate) mod devices;
pub(crate) mod membership;
pub(crate) mod open;
pub(crate) mod peers;
pub(crate) mod positions;
pub(crate) mod roster;
pub(crate) mod trust;
