//! The client's two channels: how they are opened, what runs on them, and how one takes over from another.

use super::exchange::{Asked, Shared, new_cookie};
use super::{Options, Trouble};
use crate::lab::outlook::wire::{Failure, dial};
use crate::lab::tap::{Ear, Tap};
use crate::lab::wire::Wire;
use crate::rpch::rts::Command;
use crate::rpch::verbs::{LIFETIME, OUT_LENGTH, OUT_SUCCESSOR_LENGTH};
use crate::rpch::{Rts, Verb, pdu};
use std::io;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf, split};

/// One TCP connection.
pub(super) struct Channel {
    read: ReadHalf<Wire>,
    write: WriteHalf<Wire>,
    ahead: Vec<u8>,
    ear: Option<Ear>,
}

impl Channel {
    async fn dial(options: &Options) -> Result<Self, Trouble> {
        let wire = dial(&options.target).await.map_err(Failure::Connecting)?;
        let (read, write) = split(wire);
        Ok(Self {
            read,
            write,
            ahead: Vec::new(),
            ear: options.tap.as_ref().map(Tap::connection),
        })
    }

    async fn say(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        if let Some(ear) = &self.ear {
            ear.sent(bytes);
        }
        let said = async {
            self.write.write_all(bytes).await?;
            self.write.flush().await
        };
        Ok(said.await.map_err(Failure::Sending)?)
    }

    async fn more(&mut self) -> Result<(), Trouble> {
        let before = self.ahead.len();
        match self.read.read_buf(&mut self.ahead).await {
            Ok(0) => Err(Failure::Reading(io::ErrorKind::UnexpectedEof.into()).into()),
            Ok(_) => {
                if let (Some(ear), Some(heard)) = (&self.ear, self.ahead.get(before..)) {
                    ear.received(heard);
                }
                Ok(())
            }
            Err(cause) => Err(Failure::Reading(cause).into()),
        }
    }

    /// The head of the answer to an OUT channel.
    async fn head(&mut self) -> Result<(), Trouble> {
        let head = loop {
            if let Some(end) = memchr::memmem::find(&self.ahead, b"\r\n\r\n") {
                let head: Vec<u8> = self.ahead.drain(..end + 4).collect();
                if head.starts_with(b"HTTP/1.1 100") {
                    continue;
                }
                break head;
            }
            self.more().await?;
        };
        match head.starts_with(b"HTTP/1.1 200") {
            true => Ok(()),
            false => {
                let first = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
                Err(Trouble::Lost(String::from_utf8_lossy(first).into_owned()))
            }
        }
    }

    /// The next PDU.
    async fn pdu(&mut self) -> Result<Vec<u8>, Trouble> {
        loop {
            if self.ahead.len() >= pdu::HEAD_BYTES {
                let head = pdu::Head::read(&self.ahead)
                    .map_err(|cause| Trouble::Wrong(cause.to_string()))?;
                let length = usize::from(head.length);
                if self.ahead.len() >= length {
                    return Ok(self.ahead.drain(..length).collect());
                }
            }
            self.more().await?;
        }
    }
}

/// The head of a channel's request. `[MS-RPCH] 2.1.2.1`
fn head(options: &Options, verb: Verb, length: u64) -> Vec<u8> {
    format!(
        "{verb} /rpc/rpcproxy.dll?{}:6001 HTTP/1.1\r\nCache-Control: no-cache\r\nConnection: Keep-Alive\r\n\
         Pragma: No-cache\r\nAccept: application/rpc\r\nUser-Agent: MSRPC\r\nContent-Length: {length}\r\n\
         Host: {}\r\nAuthorization: {}\r\n\r\n",
        options.mailbox, options.target.host, options.authorization
    )
    .into_bytes()
}

/// Opens an OUT channel with its first PDU.
pub(super) async fn open_out(options: &Options, first: &Rts) -> Result<Channel, Trouble> {
    open(options, Verb::Out, OUT_LENGTH, first).await
}

/// Opens an IN channel with its first PDU.
pub(super) async fn open_in(options: &Options, first: &Rts) -> Result<Channel, Trouble> {
    open(options, Verb::In, LIFETIME.into(), first).await
}

async fn open(options: &Options, verb: Verb, length: u64, first: &Rts) -> Result<Channel, Trouble> {
    let mut channel = Channel::dial(options).await?;
    let mut bytes = head(options, verb, length);
    bytes.extend(first.encode());
    channel.say(&bytes).await?;
    Ok(channel)
}

/// Waits until both channels are there; the server's room for what we say, in bytes.
pub(super) async fn connected(out: &mut Channel) -> Result<u32, Trouble> {
    out.head().await?;
    loop {
        let bytes = out.pdu().await?;
        let rts = Rts::decode(&bytes).map_err(|cause| Trouble::Wrong(cause.to_string()))?;
        // CONN/C2; CONN/A3 comes before it. [MS-RPCH] 2.2.4.9
        if let [Command::Version(_), Command::ReceiveWindowSize(window), ..] =
            rts.commands.as_slice()
        {
            return Ok(*window);
        }
    }
}

/// Hears the OUT channel, and its successors, to the end.
pub(super) async fn hear(
    options: Options,
    shared: Shared,
    mut channel: Channel,
) -> Result<(), Trouble> {
    let mut successor = None;
    loop {
        let bytes = channel.pdu().await?;
        match shared.heard(&bytes)? {
            Asked::Nothing => {}
            Asked::Successor => {
                let cookie = new_cookie();
                let (connection, predecessor) = shared.names(|state| state.outgoing);
                let first = Rts::out_r_a3(connection, predecessor, cookie, options.window);
                let opened = open(&options, Verb::Out, OUT_SUCCESSOR_LENGTH, &first).await?;
                successor = Some((opened, cookie));
            }
            Asked::GoOn => {
                if let Some((next, cookie)) = &mut successor {
                    next.say(&Rts::out_r2_c1().encode()).await?;
                    shared.say(&Rts::out_r2_a7(*cookie));
                }
            }
            Asked::Turn => {
                let (mut next, cookie) = successor
                    .take()
                    .ok_or_else(|| Trouble::Wrong("no successor".to_owned()))?;
                next.head().await?;
                shared.out_replaced(cookie, options.window);
                channel = next;
            }
        }
    }
}

/// Says what there is to say on the IN channel, and its successors, to the end.
pub(super) async fn say(
    options: Options,
    shared: Shared,
    mut channel: Channel,
) -> Result<(), Trouble> {
    let mut news = shared.news();
    let mut carried = 0;
    loop {
        news.mark_unchanged();
        if carried > options.in_lifetime {
            channel = successor(&options, &shared, channel).await?;
            carried = 0;
        }
        match shared.batch() {
            Some(batch) => {
                carried += u32::try_from(batch.len()).unwrap_or(u32::MAX);
                channel.say(&batch).await?;
                shared.written();
            }
            None => {
                tokio::select! {
                    changed = news.changed() => changed.map_err(|dropped| Trouble::Lost(dropped.to_string()))?,
                    () = tokio::time::sleep(options.keepalive / 2) => channel.say(&Rts::ping().encode()).await?,
                    // Nothing is ever answered here but that the channel is refused.
                    refused = channel.head() => {
                        refused?;
                        return Ok(());
                    }
                }
            }
        }
    }
}

/// Replaces the IN channel. `[MS-RPCH] 2.2.4.18 to 2.2.4.22`
async fn successor(
    options: &Options,
    shared: &Shared,
    mut old: Channel,
) -> Result<Channel, Trouble> {
    let cookie = new_cookie();
    let (connection, predecessor) = shared.names(|state| state.incoming);
    let first = Rts::in_r_a1(connection, predecessor, cookie);
    let next = open(options, Verb::In, LIFETIME.into(), &first).await?;
    shared.in_ready().await;
    old.say(&Rts::in_r_a5(cookie).encode()).await?;
    shared.in_replaced(cookie);
    Ok(next)
}
