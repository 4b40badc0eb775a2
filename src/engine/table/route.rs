//! The ways by which frames come here.

/// By which way a group of frames came here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum Route {
    /// A bundle, as a file.
    File,
    /// A card or stick.
    Card,
    /// A serial line.
    Serial,
    /// A network, or another program's input and output.
    Network,
    /// Another device's database, which was read.
    Database,
}

impl Route {
    const ALL: [Self; 5] = [Self::File, Self::Card, Self::Serial, Self::Network, Self::Database];

    /// Returns what it is called after "by".
    pub fn words(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Card => "card",
            Self::Serial => "serial line",
            Self::Network => "network",
            Self::Database => "database",
        }
    }

    /// Returns its number in the database.
    pub(crate) fn number(self) -> i64 {
        self as i64
    }

    /// Finds the one of a number; none of one that this version does not know.
    pub(crate) fn of_number(number: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|route| route.number() == number)
    }
}
