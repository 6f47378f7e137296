//! Hears of files that change.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use crate::cli::failure::Failure;

/// A program that writes a file changes it several times. One reading is to serve for all.
const QUIET: Duration = Duration::from_millis(200);

/// Changes of the files in some directories.
#[derive(Debug)]
pub struct FileEvents {
    changed_at: Arc<Mutex<Option<Instant>>>,
    _watcher: RecommendedWatcher,
}

impl FileEvents {
    pub fn watch(directories: &[PathBuf]) -> Result<Self, Failure> {
        let changed_at = Arc::new(Mutex::new(None));
        let noted = Arc::clone(&changed_at);
        let note = move |event: notify::Result<notify::Event>| {
            // Reading a file is no change of it.
            if event.is_ok_and(|event| !event.kind.is_access()) {
                *noted.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            }
        };
        let watching = || {
            let mut watcher = notify::recommended_watcher(note)?;
            for directory in directories {
                watcher.watch(directory, RecursiveMode::NonRecursive)?;
            }
            Ok::<_, notify::Error>(watcher)
        };
        let watcher = watching().map_err(|error| Failure::Run(format!("--watch: {error}")))?;
        Ok(Self { changed_at, _watcher: watcher })
    }

    /// Whether something has changed, and nothing more for a while.
    pub fn take_change(&self) -> bool {
        let mut changed_at = self.changed_at.lock().unwrap_or_else(PoisonError::into_inner);
        changed_at.take_if(|at| at.elapsed() >= QUIET).is_some()
    }
}
