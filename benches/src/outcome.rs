//! The outcome of a load, the limits of all loads, and how a program ends that judges one.

use std::{error::Error, process::ExitCode, time::Duration};

/// The client's port, which receives the answers.
pub const CLIENT_PORT: u16 = 40_076;
/// No load lasts longer, even if the program that started it is gone.
pub(crate) const TIME_MAX: Duration = Duration::from_secs(120);
/// How long a load waits for answers after its end.
pub(crate) const LINGER: Duration = Duration::from_millis(100);

/// How a program ends that measured whether something is as it should be: with 0 if it is, 1 if
/// not, and 2, with the reason, if it could not be measured.
#[must_use]
pub fn verdict(program: &str, measured: Result<bool, Box<dyn Error>>) -> ExitCode {
    match measured {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{program}: {error}");
            ExitCode::from(2)
        }
    }
}

/// The outcome of a load.
#[derive(Debug, Default)]
pub struct Outcome {
    /// How many datagrams were sent.
    pub sent_count: u64,
    /// How many names should be answered.
    pub expected_count: u64,
    /// How many datagrams came back or names were answered, without duplicates.
    pub answered_count: u64,
    /// How many of these came again.
    pub duplicate_count: u64,
    /// How long each answer took, while delays were measured.
    pub delays: Vec<Duration>,
}

impl Outcome {
    /// Adds the outcome of another load.
    pub fn add(&mut self, other: Self) {
        self.sent_count += other.sent_count;
        self.expected_count += other.expected_count;
        self.answered_count += other.answered_count;
        self.duplicate_count += other.duplicate_count;
        self.delays.extend(other.delays);
    }
}
