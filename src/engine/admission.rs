//! The part of the engine's face that is about admission to a fleet.

use super::Engine;
use crate::engine::Result;
use crate::engine::exchange::admit::{self, Admission, Admitted};
use crate::engine::fleet::admission::Applicant;

impl Engine {
    /// Lists the devices that ask for admission to this device's fleet, as far as they were heard of.
    ///
    /// # Errors
    /// [`Error::Sqlite`](crate::Error::Sqlite).
    pub fn applicants(&self) -> Result<Vec<Applicant>> {
        Ok(admit::applicants(&self.replica)?)
    }

    /// Adds the requests for admission that this database has heard of, its own too, and what it knows of the fleet.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::Error::Usage) if the database belongs to another fleet than the key.
    pub fn add_requests(&self, admission: &mut Admission<'_>) -> Result<()> {
        Ok(admit::read_database(admission, &self.replica)?)
    }

    /// Names the only fleet that may admit this device, by its public key, and trusts the devices of that fleet. Without
    /// it, a device takes the first fleet that admits it.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::Error::Usage) if it belongs to another fleet already.
    pub fn expect_fleet(&mut self, fleet: [u8; 32]) -> Result<()> {
        Ok(admit::expect_fleet(&mut self.replica, fleet)?)
    }

    /// Takes in what a fleet key has signed: its own certificate, and those of others, which it sends to them.
    ///
    /// # Errors
    /// [`Error::Sqlite`](crate::Error::Sqlite).
    pub fn take_admitted(&mut self, admitted: &Admitted) -> Result<()> {
        Ok(admit::take_admitted(&mut self.replica, admitted)?)
    }
}
