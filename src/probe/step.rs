//! What a probe tries, in order, and what each step cannot do without.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

macro_rules! steps {
    ($($(#[$doc:meta])* $step:ident = $word:literal needs $($need:ident)?;)*) => {
        /// A step of a probe, in the order in which they are tried.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Step {
            $($(#[$doc])* $step,)*
        }

        impl Step {
            /// All of them, in their order.
            pub const ALL: [Self; [$($word),*].len()] = [$(Self::$step),*];

            /// Its word, in reports and metrics.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$step => $word,)* }
            }

            /// The step it cannot do without.
            pub fn needs(self) -> Option<Self> {
                match self { $(Self::$step => steps!(@need $($need)?),)* }
            }
        }
    };
    (@need) => { None };
    (@need $need:ident) => { Some(Self::$need) };
}

steps! {
    /// The name has an address.
    Dns = "dns" needs;
    /// Somebody answers there, with a certificate that is good for the name.
    Tls = "tls" needs Dns;
    /// Which schemes are offered, and whether the credential is accepted.
    Authentication = "authentication" needs Tls;
    /// Where Outlook is told that the mailbox is.
    Autodiscover = "autodiscover" needs Authentication;
    /// The same for newer clients, which first ask whom to ask.
    AutodiscoverJson = "autodiscover_json" needs Tls;
    /// A session with the mailbox is opened.
    Connect = "connect" needs Authentication;
    /// The mailbox itself is opened in it.
    Logon = "logon" needs Connect;
    /// A request is held until something happens.
    Wait = "wait" needs Connect;
    /// The session is closed.
    Disconnect = "disconnect" needs Connect;
    /// A session with the address book is opened.
    Bind = "bind" needs Authentication;
    /// The user is found in it.
    Resolve = "resolve" needs Bind;
    /// The first row of it is read.
    Rows = "rows" needs Bind;
    /// That session is closed.
    Unbind = "unbind" needs Bind;
    /// Outlook Anywhere answers.
    RpcEcho = "rpc_echo" needs Authentication;
}

impl Step {
    /// These steps, with everything they need, and with what closes again what they open.
    pub fn with_needs(asked: impl IntoIterator<Item = Self>) -> BTreeSet<Self> {
        let mut all = BTreeSet::new();
        for step in asked {
            all.extend(std::iter::successors(Some(step), |step| step.needs()));
        }
        let finds_a_mailbox =
            |step: &Self| matches!(step, Self::Connect | Self::Bind | Self::RpcEcho);
        if all.iter().any(finds_a_mailbox) {
            all.insert(Self::Autodiscover);
        }
        for (opens, closes) in [
            (Self::Connect, Self::Disconnect),
            (Self::Bind, Self::Unbind),
        ] {
            if all.contains(&opens) {
                all.insert(closes);
            }
        }
        all
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Step {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|step| step.as_str() == word);
        found.ok_or_else(|| {
            let words = Self::ALL.map(Self::as_str).join(", ");
            format!("the steps are {words}")
        })
    }
}

impl serde::Serialize for Step {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_comes_after_what_it_needs_and_reads_back() {
        for step in Step::ALL {
            assert!(step.needs().is_none_or(|need| need < step), "{step}");
            assert_eq!(step.as_str().parse(), Ok(step));
        }
        assert!("nonsense".parse::<Step>().is_err());
    }

    #[test]
    fn a_step_brings_along_what_it_needs_and_what_cleans_up_after_it() {
        let steps = Step::with_needs([Step::Resolve]);
        let words: Vec<_> = steps.iter().map(|step| step.as_str()).collect();

        assert_eq!(
            words,
            [
                "dns",
                "tls",
                "authentication",
                "autodiscover",
                "bind",
                "resolve",
                "unbind"
            ]
        );
        assert_eq!(Step::with_needs([Step::Tls]).len(), 2);
        assert_eq!(Step::with_needs(Step::ALL).len(), Step::ALL.len());
    }
}
