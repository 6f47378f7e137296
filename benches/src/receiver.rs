//! A contestant in its own process, so that CPU time, system calls, allocations and memory are
//! counted for it alone. The program starts itself again, and the two processes talk over pipes.

use std::{
    env,
    error::Error,
    io,
    io::{BufRead, BufReader, Write},
    net::SocketAddrV4,
    os::fd::AsFd,
    process::{self, Child, ChildStdout, Command, ExitCode, Stdio},
    sync::{Arc, atomic::Ordering::Relaxed, mpsc},
    thread,
    time::Duration,
};

use nicring::search::Protocol;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use crate::{
    affinity,
    allocations::allocation_count,
    clock::ProcessClock,
    contestant::{Contestant, Setup},
    memory::rss_bytes,
    network::{self, Host, Network},
    outcome::CLIENT_PORT,
    service::{Progress, Service, Task},
};

/// The port that is served, or the first one of several.
pub const PORT: u16 = 5076;
/// The environment variable that makes the program a receiver. It holds contestant, task, number of
/// names, port, number of NICs and namespace.
const VARIABLE: &str = "NICRING_BENCH_RECEIVER";

/// Runs as the receiver until standard input ends, if this process was started as one. Call it
/// first in `main`.
#[must_use]
pub fn serve_if_asked() -> Option<ExitCode> {
    let order = env::var(VARIABLE).ok()?;
    if let Err(error) = serve(&order) {
        println!("failed: {error}");
        return Some(ExitCode::FAILURE);
    }
    Some(ExitCode::SUCCESS)
}

fn serve(order: &str) -> Result<(), Box<dyn Error>> {
    let words: Vec<&str> = order.split(' ').collect();
    let [contestant, task, name_count, port, nic_count, namespace] = words[..] else {
        return Err(format!("{VARIABLE} is not {order:?}").into());
    };
    let contestant: Contestant = contestant.parse()?;
    let nic_count: u8 = nic_count.parse()?;
    let task = task_of(task, name_count.parse()?, nic_count).ok_or("no such task")?;
    network::enter(namespace)?;
    affinity::leave_first_cpu_if_pinned()?;
    let progress = Arc::new(Progress::default());
    let setup = Setup {
        addresses: (0..nic_count).map(Network::server_address).collect(),
        port: port.parse()?,
        service: Service::new(task, Arc::clone(&progress)),
        look_every: None,
    };
    // Measured before a socket is open, names included. What is added later belongs to the
    // contestant.
    let empty_rss_bytes = rss_bytes(process::id())?;
    let (tell_ready, is_ready) = mpsc::channel();
    thread::spawn(move || {
        let tell = tell_ready.clone();
        let result = contestant.serve(setup, &mut || tell.send(Ok(())).expect("main waits"));
        let _ = tell_ready.send(result);
    });
    is_ready.recv()??;
    println!("ready {empty_rss_bytes}");
    // Nothing below allocates: that would be counted for the contestant.
    let mut input = io::stdin().lock();
    let mut line = String::with_capacity(16);
    while input.read_line(&mut line)? > 0 {
        // The number of datagrams that are about to come.
        if let Ok(count) = line.trim().parse::<u64>() {
            let received_count = progress.received_count.load(Relaxed);
            progress.announced_count.store(received_count + count, Relaxed);
        }
        line.clear();
        if let Ok(result) = is_ready.try_recv() {
            result?;
        }
        let (received, allocated) = (progress.received_count.load(Relaxed), allocation_count());
        writeln!(io::stdout().lock(), "{received} {allocated}")?;
    }
    // Ends without waiting for the contestant.
    process::exit(0)
}

const TASKS: [&str; 7] =
    ["count", "echo", "search-ca", "search-pva", "answer-ca", "answer-pva", "fan-out"];

fn task_of(text: &str, name_count: u32, nic_count: u8) -> Option<Task> {
    Some(match TASKS.iter().position(|task| *task == text)? {
        0 => Task::Count,
        1 => Task::Echo,
        2 => Task::Search(Protocol::Ca, name_count),
        3 => Task::Search(Protocol::Pva, name_count),
        4 => Task::Answer(Protocol::Ca, name_count),
        5 => Task::Answer(Protocol::Pva, name_count),
        _ => {
            let to = |nic| SocketAddrV4::new(Network::client_address(nic), CLIENT_PORT);
            Task::FanOut((0..nic_count).map(to).collect())
        }
    })
}

/// The task and its number of names.
fn task_text(task: &Task) -> String {
    let (position, name_count) = match task {
        Task::Count => (0, 0),
        Task::Echo => (1, 0),
        Task::Search(Protocol::Ca, name_count) => (2, *name_count),
        Task::Search(Protocol::Pva, name_count) => (3, *name_count),
        Task::Answer(Protocol::Ca, name_count) => (4, *name_count),
        Task::Answer(Protocol::Pva, name_count) => (5, *name_count),
        Task::FanOut(_) => (6, 0),
    };
    format!("{} {name_count}", TASKS[position])
}

/// A receiver as seen from the program that started it. Dropping this ends it.
#[derive(Debug)]
pub struct Receiver {
    child: Child,
    answers: BufReader<ChildStdout>,
    clock: ProcessClock,
    /// Resident memory before the contestant opened anything.
    pub empty_rss_bytes: u64,
}

/// What a receiver has done so far.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot {
    /// Datagrams received.
    pub received_count: u64,
    /// Allocations; 0 unless the program counts them.
    pub allocation_count: u64,
    /// CPU time of all its threads, in ns.
    pub cpu_ns: u64,
}

impl Receiver {
    /// Starts the running program again as a receiver in the network's server.
    ///
    /// # Errors
    ///
    /// The contestant's reason why it cannot serve.
    pub fn start(
        contestant: Contestant,
        task: &Task,
        port: u16,
        network: &Network,
    ) -> Result<Self, Box<dyn Error>> {
        let (nic_count, namespace) = (network.nic_count(), network.namespace(Host::Server));
        let order = format!("{contestant} {} {port} {nic_count} {namespace}", task_text(task));
        network.wait_until_free(port)?;
        let mut child = Command::new(env::current_exe()?)
            .env(VARIABLE, order)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let answers = BufReader::new(child.stdout.take().expect("a pipe was asked for"));
        let clock = ProcessClock::of(child.id())?;
        let mut receiver = Self { child, answers, clock, empty_rss_bytes: 0 };
        let answer = receiver.answer()?;
        let empty_rss_bytes = answer.strip_prefix("ready ").and_then(|bytes| bytes.parse().ok());
        receiver.empty_rss_bytes = empty_rss_bytes.ok_or(match answer.as_str() {
            "" => "has ended".to_owned(),
            _ => answer,
        })?;
        Ok(receiver)
    }

    /// The number of its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks the receiver what it has done so far.
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub fn snapshot(&mut self) -> Result<Snapshot, Box<dyn Error>> {
        self.ask("\n")
    }

    /// Tells the receiver how many datagrams are about to come. When it has received them,
    /// [`Receiver::end`] tells when that was.
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub fn announce(&mut self, count: u64) -> Result<(), Box<dyn Error>> {
        self.ask(&format!("{count}\n")).map(drop)
    }

    /// The [`shared_time`](crate::clock::shared_time) at which the announced datagrams had been
    /// received; `None` if they have not within `time_max`.
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub fn end(&mut self, time_max: Duration) -> Result<Option<Duration>, Box<dyn Error>> {
        let mut polled = [PollFd::new(self.answers.get_ref().as_fd(), PollFlags::POLLIN)];
        if poll(&mut polled, PollTimeout::try_from(time_max)?)? == 0 {
            return Ok(None);
        }
        Ok(Some(Duration::from_nanos(self.answer()?.parse()?)))
    }

    /// Stops the process, and waits until all its threads stand still.
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub fn stop(&self) -> Result<(), Box<dyn Error>> {
        self.signal(Signal::SIGSTOP)?;
        let process = Pid::from_raw(self.pid() as i32);
        match waitpid(process, Some(WaitPidFlag::WUNTRACED))? {
            WaitStatus::Stopped(..) => Ok(()),
            other => Err(format!("the receiver has ended: {other:?}").into()),
        }
    }

    /// Lets a stopped process go on.
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub fn go_on(&self) -> io::Result<()> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill(Pid::from_raw(self.pid() as i32), signal)?)
    }

    fn ask(&mut self, line: &str) -> Result<Snapshot, Box<dyn Error>> {
        self.child.stdin.as_mut().expect("a pipe was asked for").write_all(line.as_bytes())?;
        let answer = self.answer()?;
        let (received, allocated) =
            answer.split_once(' ').ok_or_else(|| format!("the receiver has ended: {answer}"))?;
        Ok(Snapshot {
            received_count: received.parse()?,
            allocation_count: allocated.parse()?,
            cpu_ns: self.clock.cpu_time()?.as_nanos() as u64,
        })
    }

    /// Waits until it has received nothing for 10 ms, but at most 50 ms.
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub fn rest(&mut self) -> Result<(), Box<dyn Error>> {
        self.settle(5, Duration::from_millis(10)).map(drop)
    }

    /// Waits until no more datagrams come. Returns how many it has received in total.
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub fn drained_count(&mut self) -> Result<u64, Box<dyn Error>> {
        self.settle(20, Duration::from_millis(50))
    }

    /// Waits until it has received nothing for one `pause`, but at most `pause_max` pauses. Returns
    /// how many datagrams it has received by then.
    fn settle(&mut self, pause_max: u32, pause: Duration) -> Result<u64, Box<dyn Error>> {
        let mut received_count = self.snapshot()?.received_count;
        for _ in 0..pause_max {
            thread::sleep(pause);
            let now = self.snapshot()?.received_count;
            if now == received_count {
                break;
            }
            received_count = now;
        }
        Ok(received_count)
    }

    /// Its resident memory, in bytes.
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub fn rss_bytes(&self) -> io::Result<u64> {
        rss_bytes(self.pid())
    }

    fn answer(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // A stopped process would not see that its input has ended.
        let _ = self.go_on();
        let _ = self.child.wait();
    }
}
