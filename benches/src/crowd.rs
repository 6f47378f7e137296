//! Datagrams from many senders, each with a port of its own, as the clients of a site send them.
//! Shards divide what comes by its sender.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use nicring::search::{
    Protocol,
    load::{SearchLoad, SearchMix},
};

use crate::{
    affinity,
    network::{Host, Network, set_recv_buffer},
    outcome::Outcome,
    questions,
};

/// What the datagrams of a crowd are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// 80 bytes that nobody answers.
    Plain,
    /// SEARCH of CA for [`NAMES_PER_DATAGRAM`] names.
    Search {
        /// How many names the server has. As many others are asked for.
        name_count: u32,
        /// Whether the server has one of the names of each datagram, or none.
        has_hit: bool,
    },
}

/// As many as libca packs into a datagram.
pub const NAMES_PER_DATAGRAM: usize = 20;

/// Longer than any wait for an answer here.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Answers wait here until they are counted.
const ANSWER_BUFFER_BYTES: usize = 1 << 20;

/// Many senders, and what they send.
#[derive(Debug)]
pub struct Crowd<F> {
    sockets: Vec<UdpSocket>,
    datagrams: Vec<Vec<u8>>,
    load: Option<SearchLoad<F>>,
}

/// A crowd on the network's client, with sockets that no other crowd has.
///
/// # Errors
///
/// Those of the sockets: more than the process may have open (`ulimit -n`), for one.
pub fn gather(
    network: &Network,
    content: Content,
    sender_count: usize,
    datagram_count: usize,
) -> io::Result<Crowd<impl FnMut(u64, bool, &mut String)>> {
    let sockets = thread::scope(|scope| {
        let opened = scope.spawn(|| {
            network.enter(Host::Client)?;
            (0..sender_count).map(|_| open()).collect::<io::Result<_>>()
        });
        opened.join().expect("no panic")
    })?;
    let Content::Search { name_count, has_hit } = content else {
        return Ok(Crowd { sockets, datagrams: vec![vec![0x5a; 80]; datagram_count], load: None });
    };
    let mix = SearchMix {
        protocol: Protocol::Ca,
        hits: if has_hit { 1.0 / NAMES_PER_DATAGRAM as f64 } else { 0.0 },
        names_per_datagram: NAMES_PER_DATAGRAM,
        timeout: TIMEOUT,
        open_max: datagram_count * NAMES_PER_DATAGRAM,
    };
    let mut load = questions::search_load(mix, name_count);
    // CA answers to the source. The port of the answer is for PVA.
    let mut compose = || load.compose(true, 0, Instant::now()).to_vec();
    let datagrams = (0..datagram_count).map(|_| compose()).collect();
    Ok(Crowd { sockets, datagrams, load: Some(load) })
}

fn open() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_broadcast(true)?;
    set_recv_buffer(&socket, ANSWER_BUFFER_BYTES)?;
    Ok(socket)
}

impl<F: FnMut(u64, bool, &mut String)> Crowd<F> {
    /// Sends all datagrams, one by one, each from the next sender to the next address. Returns how
    /// long that took: over a veth pair, with all that the kernel does until they wait in the
    /// receivers' sockets.
    ///
    /// An equal part is sent from each CPU, as the queues of a NIC interrupt different CPUs. What
    /// one CPU has sent costs another one more to receive: it lies in the wrong cache.
    ///
    /// # Errors
    ///
    /// Those of the sockets.
    pub fn send(&self, destinations: &[SocketAddrV4]) -> io::Result<Duration> {
        let began = Instant::now();
        let mut ways = self.sockets.iter().cycle().zip(destinations.iter().cycle());
        let part_len = self.datagrams.len().div_ceil(affinity::cpu_count());
        for (cpu, datagrams) in self.datagrams.chunks(part_len).enumerate() {
            affinity::pin_to(cpu)?;
            for (datagram, (socket, to)) in datagrams.iter().zip(&mut ways) {
                socket.send_to(datagram, to)?;
            }
        }
        Ok(began.elapsed())
    }

    /// Counts the answers that have come.
    ///
    /// # Errors
    ///
    /// Those of the sockets.
    pub fn outcome(self) -> io::Result<Outcome> {
        let mut outcome = Outcome::default();
        let Self { sockets, load, .. } = self;
        let Some(mut load) = load else { return Ok(outcome) };
        let (now, mut buffer) = (Instant::now(), vec![0; 2048]);
        for socket in &sockets {
            socket.set_nonblocking(true)?;
            loop {
                match socket.recv(&mut buffer) {
                    Ok(len) => load.answer(&buffer[..len], now, drop),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
        }
        questions::end(load, &mut outcome);
        Ok(outcome)
    }
}
