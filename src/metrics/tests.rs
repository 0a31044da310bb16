use super::*;
use crate::accounting::Kinds;
use crate::ids::DatabaseName;
use crate::mapi::{RequestType, ResponseCode};
use crate::vdir::Vdir;
use std::collections::BTreeSet;

fn filled() -> Metrics {
    let metrics = Metrics::new("1.2.3");
    metrics.set_vdirs_up([(&ServerName::new("MBX1"), Vdir::Ews.into(), true)]);
    metrics.started(1.0e9);
    for index in 0..100 {
        let name = ServerName::new(format!("MBX{index}"));
        metrics.server(&name).connected(ConnectOutcome::Ok);
        metrics.set_server_up(&name, true);
    }
    metrics.set_certificates([("mail.contoso.test", 2_000_000_000)]);
    account(&metrics, Asked::Other);
    for verb in Verb::ALL {
        account(&metrics, Asked::Channel(verb));
    }
    for endpoint in Endpoint::ALL {
        for request_type in RequestType::ALL.iter().copied() {
            account(&metrics, Asked::Mapi(endpoint, request_type));
        }
    }
    metrics.keys_fetched("https://id.contoso.test", 3, 1.0e9);
    metrics.probed("front", "dns", Some(true), Some(Duration::from_millis(2)));
    metrics
}

/// Something on every account that a request can touch.
fn account(metrics: &Metrics, asked: Asked) {
    let mut kinds = Kinds::default();
    for kind in Kind::ALL {
        kinds.add(kind, 1);
        metrics.bytes_beside(LegSide::Client, kind, Bytes::default());
    }
    let ledger = Ledger {
        client_in: kinds,
        client_out: kinds,
        server_in: kinds,
        server_out: kinds,
    };
    metrics.request_bytes(asked, &ledger);
    for phase in Phase::OF_REQUESTS {
        metrics.cpu_phase(asked, phase, 1);
    }
}

fn finished(request_type: RequestType) -> Finished<'static> {
    Finished {
        endpoint: Endpoint::Emsmdb,
        request_type,
        outcome: Outcome::Ok,
        code: Some(ResponseCode::SUCCESS),
        refusal: None,
        total: Duration::from_millis(3),
        first_byte: Some(Duration::from_millis(2)),
        cpu: Some(Duration::from_micros(19)),
        stands_for: 1,
    }
}

/// Family names of a scrape, in order of appearance.
fn families(text: &str) -> BTreeSet<String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types
        .filter_map(|rest| rest.split(' ').next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_family_has_a_row_in_the_readme_and_every_row_a_family() {
    let readme = include_str!("../../README.md");
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| `"));
    let documented: BTreeSet<String> = rows
        .filter_map(|rest| rest.split(['`', '{']).next())
        .map(str::to_owned)
        .collect();

    assert_eq!(families(&filled().render()), documented);
}

#[test]
fn a_scrape_of_a_large_site_stays_below_a_mebibyte() {
    let text = filled().render();

    assert!(text.len() < 1 << 20, "{} bytes", text.len());
}

#[test]
fn no_request_and_no_refusal_can_add_a_series() {
    let metrics = filled();
    let before = metrics.render().lines().count();

    for endpoint in Endpoint::ALL {
        for request_type in RequestType::ALL.iter().copied() {
            for code in [None, Some(ResponseCode(0)), Some(ResponseCode(u32::MAX))] {
                let facts = Finished {
                    endpoint,
                    code,
                    ..finished(request_type)
                };
                metrics.request_finished(&facts);
                account(&metrics, Asked::Mapi(endpoint, request_type));
            }
        }
    }
    metrics.refused(&Refusal::NoEligibleCopy {
        database: DatabaseName::new("DB-X"),
        why: "down",
    });

    let text = metrics.render();
    assert_eq!(text.lines().count(), before);
    assert!(!text.contains("DB-X"));
}

#[test]
fn a_finished_request_is_found_in_its_series() {
    let metrics = filled();

    metrics.request_finished(&finished(RequestType::Execute));

    let text = metrics.render();
    for line in [
        "mapigate_mapi_requests_total{endpoint=\"emsmdb\",outcome=\"ok\",request_type=\"Execute\"} 1",
        "mapigate_mapi_response_codes_total{code=\"0\",endpoint=\"emsmdb\"} 1",
        "mapigate_request_cpu_seconds_count{endpoint=\"emsmdb\",request_type=\"Execute\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}");
    }
}

#[test]
fn a_type_of_the_other_endpoint_counts_as_other() {
    let metrics = filled();

    metrics.request_finished(&finished(RequestType::Bind));

    let text = metrics.render();
    assert!(text.contains("{endpoint=\"emsmdb\",outcome=\"ok\",request_type=\"other\"} 1"));
    assert!(!text.contains("endpoint=\"emsmdb\",outcome=\"ok\",request_type=\"Bind\""));
}

#[test]
fn a_refusal_is_counted_under_its_label() {
    let metrics = filled();

    metrics.refused(&Refusal::UnknownPath);

    assert!(
        metrics
            .render()
            .contains("mapigate_refusals_total{reason=\"unknown_path\"} 1")
    );
}

#[test]
fn a_gauge_falls_back_when_its_guard_is_dropped() {
    let metrics = filled();

    let open = metrics.connection_accepted();
    assert_eq!(metrics.connections_open(), 1);
    drop(open);

    assert_eq!(metrics.connections_open(), 0);
}

#[test]
fn a_server_that_left_the_configuration_leaves_the_scrape() {
    let metrics = Metrics::new("1.2.3");
    let (stays, goes) = (ServerName::new("STAYS"), ServerName::new("GOES"));
    let _meters = [metrics.server(&stays), metrics.server(&goes)];

    metrics.keep_servers([&stays]);

    let text = metrics.render();
    assert!(text.contains("server=\"STAYS\"") && !text.contains("server=\"GOES\""));
}

#[test]
fn the_first_request_to_a_server_that_is_down_does_not_make_it_look_up() {
    let (metrics, name) = (Metrics::new("1.2.3"), ServerName::new("MBX1"));
    metrics.set_server_up(&name, false);

    metrics.server(&name).connected(ConnectOutcome::Refused);

    let text = metrics.render();
    assert!(text.contains("mapigate_backend_up{server=\"MBX1\"} 0"));
}

#[test]
fn a_rejected_reload_shows_until_one_is_accepted() {
    let metrics = filled();

    metrics.reloaded(ReloadEnd::Rejected, 1.5e9);
    let rejected = metrics.render();
    metrics.reloaded(ReloadEnd::Accepted, 1.6e9);
    let accepted = metrics.render();

    assert!(rejected.contains("mapigate_config_last_reload_successful 0"));
    assert!(rejected.contains("mapigate_config_last_reload_success_timestamp_seconds 1000000000"));
    assert!(accepted.contains("mapigate_config_last_reload_successful 1"));
}

#[test]
fn the_process_knows_its_own_size() {
    let text = filled().render();

    let line = text
        .lines()
        .find(|line| line.starts_with("process_resident_memory_bytes "));
    let bytes: f64 = line.unwrap().rsplit(' ').next().unwrap().parse().unwrap();
    assert!(bytes > 1e6, "{bytes}");
}

#[test]
fn an_issuer_that_is_gone_is_not_reported_for_ever() {
    let metrics = Metrics::new("1.2.3");
    metrics.keep_issuers(["https://a.test", "https://b.test"]);
    metrics.keys_fetched("https://a.test", 2, 1.0);
    metrics.keys_not_fetched("https://b.test");

    metrics.keep_issuers(["https://b.test"]);

    let text = metrics.render();
    assert!(!text.contains("https://a.test"), "{text}");
    let failed = r#"mapigate_token_key_fetches_total{issuer="https://b.test",outcome="failed"} 1"#;
    assert!(text.contains(failed), "{text}");
}

#[test]
fn a_probe_that_is_gone_leaves_no_series_and_a_step_that_is_skipped_has_none() {
    let metrics = Metrics::new("1.2.3");
    let told = || {
        let text = metrics.render();
        let lines = text
            .lines()
            .filter(|line| line.starts_with("mapigate_probe_"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let took = Some(Duration::from_millis(250));

    metrics.probed("front", "dns", Some(true), took);
    metrics.probed("front", "tls", Some(false), None);
    metrics.probed("front", "wait", None, None);
    assert_eq!(
        told(),
        [
            "mapigate_probe_duration_seconds{probe=\"front\",step=\"dns\"} 0.25",
            "mapigate_probe_success{probe=\"front\",step=\"dns\"} 1",
            "mapigate_probe_success{probe=\"front\",step=\"tls\"} 0",
        ]
    );

    metrics.keep_probes(["front"]);
    assert_eq!(told().len(), 3);
    metrics.keep_probes(["other"]);
    assert!(told().is_empty());
}
