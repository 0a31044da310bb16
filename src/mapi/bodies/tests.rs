use proptest::collection::vec;
use proptest::prelude::*;

use super::nspi::*;
use super::rops::*;
use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

#[test]
fn connect_is_byte_exact() {
    let dn = "/o=First Organization/ou=Exchange Administrative Group (FYDIBOHF23SPDLT)/cn=Recipients/cn=user1";
    let mut expected = dn.as_bytes().to_vec();
    expected.extend(hex("00 00000000 e4040000 09040000 09040000 00000000"));

    assert_eq!(ConnectRequest::of(dn).encode(), expected);
    assert_eq!(expected.len(), 116);
    assert_eq!(
        ConnectRequest::decode(&expected),
        Ok(ConnectRequest::of(dn))
    );
}

#[test]
fn connect_answer_is_byte_exact() {
    let bytes = hex("00000000 00000000 60ea0000 06000000 10270000 00
        5500 7300 6500 7200 2000 4f00 6e00 6500 0000 00000000");
    let Ok(Answer::Success(connected)) = Answer::<ConnectSuccess>::decode(&bytes) else {
        panic!("not read");
    };

    assert_eq!(connected.display_name, wide("User One"));
    assert_eq!((connected.polls_max, connected.retry_count), (60_000, 6));
    assert_eq!(Answer::Success(connected).encode(), bytes);
}

#[test]
fn execute_without_operations_is_byte_exact() {
    let bytes = hex("03000000 0a000000 0000 0400 0200 0200 0200 08000100 00000000");
    let request = ExecuteRequest::of(write_chain(&[write_payload(&[], &[])]));

    assert_eq!(request.encode(), bytes);
    assert_eq!(ExecuteRequest::decode(&bytes), Ok(request));
}

#[test]
fn smallest_execute_answer_is_byte_exact() {
    let bytes = hex("00000000 00000000 00000000 0a000000 0000 0400 0200 0200 0200 00000000");
    let answer = Answer::Success(ExecuteSuccess {
        error_code: 0,
        flags: 0,
        rop_buffer: write_chain(&[write_payload(&[], &[])]),
        auxiliary: Vec::new(),
    });

    assert_eq!(answer.encode(), bytes);
    assert_eq!(Answer::decode(&bytes), Ok(answer));
}

#[test]
fn wait_disconnect_and_unbind_are_byte_exact() {
    let woken = Answer::Success(NotificationWaitSuccess {
        event_pending: 1,
        ..NotificationWaitSuccess::default()
    });

    assert_eq!(woken.encode(), hex("00000000 00000000 01000000 00000000"));
    assert_eq!(NotificationWaitRequest::default().encode(), [0; 8]);
    assert_eq!(DisconnectRequest::default().encode(), [0; 4]);
    assert_eq!(
        Answer::Success(EndSuccess {
            error_code: 1,
            auxiliary: Vec::new()
        })
        .encode(),
        hex("00000000 01000000 00000000")
    );
}

#[test]
fn disconnect_may_have_no_body_at_all() {
    assert_eq!(
        DisconnectRequest::decode(b""),
        Ok(DisconnectRequest::default())
    );
    assert_eq!(
        DisconnectRequest::decode(&[0; 4]),
        Ok(DisconnectRequest::default())
    );
    assert!(DisconnectRequest::decode(&[0; 3]).is_err());
}

#[test]
fn bind_is_byte_exact() {
    let bytes = hex(
        "00000000 ff 00000000 00000000 00000000 00000000 00000000 00000000
        b0040000 09040000 09040000 00000000",
    );
    let request = BindRequest {
        state: Some(Stat {
            code_page: 1200,
            ..Stat::start()
        }),
        ..BindRequest::default()
    };

    assert_eq!(request.encode(), bytes);
    assert_eq!(BindRequest::decode(&bytes), Ok(request));
}

#[test]
fn a_failure_keeps_its_status_and_auxiliary_buffer() {
    let failure: Answer<ExecuteSuccess> = Answer::Failure {
        status_code: 0x6f7,
        auxiliary: vec![1, 2, 3],
    };

    assert_eq!(failure.encode(), hex("f7060000 03000000 010203"));
    assert_eq!(Answer::decode(&failure.encode()), Ok(failure));
}

#[test]
fn a_rop_buffer_size_without_its_bytes_is_short() {
    assert_eq!(
        ExecuteRequest::decode(&hex("03000000 0a000000")),
        Err(BodyError::Short("RopBuffer"))
    );
}

#[test]
fn a_chain_without_a_last_block_is_refused() {
    let mut chain = write_chain(&[b"one".to_vec(), b"two".to_vec()]);
    assert_eq!(read_chain(&chain).unwrap().len(), 2);

    chain.truncate(HEADER_BYTES + 3);
    assert_eq!(read_chain(&chain), Err(BodyError::Short("Version")));
}

#[test]
fn a_huge_size_costs_nothing() {
    assert!(ExecuteRequest::decode(&hex("03000000 ffffffff")).is_err());
    assert!(QueryRowsRequest::decode(&hex("00000000 00 ffffffff")).is_err());
    assert!(ResolveNamesRequest::decode(&hex("00000000 00 00 ff ffffffff")).is_err());
}

fn texts() -> impl Strategy<Value = Vec<u8>> {
    vec(1u8..=255, 0..40)
}

fn wides() -> impl Strategy<Value = Wide> {
    vec(1u16..=u16::MAX, 0..20).prop_map(Wide)
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..80)
}

fn stats() -> impl Strategy<Value = Stat> {
    any::<[u32; 9]>().prop_map(|n| Stat {
        sort_type: n[0],
        container_id: n[1],
        current_rec: n[2],
        delta: n[3],
        num_pos: n[4],
        total_recs: n[5],
        code_page: n[6],
        template_locale: n[7],
        sort_locale: n[8],
    })
}

/// What was written reads back, and what reads back writes the same bytes.
fn holds<T: Body + PartialEq + std::fmt::Debug>(body: &T) {
    let written = body.encode();
    assert_eq!(T::decode(&written).as_ref(), Ok(body));
}

fn survives<T: Body>(bytes: &[u8]) {
    if let Ok(body) = T::decode(bytes) {
        let written = body.encode();
        assert!(written == bytes || bytes.is_empty(), "not byte-exact");
    }
}

proptest! {
    #[test]
    fn any_bytes_read_without_panic_and_write_back_the_same(bytes in vec(any::<u8>(), 0..300)) {
        survives::<ConnectRequest>(&bytes);
        survives::<Answer<ConnectSuccess>>(&bytes);
        survives::<ExecuteRequest>(&bytes);
        survives::<Answer<ExecuteSuccess>>(&bytes);
        survives::<NotificationWaitRequest>(&bytes);
        survives::<Answer<NotificationWaitSuccess>>(&bytes);
        survives::<DisconnectRequest>(&bytes);
        survives::<Answer<EndSuccess>>(&bytes);
        survives::<BindRequest>(&bytes);
        survives::<Answer<BindSuccess>>(&bytes);
        survives::<QueryRowsRequest>(&bytes);
        survives::<Answer<QueryRowsSuccess>>(&bytes);
        survives::<ResolveNamesRequest>(&bytes);
        survives::<Answer<ResolveNamesSuccess>>(&bytes);
        survives::<UrlRequest>(&bytes);
        survives::<Answer<UrlSuccess>>(&bytes);
        let _ = read_chain(&bytes);
        let _ = read_payload(&bytes);
    }

    #[test]
    fn emsmdb_bodies_round_trip(
        dn in texts(), text in wides(), aux in bytes(), rops in bytes(), n in any::<[u32; 4]>(),
    ) {
        holds(&ConnectRequest {
            user_dn: dn.clone(), flags: n[0], code_page: n[1], lcid_sort: n[2], lcid_string: n[3],
            auxiliary: aux.clone(),
        });
        holds(&Answer::Success(ConnectSuccess {
            error_code: n[0], polls_max: n[1], retry_count: n[2], retry_delay: n[3],
            dn_prefix: dn, display_name: text, auxiliary: aux.clone(),
        }));
        holds(&ExecuteRequest {
            flags: n[0], rop_buffer: rops.clone(), max_rop_out: n[1], auxiliary: aux.clone(),
        });
        holds(&Answer::Success(ExecuteSuccess {
            error_code: n[0], flags: n[1], rop_buffer: rops, auxiliary: aux.clone(),
        }));
        holds(&Answer::Success(NotificationWaitSuccess {
            error_code: n[0], event_pending: n[1], auxiliary: aux.clone(),
        }));
        holds(&NotificationWaitRequest { number: n[0], auxiliary: aux.clone() });
        holds(&Answer::Success(EndSuccess { error_code: n[0], auxiliary: aux.clone() }));
        holds(&DisconnectRequest { auxiliary: aux });
    }

    #[test]
    fn nspi_bodies_round_trip(
        state in proptest::option::of(stats()), aux in bytes(), n in any::<[u32; 3]>(),
        tags in vec(any::<u32>(), 0..4), names in vec(wides(), 0..4), cell in proptest::option::of(wides()),
        guid in any::<[u8; 16]>(),
    ) {
        let columns = Some(PropertyTags(tags.clone()));
        let rows = Some(TextRows {
            columns: PropertyTags(tags.clone()),
            rows: vec![vec![cell; tags.len()]; 2],
        });
        holds(&BindRequest { flags: n[0], state, auxiliary: aux.clone() });
        holds(&Answer::Success(BindSuccess { error_code: n[0], server_guid: guid, auxiliary: aux.clone() }));
        holds(&QueryRowsRequest {
            flags: n[0], state, explicit_table: tags, row_count: n[1], columns: columns.clone(),
            auxiliary: aux.clone(),
        });
        holds(&Answer::Success(QueryRowsSuccess {
            error_code: n[0], state, rows: rows.clone(), auxiliary: aux.clone(),
        }));
        holds(&ResolveNamesRequest {
            reserved: n[0], state, columns: columns.clone(), names: Some(Names(names.clone())),
            auxiliary: aux.clone(),
        });
        holds(&Answer::Success(ResolveNamesSuccess {
            error_code: n[0], code_page: n[1], minimal_ids: columns, rows, auxiliary: aux.clone(),
        }));
        for name in names {
            holds(&UrlRequest { flags: n[0], dn: name.clone(), auxiliary: aux.clone() });
            holds(&Answer::Success(UrlSuccess { error_code: n[0], url: name, auxiliary: aux.clone() }));
        }
    }

    #[test]
    fn rop_chains_round_trip(payloads in vec(vec(any::<u8>(), 0..100), 1..6)) {
        let chain = write_chain(&payloads);
        let blocks = read_chain(&chain).unwrap();

        let read: Vec<_> = blocks.iter().map(|block| block.payload.clone()).collect();
        prop_assert_eq!(read, payloads);
        prop_assert!(blocks.iter().rev().skip(1).all(|block| block.flags & LAST == 0));
    }

    #[test]
    fn payloads_round_trip(operations in vec(any::<u8>(), 0..200), handles in vec(any::<u32>(), 0..5)) {
        let payload = write_payload(&operations, &handles);
        let (read, table) = read_payload(&payload).unwrap();

        prop_assert_eq!(read, &operations[..]);
        prop_assert_eq!(table.len(), handles.len() * 4);
    }
}
