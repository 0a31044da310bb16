//! The key we accept tickets with, out of a keytab that the settings name.
//!
//! The library's usual way to a keytab is the environment of the process, which must not be changed once there are
//! threads, and has one keytab for all. `gss_acquire_cred_from` takes it as an argument; the safe bindings do not have
//! that function yet.

use libgssapi::credential::Cred;
use libgssapi::error::{Error, MajorFlags};
use libgssapi_sys as c;
use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

/// Where used tickets are remembered, so that none is good twice.
#[derive(Clone, Copy, Debug)]
pub(super) enum Replays<'a> {
    /// Where the Kerberos library keeps them.
    Usual,
    /// In this cache.
    In(&'a str),
    /// Nowhere. Nobody may be let in by such a credential.
    Unseen,
}

/// The credential of every service in the keytab, for Kerberos by itself and inside of Negotiate. Blocks on the disk.
pub(super) fn acquire(keytab: &Path, replays: Replays<'_>) -> Result<Cred, Error> {
    let unusable = |_nul| Error {
        major: MajorFlags::GSS_S_CALL_BAD_STRUCTURE,
        minor: 0,
    };
    let keytab = [b"FILE:", keytab.as_os_str().as_bytes()].concat();
    let keytab = CString::new(keytab).map_err(unusable)?;
    let cache = match replays {
        Replays::Usual => None,
        Replays::In(cache) => Some(CString::new(cache).map_err(unusable)?),
        Replays::Unseen => Some(c"none:".to_owned()),
    };
    let element = |key: &'static CStr, value: &CStr| c::gss_key_value_element_desc {
        key: key.as_ptr(),
        value: value.as_ptr(),
    };
    let mut elements = vec![element(c"keytab", &keytab)];
    elements.extend(cache.as_ref().map(|cache| element(c"rcache", cache)));
    #[expect(
        clippy::cast_possible_truncation,
        reason = "there are one or two of them"
    )]
    let store = c::gss_key_value_set_desc {
        count: elements.len() as u32,
        elements: elements.as_mut_ptr(),
    };
    let mut kerberos = [mechanism(KERBEROS), mechanism(SPNEGO)];
    let mut set = c::gss_OID_set_desc {
        count: kerberos.len(),
        elements: kerberos.as_mut_ptr(),
    };
    let mut of_kerberos = c::gss_OID_set_desc {
        count: 1,
        elements: kerberos.as_mut_ptr(),
    };
    let (mut minor, mut credential) = (0, ptr::null_mut());
    #[expect(
        unsafe_code,
        reason = "every pointer is to a value of this function that outlives the call, or null where the interface \
                  allows it; the library copies what it keeps, and the credential it writes has no other owner than \
                  the Cred made of it. RFC 2744 5.2, MIT krb5 gssapi_ext.h"
    )]
    let (credential, major) = unsafe {
        let mut major = c::gss_acquire_cred_from(
            &mut minor,
            ptr::null_mut(),
            c::_GSS_C_INDEFINITE,
            &mut set,
            ACCEPT,
            &store,
            &mut credential,
            ptr::null_mut(),
            ptr::null_mut(),
        );
        if major == c::GSS_S_COMPLETE {
            // What SPNEGO is asked to negotiate is else whatever the machine has plugins for.
            major = c::gss_set_neg_mechs(&mut minor, credential, &mut of_kerberos);
        }
        (Cred::from_c(credential), major)
    };
    if major == c::GSS_S_COMPLETE {
        return Ok(credential);
    }
    Err(Error {
        major: MajorFlags::from_bits_retain(major),
        minor,
    })
}

fn mechanism(oid: &'static [u8]) -> c::gss_OID_desc {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "an object identifier of some bytes"
    )]
    c::gss_OID_desc {
        length: oid.len() as u32,
        // The interface has no word for memory that is only read.
        elements: oid.as_ptr().cast_mut().cast(),
    }
}

/// 1.2.840.113554.1.2.2, RFC 4121
const KERBEROS: &[u8] = b"\x2a\x86\x48\x86\xf7\x12\x01\x02\x02";
/// 1.3.6.1.5.5.2, RFC 4178
const SPNEGO: &[u8] = b"\x2b\x06\x01\x05\x05\x02";
/// `GSS_C_ACCEPT`
const ACCEPT: c::gss_cred_usage_t = c::GSS_C_ACCEPT as c::gss_cred_usage_t;
