//! The protocol's conformance list, asked over the wire of whatever answers: a server, or a proxy before one.
//!
//! After the cases S01 of Microsoft's test suite for `[MS-OXCMAPIHTTP]`, with our own beside them. Codes are
//! compared in the specification's numbers.

mod sessions;
mod streams;
mod talk;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use super::outlook::Target;
use crate::mapi::Flavour;

/// Who is asked, and by whom.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Where it is.
    pub target: Target,
    /// Whose habits the mailbox server has.
    pub flavour: Flavour,
    /// Whose numbers codes come in: the flavour's own, unless a proxy translates.
    pub numbers: Flavour,
    /// A proxy stands between: echoes are restored, stale cookies are stripped, another user's context is gone.
    pub is_proxied: bool,
    /// The user who asks.
    pub user: String,
    /// Its password.
    pub password: String,
    /// Its mailbox.
    pub mailbox: String,
    /// Its distinguished name.
    pub user_dn: String,
    /// Somebody else with the same password.
    pub stranger: String,
    /// What the server announces as `X-ExpirationInfo`, and keeps to; short, or it takes long.
    pub lifetime: Duration,
    /// What it announces as `X-PendingPeriod`; several fit in `wait_limit`.
    pub pending_period: Duration,
    /// How long it holds a request.
    pub wait_limit: Duration,
}

impl Subject {
    /// The server itself, with user1 and user2 of contoso.test.
    pub fn direct(target: Target, flavour: Flavour) -> Self {
        Self {
            target,
            flavour,
            numbers: flavour,
            is_proxied: false,
            user: "user1@contoso.test".to_owned(),
            password: "secret".to_owned(),
            mailbox: "416c6368-656d-794a-6f45-57615272456e@contoso.test".to_owned(),
            user_dn: "/o=Contoso/ou=Exchange Administrative Group (FYDIBOHF23SPDLT)/cn=Recipients/cn=user1"
                .to_owned(),
            stranger: "user2@contoso.test".to_owned(),
            lifetime: Duration::from_millis(1_500),
            pending_period: Duration::from_millis(200),
            wait_limit: Duration::from_millis(900),
        }
    }

    /// The same questions through a proxy that translates codes and restores echoes.
    pub fn proxied(target: Target, flavour: Flavour) -> Self {
        Self {
            numbers: Flavour::Exchange,
            is_proxied: true,
            ..Self::direct(target, flavour)
        }
    }
}

/// One question and whether the answer was right.
#[derive(Clone, Debug)]
pub struct Check {
    /// What should be true.
    pub name: &'static str,
    /// What was wrong, if anything was.
    pub problem: Option<String>,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problem {
            None => write!(f, "right  {}", self.name),
            Some(problem) => write!(f, "WRONG  {}: {problem}", self.name),
        }
    }
}

type Question =
    for<'a> fn(&'a Subject) -> Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send + 'a>>;

macro_rules! questions {
    ($($room:ident :: $question:ident),* $(,)?) => {
        &[$((stringify!($question), |subject| Box::pin($room::$question(subject)))),*]
    };
}

/// Every question by its name.
const QUESTIONS: &[(&str, Question)] = questions![
    sessions::tc01_after_disconnect_the_context_is_gone,
    sessions::tc01_disconnect_may_have_no_body,
    sessions::tc02_an_idle_context_expires_and_old_cookies_reconnect,
    sessions::tc02_a_live_context_is_replaced_by_connecting_again,
    sessions::tc03_an_unknown_request_type_is_code_5,
    sessions::tc03_no_cookie_is_code_13,
    sessions::tc04_an_impossible_cookie_is_refused,
    sessions::tc05_a_body_without_its_bytes_is_code_12,
    sessions::tc06_ping_with_a_session_is_code_0,
    sessions::tc06_ping_without_a_session_is_the_flavours_answer,
    sessions::tc07_of_two_parallel_executes_one_is_code_15,
    sessions::tc11_no_request_id_is_code_7,
    sessions::tc11_nobody_is_401,
    sessions::a_wrong_password_is_401,
    sessions::another_users_context_is_refused,
    sessions::a_context_hops_over_connections,
    sessions::a_connection_carries_several_contexts,
    sessions::cookies_in_several_lines_are_found,
    sessions::cookies_come_with_every_good_answer,
    sessions::requests_are_echoed,
    sessions::a_refusal_is_framed_by_its_length,
    sessions::a_large_head_is_read,
    sessions::no_mailbox_id_is_refused_without_a_code,
    sessions::the_address_book_binds_answers_and_unbinds,
    streams::tc08_the_stream_begins_with_processing_and_ends_with_done,
    streams::tc08_execute_is_chunked_without_a_length,
    streams::tc08_a_large_answer_arrives_whole,
    streams::tc09_an_event_ends_the_wait_and_is_collected,
    streams::tc10_a_quiet_wait_lasts_and_shows_that_it_lives,
    streams::processing_comes_at_once,
    streams::an_execute_runs_beside_a_wait,
    streams::a_second_wait_is_rejected,
    streams::after_a_client_left_its_wait_executes_go_on,
];

/// Asks everything, one question after the other. Each begins with a session of its own.
pub async fn run(subject: &Subject) -> Vec<Check> {
    let mut checks = Vec::new();
    for (name, question) in QUESTIONS {
        let patience = subject.lifetime * 4 + subject.wait_limit * 4 + Duration::from_secs(10);
        let answer = tokio::time::timeout(patience, question(subject)).await;
        let problem = match answer {
            Ok(Ok(())) => None,
            Ok(Err(problem)) => Some(format!("{problem:#}")),
            Err(_) => Some(format!("no answer within {patience:?}")),
        };
        checks.push(Check { name, problem });
    }
    checks
}
