//! Which NICs an engine listens on: chosen at the start, and followed as the NICs change.

use std::{io, net::SocketAddrV4, sync::Arc, time::Instant};

use super::{
    handle::Shared,
    rescan_timer::{Due, RescanTimer},
    socket_set::{Opener, SocketSet},
};
use crate::{
    error::{Error, Result},
    events::Event,
    lock::lock,
    nics::{Nic, NicId, Nics},
    path::{
        Admission, BackendDriver, Dispatch, FailedNic, Host, ListenSettings, Listeners,
        SharedDrops, SocketLayout, SocketPlan, Strangers, SubnetSockets, spare_sender_count,
    },
    platform,
    stats::StatsTable,
    sys::{nic_watch::NicWatch, shard::Shard},
};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Listening {
    settings: ListenSettings,
    layout: SocketLayout,
    ports: Vec<u16>,
    watch: NicWatch,
    /// All NICs of the host.
    nics: Arc<Nics>,
    /// The NICs that the engine listens on, each with what of it the engine listens at.
    selected: Arc<Nics>,
    /// Once there were too many pairs, it stays so. Otherwise sockets would be opened and closed
    /// each time that the number of NICs crosses the bound.
    subnet_sockets: SubnetSockets,
    spare_sender_count: usize,
    sockets: SocketSet,
    timer: RescanTimer,
}

impl Listening {
    pub fn open(settings: ListenSettings, stats: &StatsTable) -> Result<Self> {
        let watch = NicWatch::open()?;
        let nics = Arc::new(watch.nics());
        let mut layout =
            SocketLayout::of_system(settings.listen, settings.leaves_unicasts(), &nics)?;
        if settings.shard != Shard::ONLY {
            layout = layout.for_shards(settings.listen)?;
        }
        tracing::debug!(?layout, "chose how to listen");
        settings.check_chosen(&nics)?;
        let selected = Arc::new(settings.select(&nics));
        let needs_look = settings.follows_nics && !platform::TELLS_NEWS_OF_NICS;
        let spare_sender_count = spare_sender_count(settings.send_buffer_bytes);
        let timer = RescanTimer::new(needs_look.then_some(settings.list_nics_every));
        let mut listening = Self {
            settings,
            layout,
            ports: Vec::new(),
            watch,
            nics,
            selected,
            subnet_sockets: SubnetSockets::Paired,
            spare_sender_count,
            sockets: SocketSet::default(),
            timer,
        };
        let plans = listening.plans();
        let opener = Opener { settings: &listening.settings, stats, has_just_closed: false };
        (listening.sockets, listening.ports) = SocketSet::open(&plans, opener)?;
        listening.timer.note_missing(listening.sockets.lacks_any());
        listening.sockets.note_opened();
        Ok(listening)
    }

    fn listeners(&self) -> Listeners<'_> {
        Listeners {
            settings: &self.settings,
            layout: self.layout,
            nics: &self.nics,
            selected: &self.selected,
            subnet_sockets: self.subnet_sockets,
            spare_sender_count: self.spare_sender_count,
        }
    }

    /// The sockets for each port.
    fn plans(&mut self) -> Vec<Vec<SocketPlan>> {
        if !self.listeners().can_pair() {
            self.subnet_sockets = SubnetSockets::Shared;
        }
        self.settings.ports.iter().map(|port| self.listeners().plan(*port)).collect()
    }

    /// What could not be opened, and what no socket may be opened for.
    fn failures(&self) -> Vec<FailedNic> {
        let unheard = self.listeners().unheard().into_iter().flat_map(|(nic, subnet, taken)| {
            let failed = move |&port: &u16| {
                let reason = format!(
                    "{subnet} is not heard on {nic}: a socket for it would take the unicasts to \
                     {taken} from other servers: choose and take both, or leave both"
                );
                let address = SocketAddrV4::new(subnet.network(), port);
                FailedNic::new(Some(nic.clone()), address, Error::setting("nic", reason))
            };
            self.ports.iter().map(failed).collect::<Vec<_>>()
        });
        self.sockets.failures().into_iter().chain(unheard).collect()
    }

    pub fn ports(&self) -> &[u16] {
        &self.ports
    }

    pub fn shared_drops(&self) -> Arc<SharedDrops> {
        Arc::clone(&self.settings.shared_drops)
    }

    pub fn layout(&self) -> SocketLayout {
        self.layout
    }

    /// Gives all sockets to a backend that has none, and has it watch for news of the NICs.
    pub fn add_all(&self, driver: &mut dyn BackendDriver) -> Result<()> {
        self.sockets.add_all(driver)?;
        if !self.settings.follows_nics {
            return Ok(());
        }
        let failed = |source| Error::Backend { operation: "watching for news of the NICs", source };
        driver.watch_nics(&self.watch).map_err(failed)
    }

    pub fn admission(&self, stats: &StatsTable) -> Admission {
        let of_port = |(wanted, port): (&u16, &u16)| {
            let (port, groups) = (*port, self.listeners().groups(*wanted).into_iter());
            groups.map(move |(group, nic)| (port, group, nic)).collect::<Vec<_>>()
        };
        let groups = self.settings.ports.iter().zip(&self.ports).flat_map(of_port).collect();
        Admission::new(Arc::clone(&self.nics), Arc::clone(&self.selected), groups, stats)
            .with_unspecified_source(self.settings.allows_unspecified_source)
            .with_filter(self.settings.filter.clone())
    }

    pub fn dispatch(&self, stats: &StatsTable) -> Dispatch {
        Dispatch::new(&self.sockets.by_slot(), &self.selected, stats)
    }

    fn host(&self, strangers: Arc<Strangers>) -> Host {
        Host {
            nics: Arc::clone(&self.nics),
            heard: Arc::clone(&self.selected),
            ports: self.ports.clone(),
            multicast_loop: self.settings.multicast_loop,
            strangers,
        }
    }

    /// Tells the handles the sockets, the NICs and the failures, and then what has happened.
    pub fn publish(&mut self, shared: &Shared) {
        *lock(&shared.sockets) = self.sockets.sockets().map(Arc::clone).collect();
        *lock(&shared.infos) = self.sockets.infos();
        let known = lock(&shared.host).strangers.clone();
        *lock(&shared.host) = Arc::new(self.host(known));
        *lock(&shared.failed_nics) = self.failures();
        shared.subscribers.tell(self.sockets.take_events());
    }

    /// When there is something to do next; `None` for never.
    pub fn next_at(&self) -> Option<Instant> {
        self.timer.next_at()
    }

    /// Does what is due. Returns whether the sockets have changed.
    pub fn keep_up(&mut self, driver: &mut dyn BackendDriver, shared: &Shared) -> bool {
        if driver.take_news() {
            self.timer.note_news();
        }
        let mut has_lost = false;
        while let Some((slot, error)) = driver.take_deaf() {
            has_lost = true;
            self.give_up(slot, error, driver, shared);
        }
        if has_lost {
            self.publish(shared);
        }
        match self.timer.due() {
            Due::Nothing => has_lost,
            Due::Look => self.look(driver, shared) || has_lost,
            Due::Retry => self.retry(driver, shared) || has_lost,
        }
    }

    fn give_up(
        &mut self,
        slot: u16,
        error: io::Error,
        driver: &mut dyn BackendDriver,
        shared: &Shared,
    ) {
        let opener =
            Opener { settings: &self.settings, stats: &shared.stats, has_just_closed: false };
        lock(&shared.sockets).clear();
        self.sockets.give_up(slot, error, opener, driver);
        self.timer.note_missing(true);
    }

    fn look(&mut self, driver: &mut dyn BackendDriver, shared: &Shared) -> bool {
        match self.watch.update() {
            Ok(true) => self.follow(driver, shared),
            Ok(false) => return false,
            Err(error) => {
                self.keep(&error);
                return false;
            }
        }
        true
    }

    /// Keeps the NICs as they were, and looks again soon.
    fn keep(&mut self, error: &Error) {
        if self.timer.note_failed_look() {
            tracing::warn!(%error, "keeping the NICs as they were until they can be listed");
        }
    }

    /// Lists the NICs again, closes the sockets that are no longer planned, and opens the new ones.
    pub fn rescan(&mut self, driver: &mut dyn BackendDriver, shared: &Shared) {
        self.watch.distrust();
        match self.watch.update() {
            Ok(_) => self.follow(driver, shared),
            Err(error) => self.keep(&error),
        }
    }

    fn follow(&mut self, driver: &mut dyn BackendDriver, shared: &Shared) {
        self.timer.note_looked();
        self.nics = Arc::new(self.watch.nics());
        let selected = Arc::new(self.settings.select(&self.nics));
        let before = std::mem::replace(&mut self.selected, selected);
        self.note_nics(&before);
        let plans = self.plans();
        // The handles let go of the sockets. So a removed one closes, and its address can be bound
        // again.
        lock(&shared.sockets).clear();
        if self.sockets.close_stale(&plans, &self.ports, driver) {
            self.timer.note_closed();
        }
        let opener = Opener {
            settings: &self.settings,
            stats: &shared.stats,
            has_just_closed: self.timer.has_just_closed(),
        };
        let has_new_missing = self.sockets.open_missing(&plans, &self.ports, opener, driver);
        if has_new_missing {
            self.timer.note_missing(true);
        } else {
            self.timer.note_retried(self.sockets.lacks_any());
        }
        self.publish(shared);
    }

    /// Notes which NICs came and went since `before`.
    fn note_nics(&mut self, before: &Nics) {
        let up = |nics: &Nics| -> Vec<NicId> {
            nics.iter().filter(|nic| nic.is_up).map(Nic::id).collect()
        };
        let (before, now) = (up(before), up(&self.selected));
        let is_in = |ids: &[NicId], id: &NicId| ids.iter().any(|other| other.is_same(id));
        let went = before.iter().filter(|id| !is_in(&now, id)).cloned().map(Event::NicWent);
        let came = now.iter().filter(|id| !is_in(&before, id)).cloned().map(Event::NicCame);
        went.chain(came).for_each(|event| self.sockets.note(event));
    }

    fn retry(&mut self, driver: &mut dyn BackendDriver, shared: &Shared) -> bool {
        let opener = Opener {
            settings: &self.settings,
            stats: &shared.stats,
            has_just_closed: self.timer.has_just_closed(),
        };
        let has_changed = self.sockets.retry(opener, driver);
        self.timer.note_retried(self.sockets.lacks_any());
        if has_changed {
            self.publish(shared);
        }
        has_changed
    }

    /// Lets go of every socket.
    pub fn close(&mut self) {
        self.sockets.clear();
    }
}
