//! What a simulated server's address book says: everybody who may come in.

use super::Server;
use super::contexts::Visit;
use super::requests::Asked;
use crate::ids::UserName;
use crate::mapi::bodies::nspi::{
    PropertyTags, QueryRowsRequest, QueryRowsSuccess, ResolveNamesRequest, ResolveNamesSuccess,
    Stat, TextRows, UrlRequest, UrlSuccess,
};
use crate::mapi::bodies::{Answer, Body as _, BodyError, Wide, wide};
use crate::mapi::{Endpoint, RequestType};

impl Server {
    pub(super) fn query_rows(&self, asked: &Asked<'_>) -> Result<Vec<u8>, BodyError> {
        let request = QueryRowsRequest::decode(asked.body)?;
        let columns = request.columns.unwrap_or_default();
        let users: Vec<UserName> = self.options.users.names().cloned().collect();
        let wanted = usize::try_from(request.row_count).unwrap_or(usize::MAX);
        let rows: Vec<_> = users
            .iter()
            .take(wanted)
            .map(|user| row_of(user, &columns))
            .collect();
        let total = u32::try_from(users.len()).unwrap_or(u32::MAX);
        Ok(Answer::Success(QueryRowsSuccess {
            error_code: 0,
            state: request.state.map(|state| Stat {
                current_rec: 2,
                num_pos: total,
                total_recs: total,
                ..state
            }),
            rows: Some(TextRows { columns, rows }),
            auxiliary: Vec::new(),
        })
        .encode())
    }

    pub(super) fn resolve_names(&self, asked: &Asked<'_>) -> Result<Vec<u8>, BodyError> {
        let request = ResolveNamesRequest::decode(asked.body)?;
        let columns = request.columns.unwrap_or_default();
        let mut ids = Vec::new();
        let mut rows = Vec::new();
        for name in request.names.unwrap_or_default().0 {
            let name = name.to_string().to_ascii_lowercase();
            let wanted = name.rsplit(':').next().unwrap_or_default();
            let wanted = wanted.trim_start_matches('=');
            match self
                .options
                .users
                .names()
                .find(|user| user.as_str() == wanted || local_and_domain(user).0 == wanted)
            {
                Some(user) => {
                    ids.push(2);
                    rows.push(row_of(user, &columns));
                }
                None => ids.push(0),
            }
        }
        Ok(Answer::Success(ResolveNamesSuccess {
            error_code: 0,
            code_page: 1200,
            minimal_ids: Some(PropertyTags(ids)),
            rows: Some(TextRows { columns, rows }),
            auxiliary: Vec::new(),
        })
        .encode())
    }

    pub(super) fn url(&self, asked: &Asked<'_>, visit: &Visit) -> Result<Vec<u8>, BodyError> {
        UrlRequest::decode(asked.body)?;
        let path = match asked.kind {
            RequestType::GetMailboxUrl => Endpoint::Emsmdb.path(),
            _ => Endpoint::Nspi.path(),
        };
        // Both flavours build it from their own host's name: what the address book says bypasses a front end.
        let url = format!(
            "https://{}{path}?MailboxId={}",
            self.options.host, visit.mailbox
        );
        Ok(Answer::Success(UrlSuccess {
            error_code: 0,
            url: wide(&url),
            auxiliary: Vec::new(),
        })
        .encode())
    }
}

fn row_of(user: &UserName, columns: &PropertyTags) -> Vec<Option<Wide>> {
    const SMTP_ADDRESS: u32 = 0x39fe;
    columns
        .0
        .iter()
        .map(|tag| match tag >> 16 {
            SMTP_ADDRESS => Some(wide(user.as_str())),
            _ => Some(wide(local_and_domain(user).0)),
        })
        .collect()
}

/// `user1` and `contoso.test` of `user1@contoso.test`; of `contoso\user1` likewise.
pub(super) fn local_and_domain(user: &UserName) -> (&str, &str) {
    let name = user.as_str();
    if let Some((domain, local)) = name.split_once('\\') {
        return (local, domain);
    }
    name.split_once('@').unwrap_or((name, ""))
}
