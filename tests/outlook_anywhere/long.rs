//! What takes long: only where it is asked for.

use crate::hand::{Head, Line, ONE, Puppet, a1, b1};
use crate::house::{House, section, start};
use crate::journey::sized;
use mapigate::lab::site::{Gate, Plan};
use mapigate::mapi::Flavour;
use mapigate::rpch::{Cookie, Verb};
use std::fs;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The longest Content-Length that clients use.
const LENGTH: u64 = (1 << 31) - 1;
const MIB: u64 = 1 << 20;

/// Resident memory of mapigate, in bytes.
fn resident(gate: &Gate) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", gate.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kibibytes: u64 = line
        .unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    kibibytes * 1024
}

/// Bytes moved, and the most memory seen meanwhile above that after the first of them.
struct Growth {
    moved: u64,
    first: Option<u64>,
    most: u64,
}

impl Growth {
    fn new() -> Self {
        Self {
            moved: 0,
            first: None,
            most: 0,
        }
    }

    fn moved(&mut self, bytes: usize, gate: &Gate) {
        let before = self.moved / (16 * MIB);
        self.moved += bytes as u64;
        if self.moved / (16 * MIB) == before {
            return;
        }
        let now = resident(gate);
        // The workers' buffers are there after the first pieces, once for all channels.
        let first = *self.first.get_or_insert(now);
        self.most = self.most.max(now.saturating_sub(first));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "moves four gigabytes"]
async fn two_gibibytes_each_way_through_one_channel_take_no_memory() {
    let puppet = Puppet::new().await;
    let addresses = [puppet.address(), "127.0.0.1:9".to_owned()];
    let plan = Plan::new(Flavour::Exchange, &["MBX1", "MBX2"])
        .section("servers", &section(&addresses, ""))
        .section("health", "{ interval: 1h, panic_threshold: 0 }");
    let (site, _folder) = start(plan).await;
    let gate = site.gate().unwrap();
    let cpu = gate.cpu().unwrap();

    let mut out = Line::open(&site).await;
    out.send(&[Head::new(Verb::Out, 1, 76).bytes(), a1(ONE)].concat())
        .await;
    let (mut out_server, ..) = puppet.asked(76).await;
    let head = format!("HTTP/1.1 200 Success\r\nContent-Length: {LENGTH}\r\n\r\n");
    out_server.write_all(head.as_bytes()).await.unwrap();
    out.answer(0).await;
    let mut into = Line::open(&site).await;
    into.send(&[Head::new(Verb::In, 1, LENGTH).bytes(), b1(ONE)].concat())
        .await;
    let (mut in_server, ..) = puppet.asked(104).await;

    let writing = tokio::spawn(async move {
        let piece = vec![0x5a; 64 << 10];
        let mut left = usize::try_from(LENGTH).unwrap() - 104;
        while left > 0 {
            let next = left.min(piece.len());
            into.0.write_all(&piece[..next]).await.unwrap();
            left -= next;
        }
        into.0.flush().await.unwrap();
        into
    });
    let mut growth = Growth::new();
    let mut room = vec![0; 256 << 10];
    while growth.moved < LENGTH - 104 {
        let read = in_server.read(&mut room).await.unwrap();
        assert!(read > 0, "ended after {}", growth.moved);
        growth.moved(read, gate);
    }
    let _into = writing.await.unwrap();
    eprintln!(
        "in: {} bytes, memory grew by {} KiB, {:?} of processor time",
        growth.moved,
        growth.most / 1024,
        gate.cpu().unwrap() - cpu
    );
    assert!(growth.most < MIB);

    let cpu = gate.cpu().unwrap();
    let writing = tokio::spawn(async move {
        let piece = vec![0x5a; 64 << 10];
        let mut left = usize::try_from(LENGTH).unwrap();
        while left > 0 {
            let next = left.min(piece.len());
            out_server.write_all(&piece[..next]).await.unwrap();
            left -= next;
        }
        out_server
    });
    let mut growth = Growth::new();
    while growth.moved < LENGTH {
        let read = out.0.read(&mut room).await.unwrap();
        assert!(read > 0, "ended after {}", growth.moved);
        growth.moved(read, gate);
    }
    let _out_server = writing.await.unwrap();
    eprintln!(
        "out: {} bytes, memory grew by {} KiB, {:?} of processor time",
        growth.moved,
        growth.most / 1024,
        gate.cpu().unwrap() - cpu
    );
    assert!(growth.most < MIB);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "opens two thousand connections"]
async fn a_parked_channel_takes_as_little_as_a_held_poll() {
    let few = "{ requests_per_user: 1000 }";
    let house = House::with(|_| (), |plan| plan.section("limits", few)).await;
    let gate = house.gate().unwrap();
    let mut open = Vec::new();
    let mut before = 0;
    for number in 0..600_u128 {
        // What the first hundred take is there once for all.
        if number == 100 {
            before = resident(gate);
        }
        let cookie = Cookie((number + 1).to_le_bytes());
        let user = usize::try_from(number % 20).unwrap() + 1;
        let mut out = Line::channel(&house, &Head::new(Verb::Out, user, 76), &a1(cookie)).await;
        out.answer(28).await;
        let head = Head::new(Verb::In, user, LENGTH);
        let into = Line::channel(&house, &head, &b1(cookie)).await;
        out.answer_more(44).await;
        open.push((out, into));
    }
    assert_eq!(house.servers[0].virtual_connections(), 600);

    let grown = resident(gate).saturating_sub(before);

    eprintln!("{} bytes per parked channel", grown / 1000);
    assert!(grown / 1000 < 16 * 1024);
}

#[tokio::test]
#[ignore = "takes ten minutes"]
async fn ten_idle_minutes_of_real_time_change_nothing() {
    let house = House::new().await;
    let outlook = house.open(1).await;
    outlook.log_on().await.unwrap();

    tokio::time::sleep(Duration::from_secs(600)).await;

    outlook.execute(&sized(1000)).await.unwrap();
    assert_eq!(house.servers[0].sessions_opened(), 1);
    assert_eq!(house.servers[0].connections_open(), 2);
    eprintln!("pings of the server: {}", house.servers[0].pings());
}
