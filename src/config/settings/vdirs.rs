//! The other virtual directories, as a site serves them.

use super::{PublicName, Scheme};
use crate::vdir::{Vdir, Verb};
use std::sync::Arc;
use std::time::Duration;

/// Which of them are served. The default serves none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Vdirs {
    served: [Option<Arc<VdirSettings>>; Vdir::ALL.len()],
    /// Requests of one address under way at once, where only a server finds out who asks.
    pub requests_per_address: usize,
}

impl Vdirs {
    /// Those that are named; the rest is not served.
    pub fn new(
        given: impl IntoIterator<Item = (Vdir, VdirSettings)>,
        requests_per_address: usize,
    ) -> Self {
        let mut vdirs = Self {
            requests_per_address,
            ..Self::default()
        };
        for (vdir, settings) in given {
            if let Some(place) = vdirs.served.get_mut(vdir.index()) {
                *place = Some(Arc::new(settings));
            }
        }
        vdirs
    }

    /// What is configured about one of them; `None`: it is served to nobody.
    pub fn get(&self, vdir: Vdir) -> Option<&Arc<VdirSettings>> {
        self.served.get(vdir.index())?.as_ref()
    }

    /// All that are served to somebody.
    pub fn iter(&self) -> impl Iterator<Item = (Vdir, &Arc<VdirSettings>)> {
        let all = Vdir::ALL.into_iter();
        all.filter_map(|vdir| Some((vdir, self.get(vdir)?)))
    }

    /// True where none is.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

/// How one of them is served.
#[derive(Clone, Debug, PartialEq)]
pub struct VdirSettings {
    /// Clients inside the internal networks only.
    pub inside_only: bool,
    /// Who finds out who asks.
    pub logon: VdirLogon,
    /// `X-AnchorMailbox` may say whose server is asked.
    pub anchor_in_header: bool,
    /// The address of an explicit logon may.
    pub anchor_in_path: bool,
    /// Time without a sign of life from the server.
    pub silence: Duration,
    /// Bytes of a request body.
    pub body_max: u64,
    /// Methods that are passed on.
    pub verbs: Vec<Verb>,
    /// A connection may become a tunnel. RFC 6455
    pub websocket: bool,
    /// The page that says whether a server serves it; `None`: nobody looks.
    pub page: Option<VdirPage>,
}

impl VdirSettings {
    /// Schemes of its logon under this name, challenges in this order; none where the server's form does it.
    pub fn schemes<'a>(&'a self, name: &'a PublicName) -> &'a [Scheme] {
        match &self.logon {
            VdirLogon::AsName => &name.authentication,
            VdirLogon::Schemes(schemes) => schemes,
            VdirLogon::Server => &[],
        }
    }
}

/// Who finds out who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VdirLogon {
    /// We, by the schemes of the name that was asked for.
    AsName,
    /// We, by these.
    Schemes(Vec<Scheme>),
    /// The mailbox server, by a form of its own.
    Server,
}

/// A page that says whether a server serves a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VdirPage {
    /// Its path.
    pub path: String,
    /// Every server has it; else those of the family the preset is of.
    pub is_everywhere: bool,
}
