//! One client, whichever protocol it speaks, doing the same work.

use super::kinds::Said;
use super::work::Work;
use super::{mapi, rpc};
use crate::lab::outlook::wire::Target;
use crate::lab::outlook::{self, Outlook};
use crate::lab::rpc_http::client;
use crate::lab::rpc_http::{RpcOutlook, RpcServer};
use crate::lab::site::{HOST, PASSWORD, Site, mailbox, user};
use crate::lab::tap::{Talk, Tap};
use crate::mapi::bodies::{ExecuteRequest, ExecuteSuccess};
use crate::rpch::pdu::Seal;
use anyhow::{Context as _, Result, ensure};
use rustls::ClientConfig;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// Which protocol, and what stands behind its fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// MAPI over HTTP.
    Mapi,
    /// RPC over HTTP with nothing inside but the calls.
    Rpc,
    /// RPC over HTTP with an inner authentication that seals each fragment.
    RpcSealed,
}

/// Where a client of a protocol goes.
#[derive(Clone, Debug)]
pub(super) struct Door {
    pub(super) protocol: Protocol,
    pub(super) address: SocketAddr,
    /// Each leg has its own, so that sessions of TLS are resumed where they began.
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) tap: Option<Tap>,
    pub(super) headers: Vec<(String, String)>,
}

/// A client with an open session.
#[derive(Debug)]
pub(super) enum Client {
    Mapi(Outlook),
    Rpc(Arc<RpcOutlook>),
}

impl Door {
    /// A door with a TLS of its own.
    pub(super) fn new(site: &Site, protocol: Protocol, address: SocketAddr) -> Result<Self> {
        Ok(Self {
            protocol,
            address,
            tls: Some(site.authority().client_config()?),
            tap: None,
            headers: Vec::new(),
        })
    }

    /// Somebody hears what is said inside of TLS.
    pub(super) fn tapped(mut self) -> (Self, Tap) {
        let tap = Tap::default();
        self.tap = Some(tap.clone());
        (self, tap)
    }

    fn target(&self) -> Target {
        Target {
            address: self.address,
            host: HOST.to_owned(),
            tls: self.tls.clone(),
        }
    }

    /// Opens the mailbox of a user and logs on to it.
    pub(super) async fn open(&self, number: usize) -> Result<Client> {
        let client = self.connect(number).await?;
        client.log_on().await?;
        Ok(client)
    }

    async fn connect(&self, number: usize) -> Result<Client> {
        let (user, mailbox) = (user(number), mailbox(number));
        let target = self.target();
        let seal = match self.protocol {
            Protocol::Mapi => {
                let mut options = outlook::Options::new(target, &user, PASSWORD, &mailbox);
                options.tap = self.tap.clone();
                options.headers = self.headers.clone();
                let outlook = Outlook::new(options);
                outlook.connect().await?;
                return Ok(Client::Mapi(outlook));
            }
            Protocol::Rpc => None,
            Protocol::RpcSealed => Some(NTLM),
        };
        let mut options = client::Options::new(target, &user, PASSWORD, &mailbox);
        options.tap = self.tap.clone();
        options.seal = seal;
        Ok(Client::Rpc(Arc::new(RpcOutlook::open(options).await?)))
    }
}

/// Privacy by NTLM inside of the channels: signatures of 16 bytes.
const NTLM: Seal = Seal {
    service: 10,
    level: 6,
    signature: 16,
};

impl Client {
    async fn log_on(&self) -> Result<()> {
        match self {
            Self::Mapi(outlook) => outlook.log_on().await?,
            Self::Rpc(outlook) => outlook.log_on().await?,
        }
        Ok(())
    }

    async fn execute(&self, request: &ExecuteRequest) -> Result<ExecuteSuccess> {
        Ok(match self {
            Self::Mapi(outlook) => outlook.execute_body(request, &[]).await?.body,
            Self::Rpc(outlook) => outlook.execute(request).await?,
        })
    }

    /// Does the work; returns what proves which bytes it was.
    pub(super) async fn perform(&self, work: &Work) -> Result<Proof> {
        let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        let mut bytes = 0;
        for request in work.executes() {
            let answer = self.execute(&request).await.context(work.name)?;
            for piece in [&request.rop_buffer, &answer.rop_buffer] {
                context.update(piece);
                bytes += piece.len() as u64;
            }
        }
        Ok(Proof {
            bytes,
            digest: crate::lab::hex(context.finish().as_ref()),
        })
    }

    /// Does the work so often, without proof.
    pub(super) async fn repeat(&self, requests: &[ExecuteRequest], times: usize) -> Result<()> {
        for _ in 0..times {
            for request in requests {
                self.execute(request).await?;
            }
        }
        Ok(())
    }

    /// Waits for an event beside whatever else it does.
    pub(super) fn wait(&self) -> JoinHandle<()> {
        match self {
            Self::Mapi(outlook) => {
                let outlook = outlook.clone();
                // Its end is the cut, or the end of it all: neither says anything here.
                tokio::spawn(async move { drop(outlook.notification_wait().await) })
            }
            Self::Rpc(outlook) => {
                let outlook = Arc::clone(outlook);
                tokio::spawn(async move { drop(outlook.notification_wait().await) })
            }
        }
    }

    /// Returns when everything it had to say is written.
    pub(super) async fn settled(&self) -> Result<()> {
        if let Self::Rpc(outlook) = self {
            outlook.settled().await?;
        }
        Ok(())
    }

    /// Closes the mailbox.
    pub(super) async fn close(self) -> Result<()> {
        match self {
            Self::Mapi(outlook) => {
                outlook.disconnect().await?;
                outlook.drop_connections().await;
            }
            Self::Rpc(outlook) => outlook.disconnect().await?,
        }
        Ok(())
    }
}

/// Which bytes some work was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proof {
    /// Bytes of ROP buffers, both ways together.
    pub(super) bytes: u64,
    /// SHA-256 of them in order.
    pub(super) digest: String,
}

/// Weighs what was said.
pub(super) fn weigh(protocol: Protocol, talks: &[Talk]) -> Result<Said> {
    match protocol {
        Protocol::Mapi => mapi::weigh(talks),
        Protocol::Rpc | Protocol::RpcSealed => rpc::weigh(talks),
    }
}

/// Waits until so many waits for events are held.
pub(super) async fn held(site: &Site, rpc: &RpcServer, door: &Door, count: usize) -> Result<()> {
    let looking = async {
        loop {
            let held = match door.protocol {
                Protocol::Mapi => {
                    let admin = site.gate()?.admin();
                    admin.metric("mapigate_held_polls").await?
                }
                Protocol::Rpc | Protocol::RpcSealed => f64::from(u32::try_from(rpc.waits_held())?),
            };
            if (held - f64::from(u32::try_from(count)?)).abs() < 0.5 {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
    };
    let found = tokio::time::timeout(PATIENCE, looking).await;
    found.unwrap_or_else(|_late| {
        ensure!(false, "no wait is held after {PATIENCE:?}");
        Ok(())
    })
}

/// How often something is looked at.
pub(super) const POLL: Duration = Duration::from_millis(2);
/// Longer than anything here takes, on any machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
