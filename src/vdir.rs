//! The other virtual directories of a mail site: which there are, and how their paths are read.
//!
//! Which of them a site serves, and to whom, is configured; nothing here is open by itself.

mod home;
mod path;
mod query;

pub use home::other_name;
pub use path::{VdirPath, read};
pub use query::{clean_query, parameter};

/// A virtual directory beside MAPI and Autodiscover.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Vdir {
    /// Exchange Web Services.
    Ews,
    /// Outlook on the web.
    Owa,
    /// The administrators' and users' settings pages.
    Ecp,
    /// Offline address books.
    Oab,
    /// Exchange ActiveSync. `[MS-ASHTTP]`
    ActiveSync,
    /// Remote PowerShell.
    PowerShell,
    /// The REST interface.
    Api,
}

impl Vdir {
    /// All of them, in the order of their indices.
    pub const ALL: [Self; 7] = [
        Self::Ews,
        Self::Owa,
        Self::Ecp,
        Self::Oab,
        Self::ActiveSync,
        Self::PowerShell,
        Self::Api,
    ];

    /// The word used in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ews => "ews",
            Self::Owa => "owa",
            Self::Ecp => "ecp",
            Self::Oab => "oab",
            Self::ActiveSync => "activesync",
            Self::PowerShell => "powershell",
            Self::Api => "api",
        }
    }

    /// Its path as sites write it; paths are read in any case.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Ews => "/ews",
            Self::Owa => "/owa",
            Self::Ecp => "/ecp",
            Self::Oab => "/oab",
            Self::ActiveSync => "/Microsoft-Server-ActiveSync",
            Self::PowerShell => "/powershell",
            Self::Api => "/api",
        }
    }

    /// The directory of this path, as the configuration writes it.
    pub fn of_path(path: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|vdir| vdir.path().eq_ignore_ascii_case(path))
    }

    /// Position in [`Self::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// True where the second segment of a path may be the address of the mailbox to open.
    pub const fn has_explicit_logon(self) -> bool {
        matches!(self, Self::Ews | Self::Owa | Self::Ecp)
    }
}

/// A method of HTTP that some directory knows. No other is read at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// `GET`
    Get,
    /// `HEAD`
    Head,
    /// `POST`
    Post,
    /// `OPTIONS`
    Options,
    /// `PUT`
    Put,
    /// `PATCH`
    Patch,
    /// `DELETE`
    Delete,
}

impl Verb {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Get,
        Self::Head,
        Self::Post,
        Self::Options,
        Self::Put,
        Self::Patch,
        Self::Delete,
    ];

    /// The method as it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Options => "OPTIONS",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }

    /// The method of this word. Methods are told apart by case. RFC 9110 section 9.1
    pub fn read(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.as_str() == word)
    }

    /// True where a request brings a body, even an empty one.
    pub const fn has_body(self) -> bool {
        matches!(self, Self::Post | Self::Put | Self::Patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_directory_is_found_by_its_path_in_any_case() {
        for (position, vdir) in Vdir::ALL.into_iter().enumerate() {
            assert_eq!(vdir.index(), position);
            assert_eq!(Vdir::of_path(&vdir.path().to_uppercase()), Some(vdir));
        }
        assert_eq!(Vdir::of_path("/mapi"), None);
    }

    #[test]
    fn methods_are_told_apart_by_case() {
        for verb in Verb::ALL {
            assert_eq!(Verb::read(verb.as_str()), Some(verb));
            assert_eq!(Verb::read(&verb.as_str().to_lowercase()), None);
        }
        for other in ["TRACE", "CONNECT", "PROPFIND", "RPC_IN_DATA", ""] {
            assert_eq!(Verb::read(other), None);
        }
    }
}
