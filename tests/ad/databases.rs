//! Databases whose copies the directory tells: where requests go, and what happens when it tells something else.

use crate::lab::{DOMAIN, Lab};
use crate::ldap::{
    Between, Directory, Mailbox, SECRET, Wire, eventually, ldap, ldif, plan, start_planned,
};
use mapigate::lab::site::Plan;
use mapigate::lab::{Outlook, outlook};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const LDAPS: &str = "ldaps://dc1.contoso.test";

/// Databases and servers of one test alone, in a tree of their own beside that of the lab's Exchange.
struct Group {
    name: String,
}

impl Group {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let group = Self {
            name: format!("dbs-{}-{number}", std::process::id()),
        };
        for dn in [
            group.dn(),
            group.below("Databases"),
            group.below("Servers"),
            group.below("Others"),
        ] {
            add(&dn, "objectClass: msExchConfigurationContainer");
        }
        for name in ["MBX1", "MBX2"] {
            group.server(name, &format!("{}.{DOMAIN}", name.to_lowercase()));
        }
        group
    }

    fn dn(&self) -> String {
        format!("CN={},CN=Users,DC=contoso,DC=test", self.name)
    }

    fn below(&self, name: &str) -> String {
        format!("CN={name},{}", self.dn())
    }

    /// The DN of a database.
    fn database(&self, name: &str) -> String {
        format!("CN={name},{}", self.below("Databases"))
    }

    fn server(&self, name: &str, host: &str) {
        let dn = format!("CN={name},{}", self.below("Servers"));
        add(
            &dn,
            &format!("objectClass: msExchExchangeServer\nnetworkAddress: ncacn_ip_tcp:{host}"),
        );
    }

    /// Adds a database with copies on these servers, in this order.
    fn with(&self, name: &str, servers: &[&str]) {
        self.with_at(&self.database(name), servers);
    }

    fn with_at(&self, dn: &str, servers: &[&str]) {
        add(dn, "objectClass: msExchPrivateMDB");
        for (server, preference) in servers.iter().zip(1..) {
            self.copy(dn, server, preference);
        }
    }

    fn copy(&self, database: &str, server: &str, preference: u32) {
        let link = format!("CN={server},{}", self.below("Servers"));
        add(
            &format!("CN={server},{database}"),
            &format!(
                "objectClass: msExchMDBCopy\nmsExchActivationPreference: {preference}\nmsExchHostServerLink: {link}"
            ),
        );
    }

    fn prefer(&self, database: &str, server: &str, preference: u32) {
        ldif(&format!(
            "dn: CN={server},{}\nchangetype: modify\nreplace: msExchActivationPreference\n\
             msExchActivationPreference: {preference}\n-\n",
            self.database(database)
        ));
    }

    /// A user whose mailbox is in this database.
    fn user<'l>(&self, lab: &'l Lab, database: &str) -> Mailbox<'l> {
        let user = Mailbox::new(lab, "DB01");
        let dn = self.database(database);
        user.modify(&format!("replace: homeMDB\nhomeMDB: {dn}\n-\n"));
        user
    }

    /// What a site reads them by.
    fn ldap(&self, lab: &Lab, url: &str, more: &str) -> String {
        let copies = format!("    copies: {{ base: '{}' }}\n{more}", self.dn());
        ldap(lab, url, &copies)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _removed = Command::new("ldapdelete")
            .env("LDAPTLS_REQCERT", "never")
            .args(["-r", "-x", "-H", "ldaps://127.0.0.1:636"])
            .args(["-D", "administrator@contoso.test", "-w", "Adm1n.P@ss"])
            .arg(self.dn())
            .status();
    }
}

fn add(dn: &str, lines: &str) {
    ldif(&format!("dn: {dn}\nchangetype: add\n{lines}\n\n"));
}

fn remove(dn: &str) {
    ldif(&format!("dn: {dn}\nchangetype: delete\n\n"));
}

/// Two servers, MBX1 and MBX2, in front of which databases are as the directory tells.
fn told(ldap: &str) -> Plan {
    plan("backend", ldap).section("databases", "{ copies_from: directory }")
}

/// The same, with a file that says which copies are active.
fn with_file(ldap: &str) -> Plan {
    plan("backend", ldap)
        .section(
            "databases",
            "{ copies_from: directory, file: databases.yaml }",
        )
        .section("reload", "{ watch: true }")
}

impl Directory {
    /// Database and server of this user's next request; its status instead where it reaches none.
    async fn way(&self, user: &Mailbox<'_>) -> (String, String) {
        let got = self.ping(&user.credentials(), Some(&user.id())).await;
        let id = got.text.rsplit_once('(').map_or("", |(_, rest)| rest);
        let id = id.split(')').next().unwrap_or_default().to_owned();
        let line = match got.status {
            200 => {
                self.line(|line| line["status"] == 200 && line["user"] == user.upn())
                    .await
            }
            _ => self.line(|line| line["id"] == id.as_str()).await,
        };
        let word = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        match got.status {
            200 => (word("database"), word("server")),
            status => (status.to_string(), word("why")),
        }
    }

    /// Waits until requests of this user go there, and tells how long it took.
    async fn goes_to(&self, user: &Mailbox<'_>, server: &str) -> Duration {
        let began = Instant::now();
        eventually(&format!("requests go to {server}"), || async {
            self.way(user).await.1 == server
        })
        .await;
        began.elapsed()
    }

    async fn status_json(&self) -> serde_json::Value {
        self.site.gate().unwrap().admin().status().await.unwrap()
    }

    async fn differences(&self) -> Vec<String> {
        let status = self.status_json().await;
        let differences = status["copies"]["differences"].as_array().unwrap();
        let words = differences.iter().map(|one| one.as_str().unwrap());
        words.map(str::to_owned).collect()
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_mapigate"))
            .args(arguments)
            .current_dir(self.folder.path())
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr)
    }

    /// The file of active copies, written beside and moved, as a script does.
    fn write_databases(&self, text: &str) {
        let folder = self.folder.path();
        std::fs::write(folder.join("databases.new"), text).unwrap();
        std::fs::rename(folder.join("databases.new"), folder.join("databases.yaml")).unwrap();
    }
}

fn way(database: &str, server: &str) -> (String, String) {
    (database.to_owned(), server.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a domain controller: make test-ad"]
async fn requests_go_where_exchange_has_written_that_copies_are() {
    let lab = Lab::find();
    let (first, second) = (Mailbox::new(&lab, "DB01"), Mailbox::new(&lab, "DB02"));
    // No key says where to look: the Configuration partition is looked for.
    let site = start_planned(told(&ldap(&lab, LDAPS, ""))).await;

    assert_eq!(site.way(&first).await, way("DB01", "MBX1"));
    assert_eq!(site.way(&second).await, way("DB02", "MBX2"));
    let status = site.status_json().await;
    let databases = status["databases"].as_array().unwrap();
    let second = databases.iter().find(|one| one["name"] == "DB02").unwrap();
    assert_eq!(second["copies"], serde_json::json!(["MBX2", "MBX1"]));
    assert_eq!(second["source"], "directory");
    assert!(site.metric("copies_read_timestamp_seconds").await > 1e9);
    assert!(
        site.run(&["check", "--directory", "mapigate.yaml"])
            .contains(
                "is good: 1 listener, 1 name, 2 servers, 0 databases, and those of the directory"
            )
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a domain controller: make test-ad"]
async fn another_order_a_new_copy_and_one_that_is_removed_are_seen_in_time() {
    let (lab, group) = (Lab::find(), Group::new());
    group.with("dbs1", &["MBX1", "MBX2"]);
    group.with("dbs2", &["MBX2"]);
    let (moving, staying) = (group.user(&lab, "dbs1"), group.user(&lab, "dbs2"));
    let site = start_planned(told(&group.ldap(&lab, LDAPS, ""))).await;
    assert_eq!(site.way(&moving).await, way("dbs1", "MBX1"));
    assert_eq!(site.way(&staying).await, way("dbs2", "MBX2"));
    let epoch = site.metric("placement_epoch").await;

    group.prefer("dbs1", "MBX1", 3);
    let took = site.goes_to(&moving, "MBX2").await;
    eprintln!("another order of activation was followed after {took:?}");
    assert_eq!(site.metric("placement_epoch").await, epoch + 1.0);

    remove(&format!("CN=MBX2,{}", group.database("dbs1")));
    site.goes_to(&moving, "MBX1").await;

    group.copy(&group.database("dbs1"), "MBX2", 1);
    site.goes_to(&moving, "MBX2").await;
    assert_eq!(site.metric("placement_epoch").await, epoch + 3.0);
    assert_eq!(site.way(&staying).await, way("dbs2", "MBX2"));
    assert!(site.log().contains("databases moved"));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_held_poll_of_a_database_that_moves_ends_and_another_goes_on() {
    let (lab, group) = (Lab::find(), Group::new());
    group.with("dbs1", &["MBX1", "MBX2"]);
    group.with("dbs2", &["MBX1", "MBX2"]);
    let (moving, staying) = (group.user(&lab, "dbs1"), group.user(&lab, "dbs2"));
    let site = start_planned(told(&group.ldap(&lab, LDAPS, ""))).await;
    let outlook = |user: &Mailbox<'_>| {
        let target = site.site.target().unwrap();
        let options = outlook::Options::new(target, &user.upn(), SECRET, &user.id());
        Outlook::new(options)
    };
    let (moved, stayed) = (outlook(&moving), outlook(&staying));
    for outlook in [&moved, &stayed] {
        outlook.connect().await.unwrap();
        assert_eq!(
            outlook.execute(b"before").await.unwrap().served_by(),
            "MBX1"
        );
    }

    let first = site.site.server("MBX1").unwrap();
    let change = async {
        eventually("both polls are held", || async {
            first.counters().waits_held == 2
        })
        .await;
        group.prefer("dbs1", "MBX1", 3);
    };
    let until_held = async {
        tokio::select! {
            waited = stayed.notification_wait() => panic!("its database has not moved: {waited:?}"),
            (waited, ()) = async { tokio::join!(moved.notification_wait(), change) } => waited,
        }
    };
    let waited = until_held.await;

    assert!(
        matches!(waited, Err(outlook::Trouble::Code(10))),
        "{waited:?}"
    );
    assert_eq!(moved.execute(b"after").await.unwrap().served_by(), "MBX2");
    assert_eq!(stayed.execute(b"after").await.unwrap().served_by(), "MBX1");
    assert_eq!(stayed.counters().reconnects, 0);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a domain controller: make test-ad"]
async fn the_file_says_which_copy_is_active_and_may_list_a_database_as_a_whole() {
    let (lab, group) = (Lab::find(), Group::new());
    group.with("dbs1", &["MBX1", "MBX2"]);
    let user = group.user(&lab, "dbs1");
    // The site's own file lists a database that the directory does not know.
    let site = start_planned(with_file(&group.ldap(&lab, LDAPS, ""))).await;
    assert_eq!(site.way(&user).await, way("dbs1", "MBX1"));

    site.write_databases("databases: { DBS1: { active: MBX2 } }\n");
    let took = site.goes_to(&user, "MBX2").await;
    eprintln!("another active copy in the file was followed after {took:?}");
    let told = site.run(&["explain", &user.upn(), "--config", "mapigate.yaml"]);
    assert!(
        told.contains("on MBX1, MBX2; active on MBX2") && told.contains("databases.yaml which is"),
        "{told}"
    );

    site.write_databases("databases: {}\n");
    site.goes_to(&user, "MBX1").await;

    // What the directory says of it does not count any more.
    site.write_databases("databases: { dbs1: { copies: [MBX2] } }\n");
    site.goes_to(&user, "MBX2").await;
    group.prefer("dbs1", "MBX2", 9);
    let status = site.status_json().await;
    assert_eq!(status["databases"][0]["source"], "configuration");
    assert_eq!(
        status["databases"][0]["copies"],
        serde_json::json!(["MBX2"])
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_database_on_servers_of_others_is_refused_and_everybody_is_told_why() {
    let (lab, group) = (Lab::find(), Group::new());
    for name in ["EX8", "EX9"] {
        group.server(name, &format!("{}.elsewhere.test", name.to_lowercase()));
    }
    group.with("dbs1", &["EX9", "EX8"]);
    group.with("dbs2", &["EX9", "MBX2"]);
    // As databases of public folders and for recovery are: without copies, and no harm.
    group.with("dbs3", &[]);
    let (away, here) = (group.user(&lab, "dbs1"), group.user(&lab, "dbs2"));
    let site = start_planned(told(&group.ldap(&lab, LDAPS, ""))).await;

    assert_eq!(site.way(&here).await, way("dbs2", "MBX2"));
    let (status, why) = site.way(&away).await;
    assert_eq!(status, "503");
    assert!(
        why.contains("none of its copies is on a server of the configuration"),
        "{why}"
    );
    let homeless = "no copy of dbs1 is on a server of `servers`: its mailboxes cannot be reached";
    let left_out = "a copy of dbs2 is on EX9, which is not in `servers`";
    let differences = site.differences().await;
    assert_eq!(differences.len(), 4, "{differences:?}");
    for difference in [homeless, left_out] {
        assert!(differences.contains(&difference.to_owned()));
        for words in [
            site.run(&["check", "--directory", "mapigate.yaml"]),
            site.page_of_status().await,
        ] {
            assert!(words.contains(difference), "{words}");
        }
    }
    let told = site.run(&["explain", &away.upn(), "--config", "mapigate.yaml"]);
    assert!(told.contains("none of its copies is on"), "{told}");
    assert_eq!(site.metric("copies_left_out").await, 3.0);
    assert_eq!(site.metric("databases_left_out").await, 1.0);

    // Said once, however often the directory is read.
    site.reads(3).await;
    let log = site.log();
    assert_eq!(log.matches(left_out).count(), 1, "{log}");
    group.server("MBX9", "192.0.2.9");
    group.copy(&group.database("dbs1"), "MBX1", 5);
    site.goes_to(&away, "MBX1").await;
    assert_eq!(site.metric("databases_left_out").await, 0.0);
}

impl Directory {
    async fn page_of_status(&self) -> String {
        let admin = self.site.gate().unwrap().admin();
        admin.get("/").await.unwrap().text.replace("&#39;", "'")
    }

    /// Waits until the directory has been read so many times more.
    async fn reads(&self, times: u32) {
        for _ in 0..times {
            let before = self.metric("copies_read_timestamp_seconds").await;
            eventually("the directory is read again", || async {
                self.metric("copies_read_timestamp_seconds").await > before
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a domain controller: make test-ad"]
async fn names_that_are_renamed_escaped_or_twice_there_lead_nobody_astray() {
    let (lab, group) = (Lab::find(), Group::new());
    group.with("dbs1", &["MBX1"]);
    group.with(r"dbs\, \+2", &["MBX2"]);
    group.with("dbs3", &["MBX1"]);
    let users = ["dbs1", r"dbs\, \+2", "dbs3"].map(|name| group.user(&lab, name));
    let [renamed, escaped, twice] = &users;
    let site = start_planned(told(&group.ldap(&lab, LDAPS, ""))).await;
    assert_eq!(site.way(escaped).await, way("dbs, +2", "MBX2"));
    assert_eq!(site.way(renamed).await, way("dbs1", "MBX1"));
    assert_eq!(site.way(twice).await, way("dbs3", "MBX1"));

    ldif(&format!(
        "dn: {}\nchangetype: modrdn\nnewrdn: CN=dbs-new\ndeleteoldrdn: 1\n\n",
        group.database("dbs1")
    ));
    let other = format!("CN=dbs3,{}", group.below("Others"));
    group.with_at(&other, &["MBX2"]);

    eventually("the new name is followed", || async {
        site.way(renamed).await == way("dbs-new", "MBX1")
    })
    .await;
    eventually(
        "nobody can tell which of two databases is meant",
        || async {
            site.way(twice)
                .await
                .1
                .contains("several databases of the directory have this name")
        },
    )
    .await;
    remove(&format!("CN=MBX2,{other}"));
    site.goes_to(twice, "MBX1").await;
    assert_eq!(site.way(escaped).await, way("dbs, +2", "MBX2"));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_server_is_known_by_its_host_name_and_a_copy_on_a_removed_one_is_none() {
    let (lab, group) = (Lab::find(), Group::new());
    group.server("OLD", "old.contoso.test");
    // Another name than ours, and the host that is in the server's certificate.
    group.server("EXCHANGE-B", &format!("mbx2.{DOMAIN}"));
    remove(&format!("CN=MBX2,{}", group.below("Servers")));
    group.with("dbs1", &["OLD", "EXCHANGE-B", "MBX1"]);
    let user = group.user(&lab, "dbs1");
    let mut plan = told(&group.ldap(&lab, LDAPS, ""));
    plan.back_tls = true;
    let site = start_planned(plan).await;
    assert_eq!(site.way(&user).await, way("dbs1", "MBX2"));

    // Its copy stays behind, with a link to what is no more.
    remove(&format!("CN=EXCHANGE-B,{}", group.below("Servers")));

    site.goes_to(&user, "MBX1").await;
    remove(&format!("CN=OLD,{}", group.below("Servers")));
    eventually("no copy is told to be on it", || async {
        site.differences().await.is_empty()
    })
    .await;
    assert_eq!(site.way(&user).await, way("dbs1", "MBX1"));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a domain controller: make test-ad"]
async fn while_the_directory_is_silent_or_tells_nothing_databases_stay_where_they_are() {
    let (lab, group) = (Lab::find(), Group::new());
    group.with("dbs1", &["MBX1", "MBX2"]);
    let user = group.user(&lab, "dbs1");
    let between = Between::start().await;
    let brisk = "    connect_timeout: 500ms\n    operation_timeout: 500ms\n";
    let plan = told(&group.ldap(&lab, &between.url(), brisk));
    let site = start_planned(plan).await;
    assert_eq!(site.way(&user).await, way("dbs1", "MBX1"));

    for wire in [Wire::Cut, Wire::Stalled, Wire::Lying] {
        between.be(wire);
        eventually("the trouble is told", || async {
            site.status_json().await["copies"]["trouble"].is_string()
        })
        .await;
        assert_eq!(site.way(&user).await, way("dbs1", "MBX1"), "{wire:?}");
        let admin = site.site.gate().unwrap().admin();
        assert_eq!(admin.get("/ready").await.unwrap().status, 200);
        between.be(Wire::Whole);
        eventually("the trouble is over", || async {
            site.status_json().await["copies"]["trouble"].is_null()
        })
        .await;
    }
    assert!(site.log().contains("what is known of it stays"));

    // It answers, and has lost everything.
    for server in ["MBX1", "MBX2"] {
        remove(&format!("CN={server},{}", group.database("dbs1")));
    }
    eventually("the trouble is told", || async {
        let status = site.status_json().await;
        status["copies"]["trouble"] == "the directory tells of no copy of a database"
    })
    .await;
    assert_eq!(site.way(&user).await, way("dbs1", "MBX1"));
    group.copy(&group.database("dbs1"), "MBX2", 1);
    site.goes_to(&user, "MBX2").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_start_without_the_directory_waits_for_it_and_says_so() {
    let (lab, group) = (Lab::find(), Group::new());
    group.with("dbs1", &["MBX2"]);
    let user = group.user(&lab, "dbs1");
    let between = Between::start().await;
    let brisk = "    connect_timeout: 500ms\n    operation_timeout: 500ms\n";
    let plan = told(&group.ldap(&lab, &between.url(), brisk));
    let mut site = start_planned(plan).await;
    site.site.take_gate().unwrap().kill().unwrap();
    between.be(Wire::Cut);
    let log = site.folder.path().join("mapigate.log");
    std::fs::remove_file(&log).unwrap();

    let starting = site.site.start_gate(false);
    let waiting = async {
        let address = admin_address(&log).await;
        let mut words = String::new();
        eventually("it says what it waits for", || {
            words = get(&address, "/ready");
            let is_said = words.starts_with("HTTP/1.1 503") && words.contains(WAITS);
            async move { is_said }
        })
        .await;
        eventually("the reason is told", || {
            let is_told =
                get(&address, "/ready").contains("no server of the directory can be used");
            async move { is_told }
        })
        .await;
        assert!(get(&address, "/live").starts_with("HTTP/1.1 200"));
        between.be(Wire::Whole);
    };
    let (started, ()) = tokio::join!(starting, waiting);

    started.unwrap();
    assert_eq!(site.way(&user).await, way("dbs1", "MBX2"));
    assert!(site.log().contains("the directory has told where copies"));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a domain controller: make test-ad"]
async fn who_takes_over_knows_where_databases_are_or_leaves_the_running_process_in_service() {
    let (lab, group) = (Lab::find(), Group::new());
    group.with("dbs1", &["MBX2"]);
    let user = group.user(&lab, "dbs1");
    let between = Between::start().await;
    let brisk = "    connect_timeout: 500ms\n    operation_timeout: 500ms\n";
    let plan = told(&group.ldap(&lab, &between.url(), brisk));
    let site = start_planned(plan).await;
    between.be(Wire::Cut);

    let words = site.run(&["run", "--config", "mapigate.yaml", "--upgrade"]);

    assert!(
        words.contains("databases.copies_from: no server of the directory can be used"),
        "{words}"
    );
    between.be(Wire::Whole);
    site.goes_to(&user, "MBX2").await;
}

const WAITS: &str = "starting; the directory has not told yet where databases are";

/// The administrator's door of a process that is not ready, out of its log.
async fn admin_address(log: &std::path::Path) -> String {
    let mut address = None;
    eventually("the administrator's door is open", || {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        let line = text
            .lines()
            .find(|line| line.contains("admin address open"));
        address = line.and_then(|line| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            let found = line["address"]
                .as_str()
                .or(line["fields"]["address"].as_str());
            found.map(str::to_owned)
        });
        let is_there = address.is_some();
        async move { is_there }
    })
    .await;
    address.unwrap()
}

/// The whole answer, by curl: the site's own client waits until mapigate is ready.
fn get(address: &str, path: &str) -> String {
    let output = Command::new("curl")
        .args(["-sS", "-i", "--max-time", "5"])
        .arg(format!("http://{address}{path}"))
        .output()
        .expect("curl is needed");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
