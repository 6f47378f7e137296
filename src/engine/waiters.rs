//! The tasks that wait for a batch, and their wakers. Wakers are code of the caller: they are
//! called, cloned and dropped where no lock is held, and one that panics harms nobody else.

use std::task::Waker;

use crate::wakers::wake;

/// The wakers of tasks, each in the place that its task has.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    /// `None` once it was taken to be called.
    places: Vec<Option<Waker>>,
    /// Places that no task has.
    free: Vec<usize>,
}

impl Waiters {
    /// Gives a task a place, or puts a new waker in the one that it has. Returns the place, and a
    /// waker to drop.
    pub fn put(&mut self, place: Option<usize>, waker: Waker) -> (usize, Option<Waker>) {
        let place = place.or_else(|| self.free.pop()).unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        });
        (place, self.places[place].replace(waker))
    }

    /// Takes a place from a task that no longer waits. Returns a waker to drop.
    pub fn leave(&mut self, place: usize) -> Option<Waker> {
        self.free.push(place);
        self.places[place].take()
    }

    /// Moves all wakers to `to`, to be called. The tasks keep their places.
    pub fn take(&mut self, to: &mut Vec<Waker>) {
        to.extend(self.places.iter_mut().filter_map(Option::take));
    }
}

/// Calls wakers, and empties the list.
pub(super) fn wake_all(wakers: &mut Vec<Waker>) {
    for waker in wakers.drain(..) {
        wake(waker);
    }
}
