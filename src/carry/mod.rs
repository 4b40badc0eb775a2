//! Carriers: how frames travel. They know nothing of tables, and are never trusted: what they bring is
//! verified by the engine.
//!
//! | file | what lives there |
//! |---|---|
//! | `between` | devices for tests of somebody who stands between two ends |
//! | `card` | both ways with a directory that somebody carries |
//! | `volume` | a card as `card` sees it, and a mounted directory as such |
//! | `session` | the session of the core over a database: two ends that talk until each has what the other has |
//! | `figures` | what a session has carried, recorded for people |
//! | `stillness` | for how long a session has not got on |
//! | `stop` | [`Stop`]: ends sessions from another thread; [`Life`]: whether they get on |
//! | `keep/` | links that are kept up in the background: intervals, back-off, what wakes them |
//! | `channel/` | what goes over a stream, byte by byte; the encrypted channel |
//! | `serial/` | a session over a serial line |
//! | `net/` | a session over a network, or over the pipes of another program |
//!
//! Imports the engine and [`packmule_core`].

#[cfg(all(test, unix, any(feature = "net", feature = "serial")))]
#[allow(clippy::unwrap_used)] // As in the tests that it is for.
mod between;
#[cfg(unix)]
pub mod card;
#[cfg(all(unix, any(feature = "net", feature = "serial")))]
mod channel;
#[cfg(all(unix, any(feature = "net", feature = "serial")))]
mod figures;
#[cfg(unix)]
pub mod keep;
#[cfg(all(unix, feature = "net"))]
pub mod net;
#[cfg(all(unix, feature = "serial"))]
pub mod serial;
pub mod session;
#[cfg(all(unix, any(feature = "net", feature = "serial")))]
mod stillness;
#[cfg(unix)]
mod stop;
#[cfg(unix)]
pub mod volume;

#[cfg(unix)]
pub use stop::{Life, Stop};
