//! The servers' health directory by directory: a server that is up may not serve all of them.

use super::HealthView;
use crate::vdir::Vdir;

/// The verdicts of one moment on every directory. What nobody looks at counts as up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wards([HealthView; Vdir::ALL.len()]);

impl Wards {
    /// Takes the verdicts of the directories that are looked at.
    pub fn new(views: impl IntoIterator<Item = (Vdir, HealthView)>) -> Self {
        let mut wards = Self::default();
        for (vdir, view) in views {
            if let Some(place) = wards.0.get_mut(vdir.index()) {
                *place = view;
            }
        }
        wards
    }

    /// Which servers serve a directory.
    pub fn of(&self, vdir: Vdir) -> &HealthView {
        let [ews, owa, ecp, oab, activesync, powershell, api] = &self.0;
        match vdir {
            Vdir::Ews => ews,
            Vdir::Owa => owa,
            Vdir::Ecp => ecp,
            Vdir::Oab => oab,
            Vdir::ActiveSync => activesync,
            Vdir::PowerShell => powershell,
            Vdir::Api => api,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_directory_has_its_own_verdicts_in_the_order_of_the_list() {
        let views: [HealthView; 7] = Default::default();
        let wards = Wards(views);
        for vdir in Vdir::ALL {
            let found: *const HealthView = wards.of(vdir);
            assert!(std::ptr::eq(found, &raw const wards.0[vdir.index()]));
        }
    }
}
