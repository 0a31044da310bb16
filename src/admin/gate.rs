//! What may be asked at the administrator's door, and from where.
//!
//! A page in an administrator's browser must not speak to us: the host must be an address or
//! `localhost`, which no page's own name can be, and what changes something or is costly must not come
//! from another site.

use http::header::{CONTENT_LENGTH, HOST, ORIGIN, TRANSFER_ENCODING};
use http::{HeaderMap, Method};
use std::net::{IpAddr, SocketAddr};

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// The page for people.
    Page,
    /// The text for Prometheus.
    Metrics,
    /// Is the process alive?
    Live,
    /// Should it be given requests?
    Ready,
    /// The page's figures for programs.
    Status,
    /// Who used how much.
    Usage,
    /// What came of the probes.
    Probes,
    /// What would become of somebody's request, and why.
    Explain,
    /// Read the configuration again.
    Reload,
    /// Stop taking requests and leave when idle.
    Drain,
    /// Forget verified credentials.
    Revoke,
}

/// Why it is not answered: a status, what is allowed where that is the matter, and a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Denied {
    pub(super) status: u16,
    pub(super) allow: Option<&'static str>,
    pub(super) words: &'static str,
}

/// Reads what is asked, or says why it is not answered.
pub(super) fn read(method: &Method, path: &str, headers: &HeaderMap) -> Result<Ask, Denied> {
    if !host_is_an_address(headers) {
        return Err(denied(403, "ask by address or as localhost, not by a name"));
    }
    let (ask, changes) = match path {
        "/" => (Ask::Page, false),
        "/metrics" => (Ask::Metrics, false),
        "/live" => (Ask::Live, false),
        "/ready" => (Ask::Ready, false),
        "/status.json" => (Ask::Status, false),
        "/usage.json" => (Ask::Usage, false),
        "/probes.json" => (Ask::Probes, false),
        "/explain" => (Ask::Explain, false),
        "/reload" => (Ask::Reload, true),
        "/drain" => (Ask::Drain, true),
        "/revoke" => (Ask::Revoke, true),
        _ => return Err(denied(404, "there is nothing at this address")),
    };
    match (changes, method) {
        // It searches every name, and a directory service is asked for it.
        (false, &Method::GET | &Method::HEAD)
            if ask == Ask::Explain && comes_from_elsewhere(headers) =>
        {
            Err(denied(403, "not from another site's page"))
        }
        (false, &Method::GET | &Method::HEAD) => Ok(ask),
        (true, &Method::POST) if comes_from_elsewhere(headers) => {
            Err(denied(403, "not from another site's page"))
        }
        (true, &Method::POST) if has_body(headers) => Err(denied(
            400,
            "what is asked stands in the query, not in a body",
        )),
        (true, &Method::POST) => Ok(ask),
        (changes, _) => Err(Denied {
            status: 405,
            allow: Some(if changes { "POST" } else { "GET, HEAD" }),
            words: "this method is not allowed here",
        }),
    }
}

fn denied(status: u16, words: &'static str) -> Denied {
    Denied {
        status,
        allow: None,
        words,
    }
}

fn host_is_an_address(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return false;
    };
    host.to_str().is_ok_and(|host| {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
            _ => host,
        };
        name.eq_ignore_ascii_case("localhost")
            || host.parse::<SocketAddr>().is_ok()
            || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
            || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
    })
}

/// True where a browser says that another site's page asks. Programs say nothing of the kind.
fn comes_from_elsewhere(headers: &HeaderMap) -> bool {
    let same_origin = |origin: &[u8]| {
        let host = headers.get(HOST).map(|host| host.as_bytes());
        origin.strip_prefix(b"http://") == host && host.is_some()
    };
    let by_origin = headers
        .get_all(ORIGIN)
        .iter()
        .any(|origin| !same_origin(origin.as_bytes()));
    let by_fetch = headers
        .get_all("sec-fetch-site")
        .iter()
        .any(|site| !matches!(site.as_bytes(), b"same-origin" | b"none"));
    by_origin || by_fetch
}

/// True where something is sent that nobody reads: perhaps the one user whom a form names.
fn has_body(headers: &HeaderMap) -> bool {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    headers.contains_key(TRANSFER_ENCODING) || lengths.any(|length| length != "0")
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn get(host: &str) -> Result<Ask, Denied> {
        read(&Method::GET, "/metrics", &headers(&[("host", host)]))
    }

    fn post(lines: &[(&'static str, &str)]) -> Result<Ask, Denied> {
        read(&Method::POST, "/reload", &headers(lines))
    }

    #[test]
    fn addresses_and_localhost_may_ask() {
        for host in [
            "127.0.0.1:9080",
            "127.0.0.1",
            "[::1]:9080",
            "[::1]",
            "localhost:9080",
            "LOCALHOST",
        ] {
            assert_eq!(get(host), Ok(Ask::Metrics), "{host}");
        }
    }

    #[test]
    fn a_name_that_anybody_may_point_at_us_may_not_ask() {
        for host in [
            "attacker.test",
            "attacker.test:9080",
            "127.0.0.1.attacker.test",
            "localhost.attacker.test",
            "",
            "localhost:80@x",
        ] {
            assert_eq!(get(host).unwrap_err().status, 403, "{host}");
        }
        assert_eq!(
            read(&Method::GET, "/", &HeaderMap::new())
                .unwrap_err()
                .status,
            403
        );
        let two = headers(&[("host", "localhost"), ("host", "attacker.test")]);
        assert_eq!(read(&Method::GET, "/", &two).unwrap_err().status, 403);
    }

    #[test]
    fn only_the_listed_paths_and_methods_are_answered() {
        let local = headers(&[("host", "localhost")]);
        for (method, path, status) in [
            (Method::GET, "/mapi/emsmdb/", 404),
            (Method::GET, "/metrics/", 404),
            (Method::POST, "/metrics", 405),
            (Method::GET, "/reload", 405),
            (Method::DELETE, "/", 405),
            (Method::OPTIONS, "/reload", 405),
        ] {
            assert_eq!(
                read(&method, path, &local).unwrap_err().status,
                status,
                "{method} {path}"
            );
        }
        assert_eq!(read(&Method::HEAD, "/live", &local), Ok(Ask::Live));
    }

    #[test]
    fn another_sites_page_changes_nothing() {
        let host = ("host", "127.0.0.1:9080");
        assert!(post(&[host]).is_ok());
        assert!(post(&[host, ("origin", "http://127.0.0.1:9080")]).is_ok());
        for wrong in [
            "https://attacker.test",
            "null",
            "http://127.0.0.1:9081",
            "http://127.0.0.1:9080.attacker.test",
        ] {
            assert_eq!(
                post(&[host, ("origin", wrong)]).unwrap_err().status,
                403,
                "{wrong}"
            );
        }
        assert_eq!(
            post(&[host, ("sec-fetch-site", "cross-site")])
                .unwrap_err()
                .status,
            403
        );
        assert!(post(&[host, ("sec-fetch-site", "same-origin")]).is_ok());
    }
}
