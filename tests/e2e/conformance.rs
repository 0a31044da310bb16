//! The protocol's conformance list, asked through mapigate.

use crate::support::start;
use mapigate::lab::conformance::{self, Subject};
use mapigate::lab::site::{PASSWORD, Plan, mailbox};
use mapigate::mapi::Flavour;
use std::time::Duration;

async fn the_list_is_answered(flavour: Flavour) {
    let mut plan = Plan::new(flavour, &["MBX1", "MBX2"]);
    let subject = Subject::proxied(target_of_nobody(), flavour);
    plan = plan.each(|server| {
        server.lifetime = subject.lifetime;
        server.pending_period = subject.pending_period;
        server.wait_limit = subject.wait_limit;
        server.lingering_wait = Duration::ZERO;
    });
    let site = start(plan).await;
    let subject = Subject {
        target: site.target().unwrap(),
        password: PASSWORD.to_owned(),
        mailbox: mailbox(1),
        ..subject
    };

    let checks = conformance::run(&subject).await;

    let wrong: Vec<_> = checks
        .iter()
        .filter(|check| check.problem.is_some())
        .map(ToString::to_string)
        .collect();
    assert!(checks.len() >= 33);
    assert!(wrong.is_empty(), "{flavour:?}:\n{}", wrong.join("\n"));
}

fn target_of_nobody() -> mapigate::lab::outlook::Target {
    mapigate::lab::outlook::Target {
        address: ([127, 0, 0, 1], 9).into(),
        host: String::new(),
        tls: None,
    }
}

#[tokio::test]
async fn exchange_answers_the_list_through_mapigate() {
    the_list_is_answered(Flavour::Exchange).await;
}

#[tokio::test]
async fn gromox_answers_the_list_through_mapigate() {
    the_list_is_answered(Flavour::Gromox).await;
}
