//! Coming to rest, and what happens when the kernel does not let go.

use super::*;
use crate::datagram::Egress;

/// How many hold the memory of the buffers: the backend, the rig's batch, and one more for good
/// once it was leaked.
fn holder_count(rig: &Rig<Uring<Fake>>) -> usize {
    Arc::strong_count(rig.driver.buffers.slab())
}

#[test]
fn closing_cancels_all_takes_all_and_gives_everything_up() {
    let mut rig = fake(3, 8);
    rig.ring().keeps_sends = true;
    let to = std::net::SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9);
    assert!(rig.posted.push(None, Egress::default(), to, b"in flight").is_queued());
    rig.turn();
    rig.ring().deliver(1, b"under way");
    rig.ring().deliver_and(2, b"under way and over", Then::Ends);
    let ports: Vec<u16> = rig.sockets.drain(..).flatten().map(|socket| socket.port).collect();
    rig.driver.close();
    for port in ports {
        assert!(UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok(), "port {port} is held");
    }
    assert!(rig.ring().submitted().contains(&Request::CancelAll));
    assert_eq!(rig.ring().slots(), [0u32; 0], "no file is left");
    assert_eq!(rig.driver.buffers.free_count(), 8);
    assert_eq!(rig.driver.flights.remaining_count(), 0);
    assert_eq!(holder_count(&rig), 2, "nothing is leaked");
    let enter_count = rig.ring().enter_count;
    rig.driver.close();
    assert_eq!(rig.ring().enter_count, enter_count, "closing twice is closing once");
}

#[test]
fn a_cancellation_that_the_kernel_does_not_take_for_the_moment_is_tried_again() {
    let mut rig = fake(2, 4);
    rig.ring().refused_count = 1;
    rig.driver.close();
    assert!(rig.ring().submitted().contains(&Request::CancelAll));
    assert_eq!(holder_count(&rig), 2, "nothing is leaked");
}

#[test]
fn a_ring_that_takes_no_cancellation_is_kept_for_good_at_once() {
    let mut rig = fake(2, 4);
    rig.ring().push_error = Some(libc::EPERM);
    let start = Instant::now();
    rig.driver.close();
    assert!(start.elapsed() < Duration::from_millis(500), "took {:?}", start.elapsed());
    assert_eq!(holder_count(&rig), 3, "leaked on purpose");
}

#[test]
fn a_ring_that_was_never_enabled_closes_without_entering_it() {
    let mut rig = over(Fake::default(), &settings(4, 4), 2);
    rig.driver.close();
    assert_eq!(rig.ring().enter_count, 0);
    assert_eq!(rig.ring().slots(), [0u32; 0]);
    assert_eq!(holder_count(&rig), 2, "nothing is leaked");
}

#[test]
fn what_the_kernel_does_not_let_go_of_is_kept_for_good() {
    let mut rig = fake(2, 4);
    rig.ring().never_rests = true;
    rig.ring().deliver(0, b"kept");
    rig.turn();
    let start = Instant::now();
    rig.driver.close();
    assert!(start.elapsed() < Duration::from_secs(3), "took {:?}", start.elapsed());
    assert_eq!(holder_count(&rig), 3, "leaked on purpose");
    assert_eq!(rig.ring().slots(), [0u32; 0], "the ports are let go of all the same");
    // The kernel may still write to the buffers it has.
    assert!(rig.ring().deliver(0, b"late"));
    assert_eq!(texts(&heard(&rig.batch)), ["kept"]);
}

#[test]
fn a_watch_that_does_not_end_is_kept_for_good_too() {
    let mut rig = fake(0, 4);
    rig.ring().never_rests = true;
    rig.driver.close();
    assert_eq!(holder_count(&rig), 3, "leaked on purpose");
}

#[test]
fn what_is_being_sent_when_the_kernel_does_not_let_go_is_kept_for_good() {
    let mut rig = fake(1, 4);
    (rig.ring().never_rests, rig.ring().keeps_sends) = (true, true);
    let to = std::net::SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9);
    assert!(rig.posted.push(None, Egress::default(), to, b"still being read").is_queued());
    rig.turn();
    assert_eq!(rig.driver.flights.remaining_count(), 1);
    rig.driver.close();
    assert_eq!(rig.driver.flights.remaining_count(), 0, "leaked on purpose");
}

#[test]
fn what_goes_on_receiving_during_the_close_is_kept_for_good() {
    let mut rig = fake(2, 4);
    rig.ring().never_rests = true;
    let former = rig.ring().user_data(1);
    rig.remove(1);
    rig.turn();
    rig.add(1);
    rig.turn();
    // None of this ends a receive that lives: data, the end of a former receive, a wake.
    rig.ring().deliver(0, b"goes on");
    rig.ring().deliver(1, b"goes on");
    rig.ring().complete(former, -libc::ECANCELED, None, Then::Ends);
    rig.ring().wake(Then::Ends);
    rig.driver.close();
    assert_eq!(holder_count(&rig), 3, "leaked on purpose");
}

#[test]
fn a_ring_that_cannot_be_entered_any_more_is_kept_for_good_at_once() {
    let mut rig = fake(2, 4);
    let refused = || Err(std::io::Error::from_raw_os_error(libc::EPERM));
    (0..100).for_each(|_| rig.ring().entered.push_back(refused()));
    rig.ring().never_rests = true;
    let start = Instant::now();
    rig.driver.close();
    assert!(start.elapsed() < Duration::from_secs(1), "took {:?}", start.elapsed());
    assert_eq!(holder_count(&rig), 3, "leaked on purpose");
}

#[test]
fn batches_outlive_the_backend() {
    let mut rig = fake(1, 4);
    rig.ring().deliver(0, b"outlives it");
    rig.turn();
    let Rig { driver, batch, .. } = rig;
    drop(driver);
    assert_eq!(texts(&heard(&batch)), ["outlives it"]);
}
