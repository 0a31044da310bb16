//! Reads what must stay secret: passwords, the lines of a password file, keys of the route cookie.

use super::desk::Desk;
use super::problem::{Complaint, Severity, quoted};
use super::section::Section;
use super::settings::{SealKey, Secret};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;
use std::collections::HashMap;
use std::path::Path;
use std::sync::OnceLock;
use zeroize::Zeroizing;

/// Bytes of a file with one secret.
const SECRET_MAX: usize = 64 << 10;
/// Bytes of a password file: two million lines.
const PASSWORDS_MAX: usize = 256 << 20;
/// Beyond it one login takes five seconds of CPU.
const BCRYPT_COST_MAX: u32 = 16;
/// Memory of one verification with argon2id; several run at once.
const ARGON2_KIB_MAX: u32 = 256 << 10;
/// Memory times passes: about two seconds of CPU.
const ARGON2_KIB_PASSES_MAX: u64 = 2 << 20;
/// The key of the route cookie's example file begins with these bytes; everybody has it.
const EXAMPLE_KEY: &[u8] = b"example only";

/// Reads a password: text, or `file:PATH`. `None`: absent, or reported.
pub(super) fn secret(section: &Section<'_>, leaf: &str) -> Option<Secret> {
    let text = Zeroizing::new(section.text(leaf)?);
    let Some(path) = text.strip_prefix("file:") else {
        return Some(Secret::new(text.to_string()));
    };
    let (desk, place) = (section.desk, section.place(leaf));
    let path = section.source.resolve(path.trim());
    let bytes = Zeroizing::new(desk.bytes(&place, &path, SECRET_MAX)?);
    let shown = quoted(&path.display().to_string());
    let Ok(text) = std::str::from_utf8(&bytes) else {
        let what = format!("{shown} is not UTF-8 text");
        desk.error(
            &place,
            Complaint::new(what, "write the secret into it as one line"),
        );
        return None;
    };
    let line = text.trim_end_matches(['\r', '\n']);
    if line.is_empty() || line.contains('\n') {
        let what = format!("{shown} is empty or has more than one line");
        desk.error(
            &place,
            Complaint::new(what, "write the secret into it as one line"),
        );
        return None;
    }
    desk.warn_if_open(&place, &path);
    Some(Secret::new(line.to_owned()))
}

/// Looks at every line of a password file; what it holds is read where logins are verified.
pub(super) fn check_password_file(section: &Section<'_>, leaf: &str) {
    let (desk, place) = (section.desk, section.place(leaf));
    let Some(file) = section.file(leaf) else {
        return;
    };
    let Some(bytes) = desk.bytes(&place, &file, PASSWORDS_MAX) else {
        return;
    };
    let path = place.path.as_str();
    let mut first: HashMap<&[u8], usize> = HashMap::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let user = line.split(|byte| *byte == b':').next().unwrap_or_default();
        // A line without a colon may be a password.
        let shown = if user.len() < line.len() {
            format!("{}:…", String::from_utf8_lossy(user))
        } else {
            "…".to_owned()
        };
        let at = (file.as_path(), index + 1, shown.as_str());
        if let Err(complaint) = password_line(line) {
            desk.in_line(Severity::Error, at, path, complaint);
        }
        if let Some(earlier) = first.insert(user, index + 1) {
            let what = format!("this user is here a second time; the first is in line {earlier}");
            let complaint = Complaint::new(what, "keep one of the two");
            desk.in_line(Severity::Error, at, path, complaint);
        }
    }
    if first.is_empty() {
        let what = format!("{} holds no user", quoted(&file.display().to_string()));
        let cure = format!("add one: htpasswd -B {} USER", file.display());
        desk.warning(&place, Complaint::new(what, cure));
    }
}

fn password_line(line: &[u8]) -> Result<(), Complaint> {
    const CURE: &str = "set the password anew with `htpasswd -B`, which writes bcrypt";
    let text = std::str::from_utf8(line).map_err(|cause| {
        Complaint::new(
            format!("not UTF-8 ({cause})"),
            "save the file as UTF-8 text",
        )
    })?;
    let Some((user, hash)) = text.split_once(':') else {
        return Err(Complaint::new("a line without `:`", "write `user:hash`"));
    };
    if user.is_empty() {
        return Err(Complaint::new("a line without a user", "write `user:hash`"));
    }
    let kind = match hash {
        hash if ["$2y$", "$2b$", "$2a$"]
            .iter()
            .any(|start| hash.starts_with(start)) =>
        {
            return bcrypt(hash);
        }
        hash if hash.starts_with("$argon2id$") => return argon2id(hash),
        "" => "missing",
        hash if hash.starts_with("{SHA}") => "{SHA}, a bare SHA-1, which is guessed in no time",
        hash if hash.starts_with("{SSHA}") => "{SSHA}, a SHA-1, which is guessed too fast",
        hash if hash.starts_with("$y$") => "yescrypt, which is not supported",
        hash if hash.starts_with("$apr1$") => "apr1 (MD5), which is guessed too fast",
        hash if hash.starts_with("$1$") => "MD5 crypt, which is guessed too fast",
        hash if hash.starts_with("$5$") || hash.starts_with("$6$") => {
            "SHA crypt, which is not supported"
        }
        hash if hash.starts_with("$argon2") => "an argon2 other than argon2id",
        hash if hash.starts_with("$2") => "a bcrypt variant with a known fault",
        hash if hash.len() == 13 => "DES crypt, which looks at eight letters only",
        _ => "of no kind that is known here; is it a password in clear?",
    };
    Err(Complaint::new(format!("the hash is {kind}"), CURE))
}

fn bcrypt(hash: &str) -> Result<(), Complaint> {
    let parts: bcrypt::HashParts = hash.parse().map_err(|cause| {
        Complaint::new(
            format!("the bcrypt hash is damaged ({cause})"),
            "set the password anew with `htpasswd -B`",
        )
    })?;
    if parts.get_cost() > BCRYPT_COST_MAX {
        return Err(Complaint::new(
            format!(
                "the bcrypt cost {} takes seconds per login",
                parts.get_cost()
            ),
            "choose a lower cost, as in `htpasswd -B -C 10`",
        ));
    }
    Ok(())
}

fn argon2id(hash: &str) -> Result<(), Complaint> {
    let cure = "set the password anew, with argon2id as in the PHC string format";
    let damaged =
        |cause: String| Complaint::new(format!("the argon2id hash is damaged ({cause})"), cure);
    let parsed = argon2::PasswordHash::new(hash).map_err(|cause| damaged(cause.to_string()))?;
    let costs = argon2::Params::try_from(&parsed).map_err(|cause| damaged(cause.to_string()))?;
    let work = u64::from(costs.m_cost()) * u64::from(costs.t_cost());
    if costs.m_cost() > ARGON2_KIB_MAX || work > ARGON2_KIB_PASSES_MAX {
        let what = format!(
            "the argon2id hash takes {} KiB and {} passes, more than one login may",
            costs.m_cost(),
            costs.t_cost()
        );
        return Err(Complaint::new(what, "choose 19456 KiB and 2 passes"));
    }
    if parsed.salt.is_none() || parsed.hash.is_none() {
        return Err(damaged("salt or hash is missing".to_owned()));
    }
    Ok(())
}

/// Reads the keys of the route cookie, newest first; without a file, the key of this process.
pub(super) fn cookie_keys(section: &Section<'_>) -> Vec<SealKey> {
    let (desk, place) = (section.desk, section.place("keys_file"));
    let Some(file) = section.file("keys_file") else {
        let at = if section.has("enabled") || section.has("name") {
            section.here()
        } else {
            place
        };
        desk.warning(
            &at,
            Complaint::new(
                "the route cookie has no `keys_file`: its key is random, and sessions do not survive a restart by cookie",
                "make one: echo \"1 $(openssl rand -base64 32)\" > cookie.keys; then set sessions.route_cookie.keys_file",
            ),
        );
        return vec![key_of_this_process()];
    };
    let Some(bytes) = desk.bytes(&place, &file, SECRET_MAX) else {
        return Vec::new();
    };
    let bytes = Zeroizing::new(bytes);
    desk.warn_if_open(&place, &file);
    let keys = key_lines(desk, &file, &bytes, &place.path);
    if keys.is_empty() && memchr::memchr(b' ', &bytes).is_none() {
        let what = format!("{} holds no key", quoted(&file.display().to_string()));
        let shown = file.display();
        let cure = format!("make one: echo \"1 $(openssl rand -base64 32)\" > {shown}");
        desk.error(&place, Complaint::new(what, cure));
    }
    if keys.iter().any(|key| key.key.starts_with(EXAMPLE_KEY)) {
        let what = "this is the example's key, which everybody has";
        let shown = file.display();
        let cure = format!("make your own: echo \"1 $(openssl rand -base64 32)\" > {shown}");
        desk.warning(&place, Complaint::new(what, cure));
    }
    keys
}

fn key_lines(desk: &Desk<'_>, file: &Path, bytes: &[u8], path: &str) -> Vec<SealKey> {
    let mut keys: Vec<SealKey> = Vec::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let read = key_line(line).and_then(|key| {
            if keys.iter().any(|other| other.id == key.id) {
                let what = format!("the key number {} is here a second time", key.id);
                return Err(Complaint::new(what, "give every key a number of its own"));
            }
            Ok(key)
        });
        match read {
            Ok(key) => keys.push(key),
            Err(complaint) => {
                let id = line.split(|byte| *byte == b' ').next().unwrap_or_default();
                let id = std::str::from_utf8(id).ok().filter(|id| id.len() <= 3);
                let shown = format!("{} …", id.unwrap_or("…"));
                let at = (file, index + 1, shown.as_str());
                desk.in_line(Severity::Error, at, path, complaint);
            }
        }
    }
    keys
}

fn key_line(line: &[u8]) -> Result<SealKey, Complaint> {
    const CURE: &str = "write `ID BASE64`: a number from 0 to 255 and 32 random bytes, as `openssl rand -base64 32` makes them";
    let text = std::str::from_utf8(line).unwrap_or_default();
    let Some((id, encoded)) = text.split_once([' ', '\t']) else {
        return Err(Complaint::new("a line that is not `ID BASE64`", CURE));
    };
    let id = id.parse().map_err(|_no_number: std::num::ParseIntError| {
        Complaint::new("the key's number is not from 0 to 255", CURE)
    })?;
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(encoded.trim())
        .map(Zeroizing::new)
        .map_err(|_why: base64::DecodeError| Complaint::new("the key is not base64", CURE))?;
    let key: [u8; 32] =
        bytes
            .as_slice()
            .try_into()
            .map_err(|_why: std::array::TryFromSliceError| {
                Complaint::new(format!("the key has {} bytes, not 32", bytes.len()), CURE)
            })?;
    Ok(SealKey {
        id,
        key: Zeroizing::new(key),
    })
}

/// Private keys that sign, PKCS#8, in the order of the file. `None`: reported.
pub(super) fn signing_keys(section: &Section<'_>, leaf: &str) -> Option<Vec<Zeroizing<Vec<u8>>>> {
    const CURE: &str = "make one: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out assertion.key";
    let (desk, place) = (section.desk, section.place(leaf));
    let file = section.file(leaf)?;
    let bytes = Zeroizing::new(desk.bytes(&place, &file, SECRET_MAX)?);
    desk.warn_if_open(&place, &file);
    let shown = quoted(&file.display().to_string());
    let mut keys = Vec::new();
    for key in PrivatePkcs8KeyDer::pem_slice_iter(&bytes) {
        let fits = key.as_ref().is_ok_and(|key| {
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.secret_pkcs8_der())
                .is_ok()
        });
        match key {
            Ok(key) if fits => keys.push(Zeroizing::new(key.secret_pkcs8_der().to_vec())),
            _ => {
                let what = format!("{shown} has a key that is not for ECDSA on P-256");
                desk.error(&place, Complaint::new(what, CURE));
                return None;
            }
        }
    }
    if keys.is_empty() {
        let what =
            format!("{shown} holds no private key in PKCS#8 (`-----BEGIN PRIVATE KEY-----`)");
        desk.error(&place, Complaint::new(what, CURE));
        return None;
    }
    Some(keys)
}

/// Made once, so that a reload without a key file does not forget the cookies sealed before it.
fn key_of_this_process() -> SealKey {
    static KEY: OnceLock<SealKey> = OnceLock::new();
    KEY.get_or_init(|| {
        let mut key = Zeroizing::new([0; 32]);
        let filled = aws_lc_rs::rand::fill(key.as_mut_slice());
        debug_assert!(filled.is_ok(), "the system's random numbers do not fail");
        SealKey { id: 0, key }
    })
    .clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_slow_hashes_are_taken() {
        let bcrypt = format!(
            "u:{}",
            bcrypt::hash("p", 4).unwrap().replace("$2b$", "$2y$")
        );
        assert_eq!(password_line(bcrypt.as_bytes()), Ok(()));
        for line in [
            "u:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=",
            "u:$apr1$x$y",
            "u:$6$salt$hash",
            "u:rqXexS6ZhobKA",
            "u:secret",
            "u:",
            ":$2y$05$x",
            "u",
            "u:$2y$05$short",
            "u:$argon2id$nonsense",
            "u:$argon2i$v=19$m=16,t=2,p=1$c2FsdHNhbHQ$aGFzaA",
        ] {
            assert!(password_line(line.as_bytes()).is_err(), "{line}");
        }
    }

    #[test]
    fn an_argon2id_hash_is_taken() {
        let hash = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0$\
                    kqyF1YvIvzJbKkLZ0F2gM0mYw8R1c3H2uQ9y3fQ2m1k";
        assert_eq!(password_line(format!("u:{hash}").as_bytes()), Ok(()));
    }

    #[test]
    fn a_cookie_key_has_a_number_and_32_bytes() {
        let text = base64::engine::general_purpose::STANDARD.encode([7; 32]);
        assert_eq!(key_line(format!("7 {text}").as_bytes()).unwrap().id, 7);
        assert!(key_line(format!("256 {text}").as_bytes()).is_err());
        assert!(key_line(text.as_bytes()).is_err());
        assert_eq!(
            key_line(b"1 c2hvcnQ=").unwrap_err().what,
            "the key has 5 bytes, not 32"
        );
    }

    #[test]
    fn the_random_key_stays_the_same_in_one_process() {
        assert_eq!(key_of_this_process(), key_of_this_process());
        assert_ne!(*key_of_this_process().key, [0; 32]);
    }

    proptest::proptest! {
        #[test]
        fn any_line_is_taken_or_refused(line: Vec<u8>) {
            let _ = (password_line(&line), key_line(&line));
        }
    }
}
