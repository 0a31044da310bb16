use super::*;
use proptest::prelude::*;

const GATE: Gate<'_> = Gate {
    head_max: 65536,
    route_cookie: Some("MapigateRoute"),
    has_vdirs: false,
};

fn refused(head: &str) -> Refusal {
    read(head.as_bytes(), GATE, &mut Fields::new()).expect_err(head)
}

fn gate(fields: &str) -> Result<BodyLength, Refusal> {
    let head = format!("POST /mapi/emsmdb/?MailboxId=a@b HTTP/1.1\r\n{fields}\r\n");
    read(head.as_bytes(), GATE, &mut Fields::new()).map(|head| head.expect("complete").body)
}

fn sent(fields: &str, with: &Forwarding<'_>) -> String {
    let head = format!("POST /MAPI/emsmdb?MailboxId=a@b HTTP/1.1\r\nHost: m\r\n{fields}\r\n");
    let mut room = Fields::new();
    let head = read(head.as_bytes(), GATE, &mut room).unwrap().unwrap();
    let mut out = Vec::new();
    head.write(with, &mut out);
    finish(7, &mut out);
    String::from_utf8(out).unwrap()
}

const FORWARDING: Forwarding<'_> = Forwarding {
    client: "192.0.2.7",
    scheme: "https",
    authorization: Some(b"Basic eA=="),
    own: None,
    user: None,
    strip_session_cookies: false,
    route_cookie: Some("MapigateRoute"),
};

#[test]
fn what_two_parsers_may_read_differently_is_refused() {
    for fields in [
        "",
        "Host: a\r\nHost: a\r\n",
        "Host: \r\n",
        "Host: a@b:444/~1\r\n",
        "Host: a/b\r\n",
        "Host: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n",
        "Host: a\r\nContent-Length: 5, 5\r\n",
        "Host: a\r\nContent-Length: +1\r\n",
        "Host: a\r\nContent-Length: -1\r\n",
        "Host: a\r\nContent-Length: 010\r\n",
        "Host: a\r\nContent-Length: 0x5\r\n",
        "Host: a\r\nContent-Length: \r\n",
        "Host: a\r\nContent-Length: 99999999999999999999\r\n",
        "Host: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        "Host: a\r\nTransfer-Encoding: xchunked\r\n",
        "Host: a\r\nTransfer-Encoding: gzip, chunked\r\n",
        "Host: a\r\nTransfer-Encoding: identity\r\n",
        "Host: a\r\nTransfer-Encoding: ,chunked\r\n",
        "Host: a\r\nTransfer-Encoding: chunked, chunked\r\n",
        "Host: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Host: a\r\nTransfer-Encoding : chunked\r\n",
        "Host: a\nX: b\r\n",
        "Host: a\r\n X: b\r\n",
        "Host: a\r\nX: b\r\n\tc\r\n",
        "Host: a\r\nX: \0\r\n",
        "Host: a\r\nX: a\rb\r\n",
        "Host: a\r\nConnection: host\r\n",
        "Host: a\r\nConnection: close, content-length\r\n",
        "Host: a\r\nConnection: X-Auth-User\r\n",
        "Host: a\r\nCookie: MapiContext=1\r\nCookie: MapiContext=2\r\n",
        "Host: a\r\nCookie: sid=1; sid=2\r\n",
        "Host: a\r\nAuthorization: Basic a\r\nAuthorization: Basic a\r\n",
        "Host: a\r\nX-RequestType: Execute\r\nX-RequestType: PING\r\n",
        "Host: a\r\nX-RequestId: 1\r\nX-RequestId: 1\r\n",
    ] {
        assert!(
            matches!(gate(fields), Err(Refusal::Malformed(_))),
            "{fields:?} gave {:?}",
            gate(fields)
        );
    }
}

#[test]
fn odd_request_lines_are_refused() {
    for line in [
        "POST /mapi/emsmdb/ HTTP/1.0",
        "POST /mapi/emsmdb/ HTTP/1.2",
        "POST /mapi/emsmdb/ HTTP/2.0",
        "POST /mapi/emsmdb/",
        "POST  /mapi/emsmdb/ HTTP/1.1",
        "POST /mapi/ems mdb/ HTTP/1.1",
    ] {
        assert!(
            matches!(
                refused(&format!("{line}\r\nHost: a\r\n\r\n")),
                Refusal::Malformed(_)
            ),
            "{line}"
        );
    }
    for method in [
        "TRACE",
        "OPTIONS",
        "PUT",
        "DELETE",
        "CONNECT",
        "post",
        "RPC_IN_DATA",
    ] {
        assert_eq!(
            refused(&format!(
                "{method} /mapi/emsmdb/ HTTP/1.1\r\nHost: a\r\n\r\n"
            )),
            Refusal::MethodNotAllowed
        );
    }
    assert_eq!(
        refused("GET /mapi/emsmdb/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        Refusal::MethodNotAllowed
    );
    assert_eq!(
        refused("POST /mapi/healthcheck.htm HTTP/1.1\r\nHost: a\r\n\r\n"),
        Refusal::MethodNotAllowed
    );
    assert!(matches!(
        refused("GET /mapi/healthcheck.htm HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n"),
        Refusal::Malformed(_)
    ));
}

#[test]
fn expectations_other_than_continue_are_refused() {
    assert_eq!(
        gate("Host: a\r\nExpect: y 100-continue\r\n"),
        Err(Refusal::ExpectationFailed)
    );
    assert!(gate("Host: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n").is_ok());
}

#[test]
fn a_kerberos_ticket_fits_and_a_larger_head_does_not() {
    let ticket = |bytes: usize| {
        format!(
            "Host: a\r\nAuthorization: Negotiate {}\r\n",
            "A".repeat(bytes)
        )
    };
    assert!(gate(&ticket(60_000)).is_ok());
    assert_eq!(
        gate(&ticket(66_000)),
        Err(Refusal::HeadTooLarge { limit: 65536 })
    );
}

#[test]
fn names_longer_than_servers_take_are_refused() {
    let field = |bytes: usize| format!("Host: a\r\n{}: 1\r\n", "x".repeat(bytes));
    assert!(gate(&field(63)).is_ok());
    assert!(gate(&field(64)).is_err());
}

#[test]
fn cookies_are_found_on_every_line() {
    let head = "POST /mapi/nspi/ HTTP/1.1\r\nHost: a:443\r\nCookie: a=b; MapiContext=one==\r\nX: y\r\ncookie: MapigateRoute=r; sid=two\r\n\r\n";
    let mut room = Fields::new();
    let read = read(head.as_bytes(), GATE, &mut room).unwrap().unwrap();
    assert_eq!(read.contexts, [Some(&b"one=="[..]), Some(&b"two"[..])]);
    assert_eq!(read.route_cookie, Some(&b"r"[..]));
    assert_eq!(read.host, "a");
}

#[test]
fn the_head_a_server_gets_is_ours() {
    let out = sent(
        "X-Forwarded-For: 6.6.6.6\r\nTE: x\r\nConnection: close, te\r\nX-RequestType: Execute\r\n\
         Authorization: Basic b2xk\r\nUpgrade: websocket\r\nExpect: 100-continue\r\nContent-Length: 7\r\nX_Auth_User: root\r\n",
        &FORWARDING,
    );
    assert_eq!(
        out,
        "POST /mapi/emsmdb/?MailboxId=a@b HTTP/1.1\r\nHost: m\r\nX-RequestType: Execute\r\nAuthorization: Basic eA==\r\n\
         X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\nContent-Length: 7\r\n\r\n"
    );
}

#[test]
fn our_cookie_and_hostile_ones_stay_here() {
    let cookies = "Cookie: MapigateRoute=x; MapiContext=1; X-BEResource=[a]@b:444/; MapiSequence=2; X-BackEndCookie=z\r\nCookie: SecurityToken=1\r\n";
    assert!(
        sent(cookies, &FORWARDING)
            .contains("\r\nCookie: MapiContext=1; MapiSequence=2; X-BackEndCookie=z\r\nAuth")
    );
}

#[test]
fn another_servers_cookies_all_stay_here() {
    let stripped = sent(
        "Cookie: MapiContext=1; MapiSequence=2\r\nCookie: X-BackEndCookie=z\r\n",
        &Forwarding {
            strip_session_cookies: true,
            ..FORWARDING
        },
    );
    assert!(!stripped.contains("Cookie"));
}

#[test]
fn a_trusted_user_field_is_set_once_and_by_us() {
    let with = Forwarding {
        own: Some("X-Site-User"),
        user: Some(("X-Site-User", "user1@contoso.test")),
        ..FORWARDING
    };
    let out = sent("x-site-user: admin\r\nX_Site_User: admin\r\n", &with);
    assert_eq!(out.to_lowercase().matches("site-user").count(), 1);
    assert!(out.contains("X-Site-User: user1@contoso.test\r\n"));
}

#[test]
fn half_a_head_is_waited_for() {
    let whole = "POST /mapi/emsmdb/ HTTP/1.1\r\nHost: a\r\n\r\n";
    for end in 0..whole.len() {
        assert!(
            read(&whole.as_bytes()[..end], GATE, &mut Fields::new())
                .unwrap()
                .is_none()
        );
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _read = read(&bytes, GATE, &mut Fields::new());
    }

    #[test]
    fn what_we_send_passes_our_own_gate(fields in proptest::collection::vec(("[A-Za-z_-]{1,20}", "[ -~]{0,30}"), 0..8)) {
        let mut head = "POST /mapi/emsmdb/?MailboxId=a@b HTTP/1.1\r\nHost: m\r\n".to_owned();
        for (name, value) in &fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let mut room = Fields::new();
        if let Ok(Some(first)) = read(head.as_bytes(), GATE, &mut room) {
            let mut out = Vec::new();
            first.write(&FORWARDING, &mut out);
            finish(0, &mut out);
            let mut again = Fields::new();
            let second = read(&out, GATE, &mut again).unwrap().unwrap();
            prop_assert_eq!(second.target, first.target);
            prop_assert_eq!(second.contexts, first.contexts);
            prop_assert_eq!(second.length, out.len());
        }
    }

    #[test]
    fn no_context_cookie_goes_on_unread_however_it_is_spelled(
        pieces in proptest::collection::vec(
            proptest::sample::select(vec![
                "MapiContext", "mapicontext", "sid", "SID", "MapigateRoute", "Cookie", "a", "b", "=", "=",
                ";", ";", " ", "\t", ",", "\"", "$", "\r\nCookie: ", "\r\nCOOKIE:",
            ]),
            0..16,
        )
    ) {
        let fields = format!("Host: a\r\nCookie: {}\r\n", pieces.concat());
        let head = format!("POST /mapi/emsmdb/?MailboxId=a@b HTTP/1.1\r\n{fields}\r\n");
        let mut room = Fields::new();
        if let Ok(Some(read)) = read(head.as_bytes(), GATE, &mut room) {
            let mut out = Vec::new();
            read.write(&FORWARDING, &mut out);
            let out = String::from_utf8(out).unwrap();
            // A reader as lenient as servers come.
            let lines = out.lines().filter(|line| line.to_lowercase().starts_with("cookie:"));
            for pair in lines.flat_map(|line| line.get("cookie:".len()..).unwrap_or_default().split(';')) {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                let name = name.trim().to_lowercase();
                let value = value.trim().as_bytes();
                match name.as_str() {
                    "mapicontext" => prop_assert_eq!(read.contexts[0], Some(value)),
                    "sid" => prop_assert_eq!(read.contexts[1], Some(value)),
                    "mapigateroute" => prop_assert!(false, "our cookie went on"),
                    _ => {}
                }
            }
        }
    }
}
