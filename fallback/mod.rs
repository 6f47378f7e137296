//! The portable backend: readiness from the system's poller, then a fair, bounded round over the
//! ready sockets.
//!
//! What differs between systems is in one file each, behind the same [`Transport`]: how many
//! datagrams a call carries, and how the system tells destination and interface.
#![forbid(unsafe_code)]

#[cfg(test)]
mod tests;
#[cfg(target_os = "linux")]
#[path = "linux.rs"]
mod transport;
#[cfg(all(unix, not(target_os = "linux")))]
#[path = "bsd.rs"]
mod transport;
#[cfg(windows)]
#[path = "windows.rs"]
mod transport;
#[cfg(unix)]
#[path = "watched_unix.rs"]
mod watched;
#[cfg(windows)]
#[path = "watched_windows.rs"]
mod watched;

use std::{
    collections::VecDeque,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use mio::{Events, Poll, Token};

pub(crate) use self::transport::Transport;
use self::watched::Watched;
use crate::{
    datagram::{Outbox, Outgoing, Payloads, Span},
    error::{Error, Result},
    path::{
        Admission, BackendDriver, BackendSettings, BackendSetup, Batch, Dispatch, ERROR_COUNT_MAX,
        ListenSocket, Pace, Sent, Turn, Wake, sleep,
    },
    stats::add,
    sys::nic_watch::NicWatch,
};

/// How many datagrams a socket gives before the next one has its turn.
const ROUND_MAX: usize = 64;
const WAKE: Token = Token(usize::MAX);
const NEWS: Token = Token(usize::MAX - 1);

/// The portable backend.
#[derive(Debug)]
pub(crate) struct Portable {
    poll: Poll,
    events: Events,
    waker: Arc<Waker>,
    entries: Vec<Option<Entry>>,
    /// Slots that may have datagrams, each once. The one that has waited longest comes first.
    ready: VecDeque<u16>,
    transport: Transport,
    settings: BackendSettings,
    pace: Pace,
    /// Whether there was news of the NICs.
    has_news: bool,
    /// Sockets that failed for good.
    deaf: Vec<(u16, io::Error)>,
}

/// A socket in its slot.
#[derive(Debug)]
struct Entry {
    socket: Arc<ListenSocket>,
    watched: Watched,
    is_ready: bool,
    error_count: u32,
}

#[derive(Debug)]
struct Waker(mio::Waker);

impl Wake for Waker {
    fn wake(&self) {
        if let Err(error) = self.0.wake() {
            tracing::warn!(%error, "waking the engine");
        }
    }
}

impl Portable {
    pub fn open(settings: &BackendSettings) -> Result<Self> {
        let failed = |source| Error::Backend { operation: "opening the system's poller", source };
        let poll = Poll::new().map_err(failed)?;
        let waker = mio::Waker::new(poll.registry(), WAKE).map_err(failed)?;
        Ok(Self {
            poll,
            events: Events::with_capacity(256),
            waker: Arc::new(Waker(waker)),
            entries: Vec::new(),
            ready: VecDeque::new(),
            transport: Transport::new(settings.buffer_bytes, settings.uses_gso),
            settings: *settings,
            pace: Pace::new(settings.delay_max),
            has_news: false,
            deaf: Vec::new(),
        })
    }

    pub fn setup() -> BackendSetup {
        BackendSetup::Portable {
            calls: Transport::CALLS,
            datagrams_per_call_max: Transport::DATAGRAMS_PER_CALL_MAX,
        }
    }

    /// Waits until a socket is ready. If the turn is polling or a socket is ready already, it asks
    /// which are ready and does not wait.
    fn poll_readiness(&mut self, turn: &Turn<'_>) -> Result<()> {
        let timeout = if turn.is_polling || !self.ready.is_empty() {
            Some(Duration::ZERO)
        } else {
            if let Some((_, wait_max)) = self.pace.wait() {
                sleep(wait_max, turn.deadline);
            }
            let remaining = |deadline: Instant| deadline.saturating_duration_since(Instant::now());
            turn.deadline.map(remaining)
        };
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(source) => {
                return Err(Error::Backend { operation: "waiting for the sockets", source });
            }
        }
        for event in &self.events {
            self.has_news |= event.token() == NEWS;
            let slot = event.token().0;
            if let Some(Some(entry)) = self.entries.get_mut(slot) {
                if !std::mem::replace(&mut entry.is_ready, true) {
                    self.ready.push_back(slot as u16);
                }
            }
        }
        Ok(())
    }

    /// Goes over the ready sockets round after round, until the batch is full or none is ready.
    fn receive(&mut self, admission: &Admission, batch: &mut Batch) {
        let mut used = 0;
        while used < self.settings.batch_max {
            let Some(slot) = self.ready.pop_front() else {
                return;
            };
            let Some(entry) = &mut self.entries[usize::from(slot)] else {
                continue;
            };
            let wanted = ROUND_MAX.min(self.settings.batch_max - used);
            let stride = self.settings.buffer_bytes;
            let memory = &mut batch.payloads.own_mut()[used * stride..(used + wanted) * stride];
            let socket = &entry.socket;
            let received = entry
                .watched
                .try_io(|| self.transport.receive(&socket.socket, &socket.packet_info, memory));
            let may_have_more = match &received {
                Ok((_, may_have_more)) => {
                    entry.error_count = 0;
                    *may_have_more
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => true,
                Err(error) if is_icmp_error(error) => {
                    add(&entry.socket.counters.icmp_error_count, 1);
                    true
                }
                Err(_) => {
                    add(&entry.socket.counters.receive_error_count, 1);
                    entry.error_count += 1;
                    entry.error_count < ERROR_COUNT_MAX
                }
            };
            entry.is_ready = may_have_more;
            if may_have_more {
                self.ready.push_back(slot);
            }
            let count = match received {
                Ok((count, _)) => count,
                Err(error) => {
                    if entry.error_count >= ERROR_COUNT_MAX {
                        self.deaf.push((slot, error));
                    }
                    0
                }
            };
            for index in 0..count {
                let (arrival, len) = self.transport.arrival(index);
                let span = Span { buffer: 0, start: (used * stride) as u32, len: len as u32 };
                used += 1;
                let payload = &batch.payloads.own_mut()[span.start as usize..][..len];
                let record = admission.admit(&entry.socket, slot, arrival, span, payload);
                batch.records.extend(record);
            }
        }
    }

    fn send_all(&mut self, turn: &mut Turn<'_>, batch: &mut Batch) {
        self.send(turn.dispatch, batch.outbox_mut());
        self.send(turn.dispatch, turn.posted);
    }

    fn send(&mut self, dispatch: &Dispatch, outbox: &mut Outbox) {
        let slot_of = |outgoing: &Outgoing| dispatch.sending_slot(outgoing);
        let mut rest = outbox.outgoing_from(0);
        while let Some(first) = rest.first() {
            let slot = slot_of(first);
            let len = rest.iter().take_while(|outgoing| slot_of(outgoing) == slot).count();
            let (run, others) = rest.split_at(len);
            self.send_run(dispatch, slot, outbox, run);
            rest = others;
        }
        outbox.clear();
    }

    /// Sends `run` from the socket in a slot, and skips what the socket refuses. A spare sender
    /// gets what the socket has no room for.
    fn send_run(
        &mut self,
        dispatch: &Dispatch,
        slot: Option<u16>,
        outbox: &Outbox,
        mut run: &[Outgoing],
    ) {
        while let Some(first) = run.first() {
            let mut attempt = self.try_send(slot, outbox, run);
            if let (Err((count, error)), Some(spare)) = (&attempt, dispatch.spare_slot(first)) {
                // A device whose queue is full has no room for a spare sender's either.
                let is_full = error.raw_os_error().is_some();
                if is_full && error.kind() == io::ErrorKind::WouldBlock {
                    attempt = self.try_send(Some(spare), outbox, &run[..*count]);
                }
            }
            let (sent, count) = match attempt {
                Ok(count) => (Sent::Yes, count),
                Err((_, error)) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err((count, error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    (Sent::WouldBlock, count)
                }
                Err((count, _)) => (Sent::Failed, count),
            };
            let (done, rest) = run.split_at(count);
            done.iter().for_each(|outgoing| dispatch.count_sent(outgoing, sent, 1));
            run = rest;
        }
    }

    /// See [`Transport::send`].
    fn try_send(
        &mut self,
        slot: Option<u16>,
        outbox: &Outbox,
        run: &[Outgoing],
    ) -> Result<usize, (usize, io::Error)> {
        let entry = slot.and_then(|slot| self.entries.get(usize::from(slot))?.as_ref());
        match entry {
            Some(entry) => self.transport.send(&entry.socket, outbox, run),
            None => Err((run.len(), io::ErrorKind::NotConnected.into())),
        }
    }
}

/// Whether an error is an ICMP answer to something that was sent earlier. Some systems report it to
/// the next receive. It says nothing about the socket.
pub(crate) fn is_icmp_error(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused)
}

impl BackendDriver for Portable {
    fn new_batch(&self) -> Batch {
        let memory = vec![0; self.settings.batch_max * self.settings.buffer_bytes];
        Batch::new(
            Payloads::Own(memory.into_boxed_slice()),
            Outbox::new(self.settings.replies_max),
            self.settings.batch_max,
        )
    }

    fn add(&mut self, slot: u16, socket: Arc<ListenSocket>) -> io::Result<()> {
        self.transport.prepare(&socket.socket);
        let mut watched = Watched::new(&socket.socket)?;
        if socket.plan.hears() {
            let token = Token(usize::from(slot));
            watched.register(&socket.socket, self.poll.registry(), token)?;
            self.pace.add(slot, socket.recv_buffer_bytes);
        }
        let index = usize::from(slot);
        if index >= self.entries.len() {
            self.entries.resize_with(index + 1, || None);
        }
        self.entries[index] = Some(Entry { socket, watched, is_ready: false, error_count: 0 });
        Ok(())
    }

    fn remove(&mut self, slot: u16) {
        self.pace.remove(slot);
        let entry = self.entries.get_mut(usize::from(slot)).and_then(Option::take);
        if let Some(mut entry) = entry {
            // A socket that only sends was never registered.
            let _ = entry.watched.deregister(&entry.socket.socket, self.poll.registry());
        }
        self.ready.retain(|ready| *ready != slot);
        self.deaf.retain(|(deaf, _)| *deaf != slot);
    }

    fn is_free(&self, slot: u16) -> bool {
        self.entries.get(usize::from(slot)).is_none_or(Option::is_none)
    }

    fn take_deaf(&mut self) -> Option<(u16, io::Error)> {
        self.deaf.pop()
    }

    fn watch_nics(&mut self, nics: &NicWatch) -> io::Result<()> {
        transport::watch_nics(nics, self.poll.registry(), NEWS)
    }

    fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.has_news)
    }

    fn expects_more(&self) -> bool {
        self.pace.wait().is_some()
    }

    fn is_starved(&self) -> bool {
        false
    }

    fn turn(&mut self, mut turn: Turn<'_>, batch: &mut Batch) -> Result<()> {
        self.send_all(&mut turn, batch);
        self.take_back(batch);
        self.poll_readiness(&turn)?;
        self.receive(turn.admission, batch);
        self.pace.note(Instant::now, batch.records.len());
        Ok(())
    }

    fn flush(&mut self, mut turn: Turn<'_>, batch: &mut Batch) -> Result<()> {
        self.send_all(&mut turn, batch);
        Ok(())
    }

    fn take_back(&mut self, batch: &mut Batch) {
        batch.records.clear();
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::clone(&self.waker) as Arc<dyn Wake>
    }

    fn close(&mut self) {
        for slot in 0..self.entries.len() {
            self.remove(slot as u16);
        }
    }

    fn abandon(&mut self) {
        // Not taken from the poller, which is the parent's too.
        self.entries.clear();
    }
}
