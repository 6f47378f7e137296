//! Which sockets may have datagrams, and which tasks wait for one.
//!
//! A socket's waker outlives the receive futures. It is handed to tokio once per readiness event,
//! not once per future. Making a future again therefore costs the same however many sockets there
//! are.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Wake, Waker},
};

use crate::lock::lock;

/// Sockets in the order in which they became ready, and the tasks to wake.
#[derive(Debug, Default)]
pub(super) struct Ready {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    sockets: VecDeque<usize>,
    /// Whether the socket of this number is in `sockets`.
    is_queued: Vec<bool>,
    waiting: Vec<(u64, Waker)>,
    next_id: u64,
}

impl State {
    fn push(&mut self, socket: usize) {
        if socket >= self.is_queued.len() {
            self.is_queued.resize(socket + 1, false);
        }
        if !std::mem::replace(&mut self.is_queued[socket], true) {
            self.sockets.push_back(socket);
        }
    }
}

impl Ready {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Puts a socket behind the other ready ones; wakes nobody.
    pub fn push(&self, socket: usize) {
        self.state().push(socket);
    }

    /// Forgets which sockets are ready.
    pub fn clear(&self) {
        let mut state = self.state();
        state.sockets.clear();
        state.is_queued.clear();
    }

    /// Puts a socket behind the other ready ones and wakes all who wait.
    pub fn push_and_wake(&self, socket: usize) {
        let mut state = self.state();
        state.push(socket);
        // Usually only one task receives: then the lock is taken once.
        let first = state.waiting.pop();
        let has_others = !state.waiting.is_empty();
        drop(state);
        if let Some((_, waker)) = first {
            waker.wake();
        }
        if has_others {
            self.wake_all();
        }
    }

    /// Wakes all who wait.
    pub fn wake_all(&self) {
        self.take_wakers().for_each(Waker::wake);
    }

    /// The wakers of all who wait, one by one. The list keeps its memory, and no waker runs under
    /// the lock.
    pub fn take_wakers(&self) -> impl Iterator<Item = Waker> {
        let waiting_count = self.state().waiting.len();
        (0..waiting_count).map_while(|_| self.state().waiting.pop().map(|waiting| waiting.1))
    }

    /// A waker that marks this socket as ready.
    pub fn waker(self: &Arc<Self>, socket: usize) -> Waker {
        Waker::from(Arc::new(SocketWaker { socket, ready: Arc::clone(self) }))
    }
}

struct SocketWaker {
    socket: usize,
    ready: Arc<Ready>,
}

impl Wake for SocketWaker {
    fn wake(self: Arc<Self>) {
        self.ready.push_and_wake(self.socket);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ready.push_and_wake(self.socket);
    }
}

/// One receive future's place among those who wait.
#[derive(Debug)]
pub(super) struct Waiter<'a> {
    ready: &'a Ready,
    id: Option<u64>,
    /// A waker that is no longer needed. Dropping it may drop a task and receives with it, so it
    /// must not be dropped under a lock.
    old: Option<Waker>,
}

impl<'a> Waiter<'a> {
    pub fn new(ready: &'a Ready) -> Self {
        Self { ready, id: None, old: None }
    }

    /// The socket that has been ready for longest. If there is none, the task will be woken.
    pub fn next_or_wait(&mut self, cx: &Context<'_>) -> Option<usize> {
        let mut state = self.ready.state();
        if let Some(socket) = state.sockets.pop_front() {
            state.is_queued[socket] = false;
            return Some(socket);
        }
        let id = *self.id.get_or_insert_with(|| {
            state.next_id += 1;
            state.next_id
        });
        match state.waiting.iter_mut().find(|waiting| waiting.0 == id) {
            Some((_, waker)) if waker.will_wake(cx.waker()) => {}
            Some((_, waker)) => self.old = Some(std::mem::replace(waker, cx.waker().clone())),
            None => state.waiting.push((id, cx.waker().clone())),
        }
        None
    }

    /// Whether it has ever been among those who wait.
    pub fn has_waited(&self) -> bool {
        self.id.is_some()
    }

    /// Drops the waker that is no longer needed. Call it without holding a lock.
    pub fn forget_old_waker(&mut self) {
        self.old = None;
    }

    /// Leaves the list. If there is work left, another task is woken for it: this one may have been
    /// the only one that was woken.
    pub fn leave(&mut self, has_queued: bool) {
        let mut state = self.ready.state();
        if let Some(id) = self.id.take() {
            let position = state.waiting.iter().position(|waiting| waiting.0 == id);
            self.old = position.map(|position| state.waiting.swap_remove(position).1);
        }
        let has_work = has_queued || !state.sockets.is_empty();
        let waker = if has_work { state.waiting.pop() } else { None };
        drop(state);
        if let Some((_, waker)) = waker {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    #[test]
    fn sockets_take_turns_and_stand_in_line_once() {
        let ready = Ready::default();
        for socket in [2, 0, 2, 1] {
            ready.push(socket);
        }
        let cx = Context::from_waker(Waker::noop());
        let mut waiter = Waiter::new(&ready);
        let turns = [(); 4].map(|()| waiter.next_or_wait(&cx));
        assert_eq!(turns, [Some(2), Some(0), Some(1), None]);
    }

    #[test]
    fn whoever_leaves_work_behind_wakes_another() {
        let ready = Arc::new(Ready::default());
        let counts = [(); 2].map(|()| Arc::new(Count::default()));
        let wakers = counts.clone().map(Waker::from);
        let mut waiters = [(); 2].map(|()| Waiter::new(&ready));
        for (waiter, waker) in waiters.iter_mut().zip(&wakers) {
            assert_eq!(waiter.next_or_wait(&Context::from_waker(waker)), None);
        }
        let woken = || counts.each_ref().map(|count| count.0.load(SeqCst));
        waiters[0].leave(false);
        assert_eq!(woken(), [0, 0]);
        waiters[0].leave(true);
        assert_eq!(woken(), [0, 1]);
        assert_eq!(waiters[0].next_or_wait(&Context::from_waker(&wakers[0])), None);
        ready.waker(0).wake();
        assert_eq!(woken(), [1, 1]);
    }
}
