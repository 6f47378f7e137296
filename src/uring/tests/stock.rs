//! How many buffers the kernel has, and which.

use std::collections::HashSet;

use super::*;

const BUFFER_COUNT: usize = 1024;

/// One socket, and batches for all of its datagrams.
fn long_batches() -> Rig<Uring<Fake>> {
    fake_with(1, settings(BUFFER_COUNT, BUFFER_COUNT))
}

/// Takes all that was delivered, in several turns if a batch does not hold it.
fn take_all(rig: &mut Rig<Uring<Fake>>) -> usize {
    let mut count = 0;
    loop {
        match rig.turn().len() {
            0 => return count,
            more => count += more,
        }
    }
}

#[test]
fn the_kernel_writes_to_the_buffers_that_were_used_last() {
    let mut rig = fake(1, BUFFER_COUNT);
    let mut used = HashSet::new();
    for _ in 0..BUFFER_COUNT {
        assert!(rig.ring().deliver(0, b"x"));
        rig.turn();
        used.extend(rig.batch.records.iter().map(|record| record.span.buffer));
    }
    assert!(used.len() <= 65, "one datagram a turn went through {} buffers", used.len());
}

#[test]
fn a_stock_that_was_too_small_for_a_turn_is_larger_in_the_next_and_nobody_starves() {
    let mut rig = long_batches();
    let mut sent_count = 0;
    let mut taken_count = 0;
    for expected in [64, 128, 256, 512, BUFFER_COUNT] {
        assert_eq!(rig.driver.buffers.given_count(), expected);
        while rig.ring().deliver(0, b"x") {
            sent_count += 1;
        }
        let mut batch = rig.driver.new_batch();
        while taken_count < sent_count {
            rig.turn_with(&mut batch).expect("a turn");
            taken_count += batch.records.len();
        }
        rig.driver.take_back(&mut batch);
        rig.turn();
        assert!(rig.ring().is_armed(0));
    }
    let counts = rig.counts();
    assert_eq!((counts.starved_count, counts.rearmed_count), (1, 5), "at last all were taken");
}

#[test]
fn a_stock_that_is_not_needed_any_more_is_halved_until_it_is_the_least() {
    let mut rig = long_batches();
    while rig.ring().deliver(0, b"x") {}
    take_all(&mut rig);
    let mut sizes = Vec::new();
    for _ in 0..10_000 {
        assert!(rig.ring().deliver(0, b"x"));
        rig.turn();
        // The buffer that the last turn took is not back yet.
        let size = (rig.driver.buffers.given_count() + 1).next_power_of_two();
        if sizes.last() != Some(&size) {
            sizes.push(size);
        }
    }
    assert!(sizes[0] >= 128, "{sizes:?}");
    assert!(sizes.windows(2).all(|pair| pair[0] == 2 * pair[1]), "{sizes:?}");
    assert_eq!(sizes.last(), Some(&64));
}

#[test]
fn the_kernel_never_has_more_buffers_than_a_batch_holds() {
    for (batch_max, most) in [(100, 100), (256, 256), (8, 64)] {
        let mut rig = fake_with(1, settings(BUFFER_COUNT, batch_max));
        for _ in 0..10 {
            while rig.ring().deliver(0, b"x") {}
            take_all(&mut rig);
            assert!(rig.driver.buffers.given_count() <= most);
        }
        assert_eq!(rig.driver.buffers.given_count(), most);
    }
}

#[test]
fn where_there_are_few_buffers_the_kernel_has_all_of_them() {
    for count in [1, 2, 32, 64] {
        let mut rig = fake(1, count);
        for _ in 0..2_000 {
            assert_eq!(rig.driver.buffers.given_count(), count);
            assert!(rig.ring().deliver(0, b"x"));
            rig.turn();
            rig.turn();
        }
    }
}

#[test]
fn what_was_waited_for_once_is_not_waited_for_again_where_the_stock_ran_short() {
    let mut ring = Fake::default();
    ring.can_coalesce = true;
    let mut rig = over(ring, &settings(BUFFER_COUNT, 512), 1);
    rig.driver.pace = Pace::always(256, Duration::from_millis(50));
    rig.turn();
    while rig.ring().deliver(0, b"x") {}
    assert_eq!(rig.turn().len(), 64);
    let waits = rig.ring().coalesce_count;
    rig.turn();
    assert!(rig.ring().is_armed(0));
    assert_eq!(rig.ring().coalesce_count, waits, "the rest is there");
    rig.turn();
    assert_eq!(rig.ring().coalesce_count, waits + 1);
}

#[test]
fn no_more_datagrams_are_waited_for_than_there_are_buffers_for() {
    let wait_max = Duration::from_millis(50);
    for (datagram_count, expected) in [(256, 64), (64, 64), (8, 8)] {
        let mut ring = Fake::default();
        ring.can_coalesce = true;
        let mut rig = over(ring, &settings(BUFFER_COUNT, 512), 1);
        rig.driver.pace = Pace::always(datagram_count, wait_max);
        rig.turn();
        assert_eq!(rig.ring().waited_for, (expected, wait_max), "no longer than allowed");
    }
}

#[test]
fn a_stock_grows_past_buffers_that_the_kernel_lost() {
    let mut rig = long_batches();
    for expected in [128, 256, 512] {
        // The receive ends for lack of buffers, though no completion named one.
        rig.ring().end(0, libc::ENOBUFS);
        rig.turn();
        rig.turn();
        assert_eq!(rig.driver.buffers.given_count(), expected);
        assert!(rig.ring().is_armed(0));
    }
    assert_eq!(rig.counts().starved_count, 0);
}

#[test]
fn lost_buffers_do_not_use_up_the_stock() {
    let mut rig = fake(1, BUFFER_COUNT);
    rig.ring().entered.push_back(Ok(crate::uring::kernel::Entered::WithLoss));
    rig.turn();
    for expected in [128, 256, 512] {
        rig.ring().end(0, libc::ENOBUFS);
        rig.turn();
        rig.turn();
        assert_eq!(rig.driver.buffers.given_count(), expected);
    }
}

#[test]
fn a_socket_that_leaves_while_the_stock_is_short_keeps_nobody_awake() {
    let mut rig = fake(1, BUFFER_COUNT);
    rig.ring().end(0, libc::ENOBUFS);
    rig.turn();
    rig.remove(0);
    rig.turn();
    for _ in 0..3 {
        let wait_count = rig.ring().wait_count;
        rig.turn();
        assert_eq!(rig.ring().wait_count, wait_count + 1);
    }
    assert_eq!(rig.driver.buffers.given_count(), 64);
}

#[test]
fn a_stock_that_one_socket_empties_each_time_is_offered_to_another_first() {
    let mut rig = fake(3, BUFFER_COUNT);
    let first_armed = [(); 6].map(|()| {
        for slot in 0..3 {
            rig.ring().end(slot, libc::ENOBUFS);
        }
        rig.turn();
        rig.ring().submitted();
        rig.turn();
        rig.armed()[0]
    });
    assert!((0..3).all(|slot| first_armed.contains(&slot)), "{first_armed:?}");
}
