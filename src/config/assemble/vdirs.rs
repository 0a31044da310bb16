//! The other virtual directories: a preset, and what the site says otherwise.

use super::{edge, untouched};
use crate::config::presets::{Preset, Reach};
use crate::config::problem::{Complaint, quoted};
use crate::config::section::Section;
use crate::config::settings::{
    IpNet, PublicName, Scheme, VdirLogon, VdirPage, VdirSettings, Vdirs,
};
use crate::vdir::{Vdir, Verb};

/// The section, held against the names it is served under and the networks that are inside.
pub(super) fn vdirs(top: &Section<'_>, names: &[PublicName], inside: &[IpNet]) -> Vdirs {
    let Some(section) = top.written_section("virtual_directories") else {
        return Vdirs::default();
    };
    let preset = section.text("preset");
    let Some(preset) = preset.as_deref().and_then(Preset::read) else {
        return Vdirs::default();
    };
    let mut written: [Option<Section<'_>>; Vdir::ALL.len()] = Default::default();
    for item in section.items("paths") {
        let vdir = item.text("path").and_then(|path| Vdir::of_path(&path));
        let Some((vdir, place)) =
            vdir.and_then(|vdir| Some((vdir, written.get_mut(vdir.index())?)))
        else {
            continue;
        };
        if place.is_some() {
            let what = format!("the path {} is here a second time", quoted(vdir.path()));
            let complaint = Complaint::new(what, "keep one of the two");
            item.desk.error(&item.place("path"), complaint);
            continue;
        }
        *place = Some(item);
    }
    judge_schemes(top, &section, names, &written);
    let served = Vdir::ALL.into_iter().zip(&written);
    let served = served.filter_map(|(vdir, item)| {
        let settings = match item {
            Some(item) => own(top, item, vdir, preset, inside),
            None => match preset.reach(vdir) {
                Reach::Nobody => None,
                _ => Some(preset.settings(vdir)),
            },
        };
        Some((vdir, settings?))
    });
    Vdirs::new(served, section.amount("requests_per_address"))
}

/// A directory of which the site says something itself.
fn own(
    top: &Section<'_>,
    item: &Section<'_>,
    vdir: Vdir,
    preset: Preset,
    inside: &[IpNet],
) -> Option<VdirSettings> {
    let usual = preset.settings(vdir);
    let from = item.text("from");
    let reach = match from.as_deref() {
        Some(word) => Reach::read(word),
        None => preset.reach(vdir),
    };
    if from.is_some() && reach == Reach::Inside && inside.is_empty() {
        let what = format!(
            "{} is for clients inside, and nothing says where inside is: nobody is served",
            quoted(vdir.path())
        );
        let cure = "name the networks in `autodiscover: { internal_networks: [10.0.0.0/8] }`";
        item.desk
            .warning(&item.place("from"), Complaint::new(what, cure));
    }
    let (in_header, in_path) = anchors(item, vdir, &usual);
    let settings = VdirSettings {
        inside_only: reach == Reach::Inside,
        logon: logon(top, item, vdir),
        anchor_in_header: in_header,
        anchor_in_path: in_path,
        silence: match item.has("timeout") {
            true => item.duration("timeout"),
            false => usual.silence,
        },
        body_max: match item.has("body") {
            true => item.number("body"),
            false => usual.body_max,
        },
        verbs: match item.has("methods") {
            true => verbs(item),
            false => usual.verbs,
        },
        websocket: match item.has("websocket") {
            true => item.switch("websocket"),
            false => usual.websocket,
        },
        page: match item.text("health_page") {
            Some(page) if page == "off" => None,
            Some(path) => Some(VdirPage {
                path,
                is_everywhere: true,
            }),
            None => usual.page,
        },
    };
    (reach != Reach::Nobody).then_some(settings)
}

fn verbs(item: &Section<'_>) -> Vec<Verb> {
    if item.is_empty_list("methods") {
        let complaint = Complaint::new(
            "no method: no request would be passed on",
            "write the methods, or `from: off`",
        );
        item.desk.error(&item.place("methods"), complaint);
    }
    let words = item.list("methods");
    words
        .iter()
        .filter_map(|(word, _)| Verb::read(word))
        .collect()
}

fn anchors(item: &Section<'_>, vdir: Vdir, usual: &VdirSettings) -> (bool, bool) {
    if !item.has("anchor") {
        return (usual.anchor_in_header, usual.anchor_in_path);
    }
    let (mut in_header, mut in_path) = (false, false);
    for (word, place) in item.list("anchor") {
        match word.as_str() {
            "header" => in_header = true,
            _ if vdir.has_explicit_logon() => in_path = true,
            _ => {
                let what = format!("{} has no address in its path", quoted(vdir.path()));
                let cure = "remove `path`; `/ews`, `/owa` and `/ecp` have one";
                item.desk.error(&place, Complaint::new(what, cure));
            }
        }
    }
    (in_header, in_path)
}

fn logon(top: &Section<'_>, item: &Section<'_>, vdir: Vdir) -> VdirLogon {
    if !item.has("authentication") {
        return VdirLogon::AsName;
    }
    let desk = item.desk;
    let at = item.place("authentication");
    let words = item.list("authentication");
    if item.is_empty_list("authentication") {
        let what = "no authentication: nobody could sign on";
        let cure = "write the schemes, or leave the key out";
        desk.error(&at, Complaint::new(what, cure));
    }
    let auth = top.section("auth");
    let left = untouched::left_to_servers(&auth);
    let mut schemes = Vec::new();
    for (word, place) in &words {
        if word == SERVER {
            continue;
        }
        let mut known = Scheme::ALL.into_iter();
        let Some(scheme) = known.find(|scheme| scheme.as_str() == word) else {
            continue;
        };
        if schemes.contains(&scheme) {
            let what = format!("{} is here a second time", quoted(word));
            desk.error(place, Complaint::new(what, "keep one of the two"));
            continue;
        }
        schemes.push(scheme);
        let names = top.items("names");
        let is_judged = match scheme {
            Scheme::Certificate => names.iter().any(|name| edge::offers(name, scheme)),
            _ => auth.has(scheme.as_str()) && !left.contains(&scheme),
        };
        if !is_judged {
            let what = format!("nothing here judges {word}");
            let cure = match scheme {
                Scheme::Certificate => "offer it under `names` as well, or leave it out".to_owned(),
                _ => format!("add `auth: {{ {word}: … }}`, or leave it out"),
            };
            desk.error(place, Complaint::new(what, cure));
        }
    }
    let to_server = words.iter().find(|(word, _)| word == SERVER);
    let Some((_, place)) = to_server else {
        return VdirLogon::Schemes(schemes);
    };
    if words.len() > 1 {
        let what = "`server` beside schemes: either we find out who asks, or the server does";
        let cure = "write `[server]`, or the schemes";
        desk.error(place, Complaint::new(what, cure));
    }
    if !matches!(vdir, Vdir::Owa | Vdir::Ecp) {
        let what = format!(
            "{} has no form to sign on with: everybody would reach the mailbox servers",
            quoted(vdir.path())
        );
        let cure = "write the schemes; `/owa` and `/ecp` have forms";
        desk.error(place, Complaint::new(what, cure));
    }
    VdirLogon::Server
}

/// Names that accept nothing but what is left to servers: below a directory nobody could sign on.
fn judge_schemes(
    top: &Section<'_>,
    section: &Section<'_>,
    names: &[PublicName],
    written: &[Option<Section<'_>>],
) {
    let as_name = |item: &Option<Section<'_>>| {
        let own = item.as_ref().is_some_and(|item| item.has("authentication"));
        !own
    };
    if !written.iter().any(as_name) {
        return;
    }
    let left = untouched::left_to_servers(&top.section("auth"));
    let is_left = |name: &&PublicName| {
        let schemes = &name.authentication;
        !schemes.is_empty() && schemes.iter().all(|scheme| left.contains(scheme))
    };
    if let Some(name) = names.iter().find(is_left) {
        let what = format!(
            "{} leaves every scheme to the mailbox servers: in the other directories we must know who asks",
            quoted(&name.host)
        );
        let cure = "offer a scheme that is judged here, or write `authentication` for each path";
        section
            .desk
            .error(&section.here(), Complaint::new(what, cure));
    }
}

/// The word for a logon that the mailbox server does by itself.
const SERVER: &str = "server";
