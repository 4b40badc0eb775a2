//! Sets of a table's columns, by their numbers in the table's definition here, which only grows.

/// A set of columns; one bit each, lowest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Columns(Vec<u8>);

impl Columns {
    /// Returns the set of the first `n` columns.
    pub(crate) fn all(n: usize) -> Self {
        (0..n).collect()
    }

    /// Reads a set from its bytes.
    pub(crate) fn of_bytes(bytes: &[u8]) -> Self {
        let mut set = Self(bytes.to_vec());
        set.trim();
        set
    }

    /// Returns the set as bytes: equal sets have equal bytes.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Removes the bytes at the end that have no column, so that equal sets are equal.
    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    /// Adds a column.
    pub(crate) fn insert(&mut self, at: usize) {
        if self.0.len() <= at / 8 {
            self.0.resize(at / 8 + 1, 0);
        }
        self.0[at / 8] |= 1 << (at % 8);
    }

    /// Returns whether a column is in the set.
    pub(crate) fn contains(&self, at: usize) -> bool {
        self.0.get(at / 8).is_some_and(|byte| byte >> (at % 8) & 1 == 1)
    }

    /// Returns whether there is no column in the set.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the columns of `other`.
    pub(crate) fn extend(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (a, b) in self.0.iter_mut().zip(&other.0) {
            *a |= b;
        }
    }

    /// Returns the columns that are not in `other`.
    pub(crate) fn minus(mut self, other: &Self) -> Self {
        for (a, b) in self.0.iter_mut().zip(&other.0) {
            *a &= !b;
        }
        self.trim();
        self
    }

    /// Returns whether both have a column in common.
    pub(crate) fn meets(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).any(|(a, b)| a & b != 0)
    }
}

impl FromIterator<usize> for Columns {
    fn from_iter<I: IntoIterator<Item = usize>>(columns: I) -> Self {
        let mut set = Self::default();
        columns.into_iter().for_each(|at| set.insert(at));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets() {
        let a: Columns = [1, 9].into_iter().collect();
        let b: Columns = [9, 30].into_iter().collect();
        assert!(a.meets(&b) && a.contains(9) && !a.contains(0));
        assert_eq!(a.clone().minus(&b), [1].into_iter().collect());
        assert!(a.clone().minus(&Columns::all(10)).is_empty());
        assert_eq!(Columns::of_bytes(b.as_bytes()), b);
        let mut both = a.clone();
        both.extend(&b);
        assert_eq!(both, [1, 9, 30].into_iter().collect());
    }
}
