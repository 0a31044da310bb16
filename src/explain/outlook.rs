//! Which Outlook says that it understands MAPI over HTTP.

use crate::autodiscover::Client;
use crate::mapi::Build;

/// The first build of each generation that sends `X-MapiHttpCapability`, and the last word on those before.
const GENERATIONS: [(Build, &str); 3] = [
    (
        Build([14, 0, 7147, 0]),
        "Outlook 2010 does with its updates of April 2015 (14.0.7147)",
    ),
    (
        Build([15, 0, 4569, 0]),
        "Outlook 2013 does with Service Pack 1 (15.0.4569)",
    ),
    (Build([16, 0, 0, 0]), "Outlook does since 2016"),
];

/// What an Outlook of today says.
pub(super) const TODAYS: Client = Client {
    mapi_http: Some(1),
    reads_exhttp: true,
};

/// What an Outlook of this build says, and who it is in words.
pub(super) fn read(version: &str) -> Result<(Client, String), String> {
    let build = Build::read(version)
        .ok_or_else(|| format!("{version:?} is no version of Outlook such as 15.0.4569.1506"))?;
    let Build([major, ..]) = build;
    let own = GENERATIONS.iter().find(|(first, _)| {
        let Build([generation, ..]) = first;
        *generation == major
    });
    let (is_capable, why) = match own {
        Some((first, why)) => (build >= *first, *why),
        None if major > 16 => (true, "Outlook does since 2016"),
        None => (false, "no Outlook before 2010 does"),
    };
    let says = if is_capable { "sends" } else { "does not send" };
    let client = Client {
        mapi_http: is_capable.then_some(1),
        // Outlook 2013 and later. `[MS-OXDSCLI] 2.2.2`
        reads_exhttp: major >= 15,
    };
    Ok((
        client,
        format!("Outlook {version}, which {says} X-MapiHttpCapability: {why}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outlooks_are_capable_from_a_build_of_their_generation_on() {
        for (version, is_capable) in [
            ("12.0.6514.5000", false),
            ("14.0.7113.5000", false),
            ("14.0.7147.5001", true),
            ("15.0.4420.1017", false),
            ("15.0.4569.1506", true),
            ("16.0.17126.20132", true),
        ] {
            let (client, words) = read(version).unwrap();
            assert_eq!(client.mapi_http.is_some(), is_capable, "{words}");
        }
        assert!(read("2013").is_err());
    }
}
