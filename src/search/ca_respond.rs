//! Answers CA SEARCH.

use std::net::SocketAddrV4;

use super::{Counts, NameTable, Protocol, Reject, ca};

/// Turns datagrams of CA SEARCH into replies that name the servers of a [`NameTable`].
///
/// Replies to one datagram are packed, go to its sender, and begin with a VERSION message that
/// echoes the client's sequence number, by which clients measure round trips. A reply speaks of one
/// server only: a real server answers for no other, and caproto takes the last server in a datagram
/// for that of all names in it. Nobody is told of names that are not in the table: over UDP another
/// server may have them.
///
/// # Examples
///
/// ```
/// use nicring::search::{CaResponder, NameTable, Protocol, ca};
///
/// let mut builder = NameTable::builder();
/// builder.insert(Protocol::Ca, "ioc1:temp", "192.0.2.7:5064".parse()?)?;
/// let names = builder.build();
/// let mut request = ca::RequestWriter::new();
/// request.begin(Some(7));
/// request.push(42, b"ioc1:temp");
/// request.push(43, b"elsewhere");
///
/// let mut responder = CaResponder::new();
/// let mut answered = Vec::new();
/// responder.answer(&names, request.datagram(), "192.0.2.99:40000".parse()?, &mut |to, reply| {
///     answered.push((to, ca::messages(reply).count()));
/// });
/// assert_eq!(answered, [("192.0.2.99:40000".parse()?, 2)], "VERSION and one SEARCH");
/// assert_eq!(responder.counts().miss_count, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct CaResponder {
    counts: Counts,
    reply: ca::ReplyWriter,
    /// Names found and not yet answered.
    hits: Vec<Hit>,
}

/// Ordered by server, and then as asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Hit {
    server: SocketAddrV4,
    position: usize,
    id: u32,
}

impl CaResponder {
    /// A responder whose counters are zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Answers one datagram: calls `send` with the destination and the bytes of each reply.
    pub fn answer(
        &mut self,
        names: &NameTable,
        payload: &[u8],
        source: SocketAddrV4,
        send: &mut dyn FnMut(SocketAddrV4, &[u8]),
    ) {
        self.counts.datagram_count += 1;
        if source.port() == 0 {
            return self.counts.reject(Reject::ReplyPortZero);
        }
        let mut client = Client { address: source, sequence: None, minor_version: u16::MAX };
        self.hits.clear();
        if let Err(reject) = self.answer_messages(names, payload, &mut client, send) {
            self.counts.reject(reject);
        }
        self.flush(&client, send);
    }

    /// What it has seen.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Stops at what makes the rest of the datagram doubtful.
    fn answer_messages(
        &mut self,
        names: &NameTable,
        payload: &[u8],
        client: &mut Client,
        send: &mut dyn FnMut(SocketAddrV4, &[u8]),
    ) -> Result<(), Reject> {
        for message in ca::messages(payload) {
            let message = message?;
            match message.command {
                ca::VERSION => {
                    self.flush(client, send);
                    client.minor_version = message.minor_version();
                    client.sequence = message.sequence_to_echo();
                }
                ca::SEARCH => match message.search() {
                    Ok(search) => self.look_up(names, &search, client),
                    Err(reject) => self.counts.reject(reject),
                },
                _ => return Err(Reject::UnexpectedCommand),
            }
        }
        Ok(())
    }

    fn look_up(&mut self, names: &NameTable, search: &ca::Search<'_>, client: &Client) {
        if search.minor_version.min(client.minor_version) < ca::MINOR_VERSION_REDIRECT {
            return self.counts.reject(Reject::OldClient);
        }
        self.counts.name_count += 1;
        let Some(server) = names.lookup(Protocol::Ca, search.name) else {
            self.counts.miss_count += 1;
            return;
        };
        self.counts.hit_count += 1;
        self.hits.push(Hit { server, position: self.hits.len(), id: search.id });
    }

    /// Sends the answers to what was found, each server's apart from the others'.
    fn flush(&mut self, client: &Client, send: &mut dyn FnMut(SocketAddrV4, &[u8])) {
        self.hits.sort_unstable();
        let mut previous = None;
        for hit in &self.hits {
            if previous != Some(hit.server) || !self.reply.push(hit.id, hit.server) {
                self.counts.reply_count += send_reply(&self.reply, client, send);
                self.reply.begin(client.sequence);
                self.reply.push(hit.id, hit.server);
            }
            previous = Some(hit.server);
        }
        self.counts.reply_count += send_reply(&self.reply, client, send);
        self.reply.begin(None);
        self.hits.clear();
    }
}

/// Sends what is written, if any, and says how many datagrams that were.
fn send_reply(
    reply: &ca::ReplyWriter,
    client: &Client,
    send: &mut dyn FnMut(SocketAddrV4, &[u8]),
) -> u64 {
    if reply.name_count() == 0 {
        return 0;
    }
    send(client.address, reply.datagram());
    1
}

/// What is known of who asks.
struct Client {
    address: SocketAddrV4,
    sequence: Option<u32>,
    /// Of its VERSION message; without one, SEARCH tells.
    minor_version: u16,
}
