//! Names that others wrote, made fit to be shown.

use crate::ids::disturbs;

/// The name as it is listed: cut at a length, text in any case, and nothing in it that moves a cursor or
/// turns the text around it. Such characters, and bytes that are no text, are shown as U+FFFD. `scratch`
/// is used where something must be changed.
pub(super) fn presentable<'a>(
    name: &'a [u8],
    bytes_max: usize,
    scratch: &'a mut String,
) -> &'a str {
    let name = name.get(..bytes_max).unwrap_or(name);
    // Not `all`: without an early end the compiler looks at many bytes at once.
    if name
        .iter()
        .fold(true, |plain, byte| plain & (0x20..0x7f).contains(byte))
        && let Ok(name) = std::str::from_utf8(name)
    {
        return name;
    }
    scratch.clear();
    let characters = name.utf8_chunks().flat_map(|chunk| {
        let invalid = (!chunk.invalid().is_empty()).then_some(char::REPLACEMENT_CHARACTER);
        chunk.valid().chars().chain(invalid)
    });
    for character in characters {
        let shown = match disturbs(character) {
            true => char::REPLACEMENT_CHARACTER,
            false => character,
        };
        if scratch.len() + shown.len_utf8() > bytes_max {
            break;
        }
        scratch.push(shown);
    }
    scratch
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(name: &[u8]) -> String {
        presentable(name, 64, &mut String::new()).to_owned()
    }

    #[test]
    fn an_honest_name_stays_as_it_is() {
        for name in ["", "Outlook/16.0.17126.20132", "müller@contoso.test", "<b>"] {
            assert_eq!(shown(name.as_bytes()), name);
        }
    }

    #[test]
    fn what_would_disturb_a_terminal_or_a_page_is_replaced() {
        assert_eq!(shown(b"a\x1b[2Jb\tc"), "a\u{fffd}[2Jb\u{fffd}c");
        assert_eq!(shown("a\u{202e}b\u{feff}".as_bytes()), "a\u{fffd}b\u{fffd}");
        assert_eq!(shown(b"a\xff\xc3"), "a\u{fffd}\u{fffd}");
    }

    #[test]
    fn a_name_is_cut_between_two_characters() {
        assert_eq!(shown(&[b'x'; 65]), "x".repeat(64));
        let long = format!("{}ü", "x".repeat(63));
        assert_eq!(shown(long.as_bytes()), "x".repeat(63));
    }

    proptest! {
        #[test]
        fn any_bytes_become_a_short_harmless_text(name in proptest::collection::vec(any::<u8>(), 0..200)) {
            let shown = shown(&name);

            prop_assert!(shown.len() <= 64);
            prop_assert!(!shown.chars().any(disturbs));
            // Cleaning what is clean changes nothing.
            let mut scratch = String::new();
            prop_assert_eq!(presentable(shown.as_bytes(), 64, &mut scratch), &shown);
        }
    }
}
