//! Weighs what sessions cost: opened, cut off by the network and taken up again, rebuilt; and their connections.

use super::facts::{ConnectionFacts, InterruptedFacts, MAPI, RPC, SessionFacts};
use super::kinds::Said;
use super::legs::{self, Client, Door, PATIENCE, POLL, Protocol};
use super::work::Work;
use super::{BEARER_LINE, KERBEROS_LINE, SERVER, Stage};
use crate::lab::network::Network;
use crate::lab::tap::Tap;
use anyhow::{Context as _, Result, ensure};

/// Weighs a transfer that is cut off at half, until all of it is there.
///
/// What is fetched piece by piece is an object of the session: MAPI over HTTP goes on with it, RPC over HTTP begins again.
pub(super) async fn interrupt(stage: &Stage) -> Result<Vec<InterruptedFacts>> {
    let executes = Work::SYNC.executes();
    let (first, rest) = executes.split_at(executes.len() / 2);
    let mut facts = Vec::new();
    for protocol in [Protocol::Rpc, Protocol::Mapi] {
        let story = Story::begin(stage, protocol).await?;
        let mut client = story.door.open(4).await?;
        client.repeat(first, 1).await?;
        client.settled().await?;
        story.cut().await?;
        story.network.mend();
        let begun = story.carried();
        let left = match protocol {
            Protocol::Mapi => rest,
            Protocol::Rpc | Protocol::RpcSealed => {
                client = story.door.open(4).await?;
                executes.as_slice()
            }
        };
        client.repeat(left, 1).await?;
        let (_, wire) = story.rest(begun, &client).await?;
        facts.push(InterruptedFacts {
            protocol: story.name(),
            executes: left.len(),
            wire,
        });
        client.close().await?;
    }
    Ok(facts)
}

/// Weighs the sessions of both protocols.
pub(super) async fn weigh(stage: &Stage) -> Result<(Vec<SessionFacts>, Vec<ConnectionFacts>)> {
    let mut sessions = Vec::new();
    let mut connections = Vec::new();
    for protocol in [Protocol::Rpc, Protocol::Mapi] {
        let story = Story::begin(stage, protocol).await?;
        story
            .play(&mut sessions, &mut connections)
            .await
            .with_context(|| format!("the session with {protocol:?}"))?;
    }
    Ok((sessions, connections))
}

/// One session and what befalls it.
struct Story<'a> {
    stage: &'a Stage,
    door: Door,
    tap: Tap,
    network: Network,
}

impl<'a> Story<'a> {
    async fn begin(stage: &'a Stage, protocol: Protocol) -> Result<Self> {
        let to = match protocol {
            Protocol::Mapi => stage.site.gate()?.address(),
            Protocol::Rpc | Protocol::RpcSealed => stage.rpc.address(),
        };
        let network = Network::to(to).await?;
        let (door, tap) = Door::new(&stage.site, protocol, network.address())?.tapped();
        Ok(Self {
            stage,
            door,
            tap,
            network,
        })
    }

    fn name(&self) -> &'static str {
        match self.door.protocol {
            Protocol::Mapi => MAPI,
            Protocol::Rpc | Protocol::RpcSealed => RPC,
        }
    }

    async fn play(
        self,
        sessions: &mut Vec<SessionFacts>,
        connections: &mut Vec<ConnectionFacts>,
    ) -> Result<()> {
        let begun = self.carried();
        let mut client = self.door.open(2).await?;
        let wait = client.wait();
        self.held().await?;
        sessions.push(self.facts("opened", begun, &client).await?);

        client.perform(&Work::AVERAGE).await?;
        connections.push(self.connections(&client).await?);

        // The network goes away while nothing but the wait is under way, and comes back.
        self.cut().await?;
        wait.await?;
        self.let_go().await?;
        self.tap.take();
        self.network.mend();
        let begun = self.carried();
        let what = match self.door.protocol {
            Protocol::Mapi => "resumed",
            // The session went with its connection.
            Protocol::Rpc | Protocol::RpcSealed => {
                client = self.door.open(2).await?;
                "rebuilt"
            }
        };
        let wait = client.wait();
        client.perform(&Work::ALL[0]).await?;
        self.held().await?;
        sessions.push(self.facts(what, begun, &client).await?);
        if let Client::Mapi(outlook) = &client {
            ensure!(
                outlook.counters().reconnects == 0,
                "the session was not resumed"
            );
            // And when the server has forgotten it too.
            self.cut().await?;
            wait.await?;
            self.let_go().await?;
            self.stage.site.server(SERVER)?.forget();
            self.tap.take();
            self.network.mend();
            let begun = self.carried();
            // Told that it is gone, it connects again and logs on.
            client.perform(&Work::ALL[0]).await?;
            outlook.log_on().await?;
            let wait = client.wait();
            self.held().await?;
            ensure!(
                outlook.counters().reconnects == 1,
                "the session was not rebuilt"
            );
            sessions.push(self.facts("rebuilt", begun, &client).await?);
            wait.abort();
        } else {
            wait.abort();
        }
        Ok(())
    }

    /// Cuts the network; every connection is gone when this returns.
    async fn cut(&self) -> Result<()> {
        self.network.cut();
        let looking = async {
            while self.network.open() > 0 {
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::time::timeout(PATIENCE, looking)
            .await
            .context("connections outlive the cut")
    }

    /// Connections and bytes carried so far.
    fn carried(&self) -> (u64, u64) {
        let (up, down) = self.network.weight();
        (self.network.carried(), up.bytes + down.bytes)
    }

    async fn held(&self) -> Result<()> {
        legs::held(&self.stage.site, &self.stage.rpc, &self.door, 1).await
    }

    /// Waits until the far end knows that everybody has gone.
    async fn let_go(&self) -> Result<()> {
        legs::held(&self.stage.site, &self.stage.rpc, &self.door, 0).await
    }

    /// What was carried since `begun`.
    async fn facts(
        &self,
        what: &'static str,
        begun: (u64, u64),
        client: &Client,
    ) -> Result<SessionFacts> {
        let (connections, wire) = self.rest(begun, client).await?;
        let said = legs::weigh(self.door.protocol, &self.tap.take())?;
        let plain = said.total().plain();
        ensure!(wire > plain, "less was carried than was said");
        let of_plain = |said: &Said| said.total().plain();
        let kerberos = once_per_connection(&said, connections);
        Ok(SessionFacts {
            what,
            protocol: self.name(),
            requests: said.requests,
            connections,
            wire,
            plain,
            wire_bearer: wire + of_plain(&said.with_authorization(BEARER_LINE)) - plain,
            wire_kerberos: wire + kerberos - said.sent.authorization,
        })
    }

    /// Connections and bytes carried since `begun`, when nothing moves any more.
    async fn rest(&self, begun: (u64, u64), client: &Client) -> Result<(u64, u64)> {
        client.settled().await?;
        let quiet = async {
            // Answers have come; what the client said last may be under way.
            let mut last = self.carried();
            let mut still = 0;
            while still < 5 {
                tokio::time::sleep(POLL).await;
                let now = self.carried();
                still = if now == last { still + 1 } else { 0 };
                last = now;
            }
            (last.0 - begun.0, last.1 - begun.1)
        };
        tokio::time::timeout(PATIENCE, quiet)
            .await
            .context("the network does not come to rest")
    }

    /// Connections that stay, and those beside them.
    async fn connections(&self, client: &Client) -> Result<ConnectionFacts> {
        let most = self.network.open_most();
        let long = match client {
            // Without the connection on demand, the session is told of events all the same.
            Client::Mapi(outlook) => {
                outlook.drop_connections().await;
                let looking = async {
                    while self.network.open() > 1 {
                        tokio::time::sleep(POLL).await;
                    }
                };
                tokio::time::timeout(PATIENCE, looking)
                    .await
                    .context("the connection on demand stays")?;
                self.held().await?;
                self.network.open()
            }
            Client::Rpc(_) => self.network.open(),
        };
        Ok(ConnectionFacts {
            protocol: self.name(),
            long,
            short_peak: most - long,
        })
    }
}

/// Bytes of Kerberos tickets: on the first request of each connection, later ones carry nothing.
fn once_per_connection(said: &Said, connections: u64) -> u64 {
    connections.min(said.requests) * KERBEROS_LINE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_sent_once_on_each_connection() {
        let said = Said {
            requests: 5,
            ..Said::default()
        };

        assert_eq!(once_per_connection(&said, 2), 12_000);
        assert_eq!(once_per_connection(&Said::default(), 2), 0);
    }
}
