//! A table of the file, whose keys are taken out one by one: what is left at the end is unknown.

use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::text::read_age;
use crate::usage::nearest;

/// What is wrong, with its place in the text.
pub struct Wrong {
    text: String,
    found: Vec<(usize, String)>,
}

impl Wrong {
    pub fn new(text: &str) -> Self {
        Self { text: text.to_owned(), found: Vec::new() }
    }

    /// Records that something is wrong there.
    pub fn at(&mut self, place: &Range<usize>, what: String) {
        let before = self.text.as_bytes().get(..place.start).unwrap_or_default();
        self.found.push((before.iter().filter(|b| **b == b'\n').count() + 1, what));
    }

    /// Returns whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Returns what was found, in the order of the lines.
    pub fn found(mut self) -> Vec<(usize, String)> {
        self.found.sort();
        self.found
    }
}

/// A table: its name, such as `link`, and what it can have.
pub struct Table<'t, 'w> {
    name: &'static str,
    known: &'static [&'static str],
    entries: &'t DeTable<'t>,
    /// Where it begins.
    pub place: Range<usize>,
    pub wrong: &'w mut Wrong,
}

impl<'t, 'w> Table<'t, 'w> {
    /// Takes a table whose keys are these. Each other one is wrong.
    pub fn new(
        name: &'static str,
        known: &'static [&'static str],
        (entries, place): (&'t DeTable<'t>, Range<usize>),
        wrong: &'w mut Wrong,
    ) -> Self {
        for key in entries.keys() {
            let word = key.get_ref().as_ref();
            if !known.contains(&word) {
                let meant = nearest(word, known.iter().copied());
                let meant = meant.map_or(String::new(), |meant| format!(" (did you mean `{meant}`?)"));
                let of = if name.is_empty() { "the file".to_owned() } else { format!("`{name}`") };
                let all = known.join(", ");
                wrong.at(&key.span(), format!("`{word}` is not known{meant}; {of} has: {all}"));
            }
        }
        Self { name, known, entries, place, wrong }
    }

    /// Returns a value.
    pub fn of_key(&self, key: &str) -> Option<&'t Spanned<DeValue<'t>>> {
        debug_assert!(self.known.contains(&key));
        self.entries.iter().find(|(known, _)| known.get_ref().as_ref() == key).map(|(_, value)| value)
    }

    /// Returns a key's name as messages have it.
    fn key(&self, key: &str) -> String {
        if self.name.is_empty() { format!("`{key}`") } else { format!("`{}.{key}`", self.name) }
    }

    /// Records that a key's value is wrong.
    pub fn refuse(&mut self, key: &str, must: &str) {
        let place = self.of_key(key).map_or(self.place.clone(), Spanned::span);
        let is = self.of_key(key).and_then(|value| self.wrong.text.get(value.span())).unwrap_or_default();
        let is = is.lines().next().unwrap_or_default().to_owned();
        let what = format!("{} is {must}, not {is}", self.key(key));
        self.wrong.at(&place, what);
    }

    /// Records that a key is missing, if it is.
    pub fn needs(&mut self, key: &str, must: &str) {
        if self.of_key(key).is_none() {
            self.missing(key, must);
        }
    }

    /// Records that a key is missing.
    pub fn missing(&mut self, key: &str, must: &str) {
        let what = format!("{} is missing: {must}", self.key(key));
        let place = self.place.clone();
        self.wrong.at(&place, what);
    }

    /// Records that a key, if it is given, is of no use here, or does not go with another one.
    pub fn amiss(&mut self, key: &str, why: &str) {
        let Some(place) = self.of_key(key).map(Spanned::span) else { return };
        let what = format!("{}: {why}", self.key(key));
        self.wrong.at(&place, what);
    }

    /// Reads a text.
    pub fn text(&mut self, key: &str, must: &str) -> Option<String> {
        let text = self.of_key(key)?.get_ref().as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        if text.is_none() {
            self.refuse(key, must);
        }
        text
    }

    /// Reads a text that says one of some things; returns what it says, and the text.
    pub fn text_as<T>(
        &mut self,
        key: &str,
        must: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Option<(T, String)> {
        let text = self.text(key, must)?;
        let says = read(&text);
        if says.is_none() {
            self.refuse(key, must);
        }
        Some((says?, text))
    }

    /// Reads `true` or `false`; absent is false.
    pub fn switch(&mut self, key: &str) -> bool {
        let Some(value) = self.of_key(key) else { return false };
        let switch = value.get_ref().as_bool();
        if switch.is_none() {
            self.refuse(key, "true or false");
        }
        switch.unwrap_or(false)
    }

    /// Reads a whole number of this range.
    pub fn number(&mut self, key: &str, range: Range<u64>) -> Option<u64> {
        let value = self.of_key(key)?.get_ref().as_integer();
        let number = value.and_then(|n| u64::from_str_radix(n.as_str(), n.radix()).ok());
        let number = number.filter(|n| range.contains(n));
        if number.is_none() {
            self.refuse(key, &format!("a number from {} to {}", range.start, range.end - 1));
        }
        number
    }

    /// Reads a span of time, at least one second; with `without`, that word says that there is none.
    pub fn time(&mut self, key: &str, without: Option<&str>) -> Option<Option<Duration>> {
        let value = self.of_key(key)?.get_ref().as_str();
        if value.is_some() && value == without {
            return Some(None);
        }
        let time = value.and_then(read_age).filter(|ms| *ms > 0).and_then(|ms| ms.try_into().ok());
        if time.is_none() {
            let or = without.map_or(String::new(), |word| format!(", or \"{word}\""));
            self.refuse(key, &format!("a time such as \"90s\", \"15m\", \"12h\" or \"7d\"{or}"));
        }
        time.map(|ms| Some(Duration::from_millis(ms)))
    }
}
