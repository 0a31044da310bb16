//! Sites whose users and mailboxes are those of the lab's directory service, and what can come between the two.

use crate::lab::{DOMAIN, Lab, LabUser};
pub(crate) use crate::site::eventually;
use crate::site::{PING, PROGRAM, curl, up, url};
use mapigate::ids::UserName;
use mapigate::lab::mailbox_server::{Service, Users};
use mapigate::lab::site::{Plan, Site};
use mapigate::mapi::Flavour;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub(crate) const SECRET: &str = "a Secret of 1 test";

/// A site whose users and mailboxes are those of the lab's directory.
pub(crate) struct Directory {
    pub(crate) site: Site,
    pub(crate) folder: TempDir,
}

/// The settings of `directory.ldap` that the lab needs. `refresh` is short, so that tests are.
pub(crate) fn ldap(lab: &Lab, url: &str, more: &str) -> String {
    format!(
        "    urls: [\"{url}\"]\n    ca: {}\n    bind_name: svc-ldap@{DOMAIN}\n    \
         bind_password: P@ssw0rd.1-svc-ldap\n    base: DC=contoso,DC=test\n    \
         netbios_domain: CONTOSO\n    refresh: 1s\n    \
         attributes: {{ archive_database: 'off', delegates: secretary }}\n{more}",
        lab.path("tls/ca.pem").display()
    )
}

pub(crate) async fn start(_lab: &Lab, access: &str, ldap: &str) -> Directory {
    start_planned(plan(access, ldap)).await
}

pub(crate) async fn start_planned(plan: Plan) -> Directory {
    start_in(tempfile::tempdir().unwrap(), plan).await
}

pub(crate) async fn start_in(folder: TempDir, plan: Plan) -> Directory {
    let site = up(Path::new(PROGRAM), folder.path(), plan).await;
    Directory { site, folder }
}

/// Servers that believe a service account, and users and mailboxes of a directory.
pub(crate) fn plan(access: &str, ldap: &str) -> Plan {
    let service = UserName::new("svc@contoso.test");
    Plan::new(Flavour::Exchange, &["MBX1", "MBX2"])
        .each(|server| {
            let listed = [(service.clone(), "service secret".to_owned())];
            server.users = Users::Listed(listed.into());
            server.service = Some(Service {
                user: service.clone(),
                header: "X-Remote-User".to_owned(),
            });
        })
        .section(
            "backend_identity",
            "{ mode: basic_service, user: svc@contoso.test, password: service secret }",
        )
        .section(
            "databases",
            "  DB01: { copies: [MBX1, MBX2] }\n  DB02: { copies: [MBX2, MBX1] }",
        )
        .section("directory", &format!("  access: {access}\n  ldap:\n{ldap}"))
        .section(
            "auth",
            &format!(
                "{{ basic: {{ verify: ldap_bind, default_domain: {DOMAIN} }}, negative_ttl: 1s }}"
            ),
        )
}

/// What curl got.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) text: String,
    pub(crate) took: Duration,
}

impl Got {
    /// The answer without what differs from answer to answer.
    pub(crate) fn words(&self) -> &str {
        // The number of the request stands in brackets at the end.
        self.text.rsplit_once('(').unwrap().0
    }
}

impl Directory {
    /// A PING of this user for this mailbox, or for the user's own, by curl.
    pub(crate) async fn ping(&self, credentials: &str, mailbox: Option<&str>) -> Got {
        let query = mailbox.map_or_else(String::new, |id| format!("?MailboxId={id}"));
        let began = Instant::now();
        let output = curl(&self.site)
            .args(["-i", "--basic", "-u", credentials])
            .args(PING)
            .arg(url(&self.site, &format!("/mapi/emsmdb/{query}")))
            .output()
            .await
            .expect("curl is needed");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let status = text
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3)?.parse().ok());
        Got {
            status: status.unwrap_or(0),
            text,
            took: began.elapsed(),
        }
    }

    /// The page of a path by curl: its status and its words.
    pub(crate) async fn page(&self, credentials: &str, path: &str) -> (u16, String) {
        self.page_with(credentials, path, &[]).await
    }

    /// The same with more words to curl.
    pub(crate) async fn page_with(
        &self,
        credentials: &str,
        path: &str,
        words: &[&str],
    ) -> (u16, String) {
        let output = curl(&self.site)
            .args(["-w", "\n%{http_code}", "--basic", "-u", credentials])
            .args(words)
            .arg(url(&self.site, path))
            .output()
            .await
            .expect("curl is needed");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (words, status) = text.rsplit_once('\n').unwrap();
        (status.parse().unwrap(), words.to_owned())
    }

    /// Requests that mailbox servers have had.
    pub(crate) fn asked_of_servers(&self) -> usize {
        self.site.servers().map(|server| server.heads().len()).sum()
    }

    pub(crate) async fn status(&self, credentials: &str, mailbox: Option<&str>) -> u16 {
        self.ping(credentials, mailbox).await.status
    }

    pub(crate) async fn becomes(&self, status: u16, credentials: &str, mailbox: Option<&str>) {
        let what = format!("{status} for {credentials}");
        eventually(&what, || async {
            self.status(credentials, mailbox).await == status
        })
        .await;
    }

    pub(crate) async fn metric(&self, sample: &str) -> f64 {
        let admin = self.site.gate().unwrap().admin();
        admin.metric(&format!("mapigate_{sample}")).await.unwrap()
    }

    /// Searches and binds so far, however they ended.
    pub(crate) async fn work(&self) -> [f64; 2] {
        let mut work = [0.0; 2];
        for (operation, sum) in ["search", "bind"].into_iter().zip(&mut work) {
            for outcome in ["ok", "refused", "failed", "timeout"] {
                *sum += self
                    .metric(&format!(
                        "ldap_operations_total{{operation=\"{operation}\",outcome=\"{outcome}\"}}"
                    ))
                    .await;
            }
        }
        work
    }

    /// The last lines of the access log, once there is one that `is_it`.
    pub(crate) async fn line(
        &self,
        is_it: impl Fn(&serde_json::Value) -> bool,
    ) -> serde_json::Value {
        let mut found = None;
        eventually("a line of the access log", || {
            let lines = self.site.access_lines().unwrap();
            found = lines.into_iter().rev().find(&is_it);
            let is_there = found.is_some();
            async move { is_there }
        })
        .await;
        found.unwrap()
    }

    /// What a test that fails should say.
    fn tell(&self) {
        for line in self.site.access_lines().unwrap() {
            eprintln!("{} {} {}", line["user"], line["status"], line["why"]);
        }
        eprintln!("{}", self.log());
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("mapigate.log")).unwrap()
    }
}

/// A user of the lab with a mailbox, known by its account's name.
pub(crate) struct Mailbox<'a> {
    pub(crate) user: LabUser<'a>,
    guid: String,
}

impl<'a> Mailbox<'a> {
    pub(crate) fn new(lab: &'a Lab, database: &str) -> Self {
        let user = lab.user(SECRET);
        let mut guid = [0; 16];
        aws_lc_rs::rand::fill(&mut guid).unwrap();
        let mailbox = Self {
            user,
            guid: in_text(guid),
        };
        let name = &mailbox.user.name;
        mailbox.modify(&format!(
            "add: msExchMailboxGuid\nmsExchMailboxGuid:: {}\n-\n\
             add: homeMDB\nhomeMDB: {}\n-\n\
             add: msExchRecipientTypeDetails\nmsExchRecipientTypeDetails: 1\n-\n\
             add: proxyAddresses\nproxyAddresses: SMTP:{name}@{DOMAIN}\nproxyAddresses: smtp:{name}.alias@{DOMAIN}\n-\n",
            in_base64(&guid),
            database_dn(database)
        ));
        mailbox
    }

    pub(crate) fn id(&self) -> String {
        format!("{}@{DOMAIN}", self.guid)
    }

    pub(crate) fn upn(&self) -> String {
        format!("{}@{DOMAIN}", self.user.name)
    }

    pub(crate) fn dn(&self) -> String {
        format!("CN={},CN=Users,DC=contoso,DC=test", self.user.name)
    }

    pub(crate) fn credentials(&self) -> String {
        format!("{}:{SECRET}", self.upn())
    }

    pub(crate) fn modify(&self, changes: &str) {
        ldif(&format!(
            "dn: {}\nchangetype: modify\n{changes}\n",
            self.dn()
        ));
    }
}

/// Changes the directory as its administrator.
pub(crate) fn ldif(text: &str) {
    let mut child = std::process::Command::new("ldapmodify")
        .env("LDAPTLS_REQCERT", "never")
        .args(["-x", "-H", "ldaps://127.0.0.1:636"])
        .args(["-D", "administrator@contoso.test", "-w", "Adm1n.P@ss"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("ldapmodify is needed");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).unwrap();
    drop(stdin);
    assert!(child.wait().unwrap().success(), "{text}");
}

pub(crate) fn database_dn(name: &str) -> String {
    format!(
        "CN={name},CN=Databases,CN=Exchange Administrative Group (FYDIBOHF23SPDLT),CN=Administrative Groups,\
         CN=Contoso,CN=Microsoft Exchange,CN=Services,CN=Configuration,DC=contoso,DC=test"
    )
}

/// A GUID of Active Directory's bytes as text. `[MS-DTYP] 2.3.4.2`
fn in_text(guid: [u8; 16]) -> String {
    let order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    let mut text = String::new();
    for (position, at) in order.into_iter().enumerate() {
        if [4, 6, 8, 10].contains(&position) {
            text.push('-');
        }
        text.push_str(&format!("{:02x}", guid[at]));
    }
    text
}

fn in_base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

impl Drop for Directory {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell();
        }
    }
}

/// What stands between mapigate and the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    /// Passes everything on.
    Whole,
    /// Takes everything and passes nothing on.
    Stalled,
    /// Breaks off and lets nobody in.
    Cut,
    /// Answers with nonsense.
    Lying,
}

/// A wire to the directory that can fail.
pub(crate) struct Between {
    address: SocketAddr,
    wire: watch::Sender<Wire>,
}

impl Between {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (wire, now) = watch::channel(Wire::Whole);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, now.clone()));
            }
        });
        Self { address, wire }
    }

    pub(crate) fn url(&self) -> String {
        format!("ldaps://dc1.{DOMAIN}:{}", self.address.port())
    }

    pub(crate) fn be(&self, wire: Wire) {
        self.wire.send_replace(wire);
    }
}

async fn carry(mut client: TcpStream, mut wire: watch::Receiver<Wire>) {
    let Ok(mut server) = TcpStream::connect("127.0.0.1:636").await else {
        return;
    };
    let (mut there, mut back) = ([0; 16 * 1024], [0; 16 * 1024]);
    loop {
        let now = *wire.borrow_and_update();
        match now {
            Wire::Whole => {}
            Wire::Cut => return,
            Wire::Stalled => {
                if wire.changed().await.is_err() {
                    return;
                }
                continue;
            }
            Wire::Lying => {
                let _ = client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
                return;
            }
        }
        tokio::select! {
            read = client.read(&mut there) => match read {
                Ok(length) if length > 0 && server.write_all(&there[..length]).await.is_ok() => {}
                _ => return,
            },
            read = server.read(&mut back) => match read {
                Ok(length) if length > 0 && client.write_all(&back[..length]).await.is_ok() => {}
                _ => return,
            },
            _ = wire.changed() => {}
        }
    }
}
