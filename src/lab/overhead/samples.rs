//! Figures for tests of what is made of figures: round ones, and those of a real run's shape.

use super::facts::*;
use super::kinds::{Kinds, Said};
use super::work::Work;

/// Bytes on the wire of so many Executes of a 50 KB packet each, by credential.
pub(super) fn wire(executes: u64, authorization: &str) -> u64 {
    row(MAPI, static_name(authorization), executes).wire
}

fn static_name(authorization: &str) -> &'static str {
    match authorization {
        BASIC => BASIC,
        BEARER => BEARER,
        _ => KERBEROS,
    }
}

fn row(protocol: &'static str, authorization: &'static str, executes: u64) -> Row {
    let each = match (protocol, authorization) {
        (RPC, _) => Kinds {
            framing: 300,
            fields: 112,
            payload: 51_200,
            tls: 132,
            ..Kinds::default()
        },
        (RPC_SEALED, _) => Kinds {
            framing: 560,
            fields: 112,
            payload: 51_200,
            tls: 132,
            ..Kinds::default()
        },
        _ => Kinds {
            lines: 900,
            authorization: match authorization {
                BASIC => 67,
                BEARER => 1_800,
                _ => 0,
            },
            cookies: 900,
            framing: 119,
            fields: 36,
            payload: 51_200,
            tls: 132,
        },
    };
    let mut said = Said::default();
    for _ in 0..executes {
        said.received += each;
    }
    let total = said.total();
    Row {
        protocol,
        authorization,
        is_measured: authorization == BASIC,
        requests: if protocol == MAPI { executes } else { 0 },
        sent: Kinds::default(),
        received: total,
        records: total.tls / 22,
        wire: total.wire(),
        carried: total.wire(),
        mapigate_counted: None,
        overhead_percent: total.overhead_percent(),
        more_than_rpc_percent: 0.0,
    }
}

/// Figures of everything.
pub(super) fn facts() -> Facts {
    let works = Work::ALL.into_iter().zip([1, 1, 4, 40, 320]);
    let work = works.map(|(work, executes)| {
        let rows = [
            (RPC, BASIC),
            (RPC_SEALED, BASIC),
            (MAPI, BASIC),
            (MAPI, BEARER),
            (MAPI, KERBEROS),
        ];
        WorkFacts {
            name: work.name,
            executes,
            payload: work.payload as u64,
            digest: "00".repeat(32),
            rows: rows
                .into_iter()
                .map(|(protocol, authorization)| row(protocol, authorization, executes as u64))
                .collect(),
        }
        .compared()
    });
    let session = |what, protocol| SessionFacts {
        what,
        protocol,
        requests: 2,
        connections: 2,
        wire: 8_000,
        plain: 6_000,
        wire_bearer: 11_000,
        wire_kerberos: 20_000,
    };
    let cpu = |name: &str| CpuFacts {
        name: name.to_owned(),
        mapigate_us: 30.0,
        tunnel_rpc_us: 20.0,
        tunnel_mapi_us: 22.0,
        more_percent: 50.0,
        protocol_more_percent: 10.0,
    };
    let interrupted = |protocol, executes, wire| InterruptedFacts {
        protocol,
        executes,
        wire,
    };
    Facts {
        version: "0.0.0",
        seconds: 42.0,
        rounds: 5,
        work: work.collect(),
        sessions: vec![
            session("opened", RPC),
            session("rebuilt", RPC),
            session("opened", MAPI),
            session("resumed", MAPI),
            session("rebuilt", MAPI),
        ],
        interrupted: vec![
            interrupted(RPC, 320, 10_600_000),
            interrupted(MAPI, 160, 5_600_000),
        ],
        connections: vec![
            ConnectionFacts {
                protocol: RPC,
                long: 2,
                short_peak: 0,
            },
            ConnectionFacts {
                protocol: MAPI,
                long: 1,
                short_peak: 1,
            },
        ],
        cpu: vec![cpu(Work::SYNC.name), cpu("a user")],
        check: Check {
            computed: 55_152,
            measured: 55_152,
        },
        mapigate_adds: 400,
        published: Vec::new(),
        notes: super::claims::notes(),
    }
}
