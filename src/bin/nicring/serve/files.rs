//! Hears of files that change.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use super::sources::Watched;
use crate::cli::failure::Failure;

/// A program that writes a file changes it several times. One reading is to serve for all.
const QUIET: Duration = Duration::from_millis(200);

/// Files that never come to rest are read all the same.
const UNREST_MAX: Duration = Duration::from_secs(2);

/// When files have changed that were not read since.
#[derive(Debug, Clone, Copy)]
struct Change {
    first_at: Instant,
    last_at: Instant,
}

/// Changes of the files of names.
#[derive(Debug)]
pub struct FileEvents {
    changed: Arc<Mutex<Option<Change>>>,
    _watcher: RecommendedWatcher,
}

impl FileEvents {
    pub fn watch(watched: Watched) -> Result<Self, Failure> {
        let changed = Arc::new(Mutex::new(None));
        let (noted, places) = (Arc::clone(&changed), watched.places());
        let note = move |event: notify::Result<notify::Event>| {
            // Reading a file is no change of it.
            let is_change = event.is_ok_and(|event| {
                let concerns = || event.paths.iter().any(|path| watched.concerns(path));
                event.need_rescan() || !event.kind.is_access() && concerns()
            });
            if is_change {
                let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
                let now = Instant::now();
                let first_at = noted.map_or(now, |change: Change| change.first_at);
                *noted = Some(Change { first_at, last_at: now });
            }
        };
        let watching = || {
            let mut watcher = notify::recommended_watcher(note)?;
            for place in &places {
                watcher.watch(place, RecursiveMode::NonRecursive)?;
            }
            Ok::<_, notify::Error>(watcher)
        };
        let watcher = watching().map_err(|error| Failure::Run(format!("--watch: {error}")))?;
        Ok(Self { changed, _watcher: watcher })
    }

    /// Whether something has changed, and nothing more for a while.
    pub fn take_change(&self) -> bool {
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = |change: &mut Change| {
            change.last_at.elapsed() >= QUIET || change.first_at.elapsed() >= UNREST_MAX
        };
        changed.take_if(is_due).is_some()
    }
}
