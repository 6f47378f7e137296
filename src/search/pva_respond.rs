//! Answers PVA SEARCH.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr, SocketAddrV4},
    thread,
};

use super::{
    Lookup, Protocol, Reject, Reply, SearchCounts,
    names::{TOGETHER_MAX, is_host},
    pva,
    waiting::{HELD_MAX, Hit, Waiting},
};
use crate::nics::Subnet;

/// Who asked, and how the question came.
///
/// ```
/// use nicring::search::Asked;
///
/// let source: std::net::SocketAddrV4 = "192.0.2.99:40000".parse()?;
/// let mut asked = Asked::from(source);
/// asked.truncated = true; // Datagram::is_truncated
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Asked {
    /// The sender of the datagram.
    pub source: SocketAddrV4,
    /// Whether it came through the loopback group 224.0.0.128, by which the servers of one host
    /// pass on what only one of them received.
    pub forwarded: bool,
    /// Whether only the beginning of the datagram arrived. Then the names that are whole are
    /// answered.
    pub truncated: bool,
    /// The address that replies come from, if it is known. It is part of the identity of this host
    /// where the table names this host as the server (0.0.0.0).
    pub own: Option<Ipv4Addr>,
}

impl From<SocketAddrV4> for Asked {
    fn from(source: SocketAddrV4) -> Self {
        Self { source, forwarded: false, truncated: false, own: None }
    }
}

/// Turns datagrams of PVA SEARCH into replies that name the servers of a
/// [`NameTable`](super::NameTable), or of any other [`Lookup`].
///
/// A reply holds one server and the ids of the names that this server has, in the byte order of the
/// request. Each reply is a datagram of its own, because pvxs clients read only the first message
/// of a datagram. Names that are not in the table get no answer. A ping, which asks for a sign of
/// life and no name, is counted. Its answer is left to the servers themselves.
///
/// A request says where its reply goes, so anyone could have replies sent to anyone. Therefore
/// replies go only to the sender, to hosts in the given subnets, and to the one host that a request
/// names if a server of this host passed it on. Everything else is refused and counted.
///
/// ```
/// use nicring::search::{NameTable, Protocol, PvaResponder, pva};
///
/// let mut builder = NameTable::builder();
/// builder.insert(Protocol::Pva, "ioc1:temp", "192.0.2.7:5075".parse()?)?;
/// let names = builder.build();
/// let mut request = pva::RequestWriter::new();
/// request.begin(pva::SearchHead {
///     byte_order: pva::ByteOrder::Little,
///     sequence: 7,
///     flags: 0,
///     reply_to: "0.0.0.0:40001".parse()?,
/// });
/// request.push(42, b"ioc1:temp");
///
/// let mut responder = PvaResponder::new(vec!["192.0.2.0/24".parse()?]);
/// let mut replies = Vec::new();
/// let source: std::net::SocketAddrV4 = "192.0.2.99:40000".parse()?;
/// responder.answer(&names, request.datagram(), source.into(), &mut |to, bytes| {
///     replies.push((to, bytes.to_vec()));
/// });
/// assert_eq!(replies[0].0, "192.0.2.99:40001".parse()?);
/// let response = pva::messages(&replies[0].1).next().unwrap()?.search_response()?;
/// assert!(response.ids().eq([42]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct PvaResponder<W = ()> {
    counts: SearchCounts,
    reply_subnets: Vec<Subnet>,
    accepts_untagged: bool,
    /// Where what servers of this host pass on may have been sent to; `None` for anywhere.
    origins: Option<Vec<Ipv4Addr>>,
    response: pva::ResponseWriter,
    /// Those whose names wait to be looked up, or were found.
    questions: Vec<Question<W>>,
    /// Names found and not yet answered.
    hits: Vec<Hit>,
}

/// What the answers to a request have in common.
#[derive(Debug, Clone, Copy)]
struct Question<W> {
    to: SocketAddrV4,
    way: W,
    /// Where the answers come from, if it is known.
    own: Option<Ipv4Addr>,
    sequence: u32,
    byte_order: pva::ByteOrder,
}

impl<W: Copy> Default for PvaResponder<W> {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl PvaResponder {
    /// Answers one datagram: calls `send` with the destination and the bytes of each reply.
    pub fn answer(
        &mut self,
        names: &dyn Lookup,
        payload: &[u8],
        asked: Asked,
        send: &mut dyn FnMut(SocketAddrV4, &[u8]),
    ) {
        self.pack(names, |reply| send(reply.to, reply.payload)).add(payload, asked, ());
    }
}

impl<W: Copy> PvaResponder<W> {
    /// A responder that replies to senders, and to hosts in these subnets.
    #[must_use]
    pub fn new(reply_subnets: Vec<Subnet>) -> Self {
        Self {
            counts: SearchCounts::default(),
            reply_subnets,
            accepts_untagged: false,
            origins: None,
            response: pva::ResponseWriter::new(),
            questions: Vec::with_capacity(HELD_MAX),
            hits: Vec::with_capacity(HELD_MAX),
        }
    }

    /// Replaces the subnets, when the addresses of the host have changed.
    pub fn set_reply_subnets(&mut self, reply_subnets: Vec<Subnet>) {
        self.reply_subnets = reply_subnets;
    }

    /// Answers what servers of this host pass on without an ORIGIN_TAG, as some old ones do; not
    /// unless called. Any program of this host can then have replies sent to any other host.
    #[must_use]
    pub fn accept_untagged(mut self) -> Self {
        self.accepts_untagged = true;
        self
    }

    /// Answers what servers of this host pass on only if it was sent to one of these addresses;
    /// with `None`, as unless called, whatever it was sent to.
    pub fn set_origins(&mut self, origins: Option<Vec<Ipv4Addr>>) {
        self.origins = origins;
    }

    /// Answers several datagrams at once.
    ///
    /// Drop what this returns at the end of each batch: it then sends the answers that are left. So
    /// no answer waits longer than the batch in which its question came. `send` is called with each
    /// [`Reply`]. Its way is that of the question, any value that tells how the reply must leave;
    /// with an engine, [`Datagram::reply_path`](crate::Datagram::reply_path).
    ///
    /// The names of all datagrams are looked up together, 32 at a time ([`Lookup`]). An
    /// [`Answerer`](super::Answerer) does this for whole batches of an engine.
    ///
    /// ```no_run
    /// # use std::ops::ControlFlow;
    /// # let names = nicring::search::NameTable::builder().build();
    /// let mut responder = nicring::search::PvaResponder::new(Vec::new());
    /// let engine = nicring::Engine::builder().port(5076).open()?;
    /// engine.run(|batch| {
    ///     let mut answers = responder.pack(&names, |reply| {
    ///         batch.reply_by(reply.way, reply.to, reply.payload);
    ///     });
    ///     for datagram in batch {
    ///         let asked = datagram.source().into();
    ///         answers.add(datagram.payload(), asked, datagram.reply_path());
    ///     }
    ///     ControlFlow::Continue(())
    /// })?;
    /// # Ok::<(), nicring::Error>(())
    /// ```
    pub fn pack<'a, F: FnMut(Reply<'_, W>)>(
        &'a mut self,
        names: &'a dyn Lookup,
        send: F,
    ) -> PvaAnswers<'a, W, F> {
        // An earlier panic may have left some.
        self.questions.clear();
        self.hits.clear();
        PvaAnswers { responder: self, names, waiting: Waiting::new(), send }
    }

    /// What it has counted so far.
    #[must_use]
    pub fn counts(&self) -> &SearchCounts {
        &self.counts
    }

    /// Whether a request that was sent to this address first is to be answered.
    fn may_come_from(&self, origin: Ipv6Addr) -> bool {
        let Some(origins) = &self.origins else { return true };
        origin.to_ipv4_mapped().is_some_and(|origin| origins.contains(&origin))
    }

    /// Where a reply goes; `None` if there is nothing to reply to.
    fn destination(
        &mut self,
        search: &pva::Search<'_>,
        asked: Asked,
        tagged: bool,
    ) -> Result<Option<SocketAddrV4>, Reject> {
        if search.name_count == 0 {
            if search.must_reply() {
                self.counts.ping_count += 1;
            } else {
                self.counts.empty_count += 1;
            }
            return Ok(None);
        }
        if !search.accepts_tcp {
            return Err(Reject::NoTcp);
        }
        let reply_port = match search.wants_source_port() && !asked.forwarded {
            true => asked.source.port(),
            false => search.reply_port,
        };
        if reply_port == 0 {
            return Err(Reject::ReplyPortZero);
        }
        let address = search.reply_ipv4().ok_or(Reject::RefusedReplyAddress)?;
        let address = match (address.is_unspecified(), asked.forwarded) {
            (true, false) => *asked.source.ip(),
            // The sender is the server that passed the request on, not the client.
            (true, true) => return Err(Reject::RefusedReplyAddress),
            (false, _) => address,
        };
        if address != *asked.source.ip() && !self.may_reply_to(address, tagged) {
            return Err(Reject::RefusedReplyAddress);
        }
        Ok(Some(SocketAddrV4::new(address, reply_port)))
    }

    /// Whether a reply may go to a host other than the sender.
    fn may_reply_to(&self, address: Ipv4Addr, tagged: bool) -> bool {
        let mut around = self.reply_subnets.iter().filter(|subnet| subnet.contains(address));
        let (trusted, is_one_host) = match around.clone().next() {
            Some(_) => (true, around.all(|subnet| subnet.contains_host(address))),
            None => (tagged, true),
        };
        is_host(address) && trusted && is_one_host
    }

    /// Sends the answers that are held back, one datagram or more for each request and server.
    fn send_hits(&mut self, send: &mut dyn FnMut(Reply<'_, W>)) {
        let Self { counts, response, questions, hits, .. } = self;
        hits.sort_unstable_by_key(|hit| hit.key(hit.question));
        let share_a_reply =
            |one: &Hit, next: &Hit| (one.question, one.server) == (next.question, next.server);
        for alike in hits.chunk_by(share_a_reply) {
            let (question, server) = (&questions[alike[0].question as usize], alike[0].server);
            let head = pva::ResponseHead {
                byte_order: question.byte_order,
                guid: guid_of(server, question.own),
                sequence: question.sequence,
                server,
            };
            for together in alike.chunks(pva::RESPONSE_ID_COUNT_MAX) {
                response.begin(head);
                for hit in together {
                    response.push(hit.id);
                }
                counts.reply_count += 1;
                send(Reply {
                    way: question.way,
                    to: question.to,
                    payload: response.datagram(),
                    name_count: together.len(),
                });
            }
        }
        hits.clear();
        questions.clear();
    }
}

/// The answers to one batch of datagrams; see [`PvaResponder::pack`]. When dropped, it sends the
/// answers that it has held back.
pub struct PvaAnswers<'a, W: Copy, F: FnMut(Reply<'_, W>)> {
    responder: &'a mut PvaResponder<W>,
    names: &'a dyn Lookup,
    waiting: Waiting<'a>,
    send: F,
}

impl<'a, W: Copy, F: FnMut(Reply<'_, W>)> PvaAnswers<'a, W, F> {
    /// Answers one datagram; its replies leave by `way`.
    pub fn add(&mut self, payload: &'a [u8], asked: Asked, way: W) {
        self.responder.counts.datagram_count += 1;
        if let Err(reject) = self.read(payload, asked, way) {
            self.responder.counts.reject(reject);
        }
    }

    /// Counts a datagram that is not to be read.
    pub(super) fn ignore(&mut self) {
        self.responder.counts.ignored_count += 1;
    }

    /// What the responder has counted so far. Hits and misses are those of the names that were
    /// looked up, and replies those that were sent.
    #[must_use]
    pub fn counts(&self) -> &SearchCounts {
        &self.responder.counts
    }

    /// Stops at the first message that makes the rest of the datagram doubtful.
    fn read(&mut self, payload: &'a [u8], mut asked: Asked, way: W) -> Result<(), Reject> {
        let mut tagged = asked.forwarded && self.responder.accepts_untagged;
        let mut has_tag = false;
        let messages = match asked.truncated {
            true => pva::messages_of_cut(payload),
            false => pva::messages(payload),
        };
        for message in messages {
            let message = message?;
            match message.command {
                pva::SEARCH => {
                    let search = message.search()?;
                    match self.responder.destination(&search, asked, tagged) {
                        Ok(Some(to)) => self.ask(&search, to, asked.own, way),
                        Ok(None) => {}
                        Err(reject) => self.responder.counts.reject(reject),
                    }
                }
                pva::ORIGIN_TAG => {
                    let origin = message.origin()?;
                    if has_tag || !asked.forwarded {
                        return Err(Reject::UntrustedOriginTag);
                    }
                    if !self.responder.may_come_from(origin) {
                        return Err(Reject::ForeignOrigin);
                    }
                    (has_tag, tagged) = (true, true);
                    // As if it had been asked there by itself.
                    asked.own = origin.to_ipv4_mapped().filter(|origin| !origin.is_unspecified());
                }
                _ => self.responder.counts.other_count += 1,
            }
        }
        Ok(())
    }

    fn ask(&mut self, search: &pva::Search<'a>, to: SocketAddrV4, own: Option<Ipv4Addr>, way: W) {
        // Only here, so that the answers to one request stay together.
        let PvaResponder { questions, hits, .. } = &*self.responder;
        let held_max = hits.len() + TOGETHER_MAX + usize::from(search.name_count);
        if held_max > HELD_MAX || questions.len() == HELD_MAX {
            self.look_up();
            self.responder.send_hits(&mut self.send);
        }
        let PvaResponder { counts, questions, .. } = &mut *self.responder;
        counts.name_count += u64::from(search.name_count);
        let (sequence, byte_order) = (search.sequence, search.byte_order());
        questions.push(Question { to, way, own, sequence, byte_order });
        let question = questions.len() as u32 - 1;
        for (id, name) in search.names() {
            self.waiting.push(question, id, name);
            if self.waiting.is_full() {
                self.look_up();
            }
        }
    }

    fn look_up(&mut self) {
        let PvaResponder { counts, hits, .. } = &mut *self.responder;
        self.waiting.look_up(Protocol::Pva, self.names, counts, hits);
    }
}

impl<W: Copy, F: FnMut(Reply<'_, W>)> Drop for PvaAnswers<'_, W, F> {
    fn drop(&mut self) {
        // `send` itself may have panicked, so it is not called again.
        if !thread::panicking() {
            self.look_up();
            self.responder.send_hits(&mut self.send);
        }
    }
}

impl<W: Copy, F: FnMut(Reply<'_, W>)> fmt::Debug for PvaAnswers<'_, W, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held_count = self.responder.hits.len();
        f.debug_struct("PvaAnswers").field("held_count", &held_count).finish_non_exhaustive()
    }
}

/// The identity that a reply gives a server. A client that hears of one name from two identities
/// reports a duplicate. So all who answer for a server must give it the same identity.
fn guid_of(server: SocketAddrV4, own: Option<Ipv4Addr>) -> [u8; 12] {
    let mut guid = *b"nicrin\0\0\0\0\0\0";
    let own = own.filter(|_| server.ip().is_unspecified());
    guid[6..10].copy_from_slice(&own.unwrap_or(*server.ip()).octets());
    guid[10..].copy_from_slice(&server.port().to_be_bytes());
    guid
}
