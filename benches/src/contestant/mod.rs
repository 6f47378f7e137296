//! The receivers that are measured. Each serves a port on every NIC.

mod echo;
mod engine;
mod epoll;
pub(crate) mod mmsg;
mod threads;
mod tuning;

#[cfg(feature = "peers")]
mod async_shards;
#[cfg(feature = "peers")]
mod batches;
#[cfg(feature = "peers")]
mod compio_udp;
#[cfg(feature = "peers")]
mod epics;
#[cfg(feature = "peers")]
mod quinn;
#[cfg(feature = "peers")]
mod tokio_udp;
#[cfg(feature = "peers")]
mod uring;

use std::{
    fmt, io,
    net::{Ipv4Addr, SocketAddrV4},
    str::FromStr,
    time::Duration,
};

use nicring::Backend;
use socket2::{Domain, Socket, Type};

pub use self::tuning::{Asynchrony, Tuning};
use crate::{network::set_recv_buffer, server::Server, service::Service};

/// A receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contestant {
    /// `Engine::run`, or shards.
    Run(Tuning),
    /// `AsyncEngine::recv_batch` on io_uring, inside a runtime, with a
    /// [`nicring::Builder::delay_max`].
    RecvBatch(Runtime, Duration),
    /// Edge-triggered epoll with `recvmmsg` and `sendmmsg`. It may sleep after each wake-up.
    Epoll {
        /// How long it sleeps after each wake-up.
        sleep: Duration,
    },
    /// tokio's `UdpSocket`, one task per socket.
    Tokio {
        /// Whether it asks for destination, interface and drop counts.
        is_told: bool,
    },
    /// quinn-udp on tokio's readiness, one task per socket.
    QuinnUdp,
    /// tokio-uring's `UdpSocket`, one task per socket.
    TokioUring,
    /// compio's `UdpSocket`, one task per socket.
    Compio,
    /// nicring's `AsyncUdpV4`, by readiness or by its ring.
    UdpV4(Backend),
    /// The same by readiness, with several datagrams per receive.
    UdpV4Batch,
    /// `AsyncUdpV4` of epics-base-rs 0.18.3.
    Seed,
    /// `AsyncUdpV4` of epics-libcom-rs 0.33.
    Libcom,
    /// `std::net::UdpSocket`, one blocking thread per socket.
    Threads,
    /// A separate program that answers SEARCH.
    Server(Server),
    /// Sends everything back by one wildcard socket. A reference for the servers.
    Echo {
        /// Whether datagrams to one client leave together, as segments that the kernel cuts apart.
        is_segmented: bool,
    },
}

/// The runtime that drives [`Contestant::RecvBatch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// tokio's current-thread runtime.
    CurrentThread,
    /// tokio's multi-thread runtime with two workers.
    MultiThread,
    /// tokio-uring.
    TokioUring,
}

/// How long `epoll-sleep` sleeps.
const WAIT: Duration = Duration::from_micros(200);
/// What nicring allows unless it is told.
const DELAY: Duration = Duration::from_micros(100);
const NO_DELAY: Duration = Duration::ZERO;
const NICRING: Tuning = Tuning::new(Backend::IoUring, DELAY);
const PORTABLE: Tuning = Tuning::new(Backend::Portable, DELAY);

/// All contestants that have a name, as options take it.
pub const ALL: &[(&str, Contestant)] = &[
    ("nicring", Contestant::Run(NICRING)),
    ("nicring-portable", Contestant::Run(PORTABLE)),
    ("nicring-no-delay", Contestant::Run(Tuning::new(Backend::IoUring, NO_DELAY))),
    ("nicring-portable-no-delay", Contestant::Run(Tuning::new(Backend::Portable, NO_DELAY))),
    ("recv_batch", Contestant::RecvBatch(Runtime::CurrentThread, DELAY)),
    ("recv_batch-no-delay", Contestant::RecvBatch(Runtime::CurrentThread, NO_DELAY)),
    ("recv_batch-mt", Contestant::RecvBatch(Runtime::MultiThread, DELAY)),
    ("recv_batch-uring", Contestant::RecvBatch(Runtime::TokioUring, DELAY)),
    ("epoll", Contestant::Epoll { sleep: Duration::ZERO }),
    ("epoll-sleep", Contestant::Epoll { sleep: WAIT }),
    ("tokio", Contestant::Tokio { is_told: false }),
    ("tokio-told", Contestant::Tokio { is_told: true }),
    ("quinn-udp", Contestant::QuinnUdp),
    ("tokio-uring", Contestant::TokioUring),
    ("compio", Contestant::Compio),
    ("udp-v4-ring", Contestant::UdpV4(Backend::IoUring)),
    ("udp-v4-ready", Contestant::UdpV4(Backend::Portable)),
    ("udp-v4-batch", Contestant::UdpV4Batch),
    ("seed", Contestant::Seed),
    ("libcom", Contestant::Libcom),
    ("threads", Contestant::Threads),
    ("serve", Contestant::Server(Server::Nicring(Backend::IoUring))),
    ("serve-portable", Contestant::Server(Server::Nicring(Backend::Portable))),
    ("serve-no-delay", Contestant::Server(Server::NicringNoDelay)),
    ("pvxs", Contestant::Server(Server::Pvxs)),
    ("rsrv", Contestant::Server(Server::Rsrv)),
    ("caproto", Contestant::Server(Server::Caproto)),
    ("echo", Contestant::Echo { is_segmented: false }),
    ("echo-segment", Contestant::Echo { is_segmented: true }),
];

impl fmt::Display for Contestant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match ALL.iter().find(|(_, contestant)| contestant == self) {
            Some((name, _)) => f.pad(name),
            None => match self {
                Self::Run(tuning) => {
                    let (name, base) = match tuning.backend {
                        Backend::Portable => ("nicring-portable", &PORTABLE),
                        _ => ("nicring", &NICRING),
                    };
                    write!(f, "{name}")?;
                    tuning.differences(base, f)
                }
                other => write!(f, "{other:?}"),
            },
        }
    }
}

impl FromStr for Contestant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split('+');
        let base = parts.next().unwrap_or_default();
        let known = ALL.iter().find(|(name, _)| *name == base).map(|(_, contestant)| *contestant);
        let Some(mut contestant) = known else {
            let names: Vec<_> = ALL.iter().map(|(name, _)| *name).collect();
            return Err(format!("{base:?}: expected {}", names.join(", ")));
        };
        for setting in parts {
            match &mut contestant {
                Self::Run(tuning) => tuning.set(setting)?,
                _ => {
                    return Err(format!(
                        "{text:?}: only nicring and nicring-portable have settings"
                    ));
                }
            }
        }
        Ok(contestant)
    }
}

/// What a contestant serves.
#[derive(Debug)]
pub struct Setup {
    /// Its address on each NIC, in the order of the NICs.
    pub addresses: Vec<Ipv4Addr>,
    /// The port on all of them.
    pub port: u16,
    /// What it does with datagrams.
    pub service: Service,
    /// How often `nicring`, `nicring-portable` and `epoll` check whether they have to end. With
    /// `None` they never check and end with their process, like all other contestants.
    pub look_every: Option<Duration>,
}

impl Contestant {
    /// Its name as tables show it.
    #[must_use]
    pub fn title(self) -> String {
        let name = self.to_string();
        let (name, settings) = name.split_once('+').unwrap_or((&name, ""));
        let mut title = match name {
            "nicring-portable" => "nicring portable",
            "nicring-no-delay" => "nicring, no delay",
            "nicring-portable-no-delay" => "nicring portable, no delay",
            "serve" => "nicring serve",
            "serve-portable" => "nicring serve portable",
            "serve-no-delay" => "nicring serve, no delay",
            _ => name,
        }
        .to_owned();
        for setting in settings.split('+').filter(|setting| !setting.is_empty()) {
            title = title + ", " + setting;
        }
        title
    }

    /// Serves in the calling thread. Calls `ready` when the sockets are open.
    ///
    /// # Errors
    ///
    /// If a socket or a backend could not be opened, or failed.
    pub fn serve(self, setup: Setup, ready: &mut dyn FnMut()) -> io::Result<()> {
        match self {
            Self::Run(tuning) => match tuning.asynchrony {
                None => engine::run(tuning, setup, ready),
                #[cfg(feature = "peers")]
                Some(asynchrony) => async_shards::serve(tuning, asynchrony, setup, ready),
                #[cfg(not(feature = "peers"))]
                Some(_) => Err(io::Error::other(format!("{self} takes the feature `peers`"))),
            },
            Self::Epoll { sleep } => epoll::serve(sleep, &setup, ready),
            Self::Threads => threads::serve(setup, ready),
            Self::Echo { is_segmented } => echo::serve(is_segmented, &setup, ready),
            Self::Server(_) => Err(io::Error::other(format!("{self} is a program of its own"))),
            #[cfg(feature = "peers")]
            Self::RecvBatch(runtime, delay) => batches::serve(runtime, delay, &setup, ready),
            #[cfg(feature = "peers")]
            Self::Tokio { is_told } => tokio_udp::serve(is_told, setup, ready),
            #[cfg(feature = "peers")]
            Self::QuinnUdp => quinn::serve(setup, ready),
            #[cfg(feature = "peers")]
            Self::TokioUring => uring::serve(setup, ready),
            #[cfg(feature = "peers")]
            Self::Compio => compio_udp::serve(setup, ready),
            #[cfg(feature = "peers")]
            Self::UdpV4(backend) => epics::serve_nicring(backend, setup, ready),
            #[cfg(feature = "peers")]
            Self::UdpV4Batch => epics::serve_batches(setup, ready),
            #[cfg(feature = "peers")]
            Self::Seed => epics::serve_seed(setup, ready),
            #[cfg(feature = "peers")]
            Self::Libcom => epics::serve_libcom(setup, ready),
            #[cfg(not(feature = "peers"))]
            _ => Err(io::Error::other(format!("{self} takes the feature `peers`"))),
        }
    }
}

/// The receive buffer that nicring asks for by default.
pub(crate) const RECV_BUFFER_BYTES: usize = 1 << 20;
/// The length of nicring's buffers.
const BUFFER_LEN: usize = 2048;
/// How many datagrams a contestant takes from one socket before it counts them.
const DRAIN_MAX: usize = 64;

/// Opens one socket per NIC, bound to its address.
fn open_sockets(setup: &Setup, is_blocking: bool) -> io::Result<Vec<Socket>> {
    let open = |address: &Ipv4Addr| {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
        socket.set_nonblocking(!is_blocking)?;
        set_recv_buffer(&socket, RECV_BUFFER_BYTES)?;
        socket.bind(&SocketAddrV4::new(*address, setup.port).into())?;
        Ok(socket)
    };
    setup.addresses.iter().map(open).collect()
}

#[cfg(feature = "peers")]
fn ipv4(address: std::net::SocketAddr) -> io::Result<SocketAddrV4> {
    match address {
        std::net::SocketAddr::V4(address) => Ok(address),
        std::net::SocketAddr::V6(_) => Err(io::Error::other("IPv6 at an IPv4 socket")),
    }
}
