//! PVA SEARCH: bytes derived by hand from the protocol's description, every reason for refusal, and
//! where a reply may go.

use std::net::{Ipv4Addr, SocketAddrV4};

use nicring::{
    search::pva::{self, ByteOrder},
    search::{Asked, NameTable, Protocol, PvaResponder, Reject, SearchCounts},
};

/// SEARCH with sequence number 7: unicast, reply to the sender's port 40000, tcp, `ioc1:temp` with
/// id 42.
const LITTLE: &[u8] = b"\xca\x02\0\x03\x2f\0\0\0\x07\0\0\0\x80\0\0\0\
    \0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x40\x9c\x01\x03tcp\x01\0\x2a\0\0\0\x09ioc1:temp";
const BIG: &[u8] = b"\xca\x02\x80\x03\0\0\0\x2f\0\0\0\x07\x80\0\0\0\
    \0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x9c\x40\x01\x03tcp\0\x01\0\0\0\x2a\x09ioc1:temp";
const RESPONSE_LITTLE: &[u8] = b"\xca\x02\x40\x04\x2d\0\0\0nicrin\xc0\0\x02\x07\x13\xd3\x07\0\0\0\
    \0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\0\x02\x07\xd3\x13\x03tcp\x01\x01\0\x2a\0\0\0";
const RESPONSE_BIG: &[u8] = b"\xca\x02\xc0\x04\0\0\0\x2dnicrin\xc0\0\x02\x07\x13\xd3\0\0\0\x07\
    \0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\0\x02\x07\x13\xd3\x03tcp\x01\0\x01\0\0\0\x2a";
/// The offsets of fields in the requests above.
const FLAGS_AT: usize = 12;
const ADDRESS_AT: usize = 16;
const PORT_AT: usize = 32;

/// What a client writes of itself at the beginning of a SEARCH.
const HEAD: pva::SearchHead = pva::SearchHead {
    byte_order: ByteOrder::Little,
    sequence: 1,
    flags: 0,
    reply_to: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 40_000),
};

fn address(text: &str) -> SocketAddrV4 {
    text.parse().unwrap()
}

fn table() -> NameTable {
    let mut builder = NameTable::builder();
    builder.insert(Protocol::Pva, "ioc1:temp", address("192.0.2.7:5075")).unwrap();
    for number in 0..1000u16 {
        let server = SocketAddrV4::new([192, 0, 2, 100 + (number % 3) as u8].into(), 5075);
        builder.insert(Protocol::Pva, &format!("n{number}"), server).unwrap();
    }
    builder.insert(Protocol::Ca, "ca:only", address("192.0.2.7:5064")).unwrap();
    builder.build()
}

type Replies = Vec<(SocketAddrV4, Vec<u8>)>;

fn answer_from(datagram: &[u8], asked: Asked) -> (Replies, SearchCounts) {
    let subnets = vec!["198.51.100.0/24".parse().unwrap()];
    let mut responder = PvaResponder::new(subnets);
    let mut replies = Vec::new();
    responder.answer(&table(), datagram, asked, &mut |to, reply| {
        replies.push((to, reply.to_vec()));
    });
    assert_eq!(responder.counts().datagram_count, 1);
    assert_eq!(responder.counts().reply_count, replies.len() as u64);
    (replies, *responder.counts())
}

fn answer(datagram: &[u8]) -> (Replies, SearchCounts) {
    answer_from(datagram, address("192.0.2.99:50000").into())
}

fn rejected(datagram: &[u8], reject: Reject) -> Replies {
    let (replies, counts) = answer(datagram);
    let all: u64 = Reject::ALL.iter().map(|&reason| counts.rejected(reason)).sum();
    assert_eq!((counts.rejected(reject), all), (1, 1), "{reject:?} in {counts:?}");
    replies
}

fn patched(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut datagram = BIG.to_vec();
    datagram[at..at + bytes.len()].copy_from_slice(bytes);
    datagram
}

/// [`BIG`] with other bytes from its protocols on, and with the right length.
fn with_tail(tail: &[u8]) -> Vec<u8> {
    let mut datagram = [&BIG[..PORT_AT + 2], tail].concat();
    let payload_len = (datagram.len() - 8) as u32;
    datagram[4..8].copy_from_slice(&payload_len.to_be_bytes());
    datagram
}

fn reply_to(text: &str) -> Vec<u8> {
    let ip: std::net::Ipv6Addr = text.parse().unwrap();
    patched(ADDRESS_AT, &ip.octets())
}

#[test]
fn a_request_is_written_in_both_byte_orders() {
    for (byte_order, expected) in [(ByteOrder::Little, LITTLE), (ByteOrder::Big, BIG)] {
        let mut request = pva::RequestWriter::new();
        assert!(!request.push(1, b"before begin"));
        request.begin(pva::SearchHead {
            byte_order,
            sequence: 7,
            flags: pva::FLAG_UNICAST,
            reply_to: address("0.0.0.0:40000"),
        });
        assert!(request.push(42, b"ioc1:temp"));
        assert_eq!(request.datagram(), expected, "{byte_order:?}");
        assert_eq!(request.name_count(), 1);
    }
}

#[test]
fn a_reply_is_in_the_byte_order_of_the_request() {
    let to = address("192.0.2.99:40000");
    assert_eq!(answer(LITTLE).0, [(to, RESPONSE_LITTLE.to_vec())]);
    assert_eq!(answer(BIG).0, [(to, RESPONSE_BIG.to_vec())]);
    for bytes in [RESPONSE_LITTLE, RESPONSE_BIG] {
        let message = pva::messages(bytes).next().unwrap().unwrap();
        let response = message.search_response().unwrap();
        assert_eq!((response.sequence, response.port, response.found), (7, 5075, true));
        assert_eq!(response.protocol, b"tcp");
        assert_eq!(response.server_ipv4(), Some("192.0.2.7".parse().unwrap()));
        assert!(response.ids().eq([42]));
    }
}

#[test]
fn a_search_is_parsed_to_its_fields() {
    for bytes in [LITTLE, BIG] {
        let search = pva::messages(bytes).next().unwrap().unwrap().search().unwrap();
        assert_eq!((search.sequence, search.reply_port, search.name_count), (7, 40000, 1));
        assert!(search.is_unicast() && !search.must_reply() && search.accepts_tcp);
        assert_eq!(search.reply_ipv4(), Some("0.0.0.0".parse().unwrap()));
        assert!(search.names().eq([(42, &b"ioc1:temp"[..])]));
    }
}

#[test]
fn one_server_has_one_reply_with_all_its_ids_and_its_own_identity() {
    let mut request = pva::RequestWriter::new();
    request.begin(HEAD);
    for id in 0..90 {
        assert!(request.push(id, format!("n{id}").as_bytes()));
    }
    assert!(request.push(1000, b"unknown"));
    let (replies, counts) = answer(request.datagram());
    assert_eq!((counts.name_count, counts.hit_count, counts.miss_count), (91, 90, 1));
    let mut guids = Vec::new();
    for (number, (_, reply)) in replies.iter().enumerate() {
        let mut messages = pva::messages(reply);
        let response = messages.next().unwrap().unwrap().search_response().unwrap();
        assert!(messages.next().is_none(), "pvxs clients read one message of a datagram");
        assert!(response.ids().eq((number as u32..90).step_by(3)));
        guids.push(response.guid);
    }
    guids.dedup();
    assert_eq!(guids.len(), 3);
}

#[test]
fn more_ids_than_fit_take_more_datagrams() {
    let mut tail = b"\x01\x03tcp\x03\xe8".to_vec();
    for id in 0..1000u32 {
        tail.extend(id.to_be_bytes());
        tail.extend(b"\x09ioc1:temp");
    }
    let (replies, counts) = answer(&with_tail(&tail));
    assert_eq!((replies.len(), counts.hit_count), (3, 1000));
    let mut ids = Vec::new();
    for (_, reply) in &replies {
        assert!(reply.len() <= pva::DATAGRAM_LEN_MAX);
        let message = pva::messages(reply).next().unwrap().unwrap();
        ids.extend(message.search_response().unwrap().ids());
    }
    assert!(ids.into_iter().eq(0..1000));
}

#[test]
fn sizes_and_protocols_are_read_in_every_form() {
    let name = b"\0\x01\0\0\0\x2a\x09ioc1:temp";
    for protocols in [
        &b"\x01\x03tcp"[..],
        b"\x02\x03tls\x03tcp",
        b"\x02\xff\x03tcp",
        b"\x02\0\x03tcp",
        b"\xfe\0\0\0\x01\xfe\0\0\0\x03tcp",
    ] {
        assert_eq!(answer(&with_tail(&[protocols, name].concat())).0.len(), 1, "{protocols:?}");
    }
    let long = b"\x01\x03tcp\0\x01\0\0\0\x2a\xfe\0\0\0\x09ioc1:temp";
    assert_eq!(answer(&with_tail(long)).0.len(), 1);
    for protocols in [&b"\0"[..], b"\x01\x03tls", b"\x01\x03TCP", b"\x01\0", b"\x01\xff"] {
        assert!(rejected(&with_tail(&[protocols, name].concat()), Reject::NoTcp).is_empty());
    }
}

#[test]
fn misses_are_silent_even_where_a_reply_must_come() {
    for name in [&b"\x07unknown"[..], b"\x07ca:only", b"\0"] {
        let tail = [&b"\x01\x03tcp\0\x01\0\0\0\x2a"[..], name].concat();
        let mut datagram = with_tail(&tail);
        datagram[FLAGS_AT] = pva::FLAG_MUST_REPLY;
        let (replies, counts) = answer(&datagram);
        assert_eq!((replies.len(), counts.miss_count), (0, 1), "{name:?}");
    }
}

#[test]
fn a_ping_is_counted_and_not_answered() {
    let mut ping = with_tail(b"\0\0\0");
    assert_eq!(answer(&ping).1.empty_count, 1);
    ping[FLAGS_AT] = pva::FLAG_MUST_REPLY;
    let (replies, counts) = answer(&ping);
    assert_eq!((replies.len(), counts.ping_count, counts.empty_count), (0, 1, 0));
}

#[test]
fn all_messages_of_a_datagram_are_read_and_others_skipped() {
    let beacon = b"\xca\x02\0\0\x04\0\0\0abcd";
    let (replies, counts) = answer(&[LITTLE, beacon, BIG].concat());
    assert_eq!((replies.len(), counts.other_count), (2, 1));
}

#[test]
fn every_refusal_of_a_message_is_counted_by_reason() {
    let mut long = BIG.to_vec();
    long[7] += 1;
    for (datagram, reject) in [
        (b"\xca\x02\0".to_vec(), Reject::TruncatedHeader),
        (long, Reject::TruncatedPayload),
        (patched(4, &[0xff; 4]), Reject::TruncatedPayload),
        (patched(0, b"\xcb"), Reject::BadMagic),
        (patched(1, b"\0"), Reject::BadMagic),
        (patched(2, b"\x81"), Reject::ControlMessage),
        (patched(2, b"\x90"), Reject::Segmented),
        (patched(2, b"\xa0"), Reject::Segmented),
        (patched(2, b"\xb0"), Reject::Segmented),
        (with_tail(b""), Reject::MalformedPayload),
        (with_tail(b"\xff\0\0"), Reject::MalformedPayload),
        (with_tail(b"\xfe\xff\xff\xff\xff"), Reject::MalformedPayload),
        (with_tail(b"\x01\x03tcp\0\x02\0\0\0\x2a\x09ioc1:temp"), Reject::MalformedPayload),
        (with_tail(b"\x01\x03tcp\0\x01\0\0\0\x2a\xff"), Reject::MalformedPayload),
        (with_tail(b"\x01\x03tcp\0\x01\0\0\0\x2a\x0aioc1:temp"), Reject::MalformedPayload),
        (with_tail(b"\x01\x03tcp\0\x01\0\0\0\x2a\xfe\x7f\xff\xff\xff"), Reject::MalformedPayload),
        (patched(3, b"\x16")[..16].to_vec(), Reject::TruncatedPayload),
        (b"\xca\x02\x80\x16\0\0\0\x01a".to_vec(), Reject::MalformedPayload),
        (patched(PORT_AT, b"\0\0"), Reject::ReplyPortZero),
    ] {
        assert!(rejected(&datagram, reject).is_empty());
        let replies = rejected(&[LITTLE, &datagram].concat(), reject);
        assert_eq!(replies.len(), 1, "what stood before {reject:?} is answered");
    }
}

#[test]
fn a_reply_goes_to_the_sender_or_a_configured_subnet_only() {
    for (asked_for, reached) in [
        ("::", Some("192.0.2.99:40000")),
        ("::ffff:0.0.0.0", Some("192.0.2.99:40000")),
        ("::ffff:192.0.2.99", Some("192.0.2.99:40000")),
        ("::ffff:198.51.100.5", Some("198.51.100.5:40000")),
        ("::ffff:198.51.100.0", None),
        ("::ffff:198.51.100.255", None),
        ("::ffff:198.51.101.5", None),
        ("::ffff:192.0.2.98", None),
        ("::ffff:255.255.255.255", None),
        ("::ffff:224.0.0.128", None),
        ("::ffff:127.0.0.1", None),
        ("::c0:0:2:63", None),
        ("2001:db8::1", None),
    ] {
        match reached {
            Some(reached) => assert_eq!(answer(&reply_to(asked_for)).0[0].0, address(reached)),
            None => {
                assert!(rejected(&reply_to(asked_for), Reject::RefusedReplyAddress).is_empty());
            }
        }
    }
}

#[test]
fn subnets_can_be_replaced() {
    let mut responder = PvaResponder::new(Vec::new());
    let mut reply_count = 0;
    for subnets in [vec![], vec!["198.51.100.0/24".parse().unwrap()], vec![]] {
        responder.set_reply_subnets(subnets);
        let asked = address("192.0.2.99:50000").into();
        let request = reply_to("::ffff:198.51.100.5");
        responder.answer(&table(), &request, asked, &mut |_, _| reply_count += 1);
    }
    assert_eq!((reply_count, responder.counts().refused_reply_address_count), (1, 2));
}

#[test]
fn even_a_subnet_of_all_addresses_has_hosts_only() {
    let mut responder = PvaResponder::new(vec!["0.0.0.0/0".parse().unwrap()]);
    let mut sent = Vec::new();
    for asked_for in ["::ffff:224.0.0.1", "::ffff:255.255.255.255", "::ffff:203.0.113.9"] {
        let asked = address("192.0.2.99:50000").into();
        responder.answer(&table(), &reply_to(asked_for), asked, &mut |to, _| sent.push(to));
    }
    assert_eq!(sent, [address("203.0.113.9:40000")]);
}

#[test]
fn a_request_passed_on_by_a_server_of_this_host_is_answered_to_its_client() {
    let mut tag = Vec::new();
    pva::append_origin_tag(&mut tag, "192.0.2.7".parse().unwrap());
    let mut forwarded = Asked::from(address("127.0.0.1:5076"));
    forwarded.forwarded = true;
    let direct = Asked::from(address("192.0.2.99:5076"));
    let to_client = reply_to("::ffff:203.0.113.9");

    let (replies, _) = answer_from(&[&tag[..], &to_client].concat(), forwarded);
    assert_eq!(replies[0].0, address("203.0.113.9:40000"));

    for (datagram, asked, reject) in [
        // Not through the loopback group: anybody may have sent the tag and what follows it.
        ([&tag[..], &to_client].concat(), direct, Reject::UntrustedOriginTag),
        ([&tag[..], &tag, &to_client].concat(), forwarded, Reject::UntrustedOriginTag),
        // A tag behind the message does not apply to it.
        ([&to_client[..], &tag].concat(), forwarded, Reject::RefusedReplyAddress),
        ([&tag[..], BIG].concat(), forwarded, Reject::RefusedReplyAddress),
        (
            [&tag[..], &reply_to("::ffff:224.0.0.1")].concat(),
            forwarded,
            Reject::RefusedReplyAddress,
        ),
        (
            [&tag[..], &reply_to("::ffff:198.51.100.255")].concat(),
            forwarded,
            Reject::RefusedReplyAddress,
        ),
    ] {
        let (replies, counts) = answer_from(&datagram, asked);
        assert_eq!((replies.len(), counts.rejected(reject)), (0, 1), "{reject:?}");
    }
}

#[test]
fn from_version_3_on_a_client_behind_a_nat_is_answered_at_its_source_port() {
    let source = address("192.0.2.99:61000");
    for (version, flags, port) in [(3, 0x82, 61000), (2, 0x82, 40000), (3, 0x80, 40000)] {
        let mut datagram = patched(FLAGS_AT, &[flags]);
        datagram[1] = version;
        let (replies, _) = answer_from(&datagram, Asked::from(source));
        assert_eq!(replies[0].0.port(), port, "version {version}, flags {flags:#x}");
        // Port 0 is no mistake where it does not count.
        datagram[PORT_AT..PORT_AT + 2].fill(0);
        let (replies, counts) = answer_from(&datagram, Asked::from(source));
        let expected = (usize::from(port == 61000), u64::from(port != 61000));
        assert_eq!((replies.len(), counts.rejected(Reject::ReplyPortZero)), expected);
    }
    // Another server of this host has passed it on: its port is not the client's.
    let mut forwarded = Asked::from(address("127.0.0.1:5076"));
    forwarded.forwarded = true;
    for byte_order in [ByteOrder::Little, ByteOrder::Big] {
        let mut datagram = if byte_order == ByteOrder::Big { BIG } else { LITTLE }.to_vec();
        (datagram[1], datagram[FLAGS_AT]) = (3, 0x82);
        let mut passed_on = Vec::new();
        let own = "192.0.2.7".parse().unwrap();
        assert!(pva::append_forwarded(&mut passed_on, &datagram, own, source));
        let (replies, _) = answer_from(&passed_on, forwarded);
        assert_eq!(replies[0].0, source, "{byte_order:?}");
        let search = pva::messages(&passed_on).nth(1).unwrap().unwrap().search().unwrap();
        assert_eq!(search.flags, 0, "nobody passes it on once more");
    }
    assert!(!pva::append_forwarded(&mut Vec::new(), b"\xca\x02", [0; 4].into(), source));
}

#[test]
fn the_whole_names_of_a_datagram_that_was_cut_are_answered() {
    let mut request = pva::RequestWriter::new();
    request.begin(HEAD);
    (0..10).for_each(|id| assert!(request.push(id, b"ioc1:temp")));
    let whole = request.datagram();
    let mut asked = Asked::from(address("192.0.2.99:40000"));
    for cut in 0..whole.len() {
        asked.truncated = true;
        let (_, counts) = answer_from(&whole[..cut], asked);
        let names_at = whole.len() - 10 * (4 + 1 + 9);
        assert_eq!(counts.hit_count as usize, cut.saturating_sub(names_at) / 14, "{cut}");
        asked.truncated = false;
        assert_eq!(answer_from(&whole[..cut], asked).1.hit_count, 0, "nobody said that it was cut");
    }
}

#[test]
fn what_is_passed_on_is_answered_by_the_rules_that_were_set() {
    let mut forwarded = Asked::from(address("127.0.0.1:5076"));
    forwarded.forwarded = true;
    let answered = |responder: &mut PvaResponder, datagram: &[u8]| {
        let mut count = 0;
        responder.answer(&table(), datagram, forwarded, &mut |_, _| count += 1);
        count == 1
    };
    let untagged = reply_to("::ffff:203.0.113.9");
    assert!(!answered(&mut PvaResponder::new(Vec::new()), &untagged));
    assert!(answered(&mut PvaResponder::new(Vec::new()).accept_untagged(), &untagged));
    let tagged = |origin: &str| {
        let mut datagram = Vec::new();
        pva::append_origin_tag(&mut datagram, origin.parse().unwrap());
        [&datagram[..], &untagged].concat()
    };
    let mut responder = PvaResponder::new(Vec::new());
    for origin in ["192.0.2.7", "0.0.0.0", "134.79.151.36"] {
        assert!(answered(&mut responder, &tagged(origin)), "{origin}");
    }
    responder.set_origins(Some(vec!["192.0.2.7".parse().unwrap()]));
    assert!(answered(&mut responder, &tagged("192.0.2.7")));
    for origin in ["0.0.0.0", "134.79.151.36"] {
        assert!(!answered(&mut responder, &tagged(origin)), "{origin}");
    }
    assert_eq!(responder.counts().rejected(Reject::ForeignOrigin), 2);
}

#[test]
fn no_length_a_datagram_is_cut_to_does_harm() {
    let mut tag = Vec::new();
    pva::append_origin_tag(&mut tag, "0.0.0.0".parse().unwrap());
    let mut forwarded = Asked::from(address("127.0.0.1:5076"));
    forwarded.forwarded = true;
    for second in [LITTLE, BIG] {
        let datagram = [&tag[..], &reply_to("::ffff:203.0.113.9"), second].concat();
        for len in 0..datagram.len() {
            let (replies, _) = answer_from(&datagram[..len], forwarded);
            assert_eq!(replies.len(), usize::from(len >= tag.len() + BIG.len()), "{len}");
        }
    }
    // The same with a header that states the shortened length.
    for len in 8..BIG.len() {
        let mut datagram = BIG[..len].to_vec();
        datagram[7] = (len - 8) as u8;
        assert!(rejected(&datagram, Reject::MalformedPayload).is_empty(), "{len}");
    }
}

#[test]
fn names_of_any_length_up_to_the_limit_fit_and_none_exceeds_a_datagram() {
    let head = pva::SearchHead {
        byte_order: ByteOrder::Big,
        sequence: 1,
        flags: 0,
        reply_to: address("192.0.2.99:40000"),
    };
    for name_len in [0, 1, 253, 254, 255, 500] {
        let name = vec![b'x'; name_len];
        let mut request = pva::RequestWriter::new();
        request.begin(head);
        while request.push(9, &name) {}
        assert!(request.datagram().len() <= pva::DATAGRAM_LEN_MAX);
        let message = pva::messages(request.datagram()).next().unwrap().unwrap();
        let search = message.search().unwrap();
        assert_eq!(usize::from(search.name_count), request.name_count());
        assert_eq!(search.reply_ipv4(), Some("192.0.2.99".parse().unwrap()));
        assert!(request.name_count() > 0 && search.names().all(|entry| entry == (9, &name[..])));
    }
}
