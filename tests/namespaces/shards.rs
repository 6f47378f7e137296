//! Several engines that share the datagrams of all NICs.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddrV4},
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc::{self, Receiver},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use nicring::{Backend, Builder, Class, Handle, SocketInfo, Stats};

use crate::{
    common::{Heard, LOCALHOST, PATIENCE, Server, for_each_backend, wait_until},
    star::{GROUPS, PORT, Star, broadcast, on_every_nic, own},
};

for_each_backend!(crate::common::netns::on:
    each_datagram_is_heard_by_one_of_two_shards,
    each_datagram_is_heard_by_one_of_four_shards,
    each_datagram_is_heard_by_one_shard_without_devices,
    broadcasts_are_heard_by_one_shard_while_servers_come_and_go_beside,
    shards_follow_the_nics,
    no_unicast_is_lost_for_good_when_servers_come_and_go_beside_shards,
    broadcasts_lost_in_full_buffers_are_counted_and_those_of_other_shards_are_not,
    losses_are_told_while_more_comes_all_the_time,
    losses_are_told_after_the_address_has_gone_and_another_has_come,
    losses_at_an_address_that_came_later_are_told_though_nobody_asked_before,
    shards_of_two_clones_of_a_builder_count_apart,
);

/// Shards that echo, and report what each hears.
struct Sharded {
    handle: Handle,
    heard: Receiver<(usize, Heard)>,
    thread: Option<JoinHandle<nicring::Result<Stats>>>,
}

impl Sharded {
    fn start(star: &Star, builder: Builder, delay: Duration) -> Self {
        let shards = star.server.run(|| builder.open_shards()).expect("shards");
        let (handle, (sender, heard)) = (shards.handle(), mpsc::channel());
        let run = move || {
            shards.run(|number| {
                let sender = sender.clone();
                move |batch: &nicring::Batch| {
                    for datagram in batch {
                        let _ = sender.send((number, Heard::from(datagram)));
                        let _ = batch.reply(&datagram, datagram.payload());
                    }
                    thread::sleep(delay);
                    ControlFlow::Continue(())
                }
            })
        };
        // Threads stay in the namespace, where they open sockets for NICs that come.
        let thread = star.server.run(|| thread::spawn(run));
        Self { handle, heard, thread: Some(thread) }
    }

    fn stop(mut self) -> Stats {
        self.handle.stop();
        let thread = self.thread.take().expect("stopped once");
        thread.join().expect("no panic").expect("a good end")
    }
}

impl Drop for Sharded {
    fn drop(&mut self) {
        self.handle.stop();
        self.thread.take().map(JoinHandle::join);
    }
}

fn each_datagram_is_heard_by_one_of_two_shards(backend: Backend) {
    heard_once(on_every_nic(backend).shards(2), 2, 2500);
}

fn each_datagram_is_heard_by_one_of_four_shards(backend: Backend) {
    heard_once(on_every_nic(backend).shards(4).pin_shards(), 4, 2500);
}

fn each_datagram_is_heard_by_one_shard_without_devices(backend: Backend) {
    crate::common::sandbox::without_devices(|| {
        heard_once(on_every_nic(backend).shards(3), 3, 100);
    });
}

/// So many senders on each of three NICs and on the host itself send to each class.
fn heard_once(builder: Builder, shard_count: usize, sender_count: usize) {
    let star = Star::new(3);
    let server = Sharded::start(&star, builder, Duration::ZERO);
    let by_shard = ask_each_class(&star, &server, shard_count, sender_count, |_| true);
    assert!(server.heard.recv_timeout(crate::common::SETTLE).is_err(), "heard more than once");
    let total: usize = by_shard.iter().sum();
    let stats = server.stop();
    assert_eq!(stats.total().kernel_drop_count(), Some(0), "what filters drop is no loss");
    assert_eq!(stats.total().received_count(), total as u64, "{stats}");
}

/// The same shard hears all three datagrams of a sender to an address, in order, and no other does.
/// Returns how many each shard heard.
fn ask_each_class(
    star: &Star,
    server: &Sharded,
    shard_count: usize,
    sender_count: usize,
    is_asked: impl Fn(&Ipv4Addr) -> bool,
) -> Vec<usize> {
    let mut by_shard = vec![0_usize; shard_count];
    for number in 0..=3 {
        let (from, mut classes) = match number {
            0 => (&star.server, vec![LOCALHOST, Ipv4Addr::new(127, 255, 255, 255)]),
            _ => {
                let to = [own(number), broadcast(number), Ipv4Addr::BROADCAST, GROUPS[1]];
                (star.client(number), to.to_vec())
            }
        };
        classes.retain(&is_asked);
        // Not so many at once that a receive buffer could be full.
        for _ in 0..sender_count.div_ceil(50) {
            let senders: Vec<_> = (0..50).map(|_| from.client([0, 0, 0, 0])).collect();
            for text in ["1", "2", "3"] {
                for (sender, to) in
                    senders.iter().flat_map(|s| classes.iter().map(move |to| (s, to)))
                {
                    sender.ask(text, *to, PORT);
                }
            }
            assert_each_is_heard_once(server, 50 * classes.len(), &mut by_shard);
        }
    }
    let total: usize = by_shard.iter().sum();
    for heard in &by_shard {
        let share = total / shard_count;
        assert!((share / 2..=share * 3 / 2).contains(heard), "uneven: {by_shard:?}");
    }
    by_shard
}

/// Broadcasts and groups: the next test is of unicasts.
fn broadcasts_are_heard_by_one_shard_while_servers_come_and_go_beside(backend: Backend) {
    let star = Star::new(3);
    let server = Sharded::start(&star, on_every_nic(backend).shards(2), Duration::ZERO);
    let (is_over, come_and_gone_count) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(SeqCst) {
                let beside = Sharded::start(&star, on_every_nic(backend).shards(4), Duration::ZERO);
                let plain = star.server.run(|| Server::echo(on_every_nic(backend)));
                beside.stop();
                drop(plain);
                come_and_gone_count.fetch_add(1, SeqCst);
            }
        });
        let is_unicast = |to: &Ipv4Addr| (1..=3).map(own).chain([LOCALHOST]).any(|own| own == *to);
        let asked = catch_unwind(AssertUnwindSafe(|| {
            ask_each_class(&star, &server, 2, 2500, |to| !is_unicast(to));
            wait_until("others came and went", || come_and_gone_count.load(SeqCst) > 1);
        }));
        is_over.store(true, SeqCst);
        asked.unwrap_or_else(|panic| resume_unwind(panic));
    });
    assert!(server.heard.recv_timeout(crate::common::SETTLE).is_err(), "heard more than once");
    server.stop();
}

/// The next three datagrams of so many pairs of sender and class.
#[track_caller]
fn assert_each_is_heard_once(server: &Sharded, pair_count: usize, by_shard: &mut [usize]) {
    let mut told: HashMap<(SocketAddrV4, Option<Ipv4Addr>), (usize, String)> = HashMap::new();
    for _ in 0..3 * pair_count {
        let heard = server.heard.recv_timeout(PATIENCE);
        let (shard, heard) = heard.unwrap_or_else(|_| panic!("too few; {}", server.handle.stats()));
        by_shard[shard] += 1;
        let pair = told.entry((heard.source, heard.destination)).or_insert((shard, String::new()));
        assert_eq!(pair.0, shard, "{heard:?} is another shard's");
        pair.1 += heard.text();
    }
    assert_eq!(told.len(), pair_count);
    assert!(told.values().all(|(_, text)| text == "123"), "{told:#?}");
}

fn shards_follow_the_nics(backend: Backend) {
    let star = Star::new(2);
    star.server.configure("link delete nic2");
    let server = Sharded::start(&star, on_every_nic(backend).shards(2), Duration::ZERO);
    let count = || server.handle.sockets().len();
    let before = count();
    star.connect(2);
    // As many as of nic1: each shard has those of a NIC with one address.
    wait_until("both shards hear on the NIC", || {
        let sockets = server.handle.sockets();
        let on =
            |nic: &str| sockets.iter().filter(|socket| crate::common::is_on(socket, nic)).count();
        on("nic2") == on("nic1")
    });
    let mut by_shard = [0; 2];
    let senders: Vec<_> = (0..50).map(|_| star.client(2).client([0, 0, 0, 0])).collect();
    for text in ["1", "2", "3"] {
        for sender in &senders {
            sender.ask(text, broadcast(2), PORT);
            sender.ask(text, GROUPS[0], PORT);
        }
    }
    assert_each_is_heard_once(&server, 100, &mut by_shard);
    star.server.configure("link delete nic2");
    wait_until("its sockets are closed", || count() == before);
    server.stop();
}

/// Position in a group of sockets that share a port moves when servers come and go, so what was on
/// its way may be lost. Whoever asks again is answered.
fn no_unicast_is_lost_for_good_when_servers_come_and_go_beside_shards(backend: Backend) {
    let star = Star::new(1);
    let server = Sharded::start(&star, on_every_nic(backend).shards(2), Duration::ZERO);
    let clients: Vec<_> = (0..50).map(|_| star.client(1).client([0, 0, 0, 0])).collect();
    let ask_all = || {
        for client in &clients {
            let is_answered = |_: &i32| {
                client.0.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
                client.ask("who", own(1), PORT);
                client.0.recv_from(&mut [0; 8]).is_ok()
            };
            assert!((0..50).any(|attempt| is_answered(&attempt)), "asked 50 times in vain");
        }
    };
    ask_all();
    for _ in 0..3 {
        let beside = Sharded::start(&star, on_every_nic(backend).shards(2), Duration::ZERO);
        ask_all();
        let plain = star.server.run(|| Server::echo(on_every_nic(backend)));
        ask_all();
        beside.stop();
        ask_all();
        drop(plain);
        ask_all();
    }
    // Alone again: nothing is lost any more.
    for client in &clients {
        client.ask("who", own(1), PORT);
        client.expect("who", SocketAddrV4::new(own(1), PORT));
    }
    server.stop();
}

const FLOOD_COUNT: u64 = 4000;

/// Two shards whose buffers are soon full.
fn slow(star: &Star, backend: Backend) -> Sharded {
    let builder = on_every_nic(backend).shards(2).recv_buffer_bytes(4096);
    Sharded::start(star, builder.buffer_count(8).batch_max(8), Duration::from_millis(1))
}

/// Sends more than fits their buffers, from 20 senders.
fn flood(star: &Star) {
    let clients: Vec<_> = (0..20).map(|_| star.client(1).client([0, 0, 0, 0])).collect();
    for number in 0..FLOOD_COUNT as usize {
        clients[number % 20].ask("many", broadcast(1), PORT);
    }
}

/// How many were received or left in a socket that was closed, and how many were lost.
fn come_and_lost(stats: &Stats) -> (u64, u64) {
    let total = stats.total();
    let lost = total.kernel_drop_count().expect("Linux counts them");
    (total.received_in(Class::Subnet) + total.left_count, lost)
}

fn broadcasts_lost_in_full_buffers_are_counted_and_those_of_other_shards_are_not(backend: Backend) {
    let star = Star::new(1);
    let server = slow(&star, backend);
    flood(&star);
    wait_until("received and lost make up what was sent", || {
        let (come, lost) = come_and_lost(&server.handle.stats());
        come + lost == FLOOD_COUNT
    });
    let stats = server.stop();
    let (come, lost) = come_and_lost(&stats);
    assert!(stats.total().received_in(Class::Subnet) > 0 && lost > 0, "{come} came, {lost} lost");
    assert_eq!(come + lost, FLOOD_COUNT);
}

fn losses_are_told_while_more_comes_all_the_time(backend: Backend) {
    let star = Star::new(1);
    let server = slow(&star, backend);
    flood(&star);
    let client = star.client(1).client([0, 0, 0, 0]);
    let mut later_count = 0;
    wait_until("losses are told", || {
        client.ask("more", broadcast(1), PORT);
        later_count += 1;
        come_and_lost(&server.handle.stats()).1 > 0
    });
    let (come, lost) = come_and_lost(&server.stop());
    assert_eq!(come + lost, FLOOD_COUNT + later_count);
}

fn losses_are_told_after_the_address_has_gone_and_another_has_come(backend: Backend) {
    let star = Star::new(1);
    let server = slow(&star, backend);
    flood(&star);
    star.server.configure("address del 10.77.1.1/24 dev nic1");
    star.server.configure("address add 10.78.1.1/24 brd + dev nic1");
    wait_until("all is told of the address that has gone", || {
        let (come, lost) = come_and_lost(&server.handle.stats());
        lost > 0 && come + lost == FLOOD_COUNT
    });
}

fn losses_at_an_address_that_came_later_are_told_though_nobody_asked_before(backend: Backend) {
    let star = Star::new(1);
    star.server.configure("address del 10.77.1.1/24 dev nic1");
    let server = slow(&star, backend);
    star.server.configure("address add 10.77.1.1/24 brd + dev nic1");
    wait_until("the shards have followed", || {
        let sockets = server.handle.sockets();
        let is_there = |socket: &&SocketInfo| *socket.address.ip() == broadcast(1);
        sockets.iter().filter(is_there).count() == 4 // of nic1 and of lo
    });
    flood(&star);
    wait_until("something is heard", || server.heard.recv_timeout(PATIENCE).is_ok());
    let (come, lost) = come_and_lost(&server.stop());
    assert!(lost > 0, "{come} received");
    assert_eq!(come + lost, FLOOD_COUNT);
}

fn shards_of_two_clones_of_a_builder_count_apart(backend: Backend) {
    let star = Star::new(1);
    let builder = on_every_nic(backend);
    let servers =
        [2, 3].map(|count| Sharded::start(&star, builder.clone().shards(count), Duration::ZERO));
    let client = star.client(1).client([0, 0, 0, 0]);
    for _ in 0..100 {
        client.ask("both", broadcast(1), PORT);
        for server in &servers {
            server.heard.recv_timeout(PATIENCE).expect("each hears it");
        }
    }
    for server in servers {
        assert_eq!(come_and_lost(&server.stop()), (100, 0));
    }
}
