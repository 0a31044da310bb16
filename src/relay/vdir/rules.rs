//! What the policy of a directory says of a request: for the door, and for whoever explains it.
//!
//! Pure: settings in, a decision out.

use super::{Guard, stands};
use crate::capability::From as Side;
use crate::config::Settings;
use crate::config::settings::{PublicName, Scheme, Server, VdirSettings};
use crate::refusal::Refusal;
use crate::relay::public::activesync_url;
use crate::vdir::{Vdir, other_name};
use std::borrow::Cow;

/// What is configured of a directory, for a client to whom it is open.
///
/// # Errors
/// It is not served, or not to a client there.
pub(crate) fn open_to(
    vdir: Vdir,
    settings: &Settings,
    side: Side,
) -> Result<&VdirSettings, Refusal> {
    let found = settings.vdirs.get(vdir).ok_or(Refusal::UnknownPath)?;
    match found.inside_only && side != Side::Inside && stands(Guard::Inside) {
        true => Err(Refusal::InsideOnly(vdir.path())),
        false => Ok(found),
    }
}

/// Schemes a directory accepts, challenges in this order. What is left to servers is not among them: below
/// a directory the server of a request is found by its user.
pub(crate) fn offered<'a>(
    vdir: &'a VdirSettings,
    name: &'a PublicName,
    settings: &Settings,
) -> Cow<'a, [Scheme]> {
    let schemes = vdir.schemes(name);
    let Some(left) = &settings.auth.passthrough else {
        return Cow::Borrowed(schemes);
    };
    let judged = schemes.iter().copied();
    Cow::Owned(judged.filter(|it| !left.schemes.contains(it)).collect())
}

/// The address of an explicit logon, as it stands in a path, in lower case.
///
/// # Errors
/// None is taken here.
pub(crate) fn explicit_logon(written: &str, vdir: &VdirSettings) -> Result<String, Refusal> {
    match vdir.anchor_in_path {
        true => Ok(written.replacen("%40", "@", 1).to_ascii_lowercase()),
        false => Err(Refusal::Malformed("an explicit logon is not taken here")),
    }
}

/// A device is served under the name that its mailbox' server goes by, where that has one.
///
/// # Errors
/// It is another than was asked for, and where that is.
pub(crate) fn stays(
    vdir: Vdir,
    asked: &PublicName,
    server: &Server,
    settings: &Settings,
    side: Side,
) -> Result<(), Refusal> {
    let Some(other) = other_name(vdir, &asked.host, server.url_name.as_deref()) else {
        return Ok(());
    };
    // Names that are none of ours were reported, and nobody is sent there.
    let Some(name) = settings.named(other) else {
        return Ok(());
    };
    let url = activesync_url(name, side).into();
    Err(Refusal::OtherName { url })
}
