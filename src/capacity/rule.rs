//! The published rule, beside our own figures.

use super::{Assumptions, amount, ratio};
use serde::Serialize;

/// 3:8, of the Exchange Server Role Requirements Calculator: Client Access cores to mailbox cores.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rule {
    /// Mailbox-server cores that the users keep busy at the peak, by the published megacycles.
    pub mailbox_cores: f64,
    /// Client Access cores that the rule gives them.
    pub client_access_cores: f64,
    /// The rule: Client Access cores for a mailbox core.
    pub rule_per_mailbox_core: f64,
    /// Cores of front ends busy at the peak for a mailbox core.
    pub busy_per_mailbox_core: f64,
    /// Cores of front ends to have for a mailbox core.
    pub cores_per_mailbox_core: f64,
}

impl Rule {
    pub(super) fn new(
        users: f64,
        messages: f64,
        assumed: &Assumptions,
        busy_cores: f64,
        cores: f64,
    ) -> Self {
        let mailbox_cores = mailbox_cores(users, messages, assumed);
        Self {
            mailbox_cores,
            client_access_cores: amount(mailbox_cores * assumed.rule_ratio),
            rule_per_mailbox_core: amount(assumed.rule_ratio),
            busy_per_mailbox_core: ratio(busy_cores, mailbox_cores),
            cores_per_mailbox_core: ratio(cores, mailbox_cores),
        }
    }
}

/// Why the two are not the same.
pub(super) const DIFFERENCE: &str = "The rule is for cores of 2 GHz of 2012 and for everything that Client Access servers \
     did: all protocols, authentication by the domain, redirection, in managed code. mapigate counts the cores of the \
     machine that was measured, and MAPI over HTTP alone. So the rule is what a site of all protocols was told to \
     have, and not what this one needs.";

/// Mailbox-server cores that users keep busy at the peak.
pub(super) fn mailbox_cores(users: f64, messages: f64, assumed: &Assumptions) -> f64 {
    let megacycles = amount(users) * amount(messages) * assumed.megacycles_per_message;
    ratio(megacycles, assumed.core_megacycles)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twenty_thousand_users_of_a_hundred_messages_need_forty_two_and_a_half_mailbox_cores() {
        let rule = Rule::new(20_000.0, 100.0, &Assumptions::default(), 0.5, 4.0);

        // 20,000 x 4.25 megacycles on cores of 2,000.
        assert!((rule.mailbox_cores - 42.5).abs() < 1e-9);
        assert!((rule.client_access_cores - 15.9375).abs() < 1e-9);
        assert!((rule.busy_per_mailbox_core - 0.5 / 42.5).abs() < 1e-12);
        assert!((rule.cores_per_mailbox_core - 4.0 / 42.5).abs() < 1e-12);
    }

    #[test]
    fn nobody_needs_nothing() {
        let rule = Rule::new(0.0, 100.0, &Assumptions::default(), 0.0, 2.0);

        assert_eq!(rule.mailbox_cores, 0.0);
        assert_eq!(rule.cores_per_mailbox_core, 0.0);
    }
}
