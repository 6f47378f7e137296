//! A snapshot of the host's interfaces, which several tasks share and refresh.

use std::{
    io,
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use crate::{
    lock::lock,
    nics::{Nic, NicAddress, Nics, longest_prefix},
};

/// One IPv4 address of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IfaceInfo {
    /// The interface's index; 0 where the system reports none.
    pub index: u32,
    /// The interface's name, such as `eth0`.
    pub name: String,
    /// The address.
    pub ip: Ipv4Addr,
    /// The mask of its subnet.
    pub netmask: Ipv4Addr,
    /// The broadcast address that follows from address and mask; `None` for /31, /32, /0,
    /// point-to-point and loopback interfaces.
    pub broadcast: Option<Ipv4Addr>,
    /// Whether the interface is up and not loopback. Searches and beacons go to such interfaces.
    pub up_non_loopback: bool,
}

impl IfaceInfo {
    fn new(nic: &Nic, own: &NicAddress) -> Self {
        Self {
            index: nic.index,
            name: nic.name.clone(),
            ip: own.address,
            netmask: own.netmask,
            broadcast: broadcast_of(nic, own),
            up_non_loopback: nic.is_up && !nic.is_loopback,
        }
    }
}

/// Loopback and point-to-point interfaces have none here.
pub(super) fn broadcast_of(nic: &Nic, own: &NicAddress) -> Option<Ipv4Addr> {
    own.broadcast.filter(|_| !nic.is_loopback && !nic.is_point_to_point)
}

/// What differs between two snapshots of [`IfaceMap::all`].
///
/// ```
/// use nicring::udp_v4::{IfaceDiff, IfaceMap};
///
/// let map = IfaceMap::new();
/// let before = map.all();
/// let diff = IfaceDiff::between(&before, &[]);
/// assert!(diff.added.is_empty() && diff.changed.is_empty());
/// assert_eq!(diff.removed, before);
/// assert!(IfaceDiff::between(&before, &before).is_empty());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct IfaceDiff {
    /// Addresses that are new.
    pub added: Vec<IfaceInfo>,
    /// Addresses that are gone, as they were.
    pub removed: Vec<IfaceInfo>,
    /// Addresses of which something else changed: as they were, and as they are.
    pub changed: Vec<(IfaceInfo, IfaceInfo)>,
}

impl IfaceDiff {
    /// The changes that lead from `before` to `after`. An address that moved to another interface,
    /// or whose interface was created anew, is both removed and added.
    #[must_use]
    pub fn between(before: &[IfaceInfo], after: &[IfaceInfo]) -> Self {
        let is_same = |a: &IfaceInfo, b: &IfaceInfo| (a.index, a.ip) == (b.index, b.ip);
        let mut diff = Self::default();
        for old in before {
            match after.iter().find(|new| is_same(old, new)) {
                None => diff.removed.push(old.clone()),
                Some(new) if new != old => diff.changed.push((old.clone(), new.clone())),
                Some(_) => {}
            }
        }
        let is_new = |new: &&IfaceInfo| !before.iter().any(|old| is_same(old, new));
        diff.added.extend(after.iter().filter(is_new).cloned());
        diff
    }

    /// Whether nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

/// The interfaces of this host as of the last refresh. Clones share one snapshot.
///
/// ```
/// use nicring::udp_v4::IfaceMap;
///
/// let map = IfaceMap::new();
/// let lo = map.route_to([127, 0, 0, 1].into()).expect("every host has one");
/// assert!(!lo.up_non_loopback);
/// ```
#[derive(Debug, Clone)]
pub struct IfaceMap {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    nics: Arc<Nics>,
    ifaces: Vec<IfaceInfo>,
    /// `None` until the interfaces could be listed.
    refreshed: Option<Instant>,
}

impl Inner {
    fn new(nics: Nics, refreshed: Option<Instant>) -> Self {
        let addresses = nics.iter().flat_map(|nic| nic.addresses.iter().map(move |own| (nic, own)));
        let ifaces = addresses.map(|(nic, own)| IfaceInfo::new(nic, own)).collect();
        Self { nics: Arc::new(nics), ifaces, refreshed }
    }
}

/// The one address that every host has, used until the system lists its interfaces.
fn loopback_alone() -> Nics {
    let own = NicAddress::new(Ipv4Addr::LOCALHOST, Ipv4Addr::new(255, 0, 0, 0));
    Nics::from_iter([Nic { is_loopback: true, ..Nic::new("lo", 0, vec![own]) }])
}

impl IfaceMap {
    /// Lists the interfaces. If that fails, the failure is logged, the map holds only 127.0.0.1,
    /// and the next [`IfaceMap::refresh_if_stale`] tries again.
    #[must_use]
    pub fn new() -> Self {
        Self::of(Nics::enumerate())
    }

    /// Lists the interfaces.
    ///
    /// # Errors
    ///
    /// The system's error.
    pub fn try_new() -> io::Result<Self> {
        Ok(Self::of(Ok(Nics::enumerate()?)))
    }

    fn of(enumerated: crate::Result<Nics>) -> Self {
        let inner = match enumerated {
            Ok(nics) => Inner::new(nics, Some(Instant::now())),
            Err(error) => {
                tracing::warn!(%error, "127.0.0.1 is taken for the only address");
                Inner::new(loopback_alone(), None)
            }
        };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }

    pub(super) fn nics(&self) -> Arc<Nics> {
        Arc::clone(&self.inner().nics)
    }

    /// Lists the interfaces again. If that fails, the failure is logged and the snapshot stays as
    /// it was.
    pub fn refresh(&self) {
        if let Err(error) = self.try_refresh() {
            tracing::warn!(%error, "the snapshot of the interfaces stays as it was");
        }
    }

    /// Lists the interfaces again and returns what has changed.
    ///
    /// # Errors
    ///
    /// The system's error; the snapshot then stays as it was.
    pub fn try_refresh(&self) -> io::Result<IfaceDiff> {
        self.replace(Nics::enumerate())
    }

    fn replace(&self, enumerated: crate::Result<Nics>) -> io::Result<IfaceDiff> {
        let new = Inner::new(enumerated?, Some(Instant::now()));
        let mut inner = self.inner();
        let diff = IfaceDiff::between(&inner.ifaces, &new.ifaces);
        *inner = new;
        Ok(diff)
    }

    /// Refreshes if the snapshot is older than `max_age`. Returns the age before the refresh, or
    /// [`Duration::MAX`] if the interfaces could never be listed.
    #[must_use]
    pub fn refresh_if_stale(&self, max_age: Duration) -> Duration {
        let age = self.inner().refreshed.map_or(Duration::MAX, |at| at.elapsed());
        if age > max_age {
            self.refresh();
        }
        age
    }

    /// Starts a task that refreshes the snapshot once per `period` until it is aborted. The first
    /// refresh comes after one `period`. Dropping the handle does not end the task.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime that has time enabled.
    #[must_use]
    pub fn spawn_refresh(&self, period: Duration) -> tokio::task::JoinHandle<()> {
        let map = self.clone();
        tokio::spawn(async move {
            // tokio panics at an interval of zero.
            let mut interval = tokio::time::interval(period.max(Duration::from_millis(1)));
            interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            interval.tick().await;
            loop {
                interval.tick().await;
                map.refresh();
            }
        })
    }

    /// Every address, including those of loopback interfaces and of interfaces that are down.
    #[must_use]
    pub fn all(&self) -> Vec<IfaceInfo> {
        self.inner().ifaces.clone()
    }

    /// The addresses of interfaces that are up and not loopback.
    #[must_use]
    pub fn up_non_loopback(&self) -> Vec<IfaceInfo> {
        let inner = self.inner();
        inner.ifaces.iter().filter(|iface| iface.up_non_loopback).cloned().collect()
    }

    /// The first address of the interface with this index.
    #[must_use]
    pub fn by_index(&self, index: u32) -> Option<IfaceInfo> {
        self.inner().ifaces.iter().find(|iface| iface.index == index).cloned()
    }

    /// The address on whose link `dest` is: the one with the longest prefix that holds `dest`,
    /// loopback for 127.0.0.0/8, otherwise one with a mask of /0. `None` means that the system's
    /// routes decide.
    #[must_use]
    pub fn route_to(&self, dest: Ipv4Addr) -> Option<IfaceInfo> {
        let inner = self.inner();
        let ifaces = &inner.ifaces;
        let on_link = longest_prefix(ifaces.iter(), dest, |iface| (iface.ip, iface.netmask));
        let loopback = || ifaces.iter().find(|iface| dest.is_loopback() && iface.ip.is_loopback());
        let everything = || {
            let mut ifaces = ifaces.iter();
            ifaces.find(|iface| iface.netmask.is_unspecified() && !iface.ip.is_loopback())
        };
        on_link.or_else(loopback).or_else(everything).cloned()
    }
}

impl Default for IfaceMap {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    fn nic(name: &str, index: u32, addresses: &[([u8; 4], u32)]) -> Nic {
        let address = |&(address, prefix_len): &([u8; 4], u32)| {
            let mask = u32::MAX.checked_shl(32 - prefix_len).unwrap_or(0);
            NicAddress::new(address.into(), Ipv4Addr::from_bits(mask))
        };
        let addresses = addresses.iter().map(address).collect();
        Nic { is_loopback: name == "lo", ..Nic::new(name, index, addresses) }
    }

    fn map(nics: Vec<Nic>) -> IfaceMap {
        IfaceMap::of(Ok(Nics::from_iter(nics)))
    }

    fn failure() -> crate::Result<Nics> {
        Err(Error::Enumerate { source: io::ErrorKind::OutOfMemory.into() })
    }

    #[test]
    fn a_failed_enumeration_leaves_no_empty_map() {
        let map = IfaceMap::of(failure());
        assert_eq!(map.all().len(), 1);
        assert_eq!(map.all()[0].ip, Ipv4Addr::LOCALHOST);
        // Such a map is stale at any `max_age`, and the next refresh fills it.
        assert_eq!(map.refresh_if_stale(Duration::from_secs(1 << 30)), Duration::MAX);
        assert!(map.refresh_if_stale(Duration::MAX) < Duration::from_secs(60));
    }

    #[test]
    fn a_failed_refresh_keeps_the_old_snapshot() {
        let map = map(vec![nic("a", 2, &[([10, 1, 0, 1], 24)])]);
        let before = map.all();
        assert_eq!(map.replace(failure()).unwrap_err().kind(), io::ErrorKind::OutOfMemory);
        assert_eq!(map.all(), before);
    }

    #[test]
    fn broadcasts_follow_from_the_mask() {
        let mut tunnel = nic("tun", 5, &[([10, 5, 0, 1], 24)]);
        tunnel.is_point_to_point = true;
        let map = map(vec![
            nic("lo", 1, &[([127, 0, 0, 1], 8)]),
            nic("a", 2, &[([10, 1, 0, 1], 24), ([10, 1, 0, 2], 24), ([10, 2, 0, 1], 30)]),
            nic("b", 3, &[([10, 3, 0, 0], 31), ([10, 4, 0, 1], 32), ([10, 6, 0, 1], 0)]),
            tunnel,
        ]);
        let broadcasts: Vec<_> = map.all().iter().map(|iface| iface.broadcast).collect();
        let of_a = [[10, 1, 0, 255], [10, 1, 0, 255], [10, 2, 0, 3]].map(|ip| Some(ip.into()));
        assert_eq!(broadcasts[1..4], of_a);
        assert_eq!((broadcasts[0], &broadcasts[4..]), (None, &[None; 4][..]));
    }

    #[test]
    fn the_longest_prefix_wins() {
        let map = map(vec![
            nic("lo", 1, &[([127, 0, 0, 1], 8)]),
            nic("wide", 2, &[([10, 0, 0, 1], 8)]),
            nic("narrow", 3, &[([10, 1, 0, 1], 24)]),
            nic("any", 4, &[([192, 0, 2, 1], 0)]),
        ]);
        let index = |dest: [u8; 4]| map.route_to(dest.into()).map(|iface| iface.index);
        assert_eq!(index([10, 1, 0, 255]), Some(3));
        assert_eq!(index([10, 2, 0, 9]), Some(2));
        assert_eq!(index([127, 9, 9, 9]), Some(1));
        assert_eq!(index([8, 8, 8, 8]), Some(4));
    }

    #[test]
    fn a_diff_tells_what_came_went_and_changed() {
        let before = map(vec![nic("a", 2, &[([10, 1, 0, 1], 24), ([10, 2, 0, 1], 24)])]).all();
        let mut down = nic("a", 2, &[([10, 1, 0, 1], 24)]);
        down.is_up = false;
        let after = map(vec![down, nic("b", 3, &[([10, 2, 0, 1], 24)])]).all();
        let diff = IfaceDiff::between(&before, &after);
        assert_eq!(
            (&diff.removed, &diff.added),
            (&vec![before[1].clone()], &vec![after[1].clone()])
        );
        assert_eq!(diff.changed, [(before[0].clone(), after[0].clone())]);
        assert!(IfaceDiff::between(&after, &after).is_empty());
    }

    #[test]
    fn a_refresh_tells_its_age_and_a_task_refreshes() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let map = IfaceMap::new();
            let clone = map.clone();
            let first = map.inner().refreshed;
            let task = clone.spawn_refresh(Duration::ZERO);
            tokio::time::sleep(Duration::from_millis(50)).await;
            task.abort();
            assert!(map.inner().refreshed > first);
        });
    }
}
