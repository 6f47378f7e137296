//! Answers what an engine hears: the whole of a name server but its names and its engine.

use std::{cell::RefCell, net::SocketAddrV4, sync::Arc};

use super::{
    Asked, CaResponder, Lookup, NicSearchCounts, Protocol, PvaResponder, Reply, SearchCounts,
    nic_counts::NicTable, pva::FORWARD_GROUP,
};
use crate::{
    datagram::{Class, Datagram, ReplyPath},
    nics::{Nic, Subnet},
    path::{Batch, Host},
};

/// Answers the SEARCHes of an engine's batches, of CA and of PVA.
///
/// The names of all datagrams of a batch are looked up together, and the answers of CA to one
/// client share datagrams ([`CaResponder`], [`PvaResponder`]). Once it is warm it allocates
/// nothing.
///
/// Servers of PVA on one host pass on to each other what only one of them heard, in the group
/// [`FORWARD_GROUP`] on loopback. That is answered as if it had been asked here, if the engine
/// [joins the group](super::pva::forwarded), and if it was sent to a NIC that the engine listens
/// on.
///
/// ```no_run
/// use std::ops::ControlFlow;
///
/// use nicring::{Engine, search::{Answerer, NameTable, Protocol, pva}};
///
/// let mut names = NameTable::builder();
/// names.insert(Protocol::Ca, "ioc1:temp", "192.0.2.7:5064".parse()?)?;
/// names.insert(Protocol::Pva, "ioc1:temp", "192.0.2.7:5075".parse()?)?;
/// let names = names.build();
///
/// let ports = Protocol::ALL.map(Protocol::search_port);
/// let builder = Engine::builder().ports(ports).join(pva::forwarded(ports[1]));
/// let engine = builder.open()?;
/// let mut answerer = Answerer::new();
/// engine.run(|batch| {
///     answerer.answer(&names, batch);
///     ControlFlow::Continue(())
/// })?;
/// for counts in answerer.nic_counts() {
///     println!("NIC {:?}, {}: {} names", counts.nic, counts.protocol, counts.name_count);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// With async tasks each has an answerer of its own:
///
/// ```no_run
/// # use nicring::{AsyncEngine, search::{Answerer, NameTable}};
/// async fn serve(engine: &AsyncEngine, names: &NameTable) -> nicring::Result<()> {
///     let mut answerer = Answerer::new();
///     while let Some(batch) = engine.recv_batch().await? {
///         answerer.answer(names, &batch);
///     }
///     Ok(())
/// }
/// ```
///
/// A datagram that asks for names of several servers causes several replies. What finds no room in
/// a batch ([`Builder::replies_max`](crate::Builder::replies_max)) is counted by
/// [`Stats::outbox_full_count`](crate::Stats::outbox_full_count), and asked for again.
#[derive(Debug)]
pub struct Answerer {
    /// What is spoken at which port.
    ports: Vec<(u16, Protocol)>,
    /// By protocol; port 0 stands for every port.
    ignored: [Vec<SocketAddrV4>; 2],
    ca: CaResponder<ReplyPath>,
    pva: PvaResponder<ReplyPath>,
    /// What the responder's origins were made of.
    host: Arc<Host>,
    nic_counts: NicTable,
}

impl Default for Answerer {
    fn default() -> Self {
        Self::new()
    }
}

impl Answerer {
    /// Answers CA at port 5064 and PVA at port 5076 ([`Protocol::search_port`]), to whoever asks.
    #[must_use]
    pub fn new() -> Self {
        Self {
            ports: Protocol::ALL.map(|protocol| (protocol.search_port(), protocol)).to_vec(),
            ignored: Default::default(),
            ca: CaResponder::new(),
            pva: PvaResponder::default(),
            host: Arc::default(),
            nic_counts: NicTable::default(),
        }
    }

    /// Answers this protocol at this port, too. What comes to other ports of the engine is left
    /// alone.
    ///
    /// ```
    /// # use nicring::{Engine, search::{Answerer, Protocol}};
    /// let engine = Engine::builder().ports([0, 0]).nic("127.0.0.1").open()?; // unused ports
    /// let [ca, pva] = engine.ports() else { unreachable!("there are two") };
    /// let answerer = Answerer::new().port(*ca, Protocol::Ca).port(*pva, Protocol::Pva);
    /// # Ok::<(), nicring::Error>(())
    /// ```
    #[must_use]
    pub fn port(mut self, port: u16, protocol: Protocol) -> Self {
        self.ports.retain(|(known, _)| *known != port);
        self.ports.push((port, protocol));
        self
    }

    /// Does not answer what this source asks by this protocol, but counts it
    /// ([`SearchCounts::ignored_count`]). Port 0 stands for every port of the address.
    ///
    /// ```
    /// # use nicring::search::{Answerer, Protocol};
    /// let answerer = Answerer::new().ignore(Protocol::Ca, "192.0.2.99:0".parse()?);
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    #[must_use]
    pub fn ignore(mut self, protocol: Protocol, source: SocketAddrV4) -> Self {
        self.ignored[protocol as usize].push(source);
        self
    }

    /// Sends PVA answers to the address that a SEARCH names, if it is in one of these subnets.
    /// Otherwise they go to the sender only ([`PvaResponder::new`]).
    #[must_use]
    pub fn reply_subnets(mut self, subnets: impl IntoIterator<Item = Subnet>) -> Self {
        self.pva.set_reply_subnets(subnets.into_iter().collect());
        self
    }

    /// Answers what servers of this host pass on without saying so, as some old ones do
    /// ([`PvaResponder::accept_untagged`]). Any program of this host can then have answers sent to
    /// any other host.
    #[must_use]
    pub fn accept_untagged(mut self) -> Self {
        self.pva = self.pva.accept_untagged();
        self
    }

    /// Answers a batch: the replies are queued in it, and leave with it.
    ///
    /// The names may be others each time, as those of a file that was read again.
    pub fn answer(&mut self, names: &dyn Lookup, batch: &Batch) {
        self.follow(batch);
        let Self { ports, ignored, ca, pva, nic_counts, .. } = self;
        let nic_counts = RefCell::new(nic_counts);
        let nics = batch.nics();
        let send = |protocol, reply: Reply<'_, ReplyPath>| {
            batch.reply_by(reply.way, reply.to, reply.payload);
            nic_counts.borrow_mut().of(reply.way.nic(), protocol, nics).hit_count +=
                reply.name_count as u64;
        };
        let mut ca = ca.pack(names, |reply| send(Protocol::Ca, reply));
        let mut pva = pva.pack(names, |reply| send(Protocol::Pva, reply));
        for datagram in batch {
            let spoken = ports.iter().find(|(port, _)| *port == datagram.port());
            let Some(&(_, protocol)) = spoken else { continue };
            let (source, payload) = (datagram.source(), datagram.payload());
            let is_ignored = covers(&ignored[protocol as usize], source);
            let path = datagram.reply_path();
            let names_before = [ca.counts(), pva.counts()][protocol as usize].name_count;
            match protocol {
                Protocol::Ca if is_ignored => ca.ignore(),
                Protocol::Pva if is_ignored => pva.ignore(),
                Protocol::Ca if datagram.is_truncated() => ca.add_truncated(payload, source, path),
                Protocol::Ca => ca.add(payload, source, path),
                Protocol::Pva => pva.add(payload, asked(batch, &datagram), path),
            }
            if !is_ignored {
                let name_count = [ca.counts(), pva.counts()][protocol as usize].name_count;
                let mut nic_counts = nic_counts.borrow_mut();
                let counts = nic_counts.of(path.nic(), protocol, nics);
                counts.datagram_count += 1;
                counts.name_count += name_count - names_before;
            }
        }
    }

    /// What was answered by one protocol, and what was not and why.
    #[must_use]
    pub fn counts(&self, protocol: Protocol) -> &SearchCounts {
        match protocol {
            Protocol::Ca => self.ca.counts(),
            Protocol::Pva => self.pva.counts(),
        }
    }

    /// How much of that was asked on each NIC, sorted by NIC and protocol. NICs where nobody asked
    /// are missing. What the engine counts of a NIC is in [`Stats`](crate::Stats).
    #[must_use]
    pub fn nic_counts(&self) -> &[NicSearchCounts] {
        self.nic_counts.as_slice()
    }

    /// What a server of this host passes on is answered only if it was sent to a NIC that is
    /// listened on. Learns the addresses of these when the NICs have changed.
    fn follow(&mut self, batch: &Batch) {
        if Arc::ptr_eq(&self.host, &batch.host) {
            return;
        }
        self.host = Arc::clone(&batch.host);
        let (all, heard) = (batch.nics(), batch.heard_nics());
        let addresses = |nic: &Nic| {
            let own = nic.addresses.iter().flat_map(|own| [Some(own.address), own.broadcast]);
            own.flatten().collect::<Vec<_>>()
        };
        let is_everything = all == heard;
        self.pva.set_origins((!is_everything).then(|| heard.iter().flat_map(addresses).collect()));
    }
}

/// Whether a source is among the ignored ones.
fn covers(ignored: &[SocketAddrV4], source: SocketAddrV4) -> bool {
    let is_it = |one: &SocketAddrV4| one.port() == 0 || one.port() == source.port();
    ignored.iter().any(|one| one.ip() == source.ip() && is_it(one))
}

/// Who asked by PVA, and how the question came.
fn asked(batch: &Batch, datagram: &Datagram<'_>) -> Asked {
    let mut asked = Asked::from(datagram.source());
    asked.forwarded = is_forwarded(batch, datagram);
    asked.truncated = datagram.is_truncated();
    if !asked.forwarded {
        asked.own = batch.egress(datagram, *asked.source.ip()).source;
    }
    asked
}

/// Whether another server of this host passed the datagram on.
fn is_forwarded(batch: &Batch, datagram: &Datagram<'_>) -> bool {
    let is_on_loopback = || {
        let nic = datagram.ifindex().and_then(|index| batch.nics().by_index(index));
        nic.is_some_and(|nic| nic.is_loopback)
    };
    datagram.class() == Class::Group
        && datagram.destination() == Some(FORWARD_GROUP)
        && is_on_loopback()
}
