//! The name table that is served. It is read from a file and can be replaced while it serves.

use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nicring::search::{NameTable, Protocol, read_pv_file};

use crate::cli::{
    failure::Failure,
    text::{Console, grouped, short},
};

/// Reads a PV file.
pub fn load(path: &Path) -> Result<NameTable, Failure> {
    let file = path.display().to_string();
    let reader = File::open(path).map_err(|error| {
        let expected = "expected a file with lines of PROTOCOL NAME SERVER";
        Failure::Usage(format!("{file}: {error}: {expected}"))
    })?;
    let reader = BufReader::with_capacity(1 << 18, reader);
    read_pv_file(reader, &file).map_err(|error| Failure::Usage(error.to_string()))
}

/// Describes how many names a table has, and how many bytes each takes.
pub fn describe(table: &NameTable) -> String {
    let [ca, pva] = Protocol::ALL.map(|protocol| table.len(protocol));
    let name_count = ca + pva;
    let each = table.heap_bytes().checked_div(name_count).unwrap_or(0);
    format!(
        "{} names ({} ca, {} pva), {each} bytes each",
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
        Arc::new(Self { current, generation: AtomicU64::new(0) })
    }

    pub fn reader(self: &Arc<Self>) -> TableReader {
        let generation = self.generation.load(Ordering::Acquire);
        TableReader { table: self.lock().clone(), tables: Arc::clone(self), generation }
    }

    /// How often the table was replaced.
    pub fn reload_count(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn replace(&self, table: NameTable) -> Arc<NameTable> {
        let old = std::mem::replace(&mut *self.lock(), Shared(Arc::new(table)));
        self.generation.fetch_add(1, Ordering::Release);
        old.0
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Reads a PV file again, on its own thread.
#[derive(Debug)]
pub struct Reloader {
    path: PathBuf,
    tables: Arc<Tables>,
    running: Option<JoinHandle<()>>,
}

impl Reloader {
    pub fn new(path: &Path, tables: &Arc<Tables>) -> Self {
        Self { path: path.to_owned(), tables: Arc::clone(tables), running: None }
    }

    /// Whether a reload is under way. Another one has to wait for its end.
    pub fn is_busy(&self) -> bool {
        self.running.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    pub fn start(&mut self) {
        let (path, tables) = (self.path.clone(), Arc::clone(&self.tables));
        let thread = thread::Builder::new().name("reload".to_owned());
        match thread.spawn(move || reload(&path, &tables)) {
            Ok(thread) => self.running = Some(thread),
            Err(error) => refuse(&error.to_string()),
        }
    }
}

fn reload(path: &Path, tables: &Tables) {
    let start = Instant::now();
    match load(path) {
        Ok(table) => {
            let what = describe(&table);
            let old = tables.replace(table);
            let took = short(start.elapsed());
            Console::to_stderr()
                .say(&format!("nicring: reloaded {}: {what}, in {took}", path.display()));
            retire(old);
        }
        Err(failure) => refuse(&failure.to_string()),
    }
}

fn refuse(reason: &str) {
    let line = format!("nicring: not reloaded, the old names stay in use: {reason}");
    Console::to_stderr().say(&line);
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
