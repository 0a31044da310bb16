//! Tells a story as it happens: a time, a sentence, and colours where a person watches.

use std::io::{self, IsTerminal, Write};

use parking_lot::Mutex;
use tokio::time::Instant;

/// Where the story is told.
pub struct Teller {
    out: Mutex<Box<dyn Write + Send>>,
    has_colours: bool,
    began: Instant,
}

impl std::fmt::Debug for Teller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Teller")
            .field("has_colours", &self.has_colours)
            .finish_non_exhaustive()
    }
}

impl Teller {
    /// To standard output; colours on a terminal, unless `NO_COLOR` is set.
    pub fn stdout(began: Instant) -> Self {
        let out = io::stdout();
        Self::to(colours(out.is_terminal()), began, Box::new(out))
    }

    /// To standard error, for callers who read standard output.
    pub fn stderr(began: Instant) -> Self {
        let out = io::stderr();
        Self::to(colours(out.is_terminal()), began, Box::new(out))
    }

    fn to(has_colours: bool, began: Instant, out: Box<dyn Write + Send>) -> Self {
        Self {
            out: Mutex::new(out),
            has_colours,
            began,
        }
    }

    /// A new act.
    pub fn act(&self, number: usize, title: &str) {
        self.write("", &self.painted(BOLD, &format!("\n{number}. {title}")));
    }

    /// Something that happened just now.
    pub fn says(&self, words: &str) {
        self.write(&self.time(), words);
    }

    /// A promise that was kept, or was not.
    pub fn promise(&self, is_kept: bool, words: &str) {
        let mark = match is_kept {
            true => self.painted(GREEN, "kept   "),
            false => self.painted(RED, "BROKEN "),
        };
        self.write(&self.time(), &format!("{mark}{words}"));
    }

    /// Plain lines.
    pub fn plain(&self, words: &str) {
        self.write("", words);
    }

    /// A heading.
    pub fn heading(&self, words: &str) {
        self.write("", &self.painted(BOLD, &format!("\n{words}")));
    }

    fn time(&self) -> String {
        let time = format!("{:>6.2} s  ", self.began.elapsed().as_secs_f64());
        self.painted(DIM, &time)
    }

    fn painted(&self, colour: &str, words: &str) -> String {
        match self.has_colours {
            true => format!("{colour}{words}\x1b[0m"),
            false => words.to_owned(),
        }
    }

    fn write(&self, time: &str, words: &str) {
        let mut out = self.out.lock();
        // Who closed the pipe does not want to hear the rest; the exit code still tells.
        let _gone = writeln!(out, "{time}{words}").and_then(|()| out.flush());
    }
}

fn colours(is_terminal: bool) -> bool {
    is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[1;31m";

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    async fn told(has_colours: bool) -> String {
        let page = Page::default();
        #[expect(clippy::disallowed_methods, reason = "the clock is paused")]
        let began = Instant::now();
        let teller = Teller::to(has_colours, began, Box::new(page.clone()));
        tokio::time::advance(std::time::Duration::from_millis(1_500)).await;
        teller.act(1, "Everybody connects");
        teller.says("20 of 20");
        teller.promise(false, "nothing twice");
        let text = page.0.lock().clone();
        String::from_utf8(text).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_story_into_a_file_has_no_colours() {
        assert_eq!(
            told(false).await,
            "\n1. Everybody connects\n  1.50 s  20 of 20\n  1.50 s  BROKEN nothing twice\n"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_story_on_a_terminal_has_colours_that_end() {
        let text = told(true).await;

        assert!(text.contains("\x1b[1;31mBROKEN \x1b[0mnothing twice\n"));
    }
}
