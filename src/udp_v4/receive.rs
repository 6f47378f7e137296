//! One receive, of one datagram or of a batch.

use std::{
    io,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::task::coop;

use super::{RecvDetails, feed::Feed, inbox::Inbox, ready::Waiter};

/// One receive, until it has something or is dropped.
pub(super) struct Receive<'a> {
    feed: &'a Arc<Feed>,
    waiter: Waiter<'a>,
}

impl<'a> Receive<'a> {
    pub fn new(feed: &'a Arc<Feed>) -> Self {
        Self { feed, waiter: Waiter::new(&feed.ready) }
    }

    /// Receives until `take` finds something in the inbox. `take` returns `None` if nothing is
    /// there.
    pub fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut take: impl FnMut(&mut Inbox) -> Option<T>,
    ) -> Poll<io::Result<T>> {
        self.waiter.forget_old_waker();
        // A flood must not keep the runtime's other tasks waiting.
        let budget = ready!(coop::poll_proceed(cx));
        let mut state = self.feed.state();
        if !state.is_in_use {
            self.feed.begin(&mut state);
        }
        loop {
            if let Some(taken) = take(&mut state.inbox) {
                if let Some(feeder) = state.resume() {
                    feeder.call(self.feed);
                }
                budget.made_progress();
                return Poll::Ready(Ok(taken));
            }
            let Some(socket) = self.waiter.next_or_wait(cx) else {
                return Poll::Pending;
            };
            if let Err(error) = state.inbox.receive(socket, &self.feed.ready) {
                return Poll::Ready(Err(error));
            }
        }
    }
}

impl Drop for Receive<'_> {
    fn drop(&mut self) {
        // A receive that never waited was not woken, so it need not wake another in its place.
        if self.waiter.has_waited() {
            let has_queued = self.feed.state().inbox.has_queued();
            self.waiter.leave(has_queued);
        }
    }
}

/// Datagrams that were received together. The next receive reuses the memory.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use nicring::udp_v4::{AsyncUdpV4, RecvBatch};
///
/// let server = AsyncUdpV4::bind_single([127, 0, 0, 1].into(), 0, false)?;
/// let client = AsyncUdpV4::bind_single([127, 0, 0, 1].into(), 0, false)?;
/// client.send_to(b"search", server.local_addrs()[0]).await?;
/// let mut batch = RecvBatch::default();
/// assert_eq!(server.recv_batch(&mut batch, 64).await?, 1);
/// for (details, payload) in batch.iter() {
///     assert_eq!((details.meta.n, payload), (6, &b"search"[..]));
/// }
/// # Ok::<(), std::io::Error>(())
/// # }).map(drop)?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct RecvBatch {
    /// Each `meta.n` is the length of a payload.
    details: Vec<RecvDetails>,
    payloads: Vec<u8>,
}

impl RecvBatch {
    /// How many datagrams there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.details.len()
    }

    /// Whether there are no datagrams.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.details.is_empty()
    }

    /// The datagrams, each with its whole payload. Those of one socket are in the order of arrival.
    pub fn iter(&self) -> impl Iterator<Item = (&RecvDetails, &[u8])> {
        let mut rest = &self.payloads[..];
        self.details.iter().map(move |details| {
            let (payload, others) = rest.split_at(details.meta.n);
            rest = others;
            (details, payload)
        })
    }

    pub(super) fn clear(&mut self) {
        self.details.clear();
        self.payloads.clear();
    }

    /// Adds what is queued, up to `count_max` datagrams; `None` if nothing is.
    pub(super) fn fill(&mut self, inbox: &mut Inbox, count_max: usize) -> Option<usize> {
        while self.len() < count_max {
            let start = self.payloads.len();
            let Some(len) = inbox.next_len() else {
                break;
            };
            self.payloads.resize(start + len, 0);
            self.details.extend(inbox.take(&mut self.payloads[start..]));
        }
        (!self.is_empty()).then_some(self.len())
    }
}
