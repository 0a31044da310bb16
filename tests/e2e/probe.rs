//! What Outlook does, tried step by step: all of it good, and each set-up that is broken told by its reason.

mod broken;
mod command;
mod meddler;
mod parrot;
mod scheduled;

use crate::support::{TestSite, brisk, start};
use mapigate::config::settings::Secret;
use mapigate::lab::Authority;
use mapigate::lab::site::{HOST, PASSWORD, Plan, user};
use mapigate::mapi::Flavour;
use mapigate::probe::{Credential, Detour, Finding, Probe, Report, Step, Verdict};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A wait long enough to see that it is held.
const HELD: Duration = Duration::from_millis(400);

/// The authority of a site, in DER.
fn authorities(site: &TestSite) -> Vec<Vec<u8>> {
    vec![der(site.authority())]
}

fn der(authority: &Authority) -> Vec<u8> {
    let pem = authority.certificate();
    CertificateDer::from_pem_slice(pem.as_bytes())
        .unwrap()
        .to_vec()
}

/// A probe of user 1 at this URL, which is at this address.
fn at(url: &str, address: SocketAddr) -> Probe {
    let place: mapigate::probe::Place = url.parse().unwrap();
    Probe {
        detours: vec![Detour::of_host(&place.host, address)],
        place,
        authorities: Some(vec![der(&Authority::new("nobody").unwrap())]),
        user: user(1),
        address: user(1),
        credential: Credential::Password(Secret::new(PASSWORD.to_owned())),
        follows: true,
        mailbox: None,
        remembered: None,
        steps: Step::with_needs(Step::ALL),
        held_wait: HELD,
        timeout: Duration::from_secs(5),
    }
}

/// A probe of user 1 at a site's name.
fn of(site: &TestSite) -> Probe {
    Probe {
        authorities: Some(authorities(site)),
        ..at(&format!("https://{HOST}"), site.gate().unwrap().address())
    }
}

async fn report(probe: &Probe) -> Report {
    Box::pin(probe.run()).await.report
}

fn finding(report: &Report, step: Step) -> &Finding {
    report.of(step).unwrap()
}

/// Every step but these went well.
fn all_good_but(report: &Report, except: &[Step]) {
    for finding in &report.findings {
        let is_good = finding.verdict == Verdict::Ok || except.contains(&finding.step);
        assert!(is_good, "{}", mapigate::probe::text(report));
    }
    assert!(report.is_good);
}

/// The step that failed, what was expected, what came, what to do next; whatever needs it was not run.
fn fails(report: &Report, step: Step, expected: &str, came: &str, next: &str) {
    let told = mapigate::probe::text(report);
    let failed = report
        .first_failure()
        .unwrap_or_else(|| panic!("nothing failed: {told}"));
    assert_eq!(failed.step, step, "{told}");
    let trouble = failed.trouble.as_ref().unwrap();
    assert!(trouble.expected.contains(expected), "{expected}: {told}");
    assert!(trouble.came.contains(came), "{came}: {told}");
    assert!(trouble.next.contains(next), "{next}: {told}");
    assert!(!report.is_good);
    for finding in &report.findings {
        if finding.step.needs() == Some(step) {
            assert_eq!(finding.verdict, Verdict::NotRun, "{told}");
            assert_eq!(finding.words, format!("needs {step}"));
        }
    }
    eprintln!(
        "{}",
        told.lines()
            .skip_while(|line| !line.contains("FAILED"))
            .take(8)
            .collect::<Vec<_>>()
            .join("\n")
    );
}

#[tokio::test]
async fn every_step_goes_well_through_mapigate_in_front_of_both_flavours() {
    for flavour in [Flavour::Exchange, Flavour::Gromox] {
        let site = start(brisk(flavour)).await;
        let began = Instant::now();

        let report = report(&of(&site)).await;

        let took = began.elapsed().saturating_sub(HELD);
        all_good_but(&report, &[]);
        let echo = finding(&report, Step::RpcEcho);
        assert_eq!(echo.words, "an echo: Outlook Anywhere answers");
        eprintln!("{flavour:?}: every step in {took:?}, the held wait excepted");
        assert!(took < Duration::from_secs(5), "{took:?}");
        let wait = finding(&report, Step::Wait);
        assert!(wait.words.starts_with("held: "), "{}", wait.words);
        // A logon, and that events are asked for: nothing was read or written.
        let server = site.server("MBX1").unwrap();
        assert_eq!(server.executed().len(), 2);
    }
}

#[tokio::test]
async fn every_step_goes_well_at_the_servers_themselves() {
    for flavour in [Flavour::Exchange, Flavour::Gromox] {
        let site = start(Plan::new(flavour, &["MBX1"])).await;
        let server = site.server("MBX1").unwrap();
        let probe = Probe {
            follows: false,
            ..at("http://mbx1.contoso.test", server.address())
        };

        let report = report(&probe).await;

        all_good_but(&report, &[Step::AutodiscoverJson, Step::RpcEcho]);
        let json = finding(&report, Step::AutodiscoverJson);
        assert_eq!(json.verdict, Verdict::Skipped);
        assert_eq!(json.words, "not offered: HTTP 404");
        let tls = finding(&report, Step::Tls);
        assert_eq!(tls.words, "a connection without TLS, as the URL says");
        let cookie = match flavour {
            Flavour::Exchange => "MapiContext",
            Flavour::Gromox => "cookies sid, sequence",
        };
        assert!(finding(&report, Step::Connect).words.contains(cookie));
    }
}

#[tokio::test]
async fn an_event_wakes_the_held_wait_before_its_time() {
    let site = start(brisk(Flavour::Exchange)).await;
    let probe = Probe {
        held_wait: Duration::from_secs(20),
        steps: Step::with_needs([Step::Wait]),
        ..of(&site)
    };
    let waking = async {
        loop {
            if site.server("MBX1").unwrap().wake(Some(&user(1))) > 0 {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };

    let report = tokio::select! {
        report = report(&probe) => report,
        () = waking => unreachable!(),
    };

    let wait = finding(&report, Step::Wait);
    assert_eq!(wait.verdict, Verdict::Ok);
    assert_eq!(wait.words, "woken: there is something to collect");
    assert!(wait.milliseconds < 10_000.0);
    // What was not asked for is not tried.
    assert_eq!(finding(&report, Step::Bind).words, "not asked for");
}
