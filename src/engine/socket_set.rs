//! The sockets of an engine: those that are open, and those that could not be opened.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
    time::{Duration, Instant},
};

use socket2::Socket;

use crate::{
    error::{Error, Result},
    events::Event,
    path::{
        BackendDriver, FailedNic, Followed, ListenSettings, ListenSocket, OnFailedNic, Role,
        SLOT_COUNT_MAX, SocketInfo, SocketPlan, SocketPlanKey,
    },
    platform,
    stats::StatsTable,
};

/// How many unused ports are tried for one set of sockets.
const UNUSED_PORT_ATTEMPT_MAX: usize = 8;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct SocketSet {
    /// By slot.
    slots: Vec<Option<Seated>>,
    missing: Vec<Missing>,
    /// Sockets that failed while they were open.
    relapses: HashMap<(u16, SocketPlanKey), Relapse>,
    /// What happened, and was not told yet.
    events: Vec<Event>,
}

/// What failed, and for which address.
type Failures = Vec<(SocketAddrV4, Error)>;

/// An open socket in its slot.
#[derive(Debug)]
struct Seated {
    /// As its socket's, but for the name of the NIC, which may change.
    plan: SocketPlan,
    socket: Arc<ListenSocket>,
}

/// What could not be opened, or not join all its groups.
#[derive(Debug, Clone)]
struct Missing {
    plan: SocketPlan,
    port: u16,
    failures: Vec<FailedNic>,
    /// Whether it is still to be seen whether this ends by itself at once.
    is_passing: bool,
}

impl Missing {
    fn key(&self) -> (u16, SocketPlanKey) {
        (self.port, self.plan.key())
    }
}

/// How a socket that opens and then fails has failed so far.
#[derive(Debug, Clone, Copy)]
struct Relapse {
    /// How often, without a pause of [`RELAPSE_TIME_MAX`].
    count: u32,
    last_at: Instant,
}

impl Relapse {
    /// Whether it is to stay closed for now.
    fn is_resting(&self) -> bool {
        let rest = Duration::from_millis(1 << self.count.min(10));
        self.last_at.elapsed() < rest
    }
}

/// After so long without a failure a socket counts as sound.
const RELAPSE_TIME_MAX: Duration = Duration::from_secs(10);

/// What it takes to open sockets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opener<'a> {
    pub settings: &'a ListenSettings,
    pub stats: &'a StatsTable,
    /// Whether an address that is taken may be free in a moment.
    pub has_just_closed: bool,
}

impl SocketSet {
    /// Opens the sockets of all ports, each with plans of its own. Returns them, and the ports.
    ///
    /// # Errors
    ///
    /// What concerns more than one socket, and any failure if the settings say so.
    pub fn open(plans: &[Vec<SocketPlan>], opener: Opener<'_>) -> Result<(Self, Vec<u16>)> {
        let (mut set, mut ports) = (Self::default(), Vec::new());
        for (&port, plans) in opener.settings.ports.iter().zip(plans) {
            ports.push(set.open_port(plans, port, opener)?);
        }
        if set.slots.len() > SLOT_COUNT_MAX {
            return Err(too_many_sockets(set.slots.len()));
        }
        Ok((set, ports))
    }

    fn open_port(&mut self, plans: &[SocketPlan], port: u16, opener: Opener<'_>) -> Result<u16> {
        let (slot_count, missing_count) = (self.slots.len(), self.missing.len());
        let mut attempt_count = 0;
        loop {
            attempt_count += 1;
            match self.try_port(plans, port, opener) {
                // The system chose the port for the first socket of the set. At the address of a
                // later one another program holds that port.
                Err(error)
                    if port == 0
                        && error.kind() == io::ErrorKind::AddrInUse
                        && attempt_count < UNUSED_PORT_ATTEMPT_MAX =>
                {
                    self.slots.truncate(slot_count);
                    self.missing.truncate(missing_count);
                }
                result => return result,
            }
        }
    }

    fn try_port(&mut self, plans: &[SocketPlan], mut port: u16, opener: Opener<'_>) -> Result<u16> {
        let settings = opener.settings;
        let is_exclusive = settings.is_exclusive(port);
        let is_fatal = |error: &Error| {
            settings.on_failed_nic == OnFailedNic::Fail
                || error.io_error().is_some_and(platform::is_out_of_descriptors)
                || is_exclusive && error.kind() == io::ErrorKind::AddrInUse
        };
        let (mut hears, mut failures) = (settings.waits_for_nics, Vec::new());
        for plan in plans {
            let (socket, failed) = self.open_socket(plan, port, opener);
            if let Some(socket) = socket {
                if plan.role != Role::Join {
                    port = socket.port;
                }
                hears |= plan.hears();
                self.slots.push(Some(Seated { plan: plan.clone(), socket: socket.shared() }));
            }
            if let Some(fatal) = failed.iter().position(|(_, error)| is_fatal(error)) {
                return Err({ failed }.swap_remove(fatal).1);
            }
            if !failed.is_empty() {
                failures.push((plan, failed));
            }
        }
        if port == 0 {
            let reason = "an unused one takes a socket, and no NIC is there yet: name a port";
            return Err(Error::setting("port", reason));
        }
        if !hears {
            let last = failures.pop().and_then(|(_, mut failed)| failed.pop());
            let none = || Error::setting("nic", "no socket is left that hears anything");
            return Err(last.map_or_else(none, |(_, error)| error));
        }
        for (plan, failed) in failures {
            self.note_missing(plan, port, failed, opener, false);
        }
        Ok(port)
    }

    /// Opens a socket and joins its groups. One that could join none is of no use.
    fn open_socket(
        &mut self,
        plan: &SocketPlan,
        port: u16,
        opener: Opener<'_>,
    ) -> (Option<ListenSocket>, Failures) {
        let beside = self.beside(plan, port, opener.settings);
        match ListenSocket::open(plan, port, opener.settings, opener.stats, &beside) {
            Ok(socket) => {
                let failed = join_groups(&socket, plan, &mut self.events);
                let is_deaf = plan.role != Role::HearAll && !failed.is_empty();
                ((!is_deaf).then_some(socket), failed)
            }
            Err(error) => (None, vec![(SocketAddrV4::new(plan.address, port), error)]),
        }
    }

    /// The own sockets that must consent to a new one where ports are not shared: those at the same
    /// address, and with 0.0.0.0 all of them.
    fn beside(&self, plan: &SocketPlan, port: u16, settings: &ListenSettings) -> Vec<&Socket> {
        if !settings.is_exclusive(port) {
            return Vec::new();
        }
        let of_port = self.sockets().filter(|socket| socket.port == port);
        let overlaps = |socket: &&Arc<ListenSocket>| {
            let (own, other) = (plan.address, socket.plan.address);
            own == other || own.is_unspecified() || other.is_unspecified()
        };
        of_port.filter(overlaps).map(|socket| &socket.socket).collect()
    }

    /// The open sockets.
    pub fn sockets(&self) -> impl Iterator<Item = &Arc<ListenSocket>> {
        self.slots.iter().flatten().map(|seated| &seated.socket)
    }

    /// The open sockets, by slot.
    pub fn by_slot(&self) -> Vec<Option<Arc<ListenSocket>>> {
        let socket = |seated: &Option<Seated>| Some(Arc::clone(&seated.as_ref()?.socket));
        self.slots.iter().map(socket).collect()
    }

    /// What users see of the open sockets.
    pub fn infos(&self) -> Vec<SocketInfo> {
        let info = |seated: &Seated| seated.socket.info_as(&seated.plan);
        self.slots.iter().flatten().map(info).collect()
    }

    /// What is not heard, and why.
    pub fn failures(&self) -> Vec<FailedNic> {
        let told = self.missing.iter().filter(|missing| !missing.is_passing);
        told.flat_map(|missing| missing.failures.iter().cloned()).collect()
    }

    /// Whether something that is planned is not heard.
    pub fn lacks_any(&self) -> bool {
        !self.missing.is_empty()
    }

    /// Gives all sockets to a backend that has none.
    pub fn add_all(&self, driver: &mut dyn BackendDriver) -> Result<()> {
        for (slot, seated) in self.slots.iter().enumerate() {
            if let Some(seated) = seated {
                add(driver, slot, &seated.socket)?;
            }
        }
        Ok(())
    }

    /// Closes the sockets that are planned no more. Returns whether there were any.
    pub fn close_stale(
        &mut self,
        plans: &[Vec<SocketPlan>],
        ports: &[u16],
        driver: &mut dyn BackendDriver,
    ) -> bool {
        let planned: HashMap<_, _> =
            of_ports(plans, ports).map(|(port, plan)| ((port, plan.key()), plan)).collect();
        let mut has_closed = false;
        for slot in 0..self.slots.len() {
            let Some(seated) = &mut self.slots[slot] else { continue };
            match planned.get(&(seated.socket.port, seated.plan.key())) {
                Some(plan) => seated.plan.nic.clone_from(&plan.nic),
                None => {
                    self.close(slot, driver);
                    has_closed = true;
                }
            }
        }
        has_closed
    }

    fn close(&mut self, slot: usize, driver: &mut dyn BackendDriver) {
        if let Some(seated) = self.slots[slot].take() {
            seated.socket.refresh_drop_count();
            // Before others join. When a socket closes, and io_uring takes a while to close it,
            // Linux takes its memberships from whichever NIC has the index by then.
            let info = seated.socket.info_as(&seated.plan);
            let left = seated.socket.follow(&[]).left;
            self.events.extend(left.into_iter().map(|left| left_group(&seated.socket, left)));
            self.events.push(Event::SocketClosed(info));
            drop(seated);
            driver.remove(slot as u16);
        }
    }

    /// Opens what is planned and not open, and joins the groups that are not joined. Returns
    /// whether something is missing that was not missing before.
    pub fn open_missing(
        &mut self,
        plans: &[Vec<SocketPlan>],
        ports: &[u16],
        opener: Opener<'_>,
        driver: &mut dyn BackendDriver,
    ) -> bool {
        let before = std::mem::take(&mut self.missing);
        self.complete(of_ports(plans, ports), &before, opener, driver);
        let was_missing: HashSet<_> = before.iter().map(Missing::key).collect();
        self.missing.iter().any(|missing| !was_missing.contains(&missing.key()))
    }

    /// Tries again to open what is missing. Returns whether that has changed anything.
    pub fn retry(&mut self, opener: Opener<'_>, driver: &mut dyn BackendDriver) -> bool {
        let before = std::mem::take(&mut self.missing);
        let wanted = before.iter().map(|missing| (missing.port, &missing.plan));
        let has_opened = self.complete(wanted, &before, opener, driver);
        let passing_count = |all: &[Missing]| all.iter().filter(|one| one.is_passing).count();
        has_opened
            || self.missing.len() != before.len()
            || passing_count(&self.missing) != passing_count(&before)
    }

    /// Returns whether a socket was opened.
    fn complete<'a>(
        &mut self,
        wanted: impl Iterator<Item = (u16, &'a SocketPlan)>,
        before: &[Missing],
        opener: Opener<'_>,
        driver: &mut dyn BackendDriver,
    ) -> bool {
        let mut has_opened = false;
        let before: HashMap<_, _> = before.iter().map(|missing| (missing.key(), missing)).collect();
        let seated = self.slots.iter().flatten();
        let open: HashMap<_, _> = seated
            .map(|seated| ((seated.socket.port, seated.plan.key()), Arc::clone(&seated.socket)))
            .collect();
        for (port, plan) in wanted {
            let key = (port, plan.key());
            let was_missing = before.get(&key).copied();
            let failed = match open.get(&key) {
                Some(socket) => join_groups(socket, plan, &mut self.events),
                None => {
                    let relapse = self.relapses.get(&key).filter(|relapse| relapse.is_resting());
                    if let (Some(_), Some(missing)) = (relapse, was_missing) {
                        self.missing.push(missing.clone());
                        continue;
                    }
                    let (is_open, failed) = self.open_one(plan, port, opener, driver);
                    has_opened |= is_open;
                    failed
                }
            };
            if !failed.is_empty() {
                let was_told = was_missing.is_some_and(|missing| !missing.is_passing);
                self.note_missing(plan, port, failed, opener, was_told);
            }
        }
        has_opened
    }

    /// Returns whether it is open, and what failed.
    fn open_one(
        &mut self,
        plan: &SocketPlan,
        port: u16,
        opener: Opener<'_>,
        driver: &mut dyn BackendDriver,
    ) -> (bool, Failures) {
        let joined_from = self.events.len();
        let (socket, mut failed) = self.open_socket(plan, port, opener);
        let Some(socket) = socket else {
            return (false, failed);
        };
        let seated = Seated { plan: plan.clone(), socket: socket.shared() };
        let is_open = match self.seat(seated, driver) {
            Ok(()) => {
                // A socket is told before its groups.
                self.events[joined_from..].rotate_right(1);
                true
            }
            Err(error) => {
                self.events.truncate(joined_from); // it is closed again
                failed.push((SocketAddrV4::new(plan.address, port), error));
                false
            }
        };
        (is_open, failed)
    }

    fn seat(&mut self, seated: Seated, driver: &mut dyn BackendDriver) -> Result<()> {
        let is_free = |slot: &usize| {
            self.slots.get(*slot).is_none_or(Option::is_none) && driver.is_free(*slot as u16)
        };
        let slot = (0..SLOT_COUNT_MAX)
            .find(is_free)
            .ok_or_else(|| too_many_sockets(SLOT_COUNT_MAX + 1))?;
        add(driver, slot, &seated.socket)?;
        if slot >= self.slots.len() {
            self.slots.resize_with(slot + 1, || None);
        }
        self.events.push(Event::SocketOpened(seated.socket.info_as(&seated.plan)));
        self.slots[slot] = Some(seated);
        Ok(())
    }

    /// Closes a socket that the backend has given up. It is missing from then on.
    pub fn give_up(
        &mut self,
        slot: u16,
        source: io::Error,
        opener: Opener<'_>,
        driver: &mut dyn BackendDriver,
    ) {
        let Some(Some(seated)) = self.slots.get(usize::from(slot)) else { return };
        let (plan, port) = (seated.plan.clone(), seated.socket.port);
        let error = seated.socket.failed("receiving on", source);
        self.close(slot.into(), driver);
        let failed = vec![(SocketAddrV4::new(plan.address, port), error)];
        // It may have been missing a group.
        self.missing.retain(|missing| missing.key() != (port, plan.key()));
        self.relapses.retain(|_, relapse| relapse.last_at.elapsed() < RELAPSE_TIME_MAX);
        let relapse = self.relapses.get(&(port, plan.key()));
        let count = relapse.map_or(0, |relapse| relapse.count.saturating_add(1));
        let relapse = Relapse { count, last_at: Instant::now() };
        self.relapses.insert((port, plan.key()), relapse);
        self.note_missing(&plan, port, failed, opener, count > 0);
    }

    fn note_missing(
        &mut self,
        plan: &SocketPlan,
        port: u16,
        failed: Failures,
        opener: Opener<'_>,
        was_told: bool,
    ) {
        let is_taken = failed.iter().all(|(_, error)| error.kind() == io::ErrorKind::AddrInUse);
        let is_passing = is_taken && opener.has_just_closed && !was_told;
        let nic = &plan.nic;
        let failed_nic = |(address, error)| FailedNic::new(nic.clone(), address, error);
        let failures: Vec<_> = failed.into_iter().map(failed_nic).collect();
        if !is_passing && !was_told {
            self.events.extend(failures.iter().cloned().map(Event::Failed));
        }
        self.missing.push(Missing { plan: plan.clone(), port, failures, is_passing });
    }

    /// Notes what happened, to be told.
    pub fn note(&mut self, event: Event) {
        self.events.push(event);
    }

    /// Notes each socket that is open.
    pub fn note_opened(&mut self) {
        let opened = self.infos().into_iter().map(Event::SocketOpened);
        self.events.extend(opened.collect::<Vec<_>>());
    }

    /// What happened since the last call.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Lets go of every socket.
    pub fn clear(&mut self) {
        self.slots.clear();
    }
}

/// Each plan with its port.
fn of_ports<'a>(
    plans: &'a [Vec<SocketPlan>],
    ports: &'a [u16],
) -> impl Iterator<Item = (u16, &'a SocketPlan)> {
    let of_port = |(port, plans): (&u16, &'a Vec<SocketPlan>)| {
        let port = *port;
        plans.iter().map(move |plan| (port, plan))
    };
    ports.iter().zip(plans).flat_map(of_port)
}

fn join_groups(socket: &ListenSocket, plan: &SocketPlan, events: &mut Vec<Event>) -> Failures {
    let Followed { joined, left, failed } = socket.follow(&plan.joins);
    let at_port = |group| SocketAddrV4::new(group, socket.port);
    events.extend(left.into_iter().map(|left| left_group(socket, left)));
    events.extend(
        joined
            .into_iter()
            .map(|(group, ifindex)| Event::GroupJoined { group: at_port(group), ifindex }),
    );
    failed.into_iter().map(|(group, error)| (at_port(group), error)).collect()
}

fn left_group(socket: &ListenSocket, (group, ifindex): (Ipv4Addr, u32)) -> Event {
    Event::GroupLeft { group: SocketAddrV4::new(group, socket.port), ifindex }
}

fn add(driver: &mut dyn BackendDriver, slot: usize, socket: &Arc<ListenSocket>) -> Result<()> {
    driver
        .add(slot as u16, Arc::clone(socket))
        .map_err(|source| socket.failed("adding to the backend", source))
}

fn too_many_sockets(count: usize) -> Error {
    let reason =
        format!("{count} sockets are needed, {SLOT_COUNT_MAX} is the most: choose fewer NICs");
    Error::setting("nic", reason)
}
