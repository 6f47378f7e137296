//! What becomes of a load, and the bounds that all loads keep to.

use std::time::Duration;

/// The port of the client that takes answers.
pub const CLIENT_PORT: u16 = 40_076;
/// No load lasts longer, whatever becomes of who started it.
pub(crate) const TIME_MAX: Duration = Duration::from_secs(120);
/// How long answers are awaited after the end.
pub(crate) const LINGER: Duration = Duration::from_millis(100);

/// What became of a load.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Datagrams that left.
    pub sent_count: u64,
    /// Names that an answer is due for.
    pub expected_count: u64,
    /// Datagrams that came back, or names that were answered, none twice.
    pub answered_count: u64,
    /// Those that came back once more.
    pub duplicate_count: u64,
    /// How long each answer took, while that was measured.
    pub delays: Vec<Duration>,
}

impl Outcome {
    /// Adds what became of another load.
    pub fn add(&mut self, other: Self) {
        self.sent_count += other.sent_count;
        self.expected_count += other.expected_count;
        self.answered_count += other.answered_count;
        self.duplicate_count += other.duplicate_count;
        self.delays.extend(other.delays);
    }
}
