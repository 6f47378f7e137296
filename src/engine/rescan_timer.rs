//! Decides when an engine looks at the NICs again, and when it tries again what failed.

use std::time::{Duration, Instant};

/// How long the address of a closed socket may stay taken. It is free once the last request on the
/// socket has ended, and once each child process that was forked meanwhile executes its program.
const CLOSING_TIME_MAX: Duration = Duration::from_secs(1);
/// What failed is tried again after this time, later after a quarter of the time since it failed.
const RETRY_AFTER: Duration = Duration::from_millis(2);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(1);
/// After this time the NICs are looked at again if they could not be listed.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// News of NICs come in bursts: link, address, routes. One look is to serve for most of a burst.
const NEWS_DELAY: Duration = Duration::from_millis(5);

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct RescanTimer {
    /// How often to look whether the NICs have changed.
    look_every: Option<Duration>,
    look_at: Option<Instant>,
    retry_at: Option<Instant>,
    /// Since when something has been missing.
    missing_since: Option<Instant>,
    closed_at: Option<Instant>,
    /// Whether the NICs could not be listed when they were looked at last.
    has_failed: bool,
}

/// What there is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    /// See whether the NICs have changed.
    Look,
    /// Try again what failed.
    Retry,
}

impl RescanTimer {
    pub fn new(look_every: Option<Duration>) -> Self {
        Self {
            look_every,
            look_at: look_every.and_then(|every| Instant::now().checked_add(every)),
            retry_at: None,
            missing_since: None,
            closed_at: None,
            has_failed: false,
        }
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
        self.look_at = self.look_every.and_then(|every| now.checked_add(every));
        Due::Look
    }

    /// The system tells that the NICs have changed.
    pub fn note_news(&mut self) {
        self.look_within(NEWS_DELAY);
    }

    /// The NICs could not be listed: they are looked at again soon. Returns whether this is the
    /// first time in a row.
    pub fn note_failed_look(&mut self) -> bool {
        self.look_within(LOOK_AGAIN_AFTER);
        !std::mem::replace(&mut self.has_failed, true)
    }

    fn look_within(&mut self, delay: Duration) {
        let soon = Instant::now() + delay;
        self.look_at = Some(self.look_at.map_or(soon, |at| at.min(soon)));
    }

    /// The NICs were listed.
    pub fn note_looked(&mut self) {
        self.has_failed = false;
    }

    /// A socket was closed.
    pub fn note_closed(&mut self) {
        self.closed_at = Some(Instant::now());
    }

    /// Whether an address may still be taken by a socket that was closed.
    pub fn has_just_closed(&self) -> bool {
        self.closed_at.is_some_and(|at| at.elapsed() < CLOSING_TIME_MAX)
    }

    /// Everything was opened anew, but for what is missing, if anything is.
    pub fn note_missing(&mut self, is_missing: bool) {
        self.missing_since = None;
        self.note_retried(is_missing);
    }

    /// What was missing was tried again. Is something still missing?
    pub fn note_retried(&mut self, is_missing: bool) {
        let now = Instant::now();
        let since = self.missing_since.unwrap_or(now);
        self.missing_since = is_missing.then_some(since);
        let delay = (now.duration_since(since) / 4).clamp(RETRY_AFTER, RETRY_AFTER_MAX);
        self.retry_at = is_missing.then(|| now + delay);
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
        assert!(!timer.has_just_closed(), "nothing was closed");
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
    fn the_longest_interval_means_never() {
        let mut timer = RescanTimer::new(Some(Duration::MAX));
        assert_eq!((timer.next_at(), timer.due()), (None, Due::Nothing));
    }

    #[test]
    fn news_are_looked_at_once() {
        let mut timer = RescanTimer::new(None);
        timer.note_news();
        thread::sleep(NEWS_DELAY);
        assert_eq!((timer.due(), timer.due()), (Due::Look, Due::Nothing));
    }

    #[test]
    fn what_is_missing_is_tried_again_ever_more_seldom_until_it_is_there() {
        let mut timer = RescanTimer::new(None);
        timer.note_missing(true);
        thread::sleep(RETRY_AFTER);
        assert_eq!((timer.due(), timer.due()), (Due::Retry, Due::Nothing));
        thread::sleep(8 * RETRY_AFTER);
        timer.note_retried(true);
        assert!(timer.next_at() >= Some(Instant::now() + RETRY_AFTER));
        timer.note_retried(false);
        assert_eq!(timer.next_at(), None);
    }

    #[test]
    fn an_address_may_be_taken_for_a_while_by_what_was_closed() {
        let mut timer = RescanTimer::new(None);
        timer.note_closed();
        assert!(timer.has_just_closed());
        thread::sleep(CLOSING_TIME_MAX);
        assert!(!timer.has_just_closed());
    }
}
