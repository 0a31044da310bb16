//! What would change a plan most.

use super::{Class, Inputs, ratio};
use serde::Serialize;

/// One thing changed, all else as it was.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sensitivity {
    /// What is changed, and to what.
    pub what: &'static str,
    /// Cores needed by all front ends, before they are rounded up.
    pub needed_cores: f64,
    /// That, against the plan's, in percent.
    pub percent: f64,
}

/// A name, and the change.
type Change = (&'static str, fn(&mut Inputs));

const CHANGES: [Change; 8] = [
    ("twice the Executes, or twice the cost of one", |inputs| {
        if let Some(rate) = inputs.rates.requests.get_mut(Class::Execute.index()) {
            *rate *= 2.0;
        }
    }),
    ("twice the users", |inputs| inputs.users *= 2.0),
    ("half the utilisation aimed at", |inputs| {
        inputs.utilisation /= 2.0;
    }),
    ("twice the cost of a password hash", |inputs| {
        inputs.costs.hash *= 2.0;
    }),
    ("passwords believed half as long", |inputs| {
        inputs.rates.hashes *= 2.0;
    }),
    ("twice the TLS handshakes", |inputs| {
        inputs.costs.handshake *= 2.0;
    }),
    (
        "clients of a lost front end back in half the time",
        |inputs| {
            inputs.assumed.back_within_seconds /= 2.0;
        },
    ),
    ("twice the held polls", |inputs| {
        inputs.rates.pendings *= 2.0;
        if let Some(rate) = inputs.rates.requests.get_mut(Class::Wait.index()) {
            *rate *= 2.0;
        }
    }),
];

/// Each change by itself, the one with the most effect first.
pub(super) fn of(inputs: &Inputs) -> Vec<Sensitivity> {
    let before = inputs.needed();
    let mut found: Vec<Sensitivity> = CHANGES
        .iter()
        .map(|(what, change)| {
            let mut changed = inputs.clone();
            change(&mut changed);
            let needed_cores = changed.needed();
            Sensitivity {
                what,
                needed_cores,
                percent: ratio(needed_cores * 100.0, before),
            }
        })
        .collect();
    found.sort_by(|a, b| b.percent.total_cmp(&a.percent));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capacity::Assumptions;

    #[test]
    fn the_most_comes_first_and_nothing_makes_the_plan_smaller() {
        let plan = Inputs::of_profile(20_000.0, 100.0, Assumptions::default()).plan();

        assert_eq!(plan.sensitivity.len(), CHANGES.len());
        assert!(plan.sensitivity.is_sorted_by(|a, b| a.percent >= b.percent));
        assert!(plan.sensitivity.iter().all(|one| one.percent >= 100.0));
    }

    #[test]
    fn twice_the_users_is_nearly_twice_the_cores() {
        let plan = Inputs::of_profile(20_000.0, 100.0, Assumptions::default()).plan();

        let users = plan
            .sensitivity
            .iter()
            .find(|one| one.what == "twice the users");
        let percent = users.unwrap().percent;
        assert!((190.0..=200.0).contains(&percent), "{percent}");
    }
}
