//! What fits on a screen: the most urgent parts whole, of the others how many lines there are.

use super::folded;

/// A screen has 24 lines, and the last is the shell's.
const LINES: usize = 23;

/// A part of what is shown, with a heading or without.
#[derive(Debug, Default)]
pub struct Part<S> {
    /// What is counted where it does not fit.
    pub name: &'static str,
    /// Stands above.
    pub heading: Option<(S, String)>,
    /// Each of one line or more, and how it looks.
    pub items: Vec<(S, String)>,
}

impl<S: Default> Part<S> {
    /// Makes a part of items that look as usual.
    pub fn plain(
        name: &'static str,
        heading: Option<(S, &str)>,
        items: impl IntoIterator<Item = String>,
    ) -> Self {
        let items = items.into_iter().map(|item| (S::default(), item)).collect();
        Self { name, heading: heading.map(|(style, text)| (style, text.to_owned())), items }
    }

    fn lines(&self) -> usize {
        self.items.iter().map(|(_, item)| item.lines().count()).sum::<usize>()
            + usize::from(self.heading.is_some())
    }
}

/// Cuts parts, the most urgent first, so that they fit on a screen with one line more, the `rest`: it stands last where
/// anything was left out.
pub fn fit<S: Default>(mut parts: Vec<Part<S>>, rest: &str) -> Vec<(S, String)> {
    parts.retain(|part| !part.items.is_empty());
    for (_, item) in parts.iter_mut().flat_map(|part| &mut part.items) {
        *item = folded(item).into_owned();
    }
    if parts.iter().map(Part::lines).sum::<usize>() <= LINES {
        return parts.into_iter().flat_map(whole).collect();
    }
    let mut shown = Vec::new();
    let (mut left, mut later) = (LINES - rest.lines().count(), parts.len());
    for part in parts {
        // Each of those that follow has a line at least.
        later -= 1;
        let lines = cut(part, left.saturating_sub(later));
        left = left.saturating_sub(lines.iter().map(|(_, line)| line.lines().count()).sum());
        shown.extend(lines);
    }
    shown.push((S::default(), rest.to_owned()));
    shown
}

/// Returns all lines of a part.
pub fn whole<S: Default>(part: Part<S>) -> Vec<(S, String)> {
    part.heading.into_iter().chain(part.items).collect()
}

/// Returns as many items as there is room for, and counts the others.
fn cut<S: Default>(part: Part<S>, room: usize) -> Vec<(S, String)> {
    if part.lines() <= room {
        return whole(part);
    }
    let (name, all) = (part.name, part.items.len());
    let mut left = room.saturating_sub(1);
    let mut shown = Vec::new();
    for line in whole(part) {
        let lines = line.1.lines().count();
        if lines > left {
            break;
        }
        left -= lines;
        shown.push(line);
    }
    // A heading above nothing says nothing.
    let has_heading = shown.len() > 1 || all == 1;
    match has_heading {
        true => {
            let items = all.saturating_sub(shown.len().saturating_sub(1));
            shown.push((S::default(), format!("    … and {items} more")));
            shown
        }
        false => vec![(S::default(), format!("  {name:<11}  {all}"))],
    }
}
