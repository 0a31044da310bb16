//! What may share a connection with other requests, as HTTP/2 has them share it.
//!
//! Negotiate and NTLM prove a connection: on one that several requests share, and behind a proxy several
//! users, that proof would say nothing. What holds a request for hours, or moves a mailbox by cookies of
//! its session, was made for a connection of its own. RFC 9113 section 7 has a word for all of them: come
//! again by HTTP/1.1.

use super::{AutodiscoverMode, PublicName, Scheme, Settings};
use crate::vdir::Vdir;

/// What is asked for, as far as that matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shareable {
    /// MAPI over HTTP.
    Mapi,
    /// Outlook Anywhere.
    Channels,
    /// Autodiscover.
    Autodiscover,
    /// Another virtual directory.
    Vdir(Vdir),
    /// A page of ours.
    Page,
}

/// Why a request must come by HTTP/1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByHttp11 {
    /// The name does not offer HTTP/2, or not any more.
    Off,
    /// It is MAPI over HTTP.
    Mapi,
    /// It is Outlook Anywhere.
    Channels,
    /// Negotiate or NTLM is offered there.
    Offered,
    /// Negotiate or NTLM is shown.
    Shown,
}

impl ByHttp11 {
    /// For the log.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Off => "HTTP/2 is off for this name",
            Self::Mapi => "MAPI over HTTP has connections of its own",
            Self::Channels => "Outlook Anywhere has connections of its own",
            Self::Offered => "negotiate and ntlm, offered here, prove connections",
            Self::Shown => "negotiate and ntlm, shown here, prove connections",
        }
    }
}

impl Settings {
    /// Whether a request may come by HTTP/2 under this name. `authorization`: what it shows.
    ///
    /// # Errors
    /// Why it must come by HTTP/1.1.
    pub fn by_http2(
        &self,
        name: &PublicName,
        what: Shareable,
        authorization: Option<&[u8]>,
    ) -> Result<(), ByHttp11> {
        if !name.http2 {
            return Err(ByHttp11::Off);
        }
        let offered: &[Scheme] = match what {
            Shareable::Mapi => return Err(ByHttp11::Mapi),
            Shareable::Channels => return Err(ByHttp11::Channels),
            Shareable::Autodiscover if name.autodiscover != AutodiscoverMode::Off => {
                &name.authentication
            }
            Shareable::Vdir(vdir) => match self.vdirs.get(vdir) {
                Some(served) => served.schemes(name),
                None => &[],
            },
            Shareable::Autodiscover | Shareable::Page => &[],
        };
        if offered.iter().any(|scheme| scheme.proves_connections()) {
            return Err(ByHttp11::Offered);
        }
        match authorization.is_some_and(proves_connection) {
            true => Err(ByHttp11::Shown),
            false => Ok(()),
        }
    }
}

impl Settings {
    /// What HTTP/2 carries under a name, and what of the rest may not share a connection; as the
    /// configuration writes it.
    pub fn http2_carries(&self, name: &PublicName) -> (Vec<&'static str>, Vec<&'static str>) {
        let discovery = (name.autodiscover != AutodiscoverMode::Off)
            .then_some((Shareable::Autodiscover, "/autodiscover"));
        let directories = self.vdirs.iter();
        let directories = directories.map(|(vdir, _)| (Shareable::Vdir(vdir), vdir.path()));
        let (carried, sent_away): (Vec<_>, Vec<_>) = discovery
            .into_iter()
            .chain(directories)
            .partition(|(what, _)| self.by_http2(name, *what, None).is_ok());
        let paths = |all: Vec<(Shareable, &'static str)>| all.into_iter().map(|it| it.1).collect();
        (paths(carried), paths(sent_away))
    }
}

impl Scheme {
    /// What it proves is the connection, not the request.
    pub const fn proves_connections(self) -> bool {
        matches!(self, Self::Negotiate | Self::Ntlm)
    }
}

/// True for an `Authorization` of a scheme that proves connections, whether it is offered or not.
fn proves_connection(authorization: &[u8]) -> bool {
    let mut words = authorization.trim_ascii_start().split(|byte| {
        // Whatever ends a word to anybody.
        !byte.is_ascii_alphanumeric()
    });
    let word = words.next().unwrap_or_default();
    let mut schemes = Scheme::ALL.into_iter();
    schemes.any(|scheme| {
        scheme.proves_connections() && word.eq_ignore_ascii_case(scheme.word().as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::vdir::Vdir::{ActiveSync, Api, Ecp, Ews, Oab, Owa};
    use Shareable::{Autodiscover, Channels, Mapi, Page};

    /// The settings of a whole file with these under `names` and these directories.
    fn settings(name: &str, directories: &str) -> Settings {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = tempfile::tempdir().unwrap();
        for file in ["mail.pem", "mail.key", "users.htpasswd"] {
            std::fs::copy(root.join("conf").join(file), folder.path().join(file)).unwrap();
        }
        let smallest = include_str!("../../../conf/minimal.yaml");
        let at = |mark: &str| smallest.find(mark).unwrap();
        let part = |from, to| smallest.get(from..to).unwrap();
        let text = format!(
            "{}names: [{{ host: mail.contoso.com, {name} }}]\n{}auth: {{ basic: {{ password_file: users.htpasswd }}, ntlm: {{}} }}\n\
             backend_identity: {{ mode: basic_service, user: svc, password: secret }}\n\
             virtual_directories: {directories}\n",
            part(0, at("names:")),
            part(at("servers:"), at("auth:")),
        );
        let file = folder.path().join("mapigate.yaml");
        std::fs::write(&file, text).unwrap();
        config::load(&file, 1_800_000_000)
            .unwrap_or_else(|problems| panic!("{problems}"))
            .settings
    }

    const PLAIN: &str = "http2: true, authentication: [basic]";
    const BOUND: &str = "http2: true, authentication: [ntlm, basic]";
    const ALL: &str = "{ preset: exchange2019 }";
    const MIXED: &str = "{ preset: exchange2019, paths: [{ path: /ews, authentication: [basic] }, \
                         { path: /oab, authentication: [basic, ntlm] }, { path: /owa, authentication: [server] }] }";

    #[test]
    fn what_proves_connections_or_holds_them_comes_by_http11() {
        let vdir = Shareable::Vdir;
        for (name, directories, what, shown, expected) in [
            ("http2: false", ALL, vdir(Ews), "", Err(ByHttp11::Off)),
            (PLAIN, ALL, Mapi, "", Err(ByHttp11::Mapi)),
            (PLAIN, ALL, Mapi, "Basic eA==", Err(ByHttp11::Mapi)),
            (PLAIN, ALL, Channels, "", Err(ByHttp11::Channels)),
            (PLAIN, ALL, Page, "", Ok(())),
            (PLAIN, ALL, Autodiscover, "", Ok(())),
            (PLAIN, ALL, Autodiscover, "Basic eA==", Ok(())),
            (PLAIN, ALL, vdir(Ews), "Basic eA==", Ok(())),
            (PLAIN, ALL, vdir(ActiveSync), "Bearer a.b.c", Ok(())),
            (PLAIN, ALL, vdir(Api), "", Ok(())),
            // Nobody is served there: that is said by HTTP/2 as well.
            (PLAIN, "{ preset: gromox }", vdir(Ecp), "", Ok(())),
            (PLAIN, ALL, vdir(Ews), "NTLM TlRMTVNT", Err(ByHttp11::Shown)),
            (
                PLAIN,
                ALL,
                vdir(Ews),
                "negotiate YII=",
                Err(ByHttp11::Shown),
            ),
            (PLAIN, ALL, vdir(Ews), "NEGOTIATE", Err(ByHttp11::Shown)),
            (PLAIN, ALL, vdir(Ews), " Ntlm\tx", Err(ByHttp11::Shown)),
            (PLAIN, ALL, Page, "NTLM x", Err(ByHttp11::Shown)),
            (PLAIN, ALL, vdir(Ews), "NTLMv2 x", Ok(())),
            (BOUND, ALL, vdir(Ews), "", Err(ByHttp11::Offered)),
            (BOUND, ALL, vdir(Ews), "Basic eA==", Err(ByHttp11::Offered)),
            (BOUND, ALL, Autodiscover, "", Err(ByHttp11::Offered)),
            (BOUND, ALL, Page, "", Ok(())),
            (BOUND, MIXED, vdir(Ews), "", Ok(())),
            (BOUND, MIXED, vdir(Oab), "", Err(ByHttp11::Offered)),
            (BOUND, MIXED, vdir(Owa), "", Ok(())),
            (BOUND, MIXED, vdir(ActiveSync), "", Err(ByHttp11::Offered)),
            (PLAIN, MIXED, vdir(Oab), "", Err(ByHttp11::Offered)),
        ] {
            let settings = settings(name, directories);
            let shown = (!shown.is_empty()).then_some(shown.as_bytes());
            let judged = settings.by_http2(&settings.names[0], what, shown);
            assert_eq!(judged, expected, "{name} {directories} {what:?} {shown:?}");
        }
    }

    #[test]
    fn autodiscover_that_nobody_answers_is_nobodys_proof() {
        let settings = settings(&format!("{BOUND}, autodiscover: off"), ALL);
        let judged = settings.by_http2(&settings.names[0], Autodiscover, None);
        assert_eq!(judged, Ok(()));
    }
}
