//! The measurement behind the program `flap`.

use std::{
    error::Error,
    io::{self, Write},
    net::{Ipv4Addr, UdpSocket},
    ops::ControlFlow,
    process::{self, Command, ExitCode, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use clap::Parser;
use nicring::{Backend, Engine, Handle};
use nicring_bench::{affinity, network, outcome::verdict};

const PORT: u16 = 5076;
const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 128);
/// One question after the other, to each NIC in turn.
const ASK_EVERY: Duration = Duration::from_millis(2);

/// Makes and deletes one of many NICs twice a second, and asks at the others meanwhile.
///
/// Needs root and `ip`. The server has a CPU for itself, the rest shares the first one.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many NICs, up to 1,000
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u16).range(2..=1000))]
    nics: u16,
    /// How long to measure each backend, in seconds
    #[arg(long, default_value_t = 20)]
    duration_s: u64,
    /// Fails if a datagram waited longer than this for the handler, in milliseconds
    #[arg(long, default_value_t = 20.0)]
    delay_max_ms: f64,
    /// Fails if the NIC was heard later than this after its address, in milliseconds
    #[arg(long, default_value_t = 50.0)]
    heard_max_ms: f64,
}

pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let measured = affinity::pin_to_first_cpu().map_err(Into::into).and_then(|()| {
        let host = Host::new(arguments.nics)?;
        let mut is_good = true;
        for backend in [Backend::IoUring, Backend::Portable] {
            is_good &= measure(&host, backend, &arguments)?;
        }
        Ok::<_, Box<dyn Error>>(is_good)
    });
    verdict("flap", measured)
}

/// A host with many NICs, and one neighbour behind all of them.
struct Host {
    server: String,
    neighbour: String,
    nic_count: u16,
}

impl Host {
    fn new(nic_count: u16) -> Result<Self, Box<dyn Error>> {
        let name = format!("nb{}", process::id());
        let (server, neighbour) = (format!("{name}-server"), format!("{name}-client"));
        let host = Self { server, neighbour, nic_count };
        ip(&format!("netns add {}\nnetns add {}", host.server, host.neighbour), None)?;
        ip("link set lo up", Some(&host.server))?;
        for number in 0..nic_count {
            host.make(number)?;
            host.give_address(number)?;
        }
        Ok(host)
    }

    fn make(&self, number: u16) -> io::Result<()> {
        let peer = format!("c{number} netns {}", self.neighbour);
        ip(&format!("link add s{number} type veth peer name {peer}"), Some(&self.server))?;
        let [a, b, c, _] = address(number).octets();
        let theirs = format!("address add {a}.{b}.{c}.2/24 brd + dev c{number}");
        ip(&format!("{theirs}\nlink set c{number} up"), Some(&self.neighbour))?;
        ip(&format!("link set s{number} up"), Some(&self.server))
    }

    fn give_address(&self, number: u16) -> io::Result<()> {
        let own = address(number);
        ip(&format!("address add {own}/24 brd + dev s{number}"), Some(&self.server))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = ip(&format!("netns delete {}", self.server), None);
        let _ = ip(&format!("netns delete {}", self.neighbour), None);
    }
}

/// The address of the server's NIC with this number.
fn address(number: u16) -> Ipv4Addr {
    Ipv4Addr::new(10, 100 + (number / 250) as u8, (number % 250) as u8, 1)
}

fn ip(commands: &str, namespace: Option<&str>) -> io::Result<()> {
    let mut command = Command::new("ip");
    command.args(namespace.map(|name| ["-n", name]).iter().flatten()).args(["-batch", "-"]);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().expect("a pipe").write_all(commands.as_bytes())?;
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let reason = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("ip: {}: {commands}", reason.trim())))
}

/// How long each datagram waited for the handler, in ns.
type Delays = Arc<Mutex<Vec<u64>>>;

fn measure(host: &Host, backend: Backend, arguments: &Arguments) -> Result<bool, Box<dyn Error>> {
    let delays = Delays::default();
    let (handle, server) = serve(host, backend, Arc::clone(&delays))?;
    let is_over = AtomicBool::new(false);
    let sent_count = AtomicU64::new(0);
    let duration = Duration::from_secs(arguments.duration_s);
    let (heard, asked) = thread::scope(|scope| {
        let asker = scope.spawn(|| ask(host, &is_over, &sent_count));
        // Until each NIC has been asked once, and the neighbours know each other.
        thread::sleep(ASK_EVERY * u32::from(host.nic_count) + Duration::from_millis(500));
        let warmed_up = sent_count.load(Relaxed);
        delays.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let heard = flap(host, &handle, duration);
        is_over.store(true, Relaxed);
        (heard, asker.join().expect("no panic").map(|answered| (answered, warmed_up)))
    });
    handle.stop();
    let stats = server.join().expect("no panic")?;
    let (mut heard_ms, (answered_count, _)) = (heard?, asked?);
    let lost_count = sent_count.load(Relaxed) - answered_count;
    let mut delays = std::mem::take(&mut *delays.lock().unwrap_or_else(PoisonError::into_inner));
    delays.sort_unstable();
    heard_ms.sort_by(f64::total_cmp);
    let ms = |share: f64| delays[((delays.len() - 1) as f64 * share) as usize] as f64 / 1e6;
    let (delay_max_ms, heard_max_ms) = (ms(1.0), heard_ms.last().copied().unwrap_or(f64::MAX));
    println!(
        "{backend:<9} {} NICs, one made and deleted {} times: {answered_count} answered, \
         {lost_count} lost; waited for the handler: p50 {:.3} ms, p99 {:.3} ms, at most {:.2} ms; \
         heard {:.1} ms after its address (median), at most {heard_max_ms:.1} ms; {stats}",
        host.nic_count,
        heard_ms.len(),
        ms(0.5),
        ms(0.99),
        delay_max_ms,
        heard_ms[heard_ms.len() / 2],
    );
    Ok(lost_count == 0
        && delay_max_ms <= arguments.delay_max_ms
        && heard_max_ms <= arguments.heard_max_ms)
}

type Serving = thread::JoinHandle<nicring::Result<nicring::Stats>>;

/// Starts an echo server that notes the delay of each datagram.
fn serve(
    host: &Host,
    backend: Backend,
    delays: Delays,
) -> Result<(Handle, Serving), Box<dyn Error>> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let namespace = host.server.clone();
    let server = thread::spawn(move || {
        let open = || -> Result<Engine, Box<dyn Error + Send + Sync>> {
            network::enter(&namespace)?;
            affinity::leave_first_cpu_if_pinned()?;
            Ok(Engine::builder().backend(backend).port(PORT).join(GROUP).kernel_time().open()?)
        };
        let engine = match open() {
            Ok(engine) => engine,
            Err(error) => {
                let _ = sender.send(Err(error));
                return Err(nicring::Error::Stopped);
            }
        };
        let _ = sender.send(Ok(engine.handle()));
        engine.run(|batch| {
            let now = SystemTime::now();
            let waited = batch.iter().filter_map(|datagram| {
                Some(now.duration_since(datagram.kernel_time()?).unwrap_or_default().as_nanos()
                    as u64)
            });
            delays.lock().unwrap_or_else(PoisonError::into_inner).extend(waited);
            for datagram in batch {
                let _ = batch.reply(&datagram, datagram.payload());
            }
            ControlFlow::Continue(())
        })
    });
    let handle = receiver.recv()?.map_err(|error| error.to_string())?;
    Ok((handle, server))
}

/// Asks at all NICs but the first, one after the other. Returns how many questions were answered.
fn ask(host: &Host, is_over: &AtomicBool, sent_count: &AtomicU64) -> io::Result<u64> {
    network::enter(&host.neighbour)?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let (mut answered_count, mut next_at) = (0, Instant::now());
    let mut take_until = |end: Instant| -> io::Result<()> {
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            socket.set_read_timeout(Some(left))?;
            match socket.recv(&mut [0; 64]) {
                Ok(_) => answered_count += 1,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    };
    while !is_over.load(Relaxed) {
        for number in 1..host.nic_count {
            socket.send_to(b"are you there", (address(number), PORT))?;
            sent_count.fetch_add(1, Relaxed);
            next_at = Instant::now().max(next_at + ASK_EVERY);
            take_until(next_at)?;
        }
    }
    take_until(Instant::now() + Duration::from_millis(500))?;
    Ok(answered_count)
}

/// Deletes the first NIC and makes it again, twice a second. Returns how long after its address was
/// given to it the engine heard on it, in ms, each time.
fn flap(host: &Host, handle: &Handle, duration: Duration) -> io::Result<Vec<f64>> {
    let (end, own) = (Instant::now() + duration, address(0));
    let hears = || handle.sockets().iter().any(|socket| *socket.address.ip() == own);
    let mut heard_ms = Vec::new();
    while Instant::now() < end {
        let next_at = Instant::now() + Duration::from_millis(500);
        ip("link delete s0", Some(&host.server))?;
        while hears() {
            thread::sleep(Duration::from_micros(500));
        }
        host.make(0)?;
        let start = Instant::now();
        host.give_address(0)?;
        while !hears() && start.elapsed() < Duration::from_secs(5) {
            thread::sleep(Duration::from_micros(500));
        }
        heard_ms.push(start.elapsed().as_secs_f64() * 1e3);
        thread::sleep(next_at.saturating_duration_since(Instant::now()));
    }
    Ok(heard_ms)
}
