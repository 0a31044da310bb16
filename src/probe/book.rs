//! A session with the address book: opened, asked for the user, closed.

use super::advice;
use super::mailbox::{decoded, open};
use super::report::{Good, Tried, Trouble};
use super::round::Round;
use crate::mapi::bodies::nspi::{
    BindRequest, BindSuccess, Names, PropertyTags, QueryRowsRequest, QueryRowsSuccess,
    ResolveNamesRequest, ResolveNamesSuccess, Stat, UnbindRequest,
};
use crate::mapi::bodies::{Body as _, EndSuccess, wide};
use crate::mapi::{Endpoint, RequestType};

/// PidTagDisplayName and PidTagSmtpAddress, as text.
const COLUMNS: [u32; 2] = [0x3001_001f, 0x39fe_001f];
/// A name that is exactly one entry's. `[MS-OXNSPI] 2.2.1.8`
const RESOLVED: u32 = 2;
/// A name that fits several.
const AMBIGUOUS: u32 = 1;

impl Round<'_> {
    pub(super) async fn bind(&mut self) -> Tried {
        let mut talk = self.talk(Endpoint::Nspi)?;
        let request = BindRequest {
            state: Some(Stat::start()),
            ..BindRequest::default()
        };
        let bound: BindSuccess = talk
            .ask_for(&mut self.caller, RequestType::Bind, request.encode())
            .await?;
        if bound.error_code != 0 {
            return Err(advice::mapi_error(
                "Bind with ErrorCode 0",
                bound.error_code,
            ));
        }
        let cookies = talk.cookies()?;
        self.book = Some(talk);
        Ok(Good::ok(format!("a session; cookies {cookies}")))
    }

    pub(super) async fn resolve(&mut self) -> Tried {
        let address = self.probe.address.clone();
        let request = ResolveNamesRequest {
            state: Some(Stat::start()),
            columns: Some(PropertyTags(COLUMNS.to_vec())),
            names: Some(Names(vec![wide(&format!("=SMTP:{address}"))])),
            ..ResolveNamesRequest::default()
        };
        let talk = open(&mut self.book)?;
        let found: ResolveNamesSuccess = talk
            .ask_for(
                &mut self.caller,
                RequestType::ResolveNames,
                request.encode(),
            )
            .await?;
        if found.error_code != 0 {
            return Err(advice::mapi_error(
                "ResolveNames with ErrorCode 0",
                found.error_code,
            ));
        }
        let id = found.minimal_ids.and_then(|ids| ids.0.first().copied());
        match id {
            Some(RESOLVED) => Ok(Good::ok(format!("{address} is in the address book"))),
            Some(AMBIGUOUS) => Err(Trouble::new(
                format!("one entry for {address}"),
                "several",
                "see which entries of the address book have this address, and let one keep it",
            )),
            _ => Err(Trouble::new(
                format!("an entry for {address}"),
                "none",
                "see whether the mailbox is hidden from the address book, or has another address",
            )),
        }
    }

    pub(super) async fn rows(&mut self) -> Tried {
        let request = QueryRowsRequest {
            state: Some(Stat::start()),
            row_count: 1,
            columns: Some(PropertyTags(COLUMNS.to_vec())),
            ..QueryRowsRequest::default()
        };
        let talk = open(&mut self.book)?;
        let kind = RequestType::QueryRows;
        let body = talk.ask(&mut self.caller, kind, request.encode()).await?;
        // A row may hold what is no text, which our reader of rows does not read: that it came is enough.
        let Ok(read) = decoded::<QueryRowsSuccess>(kind, &body) else {
            return Ok(Good::ok(format!("rows of {} bytes", body.len())));
        };
        match read.error_code {
            0 => Ok(Good::ok(match read.rows.map(|rows| rows.rows.len()) {
                Some(1..) => "the first row of the address book",
                _ => "an address book without rows",
            })),
            code => Err(advice::mapi_error("QueryRows with ErrorCode 0", code)),
        }
    }

    pub(super) async fn unbind(&mut self) -> Tried {
        let talk = open(&mut self.book)?;
        let request = UnbindRequest::default().encode();
        let ended: EndSuccess = talk
            .ask_for(&mut self.caller, RequestType::Unbind, request)
            .await?;
        self.book = None;
        match ended.error_code {
            // The address book calls success 1. [MS-OXCMAPIHTTP] 2.2.5.2.2
            0 | 1 => Ok(Good::ok("the session is closed")),
            code => Err(advice::mapi_error("Unbind with ErrorCode 1", code)),
        }
    }
}
