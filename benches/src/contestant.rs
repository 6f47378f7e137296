//! Receivers that are measured: each serves a port on every NIC until told to stop.

use std::{
    fmt, io,
    net::Ipv4Addr,
    ops::ControlFlow,
    os::fd::AsFd,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use nicring::{Backend, Coalesce, Engine};
use nix::sys::{
    epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
    socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, setsockopt, sockopt},
};
use socket2::{Domain, Socket, Type};

/// A receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contestant {
    /// `Engine::run` on a backend, with its defaults.
    Run(Backend),
    /// `Engine::run` on io_uring, waiting up to so long for more datagrams; zero for not at all.
    Coalescing(Duration),
    /// Edge-triggered epoll and recvmmsg of 64, the same sockets and control messages.
    Epoll,
}

impl fmt::Display for Contestant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(backend) => write!(f, "run-{backend}"),
            Self::Coalescing(wait) => write!(f, "coalescing-{}us", wait.as_micros()),
            Self::Epoll => f.write_str("epoll-recvmmsg"),
        }
    }
}

impl FromStr for Contestant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "io_uring" => Ok(Self::Run(Backend::IoUring)),
            "portable" => Ok(Self::Run(Backend::Portable)),
            "epoll" => Ok(Self::Epoll),
            _ => {
                let wait_us = text.strip_prefix("coalesce-").and_then(|us| us.parse().ok());
                let wait = wait_us.map(Duration::from_micros).map(Self::Coalescing);
                wait.ok_or_else(|| {
                    format!("{text:?}: expected io_uring, portable, epoll or coalesce-MICROSECONDS")
                })
            }
        }
    }
}

/// What a receiver shares with whoever measures it.
#[derive(Debug, Default)]
pub struct Progress {
    /// Datagrams received.
    pub received_count: AtomicU64,
    /// Tells the receiver to end; it looks at least every 20 ms.
    pub stop: AtomicBool,
}

const TICK: Duration = Duration::from_millis(20);
/// As much as nicring asks for.
const RECV_BUFFER_BYTES: usize = 1 << 20;

impl Contestant {
    /// Receives in the calling thread, and calls `ready` once the sockets are open.
    ///
    /// # Errors
    ///
    /// A socket or a backend could not be opened, or failed.
    pub fn receive(
        self,
        addresses: &[Ipv4Addr],
        port: u16,
        progress: &Arc<Progress>,
        ready: impl FnOnce(),
    ) -> io::Result<()> {
        match self {
            Self::Epoll => receive_by_epoll(addresses, port, progress, ready),
            Self::Run(backend) => run(Engine::builder().backend(backend), port, progress, ready),
            Self::Coalescing(wait) => {
                let coalesce = match wait.is_zero() {
                    true => Coalesce::Off,
                    false => Coalesce::Fixed { datagram_count: 256, wait_max: wait },
                };
                let builder = Engine::builder().backend(Backend::IoUring).coalesce(coalesce);
                run(builder, port, progress, ready)
            }
        }
    }
}

fn run(
    builder: nicring::Builder,
    port: u16,
    progress: &Progress,
    ready: impl FnOnce(),
) -> io::Result<()> {
    let engine = builder.port(port).tick(TICK).open()?;
    ready();
    let mut received_count = 0;
    engine.run(|batch| {
        received_count += batch.len() as u64;
        progress.received_count.store(received_count, Relaxed);
        match progress.stop.load(Relaxed) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    })?;
    Ok(())
}

/// How many datagrams a call asks for.
const CALL_MAX: usize = 64;

fn receive_by_epoll(
    addresses: &[Ipv4Addr],
    port: u16,
    progress: &Progress,
    ready: impl FnOnce(),
) -> io::Result<()> {
    let sockets: Vec<Socket> =
        addresses.iter().map(|address| peer_socket(*address, port)).collect::<io::Result<_>>()?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    for (index, socket) in sockets.iter().enumerate() {
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        epoll.add(socket, EpollEvent::new(flags, index as u64))?;
    }
    ready();
    let mut memory = vec![0u8; CALL_MAX * 2048];
    let control = nix::cmsg_space!([u8; 64]);
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(CALL_MAX, Some(control));
    let mut events = vec![EpollEvent::empty(); sockets.len()];
    let mut received_count = 0;
    while !progress.stop.load(Relaxed) {
        let timeout = EpollTimeout::try_from(TICK).expect("20 ms fit");
        let ready_count = match epoll.wait(&mut events, timeout) {
            Err(nix::errno::Errno::EINTR) => 0,
            result => result?,
        };
        for event in &events[..ready_count] {
            let socket = &sockets[event.data() as usize];
            loop {
                let count = receive_some(socket, &mut headers, &mut memory)?;
                received_count += count as u64;
                if count < CALL_MAX {
                    break;
                }
            }
        }
        progress.received_count.store(received_count, Relaxed);
    }
    Ok(())
}

fn receive_some(
    socket: &Socket,
    headers: &mut MultiHeaders<SockaddrIn>,
    memory: &mut [u8],
) -> io::Result<usize> {
    use std::{io::IoSliceMut, os::fd::AsRawFd};
    let mut pieces: Vec<[IoSliceMut<'_>; 1]> =
        memory.chunks_exact_mut(2048).map(|piece| [IoSliceMut::new(piece)]).collect();
    let fd = socket.as_fd().as_raw_fd();
    let flags = MsgFlags::MSG_DONTWAIT;
    match recvmmsg(fd, headers, pieces.iter_mut(), flags, None) {
        // The control messages are looked at, as every contestant does.
        Ok(messages) => Ok(messages.filter(|message| message.address.is_some()).count()),
        Err(nix::errno::Errno::EAGAIN) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

fn peer_socket(address: Ipv4Addr, port: u16) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    socket.set_nonblocking(true)?;
    setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
    setsockopt(&socket, sockopt::RxqOvfl, &1)?;
    setsockopt(&socket, sockopt::RcvBufForce, &RECV_BUFFER_BYTES)?;
    socket.bind(&std::net::SocketAddrV4::new(address, port).into())?;
    Ok(socket)
}
