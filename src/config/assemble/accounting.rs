//! What is told of the cost of requests.

use super::super::section::Section;
use super::super::settings::Accounting;

pub(super) fn accounting(top: &Section<'_>) -> Accounting {
    let section = top.section("accounting");
    Accounting {
        usage_entries: section.amount("usage_entries"),
    }
}
