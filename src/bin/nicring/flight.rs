//! The names that a sender has asked for and that may still be answered.

use std::time::{Duration, Instant};

use crate::histogram::Histogram;

/// What a sender counted.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    pub sent_datagram_count: u64,
    /// Names asked for.
    pub asked_count: u64,
    /// Those among them that a server should know.
    pub expected_count: u64,
    /// Those among these that were answered in time.
    pub answered_count: u64,
    /// Those that were not.
    pub lost_count: u64,
    /// Answers to a name that had been answered.
    pub duplicate_count: u64,
    /// Answers to a name that was given up.
    pub late_count: u64,
    /// Answers to a name that nobody should know.
    pub unexpected_count: u64,
    pub reply_datagram_count: u64,
    /// Replies that could not be read.
    pub malformed_count: u64,
    pub send_error_count: u64,
    /// From the sending of the question to the receiving of its first answer.
    pub latency: Histogram,
}

impl Outcome {
    pub fn add(&mut self, other: &Self) {
        self.sent_datagram_count += other.sent_datagram_count;
        self.asked_count += other.asked_count;
        self.expected_count += other.expected_count;
        self.answered_count += other.answered_count;
        self.lost_count += other.lost_count;
        self.duplicate_count += other.duplicate_count;
        self.late_count += other.late_count;
        self.unexpected_count += other.unexpected_count;
        self.reply_datagram_count += other.reply_datagram_count;
        self.malformed_count += other.malformed_count;
        self.send_error_count += other.send_error_count;
        self.latency.add(&other.latency);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nobody should answer.
    Miss,
    Open,
    Answered,
    GivenUp,
}

#[derive(Debug, Clone, Copy)]
struct Question {
    id: u32,
    state: State,
    sent_at: Instant,
}

/// A ring of questions by id.
#[derive(Debug)]
pub struct Flight {
    questions: Vec<Question>,
    next_id: u32,
    /// Every id before this one is settled.
    oldest_id: u32,
    open_count: usize,
    timeout: Duration,
    pub outcome: Outcome,
}

impl Flight {
    /// `capacity` questions can wait at a time; one that waits longer than `timeout` is lost.
    pub fn new(capacity: usize, timeout: Duration) -> Self {
        let capacity = capacity.clamp(64, 1 << 22).next_power_of_two();
        let vacant = Question { id: u32::MAX, state: State::Miss, sent_at: Instant::now() };
        Self {
            questions: vec![vacant; capacity],
            next_id: 0,
            oldest_id: 0,
            open_count: 0,
            timeout,
            outcome: Outcome::default(),
        }
    }

    /// How many answers are awaited.
    pub fn open_count(&self) -> usize {
        self.open_count
    }

    /// The id of the next question.
    pub fn next_id(&self) -> u32 {
        self.next_id
    }

    fn question(&mut self, id: u32) -> &mut Question {
        let mask = self.questions.len() - 1;
        &mut self.questions[id as usize & mask]
    }

    /// Takes down a question that is about to be sent.
    pub fn ask(&mut self, is_expected: bool, now: Instant) {
        let id = self.next_id;
        if id.wrapping_sub(self.oldest_id) as usize >= self.questions.len() {
            self.settle_oldest();
        }
        let state = if is_expected { State::Open } else { State::Miss };
        *self.question(id) = Question { id, state, sent_at: now };
        self.next_id = id.wrapping_add(1);
        self.outcome.asked_count += 1;
        if is_expected {
            self.outcome.expected_count += 1;
            self.open_count += 1;
        }
    }

    /// Takes down an answer.
    pub fn answer(&mut self, id: u32, now: Instant) {
        let question = self.question(id);
        if question.id != id {
            self.outcome.late_count += 1;
            return;
        }
        match question.state {
            State::Open => {
                question.state = State::Answered;
                let sent_at = question.sent_at;
                self.open_count -= 1;
                self.outcome.answered_count += 1;
                self.outcome.latency.record(now.saturating_duration_since(sent_at));
            }
            State::Miss => self.outcome.unexpected_count += 1,
            State::Answered => self.outcome.duplicate_count += 1,
            State::GivenUp => self.outcome.late_count += 1,
        }
    }

    /// Gives up questions that have waited for too long.
    pub fn expire(&mut self, now: Instant) {
        while self.oldest_id != self.next_id {
            let timeout = self.timeout;
            let question = self.question(self.oldest_id);
            let waits = question.state == State::Open;
            if waits && now.saturating_duration_since(question.sent_at) < timeout {
                return;
            }
            self.settle_oldest();
        }
    }

    /// Gives up everything.
    pub fn finish(mut self) -> Outcome {
        while self.oldest_id != self.next_id {
            self.settle_oldest();
        }
        self.outcome
    }

    fn settle_oldest(&mut self) {
        let id = self.oldest_id;
        self.oldest_id = id.wrapping_add(1);
        let question = self.question(id);
        if question.state == State::Open {
            question.state = State::GivenUp;
            self.open_count -= 1;
            self.outcome.lost_count += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_question_is_answered_or_lost_and_every_answer_counted_once() {
        let (start, ms) = (Instant::now(), Duration::from_millis);
        let mut flight = Flight::new(64, ms(100));
        for is_expected in [true, false, true, true] {
            flight.ask(is_expected, start);
        }
        flight.answer(0, start + ms(1));
        flight.answer(0, start + ms(2));
        flight.answer(1, start + ms(3));
        flight.expire(start + ms(50));
        assert_eq!(flight.open_count(), 2);
        flight.expire(start + ms(100));
        assert_eq!(flight.open_count(), 0);
        flight.answer(2, start + ms(101));
        flight.ask(true, start + ms(102));
        let outcome = flight.finish();
        assert_eq!((outcome.asked_count, outcome.expected_count), (5, 4));
        assert_eq!((outcome.answered_count, outcome.lost_count), (1, 3));
        let others = (outcome.duplicate_count, outcome.unexpected_count, outcome.late_count);
        assert_eq!(others, (1, 1, 1));
    }

    #[test]
    fn a_question_that_is_overtaken_by_the_ring_is_lost() {
        let now = Instant::now();
        let mut flight = Flight::new(64, Duration::from_secs(9));
        for _ in 0..65 {
            flight.ask(true, now);
        }
        assert_eq!((flight.open_count(), flight.outcome.lost_count), (64, 1));
        flight.answer(0, now);
        assert_eq!(flight.outcome.late_count, 1);
    }
}
