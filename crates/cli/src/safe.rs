//! Names come from other people's machines: on a terminal they must not move the cursor, change
//! colours, or read other than they are.

/// The text with control characters, direction overrides and invisible characters escaped.
pub fn safe(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if disguises(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    out
}

fn disguises(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{00ad}' | '\u{061c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::safe;

    #[test]
    fn what_moves_cursors_or_turns_text_around_is_escaped() {
        assert_eq!(safe("a\x1b[31mb\rc"), "a\\u{1b}[31mb\\u{d}c");
        assert_eq!(safe("invoice\u{202e}fdp.exe"), "invoice\\u{202e}fdp.exe");
        assert_eq!(safe("Grüße 日本.txt"), "Grüße 日本.txt");
    }
}
