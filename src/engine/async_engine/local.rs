//! An engine as a part of a runtime of one thread: the runtime waits for it as for everything else.

use std::{
    future::{Future, poll_fn},
    io,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    task::Poll,
    time::{Duration, Instant},
};

use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::Notify,
    task::yield_now,
    time::{sleep, timeout_at},
};

use super::{BatchLease, DRAIN_TIME_MAX, Handle, Lender, READY_COUNT_MAX, has_replies};
use crate::{
    engine::core::Core,
    error::{Error, Result},
    path::{Batch, Wake},
    stats::add,
};

/// Where nothing else is due.
const WAIT_MAX: Duration = Duration::from_secs(3600);
/// How often it looks whether batches have come back, when it is told to end.
const RETURN_POLL: Duration = Duration::from_millis(1);

/// Serves until the engine is stopped. It blocks its thread for no longer than `delay_max`, and
/// only where more is expected within that time. `hand_out` returns whether a task keeps the batch.
pub(in crate::engine) async fn serve(
    core: Core,
    delay_max: Duration,
    mut hand_out: impl FnMut(BatchLease) -> bool,
) -> Result<()> {
    let mut local = Local::open(core, delay_max)?;
    let mut ready_count = 0;
    loop {
        if let Err(error) = local.lender.core.check_process() {
            // The runtime's poller is the parent's too, also for sockets that the handler has.
            std::mem::forget((local, hand_out));
            return Err(error);
        }
        // Before the look at all that an errand may be about: a later one ends the wait.
        let has_errand = local.lender.core.shared.has_errand.swap(false, Ordering::SeqCst);
        if local.lender.core.shared.is_stopping() {
            break;
        }
        let Some(batch) = local.receive(has_errand)? else {
            // Nothing that is due can be done without a batch.
            local.wait(None).await?;
            continue;
        };
        if batch.is_empty() {
            local.lender.free.push_back(batch);
            ready_count = 0;
            if !local.has_work() {
                let due_at = local.lender.core.next_at();
                local.wait(due_at).await?;
            }
            continue;
        }
        ready_count += 1;
        let has_task = hand_out(local.lease(batch));
        if has_task || ready_count >= READY_COUNT_MAX {
            ready_count = 0;
            yield_now().await;
        }
    }
    local.drain(hand_out).await
}

/// Ends the wait in the runtime. The ring's own waker would have to signal an eventfd from within a
/// write to another one. The kernel defers that, and Linux 6.18 does so only once (observed).
#[derive(Debug, Default)]
struct Errand(Notify);

impl Wake for Errand {
    fn wake(&self) {
        self.0.notify_one();
    }
}

/// See the module's documentation.
struct Local {
    lender: Lender,
    /// Becomes readable when the ring has news.
    signal: AsyncFd<EventFd>,
    /// Somebody has an errand.
    errand: Arc<Errand>,
    /// What the first turn received.
    first: Option<Batch>,
    delay_max: Duration,
}

impl Local {
    fn open(core: Core, delay_max: Duration) -> Result<Self> {
        let failed = |source| Error::Backend { operation: "watching the ring", source };
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let event = EventFd::from_value_and_flags(0, flags);
        let event = event.map_err(|error| failed(error.into()))?;
        core.check_process()?;
        let mut lender = Lender::new(core, Arc::default());
        // From its first turn on the ring belongs to this thread.
        let mut batch = lender.core.driver.new_batch();
        lender.core.turn_or_poll(&mut batch, None, true)?;
        lender.made_count += 1;
        lender.core.driver.signal(&event).map_err(failed)?;
        #[allow(deprecated, reason = "`register` is unsafe; what is owned here is never replaced")]
        let signal = AsyncFd::with_interest(event, Interest::READABLE).map_err(failed)?;
        let errand = Arc::new(Errand::default());
        let waker = Arc::clone(&errand) as Arc<dyn Wake>;
        let _ = lender.core.shared.local_waker.set(waker); // it has none yet
        // For what the first turn left to be done, and what came before the signal.
        errand.wake();
        Ok(Self { lender, signal, errand, first: Some(batch), delay_max })
    }

    /// Sends what is queued, and receives what is there; `None` while tasks have all batches.
    fn receive(&mut self, has_errand: bool) -> Result<Option<Batch>> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        let Some(mut batch) = self.next_batch()? else {
            return Ok(None);
        };
        self.turn(&mut batch, has_errand)?;
        Ok(Some(batch))
    }

    /// A batch to receive into; `None` while tasks have all of them.
    fn next_batch(&mut self) -> Result<Option<Batch>> {
        let next = self.lender.next_batch();
        let was_short = std::mem::replace(&mut self.lender.is_short, next.is_none());
        self.lender.starvation.note(next.is_none() || self.lender.core.driver.is_starved());
        if next.is_none() {
            add(&self.lender.core.shared.stats.lease_wait_count, u64::from(!was_short));
            self.lender.send_posted()?;
        }
        Ok(next)
    }

    /// A turn that waits for a fuller batch where one is expected, and for nothing else.
    fn turn(&mut self, batch: &mut Batch, has_errand: bool) -> Result<()> {
        let has_more_to_send = self.lender.free.iter_mut().any(has_replies);
        let is_polling = has_errand || has_more_to_send || !self.lender.core.driver.expects_more();
        let deadline = (!is_polling).then(|| Instant::now() + self.delay_max);
        self.lender.core.turn_or_poll(batch, deadline, is_polling)
    }

    /// Whether something came back that is to be sent, or there is an errand: the turn may have
    /// taken one that came after the looks before it.
    fn has_work(&mut self) -> bool {
        self.lender.free.iter_mut().any(has_replies)
            || self.lender.core.had_errand
            || self.lender.core.shared.has_errand.load(Ordering::SeqCst)
    }

    /// Waits until the ring has news, somebody has an errand, or something is due.
    async fn wait(&mut self, due_at: Option<Instant>) -> Result<()> {
        let shared = &self.lender.core.shared;
        // Who stores an errand after this sees that the engine waits, and wakes it.
        shared.is_waiting.store(true, Ordering::SeqCst);
        if !shared.has_errand.load(Ordering::SeqCst) {
            let due_at = due_at.unwrap_or_else(|| Instant::now() + WAIT_MAX);
            let mut woken = pin!(self.errand.0.notified());
            let news = poll_fn(|context| match woken.as_mut().poll(context) {
                Poll::Ready(()) => Poll::Ready(None),
                Poll::Pending => self.signal.poll_read_ready(context).map(Some),
            });
            if let Ok(Some(ready)) = timeout_at(due_at.into(), news).await {
                let failed = |source| Error::Backend { operation: "waiting for the ring", source };
                let mut ready = ready.map_err(failed)?;
                // Its value tells nothing; reading it waits for the next one.
                let _ = ready.try_io(|event| event.get_ref().read().map_err(io::Error::from));
                ready.clear_ready();
            }
        }
        self.lender.core.shared.is_waiting.store(false, Ordering::SeqCst);
        Ok(())
    }

    fn lease(&self, batch: Batch) -> BatchLease {
        let handle = Handle::new(Arc::clone(&self.lender.core.shared));
        BatchLease::new(batch, Arc::clone(&self.lender.exchange), handle)
    }

    /// Hands out what was received before the stop, waits a little for what tasks have, and sends
    /// what is queued.
    async fn drain(mut self, mut hand_out: impl FnMut(BatchLease) -> bool) -> Result<()> {
        let end = Instant::now() + DRAIN_TIME_MAX;
        loop {
            if let Err(error) = self.lender.core.check_process() {
                std::mem::forget((self, hand_out));
                return Err(error);
            }
            let is_over = Instant::now() >= end;
            if let Some(batch) = self.receive(true)? {
                let has_more = !batch.is_empty() || self.lender.free.iter_mut().any(has_replies);
                match batch.is_empty() {
                    true => self.lender.free.push_back(batch),
                    false => _ = hand_out(self.lease(batch)),
                }
                if has_more && !is_over {
                    yield_now().await;
                    continue;
                }
            }
            if is_over || self.lender.free.len() == self.lender.made_count {
                return self.lender.finish();
            }
            sleep(RETURN_POLL).await;
        }
    }
}
