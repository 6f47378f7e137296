//! A responder that packs its answers allocates nothing, not even in its first batch.

use nicring::search::{CaResponder, NameTable, Protocol, ca};

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
        let mut answers = responder.pack(&names, |_, _, _| reply_count += 1);
        for port in 1..=256 {
            let asker = std::net::SocketAddrV4::new([192, 0, 2, 99].into(), port % 16 + 1);
            answers.add(request.datagram(), asker, port % 2);
        }
    }
    let count = allocation_count() - before;
    assert_eq!(count, 0, "allocations for {reply_count} replies");
    assert!(reply_count > 0);
}
