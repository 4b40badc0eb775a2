//! Letters that nobody sees, or that change how others are seen.

/// Returns whether a letter does something else than to be shown: control characters (C0, C1, DEL), line and paragraph
/// separators, those that change the direction of text, those of no width, and tags.
///
/// Names with one are refused in certificates, and whatever is printed has them escaped: a terminal acts on some, and
/// with others one name looks like another.
pub fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
                | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}'
        )
}
