//! Weighs the same work in each protocol: what was said, what was carried, and that both are the same.

use super::facts::{BASIC, BEARER, Check, KERBEROS, MAPI, RPC, RPC_SEALED, Row, WorkFacts};
use super::kinds::{RECORD_BYTES, Said};
use super::legs::{self, Client, Door, PATIENCE, POLL, Proof, Protocol};
use super::work::Work;
use super::{BEARER_LINE, SERVER, Stage};
use crate::lab::network::{Network, Weight};
use anyhow::{Context as _, Result, ensure};

/// What one leg weighed.
#[derive(Debug)]
struct Leg {
    said: Said,
    records: u64,
    carried: u64,
    counted: Option<u64>,
    proof: Proof,
}

/// Weighs some work in every protocol.
pub(super) async fn weigh(stage: &Stage, work: &Work) -> Result<WorkFacts> {
    let mut rows = Vec::new();
    let mut proof: Option<Proof> = None;
    for protocol in [Protocol::Rpc, Protocol::RpcSealed, Protocol::Mapi] {
        let leg = leg(stage, work, protocol, Vec::new())
            .await
            .with_context(|| format!("{} with {protocol:?}", work.name))?;
        let known = proof.get_or_insert_with(|| leg.proof.clone());
        ensure!(
            *known == leg.proof,
            "{}: {protocol:?} carried other bytes than the others",
            work.name
        );
        match protocol {
            Protocol::Rpc => rows.push(row(RPC, BASIC, true, &leg)),
            Protocol::RpcSealed => rows.push(row(RPC_SEALED, BASIC, true, &leg)),
            Protocol::Mapi => {
                rows.push(row(MAPI, BASIC, true, &leg));
                // On an open session the ticket has been sent, and requests carry nothing.
                for (name, line) in [(BEARER, BEARER_LINE), (KERBEROS, 0)] {
                    let said = leg.said.with_authorization(line);
                    let records = said.total().tls / RECORD_BYTES;
                    let computed = Leg {
                        carried: said.total().wire(),
                        said,
                        records,
                        counted: None,
                        proof: leg.proof.clone(),
                    };
                    rows.push(row(MAPI, name, false, &computed));
                }
            }
        }
    }
    let proof = proof.context("no protocol")?;
    let facts = WorkFacts {
        name: work.name,
        executes: work.executes().len(),
        payload: proof.bytes,
        digest: proof.digest,
        rows,
    };
    Ok(facts.compared())
}

fn row(protocol: &'static str, authorization: &'static str, is_measured: bool, leg: &Leg) -> Row {
    let total = leg.said.total();
    Row {
        protocol,
        authorization,
        is_measured,
        requests: leg.said.requests,
        sent: leg.said.sent,
        received: leg.said.received,
        records: leg.records,
        wire: total.wire(),
        carried: leg.carried,
        mapigate_counted: leg.counted,
        overhead_percent: total.overhead_percent(),
        more_than_rpc_percent: 0.0,
    }
}

/// Does the work once on an open session, and weighs it.
async fn leg(
    stage: &Stage,
    work: &Work,
    protocol: Protocol,
    headers: Vec<(String, String)>,
) -> Result<Leg> {
    let to = match protocol {
        Protocol::Mapi => stage.site.gate()?.address(),
        Protocol::Rpc | Protocol::RpcSealed => stage.rpc.address(),
    };
    let network = Network::to(to).await?;
    let (mut door, tap) = Door::new(&stage.site, protocol, network.address())?.tapped();
    door.headers = headers;
    let client = door.open(1).await?;
    // Something like it has been done before: cookies are rotated, windows have moved.
    client.perform(&Work::ALL[0]).await?;
    client.settled().await?;
    quiet(&network, &client).await?;
    tap.take();
    let counted = counted(stage).await?;
    let before = network.weight();

    let proof = client.perform(work).await?;
    client.settled().await?;

    let mut said = legs::weigh(protocol, &tap.take())?;
    let carried = carried(&network, before, &said).await?;
    let counted_by_us = self::counted(stage).await? - counted;
    let [up, down] = carried;
    said.sent.tls = up.records * RECORD_BYTES;
    said.received.tls = down.records * RECORD_BYTES;
    ensure!(
        (said.sent.wire(), said.received.wire()) == (up.bytes, down.bytes),
        "what was said ({} and {} bytes with TLS) is not what was carried ({} and {})",
        said.sent.wire(),
        said.received.wire(),
        up.bytes,
        down.bytes
    );
    client.close().await?;
    Ok(Leg {
        records: up.records + down.records,
        carried: up.bytes + down.bytes,
        counted: (protocol == Protocol::Mapi).then_some(counted_by_us),
        said,
        proof,
    })
}

/// Waits until the network has carried what was said: the last acknowledgement of flow control may be under way.
async fn carried(network: &Network, before: (Weight, Weight), said: &Said) -> Result<[Weight; 2]> {
    let looking = async {
        loop {
            let now = network.weight();
            let weights = [now.0.since(before.0), now.1.since(before.1)];
            let [up, down] = weights;
            let is_there =
                |weight: Weight, plain: u64| weight.bytes >= plain + weight.records * RECORD_BYTES;
            if is_there(up, said.sent.plain()) && is_there(down, said.received.plain()) {
                return weights;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking)
        .await
        .context("the network has not carried what was said")
}

/// Waits until nothing moves any more: flow control of what came before may still be under way.
async fn quiet(network: &Network, client: &Client) -> Result<()> {
    let mut last = network.weight();
    for _ in 0..10 {
        tokio::time::sleep(POLL).await;
        client.settled().await?;
        let now = network.weight();
        if now == last {
            return Ok(());
        }
        last = now;
    }
    Ok(())
}

/// Bytes with clients by mapigate's own account, when no request is open in its books: one is booked when its answer has
/// been sent, and the client may know that first.
async fn counted(stage: &Stage) -> Result<u64> {
    let admin = stage.site.gate()?.admin();
    let looking = async {
        loop {
            let page = admin.get("/metrics").await?.text;
            if sum_of(&page, "mapigate_requests_in_flight")? == 0 {
                return sum_of(&page, "mapigate_client_bytes_total");
            }
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking)
        .await
        .context("a request stays open in mapigate's books")?
}

/// The sum of a family's samples.
fn sum_of(page: &str, family: &'static str) -> Result<u64> {
    let mut sum = 0;
    for line in page.lines().filter(|line| line.starts_with(family)) {
        let value = line.rsplit(' ').next().unwrap_or_default();
        sum += value.parse::<u64>().context(family)?;
    }
    Ok(sum)
}

/// Holds the arithmetic of bearer tokens against a measurement: the average packet through mapigate, with a header that
/// makes each request as long as a bearer token would.
pub(super) async fn check(stage: &Stage, works: &[WorkFacts]) -> Result<Check> {
    let work = Work::AVERAGE;
    let facts = works.iter().find(|facts| facts.name == work.name);
    let facts = facts.context("the average packet")?;
    let basic = facts.row(MAPI, BASIC).context("with Basic")?;
    let more = BEARER_LINE - basic.sent.authorization / basic.requests.max(1);
    // Beside the value: the name, a colon, a space and the line's end.
    let value = usize::try_from(more)? - PADDING.len() - 4;
    let headers = vec![(PADDING.to_owned(), "x".repeat(value))];
    let leg = leg(stage, &work, Protocol::Mapi, headers).await?;
    let computed = leg.said.without(more).with_authorization(BEARER_LINE);
    Ok(Check {
        computed: computed.total().wire(),
        measured: leg.carried,
    })
}

/// What mapigate adds to one exchange: the average packet through it, less the same without it and without TLS.
pub(super) async fn added(stage: &Stage, works: &[WorkFacts]) -> Result<i64> {
    let facts = works.iter().find(|facts| facts.name == Work::AVERAGE.name);
    let through = facts
        .and_then(|facts| facts.row(MAPI, BASIC))
        .context("the average packet")?;
    let server = stage.site.server(SERVER)?.address();
    let (mut door, tap) = Door::new(&stage.site, Protocol::Mapi, server)?.tapped();
    door.tls = None;
    let client = door.open(1).await?;
    tap.take();
    client.perform(&Work::AVERAGE).await?;
    let said = legs::weigh(Protocol::Mapi, &tap.take())?;
    client.close().await?;
    let (through, without) = (through.total().plain(), said.total().plain());
    Ok(i64::try_from(through)? - i64::try_from(without)?)
}

/// A header that weighs what a longer credential would.
const PADDING: &str = "X-Lab-Padding";

/// What came out, in a line.
pub(super) fn told(facts: &WorkFacts) -> String {
    let percent = |protocol, authorization| {
        let row = facts.row(protocol, authorization);
        row.map_or(0.0, |row| row.overhead_percent)
    };
    format!(
        "{}: overhead {:.2} % in RPC/HTTP, {:.2} % in MAPI/HTTP with Basic; the same {} bytes, SHA-256 {}",
        facts.name,
        percent(RPC, BASIC),
        percent(MAPI, BASIC),
        facts.payload,
        facts.digest.get(..12).unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_samples_of_a_family_are_added_up_and_no_others() {
        let page = "# HELP bytes_total bytes\nbytes_total{direction=\"sent\"} 40\n\
            bytes_total{direction=\"received\"} 2\nother 7\n";

        assert_eq!(sum_of(page, "bytes_total").unwrap(), 42);
        assert_eq!(sum_of(page, "missing").unwrap(), 0);
        assert!(sum_of("other x\n", "other").is_err());
    }
}
