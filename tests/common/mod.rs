//! What the tests of both backends share: the harness that stamps a case for each backend and tells
//! what was skipped, an echo server over an engine, and clients that check who answered.
#![allow(dead_code, unused_imports, unused_macros)] // each test program uses a part of it

pub mod harness;
#[cfg(target_os = "linux")]
pub mod memory;
#[cfg(target_os = "linux")]
pub mod netns;
#[cfg(not(target_os = "linux"))]
#[path = "raw_ring_absent.rs"]
mod raw_ring;
#[cfg(target_os = "linux")]
mod raw_ring;
#[cfg(target_os = "linux")]
pub mod sandbox;
pub mod segments;
#[cfg(target_os = "linux")]
mod user_namespace;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, ToSocketAddrs, UdpSocket},
    ops::ControlFlow,
    process::{Child, Command},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU16, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use nicring::{
    Backend, Batch, Builder, Class, Counts, Datagram, Engine, Error, Handle, SocketInfo, Stats,
};
use socket2::{Domain, SockRef, Socket, Type};

pub(crate) use harness::{cases, for_each_backend};
pub use harness::{has_io_uring, main, main_with_namespaces, need_io_uring, on, skip};

pub const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// How long to wait for what must come.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait for what must not come.
pub const SETTLE: Duration = Duration::from_millis(50);

/// Settings for an engine on the loopback NIC only, at an unused port.
pub fn on_loopback(backend: Backend) -> Builder {
    on_loopback_without_port(backend).port(0)
}

/// As [`on_loopback`], but the caller adds the port.
pub fn on_loopback_without_port(backend: Backend) -> Builder {
    builder(backend).nic("127.0.0.1")
}

/// Settings for an engine on every NIC, at no port yet.
pub fn builder(backend: Backend) -> Builder {
    Engine::builder().backend(backend)
}

/// A port that no socket of this host holds, outside the range that port 0 chooses from.
pub fn unused_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 15_000 + (std::process::id() % 150) as u16 * 100;
    loop {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed) % 100;
        if is_free(port) {
            return port;
        }
    }
}

/// Whether a socket that does not share its port can bind it.
pub fn is_free(port: u16) -> bool {
    UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
}

#[track_caller]
pub fn assert_free(port: u16) {
    let _guard = lock_starts();
    for address in [Ipv4Addr::UNSPECIFIED, LOCALHOST] {
        if let Err(error) = UdpSocket::bind((address, port)) {
            panic!("{address}:{port} is not free: {error}");
        }
    }
}

/// Starts a program while other tests run. Until `exec`, the new process holds copies of all
/// descriptors, and with them sockets that were closed here. Meanwhile no test checks whether a
/// port is free.
pub fn spawn(command: &mut Command) -> io::Result<Child> {
    let _guard = lock_starts();
    command.spawn()
}

fn lock_starts() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One datagram as the server's handler saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    pub payload: Vec<u8>,
    pub source: SocketAddrV4,
    pub destination: Option<Ipv4Addr>,
    pub port: u16,
    pub class: Class,
    pub nic: Option<u32>,
    pub ifindex: Option<u32>,
    pub is_truncated: bool,
    pub kernel_time: Option<SystemTime>,
}

impl From<Datagram<'_>> for Heard {
    fn from(datagram: Datagram<'_>) -> Self {
        Self {
            payload: datagram.payload().to_vec(),
            source: datagram.source(),
            destination: datagram.destination(),
            port: datagram.port(),
            class: datagram.class(),
            nic: datagram.nic(),
            ifindex: datagram.ifindex(),
            is_truncated: datagram.is_truncated(),
            kernel_time: datagram.kernel_time(),
        }
    }
}

impl Heard {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).expect("the tests send text")
    }
}

/// An engine that runs on its own thread and reports what it hears. It is opened on the calling
/// thread and keeps that thread's network namespace.
pub struct Server {
    pub handle: Handle,
    pub port: u16,
    heard: Receiver<Heard>,
    thread: Option<JoinHandle<nicring::Result<Stats>>>,
}

impl Server {
    /// Answers every datagram with its own payload.
    pub fn echo(builder: Builder) -> Self {
        Self::start(builder, |batch| {
            for datagram in batch {
                let _ = batch.reply(&datagram, datagram.payload());
            }
            ControlFlow::Continue(())
        })
    }

    /// Gives every batch to `handler`, after its datagrams were reported to the test.
    pub fn start(
        builder: Builder,
        handler: impl FnMut(&Batch) -> ControlFlow<()> + Send + 'static,
    ) -> Self {
        Self::over(open(builder), handler)
    }

    pub fn over(
        engine: Engine,
        mut handler: impl FnMut(&Batch) -> ControlFlow<()> + Send + 'static,
    ) -> Self {
        let (sender, heard) = mpsc::channel();
        let (handle, port) = (engine.handle(), engine.ports()[0]);
        let run = move || {
            engine.run(|batch| {
                for datagram in batch {
                    // A test that has seen enough no longer receives.
                    let _ = sender.send(Heard::from(datagram));
                }
                handler(batch)
            })
        };
        let thread = thread::Builder::new().name("server".into()).spawn(run).expect("a thread");
        Self { handle, port, heard, thread: Some(thread) }
    }

    /// The address on loopback at which it listens.
    pub fn address(&self) -> SocketAddrV4 {
        SocketAddrV4::new(LOCALHOST, self.port)
    }

    #[track_caller]
    pub fn next(&self) -> Heard {
        match self.heard.recv_timeout(PATIENCE) {
            Ok(heard) => heard,
            Err(RecvTimeoutError::Timeout) => panic!("the server heard nothing"),
            Err(RecvTimeoutError::Disconnected) => panic!("the server has ended"),
        }
    }

    #[track_caller]
    pub fn take(&self, count: usize) -> Vec<Heard> {
        let mut heard = Vec::with_capacity(count);
        while heard.len() < count {
            match self.heard.recv_timeout(PATIENCE) {
                Ok(one) => heard.push(one),
                Err(_) => panic!("heard {} of {count}; {}", heard.len(), self.handle.stats()),
            }
        }
        heard
    }

    /// What it has heard by now and nobody has taken.
    pub fn take_ready(&self) -> Vec<Heard> {
        self.heard.try_iter().collect()
    }

    /// Everything that it hears until nothing comes for [`SETTLE`].
    pub fn drain(&self) -> Vec<Heard> {
        let mut heard = Vec::new();
        while let Ok(one) = self.heard.recv_timeout(SETTLE) {
            heard.push(one);
        }
        heard
    }

    /// Waits until the engine has ended, for whatever reason. `Err` is a panic of the handler.
    pub fn join(mut self) -> thread::Result<nicring::Result<Stats>> {
        self.thread.take().expect("joined only once").join()
    }

    /// Waits a little for what must not come and stops the engine. Returns the statistics and what
    /// it heard that the test has not taken.
    #[track_caller]
    pub fn stop(mut self) -> (Stats, Vec<Heard>) {
        thread::sleep(SETTLE);
        self.handle.stop();
        let thread = self.thread.take().expect("joined only once");
        let stats = thread.join().expect("the handler does not panic");
        let stats = stats.unwrap_or_else(|error| panic!("run: {error}"));
        (stats, self.heard.try_iter().collect())
    }

    /// As [`Server::stop`], but fails if it heard more than the test has taken.
    #[track_caller]
    pub fn stop_having_heard_all(self) -> Stats {
        let (stats, heard) = self.stop();
        assert!(heard.is_empty(), "heard besides: {heard:#?}");
        stats
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.handle.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[track_caller]
pub fn open(builder: Builder) -> Engine {
    builder.open().unwrap_or_else(|error| panic!("open: {error}"))
}

/// The error with which opening fails.
#[track_caller]
pub fn refused(builder: Builder) -> Error {
    match builder.open() {
        Ok(engine) => panic!("it opened: {:#?}", engine.handle().sockets()),
        Err(error) => error,
    }
}

/// Datagrams received, by class in the order of [`Class::ALL`].
pub fn by_class(counts: &Counts) -> [u64; 4] {
    Class::ALL.map(|class| counts.received_in(class))
}

/// Whether a socket is for the NIC with this name.
pub fn is_on(socket: &SocketInfo, nic: &str) -> bool {
    socket.nic.as_ref().is_some_and(|own| own.name == nic)
}

/// Asks `count` questions at a rate at which engines wait for several: runs of 8, one every 100 µs
/// or later. Takes the answers of a run 16 runs later, so that none is lost and no answer is waited
/// for while the engine keeps up.
#[track_caller]
pub fn ask_steadily(Client(socket): &Client, to: SocketAddrV4, count: usize) {
    const RUN_COUNT: usize = 8;
    const LAG: usize = 16 * RUN_COUNT;
    let ask = |number: usize| {
        socket.send_to(&(number as u64).to_be_bytes(), to).expect("a sent question");
    };
    let take = |number: usize| {
        let mut answer = [0; 8];
        let (len, source) = socket.recv_from(&mut answer).expect("an answer");
        assert_eq!((len, source), (8, to.into()));
        assert_eq!(u64::from_be_bytes(answer), number as u64);
    };
    let mut start = Instant::now();
    for first in (0..count + LAG).step_by(RUN_COUNT) {
        let run = first..first + RUN_COUNT;
        run.clone().filter(|number| *number < count).for_each(ask);
        run.filter(|number| *number >= LAG).for_each(|number| take(number - LAG));
        while start.elapsed() < Duration::from_micros(100) {
            std::hint::spin_loop();
        }
        start = Instant::now();
    }
}

/// A client's socket. It belongs to the network namespace of the thread that opens it.
pub struct Client(pub UdpSocket);

impl Client {
    #[track_caller]
    pub fn bind(address: impl ToSocketAddrs) -> Self {
        let socket = UdpSocket::bind(address).expect("an address of the client");
        socket.set_broadcast(true).expect("SO_BROADCAST");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        // macOS sends nothing longer than the send buffer, which is 9,216 bytes by default.
        SockRef::from(&socket).set_send_buffer_size(1 << 17).expect("SO_SNDBUF");
        Self(socket)
    }

    pub fn on_loopback() -> Self {
        Self::bind((LOCALHOST, 0))
    }

    /// The socket of a server that shares its port, as EPICS servers do: both options, on every
    /// address.
    #[track_caller]
    pub fn sharing(port: u16) -> Self {
        Self::sharing_at(Ipv4Addr::UNSPECIFIED, port)
    }

    /// As [`Client::sharing`], on one address.
    #[track_caller]
    pub fn sharing_at(address: Ipv4Addr, port: u16) -> Self {
        let socket = shared_socket_at(address, port).expect("a shared port");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Self(socket)
    }

    pub fn address(&self) -> SocketAddrV4 {
        v4(self.0.local_addr().expect("a bound socket"))
    }

    #[track_caller]
    pub fn send(&self, payload: impl AsRef<[u8]>, to: SocketAddrV4) {
        let payload = payload.as_ref();
        match self.0.send_to(payload, to) {
            Ok(sent) => assert_eq!(sent, payload.len()),
            Err(error) => panic!("sending to {to} from {}: {error}", self.address()),
        }
    }

    /// Sends to an address, at the server's port.
    #[track_caller]
    pub fn ask(&self, payload: &str, address: impl Into<Ipv4Addr>, port: u16) {
        self.send(payload, SocketAddrV4::new(address.into(), port));
    }

    #[track_caller]
    pub fn receive(&self) -> (Vec<u8>, SocketAddrV4) {
        let mut payload = vec![0; 1 << 16];
        loop {
            match self.0.recv_from(&mut payload) {
                Ok((len, source)) => {
                    payload.truncate(len);
                    return (payload, v4(source));
                }
                // Closing a ring may interrupt the thread that opened it.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => panic!("{} got no answer: {error}", self.address()),
            }
        }
    }

    /// Checks that the next datagram has this payload and comes from this source.
    #[track_caller]
    pub fn expect(&self, payload: impl AsRef<[u8]>, from: SocketAddrV4) {
        let (got, source) = self.receive();
        let text = String::from_utf8_lossy;
        assert_eq!((text(&got), source), (text(payload.as_ref()), from));
    }

    #[track_caller]
    pub fn expect_nothing(&self) {
        self.0.set_read_timeout(Some(SETTLE)).expect("a timeout");
        let mut payload = [0; 2048];
        if let Ok((len, source)) = self.0.recv_from(&mut payload) {
            let text = String::from_utf8_lossy(&payload[..len]);
            panic!("{} got {text:?} from {source}", self.address());
        }
        self.0.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    }
}

/// A socket that shares its port with whoever shares it too.
pub fn shared_socket_at(address: Ipv4Addr, port: u16) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    socket.set_reuse_address(true)?;
    share_port(&socket);
    socket.bind(&SocketAddr::from((address, port)).into())?;
    Ok(UdpSocket::from(socket))
}

fn v4(address: SocketAddr) -> SocketAddrV4 {
    match address {
        SocketAddr::V4(address) => address,
        SocketAddr::V6(address) => panic!("{address} is no IPv4 address"),
    }
}

/// Waits until a condition holds.
#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Calls the function when it goes out of scope, also by a panic.
pub struct OnDrop<F: Fn()>(pub F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

use raw_ring::share_port;
