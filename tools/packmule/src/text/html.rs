//! Pages for a browser: escaped text, tables, charts. A page has all in itself, and loads nothing.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::{number, safe};

/// With what a page of ours begins: another file is not written over.
pub const MARK: &str = "<!doctype html>\n<!-- packmule report -->\n";

/// How many series of a chart have a colour of their own.
const SERIES: usize = 7;

/// Returns text as it can stand in a page, also within an attribute.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in safe(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// Makes the beginning of a page.
pub fn head(title: &str) -> String {
    let policy = "default-src 'none'; style-src 'unsafe-inline'";
    format!(
        "{MARK}<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n",
        escape(title)
    )
}

/// The end of a page.
pub const END: &str = "</body>\n</html>\n";

/// Makes a table; on a telephone each row is a card. Cells are escaped already.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut out = String::from("<table><thead><tr>");
    head.iter().for_each(|name| out.push_str(&format!("<th>{}</th>", escape(name))));
    out.push_str("</tr></thead><tbody>\n");
    for row in rows {
        out.push_str("<tr>");
        for (name, cell) in head.iter().zip(row) {
            // A telephone leaves out what is empty.
            let none = if cell == "–" { " class=\"none\"" } else { "" };
            let _ = write!(out, "<td{none} data-label=\"{}\"><div>{cell}</div></td>", escape(name));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table>\n");
    out
}

/// Orders the series of charts, the largest of the first one first: a series has one colour in all of them.
pub fn order<'a>(charts: &[&'a BTreeMap<i64, BTreeMap<String, u64>>]) -> Vec<&'a str> {
    let mut order: Vec<&str> = Vec::new();
    for chart in charts {
        let mut totals: BTreeMap<&str, u64> = BTreeMap::new();
        for (name, n) in chart.values().flatten() {
            *totals.entry(name).or_default() += n;
        }
        let mut names: Vec<&str> = totals
            .iter()
            .filter(|(name, n)| **n > 0 && !order.contains(*name))
            .map(|(name, _)| *name)
            .collect();
        names.sort_by_key(|name| std::cmp::Reverse(totals[name]));
        order.extend(names);
    }
    order
}

/// Makes a chart of stacked bars, a bar for each day, with what each series has of it; the first ones by name, in their
/// order, and all others as one.
pub fn bars(days: &[(String, BTreeMap<String, u64>)], order: &[&str], unit: &str) -> String {
    let mut totals: BTreeMap<&str, u64> = BTreeMap::new();
    for (name, n) in days.iter().flat_map(|(_, of)| of) {
        *totals.entry(name).or_default() += n;
    }
    let names = order;
    let total = |name: &&str| totals.get(name).copied().unwrap_or(0);
    let place = |name: &str| names.iter().position(|n| *n == name).unwrap_or(SERIES).min(SERIES);
    let most = days.iter().map(|(_, of)| of.values().sum::<u64>()).max().unwrap_or(0).max(1);
    let mut out = format!(
        "<figure><div class=\"most\">{} {}</div>\n<svg viewBox=\"0 0 {} 100\" preserveAspectRatio=\"none\" role=\"img\" \
         aria-label=\"{} per day\">\n",
        number(most),
        escape(unit),
        days.len() * 10,
        escape(unit)
    );
    for line in [0, 25, 50, 75] {
        let _ = writeln!(
            out,
            "<line class=\"grid\" x1=\"0\" x2=\"{}\" y1=\"{line}\" y2=\"{line}\"/>",
            days.len() * 10
        );
    }
    for (at, (day, of)) in days.iter().enumerate() {
        let mut parts = [0; SERIES + 1];
        of.iter().for_each(|(name, n)| parts[place(name)] += n);
        let mut below = 0;
        for (series, n) in parts.iter().enumerate().filter(|(_, n)| **n > 0) {
            let height = *n as f64 * 100.0 / most as f64;
            let top = 100.0 - (below + n) as f64 * 100.0 / most as f64;
            let name = if series == SERIES { "others" } else { names[series] };
            let _ = writeln!(
                out,
                "<rect class=\"s{series}\" x=\"{}\" y=\"{top:.2}\" width=\"8\" height=\"{height:.2}\"><title>{}: {}, {} \
                 {}</title></rect>",
                at * 10 + 1,
                escape(day),
                escape(name),
                number(*n),
                escape(unit)
            );
            below += n;
        }
    }
    let ends = [days.first(), days.last()].map(|day| day.map_or("", |(day, _)| day.as_str()));
    let _ = write!(out, "</svg>\n<div class=\"ends\"><span>{}</span>", escape(ends[0]));
    if days.len() > 1 {
        let _ = write!(out, "<span>{}</span>", escape(ends[1]));
    }
    out.push_str("</div>\n<figcaption>");
    for (series, name) in names.iter().take(SERIES).enumerate().filter(|(_, name)| total(name) > 0) {
        let _ = write!(
            out,
            "<span><i class=\"s{series}\"></i>{} <b>{}</b></span>",
            escape(name),
            number(total(name))
        );
    }
    let others: Vec<u64> = names.iter().skip(SERIES).map(total).filter(|n| *n > 0).collect();
    if !others.is_empty() {
        let (n, rest) = (others.len(), number(others.iter().sum()));
        let _ = write!(out, "<span><i class=\"s{SERIES}\"></i>{n} others <b>{rest}</b></span>");
    }
    out.push_str("</figcaption></figure>\n");
    out
}

const STYLE: &str = include_str!("report.css");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_browser_acts_on_is_escaped() {
        let text = "<script>alert('x')</script> & \"y\" \u{202e}";
        assert_eq!(
            escape(text),
            "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &quot;y&quot; \\u{202e}"
        );
        let day = |n| ("<b>".to_owned(), BTreeMap::from([("<i>".to_owned(), n)]));
        let chart = bars(&[day(1), day(3)], &["<i>"], "<u>");
        assert!(!["<b></", "<i>&", "<u>"].iter().any(|raw| chart.contains(raw)), "{chart}");
    }
}
