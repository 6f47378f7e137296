//! With any bytes, parsers and responders never panic and do bounded work. They read what writers
//! write.

use std::net::SocketAddrV4;

use nicring::search::pva::ByteOrder;
use nicring::search::{
    Asked, CaResponder, NameTable, Protocol, PvaResponder, Reject, SearchCounts, ca, pva,
};
use proptest::{collection::vec, prelude::*};

fn source() -> SocketAddrV4 {
    "192.0.2.99:40000".parse().unwrap()
}

/// Short names on many servers, so that random requests hit.
fn table() -> NameTable {
    let mut builder = NameTable::builder();
    for (number, name) in ('a'..='z').enumerate() {
        let server = SocketAddrV4::new([192, 0, 2, 1 + number as u8 / 3].into(), 5064);
        builder.insert(Protocol::Ca, &name.to_string(), server).unwrap();
        builder.insert(Protocol::Pva, &name.to_string(), server).unwrap();
    }
    builder.build()
}

/// Checks what must hold for the counts of any single datagram.
fn check(counts: &SearchCounts, sent_count: u64) -> Result<(), TestCaseError> {
    prop_assert_eq!(counts.datagram_count, 1);
    prop_assert_eq!(counts.reply_count, sent_count);
    prop_assert_eq!(counts.name_count, counts.hit_count + counts.miss_count);
    prop_assert!(counts.reply_count <= counts.hit_count);
    Ok(())
}

fn answer_ca(bytes: &[u8]) -> Result<SearchCounts, TestCaseError> {
    let mut responder = CaResponder::new();
    let mut sent = Vec::new();
    responder.answer(&table(), bytes, source(), &mut |_, reply| sent.push(reply.to_vec()));
    let counts = *responder.counts();
    check(&counts, sent.len() as u64)?;
    let mut answered_count = 0;
    for reply in sent {
        prop_assert!(reply.len() <= ca::DATAGRAM_LEN_MAX);
        let mut messages = ca::messages(&reply);
        prop_assert_eq!(messages.next().unwrap().unwrap().command, ca::VERSION);
        for message in messages {
            prop_assert!(message.unwrap().search_reply().is_ok());
            answered_count += 1;
        }
    }
    prop_assert_eq!(answered_count, counts.hit_count);
    Ok(counts)
}

fn answer_pva(bytes: &[u8], forwarded: bool) -> Result<SearchCounts, TestCaseError> {
    let mut responder = PvaResponder::new(vec!["192.0.2.0/24".parse().unwrap()]);
    let mut sent = Vec::new();
    let mut asked = Asked::from(source());
    asked.forwarded = forwarded;
    responder.answer(&table(), bytes, asked, &mut |to, reply| sent.push((to, reply.to_vec())));
    let counts = *responder.counts();
    check(&counts, sent.len() as u64)?;
    let mut answered_count = 0;
    for (to, reply) in sent {
        prop_assert!(to.port() != 0 && !to.ip().is_multicast() && !to.ip().is_broadcast());
        prop_assert!(reply.len() <= pva::DATAGRAM_LEN_MAX);
        let mut messages = pva::messages(&reply);
        let response = messages.next().unwrap().unwrap().search_response().unwrap();
        prop_assert!(response.found && messages.next().is_none());
        answered_count += response.ids().count() as u64;
    }
    prop_assert_eq!(answered_count, counts.hit_count);
    Ok(counts)
}

/// Bytes that begin like CA.
fn like_ca() -> impl Strategy<Value = Vec<u8>> {
    let field =
        prop_oneof![Just(0u16), Just(5), Just(6), Just(8), Just(13), Just(0xffff), any::<u16>()];
    let message = (vec(field, 8), vec(prop_oneof![Just(0u8), b'a'..=b'z'], 0..24)).prop_map(
        |(header, body)| {
            let mut bytes: Vec<u8> = header.iter().flat_map(|field| field.to_be_bytes()).collect();
            bytes.extend(body);
            bytes
        },
    );
    vec(message, 0..6).prop_map(|messages| messages.concat())
}

/// A well-formed PVA SEARCH with some bytes changed.
fn like_pva() -> impl Strategy<Value = Vec<u8>> {
    let request = (any::<bool>(), any::<[u8; 4]>(), any::<u16>(), vec("[a-z]{1,2}", 0..40));
    let changes = vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (request, changes, any::<bool>()).prop_map(|((big, ip, port, names), changes, tagged)| {
        let mut bytes = Vec::new();
        if tagged {
            pva::append_origin_tag(&mut bytes, ip.into());
        }
        let mut writer = pva::RequestWriter::new();
        writer.begin(pva::SearchHead {
            byte_order: if big { ByteOrder::Big } else { ByteOrder::Little },
            sequence: 1,
            flags: 0,
            reply_to: SocketAddrV4::new(ip.into(), port),
        });
        for (id, name) in (0..).zip(&names) {
            writer.push(id, name.as_bytes());
        }
        bytes.extend(writer.datagram());
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
}

proptest! {
    #[test]
    fn any_bytes_are_answered_or_counted(bytes in vec(any::<u8>(), 0..2048)) {
        answer_ca(&bytes)?;
        answer_pva(&bytes, false)?;
        answer_pva(&bytes, true)?;
        prop_assert!(ca::messages(&bytes).count() <= bytes.len() / 16 + 1);
        prop_assert!(pva::messages(&bytes).count() <= bytes.len() / 8 + 1);
    }

    #[test]
    fn bytes_like_ca_are_answered_or_counted(bytes in like_ca()) {
        answer_ca(&bytes)?;
        for message in ca::messages(&bytes).flatten() {
            let _ = (message.search(), message.search_reply(), message.sequence());
        }
    }

    #[test]
    fn bytes_like_pva_are_answered_or_counted(bytes in like_pva(), forwarded in any::<bool>()) {
        answer_pva(&bytes, forwarded)?;
        for message in pva::messages(&bytes).flatten() {
            let _ = (message.search_response(), message.origin());
            if let Ok(search) = message.search() {
                prop_assert_eq!(search.names().count(), usize::from(search.name_count));
            }
        }
    }

    #[test]
    fn a_ca_request_is_read_back(
        sequence in any::<Option<u32>>(),
        names in vec((any::<u32>(), vec(1..=255u8, 1..60)), 0..60),
    ) {
        let mut request = ca::RequestWriter::new();
        request.begin(sequence);
        let fitting: Vec<_> =
            names.iter().take_while(|(id, name)| request.push(*id, name)).collect();
        prop_assert_eq!(request.name_count(), fitting.len());
        prop_assert!(request.datagram().len() <= ca::DATAGRAM_LEN_MAX);
        let mut messages = ca::messages(request.datagram());
        prop_assert_eq!(messages.next().unwrap().unwrap().sequence(), sequence);
        for ((id, name), message) in fitting.into_iter().zip(messages) {
            let search = message.unwrap().search().unwrap();
            prop_assert_eq!((search.id, search.name), (*id, &name[..]));
        }
    }

    #[test]
    fn a_ca_reply_is_read_back(
        sequence in any::<Option<u32>>(),
        answers in vec(any::<(u32, u32, u16)>(), 0..60),
    ) {
        let mut reply = ca::ReplyWriter::new();
        reply.begin(sequence);
        let fitting: Vec<_> = answers
            .iter()
            .take_while(|(id, ip, port)| reply.push(*id, SocketAddrV4::new((*ip).into(), *port)))
            .collect();
        prop_assert_eq!(fitting.len(), answers.len().min(42));
        let messages = ca::messages(reply.datagram()).skip(1);
        for ((id, ip, port), message) in fitting.into_iter().zip(messages) {
            let read = message.unwrap().search_reply().unwrap();
            prop_assert_eq!((read.id, read.port), (*id, *port));
            prop_assert_eq!(read.server, (*ip != u32::MAX).then_some((*ip).into()));
        }
    }

    #[test]
    fn a_pva_request_is_read_back(
        big in any::<bool>(),
        (sequence, flags, ip, port) in any::<(u32, u8, u32, u16)>(),
        names in vec((any::<u32>(), vec(any::<u8>(), 0..300)), 0..20),
    ) {
        let byte_order = if big { ByteOrder::Big } else { ByteOrder::Little };
        let reply_to = SocketAddrV4::new(ip.into(), port);
        let mut request = pva::RequestWriter::new();
        request.begin(pva::SearchHead { byte_order, sequence, flags, reply_to });
        let fitting: Vec<_> =
            names.iter().take_while(|(id, name)| request.push(*id, name)).collect();
        let message = pva::messages(request.datagram()).next().unwrap().unwrap();
        let search = message.search().unwrap();
        prop_assert_eq!((search.sequence, search.flags), (sequence, flags));
        prop_assert_eq!(search.byte_order(), byte_order);
        prop_assert_eq!((search.reply_ipv4(), search.reply_port), (Some(*reply_to.ip()), port));
        prop_assert!(search.names().eq(fitting.iter().map(|(id, name)| (*id, &name[..]))));
    }

    #[test]
    fn a_pva_response_is_read_back(
        big in any::<bool>(),
        (guid, sequence, ip, port) in any::<([u8; 12], u32, u32, u16)>(),
        ids in vec(any::<u32>(), 0..400),
    ) {
        let byte_order = if big { ByteOrder::Big } else { ByteOrder::Little };
        let server = SocketAddrV4::new(ip.into(), port);
        let mut response = pva::ResponseWriter::new();
        response.begin(pva::ResponseHead { byte_order, guid, sequence, server });
        let fitting = ids.iter().take_while(|&&id| response.push(id)).count();
        prop_assert_eq!(fitting, ids.len().min((pva::DATAGRAM_LEN_MAX - 49) / 4));
        let message = pva::messages(response.datagram()).next().unwrap().unwrap();
        let read = message.search_response().unwrap();
        prop_assert_eq!((read.guid, read.sequence, read.port), (guid, sequence, port));
        prop_assert_eq!(read.server_ipv4(), Some(*server.ip()));
        prop_assert!(read.ids().eq(ids[..fitting].iter().copied()));
    }
}

#[test]
fn a_payload_of_more_names_than_a_datagram_holds_is_answered_too() {
    let mut payload = [&[0; 24][..], b"\x9c\x40\x01\x03tcp\xff\xff"].concat();
    for id in 0..u32::from(u16::MAX) {
        payload.extend(id.to_be_bytes());
        payload.extend(b"\x01a");
    }
    let mut bytes = b"\xca\x02\x80\x03".to_vec();
    bytes.extend((payload.len() as u32).to_be_bytes());
    bytes.extend(payload);
    assert_eq!(answer_pva(&bytes, false).unwrap().hit_count, 65535);
}

#[test]
fn counts_are_listed_and_added() {
    let counts = answer_ca(b"too short").unwrap();
    let mut total = counts;
    total += counts;
    for ((name, one), (_, two)) in counts.iter().zip(total.iter()) {
        assert_eq!(two, 2 * one, "{name}");
        assert!(name.ends_with("_count"));
    }
    for &reject in Reject::ALL {
        let listed = total.iter().find(|(name, _)| *name == reject.name()).unwrap();
        assert_eq!(listed.1, total.rejected(reject));
        assert!(!reject.to_string().is_empty());
    }
}
