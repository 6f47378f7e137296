//! Every way in which a receive ends, and completions that make no sense.

use super::*;
use crate::uring::user_data::UserData;

#[test]
fn a_receive_that_goes_on_is_not_armed_again() {
    let mut rig = fake(2, 8);
    for text in ["one", "two", "three"] {
        assert!(rig.ring().deliver(1, text.as_bytes()));
        assert_eq!(rig.turn(), [(1, text.to_owned())]);
    }
    assert_eq!(rig.ring().submitted(), []);
    assert_eq!(rig.counts().rearmed_count, 0);
}

#[test]
fn a_datagram_of_no_bytes_is_handed_out_and_its_receive_armed_again() {
    let mut rig = fake(1, 2);
    for round in 1..=20 {
        rig.ring().deliver(0, b"");
        assert_eq!(rig.turn(), [(0, String::new())], "round {round}");
        rig.turn();
        assert_eq!(rig.armed(), [0]);
        assert_eq!(rig.counts().rearmed_count, round);
    }
}

#[test]
fn a_final_completion_with_data_is_handed_out_and_its_receive_armed_again() {
    let mut rig = fake(2, 8);
    rig.ring().deliver(0, b"before");
    rig.ring().deliver_and(0, b"the queue of completions is full", Then::Ends);
    assert_eq!(texts(&rig.turn()), ["before", "the queue of completions is full"]);
    assert_eq!(rig.turn(), []);
    assert_eq!(rig.armed(), [0]);
    rig.ring().deliver(0, b"after");
    assert_eq!(texts(&rig.turn()), ["after"]);
    assert_eq!(rig.counts().receive_error_count, 0);
}

#[test]
fn without_buffers_nothing_is_armed_until_some_are_given_back() {
    let mut rig = fake(3, 2);
    assert!(rig.ring().deliver(0, b"one"));
    assert!(rig.ring().deliver(1, b"two"));
    assert!(!rig.ring().deliver(0, b"waits"));
    assert!(!rig.ring().deliver(2, b"waits too"));
    let mut lent = std::mem::replace(&mut rig.batch, rig.driver.new_batch());
    assert_eq!(texts(&rig.turn_with(&mut lent).unwrap()), ["one", "two"]);
    assert!(rig.driver.is_starved());
    assert_eq!(rig.counts().starved_count, 2);
    // While a lease holds the buffers, every turn waits.
    rig.ring().submitted();
    let wait_count = rig.ring().wait_count;
    for _ in 0..10 {
        assert_eq!(rig.turn(), []);
    }
    assert_eq!(rig.ring().submitted(), [], "armed in vain");
    assert_eq!(rig.ring().wait_count, wait_count + 10, "it does not spin");
    assert!(rig.ring().is_armed(1), "what was not starved lives on");
    // The buffers come back.
    rig.driver.take_back(&mut lent);
    rig.turn();
    assert_eq!(rig.armed(), [2, 0]);
    assert!(!rig.driver.is_starved());
    assert!(rig.ring().deliver(2, b"waits too"));
    assert_eq!(texts(&rig.turn()), ["waits too"]);
}

/// A receive takes what is queued as soon as it is armed, so the first one may take every buffer.
#[test]
fn where_buffers_are_short_each_socket_is_once_the_first_to_be_armed() {
    let mut rig = fake(3, 1);
    let mut first = Vec::new();
    for _ in 0..3 {
        assert!(rig.ring().deliver(0, b"one"));
        assert!((0..3).all(|slot| !rig.ring().deliver(slot, b"waits")));
        let mut lent = std::mem::replace(&mut rig.batch, rig.driver.new_batch());
        assert_eq!(texts(&rig.turn_with(&mut lent).unwrap()), ["one"]);
        rig.driver.take_back(&mut lent);
        rig.armed();
        rig.turn();
        first.push(rig.armed()[0]);
    }
    first.sort_unstable();
    assert_eq!(first, [0, 1, 2]);
}

#[test]
fn want_of_buffers_while_the_kernel_has_some_is_tried_again() {
    let mut rig = fake(1, 4);
    rig.ring().end(0, libc::ENOBUFS);
    assert_eq!(rig.turn(), []);
    rig.turn();
    assert_eq!(rig.armed(), [0]);
    assert_eq!((rig.counts().starved_count, rig.counts().rearmed_count), (1, 1));
}

#[test]
fn want_of_buffers_is_no_error_however_often_it_comes() {
    let mut rig = fake(1, 1);
    for _ in 0..100 {
        assert!(rig.ring().deliver(0, b"x"));
        assert!(!rig.ring().deliver(0, b"y"));
        assert_eq!(rig.turn().len(), 1);
        assert_eq!(rig.turn(), []);
        assert!(rig.ring().is_armed(0));
    }
    assert_eq!(rig.counts().receive_error_count, 0);
}

#[test]
fn an_error_of_a_socket_is_counted_and_its_receive_armed_again() {
    let mut rig = fake(2, 4);
    rig.ring().end(0, libc::ECONNREFUSED);
    rig.turn();
    rig.turn();
    assert_eq!(rig.armed(), [0]);
    assert_eq!(rig.counts().receive_error_count, 1);
}

#[test]
fn a_socket_that_fails_eight_times_in_a_row_is_left_alone() {
    let mut rig = fake(2, 4);
    for count in 1..=8 {
        rig.ring().end(0, libc::ENOMEM);
        rig.turn();
        rig.turn();
        assert_eq!(rig.ring().is_armed(0), count < 8, "after {count} errors");
    }
    let counts = rig.counts();
    assert_eq!((counts.receive_error_count, counts.rearmed_count), (8, 7));
    // The others do not suffer, and its slot can be used again.
    rig.ring().deliver(1, b"fine");
    assert_eq!(texts(&rig.turn()), ["fine"]);
    rig.remove(0);
    assert!(rig.driver.is_free(0));
    rig.add(0);
    rig.turn();
    assert!(rig.ring().is_armed(0));
}

#[test]
fn errors_with_datagrams_in_between_never_silence_a_socket() {
    let mut rig = fake(1, 4);
    for round in 0..50 {
        rig.ring().end(0, libc::ENOMEM);
        rig.turn();
        rig.turn();
        assert!(rig.ring().is_armed(0), "round {round}");
        rig.ring().deliver(0, b"fine again");
        assert_eq!(rig.turn().len(), 1);
    }
}

#[test]
fn a_socket_that_can_never_work_is_left_alone_at_once() {
    for errno in [libc::EBADF, libc::ENOTSOCK, libc::EFAULT] {
        let mut rig = fake(2, 4);
        rig.ring().end(0, errno);
        rig.turn();
        rig.turn();
        assert_eq!(rig.armed(), [0; 0], "errno {errno}");
        assert_eq!(rig.counts().receive_error_count, 1);
        assert!(rig.ring().is_armed(1));
        let (slot, error) = rig.driver.take_deaf().expect("it hears no more");
        assert_eq!((slot, error.raw_os_error()), (0, Some(errno)));
        assert!(rig.driver.take_deaf().is_none(), "each is told once");
    }
}

#[test]
fn a_removed_socket_leaves_its_slot_with_its_last_completion() {
    let mut rig = fake(2, 4);
    rig.ring().ignores_cancels = true;
    rig.remove(0);
    rig.turn();
    assert_eq!(rig.ring().submitted(), [Request::Cancel { target: Some(0) }]);
    assert!(!rig.driver.is_free(0), "its receive still lives");
    // What was received before is still handed out.
    rig.ring().deliver(0, b"just in time");
    assert_eq!(texts(&rig.turn()), ["just in time"]);
    assert!(!rig.driver.is_free(0));
    rig.ring().end(0, libc::ECANCELED);
    rig.turn();
    assert!(rig.driver.is_free(0));
    assert_eq!(rig.ring().slots(), [1]);
    let counts = rig.counts();
    assert_eq!((counts.receive_error_count, counts.rearmed_count), (0, 0));
}

#[test]
fn a_cancellation_that_the_ring_has_no_room_for_goes_with_a_later_turn() {
    let mut rig = fake(2, 4);
    rig.ring().refused_count = 2;
    rig.remove(0);
    rig.turn();
    assert_eq!(rig.ring().submitted(), []);
    rig.turn();
    assert_eq!(rig.ring().submitted(), [Request::Cancel { target: Some(0) }]);
    rig.turn();
    assert!(rig.driver.is_free(0));
}

#[test]
fn a_deaf_socket_that_is_removed_is_not_told_of_and_others_are() {
    let mut rig = fake(2, 4);
    for slot in [0, 1] {
        rig.ring().end(slot, libc::EBADF);
        rig.turn();
    }
    rig.remove(0);
    let (slot, _) = rig.driver.take_deaf().expect("it hears no more");
    assert_eq!(slot, 1);
    assert!(rig.driver.take_deaf().is_none());
}

#[test]
fn a_receive_that_ends_by_itself_while_it_is_cancelled_is_not_armed_again() {
    for errno in [libc::ENOBUFS, libc::ENOENT, libc::ECANCELED, libc::ENOMEM] {
        let mut rig = fake(1, 4);
        rig.ring().ignores_cancels = true;
        rig.remove(0);
        rig.ring().end(0, errno);
        rig.turn();
        assert!(rig.driver.is_free(0), "errno {errno}");
        assert_eq!(rig.counts().rearmed_count, 0);
        // The cancellation finds nothing; its own completion changes nothing.
        rig.ring().complete(UserData::Cancel.encode(), -libc::ENOENT, None, Then::Ends);
        rig.turn();
    }
    let mut rig = fake(1, 4);
    rig.ring().ignores_cancels = true;
    rig.remove(0);
    rig.ring().deliver(0, b"");
    assert_eq!(rig.turn().len(), 1, "data wins the race against the cancellation");
    assert!(rig.driver.is_free(0));
    rig.turn();
    assert_eq!(rig.armed(), [0; 0]);
}

#[test]
fn a_late_completion_of_a_socket_that_left_is_not_taken_for_its_successor() {
    let mut rig = fake(1, 2);
    let former = rig.ring().user_data(0);
    rig.remove(0);
    rig.turn();
    assert!(rig.driver.is_free(0));
    rig.add(0);
    rig.turn();
    assert_ne!(rig.ring().user_data(0), former);
    for then in [Then::GoesOn, Then::Ends] {
        let (buffer, result) = rig.ring().fill(b"late").expect("a buffer");
        rig.ring().complete(former, result, Some(buffer), then);
        assert_eq!(rig.turn(), [], "{then:?}");
    }
    rig.ring().complete(former, -libc::ECANCELED, None, Then::Ends);
    rig.turn();
    assert!(rig.ring().is_armed(0), "its successor lives on");
    assert_eq!(rig.driver.arms.armed_count(), 1);
    assert_eq!(rig.driver.buffers.free_count(), 2, "the buffers went back");
}

#[test]
fn a_socket_that_is_removed_while_starved_or_due_leaves_at_once() {
    let mut rig = fake(2, 4);
    rig.ring().end(0, libc::ENOBUFS);
    rig.turn();
    rig.remove(0);
    assert!(rig.driver.is_free(0) && !rig.driver.is_starved());
    rig.add(0); // due
    rig.remove(0);
    assert!(rig.driver.is_free(0));
    rig.turn();
    assert_eq!(rig.armed(), [0; 0]);
    rig.remove(0); // nothing is there
    rig.remove(60);
}

#[test]
fn a_buffer_that_does_not_exist_is_counted_as_malformed() {
    let mut rig = fake(1, 2);
    let user_data = rig.ring().user_data(0);
    for buffer in [2, 3, 1000, u16::MAX] {
        rig.ring().complete(user_data, 200, Some(buffer), Then::GoesOn);
        assert_eq!(rig.turn(), []);
    }
    assert_eq!(rig.counts().malformed_count, 4);
    rig.ring().deliver(0, b"fine");
    assert_eq!(texts(&rig.turn()), ["fine"]);
}

#[test]
fn a_buffer_that_is_lent_is_not_handed_out_twice() {
    let mut rig = fake(1, 2);
    rig.ring().deliver(0, b"mine");
    rig.turn();
    let (user_data, buffer) = (rig.ring().user_data(0), rig.batch.records[0].span.buffer);
    let mut lent = std::mem::replace(&mut rig.batch, rig.driver.new_batch());
    rig.ring().complete(user_data, 200, Some(buffer), Then::GoesOn);
    assert_eq!(rig.turn(), []);
    assert_eq!(rig.counts().malformed_count, 1);
    assert_eq!(texts(&heard(&lent)), ["mine"]);
    rig.driver.take_back(&mut lent);
    assert_eq!(rig.driver.buffers.free_count(), 2);
}

#[test]
fn one_buffer_named_by_two_completions_is_handed_out_once() {
    let mut rig = fake(1, 2);
    let user_data = rig.ring().user_data(0);
    let (buffer, result) = rig.ring().fill(b"once").expect("a buffer");
    rig.ring().complete(user_data, result, Some(buffer), Then::GoesOn);
    rig.ring().complete(user_data, result, Some(buffer), Then::GoesOn);
    assert_eq!(texts(&rig.turn()), ["once"]);
    assert_eq!(rig.counts().malformed_count, 1);
}

#[test]
fn a_length_that_makes_no_sense_is_malformed_or_cut_to_the_buffer() {
    let mut rig = fake(1, 2);
    let user_data = rig.ring().user_data(0);
    for result in [0, 1, 15, crate::uring::HEADER_BYTES as i32 - 1] {
        let (buffer, _) = rig.ring().fill(b"short").expect("a buffer");
        rig.ring().complete(user_data, result, Some(buffer), Then::GoesOn);
        assert_eq!(rig.turn(), [], "{result}");
    }
    assert_eq!(rig.counts().malformed_count, 4);
    let (buffer, _) = rig.ring().fill(b"long").expect("a buffer");
    rig.ring().complete(user_data, i32::MAX, Some(buffer), Then::GoesOn);
    let heard = rig.turn();
    assert!(heard.iter().all(|(_, text)| text.len() <= 512), "beyond the buffer");
}

#[test]
fn an_error_that_brings_a_buffer_gives_it_back() {
    let mut rig = fake(1, 2);
    let (buffer, _) = rig.ring().fill(b"never").expect("a buffer");
    let user_data = rig.ring().user_data(0);
    rig.ring().complete(user_data, -libc::EIO, Some(buffer), Then::GoesOn);
    assert_eq!(rig.turn(), []);
    assert_eq!(rig.driver.buffers.free_count(), 2);
}

#[test]
fn completions_of_no_request_are_passed_over_and_their_buffers_go_back() {
    let mut rig = fake(1, 2);
    let strangers = [
        0,
        u64::MAX,
        UserData::Receive { slot: 9, generation: 0 }.encode(),
        UserData::Receive { slot: u16::MAX, generation: 7 }.encode(),
        UserData::Send { flight: 3, index: 0 }.encode(),
        UserData::Cancel.encode(),
    ];
    for user_data in strangers {
        let (buffer, result) = rig.ring().fill(b"whose?").expect("a buffer");
        rig.ring().complete(user_data, result, Some(buffer), Then::Ends);
        assert_eq!(rig.turn(), [], "{user_data:#x}");
        assert_eq!(rig.driver.buffers.free_count(), 2);
    }
    assert!(rig.ring().is_armed(0));
    rig.ring().deliver(0, b"fine");
    assert_eq!(texts(&rig.turn()), ["fine"]);
}

#[test]
fn what_does_not_fit_a_batch_comes_first_in_the_next_without_waiting() {
    let mut rig = fake(2, 32);
    for number in 0..20 {
        rig.ring().deliver(number % 2, number.to_string().as_bytes());
    }
    let first = rig.turn();
    assert_eq!(first.len(), 8);
    let wait_count = rig.ring().wait_count;
    rig.ring().deliver(0, b"20");
    let mut all = first;
    all.extend(rig.turn());
    all.extend(rig.turn());
    assert_eq!(rig.ring().wait_count, wait_count, "it waited although it had datagrams");
    let expected: Vec<String> = (0..=20).map(|number: u16| number.to_string()).collect();
    assert_eq!(texts(&all), expected);
}

#[test]
fn a_loss_in_the_overflow_is_counted_and_the_engine_goes_on() {
    let mut rig = fake(1, 4);
    rig.turn();
    assert_eq!(rig.stats.snapshot().overflow_count, 0);
    rig.ring().entered.push_back(Ok(crate::uring::kernel::Entered::WithLoss));
    rig.turn();
    assert_eq!(rig.stats.snapshot().overflow_count, 1);
    rig.ring().deliver(0, b"fine");
    assert_eq!(texts(&rig.turn()), ["fine"]);
}

#[test]
fn a_wake_ends_a_turn_and_the_watch_lives_on_or_is_renewed() {
    let mut rig = fake(1, 4);
    rig.ring().wake(Then::GoesOn);
    assert_eq!(rig.turn(), []);
    rig.turn();
    assert_eq!(rig.ring().submitted(), []);
    rig.ring().wake(Then::Ends);
    rig.turn();
    rig.turn();
    assert_eq!(rig.ring().submitted(), [Request::Watch]);
    // A completion with a result of 0 is no error, however often it comes.
    for _ in 0..20 {
        rig.ring().complete(UserData::Wake.encode(), 0, None, Then::GoesOn);
        rig.turn();
    }
}

#[test]
fn a_watch_that_always_fails_ends_the_engine_instead_of_spinning() {
    let mut rig = over(Fake::default(), &settings(4, 8), 1);
    rig.ring().watch_error = Some(libc::EBADF);
    let results: Vec<_> = (0..20).map(|_| rig.try_turn()).collect();
    let turn_count = results.iter().take_while(|result| result.is_ok()).count();
    assert_eq!(turn_count, 8);
    let error = results[turn_count].as_ref().unwrap_err().to_string();
    assert!(error.contains("refuses to watch"), "{error}");
}

#[test]
fn receives_that_the_kernel_does_not_take_for_the_moment_are_armed_with_the_next_turn() {
    let mut rig = fake(1, 4);
    rig.armed();
    rig.add(1);
    rig.add(2);
    rig.ring().refused_count = 1;
    rig.turn();
    assert_eq!(rig.armed(), [0; 0]);
    rig.turn();
    assert_eq!(rig.armed(), [1, 2]);
}

#[test]
fn a_cancellation_that_the_kernel_does_not_take_for_the_moment_is_asked_for_with_the_next_turn() {
    let mut rig = fake(2, 4);
    rig.ring().refused_count = 1;
    rig.remove(1);
    assert!(!rig.driver.is_free(1));
    rig.turn();
    rig.turn();
    assert!(rig.driver.is_free(1), "its receive was cancelled");
}

#[test]
fn an_enter_that_fails_for_good_ends_the_engine_with_that_error() {
    let mut rig = fake(1, 4);
    rig.ring().entered.push_back(Err(std::io::Error::from_raw_os_error(libc::EPERM)));
    let error = rig.try_turn().unwrap_err();
    assert!(error.to_string().contains("io_uring_enter"), "{error}");
    assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
}

#[test]
fn a_wait_coalesces_where_the_kernel_can_and_nothing_is_there_yet() {
    for can_coalesce in [false, true] {
        let mut ring = Fake::default();
        ring.can_coalesce = can_coalesce;
        let mut rig = over(ring, &settings(32, 8), 1);
        rig.driver.pace = Pace::always(16, Duration::from_micros(100));
        rig.turn();
        rig.turn();
        assert_eq!(rig.ring().coalesce_count, if can_coalesce { 2 } else { 0 });
        assert_eq!(rig.ring().wait_count, if can_coalesce { 0 } else { 2 });
        (0..20).for_each(|_| _ = rig.ring().deliver(0, b"x"));
        assert_eq!([rig.turn().len(), rig.turn().len(), rig.turn().len()], [8, 8, 4]);
        assert_eq!(rig.ring().coalesce_count, if can_coalesce { 2 } else { 0 });
    }
}

#[test]
fn where_the_kernel_cannot_wait_for_several_the_engine_submits_and_sleeps() {
    let mut rig = over(Fake::default(), &settings(32, 8), 1);
    rig.driver.pace = Pace::always(16, Duration::from_millis(5));
    let start = Instant::now();
    rig.turn();
    assert!(start.elapsed() >= Duration::from_millis(4));
    assert_eq!(rig.ring().enter_count, 2, "what is queued leaves before the sleep");
}

#[test]
fn the_buffers_of_the_sockets_that_hear_bound_the_waits() {
    let mut rig = fake(1, 4);
    let bytes = |rig: &Rig<Uring<Fake>>, slot: usize| {
        rig.sockets[slot].as_ref().expect("a socket").recv_buffer_bytes
    };
    assert_eq!(rig.driver.pace.smallest_buffer(), Some(bytes(&rig, 0)));
    rig.recv_buffer_bytes = 1;
    rig.add(1);
    assert!(bytes(&rig, 1) < bytes(&rig, 0));
    assert_eq!(rig.driver.pace.smallest_buffer(), Some(bytes(&rig, 1)));
    rig.remove(1);
    assert_eq!(rig.driver.pace.smallest_buffer(), Some(bytes(&rig, 0)));
}

#[test]
fn an_engine_that_spins_finds_what_comes_meanwhile_and_sleeps_after_it() {
    let spins = BackendSettings { spin: Duration::from_secs(1), ..settings(4, 8) };
    let mut rig = over(Fake::default(), &spins, 1);
    rig.ring().news_at = Some(1000);
    rig.turn();
    assert_eq!((rig.ring().news_count, rig.ring().wait_count), (1000, 0));
    // The deadline of a turn also ends the spinning.
    rig.ring().news_at = None;
    let start = Instant::now();
    rig.turn();
    assert!(start.elapsed() < Duration::from_millis(500));
    assert_eq!(rig.ring().wait_count, 1);
    rig.driver.settings.spin = Duration::from_millis(1);
    let news_count = rig.ring().news_count;
    rig.turn();
    assert!(rig.ring().news_count > news_count);
    assert_eq!(rig.ring().wait_count, 2);
}

#[test]
fn an_engine_that_spins_still_waits_for_several() {
    let spins = BackendSettings { spin: Duration::from_secs(1), ..settings(4, 8) };
    let mut rig = over(Fake::default(), &spins, 1);
    rig.driver.pace = Pace::always(9, Duration::from_micros(100));
    rig.ring().can_coalesce = true;
    rig.turn();
    assert_eq!((rig.ring().news_count, rig.ring().coalesce_count), (0, 1));
}

#[test]
fn buffers_hold_the_header_and_what_was_asked_for() {
    let mut rig = fake(1, 4);
    let text = format!("{:?}", rig.driver.buffers.slab());
    let bytes = crate::uring::HEADER_BYTES + 512;
    assert_eq!(text, format!("4 buffers of {bytes} bytes"));
    let longest = "x".repeat(512);
    rig.ring().deliver(0, longest.as_bytes());
    assert_eq!(texts(&rig.turn()), [longest]);
}
