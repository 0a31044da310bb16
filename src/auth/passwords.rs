//! The password file: who has an account, and which hash proves it.

use super::method::serial;
use super::names;
use crate::ids::UserName;
use argon2::{Argon2, PasswordHash, PasswordVerifier};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use zeroize::Zeroizing;

/// The accounts of a password file in htpasswd form, one `user:hash` a line.
///
/// Only bcrypt (`$2a$`, `$2b$`, `$2y$`) and argon2id hashes are read. Empty lines and lines that begin
/// with `#` are passed over.
#[derive(Debug)]
pub struct Passwords {
    accounts: HashMap<UserName, Arc<Account>>,
    /// The same accounts in the order of the file, for [`Self::stand_in`].
    in_order: Vec<Arc<Account>>,
    serial: u64,
}

/// Something wrong with a password file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasswordProblem {
    /// The line, counted from 1; 0 where the whole file is meant.
    pub line: usize,
    /// What is wrong; never a hash or a password.
    pub what: String,
    /// What to do about it.
    pub cure: String,
}

/// Reads a password file. Blocks on the disk.
///
/// `default_domain` completes names without a domain, as it does for those who log in.
pub fn read(path: &Path, default_domain: Option<&str>) -> Result<Passwords, Vec<PasswordProblem>> {
    let whole_file = |what: String, cure: &str| {
        vec![PasswordProblem {
            line: 0,
            what,
            cure: cure.to_owned(),
        }]
    };
    let size = std::fs::metadata(path).map_or(0, |facts| facts.len());
    if size > FILE_BYTES_MAX {
        return Err(whole_file(
            format!("the file has {size} bytes, more than {FILE_BYTES_MAX}"),
            "name the password file, or split the site",
        ));
    }
    let bytes = std::fs::read(path).map(Zeroizing::new).map_err(|cause| {
        whole_file(
            format!("the file cannot be read: {cause}"),
            "create it with `htpasswd -B -c FILE USER` and let this service read it",
        )
    })?;
    parse(&bytes, default_domain)
}

/// Reads the text of a password file; reports every problem of it, up to [`PROBLEMS_MAX`].
pub fn parse(text: &[u8], default_domain: Option<&str>) -> Result<Passwords, Vec<PasswordProblem>> {
    let mut in_order = Vec::new();
    let mut accounts: HashMap<UserName, Arc<Account>> = HashMap::new();
    let mut lines: HashMap<UserName, usize> = HashMap::new();
    let mut problems = Vec::new();
    for (number, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let number = number + 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.trim_ascii().is_empty() || line.starts_with(b"#") {
            continue;
        }
        if problems.len() >= PROBLEMS_MAX {
            break;
        }
        let mut problem = |what: String, cure: String| {
            problems.push(PasswordProblem {
                line: number,
                what,
                cure,
            });
        };
        let (user, hash) = match account_of(line, default_domain) {
            Ok(account) => account,
            Err((what, cure)) => {
                problem(what, cure);
                continue;
            }
        };
        match lines.entry(user.clone()) {
            Entry::Occupied(first) => problem(
                format!("{user} is already on line {}", first.get()),
                "keep one of the two lines".to_owned(),
            ),
            Entry::Vacant(free) => {
                free.insert(number);
                let account = Arc::new(Account {
                    user: user.clone(),
                    hash,
                    serial: serial(),
                });
                in_order.push(Arc::clone(&account));
                accounts.insert(user, account);
            }
        }
    }
    if problems.is_empty() {
        Ok(Passwords {
            accounts,
            in_order,
            serial: serial(),
        })
    } else {
        Err(problems)
    }
}

impl Passwords {
    /// The account of a canonical name.
    pub(super) fn account(&self, user: &UserName) -> Option<&Arc<Account>> {
        self.accounts.get(user)
    }

    /// An account whose hash is computed for a name that has none, so that the time it takes tells
    /// nothing: names without an account meet the same mixture of costs as those with one. `lot` picks
    /// it, and must be the same each time for the same name.
    pub(super) fn stand_in(&self, lot: u64) -> Option<&Arc<Account>> {
        let count = u64::try_from(self.in_order.len()).ok()?;
        let position = usize::try_from(lot.checked_rem(count)?).ok()?;
        self.in_order.get(position)
    }

    /// Distinguishes one reading of the file from another with other accounts.
    pub(super) fn serial(&self) -> u64 {
        self.serial
    }

    /// How many accounts there are.
    pub fn len(&self) -> usize {
        self.in_order.len()
    }

    /// True for a file without accounts.
    pub fn is_empty(&self) -> bool {
        self.in_order.is_empty()
    }

    /// Takes over from `earlier` every account that did not change, so that what is believed about it
    /// goes on. Nothing changed at all: `earlier` itself.
    pub(super) fn succeed(mut self, earlier: &Arc<Self>) -> Arc<Self> {
        let mut kept = 0;
        for account in &mut self.in_order {
            if let Some(known) = earlier.accounts.get(&account.user)
                && known.hash == account.hash
            {
                *account = Arc::clone(known);
                self.accounts
                    .insert(account.user.clone(), Arc::clone(known));
                kept += 1;
            }
        }
        if kept == self.len() && kept == earlier.len() {
            return Arc::clone(earlier);
        }
        Arc::new(self)
    }
}

/// One line of the file. As long as the line stays as it is, reloads keep the same account.
pub(super) struct Account {
    pub(super) user: UserName,
    hash: Hash,
    serial: u64,
}

impl Account {
    /// Whether the password is this account's. Takes milliseconds of CPU: never on a worker thread.
    pub(super) fn proves(&self, password: &[u8]) -> bool {
        self.hash.matches(password)
    }

    /// Distinguishes it from every other account, and from the same user's with another hash.
    pub(super) fn serial(&self) -> u64 {
        self.serial
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Account({}, …)", self.user)
    }
}

/// A password hash that was found well formed and affordable.
#[derive(PartialEq, Eq)]
enum Hash {
    Bcrypt(Box<str>),
    Argon2id(Box<str>),
}

impl Hash {
    fn matches(&self, password: &[u8]) -> bool {
        match self {
            Self::Bcrypt(text) => bcrypt::verify(password, text).unwrap_or(false),
            Self::Argon2id(text) => PasswordHash::new(text)
                .is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok()),
        }
    }
}

/// Spends the time of a verification where there is no account to stand in; proves nothing.
pub(super) fn spend_time(password: &[u8]) -> bool {
    let _ = bcrypt::verify(password, EMPTY_FILE_HASH);
    false
}

type Wrong = (String, String);

fn account_of(line: &[u8], default_domain: Option<&str>) -> Result<(UserName, Hash), Wrong> {
    let text = std::str::from_utf8(line).map_err(|_not_text| {
        wrong(
            "the line is not UTF-8",
            "write the name in UTF-8 and the hash in ASCII",
        )
    })?;
    let (name, hash) = text.split_once(':').ok_or_else(|| {
        wrong(
            "the line has no colon",
            "write `user:hash`, as `htpasswd -B FILE USER` does",
        )
    })?;
    let user = names::canonical(name, default_domain).ok_or_else(|| {
        wrong(
            "the user name is empty, too long, or has spaces or control characters",
            "write `user`, `user@domain` or `DOMAIN\\user` before the colon",
        )
    })?;
    let hash = hash_of(hash.trim_ascii_end()).map_err(|what| {
        (
            format!("{user}: {what}"),
            format!("set the password again: htpasswd -B FILE '{name}'"),
        )
    })?;
    Ok((user, hash))
}

fn wrong(what: &str, cure: &str) -> Wrong {
    (what.to_owned(), cure.to_owned())
}

fn hash_of(text: &str) -> Result<Hash, String> {
    if ["$2a$", "$2b$", "$2y$"].iter().any(|p| text.starts_with(p)) {
        return bcrypt_of(text);
    }
    if text.starts_with("$argon2id$") {
        return argon2id_of(text);
    }
    let kind = FOREIGN_HASHES
        .iter()
        .find(|(start, _)| text.starts_with(start))
        .map_or("neither bcrypt nor argon2id", |(_, kind)| kind);
    Err(format!(
        "the hash is {kind}; only bcrypt and argon2id are read"
    ))
}

fn bcrypt_of(text: &str) -> Result<Hash, String> {
    let parts: bcrypt::HashParts = text
        .parse()
        .map_err(|cause| format!("the bcrypt hash is damaged: {cause}"))?;
    let cost = parts.get_cost();
    if !BCRYPT_COSTS.contains(&cost) {
        let (least, most) = (BCRYPT_COSTS.start(), BCRYPT_COSTS.end());
        return Err(format!(
            "the bcrypt cost is {cost}; {least} to {most} are accepted"
        ));
    }
    Ok(Hash::Bcrypt(text.into()))
}

fn argon2id_of(text: &str) -> Result<Hash, String> {
    let damaged = |cause: &dyn fmt::Display| format!("the argon2id hash is damaged: {cause}");
    let hash = PasswordHash::new(text).map_err(|cause| damaged(&cause))?;
    if hash.salt.is_none() || hash.hash.is_none() {
        return Err(damaged(&"salt or hash missing"));
    }
    let costs = argon2::Params::try_from(&hash).map_err(|cause| damaged(&cause))?;
    let work = u64::from(costs.m_cost()) * u64::from(costs.t_cost());
    if costs.m_cost() > ARGON2_KIB_MAX || work > ARGON2_KIB_PASSES_MAX {
        return Err(format!(
            "the argon2id hash costs {} KiB and {} passes, more than one login may",
            costs.m_cost(),
            costs.t_cost()
        ));
    }
    Ok(Hash::Argon2id(text.into()))
}

/// Problems reported at once; a file with more is the wrong file.
pub const PROBLEMS_MAX: usize = 100;

const FILE_BYTES_MAX: u64 = 256 << 20;

/// From bcrypt's own minimum to some five seconds of CPU.
const BCRYPT_COSTS: std::ops::RangeInclusive<u32> = 4..=16;

/// Memory of one verification; several run at once.
const ARGON2_KIB_MAX: u32 = 256 << 10;

/// Memory times passes: about two seconds of CPU.
const ARGON2_KIB_PASSES_MAX: u64 = 2 << 20;

/// Nobody's password at the cost `htpasswd` and most tools choose today.
const EMPTY_FILE_HASH: &str = "$2y$10$abcdefghijklmnopqrstuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuu";

const FOREIGN_HASHES: &[(&str, &str)] = &[
    ("$apr1$", "MD5 (apr1)"),
    ("$1$", "MD5 (crypt)"),
    ("{SHA}", "unsalted SHA-1"),
    ("{SSHA}", "SHA-1"),
    ("$5$", "SHA-256 (crypt)"),
    ("$6$", "SHA-512 (crypt)"),
    ("$y$", "yescrypt"),
    ("$2x$", "a bcrypt variant with a known fault"),
    ("$argon2i$", "argon2i"),
    ("$argon2d$", "argon2d"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(user: &str, password: &str) -> String {
        format!("{user}:{}\n", bcrypt::hash(password, 4).unwrap())
    }

    fn problems(text: &str) -> Vec<PasswordProblem> {
        parse(text.as_bytes(), None).unwrap_err()
    }

    fn account<'a>(file: &'a Passwords, user: &str) -> &'a Arc<Account> {
        file.account(&UserName::new(user)).unwrap()
    }

    #[test]
    fn bcrypt_and_argon2id_lines_prove_their_password_and_no_other() {
        let phc = {
            use argon2::PasswordHasher;
            let params = argon2::Params::new(64, 1, 1, None).unwrap();
            Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params)
                .hash_password(b"secret2")
                .unwrap()
                .to_string()
        };
        let text = format!("# staff\r\n\r\n{}user2:{phc}\r\n", line("User1", "secret1"));

        let file = parse(text.as_bytes(), None).unwrap();

        assert_eq!(file.len(), 2);
        assert!(account(&file, "user1").proves(b"secret1"));
        assert!(!account(&file, "user1").proves(b"secret2"));
        assert!(account(&file, "user2").proves(b"secret2"));
        assert!(!account(&file, "user2").proves(b"secret1"));
    }

    #[test]
    fn a_line_written_by_htpasswd_is_read() {
        // htpasswd -nbB -C 4 user1 secret1
        let text = "user1:$2y$04$RU4431gihHQwXbK22.cCiOkoxRpTQb1151dxuW6YSOSnVIXxnAcTa\n\n";
        let file = parse(text.as_bytes(), None).unwrap();
        assert!(account(&file, "user1").proves(b"secret1"));
        assert!(!account(&file, "user1").proves(b"secret2"));
    }

    #[test]
    fn every_bcrypt_spelling_is_read() {
        let hash = bcrypt::hash_with_result("secret1", 4).unwrap();
        for version in [
            bcrypt::Version::TwoA,
            bcrypt::Version::TwoB,
            bcrypt::Version::TwoY,
        ] {
            let text = format!("user1:{}", hash.format_for_version(version));
            let file = parse(text.as_bytes(), None).unwrap();
            assert!(account(&file, "user1").proves(b"secret1"));
        }
    }

    #[test]
    fn other_hashes_are_problems_that_name_line_and_cure() {
        let text = format!(
            "{}user2:$apr1$x$y\nuser3:{{SHA}}abc\nuser4:secret\nuser5:$6$x$y\nuser6:$argon2i$v=19$m=8\n",
            line("user1", "a")
        );

        let problems = problems(&text);

        let lines: Vec<usize> = problems.iter().map(|p| p.line).collect();
        assert_eq!(lines, [2, 3, 4, 5, 6]);
        assert!(problems[0].what.contains("MD5 (apr1)"), "{problems:?}");
        assert!(problems.iter().all(|p| p.cure.contains("htpasswd -B")));
        assert!(!problems.iter().any(|p| p.what.contains("secret")));
    }

    #[test]
    fn a_name_twice_is_a_problem_in_whatever_spelling() {
        let text = line("user1", "a") + &line("USER1@contoso.test", "b");

        let problems = parse(text.as_bytes(), Some("contoso.test")).unwrap_err();

        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].line, 2);
        assert_eq!(problems[0].what, "user1@contoso.test is already on line 1");
    }

    #[test]
    fn damaged_and_ruinous_hashes_are_problems() {
        let ruinous = bcrypt::hash("a", 4).unwrap().replace("$04$", "$31$");
        let hungry = "$argon2id$v=19$m=4194304,t=1,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        for (hash, word) in [
            ("$2y$05$short", "damaged"),
            (ruinous.as_str(), "cost is 31"),
            ("$argon2id$v=19$m=8", "damaged"),
            (hungry, "4194304 KiB"),
        ] {
            let problems = problems(&format!("user1:{hash}"));
            assert!(problems[0].what.contains(word), "{problems:?}");
        }
    }

    #[test]
    fn lines_without_colon_name_or_text_are_problems() {
        let problems = parse(b"user1\n:hash\n\xff\xfe:x\n", None).unwrap_err();
        let lines: Vec<usize> = problems.iter().map(|p| p.line).collect();
        assert_eq!(lines, [1, 2, 3]);
    }

    #[test]
    fn a_missing_file_is_a_problem_of_the_whole_file() {
        let folder = tempfile::tempdir().unwrap();
        let problems = read(&folder.path().join("none"), None).unwrap_err();
        assert_eq!(problems[0].line, 0);
        assert!(problems[0].what.contains("cannot be read"));
    }

    #[test]
    fn an_account_survives_a_reload_exactly_as_long_as_its_line_does() {
        let (one, two) = (line("user1", "a"), line("user2", "b"));
        let first = Arc::new(parse(format!("{one}{two}").as_bytes(), None).unwrap());

        let same = parse(format!("{one}{two}").as_bytes(), None)
            .unwrap()
            .succeed(&first);
        let changed = parse(format!("{one}{}", line("user2", "c")).as_bytes(), None)
            .unwrap()
            .succeed(&first);
        let shorter = parse(one.as_bytes(), None).unwrap().succeed(&first);

        assert!(Arc::ptr_eq(&first, &same));
        assert!(Arc::ptr_eq(
            account(&first, "user1"),
            account(&changed, "user1")
        ));
        assert!(!Arc::ptr_eq(
            account(&first, "user2"),
            account(&changed, "user2")
        ));
        assert_ne!(shorter.serial(), first.serial());
        assert!(shorter.account(&UserName::new("user2")).is_none());
    }

    #[test]
    fn debug_prints_no_hash() {
        let text = line("user1", "secret1");
        let file = parse(text.as_bytes(), None).unwrap();
        assert!(!format!("{file:?}").contains("$2"));
    }

    #[test]
    fn the_empty_files_stand_in_hash_is_well_formed() {
        assert!(bcrypt_of(EMPTY_FILE_HASH).is_ok());
    }

    proptest! {
        #[test]
        fn any_bytes_as_password_file_do_not_panic(text in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(&text, Some("contoso.test"));
        }

        #[test]
        fn any_hash_text_does_not_panic(hash in r"\$(2y|2b|argon2id)\$[ -~]{0,80}") {
            let _ = parse(format!("user1:{hash}").as_bytes(), None);
        }
    }
}
