use super::*;
use crate::mapi::{Endpoint, RequestType};
use proptest::prelude::*;

/// A front end with ten users, `seconds` after its start, at two Executes per user and second.
fn scrape(seconds: f64) -> Reading {
    let executes = 20.0 * seconds;
    let text = format!(
        "mapigate_build_info{{version=\"1\"}} 1\nprocess_start_time_seconds 1000\n\
         mapigate_mapi_requests_total{{endpoint=\"emsmdb\",request_type=\"Execute\",outcome=\"ok\"}} {}\n\
         mapigate_mapi_requests_total{{endpoint=\"emsmdb\",request_type=\"Execute\",outcome=\"server\"}} {}\n\
         mapigate_mapi_requests_total{{endpoint=\"nspi\",request_type=\"QueryRows\",outcome=\"ok\"}} {seconds}\n\
         mapigate_request_cpu_seconds_count{{endpoint=\"emsmdb\",request_type=\"Execute\"}} {}\n\
         mapigate_request_cpu_seconds_sum{{endpoint=\"emsmdb\",request_type=\"Execute\"}} {}\n\
         mapigate_request_cpu_seconds_count{{endpoint=\"nspi\",request_type=\"QueryRows\"}} {}\n\
         mapigate_request_cpu_seconds_sum{{endpoint=\"nspi\",request_type=\"QueryRows\"}} {}\n\
         mapigate_cpu_seconds_total{{account=\"request\"}} {}\n\
         mapigate_cpu_seconds_total{{account=\"handshake\"}} {}\n\
         mapigate_cpu_seconds_total{{account=\"connection\"}} {}\n\
         mapigate_cpu_seconds_total{{account=\"access-log\"}} {}\n\
         mapigate_cpu_seconds_total{{account=\"admin\"}} {}\n\
         process_cpu_seconds_total {}\n\
         mapigate_tls_handshakes_total{{outcome=\"ok\",resumed=\"true\"}} {}\n\
         mapigate_auth_verifications_total {}\n\
         mapigate_connections_open 20\nmapigate_held_polls 10\nmapigate_requests_in_flight 11\nprocess_open_fds 85\n\
         mapigate_mapi_sessions 35\nprocess_resident_memory_bytes 14000000\n\
         mapigate_client_bytes_total{{direction=\"received\"}} {}\n\
         mapigate_client_bytes_total{{direction=\"sent\"}} {}\n\
         mapigate_backend_bytes_total{{direction=\"received\"}} {}\n\
         mapigate_backend_bytes_total{{direction=\"sent\"}} {}\n",
        executes * 0.75,
        executes * 0.25,
        executes / 2.0,
        executes / 2.0 * 50e-6,
        seconds,
        seconds * 20e-6,
        seconds * (1e-3 + 20e-6),
        seconds * 1e-4,
        seconds * 2e-4,
        seconds * 3e-4,
        seconds * 1e-3,
        seconds * 3e-3,
        seconds * 0.5,
        seconds * 0.1,
        seconds * 1000.0,
        seconds * 5000.0,
        seconds * 4900.0,
        seconds * 990.0,
    );
    Reading {
        at: 1000.0 + seconds,
        exposition: Exposition::read(&text),
    }
}

fn without(family: &str, reading: &Reading) -> Reading {
    let mut text = String::new();
    for sample in reading.exposition.samples() {
        if sample.name.starts_with(family) {
            continue;
        }
        let labels: Vec<_> = sample
            .labels
            .iter()
            .map(|(name, value)| format!("{name}=\"{value}\""))
            .collect();
        text += &format!("{}{{{}}} {}\n", sample.name, labels.join(","), sample.value);
    }
    Reading {
        at: reading.at,
        exposition: Exposition::read(&text),
    }
}

fn near(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-9, "{found}, not {expected}");
}

#[test]
fn rates_are_those_of_one_user_and_costs_those_of_one_request() {
    let observed = Observed::between(&scrape(100.0), &scrape(130.0)).unwrap();
    let inputs = observed.inputs(1000.0, 100.0, None, 1.0, Assumptions::default());

    near(observed.seconds, 30.0);
    near(inputs.rates.of(Class::Execute), 2.0);
    near(inputs.costs.of(Class::Execute), 50e-6);
    near(inputs.rates.of(Class::AddressBook), 0.1);
    near(inputs.costs.of(Class::AddressBook), 20e-6);
    near(inputs.rates.handshakes, 0.05);
    near(inputs.costs.handshake, 2e-4);
    near(observed.hashes, 0.1);
    near(inputs.rates.connections, 2.0);
    near(inputs.rates.sessions, 3.5);
    // 85 open files, of which 20 are clients' and 50 its own.
    near(inputs.rates.server_connections, 1.5);
    near(inputs.rates.bytes.client_out, 500.0);
    near(inputs.costs.process, 1e-3);
}

#[test]
fn a_plan_for_the_users_there_are_takes_what_they_take() {
    for observed in [
        Observed::between(&scrape(100.0), &scrape(130.0)).unwrap(),
        Observed::since_start(&scrape(130.0)).unwrap(),
    ] {
        let mut inputs = observed.inputs(10.0, 100.0, None, 1.0, Assumptions::default());
        inputs.front_ends = 1;
        let plan = inputs.plan();

        near(plan.busy_cores, 3e-3);
        near(plan.bandwidth.client_out, 5000.0 * 8.0);
        near(plan.requests_per_second, 21.0);
    }
}

#[test]
fn two_front_ends_are_one_site() {
    let one = Observed::between(&scrape(100.0), &scrape(130.0)).unwrap();
    let two = one.and(one);

    let (of_one, of_two) = (
        one.inputs(500.0, 100.0, None, 1.0, Assumptions::default()),
        two.inputs(500.0, 100.0, None, 1.0, Assumptions::default()),
    );
    assert_eq!(two.front_ends, 2);
    assert_eq!(of_one.rates, of_two.rates);
    assert_eq!(of_one.costs, of_two.costs);
}

#[test]
fn a_peak_beyond_what_was_seen_multiplies_what_happens_and_not_what_is_open() {
    let observed = Observed::since_start(&scrape(130.0)).unwrap();
    let inputs = observed.inputs(10.0, 100.0, Some(5.0), 3.0, Assumptions::default());

    near(inputs.rates.of(Class::Execute), 2.0 * 2.0 * 3.0);
    near(inputs.rates.connections, 4.0);
}

#[test]
fn memory_is_weighed_where_there_is_enough_of_it() {
    let small = Observed::since_start(&scrape(130.0)).unwrap();
    let large = Observed {
        connections: 10_000.0,
        sessions: 10_000.0,
        resident_bytes: 12.0 * 1024.0 * 1024.0 + 10_000.0 * 15_300.0,
        ..small
    };

    let ours = Costs::measured(&Assumptions::default()).memory;
    assert_eq!(small.costs(&Assumptions::default()).memory, ours);
    near(
        large.costs(&Assumptions::default()).memory.connection,
        15_000.0,
    );
}

#[test]
fn every_type_of_request_that_has_a_series_has_a_class() {
    for kind in RequestType::ALL {
        let endpoint = match class(Endpoint::Nspi.as_str(), kind.as_str()) {
            Class::AddressBook => Endpoint::Nspi,
            _ => continue,
        };
        assert_eq!(
            class(Endpoint::Emsmdb.as_str(), kind.as_str()),
            Class::Other
        );
        assert_eq!(endpoint, Endpoint::Nspi);
    }
    assert_eq!(class("nspi", "Bind"), Class::Open);
    assert_eq!(class("none", "none"), Class::Other);
}

#[test]
fn what_cannot_be_used_says_why() {
    let page = Reading {
        at: 1.0,
        exposition: Exposition::read("<html>\n<p>a\nb 1\n</html>"),
    };
    let other = Reading {
        at: 1.0,
        exposition: Exposition::read("process_cpu_seconds_total 3"),
    };
    let good = scrape(100.0);

    assert_eq!(Observed::since_start(&page), Err(Unusable::NotPrometheus));
    assert_eq!(Observed::since_start(&other), Err(Unusable::NotMapigate));
    assert_eq!(Observed::between(&good, &good), Err(Unusable::NoTime));
    let still = Reading {
        at: good.at + 30.0,
        ..good.clone()
    };
    assert_eq!(Observed::between(&good, &still), Err(Unusable::NoTraffic));
    for family in [
        "mapigate_held_polls",
        "mapigate_cpu_seconds_total",
        "mapigate_request_cpu_seconds",
        "mapigate_mapi_requests_total",
        "process_cpu_seconds_total",
        "process_start_time_seconds",
    ] {
        assert!(
            matches!(
                Observed::since_start(&without(family, &good)),
                Err(Unusable::Missing(_))
            ),
            "{family}"
        );
    }
}

#[test]
fn a_process_that_was_started_anew_is_another_one() {
    let first = scrape(100.0);
    let mut text = String::from("process_start_time_seconds 1090\nmapigate_build_info 1\n");
    text += "mapigate_held_polls 3\n";
    let last = Reading {
        at: 1130.0,
        exposition: Exposition::read(&text),
    };

    assert_eq!(Observed::between(&first, &last), Err(Unusable::Restarted));
}

proptest! {
    #[test]
    fn readings_of_anything_are_a_plan_or_a_reason(
        values in proptest::collection::vec(proptest::num::f64::ANY, 40),
        at in proptest::num::f64::ANY,
    ) {
        let good = scrape(130.0);
        let text: String = good
            .exposition
            .samples()
            .iter()
            .zip(values)
            .map(|(sample, value)| {
                let labels: Vec<_> = sample
                    .labels
                    .iter()
                    .map(|(name, value)| format!("{name}=\"{value}\""))
                    .collect();
                format!("{}{{{}}} {value}\n", sample.name, labels.join(","))
            })
            .collect();
        let wild = Reading { at, exposition: Exposition::read(&text) };

        for observed in [
            Observed::since_start(&wild),
            Observed::between(&scrape(100.0), &Reading { at: 1130.0, ..wild.clone() }),
        ].into_iter().flatten() {
            let plan = observed.inputs(20_000.0, 100.0, None, 1.0, Assumptions::default()).plan();
            prop_assert!(plan.busy_cores.is_finite() && plan.busy_cores >= 0.0);
            prop_assert!(plan.bandwidth.client_in.is_finite() && plan.bandwidth.client_in >= 0.0);
        }
    }
}
