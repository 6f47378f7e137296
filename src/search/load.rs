//! SEARCH load: what to ask, and what became of it. It uses no socket, and the caller tells the
//! time: bytes and times in, bytes and counts out. `nicring storm` and the project's benches send
//! by it.

use std::{
    ops::AddAssign,
    time::{Duration, Instant},
};

use super::{
    Protocol, Reject,
    request::{Request, RequestHead, answered_ids},
};

/// What a [`SearchLoad`] asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SearchMix {
    /// The protocol.
    pub protocol: Protocol,
    /// The share of names that a server should know, 0 to 1. They are spread evenly: with a share
    /// of 0.05 every twentieth name is one.
    pub hits: f64,
    /// Names per datagram, or as many as fit. 0 means 1.
    pub names_per_datagram: usize,
    /// How long to wait for an answer. After that it counts as lost.
    pub timeout: Duration,
    /// How many questions may be open at once, misses included. It is rounded up to a power of two
    /// from 64 to 4,194,304. Beyond that the oldest question is given up.
    pub open_max: usize,
}

/// What a [`SearchLoad`] has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadCounts {
    /// Names asked for.
    pub asked_count: u64,
    /// Names asked for that a server should know.
    pub expected_count: u64,
    /// Names that a server should know and that were answered in time.
    pub answered_count: u64,
    /// Names that a server should know and that were not answered in time.
    pub lost_count: u64,
    /// Answers to a name that had been answered already.
    pub duplicate_count: u64,
    /// Answers to a name that was given up.
    pub late_count: u64,
    /// Answers to a name that nobody should know.
    pub unexpected_count: u64,
    /// Datagrams that came back.
    pub reply_count: u64,
    /// Datagrams that came back and could not be read.
    pub malformed_count: u64,
}

impl AddAssign for LoadCounts {
    fn add_assign(&mut self, other: Self) {
        self.asked_count += other.asked_count;
        self.expected_count += other.expected_count;
        self.answered_count += other.answered_count;
        self.lost_count += other.lost_count;
        self.duplicate_count += other.duplicate_count;
        self.late_count += other.late_count;
        self.unexpected_count += other.unexpected_count;
        self.reply_count += other.reply_count;
        self.malformed_count += other.malformed_count;
    }
}

/// Composes SEARCH datagrams, and counts which names are answered: once or more often, in time, too
/// late or not at all.
///
/// ```
/// use std::{fmt::Write, time::{Duration, Instant}};
/// use nicring::search::{CaResponder, NameTable, Protocol, load::{SearchLoad, SearchMix}};
///
/// let mut builder = NameTable::builder();
/// for number in 0..10 {
///     builder.insert(Protocol::Ca, &format!("ioc1:ch{number}"), "192.0.2.7:5064".parse()?)?;
/// }
/// let names = builder.build();
///
/// let mix = SearchMix {
///     protocol: Protocol::Ca,
///     hits: 0.5,
///     names_per_datagram: 4,
///     timeout: Duration::from_secs(1),
///     open_max: 1024,
/// };
/// let mut load = SearchLoad::new(mix, 0, |number, is_hit, name| {
///     let device = if is_hit { "ioc1" } else { "nowhere" };
///     let _ = write!(name, "{device}:ch{}", number % 10);
/// });
/// let datagram = load.compose(true, 40_000, Instant::now()).to_vec();
/// let mut replies = Vec::new();
/// CaResponder::new().answer(&names, &datagram, "192.0.2.99:40000".parse()?, &mut |_, reply| {
///     replies.push(reply.to_vec());
/// });
/// for reply in &replies {
///     load.answer(reply, Instant::now(), |delay| println!("after {delay:?}"));
/// }
/// let counts = load.finish();
/// assert_eq!((counts.asked_count, counts.expected_count, counts.answered_count), (4, 2, 2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct SearchLoad<F> {
    mix: SearchMix,
    request: Request,
    /// Appends the name with this number to a string.
    write_name: F,
    name: String,
    next_hit: u64,
    next_miss: u64,
    /// The fraction of a hit that is due. Each name adds the share of hits; each hit takes 1 away.
    owed: f64,
    open: OpenQuestions,
}

impl<F: FnMut(u64, bool, &mut String)> SearchLoad<F> {
    /// A load whose names `write_name` writes. It is given a number, whether a server should know
    /// the name, and an empty string to write into. The numbers begin with `first`; hits and misses
    /// are numbered apart.
    pub fn new(mix: SearchMix, first: u64, write_name: F) -> Self {
        Self {
            mix,
            request: Request::new(mix.protocol),
            write_name,
            name: String::new(),
            next_hit: first,
            next_miss: first,
            owed: 0.0,
            open: OpenQuestions::new(mix.open_max, mix.timeout),
        }
    }

    /// Composes the next datagram, which counts as sent at `now`. `is_unicast` and `reply_port` are
    /// those of [`RequestHead`].
    pub fn compose(&mut self, is_unicast: bool, reply_port: u16, now: Instant) -> &[u8] {
        let sequence = self.open.next_id;
        self.request.begin(RequestHead { sequence, is_unicast, reply_port });
        for _ in 0..self.mix.names_per_datagram.max(1) {
            let owed = self.owed + self.mix.hits;
            // A little less than 1, because sums of fractions are a little off.
            let is_hit = owed > 1.0 - 1e-9;
            let number = if is_hit { &mut self.next_hit } else { &mut self.next_miss };
            self.name.clear();
            (self.write_name)(*number, is_hit, &mut self.name);
            if !self.request.push(self.open.next_id, self.name.as_bytes()) {
                break;
            }
            *number += 1;
            self.owed = if is_hit { owed - 1.0 } else { owed };
            self.open.ask(is_hit, now);
        }
        self.request.datagram()
    }

    /// Takes a datagram that came back. Calls `delay` for each name that it answers in time and for
    /// the first time, with how long the name waited.
    pub fn answer(&mut self, datagram: &[u8], now: Instant, mut delay: impl FnMut(Duration)) {
        self.open.counts.reply_count += 1;
        let read: Result<(), Reject> = answered_ids(self.mix.protocol, datagram, |id| {
            self.answer_id(id, now).into_iter().for_each(&mut delay);
        });
        if read.is_err() {
            self.open.counts.malformed_count += 1;
        }
    }

    /// Takes one answer, for callers that read datagrams themselves. Returns how long the question
    /// with this id waited, if it is answered in time and for the first time.
    pub fn answer_id(&mut self, id: u32, now: Instant) -> Option<Duration> {
        self.open.answer(id).map(|sent_at| now.saturating_duration_since(sent_at))
    }

    /// Gives up the questions that have waited for too long.
    pub fn expire(&mut self, now: Instant) {
        self.open.expire(now);
    }

    /// How many answers are still awaited.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.open.open_count
    }

    /// What it has counted so far.
    #[must_use]
    pub fn counts(&self) -> &LoadCounts {
        &self.open.counts
    }

    /// Gives up all open questions. Returns what it has counted.
    #[must_use]
    pub fn finish(mut self) -> LoadCounts {
        while self.open.oldest_id != self.open.next_id {
            self.open.settle_oldest();
        }
        self.open.counts
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum QuestionState {
    /// Nobody should answer.
    Miss,
    Open,
    Answered,
    GivenUp,
}

#[derive(Debug, Clone, Copy)]
struct Question {
    id: u32,
    state: QuestionState,
    sent_at: Instant,
}

/// A ring of questions by id.
#[derive(Debug)]
struct OpenQuestions {
    questions: Vec<Question>,
    next_id: u32,
    /// Every id before this one is settled.
    oldest_id: u32,
    open_count: usize,
    timeout: Duration,
    counts: LoadCounts,
}

impl OpenQuestions {
    fn new(open_max: usize, timeout: Duration) -> Self {
        let capacity = open_max.clamp(64, 1 << 22).next_power_of_two();
        let vacant = Question { id: u32::MAX, state: QuestionState::Miss, sent_at: Instant::now() };
        Self {
            questions: vec![vacant; capacity],
            next_id: 0,
            oldest_id: 0,
            open_count: 0,
            timeout,
            counts: LoadCounts::default(),
        }
    }

    fn question(&mut self, id: u32) -> &mut Question {
        let mask = self.questions.len() - 1;
        &mut self.questions[id as usize & mask]
    }

    /// Notes a question that is about to be sent.
    fn ask(&mut self, is_expected: bool, now: Instant) {
        let id = self.next_id;
        if id.wrapping_sub(self.oldest_id) as usize >= self.questions.len() {
            self.settle_oldest();
        }
        let state = if is_expected { QuestionState::Open } else { QuestionState::Miss };
        *self.question(id) = Question { id, state, sent_at: now };
        self.next_id = id.wrapping_add(1);
        self.counts.asked_count += 1;
        if is_expected {
            self.counts.expected_count += 1;
            self.open_count += 1;
        }
    }

    /// Notes an answer. Returns when the question was sent, if this is the first answer to it and
    /// in time.
    fn answer(&mut self, id: u32) -> Option<Instant> {
        let question = self.question(id);
        if question.id != id {
            self.counts.late_count += 1;
            return None;
        }
        match question.state {
            QuestionState::Open => {
                question.state = QuestionState::Answered;
                let sent_at = question.sent_at;
                self.open_count -= 1;
                self.counts.answered_count += 1;
                return Some(sent_at);
            }
            QuestionState::Miss => self.counts.unexpected_count += 1,
            QuestionState::Answered => self.counts.duplicate_count += 1,
            QuestionState::GivenUp => self.counts.late_count += 1,
        }
        None
    }

    fn expire(&mut self, now: Instant) {
        while self.oldest_id != self.next_id {
            let timeout = self.timeout;
            let question = self.question(self.oldest_id);
            let waits = question.state == QuestionState::Open;
            if waits && now.saturating_duration_since(question.sent_at) < timeout {
                return;
            }
            self.settle_oldest();
        }
    }

    fn settle_oldest(&mut self) {
        let id = self.oldest_id;
        self.oldest_id = id.wrapping_add(1);
        let question = self.question(id);
        if question.state == QuestionState::Open {
            question.state = QuestionState::GivenUp;
            self.open_count -= 1;
            self.counts.lost_count += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_question_is_answered_or_lost_and_every_answer_counted_once() {
        let (start, ms) = (Instant::now(), Duration::from_millis);
        let mut open = OpenQuestions::new(64, ms(100));
        for is_expected in [true, false, true, true] {
            open.ask(is_expected, start);
        }
        assert_eq!([0, 0, 1].map(|id| open.answer(id)), [Some(start), None, None]);
        open.expire(start + ms(50));
        assert_eq!(open.open_count, 2);
        open.expire(start + ms(100));
        assert_eq!(open.open_count, 0);
        assert_eq!(open.answer(2), None);
        let LoadCounts { asked_count, expected_count, answered_count, lost_count, .. } =
            open.counts;
        assert_eq!((asked_count, expected_count, answered_count, lost_count), (4, 3, 1, 2));
        let LoadCounts { duplicate_count, unexpected_count, late_count, .. } = open.counts;
        assert_eq!((duplicate_count, unexpected_count, late_count), (1, 1, 1));
    }

    #[test]
    fn a_question_that_is_overtaken_by_the_ring_is_lost() {
        let now = Instant::now();
        let mut open = OpenQuestions::new(64, Duration::from_secs(9));
        (0..65).for_each(|_| open.ask(true, now));
        assert_eq!((open.open_count, open.counts.lost_count), (64, 1));
        assert_eq!(open.answer(0), None);
        assert_eq!(open.counts.late_count, 1);
    }

    #[test]
    fn hits_are_spread_evenly_and_what_does_not_fit_is_asked_next() {
        let mix = SearchMix {
            protocol: Protocol::Ca,
            hits: 0.75,
            names_per_datagram: 100,
            timeout: Duration::ZERO,
            open_max: 4096,
        };
        let mut asked = Vec::new();
        let mut load = SearchLoad::new(mix, 7, |number, is_hit, name| {
            asked.push((number, is_hit));
            name.push_str("a:name:of:24:bytes:or:so");
        });
        let now = Instant::now();
        (0..4).for_each(|_| assert!(!load.compose(true, 0, now).is_empty()));
        let LoadCounts { asked_count, expected_count, .. } = load.finish();
        assert_eq!(asked_count % 4, 0, "{asked_count}");
        assert_eq!(expected_count, asked_count * 3 / 4);
        // The last name of each datagram did not fit. The next datagram asks for it first.
        assert_eq!(asked.len() as u64, asked_count + 4);
        asked.dedup();
        let is_in_order = |is_hit: bool| {
            let numbers = asked.iter().filter(|name| name.1 == is_hit).map(|name| name.0);
            numbers.zip(7..).all(|(number, expected)| number == expected)
        };
        assert!(is_in_order(true) && is_in_order(false), "{asked:?}");
    }
}
