//! What an answer that should not have come means, and what to do about it.

use super::report::Trouble;
use crate::mapi::{Flavour, RequestType, ResponseCode};
use crate::outlook::{Answer, AnswerHead};

/// An answer in a line: its status, its code, what it says to people.
pub(super) fn came(answer: &Answer) -> String {
    let head = &answer.head;
    let mut line = format!("HTTP {}", head.status);
    if let Some(code) = answer.code() {
        line.push_str(&format!(", X-ResponseCode {code}"));
    }
    if let Some(kind) = head
        .header("content-type")
        .filter(|_| answer.code().is_none())
    {
        line.push_str(&format!(", {}", printable(kind, 60)));
    }
    if let Some(place) = head.header("location") {
        line.push_str(&format!(", to {}", printable(place, 100)));
    }
    if let Some(diagnosis) = head.header("x-ms-diagnostics") {
        line.push_str(&format!(
            ", x-ms-diagnostics: {}",
            printable(diagnosis, 200)
        ));
    }
    let words = words(answer);
    if !words.is_empty() {
        line.push_str(&format!(": \"{words}\""));
    }
    line
}

/// What the body says to people; empty where it says nothing they could read.
pub(super) fn words(answer: &Answer) -> String {
    let kind = answer.head.header("content-type").unwrap_or_default();
    if !kind.to_ascii_lowercase().starts_with("text/") || answer.tagged().is_some() {
        return String::new();
    }
    let body = answer.body();
    let text = String::from_utf8_lossy(body.get(..body.len().min(PAGE_MAX)).unwrap_or_default());
    let mut plain = String::new();
    let mut rest: &str = &text;
    while let Some((before, behind)) = rest.split_once('<') {
        plain.push_str(before);
        plain.push(' ');
        // What styles a page is not what it says.
        let lower = behind.to_ascii_lowercase();
        let hidden = ["style", "script", "head"]
            .into_iter()
            .find(|tag| lower.starts_with(tag) && *tag != "head");
        let end = match hidden {
            Some(tag) => lower.find(&format!("</{tag}")).unwrap_or(lower.len()),
            None => 0,
        };
        rest = behind.get(end..).unwrap_or_default();
        rest = rest.split_once('>').map_or("", |(_, rest)| rest);
    }
    plain.push_str(rest);
    printable(&plain, WORDS_MAX)
}

/// Without control characters and runs of space, and not longer than this.
fn printable(text: &str, max: usize) -> String {
    let words: Vec<_> = text
        .split(|letter: char| letter.is_whitespace() || letter.is_control())
        .filter(|word| !word.is_empty())
        .collect();
    let joined = words.join(" ");
    match joined.chars().count() > max {
        true => joined.chars().take(max).chain(['…']).collect(),
        false => joined,
    }
}

/// A status that is not the one that was asked for.
pub(super) fn status(expected: &str, answer: &Answer) -> Trouble {
    let said = words(answer);
    let next = match (ours(&said), answer.head.status) {
        (Some(next), _) => next,
        (None, 300..=399) => {
            "something sends the request elsewhere, as pages for logging on do: MAPI clients do not follow; let this path through without it"
        }
        (None, 400) => {
            "something does not understand the request: compare with --server, to see whether a proxy between changes it"
        }
        (None, 401) => {
            "the credential is not accepted here, though it was a moment ago: a server behind does not accept what is handed on; see `backend_identity`"
        }
        (None, 403) => "something between or behind forbids it: look at its rules for this path",
        (None, 404) => {
            "what answers here does not know the path: let the proxy in front pass it on, or see that the server has it"
        }
        (None, 405 | 501) => {
            "what answers here does not know the method: let the proxy in front pass it on"
        }
        (None, 411) => "something between wants Content-Length, or has taken it away",
        (None, 413) => "raise the limit of the proxy in front for this path",
        (None, 421) => "this name is not served here: compare it with `names`",
        (None, 429) => "somebody limits how often this user may ask; wait",
        (None, 500..=599) => {
            "look at the log of what answers; with --server the probe tells whether it is the mailbox server"
        }
        (None, _) => "look at the log of what answers",
    };
    Trouble::new(expected, came(answer), next)
}

/// What an administrator does about an answer of this house, by the words that clients are told.
fn ours(said: &str) -> Option<&'static str> {
    let mut all = OURS.iter();
    all.find(|(words, _)| said.contains(words))
        .map(|(_, next)| *next)
}

/// The body of an answer of the protocol, or why it is none.
pub(super) fn body(
    kind: RequestType,
    answer: &Answer,
    is_gromox: bool,
) -> Result<Vec<u8>, Trouble> {
    let expected = format!("{} with HTTP 200 and X-ResponseCode 0", kind.as_str());
    if answer.head.status != 200 {
        return Err(status(&expected, answer));
    }
    let Some(number) = answer.code() else {
        return Err(no_mapi(&expected, answer));
    };
    if number != 0 {
        return Err(Trouble::new(
            expected,
            came(answer),
            code(number, is_gromox),
        ));
    }
    answer.tagged().map(|tagged| tagged.body).ok_or_else(|| {
        Trouble::new(
            "a body behind PROCESSING and DONE",
            format!("{} bytes without them", answer.body().len()),
            "something between changes the body: compare with --server",
        )
    })
}

fn no_mapi(expected: &str, answer: &Answer) -> Trouble {
    Trouble::new(
        expected,
        format!("{}, and no X-ResponseCode", came(answer)),
        "what answers here does not speak MAPI over HTTP: a page of another site, of a firewall, or one to log on; see where the name and the path lead",
    )
}

/// What a response code means, and what is to be done. `[MS-OXCMAPIHTTP] 2.2.3.3.3`
pub(super) fn code(number: u32, is_gromox: bool) -> String {
    let theirs = ResponseCode(number);
    let normal = match is_gromox {
        true => Flavour::Gromox.normal(theirs),
        false => theirs,
    };
    let (meaning, next) = MEANINGS
        .iter()
        .find(|(code, _, _)| *code == normal.0)
        .map_or(
            (
                "a code the specification does not know",
                "look at the server's log",
            ),
            |(_, meaning, next)| (*meaning, *next),
        );
    let numbers = if is_gromox {
        " (in gromox' own numbers)"
    } else {
        ""
    };
    format!("code {number}{numbers} means {meaning}: {next}")
}

/// What MAPI itself says no with.
pub(super) fn mapi_error(expected: &str, number: u32) -> Trouble {
    let (name, next) = ERRORS.iter().find(|(code, _, _)| *code == number).map_or(
        (
            "an error of the mailbox server",
            "look it up in [MS-OXCDATA] 2.4, and at the server's log",
        ),
        |(_, name, next)| (*name, *next),
    );
    Trouble::new(expected, format!("MAPI error {number:#010x}: {name}"), next)
}

/// What is wrong with an answer's head though it succeeded: what clients are known to trip over.
pub(super) fn lower_case_challenge(head: &AnswerHead) -> Option<Trouble> {
    let name = head.headers.iter().map(|(name, _)| name.as_str());
    let challenge = name
        .into_iter()
        .find(|name| name.eq_ignore_ascii_case("www-authenticate"))?;
    challenge.starts_with('w').then(|| {
        Trouble::new(
            "WWW-Authenticate",
            challenge,
            "Outlook 16.0.4266 does not see a challenge in small letters: let the proxy in front keep the case of header names",
        )
    })
}

/// Bytes of a page that are looked at.
const PAGE_MAX: usize = 16 << 10;
/// Characters of its words that are told.
const WORDS_MAX: usize = 160;

/// Answers of this house by their words, and what to do.
const OURS: &[(&str, &str)] = &[
    (
        "This is not RPC over HTTP.",
        "a proxy in front of mapigate changes the request: method, length or body of RPC over HTTP",
    ),
    (
        "The virtual connection is not found. Connect again.",
        "a channel came without its partner: a balancer in front sends the two to different nodes",
    ),
    (
        "The request is malformed.",
        "the gate refused the request's head; a proxy in front of mapigate writes it anew and wrong",
    ),
    (
        "The request headers are too large.",
        "raise limits.head: Kerberos tickets of users in many groups are large",
    ),
    (
        "The request address is too long.",
        "a proxy in front of mapigate makes the URL longer; let it pass as it is",
    ),
    (
        "The request did not arrive in time.",
        "a proxy in front of mapigate keeps requests back; look at limits.head_timeout and limits.body_timeout",
    ),
    (
        "This expectation is not supported.",
        "a proxy in front of mapigate adds an Expect header; take it out",
    ),
    (
        "This method is not allowed here.",
        "a proxy in front of mapigate changes POST, or the path is no MAPI path",
    ),
    (
        "There is nothing at this address.",
        "mapigate does not serve this path under this name; for Autodiscover see autodiscover.mode",
    ),
    (
        "This name is not served here.",
        "add the name to `names`, or see why the request carries another Host",
    ),
    (
        "This is served by HTTP/1.1.",
        "what stands in front of mapigate must not use HTTP/2 towards it, or `names[].http2` be off",
    ),
    ("The request is too large.", "raise limits.body"),
    (
        "The MailboxId in the address is malformed.",
        "the URL of Autodiscover was changed on its way",
    ),
    (
        "Authentication is required.",
        "the credential is not accepted: `mapigate auth test` with the configuration tells why",
    ),
    (
        "A valid client certificate is required.",
        "the listener lets nobody in without a client certificate; the probe shows none",
    ),
    (
        "You may not open this mailbox.",
        "directory.access is `listed`, and the user is neither the owner nor on the list of this mailbox",
    ),
    (
        "Your logon cannot be used for the mailbox server.",
        "the KDC does not let mapigate act for this user: see `backend_identity`, and the delegation of its account",
    ),
    (
        "Your logon cannot be used at the moment.",
        "the KDC cannot be asked; `grep` the id in the access log tells why",
    ),
    (
        "There is no such mailbox here.",
        "add the mailbox to the mailbox file, or see what `mapigate explain` says of it",
    ),
    (
        "The session context is not found. Connect again.",
        "the session cookies did not come back as they were given, or the database moved in between",
    ),
    (
        "Your password cannot be checked at the moment.",
        "`auth.basic.verify` is `backend`, and the mailbox server neither takes nor refuses the password: the access log says why",
    ),
    (
        "The directory is not available at the moment.",
        "no server of directory.ldap answers; `mapigate check --directory` says why",
    ),
    (
        "This mailbox is reached at another address.",
        "the mailbox' server has a name of its own (`url_name`): probe that name",
    ),
    (
        "The mailbox is not available at the moment.",
        "the server of the active copy is down or cannot be reached: see the status page, and activate another copy or repair the server",
    ),
    (
        "MAPI over HTTP is disabled for this mailbox.",
        "the server of the active copy does not speak MAPI over HTTP: see its `capability` and `version`",
    ),
    (
        "The mailbox server failed. The request was not repeated.",
        "the server closed the connection in mid-request; look at its log",
    ),
    (
        "The mailbox server did not answer in time.",
        "the server is stuck, or slower than limits.first_byte_timeout; look at its log",
    ),
    (
        "The mailbox server gave an invalid answer.",
        "the server, or a proxy between mapigate and it, answers nonsense; probe it with --server",
    ),
    (
        "The service is busy.",
        "a limit of mapigate is reached: `sum by (reason) (rate(mapigate_refusals_total[5m]))`, and the access log",
    ),
    (
        "The service is restarting.",
        "mapigate is going away; try again",
    ),
];

/// Response codes in the specification's numbers.
const MEANINGS: &[(u32, &str, &str)] = &[
    (
        1,
        "that something failed and the server does not say what",
        "look at the server's log",
    ),
    (
        2,
        "that the method is not POST",
        "something between changes it",
    ),
    (
        3,
        "that there is no such endpoint",
        "something between changes the path",
    ),
    (4, "a malformed header", "something between changes headers"),
    (
        5,
        "a request type that is not known",
        "something between takes X-RequestType out, or changes it",
    ),
    (
        6,
        "a session cookie that cannot be one",
        "something between changes Cookie or Set-Cookie",
    ),
    (
        7,
        "that a required header is missing",
        "something between takes X-RequestId, X-ClientInfo or X-ClientApplication out",
    ),
    (
        8,
        "that authentication is required",
        "something between takes Authorization out",
    ),
    (
        9,
        "that the request is too large",
        "raise the server's limit, or limits.body",
    ),
    (
        10,
        "that the session is not known",
        "session cookies went to another server than the one that gave them, or were lost: a balancer without affinity, or a database that moved just now",
    ),
    (
        11,
        "that the session is somebody else's",
        "a proxy between mixes up users' connections or cookies: find it before anything else",
    ),
    (
        12,
        "a body that cannot be read",
        "something between changes bodies: look for compression and chunking",
    ),
    (
        13,
        "that the session cookie is missing",
        "a proxy between strips Cookie headers; let it pass them",
    ),
    (
        15,
        "that requests came out of order",
        "a Set-Cookie was lost on its way, or something sends requests twice",
    ),
    (
        16,
        "that MAPI over HTTP is switched off",
        "see MapiHttpEnabled of organisation and mailbox, and the server's `capability`",
    ),
    (
        17,
        "that a server behind answered nonsense",
        "probe that server with --server",
    ),
    (18, "that the endpoint is shutting down", "try again"),
];

/// Errors of MAPI. `[MS-OXCDATA] 2.4`
const ERRORS: &[(u32, &str, &str)] = &[
    (
        0x8007_0005,
        "access denied",
        "the user may not open this mailbox: see its rights on the mailbox server, and whose identity `backend_identity` hands on",
    ),
    (
        0x8004_0111,
        "logon failed",
        "the mailbox is disabled, or the user has too many sessions there: see the mailbox on its server",
    ),
    (
        0x0000_03f2,
        "unknown user",
        "the server does not know the distinguished name: compare LegacyDN of Autodiscover with the mailbox",
    ),
    (
        0x0000_0478,
        "wrong server",
        "the mailbox is active on another server: correct `databases`, or see which server holds the active copy",
    ),
    (
        0x0000_047f,
        "too many sessions",
        "wait until the user's old sessions end on the server",
    ),
    (
        0x0000_03ed,
        "the server is stopping",
        "wait, or activate another copy",
    ),
    (
        0x0000_07ee,
        "rejected: one is held already",
        "an earlier wait has not ended on the server; a proxy between keeps the connection of a client that left",
    ),
    (
        0x8004_010f,
        "not found",
        "the server does not know the object",
    ),
    (
        0x8004_0115,
        "network error",
        "the server cannot reach its own store",
    ),
    (
        0x8004_0116,
        "disk error",
        "the database is not mounted, or its disk fails",
    ),
    (
        0x0000_046c,
        "the database is not mounted",
        "mount it, or activate another copy",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Answer {
        let header = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Answer {
            head: AnswerHead {
                status,
                headers: headers.iter().map(header).collect(),
                ..AnswerHead::default()
            },
            pieces: vec![body.as_bytes().to_vec()],
        }
    }

    #[test]
    fn every_sentence_that_clients_are_told_has_its_advice() {
        let source = include_str!("../refusal.rs");
        let function = source.split("pub fn public_words").nth(1).unwrap();
        let function = function.split("\n    }\n").next().unwrap();
        let sentences: Vec<_> = function
            .split('"')
            .filter(|text| text.ends_with('.') && text.starts_with(char::is_uppercase))
            .collect();

        assert!(sentences.len() > 20);
        for sentence in sentences {
            assert!(ours(sentence).is_some(), "{sentence}");
        }
    }

    #[test]
    fn every_code_of_the_specification_means_something() {
        for number in 1..=ResponseCode::HIGHEST {
            let words = code(number, false);
            assert_eq!(words.contains("does not know:"), number == 14, "{words}");
        }
        assert!(code(6, true).contains("session cookie is missing"));
    }

    #[test]
    fn a_page_is_told_in_its_words_and_not_in_its_markup() {
        let page = "<html><head><style>b { color: red }</style><title>Log on</title></head><body>\x1b[31mWho  are\n you?</body>";
        let answer = answer(200, &[("Content-Type", "text/html")], page);

        assert_eq!(words(&answer), "Log on [31mWho are you?");
        let trouble = body(RequestType::Connect, &answer, false).unwrap_err();
        assert!(
            trouble.came.contains("HTTP 200, text/html: \"Log on"),
            "{}",
            trouble.came
        );
        assert!(trouble.next.contains("does not speak MAPI over HTTP"));
    }

    #[test]
    fn an_answer_of_this_house_is_explained_by_its_words() {
        let page = "<html><body>The mailbox is not available at the moment. (0KJ4)</body></html>";
        let answer = answer(503, &[("Content-Type", "text/html")], page);

        let trouble = body(RequestType::Connect, &answer, false).unwrap_err();

        assert_eq!(
            trouble.came,
            "HTTP 503, text/html: \"The mailbox is not available at the moment. (0KJ4)\""
        );
        assert!(
            trouble.next.contains("active copy is down"),
            "{}",
            trouble.next
        );
    }

    #[test]
    fn a_challenge_in_small_letters_is_noticed() {
        let small = answer(401, &[("www-authenticate", "Basic")], "");
        let usual = answer(401, &[("WWW-Authenticate", "Basic")], "");

        assert!(lower_case_challenge(&small.head).is_some());
        assert!(lower_case_challenge(&usual.head).is_none());
    }
}
