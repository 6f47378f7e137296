//! The name table that is served. It is read from a file and can be replaced while it serves.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nicring::search::{NameTable, Protocol};

use super::sources::{Reading, Sources};
use crate::cli::text::{Console, grouped, short};

/// Describes how many names a table has, and how many bytes each takes.
pub fn describe(table: &NameTable) -> String {
    let [ca, pva] = Protocol::ALL.map(|protocol| table.len(protocol));
    let name_count = ca + pva;
    let each = table.heap_bytes().checked_div(name_count).unwrap_or(0);
    let pattern_count: usize =
        Protocol::ALL.iter().map(|protocol| table.pattern_count(*protocol)).sum();
    let patterns = match pattern_count {
        0 => String::new(),
        count => format!(", {} patterns", grouped(count as u64)),
    };
    format!(
        "{} names ({} ca, {} pva), {each} bytes each{patterns}",
        grouped(name_count as u64),
        grouped(ca as u64),
        grouped(pva as u64),
    )
}

/// The table in use. Readers take over a new one at their next batch. They never wait for a table
/// to be read or freed.
#[derive(Debug)]
pub struct Tables {
    current: Mutex<Shared>,
    generation: AtomicU64,
    /// The files that were refused at the last reload, each with the reason.
    refused: Mutex<Vec<String>>,
}

/// A table whose debug output is only its size.
#[derive(Clone)]
struct Shared(Arc<NameTable>);

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&describe(&self.0))
    }
}

impl Tables {
    pub fn new(table: NameTable) -> Arc<Self> {
        let current = Mutex::new(Shared(Arc::new(table)));
        let refused = Mutex::default();
        Arc::new(Self { current, generation: AtomicU64::new(0), refused })
    }

    pub fn reader(self: &Arc<Self>) -> TableReader {
        let generation = self.generation.load(Ordering::Acquire);
        TableReader { table: self.lock().clone(), tables: Arc::clone(self), generation }
    }

    /// How often the table was replaced.
    pub fn reload_count(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// How many files were refused.
    pub fn refused_count(&self) -> usize {
        lock(&self.refused).len()
    }

    /// The files that were refused at the last reload, each with the reason.
    pub fn refused(&self) -> Vec<String> {
        lock(&self.refused).clone()
    }

    /// Tells which files were refused, and keeps them in mind.
    fn refuse(&self, refused: Vec<String>) {
        for reason in &refused {
            let line = format!("nicring: not reloaded, its old names stay in use: {reason}");
            Console::to_stderr().say(&line);
        }
        *lock(&self.refused) = refused;
    }

    fn replace(&self, table: NameTable) -> Arc<NameTable> {
        let old = std::mem::replace(&mut *self.lock(), Shared(Arc::new(table)));
        self.generation.fetch_add(1, Ordering::Release);
        old.0
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        lock(&self.current)
    }
}

/// One thread's view of [`Tables`].
#[derive(Debug)]
pub struct TableReader {
    table: Shared,
    tables: Arc<Tables>,
    generation: u64,
}

impl TableReader {
    /// Takes over a new table, if there is one.
    pub fn refresh(&mut self) {
        let generation = self.tables.generation.load(Ordering::Acquire);
        if generation != self.generation {
            self.table = self.tables.lock().clone();
            self.generation = generation;
        }
    }

    pub fn table(&self) -> &NameTable {
        &self.table.0
    }
}

/// Reads the files of names again, on a thread of its own.
#[derive(Debug)]
pub struct Reloader {
    sources: Arc<Mutex<Sources>>,
    tables: Arc<Tables>,
    running: Option<JoinHandle<()>>,
    /// When to try again because some host did not resolve.
    retry_at: Arc<Mutex<Option<Instant>>>,
}

/// How long after a reading hosts that did not resolve are looked up again.
const RETRY_AFTER: Duration = Duration::from_secs(30);

impl Reloader {
    /// `lacks_hosts` says whether the first reading had hosts that did not resolve.
    pub fn new(sources: Sources, tables: &Arc<Tables>, lacks_hosts: bool) -> Self {
        let retry_at = Arc::new(Mutex::new(retry_at(lacks_hosts)));
        let sources = Arc::new(Mutex::new(sources));
        Self { sources, tables: Arc::clone(tables), running: None, retry_at }
    }

    /// Whether a reload is under way. Another one has to wait for its end.
    pub fn is_busy(&self) -> bool {
        self.running.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Whether it is time to try again by itself.
    pub fn is_due(&self) -> bool {
        lock(&self.retry_at).take_if(|at| *at <= Instant::now()).is_some()
    }

    /// Reads all files, or those again of which some host did not resolve.
    pub fn start(&mut self, is_for_hosts: bool) {
        let (sources, tables) = (Arc::clone(&self.sources), Arc::clone(&self.tables));
        let retry = Arc::clone(&self.retry_at);
        let thread = thread::Builder::new().name("reload".to_owned());
        let reload = move || {
            let lacks_hosts = reload(&mut lock(&sources), &tables, is_for_hosts);
            *lock(&retry) = retry_at(lacks_hosts);
        };
        match thread.spawn(reload) {
            Ok(thread) => self.running = Some(thread),
            Err(error) => {
                *lock(&self.retry_at) = retry_at(true);
                self.tables.refuse(vec![error.to_string()]);
            }
        }
    }
}

fn retry_at(lacks_hosts: bool) -> Option<Instant> {
    lacks_hosts.then(|| Instant::now() + RETRY_AFTER)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns whether some host did not resolve.
fn reload(sources: &mut Sources, tables: &Tables, is_for_hosts: bool) -> bool {
    let start = Instant::now();
    let reading = if is_for_hosts { sources.read_for_hosts() } else { sources.read() };
    let Reading { table, refused, warnings, lacks_hosts, has_changed } = reading;
    let console = Console::to_stderr();
    warnings.iter().for_each(|warning| console.say(&format!("nicring: {warning}")));
    if !is_for_hosts {
        tables.refuse(refused);
    }
    if !has_changed && !is_for_hosts {
        console.say("nicring: read again: nothing else has changed");
    }
    if has_changed {
        let what = describe(&table);
        let old = tables.replace(table);
        console.say(&format!("nicring: reloaded {what}, in {}", short(start.elapsed())));
        retire(old);
    }
    lacks_hosts
}

/// Waits until the engines' threads have let go of the old table, so that it is freed here and not
/// there.
fn retire(table: Arc<NameTable>) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while Arc::strong_count(&table) > 1 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table_of(name: &str) -> NameTable {
        let mut builder = NameTable::builder();
        let server = "192.0.2.7:5064".parse().expect("an address");
        builder.insert(Protocol::Ca, name, server).expect("a name");
        builder.build()
    }

    #[test]
    fn a_reader_takes_over_a_new_table_and_lets_go_of_the_old_one() {
        let tables = Tables::new(table_of("old"));
        let mut reader = tables.reader();
        let old = tables.replace(table_of("new"));
        assert!(reader.table().lookup(Protocol::Ca, b"old").is_some(), "until it refreshes");
        reader.refresh();
        assert!(reader.table().lookup(Protocol::Ca, b"new").is_some());
        assert_eq!((Arc::strong_count(&old), tables.reload_count()), (1, 1));
    }
}
