//! The published figures beside ours, and how ours were taken.

use super::facts::{
    BASIC, BEARER, Claim, ConnectionFacts, Facts, KERBEROS, MAPI, RPC, Row, WorkFacts,
};
use super::kinds::more_percent;
use super::work::Work;
use super::{BEARER_LINE, KERBEROS_LINE};

/// Beside each published figure ours, and why they differ.
pub(super) fn beside(facts: &Facts) -> Vec<Claim> {
    let claims = [
        average(facts),
        large(facts),
        processor(facts),
        connections(facts),
        network(facts),
    ];
    claims.into_iter().flatten().collect()
}

fn work<'a>(facts: &'a Facts, work: &Work) -> Option<&'a WorkFacts> {
    facts.work.iter().find(|known| known.name == work.name)
}

/// How much more than RPC over HTTP, by credential: `+3.12 % Kerberos, +3.25 % Basic, +6.60 % Bearer`.
fn more(facts: &WorkFacts) -> String {
    [(KERBEROS, "Kerberos"), (BASIC, "Basic"), (BEARER, "Bearer")]
        .into_iter()
        .filter_map(|(authorization, name)| {
            let row = facts.row(MAPI, authorization)?;
            Some(format!("{:+.2} % {name}", row.more_than_rpc_percent))
        })
        .collect::<Vec<_>>()
        .join(", ")
}

fn average(facts: &Facts) -> Option<Claim> {
    let average = work(facts, &Work::AVERAGE)?;
    let (rpc, mapi) = (average.row(RPC, BASIC)?, average.row(MAPI, BASIC)?);
    let total = mapi.total();
    let bare = |row: &Row| row.wire - row.total().cookies - row.total().authorization;
    Some(Claim {
        what: "Bytes on the wire, an average packet of 50 KB",
        published: "+1.2 %",
        ours: more(average),
        why: format!(
            "Heads without cookies and credentials alone make {:+.2} %: {} bytes an exchange. Cookies are {} bytes more: the \
             four that an Exchange server sets with every answer and gets back with every request, and {} bytes that mapigate \
             adds, its sealed route cookie for the most part. The published figure is that of heads alone.",
            more_percent(bare(mapi), rpc.wire),
            total.lines,
            total.cookies,
            facts.mapigate_adds,
        ),
    })
}

fn large(facts: &Facts) -> Option<Claim> {
    let sync = work(facts, &Work::SYNC)?;
    let whole = facts
        .work
        .iter()
        .find(|known| known.payload == sync.payload && known.name != sync.name)?;
    Some(Claim {
        what: "Bytes on the wire, transfers above 10 MB",
        published: "+5 to +10 %",
        ours: format!(
            "{} in {} Executes; {} in {} Executes",
            more(sync),
            sync.executes,
            more(whole),
            whole.executes
        ),
        why: "Not the size of the transfer decides but that of its Executes: each costs a pair of heads. In the pieces of \
              32 KiB that Outlook asks for while it synchronises, ours is the published figure; in the largest answers that \
              the protocol has, 256 KiB, hardly anything is left of it but long credentials."
            .to_owned(),
    })
}

fn processor(facts: &Facts) -> Option<Claim> {
    let user = facts.cpu.last()?;
    let sync = facts.cpu.iter().find(|cpu| cpu.name == Work::SYNC.name)?;
    Some(Claim {
        what: "Processor time of the front end",
        published: "+50 %",
        ours: format!(
            "{:+.0} % for a user, {:+.0} % for a sync",
            user.more_percent, sync.more_percent
        ),
        why: format!(
            "What is compared is not the same. The published figure is one product before and after: Exchange relayed RPC/HTTP \
             as well. Ours is mapigate, which authenticates, routes, bills and logs every request, beside a stand-in that only \
             ends TLS and copies bytes, the least a relay of RPC/HTTP can do. With the stand-in on both sides the protocol by \
             itself makes {:+.0} % for a user and {:+.0} % for a sync; the rest is work per request, as the publishers said. \
             With large answers MAPI/HTTP is the cheaper one: nothing is acknowledged inside of them, where RPC/HTTP sends \
             flow control on its other channel every 32 KiB.",
            user.protocol_more_percent, sync.protocol_more_percent
        ),
    })
}

fn connections(facts: &Facts) -> Option<Claim> {
    let of = |protocol: &str| {
        let mut all = facts.connections.iter();
        all.find(|known| known.protocol == protocol)
    };
    let words =
        |found: &ConnectionFacts| format!("{} long + {} short", found.long, found.short_peak);
    Some(Claim {
        what: "Connections of a session",
        published: "2 long against 1 long + 1 on demand",
        ours: format!("{} against {}", words(of(RPC)?), words(of(MAPI)?)),
        why: "The same. When a channel of RPC/HTTP has carried its 1 GiB, a third connection takes over from it for a moment."
            .to_owned(),
    })
}

fn network(facts: &Facts) -> Option<Claim> {
    let session = |what: &str, protocol: &str| {
        let mut all = facts.sessions.iter();
        all.find(|known| (known.what, known.protocol) == (what, protocol))
    };
    let interrupted = |protocol: &str| {
        let mut all = facts.interrupted.iter();
        all.find(|known| known.protocol == protocol)
    };
    let (resumed, rebuilt) = (session("resumed", MAPI)?, session("rebuilt", RPC)?);
    let (mapi, rpc) = (interrupted(MAPI)?, interrupted(RPC)?);
    Some(Claim {
        what: "Bytes after a network cut",
        published: "may be lower than with RPC/HTTP",
        ours: format!(
            "idle: {} against {} bytes; a 10 MB sync cut at half: {} against {} bytes ({:+.0} %)",
            resumed.wire,
            rebuilt.wire,
            mapi.wire,
            rpc.wire,
            more_percent(mapi.wire, rpc.wire)
        ),
        why: "Coming back to an idle session is a few kilobytes in both: the heads and cookies of two requests weigh more than \
              opening a session of RPC/HTTP. What counts is the work: MAPI/HTTP goes on where it was, RPC/HTTP has lost the \
              session and with it what was being fetched. That Outlook then opens its folders and tables again is not in these \
              figures; it would be on the side of RPC/HTTP."
            .to_owned(),
    })
}

/// How it was measured, and what was not.
pub(super) fn notes() -> Vec<String> {
    vec![
        "MAPI/HTTP goes from a simulated Outlook over TLS 1.3 to a mapigate in a process of its own, and on to a simulated \
         Exchange server. mapigate does not relay RPC/HTTP: there the simulated Outlook speaks to a simulated server directly, \
         over TLS 1.3 and real sockets of the loopback."
            .to_owned(),
        "Both carry the same ROP buffers, checked by SHA-256. Every byte that the sockets carried is accounted for: what was \
         said inside of TLS, kind by kind, and 22 bytes for each record, are the bytes carried, or the command fails. mapigate's \
         own count is the same."
            .to_owned(),
        format!(
            "mapigate authenticates Basic only, so Basic is what is measured. Bearer is computed: a line of {BEARER_LINE} bytes on \
             every request; one computed row is held against a measurement with a header of that length. Kerberos is computed: \
             it authenticates a connection, whose first request carries a line of {KERBEROS_LINE} bytes and later ones none, so \
             on an open session there is nothing of it. RPC/HTTP sends credentials when a channel opens."
        ),
        "RPC/HTTP has fragments of 5840 bytes, NDR of 32 bits, windows of 64 KiB acknowledged at half, no authentication inside, \
         or, in the rows called sealed, 16 bytes of NTLM signature behind each fragment (zeros: they are weighed, not signed). The server writes as many fragments at once as the window takes, which is the \
         cheapest for TLS records. Signs of life, 20 bytes every five minutes, are left out."
            .to_owned(),
        "Processor time of mapigate is that of all threads of its process, by the scheduler's account; of the stand-in that of \
         its thread; each has one for connections, and eight clients at once. The stand-in ends TLS and copies pieces of 64 KiB to a server without TLS; it does not authenticate, look \
         at PDUs or write a log, so a relay of RPC/HTTP costs more than that."
            .to_owned(),
        "After a cut in the middle of a sync the client of RPC/HTTP fetches everything again, because what it was fetching was an \
         object of the session that is gone; how much of it Outlook would have kept is its own affair and not simulated."
            .to_owned(),
        "Not weighed: TCP and IP below, Autodiscover, the address book, the offline address book, compression by ROP buffers \
         (the same in both)."
            .to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::overhead::samples;

    #[test]
    fn every_published_figure_has_ours_beside_it() {
        let claims = beside(&samples::facts());

        let published: Vec<&str> = claims.iter().map(|claim| claim.published).collect();
        assert_eq!(
            published,
            [
                "+1.2 %",
                "+5 to +10 %",
                "+50 %",
                "2 long against 1 long + 1 on demand",
                "may be lower than with RPC/HTTP"
            ]
        );
        // 51,744 bytes of RPC/HTTP; 53,287, 53,354 and 55,087 of MAPI/HTTP.
        assert_eq!(
            claims[0].ours,
            "+2.98 % Kerberos, +3.11 % Basic, +6.46 % Bearer"
        );
        assert!(
            claims[3]
                .ours
                .starts_with("2 long + 0 short against 1 long + 1 short")
        );
    }

    #[test]
    fn nothing_is_claimed_without_figures() {
        let mut facts = samples::facts();
        facts.work.clear();
        facts.cpu.clear();
        facts.sessions.clear();

        let claims = beside(&facts);

        assert_eq!(claims.len(), 1);
    }
}
