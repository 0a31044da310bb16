//! What is tried from time to time, as whom.

use crate::config::certificates;
use crate::config::problem::{Complaint, quoted};
use crate::config::secrets;
use crate::config::section::Section;
use crate::config::settings::ScheduledProbe;
use crate::config::values;
use std::collections::BTreeSet;
use std::sync::Arc;

/// All of them. Each is a series of metrics for every step, which is why there may not be many.
pub(super) fn probes(top: &Section<'_>) -> Vec<Arc<ScheduledProbe>> {
    let mut names = BTreeSet::new();
    let items = top.items("probes");
    if items.len() > PROBES_MAX {
        let what = format!("{} probes, more than {PROBES_MAX}", items.len());
        let cure = "keep those that tell apart what can fail; each runs every step";
        top.desk
            .error(&top.place("probes"), Complaint::new(what, cure));
    }
    let found = items.iter().filter_map(|section| {
        let probe = probe(section)?;
        if !names.insert(probe.name.clone()) {
            let what = format!("{} is the name of another probe", quoted(&probe.name));
            let complaint = Complaint::new(what, "give each its own: metrics are told by it");
            top.desk.error(&section.place("name"), complaint);
        }
        Some(Arc::new(probe))
    });
    found.collect()
}

fn probe(section: &Section<'_>) -> Option<ScheduledProbe> {
    let (every, timeout) = (section.duration("every"), section.duration("timeout"));
    let user = section.text("user");
    Some(ScheduledProbe {
        name: section.text("name")?,
        url: section.read("url", |_, text| values::https_url(text))?,
        connect_to: section
            .has("connect_to")
            .then(|| section.read("connect_to", |_, text| values::address(text)))
            .flatten(),
        authorities: certificates::authorities(section, "ca"),
        address: section.text("address").or_else(|| user.clone())?,
        user: user?,
        password: secrets::secret(section, "password")?,
        every,
        timeout,
        held_wait: section.duration("held_wait"),
    })
}

const PROBES_MAX: usize = 32;
