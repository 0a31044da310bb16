//! Conversations of NTLM that are begun and left, with Samba's own helper.

use crate::client::{ntlm, ping, token};
use crate::lab::{Lab, NETBIOS, PASSWORD};
use crate::site::{Offer, eventually, start};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Samba's `ntlm_auth` on one side of a conversation.
struct Side {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Side {
    fn new(arguments: &[&str]) -> Self {
        let conf = Lab::find().path("etc/smb.conf");
        let mut child = Command::new("ntlm_auth")
            .arg(format!("--configfile={}", conf.display()))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let to = child.stdin.take().unwrap();
        let from = BufReader::new(child.stdout.take().unwrap());
        Self { child, to, from }
    }

    fn client() -> Self {
        Self::new(&[
            "--helper-protocol=ntlmssp-client-1",
            "--username=alice",
            &format!("--domain={NETBIOS}"),
            &format!("--password={PASSWORD}"),
        ])
    }

    /// Says a line and hears one; what is behind its first word.
    fn say(&mut self, verb: &str, rest: &str) -> (String, String) {
        writeln!(self.to, "{}", format!("{verb} {rest}").trim_end()).unwrap();
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        let (verb, rest) = line.trim_end().split_once(' ').unwrap();
        (verb.to_owned(), rest.to_owned())
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[test]
#[ignore = "needs a domain controller: make test-ad"]
fn the_first_word_of_a_conversation_makes_the_helper_forget_the_one_before() {
    let mut helper = Side::new(&["--helper-protocol=squid-2.5-ntlmssp"]);
    let (mut left, mut next) = (Side::client(), Side::client());

    let (_, begins) = left.say("YR", "");
    let (_, first_challenge) = helper.say("YR", &begins);
    let (_, begins) = next.say("YR", "");
    let (_, second_challenge) = helper.say("YR", &begins);
    assert_ne!(first_challenge, second_challenge);

    // What the first client proves is proven to a challenge that is no more.
    let (_, stale) = left.say("TT", &first_challenge);
    let (verdict, _) = helper.say("KK", &stale);
    assert_eq!(verdict, "NA");
    // And whoever begins in the middle of another's conversation proves himself all the same.
    let mut last = Side::client();
    let (_, begins) = left.say("YR", "");
    let _left = helper.say("YR", &begins);
    let (_, begins) = last.say("YR", "");
    let (_, challenge) = helper.say("YR", &begins);
    let (_, proof) = last.say("TT", &challenge);
    assert_eq!(
        helper.say("KK", &proof),
        ("AF".to_owned(), format!("{NETBIOS}\\alice"))
    );
}

/// The first message of a client that wants Unicode and NTLM. `[MS-NLMP] 2.2.1.1`
const FIRST: &[u8] = b"NTLMSSP\0\x01\0\0\0\x05\x82\x08\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn who_comes_after_clients_that_left_in_the_middle_is_himself() {
    let site = start(Offer {
        ntlm: Some("{ pool: 1, realm_map: { CONTOSO: contoso.test } }"),
        ..Offer::of("ntlm, basic")
    })
    .await;

    for name in ["alice", "bob"] {
        for _ in 0..20 {
            let mut half = site.line().await;
            let begun = half.ask(&ping(Some(&ntlm(FIRST)))).await.unwrap();
            assert!(token(&begun, "NTLM").is_some());
        }
        eventually("the helper is free", || async {
            let got = site.ntlm(&format!("{NETBIOS}\\{name}:{PASSWORD}"), 1).await;
            got.status() == 200
        })
        .await;
    }

    assert_eq!(site.served(), ["alice@contoso.test", "bob@contoso.test"]);
}
