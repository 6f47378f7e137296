//! The sockets that an engine listens by: opened at the start, and changed as the NICs change.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    handle::Shared,
    rescan_timer::{Due, RescanTimer},
};
use crate::{
    error::{Error, Result},
    lock::lock,
    nics::Nics,
    path::{
        Admission, BackendDriver, Dispatch, FailedNic, ListenSettings, ListenSocket,
        SLOT_COUNT_MAX, SocketLayout, SocketPlan, open_port, plan,
    },
    stats::StatsTable,
};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Listening {
    settings: ListenSettings,
    layout: SocketLayout,
    ports: Vec<u16>,
    /// All NICs of the host.
    nics: Arc<Nics>,
    /// The NICs that the engine listens on, each with the addresses that it listens at.
    selected: Nics,
    /// By slot.
    sockets: Vec<Option<Arc<ListenSocket>>>,
    failed: Vec<FailedNic>,
    timer: RescanTimer,
}

impl Listening {
    pub fn open(
        settings: ListenSettings,
        follow_nics: Option<Duration>,
        stats: &StatsTable,
    ) -> Result<Self> {
        let nics = Arc::new(Nics::enumerate()?);
        let layout = SocketLayout::of_system(settings.listen, settings.unicast, &nics)?;
        tracing::debug!(?layout, "chose how to listen");
        let selected = settings.select(&nics);
        if selected.is_empty() {
            let reason = "no NIC that is up has an address that was chosen and not excluded";
            return Err(Error::setting("nic", reason));
        }
        let plans = plan(&selected, &settings.groups, settings.unicast, layout);
        let (mut sockets, mut ports, mut failed) = (Vec::new(), Vec::new(), Vec::new());
        for &port in &settings.ports {
            let (opened, failures) = open_port(&plans, port, &settings, stats)?;
            failed.extend(failures);
            ports.push(opened[0].port);
            sockets.extend(opened.into_iter().map(|socket| Some(Arc::new(socket))));
        }
        if sockets.len() > SLOT_COUNT_MAX {
            return Err(Error::setting("nic", too_many_sockets(sockets.len())));
        }
        let timer = RescanTimer::new(follow_nics);
        Ok(Self { settings, layout, ports, nics, selected, sockets, failed, timer })
    }

    pub fn ports(&self) -> &[u16] {
        &self.ports
    }

    pub fn layout(&self) -> SocketLayout {
        self.layout
    }

    /// Gives all sockets to a backend that has none.
    pub fn add_all(&self, driver: &mut dyn BackendDriver) -> Result<()> {
        for (slot, socket) in self.sockets.iter().enumerate() {
            if let Some(socket) = socket {
                add(driver, slot, socket)?;
            }
        }
        Ok(())
    }

    pub fn admission(&self, stats: &StatsTable) -> Admission {
        Admission::new(Arc::clone(&self.nics), self.selected.clone(), stats)
    }

    pub fn dispatch(&self, stats: &StatsTable) -> Dispatch {
        Dispatch::new(&self.sockets, &self.selected, stats)
    }

    /// Tells the handles the sockets, the NICs and the failures.
    pub fn publish(&self, shared: &Shared) {
        *lock(&shared.sockets) = self.sockets.iter().flatten().map(Arc::clone).collect();
        *lock(&shared.nics) = Arc::clone(&self.nics);
        lock(&shared.failed_nics).clone_from(&self.failed);
    }

    /// When to look next whether a rescan is due; `None` for never.
    pub fn next_rescan_at(&self) -> Option<Instant> {
        self.timer.next_at()
    }

    pub fn is_rescan_due(&mut self) -> bool {
        match self.timer.due() {
            Due::Nothing => false,
            Due::Look => Nics::enumerate().is_ok_and(|nics| nics != *self.nics),
            Due::Retry => true,
        }
    }

    /// Lists the NICs again, closes the sockets that are no longer planned, and opens the new ones.
    /// Returns whether the NICs could be listed.
    pub fn rescan(&mut self, driver: &mut dyn BackendDriver, shared: &Shared) -> bool {
        match Nics::enumerate() {
            Ok(nics) => self.nics = Arc::new(nics),
            Err(error) => {
                tracing::warn!(%error, "keeping the NICs as they were");
                return false;
            }
        }
        self.selected = self.settings.select(&self.nics);
        let (groups, unicast) = (&self.settings.groups, self.settings.unicast);
        let plans = plan(&self.selected, groups, unicast, self.layout);
        shared.refresh_drop_counts();
        // The handles let go of the sockets. So a removed one closes, and its address can be bound
        // again.
        lock(&shared.sockets).clear();
        self.remove_stale(&plans, driver);
        self.failed.clear();
        for port in self.ports.clone() {
            plans.iter().for_each(|plan| self.follow(plan, port, driver, &shared.stats));
        }
        self.publish(shared);
        true
    }

    fn remove_stale(&mut self, plans: &[SocketPlan], driver: &mut dyn BackendDriver) {
        for slot in 0..self.sockets.len() {
            let is_stale = |socket: &Arc<ListenSocket>| {
                !plans.iter().any(|plan| plan.is_same_socket_as(&socket.plan))
            };
            if let Some(socket) = self.sockets[slot].take_if(|socket| is_stale(socket)) {
                tracing::info!(%socket, "no longer heard: its NIC or address has gone");
                socket.refresh_drop_count();
                drop(socket);
                driver.remove(slot as u16);
                self.timer.note_closed();
            }
        }
    }

    /// Makes sure that a planned socket is there and has joined its groups.
    fn follow(
        &mut self,
        plan: &SocketPlan,
        port: u16,
        driver: &mut dyn BackendDriver,
        stats: &StatsTable,
    ) {
        let is_it = |socket: &&Arc<ListenSocket>| {
            socket.port == port && plan.is_same_socket_as(&socket.plan)
        };
        // A port that the settings do not name was an unused one (port 0): it stays unshared.
        let is_exclusive = self.settings.is_exclusive || !self.settings.ports.contains(&port);
        let done = match self.sockets.iter().flatten().find(is_it) {
            Some(socket) => socket.follow(&plan.joins),
            None => ListenSocket::open(plan, port, &self.settings, is_exclusive, stats)
                .and_then(|socket| self.add(Arc::new(socket), driver)),
        };
        if let Err(error) = done {
            if error.kind() == io::ErrorKind::AddrInUse && self.timer.may_retry() {
                return;
            }
            tracing::warn!(%error, "a NIC stays unheard");
            self.failed.push(FailedNic::new(plan, port, error));
        }
    }

    fn add(&mut self, socket: Arc<ListenSocket>, driver: &mut dyn BackendDriver) -> Result<()> {
        let is_free = |slot: &usize| {
            self.sockets.get(*slot).is_none_or(Option::is_none) && driver.is_free(*slot as u16)
        };
        let slot = (0..SLOT_COUNT_MAX)
            .find(is_free)
            .ok_or_else(|| Error::setting("nic", too_many_sockets(SLOT_COUNT_MAX + 1)))?;
        add(driver, slot, &socket)?;
        if slot >= self.sockets.len() {
            self.sockets.resize(slot + 1, None);
        }
        tracing::info!(%socket, "heard from now on");
        self.sockets[slot] = Some(socket);
        Ok(())
    }

    /// Lets go of every socket.
    pub fn close(&mut self) {
        self.sockets.clear();
    }
}

fn add(driver: &mut dyn BackendDriver, slot: usize, socket: &Arc<ListenSocket>) -> Result<()> {
    driver
        .add(slot as u16, Arc::clone(socket))
        .map_err(|source| socket.failed("adding to the backend", source))
}

fn too_many_sockets(count: usize) -> String {
    format!("{count} sockets are needed, {SLOT_COUNT_MAX} is the most: choose fewer NICs")
}
