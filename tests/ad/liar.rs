//! A KDC that lies: it stands in front of the lab's own, and spoils the answers to some questions.

use mapigate::lab::site::DOMAIN;
use parking_lot::Mutex;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::lab::{Lab, REALM};

/// What a question is about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum About {
    /// The ticket of our own account. RFC 4120 5.4.1
    Ourselves,
    /// The ticket of a user to ourselves, by the user's name without a domain. `[MS-SFU] 2.2.1`
    User(&'static str),
    /// The ticket of a user to this server.
    Server(&'static str),
}

impl About {
    fn fits(self, question: &[u8]) -> bool {
        let has = |words: &str| memchr::memmem::find(question, words.as_bytes()).is_some();
        match self {
            Self::Ourselves => question.first() == Some(&0x6a),
            Self::User(name) => question.first() == Some(&0x6c) && has(name),
            Self::Server(name) => has(&format!("{name}.{DOMAIN}")),
        }
    }
}

/// What is answered in place of the truth.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lie {
    /// Bytes that are nothing, behind this one.
    Garbage(u8),
    /// An error of this number, which nobody has signed. RFC 4120 5.9.1
    Error(u8),
    /// The beginning of the truth.
    Half,
    /// What was truly answered to the last question about this.
    Earlier(About),
    /// The truth for whoever else is answered so at the same time, and the other way round.
    Exchanged,
    /// An answer that is said to have so many bytes, which come one by one and without an end.
    Dribble(u32),
    /// Nothing.
    Silence,
}

/// It goes with the test.
pub(crate) struct Liar {
    port: u16,
    told: Arc<Told>,
    _work: JoinSet<()>,
}

#[derive(Default)]
struct Told {
    lies: Mutex<Vec<(About, Lie)>>,
    /// Questions, and what was truly answered.
    truths: Mutex<Vec<(Vec<u8>, Vec<u8>)>>,
    /// Whoever waits for the other's truth, with its own.
    waiting: Mutex<Option<Waiting>>,
    lied: AtomicUsize,
}

type Waiting = (Vec<u8>, oneshot::Sender<Vec<u8>>);

impl Liar {
    /// On a port of its own, for TCP and UDP. It says the truth until it is told to lie.
    pub(crate) async fn spawn() -> Self {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = tcp.local_addr().unwrap().port();
        let udp = UdpSocket::bind(("127.0.0.1", port)).await.unwrap();
        let told = Arc::<Told>::default();
        let mut work = JoinSet::new();
        work.spawn(by_tcp(tcp, Arc::clone(&told)));
        work.spawn(by_udp(Arc::new(udp), Arc::clone(&told)));
        Self {
            port,
            told,
            _work: work,
        }
    }

    /// From now on this is the answer to questions about that.
    pub(crate) fn lies(&self, about: About, lie: Lie) {
        self.told.lies.lock().push((about, lie));
    }

    /// From now on nothing but the truth.
    pub(crate) fn repents(&self) {
        self.told.lies.lock().clear();
    }

    /// How often it has lied.
    pub(crate) fn lied(&self) -> usize {
        self.told.lied.load(Ordering::Relaxed)
    }

    /// Where Kerberos programs find the realm by it; asked by UDP first where `udp` is true.
    pub(crate) fn environment(&self, lab: &Lab, folder: &Path, udp: bool) -> (String, String) {
        let text = std::fs::read_to_string(lab.path("krb5.conf")).unwrap();
        let mut moved = String::new();
        for line in text.lines() {
            let line = match line.trim().split_once(" = ") {
                Some(("kdc", _)) => format!("    kdc = 127.0.0.1:{}", self.port),
                Some(("udp_preference_limit", _)) if udp => String::new(),
                _ => line.to_owned(),
            };
            moved.push_str(&line);
            moved.push('\n');
        }
        let path = folder.join("krb5.conf");
        std::fs::write(&path, moved).unwrap();
        ("KRB5_CONFIG".to_owned(), path.display().to_string())
    }
}

async fn by_tcp(listener: TcpListener, told: Arc<Told>) {
    let mut work = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let told = Arc::clone(&told);
        work.spawn(async move {
            // Who asks may have gone.
            let _either_way = converse(stream, &told).await;
        });
    }
}

/// RFC 4120 7.2.2
async fn converse(mut stream: TcpStream, told: &Told) -> io::Result<()> {
    loop {
        let question = framed(&mut stream).await?;
        let (answer, length) = told.answer(&question).await?;
        let announced = length.unwrap_or_else(|| u32::try_from(answer.len()).unwrap());
        stream.write_all(&announced.to_be_bytes()).await?;
        stream.write_all(&answer).await?;
        while length.is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
            stream.write_all(&[0x6d]).await?;
        }
    }
}

async fn by_udp(socket: Arc<UdpSocket>, told: Arc<Told>) {
    let mut work = JoinSet::new();
    let mut room = vec![0; 65_536];
    while let Ok((length, whose)) = socket.recv_from(&mut room).await {
        let (told, socket, question) = (
            Arc::clone(&told),
            Arc::clone(&socket),
            room[..length].to_vec(),
        );
        work.spawn(async move {
            if let Ok((answer, None)) = told.answer(&question).await {
                socket.send_to(&answer, whose).await.unwrap();
            }
        });
    }
}

async fn framed(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u32().await?;
    let mut bytes = vec![0; usize::try_from(length).unwrap().min(1 << 20)];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// What the lab's own KDC says.
async fn truth(question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect("127.0.0.1:88").await?;
    stream
        .write_u32(u32::try_from(question.len()).unwrap())
        .await?;
    stream.write_all(question).await?;
    framed(&mut stream).await
}

impl Told {
    /// The answer, and its length where that is not told truly.
    async fn answer(&self, question: &[u8]) -> io::Result<(Vec<u8>, Option<u32>)> {
        let lies = self.lies.lock().clone();
        let lie = lies.iter().find(|(about, _)| about.fits(question));
        let Some((_, lie)) = lie else {
            let answer = truth(question).await?;
            let mut truths = self.truths.lock();
            truths.push((question.to_vec(), answer.clone()));
            return Ok((answer, None));
        };
        self.lied.fetch_add(1, Ordering::Relaxed);
        let answer = match *lie {
            Lie::Garbage(first) => {
                let mut random = fastrand::Rng::with_seed(7);
                std::iter::once(first)
                    .chain((0..200).map(|_| random.u8(..)))
                    .collect()
            }
            Lie::Error(number) => error(number),
            Lie::Half => {
                let whole = truth(question).await?;
                whole[..whole.len() / 2].to_vec()
            }
            Lie::Earlier(about) => {
                let truths = self.truths.lock();
                let mut truths = truths.iter().rev();
                let earlier = truths.find(|(question, _)| about.fits(question));
                earlier.expect("it was asked before").1.clone()
            }
            Lie::Exchanged => self.exchange(truth(question).await?).await,
            Lie::Dribble(length) => return Ok((vec![0x6d], Some(length))),
            Lie::Silence => std::future::pending().await,
        };
        Ok((answer, None))
    }

    async fn exchange(&self, own: Vec<u8>) -> Vec<u8> {
        let wait = {
            let mut waiting = self.waiting.lock();
            match waiting.take() {
                Some((others, whose)) => {
                    whose.send(own).unwrap();
                    return others;
                }
                None => {
                    let (whose, wait) = oneshot::channel();
                    *waiting = Some((own, whose));
                    wait
                }
            }
        };
        wait.await.unwrap()
    }
}

/// An error of the protocol about some ticket-granting ticket. RFC 4120 5.9.1
fn error(number: u8) -> Vec<u8> {
    let text = |text: &str| element(0x1b, &[text.as_bytes()]);
    let small = |tag: u8, number: &[u8]| element(tag, &[&element(2, &[number])]);
    let names = element(0x30, &[&text("krbtgt"), &text(REALM)]);
    let service = element(0x30, &[&small(0xa0, &[2]), &element(0xa1, &[&names])]);
    let number = match number {
        0..128 => vec![number],
        _ => vec![0, number],
    };
    let facts = element(
        0x30,
        &[
            &small(0xa0, &[5]),
            &small(0xa1, &[30]),
            &element(0xa4, &[&element(0x18, &[b"20300101000000Z"])]),
            &small(0xa5, &[0]),
            &small(0xa6, &number),
            &element(0xa9, &[&text(REALM)]),
            &element(0xaa, &[&service]),
        ],
    );
    element(0x7e, &[&facts])
}

/// One element of ASN.1: its first byte, its length in the fewest bytes, what is in it.
pub(crate) fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = content.len().to_be_bytes();
    let digits = &length[length.iter().take_while(|byte| **byte == 0).count()..];
    let mut out = vec![tag];
    match content.len() {
        0..128 => out.push(u8::try_from(content.len()).unwrap()),
        _ => {
            out.push(0x80 | u8::try_from(digits.len()).unwrap());
            out.extend_from_slice(digits);
        }
    }
    out.extend(content);
    out
}
