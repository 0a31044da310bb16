//! One connection to the directory that is dialled when it is needed, and dialled anew when it is gone.

use super::Trouble;
use super::client::Client;
use super::dial::Fault;
use crate::metrics::{Counted, LdapPool};
use ldap3::Ldap;
use std::sync::Arc;
use tokio::sync::Mutex;

/// An open connection. Closed when the last clone of its handle is gone.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) ldap: Ldap,
    pub(super) fault: Fault,
    /// Which server it goes to.
    pub(super) server: usize,
    pub(super) _open: Option<Counted>,
}

/// A connection that many share, as searches do.
#[derive(Debug)]
pub(super) struct Line {
    pool: LdapPool,
    /// Held while dialling: whoever comes meanwhile waits for the same connection.
    open: Mutex<Option<Arc<Connection>>>,
}

impl Line {
    pub(super) fn new(pool: LdapPool) -> Self {
        Self {
            pool,
            open: Mutex::new(None),
        }
    }

    /// The connection, and whether it was open before.
    pub(super) async fn take(&self, client: &Client) -> Result<(Arc<Connection>, bool), Trouble> {
        let mut open = self.open.lock().await;
        if let Some(connection) = &*open
            && !connection.ldap.clone().is_closed()
        {
            return Ok((Arc::clone(connection), true));
        }
        *open = None;
        let connection = Arc::new(client.dial(self.pool).await?);
        *open = Some(Arc::clone(&connection));
        Ok((connection, false))
    }

    /// Nobody is to use this connection any more.
    pub(super) async fn lose(&self, connection: &Arc<Connection>) {
        let mut open = self.open.lock().await;
        if open
            .as_ref()
            .is_some_and(|known| Arc::ptr_eq(known, connection))
        {
            *open = None;
        }
    }
}
