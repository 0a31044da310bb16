use super::*;
use crate::auth::dialogue::Word;
use std::collections::BTreeMap;
use zeroize::Zeroizing;

/// A helper in the words of `ntlm_auth`: it takes any message for good, but `bad`.
const OBLIGING: &str = r#"while read verb token; do
  case "$verb $token" in
    YR*) echo "TT AQID" ;;
    "KK YmFk") echo "NA NT_STATUS_LOGON_FAILURE" ;;
    "KK dXBu") echo "NA NT_STATUS_NOT_FOUND" ;;
    "KK ZG93bg==") echo "BH NT_STATUS_NO_LOGON_SERVERS" ;;
    KK*) echo "AF CONTOSO\\Alice" ;;
  esac
done"#;

fn settings(script: &str, pool: usize) -> NtlmAuth {
    NtlmAuth {
        helper: ["sh", "-c", script].map(str::to_owned).into(),
        pool,
        handshake_timeout: Duration::from_secs(10),
        realm_map: BTreeMap::from([("CONTOSO".to_owned(), "contoso.test".to_owned())]),
    }
}

fn word(desk: &Arc<Desk>, token: &[u8], talk: Option<Talk>) -> Word {
    Word {
        token: Zeroizing::new(token.to_vec()),
        talk,
        binding: None,
        source: None,
        desk: Arc::clone(desk),
        #[expect(clippy::disallowed_methods, reason = "any moment will do")]
        heard_at: std::time::Instant::now(),
    }
}

async fn first(ntlm: &Ntlm, desk: &Arc<Desk>) -> Talk {
    match ntlm.hear(word(desk, b"one", None)).await {
        Heard::More(talk, answer) => {
            assert_eq!(&**answer, [1, 2, 3]);
            talk
        }
        Heard::Proven(_) => panic!("proven by the first word"),
        Heard::Nothing(denied) => panic!("{denied}"),
    }
}

async fn outcome(ntlm: &Ntlm, desk: &Arc<Desk>, token: &[u8]) -> Result<String, Denied> {
    let talk = first(ntlm, desk).await;
    match ntlm.hear(word(desk, token, Some(talk))).await {
        Heard::Proven(known) => Ok(known.user.as_str().to_owned()),
        Heard::Nothing(denied) => Err(denied),
        Heard::More(..) => panic!("there is no third message"),
    }
}

#[tokio::test]
async fn one_helper_hears_one_conversation_after_the_other() {
    let (ntlm, desk) = (
        Ntlm::new(&settings(OBLIGING, 1), None),
        Arc::new(Desk::new(1)),
    );

    assert_eq!(
        outcome(&ntlm, &desk, b"good").await.unwrap(),
        "alice@contoso.test"
    );
    // A wrong password, and the name `nobody@contoso.test`.
    for word in [b"bad", b"upn"] {
        assert_eq!(
            outcome(&ntlm, &desk, word).await.unwrap_err(),
            Denied::Credentials("wrong name or password")
        );
    }
    assert_eq!(
        outcome(&ntlm, &desk, b"down").await.unwrap_err(),
        Denied::Busy("winbind or the domain controller does not answer")
    );
    assert_eq!(ntlm.pool.rested.lock().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_finds_every_helper_lent_waits_and_is_told() {
    let (ntlm, desk) = (
        Ntlm::new(&settings(OBLIGING, 1), None),
        Arc::new(Desk::new(1)),
    );
    let half = first(&ntlm, &desk).await;

    let Heard::Nothing(denied) = ntlm.hear(word(&desk, b"one", None)).await else {
        panic!("a helper was lent twice");
    };
    assert_eq!(denied, Denied::Busy("every NTLM helper is lent"));

    drop(half);
    first(&ntlm, &desk).await;
}

#[tokio::test]
async fn a_conversation_that_is_left_in_its_middle_costs_no_process() {
    let (ntlm, desk) = (
        Ntlm::new(&settings(OBLIGING, 1), None),
        Arc::new(Desk::new(1)),
    );
    let rested = || ntlm.pool.rested.lock().first().map(Helper::id);
    drop(first(&ntlm, &desk).await);
    let process = rested();
    assert!(process.is_some());

    for _ in 0..3 {
        drop(first(&ntlm, &desk).await);
    }

    assert!(outcome(&ntlm, &desk, b"good").await.is_ok());
    assert_eq!(rested(), process);
}

#[tokio::test]
async fn no_helper_is_started_on_a_thread_that_carries_requests() {
    let (ntlm, desk) = (
        Ntlm::new(&settings(OBLIGING, 1), None),
        Arc::new(Desk::new(1)),
    );

    drop(first(&ntlm, &desk).await);

    let started_by = ntlm.pool.rested.lock()[0].started_by;
    assert_ne!(started_by, std::thread::current().id());
}

#[tokio::test]
async fn a_helper_that_falls_silent_is_ended_and_not_lent_again() {
    let mut silent = settings("read first; echo TT AQID; exec sleep 600", 1);
    silent.handshake_timeout = Duration::from_millis(100);
    let (ntlm, desk) = (Ntlm::new(&silent, None), Arc::new(Desk::new(1)));

    assert_eq!(
        outcome(&ntlm, &desk, b"good").await.unwrap_err(),
        Denied::Busy("the NTLM helper does not answer")
    );

    assert!(ntlm.pool.rested.lock().is_empty());
    assert_eq!(ntlm.pool.places.available_permits(), 1);
}

#[tokio::test]
async fn a_helper_that_cannot_be_started_is_the_operators_business() {
    let mut settings = settings("", 1);
    settings.helper = vec!["/no/such/helper".to_owned()];
    let (ntlm, desk) = (Ntlm::new(&settings, None), Arc::new(Desk::new(1)));

    let Heard::Nothing(denied) = ntlm.hear(word(&desk, b"one", None)).await else {
        panic!("nobody heard it");
    };
    assert_eq!(denied, Denied::Busy("the NTLM helper cannot be started"));
}

#[tokio::test(start_paused = true)]
async fn one_address_holds_half_of_the_helpers_at_most() {
    let (ntlm, desk) = (
        Ntlm::new(&settings(OBLIGING, 4), None),
        Arc::new(Desk::new(1)),
    );
    let from = |last: Option<u8>| Word {
        source: last.map(|last| [192, 0, 2, last].into()),
        ..word(&desk, b"one", None)
    };
    let mut held = Vec::new();
    for _ in 0..2 {
        let Heard::More(talk, _) = ntlm.hear(from(Some(1))).await else {
            panic!("no helper");
        };
        held.push(talk);
    }

    let Heard::Nothing(denied) = ntlm.hear(from(Some(1))).await else {
        panic!("a third helper was lent");
    };
    let why = "every NTLM helper that one address may hold is lent";
    assert_eq!(denied, Denied::Busy(why));
    for other in [Some(2), None] {
        assert!(matches!(ntlm.hear(from(other)).await, Heard::More(..)));
    }
    drop(held.pop());
    assert!(matches!(ntlm.hear(from(Some(1))).await, Heard::More(..)));
    drop(held);
    assert!(ntlm.pool.share([192, 0, 2, 9].into()).available_permits() == 2);
    assert_eq!(ntlm.pool.shares.lock().len(), 1);
}
