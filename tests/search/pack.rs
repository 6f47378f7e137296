//! CA: a batch that is answered together gets the same answers as its datagrams do one by one.

use std::{
    collections::BTreeMap,
    net::SocketAddrV4,
    panic::{AssertUnwindSafe, catch_unwind},
};

use nicring::search::{CaResponder, NameTable, Protocol, ca};
use proptest::{collection::vec, prelude::*};

/// How many answers of 24 bytes fit behind VERSION in 1,024 bytes.
const ANSWERS_MAX: usize = 42;
/// How many answers a responder holds back at most.
const HELD_MAX: usize = 1024;
/// How many names are looked up together.
const TOGETHER_MAX: usize = 32;

/// A datagram: who asks, on which way, with which sequence number, for which names.
#[derive(Debug, Clone)]
struct Asked {
    asker: SocketAddrV4,
    way: u8,
    sequence: Option<u32>,
    names: Vec<char>,
}

impl Asked {
    /// The ids count up from `first_id`, so that they are unique in a batch.
    fn datagram(&self, first_id: u32) -> Vec<u8> {
        let mut request = ca::RequestWriter::new();
        request.begin(self.sequence);
        for (id, name) in (first_id..).zip(&self.names) {
            assert!(request.push(id, name.to_string().as_bytes()));
        }
        request.datagram().to_vec()
    }
}

/// The names a to i, three per server. All other names are unknown.
fn table() -> NameTable {
    let mut builder = NameTable::builder();
    for (number, name) in ('a'..='i').enumerate() {
        let server = SocketAddrV4::new([192, 0, 2, 1 + number as u8 / 3].into(), 5064);
        builder.insert(Protocol::Ca, &name.to_string(), server).unwrap();
    }
    builder.build()
}

/// Addresses that differ only in the IP address or in the port.
fn asker(number: u8) -> SocketAddrV4 {
    let addresses = ["192.0.2.99:40000", "192.0.2.99:40001", "192.0.2.98:40000"];
    addresses[usize::from(number)].parse().unwrap()
}

fn any_batch() -> impl Strategy<Value = Vec<Asked>> {
    let names = vec(prop::char::range('a', 'k'), 0..40);
    let asked = (0..3u8, 0..2u8, prop::option::of(any::<u32>()), names);
    vec(
        asked.prop_map(|(number, way, sequence, names)| Asked {
            asker: asker(number),
            way,
            sequence,
            names,
        }),
        0..60,
    )
}

/// One reply datagram, parsed.
#[derive(Debug)]
struct Reply {
    asker: SocketAddrV4,
    way: u8,
    server: SocketAddrV4,
    sequence: Option<u32>,
    ids: Vec<u32>,
}

fn read(way: u8, asker: SocketAddrV4, datagram: &[u8]) -> Reply {
    assert!(datagram.len() <= ca::DATAGRAM_LEN_MAX);
    let mut messages = ca::messages(datagram).map(Result::unwrap);
    let version = messages.next().unwrap();
    assert_eq!(version.command, ca::VERSION);
    let answers: Vec<_> = messages.map(|message| message.search_reply().unwrap()).collect();
    let server_of =
        |answer: &ca::SearchReply| SocketAddrV4::new(answer.server.unwrap(), answer.port);
    let server = server_of(&answers[0]);
    assert!(answers.iter().all(|answer| server_of(answer) == server), "one server per datagram");
    let ids = answers.iter().map(|answer| answer.id).collect();
    Reply { asker, way, server, sequence: version.sequence(), ids }
}

/// The answered ids in order, by asker, way and named server.
type Answers = BTreeMap<(SocketAddrV4, u8, SocketAddrV4), Vec<u32>>;

fn by_asker(replies: &[Reply]) -> Answers {
    let mut answers = Answers::new();
    for reply in replies {
        answers.entry((reply.asker, reply.way, reply.server)).or_default().extend(&reply.ids);
    }
    answers
}

fn first_ids() -> impl Iterator<Item = u32> {
    (0..).step_by(100)
}

fn packed(responder: &mut CaResponder<u8>, batch: &[Asked]) -> Vec<Reply> {
    let (table, mut replies) = (table(), Vec::new());
    let datagrams: Vec<_> =
        batch.iter().zip(first_ids()).map(|(asked, first_id)| asked.datagram(first_id)).collect();
    let mut answers = responder.pack(&table, |reply| {
        let read = read(reply.way, reply.to, reply.payload);
        assert_eq!(reply.name_count, read.ids.len());
        replies.push(read);
    });
    for (asked, datagram) in batch.iter().zip(&datagrams) {
        answers.add(datagram, asked.asker, asked.way);
    }
    drop(answers);
    replies
}

fn one_by_one(batch: &[Asked]) -> (Vec<Reply>, u64) {
    let (table, mut replies) = (table(), Vec::new());
    let mut responder = CaResponder::new();
    for (asked, first_id) in batch.iter().zip(first_ids()) {
        responder.answer(&table, &asked.datagram(first_id), asked.asker, &mut |to, reply| {
            replies.push(read(asked.way, to, reply));
        });
    }
    (replies, responder.counts().hit_count)
}

proptest! {
    #[test]
    fn a_batch_is_answered_as_its_datagrams_are(batch in any_batch()) {
        let mut responder = CaResponder::new();
        let (alone, hit_count) = one_by_one(&batch);
        let together = packed(&mut responder, &batch);
        prop_assert_eq!(by_asker(&together), by_asker(&alone));
        for reply in &together {
            let last_id = reply.ids[reply.ids.len() - 1];
            let latest = &batch[last_id as usize / 100];
            // Servers echo the sequence field even if it is not marked as valid.
            prop_assert_eq!(reply.sequence, Some(latest.sequence.unwrap_or(0)), "{:?}", reply);
        }
        let counts = responder.counts();
        prop_assert_eq!(counts.reply_count, together.len() as u64);
        prop_assert_eq!((counts.datagram_count, counts.hit_count), (batch.len() as u64, hit_count));
        if hit_count as usize + TOGETHER_MAX <= HELD_MAX {
            let lens = by_asker(&alone).into_values().map(|ids| ids.len().div_ceil(ANSWERS_MAX));
            prop_assert_eq!(together.len(), lens.sum::<usize>());
        }
        prop_assert_eq!(packed(&mut responder, &[]).len(), 0);
    }
}

fn asked(sequence: u32, names: &str) -> Asked {
    Asked { asker: asker(0), way: 0, sequence: Some(sequence), names: names.chars().collect() }
}

#[test]
fn requests_of_one_client_share_a_reply_with_the_latest_sequence() {
    let other = Asked { asker: asker(1), ..asked(70, "a") };
    // The last one asks only for unknown names, and changes nothing.
    let batch = [asked(7, "a"), other, asked(8, "bc"), asked(9, "zz")];
    let replies = packed(&mut CaResponder::new(), &batch);
    let heads: Vec<_> = replies.iter().map(|reply| (reply.asker, reply.sequence)).collect();
    assert_eq!(heads, [(asker(0), Some(8)), (asker(1), Some(70))]);
    assert_eq!(replies[0].ids, [0, 200, 201]);
}

#[test]
fn what_came_by_two_ways_is_answered_by_both() {
    let replies = packed(
        &mut CaResponder::new(),
        &[asked(7, "a"), Asked { way: 1, ..asked(8, "a") }, asked(9, "a")],
    );
    let heads: Vec<_> = replies.iter().map(|reply| (reply.way, reply.ids.clone())).collect();
    assert_eq!(heads, [(0, vec![0, 200]), (1, vec![100])]);
}

#[test]
fn no_more_than_so_many_answers_are_held_back() {
    let (table, mut responder) = (table(), CaResponder::new());
    let answered_count = std::cell::Cell::new(0);
    let datagram = asked(7, &"a".repeat(40)).datagram(0);
    let mut answers = responder.pack(&table, |reply| {
        answered_count.set(answered_count.get() + read(0, reply.to, reply.payload).ids.len());
    });
    for datagram_count in 1..=100 {
        answers.add(&datagram, asker(0), ());
        assert!(answered_count.get() + HELD_MAX >= datagram_count * 40);
    }
    drop(answers);
    assert_eq!(answered_count.get(), 4000);
}

#[test]
fn a_send_that_panics_leaves_nothing_for_the_next_batch() {
    let (table, mut responder) = (table(), CaResponder::new());
    let datagram = asked(7, "a").datagram(0);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let mut answers = responder.pack(&table, |_| panic!("a bug in the handler"));
        answers.add(&datagram, asker(0), 0);
    }));
    assert!(panicked.is_err());
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let mut answers = responder.pack(&table, |_| unreachable!("sent while unwinding"));
        answers.add(&datagram, asker(0), 0);
        panic!("a bug in the handler");
    }));
    assert!(panicked.is_err());
    assert_eq!(packed(&mut responder, &[]).len(), 0);
    assert_eq!(packed(&mut responder, &[asked(8, "b")])[0].ids, [0]);
}
