//! The servers' health directory by directory: a server that is up may not serve all of them.

use super::HealthView;
use crate::vdir::Vdir;

/// What servers have a health page of, beside that of all they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ward {
    /// Another virtual directory.
    Vdir(Vdir),
    /// Outlook Anywhere.
    Rpc,
}

impl Ward {
    /// The word used in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Vdir(vdir) => vdir.as_str(),
            Self::Rpc => "rpc",
        }
    }
}

impl From<Vdir> for Ward {
    fn from(vdir: Vdir) -> Self {
        Self::Vdir(vdir)
    }
}

/// The verdicts of one moment on every directory. What nobody looks at counts as up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wards {
    vdirs: [HealthView; Vdir::ALL.len()],
    rpc: HealthView,
}

impl Wards {
    /// Takes the verdicts of what is looked at.
    pub fn new(views: impl IntoIterator<Item = (Ward, HealthView)>) -> Self {
        let mut wards = Self::default();
        for (ward, view) in views {
            let place = match ward {
                Ward::Vdir(vdir) => wards.vdirs.get_mut(vdir.index()),
                Ward::Rpc => Some(&mut wards.rpc),
            };
            if let Some(place) = place {
                *place = view;
            }
        }
        wards
    }

    /// Which servers serve it.
    pub fn of(&self, ward: impl Into<Ward>) -> &HealthView {
        let [ews, owa, ecp, oab, activesync, powershell, api] = &self.vdirs;
        match ward.into() {
            Ward::Rpc => &self.rpc,
            Ward::Vdir(Vdir::Ews) => ews,
            Ward::Vdir(Vdir::Owa) => owa,
            Ward::Vdir(Vdir::Ecp) => ecp,
            Ward::Vdir(Vdir::Oab) => oab,
            Ward::Vdir(Vdir::ActiveSync) => activesync,
            Ward::Vdir(Vdir::PowerShell) => powershell,
            Ward::Vdir(Vdir::Api) => api,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_directory_has_its_own_verdicts_in_the_order_of_the_list() {
        let wards = Wards::default();
        for vdir in Vdir::ALL {
            let found: *const HealthView = wards.of(vdir);
            assert!(std::ptr::eq(found, &raw const wards.vdirs[vdir.index()]));
        }
        let found: *const HealthView = wards.of(Ward::Rpc);
        assert!(std::ptr::eq(found, &raw const wards.rpc));
    }
}
