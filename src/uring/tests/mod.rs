//! The backend over a scripted kernel, which does what a real one does not do on demand, and over a
//! real kernel that is given too little. Every turn is audited ([`super::audit`]).

mod close;
mod ends;
mod fake;
mod overflow;
mod random;
mod real;
mod segments;
mod send;
mod stock;

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Uring, kernel::Kernel};
use fake::{Fake, Request, Then};

use crate::{
    datagram::{Class, Outbox},
    error::Result,
    nics::Nics,
    path::{
        Admission, BackendDriver, BackendSettings, Batch, Dispatch, ListenSettings, ListenSocket,
        Pace, Role, SocketPlan, Turn,
    },
    stats::{Counts, StatsTable},
};

/// What is heard in one turn: the slot, and the payload as text.
type Heard = Vec<(u16, String)>;

/// A backend with a batch and its surroundings.
struct Rig<D> {
    driver: D,
    batch: Batch,
    sockets: Vec<Option<Arc<ListenSocket>>>,
    admission: Admission,
    dispatch: Dispatch,
    stats: StatsTable,
    /// The receive buffer of sockets that are added from now on.
    recv_buffer_bytes: usize,
    posted: Outbox,
    client: UdpSocket,
}

fn settings(buffer_count: usize, batch_max: usize) -> BackendSettings {
    BackendSettings {
        buffer_bytes: 512,
        buffer_count,
        batch_max,
        replies_max: 8,
        delay_max: Duration::ZERO,
        spin: Duration::ZERO,
        uses_gso: true,
    }
}

/// A backend over a scripted kernel, with all of its sockets armed.
fn fake(socket_count: usize, buffer_count: usize) -> Rig<Uring<Fake>> {
    fake_with(socket_count, settings(buffer_count, 8))
}

fn fake_with(socket_count: usize, settings: BackendSettings) -> Rig<Uring<Fake>> {
    let mut rig = over(Fake::default(), &settings, socket_count);
    rig.turn();
    assert_eq!(rig.driver.arms.armed_count(), socket_count);
    rig.driver.ring.submitted();
    rig
}

fn over<K: Kernel>(ring: K, settings: &BackendSettings, socket_count: usize) -> Rig<Uring<K>> {
    Rig::new(Uring::over(ring, settings).expect("buffers"), socket_count)
}

impl<D: BackendDriver> Rig<D> {
    fn new(driver: D, socket_count: usize) -> Self {
        let stats = StatsTable::default();
        let nics = Nics::enumerate().expect("NICs");
        let mut rig = Self {
            dispatch: Dispatch::new(&[], &nics, &stats),
            admission: Admission::new(Arc::new(nics.clone()), Arc::new(nics), Vec::new(), &stats),
            batch: driver.new_batch(),
            driver,
            sockets: Vec::new(),
            stats,
            recv_buffer_bytes: 1 << 20,
            posted: Outbox::new(8),
            client: UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback"),
        };
        (0..socket_count).for_each(|slot| rig.add(slot as u16));
        rig
    }

    /// A socket on loopback, at a port of its own.
    fn add(&mut self, slot: u16) {
        let socket = Arc::new(socket(&self.stats, self.recv_buffer_bytes));
        self.driver.add(slot, Arc::clone(&socket)).expect("a slot");
        self.sockets.resize(self.sockets.len().max(usize::from(slot) + 1), None);
        self.sockets[usize::from(slot)] = Some(socket);
        self.refresh_dispatch();
    }

    fn refresh_dispatch(&mut self) {
        self.dispatch = Dispatch::new(&self.sockets, &self.admission.nics, &self.stats);
    }

    fn remove(&mut self, slot: u16) {
        if let Some(socket) = self.sockets.get_mut(usize::from(slot)) {
            *socket = None;
        }
        self.driver.remove(slot);
        self.refresh_dispatch();
    }

    fn turn(&mut self) -> Heard {
        self.try_turn().expect("a turn")
    }

    /// A turn that waits for 20 ms at most.
    fn try_turn(&mut self) -> Result<Heard> {
        let mut batch = std::mem::replace(&mut self.batch, self.driver.new_batch());
        let result = self.turn_with(&mut batch);
        self.batch = batch;
        result
    }

    fn turn_with(&mut self, batch: &mut Batch) -> Result<Heard> {
        let turn = Turn {
            admission: &self.admission,
            dispatch: &self.dispatch,
            stats: &self.stats,
            deadline: Some(Instant::now() + Duration::from_millis(20)),
            is_polling: false,
            posted: &mut self.posted,
        };
        self.driver.turn(turn, batch)?;
        Ok(heard(batch))
    }

    /// Sends to the socket in a slot.
    fn send(&self, slot: u16, payload: &[u8]) {
        let port = self.sockets[usize::from(slot)].as_ref().expect("a socket").port;
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        assert_eq!(self.client.send_to(payload, to).expect("loopback"), payload.len());
    }

    /// Takes turns until `count` datagrams came, or for ten seconds.
    fn turn_for(&mut self, count: usize) -> Heard {
        let end = Instant::now() + Duration::from_secs(10);
        let mut all = Vec::new();
        while all.len() < count && Instant::now() < end {
            all.extend(self.turn());
        }
        all
    }

    fn counts(&self) -> Counts {
        self.stats.snapshot().total()
    }
}

impl Rig<Uring<Fake>> {
    fn ring(&mut self) -> &mut Fake {
        &mut self.driver.ring
    }

    /// The slots that were armed since the last call.
    fn armed(&mut self) -> Vec<u16> {
        let slot = |request: Request| match request {
            Request::Receive { slot } => Some(slot),
            _ => None,
        };
        self.ring().submitted().into_iter().filter_map(slot).collect()
    }
}

fn heard(batch: &Batch) -> Heard {
    let one = |datagram: crate::Datagram<'_>| {
        (datagram.record.heard_by.slot, String::from_utf8_lossy(datagram.payload()).into_owned())
    };
    batch.iter().map(one).collect()
}

fn texts(heard: &[(u16, String)]) -> Vec<&str> {
    heard.iter().map(|(_, text)| text.as_str()).collect()
}

fn socket(stats: &StatsTable, recv_buffer_bytes: usize) -> ListenSocket {
    let settings = ListenSettings { recv_buffer_bytes, ..ListenSettings::default() };
    let nics = Nics::enumerate().expect("NICs");
    let plan = SocketPlan {
        nic: nics.loopback().map(|lo| lo.id()),
        ..SocketPlan::new(Role::Hear(Class::Unicast), Ipv4Addr::LOCALHOST)
    };
    ListenSocket::open(&plan, 0, &settings, stats, &[]).expect("a socket on loopback")
}
