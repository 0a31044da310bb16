use super::*;
use crate::rpch::bind::{Bind, BindAck, NDR};
use crate::rpch::pdu::Fragment;
use crate::rpch::{Destination, Opening, Verb};
use proptest::prelude::*;
use std::net::IpAddr;

const CAPTURE: &str = include_str!("../../../tests/captures/rpch.txt");

/// One message of the capture: who speaks on which channel, its head lines, its PDUs.
struct Message {
    from: &'static str,
    head: Vec<&'static str>,
    pdus: Vec<Vec<u8>>,
}

fn capture() -> Vec<Message> {
    let messages = CAPTURE.split("\n== ").skip(1);
    messages
        .map(|text| {
            let mut lines = text.lines();
            let from = lines.next().unwrap();
            let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
            let is_hex = |line: &&&str| line.bytes().all(|byte| byte.is_ascii_hexdigit());
            Message {
                from,
                head: lines.iter().filter(|l| !is_hex(l)).copied().collect(),
                pdus: lines.iter().filter(is_hex).map(|l| unhex(l)).collect(),
            }
        })
        .collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    digits
        .map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap())
        .collect()
}

fn cookie(text: &str) -> Cookie {
    Cookie(unhex(text).try_into().unwrap())
}

#[test]
fn a_recorded_virtual_connection_begins_as_we_would_begin_it() {
    let connection = cookie("fc93e6530f77cc5bec4b68125eb8be6b");
    let b1 = Rts::conn_b1(
        connection,
        cookie("8d1d2372b4d0cb6a1c16780424294006"),
        1 << 30,
        300_000,
        cookie("cd04bc3f5440fc569371bb72a3044724"),
    );
    let a1 = Rts::conn_a1(
        connection,
        cookie("3fe42404ba013474314ec82c38fad901"),
        256 << 10,
    );

    let capture = capture();

    assert_eq!(capture[0].pdus, [b1.encode()]);
    assert_eq!(capture[1].pdus, [a1.encode()]);
    assert_eq!(
        capture[2].pdus,
        [
            Rts::conn_a3(180_000).encode(),
            Rts::conn_c2(256 << 10, 180_000).encode()
        ]
    );
    for first in [&capture[0].pdus[0], &capture[1].pdus[0]] {
        assert_eq!(virtual_connection(first), Some(connection));
        assert_eq!(virtual_connection(&first[..PEEK_BYTES]), Some(connection));
        assert_eq!(virtual_connection(&first[..PEEK_BYTES - 1]), None);
    }
}

#[test]
fn the_recorded_heads_say_channel_and_destination() {
    let capture = capture();
    for (message, verb) in capture.iter().zip([Verb::In, Verb::Out]) {
        let mut words = message.head[0].split(' ');
        assert_eq!(Verb::read(words.next().unwrap().as_bytes()), Some(verb));
        let (_, query) = words.next().unwrap().split_once('?').unwrap();
        let to = Destination::read(query).unwrap();
        assert_eq!((to.server, to.port), ("mbx1.org.test", 6001));
        let length = message
            .head
            .iter()
            .find_map(|l| l.strip_prefix("Content-Length: "));
        let length = length.unwrap().parse().unwrap();
        assert_eq!(Opening::of(verb, length), Some(Opening::Channel));
    }
}

#[test]
fn every_recorded_pdu_is_read_and_written_the_same() {
    let mut seen = 0;
    for message in capture() {
        for bytes in message.pdus {
            let head = pdu::Head::read(&bytes).unwrap();
            assert_eq!(usize::from(head.length), bytes.len());
            match head.kind {
                Kind::RTS => assert_eq!(Rts::decode(&bytes).unwrap().encode(), bytes),
                Kind::BIND => assert_eq!(Bind::decode(&bytes).unwrap().encode(), bytes),
                Kind::BIND_ACK => {
                    let ack = BindAck::decode(&bytes).unwrap();
                    assert_eq!(ack.address, b"6001\0");
                    assert_eq!(ack.verdicts[0].transfer, NDR);
                    // gromox writes eight more zeros.
                    let ours = ack.encode();
                    assert_eq!(ours[16..], bytes[16..ours.len()]);
                }
                Kind::REQUEST | Kind::RESPONSE => {
                    let fragment = Fragment::decode(&bytes).unwrap();
                    let call = pdu::Call {
                        way: fragment.way,
                        call_id: head.call_id,
                        context: fragment.context,
                        fragment_max: 4280,
                        seal: None,
                    };
                    assert_eq!(call.fragments(fragment.stub), [bytes]);
                }
                kind => panic!("{kind:?} from {}", message.from),
            }
            seen += 1;
        }
    }
    assert_eq!(seen, 12);
}

#[test]
fn every_pdu_of_a_replacement_has_the_length_the_specification_gives_it() {
    let (a, b, c) = (Cookie([1; 16]), Cookie([2; 16]), Cookie([3; 16]));
    let ack = Ack {
        bytes_received: 1,
        available: 2,
        channel: a,
    };
    for (rts, length) in [
        (Rts::in_r_a1(a, b, c), 88),
        (Rts::in_r2_a4(), 28),
        (Rts::in_r_a5(c), 40),
        (Rts::out_r_a2(), 28),
        (Rts::out_r_a3(a, b, c, 65_536), 96),
        (Rts::out_r2_a6(), 32),
        (Rts::out_r2_a7(c), 56),
        (Rts::out_r2_b3(), 24),
        (Rts::out_r2_c1(), 24),
        (Rts::flow_control(ack), 48),
        (Rts::flow_control_to(Forward::OutProxy, ack), 56),
        (Rts::ping(), 20),
        (Rts::echo(), 20),
    ] {
        let bytes = rts.encode();
        assert_eq!(bytes.len(), length, "{rts:?}");
        assert_eq!(Rts::decode(&bytes).unwrap(), rts);
    }
    // The body of an OUT successor is as long as its head must say.
    assert_eq!(
        u64::try_from(96 + 24).unwrap(),
        crate::rpch::verbs::OUT_SUCCESSOR_LENGTH
    );
}

#[test]
fn an_echo_is_the_twenty_bytes_of_the_specification() {
    assert_eq!(
        Rts::echo().encode(),
        unhex("0500140310000000140000000000000040000000")
    );
}

#[test]
fn what_begins_a_channel_is_told_from_what_does_not() {
    let (a, b, c) = (Cookie([1; 16]), Cookie([2; 16]), Cookie([3; 16]));
    assert_eq!(
        Beginning::of(&Rts::conn_a1(a, b, 7)),
        Some(Beginning::Out {
            connection: a,
            channel: b,
            window: 7
        })
    );
    assert!(matches!(
        Beginning::of(&Rts::conn_b1(a, b, 1, 2, c)),
        Some(Beginning::In { group, .. }) if group == c
    ));
    assert!(matches!(
        Beginning::of(&Rts::in_r_a1(a, b, c)),
        Some(Beginning::InSuccessor { predecessor, channel, .. }) if (predecessor, channel) == (b, c)
    ));
    assert!(matches!(
        Beginning::of(&Rts::out_r_a3(a, b, c, 9)),
        Some(Beginning::OutSuccessor { window: 9, .. })
    ));
    assert_eq!(Beginning::of(&Rts::conn_c2(1, 2)), None);
    assert_eq!(Beginning::of(&Rts::ping()), None);
    assert_eq!(virtual_connection(&Rts::conn_c2(1, 2).encode()), None);
}

#[test]
fn a_cookie_is_not_shown() {
    let shown = format!("{:?}", Rts::conn_a1(Cookie([0x41; 16]), Cookie([7; 16]), 1));

    assert!(!shown.contains("65, 65"), "{shown}");
    assert!(!shown.contains("4141"), "{shown}");
}

fn command() -> impl Strategy<Value = Command> {
    let cookie = || any::<[u8; 16]>().prop_map(Cookie);
    prop_oneof![
        any::<u32>().prop_map(Command::ReceiveWindowSize),
        (any::<u32>(), any::<u32>(), cookie()).prop_map(|(bytes_received, available, channel)| {
            Command::FlowControlAck(Ack {
                bytes_received,
                available,
                channel,
            })
        }),
        any::<u32>().prop_map(Command::ConnectionTimeout),
        cookie().prop_map(Command::Cookie),
        any::<u32>().prop_map(Command::ChannelLifetime),
        any::<u32>().prop_map(Command::ClientKeepalive),
        any::<u32>().prop_map(Command::Version),
        Just(Command::Empty),
        proptest::collection::vec(any::<u8>(), 0..9).prop_map(Command::Padding),
        Just(Command::NegativeAnce),
        Just(Command::Ance),
        any::<[u8; 4]>().prop_map(|octets| Command::ClientAddress(IpAddr::from(octets))),
        any::<[u8; 16]>().prop_map(|octets| Command::ClientAddress(IpAddr::from(octets))),
        cookie().prop_map(Command::AssociationGroupId),
        (0usize..4).prop_map(|of| Command::Destination(Forward::ALL[of])),
        any::<u32>().prop_map(Command::PingTrafficSentNotify),
    ]
}

proptest! {
    #[test]
    fn what_was_written_reads_the_same(
        flags: u16,
        commands in proptest::collection::vec(command(), 0..12),
    ) {
        let rts = Rts { flags, commands };
        let bytes = rts.encode();

        prop_assert_eq!(Rts::decode(&bytes).unwrap(), rts);
        // No shorter piece of it is a PDU.
        prop_assert!(Rts::decode(&bytes[..bytes.len() - 1]).is_err());
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = Rts::decode(&bytes);
        let mut behind = Rts::ping().encode();
        behind.truncate(16);
        behind.extend_from_slice(&bytes);
        pdu::set_length(&mut behind);
        if let Ok(rts) = Rts::decode(&behind) {
            let _ = Beginning::of(&rts);
        }
        let _ = virtual_connection(&behind);
    }
}

#[test]
fn a_beginning_cut_anywhere_is_short_and_whole_is_itself() {
    let [one, two, three] = [1, 2, 3].map(|byte| Cookie([byte; 16]));
    for (rts, length) in [
        (Rts::conn_a1(one, two, 65_536), 76),
        (Rts::conn_b1(one, two, 1 << 30, 300_000, three), 1 << 30),
        (Rts::in_r_a1(one, two, three), 128 << 10),
        (Rts::out_r_a3(one, two, three, 65_536), 120),
    ] {
        let bytes = rts.encode();
        for cut in 0..bytes.len() {
            assert_eq!(first(&bytes[..cut]), First::Short, "{cut}");
        }
        let behind = [&bytes[..], &[0xff; 40]].concat();
        for whole in [&bytes, &behind] {
            let First::Is(beginning) = first(whole) else {
                panic!("{rts:?} is not a beginning");
            };
            assert_eq!(beginning.connection(), one);
            assert!(beginning.fits(length));
            assert!(!beginning.fits(77));
        }
    }
}

#[test]
fn what_cannot_become_a_beginning_is_wrong_as_soon_as_that_shows() {
    assert_eq!(first(b"G"), First::Wrong);
    assert_eq!(first(b"\x05\x01"), First::Wrong);
    assert_eq!(first(&Rts::ping().encode()), First::Wrong);
    assert_eq!(first(&Rts::conn_a3(1).encode()), First::Wrong);
    // As long as a fragment may be: nobody waits for it.
    let mut long = Rts::conn_a1(Cookie([1; 16]), Cookie([2; 16]), 1).encode();
    long[8..10].copy_from_slice(&u16::MAX.to_le_bytes());
    assert_eq!(first(&long[..16]), First::Wrong);
    let bind = [5, 0, 11, 3, 0x10, 0, 0, 0, 72, 0, 0, 0, 1, 0, 0, 0];
    assert_eq!(first(&bind), First::Wrong);
}

proptest! {
    #[test]
    fn any_bytes_are_judged_without_a_panic_and_within_a_bound(
        begin in any::<bool>(), bytes in proptest::collection::vec(any::<u8>(), 0..200)
    ) {
        let mut bytes = bytes;
        if begin {
            bytes.splice(0..0, [5, 0, 20, 3, 0x10, 0, 0, 0]);
        }
        let judged = first(&bytes);
        if bytes.len() >= FIRST_MAX {
            prop_assert_ne!(judged, First::Short);
        }
    }

    #[test]
    fn a_changed_beginning_is_never_taken_for_another_kind(at in 0..76_usize, byte in any::<u8>()) {
        let mut bytes = Rts::conn_a1(Cookie([1; 16]), Cookie([2; 16]), 65_536).encode();
        bytes[at] = byte;
        if let First::Is(beginning) = first(&bytes) {
            let is_out = matches!(beginning, Beginning::Out { .. });
            prop_assert!(is_out);
        }
    }
}
