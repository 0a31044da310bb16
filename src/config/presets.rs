//! What each family of mailbox servers serves beside MAPI, and how.
//!
//! Nothing here lets anybody in without a logon: that takes a line of the administrator's.

use super::settings::{VdirLogon, VdirPage, VdirSettings};
use crate::vdir::{Vdir, Verb};
use std::time::Duration;

/// What the site's mailbox servers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Preset {
    Exchange2013,
    Exchange2016,
    Exchange2019,
    Gromox,
}

impl Preset {
    pub(super) fn read(word: &str) -> Option<Self> {
        Some(match word {
            "exchange2013" => Self::Exchange2013,
            "exchange2016" => Self::Exchange2016,
            "exchange2019" => Self::Exchange2019,
            "gromox" => Self::Gromox,
            _ => return None,
        })
    }

    /// To whom a directory is open where the site says nothing.
    pub(super) fn reach(self, vdir: Vdir) -> Reach {
        match (self, vdir) {
            // Its web pages are another service's.
            (Self::Gromox, Vdir::Owa | Vdir::Ecp | Vdir::PowerShell | Vdir::Api) => Reach::Nobody,
            // Came with 2016.
            (Self::Exchange2013, Vdir::Api) => Reach::Nobody,
            (_, Vdir::Ecp | Vdir::PowerShell) => Reach::Inside,
            _ => Reach::Everybody,
        }
    }

    /// How a directory is served.
    pub(super) fn settings(self, vdir: Vdir) -> VdirSettings {
        use Verb::{Delete, Get, Head, Options, Patch, Post, Put};
        let (verbs, silence, body_max): (&[Verb], u64, u64) = match vdir {
            // Streaming subscriptions are held for up to 30 minutes.
            Vdir::Ews => (&[Get, Head, Post, Options], 31 * MINUTE, 64 * MIB),
            Vdir::Owa => (&[Get, Head, Post, Options], 5 * MINUTE, 35 * MIB),
            Vdir::Ecp => (&[Get, Head, Post], 5 * MINUTE, 35 * MIB),
            Vdir::Oab => (&[Get, Head], 2 * MINUTE, 0),
            // Ping is held for up to 59 minutes. [MS-ASCMD] 2.2.3.71.2
            Vdir::ActiveSync => (&[Options, Post], 61 * MINUTE, 35 * MIB),
            Vdir::PowerShell => (&[Post], 5 * MINUTE, 64 * MIB),
            Vdir::Api => (
                &[Get, Head, Post, Options, Put, Patch, Delete],
                2 * MINUTE,
                35 * MIB,
            ),
        };
        VdirSettings {
            inside_only: self.reach(vdir) == Reach::Inside,
            logon: VdirLogon::AsName,
            anchor_in_header: false,
            anchor_in_path: vdir.has_explicit_logon() && self != Self::Gromox,
            silence: Duration::from_secs(silence),
            body_max,
            verbs: verbs.to_vec(),
            websocket: vdir == Vdir::Owa && matches!(self, Self::Exchange2016 | Self::Exchange2019),
            page: (self != Self::Gromox).then(|| VdirPage {
                path: format!("{}/healthcheck.htm", vdir.path()),
                is_everywhere: false,
            }),
        }
    }
}

/// To whom a directory is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    Nobody,
    Inside,
    Everybody,
}

impl Reach {
    pub(super) fn read(word: &str) -> Self {
        match word {
            "everywhere" => Self::Everybody,
            "inside" => Self::Inside,
            _ => Self::Nobody,
        }
    }
}

const MINUTE: u64 = 60;
const MIB: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Preset; 4] = [
        Preset::Exchange2013,
        Preset::Exchange2016,
        Preset::Exchange2019,
        Preset::Gromox,
    ];

    #[test]
    fn no_preset_opens_an_administrators_directory_to_the_outside() {
        for preset in ALL {
            for vdir in [Vdir::Ecp, Vdir::PowerShell] {
                assert_ne!(preset.reach(vdir), Reach::Everybody, "{preset:?} {vdir:?}");
            }
        }
    }

    #[test]
    fn a_server_may_hold_a_ping_for_59_minutes_and_a_subscription_for_30() {
        for preset in ALL {
            let silence = |vdir| preset.settings(vdir).silence;
            assert!(silence(Vdir::ActiveSync) > Duration::from_secs(59 * MINUTE));
            assert!(silence(Vdir::Ews) > Duration::from_secs(30 * MINUTE));
        }
    }

    #[test]
    fn no_preset_lets_anybody_in_without_a_logon_or_believes_a_header() {
        for preset in ALL {
            for vdir in Vdir::ALL {
                let settings = preset.settings(vdir);
                assert_eq!(settings.logon, VdirLogon::AsName);
                assert!(!settings.anchor_in_header);
                assert!(!settings.anchor_in_path || vdir.has_explicit_logon());
            }
        }
    }
}
