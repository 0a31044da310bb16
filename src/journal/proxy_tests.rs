//! A row for Log Parser, read back by another reader.

use super::tests::{entry, parsed, rendered};
use super::*;
use crate::accounting::{Kind, Phase};
use crate::ids::{DatabaseName, ServerName};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

/// What Exchange 2016 and later name the fields of these files.
const EXCHANGE_FIELDS: &str = "DateTime,RequestId,MajorVersion,MinorVersion,BuildVersion,RevisionVersion,\
    ClientRequestId,Protocol,UrlHost,UrlStem,ProtocolAction,AuthenticationType,IsAuthenticated,AuthenticatedUser,\
    Organization,AnchorMailbox,UserAgent,ClientIpAddress,ServerHostName,HttpStatus,BackEndStatus,ErrorCode,Method,\
    ProxyAction,TargetServer,TargetServerVersion,RoutingType,RoutingHint,BackEndCookie,ServerLocatorHost,\
    ServerLocatorLatency,RequestBytes,ResponseBytes,TargetOutstandingRequests,AuthModulePerfContext,\
    HttpPipelineLatency,CalculateTargetBackEndLatency,GlsLatencyBreakup,TotalGlsLatency,\
    AccountForestLatencyBreakup,TotalAccountForestLatency,ResourceForestLatencyBreakup,\
    TotalResourceForestLatency,ADLatency,SharedCacheLatencyBreakup,TotalSharedCacheLatency,\
    ActivityContextLifeTime,ModuleToHandlerSwitchingLatency,ClientReqStreamLatency,BackendReqInitLatency,\
    BackendReqStreamLatency,BackendProcessingLatency,BackendRespInitLatency,BackendRespStreamLatency,\
    ClientRespStreamLatency,KerberosAuthHeaderLatency,HandlerCompletionLatency,RequestHandlerLatency,\
    HandlerToModuleSwitchingLatency,ProxyTime,CoreLatency,RoutingLatency,HttpProxyOverhead,TotalRequestTime,\
    RouteRefresherLatency,UrlQuery,BackEndGenericInfo,GenericInfo,GenericErrors,EdgeTraceId,DatabaseGuid,\
    UserADObjectGuid,PartitionEndpointLookupLatency,RoutingStatus";

pub(super) type Row = BTreeMap<String, String>;

fn line(entry: &Entry<'_>) -> Vec<u8> {
    let mut line = Vec::new();
    proxy_line::render(entry, &mut line);
    line
}

/// Every row of a file, by field. A row of another length fails.
pub(super) fn rows(text: &[u8]) -> Vec<Row> {
    let mut reader = csv::ReaderBuilder::new()
        .comment(Some(b'#'))
        .from_reader(text);
    let names = reader.headers().unwrap().clone();
    let row = |record: csv::Result<csv::StringRecord>| {
        let record = record.unwrap();
        let pairs = names.iter().zip(record.iter());
        pairs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    };
    reader.records().map(row).collect()
}

fn row(entry: &Entry<'_>) -> Row {
    let file = [proxy_line::heads("").as_bytes(), &line(entry)].concat();
    let mut rows = rows(&file);
    assert_eq!(rows.len(), 1);
    rows.remove(0)
}

fn number(text: &str) -> f64 {
    text.parse().unwrap_or_else(|_| panic!("{text}"))
}

/// Every figure of the JSON line stands in the row, under its own name or Exchange's.
fn same_figures(json: &serde_json::Value, row: &Row) {
    for (key, value) in json.as_object().unwrap() {
        let name = match key.as_str() {
            "id" => "RequestId",
            "user" => "AuthenticatedUser",
            "type" => "RequestType",
            "request_id" => "MapiRequestId",
            "client_info" => "MapiClientInfo",
            "mailbox" => "MailboxId",
            "database" => "DatabaseGuid",
            "server" => "TargetServer",
            "status" => "HttpStatus",
            "code" => "ResponseCode",
            "refusal" => "ErrorCode",
            "why" => "GenericErrors",
            "time" => {
                let begin = format!("BeginRequest={};", value.as_str().unwrap());
                assert!(row["GenericInfo"].starts_with(&begin));
                continue;
            }
            own => own,
        };
        let there = &row[name];
        match value {
            serde_json::Value::Number(figure) => {
                let none = name == "HttpStatus" && there.is_empty();
                let there = if none { 0.0 } else { number(there) };
                assert!((figure.as_f64().unwrap() - there).abs() < 1e-9, "{key}");
            }
            serde_json::Value::Bool(flag) => assert_eq!(*there, flag.to_string(), "{key}"),
            other => assert_eq!(other.as_str(), Some(there.as_str()), "{key}"),
        }
    }
    assert_eq!(row["RequestBytes"], row["body_in"]);
    assert_eq!(row["ResponseBytes"], row["body_out"]);
    assert_eq!(
        number(&row["TotalRequestTime"]),
        number(&row["total_ms"]).floor()
    );
    if !row["first_byte_ms"].is_empty() {
        assert_eq!(
            number(&row["ProxyTime"]),
            number(&row["first_byte_ms"]).floor()
        );
    }
}

#[test]
fn exchanges_fields_stand_first_and_in_its_order() {
    let heads = proxy_line::heads("2026-11-21T10:00:00.000Z");

    let lines: Vec<_> = heads.split("\r\n").collect();
    let names = lines[0];
    assert!(names.starts_with(&format!("{EXCHANGE_FIELDS},MapiRequestId,")));
    assert_eq!(lines[1], "#Software: mapigate");
    assert_eq!(lines[3], "#Log-type: HttpProxy Logs");
    assert_eq!(lines[4], "#Date: 2026-11-21T10:00:00.000Z");
    assert_eq!(lines[5], format!("#Fields: {names}"));
    assert_eq!(lines[6..], [""]);
}

#[test]
fn a_row_says_what_exchange_would_say() {
    let row = row(&entry());

    for (name, value) in [
        ("DateTime", "2023-11-14T22:13:20.125Z"),
        ("RequestId", "0000001a"),
        (
            "ClientRequestId",
            "R:{E2EA6C1C-E61B-49E9-9CFB-38184F907552}:123456;RT:Execute;\
             CI:{2EF33C39-49C8-421C-B876-CDF7F2AC3AA0}:123;CID:<null>",
        ),
        ("Protocol", "Mapi"),
        ("UrlHost", "mail.contoso.test"),
        ("UrlStem", "/mapi/emsmdb/"),
        ("AuthenticationType", "Basic"),
        ("IsAuthenticated", "true"),
        ("AuthenticatedUser", "user1@contoso.test"),
        (
            "AnchorMailbox",
            "MailboxGuid~f7c9a1ce-a2a4-4f04-8c5b-8d8b9b0e0001",
        ),
        (
            "UserAgent",
            "Microsoft Office/16.0 (Windows NT 10.0; Microsoft Outlook 16.0.17126; Pro)",
        ),
        ("ClientIpAddress", "192.0.2.7"),
        ("HttpStatus", "200"),
        ("BackEndStatus", "200"),
        ("Method", "POST"),
        ("ProxyAction", "Proxy"),
        ("TargetServer", "MBX1"),
        ("RoutingHint", "MailboxGuidWithDomain"),
        ("RequestBytes", "2048"),
        ("ProxyTime", "2"),
        ("TotalRequestTime", "2"),
        (
            "UrlQuery",
            "?MailboxId=f7c9a1ce-a2a4-4f04-8c5b-8d8b9b0e0001@contoso.test",
        ),
        ("BackEndCookie", ""),
        ("ADLatency", ""),
    ] {
        assert_eq!(row[name], value, "{name}");
    }
}

#[test]
fn a_refused_head_leaves_empty_what_nobody_knows() {
    let refusal = Refusal::Malformed("bare LF, \"quoted\"");
    let facts = Entry {
        user: "",
        scheme: None,
        endpoint: None,
        dialect: None,
        request_type: None,
        request_id: b"",
        client_info: b"",
        mailbox: b"",
        server: "",
        code: None,
        status: 400,
        first_byte: None,
        ending: Outcome::Refused,
        refusal: Some(&refusal),
        ..entry()
    };

    let row = row(&facts);

    assert_eq!(row["ErrorCode"], "malformed");
    assert!(row["GenericErrors"].ends_with("bare LF, \"quoted\""));
    assert_eq!(
        (&*row["Protocol"], &*row["IsAuthenticated"]),
        ("Unknown", "false")
    );
    for name in [
        "ClientRequestId",
        "BackEndStatus",
        "Method",
        "AnchorMailbox",
        "ProxyTime",
    ] {
        assert_eq!(row[name], "", "{name}");
    }
    same_figures(&parsed(&rendered(&facts)), &row);
}

#[test]
fn what_a_spreadsheet_would_take_for_a_formula_is_text() {
    for agent in ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)"] {
        let row = row(&Entry {
            user_agent: agent.as_bytes(),
            ..entry()
        });
        assert_eq!(row["UserAgent"], format!("'{agent}"));
    }
}

proptest! {
    #[test]
    fn any_bytes_in_any_field_make_one_row_with_every_field(
        fields in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 5),
        words in prop::collection::vec("\\PC{0,40}|[\\x00-\\x7f]{0,200}|[,\"\r\n]{0,9}", 5),
        cause in "\\PC{0,300}|[\\x00-\\x9f]{0,300}",
        (millis, micros) in (any::<u64>(), any::<u64>()),
    ) {
        let refusal = Refusal::ServerUnreachable { server: ServerName::new(words[4].clone()), cause };
        let facts = Entry {
            time: UNIX_EPOCH.checked_add(Duration::from_millis(millis >> 20)).unwrap_or(UNIX_EPOCH),
            user: &words[0],
            request_id: &fields[0],
            client_info: &fields[1],
            mailbox: &fields[2],
            host: &fields[3],
            user_agent: &fields[4],
            database: &words[1],
            server: &words[2],
            route: &words[3],
            refusal: Some(&refusal),
            total: Duration::from_micros(micros >> 20),
            ..entry()
        };

        let line = line(&facts);

        let row = row(&facts);
        prop_assert_eq!(row.len(), proxy_line::heads("").lines().next().unwrap().split(',').count());
        prop_assert!(line.ends_with(b"\r\n"));
        let text = std::str::from_utf8(&line[..line.len() - 2]).expect("UTF-8");
        prop_assert!(!text.chars().any(char::is_control));
        prop_assert!(text.len() < 8192, "{}", text.len());
    }

    #[test]
    fn readable_values_are_read_back_as_they_were(
        agent in "[ -~]{0,128}",
        user in "[a-z0-9.,\"@ ]{0,100}",
    ) {
        let row = row(&Entry { user_agent: agent.as_bytes(), user: &user, ..entry() });

        let is_formula = agent.starts_with(['=', '+', '-', '@']);
        prop_assert_eq!(row["UserAgent"].strip_prefix('\'').filter(|_| is_formula).unwrap_or(&row["UserAgent"]), &agent);
        let is_formula = user.starts_with('@');
        prop_assert_eq!(row["AuthenticatedUser"].strip_prefix('\'').filter(|_| is_formula).unwrap_or(&row["AuthenticatedUser"]), &user);
    }

    #[test]
    fn both_lines_of_a_request_carry_the_same_figures(
        counts in prop::collection::vec(any::<u32>(), 8),
        times in prop::collection::vec(0_u64..1 << 50, 4),
        (tries, status) in (any::<u32>(), 200_u16..600),
        (first_byte, is_refused, reused) in (any::<bool>(), any::<bool>(), any::<bool>()),
        (is_close, is_first) in (any::<bool>(), any::<bool>()),
    ) {
        let refusal = Refusal::NoEligibleCopy { database: DatabaseName::new("DB07"), why: "down, it is" };
        let bytes = Bytes { received: counts[0].into(), sent: counts[1].into() };
        let mut phases = Times::default();
        for (phase, time) in Phase::OF_REQUESTS.into_iter().zip(&times) {
            phases.add(phase, *time);
        }
        let mut ledger = Ledger::default();
        let sides = [&mut ledger.client_in, &mut ledger.client_out, &mut ledger.server_in, &mut ledger.server_out];
        for (at, side) in sides.into_iter().enumerate() {
            for (kind, count) in Kind::ALL.into_iter().zip(counts.iter().cycle().skip(at)) {
                side.add(kind, (*count).into());
            }
        }
        let facts = Entry {
            tries,
            status,
            auth: Duration::from_nanos(times[0]),
            first_byte: first_byte.then_some(Duration::from_nanos(times[1])),
            total: Duration::from_nanos(times[2]),
            cpu: Some(Duration::from_nanos(times[3])),
            phases: is_close.then_some(&phases),
            handshake: is_first.then_some((Duration::from_nanos(times[0]), bytes)),
            ledger: &ledger,
            refusal: is_refused.then_some(&refusal),
            client_reused: reused,
            ..entry()
        };

        same_figures(&parsed(&rendered(&facts)), &row(&facts));
    }
}

#[test]
fn a_channel_is_a_row_of_rpc_over_http_and_a_line_of_outlook_anywhere() {
    let channel = Entry {
        endpoint: None,
        request_type: None,
        code: None,
        channel: Some(rpch::Verb::Out),
        ..entry()
    };

    let row = row(&channel);
    for (field, value) in [
        ("Protocol", "RpcHttp"),
        ("UrlStem", "/rpc/rpcproxy.dll"),
        (
            "UrlQuery",
            "?f7c9a1ce-a2a4-4f04-8c5b-8d8b9b0e0001@contoso.test",
        ),
        ("Method", "RPC_OUT_DATA"),
        ("RequestType", "out"),
        ("endpoint", "outlook_anywhere"),
        ("TargetServer", "MBX1"),
    ] {
        assert_eq!(row[field], value, "{field}");
    }
    let json = parsed(&rendered(&channel));
    assert_eq!(json["endpoint"], "outlook_anywhere");
    assert_eq!(json["type"], "out");
    assert_eq!(Protocol::of(&channel), Protocol::RpcHttp);
    for protocol in Protocol::ALL {
        assert_eq!(Protocol::of_tag(protocol.tag()), Some(protocol));
    }
}
