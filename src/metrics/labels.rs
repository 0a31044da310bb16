//! The closed lists that labels come from.

/// A word of a closed list.
pub trait Label: Copy + 'static {
    /// Every word, in the order of their indices.
    const ALL: &'static [Self];

    /// The word as metrics and logs write it.
    fn as_str(self) -> &'static str;

    /// Position in [`Self::ALL`].
    fn index(self) -> usize;
}

macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// The word as metrics and logs write it.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }

        impl Label for $name {
            const ALL: &'static [Self] = &[$(Self::$variant,)*];

            fn as_str(self) -> &'static str {
                self.as_str()
            }

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

label! {
    /// How a request ended; also the access log's `ending`.
    Outcome {
        /// The server answered 200 with code 0; outside of MAPI, with a status below 400.
        Ok = "ok",
        /// The server answered 200 with another code.
        Code = "code",
        /// The server answered with another HTTP status.
        Status = "status",
        /// We answered in the server's place, and it was no refusal.
        Local = "local",
        /// We ended a held poll in-band.
        Ended = "ended",
        /// We refused it.
        Refused = "refused",
        /// The server's answer broke off.
        Cut = "cut",
        /// The client left before the end.
        Aborted = "aborted",
    }
}

label! {
    /// What a client that looked for its mailbox was told.
    Told {
        /// MAPI over HTTP.
        MapiHttp = "mapi_http",
        /// Outlook Anywhere.
        OutlookAnywhere = "outlook_anywhere",
        /// RPC over TCP alone.
        Rpc = "rpc",
        /// Settings without a way to connect.
        Nothing = "nothing",
        /// Where another Autodiscover is.
        Elsewhere = "elsewhere",
        /// That there is no such address, or that it is not this user's business.
        NotFound = "not_found",
        /// That the request is none.
        Fault = "fault",
    }
}

label! {
    /// Why a request went to another connection.
    RetryReason {
        /// A kept connection turned out to be closed by the server.
        StaleConnection = "stale_connection",
        /// The server could not be reached.
        ConnectFailed = "connect_failed",
    }
}

label! {
    /// How a held poll ended.
    PollEnd {
        /// The server answered: something happened, or its own time was up.
        Answered = "answered",
        /// The database moved and we ended it.
        Moved = "moved",
        /// The server broke off.
        ServerLost = "server_lost",
        /// The server was silent for too many pending periods.
        Silent = "silent",
        /// It reached `limits.notification_wait`.
        Limit = "limit",
        /// We are going away.
        Drain = "drain",
        /// The client left.
        ClientLeft = "client_left",
    }
}

label! {
    /// How a channel of Outlook Anywhere ended.
    ChannelEnd {
        /// The client closed it: it was replaced, or nobody needs it any more.
        ClientLeft = "client_left",
        /// The server's answer was complete: mostly a refusal.
        Answered = "answered",
        /// The server closed it: it was replaced, or its virtual connection ended.
        ServerClosed = "server_closed",
        /// The server broke off, or is down.
        ServerLost = "server_lost",
        /// Nothing was heard on it for too long.
        Silent = "silent",
        /// No channel of the other direction came.
        NoPartner = "no_partner",
        /// The database moved and we ended it.
        Moved = "moved",
        /// Whoever opened it would not be let in any more.
        Revoked = "revoked",
        /// We are going away.
        Drain = "drain",
    }
}

label! {
    /// How a request proved who asks.
    AuthOutcome {
        /// The connection or the cache remembered the credentials.
        Remembered = "remembered",
        /// The password was verified.
        Verified = "verified",
        /// Wrong or malformed credentials.
        Denied = "denied",
        /// No credentials: the client asks for the challenges.
        Challenged = "challenged",
        /// Too many verifications under way.
        Busy = "busy",
        /// Not looked at, because too many others were wrong.
        Guarded = "guarded",
        /// Only the mailbox server can judge it.
        Passed = "passed",
    }
}

label! {
    /// How asking for a ticket in a user's name ended.
    TicketOutcome {
        /// There is one.
        Made = "made",
        /// The KDC refused it.
        Refused = "refused",
        /// The KDC could not be asked, or our own account is no good.
        Unavailable = "unavailable",
    }
}

label! {
    /// How a TLS handshake with a client ended.
    HandshakeOutcome {
        /// It finished.
        Ok = "ok",
        /// One side did not accept the other.
        Failed = "failed",
        /// The client's certificate was not accepted, or it showed none where one is required.
        Certificate = "certificate",
        /// It took longer than `tls.handshake_timeout`.
        Timeout = "timeout",
        /// The same, and it had to wait for a place: `tls.handshakes_max`, `tls.handshakes_per_address`.
        Crowded = "crowded",
    }
}

label! {
    /// How an attempt to reach a mailbox server ended.
    ConnectOutcome {
        /// Connected, TLS included.
        Ok = "ok",
        /// Refused or unreachable.
        Refused = "refused",
        /// Longer than `limits.connect_timeout`.
        Timeout = "timeout",
        /// The server's certificate or protocol was not accepted.
        Tls = "tls",
    }
}

label! {
    /// How a reload ended.
    ReloadEnd {
        /// The new configuration is in force.
        Accepted = "accepted",
        /// The configuration is wrong; the old one stays in force.
        Rejected = "rejected",
    }
}

label! {
    /// A conversation with the directory service.
    LdapOperation {
        /// A connection, TLS and our own logon included.
        Connect = "connect",
        /// Somebody is looked up.
        Search = "search",
        /// A password is tried.
        Bind = "bind",
        /// A look for changes.
        Changes = "changes",
    }
}

label! {
    /// How a conversation with the directory service ended.
    LdapOutcome {
        /// It answered.
        Ok = "ok",
        /// It said no: a wrong password, or something we may not do.
        Refused = "refused",
        /// The connection failed, or the answer made no sense.
        Failed = "failed",
        /// It did not answer in time.
        Timeout = "timeout",
    }
}

label! {
    /// What came of a look at what is remembered of the directory service.
    DirectoryLook {
        /// It was remembered.
        Remembered = "remembered",
        /// It was remembered that there is nobody.
        Absent = "absent",
        /// The directory was asked.
        Asked = "asked",
        /// Somebody else was asking already.
        Joined = "joined",
        /// The directory did not answer, and what was known before was believed.
        Stale = "stale",
        /// The directory did not answer, and nothing was known.
        Failed = "failed",
    }
}

label! {
    /// Why a stream or a connection of HTTP/2 was broken off. RFC 9113 section 7
    Http2Code {
        /// Nothing is wrong: the rest of the request is not wanted, or the connection ends.
        NoError = "no_error",
        /// What was sent is not HTTP/2, or a request that is none.
        ProtocolError = "protocol_error",
        /// An answer that broke off.
        InternalError = "internal_error",
        /// More was sent than the window allowed.
        FlowControlError = "flow_control_error",
        /// Settings were not acknowledged.
        SettingsTimeout = "settings_timeout",
        /// A frame behind the end of its stream.
        StreamClosed = "stream_closed",
        /// A frame of a wrong size.
        FrameSizeError = "frame_size_error",
        /// Not looked at: too many are under way.
        RefusedStream = "refused_stream",
        /// Not wanted any more.
        Cancel = "cancel",
        /// A head that cannot be unpacked.
        CompressionError = "compression_error",
        /// A tunnel that broke.
        ConnectError = "connect_error",
        /// Too much that asks for nothing.
        EnhanceYourCalm = "enhance_your_calm",
        /// TLS that is not good enough.
        InadequateSecurity = "inadequate_security",
        /// To come again by HTTP/1.1.
        Http11Required = "http_1_1_required",
        /// A number without a name.
        Other = "other",
    }
}

impl Http2Code {
    /// The code of this number.
    pub fn of(number: u32) -> Self {
        let named = usize::try_from(number).ok();
        let named = named.and_then(|number| Self::ALL.get(number).copied());
        named.unwrap_or(Self::Other)
    }
}

/// Which side did it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client.
    Client,
    /// We.
    Us,
}

impl Side {
    pub(super) const ALL: [Self; 2] = [Self::Client, Self::Us];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Us => "us",
        }
    }
}
