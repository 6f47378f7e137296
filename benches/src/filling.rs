//! Datagrams that wait in the sockets of a receiver that stands still: how long they take once it
//! goes on. The sender, which has done its work by then, is not what is measured.

use std::{
    error::Error,
    hint, io,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    os::fd::AsFd,
    thread,
    time::Duration,
};

use nix::sys::socket::{SockaddrIn, getsockopt, sockopt};

use crate::{
    clock::shared_time,
    contestant::{Contestant, RECV_BUFFER_BYTES, mmsg::Received},
    network::{Host, Network, dropped_count, set_recv_buffer},
    outcome::CLIENT_PORT,
    receiver::{PORT, Receiver},
    segments::{self, SEGMENT_COUNT_MAX},
    service::Task,
};

const PAYLOAD_LEN: usize = 80;
/// What the kernel takes from a receive buffer for one of these, and some more.
const CHARGE_PER_DATAGRAM: usize = 1024;
/// What has not arrived by then is lost. A slow receiver takes a second for all.
const TIME_MAX: Duration = Duration::from_secs(10);

/// A receiver, and the datagrams that it is to receive.
#[derive(Debug)]
pub struct Filling {
    receiver: Receiver,
    is_answered: bool,
    socket: UdpSocket,
    destinations: Vec<SockaddrIn>,
    /// How many wait at each NIC.
    depth: usize,
    received: Received,
}

impl Filling {
    /// Starts the running program again as a receiver that counts what it receives, or sends it
    /// back. `count` is that of [`count_of`].
    ///
    /// # Errors
    ///
    /// The contestant's reason why it cannot serve.
    pub fn start(
        network: &Network,
        contestant: Contestant,
        count: usize,
        is_answered: bool,
    ) -> Result<Self, Box<dyn Error>> {
        let task = if is_answered { Task::Echo } else { Task::Count };
        let receiver = Receiver::start(contestant, &task, PORT, network)?;
        let socket = client_socket(network)?;
        let to = |address| SockaddrIn::from(SocketAddrV4::new(address, PORT));
        Ok(Self {
            receiver,
            is_answered,
            socket,
            destinations: network.server_addresses().map(to).collect(),
            depth: count / usize::from(network.nic_count()),
            received: Received::new(SEGMENT_COUNT_MAX),
        })
    }

    /// Fills the sockets and lets the receiver go on. Returns how long it took for all, or until
    /// the client had all answers.
    ///
    /// # Errors
    ///
    /// If datagrams or answers were lost, and why.
    pub fn time(&mut self) -> Result<Duration, Box<dyn Error>> {
        let count = self.depth * self.destinations.len();
        self.receiver.announce(count as u64)?;
        self.receiver.stop()?;
        let payloads = vec![0x5a; self.depth * PAYLOAD_LEN];
        for to in &self.destinations {
            segments::send(self.socket.as_fd(), *to, &payloads, PAYLOAD_LEN)?;
        }
        // Until the kernel has put the last ones into the sockets.
        thread::sleep(Duration::from_micros(50));
        let began = shared_time()?;
        self.receiver.go_on()?;
        let answered = if self.is_answered { Some(self.take_answers(count)?) } else { None };
        let Some(received) = self.receiver.end(TIME_MAX)? else {
            let dropped_count = dropped_count(self.receiver.pid())?;
            return Err(format!(
                "not all of {count} datagrams were received: {dropped_count} found the sockets \
                 full (the receive buffers hold fewer than {} each)",
                self.depth
            )
            .into());
        };
        Ok(answered.unwrap_or(received).saturating_sub(began))
    }

    /// Waits for the answers. Returns when the last one was there.
    fn take_answers(&mut self, count: usize) -> Result<Duration, Box<dyn Error>> {
        let end = shared_time()? + TIME_MAX;
        let mut answered_count = 0;
        while answered_count < count {
            answered_count += self.received.receive(self.socket.as_fd())?;
            if shared_time()? > end {
                return Err(format!("{answered_count} of {count} datagrams were answered").into());
            }
            // The client's socket is the receiver's to fill, too.
            (0..100).for_each(|_| hint::spin_loop());
        }
        Ok(shared_time()?)
    }
}

/// How many datagrams may wait, over all NICs: at most `count_max`, as many for each, and no more
/// than a receive buffer holds.
///
/// # Errors
///
/// Those of a socket.
pub fn count_of(network: &Network, count_max: usize) -> io::Result<usize> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    set_recv_buffer(&socket, RECV_BUFFER_BYTES)?;
    let nic_count = usize::from(network.nic_count());
    let depth_max = getsockopt(&socket, sockopt::RcvBuf)? / CHARGE_PER_DATAGRAM;
    Ok((count_max / nic_count).min(depth_max) * nic_count)
}

/// A socket in the client's namespace, where it stays.
fn client_socket(network: &Network) -> io::Result<UdpSocket> {
    thread::scope(|scope| {
        let opened = scope.spawn(|| {
            network.enter(Host::Client)?;
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, CLIENT_PORT))?;
            socket.set_nonblocking(true)?;
            set_recv_buffer(&socket, 2 * RECV_BUFFER_BYTES)?;
            Ok(socket)
        });
        opened.join().expect("no panic")
    })
}
