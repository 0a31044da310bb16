//! Where something is: the place of a URL, and ways around DNS.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// Scheme, host and port of a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// `https`; only mailbox servers and TLS terminators on the same host may do without.
    pub is_tls: bool,
    /// A name or an address, without brackets, lower case.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// Text that is no place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no URL such as https://mail.contoso.com")]
pub struct NoPlace(String);

impl Place {
    /// The place of a URL, and what stands behind it: its path and query.
    ///
    /// # Errors
    /// No `http` or `https`, no host, or a user name in front of it.
    pub fn of(url: &str) -> Result<(Self, String), NoPlace> {
        let wrong = || NoPlace(url.chars().take(200).collect());
        let uri: http::Uri = url.parse().map_err(|_cause| wrong())?;
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong()),
        };
        let authority = uri.authority().ok_or_else(wrong)?;
        if authority.as_str().contains('@') {
            return Err(wrong());
        }
        let host = authority.host();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        if host.is_empty() || (authority.port().is_none() && authority.as_str().ends_with(':')) {
            return Err(wrong());
        }
        let rest = uri.path_and_query().map_or("/", |rest| rest.as_str());
        let place = Self {
            is_tls,
            host: host.to_ascii_lowercase(),
            port,
        };
        Ok((place, rest.to_owned()))
    }

    /// What `Host` says.
    pub fn authority(&self) -> String {
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        match (self.is_tls, self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

impl FromStr for Place {
    type Err = NoPlace;

    /// A URL, whose path does not matter.
    fn from_str(url: &str) -> Result<Self, NoPlace> {
        Self::of(url).map(|(place, _)| place)
    }
}

/// Connects elsewhere than DNS says: `HOST[:PORT]=ADDRESS[:PORT]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detour {
    host: String,
    /// Of this port alone.
    port: Option<u16>,
    to: IpAddr,
    to_port: Option<u16>,
}

impl Detour {
    /// Every port of a host is at this address.
    pub fn of_host(host: &str, to: SocketAddr) -> Self {
        Self {
            host: host.to_ascii_lowercase(),
            port: None,
            to: to.ip(),
            to_port: Some(to.port()),
        }
    }

    /// Where this place is by it.
    pub fn of(&self, place: &Place) -> Option<SocketAddr> {
        let is_it = self.host == place.host && self.port.is_none_or(|port| port == place.port);
        is_it.then(|| SocketAddr::new(self.to, self.to_port.unwrap_or(place.port)))
    }
}

impl FromStr for Detour {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            "written HOST=ADDRESS, either with :PORT: mail.contoso.com=192.0.2.1:8443".to_owned()
        };
        let (from, to) = text.split_once('=').ok_or_else(wrong)?;
        let (host, port) = match from.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().map_err(|_cause| wrong())?)),
            None => (from, None),
        };
        let (to, to_port) = match (to.parse::<SocketAddr>(), to.parse::<IpAddr>()) {
            (Ok(socket), _) => (socket.ip(), Some(socket.port())),
            (_, Ok(ip)) => (ip, None),
            _ => return Err(wrong()),
        };
        if host.is_empty() {
            return Err(wrong());
        }
        Ok(Self {
            host: host.to_ascii_lowercase(),
            port,
            to,
            to_port,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_place_and_a_path() {
        for (url, place, rest) in [
            ("https://Mail.contoso.com", "https://mail.contoso.com", "/"),
            ("https://a.test:443/x?y=z@w", "https://a.test", "/x?y=z@w"),
            ("https://a.test:8443/", "https://a.test:8443", "/"),
            ("http://[::1]:81/a", "http://[::1]:81", "/a"),
        ] {
            let (read, behind) = Place::of(url).unwrap();
            assert_eq!((read.to_string().as_str(), behind.as_str()), (place, rest));
        }
        for wrong in [
            "a.test",
            "ftp://a",
            "https://",
            "https://u@a.test/",
            "/x",
            "",
        ] {
            assert!(Place::of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_detour_is_for_its_host_and_port_alone() {
        let place: Place = "https://mail.test".parse().unwrap();
        let at = |text: &str| text.parse::<Detour>().unwrap().of(&place);

        let port = |port| Some(SocketAddr::from(([127, 0, 0, 1], port)));
        assert_eq!(at("mail.test=127.0.0.1:8443"), port(8443));
        assert_eq!(at("MAIL.test:443=127.0.0.1"), port(443));
        assert_eq!(at("mail.test:80=127.0.0.1"), None);
        assert_eq!(at("other.test=127.0.0.1"), None);
        for wrong in [
            "mail.test",
            "mail.test=",
            "=127.0.0.1",
            "mail.test=name",
            "a:b=1.1.1.1",
        ] {
            assert!(wrong.parse::<Detour>().is_err(), "{wrong}");
        }
    }
}
