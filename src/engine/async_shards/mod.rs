//! Shards whose handlers are async: each shard's thread has a runtime, in which the shard's ring is
//! one thing to wait for among others.

#[cfg(target_os = "linux")]
mod hosted;
#[cfg(not(target_os = "linux"))]
#[path = "hosted_absent.rs"]
mod hosted;
mod task;

use std::future::Future;

use tokio::task::LocalSet;

use self::task::Tasks;
use super::{
    async_engine::{AsyncEngine, BatchLease},
    run::Engine,
    shards::{HandlerRuntime, Shards},
};
use crate::{
    error::{Error, Result},
    stats::Stats,
};

impl Shards {
    /// As [`Shards::run`], with async handlers (feature `tokio-uring`). Each shard's thread runs a
    /// runtime of tokio-uring, which waits for the shard's own ring too; where io_uring is refused,
    /// one of tokio, and the portable backend has a thread beside it.
    ///
    /// `handler_of` makes the handler of a shard, on the shard's thread, within its runtime. The
    /// handler gets each batch. A future that is ready at once costs no task. One that waits goes
    /// on as a task, and holds back nothing but the batch that it keeps: drop that before you wait
    /// for long, and answer by [`Handle::reply_by`](crate::Handle::reply_by). When the shard ends,
    /// tasks have 200 ms to give their batches back, and are dropped then. A panic while a
    /// handler's future runs ends the shards, and reaches the caller.
    ///
    /// # Errors
    ///
    /// As [`Shards::run`]; [`Error::Backend`] also if a runtime cannot be started.
    ///
    /// ```no_run
    /// let shards = nicring::Engine::builder().port(5076).shards(2).open_shards()?;
    /// let stats = shards.run_async(|_, _| {
    ///     |batch: nicring::BatchLease| async move {
    ///         batch.iter().for_each(|datagram| _ = batch.reply(&datagram, b"here"));
    ///     }
    /// })?;
    /// println!("{stats}");
    /// # Ok::<(), nicring::Error>(())
    /// ```
    pub fn run_async<F, H, A>(self, handler_of: F) -> Result<Stats>
    where
        F: Fn(usize, HandlerRuntime) -> H + Sync,
        H: FnMut(BatchLease) -> A,
        A: Future<Output = ()> + 'static,
    {
        self.on_threads(|number, engine| {
            let tasks = Tasks::of(engine.handle());
            // Within the runtime, for what it makes there: timers, tasks, sockets.
            let start_each = |runtime| {
                let mut handler = handler_of(number, runtime);
                let tasks = &tasks;
                move |batch| tasks.start(handler(batch))
            };
            let served = match hosted::Runtime::for_engine(&engine) {
                Some(runtime) => runtime.serve(engine, || start_each(HandlerRuntime::TokioUring)),
                None => serve_on_tokio(engine, || start_each(HandlerRuntime::Tokio)),
            };
            tasks.resume_panic();
            served
        })
    }
}

fn serve_on_tokio<H: FnMut(BatchLease) -> bool>(
    engine: Engine,
    hand_out_of: impl FnOnce() -> H,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let failed = |source| Error::Backend { operation: "starting a runtime of tokio", source };
    let runtime = runtime.map_err(failed)?;
    let engine = AsyncEngine::start(engine.into_core())?;
    let (tasks, mut hand_out) = (LocalSet::new(), None);
    let served = tasks.block_on(&runtime, async {
        let hand_out = hand_out.insert(hand_out_of());
        while let Some(batch) = engine.recv_batch().await? {
            hand_out(batch);
        }
        Ok(())
    });
    if let Err(Error::Forked) = served {
        // Their poller is the parent's too.
        std::mem::forget((tasks, runtime, hand_out));
    }
    served
}
