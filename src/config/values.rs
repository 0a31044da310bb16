//! What the text of one value means: durations, sizes, addresses, URLs, names.

use super::problem::{Complaint, nearest, quoted};
use super::settings::IpNet;
use crate::mapi::Build;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// Reads `15m`, `330s`, `1h 30m`; bounds in milliseconds, both allowed.
pub(super) fn duration(text: &str, least: u64, most: u64) -> Result<Duration, Complaint> {
    if is_number(text) {
        return Err(Complaint::new(
            format!("{} has no unit", quoted(text)),
            format!("write the unit, as in `{text}s`, `{text}m` or `{text}h`"),
        ));
    }
    let duration = humantime::parse_duration(text).map_err(|cause| {
        Complaint::new(
            format!("{} is not a duration ({cause})", quoted(text)),
            "write a number with ms, s, m, h or d, as in `500ms`, `30s` or `15m`",
        )
    })?;
    if duration < Duration::from_millis(least) || duration > Duration::from_millis(most) {
        return Err(out_of_range(
            text,
            &duration_words(least),
            &duration_words(most),
        ));
    }
    Ok(duration)
}

/// Reads `64KiB`, `1.5MiB`, `4MB`; bounds in bytes, both allowed.
pub(super) fn size(text: &str, least: u64, most: u64) -> Result<u64, Complaint> {
    if is_number(text) {
        return Err(Complaint::new(
            format!("{} has no unit", quoted(text)),
            "write the unit: B, KiB, MiB or GiB",
        )
        .rather(
            text.parse()
                .ok()
                .filter(|bytes| *bytes >= 1024)
                .map(size_words),
        ));
    }
    let size: bytesize::ByteSize = text.parse().map_err(|cause| {
        let _: String = cause;
        Complaint::new(
            format!("{} is not a size", quoted(text)),
            "write a number with B, KiB, MiB or GiB, as in `64KiB` or `4MiB`",
        )
    })?;
    if size.as_u64() < least || size.as_u64() > most {
        return Err(out_of_range(text, &size_words(least), &size_words(most)));
    }
    Ok(size.as_u64())
}

/// Reads a whole number; both bounds allowed.
pub(super) fn count(text: &str, least: u64, most: u64) -> Result<u64, Complaint> {
    let digits: String = text.chars().filter(|c| *c != '_').collect();
    let number: u64 = digits
        .parse()
        .map_err(|_no_number: std::num::ParseIntError| {
            Complaint::new(
                format!("{} is not a whole number", quoted(text)),
                format!("write a number from {least} to {most}, without unit"),
            )
        })?;
    if number < least || number > most {
        return Err(out_of_range(text, &least.to_string(), &most.to_string()));
    }
    Ok(number)
}

/// Reads `true` or `false`.
pub(super) fn switch(text: &str) -> Result<bool, Complaint> {
    let meant = match text {
        "true" => return Ok(true),
        "false" => return Ok(false),
        "yes" | "on" | "Yes" | "On" | "ON" | "YES" | "1" | "True" | "TRUE" => Some("true"),
        "no" | "off" | "No" | "Off" | "OFF" | "NO" | "0" | "False" | "FALSE" => Some("false"),
        _ => None,
    };
    Err(Complaint::new(
        format!("{} is neither true nor false", quoted(text)),
        "write `true` or `false`",
    )
    .rather(meant.map(str::to_owned)))
}

/// Reads one of the words.
pub(super) fn choice(text: &str, words: &[&str]) -> Result<(), Complaint> {
    if words.contains(&text) {
        return Ok(());
    }
    let list = words.join("`, `");
    let cure = if words.len() == 1 {
        format!("write `{list}`; nothing else is known here")
    } else {
        format!("write one of `{list}`")
    };
    Err(
        Complaint::new(format!("{} is not known here", quoted(text)), cure)
            .rather(nearest(text, words.iter().copied()).map(str::to_owned)),
    )
}

/// Reads a listening address, `0.0.0.0:443` or `[::1]:9080`.
pub(super) fn address(text: &str) -> Result<SocketAddr, Complaint> {
    text.parse()
        .map_err(|_no_address: std::net::AddrParseError| {
            let rather = if text.parse::<Ipv6Addr>().is_ok() {
                Some(format!("[{text}]:443"))
            } else if text.parse::<IpAddr>().is_ok() {
                Some(format!("{text}:443"))
            } else if let Some(port) = text.strip_prefix("*:").or(text.strip_prefix(':')) {
                port.parse::<u16>()
                    .ok()
                    .map(|port| format!("0.0.0.0:{port}"))
            } else if let Some(port) = text.strip_prefix("localhost:") {
                port.parse::<u16>()
                    .ok()
                    .map(|port| format!("127.0.0.1:{port}"))
            } else {
                text.parse::<u16>()
                    .ok()
                    .map(|port| format!("0.0.0.0:{port}"))
            };
            Complaint::new(
                format!("{} is not an address with a port", quoted(text)),
                "write `IP:PORT`, as in `0.0.0.0:443`, `127.0.0.1:8080` or `[::]:443`",
            )
            .rather(rather)
        })
}

/// Reads `mbx1.contoso.com:443`, `10.0.0.7:443` or `[fd00::7]:443`.
pub(super) fn host_and_port(text: &str) -> Result<(String, u16), Complaint> {
    const CURE: &str = "write `HOST:PORT`, as in `mbx1.contoso.com:443`";
    if let Some((scheme, rest)) = text.split_once("://") {
        let port = if scheme == "http" { 80 } else { 443 };
        let host = rest.split('/').next().unwrap_or_default();
        let rather = if host.contains(':') {
            host.to_owned()
        } else {
            format!("{host}:{port}")
        };
        return Err(Complaint::new(
            format!("{} is a URL; here stand only host and port", quoted(text)),
            "TLS is chosen by the key `tls`, and is the default",
        )
        .rather(Some(rather)));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return port_not_zero(text, address.port()).map(|port| (address.ip().to_string(), port));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(
            Complaint::new(format!("{} names no port", quoted(text)), CURE)
                .rather(Some(format!("{text}:443"))),
        );
    };
    let port = port
        .parse()
        .map_err(|_no_number: std::num::ParseIntError| {
            Complaint::new(format!("{} ends in no port number", quoted(text)), CURE)
        })?;
    Ok((host_name(host)?, port_not_zero(text, port)?))
}

fn port_not_zero(text: &str, port: u16) -> Result<u16, Complaint> {
    if port == 0 {
        let what = format!("nobody listens at port 0 ({})", quoted(text));
        return Err(Complaint::new(what, "write the server's port, mostly 443"));
    }
    Ok(port)
}

/// Reads a host name or address, in lower case. Underscores pass, because sites have them.
pub(super) fn host_name(text: &str) -> Result<String, Complaint> {
    let name = text.to_ascii_lowercase();
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let is_name = name.len() <= 253 && name.trim_end_matches('.').split('.').all(label);
    if is_name || name.parse::<IpAddr>().is_ok() {
        return Ok(name.trim_end_matches('.').to_owned());
    }
    let cure = if text.contains("://") || text.contains('/') {
        "write the name alone, without scheme and path"
    } else if text.is_ascii() {
        "write letters, digits, dashes and dots, as in `mail.contoso.com`"
    } else {
        "write the name in its ASCII form (`xn--…`)"
    };
    Err(Complaint::new(
        format!("{} is not a host name", quoted(text)),
        cure,
    ))
}

/// Reads `https://mail.contoso.com/mapi`; gives the URL without a slash at the end, and its host.
pub(super) fn mapi_url(text: &str) -> Result<(String, String), Complaint> {
    const CURE: &str = "write `https://HOST/mapi`, as in `https://mail.contoso.com/mapi`";
    let Some(rest) = text.strip_prefix("https://") else {
        let what = if text.starts_with("http://") {
            format!("{} is without TLS; Outlook wants https", quoted(text))
        } else {
            format!("{} does not begin with https://", quoted(text))
        };
        return Err(Complaint::new(what, CURE));
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if path.trim_end_matches('/') != "mapi" {
        return Err(Complaint::new(
            format!("the path of {} is not /mapi", quoted(text)),
            "write the path `/mapi`; clients add `/emsmdb` and `/nspi` to it",
        )
        .rather(Some(format!("https://{authority}/mapi"))));
    }
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => {
            port.parse::<u16>()
                .map_err(|_no_number: std::num::ParseIntError| {
                    Complaint::new(
                        format!("{} ends in no port number", quoted(authority)),
                        CURE,
                    )
                })?;
            host
        }
        _ => authority,
    };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    Ok((text.trim_end_matches('/').to_owned(), host_name(bare)?))
}

/// A URL that clients are told, as it is written.
pub(super) fn https_url(text: &str) -> Result<String, Complaint> {
    const CURE: &str = "write `https://HOST/PATH`, as in `https://mail.contoso.com/oab/`";
    let uri = text.parse::<http::Uri>().ok();
    let authority = uri.as_ref().and_then(|uri| uri.authority());
    let is_plain = authority.is_some_and(|authority| !authority.as_str().contains('@'));
    let scheme = uri.as_ref().and_then(http::Uri::scheme_str);
    if scheme == Some("https") && is_plain && !text.contains('#') {
        return Ok(text.to_owned());
    }
    let what = format!("{} is not a URL with https", quoted(text));
    Err(Complaint::new(what, CURE))
}

/// A build of Exchange.
pub(super) fn build(text: &str) -> Result<Build, Complaint> {
    Build::read(text).ok_or_else(|| {
        let what = format!("{} is not a build", quoted(text));
        let cure = "write it as `Get-ExchangeServer | Format-List AdminDisplayVersion` numbers it, as in `15.1.2507.6`";
        Complaint::new(what, cure)
    })
}

/// Reads the URL of a document that is fetched. Without TLS only from this host: whoever could change
/// keys under way could sign for everybody.
pub(super) fn url(text: &str) -> Result<(), Complaint> {
    const CURE: &str = "write `https://HOST/PATH`, as in `https://id.contoso.com/keys`";
    let wrong = |what: String| Err(Complaint::new(what, CURE));
    let Ok(uri) = text.parse::<http::Uri>() else {
        return wrong(format!("{} is not a URL", quoted(text)));
    };
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return wrong(format!("{} is not a whole URL", quoted(text)));
    };
    if authority.as_str().contains('@') || text.contains('#') {
        return wrong(format!(
            "{} carries more than a host and a path",
            quoted(text)
        ));
    }
    match scheme {
        "https" => Ok(()),
        "http" if is_this_host(authority.host()) => Ok(()),
        "http" => wrong(format!(
            "{} is without TLS: whoever changes keys under way signs for everybody",
            quoted(text)
        )),
        _ => wrong(format!("{} does not begin with https://", quoted(text))),
    }
}

/// True for `localhost` and addresses of the loopback.
pub(super) fn is_this_host(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Reads `10.0.0.0/8` or a single address.
pub(super) fn network(text: &str) -> Result<IpNet, Complaint> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let read = || {
        let address: IpAddr = address.parse().ok()?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix: u8 = match prefix {
            Some(prefix) => prefix.parse().ok()?,
            None => width,
        };
        (prefix <= width).then_some(IpNet { address, prefix })
    };
    let net = read().ok_or_else(|| {
        Complaint::new(
            format!("{} is not a network", quoted(text)),
            "write `ADDRESS/PREFIX`, as in `10.1.0.0/16`, or a single address",
        )
    })?;
    let first = first_address(net);
    if first != net.address {
        return Err(Complaint::new(
            format!(
                "{} is an address inside a network, not a network",
                quoted(text)
            ),
            "write the network's first address, or drop the prefix to mean the one address",
        )
        .rather(Some(format!("{first}/{}", net.prefix))));
    }
    Ok(net)
}

fn first_address(net: IpNet) -> IpAddr {
    match net.address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX
                .checked_shl(32 - u32::from(net.prefix.min(32)))
                .unwrap_or(0);
            IpAddr::V4((u32::from(v4) & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX
                .checked_shl(128 - u32::from(net.prefix.min(128)))
                .unwrap_or(0);
            IpAddr::V6((u128::from(v6) & mask).into())
        }
    }
}

/// Reads a name of a server or database: it goes into logs and metrics.
pub(super) fn name(text: &str) -> Result<(), Complaint> {
    let fits = |c: char| c.is_ascii_alphanumeric() || " ._-()@".contains(c);
    if (1..=64).contains(&text.len()) && text.chars().all(fits) && text.trim() == text {
        return Ok(());
    }
    Err(Complaint::new(
        format!("{} cannot be a name", quoted(text)),
        "use 1 to 64 letters, digits, spaces and `. _ - ( ) @`",
    ))
}

/// Reads a word that may stand as the name of a header or cookie (RFC 9110 `token`).
pub(super) fn token(text: &str) -> Result<(), Complaint> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    // Servers refuse header names beyond 63 bytes.
    if (1..=63).contains(&text.len()) && text.bytes().all(fits) {
        return Ok(());
    }
    Err(Complaint::new(
        format!("{} cannot be the name of a header or cookie", quoted(text)),
        "use 1 to 63 letters, digits and dashes",
    ))
}

/// Reads a path of a URL, as in `/mapi/healthcheck.htm`.
pub(super) fn url_path(text: &str) -> Result<(), Complaint> {
    if text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
        return Ok(());
    }
    Err(Complaint::new(
        format!("{} is not the path of a page", quoted(text)),
        "write a path from the root, as in `/mapi/healthcheck.htm`, or `off`",
    ))
}

/// Reads any text of one line.
pub(super) fn line(text: &str) -> Result<(), Complaint> {
    if !text.is_empty() && text.len() <= 1024 && !text.chars().any(char::is_control) {
        return Ok(());
    }
    Err(Complaint::new(
        format!(
            "{} is empty, too long or has control characters",
            quoted(text)
        ),
        "write one line of at most 1024 bytes",
    ))
}

/// `90000` milliseconds as `1m 30s`.
pub(super) fn duration_words(milliseconds: u64) -> String {
    humantime::format_duration(Duration::from_millis(milliseconds)).to_string()
}

/// Bytes in the largest unit that divides them: `4MiB`.
pub(super) fn size_words(bytes: u64) -> String {
    for (unit, words) in [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
        if bytes >= unit && bytes.is_multiple_of(unit) {
            return format!("{}{words}", bytes / unit);
        }
    }
    format!("{bytes}B")
}

fn out_of_range(text: &str, least: &str, most: &str) -> Complaint {
    Complaint::new(
        format!("{} is out of range", quoted(text)),
        format!("choose a value from {least} to {most}"),
    )
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400_000;

    #[test]
    fn durations_and_sizes_need_a_unit() {
        assert_eq!(duration("15m", 0, DAY).unwrap(), Duration::from_secs(900));
        assert_eq!(
            duration("1h 30m", 0, DAY).unwrap(),
            Duration::from_secs(5400)
        );
        assert_eq!(duration("15", 0, DAY).unwrap_err().what, "`15` has no unit");
        assert_eq!(size("64KiB", 0, u64::MAX).unwrap(), 65_536);
        assert_eq!(size("1.5MiB", 0, u64::MAX).unwrap(), 1_572_864);
        assert_eq!(size("15", 0, 99).unwrap_err().what, "`15` has no unit");
    }

    #[test]
    fn a_rate_is_not_a_size() {
        assert_eq!(
            size("4MB/s", 0, u64::MAX).unwrap_err().what,
            "`4MB/s` is not a size"
        );
    }

    #[test]
    fn ranges_are_named_in_human_units() {
        assert_eq!(
            duration("2d", 100, DAY).unwrap_err().cure,
            "choose a value from 100ms to 1day"
        );
        assert_eq!(
            size("1B", 1024, 4 << 20).unwrap_err().cure,
            "choose a value from 1KiB to 4MiB"
        );
    }

    #[test]
    fn an_incomplete_address_is_completed() {
        let rather = |text| address(text).unwrap_err().did_you_mean.unwrap();
        assert_eq!(rather("443"), "0.0.0.0:443");
        assert_eq!(rather(":443"), "0.0.0.0:443");
        assert_eq!(rather("10.0.0.1"), "10.0.0.1:443");
        assert_eq!(rather("::"), "[::]:443");
        assert_eq!(rather("localhost:80"), "127.0.0.1:80");
        assert!(address("[::]:443").is_ok());
    }

    #[test]
    fn servers_are_host_and_port() {
        assert_eq!(
            host_and_port("MBX1.contoso.com:443").unwrap(),
            ("mbx1.contoso.com".to_owned(), 443)
        );
        assert_eq!(
            host_and_port("[fd00::7]:443").unwrap(),
            ("fd00::7".to_owned(), 443)
        );
        let url = host_and_port("https://mbx1/mapi").unwrap_err();
        assert_eq!(url.did_you_mean.unwrap(), "mbx1:443");
        assert!(host_and_port("mbx1").is_err());
        assert!(host_and_port("mbx1:0").is_err());
        assert!(host_and_port("mbx1:port").is_err());
        assert!(host_and_port("m x:1").is_err());
    }

    #[test]
    fn mapi_urls_end_in_mapi() {
        assert_eq!(
            mapi_url("https://Mail.contoso.com:8443/mapi/").unwrap(),
            (
                "https://Mail.contoso.com:8443/mapi".to_owned(),
                "mail.contoso.com".to_owned()
            )
        );
        assert!(mapi_url("http://mail.contoso.com/mapi").is_err());
        assert_eq!(
            mapi_url("https://mail.contoso.com")
                .unwrap_err()
                .did_you_mean,
            Some("https://mail.contoso.com/mapi".to_owned())
        );
    }

    #[test]
    fn documents_are_fetched_with_tls_or_from_this_host() {
        for good in [
            "https://id.contoso.com",
            "https://id.contoso.com:8443/a/b?c=d",
            "http://127.0.0.1:8080/keys",
            "http://localhost/keys",
            "http://[::1]:80/keys",
        ] {
            assert!(url(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "id.contoso.com",
            "/keys",
            "http://id.contoso.com/keys",
            "http://localhost.contoso.com/keys",
            "ftp://id.contoso.com/keys",
            "https://user:secret@id.contoso.com/",
            "https://id.contoso.com/keys#first",
            "https:///keys",
            "https://id contoso com/",
        ] {
            assert!(url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_network_begins_at_its_first_address() {
        assert_eq!(network("10.1.0.0/16").unwrap().prefix, 16);
        assert_eq!(network("10.1.2.3").unwrap().prefix, 32);
        assert_eq!(network("::/0").unwrap().prefix, 0);
        assert_eq!(
            network("10.1.2.3/16").unwrap_err().did_you_mean,
            Some("10.1.0.0/16".to_owned())
        );
        assert!(network("10.1.0.0/33").is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
            let _ = duration(&text, 1, DAY);
            let _ = size(&text, 1, 1 << 40);
            let _ = count(&text, 1, 10);
            let _ = (switch(&text), choice(&text, &["a"]), address(&text), network(&text));
            let _ = (host_and_port(&text), mapi_url(&text), name(&text), token(&text));
            let _ = (url_path(&text), line(&text), url(&text));
        }
    }
}
