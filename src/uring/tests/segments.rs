//! Segments over a scripted kernel: they leave by one send, are counted one by one, and leave one
//! by one if the kernel refuses the run.

use proptest::prelude::*;

use super::{
    send::{flush, post, runs, sent},
    *,
};
use crate::uring::user_data::UserData;

fn posted_all(rig: &mut Rig<Uring<Fake>>, texts: &[&str]) {
    texts.iter().for_each(|text| post(rig, 0, text));
}

/// How many datagrams each run has that was submitted since the last call.
fn lengths(rig: &mut Rig<Uring<Fake>>) -> Vec<usize> {
    runs(rig).into_iter().map(|(_, texts)| texts.len()).collect()
}

/// Sent, would block, failed.
fn outcome(rig: &Rig<Uring<Fake>>) -> (u64, u64, u64) {
    let counts = rig.counts();
    (counts.sent_count, counts.would_block_count, counts.send_error_count)
}

const FIVE: [&str; 5] = ["one", "two", "six", "ten", "0"];

#[test]
fn alike_datagrams_leave_by_one_send_and_are_counted_each() {
    let mut rig = fake(2, 4);
    posted_all(&mut rig, &FIVE);
    post(&mut rig, 0, "longer");
    post(&mut rig, 1, "others");
    rig.turn();
    let texts = FIVE.map(String::from).to_vec();
    let expected = [(0, texts), (0, vec!["longer".to_owned()]), (1, vec!["others".to_owned()])];
    assert_eq!(runs(&mut rig), expected);
    assert_eq!(outcome(&rig), (7, 0, 0));
}

#[test]
fn what_a_kernel_says_of_a_run_counts_for_each_of_its_datagrams() {
    let rows = [(libc::EAGAIN, (0, 5, 0)), (libc::ENOBUFS, (0, 5, 0))];
    for (errno, expected) in rows {
        let mut rig = fake(1, 4);
        rig.ring().run_error = Some(errno);
        posted_all(&mut rig, &FIVE);
        rig.turn();
        rig.turn();
        assert_eq!((lengths(&mut rig), outcome(&rig)), (vec![5], expected), "{errno}");
    }
}

#[test]
fn a_run_that_the_ring_has_no_room_for_counts_as_would_block() {
    let mut rig = fake(1, 4);
    posted_all(&mut rig, &FIVE);
    rig.ring().refused_count = 1;
    rig.turn();
    assert_eq!((lengths(&mut rig), outcome(&rig)), (vec![], (0, 5, 0)));
    posted_all(&mut rig, &FIVE);
    rig.turn();
    assert_eq!((lengths(&mut rig), outcome(&rig)), (vec![5], (5, 5, 0)));
}

#[test]
fn a_refused_run_is_sent_one_by_one_and_none_is_tried_again() {
    let of_lengths = [libc::EINVAL, libc::EMSGSIZE, libc::EPERM, libc::EACCES];
    let of_kernels = [libc::EIO, libc::EOPNOTSUPP, libc::ENOPROTOOPT];
    let errnos = [&of_lengths[..], &of_kernels].concat();
    for errno in errnos {
        let mut rig = fake(1, 4);
        rig.ring().run_error = Some(errno);
        posted_all(&mut rig, &FIVE);
        rig.turn();
        assert_eq!(outcome(&rig), (0, 0, 0), "{errno}");
        assert_eq!(lengths(&mut rig), [5]);
        rig.turn();
        assert_eq!(sent(&mut rig), FIVE.map(|text| (0, text.to_owned())));
        assert_eq!(outcome(&rig), (5, 0, 0), "{errno}");
        posted_all(&mut rig, &FIVE);
        rig.turn();
        assert_eq!((lengths(&mut rig), outcome(&rig)), (vec![1; 5], (10, 0, 0)), "{errno}");
    }
}

#[test]
fn a_datagram_alone_that_is_refused_is_not_sent_again_and_ends_no_segments() {
    for errno in [libc::EINVAL, libc::EMSGSIZE, libc::EIO, libc::EOPNOTSUPP] {
        let mut rig = fake(1, 4);
        rig.ring().keeps_sends = true;
        post(&mut rig, 0, "alone");
        rig.turn();
        let user_data = UserData::Send { flight: 0, index: 0 }.encode();
        rig.ring().complete(user_data, -errno, None, Then::Ends);
        rig.ring().keeps_sends = false;
        rig.turn();
        assert_eq!((lengths(&mut rig), outcome(&rig)), (vec![1], (0, 0, 1)), "{errno}");
        posted_all(&mut rig, &FIVE);
        rig.turn();
        assert_eq!((lengths(&mut rig), outcome(&rig)), (vec![5], (5, 0, 1)), "{errno}");
    }
}

#[test]
fn segments_that_fit_leave_as_segments_where_longer_ones_are_refused() {
    let mut rig = fake(1, 4);
    rig.ring().segment_len_max = Some(4);
    for round in 0..3 {
        posted_all(&mut rig, &["fit", "fit", "longer", "longer"]);
        rig.turn();
        rig.turn();
        let expected = if round == 0 { vec![2, 2, 1, 1] } else { vec![2, 1, 1] };
        assert_eq!(lengths(&mut rig), expected, "round {round}");
    }
    assert_eq!(outcome(&rig), (12, 0, 0));
}

#[test]
fn a_flight_is_left_alone_until_the_last_datagram_of_a_refused_run_is_through() {
    let mut rig = fake(1, 4);
    rig.ring().keeps_sends = true;
    rig.ring().run_error = Some(libc::EINVAL);
    posted_all(&mut rig, &FIVE);
    rig.turn();
    for round in 0..3 {
        // The fake compares the memory of what is under way with what was submitted.
        rig.ring().complete_sends();
        post(&mut rig, 0, &format!("another {round}"));
        rig.turn();
        let remaining_count = if round == 0 { 6 } else { 1 };
        rig.turn();
        assert_eq!(rig.driver.flights.remaining_count(), remaining_count, "round {round}");
    }
    rig.ring().complete_sends();
    rig.turn();
    assert_eq!((rig.driver.flights.remaining_count(), outcome(&rig)), (0, (8, 0, 0)));
}

#[test]
fn a_run_that_is_completed_twice_is_counted_once() {
    for errno in [0, libc::EAGAIN] {
        let mut rig = fake(1, 4);
        rig.ring().keeps_sends = true;
        posted_all(&mut rig, &FIVE);
        post(&mut rig, 0, "in flight");
        rig.turn();
        let run = UserData::Send { flight: 0, index: 0 }.encode();
        (0..3).for_each(|_| rig.ring().complete(run, -errno, None, Then::Ends));
        // The other datagrams of the run have no completions of their own.
        for index in 1..5 {
            let stranger = UserData::Send { flight: 0, index }.encode();
            rig.ring().complete(stranger, 3, None, Then::Ends);
        }
        rig.turn();
        assert_eq!(rig.driver.flights.remaining_count(), 1);
        let expected = if errno == 0 { (5, 0, 0) } else { (0, 5, 0) };
        assert_eq!(outcome(&rig), expected);
        rig.ring().complete_sends();
        rig.turn();
        assert_eq!(rig.driver.flights.remaining_count(), 0);
    }
}

#[test]
fn the_datagrams_of_a_refused_run_whose_socket_has_left_are_counted() {
    let mut rig = fake(1, 4);
    rig.ring().keeps_sends = true;
    rig.ring().run_error = Some(libc::EIO);
    posted_all(&mut rig, &FIVE);
    rig.turn();
    rig.remove(0);
    rig.turn();
    rig.ring().complete_sends();
    rig.turn();
    sent(&mut rig);
    rig.turn();
    assert_eq!((sent(&mut rig).len(), outcome(&rig).2), (0, 5));
    assert_eq!(rig.driver.flights.remaining_count(), 0);
}

#[test]
fn flushing_sends_what_was_refused_as_a_run() {
    let mut rig = fake(1, 4);
    rig.ring().run_error = Some(libc::EINVAL);
    posted_all(&mut rig, &FIVE);
    flush(&mut rig);
    assert_eq!((lengths(&mut rig), outcome(&rig)), (vec![5, 1, 1, 1, 1, 1], (5, 0, 0)));
}

#[test]
fn closing_sends_nothing_again() {
    let mut rig = fake(1, 4);
    rig.ring().keeps_sends = true;
    rig.ring().run_error = Some(libc::EINVAL);
    posted_all(&mut rig, &FIVE);
    rig.turn();
    assert_eq!(lengths(&mut rig), [5]);
    rig.driver.close();
    assert_eq!(rig.driver.flights.remaining_count(), 0);
    assert_eq!(sent(&mut rig), []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_refused_every_datagram_is_counted_once(
        rounds in prop::collection::vec(
            (
                prop::collection::vec(0..4usize, 0..8),
                prop::option::of(prop::sample::select(vec![
                    libc::EINVAL, libc::EMSGSIZE, libc::EAGAIN, libc::ENETUNREACH,
                ])),
                prop::option::of(1..4u16),
                any::<bool>(),
                0..3usize,
            ),
            0..20,
        )
    ) {
        let mut rig = fake(1, 4);
        let mut posted_count = 0;
        for (lens, run_error, segment_len_max, keeps_sends, refused_count) in rounds {
            let ring = rig.ring();
            (ring.run_error, ring.segment_len_max) = (run_error, segment_len_max);
            (ring.keeps_sends, ring.refused_count) = (keeps_sends, refused_count);
            ring.complete_sends();
            if rig.posted.is_empty() {
                posted_count += lens.len() as u64;
                lens.iter().for_each(|len| post(&mut rig, 0, &"x".repeat(*len)));
            }
            rig.turn();
        }
        rig.ring().keeps_sends = false;
        rig.ring().complete_sends();
        (0..4).for_each(|_| _ = rig.turn());
        let (sent_count, would_block_count, failed_count) = outcome(&rig);
        prop_assert_eq!(sent_count + would_block_count + failed_count, posted_count);
        prop_assert_eq!(rig.driver.flights.remaining_count(), 0);
    }
}
