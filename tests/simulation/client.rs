//! An Outlook: it connects, works, waits, loses its cookies, and now and then shows somebody else's.

use crate::front::{Asked, Reply};
use mapigate::ids::{MailboxId, UserName};
use mapigate::mapi::RequestType;

#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) user: UserName,
    pub(crate) mailbox: MailboxId,
    /// The context it works in.
    pub(crate) context: Option<String>,
    /// The context it lost; shown once more with the next `Connect`. `[MS-OXCMAPIHTTP] 3.2.5.6`
    pub(crate) stale: Option<String>,
    pub(crate) route: Option<String>,
    pub(crate) has_worked: bool,
}

impl Client {
    pub(crate) fn new(number: usize) -> Self {
        Self {
            user: UserName::new(format!("user{number}@contoso.test")),
            mailbox: MailboxId::new(format!("{number:04}@contoso.test")),
            context: None,
            stale: None,
            route: None,
            has_worked: false,
        }
    }

    pub(crate) fn asks(&self, kind: RequestType, nonce: u64) -> Asked {
        let old = self.stale.as_ref().filter(|_| kind.opens_session());
        Asked {
            kind,
            user: self.user.clone(),
            mailbox: self.mailbox.clone(),
            context: self.context.as_ref().or(old).cloned(),
            route: self.route.clone(),
            nonce,
        }
    }

    pub(crate) fn lose_cookies(&mut self) {
        (self.context, self.stale, self.route) = (None, None, None);
    }

    /// Does what the protocol says upon a reply.
    pub(crate) fn take(&mut self, kind: RequestType, reply: &Reply) {
        match reply {
            Reply::Success { context, route, .. } if kind.opens_session() => {
                self.context.clone_from(context);
                self.route.clone_from(route);
                self.stale = None;
            }
            Reply::Success { .. } if kind.closes_session() => self.lose_cookies(),
            Reply::Success { .. } => self.has_worked |= kind == RequestType::Execute,
            Reply::Gone | Reply::MissingCookie => {
                self.stale = self.context.take().or(self.stale.take());
            }
            // Reading the answer to a Connect failed: it begins anew, with what it had.
            Reply::Failed if kind.opens_session() => {
                self.stale = self.context.take().or(self.stale.take());
            }
            Reply::Unavailable | Reply::Failed => {}
        }
    }
}
