//! What links have carried, as people read it.

use packmule::{LinkFigures, label};

use super::{count, plural, size, time};

/// Says what a link with a peer has carried, and how fast it was last.
pub fn link(figures: &LinkFigures) -> String {
    let who = label(figures.peer, figures.name.as_deref());
    let step = figures.in_step.map_or_else(|| "never in step".into(), |at| format!("in step {}", time(at)));
    let mut said = vec![format!("{}, {}", rate(figures), step), count(figures.sessions, "session")];
    said.extend([carried(figures)].into_iter().chain(ills(figures)));
    format!("{who} by {}: {}", figures.link, said.join("; "))
}

/// Says how much a link has carried.
pub fn carried(figures: &LinkFigures) -> String {
    format!("{} sent, {} received", size(figures.sent), size(figures.received))
}

/// Says what a serial line got wrong, if anything.
pub fn ills(figures: &LinkFigures) -> Option<String> {
    let lost = plural(figures.lost, "packet lost", "packets lost");
    let any = figures.corrected > 0 || figures.lost > 0;
    any.then(|| format!("{} corrected, {lost}", size(figures.corrected)))
}

/// Says how many bytes of frames a second a link has carried, the last time that some were on their way.
pub fn rate(figures: &LinkFigures) -> String {
    match figures.goodput {
        0 => "nothing carried yet".into(),
        rate => format!("{}/s", size(rate)),
    }
}
