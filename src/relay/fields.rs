//! Which header fields pass.
//!
//! A client may not say who it is, where it came from or where it wants to go except by the fields
//! that are there for it. Names are compared with `_` read as `-`, because servers behind us may.

/// What becomes of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on as written.
    Pass,
    /// It stays here.
    Drop,
}

/// Fields of one connection, RFC 9110 section 7.6.1, and those we write ourselves.
const HOP_BY_HOP: [&str; 12] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "upgrade",
    "transfer-encoding",
    "content-length",
    "expect",
    "proxy-authorization",
    "proxy-authenticate",
    "http2-settings",
];

/// Claims of identity, origin or route that only a front end may make. Exchange's own front end was
/// talked into other people's mailboxes by some of these.
const CLAIMS: [&str; 33] = [
    // CGI makes HTTP_PROXY of it, which libraries take for where to go.
    "proxy",
    "x-forwarded",
    "forwarded",
    "via",
    "x-real-ip",
    "x-client-ip",
    "true-client-ip",
    "x-cluster-client-ip",
    "x-original-url",
    "x-rewrite-url",
    "x-original-host",
    "x-host",
    "x-commonaccesstoken",
    "x-isfromcafe",
    "x-sourcecafeserver",
    "x-isfrombackend",
    "x-rps-cat",
    "x-remote-user",
    "remote-user",
    "x-user",
    "x-username",
    "x-beresource",
    "x-anonresource",
    "x-anonresource-backend",
    "x-backendcookie",
    "x-backend-moved-to",
    "x-beserver",
    "x-targetserver",
    "x-proxytargetserver",
    "x-anchormailbox",
    // Another method than the one that is judged.
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
];

/// Whole families of claims, by how they begin.
const CLAIM_FAMILIES: [&str; 20] = [
    "ssl-client",
    "x-ssl-client",
    "x-client-cert",
    "x-authenticated",
    "x-originalrequesthost",
    "x-forwarded-",
    "x-wlid-",
    "x-auth-",
    "x-mapigate-",
    "msexch",
    "x-msexch",
    "x-rps-",
    "x-isfrom",
    "x-backend",
    "x-beserver",
    "x-beresource",
    "x-anonresource",
    "x-routing",
    "x-proxytarget",
    "x-remote-",
];

/// Topology that a server tells and outsiders need not know; it is in our access log.
const TOPOLOGY: [&str; 11] = [
    "x-feserver",
    "x-beserver",
    "x-calculatedbetarget",
    "x-diaginfo",
    "x-backendhttpstatus",
    "x-powered-by",
    "x-aspnet-version",
    "server",
    "x-targetbeserver",
    "x-feproxyinfo",
    "x-feefzinfo",
];

/// What becomes of a client's field. `own` is the field that carries our user name to the server, where
/// one is configured. A few comparisons by first letter; no allocation.
pub fn of_request(name: &str, own: Option<&str>) -> Fate {
    if own.is_none() && is_usual(name) {
        return Fate::Pass;
    }
    let listed = |list: &[&str]| list.iter().any(|known| same(name, known));
    let family = || CLAIM_FAMILIES.iter().any(|family| begins(name, family));
    if listed(&HOP_BY_HOP)
        // Where `_` stands for `-`, the pair is one field to some servers and two to others.
        || name.contains('_')
        || listed(&CLAIMS)
        || family()
        || own.is_some_and(|own| same(name, own))
    {
        Fate::Drop
    } else {
        Fate::Pass
    }
}

/// True for a parameter of a query under whose name only a front end speaks: servers take some claims from
/// there as well.
pub fn is_claim_in_query(name: &str) -> bool {
    let name = name.replace('_', "-");
    let is_meant = begins(&name, "x-") || begins(&name, "msexch");
    is_meant
        && (CLAIMS.iter().any(|known| same(&name, known))
            || CLAIM_FAMILIES.iter().any(|family| begins(&name, family)))
}

/// Fields of nearly every request, in Outlook's spelling: a short cut past the lists above, in none of
/// which they are.
fn is_usual(name: &str) -> bool {
    matches!(
        name,
        "Host"
            | "Accept"
            | "Cookie"
            | "User-Agent"
            | "Content-Type"
            | "Cache-Control"
            | "X-RequestId"
            | "X-ClientInfo"
            | "X-RequestType"
            | "X-ClientApplication"
            | "client-request-id"
    )
}

/// What becomes of a server's field.
pub fn of_answer(name: &str) -> Fate {
    let listed = |list: &[&str]| list.iter().any(|known| same(name, known));
    if !is_usual_in_answers(name) && (listed(&HOP_BY_HOP) || listed(&TOPOLOGY)) {
        Fate::Drop
    } else {
        Fate::Pass
    }
}

/// The same short cut for answers.
fn is_usual_in_answers(name: &str) -> bool {
    matches!(
        name,
        "Cache-Control"
            | "Content-Type"
            | "Set-Cookie"
            | "X-RequestType"
            | "X-RequestId"
            | "X-ClientInfo"
            | "X-ResponseCode"
            | "X-PendingPeriod"
            | "X-ExpirationInfo"
            | "X-ServerApplication"
            | "Date"
    )
}

/// True for a field that belongs to one connection, and so may be named in `Connection`.
pub fn may_be_nominated(token: &[u8]) -> bool {
    [
        "close",
        "keep-alive",
        "upgrade",
        "te",
        "http2-settings",
        "proxy-connection",
    ]
    .iter()
    .any(|known| token.eq_ignore_ascii_case(known.as_bytes()))
}

/// Cookies with which a server may be chosen: below other virtual directories we choose, and a server's
/// own front end is not to choose once more.
pub fn chooses_server(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"X-BackEndCookie") || name.eq_ignore_ascii_case(AFFINITY)
}

/// By which clients of Exchange Web Services keep to one server.
pub const AFFINITY: &[u8] = b"X-BackEndOverrideCookie";

/// Cookies with which a front end could be talked into something; they go no further than this.
pub fn cookie_passes(name: &[u8], route_cookie: Option<&str>) -> bool {
    const DROPPED: [&str; 6] = [
        "X-BEResource",
        "X-AnonResource",
        "X-AnonResource-Backend",
        "X-BackEndOverrideCookie",
        "SecurityToken",
        "Email",
    ];
    !DROPPED
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
        && route_cookie.is_none_or(|own| !name.eq_ignore_ascii_case(own.as_bytes()))
}

fn same(name: &str, known: &str) -> bool {
    name.len() == known.len() && name.eq_ignore_ascii_case(known)
}

fn begins(name: &str, family: &str) -> bool {
    name.as_bytes()
        .split_at_checked(family.len())
        .is_some_and(|(head, _)| head.eq_ignore_ascii_case(family.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_dropped_in_every_spelling() {
        for name in [
            "X-CommonAccessToken",
            "x-commonaccesstoken",
            "X_CommonAccessToken",
            "X-Rps-CAT",
            "X-WLID-MemberName",
            "X-SourceCafeServer",
            "X-IsFromCafe",
            "X-Auth-User",
            "X_Auth_User",
            "x-auth-anything",
            "X-Forwarded-For",
            "X-FORWARDED-HOST",
            "X_Forwarded_For",
            "Forwarded",
            "X-BEResource",
            "X-AnonResource-Backend",
            "X-BackEndCookie",
            "X-BEServer",
            "X-TargetServer",
            "X-ProxyTargetServer",
            "X-Original-URL",
            "X-Rewrite-URL",
            "X-AnchorMailbox",
            "msExchLogonAccount",
            "X-Mapigate-User",
            "X-Remote-User",
            "Remote-User",
            "Proxy",
            "X-Forwarded",
            "X-SSL-Client-CN",
            "SSL-Client-Verify",
            "X-Client-Cert",
            "X-Authenticated-UserId",
            "X-OriginalRequestHostSchemePort",
        ] {
            assert_eq!(of_request(name, None), Fate::Drop, "{name}");
        }
    }

    #[test]
    fn what_a_mailbox_server_needs_passes() {
        for name in [
            "Host",
            "Content-Type",
            "User-Agent",
            "Accept",
            "X-RequestType",
            "X-RequestId",
            "X-ClientInfo",
            "X-ClientApplication",
            "X-DeviceInfo",
            "client-request-id",
            "X-MapiHttpCapability",
            "X-User-Identity",
        ] {
            assert_eq!(of_request(name, None), Fate::Pass, "{name}");
        }
    }

    #[test]
    fn the_short_cut_passes_nothing_the_lists_would_drop() {
        let dropped = HOP_BY_HOP.iter().chain(&CLAIMS);
        assert!(dropped.clone().all(|name| !is_usual(name)));
        let dropped = HOP_BY_HOP.iter().chain(&TOPOLOGY);
        assert!(dropped.clone().all(|name| !is_usual_in_answers(name)));
        let families = CLAIM_FAMILIES.iter().map(|family| format!("{family}x"));
        assert!(
            families
                .into_iter()
                .all(|name| of_request(&name, None) == Fate::Drop)
        );
    }

    #[test]
    fn a_query_speaks_for_a_front_end_by_the_same_names_and_no_others() {
        for name in [
            "X-Rps-CAT",
            "x_rps_cat",
            "X-BEResource",
            "X-Forwarded-For",
            "msExchProxyUri",
        ] {
            assert!(is_claim_in_query(name), "{name}");
        }
        for name in [
            "_",
            "te",
            "via",
            "forwarded",
            "expect",
            "Cmd",
            "User",
            "UA",
            "x",
            "X-OWA-x",
        ] {
            assert!(!is_claim_in_query(name), "{name}");
        }
    }

    #[test]
    fn our_own_identity_field_is_never_the_clients() {
        assert_eq!(of_request("X-Site-User", Some("x-site-user")), Fate::Drop);
        assert_eq!(of_request("X-Site-User", None), Fate::Pass);
    }

    #[test]
    fn only_connection_options_may_be_nominated() {
        assert!(
            may_be_nominated(b"Close")
                && may_be_nominated(b"keep-alive")
                && may_be_nominated(b"TE")
        );
        for token in [
            &b"x-auth-user"[..],
            b"content-length",
            b"cookie",
            b"host",
            b"authorization",
            b"",
        ] {
            assert!(!may_be_nominated(token), "{token:?}");
        }
    }
}
