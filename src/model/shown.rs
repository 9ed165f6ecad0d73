//! Texts of others, for people.

/// `text` for people: control characters, and format characters that reorder a line, are escaped.
/// What is escaped already stays as it is.
pub fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                out.extend(char.escape_unicode());
            }
            _ if char.is_control() => out.extend(char.escape_unicode()),
            _ => out.push(char),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn nothing_moves_a_cursor_begins_a_line_or_turns_one_around() {
        assert_eq!(shown("a\n\tb\x1b[2J\u{202e}c\u{9b}\\n\u{7f}é"), "a\\n\\tb\\u{1b}[2J\\u{202e}c\\u{9b}\\n\\u{7f}é");
    }
}
