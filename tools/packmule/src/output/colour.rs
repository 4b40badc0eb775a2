//! Colour, on a terminal that has it: what a screen is about, and what cannot be overlooked. Nothing is told by it alone.

use std::io::IsTerminal;

/// How a line stands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// What the lines after it are about.
    Head,
    /// What is removed, what is wrong.
    Warn,
}

/// Returns whether colour is wanted there: it is a terminal, and nobody has said otherwise (<https://no-color.org>).
pub fn is_wanted(stream: &impl IsTerminal) -> bool {
    let said = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    stream.is_terminal() && said("NO_COLOR").is_none() && said("TERM").is_none_or(|term| term != "dumb")
}

/// Paints each line of a text.
pub fn paint(style: Style, text: &str) -> String {
    let code = match style {
        Style::Head => "1",
        Style::Warn => "31",
    };
    let lines = text.split('\n').map(|line| match line {
        "" => String::new(),
        line => format!("\x1b[{code}m{line}\x1b[0m"),
    });
    lines.collect::<Vec<_>>().join("\n")
}
