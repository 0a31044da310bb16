//! Credentials out of key tables that the settings name.
//!
//! The library's usual way to a key table is the environment of the process, which must not be changed
//! once there are threads, and has one for all. `gss_acquire_cred_from` takes it as an argument; the safe
//! bindings do not have that function yet.

use libgssapi::credential::Cred;
use libgssapi::error::{Error, MajorFlags};
use libgssapi_sys as c;
use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use zeroize::Zeroize as _;

/// The credential that accepts tickets to every service of a key table, for Kerberos by itself and inside
/// of Negotiate. Blocks on the disk.
///
/// # Errors
/// What the Kerberos library says.
pub fn acceptor(keytab: &Path) -> Result<Cred, Error> {
    let store = [(c"keytab", file(keytab)?)];
    // With two mechanisms one is enough for success; whoever has no keys must hear of it.
    acquire(&store, None, ACCEPT, 1)?;
    acquire(&store, None, ACCEPT, 2)
}

/// Our own ticket, got with the keys of a table: `account`'s, or those of its first name. It is kept in
/// `cache`, and got anew when it is about to end. Blocks on the KDC where there is none.
///
/// # Errors
/// What the Kerberos library says.
pub fn initiator(keytab: &Path, cache: &str, account: Option<&str>) -> Result<Cred, Error> {
    let cache = CString::new(cache).map_err(|_nul| unusable())?;
    let store = [(c"client_keytab", file(keytab)?), (c"ccache", cache)];
    acquire(&store, account, INITIATE, 1)
}

/// The credential that gets a client's own ticket out of a word that an [`acceptor`] of the same key table has
/// believed: it accepts with `keytab`, and would initiate as the account whose ticket is in `cache`. Remembers no
/// word, so nobody may be let in by it. Blocks on the disk, and on the KDC where there is no such ticket.
///
/// # Errors
/// What the Kerberos library says.
pub fn both(keytab: &Path, client_keytab: &Path, cache: &str) -> Result<Cred, Error> {
    let cache = CString::new(cache).map_err(|_nul| unusable())?;
    let store = [
        (c"keytab", file(keytab)?),
        (c"client_keytab", file(client_keytab)?),
        (c"ccache", cache),
        (c"rcache", c"none:".to_owned()),
    ];
    // As for an acceptor.
    acquire(&store, None, BOTH, 1)?;
    acquire(&store, None, BOTH, 2)
}

/// A user's own credential, for a ticket that is got with the password and kept in memory. Nothing is asked yet.
///
/// # Errors
/// What the Kerberos library says; before its version 1.19, that it takes no passwords.
pub fn owner(principal: &str, password: &str) -> Result<Cred, Error> {
    let mut store = [(
        c"password",
        CString::new(password).map_err(|_nul| unusable())?,
    )];
    let credential = acquire(&store, Some(principal), INITIATE, 2);
    store.iter_mut().for_each(|(_, secret)| secret.zeroize());
    credential
}

/// A user's own credential, out of a cache of tickets. Blocks on the disk.
///
/// # Errors
/// What the Kerberos library says.
pub fn holder(cache: &str) -> Result<Cred, Error> {
    let cache = CString::new(cache).map_err(|_nul| unusable())?;
    // As for an acceptor.
    acquire(&[(c"ccache", cache.clone())], None, INITIATE, 1)?;
    acquire(&[(c"ccache", cache)], None, INITIATE, 2)
}

/// A credential of the store's, for Kerberos, and with two mechanisms also for what negotiates Kerberos.
fn acquire(
    store: &[(&CStr, CString)],
    account: Option<&str>,
    usage: c::gss_cred_usage_t,
    mechanisms_wanted: usize,
) -> Result<Cred, Error> {
    let mut elements: Vec<_> = store
        .iter()
        .map(|(key, value)| c::gss_key_value_element_desc {
            key: key.as_ptr(),
            value: value.as_ptr(),
        })
        .collect();
    let store = c::gss_key_value_set_desc {
        count: u32::try_from(elements.len()).map_err(|_many| unusable())?,
        elements: elements.as_mut_ptr(),
    };
    let mut mechanisms = [oid(KERBEROS), oid(SPNEGO)];
    let mut set = c::gss_OID_set_desc {
        count: mechanisms_wanted.min(mechanisms.len()),
        elements: mechanisms.as_mut_ptr(),
    };
    let mut kerberos = c::gss_OID_set_desc {
        count: 1,
        elements: mechanisms.as_mut_ptr(),
    };
    let mut principal = oid(PRINCIPAL);
    let account = account.map(|account| c::gss_buffer_desc {
        length: account.len(),
        // The interface has no word for memory that is only read.
        value: account.as_ptr().cast_mut().cast(),
    });
    let (mut minor, mut ignored) = (0, 0);
    let mut name = ptr::null_mut();
    let mut credential = ptr::null_mut();
    #[expect(
        unsafe_code,
        reason = "every pointer is to a value of this function that outlives the calls, or null where the \
                  interface allows it; the library copies what it keeps; the name is released here, and the \
                  credential has no other owner than the Cred made of it. RFC 2744 5.2, MIT krb5 gssapi_ext.h"
    )]
    let (credential, major) = unsafe {
        let mut major = c::GSS_S_COMPLETE;
        if let Some(mut account) = account {
            major = c::gss_import_name(&mut minor, &mut account, &mut principal, &mut name);
        }
        if major == c::GSS_S_COMPLETE {
            major = c::gss_acquire_cred_from(
                &mut minor,
                name,
                c::_GSS_C_INDEFINITE,
                &mut set,
                usage,
                &store,
                &mut credential,
                ptr::null_mut(),
                ptr::null_mut(),
            );
        }
        if !name.is_null() {
            c::gss_release_name(&mut ignored, &mut name);
        }
        if major == c::GSS_S_COMPLETE && set.count > 1 {
            // What SPNEGO is asked to negotiate is else whatever the machine has plugins for.
            major = c::gss_set_neg_mechs(&mut minor, credential, &mut kerberos);
        }
        (Cred::from_c(credential), major)
    };
    match major {
        c::GSS_S_COMPLETE => Ok(credential),
        _ => Err(Error {
            major: MajorFlags::from_bits_retain(major),
            minor,
        }),
    }
}

fn file(keytab: &Path) -> Result<CString, Error> {
    let value = [b"FILE:", keytab.as_os_str().as_bytes()].concat();
    CString::new(value).map_err(|_nul| unusable())
}

fn oid(bytes: &'static [u8]) -> c::gss_OID_desc {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "an object identifier of some bytes"
    )]
    c::gss_OID_desc {
        length: bytes.len() as u32,
        elements: bytes.as_ptr().cast_mut().cast(),
    }
}

fn unusable() -> Error {
    Error {
        major: MajorFlags::GSS_S_CALL_BAD_STRUCTURE,
        minor: 0,
    }
}

/// 1.2.840.113554.1.2.2, RFC 4121
const KERBEROS: &[u8] = b"\x2a\x86\x48\x86\xf7\x12\x01\x02\x02";
/// 1.3.6.1.5.5.2, RFC 4178
const SPNEGO: &[u8] = b"\x2b\x06\x01\x05\x05\x02";
/// 1.2.840.113554.1.2.2.1, RFC 1964 2.1.1
const PRINCIPAL: &[u8] = b"\x2a\x86\x48\x86\xf7\x12\x01\x02\x02\x01";
const ACCEPT: c::gss_cred_usage_t = c::GSS_C_ACCEPT as c::gss_cred_usage_t;
const BOTH: c::gss_cred_usage_t = c::GSS_C_BOTH as c::gss_cred_usage_t;
const INITIATE: c::gss_cred_usage_t = c::GSS_C_INITIATE as c::gss_cred_usage_t;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_table_that_is_not_there_is_an_error() {
        let nowhere = Path::new("/nonexistent/mapigate.keytab");

        assert!(acceptor(nowhere).is_err());
        let refused = initiator(nowhere, "MEMORY:test", Some("svc@CONTOSO.TEST"));
        assert!(refused.is_err());
        assert!(initiator(nowhere, "MEMORY:a\0b", None).is_err());
        assert!(both(nowhere, nowhere, "MEMORY:test").is_err());
    }
}
