//! Sending: each datagram leaves once, and its memory is left alone until the completion.

use super::*;
use crate::{
    datagram::{Egress, Origin, Queued},
    uring::user_data::UserData,
};

const TO: std::net::SocketAddrV4 = std::net::SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9);

pub(super) fn post(rig: &mut Rig<Uring<Fake>>, slot: u16, payload: &str) {
    // A port that nobody has, for a socket that has left.
    let port = rig.sockets[usize::from(slot)].as_ref().map_or(1, |socket| socket.port);
    let origin = Some(Origin { port, ifindex: 0 });
    let queued = rig.posted.push(origin, Egress::default(), TO, payload.as_bytes());
    assert_eq!(queued, Queued::Yes);
}

/// What was submitted since the last call: the slot and the datagrams of each run.
pub(super) fn runs(rig: &mut Rig<Uring<Fake>>) -> Vec<(u16, Vec<String>)> {
    let one = |request| match request {
        Request::Send { slot, payload, segment_len, .. } => {
            let segment_len = segment_len.map_or(payload.len(), usize::from).max(1);
            let text = |segment| String::from_utf8_lossy(segment).into_owned();
            Some((slot, payload.chunks(segment_len).map(text).collect()))
        }
        _ => None,
    };
    rig.ring().submitted().into_iter().filter_map(one).collect()
}

/// The same as [`runs`], datagram by datagram.
pub(super) fn sent(rig: &mut Rig<Uring<Fake>>) -> Vec<(u16, String)> {
    let datagrams = |(slot, texts): (u16, Vec<String>)| texts.into_iter().map(move |t| (slot, t));
    runs(rig).into_iter().flat_map(datagrams).collect()
}

#[test]
fn replies_and_posts_leave_with_the_next_turn_from_their_sockets() {
    let mut rig = fake(2, 4);
    rig.ring().deliver(1, b"asked");
    rig.turn();
    let datagram = rig.batch.iter().next().expect("one");
    assert!(rig.batch.reply(&datagram, b"answered").is_queued());
    post(&mut rig, 0, "posted");
    rig.turn();
    assert_eq!(sent(&mut rig), [(1, "answered".into()), (0, "posted".into())]);
    assert_eq!(rig.counts().sent_count, 2);
    rig.turn();
    assert_eq!(sent(&mut rig), [], "once");
}

#[test]
fn the_answer_to_a_socket_that_has_left_is_counted_and_not_sent_by_its_successor() {
    let mut rig = fake(2, 4);
    rig.turn();
    rig.ring().deliver(1, b"asked");
    let mut kept = rig.driver.new_batch();
    assert_eq!(rig.turn_with(&mut kept).expect("a turn").len(), 1);
    let datagram = kept.iter().next().expect("one");
    assert!(kept.reply(&datagram, b"late").is_queued());
    rig.remove(1);
    rig.turn();
    sent(&mut rig);
    rig.add(1);
    rig.turn_with(&mut kept).expect("a turn");
    assert_eq!(sent(&mut rig), []);
    let counts = rig.counts();
    assert_eq!((counts.sent_count, counts.send_error_count), (0, 1));
}

#[test]
fn what_the_kernel_does_not_take_for_the_moment_is_counted_and_ends_nothing() {
    let mut rig = fake(1, 4);
    rig.turn();
    post(&mut rig, 0, "no");
    post(&mut rig, 0, "taken");
    rig.ring().refused_count = 1;
    rig.turn();
    assert_eq!(sent(&mut rig), [(0, "taken".into())]);
    let counts = rig.counts();
    assert_eq!((counts.sent_count, counts.would_block_count), (1, 1));
}

#[test]
fn what_the_kernel_refuses_for_good_ends_the_engine_with_that_error() {
    let mut rig = fake(1, 4);
    post(&mut rig, 0, "refused");
    rig.ring().push_error = Some(libc::EPERM);
    assert_eq!(rig.try_turn().unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
    rig.ring().push_error = None;
}

#[test]
fn what_is_in_flight_is_not_touched_until_its_completion() {
    let mut rig = fake(1, 4);
    rig.ring().keeps_sends = true;
    for round in 0..4 {
        for number in 0..8 {
            post(&mut rig, 0, &format!("{round}.{number}"));
        }
        rig.turn();
    }
    assert_eq!(rig.driver.flights.remaining_count(), 32);
    assert_eq!(rig.counts().sent_count, 0);
    assert_eq!(rig.ring().complete_sends().len(), 4, "segments");
    rig.turn();
    assert_eq!(rig.driver.flights.remaining_count(), 0);
    assert_eq!(rig.counts().sent_count, 32);
}

#[test]
fn while_the_kernel_holds_all_flights_an_outbox_waits_and_is_sent_later() {
    let mut rig = fake(1, 4);
    rig.ring().keeps_sends = true;
    for number in 0..16 {
        post(&mut rig, 0, &number.to_string());
        rig.turn();
    }
    sent(&mut rig);
    post(&mut rig, 0, "waits");
    rig.turn();
    rig.turn();
    assert_eq!(sent(&mut rig), []);
    assert_eq!(rig.posted.len(), 1, "it is kept");
    rig.ring().complete_sends();
    rig.turn();
    rig.turn();
    assert_eq!(sent(&mut rig), [(0, "waits".into())]);
}

#[test]
fn a_completion_that_comes_twice_frees_nothing_that_is_still_in_flight() {
    let mut rig = fake(1, 4);
    rig.ring().keeps_sends = true;
    post(&mut rig, 0, "first");
    post(&mut rig, 0, "second");
    rig.turn();
    let first = UserData::Send { flight: 0, index: 0 }.encode();
    for _ in 0..3 {
        rig.ring().complete(first, 5, None, Then::Ends);
    }
    rig.turn();
    assert_eq!(rig.driver.flights.remaining_count(), 1);
    assert_eq!(rig.counts().sent_count, 1);
    // The flight takes no other outbox meanwhile.
    post(&mut rig, 0, "third");
    rig.turn();
    let flights: Vec<_> = rig.ring().complete_sends().into_iter().map(UserData::decode).collect();
    assert!(flights.contains(&Some(UserData::Send { flight: 1, index: 0 })), "{flights:?}");
    rig.turn();
    assert_eq!((rig.driver.flights.remaining_count(), rig.counts().sent_count), (0, 3));
}

#[test]
fn completions_of_nothing_that_was_sent_are_passed_over() {
    let mut rig = fake(1, 4);
    for (flight, index) in [(0, 0), (0, 7), (0, 8), (1, 0), (u16::MAX, u32::MAX)] {
        let stranger = UserData::Send { flight, index }.encode();
        rig.ring().complete(stranger, 5, None, Then::Ends);
        rig.turn();
    }
    post(&mut rig, 0, "fine");
    rig.turn();
    assert_eq!(rig.counts().sent_count, 1);
}

#[test]
fn what_a_socket_refuses_is_counted_by_its_reason() {
    let mut rig = fake(1, 4);
    rig.ring().keeps_sends = true;
    let errnos = [0, libc::EAGAIN, libc::ENOBUFS, libc::ENETUNREACH, libc::EPERM];
    // Each is longer than the one before it, so none are segments of one run.
    (1..=errnos.len()).for_each(|len| post(&mut rig, 0, &"x".repeat(len)));
    rig.turn();
    for (index, errno) in errnos.iter().enumerate() {
        let user_data = UserData::Send { flight: 0, index: index as u32 }.encode();
        rig.ring().complete(user_data, -errno, None, Then::Ends);
    }
    rig.turn();
    let counts = rig.counts();
    assert_eq!((counts.sent_count, counts.would_block_count, counts.send_error_count), (1, 2, 2));
    assert_eq!(rig.driver.flights.remaining_count(), 0);
}

#[test]
fn replies_from_a_socket_that_left_are_counted_and_the_outbox_is_free_again() {
    let mut rig = fake(2, 4);
    rig.remove(1);
    rig.turn();
    for _ in 0..40 {
        post(&mut rig, 1, "nowhere");
        rig.turn();
    }
    assert_eq!(sent(&mut rig), []);
    assert_eq!(rig.counts().send_error_count, 40);
    post(&mut rig, 0, "somewhere");
    rig.turn();
    assert_eq!(sent(&mut rig), [(0, "somewhere".into())]);
}

pub(super) fn flush(rig: &mut Rig<Uring<Fake>>) -> Duration {
    let mut batch = rig.driver.new_batch();
    let start = Instant::now();
    let turn = Turn {
        admission: &rig.admission,
        dispatch: &rig.dispatch,
        stats: &rig.stats,
        deadline: None,
        is_polling: true,
        posted: &mut rig.posted,
    };
    rig.driver.flush(turn, &mut batch).expect("a flush");
    start.elapsed()
}

#[test]
fn flushing_sends_all_and_comes_back_at_once() {
    let mut rig = fake(1, 4);
    (0..8).for_each(|number| post(&mut rig, 0, &number.to_string()));
    assert!(flush(&mut rig) < Duration::from_millis(500));
    assert_eq!(sent(&mut rig).len(), 8);
    assert_eq!((rig.driver.flights.remaining_count(), rig.counts().sent_count), (0, 8));
}

#[test]
fn flushing_waits_for_what_is_in_flight() {
    let mut rig = fake(1, 4);
    rig.ring().keeps_sends = true;
    post(&mut rig, 0, "slow");
    rig.ring().sends_end_at = Some(rig.ring().enter_count + 3);
    flush(&mut rig);
    assert_eq!((rig.driver.flights.remaining_count(), rig.counts().sent_count), (0, 1));
}

#[test]
fn flushing_does_not_wait_for_ever() {
    let mut rig = fake(1, 4);
    rig.ring().keeps_sends = true;
    post(&mut rig, 0, "never");
    let elapsed = flush(&mut rig);
    assert!(elapsed >= Duration::from_secs(1) && elapsed < Duration::from_secs(3), "{elapsed:?}");
    assert_eq!(rig.driver.flights.remaining_count(), 1);
}

#[test]
fn what_comes_while_it_flushes_is_in_the_next_turn() {
    let mut rig = fake(1, 4);
    rig.turn();
    assert!(rig.ring().deliver(0, b"came meanwhile"));
    post(&mut rig, 0, "posted");
    flush(&mut rig);
    flush(&mut rig);
    assert_eq!(texts(&rig.turn()), ["came meanwhile"]);
}
