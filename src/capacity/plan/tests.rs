use super::*;
use crate::capacity::{LegBytes, Memory};
use proptest::prelude::*;

/// Round figures, so that a plan can be followed by hand.
fn round() -> Inputs {
    let assumed = Assumptions {
        morning_minutes: 20.0,
        morning_executes: 10.0,
        back_within_seconds: 50.0,
        ..Assumptions::default()
    };
    Inputs {
        users: 10_000.0,
        messages: 100.0,
        front_ends: 3,
        utilisation: 0.4,
        rates: Rates {
            requests: [0.2, 0.01, 0.001, 0.0, 0.0],
            pendings: 0.04,
            handshakes: 0.01,
            hashes: 0.002,
            connections: 2.0,
            held_polls: 1.0,
            sessions: 2.0,
            server_connections: 2.0,
            bytes: LegBytes {
                client_in: 100.0,
                client_out: 1000.0,
                server_in: 900.0,
                server_out: 90.0,
            },
        },
        costs: Costs {
            requests: [50e-6, 40e-6, 100e-6, 0.0, 0.0],
            pending: 25e-6,
            handshake: 100e-6,
            hash: 5e-3,
            connection: 0.0,
            beside: 0.0,
            process: 0.01,
            memory: Memory {
                process: 1e7,
                connection: 1e4,
                session: 200.0,
                kernel_connection: 4000.0,
            },
        },
        assumed,
        source: "by hand".to_owned(),
        is_measured_on_a_site: false,
    }
}

fn near(found: f64, expected: f64) {
    assert!(
        (found - expected).abs() <= 1e-9 * expected.abs().max(1.0),
        "{found}, not {expected}"
    );
}

#[test]
fn cores_busy_at_the_peak_are_rates_times_costs_times_users() {
    let plan = round().plan();

    // 2,000 x 50 us + 100 x 40 us + 10 x 100 us + 400 x 25 us + 100 x 100 us + 20 x 5 ms + 3 x 0.01
    let parts: Vec<f64> = plan.parts.iter().map(|part| part.cores).collect();
    let expected = [0.1, 0.004, 0.001, 0.0, 0.0, 0.01, 0.01, 0.1, 0.0, 0.0, 0.03];
    for (found, expected) in parts.iter().zip(expected) {
        near(*found, expected);
    }
    near(plan.busy_cores, 0.255);
    near(plan.requests_per_second, 2110.0);
}

#[test]
fn front_ends_carry_the_peak_and_the_clients_of_a_lost_one() {
    let plan = round().plan();

    // 3,333 clients in 50 s: 2 x 100 us + 5 ms + 2 x 100 us + 50 us + 40 us each.
    let rush = 10_000.0 / 3.0 * 5.49e-3 / 50.0;
    near(plan.loss.busy_cores, rush);
    near(plan.loss.handshakes_per_second, 10_000.0 / 3.0 * 2.0 / 50.0);
    // Two are left: half of 0.225, and 0.01 of each by itself.
    let peak = 0.1125 + 0.01;
    near(plan.front_ends.each.busy_cores, peak);
    near(
        plan.front_ends.needed_each,
        (peak / 0.4_f64).max((peak + rush / 2.0) / 0.8),
    );
    assert_eq!(plan.front_ends.decided_by, "loss");
    assert_eq!((plan.front_ends.cores_each, plan.front_ends.cores), (1, 3));
    near(plan.front_ends.each.utilisation_percent, 100.0 * peak);
    near(plan.front_ends.utilisation_percent, 8.5);
}

#[test]
fn the_morning_counts_everybody_once() {
    let plan = round().plan();

    // 10,000 in 20 minutes: 200 us + 5 ms + 200 us + 10 x 50 us + 40 us each.
    near(plan.morning.busy_cores, 10_000.0 * 5.94e-3 / 1200.0);
    near(plan.morning.hashes_per_second, 10_000.0 / 1200.0);
    near(plan.morning.handshakes_per_second, 20_000.0 / 1200.0);
}

#[test]
fn memory_connections_and_bandwidth_are_those_of_a_front_end_while_another_is_lost() {
    let each = round().plan().front_ends.each;

    near(each.connections, 10_000.0);
    near(each.held_polls, 5_000.0);
    near(each.process_bytes, 1e7 + 1e8 + 2e6);
    near(each.kernel_bytes, 20_000.0 * 4000.0);
    near(each.bandwidth.client_out, 5_000.0 * 8000.0);
    near(round().plan().bandwidth.server_in, 10_000.0 * 7200.0);
}

#[test]
fn a_single_front_end_has_nobody_to_lose() {
    let mut alone = round();
    alone.front_ends = 1;

    let plan = alone.plan();

    assert_eq!((plan.front_ends.count, plan.front_ends.left), (1, 1));
    near(plan.front_ends.each.connections, 20_000.0);
}

#[test]
fn a_profile_costs_what_its_parts_cost() {
    let assumed = Assumptions::default();
    let plan = Inputs::of_profile(20_000.0, 100.0, assumed).plan();

    // One message in 144 s, 20 Executes each, of less than 6 KB: 12.9 us, six times as much on cold caches.
    near(plan.parts[0].per_second.unwrap(), 20_000.0 / 144.0 * 20.0);
    near(plan.parts[0].cores, 20_000.0 / 144.0 * 20.0 * 77.4e-6);
    near(
        plan.parts[7].cores,
        20_000.0 / 600.0 * assumed.hash_ms * 1e-3,
    );
    assert!(plan.busy_cores < plan.rule.client_access_cores);
    assert_eq!(plan.assumptions.len(), assumed.list().len());
}

#[test]
fn a_site_s_own_figures_leave_out_what_they_replace() {
    let mut inputs = round();
    inputs.is_measured_on_a_site = true;

    let names: Vec<_> = inputs
        .plan()
        .assumptions
        .iter()
        .map(|one| one.name)
        .collect();

    assert!(names.contains(&"back_within_seconds"));
    assert!(!names.contains(&"executes_per_message"));
}

fn any_number() -> impl Strategy<Value = f64> {
    prop_oneof![
        proptest::num::f64::ANY,
        0.0..1e6,
        Just(f64::NAN),
        Just(f64::INFINITY),
        Just(-1.0),
        Just(0.0),
    ]
}

fn any_inputs() -> impl Strategy<Value = Inputs> {
    (
        proptest::collection::vec(any_number(), 40),
        0_u32..20,
        proptest::collection::vec((0_usize..40, any_number()), 0..6),
    )
        .prop_map(|(numbers, front_ends, changes)| {
            let mut numbers = numbers.into_iter();
            let mut next = move || numbers.next().unwrap_or(0.0);
            let mut assumed = Assumptions::default();
            let names = assumed.list();
            for (place, value) in changes {
                let name = names[place % names.len()].name;
                assumed.set(name, value).unwrap();
            }
            Inputs {
                users: next(),
                messages: next(),
                front_ends,
                utilisation: next(),
                rates: Rates {
                    requests: [next(), next(), next(), next(), next()],
                    pendings: next(),
                    handshakes: next(),
                    hashes: next(),
                    connections: next(),
                    held_polls: next(),
                    sessions: next(),
                    server_connections: next(),
                    bytes: LegBytes {
                        client_in: next(),
                        client_out: next(),
                        server_in: next(),
                        server_out: next(),
                    },
                },
                costs: Costs {
                    requests: [next(), next(), next(), next(), next()],
                    pending: next(),
                    handshake: next(),
                    hash: next(),
                    connection: next(),
                    beside: next(),
                    process: next(),
                    memory: Memory {
                        process: next(),
                        connection: next(),
                        session: next(),
                        kernel_connection: next(),
                    },
                },
                assumed,
                source: String::new(),
                is_measured_on_a_site: false,
            }
        })
}

/// Every number of a JSON value; `null` is what a number that is none becomes.
fn numbers(value: &serde_json::Value, found: &mut Vec<Option<f64>>) {
    match value {
        serde_json::Value::Number(number) => found.push(number.as_f64()),
        serde_json::Value::Array(items) => items.iter().for_each(|item| numbers(item, found)),
        serde_json::Value::Object(fields) => {
            for (name, field) in fields {
                // What cannot be counted has no number of its own.
                if !(field.is_null() && name == "per_second") {
                    numbers(field, found);
                }
            }
        }
        serde_json::Value::Null => found.push(None),
        _ => {}
    }
}

proptest! {
    #[test]
    fn no_figure_is_negative_or_not_a_number_whatever_comes_in(inputs in any_inputs()) {
        let plan = inputs.plan();

        let mut found = Vec::new();
        numbers(&serde_json::to_value(&plan).unwrap(), &mut found);
        prop_assert!(found.len() > 60);
        for number in found {
            prop_assert!(number.is_some_and(|number| number >= 0.0 && number.is_finite()), "{:?}", number);
        }
        prop_assert!(plan.front_ends.cores_each >= 1);
        let picture = crate::capacity::svg(&inputs);
        prop_assert!(!picture.contains("NaN") && !picture.contains("inf"), "{}", picture);
        prop_assert!(!crate::capacity::text(&plan).contains("NaN"));
    }

    #[test]
    fn more_users_never_need_fewer_cores(inputs in any_inputs(), users in 0.0..1e7, more in 0.0..1e7) {
        let at = |users| Inputs { users, ..inputs.clone() }.plan();
        let (few, many) = (at(users), at(users + more));

        prop_assert!(many.front_ends.cores >= few.front_ends.cores);
        prop_assert!(many.busy_cores >= few.busy_cores);
        prop_assert!(many.front_ends.each.process_bytes >= few.front_ends.each.process_bytes);
        prop_assert!(many.rule.client_access_cores >= few.rule.client_access_cores);
    }

    #[test]
    fn more_messages_never_need_fewer_cores(messages in 0.0..1e4, more in 0.0..1e4) {
        let at = |messages| Inputs::of_profile(20_000.0, messages, Assumptions::default()).plan();
        let (few, many) = (at(messages), at(messages + more));

        prop_assert!(many.busy_cores >= few.busy_cores);
        prop_assert!(many.front_ends.cores >= few.front_ends.cores);
        prop_assert!(many.bandwidth.client_out >= few.bandwidth.client_out);
    }

    #[test]
    fn a_profile_of_anything_is_a_plan(users in any_number(), messages in any_number(), changes in proptest::collection::vec((0_usize..40, any_number()), 0..6)) {
        let mut assumed = Assumptions::default();
        let names = assumed.list();
        for (place, value) in changes {
            assumed.set(names[place % names.len()].name, value).unwrap();
        }
        let plan = Inputs::of_profile(users, messages, assumed).plan();

        prop_assert!(plan.busy_cores.is_finite() && plan.busy_cores >= 0.0);
        prop_assert!(plan.bandwidth.client_in.is_finite() && plan.bandwidth.client_in >= 0.0);
    }
}
