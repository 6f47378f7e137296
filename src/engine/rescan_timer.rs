//! Decides when an engine lists the NICs again by itself.

use std::time::{Duration, Instant};

/// How long the address of a closed socket may stay taken. It is free once the last request on the
/// socket has ended, and once each child process that was forked meanwhile executes its program.
const RETRY_TIME_MAX: Duration = Duration::from_secs(1);
const RETRY_EVERY: Duration = Duration::from_millis(2);

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct RescanTimer {
    /// How often to look whether the NICs have changed.
    look_every: Option<Duration>,
    look_at: Option<Instant>,
    retry_at: Option<Instant>,
    closed_at: Option<Instant>,
}

/// What there is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    /// See whether the NICs have changed.
    Look,
    /// Rescan: an address was still taken by a socket that was closing.
    Retry,
}

impl RescanTimer {
    pub fn new(look_every: Option<Duration>) -> Self {
        let look_at = look_every.map(|every| Instant::now() + every);
        Self { look_every, look_at, retry_at: None, closed_at: None }
    }

    /// When there is something to do next.
    pub fn next_at(&self) -> Option<Instant> {
        self.look_at.into_iter().chain(self.retry_at).min()
    }

    /// What there is to do now. It is told once.
    pub fn due(&mut self) -> Due {
        let Some(next_at) = self.next_at() else {
            return Due::Nothing; // without asking the clock
        };
        let now = Instant::now();
        if now < next_at {
            return Due::Nothing;
        }
        if self.retry_at.take_if(|at| *at <= now).is_some() {
            return Due::Retry;
        }
        self.look_at = self.look_every.map(|every| now + every);
        Due::Look
    }

    /// A socket was closed.
    pub fn note_closed(&mut self) {
        self.closed_at = Some(Instant::now());
    }

    /// Notes that an address is taken. Returns whether that may end soon; then a retry is due soon.
    pub fn may_retry(&mut self) -> bool {
        let may_retry = self.closed_at.is_some_and(|at| at.elapsed() < RETRY_TIME_MAX);
        if may_retry {
            self.retry_at = Some(Instant::now() + RETRY_EVERY);
        }
        may_retry
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn an_engine_that_was_not_asked_to_looks_at_nothing() {
        let mut timer = RescanTimer::new(None);
        assert_eq!((timer.next_at(), timer.due()), (None, Due::Nothing));
        assert!(!timer.may_retry(), "nothing was closed");
    }

    #[test]
    fn it_looks_as_often_as_it_was_asked_to() {
        let every = Duration::from_millis(200);
        let mut timer = RescanTimer::new(Some(every));
        assert_eq!(timer.due(), Due::Nothing);
        thread::sleep(every);
        assert_eq!((timer.due(), timer.due()), (Due::Look, Due::Nothing));
    }

    #[test]
    fn a_taken_address_is_tried_again_while_what_was_closed_may_hold_it() {
        let mut timer = RescanTimer::new(None);
        timer.note_closed();
        let start = Instant::now();
        assert!(timer.may_retry());
        assert!(timer.next_at() >= Some(start + RETRY_EVERY));
        thread::sleep(RETRY_EVERY);
        assert_eq!((timer.due(), timer.due()), (Due::Retry, Due::Nothing));
        thread::sleep(RETRY_TIME_MAX);
        assert!(!timer.may_retry());
    }
}
