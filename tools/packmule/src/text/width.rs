//! How many columns of a terminal text takes: what is escaped takes its escape's, letters of China, Japan and Korea and most
//! pictures take two, and marks that stand on others none.

use packmule::core::model::is_unseen;

/// Returns how many columns text takes.
pub fn width(text: &str) -> usize {
    text.chars().map(of_letter).sum()
}

/// Returns the beginning of a text that fits into so many columns.
pub fn beginning(text: &str, room: usize) -> &str {
    text.split(beyond(room)).next().unwrap_or_default()
}

/// Returns the end of a text that fits into so many columns.
pub fn end(text: &str, room: usize) -> &str {
    text.rsplit(beyond(room)).next().unwrap_or_default()
}

/// Returns what finds the letters that do not fit any more into so many columns, of those that it is asked about in turn.
fn beyond(room: usize) -> impl FnMut(char) -> bool {
    let mut taken = 0;
    move |c| {
        taken += of_letter(c);
        taken > room
    }
}

fn of_letter(c: char) -> usize {
    if c.is_ascii() && !c.is_ascii_control() {
        return 1;
    }
    // Line ends are no letters of a line.
    if c != '\n' && is_unseen(c) {
        return c.escape_default().count();
    }
    match c {
        '\u{300}'..='\u{36f}'
        | '\u{1ab0}'..='\u{1aff}'
        | '\u{20d0}'..='\u{20ff}'
        | '\u{fe00}'..='\u{fe0f}' => 0,
        '\u{1100}'..='\u{115f}'
        | '\u{2e80}'..='\u{303e}'
        | '\u{3041}'..='\u{a4cf}'
        | '\u{a960}'..='\u{a97c}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}'
        | '\u{ff00}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}'
        | '\u{1f300}'..='\u{1faff}'
        | '\u{20000}'..='\u{3fffd}' => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_take_as_many_columns_as_a_terminal_gives_them() {
        for (text, columns) in
            [("", 0), ("abc", 3), ("süd", 3), ("温度", 4), ("😀", 2), ("e\u{301}", 1), ("\u{1b}[", 7)]
        {
            assert_eq!(width(text), columns, "{text:?}");
        }
    }

    #[test]
    fn no_letter_is_cut_in_two() {
        for (room, first, last) in
            [(0, "", ""), (1, "a", "b"), (2, "a", "b"), (3, "a温", "度b"), (9, "a温度b", "a温度b")]
        {
            assert_eq!((beginning("a温度b", room), end("a温度b", room)), (first, last), "{room}");
        }
        assert_eq!(beginning("e\u{301}a", 1), "e\u{301}");
    }
}
