//! What can be wrong with a token, in the words of all who ask.
//!
//! The shape, and the kinds that numbers and categories stand for, are those of Exchange's
//! `x-ms-diagnostics`, which Outlook writes into its traces.

use crate::refusal::Diagnosis;

macro_rules! diagnoses {
    ($($name:ident = $why:literal, $number:literal $words:literal $category:literal;)*) => {
        $(pub(super) static $name: Diagnosis = Diagnosis {
            why: $why,
            number: $number,
            words: $words,
            category: $category,
        };)*

        #[cfg(test)]
        pub(super) const ALL: &[&Diagnosis] = &[$(&$name),*];
    };
}

diagnoses! {
    MALFORMED = "not a signed token", 2_000_000 "The token is malformed." "invalid_token";
    TOO_LONG = "longer than 16 KiB", 2_000_000 "The token is too long." "invalid_token";
    CRITICAL = "demands an extension that is not known here", 2_000_000 "The token demands an unknown extension." "invalid_token";
    ALGORITHM = "its algorithm is not one of the issuer's", 2_000_001 "The algorithm of the token is not accepted." "invalid_signature";
    OTHER_KEY = "its key is for another algorithm", 2_000_001 "The algorithm of the token is not accepted." "invalid_signature";
    SIGNATURE = "wrong signature", 2_000_001 "The token has an invalid signature." "invalid_signature";
    EXPIRED = "expired", 2_000_002 "The token has expired." "invalid_lifetime";
    EARLY = "not yet valid", 2_000_002 "The token is not valid yet." "invalid_lifetime";
    NO_EXPIRY = "without an expiry", 2_000_002 "The token has no lifetime." "invalid_lifetime";
    AUDIENCE = "for another audience", 2_000_003 "The audience of the token is not this service." "invalid_resource";
    ISSUER = "of an issuer that is not configured", 2_000_005 "The issuer of the token is not trusted." "invalid_issuer";
    KEY = "signed with a key that its issuer does not have", 2_000_006 "The signing key of the token is not known." "invalid_signature";
    CLIENT = "given to an application that is not among `clients`", 2_000_007 "The application is not allowed to use this service." "invalid_client";
    CLAIM = "without a claim of `required_claims`", 2_000_008 "The token contains not enough scope to make this call." "invalid_grant";
    NO_USER = "without a claim that names a user", 2_000_008 "The token names no user." "invalid_user";
    FOREIGN_USER = "names a user of another domain than the issuer's", 2_000_008 "The token names a user that its issuer does not speak for." "invalid_user";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_clients_can_stand_in_a_quoted_string() {
        for diagnosis in ALL {
            let quotable = |text: &str| {
                text.bytes()
                    .all(|b| (b.is_ascii_graphic() || b == b' ') && b != b'"' && b != b'\\')
            };
            assert!(quotable(diagnosis.words) && diagnosis.words.ends_with('.'));
            assert!(quotable(diagnosis.category) && !diagnosis.category.contains(' '));
        }
    }
}
