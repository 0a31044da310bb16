//! Sentences for a terminal.

use std::fmt::{self, Write};

/// Characters of a line.
const LINE_MAX: usize = 100;

/// Writes words as lines of a readable length, each behind the margin.
///
/// # Errors
/// Those of the writer.
pub fn wrapped(text: &mut impl Write, margin: &str, words: &str) -> fmt::Result {
    let mut line = margin.to_owned();
    for word in words.split_whitespace() {
        if line.len() > margin.len() && line.len() + 1 + word.len() > LINE_MAX {
            writeln!(text, "{line}")?;
            line.clear();
            line.push_str(margin);
        }
        if line.len() > margin.len() {
            line.push(' ');
        }
        line.push_str(word);
    }
    writeln!(text, "{line}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_is_wrapped_at_words() {
        let mut text = String::new();
        wrapped(&mut text, "  ", &"word ".repeat(60)).unwrap();

        assert!(text.lines().all(|line| line.len() <= LINE_MAX));
        assert!(text.lines().all(|line| line.starts_with("  word")));
        assert_eq!(text.matches("word").count(), 60);
    }
}
