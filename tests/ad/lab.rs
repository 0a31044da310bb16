//! The directory that `tests/ad/up.sh` brought up, as tests use it.
#![allow(
    dead_code,
    reason = "facts of the lab, of which every subject uses some"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

/// The Kerberos realm of the lab.
pub(crate) const REALM: &str = "CONTOSO.TEST";
/// The domain of its mail addresses.
pub(crate) const DOMAIN: &str = "contoso.test";
/// What Windows calls the domain.
pub(crate) const NETBIOS: &str = "CONTOSO";
/// The password of alice, bob and carol.
pub(crate) const PASSWORD: &str = "P@ssw0rd.1";

/// A running domain controller.
#[derive(Debug)]
pub(crate) struct Lab(PathBuf);

impl Lab {
    /// The lab that `make test-ad` has brought up.
    pub(crate) fn find() -> Self {
        let folder = std::env::var_os("MAPIGATE_AD_LAB").map(PathBuf::from);
        let folder = folder.expect(
            "MAPIGATE_AD_LAB names no folder of a running lab: run `make test-ad`, \
             or `tests/ad/up.sh FOLDER` and set it to that folder",
        );
        assert!(
            folder.join("krb5.conf").exists(),
            "{} holds no lab: run `tests/ad/up.sh {0}`",
            folder.display()
        );
        let conf = std::env::var_os("KRB5_CONFIG").map(PathBuf::from);
        assert!(
            conf.is_some_and(|conf| conf == folder.join("krb5.conf")),
            "KRB5_CONFIG is not {}: run `make test-ad`, or set it so that tests find the lab's domain controller",
            folder.join("krb5.conf").display()
        );
        Self(folder)
    }

    /// A file of the lab: `krb5.conf`, `mail.keytab`, `mbx.keytab`, `tls/ca.pem`, `etc/smb.conf` and others.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Where Kerberos programs find the realm: one variable of their environment.
    pub(crate) fn environment(&self) -> (String, String) {
        let path = self.path("krb5.conf").display().to_string();
        ("KRB5_CONFIG".to_owned(), path)
    }

    /// Administers the domain; `arguments` as for `samba-tool`.
    pub(crate) fn tool(&self, arguments: &[&str]) -> Output {
        let conf = self.path("etc/smb.conf");
        let output = Command::new("samba-tool")
            .args(arguments)
            .arg(format!("--configfile={}", conf.display()))
            .output()
            .expect("samba-tool runs");
        assert!(
            output.status.success(),
            "samba-tool {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        output
    }

    /// A user of this test alone, whose account goes with it.
    pub(crate) fn user(&self, password: &str) -> LabUser<'_> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        self.user_called(&format!("t{}x{number}", std::process::id()), password)
    }

    /// The same by a name that no other test gives.
    pub(crate) fn user_called(&self, name: &str, password: &str) -> LabUser<'_> {
        let name = name.to_owned();
        // What a test that was broken off has left.
        self.delete(&name);
        self.tool(&["user", "create", &name, password]);
        LabUser { lab: self, name }
    }

    fn delete(&self, name: &str) {
        let conf = self.path("etc/smb.conf");
        // It matters to nobody but a later reader of the list of users.
        let _gone = Command::new("samba-tool")
            .args(["user", "delete", name])
            .arg(format!("--configfile={}", conf.display()))
            .output();
    }

    /// An account of this test alone that accepts tickets for a host of its own, and may delegate to `to` whoever
    /// came to it with a ticket, and nobody else. Its keys are written into `folder`.
    pub(crate) fn service(&self, to: &str, folder: &Path) -> LabService<'_> {
        let account = self.user("a service, and nobody logs on with this");
        let name = account.name.clone();
        let host = format!("{name}.{DOMAIN}");
        self.tool(&["spn", "add", &format!("HTTP/{host}"), &name]);
        self.tool(&["delegation", "add-service", &name, to]);
        let keytab = folder.join(format!("{name}.keytab"));
        let path = keytab.display().to_string();
        for principal in [name, format!("HTTP/{host}")] {
            let principal = format!("--principal={principal}");
            self.tool(&["domain", "exportkeytab", &path, &principal]);
        }
        LabService {
            account,
            host,
            keytab,
        }
    }

    /// Logs on as `name` and keeps the tickets in this file.
    pub(crate) fn log_on(&self, name: &str, password: &str, tickets: &Path) {
        self.log_on_with(&[], name, password, tickets);
    }

    /// The same with words for `kinit`.
    pub(crate) fn log_on_with(&self, words: &[&str], name: &str, password: &str, tickets: &Path) {
        use std::io::Write as _;
        let mut child = Command::new("kinit")
            .env("KRB5_CONFIG", self.path("krb5.conf"))
            .args(words)
            .arg("-c")
            .arg(format!("FILE:{}", tickets.display()))
            .arg(format!("{name}@{REALM}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("kinit runs");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(password.as_bytes()).unwrap();
        drop(stdin);
        let status = child.wait().unwrap();
        assert!(status.success(), "kinit {name}: {status}");
    }
}

/// Somebody in so many groups that have come from another domain: each is 40 bytes of a ticket, as after a merger of
/// firms. `[MS-PAC] 2.2.1`
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member {
    /// The account's name.
    pub(crate) name: &'static str,
    groups: usize,
}

/// More groups than Windows lets anybody log on with, in a ticket of about 48,000 bytes, which is as much as it takes.
pub(crate) const OF_1120: Member = Member {
    name: "member1120",
    groups: 1120,
};
/// In a ticket of more than 64 KiB.
pub(crate) const OF_1700: Member = Member {
    name: "member1700",
    groups: 1700,
};

impl Lab {
    /// Makes the two who are in very many groups, where they are not there yet. The groups stay, and nobody minds them.
    pub(crate) fn enrol_members(&self) {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            let known = self.database("ldbsearch", &["sAMAccountName=many1699"], "");
            if !known.contains("\ndn: ") {
                self.add_members();
            }
        });
    }

    fn add_members(&self) {
        let members = [OF_1120, OF_1700];
        for member in members {
            self.tool(&["user", "create", member.name, PASSWORD]);
        }
        let mut ldif = String::new();
        for number in 0..OF_1700.groups {
            ldif.push_str(&format!(
                "dn: CN=many{number},CN=Users,DC=contoso,DC=test\nobjectClass: group\nsAMAccountName: many{number}\n\
                 groupType: -2147483640\n\
                 objectSid: S-1-5-21-1111111111-2222222222-3333333333-{}\n",
                100_000 + number
            ));
            for Member { name, groups } in members {
                if number < groups {
                    ldif.push_str(&format!("member: CN={name},CN=Users,DC=contoso,DC=test\n"));
                }
            }
            ldif.push('\n');
        }
        // An identifier of another domain is for those who have stood in for it.
        self.database("ldbadd", &["--controls=relax:0"], &ldif);
    }

    /// Works on the directory's own file; one transaction, and so a second or two for a thousand entries.
    fn database(&self, program: &str, words: &[&str], input: &str) -> String {
        use std::io::Write as _;
        let mut child = Command::new(program)
            .arg("-H")
            .arg(self.path("private/sam.ldb"))
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("ldb-tools are needed");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(input.as_bytes()).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{program} {words:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

/// A user that one test made.
#[derive(Debug)]
pub(crate) struct LabUser<'a> {
    lab: &'a Lab,
    /// The account's name, without a domain.
    pub(crate) name: String,
}

impl Drop for LabUser<'_> {
    fn drop(&mut self) {
        self.lab.delete(&self.name);
    }
}

/// A service that one test made.
#[derive(Debug)]
pub(crate) struct LabService<'a> {
    /// Its account.
    pub(crate) account: LabUser<'a>,
    /// The host whose tickets it takes.
    pub(crate) host: String,
    /// The file with its keys, the account's own first.
    pub(crate) keytab: PathBuf,
}
