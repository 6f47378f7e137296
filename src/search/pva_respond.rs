//! Answers PVA SEARCH.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};

use super::names::is_host;
use super::{NameTable, Protocol, Reject, SearchCounts, pva};
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

/// Turns datagrams of PVA SEARCH into replies that name the servers of a [`NameTable`].
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
#[derive(Debug, Default)]
pub struct PvaResponder {
    counts: SearchCounts,
    reply_subnets: Vec<Subnet>,
    accepts_untagged: bool,
    /// Where what servers of this host pass on may have been sent to; `None` for anywhere.
    origins: Option<Vec<Ipv4Addr>>,
    hits: Vec<Hit>,
    response: pva::ResponseWriter,
}

/// A name found. The order puts the hits of one server together, in the order of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Hit {
    server: SocketAddrV4,
    place: u16,
    id: u32,
}

impl PvaResponder {
    /// A responder that replies to senders, and to hosts in these subnets.
    #[must_use]
    pub fn new(reply_subnets: Vec<Subnet>) -> Self {
        Self { reply_subnets, ..Self::default() }
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

    /// Answers one datagram: calls `send` with the destination and the bytes of each reply.
    pub fn answer(
        &mut self,
        names: &NameTable,
        payload: &[u8],
        asked: Asked,
        send: &mut dyn FnMut(SocketAddrV4, &[u8]),
    ) {
        self.counts.datagram_count += 1;
        if let Err(reject) = self.answer_messages(names, payload, asked, send) {
            self.counts.reject(reject);
        }
    }

    /// What it has counted so far.
    #[must_use]
    pub fn counts(&self) -> &SearchCounts {
        &self.counts
    }

    /// Stops at the first message that makes the rest of the datagram doubtful.
    fn answer_messages(
        &mut self,
        names: &NameTable,
        payload: &[u8],
        mut asked: Asked,
        send: &mut dyn FnMut(SocketAddrV4, &[u8]),
    ) -> Result<(), Reject> {
        let mut tagged = asked.forwarded && self.accepts_untagged;
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
                    match self.destination(&search, asked, tagged) {
                        Ok(Some(to)) => self.answer_search(names, &search, (to, asked.own), send),
                        Ok(None) => {}
                        Err(reject) => self.counts.reject(reject),
                    }
                }
                pva::ORIGIN_TAG => {
                    let origin = message.origin()?;
                    if has_tag || !asked.forwarded {
                        return Err(Reject::UntrustedOriginTag);
                    }
                    if !self.may_come_from(origin) {
                        return Err(Reject::ForeignOrigin);
                    }
                    (has_tag, tagged) = (true, true);
                    // As if it had been asked there by itself.
                    asked.own = origin.to_ipv4_mapped().filter(|origin| !origin.is_unspecified());
                }
                _ => self.counts.other_count += 1,
            }
        }
        Ok(())
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

    fn answer_search(
        &mut self,
        names: &NameTable,
        search: &pva::Search<'_>,
        (to, own): (SocketAddrV4, Option<Ipv4Addr>),
        send: &mut dyn FnMut(SocketAddrV4, &[u8]),
    ) {
        self.hits.clear();
        for ((id, name), place) in search.names().zip(0..=u16::MAX) {
            if let Some(server) = names.lookup(Protocol::Pva, name) {
                self.hits.push(Hit { server, place, id });
            }
        }
        let (name_count, hit_count) = (u64::from(search.name_count), self.hits.len() as u64);
        self.counts.name_count += name_count;
        self.counts.hit_count += hit_count;
        self.counts.miss_count += name_count - hit_count;
        self.hits.sort_unstable();
        for hits in self.hits.chunk_by(|one, next| one.server == next.server) {
            self.counts.reply_count +=
                write_replies(&mut self.response, search, (hits, own), |reply| {
                    send(to, reply);
                });
        }
    }
}

/// Answers with one server, in as many datagrams as the ids need. Returns how many.
fn write_replies(
    response: &mut pva::ResponseWriter,
    search: &pva::Search<'_>,
    (hits, own): (&[Hit], Option<Ipv4Addr>),
    mut send: impl FnMut(&[u8]),
) -> u64 {
    let Some(first) = hits.first() else { return 0 };
    let head = pva::ResponseHead {
        byte_order: search.byte_order(),
        guid: guid_of(first.server, own),
        sequence: search.sequence,
        server: first.server,
    };
    let mut reply_count = 1;
    response.begin(head);
    for hit in hits {
        if !response.push(hit.id) {
            send(response.datagram());
            reply_count += 1;
            response.begin(head);
            response.push(hit.id);
        }
    }
    send(response.datagram());
    reply_count
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
