//! The files of names. Each is judged by itself, and keeps its last good content.

use std::{
    collections::BTreeMap,
    fs::{self, File, Metadata},
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
    time::SystemTime,
};

use nicring::search::{Fields, NameTable, Protocol, PvFile};

use super::hosts::Hosts;

/// What is taken for a file, and what for a mistake.
#[derive(Debug, Clone, Copy, Default)]
pub struct Judgement {
    /// Lines with mistakes are left out, and a file with some is good.
    pub skips_bad_lines: bool,
    /// A file may lose most of its names.
    pub may_shrink: bool,
}

/// All files of names.
#[derive(Debug)]
pub struct Sources {
    /// As the user named them: files and directories; `-` is standard input.
    paths: Vec<PathBuf>,
    judgement: Judgement,
    fields: Fields,
    hosts: Hosts,
    /// By path, in the order of paths.
    files: BTreeMap<(usize, PathBuf), Content>,
}

/// The last good content of a file.
#[derive(Debug)]
struct Content {
    table: NameTable,
    /// Whether it can be read again.
    is_regular: bool,
    state: Option<State>,
}

/// What tells whether a file has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    modified_at: Option<SystemTime>,
    len: u64,
}

impl From<&Metadata> for State {
    fn from(metadata: &Metadata) -> Self {
        Self { modified_at: metadata.modified().ok(), len: metadata.len() }
    }
}

/// What a reading of all files came to.
#[derive(Debug, Default)]
pub struct Reading {
    pub table: NameTable,
    /// Files that were refused, each with the reason. Their last good content stays.
    pub refused: Vec<String>,
    /// What is worth a line and refuses nothing.
    pub warnings: Vec<String>,
    /// Whether some host did not resolve: it is worth trying again.
    pub lacks_hosts: bool,
    /// Whether any file was taken, or is gone.
    pub has_changed: bool,
}

impl Sources {
    pub fn new(paths: &[PathBuf], judgement: Judgement, fields: Fields) -> Self {
        let (hosts, files) = (Hosts::default(), BTreeMap::new());
        Self { paths: paths.to_vec(), judgement, fields, hosts, files }
    }

    /// The directories to watch for changes.
    pub fn directories(&self) -> Vec<PathBuf> {
        let directory = |path: &PathBuf| match path.is_dir() {
            true => path.clone(),
            false => path
                .parent()
                .filter(|parent| *parent != Path::new(""))
                .map_or_else(|| PathBuf::from("."), Path::to_owned),
        };
        let mut directories: Vec<_> =
            self.paths.iter().filter(|path| !is_stdin(path)).map(directory).collect();
        directories.sort();
        directories.dedup();
        directories
    }

    /// Reads all files.
    pub fn read(&mut self) -> Reading {
        let mut reading = Reading::default();
        let found = self.list(&mut reading);
        // What was in a directory and is there no more has been taken away.
        self.files.retain(|key, _| {
            let stays = found.contains(key);
            if !stays {
                reading.has_changed = true;
                reading.warnings.push(format!("{} is gone, and its names", key.1.display()));
            }
            stays
        });
        for key in found {
            if let Err(reason) = self.read_file(&key, &mut reading) {
                reading.refused.push(reason);
            }
        }
        reading.table = self.merge(&mut reading);
        reading
    }

    /// The files that there are, in order.
    fn list(&self, reading: &mut Reading) -> Vec<(usize, PathBuf)> {
        let mut found = Vec::new();
        for (number, path) in self.paths.iter().enumerate() {
            if is_stdin(path) || !path.is_dir() {
                found.push((number, path.clone()));
                continue;
            }
            match fs::read_dir(path) {
                Ok(entries) => {
                    let files = entries.filter_map(Result::ok).map(|entry| entry.path());
                    let mut files: Vec<_> = files.filter(|file| is_wanted(file)).collect();
                    files.sort();
                    found.extend(files.into_iter().map(|file| (number, file)));
                }
                Err(error) => {
                    reading.refused.push(format!("{}: {error}", path.display()));
                    let known = self.files.keys().filter(|(of, _)| *of == number);
                    found.extend(known.cloned());
                }
            }
        }
        found
    }

    fn read_file(&mut self, key: &(usize, PathBuf), reading: &mut Reading) -> Result<(), String> {
        let path = &key.1;
        let name = path.display();
        let before = self.files.get(key);
        if before.is_some_and(|before| !before.is_regular) {
            return Ok(()); // a pipe gives its content once
        }
        let failed = |error: io::Error| format!("{name}: {error}");
        let metadata =
            if is_stdin(path) { None } else { Some(fs::metadata(path).map_err(failed)?) };
        let is_regular = metadata.as_ref().is_some_and(Metadata::is_file);
        if before.is_some() && !is_regular {
            return Err(format!("{name}: it is no regular file any more"));
        }
        let state = metadata.as_ref().filter(|_| is_regular).map(State::from);
        let reader: Box<dyn Read> = match is_stdin(path) {
            true => Box::new(io::stdin()),
            false => Box::new(File::open(path).map_err(failed)?),
        };
        let reader = BufReader::with_capacity(1 << 18, reader);
        let mut hosts = self.hosts.reading();
        let read = PvFile::read(reader, &name.to_string(), &mut |host| hosts.resolve(host));
        let failed_hosts = hosts.failed;
        self.judge(key, &read, state)?;
        for host in &failed_hosts {
            let kept = if read.unknown_hosts.contains(host) {
                "its names are left out"
            } else {
                "its last address stays"
            };
            reading.warnings.push(format!("{name}: the host {host} does not resolve: {kept}"));
        }
        reading.lacks_hosts |= !failed_hosts.is_empty();
        if read.mistake_count > 0 {
            reading.warnings.push(format!("{}; these lines are left out", mistakes_of(&read)));
        }
        reading.has_changed = true;
        self.files.insert(key.clone(), Content { table: read.table, is_regular, state });
        Ok(())
    }

    /// Whether the content of a file is good; if not, why.
    fn judge(
        &self,
        key: &(usize, PathBuf),
        read: &PvFile,
        state: Option<State>,
    ) -> Result<(), String> {
        let name = key.1.display();
        if read.mistake_count > 0 && !self.judgement.skips_bad_lines {
            return Err(mistakes_of(read));
        }
        let now = fs::metadata(&key.1).ok();
        if state.is_some() && now.as_ref().map(State::from) != state {
            return Err(format!("{name}: it changed while it was read"));
        }
        // What follows is about files that were good before.
        let Some(before) = self.files.get(key) else { return Ok(()) };
        let (had, has) = (count(&before.table), count(&read.table));
        if before.state == state {
            return Ok(());
        }
        if read.is_cut {
            return Err(format!("{name}: its last line has no end: it may be cut"));
        }
        if self.judgement.may_shrink || has * 2 >= had {
            return Ok(());
        }
        Err(format!("{name}: it has {has} names and had {had} (--allow-shrink takes it)"))
    }

    /// All names together. Of two servers for one name the first counts.
    fn merge(&self, reading: &mut Reading) -> NameTable {
        let mut builder = NameTable::builder();
        let mut clashes = Vec::new();
        for ((_, path), content) in &self.files {
            let mut insert = |kind: &str, protocol: Protocol, name: &str, inserted| {
                if let Err(error) = inserted {
                    clashes.push(format!("{}: {protocol} {kind}{name}: {error}", path.display()));
                }
            };
            for (protocol, name, server) in &content.table {
                insert("", protocol, name, builder.insert(protocol, name, server));
            }
            for (protocol, prefix, server) in content.table.patterns() {
                let inserted = builder.insert_pattern(protocol, prefix, server);
                insert("pattern ", protocol, prefix, inserted);
            }
        }
        let more = clashes.len().saturating_sub(SHOWN_COUNT);
        reading.warnings.extend(clashes.into_iter().take(SHOWN_COUNT));
        if more > 0 {
            reading.warnings.push(format!("and {more} more names with two servers"));
        }
        builder.build().with_fields(self.fields)
    }
}

/// How many of many alike a text shows.
const SHOWN_COUNT: usize = 20;

fn count(table: &NameTable) -> usize {
    Protocol::ALL.iter().map(|protocol| table.len(*protocol) + table.pattern_count(*protocol)).sum()
}

/// All mistakes that are kept, and how many more there are.
pub fn mistakes_of(read: &PvFile) -> String {
    let mut lines: Vec<_> = read.mistakes.iter().map(ToString::to_string).collect();
    let more = read.mistake_count - read.mistakes.len();
    if more > 0 {
        lines.push(format!("and {more} more mistakes"));
    }
    lines.join("\nnicring: ")
}

fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

/// Whether a file of a directory is one of names: no hidden one, and none that an editor left.
fn is_wanted(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.is_file() && !name.starts_with('.') && !name.ends_with('~')
}
