//! The handler of an engine, and what it publishes.

use std::{
    ops::ControlFlow,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use nicring::{
    Batch,
    search::{Answerer, NicSearchCounts, Protocol, SearchCounts},
};

use super::tables::TableReader;
use crate::cli::host;

/// How often an engine's thread publishes its counts.
const PUBLISH_PERIOD: Duration = Duration::from_millis(50);

/// What one engine's handler has done.
#[derive(Debug, Clone, Default)]
pub struct Answers {
    /// By protocol in the order of [`Protocol::ALL`].
    pub counts: [SearchCounts; 2],
    pub nics: Vec<NicSearchCounts>,
    /// The CPU time of the engine's thread; `None` where the system does not report it.
    pub cpu: Option<Duration>,
}

/// Where a handler publishes its [`Answers`].
#[derive(Debug, Clone, Default)]
pub struct Board(Arc<Mutex<Answers>>);

impl Board {
    pub fn read(&self) -> Answers {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Answers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What all of them have done together.
pub fn read(boards: &[Board]) -> Answers {
    let mut all = Answers { cpu: Some(Duration::ZERO), ..Answers::default() };
    for answers in boards.iter().map(Board::read) {
        all.counts.iter_mut().zip(answers.counts).for_each(|(sum, one)| *sum += one);
        all.nics.extend(answers.nics); // those of one NIC are added in the report
        all.cpu = all.cpu.zip(answers.cpu).map(|(sum, one)| sum + one);
    }
    all
}

/// Answers what an engine hears, from the newest table.
#[derive(Debug)]
pub struct Handler {
    table: TableReader,
    answerer: Answerer,
    cpu_at_start: Option<Duration>,
    board: Board,
    last_published: Option<Instant>,
}

impl Handler {
    /// Must be called on the engine's thread: it measures the CPU time of the thread that it runs
    /// on.
    pub fn new(table: TableReader, answerer: Answerer, board: Board) -> Self {
        let cpu_at_start = host::thread_cpu();
        Self { table, answerer, cpu_at_start, board, last_published: None }
    }

    pub fn handle(&mut self, batch: &Batch) -> ControlFlow<()> {
        self.table.refresh();
        if self.last_published.is_none_or(|at| at.elapsed() >= PUBLISH_PERIOD) {
            self.publish();
        }
        self.answerer.answer(self.table.table(), batch);
        ControlFlow::Continue(())
    }

    /// Publishes what was done so far.
    fn publish(&mut self) {
        self.last_published = Some(Instant::now());
        let cpu = host::thread_cpu().zip(self.cpu_at_start);
        let mut published = self.board.lock();
        published.counts = Protocol::ALL.map(|protocol| *self.answerer.counts(protocol));
        published.nics.clear();
        published.nics.extend_from_slice(self.answerer.nic_counts());
        published.cpu = cpu.map(|(now, start)| now.saturating_sub(start));
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        self.publish();
    }
}
