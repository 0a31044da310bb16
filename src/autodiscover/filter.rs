//! A mailbox server's answer, changed so that it offers what it should and names the front door.
//!
//! Changes are cuts and patches of the text; everything else passes letter by letter.

use super::xml::{self, Element, Tree, escaped};
use super::{ANSWER_MAX, Offer, Reach, Urls, Wrong, host_of, public_mapi_url, with_authority};
use std::ops::Range;

/// What an answer is to become.
pub struct Filter<'a> {
    /// What the client may be told.
    pub offer: Offer,
    /// Where it is to go.
    pub urls: Urls<'a>,
    /// True for the host name of a mailbox server, in any case: clients must not go there.
    pub is_back_end: &'a dyn Fn(&str) -> bool,
}

impl std::fmt::Debug for Filter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Filter")
            .field("offer", &self.offer)
            .field("urls", &self.urls)
            .finish_non_exhaustive()
    }
}

/// Changes an answer, POX or SOAP. The result is UTF-8, with a new length.
///
/// # Errors
/// It is too large, or not an answer of Autodiscover; nothing of it may reach a client then.
pub fn filter(answer: &[u8], with: &Filter<'_>) -> Result<Vec<u8>, Wrong> {
    let text = xml::text(answer, ANSWER_MAX)?;
    let tree = Tree::read(&text)?;
    let mut changes = Changes::default();
    if tree.is(0, "Autodiscover") {
        with.pox(&tree, &mut changes);
    } else if tree.is(0, "Envelope") {
        with.soap(&tree, &mut changes);
    } else {
        return Err(Wrong::Other("an answer of Autodiscover"));
    }
    with.leaves(&tree, &mut changes);
    Ok(changes.apply(text.as_str()))
}

/// A block of settings for one protocol.
struct Block {
    index: usize,
    kind: Protocol,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    MapiHttp,
    Exch,
    Expr,
    Exhttp,
    Other,
}

impl Protocol {
    /// Of a `Protocol` element: an attribute in new blocks, an element in old ones.
    pub(super) fn of(tree: &Tree<'_>, index: usize) -> Self {
        let attribute = tree
            .at(index)
            .and_then(|element| attribute(element, "Type"));
        let word = attribute
            .or_else(|| tree.value(index, "Type"))
            .unwrap_or_default();
        let is = |known: &str| word.eq_ignore_ascii_case(known);
        if is("mapiHttp") {
            Self::MapiHttp
        } else if is("EXCH") {
            Self::Exch
        } else if is("EXPR") {
            Self::Expr
        } else if is("EXHTTP") {
            Self::Exhttp
        } else {
            Self::Other
        }
    }
}

impl Filter<'_> {
    fn pox(&self, tree: &Tree<'_>, changes: &mut Changes) {
        let mut blocks: Vec<Block> = Vec::new();
        let responses = tree.children(0).filter(|at| tree.is(*at, "Response"));
        for response in responses {
            for account in tree.children(response).filter(|at| tree.is(*at, "Account")) {
                let found = tree.children(account).filter(|at| tree.is(*at, "Protocol"));
                blocks.extend(found.map(|index| Block {
                    index,
                    kind: Protocol::of(tree, index),
                }));
            }
        }
        let has = |kind: Protocol| blocks.iter().any(|block| block.kind == kind);
        // What the server does not offer itself is not offered, and the old blocks stay.
        let mapi_http = self.offer.mapi_http.is_some() && has(Protocol::MapiHttp);
        let exhttp = self.offer.exhttp && has(Protocol::Exhttp);
        for block in &blocks {
            let stays = match block.kind {
                Protocol::MapiHttp => mapi_http,
                // Only where a client learns of the other services elsewhere: their URLs stand here too.
                Protocol::Exch | Protocol::Expr if mapi_http => !exhttp,
                Protocol::Exch => self.offer.outlook_anywhere || self.offer.rpc,
                Protocol::Expr => self.offer.outlook_anywhere,
                Protocol::Exhttp => exhttp && (mapi_http || self.offer.outlook_anywhere),
                Protocol::Other => true,
            };
            let Some(element) = tree.at(block.index) else {
                continue;
            };
            match (stays, block.kind) {
                (false, _) => changes.cut(element.whole.clone()),
                (true, Protocol::MapiHttp) => self.mapi_http(tree, block.index, changes),
                (true, Protocol::Exch | Protocol::Expr | Protocol::Exhttp) => {
                    self.hosts(tree, block, changes);
                }
                (true, Protocol::Other) => {}
            }
        }
    }

    /// Both endpoints get the public URLs, whatever the server calls itself.
    fn mapi_http(&self, tree: &Tree<'_>, block: usize, changes: &mut Changes) {
        if let Some(element) = tree.at(block) {
            self.version(element, changes);
        }
        for store in tree.children(block) {
            let internal = tree.child(store, "InternalUrl");
            let external = tree.child(store, "ExternalUrl");
            let bases = [
                (internal, Some(self.urls.internal)),
                (external, self.urls.external_within(self.offer.reach)),
            ];
            for (leaf, base) in bases {
                let Some(element) = leaf.and_then(|leaf| tree.at(leaf)) else {
                    continue;
                };
                let public = base.and_then(|base| public_mapi_url(element.value.trim(), base));
                match public {
                    Some(url) => changes.patch(element.inner.clone(), &escaped(&url)),
                    // No outside, or no URL we could stand for.
                    None => changes.cut(element.whole.clone()),
                }
            }
            self.missing_external(tree, (internal, external), changes);
        }
    }

    /// A server that does not know of the outside is spoken for.
    fn missing_external(
        &self,
        tree: &Tree<'_>,
        (internal, external): (Option<usize>, Option<usize>),
        changes: &mut Changes,
    ) {
        let (None, Some(known)) = (external, internal.and_then(|leaf| tree.at(leaf))) else {
            return;
        };
        let base = self.urls.external_within(self.offer.reach);
        if let Some(url) = base.and_then(|base| public_mapi_url(known.value.trim(), base)) {
            let prefix = known.qualified.strip_suffix(known.name).unwrap_or_default();
            let element = format!(
                "<{prefix}ExternalUrl>{}</{prefix}ExternalUrl>",
                escaped(&url)
            );
            changes.patch(known.whole.end..known.whole.end, &element);
        }
    }

    /// No higher than what the client reads. `[MS-OXDSCLI] 2.2.4.1.1.2.6`
    fn version(&self, element: &Element<'_>, changes: &mut Changes) {
        let Some(highest) = self.offer.mapi_http else {
            return;
        };
        let written =
            attribute(element, "Version").and_then(|text| text.trim().parse::<u32>().ok());
        if written.is_some_and(|written| (1..=highest).contains(&written)) {
            return;
        }
        let tag = format!(
            "<{} Type=\"mapiHttp\" Version=\"{highest}\">",
            element.qualified
        );
        changes.patch(element.whole.start..element.inner.start, &tag);
    }

    /// Hosts that stand without a URL around them.
    fn hosts(&self, tree: &Tree<'_>, block: &Block, changes: &mut Changes) {
        let public = self.urls.host(self.offer.reach);
        for leaf in tree.children(block.index) {
            let Some(element) = tree.at(leaf).filter(|_| tree.is_leaf(leaf)) else {
                continue;
            };
            let value = element.value.trim();
            // In EXCH stands where RPC goes, which is not by this door.
            if tree.is(leaf, "Server") && block.kind != Protocol::Exch {
                if (self.is_back_end)(value) {
                    changes.patch(element.inner.clone(), &escaped(public));
                }
            } else if tree.is(leaf, "CertPrincipalName")
                && value
                    .split_once(':')
                    .is_some_and(|(_, host)| (self.is_back_end)(host))
            {
                changes.patch(element.inner.clone(), &escaped(&format!("msstd:{public}")));
            }
        }
    }

    fn soap(&self, tree: &Tree<'_>, changes: &mut Changes) {
        for (index, element) in tree.iter().enumerate() {
            if !tree.is(index, "UserSetting") {
                continue;
            }
            let name = tree.value(index, "Name").unwrap_or_default();
            let value = tree.child(index, "Value").and_then(|value| tree.at(value));
            let Some(value) = value else { continue };
            match name {
                "MapiHttpEnabled" if self.offer.mapi_http.is_none() => {
                    changes.patch(value.inner.clone(), "False");
                }
                "ExternalMailboxServer"
                    if !self.offer.outlook_anywhere || self.offer.reach == Reach::Internal =>
                {
                    changes.cut(element.whole.clone());
                }
                "ExternalMailboxServer" | "InternalRpcHttpServer" | "ExternalRpcHttpServer"
                    if (self.is_back_end)(value.value.trim()) =>
                {
                    let public = self.urls.host(self.offer.reach);
                    changes.patch(value.inner.clone(), &escaped(public));
                }
                _ => {}
            }
        }
    }

    /// Every URL that names a mailbox server gets the public name.
    fn leaves(&self, tree: &Tree<'_>, changes: &mut Changes) {
        for (index, element) in tree.iter().enumerate() {
            let value = element.value.trim();
            if !tree.is_leaf(index) || !(self.is_back_end)(host_of(value)) {
                continue;
            }
            let is_outside = element.name.to_ascii_lowercase().starts_with("external");
            let base = match self.urls.external_within(self.offer.reach) {
                Some(external) if is_outside => external,
                _ => self.urls.internal,
            };
            let public = with_authority(value, super::authority_of(base));
            changes.patch(element.inner.clone(), &escaped(&public));
        }
    }
}

fn attribute<'e>(element: &'e Element<'_>, name: &str) -> Option<&'e str> {
    let mut attributes = element.attributes.iter();
    let (_, value) = attributes.find(|(known, _)| known.eq_ignore_ascii_case(name))?;
    Some(value)
}

/// Cuts and patches of a text. The first change of a place counts, and a cut swallows what is in it.
#[derive(Debug, Default)]
struct Changes(Vec<(Range<usize>, String)>);

impl Changes {
    fn cut(&mut self, place: Range<usize>) {
        self.patch(place, "");
    }

    fn patch(&mut self, place: Range<usize>, text: &str) {
        self.0.push((place, text.to_owned()));
    }

    fn apply(mut self, text: &str) -> Vec<u8> {
        // Where two begin at one place, the wider one comes first; of equals, the earlier.
        self.0
            .sort_by(|(a, _), (b, _)| (a.start, b.end).cmp(&(b.start, a.end)));
        let mut out = Vec::with_capacity(text.len());
        let mut at = 0;
        for (place, patch) in &self.0 {
            let Some(before) = text.get(at..place.start) else {
                continue; // inside one that was made already
            };
            out.extend_from_slice(before.as_bytes());
            out.extend_from_slice(patch.as_bytes());
            at = place.end;
        }
        out.extend_from_slice(text.get(at..).unwrap_or_default().as_bytes());
        declare_utf8(&mut out);
        out
    }
}

/// What was UTF-16 is UTF-8 now, and must say so.
fn declare_utf8(out: &mut Vec<u8>) {
    let Some(end) = memchr::memmem::find(out, b"?>").filter(|_| out.starts_with(b"<?xml")) else {
        return;
    };
    let says = |wanted: &[u8]| {
        out.get(..end)
            .is_some_and(|head| memchr::memmem::find(&head.to_ascii_lowercase(), wanted).is_some())
    };
    if says(b"utf-16") {
        out.splice(
            ..end,
            br#"<?xml version="1.0" encoding="utf-8""#.iter().copied(),
        );
    }
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
