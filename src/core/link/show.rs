//! How a link is shown in a log: where it stands and what it counted, not its buffers.

use core::fmt;

use super::{Link, Pump};

impl<const TX: usize, const RX: usize, const PACKET: usize, const FLIGHT: usize> fmt::Debug
    for Link<TX, RX, PACKET, FLIGHT>
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("state", &self.state())
            .field("peer", &self.peer())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Pump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pump").field("waiting", &self.waiting()).finish_non_exhaustive()
    }
}

#[cfg(feature = "defmt")]
impl<const TX: usize, const RX: usize, const PACKET: usize, const FLIGHT: usize> defmt::Format
    for Link<TX, RX, PACKET, FLIGHT>
{
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(
            f,
            "Link {{ state: {}, peer: {}, stats: {} }}",
            self.state(),
            self.peer(),
            self.stats()
        );
    }
}

#[cfg(feature = "defmt")]
impl defmt::Format for Pump {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "Pump {{ waiting: {} }}", self.waiting());
    }
}
