//! Live counters.

use std::time::{Duration, Instant};

use super::{report::Report, service::Service};
use crate::cli::text::Console;

/// A line per second on stderr.
pub struct Live {
    is_wanted: bool,
    next: Instant,
    before: Report,
}

impl Live {
    const PERIOD: Duration = Duration::from_secs(1);

    pub fn new(service: &Service, is_wanted: bool) -> Self {
        Self { is_wanted, next: Instant::now() + Self::PERIOD, before: service.report() }
    }

    pub fn show_if_due(&mut self, service: &Service) {
        if !self.is_wanted || Instant::now() < self.next {
            return;
        }
        self.next += Self::PERIOD;
        let report = service.report();
        Console::to_stderr().say(&report.live_line(&self.before));
        self.before = report;
    }
}
