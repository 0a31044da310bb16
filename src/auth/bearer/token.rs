//! Reads a token without believing it: enough to know whose keys to ask.

use super::diagnosis as wrong;
use crate::refusal::Diagnosis;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::borrow::Cow;
use std::fmt;
use zeroize::Zeroizing;

/// A signed token in its compact form, as somebody sent it. RFC 7515 7.1
pub(super) struct Token {
    text: Zeroizing<Vec<u8>>,
    /// The algorithm it says it is signed with.
    pub(super) algorithm: String,
    /// The name of the key, where it says one.
    pub(super) key: Option<String>,
    /// The issuer it says it is of.
    pub(super) issuer: String,
}

/// Keys of a header that matter. Those that would bring a key of the token's own (`jwk`, `jku`, `x5u`,
/// `x5c`) are not read at all. RFC 7515 4.1
#[derive(Deserialize)]
struct Header<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    #[serde(borrow)]
    kid: Option<Cow<'a, str>>,
    crit: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Issuer<'a> {
    #[serde(borrow)]
    iss: Cow<'a, str>,
}

impl Token {
    /// Reads what stands behind the scheme word. Proves nothing. Some microseconds for a token of usual
    /// length.
    pub(super) fn read(text: &[u8]) -> Result<Self, &'static Diagnosis> {
        if text.len() > TOKEN_BYTES_MAX {
            return Err(&wrong::TOO_LONG);
        }
        let mut parts = text.split(|byte| *byte == b'.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(&wrong::MALFORMED);
        };
        let is_base64url = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
        if !signature.iter().all(is_base64url) {
            return Err(&wrong::MALFORMED);
        }
        let header = decoded(header)?;
        let header: Header<'_> =
            serde_json::from_slice(&header).map_err(|_not_a_header| &wrong::MALFORMED)?;
        // What it demands is not known here, whatever it is. RFC 7515 4.1.11
        if header.crit.is_some() {
            return Err(&wrong::CRITICAL);
        }
        let payload = decoded(payload)?;
        let Issuer { iss } =
            serde_json::from_slice(&payload).map_err(|_no_issuer| &wrong::MALFORMED)?;
        Ok(Self {
            text: Zeroizing::new(text.to_vec()),
            algorithm: header.alg.into_owned(),
            key: header.kid.map(Cow::into_owned),
            issuer: iss.into_owned(),
        })
    }

    /// The token itself, for whoever verifies it.
    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

fn decoded(part: &[u8]) -> Result<Zeroizing<Vec<u8>>, &'static Diagnosis> {
    let mut clear = Zeroizing::new(Vec::with_capacity(base64::decoded_len_estimate(part.len())));
    URL_SAFE_NO_PAD
        .decode_vec(part, &mut clear)
        .map_err(|_not_base64| &wrong::MALFORMED)?;
    Ok(clear)
}

/// The longest token that is looked at, in bytes. Those of Entra ID and AD FS stay below 10 KiB.
pub(super) const TOKEN_BYTES_MAX: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn compact(header: &str, payload: &str) -> String {
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.c2ln", encode(header), encode(payload))
    }

    fn read(header: &str, payload: &str) -> Result<Token, &'static Diagnosis> {
        Token::read(compact(header, payload).as_bytes())
    }

    #[test]
    fn a_token_says_whose_it_is() {
        let token = read(
            r#"{"alg":"RS256","kid":"key \u0031","typ":"JWT","jku":"https://evil.test/"}"#,
            r#"{"iss":"https:\/\/id.contoso.test","aud":["a"],"exp":1}"#,
        )
        .unwrap();

        assert_eq!(token.algorithm, "RS256");
        assert_eq!(token.key.as_deref(), Some("key 1"));
        assert_eq!(token.issuer, "https://id.contoso.test");
        assert_eq!(format!("{token:?}"), "Token(…)");
    }

    #[test]
    fn what_is_no_signed_token_is_malformed() {
        let claims = r#"{"iss":"i"}"#;
        for (header, payload) in [
            ("", claims),
            ("[]", claims),
            ("{}", claims),
            (r#"{"alg":1}"#, claims),
            (r#"{"alg":"RS256","alg":"none"}"#, claims),
            (r#"{"alg":"RS256"}{}"#, claims),
            (r#"{"alg":"RS256"}"#, "{}"),
            (r#"{"alg":"RS256"}"#, r#"{"iss":["i"]}"#),
            (r#"{"alg":"RS256"}"#, r#"{"iss":"i","iss":"j"}"#),
            (r#"{"alg":"RS256"}"#, "null"),
        ] {
            assert_eq!(
                read(header, payload).unwrap_err(),
                &wrong::MALFORMED,
                "{header} {payload}"
            );
        }
        let whole = compact(r#"{"alg":"RS256"}"#, claims);
        for text in [
            String::new(),
            ".".to_owned(),
            "...".to_owned(),
            format!("{whole}."),
            format!("{whole}.x.y"),
            format!("{whole}="),
            format!(" {whole}"),
            whole.replace('.', ","),
        ] {
            assert!(Token::read(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn an_extension_that_must_be_understood_is_refused() {
        let refused = read(
            r#"{"alg":"RS256","crit":["b64"],"b64":false}"#,
            r#"{"iss":"i"}"#,
        );
        assert_eq!(refused.unwrap_err(), &wrong::CRITICAL);
    }

    #[test]
    fn deep_nesting_is_malformed_and_not_a_deep_stack() {
        let deep = format!(r#"{{"iss":"i","x":{}}}"#, "[".repeat(6000));
        assert_eq!(
            read(r#"{"alg":"RS256"}"#, &deep).unwrap_err(),
            &wrong::MALFORMED
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_token_or_a_diagnosis(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = Token::read(&bytes);
        }

        #[test]
        fn any_json_in_three_parts_is_a_token_or_a_diagnosis(header in "\\PC{0,60}", payload in "\\PC{0,60}") {
            let _ = read(&header, &payload);
            let _ = read(&format!(r#"{{"alg":{header:?}}}"#), &format!(r#"{{"iss":{payload:?}}}"#));
        }

        #[test]
        fn a_token_reads_back_as_it_was_written(issuer in "[ -~]{0,40}", key in "[ -~]{0,40}") {
            let header = serde_json::json!({ "alg": "ES256", "kid": key }).to_string();
            let payload = serde_json::json!({ "aud": 1, "iss": issuer }).to_string();
            let token = read(&header, &payload).unwrap();
            prop_assert_eq!(token.issuer, issuer);
            prop_assert_eq!(token.key, Some(key));
        }
    }
}
