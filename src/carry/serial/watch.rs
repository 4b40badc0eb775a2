//! What whoever runs a line hears of it.

use std::io;

use packmule_core::model::DeviceId;

use super::error::Error;
use crate::carry::session::Progress;

/// What happened, for whoever watches.
#[derive(Debug)]
pub enum Status<'a> {
    /// The port is open; the other end is called.
    Open,
    /// The port is not there, or cannot be used; it is tried again.
    Away(&'a io::Error),
    /// The other end has proved who it is.
    Met {
        /// Its id.
        id: DeviceId,
        /// Its name.
        name: &'a str,
    },
    /// The line runs at this rate now, bits a second: raised, or back at the first.
    Baud(u32),
    /// How far it is; comes often.
    Moving(&'a Progress),
    /// Each end has all that the other has.
    InStep(&'a Progress),
    /// The other end is not heard.
    Silent,
    /// It is heard again.
    Heard,
    /// The session ended in good order.
    Ended,
    /// The session failed; with [`serve`](super::serve), another begins soon.
    Failed(&'a Error),
}
