//! The simulated servers are what they pretend to be.

use mapigate::ids::UserName;
use mapigate::lab::conformance::{self, Subject};
use mapigate::lab::mailbox_server::Users;
use mapigate::lab::outlook::Target;
use mapigate::mapi::Flavour;

use crate::{options, server};

#[tokio::test]
async fn exchange_answers_the_conformance_list() {
    answers_the_list(Flavour::Exchange).await;
}

#[tokio::test]
async fn gromox_answers_the_conformance_list() {
    answers_the_list(Flavour::Gromox).await;
}

async fn answers_the_list(flavour: Flavour) {
    let mut options = options(flavour);
    let target = |address: std::net::SocketAddr| Target {
        address,
        host: address.to_string(),
        tls: None,
    };
    let mut subject = Subject::direct(target(options.listen), flavour);
    options.users = Users::Listed(
        [&subject.user, &subject.stranger]
            .map(|user| (UserName::new(user.as_str()), subject.password.clone()))
            .into(),
    );
    options.lifetime = subject.lifetime;
    options.pending_period = subject.pending_period;
    options.wait_limit = subject.wait_limit;
    let server = server(options).await;
    subject.target = target(server.address());

    let checks = conformance::run(&subject).await;

    let wrong: Vec<_> = checks
        .iter()
        .filter(|check| check.problem.is_some())
        .map(ToString::to_string)
        .collect();
    assert!(checks.len() > 30);
    assert!(wrong.is_empty(), "{flavour:?}:\n{}", wrong.join("\n"));
}
