//! Text that a peer has chosen, made safe to show.
//!
//! A member's name and the words of its refusals are any UTF-8. Invariant: what is shown of it stays on its
//! line and keeps its order, so that nobody can forge a line of a log or of an explanation, command a
//! terminal, or make a text read backwards.

use std::fmt::{self, Write};

/// Shows a text of somebody else's, or what contains one: control characters (a newline, an escape sequence), line separators
/// and marks that turn the direction of writing are escaped as in Rust's source.
///
/// ```
/// use memberlist_protocol::Shown;
/// assert_eq!(Shown("n1\nn2 is dead").to_string(), r"n1\nn2 is dead");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shown<T>(pub T);

impl<T: fmt::Display> fmt::Display for Shown<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

struct Escaping<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some((at, char)) = rest.char_indices().find(|(_, char)| misleads(*char)) {
            let (plain, from) = rest.split_at(at);
            write!(self.0, "{plain}{}", char.escape_default())?;
            rest = from.strip_prefix(char).unwrap_or_default();
        }
        self.0.write_str(rest)
    }
}

/// Whether it does something else than to stand at its place.
fn misleads(char: char) -> bool {
    let separates = matches!(char, '\u{2028}' | '\u{2029}');
    let turns = matches!(char, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    char.is_control() || separates || turns
}

#[cfg(test)]
mod tests {
    use super::Shown;

    #[test]
    fn what_misleads_is_escaped() {
        let shown = |text: &str| Shown(text).to_string();
        assert_eq!(shown("a\nb\r\t\u{1b}[2J\0\u{9b}"), r"a\nb\r\t\u{1b}[2J\u{0}\u{9b}");
        assert_eq!(shown("\u{202a}\u{202e}\u{2066}\u{2069}"), r"\u{202a}\u{202e}\u{2066}\u{2069}");
        assert_eq!(shown("\u{2028}x\u{2029}"), r"\u{2028}x\u{2029}");
    }

    #[test]
    fn what_does_not_is_left_alone() {
        for text in ["", "cache-7", "Zürich 東京 שלום", r"back\slash"] {
            assert_eq!(Shown(text).to_string(), text);
        }
    }
}
