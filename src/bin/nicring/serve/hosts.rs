//! Looks up the hosts that servers are named by: each once a reading, away from the threads that
//! answer, and for a limited time.

use std::{
    collections::{HashMap, HashSet},
    net::{Ipv4Addr, SocketAddr, ToSocketAddrs},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// How long one host may take, and all hosts of one reading together.
const HOST_TIME_MAX: Duration = Duration::from_secs(2);
const READING_TIME_MAX: Duration = Duration::from_secs(10);

/// What is known of hosts.
#[derive(Debug, Default)]
pub struct Hosts {
    /// The last address that each had.
    known: HashMap<String, Ipv4Addr>,
    /// Look-ups that were late, and may have ended by now. A host has one at most.
    late: HashMap<String, mpsc::Receiver<Option<Ipv4Addr>>>,
}

/// The look-ups of one reading of all files.
pub struct Reading<'a> {
    hosts: &'a mut Hosts,
    asked: HashMap<String, Option<Ipv4Addr>>,
    deadline: Instant,
    /// Hosts that did not resolve, some of which have their last address.
    failed: HashSet<String>,
}

impl Hosts {
    pub fn reading(&mut self) -> Reading<'_> {
        let deadline = Instant::now() + READING_TIME_MAX;
        Reading { hosts: self, asked: HashMap::new(), deadline, failed: HashSet::new() }
    }

    fn look_up(&mut self, host: &str, time: Duration) -> Option<Ipv4Addr> {
        if !self.late.contains_key(host) {
            if time.is_zero() {
                return None;
            }
            self.late.insert(host.to_owned(), start_look_up(host)?);
        }
        let found = match self.late.get(host)?.recv_timeout(time) {
            Err(mpsc::RecvTimeoutError::Timeout) => return None,
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
            Ok(found) => found,
        };
        self.late.remove(host);
        found
    }
}

impl Reading<'_> {
    /// The address of a host: a new one, else its last one.
    pub fn resolve(&mut self, host: &str) -> Option<Ipv4Addr> {
        if let Some(asked) = self.asked.get(host) {
            return *asked;
        }
        let time = self.deadline.saturating_duration_since(Instant::now()).min(HOST_TIME_MAX);
        let address = match self.hosts.look_up(host, time) {
            Some(address) => {
                self.hosts.known.insert(host.to_owned(), address);
                Some(address)
            }
            None => {
                self.failed.insert(host.to_owned());
                self.hosts.known.get(host).copied()
            }
        };
        self.asked.insert(host.to_owned(), address);
        address
    }

    /// Whether this host did not resolve.
    pub fn has_failed(&self, host: &str) -> bool {
        self.failed.contains(host)
    }
}

/// Asks the system's resolver, which cannot be told to hurry.
fn start_look_up(host: &str) -> Option<mpsc::Receiver<Option<Ipv4Addr>>> {
    let (sender, found) = mpsc::channel();
    let host = host.to_owned();
    let ask = move || {
        let addresses = (host.as_str(), 0).to_socket_addrs().into_iter().flatten();
        let is_v4 = |address| match address {
            SocketAddr::V4(address) => Some(*address.ip()),
            SocketAddr::V6(_) => None,
        };
        let _ = sender.send({ addresses }.find_map(is_v4));
    };
    thread::Builder::new().name("resolve".to_owned()).spawn(ask).ok()?;
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_no_longer_resolves_keeps_its_last_address() {
        let mut hosts = Hosts::default();
        hosts.known.insert("gone.invalid".to_owned(), [192, 0, 2, 7].into());
        let mut reading = hosts.reading();
        assert_eq!(reading.resolve("localhost"), Some(Ipv4Addr::LOCALHOST));
        assert_eq!(reading.resolve("gone.invalid"), Some([192, 0, 2, 7].into()));
        assert_eq!(reading.resolve("never.invalid"), None);
        let failed =
            ["localhost", "gone.invalid", "never.invalid"].map(|host| reading.has_failed(host));
        assert_eq!(failed, [false, true, true]);
    }
}
