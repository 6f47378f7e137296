//! The measurement behind the program `paced`.

use std::{
    error::Error,
    io::{BufRead, BufReader, Write},
    process::{Child, Command, ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use clap::Parser;
use nicring_bench::{
    clock::ThreadClock,
    contestant::{Contestant, Progress},
    network::{self, Host, Network},
    sender::Sender,
};

/// Counts the system calls of a receiver at a steady rate over several NICs.
///
/// Needs root, `ip` and `perf`. The receiver is a process of its own in a network namespace of its
/// own; the sender spaces its datagrams evenly.
#[derive(Debug, Parser)]
struct Arguments {
    /// io_uring, portable, epoll or coalesce-MICROSECONDS
    #[arg(long, default_value = "io_uring")]
    backend: Contestant,
    /// How many NICs
    #[arg(long, default_value_t = 4)]
    nics: u8,
    /// Datagrams a second over all NICs
    #[arg(long, default_value_t = 200_000)]
    rate: u32,
    /// How long to measure, in seconds
    #[arg(long, default_value_t = 10)]
    duration_s: u64,
    /// Fails above so many system calls a datagram
    #[arg(long, default_value_t = 0.2)]
    syscalls_max: f64,
    /// Fails above this share of datagrams lost
    #[arg(long, default_value_t = 0.001)]
    loss_max: f64,
    /// The receiver's part: in this network namespace, until standard input ends
    #[arg(long, hide = true)]
    receive_in: Option<String>,
}

const PORT: u16 = 5076;

pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.receive_in {
        Some(namespace) => receive(&arguments, namespace).map(|()| true),
        None => measure(&arguments),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("paced: {error}");
            ExitCode::from(2)
        }
    }
}

/// Receives until standard input ends; says on each line of it how far it has come.
fn receive(arguments: &Arguments, namespace: &str) -> Result<(), Box<dyn Error>> {
    network::enter(namespace)?;
    let progress = Arc::new(Progress::default());
    let addresses: Vec<_> = (0..arguments.nics).map(Network::server_address).collect();
    let (send_clock, clock) = std::sync::mpsc::channel();
    let receiver = {
        let (progress, contestant) = (Arc::clone(&progress), arguments.backend);
        thread::spawn(move || {
            let ready = || send_clock.send(ThreadClock::of_this_thread()).expect("main waits");
            contestant.receive(&addresses, PORT, &progress, ready)
        })
    };
    let Ok(clock) = clock.recv() else {
        receiver.join().expect("no panic")?;
        return Err("the receiver did not start".into());
    };
    println!("ready");
    for _ in std::io::stdin().lines() {
        let cpu_ns = clock.cpu_time()?.as_nanos();
        println!("{} {cpu_ns}", progress.received_count.load(Relaxed));
    }
    progress.stop.store(true, Relaxed);
    receiver.join().expect("no panic")?;
    Ok(())
}

fn measure(arguments: &Arguments) -> Result<bool, Box<dyn Error>> {
    let network = Network::new(arguments.nics)?;
    let mut receiver = Receiver::start(arguments, &network)?;
    let duration = Duration::from_secs(arguments.duration_s);
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let sender = {
        let sender = Sender::new(network.server_addresses(), PORT, Some(arguments.rate));
        let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
        let namespace = network.namespace(Host::Client);
        thread::spawn(move || {
            network::enter(&namespace)?;
            sender.send(duration + Duration::from_secs(60), &stop, &sent)
        })
    };
    // The first second warms up.
    thread::sleep(Duration::from_secs(1));
    let before = receiver.progress()?;
    let syscall_count = count_syscalls(receiver.child.id(), duration)?;
    let after = receiver.progress()?;
    stop.store(true, Relaxed);
    let sent_count = sender.join().expect("no panic")?;
    // What is in the sockets still arrives; then the books of the whole run are closed.
    thread::sleep(Duration::from_millis(200));
    let received_count = receiver.progress()?.received_count;
    let datagrams = (after.received_count - before.received_count) as f64;
    let syscalls = syscall_count as f64 / datagrams;
    let cpu_ns = (after.cpu_ns - before.cpu_ns) as f64 / datagrams;
    let loss = 1.0 - received_count as f64 / sent_count as f64;
    println!(
        "{}, {} NICs: {:.0} datagrams/s, {syscalls:.4} system calls and {cpu_ns:.0} ns of CPU a \
         datagram, {:.4} % lost of {sent_count}",
        arguments.backend,
        arguments.nics,
        datagrams / duration.as_secs_f64(),
        100.0 * loss,
    );
    Ok(syscalls < arguments.syscalls_max && loss < arguments.loss_max)
}

struct Receiver {
    child: Child,
    answers: BufReader<std::process::ChildStdout>,
}

struct Snapshot {
    received_count: u64,
    cpu_ns: u64,
}

impl Receiver {
    fn start(arguments: &Arguments, network: &Network) -> Result<Self, Box<dyn Error>> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--receive-in", &network.namespace(Host::Server)])
            .args(["--nics", &arguments.nics.to_string()])
            .args(["--backend", &argument_of(arguments.backend)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let answers = BufReader::new(child.stdout.take().expect("a pipe was asked for"));
        let mut receiver = Self { child, answers };
        match receiver.answer()?.as_str() {
            "ready" => Ok(receiver),
            other => Err(format!("the receiver said {other:?}").into()),
        }
    }

    fn answer(&mut self) -> Result<String, Box<dyn Error>> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    fn progress(&mut self) -> Result<Snapshot, Box<dyn Error>> {
        self.child.stdin.as_mut().expect("a pipe was asked for").write_all(b"\n")?;
        let line = self.answer()?;
        let (received, cpu) = line.split_once(' ').ok_or("the receiver has ended")?;
        Ok(Snapshot { received_count: received.parse()?, cpu_ns: cpu.parse()? })
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

fn argument_of(contestant: Contestant) -> String {
    match contestant {
        Contestant::Run(backend) => backend.to_string(),
        Contestant::Coalescing(wait) => format!("coalesce-{}", wait.as_micros()),
        Contestant::Epoll => "epoll".into(),
    }
}

/// All system calls of a process, by tracepoint: `strace` would slow it a thousandfold.
fn count_syscalls(pid: u32, duration: Duration) -> Result<u64, Box<dyn Error>> {
    let output = Command::new("perf")
        .args(["stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-p", &pid.to_string()])
        .args(["--", "sleep", &duration.as_secs_f64().to_string()])
        .output()
        .map_err(|error| format!("perf: {error}: install linux-perf"))?;
    let report = String::from_utf8_lossy(&output.stderr);
    let line = report.lines().find(|line| line.contains("raw_syscalls"));
    let count = line.and_then(|line| line.split(',').next()).and_then(|count| count.parse().ok());
    count.ok_or_else(|| format!("perf counted nothing: {report}").into())
}
