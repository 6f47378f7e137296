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

    /// `refused_count` is how many files were not reloaded.
    pub fn show_if_due(&mut self, service: &Service, refused_count: usize) {
        if !self.is_wanted || Instant::now() < self.next {
            return;
        }
        self.next += Self::PERIOD;
        let report = service.report();
        let stale = match refused_count {
            0 => String::new(),
            count => format!("  NOT RELOADED: {count} files"),
        };
        Console::to_stderr().say(&format!("{}{stale}", report.live_line(&self.before)));
        self.before = report;
    }
}
