//! The directory service: who may log on, whose mailbox is where, and what happens when it does not answer.

use crate::lab::{DOMAIN, Lab, LabUser};
use mapigate::ids::UserName;
use mapigate::lab::mailbox_server::{Service, Users};
use mapigate::lab::site::{HOST, Plan, Site};
use mapigate::mapi::Flavour;
use std::future::Future;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
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
    let folder = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_mapigate"));
    match Site::start(program, folder.path(), plan).await {
        Ok(site) => Directory { site, folder },
        Err(error) => panic!("{error:#}"),
    }
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
    took: Duration,
}

impl Got {
    /// The answer without what differs from answer to answer.
    fn words(&self) -> &str {
        // The number of the request stands in brackets at the end.
        self.text.rsplit_once('(').unwrap().0
    }
}

impl Directory {
    /// A PING of this user for this mailbox, or for the user's own, by curl.
    pub(crate) async fn ping(&self, credentials: &str, mailbox: Option<&str>) -> Got {
        let address = self.site.gate().unwrap().address();
        let query = mailbox.map_or_else(String::new, |id| format!("?MailboxId={id}"));
        let url = format!("https://{HOST}:{}/mapi/emsmdb/{query}", address.port());
        let began = Instant::now();
        let output = Command::new("curl")
            .args(["-sS", "-i", "--max-time", "30", "--cacert", "ca.pem"])
            .args([
                "--resolve",
                &format!("{HOST}:{}:{}", address.port(), address.ip()),
            ])
            .args(["--basic", "-u", credentials, "-X", "POST", "-d", ""])
            .args(["-H", "Content-Type: application/mapi-http"])
            .args(["-H", "X-RequestType: PING", "-H", "X-ClientInfo: {c}:1"])
            .args([
                "-H",
                "X-RequestId: {00000000-0000-4000-8000-000000000000}:1",
            ])
            .args(["-H", "X-ClientApplication: Outlook/16.0.0.0"])
            .arg(url)
            .current_dir(self.folder.path())
            .kill_on_drop(true)
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
    async fn page(&self, credentials: &str, path: &str) -> (u16, String) {
        self.page_with(credentials, path, &[]).await
    }

    /// The same with more words to curl.
    pub(crate) async fn page_with(
        &self,
        credentials: &str,
        path: &str,
        words: &[&str],
    ) -> (u16, String) {
        let address = self.site.gate().unwrap().address();
        let output = Command::new("curl")
            .args(["-sS", "-w", "\n%{http_code}", "--cacert", "ca.pem"])
            .args(["--max-time", "30", "--basic", "-u", credentials])
            .args(words)
            .args([
                "--resolve",
                &format!("{HOST}:{}:{}", address.port(), address.ip()),
            ])
            .arg(format!("https://{HOST}:{}{path}", address.port()))
            .current_dir(self.folder.path())
            .kill_on_drop(true)
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

    async fn becomes(&self, status: u16, credentials: &str, mailbox: Option<&str>) {
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
    async fn work(&self) -> [f64; 2] {
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

fn database_dn(name: &str) -> String {
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

pub(crate) async fn eventually<F: Future<Output = bool>>(
    what: &str,
    mut is_true: impl FnMut() -> F,
) {
    let until = Instant::now() + Duration::from_secs(20);
    while !is_true().await {
        assert!(Instant::now() < until, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
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

const LDAPS: &str = "ldaps://dc1.contoso.test";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_password_of_the_domain_opens_the_users_own_mailbox() {
    let lab = Lab::find();
    let user = Mailbox::new(&lab, "DB01");
    let site = start(&lab, "listed", &ldap(&lab, LDAPS, "")).await;
    let name = &user.user.name;

    for login in [
        user.upn(),
        name.clone(),
        name.to_uppercase(),
        format!("{name}.alias@{DOMAIN}"),
        format!(r"CONTOSO\{name}"),
    ] {
        let credentials = format!("{login}:{SECRET}");
        assert_eq!(
            site.status(&credentials, Some(&user.id())).await,
            200,
            "{login}"
        );
    }
    // Without a mailbox in the URL it is the user's own.
    site.ping(&user.credentials(), None).await;
    let own = site.line(|line| line["status"] == 400).await;
    assert_eq!(
        (&own["database"], &own["server"]),
        (&"DB01".into(), &"MBX1".into())
    );
    // One user, whatever the name.
    let line = site.line(|line| line["status"] == 200).await;
    assert_eq!(line["user"], user.upn());
    assert_eq!(line["database"], "DB01");
    assert_eq!(line["server"], "MBX1");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_wrong_password_reads_like_an_unknown_user_and_costs_the_same() {
    let lab = Lab::find();
    let user = Mailbox::new(&lab, "DB01");
    let site = start(&lab, "backend", &ldap(&lab, LDAPS, "")).await;
    // Its entry is remembered from here on, which must not show.
    assert_eq!(
        site.status(&user.credentials(), Some(&user.id())).await,
        200
    );

    let before = site.work().await;
    let wrong = site
        .ping(&format!("{}:wrong", user.upn()), Some(&user.id()))
        .await;
    let between = site.work().await;
    let unknown = site
        .ping(&format!("nobody.at.all@{DOMAIN}:wrong"), Some(&user.id()))
        .await;
    let after = site.work().await;

    assert_eq!((wrong.status, unknown.status), (401, 401));
    assert_eq!(wrong.words(), unknown.words());
    let cost = |from: [f64; 2], to: [f64; 2]| [to[0] - from[0], to[1] - from[1]];
    assert_eq!(cost(before, between), [1.0, 1.0], "one search, one bind");
    assert_eq!(cost(between, after), cost(before, between));
    // Only the operator learns more.
    let line = site
        .line(|line| line["why"].to_string().contains("52e"))
        .await;
    assert_eq!(line["status"], 401);
    assert!(!wrong.text.contains("52e"));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a domain controller: make test-ad"]
async fn an_empty_password_never_reaches_the_directory() {
    let lab = Lab::find();
    let user = Mailbox::new(&lab, "DB01");
    let site = start(&lab, "backend", &ldap(&lab, LDAPS, "")).await;

    let got = site
        .ping(&format!("{}:", user.upn()), Some(&user.id()))
        .await;

    assert_eq!(got.status, 401);
    assert_eq!(site.work().await, [0.0, 0.0]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a domain controller: make test-ad"]
async fn only_the_owner_and_the_delegates_of_the_directory_open_a_mailbox() {
    let lab = Lab::find();
    let [owner, delegate, stranger] = [(); 3].map(|()| Mailbox::new(&lab, "DB02"));
    owner.modify(&format!(
        "add: secretary\nsecretary: {}\n-\n",
        delegate.dn()
    ));
    let site = start(&lab, "listed", &ldap(&lab, LDAPS, "")).await;
    let id = owner.id();

    assert_eq!(site.status(&owner.credentials(), Some(&id)).await, 200);
    assert_eq!(site.status(&delegate.credentials(), Some(&id)).await, 200);
    assert_eq!(site.status(&stranger.credentials(), Some(&id)).await, 403);
    assert_eq!(
        site.status(&owner.credentials(), Some(&delegate.id()))
            .await,
        403
    );
    let nobody = format!("00000000-0000-4000-8000-000000000001@{DOMAIN}");
    assert_eq!(site.status(&owner.credentials(), Some(&nobody)).await, 404);

    // Who is no delegate any more is out in time.
    owner.modify(&format!(
        "delete: secretary\nsecretary: {}\n-\n",
        delegate.dn()
    ));
    site.becomes(403, &delegate.credentials(), Some(&id)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a domain controller: make test-ad"]
async fn below_other_directories_an_address_in_the_path_leads_to_its_mailbox_for_who_may_open_it() {
    let lab = Lab::find();
    let (owner, delegate) = (Mailbox::new(&lab, "DB02"), Mailbox::new(&lab, "DB01"));
    owner.modify(&format!(
        "add: secretary\nsecretary: {}\n-\n",
        delegate.dn()
    ));
    let plan = plan("listed", &ldap(&lab, LDAPS, ""))
        .section("virtual_directories", "{ preset: exchange2019 }");
    let site = start_planned(plan).await;
    let served = |(status, words): (u16, String)| {
        let word = |name: &str| {
            let mut all = words.split(' ');
            all.find_map(|word| word.strip_prefix(name).map(str::to_owned))
        };
        (status, word("server="), word("user="))
    };
    let by = |server: &str, user: &Mailbox<'_>| (200, Some(server.to_owned()), Some(user.upn()));
    let name = &owner.user.name;

    let own = site.page(&delegate.credentials(), "/ews/x").await;
    assert_eq!(served(own), by("MBX1", &delegate));
    for address in [owner.upn(), format!("{name}.alias@{DOMAIN}"), owner.id()] {
        let path = format!("/owa/{address}/");
        let page = site.page(&delegate.credentials(), &path).await;
        assert_eq!(served(page), by("MBX2", &delegate), "{address}");
        let page = site.page(&owner.credentials(), &path).await;
        assert_eq!(served(page), by("MBX2", &owner), "{address}");
    }
    let path = format!("/owa/{}/", delegate.upn());
    assert_eq!(site.page(&owner.credentials(), &path).await.0, 403);
    let path = format!("/owa/nobody.at.all@{DOMAIN}/");
    assert_eq!(site.page(&owner.credentials(), &path).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_mailbox_that_moves_to_another_database_is_followed() {
    let lab = Lab::find();
    let user = Mailbox::new(&lab, "DB01");
    let site = start(&lab, "backend", &ldap(&lab, LDAPS, "")).await;
    let (credentials, id) = (user.credentials(), user.id());
    assert_eq!(site.status(&credentials, Some(&id)).await, 200);
    assert_eq!(
        site.line(|line| line["status"] == 200).await["server"],
        "MBX1"
    );

    user.modify(&format!(
        "replace: homeMDB\nhomeMDB: {}\n-\n",
        database_dn("DB02")
    ));

    eventually("the new database is asked", || async {
        site.status(&credentials, Some(&id)).await;
        let line = site.line(|line| line["status"] == 200).await;
        line["database"] == "DB02" && line["server"] == "MBX2"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_changed_password_ends_the_old_one_in_time() {
    let lab = Lab::find();
    let user = Mailbox::new(&lab, "DB01");
    let site = start(&lab, "backend", &ldap(&lab, LDAPS, "")).await;
    let (old, id) = (user.credentials(), user.id());
    let new = format!("{}:another Secret 2", user.upn());
    assert_eq!(site.status(&old, Some(&id)).await, 200);
    let binds = site.work().await[1];
    assert_eq!(site.status(&old, Some(&id)).await, 200);
    assert_eq!(site.work().await[1], binds, "remembered");

    lab.tool(&[
        "user",
        "setpassword",
        &user.user.name,
        "--newpassword=another Secret 2",
    ]);

    let changed = Instant::now();
    site.becomes(401, &old, Some(&id)).await;
    eprintln!("the old password was refused after {:?}", changed.elapsed());
    site.becomes(200, &new, Some(&id)).await;
    assert!(site.metric("directory_revocations_total").await >= 1.0);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_disabled_user_is_out_in_time() {
    let lab = Lab::find();
    let [user, other] = [(); 2].map(|()| Mailbox::new(&lab, "DB01"));
    let site = start(&lab, "backend", &ldap(&lab, LDAPS, "")).await;
    for user in [&user, &other] {
        assert_eq!(
            site.status(&user.credentials(), Some(&user.id())).await,
            200
        );
    }

    lab.tool(&["user", "disable", &user.user.name]);

    let disabled = Instant::now();
    site.becomes(401, &user.credentials(), Some(&user.id()))
        .await;
    eprintln!("the disabled user was out after {:?}", disabled.elapsed());
    assert_eq!(
        site.status(&other.credentials(), Some(&other.id())).await,
        200
    );
    // Its mailbox stays for whom the mailbox server lets in.
    assert_eq!(
        site.status(&other.credentials(), Some(&user.id())).await,
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a domain controller: make test-ad"]
async fn without_the_directory_who_is_known_works_on_and_nobody_loses_a_password() {
    let lab = Lab::find();
    let [known, new] = [(); 2].map(|()| Mailbox::new(&lab, "DB01"));
    let between = Between::start().await;
    let brisk =
        "    connect_timeout: 500ms\n    operation_timeout: 500ms\n    cache: { ttl: 1s }\n";
    let site = start(&lab, "listed", &ldap(&lab, &between.url(), brisk)).await;
    assert_eq!(
        site.status(&known.credentials(), Some(&known.id())).await,
        200
    );

    for wire in [Wire::Cut, Wire::Stalled, Wire::Lying] {
        between.be(wire);
        // Longer than entries are believed without asking again.
        let until = Instant::now() + Duration::from_secs(2);
        while Instant::now() < until {
            let got = site.ping(&known.credentials(), Some(&known.id())).await;
            assert_eq!(got.status, 200, "{wire:?}: {}", got.text);
        }
        let got = site.ping(&new.credentials(), Some(&new.id())).await;
        assert_eq!(got.status, 503, "{wire:?}");
        assert!(
            got.text.contains("The directory is not available"),
            "{}",
            got.text
        );
        assert!(got.text.to_ascii_lowercase().contains("retry-after: 5"));
        assert!(got.took < Duration::from_secs(5), "{:?}", got.took);

        between.be(Wire::Whole);
        site.becomes(200, &new.credentials(), Some(&new.id())).await;
        // So that the new one is unknown again.
        site.site
            .gate()
            .unwrap()
            .admin()
            .post("/revoke")
            .await
            .unwrap();
        assert_eq!(
            site.status(&known.credentials(), Some(&known.id())).await,
            200
        );
    }
    assert!(site.log().contains("directory server cannot be used"));
    assert!(site.log().contains("directory server answers again"));
    assert!(
        site.metric("directory_looks_total{outcome=\"stale\"}")
            .await
            >= 1.0
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_directory_that_stalls_holds_up_only_who_needs_it() {
    let lab = Lab::find();
    let [known, new] = [(); 2].map(|()| Mailbox::new(&lab, "DB01"));
    let between = Between::start().await;
    let patient = "    operation_timeout: 2s\n";
    let site = start(&lab, "backend", &ldap(&lab, &between.url(), patient)).await;
    let (credentials, id) = (known.credentials(), known.id());
    assert_eq!(site.status(&credentials, Some(&id)).await, 200);
    between.be(Wire::Stalled);

    let (new_credentials, new_id) = (new.credentials(), new.id());
    let waiting = site.ping(&new_credentials, Some(&new_id));
    let meanwhile = async {
        let mut slowest = Duration::ZERO;
        for _ in 0..20 {
            let got = site.ping(&credentials, Some(&id)).await;
            assert_eq!(got.status, 200);
            slowest = slowest.max(got.took);
        }
        slowest
    };
    let (waiting, slowest) = tokio::join!(waiting, meanwhile);

    assert_eq!(waiting.status, 503);
    assert!(waiting.took >= Duration::from_secs(1), "{:?}", waiting.took);
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_server_of_the_directory_that_is_gone_is_passed_over() {
    let lab = Lab::find();
    let user = Mailbox::new(&lab, "DB01");
    let between = Between::start().await;
    let both = format!("{}\", \"{LDAPS}", between.url());
    let site = start(&lab, "backend", &ldap(&lab, &both, "")).await;
    assert_eq!(
        site.status(&user.credentials(), Some(&user.id())).await,
        200
    );

    between.be(Wire::Cut);

    let wrong = format!("{}:wrong", user.upn());
    assert_eq!(site.status(&wrong, Some(&user.id())).await, 401);
    assert_eq!(
        site.status(&user.credentials(), Some(&user.id())).await,
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_directory_that_cannot_prove_itself_gets_no_password() {
    let lab = Lab::find();
    let user = Mailbox::new(&lab, "DB01");
    // The certificate of the site's own authority, which the directory knows nothing of.
    let stranger =
        ldap(&lab, LDAPS, "").replace(&lab.path("tls/ca.pem").display().to_string(), "ca.pem");
    let site = start(&lab, "backend", &stranger).await;

    let got = site.ping(&user.credentials(), Some(&user.id())).await;

    assert_eq!(got.status, 503);
    assert_eq!(site.work().await, [0.0, 0.0]);
    assert!(site.log().contains("UnknownIssuer"), "{}", site.log());
    assert!(!site.log().contains(SECRET) && !site.log().contains("svc-ldap@"));
}
