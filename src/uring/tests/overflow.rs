//! A receive queue that overflows, on both backends: sent = received + dropped. Drops are told by
//! datagrams (`SO_RXQ_OVFL`) and by the socket (`SO_MEMINFO`).

use nix::sys::socket::{setsockopt, sockopt};

use super::*;
use crate::fallback::Portable;

const SENT_COUNT: usize = 400;

#[test]
fn one_closing_datagram_tells_every_drop_io_uring() {
    real::if_there_is_io_uring(|| {
        one_closing_datagram_tells_every_drop(Uring::open(&settings(16, 8)).expect("a ring"));
    });
}

#[test]
fn one_closing_datagram_tells_every_drop_portable() {
    one_closing_datagram_tells_every_drop(Portable::open(&settings(16, 8)).expect("a poller"));
}

#[test]
fn the_socket_tells_every_drop_io_uring() {
    real::if_there_is_io_uring(|| {
        the_socket_tells_every_drop(Uring::open(&settings(16, 8)).expect("a ring"));
    });
}

#[test]
fn the_socket_tells_every_drop_portable() {
    the_socket_tells_every_drop(Portable::open(&settings(16, 8)).expect("a poller"));
}

fn one_closing_datagram_tells_every_drop<D: BackendDriver>(driver: D) {
    let mut rig = overflowed(driver);
    // As on a kernel without SO_MEMINFO.
    setsockopt(&rig.sockets[0].as_ref().expect("a socket").socket, sockopt::RxqOvfl, &1)
        .expect("an option of Linux");
    let heard_count = heard_of_queue(&mut rig);
    assert!(heard_count < SENT_COUNT, "the queue was too large for this test");
    assert_eq!(rig.counts().kernel_drop_count, 0, "nothing that was queued told of a later drop");
    rig.send(0, b"closing");
    assert_eq!(texts(&rig.turn_for(1)), ["closing"]);
    assert_eq!(rig.counts().kernel_drop_count, (SENT_COUNT - heard_count) as u64);
    // The socket tells the same drops once more, which adds nothing.
    refresh(&rig);
    assert_eq!(rig.counts().kernel_drop_count, (SENT_COUNT - heard_count) as u64);
}

fn the_socket_tells_every_drop<D: BackendDriver>(driver: D) {
    let mut rig = overflowed(driver);
    refresh(&rig);
    let drop_count = rig.counts().kernel_drop_count as usize;
    assert!(drop_count > 0, "the queue was too large for this test");
    let heard_count = heard_of_queue(&mut rig);
    assert_eq!(heard_count + drop_count, SENT_COUNT);
    // The counts that datagrams tell are older, and add nothing.
    assert_eq!(rig.counts().kernel_drop_count as usize, drop_count);
    for round in 1..=3 {
        for _ in 0..SENT_COUNT {
            rig.send(0, b"again");
        }
        heard_of_queue(&mut rig);
        refresh(&rig);
        let counts = rig.counts();
        let sum = counts.received_count() + counts.kernel_drop_count;
        assert_eq!(sum as usize, SENT_COUNT * (1 + round));
    }
}

/// A socket with the smallest queue there is. It is sent more than that holds before anyone reads.
fn overflowed<D: BackendDriver>(driver: D) -> Rig<D> {
    let mut rig = Rig::new(driver, 0);
    rig.recv_buffer_bytes = 1;
    rig.add(0);
    (0..SENT_COUNT).for_each(|number| rig.send(0, number.to_string().as_bytes()));
    rig
}

/// Empties the queue. Returns how many datagrams it held.
fn heard_of_queue<D: BackendDriver>(rig: &mut Rig<D>) -> usize {
    let mut heard_count = 0;
    // The first turn may end before the receive is armed.
    for _ in 0..5 {
        heard_count += rig.turn().len();
    }
    heard_count
}

fn refresh<D: BackendDriver>(rig: &Rig<D>) {
    rig.sockets.iter().flatten().for_each(|socket| socket.refresh_drop_count());
}
