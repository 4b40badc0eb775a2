//! Figures in Prometheus's text format, version 0.0.4.

use std::fmt::{Display, Write};

/// A page of figures.
#[derive(Default)]
pub struct Page(String);

/// A figure of which several are on a page, with other labels.
pub struct Family<'a> {
    page: &'a mut Page,
    name: &'static str,
}

impl Page {
    /// Begins a figure that goes up and down.
    pub fn gauge(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, "gauge", help)
    }

    /// Begins a figure that only goes up.
    pub fn counter(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, "counter", help)
    }

    fn family(&mut self, name: &'static str, kind: &str, help: &str) -> Family<'_> {
        // What is written to a String never fails.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Family { page: self, name }
    }

    /// Returns the page.
    pub fn text(self) -> String {
        self.0
    }
}

impl Family<'_> {
    /// Adds a value.
    pub fn is(&mut self, value: impl Display) {
        self.of(&[], value);
    }

    /// Adds a value with labels.
    pub fn of(&mut self, labels: &[(&str, &str)], value: impl Display) {
        let text = &mut self.page.0;
        let _ = write!(text, "{}", self.name);
        for (n, (name, value)) in labels.iter().enumerate() {
            let _ = write!(text, "{}{name}=\"{}\"", if n == 0 { '{' } else { ',' }, escaped(value));
        }
        let _ = writeln!(text, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }
}

/// Escapes a label's value.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut page = Page::default();
        page.gauge("a", "What it is.").of(&[("one", "a \"b\"\\c\nd"), ("two", "")], 1.5);
        page.counter("b_total", "Another one.").is(7);
        let text = "# HELP a What it is.\n# TYPE a gauge\na{one=\"a \\\"b\\\"\\\\c\\nd\",two=\"\"} 1.5\n\
                    # HELP b_total Another one.\n# TYPE b_total counter\nb_total 7\n";
        assert_eq!(page.text(), text);
    }
}
