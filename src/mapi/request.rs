//! What a MAPI request asks for: its endpoint and its type.

/// Which of the two MAPI endpoints a request is for. `[MS-OXCMAPIHTTP] 2.2.2`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Endpoint {
    /// `/mapi/emsmdb`: the mailbox.
    Emsmdb,
    /// `/mapi/nspi`: the address book.
    Nspi,
}

impl Endpoint {
    /// Both, in the order of their indices.
    pub const ALL: [Self; 2] = [Self::Emsmdb, Self::Nspi];

    /// The word used in logs, metrics and cookies.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Emsmdb => "emsmdb",
            Self::Nspi => "nspi",
        }
    }

    /// The one spelling of its path that we send to a server.
    pub fn path(self) -> &'static str {
        match self {
            Self::Emsmdb => "/mapi/emsmdb/",
            Self::Nspi => "/mapi/nspi/",
        }
    }

    /// Position in [`Self::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }
}

macro_rules! request_types {
    ($($variant:ident = $word:literal),* $(,)?) => {
        /// The closed list of request types, by `X-RequestType`. `[MS-OXCMAPIHTTP] 2.2.3.3.1`
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum RequestType {
            $(#[doc = concat!("`", $word, "`")] $variant,)*
            /// A word the specification does not know; the server answers it.
            Other,
            /// No `X-RequestType` header at all; the server answers it.
            Missing,
        }

        impl RequestType {
            /// Every type, in the order of their indices.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)* Self::Other, Self::Missing];

            /// The protocol's spelling; `other` and `missing` for the two that have none.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                    Self::Other => "other",
                    Self::Missing => "missing",
                }
            }

            /// Reads the header's value. Servers compare without regard to case, and so do we.
            pub fn read(value: &[u8]) -> Self {
                $(if value.eq_ignore_ascii_case($word.as_bytes()) { return Self::$variant; })*
                Self::Other
            }
        }
    };
}

// The hot ones first: `read` compares in this order, and a length mismatch costs nothing.
request_types! {
    Execute = "Execute",
    NotificationWait = "NotificationWait",
    Connect = "Connect",
    Disconnect = "Disconnect",
    Ping = "PING",
    Bind = "Bind",
    Unbind = "Unbind",
    CompareMIds = "CompareMIds",
    DnToMId = "DNToMId",
    GetMatches = "GetMatches",
    GetPropList = "GetPropList",
    GetProps = "GetProps",
    GetSpecialTable = "GetSpecialTable",
    GetTemplateInfo = "GetTemplateInfo",
    ModLinkAtt = "ModLinkAtt",
    ModProps = "ModProps",
    QueryColumns = "QueryColumns",
    QueryRows = "QueryRows",
    ResolveNames = "ResolveNames",
    ResortRestriction = "ResortRestriction",
    SeekEntries = "SeekEntries",
    UpdateStat = "UpdateStat",
    GetMailboxUrl = "GetMailboxUrl",
    GetAddressBookUrl = "GetAddressBookUrl",
}

impl RequestType {
    /// The protocol's spelling, to be written into an `X-RequestType`; `None` for the two that have none.
    pub fn spelling(self) -> Option<&'static str> {
        match self {
            Self::Other | Self::Missing => None,
            known => Some(known.as_str()),
        }
    }

    /// Position in [`Self::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// Creates a session context; a context cookie it carries names one to be destroyed.
    /// `[MS-OXCMAPIHTTP] 3.2.5.6`
    pub fn opens_session(self) -> bool {
        matches!(self, Self::Connect | Self::Bind)
    }

    /// Ends a session context.
    pub fn closes_session(self) -> bool {
        matches!(self, Self::Disconnect | Self::Unbind)
    }

    /// Its answer is a URL, under which the server knows itself. `[MS-OXCMAPIHTTP] 2.2.5.18, 2.2.5.19`
    pub fn names_a_url(self) -> bool {
        matches!(self, Self::GetMailboxUrl | Self::GetAddressBookUrl)
    }

    /// Held open by the server until something happens. `[MS-OXCMAPIHTTP] 3.1.5.5`
    pub fn is_held(self) -> bool {
        self == Self::NotificationWait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_reads_back_in_any_case() {
        for kind in RequestType::ALL.iter().copied() {
            if matches!(kind, RequestType::Other | RequestType::Missing) {
                continue;
            }
            assert_eq!(RequestType::read(kind.as_str().as_bytes()), kind);
            assert_eq!(
                RequestType::read(kind.as_str().to_uppercase().as_bytes()),
                kind
            );
        }
    }

    #[test]
    fn an_unknown_word_is_other_and_not_a_neighbour() {
        for word in [&b"Exec"[..], b"Executee", b"", b"Connect ", b"\xff"] {
            assert_eq!(RequestType::read(word), RequestType::Other);
        }
    }

    #[test]
    fn index_is_the_position_in_all() {
        for (position, kind) in RequestType::ALL.iter().enumerate() {
            assert_eq!(kind.index(), position);
        }
    }
}
