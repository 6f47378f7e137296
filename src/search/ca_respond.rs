//! Answers CA SEARCH.

use std::{cmp::Ordering, fmt, net::SocketAddrV4, thread};

use super::{NameTable, Protocol, Reject, SearchCounts, ca};

/// How many answers are held back at most. Then they are sent. They and their questions take 64 KiB
/// with reply paths, and 36 KiB without.
const HELD_MAX: usize = 1024;

/// Turns datagrams of CA SEARCH into replies that name the servers of a [`NameTable`].
///
/// [`answer`](Self::answer) answers one datagram, [`pack`](Self::pack) all datagrams of a batch.
/// A client that asks for thousands of names sends datagrams back to back, and most of what an
/// answer costs is its datagram: `pack` needs fewer of them. Names that are not in the table get no
/// answer, because over UDP another server may have them.
///
/// Answers to one client share datagrams of up to [`ca::DATAGRAM_LEN_MAX`] bytes, in the order in
/// which it asked. A datagram names one server only. A real server answers for no other, and
/// caproto takes the last server in a datagram for the server of all names in it.
///
/// A datagram begins with a VERSION message that echoes the client's sequence number. Clients
/// measure round trips by it. If a datagram answers requests with several numbers, it echoes that
/// of the last one, as the server of EPICS Base does. Clients find the names whatever the number
/// is. Base's clients only decide by it whether the answer counts as one to their latest requests.
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
#[derive(Debug)]
pub struct CaResponder<W = ()> {
    counts: SearchCounts,
    reply: ca::ReplyWriter,
    /// The questions that `hits` answer.
    questions: Vec<Question<W>>,
    /// Names found and not yet answered.
    hits: Vec<Hit>,
}

/// What the answers to a request have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Question<W> {
    asker: SocketAddrV4,
    way: W,
    sequence: Option<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Hit {
    server: SocketAddrV4,
    id: u32,
    /// Its index among the questions.
    question: u32,
    position: u32,
}

/// Sends a reply: gets its way, its destination and its bytes.
type SendTo<'a, W> = &'a mut dyn FnMut(W, SocketAddrV4, &[u8]);

impl<W: Copy + Ord> Default for CaResponder<W> {
    fn default() -> Self {
        Self::new()
    }
}

impl CaResponder {
    /// Answers one datagram: calls `send` with the destination and the bytes of each reply.
    pub fn answer(
        &mut self,
        names: &NameTable,
        payload: &[u8],
        source: SocketAddrV4,
        send: &mut dyn FnMut(SocketAddrV4, &[u8]),
    ) {
        self.pack(names, |(), to, reply| send(to, reply)).add(payload, source, ());
    }
}

impl<W: Copy + Ord> CaResponder<W> {
    /// A responder whose counters are zero.
    #[must_use]
    pub fn new() -> Self {
        Self {
            counts: SearchCounts::default(),
            reply: ca::ReplyWriter::new(),
            questions: Vec::with_capacity(HELD_MAX),
            hits: Vec::with_capacity(HELD_MAX),
        }
    }

    /// Answers several datagrams at once.
    ///
    /// Drop what this returns at the end of each batch: it then sends the answers that are left. So
    /// no answer waits longer than the batch in which its question came.
    ///
    /// `send` is called with the way back, the destination and the bytes of each reply. The way is
    /// any value that tells `send` how a reply must leave. Only questions with equal ways are
    /// answered together. With an engine it is
    /// [`Datagram::reply_path`](crate::Datagram::reply_path).
    ///
    /// ```no_run
    /// # use std::ops::ControlFlow;
    /// # let names = nicring::search::NameTable::builder().build();
    /// let mut responder = nicring::search::CaResponder::new();
    /// let engine = nicring::Engine::builder().port(5064).open()?;
    /// engine.run(|batch| {
    ///     let mut answers = responder.pack(&names, |path, to, reply| {
    ///         batch.reply_by(path, to, reply);
    ///     });
    ///     for datagram in batch {
    ///         answers.add(datagram.payload(), datagram.source(), datagram.reply_path());
    ///     }
    ///     ControlFlow::Continue(())
    /// })?;
    /// # Ok::<(), nicring::Error>(())
    /// ```
    pub fn pack<'a, F: FnMut(W, SocketAddrV4, &[u8])>(
        &'a mut self,
        names: &'a NameTable,
        send: F,
    ) -> CaAnswers<'a, W, F> {
        // An earlier panic may have left some.
        self.questions.clear();
        self.hits.clear();
        CaAnswers { responder: self, names, send }
    }

    /// What it has counted so far.
    #[must_use]
    pub fn counts(&self) -> &SearchCounts {
        &self.counts
    }

    fn add(&mut self, names: &NameTable, payload: &[u8], mut from: Client<W>, send: SendTo<'_, W>) {
        self.counts.datagram_count += 1;
        let read = match from.question.asker.port() {
            0 => Err(Reject::ReplyPortZero),
            _ => self.read(names, payload, &mut from, send),
        };
        match read {
            Err(Reject::TruncatedHeader | Reject::TruncatedPayload) if from.is_cut => {}
            Err(reject) => self.counts.reject(reject),
            Ok(()) => {}
        }
    }

    /// Stops at the first message that makes the rest of the datagram doubtful.
    fn read(
        &mut self,
        names: &NameTable,
        payload: &[u8],
        client: &mut Client<W>,
        send: SendTo<'_, W>,
    ) -> Result<(), Reject> {
        for message in ca::messages(payload) {
            let message = message?;
            match message.command {
                ca::VERSION => {
                    client.minor_version = message.minor_version();
                    client.question.sequence = message.sequence_to_echo();
                }
                ca::SEARCH => match message.search() {
                    Ok(search) => self.look_up(names, &search, client, send),
                    Err(reject) => self.counts.reject(reject),
                },
                _ => return Err(Reject::UnexpectedCommand),
            }
        }
        Ok(())
    }

    fn look_up(
        &mut self,
        names: &NameTable,
        search: &ca::Search<'_>,
        client: &Client<W>,
        send: SendTo<'_, W>,
    ) {
        if search.minor_version.min(client.minor_version) < ca::MINOR_VERSION_REDIRECT {
            return self.counts.reject(Reject::OldClient);
        }
        self.counts.name_count += 1;
        let Some(server) = names.lookup(Protocol::Ca, search.name) else {
            self.counts.miss_count += 1;
            return;
        };
        self.counts.hit_count += 1;
        if self.hits.len() == HELD_MAX {
            self.flush(send);
        }
        if self.questions.last() != Some(&client.question) {
            self.questions.push(client.question);
        }
        let (question, position) = (self.questions.len() as u32 - 1, self.hits.len() as u32);
        self.hits.push(Hit { server, id: search.id, question, position });
    }

    /// Sends the answers that are held back. Those to one client by one way share datagrams, but no
    /// datagram names two servers.
    fn flush(&mut self, send: SendTo<'_, W>) {
        let Self { counts, reply, questions, hits } = self;
        let question = |hit: &Hit| &questions[hit.question as usize];
        hits.sort_unstable_by(|one, other| {
            let by_asker = match one.question == other.question {
                true => Ordering::Equal,
                false => question(one).compare_askers(question(other)),
            };
            by_asker.then_with(|| (one.server, one.position).cmp(&(other.server, other.position)))
        });
        let share_a_reply = |one: &Hit, next: &Hit| {
            let is_same_question = one.question == next.question;
            one.server == next.server
                && (is_same_question || question(one).compare_askers(question(next)).is_eq())
        };
        for alike in hits.chunk_by(share_a_reply) {
            for together in alike.chunks(ca::REPLY_NAME_COUNT_MAX) {
                let latest = question(&together[together.len() - 1]);
                reply.begin(latest.sequence);
                for hit in together {
                    reply.push(hit.id, hit.server);
                }
                counts.reply_count += 1;
                send(latest.way, latest.asker, reply.datagram());
            }
        }
        hits.clear();
        questions.clear();
    }
}

impl<W: Copy + Ord> Question<W> {
    /// Equal if one reply can answer both.
    fn compare_askers(&self, other: &Self) -> Ordering {
        (self.asker, self.way).cmp(&(other.asker, other.way))
    }
}

/// The answers to one batch of datagrams; see [`CaResponder::pack`]. When dropped, it sends the
/// answers that it has held back.
pub struct CaAnswers<'a, W: Copy + Ord, F: FnMut(W, SocketAddrV4, &[u8])> {
    responder: &'a mut CaResponder<W>,
    names: &'a NameTable,
    send: F,
}

impl<W: Copy + Ord, F: FnMut(W, SocketAddrV4, &[u8])> CaAnswers<'_, W, F> {
    /// Answers one datagram; its replies leave by `way`.
    pub fn add(&mut self, payload: &[u8], source: SocketAddrV4, way: W) {
        self.add_whole_or_not(payload, source, way, false);
    }

    /// As [`CaAnswers::add`], for a datagram of which only the beginning arrived
    /// ([`Datagram::is_truncated`](crate::Datagram::is_truncated)): its end is no mistake of the
    /// client's.
    pub fn add_truncated(&mut self, payload: &[u8], source: SocketAddrV4, way: W) {
        self.add_whole_or_not(payload, source, way, true);
    }

    fn add_whole_or_not(&mut self, payload: &[u8], source: SocketAddrV4, way: W, is_cut: bool) {
        let question = Question { asker: source, way, sequence: None };
        let client = Client { question, minor_version: u16::MAX, is_cut };
        self.responder.add(self.names, payload, client, &mut self.send);
    }

    /// What the responder has counted so far. Of the replies it counts those that are sent.
    #[must_use]
    pub fn counts(&self) -> &SearchCounts {
        self.responder.counts()
    }
}

impl<W: Copy + Ord, F: FnMut(W, SocketAddrV4, &[u8])> Drop for CaAnswers<'_, W, F> {
    fn drop(&mut self) {
        // `send` itself may have panicked, so it is not called again.
        if !thread::panicking() {
            self.responder.flush(&mut self.send);
        }
    }
}

impl<W: Copy + Ord, F: FnMut(W, SocketAddrV4, &[u8])> fmt::Debug for CaAnswers<'_, W, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held_count = self.responder.hits.len();
        f.debug_struct("CaAnswers").field("held_count", &held_count).finish_non_exhaustive()
    }
}

/// What is known of the client that asks.
struct Client<W> {
    question: Question<W>,
    /// The minor version in its VERSION message. Without one it is `u16::MAX`, and the version in
    /// SEARCH counts.
    minor_version: u16,
    /// Whether the end of the datagram is missing.
    is_cut: bool,
}
