//! A real kernel that is given too little: a short completion queue, few buffers, short buffers,
//! sockets that leave under traffic.

use std::{
    net::SocketAddrV4,
    os::fd::AsFd,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use super::*;
use crate::path::Pace;
use crate::uring::{
    arms::Arms,
    buffers::{BufferRing, Slab},
    flights::Flights,
    ring::Ring,
    user_data::UserData,
    wake::{Waker, Watch},
};

/// Runs a test if a bare system call gets a ring. If not, prints why, or fails if `NICRING_REQUIRE`
/// asks for io_uring.
pub(super) fn if_there_is_io_uring(test: impl FnOnce()) {
    match io_uring::IoUring::new(8) {
        Ok(_) => test(),
        Err(error) => {
            let required = std::env::var("NICRING_REQUIRE").unwrap_or_default();
            assert!(!required.contains("io_uring"), "required: io_uring: {error}");
            eprintln!("skipped for want of io_uring: {error}");
        }
    }
}

fn ring(completion_count: u32) -> Ring {
    let ring = Ring::open(8, completion_count).expect("a ring");
    ring.register_files(64).expect("files");
    ring
}

#[test]
fn a_queue_of_completions_that_overflows_loses_nothing() {
    if_there_is_io_uring(|| {
        const SOCKET_COUNT: u16 = 16;
        let mut rig = over(ring(8), &settings(256, 8), SOCKET_COUNT.into());
        for round in 0..5 {
            for number in 0..40 {
                (0..SOCKET_COUNT).for_each(|slot| rig.send(slot, number.to_string().as_bytes()));
            }
            let heard = rig.turn_for(40 * usize::from(SOCKET_COUNT));
            for slot in 0..SOCKET_COUNT {
                let of_slot: Vec<_> =
                    heard.iter().filter(|one| one.0 == slot).map(|one| one.1.as_str()).collect();
                let expected: Vec<_> = (0..40).map(|number: u16| number.to_string()).collect();
                assert_eq!(of_slot, expected, "slot {slot}, round {round}");
            }
        }
        let counts = rig.counts();
        assert_eq!((counts.kernel_drop_count, counts.receive_error_count), (0, 0));
        eprintln!("{} receives were ended by the overflow", counts.rearmed_count);
    });
}

#[test]
fn with_one_buffer_and_many_sockets_every_datagram_comes() {
    if_there_is_io_uring(|| {
        let mut rig = over(ring(64), &settings(1, 8), 8);
        for number in 0..30 {
            (0..8).for_each(|slot| rig.send(slot, number.to_string().as_bytes()));
        }
        let heard = rig.turn_for(240);
        for slot in 0..8 {
            let of_slot: Vec<_> =
                heard.iter().filter(|one| one.0 == slot).map(|one| one.1.as_str()).collect();
            let expected: Vec<_> = (0..30).map(|number: u16| number.to_string()).collect();
            assert_eq!(of_slot, expected, "slot {slot}");
        }
        assert!(rig.counts().starved_count > 0);
    });
}

#[test]
fn a_header_longer_than_a_buffer_silences_the_socket_with_an_error_and_does_not_spin() {
    if_there_is_io_uring(|| {
        let settings = settings(4, 8);
        let mut ring = ring(64);
        let slab = Arc::new(Slab::new(4, 64).expect("memory"));
        let waker = Waker::new().expect("an eventfd");
        let driver = Uring {
            is_resuming: false,
            buffers: BufferRing::register(&mut ring, slab, settings.batch_max)
                .expect("a buffer ring"),
            ring,
            arms: Arms::new(),
            flights: Flights::new(8, true),
            watch: Watch::new(waker.as_fd(), UserData::Wake).expect("a descriptor"),
            waker,
            news: None,
            has_news: false,
            backlog: Default::default(),
            lent_count: 0,
            pace: Pace::new(Duration::ZERO),
            settings,
            is_closed: false,
        };
        let mut rig = Rig::new(driver, 1);
        rig.send(0, b"does not fit");
        let start = Instant::now();
        for _ in 0..6 {
            assert_eq!(rig.turn(), []);
        }
        assert!(start.elapsed() > Duration::from_millis(80), "it spins");
        let counts = rig.counts();
        assert_eq!((counts.receive_error_count, counts.rearmed_count), (1, 0));
        let (slot, error) = rig.driver.take_deaf().expect("it hears no more");
        assert_eq!((slot, error.raw_os_error()), (0, Some(libc::EFAULT)));
        assert!(rig.driver.take_deaf().is_none(), "each is told once");
    });
}

#[test]
fn sockets_that_leave_under_traffic_free_their_ports_and_disturb_no_other() {
    if_there_is_io_uring(|| {
        let mut rig = over(ring(256), &settings(64, 16), 3);
        let is_over = AtomicBool::new(false);
        // The traffic goes to slots 0 and 1. Slot 2 stays, and its datagrams are counted.
        let targets = Mutex::new(Vec::new());
        let aim = |rig: &Rig<Uring<Ring>>| {
            let ports = rig.sockets[..2].iter().flatten().map(|socket| socket.port);
            *targets.lock().unwrap() = ports.collect::<Vec<u16>>();
        };
        aim(&rig);
        thread::scope(|scope| {
            scope.spawn(|| {
                let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
                while !is_over.load(Ordering::Relaxed) {
                    for port in targets.lock().unwrap().clone() {
                        // A port that has just lost its socket refuses, and the next send reports
                        // that.
                        let _ = client.send_to(b"traffic", (Ipv4Addr::LOCALHOST, port));
                    }
                }
            });
            let mut kept_count = 0;
            for round in 0..300u16 {
                let slot = round % 2;
                let port = rig.sockets[usize::from(slot)].as_ref().expect("a socket").port;
                rig.send(2, b"kept");
                kept_count += count_kept(&rig.turn());
                rig.remove(slot);
                let mut turn_count = 0;
                while !rig.driver.is_free(slot) {
                    kept_count += count_kept(&rig.turn());
                    turn_count += 1;
                    assert!(turn_count < 100, "round {round}: the socket does not leave");
                }
                let free = UdpSocket::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port));
                assert!(free.is_ok(), "round {round}: the port is held");
                drop(free);
                rig.add(slot);
                aim(&rig);
            }
            is_over.store(true, Ordering::Relaxed);
            while kept_count < 300 {
                let heard = rig.turn();
                assert!(!heard.is_empty(), "lost: {kept_count} of 300 came");
                kept_count += count_kept(&heard);
            }
        });
        // What is left of the traffic may have taken all buffers.
        let are_armed = |_| {
            rig.turn();
            rig.driver.arms.armed_count() == 3
        };
        assert!((0..100).any(are_armed), "a socket is not received from any more");
    });
}

#[test]
fn dropping_the_backend_frees_its_ports() {
    if_there_is_io_uring(|| {
        for _ in 0..50 {
            let mut rig = over(ring(64), &settings(4, 4), 4);
            rig.turn();
            let sockets = rig.sockets.drain(..).flatten();
            let ports: Vec<u16> = sockets.map(|socket| socket.port).collect();
            drop(rig);
            for port in ports {
                assert!(UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok(), "port {port}");
            }
        }
    });
}

fn count_kept(heard: &[(u16, String)]) -> usize {
    for (slot, text) in heard {
        assert_eq!(text == "kept", *slot == 2, "{text} in slot {slot}");
    }
    heard.iter().filter(|(slot, _)| *slot == 2).count()
}
