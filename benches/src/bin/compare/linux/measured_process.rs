//! The process that is measured: a contestant in its own process, or a server.

use std::{error::Error, io, sync::atomic::Ordering::Relaxed};

use nicring_bench::{
    contestant::Contestant,
    load::Running,
    network::{Network, dropped_count},
    receiver::{Receiver, Snapshot},
    server::{Process, Programs},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::workload::Workload;

#[derive(Debug)]
pub enum MeasuredProcess {
    Receiver {
        receiver: Receiver,
        /// Whether it tells how much of what was sent it has received.
        counts_received: bool,
    },
    Server(Process),
}

impl MeasuredProcess {
    pub fn start(
        work: Workload,
        contestant: Contestant,
        port: u16,
        network: &Network,
        programs: &Programs,
    ) -> Result<Self, Box<dyn Error>> {
        if let (Contestant::Server(server), Some((protocol, names))) = (contestant, work.names()) {
            let process = Process::start(server, protocol, names, port, programs, network)?;
            return Ok(Self::Server(process));
        }
        let task = work.task(network.nic_count());
        let receiver = Receiver::start(contestant, &task, port, network)?;
        Ok(Self::Receiver { receiver, counts_received: !work.is_counted_by_sender() })
    }

    pub fn pid(&self) -> u32 {
        match self {
            Self::Receiver { receiver, .. } => receiver.pid(),
            Self::Server(process) => process.pid(),
        }
    }

    /// Stops the process while another one has the load. Otherwise a process that was sent more
    /// than it can take would go on working.
    pub fn freeze(&self) -> io::Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    pub fn thaw(&self) -> io::Result<()> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill(Pid::from_raw(self.pid() as i32), signal)?)
    }

    /// What the process has done so far. If it does not report how much it received, that is what
    /// was sent, except for what is on its way.
    pub fn snapshot(&mut self, load: &Running) -> Result<Snapshot, Box<dyn Error>> {
        let sent_count = load.counters.sent_count.load(Relaxed);
        match self {
            Self::Receiver { receiver, counts_received: true } => receiver.snapshot(),
            Self::Receiver { receiver, .. } => {
                Ok(Snapshot { received_count: sent_count, ..receiver.snapshot()? })
            }
            Self::Server(process) => Ok(Snapshot {
                received_count: sent_count,
                allocation_count: 0,
                cpu_ns: process.cpu_ns()?,
            }),
        }
    }

    /// Waits a short time until the process has taken what came.
    pub fn rest(&mut self) -> Result<(), Box<dyn Error>> {
        match self {
            Self::Receiver { receiver, .. } => receiver.rest(),
            // Every question has been answered or given up.
            Self::Server(_) => Ok(()),
        }
    }

    /// How many datagrams it has received when no more come; 0 for a server, which does not report
    /// it.
    pub fn drained_count(&mut self) -> Result<u64, Box<dyn Error>> {
        match self {
            Self::Receiver { receiver, .. } => receiver.drained_count(),
            Self::Server(_) => Ok(0),
        }
    }

    /// How many datagrams found its sockets full, if that shows what was lost. A receiver counts
    /// what it receives.
    pub fn dropped_count(&self) -> io::Result<u64> {
        match self {
            Self::Receiver { counts_received: true, .. } => Ok(0),
            Self::Receiver { receiver, .. } => dropped_count(receiver.pid()),
            Self::Server(process) => process.dropped_count(),
        }
    }

    /// Whether its allocations are counted.
    pub fn counts_allocations(&self) -> bool {
        matches!(self, Self::Receiver { .. })
    }

    pub fn rss_bytes(&self) -> io::Result<u64> {
        match self {
            Self::Receiver { receiver, .. } => receiver.rss_bytes(),
            Self::Server(process) => process.rss_bytes(),
        }
    }

    /// How much of `rss_bytes` the process did not have before it opened anything.
    pub fn own_bytes(&self, rss_bytes: u64) -> Option<u64> {
        match self {
            Self::Receiver { receiver, .. } => {
                Some(rss_bytes.saturating_sub(receiver.empty_rss_bytes))
            }
            Self::Server(_) => None,
        }
    }
}
