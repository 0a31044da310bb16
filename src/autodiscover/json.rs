//! V2 JSON: where another Autodiscover is, told to anybody who asks.
//!
//! Nothing in it depends on the address, so that nobody learns who exists. The query is read strictly:
//! this path, being anonymous and with an address in it, is where front ends were talked into other paths.

/// Bytes of an address. RFC 5321 section 4.5.3.1
const ADDRESS_MAX: usize = 320;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonRequest<'a> {
    /// The address, as written; nothing is decided by it.
    pub address: Option<&'a str>,
    /// The protocol, as written.
    pub protocol: Option<&'a str>,
}

impl<'a> JsonRequest<'a> {
    /// Reads what stands behind the path: `in_path` behind `/v1.0/`, `query` behind the `?`.
    ///
    /// # Errors
    /// An address, a name or a value that could be read as anything else.
    pub fn read(in_path: Option<&'a str>, query: Option<&'a str>) -> Result<Self, &'static str> {
        let mut asked = Self {
            address: in_path,
            protocol: None,
        };
        for pair in query.unwrap_or_default().split('&') {
            if pair.is_empty() {
                continue;
            }
            let (name, value) = pair.split_once('=').ok_or("query without a name")?;
            let slot = if name.eq_ignore_ascii_case("Email") {
                &mut asked.address
            } else if name.eq_ignore_ascii_case("Protocol") {
                &mut asked.protocol
            } else if is_plain(name) && is_plain(value) {
                continue;
            } else {
                return Err("query that is not Autodiscover's");
            };
            if slot.replace(value).is_some() {
                return Err("Email or Protocol twice");
            }
        }
        if !asked.address.is_none_or(is_address) {
            return Err("not an address");
        }
        if !asked.protocol.is_none_or(is_plain) {
            return Err("not a protocol");
        }
        Ok(asked)
    }

    /// The answer's status and body. `host` is the name that was asked.
    pub fn answer(&self, host: &str, services: Services<'_>) -> (u16, String) {
        let Some(protocol) = self.protocol.filter(|protocol| !protocol.is_empty()) else {
            return fault(
                "MandatoryParameterMissing",
                "A valid value must be provided for the query parameter 'Protocol'",
            );
        };
        if self.address.is_none_or(str::is_empty) {
            return fault(
                "MandatoryParameterMissing",
                "A valid smtp address must be provided",
            );
        }
        let is = |known: &str| protocol.eq_ignore_ascii_case(known);
        let found = if is("AutodiscoverV1") {
            Some((
                "AutodiscoverV1",
                format!("https://{host}/autodiscover/autodiscover.xml"),
            ))
        } else if is("Ews") {
            services.ews.map(|url| ("Ews", url.to_owned()))
        } else if is("ActiveSync") {
            services
                .activesync
                .map(|url| ("ActiveSync", url.to_owned()))
        } else {
            None
        };
        match found {
            Some((protocol, url)) => {
                let body = serde_json::json!({ "Protocol": protocol, "Url": url });
                (200, body.to_string())
            }
            // The word is the client's own, and plain letters.
            None => fault(
                "ProtocolNotSupported",
                &format!("The given protocol value '{protocol}' is invalid."),
            ),
        }
    }
}

/// URLs of other services, where the site has told them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Services<'a> {
    /// Exchange Web Services.
    pub ews: Option<&'a str>,
    /// Exchange ActiveSync.
    pub activesync: Option<&'a str>,
}

fn fault(code: &str, message: &str) -> (u16, String) {
    let body = serde_json::json!({ "ErrorCode": code, "ErrorMessage": message });
    (400, body.to_string())
}

fn is_plain(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~'))
}

/// `local@domain` with one `@`, which may be escaped, and letters that mean nothing in a URL.
fn is_address(text: &str) -> bool {
    let parts = text.split_once('@').or_else(|| text.split_once("%40"));
    let is_local = |part: &str| {
        part.bytes().all(|byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'\'')
        })
    };
    text.len() <= ADDRESS_MAX
        && parts.is_some_and(|(local, domain)| {
            !local.is_empty() && !domain.is_empty() && is_local(local) && is_plain(domain)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn asked(query: &str) -> (u16, String) {
        let services = Services {
            ews: Some("https://mail.contoso.test/ews/exchange.asmx"),
            activesync: None,
        };
        let asked = JsonRequest::read(None, Some(query)).unwrap();
        asked.answer("mail.contoso.test", services)
    }

    #[test]
    fn the_answer_is_a_url_and_never_one_of_mapi() {
        assert_eq!(
            asked("Email=user1@contoso.test&Protocol=autodiscoverv1&RedirectCount=1"),
            (200, r#"{"Protocol":"AutodiscoverV1","Url":"https://mail.contoso.test/autodiscover/autodiscover.xml"}"#.to_owned())
        );
        assert_eq!(asked("Email=a%40b&Protocol=Ews").0, 200);
        for (query, code) in [
            ("Email=a@b&Protocol=ActiveSync", "ProtocolNotSupported"),
            ("Email=a@b&Protocol=mapiHttp", "ProtocolNotSupported"),
            ("Email=a@b", "MandatoryParameterMissing"),
            ("Protocol=AutodiscoverV1", "MandatoryParameterMissing"),
            ("", "MandatoryParameterMissing"),
        ] {
            let (status, body) = asked(query);
            assert_eq!(status, 400);
            assert!(body.contains(code), "{query}: {body}");
        }
    }

    #[test]
    fn an_address_that_is_more_than_one_is_refused() {
        for query in [
            "@evil.test/mapi/nspi/?&Email=autodiscover/autodiscover.json%3F@evil.test",
            "a=b@evil.test",
            "Email=a@b@c&Protocol=Ews",
            "Email=a%40b%40c",
            "Email=a/b@c",
            "Email=a@b/mapi/nspi",
            "Email=a@b%2fmapi",
            "Email=a@b?x",
            "Email=a@",
            "Email=@b",
            "Email=a@b&email=c@d",
            "Email=a@b&Protocol=x/y",
            "Email=a@b&X-Rps-CAT=Vg%3d%3d",
            "X-Rps-CAT=@",
            "x",
        ] {
            assert!(JsonRequest::read(None, Some(query)).is_err(), "{query}");
        }
        assert!(JsonRequest::read(Some("a@b/ecp"), None).is_err());
        assert!(JsonRequest::read(Some("a@b"), Some("Email=a@b")).is_err());
        assert!(JsonRequest::read(Some("a@b"), Some("Protocol=Ews")).is_ok());
    }

    proptest! {
        #[test]
        fn an_answer_does_not_depend_on_the_address(one in "[a-z]{1,9}@[a-z]{1,9}", two in "[a-z]{1,9}%40[a-z]{1,9}", protocol in "[A-Za-z0-9]{0,14}") {
            let (one, two) = (format!("Email={one}&Protocol={protocol}"), format!("Protocol={protocol}&Email={two}"));
            prop_assert_eq!(asked(&one), asked(&two));
        }

        #[test]
        fn any_text_is_read_without_a_panic(path in proptest::option::of("\\PC{0,30}"), query in "\\PC{0,60}") {
            let _read = JsonRequest::read(path.as_deref(), Some(&query));
        }
    }
}
