//! Answers CA SEARCH.

use std::{fmt, net::SocketAddrV4, thread};

use super::{
    Lookup, Protocol, Reject, Reply, SearchCounts, ca,
    names::TOGETHER_MAX,
    waiting::{HELD_MAX, Hit, Waiting},
};

/// Turns datagrams of CA SEARCH into replies that name the servers of a
/// [`NameTable`](super::NameTable), or of any other [`Lookup`].
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
    /// Those whose names wait to be looked up, or were found.
    questions: Vec<Question<W>>,
    /// The indices of questions, in the order of those who ask.
    by_asker: Vec<u32>,
    /// Names found and not yet answered.
    hits: Vec<Hit>,
}

/// What the answers to a request have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Question<W> {
    asker: SocketAddrV4,
    way: W,
    sequence: Option<u32>,
    /// Equal for those that one reply can answer.
    asker_rank: u32,
}

impl<W: Copy + Ord> Default for CaResponder<W> {
    fn default() -> Self {
        Self::new()
    }
}

impl CaResponder {
    /// Answers one datagram: calls `send` with the destination and the bytes of each reply.
    pub fn answer(
        &mut self,
        names: &dyn Lookup,
        payload: &[u8],
        source: SocketAddrV4,
        send: &mut dyn FnMut(SocketAddrV4, &[u8]),
    ) {
        self.pack(names, |reply| send(reply.to, reply.payload)).add(payload, source, ());
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
            by_asker: Vec::with_capacity(HELD_MAX),
            hits: Vec::with_capacity(HELD_MAX),
        }
    }

    /// Answers several datagrams at once.
    ///
    /// Drop what this returns at the end of each batch: it then sends the answers that are left. So
    /// no answer waits longer than the batch in which its question came.
    ///
    /// `send` is called with each [`Reply`]. Its way is any value that tells how it must leave.
    /// Only questions with equal ways are answered together. With an engine it is
    /// [`Datagram::reply_path`](crate::Datagram::reply_path).
    ///
    /// The names of all datagrams are looked up together, 32 at a time ([`Lookup`]). An
    /// [`Answerer`](super::Answerer) does this for whole batches of an engine.
    ///
    /// ```no_run
    /// # use std::ops::ControlFlow;
    /// # let names = nicring::search::NameTable::builder().build();
    /// let mut responder = nicring::search::CaResponder::new();
    /// let engine = nicring::Engine::builder().port(5064).open()?;
    /// engine.run(|batch| {
    ///     let mut answers = responder.pack(&names, |reply| {
    ///         batch.reply_by(reply.way, reply.to, reply.payload);
    ///     });
    ///     for datagram in batch {
    ///         answers.add(datagram.payload(), datagram.source(), datagram.reply_path());
    ///     }
    ///     ControlFlow::Continue(())
    /// })?;
    /// # Ok::<(), nicring::Error>(())
    /// ```
    pub fn pack<'a, F: FnMut(Reply<'_, W>)>(
        &'a mut self,
        names: &'a dyn Lookup,
        send: F,
    ) -> CaAnswers<'a, W, F> {
        // An earlier panic may have left some.
        self.questions.clear();
        self.hits.clear();
        CaAnswers { responder: self, names, waiting: Waiting::new(), send }
    }

    /// What it has counted so far.
    #[must_use]
    pub fn counts(&self) -> &SearchCounts {
        &self.counts
    }

    /// Sends the answers that are held back. Those to one client by one way share datagrams, but no
    /// datagram names two servers.
    fn send_hits(&mut self, send: &mut dyn FnMut(Reply<'_, W>)) {
        let Self { counts, reply, questions, by_asker, hits } = self;
        rank_askers(questions, by_asker);
        let asker = |hit: &Hit| questions[hit.question as usize].asker_rank;
        hits.sort_unstable_by_key(|hit| hit.key(asker(hit)));
        let share_a_reply =
            |one: &Hit, next: &Hit| one.server == next.server && asker(one) == asker(next);
        for alike in hits.chunk_by(share_a_reply) {
            for together in alike.chunks(ca::REPLY_NAME_COUNT_MAX) {
                let latest = &questions[together[together.len() - 1].question as usize];
                reply.begin(latest.sequence);
                for hit in together {
                    reply.push(hit.id, hit.server);
                }
                counts.reply_count += 1;
                send(Reply {
                    way: latest.way,
                    to: latest.asker,
                    payload: reply.datagram(),
                    name_count: together.len(),
                });
            }
        }
        hits.clear();
        questions.clear();
    }
}

/// Numbers those who ask. `by_asker` is memory to do so.
fn rank_askers<W: Copy + Ord>(questions: &mut [Question<W>], by_asker: &mut Vec<u32>) {
    let asker = |question: &Question<W>| (question.asker, question.way);
    if questions.windows(2).all(|pair| asker(&pair[0]) == asker(&pair[1])) {
        return; // One client: all have rank 0.
    }
    by_asker.clear();
    by_asker.extend(0..questions.len() as u32);
    by_asker.sort_unstable_by_key(|index| asker(&questions[*index as usize]));
    let (mut rank, mut last) = (0, None);
    for index in by_asker {
        let question = &mut questions[*index as usize];
        rank += u32::from(last.is_some_and(|last| last != asker(question)));
        (question.asker_rank, last) = (rank, Some(asker(question)));
    }
}

/// The answers to one batch of datagrams; see [`CaResponder::pack`]. When dropped, it sends the
/// answers that it has held back.
pub struct CaAnswers<'a, W: Copy + Ord, F: FnMut(Reply<'_, W>)> {
    responder: &'a mut CaResponder<W>,
    names: &'a dyn Lookup,
    waiting: Waiting<'a>,
    send: F,
}

impl<'a, W: Copy + Ord, F: FnMut(Reply<'_, W>)> CaAnswers<'a, W, F> {
    /// Answers one datagram; its replies leave by `way`.
    pub fn add(&mut self, payload: &'a [u8], source: SocketAddrV4, way: W) {
        self.add_whole_or_not(payload, source, way, false);
    }

    /// As [`CaAnswers::add`], for a datagram of which only the beginning arrived
    /// ([`Datagram::is_truncated`](crate::Datagram::is_truncated)): its end is no mistake of the
    /// client's.
    pub fn add_truncated(&mut self, payload: &'a [u8], source: SocketAddrV4, way: W) {
        self.add_whole_or_not(payload, source, way, true);
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

    fn add_whole_or_not(&mut self, payload: &'a [u8], source: SocketAddrV4, way: W, is_cut: bool) {
        let question = Question { asker: source, way, sequence: None, asker_rank: 0 };
        let client = Client { question, minor_version: u16::MAX };
        self.responder.counts.datagram_count += 1;
        let read = match source.port() {
            0 => Err(Reject::ReplyPortZero),
            _ => self.read(payload, client),
        };
        match read {
            Err(Reject::TruncatedHeader | Reject::TruncatedPayload) if is_cut => {}
            Err(reject) => self.responder.counts.reject(reject),
            Ok(()) => {}
        }
    }

    /// Stops at the first message that makes the rest of the datagram doubtful.
    fn read(&mut self, payload: &'a [u8], mut client: Client<W>) -> Result<(), Reject> {
        for message in ca::messages(payload) {
            let message = message?;
            match message.command {
                ca::VERSION => {
                    client.minor_version = message.minor_version();
                    client.question.sequence = message.sequence_to_echo();
                }
                ca::SEARCH => match message.search() {
                    Ok(search) => self.ask(&search, &client),
                    Err(reject) => self.responder.counts.reject(reject),
                },
                _ => return Err(Reject::UnexpectedCommand),
            }
        }
        Ok(())
    }

    fn ask(&mut self, search: &ca::Search<'a>, client: &Client<W>) {
        let CaResponder { counts, questions, .. } = &mut *self.responder;
        if search.minor_version.min(client.minor_version) < ca::MINOR_VERSION_REDIRECT {
            return counts.reject(Reject::OldClient);
        }
        counts.name_count += 1;
        if questions.last() != Some(&client.question) {
            questions.push(client.question);
        }
        self.waiting.push(questions.len() as u32 - 1, search.id, search.name);
        if self.waiting.is_full() {
            self.look_up();
        }
    }

    /// Looks up the names that wait, and sends answers if no more can be held back.
    fn look_up(&mut self) {
        let CaResponder { counts, questions, hits, .. } = &mut *self.responder;
        self.waiting.look_up(Protocol::Ca, self.names, counts, hits);
        if hits.is_empty() {
            questions.clear();
        } else if hits.len().max(questions.len()) > HELD_MAX - TOGETHER_MAX {
            self.responder.send_hits(&mut self.send);
        }
    }
}

impl<W: Copy + Ord, F: FnMut(Reply<'_, W>)> Drop for CaAnswers<'_, W, F> {
    fn drop(&mut self) {
        // `send` itself may have panicked, so it is not called again.
        if !thread::panicking() {
            self.look_up();
            self.responder.send_hits(&mut self.send);
        }
    }
}

impl<W: Copy + Ord, F: FnMut(Reply<'_, W>)> fmt::Debug for CaAnswers<'_, W, F> {
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
}
