//! What a plan takes for granted, where that comes from, and how to say otherwise.

use super::amount;
use serde::Serialize;
use thiserror::Error;

/// One of them, for people and for programs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Assumption {
    /// By which it is changed: `--assume NAME=VALUE`.
    pub name: &'static str,
    /// What is assumed.
    pub value: f64,
    /// Its unit; empty for plain numbers.
    pub unit: &'static str,
    /// What it is.
    pub meaning: &'static str,
    /// Where the default comes from.
    pub source: &'static str,
    /// A running site's own figures take its place.
    pub is_measured_on_a_site: bool,
}

/// A name that no assumption has.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("no assumption is called {name:?}; there are {known}")]
pub struct UnknownAssumption {
    name: String,
    known: String,
}

macro_rules! assumptions {
    ($($name:ident = $value:expr, $unit:literal, $measured:literal, $meaning:literal, $source:literal;)*) => {
        /// Everything a plan takes for granted.
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub struct Assumptions {
            $(#[doc = $meaning] pub $name: f64,)*
        }

        impl Default for Assumptions {
            fn default() -> Self {
                Self { $($name: $value,)* }
            }
        }

        impl Assumptions {
            /// All of them, in the order of the list.
            pub fn list(&self) -> Vec<Assumption> {
                vec![$(Assumption {
                    name: stringify!($name),
                    value: self.$name,
                    unit: $unit,
                    meaning: $meaning,
                    source: $source,
                    is_measured_on_a_site: $measured,
                },)*]
            }

            /// Changes one by its name.
            ///
            /// # Errors
            /// None is called so.
            pub fn set(&mut self, name: &str, value: f64) -> Result<(), UnknownAssumption> {
                match name {
                    $(stringify!($name) => self.$name = amount(value),)*
                    _ => return Err(UnknownAssumption {
                        name: name.to_owned(),
                        known: [$(stringify!($name)),*].join(", "),
                    }),
                }
                Ok(())
            }
        }
    };
}

assumptions! {
    working_hours = 8.0, "h", true,
        "the messages of a day fall into",
        "Microsoft, network guidance for Online Services: users of a time zone work the same eight hours";
    peak_factor = 2.0, "", true,
        "busiest hour against the average hour",
        "Microsoft, the same: a daily peak of twice the average usage";
    message_kb = 78.0, "KB", true,
        "carried for a message, sent or received, both directions together",
        "Microsoft, Outlook Anywhere Scalability (2008): cached mode, 3,900 KB a day for 10 sent and 40 received";
    sent_share = 0.2, "", true,
        "of the messages and their bytes go up",
        "Microsoft, the same: 10 of 50";
    executes_per_message = 20.0, "", true,
        "Executes for a message, with all that Outlook does beside it",
        "not published. LoadGen's user of 100 messages has 132 tasks a day; 15 Executes each. A site's own: --from";
    address_book_per_message = 0.6, "", true,
        "address book requests for a message",
        "ours: three for a message sent";
    connected_share = 1.0, "", false,
        "of the users are connected in the busiest hour",
        "ours: all";
    connections_per_user = 2.0, "", true,
        "connections of a user",
        "Microsoft, MAPI over HTTP (2014): one that stays, one on demand. With shared mailboxes there may be 8 and more";
    short_connection_seconds = 120.0, "s", true,
        "until the connection on demand is made anew",
        "the idle timeout of Exchange's web server, 120 s";
    sessions_per_user = 2.0, "", true,
        "sessions of a user",
        "one for the mailbox, one for the address book";
    opens_per_day = 4.0, "", true,
        "sessions a user opens or closes in a day",
        "ours: both sessions once";
    poll_seconds = 300.0, "s", true,
        "after which a held poll ends at the latest",
        "[MS-OXCMAPIHTTP] 3.1.5.5 and 3.2.5.5: five minutes";
    pending_seconds = 30.0, "s", true,
        "between two PENDING of a held poll",
        "[MS-OXCMAPIHTTP] 2.2.3.3.5, X-PendingPeriod as servers of today announce it";
    password_minutes = 10.0, "min", true,
        "for which a verified password is believed",
        "default of auth.cache_ttl";
    hash_ms = 2.4, "ms", false,
        "processor time of a password hash",
        "measured: bcrypt of cost 5, which htpasswd -B writes. Cost 10: 73, argon2id: 18, no passwords: 0";
    cold_factor = 6.0, "", true,
        "a request costs against one on a core that is always busy",
        "measured: an Execute 45 to 73 us at 4,000 to 250 a second, TLS on both legs; 12.9 us on a busy core, where it is 1";
    cold_handshake_factor = 1.7, "", true,
        "the same for a TLS handshake",
        "measured: 130 us; 77 us on a busy core";
    morning_minutes = 30.0, "min", false,
        "within which everybody connects in the morning",
        "ours";
    morning_executes = 50.0, "", false,
        "Executes of an Outlook that starts",
        "ours";
    back_within_seconds = 60.0, "s", false,
        "for the clients of a lost front end to be back",
        "ours: what the other front ends are made large enough for";
    rush_utilisation_percent = 80.0, "%", false,
        "of a core while clients come back, or in the morning",
        "ours: above it answers begin to wait for each other";
    kernel_kb_per_connection = 4.0, "KB", false,
        "kernel memory of a connection, on either side, without what is in its buffers",
        "measured: 16 KB of slab for the four sockets of a held poll, the other ends included";
    megacycles_per_message = 0.0425, "", false,
        "of a mailbox server, for a message a day of a user",
        "Microsoft, Sizing Exchange 2013 Deployments: 5.84 of all roles at 100 messages, with 3:8; so 4.25 without Client Access";
    core_megacycles = 2000.0, "", false,
        "of a mailbox server's core",
        "Microsoft, the same: baseline of 2 GHz, SPECint 33.75 per core";
    rule_ratio = 0.375, "", false,
        "Client Access cores to mailbox cores",
        "Microsoft, Sizing Guidance Updates for Exchange 2013 SP1: 3:8 with MAPI over HTTP, 1:4 before";
}

impl Assumptions {
    /// Seconds of a working day that has the peak's rate all the time and the day's messages.
    pub(super) fn busy_seconds(&self) -> f64 {
        self.working_hours * 3600.0 / self.peak_factor.max(f64::MIN_POSITIVE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_assumption_is_changed_by_the_name_it_is_listed_under() {
        for before in Assumptions::default().list() {
            let mut changed = Assumptions::default();
            changed.set(before.name, before.value + 1.0).unwrap();

            let differing: Vec<_> = changed
                .list()
                .into_iter()
                .zip(Assumptions::default().list())
                .filter(|(now, before)| now.value != before.value)
                .map(|(now, _)| now.name)
                .collect();
            assert_eq!(differing, [before.name]);
        }
    }

    #[test]
    fn a_name_that_is_none_is_answered_with_those_that_are() {
        let refused = Assumptions::default().set("peek_factor", 2.0).unwrap_err();

        let words = refused.to_string();
        assert!(words.contains("\"peek_factor\"") && words.contains("peak_factor, message_kb"));
    }

    #[test]
    fn the_megacycles_of_all_roles_are_those_that_were_published() {
        let assumed = Assumptions::default();

        let all_roles = 100.0 * assumed.megacycles_per_message * (1.0 + assumed.rule_ratio);

        assert!((all_roles - 5.84).abs() < 0.005, "{all_roles}");
    }
}
