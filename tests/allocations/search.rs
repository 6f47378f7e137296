//! A responder that packs its answers allocates nothing, not even in its first batch.

use nicring::search::{CaResponder, NameTable, Protocol, PvaResponder, Request, RequestHead, ca};

use super::{allocation_count, quiet};

#[test]
fn packed_answers_allocate_nothing() {
    let mut names = NameTable::builder();
    for number in 0..4 {
        let server = format!("192.0.2.{number}:5064").parse().expect("an address");
        names.insert(Protocol::Ca, &format!("pv{number}"), server).expect("a name");
    }
    let names = names.build();
    let mut request = ca::RequestWriter::new();
    request.begin(Some(7));
    for id in 0..30 {
        assert!(request.push(id, format!("pv{}", id % 4).as_bytes()));
    }
    let mut responder = CaResponder::new();

    let _guard = quiet();
    let (before, mut reply_count) = (allocation_count(), 0);
    for _ in 0..100 {
        let mut answers = responder.pack(&names, |_| reply_count += 1);
        for port in 1..=256 {
            let asker = std::net::SocketAddrV4::new([192, 0, 2, 99].into(), port % 16 + 1);
            answers.add(request.datagram(), asker, port % 2);
        }
    }
    let count = allocation_count() - before;
    assert_eq!(count, 0, "allocations for {reply_count} replies");
    assert!(reply_count > 0);
}

#[test]
fn pva_answers_to_a_batch_allocate_nothing() {
    let mut names = NameTable::builder();
    names.insert(Protocol::Pva, "pv", "192.0.2.7:5075".parse().expect("an address")).expect("new");
    let names = names.build();
    let mut request = Request::new(Protocol::Pva);
    request.begin(RequestHead { sequence: 7, is_unicast: false, reply_port: 40_000 });
    (0..30).for_each(|id| assert!(request.push(id, b"pv")));
    let asker: std::net::SocketAddrV4 = "192.0.2.99:40000".parse().expect("an address");
    let mut responder = PvaResponder::new(Vec::new());

    let _guard = quiet();
    let (before, mut reply_count) = (allocation_count(), 0);
    for _ in 0..100 {
        let mut answers = responder.pack(&names, |_| reply_count += 1);
        (0..256).for_each(|way| answers.add(request.datagram(), asker.into(), way));
    }
    let count = allocation_count() - before;
    assert_eq!((count, reply_count), (0, 25_600));
}
