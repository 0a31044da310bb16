//! The accounts against what others saw: the kernel's count of processor time, a capture of every packet.

use crate::rig::Hand;
use crate::support::{self, Ask, Raw, TestSite, brisk, eventually, start};
use mapigate::lab::crowd::{Crowd, Work};
use mapigate::lab::site::Plan;
use mapigate::mapi::{Flavour, RequestType};
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

/// Long enough for samples of phases, reloads and a wait's whole life.
const LOAD: Duration = Duration::from_secs(60);
/// Checks that a reload began are over.
const SETTLED: Duration = Duration::from_secs(8);

/// A packet capture on the loopback.
pub(crate) struct Capture {
    dumpcap: Child,
    /// What it says at its end.
    words: JoinHandle<Vec<String>>,
    file: PathBuf,
}

impl Capture {
    /// Captures the heads of these ports' packets. `None` where this machine has no dumpcap, or does not let
    /// us capture.
    pub(crate) async fn start(folder: &Path, ports: &HashSet<u16>) -> Option<Self> {
        let filter: Vec<_> = ports
            .iter()
            .map(|port| format!("tcp port {port}"))
            .collect();
        let file = folder.join("capture.pcapng");
        let mut dumpcap = Command::new("dumpcap")
            .args(["-q", "-i", "lo", "-s", "128", "-B", "64", "-f"])
            .arg(filter.join(" or "))
            .arg("-w")
            .arg(&file)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .ok()?;
        // It says which file it writes once it listens.
        let mut lines = BufReader::new(dumpcap.stderr.take()?).lines();
        while let Some(line) = lines.next_line().await.ok()? {
            if line.starts_with("File:") {
                let words = tokio::spawn(async move {
                    let mut words = Vec::new();
                    while let Ok(Some(line)) = lines.next_line().await {
                        words.push(line);
                    }
                    words
                });
                return Some(Self {
                    dumpcap,
                    words,
                    file,
                });
            }
        }
        None
    }

    /// Payload bytes between us and each port: what came to us and what we sent. What reached a connection
    /// of ours after it was closed is not ours: the kernel answers it with a reset that acknowledges nothing.
    /// `None`: the machine was too busy to capture every packet.
    pub(crate) async fn bytes(
        mut self,
        clients: u16,
        servers: &HashSet<u16>,
    ) -> Option<BTreeMap<u16, [u64; 2]>> {
        // What is still in the kernel's buffer is to be in the file.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let pid = rustix::process::Pid::from_raw(self.dumpcap.id().unwrap().cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        self.dumpcap.wait().await.unwrap();
        // Packets received/dropped on interface 'Loopback: lo': 100/0 (pcap:0/...)
        let words = self.words.await.unwrap().join(" ");
        let counts = words
            .split("': ")
            .nth(1)
            .and_then(|rest| rest.split(' ').next());
        let (_, dropped) = counts.and_then(|counts| counts.split_once('/')).unwrap();
        if dropped != "0" {
            return None;
        }
        let fields = [
            "tcp.stream",
            "tcp.srcport",
            "tcp.dstport",
            "tcp.len",
            "tcp.flags.reset",
            "tcp.flags.ack",
        ];
        let read = Command::new("tshark")
            .arg("-r")
            .arg(&self.file)
            .args(["-Y", "!tcp.analysis.retransmission", "-T", "fields"])
            .args(fields.iter().flat_map(|field| ["-e", field]))
            .output()
            .await
            .unwrap();
        assert!(
            read.status.success(),
            "{}",
            String::from_utf8_lossy(&read.stderr)
        );
        let mut streams: BTreeMap<u64, Stream> = BTreeMap::new();
        for line in String::from_utf8(read.stdout).unwrap().lines() {
            let number = |word: &str| word.parse().unwrap_or_else(|_| u64::from(word == "True"));
            let fields: Vec<u64> = line.split('\t').map(number).collect();
            let [stream, from, to, length, is_reset, acknowledges] = fields[..] else {
                panic!("{line}")
            };
            let (from, to) = (u16::try_from(from).unwrap(), u16::try_from(to).unwrap());
            let is_ours = from == clients || servers.contains(&to);
            let stream = streams.entry(stream).or_default();
            stream.port = match from == clients || to == clients {
                true => clients,
                false if is_ours => to,
                false => from,
            };
            match is_ours {
                true => stream.sent += length,
                false => stream.came(length),
            }
            if is_ours && is_reset == 1 && acknowledges == 0 {
                stream.refuse();
            }
        }
        let mut bytes = BTreeMap::new();
        for stream in streams.values() {
            let sum: &mut [u64; 2] = bytes.entry(stream.port).or_default();
            sum[0] += stream.received;
            sum[1] += stream.sent;
        }
        Some(bytes)
    }
}

/// A connection in the capture.
#[derive(Default)]
struct Stream {
    port: u16,
    received: u64,
    sent: u64,
    /// Of what was received, the last packet.
    last: u64,
    is_closed: bool,
}

impl Stream {
    fn came(&mut self, length: u64) {
        if !self.is_closed {
            self.received += length;
            self.last = length;
        }
    }

    /// The last packet came too late.
    fn refuse(&mut self) {
        if !std::mem::replace(&mut self.is_closed, true) {
            self.received -= self.last;
        }
    }
}

/// Samples of a family, each with its labels as they are written.
pub(crate) async fn samples(site: &TestSite, family: &str) -> BTreeMap<String, f64> {
    let page = site.gate().unwrap().admin().get("/metrics").await.unwrap();
    let samples = page.text.lines().filter_map(|line| {
        let (labels, value) = line
            .strip_prefix(family)?
            .strip_prefix('{')?
            .rsplit_once("} ")?;
        Some((labels.to_owned(), value.parse().ok()?))
    });
    samples.collect()
}

pub(crate) fn sum(samples: &BTreeMap<String, f64>, labels: &[&str]) -> f64 {
    let wanted = samples
        .iter()
        .filter(|(found, _)| labels.iter().all(|label| found.contains(label)));
    wanted.map(|(_, value)| value).sum()
}

/// What goes wrong on an ordinary day, again and again.
async fn trouble(site: &TestSite, round: usize) {
    let address = site.gate().unwrap().address();
    match round % 10 {
        // A client that gives up in mid-request, politely or not.
        0 => {
            let mut raw = Raw::open(site).await;
            raw.send(b"POST /mapi/emsmdb/ HTTP/1.1\r\nHost: mail").await;
        }
        1 => {
            let mut raw = Raw::open(site).await;
            let ask = Ask::new(1, "Execute")
                .with("Content-Length: 5000")
                .body(vec![0; 700]);
            raw.send(&ask.bytes()).await;
            raw.reset();
        }
        // No TLS at all, and a handshake that is broken off.
        2 => {
            let mut tcp = TcpStream::connect(address).await.unwrap();
            tcp.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        }
        3 => drop(TcpStream::connect(address).await.unwrap()),
        // Refusals of several kinds.
        4 => {
            let wrong = support::basic("user1@contoso.test", &format!("wrong {round}"));
            let ask = Ask::new(1, "Connect").without("Authorization");
            let answer = support::answer(site, &ask.with(format!("Authorization: {wrong}"))).await;
            assert_eq!(answer.head.status, 401);
        }
        5 => {
            let ask = Ask::new(1, "Execute").line("POST /ecp/ HTTP/1.1");
            let (text, _) = support::last_words(site, &ask.bytes()).await;
            assert_eq!(support::status(&text), 404);
        }
        6 => {
            let ask = Ask::new(1, "Execute").with("Transfer-Encoding: chunked, gzip");
            let (text, _) = support::last_words(site, &ask.bytes()).await;
            assert_eq!(support::status(&text), 400);
        }
        // Sessions that are opened and left, a chunked body, a body that waits to be asked for.
        7 => drop(Hand::connected(site, 2).await),
        8 => {
            let ask = Ask::new(3, "PING").with("Transfer-Encoding: chunked");
            let _any = support::answer(site, &ask.body("3\r\nabc\r\n0\r\n\r\n")).await;
        }
        _ => {
            let mut hand = Hand::connected(site, 4).await;
            hand.headers.push_str("Expect: 100-continue\r\n");
            let head = hand.head(RequestType::Execute, 3000);
            let mut raw = Raw::open(site).await;
            raw.send(&head).await;
            raw.until("100 Continue").await;
            raw.send(&[0; 3000]).await;
            raw.until("X-ResponseCode").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accounts_add_up() {
    let folder = tempfile::tempdir().unwrap();
    let plan = Plan {
        users: 12,
        back_tls: true,
        ..brisk(Flavour::Exchange)
    };
    // No check falls between the last request and the reading of the accounts. Each request is measured: of a
    // few thousand, those drawn stand for the others no closer than a few percent.
    let plan = plan
        .section("health", "{ interval: 1h, timeout: 1s }")
        .section("accounting", "{ cpu_every: 1, cpu_closely_every: 8 }");
    let site = start(plan).await;
    let gate = site.gate().unwrap();
    let clients = gate.address().port();
    let servers: HashSet<u16> = site
        .servers()
        .map(|server| server.address().port())
        .collect();
    let ports: HashSet<u16> = servers.iter().copied().chain([clients]).collect();
    // The first checks are over: nothing is under way.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let capture = Capture::start(folder.path(), &ports).await;
    let bytes_before = samples(&site, "mapigate_bytes_total").await;
    let (cpu_before, kernel_before) = (
        samples(&site, "mapigate_cpu_seconds_total").await,
        gate.cpu().unwrap(),
    );

    let options = (1..=12).map(|number| site.outlook_options(number).unwrap());
    let work = Work {
        pause: Duration::from_millis(15),
        ..Work::default()
    };
    let crowd = Crowd::start(options.collect(), &work);
    let until = Instant::now() + LOAD;
    for round in 0.. {
        if Instant::now() > until {
            break;
        }
        trouble(&site, round).await;
        // A reload begins checks, which are to be over when the accounts are read.
        if round % 20 == 19 && Instant::now() + SETTLED < until {
            gate.admin().reload().await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (report, _) = crowd.stop(Duration::from_secs(20)).await;
    assert_eq!(report.executes_failed, 0, "{report:?}");
    assert!(report.executes_ok > 5000, "{report:?}");
    eventually("all connections are closed", || async {
        gate.admin()
            .metric("mapigate_connections_open")
            .await
            .unwrap()
            == 0.0
    })
    .await;
    // Kept connections on which something came unasked are closed within a second, and then booked.
    tokio::time::sleep(Duration::from_secs(3)).await;

    let cpu = samples(&site, "mapigate_cpu_seconds_total").await;
    let kernel = (gate.cpu().unwrap() - kernel_before).as_secs_f64();
    let booked = sum(&cpu, &[]) - sum(&cpu_before, &[]);
    let unattributed = gate
        .admin()
        .metric("mapigate_cpu_unattributed_ratio")
        .await
        .unwrap();
    eprintln!(
        "processor time: {booked:.3} s on accounts, {kernel:.3} s by the kernel, {unattributed:.4} unattributed"
    );
    assert!(
        (booked / kernel - 1.0).abs() < 0.05,
        "{booked} of {kernel}: {cpu:?}"
    );
    assert!(unattributed < 0.05, "{unattributed}");
    phases_agree(&site).await;

    let bytes = samples(&site, "mapigate_bytes_total").await;
    let on_account = |leg: &str, direction: &str| {
        let labels = [
            format!("leg=\"{leg}\""),
            format!("direction=\"{direction}\""),
        ];
        let labels = [labels[0].as_str(), labels[1].as_str()];
        sum(&bytes, &labels) - sum(&bytes_before, &labels)
    };
    lines_add_up(&site);
    let seen = agree_with(capture, clients, &servers, on_account).await;
    for seen in seen.into_iter().flatten() {
        assert!(seen > 1_000_000, "{seen}");
    }
}

/// Holds the accounts against what was captured of both legs, to the byte. `on_account`: by leg and direction. Returns
/// what was seen from and to clients, from and to servers; `None`, and says so, where a figure is missing.
pub(crate) async fn agree_with(
    capture: Option<Capture>,
    clients: u16,
    servers: &HashSet<u16>,
    on_account: impl Fn(&str, &str) -> f64,
) -> Option<[u64; 4]> {
    let Some(capture) = capture else {
        // Without the right to capture the rest of the test stands.
        eprintln!("no packet capture: dumpcap is missing or may not capture here");
        return None;
    };
    let Some(seen) = capture.bytes(clients, servers).await else {
        eprintln!("no packet capture: packets were dropped on the way to the file");
        return None;
    };
    let seen_at = |of: &dyn Fn(u16) -> bool, direction: usize| -> u64 {
        let ports = seen.iter().filter(|(port, _)| of(**port));
        ports.map(|(_, bytes)| bytes[direction]).sum()
    };
    let is_client = |port| port == clients;
    let is_server = |port| servers.contains(&port);
    let sides = [
        (
            "from clients",
            seen_at(&is_client, 0),
            on_account("client", "received"),
        ),
        (
            "to clients",
            seen_at(&is_client, 1),
            on_account("client", "sent"),
        ),
        (
            "from servers",
            seen_at(&is_server, 0),
            on_account("server", "received"),
        ),
        (
            "to servers",
            seen_at(&is_server, 1),
            on_account("server", "sent"),
        ),
    ];
    for (what, seen, booked) in sides {
        eprintln!("{what}: {seen} bytes captured, {booked} on accounts");
    }
    for (what, seen, booked) in sides {
        assert_eq!(seen as f64, booked, "{what}");
    }
    Some(sides.map(|(_, seen, _)| seen))
}

/// The phases, estimated from one request in eight, are the total of all but for chance.
async fn phases_agree(site: &TestSite) {
    let phases = samples(site, "mapigate_request_cpu_phase_seconds_total").await;
    let accounts = samples(site, "mapigate_cpu_seconds_total").await;
    let of = |account| sum(&accounts, &[account]);
    let total = of("account=\"request\"") + of("account=\"verification\"");
    let estimate = sum(&phases, &[]);
    eprintln!("requests: {total:.3} s in all, {estimate:.3} s estimated from phases");
    assert!(
        (estimate / total - 1.0).abs() < 0.25,
        "{estimate} of {total}"
    );
    for phase in ["head", "auth", "route", "upstream", "relay", "log"] {
        let label = format!("phase=\"{phase}\"");
        assert!(sum(&phases, &[&label]) > 0.0, "{phases:?}");
    }
}

/// In every access line the kinds are no more than the whole.
fn lines_add_up(site: &TestSite) {
    let lines = site.access_lines().unwrap();
    let number = |line: &serde_json::Value, key: &str| line[key].as_u64().unwrap_or(0);
    for line in &lines {
        for way in ["in", "out"] {
            let of = |kind: &str| number(line, &format!("{kind}_{way}"));
            assert!(of("head") + of("body") <= of("tls"), "{line}");
            assert!(of("cookies") + of("authorization") <= of("head"), "{line}");
            assert!(of("framing") + of("tags") <= of("body"), "{line}");
        }
    }
    let first = lines
        .iter()
        .filter(|line| line.get("handshake_in").is_some());
    assert!(first.count() > 10);
    assert!(lines.iter().any(|line| line.get("cpu_relay_us").is_some()));
}
