//! What is told of the cost of requests.

use super::super::problem::{Complaint, quoted};
use super::super::section::Section;
use super::super::settings::{Accounting, CpuSampling};
use std::num::NonZeroU32;

pub(super) fn accounting(top: &Section<'_>) -> Accounting {
    let section = top.section("accounting");
    let is_stamped = section.text("device_info").as_deref() == Some("on");
    let id = device_id(&section);
    if section.has("device_id") && !is_stamped {
        let what = "`device_id` has no effect with `device_info: off`";
        let complaint = Complaint::new(what, "remove it, or write `device_info: on`");
        let place = section.place("device_id");
        section.desk.warning(&place, complaint);
    }
    let one = |key| NonZeroU32::new(section.small(key)).unwrap_or(NonZeroU32::MIN);
    let sampling = CpuSampling {
        every: one("cpu_every"),
        closely_every: one("cpu_closely_every"),
    };
    Accounting {
        cpu: (section.text("cpu").as_deref() != Some("off")).then_some(sampling),
        usage_entries: section.amount("usage_entries"),
        device_info: is_stamped.then_some(id),
    }
}

/// The name that is written, or the machine's own without its domain.
fn device_id(section: &Section<'_>) -> String {
    let Some(id) = section.text("device_id") else {
        let names = rustix::system::uname();
        return host(&names.nodename().to_string_lossy());
    };
    if id.len() > Accounting::DEVICE_ID_MAX {
        let what = format!(
            "{} is longer than {} characters",
            quoted(&id),
            Accounting::DEVICE_ID_MAX
        );
        let cure = "choose a shorter name: X-DeviceInfo has room for 64 characters in all";
        let complaint = Complaint::new(what, cure);
        section.desk.error(&section.place("device_id"), complaint);
    }
    id
}

fn host(name: &str) -> String {
    let label = name.split('.').next().unwrap_or_default();
    let letters = label.chars().filter(|c| c.is_ascii_graphic());
    let id: String = letters.take(Accounting::DEVICE_ID_MAX).collect();
    match id.is_empty() {
        true => "mapigate".to_owned(),
        false => id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machines_name_is_made_to_fit() {
        assert_eq!(host("front1.contoso.com"), "front1");
        assert_eq!(host(&"x".repeat(64)), "x".repeat(24));
        assert_eq!(host("fro\r\nnt"), "front");
        assert_eq!(host(""), "mapigate");
    }
}
