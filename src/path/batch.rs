//! What was received in one turn of the engine, and the replies to it.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddrV4},
    sync::{Arc, Mutex},
};

use super::host::Host;
use crate::{
    datagram::{Datagram, Egress, Outbox, Payloads, Queued, Record, ReplyPath},
    lock::lock,
    nics::{Nic, Nics},
};

/// The datagrams that one turn of the engine received on all NICs, oldest first on each socket.
///
/// Replies are queued in the batch and leave with the engine's next submission.
///
/// ```no_run
/// # use std::ops::ControlFlow;
/// # let engine = nicring::Engine::builder().port(5076).open()?;
/// engine.run(|batch| {
///     for datagram in batch.iter() {
///         batch.reply(&datagram, datagram.payload()); // an echo server
///     }
///     ControlFlow::Continue(())
/// })?;
/// # Ok::<(), nicring::Error>(())
/// ```
pub struct Batch {
    pub(crate) records: Vec<Record>,
    pub(crate) payloads: Payloads,
    pub(crate) outbox: Mutex<Outbox>,
    pub(crate) host: Arc<Host>,
}

impl Batch {
    pub(crate) fn new(payloads: Payloads, outbox: Outbox, batch_max: usize) -> Self {
        Self {
            records: Vec::with_capacity(batch_max),
            payloads,
            outbox: Mutex::new(outbox),
            host: Arc::default(),
        }
    }

    /// How many datagrams there are; 0 at a [tick](crate::Builder::tick) if none came.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is no datagram.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The datagrams.
    #[must_use]
    pub fn iter(&self) -> Datagrams<'_> {
        Datagrams { records: self.records.iter(), payloads: &self.payloads }
    }

    /// The NICs as the engine knew them when it received the batch.
    #[must_use]
    pub fn nics(&self) -> &Nics {
        &self.host.nics
    }

    /// The NICs that the engine listens on, each with those of its addresses that it listens at.
    #[must_use]
    pub fn heard_nics(&self) -> &Nics {
        &self.host.heard
    }

    /// The NIC that heard a datagram ([`Datagram::nic`]), as the engine knew it then.
    ///
    /// ```
    /// # fn heard(batch: &nicring::Batch, datagram: &nicring::Datagram<'_>) {
    /// let nic = batch.nic(datagram).map_or("an unknown NIC", |nic| &nic.name);
    /// println!("{} asked at {nic}", datagram.source());
    /// # }
    /// ```
    #[must_use]
    pub fn nic(&self, datagram: &Datagram<'_>) -> Option<&Nic> {
        self.nics().by_index(datagram.nic()?)
    }

    /// Queues an answer to the sender of `datagram`.
    ///
    /// It leaves from the port that was asked. Its source is the address that was asked; after a
    /// broadcast or a group datagram it is an address of the NIC that heard it
    /// ([the guide](crate::guide#the-way-of-a-reply)).
    pub fn reply(&self, datagram: &Datagram<'_>, payload: &[u8]) -> Queued {
        self.reply_to(datagram, datagram.source(), payload)
    }

    /// Queues an answer to `destination`, an address that the asker named.
    pub fn reply_to(
        &self,
        datagram: &Datagram<'_>,
        destination: SocketAddrV4,
        payload: &[u8],
    ) -> Queued {
        self.reply_by(datagram.reply_path(), destination, payload)
    }

    /// Queues an answer to `destination`, for any of the datagrams that came by `path`.
    ///
    /// ```
    /// # fn answer(batch: &nicring::Batch, datagram: &nicring::Datagram<'_>) {
    /// let (path, asker) = (datagram.reply_path(), datagram.source());
    /// batch.reply_by(path, asker, b"hello"); // as `batch.reply(datagram, b"hello")`
    /// # }
    /// ```
    pub fn reply_by(&self, path: ReplyPath, destination: SocketAddrV4, payload: &[u8]) -> Queued {
        match self.way(&path, destination) {
            Some(egress) => self.outbox().push(Some(path.origin()), egress, destination, payload),
            None => self.outbox().refuse(),
        }
    }

    /// Queues an answer that `write` composes. `write` gets `len_max` bytes, all zeros, and returns
    /// how many of them it wrote.
    ///
    /// ```
    /// # fn answer(batch: &nicring::Batch, datagram: &nicring::Datagram<'_>) {
    /// batch.reply_with(datagram, 5, |buffer| {
    ///     buffer.copy_from_slice(b"hello");
    ///     5
    /// });
    /// # }
    /// ```
    pub fn reply_with(
        &self,
        datagram: &Datagram<'_>,
        len_max: usize,
        write: impl FnOnce(&mut [u8]) -> usize,
    ) -> Queued {
        let (path, destination) = (datagram.reply_path(), datagram.source());
        let Some(egress) = self.way(&path, destination) else { return self.outbox().refuse() };
        Outbox::compose(&self.outbox, path.origin(), (egress, destination), len_max, write)
    }

    /// Queues a datagram that answers nothing, such as a beacon: from the first port, unless the
    /// egress names another.
    pub fn send(&self, egress: Egress, destination: SocketAddrV4, payload: &[u8]) -> Queued {
        self.host.send(&self.outbox, egress, destination, payload)
    }

    /// Queues a datagram that answers nothing once for each NIC that the engine listens on, by
    /// which it leaves: to a group, or to 255.255.255.255. See [`Handle::fan_out`].
    ///
    /// [`Handle::fan_out`]: crate::Handle::fan_out
    ///
    /// ```
    /// # fn announce(batch: &nicring::Batch) {
    /// use std::net::{Ipv4Addr, SocketAddrV4};
    ///
    /// let everyone = SocketAddrV4::new(Ipv4Addr::BROADCAST, 5065);
    /// batch.fan_out(nicring::Egress::by_route(), everyone, b"I am here");
    /// # }
    /// ```
    pub fn fan_out(&self, egress: Egress, destination: SocketAddrV4, payload: &[u8]) -> Queued {
        self.host.fan_out(&self.outbox, egress, destination, payload)
    }

    /// How an answer to `datagram` leaves when it is sent to `destination`. Its source is the
    /// address of this host that the asker sees; `None` where the kernel chooses it, as for what
    /// another server of this host has passed on.
    ///
    /// ```
    /// # fn answer(batch: &nicring::Batch, datagram: &nicring::Datagram<'_>) {
    /// // Some protocols tell the asker where to connect to.
    /// let own = batch.egress(datagram, *datagram.source().ip()).source;
    /// let location = own.map(|own| format!("http://{own}:8080/"));
    /// # }
    /// ```
    #[must_use]
    pub fn egress(&self, datagram: &Datagram<'_>, destination: Ipv4Addr) -> Egress {
        self.host.egress(&datagram.reply_path(), destination)
    }

    fn way(&self, path: &ReplyPath, destination: SocketAddrV4) -> Option<Egress> {
        self.host.way(path, destination)
    }

    /// The outbox; `&mut self` proves that nobody else has it.
    pub(crate) fn outbox_mut(&mut self) -> &mut Outbox {
        self.outbox.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn outbox(&self) -> std::sync::MutexGuard<'_, Outbox> {
        lock(&self.outbox)
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> IntoIterator for &'a Batch {
    type Item = Datagram<'a>;
    type IntoIter = Datagrams<'a>;

    fn into_iter(self) -> Datagrams<'a> {
        self.iter()
    }
}

/// The datagrams of a [`Batch`].
#[derive(Debug, Clone)]
pub struct Datagrams<'a> {
    records: std::slice::Iter<'a, Record>,
    payloads: &'a Payloads,
}

impl<'a> Iterator for Datagrams<'a> {
    type Item = Datagram<'a>;

    fn next(&mut self) -> Option<Datagram<'a>> {
        let record = self.records.next()?;
        let payload = self.payloads.payload(record);
        Some(Datagram { record, payload })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.records.size_hint()
    }
}

impl ExactSizeIterator for Datagrams<'_> {}
