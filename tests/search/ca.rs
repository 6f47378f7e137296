//! CA SEARCH: bytes derived by hand from the protocol's description, and every reason for refusal.

use std::net::SocketAddrV4;

use nicring::search::{CaResponder, NameTable, Protocol, Reject, SearchCounts, ca};

const VERSION_7: &[u8] = b"\0\0\0\0\0\x01\0\x0d\0\0\0\x07\0\0\0\0";
const SEARCH_42: &[u8] = b"\0\x06\0\x10\0\x05\0\x0d\0\0\0\x2a\0\0\0\x2aioc1:temp\0\0\0\0\0\0\0";
const REPLY_42: &[u8] = b"\0\x06\0\x08\x13\xc8\0\0\xc0\0\x02\x07\0\0\0\x2a\0\x0d\0\0\0\0\0\0";

fn client() -> SocketAddrV4 {
    "192.0.2.99:40000".parse().unwrap()
}

fn table() -> NameTable {
    let mut builder = NameTable::builder();
    builder.insert(Protocol::Ca, "ioc1:temp", "192.0.2.7:5064".parse().unwrap()).unwrap();
    for number in 0..200 {
        let name = format!("ioc2:channel{number}");
        builder.insert(Protocol::Ca, &name, "192.0.2.8:5066".parse().unwrap()).unwrap();
    }
    builder.insert(Protocol::Pva, "pva:only", "192.0.2.7:5075".parse().unwrap()).unwrap();
    builder.build()
}

fn answer(datagram: &[u8]) -> (Vec<Vec<u8>>, SearchCounts) {
    let mut responder = CaResponder::new();
    let mut replies = Vec::new();
    responder.answer(&table(), datagram, client(), &mut |to, reply| {
        assert_eq!(to, client());
        replies.push(reply.to_vec());
    });
    assert_eq!(responder.counts().datagram_count, 1);
    assert_eq!(responder.counts().reply_count, replies.len() as u64);
    (replies, *responder.counts())
}

/// A message with any header fields.
fn message(command: u16, data_type: u16, count: u16, parameters: [u32; 2], body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in [command, body.len() as u16, data_type, count] {
        bytes.extend(field.to_be_bytes());
    }
    parameters.iter().for_each(|parameter| bytes.extend(parameter.to_be_bytes()));
    bytes.extend(body);
    bytes
}

fn rejected(datagram: &[u8], reject: Reject) -> Vec<Vec<u8>> {
    let (replies, counts) = answer(datagram);
    let all: u64 = Reject::ALL.iter().map(|&reason| counts.rejected(reason)).sum();
    assert_eq!((counts.rejected(reject), all), (1, 1), "{reject:?} in {counts:?}");
    replies
}

#[test]
fn a_request_is_written_as_clients_write_it() {
    let mut request = ca::RequestWriter::new();
    request.begin(Some(7));
    assert!(request.push(42, b"ioc1:temp"));
    assert_eq!(request.datagram(), [VERSION_7, SEARCH_42].concat());
    assert_eq!(request.name_count(), 1);
}

#[test]
fn a_reply_is_written_as_servers_write_it() {
    let (replies, counts) = answer(&[VERSION_7, SEARCH_42].concat());
    assert_eq!(replies, [[VERSION_7, REPLY_42].concat()]);
    assert_eq!((counts.name_count, counts.hit_count, counts.miss_count), (1, 1, 0));

    let mut messages = ca::messages(&replies[0]);
    assert_eq!(messages.next().unwrap().unwrap().sequence(), Some(7));
    let reply = messages.next().unwrap().unwrap().search_reply().unwrap();
    assert_eq!((reply.id, reply.port, reply.minor_version), (42, 5064, 13));
    assert_eq!(reply.server, Some("192.0.2.7".parse().unwrap()));
}

#[test]
fn a_reply_may_leave_the_server_to_be_its_sender() {
    let bytes = message(6, 5064, 0, [u32::MAX, 1], b"\0\x0d\0\0\0\0\0\0");
    let reply = ca::messages(&bytes).next().unwrap().unwrap().search_reply().unwrap();
    assert_eq!(reply.server, None);
}

#[test]
fn a_request_without_version_is_answered_without_sequence() {
    let (replies, _) = answer(SEARCH_42);
    assert_eq!(&replies[0][..16], b"\0\0\0\0\0\0\0\x0d\0\0\0\0\0\0\0\0");
    assert_eq!(&replies[0][16..], REPLY_42);
}

#[test]
fn the_sequence_is_echoed_to_every_client_new_enough() {
    for (minor_version, marked, echoed) in [(13, 1, true), (11, 0, true), (10, 1, false)] {
        let version = message(0, marked, minor_version, [9, 0], b"");
        let (replies, _) = answer(&[&version, SEARCH_42].concat());
        let sequence = ca::messages(&replies[0]).next().unwrap().unwrap().sequence();
        assert_eq!(sequence, echoed.then_some(9), "minor version {minor_version}");
    }
}

#[test]
fn of_several_sequences_in_a_datagram_the_last_is_echoed() {
    let version_8 = message(0, 1, 13, [8, 0], b"");
    let (replies, _) = answer(&[VERSION_7, SEARCH_42, &version_8, SEARCH_42].concat());
    let first = |reply: &Vec<u8>| ca::messages(reply).next().unwrap().unwrap().sequence();
    assert_eq!(replies.iter().map(first).collect::<Vec<_>>(), [Some(8)]);
    assert_eq!(&replies[0][16..], [REPLY_42, REPLY_42].concat());
}

#[test]
fn many_hits_are_packed_in_order() {
    let mut datagram = VERSION_7.to_vec();
    for id in 0..100u32 {
        let name = format!("ioc2:channel{id:<12}").replace(' ', "\0");
        datagram.extend(message(6, 5, 13, [id, id], name.as_bytes()));
    }
    let (replies, counts) = answer(&datagram);
    // 42 replies of 24 bytes fit behind the VERSION message in 1,024 bytes.
    assert_eq!(replies.iter().map(Vec::len).collect::<Vec<_>>(), [1024, 1024, 400]);
    assert_eq!(counts.hit_count, 100);
    let mut ids = Vec::new();
    for reply in &replies {
        let mut messages = ca::messages(reply).map(Result::unwrap);
        assert_eq!(messages.next().unwrap().sequence(), Some(7));
        ids.extend(messages.map(|message| message.search_reply().unwrap().id));
    }
    assert!(ids.into_iter().eq(0..100));
}

#[test]
fn replies_of_two_servers_never_share_a_datagram() {
    let mut datagram = VERSION_7.to_vec();
    for id in 0..20u32 {
        let name: &[u8] = if id % 2 == 0 { b"ioc1:temp" } else { b"ioc2:channel0" };
        datagram.extend(message(6, 5, 13, [id, id], &[name, &[0; 16][name.len()..]].concat()));
    }
    let (replies, _) = answer(&datagram);
    assert_eq!(replies.len(), 2);
    for reply in &replies {
        let answers: Vec<_> = ca::messages(reply)
            .skip(1)
            .map(|message| message.unwrap().search_reply().unwrap())
            .collect();
        assert_eq!(answers.len(), 10);
        let is_alike = |answer: &ca::SearchReply| answer.server == answers[0].server;
        assert!(answers.iter().all(is_alike), "{answers:?}");
        assert!(answers.is_sorted_by_key(|answer| answer.id), "{answers:?}");
    }
}

#[test]
fn misses_are_silent_whatever_the_flag() {
    for flag in [ca::DO_REPLY, ca::DONT_REPLY] {
        for name in [b"unknown\0", b"pva:only", b"ioc1:te\0"] {
            let mut body = name.to_vec();
            body.extend([0; 8]);
            let (replies, counts) = answer(&message(6, flag, 13, [1, 1], &body));
            assert_eq!((replies.len(), counts.miss_count), (0, 1));
        }
    }
}

#[test]
fn a_field_finds_its_record() {
    let (replies, _) = answer(&message(6, 5, 13, [42, 42], b"ioc1:temp.EGU\0\0\0"));
    assert_eq!(&replies[0][16..], REPLY_42);
}

#[test]
fn an_extended_header_is_read() {
    let mut datagram = VERSION_7.to_vec();
    datagram.extend(b"\0\x06\xff\xff\0\x05\0\0\0\0\0\x2a\0\0\0\x2a\0\0\0\x10\0\0\0\x0dioc1:temp");
    datagram.extend([0; 7]);
    let (replies, _) = answer(&datagram);
    assert_eq!(replies, [[VERSION_7, REPLY_42].concat()]);
}

#[test]
fn every_refusal_is_counted_by_reason() {
    let with = |bytes: &[u8]| [VERSION_7, SEARCH_42, bytes].concat();
    // What precedes the refused message is answered all the same.
    for (bytes, reject) in [
        (b"\0\x06\0".to_vec(), Reject::TruncatedHeader),
        (message(6, 5, 13, [1, 1], b"abcd"), Reject::Misaligned),
        (SEARCH_42[..31].to_vec(), Reject::TruncatedPayload),
        (b"\0\x06\xff\xff\0\x05\0\x0d\0\0\0\0\0\0\0\0\0\0".to_vec(), Reject::TruncatedHeader),
        (
            b"\0\x06\xff\xff\0\x05\0\x0d\0\0\0\0\0\0\0\0\xff\xff\xff\xf8\0\0\0\0".to_vec(),
            Reject::TruncatedPayload,
        ),
        (message(1, 0, 0, [0, 0], b""), Reject::UnexpectedCommand),
        (message(14, 0, 0, [0, 0], b""), Reject::UnexpectedCommand),
        (message(6, 5, 13, [1, 1], b""), Reject::EmptyName),
        (message(6, 5, 13, [1, 1], b"\0\0\0\0\0\0\0\0"), Reject::EmptyName),
        (message(6, 5, 13, [1, 1], b"abcdefgh"), Reject::UnterminatedName),
        (message(6, 5, 7, [1, 1], b"abcdefg\0"), Reject::OldClient),
        ([message(0, 0, 3, [0, 0], b""), SEARCH_42.to_vec()].concat(), Reject::OldClient),
    ] {
        let replies = rejected(&with(&bytes), reject);
        assert_eq!(replies, [[VERSION_7, REPLY_42].concat()], "{reject:?}");
    }
}

#[test]
fn a_refused_name_does_not_hide_the_next() {
    for bytes in [b"\0\0\0\0\0\0\0\0", b"abcdefgh"] {
        let bad = message(6, 5, 13, [1, 1], bytes);
        assert_eq!(answer(&[VERSION_7, &bad, SEARCH_42].concat()).0.len(), 1);
    }
}

#[test]
fn nothing_is_sent_to_port_0() {
    let mut responder = CaResponder::new();
    let source = "192.0.2.99:0".parse().unwrap();
    responder.answer(&table(), SEARCH_42, source, &mut |_, _| panic!("a reply to port 0"));
    assert_eq!(responder.counts().rejected(Reject::ReplyPortZero), 1);
}

#[test]
fn no_length_a_datagram_is_cut_to_does_harm() {
    let datagram = [VERSION_7, SEARCH_42, SEARCH_42].concat();
    for len in 0..datagram.len() {
        let (replies, counts) = answer(&datagram[..len]);
        let whole = (len.saturating_sub(16) / 32) as u64;
        assert_eq!((counts.hit_count, replies.len()), (whole, usize::from(whole > 0)), "{len}");
        let cut = Reject::ALL.iter().map(|&reason| counts.rejected(reason)).sum::<u64>();
        assert_eq!(cut, u64::from(![0, 16, 48].contains(&len)), "{len}");
    }
}

#[test]
fn a_name_that_fills_its_payload_still_ends() {
    for name_len in [1, 7, 8, 15, 16, 500] {
        let name = vec![b'x'; name_len];
        let mut request = ca::RequestWriter::new();
        assert!(!request.push(1, &name), "before begin");
        request.begin(None);
        assert!(request.push(1, &name));
        let search = ca::messages(request.datagram()).nth(1).unwrap().unwrap();
        assert_eq!(search.search().unwrap().name, name);
        assert_eq!(request.datagram().len() % 8, 0);
    }
    let mut request = ca::RequestWriter::new();
    request.begin(None);
    assert!(!request.push(1, &[b'x'; 1024]));
}
