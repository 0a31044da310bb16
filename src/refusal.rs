//! Every way we end a request ourselves.
//!
//! A refusal has two voices: `Display` is for the log and may name servers; [`Refusal::public_words`]
//! is for the client and names nothing of the site.

use crate::ids::{DatabaseName, ServerName};
use crate::mapi::ResponseCode;
use crate::rpch::verbs::RpcError;
use std::sync::Arc;

/// Whose move it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The request is wrong; sending it again changes nothing.
    Client,
    /// A mailbox server failed.
    Server,
    /// The site has no eligible copy, or forbids it; an administrator can change that.
    Site,
    /// We failed or are at a limit of ours.
    Us,
}

impl Blame {
    /// The word used in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Site => "site",
            Self::Us => "us",
        }
    }
}

/// Why a request was ended by us, and what the client is told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    // framing and syntax: the connection closes, because nobody knows where the next request begins
    /// The head is not HTTP/1.1 as we read it.
    #[error("malformed request head: {0}")]
    Malformed(&'static str),
    /// The head is longer than `limits.head`.
    #[error("request head longer than limits.head ({limit} bytes)")]
    HeadTooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The target is longer than any MAPI URL.
    #[error("request target too long")]
    TargetTooLong,
    /// The head was not complete in time.
    #[error("request head incomplete after limits.head_timeout")]
    HeadTimeout,
    /// The body stopped coming.
    #[error("request body stalled")]
    BodyTimeout,
    /// `Expect` asks for something else than `100-continue`.
    #[error("unsupported Expect header")]
    ExpectationFailed,

    // what is asked for
    /// A method this door does not open to.
    #[error("method not allowed on this path")]
    MethodNotAllowed,
    /// The same on a path of Outlook Anywhere, which has methods of its own.
    #[error("neither RPC_IN_DATA nor RPC_OUT_DATA")]
    VerbNotAllowed,
    /// A path this door does not open to.
    #[error("path not served")]
    UnknownPath,
    /// A path that is for clients inside, asked for from outside.
    #[error("{0} is served to clients inside only")]
    InsideOnly(&'static str),
    /// A host name this site does not serve.
    #[error("host not configured under names")]
    UnknownHost,
    /// A request by HTTP/2 for another name than its connection was made for: certificates and what is asked of
    /// clients are a name's own. RFC 9113 section 9.1.2
    #[error("another host than the connection was made for")]
    Misdirected,
    /// A request by HTTP/2 that must come by HTTP/1.1; the client is told so in place of an answer. RFC 9113 section 7
    #[error("to come again by HTTP/1.1: {0}")]
    NeedsHttp11(&'static str),
    /// The body is larger than `limits.body`, or than its directory takes.
    #[error("request body larger than is taken here ({limit} bytes)")]
    BodyTooLarge {
        /// The limit, in bytes.
        limit: u64,
    },
    /// The `MailboxId` in the URL cannot be one.
    #[error("malformed MailboxId")]
    BadMailboxId,

    // who asks
    /// No credentials, or wrong ones; the same answer for all, so that nobody learns which users exist.
    #[error("not authenticated: {0}")]
    Unauthenticated(&'static str),
    /// A token that proves nothing here.
    #[error("token refused: {}", .0.why)]
    TokenRefused(&'static Diagnosis),
    /// No certificate that is good, where nothing else is accepted.
    #[error("client certificate refused: {0}")]
    Certificate(&'static str),
    /// Credentials that were not looked at, because too many others were wrong; told in the same words.
    #[error("not authenticated: {0}")]
    Guarded(&'static str),
    /// Nobody may act for this user towards this server: the KDC says no, or the name cannot be told.
    #[error("not handed on: {0}")]
    NotHandedOn(Arc<str>),
    /// Whoever decides whether we may act for the user cannot be asked.
    #[error("no ticket for the server: {0}")]
    NoTicket(Arc<str>),
    /// The mailbox server that judges passwords says neither yes nor no.
    #[error("password not judged: {0}")]
    Unjudged(&'static str),
    /// The directory lists who may open this mailbox, and this user is not listed.
    #[error("user is not listed for this mailbox")]
    MailboxForbidden,

    // where it lives
    /// The directory service does not answer, and nothing is known from before.
    #[error("directory not available: {0}")]
    DirectoryUnavailable(&'static str),
    /// Nobody of this address is in the directory.
    #[error("mailbox not in the directory")]
    UnknownMailbox,
    /// The session's database moved, or the session is not known: the client connects again.
    #[error("session gone: {0}")]
    SessionGone(&'static str),
    /// The session belongs to another user; told in the same words as a session that is gone.
    #[error("session belongs to another user")]
    ForeignSession,
    /// The first bytes of a channel of Outlook Anywhere begin nothing of its kind.
    #[error("channel does not begin as one: {0}")]
    BadChannel(&'static str),
    /// The virtual connection that a channel belongs to is gone: the client begins a new one.
    #[error("virtual connection gone: {0}")]
    ChannelGone(&'static str),
    /// The virtual connection is another user's, or another mailbox'; told in the same words as one that is gone.
    #[error("virtual connection belongs to another user or mailbox")]
    ForeignChannel,
    /// The mailbox is for clients that ask under another of our names.
    #[error("its server is for clients of another name: {url}")]
    OtherName {
        /// Where it is to ask.
        url: Box<str>,
    },
    /// No copy of the database is eligible.
    #[error("no eligible copy of database {database}: {why}")]
    NoEligibleCopy {
        /// The database.
        database: DatabaseName,
        /// What is wrong with the active copy.
        why: &'static str,
    },
    /// The server that holds the active copy does not speak MAPI over HTTP.
    #[error("server {server} is not capable of MAPI over HTTP")]
    NotCapable {
        /// The server.
        server: ServerName,
    },

    // on the way
    /// The server could not be reached; no byte of the request was written to it.
    #[error("server {server} unreachable: {cause}")]
    ServerUnreachable {
        /// The server.
        server: ServerName,
        /// What the system said.
        cause: String,
    },
    /// The server closed or reset before it answered; the request may have been executed.
    #[error("server {server} failed after {written} request bytes: {cause}")]
    ServerFailed {
        /// The server.
        server: ServerName,
        /// Request bytes handed to the kernel.
        written: u64,
        /// What the system said.
        cause: String,
    },
    /// The server did not answer in time.
    #[error("server {server} silent for too long")]
    ServerSilent {
        /// The server.
        server: ServerName,
    },
    /// The server answered with something that is not HTTP as we read it.
    #[error("server {server} answered nonsense: {what}")]
    ServerNonsense {
        /// The server.
        server: ServerName,
        /// What was wrong.
        what: &'static str,
    },
    /// A limit of ours is reached.
    #[error("too busy: {0}")]
    TooBusy(&'static str),
    /// We are going away.
    #[error("shutting down")]
    ShuttingDown,
}

/// Why a token was refused, for the log and for the client. One of a closed list: a client that brought
/// the token may know what is wrong with it, and nothing of the site is in these words.
#[derive(Debug, PartialEq, Eq)]
pub struct Diagnosis {
    /// For the log.
    pub why: &'static str,
    /// The number that clients of Exchange know this kind of failure by.
    pub number: u32,
    /// A sentence for whoever reads a trace at the client.
    pub words: &'static str,
    /// The word of it.
    pub category: &'static str,
}

impl Refusal {
    /// Every label of [`Self::label`], for metrics that must exist before they happen.
    pub const LABELS: &'static [&'static str] = &[
        "malformed",
        "head_too_large",
        "target_too_long",
        "head_timeout",
        "body_timeout",
        "expectation_failed",
        "method_not_allowed",
        "unknown_path",
        "inside_only",
        "unknown_host",
        "misdirected",
        "needs_http11",
        "body_too_large",
        "bad_mailbox_id",
        "unauthenticated",
        "token_refused",
        "certificate",
        "guarded",
        "not_handed_on",
        "no_ticket",
        "unjudged",
        "mailbox_forbidden",
        "directory_unavailable",
        "unknown_mailbox",
        "session_gone",
        "foreign_session",
        "bad_channel",
        "channel_gone",
        "foreign_channel",
        "other_name",
        "no_eligible_copy",
        "not_capable",
        "server_unreachable",
        "server_failed",
        "server_silent",
        "server_nonsense",
        "too_busy",
        "shutting_down",
    ];

    /// One word of a closed list, for metrics and logs.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::HeadTooLarge { .. } => "head_too_large",
            Self::TargetTooLong => "target_too_long",
            Self::HeadTimeout => "head_timeout",
            Self::BodyTimeout => "body_timeout",
            Self::ExpectationFailed => "expectation_failed",
            Self::MethodNotAllowed | Self::VerbNotAllowed => "method_not_allowed",
            Self::UnknownPath => "unknown_path",
            Self::InsideOnly(_) => "inside_only",
            Self::UnknownHost => "unknown_host",
            Self::Misdirected => "misdirected",
            Self::NeedsHttp11(_) => "needs_http11",
            Self::BodyTooLarge { .. } => "body_too_large",
            Self::BadMailboxId => "bad_mailbox_id",
            Self::Unauthenticated(_) => "unauthenticated",
            Self::TokenRefused(_) => "token_refused",
            Self::Certificate(_) => "certificate",
            Self::Guarded(_) => "guarded",
            Self::NotHandedOn(_) => "not_handed_on",
            Self::NoTicket(_) => "no_ticket",
            Self::Unjudged(_) => "unjudged",
            Self::MailboxForbidden => "mailbox_forbidden",
            Self::DirectoryUnavailable(_) => "directory_unavailable",
            Self::UnknownMailbox => "unknown_mailbox",
            Self::SessionGone(_) => "session_gone",
            Self::ForeignSession => "foreign_session",
            Self::BadChannel(_) => "bad_channel",
            Self::ChannelGone(_) => "channel_gone",
            Self::ForeignChannel => "foreign_channel",
            Self::OtherName { .. } => "other_name",
            Self::NoEligibleCopy { .. } => "no_eligible_copy",
            Self::NotCapable { .. } => "not_capable",
            Self::ServerUnreachable { .. } => "server_unreachable",
            Self::ServerFailed { .. } => "server_failed",
            Self::ServerSilent { .. } => "server_silent",
            Self::ServerNonsense { .. } => "server_nonsense",
            Self::TooBusy(_) => "too_busy",
            Self::ShuttingDown => "shutting_down",
        }
    }

    /// The HTTP status. MAPI keeps 200 for everything its own codes can say. `[MS-OXCMAPIHTTP] 2.2.2.2`
    pub fn status(&self) -> u16 {
        match self {
            Self::Malformed(_) | Self::BadMailboxId => 400,
            Self::HeadTooLarge { .. } => 431,
            Self::TargetTooLong => 414,
            Self::HeadTimeout | Self::BodyTimeout => 408,
            Self::ExpectationFailed => 417,
            Self::MethodNotAllowed | Self::VerbNotAllowed => 405,
            // To whom it is not open it is not there.
            Self::UnknownPath | Self::InsideOnly(_) => 404,
            Self::UnknownHost | Self::Misdirected => 421,
            // Of the numbers the nearest: by HTTP/2 it is said with a code and without a number.
            Self::NeedsHttp11(_) => 505,
            Self::BodyTooLarge { .. } => 413,
            Self::Unauthenticated(_) | Self::TokenRefused(_) | Self::Guarded(_) => 401,
            Self::MailboxForbidden | Self::Certificate(_) | Self::NotHandedOn(_) => 403,
            // The directory's answer is not the client's business before the server's is: same words
            // for a mailbox that does not exist and one that is elsewhere.
            Self::UnknownMailbox => 404,
            // [MS-ASHTTP] 3.1.5.2.2
            Self::OtherName { .. } => 451,
            Self::SessionGone(_) | Self::ForeignSession | Self::NotCapable { .. } => 200,
            Self::ServerFailed { .. } | Self::ServerNonsense { .. } => 502,
            Self::ServerSilent { .. } => 504,
            Self::DirectoryUnavailable(_)
            | Self::Unjudged(_)
            | Self::BadChannel(_)
            | Self::ChannelGone(_)
            | Self::ForeignChannel
            | Self::NoEligibleCopy { .. }
            | Self::ServerUnreachable { .. }
            | Self::NoTicket(_)
            | Self::TooBusy(_)
            | Self::ShuttingDown => 503,
        }
    }

    /// The protocol's own code that goes with it, if the protocol has one. `[MS-OXCMAPIHTTP] 2.2.3.3.3`
    pub fn code(&self) -> Option<ResponseCode> {
        match self {
            Self::SessionGone(_) | Self::ForeignSession => Some(ResponseCode::CONTEXT_NOT_FOUND),
            Self::BodyTooLarge { .. } => Some(ResponseCode::TOO_LARGE),
            Self::MethodNotAllowed => Some(ResponseCode::INVALID_VERB),
            Self::UnknownPath => Some(ResponseCode::INVALID_PATH),
            Self::MailboxForbidden | Self::NotHandedOn(_) => Some(ResponseCode::NO_PRIVILEGE),
            Self::NotCapable { .. } => Some(ResponseCode::ENDPOINT_DISABLED),
            Self::ServerNonsense { .. } => Some(ResponseCode::INVALID_RESPONSE),
            Self::ShuttingDown => Some(ResponseCode::ENDPOINT_SHUTTING_DOWN),
            _ => None,
        }
    }

    /// Whose move it is.
    pub fn blame(&self) -> Blame {
        match self {
            Self::NoEligibleCopy { .. }
            | Self::NotCapable { .. }
            | Self::SessionGone(_)
            | Self::ChannelGone(_)
            | Self::DirectoryUnavailable(_)
            | Self::Unjudged(_)
            | Self::NotHandedOn(_)
            | Self::NoTicket(_) => Blame::Site,
            Self::ServerUnreachable { .. }
            | Self::ServerFailed { .. }
            | Self::ServerSilent { .. }
            | Self::ServerNonsense { .. } => Blame::Server,
            Self::TooBusy(_) | Self::ShuttingDown => Blame::Us,
            _ => Blame::Client,
        }
    }

    /// What a client that brought a token is told beside the challenges.
    pub fn diagnosis(&self) -> Option<&'static Diagnosis> {
        match self {
            Self::TokenRefused(diagnosis) => Some(diagnosis),
            _ => None,
        }
    }

    /// The error in the reason phrase of a 503, as clients of Outlook Anywhere read it. `[MS-RPCH] 2.1.2.1.3`
    pub fn rpc_error(&self) -> RpcError {
        match self {
            Self::BadChannel(_) => RpcError::PROTOCOL_ERROR,
            Self::TooBusy(_) => RpcError::SERVER_TOO_BUSY,
            _ => RpcError::SERVER_UNAVAILABLE,
        }
    }

    /// When to try again, in seconds; only where trying again can help.
    pub fn retry_after_seconds(&self) -> Option<u32> {
        match self {
            Self::NoEligibleCopy { .. }
            | Self::ServerUnreachable { .. }
            | Self::DirectoryUnavailable(_)
            | Self::Unjudged(_)
            | Self::NoTicket(_) => Some(5),
            Self::TooBusy(_) | Self::ShuttingDown => Some(1),
            _ => None,
        }
    }

    /// True where the connection closes: the rest of the request cannot be told from the next one, or the
    /// next one would fare no better here.
    pub fn ends_connection(&self) -> bool {
        matches!(
            self,
            Self::Malformed(_)
                | Self::HeadTooLarge { .. }
                | Self::TargetTooLong
                | Self::HeadTimeout
                | Self::BodyTimeout
                | Self::ExpectationFailed
                | Self::BodyTooLarge { .. }
                | Self::ShuttingDown
                | Self::BadChannel(_)
                | Self::Certificate(_)
        )
    }

    /// What the client reads: a fixed sentence that names nothing of the site.
    pub fn public_words(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "The request is malformed.",
            Self::HeadTooLarge { .. } => "The request headers are too large.",
            Self::TargetTooLong => "The request address is too long.",
            Self::HeadTimeout | Self::BodyTimeout => "The request did not arrive in time.",
            Self::ExpectationFailed => "This expectation is not supported.",
            Self::MethodNotAllowed | Self::VerbNotAllowed => "This method is not allowed here.",
            Self::UnknownPath | Self::InsideOnly(_) => "There is nothing at this address.",
            Self::UnknownHost | Self::Misdirected => "This name is not served here.",
            Self::NeedsHttp11(_) => "This is served by HTTP/1.1.",
            Self::BodyTooLarge { .. } => "The request is too large.",
            Self::BadMailboxId => "The MailboxId in the address is malformed.",
            Self::Unauthenticated(_) | Self::TokenRefused(_) | Self::Guarded(_) => {
                "Authentication is required."
            }
            Self::Certificate(_) => "A valid client certificate is required.",
            Self::MailboxForbidden => "You may not open this mailbox.",
            Self::NotHandedOn(_) => "Your logon cannot be used for the mailbox server.",
            Self::NoTicket(_) => "Your logon cannot be used at the moment.",
            Self::UnknownMailbox => "There is no such mailbox here.",
            Self::SessionGone(_) | Self::ForeignSession => {
                "The session context is not found. Connect again."
            }
            Self::BadChannel(_) => "This is not RPC over HTTP.",
            Self::ChannelGone(_) | Self::ForeignChannel => {
                "The virtual connection is not found. Connect again."
            }
            Self::Unjudged(_) => "Your password cannot be checked at the moment.",
            Self::DirectoryUnavailable(_) => "The directory is not available at the moment.",
            Self::OtherName { .. } => "This mailbox is reached at another address.",
            Self::NoEligibleCopy { .. } => "The mailbox is not available at the moment.",
            Self::NotCapable { .. } => "MAPI over HTTP is disabled for this mailbox.",
            Self::ServerUnreachable { .. } => "The mailbox is not available at the moment.",
            Self::ServerFailed { .. } => "The mailbox server failed. The request was not repeated.",
            Self::ServerSilent { .. } => "The mailbox server did not answer in time.",
            Self::ServerNonsense { .. } => "The mailbox server gave an invalid answer.",
            Self::TooBusy(_) => "The service is busy.",
            Self::ShuttingDown => "The service is restarting.",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_users_session_reads_like_one_that_is_gone() {
        let (foreign, gone) = (Refusal::ForeignSession, Refusal::SessionGone("expired"));
        assert_eq!(foreign.status(), gone.status());
        assert_eq!(foreign.code(), gone.code());
        assert_eq!(foreign.public_words(), gone.public_words());
    }

    #[test]
    fn public_words_name_no_server_and_no_database() {
        let server = ServerName::new("MBX-SECRET");
        let database = DatabaseName::new("DB-SECRET");
        for refusal in [
            Refusal::NoEligibleCopy {
                database,
                why: "down",
            },
            Refusal::NotCapable {
                server: server.clone(),
            },
            Refusal::ServerSilent {
                server: server.clone(),
            },
            Refusal::ServerNonsense { server, what: "x" },
        ] {
            assert!(refusal.to_string().contains("SECRET"));
            assert!(!refusal.public_words().contains("SECRET"));
        }
    }
}
