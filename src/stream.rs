//! The batches of an engine as a stream (feature `stream`), for programs that combine streams.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_core::Stream;

use crate::{
    engine::{AsyncEngine, BatchLease, Receive},
    error::Result,
};

/// A stream of the batches of an [`AsyncEngine`]; see [`AsyncEngine::batches`].
#[derive(Debug)]
#[must_use]
pub struct Batches<'a> {
    engine: &'a AsyncEngine,
    receive: Receive<'a>,
}

impl AsyncEngine {
    /// The batches as a stream: it yields what [`AsyncEngine::recv_batch`] returns, until the
    /// engine has ended.
    ///
    /// ```
    /// use futures_util::TryStreamExt;
    ///
    /// # async fn serve(engine: nicring::AsyncEngine) -> nicring::Result<()> {
    /// let mut batches = engine.batches();
    /// while let Some(batch) = batches.try_next().await? {
    ///     println!("{} datagrams", batch.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn batches(&self) -> Batches<'_> {
        Batches { engine: self, receive: self.receive() }
    }
}

impl Stream for Batches<'_> {
    type Item = Result<BatchLease>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { engine, receive } = &mut *self;
        let received = ready!(Pin::new(receive).poll(context)).transpose();
        Poll::Ready(received.map(|batch| Ok(engine.lease(batch?))))
    }
}
