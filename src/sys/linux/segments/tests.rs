//! Which datagrams are one run of segments.

use std::net::SocketAddrV4;

use proptest::prelude::*;

use super::*;
use crate::datagram::{Egress, Origin, Outbox};

fn client(last: u8, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, last), port)
}

const ORIGIN: Option<Origin> = Some(Origin { port: 5064, ifindex: 3 });

fn outbox(lens: &[usize]) -> Outbox {
    let mut outbox = Outbox::new(1024);
    for (index, len) in lens.iter().enumerate() {
        let payload = vec![index as u8; *len];
        let queued = outbox.push(ORIGIN, Egress::default(), client(9, 5064), &payload);
        assert!(queued.is_queued());
    }
    outbox
}

fn cut(outbox: &Outbox, segmenter: &mut Segmenter) -> Vec<SegmentRun> {
    let mut rest = outbox.outgoing_from(0);
    let mut all = Vec::new();
    while !rest.is_empty() {
        let run = segmenter.next(rest);
        rest = &rest[run.count..];
        all.push(run);
    }
    all
}

fn counts(outbox: &Outbox) -> Vec<usize> {
    cut(outbox, &mut Segmenter::new()).iter().map(|run| run.count).collect()
}

#[test]
fn equal_lengths_are_one_run_and_a_shorter_one_ends_it() {
    let rows: [(&[usize], &[usize]); 13] = [
        (&[5], &[1]),
        (&[5, 5, 5], &[3]),
        (&[5, 5, 3], &[3]),
        (&[5, 5, 3, 5], &[3, 1]),
        (&[5, 3, 3, 3], &[2, 2]),
        (&[5, 6], &[1, 1]),
        (&[5, 6, 6], &[1, 2]),
        (&[5, 5, 6, 6], &[2, 2]),
        (&[0, 0, 0], &[1, 1, 1]),
        (&[5, 5, 0, 5, 5], &[2, 1, 2]),
        (&[1472, 1472], &[2]),
        (&[1473, 1473], &[1, 1]),
        (&[1473, 1472, 1472], &[1, 2]),
    ];
    for (lens, expected) in rows {
        assert_eq!(counts(&outbox(lens)), expected, "{lens:?}");
    }
}

#[test]
fn no_run_is_longer_than_the_kernel_takes() {
    assert_eq!(counts(&outbox(&[5; 64])), [64]);
    assert_eq!(counts(&outbox(&[5; 65])), [64, 1]);
    assert_eq!(counts(&outbox(&[1023; 64])), [64], "65,472 bytes");
    assert_eq!(counts(&outbox(&[1024; 64])), [63, 1], "65,536 bytes");
    let with_last = |len| [vec![1472; 44], vec![len]].concat();
    assert_eq!(counts(&outbox(&with_last(739))), [45], "65,507 bytes");
    assert_eq!(counts(&outbox(&with_last(740))), [44, 1], "65,508 bytes");
}

#[test]
fn whatever_differs_but_the_payload_begins_another_run() {
    let egress = Egress::by_nic(2);
    let source = Egress::by_route().with_source(Ipv4Addr::LOCALHOST);
    let other_nic = Some(Origin { port: 5064, ifindex: 4 });
    let rows = [
        (ORIGIN, Egress::default(), client(9, 5065)),
        (ORIGIN, Egress::default(), client(8, 5064)),
        (ORIGIN, egress, client(9, 5064)),
        (ORIGIN, source, client(9, 5064)),
        (Some(Origin { port: 5075, ifindex: 3 }), Egress::default(), client(9, 5064)),
        (other_nic, Egress::default(), client(9, 5064)),
        (None, Egress::default(), client(9, 5064)),
    ];
    for (origin, egress, destination) in rows {
        let mut outbox = outbox(&[5, 5]);
        let push = |outbox: &mut Outbox| outbox.push(origin, egress, destination, b"other");
        assert!(push(&mut outbox).is_queued() && push(&mut outbox).is_queued());
        assert_eq!(counts(&outbox), [2, 2], "{origin:?} {egress:?} {destination}");
    }
}

#[test]
fn a_length_that_was_refused_rests_for_its_address_alone() {
    let mut segmenter = Segmenter::new();
    let refused = outbox(&[900, 900]);
    assert!(segmenter.note_error(refused.outgoing(0), libc::EINVAL));
    let count = |segmenter: &mut Segmenter, outbox: &Outbox| cut(outbox, segmenter).len();
    assert_eq!(count(&mut segmenter, &outbox(&[899, 899])), 1, "shorter");
    assert_eq!(count(&mut segmenter, &outbox(&[901, 901])), 2, "longer");
    let mut other = Outbox::new(8);
    for _ in 0..2 {
        // An address with the same last byte.
        let destination = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 9), 5064);
        assert!(other.push(ORIGIN, Egress::default(), destination, &[0; 900]).is_queued());
    }
    assert_eq!(count(&mut segmenter, &other), 1, "another address");
    // Each call counts as two datagrams, and the one with 901 bytes was the first.
    (1..REST_COUNT / 2).for_each(|_| assert_eq!(count(&mut segmenter, &refused), 2));
    assert_eq!(count(&mut segmenter, &refused), 1, "tried again");
}

#[test]
fn errors_of_the_kernel_or_a_device_end_all_segments_and_want_of_room_none() {
    for errno in [libc::EIO, libc::EOPNOTSUPP, libc::ENOPROTOOPT] {
        let mut segmenter = Segmenter::new();
        assert!(segmenter.note_error(outbox(&[5]).outgoing(0), errno));
        assert_eq!(cut(&outbox(&[5, 5]), &mut segmenter).len(), 2);
    }
    for errno in [0, libc::EAGAIN, libc::ENOBUFS] {
        let mut segmenter = Segmenter::new();
        assert!(!segmenter.note_error(outbox(&[5]).outgoing(0), errno));
        assert_eq!(cut(&outbox(&[5, 5]), &mut segmenter).len(), 1);
    }
}

proptest! {
    #[test]
    fn cut_into_segments_runs_are_what_was_queued(
        lens in prop::collection::vec(prop_oneof![0..4usize, 1470..1475usize], 0..40)
    ) {
        let outbox = outbox(&lens);
        let mut segments: Vec<&[u8]> = Vec::new();
        for run in cut(&outbox, &mut Segmenter::new()) {
            let payload = outbox.payload(&run.whole);
            match run.segment_len() {
                None => segments.push(payload),
                Some(len) => segments.extend(payload.chunks(len.into())),
            }
        }
        let queued: Vec<_> =
            outbox.outgoing_from(0).iter().map(|one| outbox.payload(one)).collect();
        prop_assert_eq!(segments, queued);
    }
}
