//! Version vectors: what a device has seen of every other device's shared stream.

use heapless::Vec;

use super::DeviceId;

/// The vector has no room for another device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Full;

/// A version vector of at most `N` devices, kept in the order of their ids.
///
/// A device that is not in it counts as seen up to 0, that is, not at all. Costs 24 bytes a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct VersionVector<const N: usize> {
    entries: Vec<(DeviceId, u64), N>,
}

impl<const N: usize> VersionVector<N> {
    /// Nothing seen.
    pub const fn new() -> Self {
        Self { entries: Vec::new() }
    }

    /// The last sequence number seen of a device; 0 for none.
    pub fn get(&self, device: DeviceId) -> u64 {
        match self.entries.binary_search_by_key(&device, |e| e.0) {
            Ok(at) => self.entries[at].1,
            Err(_) => 0,
        }
    }

    /// Raises a device's entry to `seq`; a lower `seq` changes nothing.
    ///
    /// # Errors
    /// [`Full`] if the device is new and there are `N` already.
    pub fn raise(&mut self, device: DeviceId, seq: u64) -> Result<(), Full> {
        match self.entries.binary_search_by_key(&device, |e| e.0) {
            Ok(at) => {
                let entry = &mut self.entries[at].1;
                *entry = seq.max(*entry);
                Ok(())
            }
            Err(_) if seq == 0 => Ok(()),
            Err(at) => self.entries.insert(at, (device, seq)).map_err(|_| Full),
        }
    }

    /// Whether everything in `other` has been seen.
    pub fn covers<const M: usize>(&self, other: &VersionVector<M>) -> bool {
        other.iter().all(|(device, seq)| self.get(device) >= seq)
    }

    /// The entries in the order of device ids.
    pub fn iter(&self) -> impl Iterator<Item = (DeviceId, u64)> + '_ {
        self.entries.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raise_keeps_the_highest_and_is_bounded() {
        let (a, b, c) = (DeviceId([1; 16]), DeviceId([2; 16]), DeviceId([3; 16]));
        let mut v = VersionVector::<2>::new();
        assert_eq!(v.raise(b, 5), Ok(()));
        assert_eq!(v.raise(b, 3), Ok(()));
        assert_eq!(v.raise(a, 1), Ok(()));
        assert_eq!(v.raise(c, 1), Err(Full));
        assert_eq!((v.get(a), v.get(b), v.get(c)), (1, 5, 0));
        let mut w = VersionVector::<1>::new();
        assert_eq!(w.raise(b, 6), Ok(()));
        assert!(!v.covers(&w) && !w.covers(&v));
    }
}
