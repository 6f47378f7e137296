//! The files of names. Each is judged by itself, and keeps its last good content.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, Metadata},
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
    time::SystemTime,
};

use nicring::search::{Fields, NameTable, Protocol, PvFile};

use super::hosts::{self, Hosts};

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
    /// The positions of the paths that are directories.
    directories: BTreeSet<usize>,
    /// Whether they were read at all.
    has_read: bool,
    /// By path, in the order of paths.
    files: BTreeMap<(usize, PathBuf), Content>,
}

/// The last good content of a file.
#[derive(Debug)]
struct Content {
    table: NameTable,
    /// Whether its last line had no end.
    was_cut: bool,
    /// Whether it names hosts that did not resolve.
    lacks_hosts: bool,
    /// How it was when it was read; `None` of a pipe, which cannot be read again.
    state: Option<State>,
    /// What a pipe gave, as long as it lacks hosts: it gives that once.
    pipe: Option<Vec<u8>>,
}

impl Content {
    /// Whether it is worth reading once more for its hosts' sake: it must be the same file.
    fn wants_hosts(&self, path: &Path) -> bool {
        let now = || fs::metadata(path).ok().as_ref().map(State::from);
        self.lacks_hosts && (self.pipe.is_some() || now() == self.state)
    }
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
    /// Empty if the reading was for hosts, and nothing has changed.
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
        Self {
            paths: paths.to_vec(),
            judgement,
            fields,
            hosts: Hosts::default(),
            directories: BTreeSet::new(),
            has_read: false,
            files: BTreeMap::new(),
        }
    }

    /// Where to watch for changes: of which directories everything, and which files.
    pub fn watched(&self) -> Watched {
        let mut watched = Watched::default();
        for path in self.paths.iter().filter(|path| !is_stdin(path)) {
            // A link's target may be changed, or the link.
            for path in [Some(path.clone()), path.canonicalize().ok()].into_iter().flatten() {
                match path.is_dir() {
                    true => watched.directories.push(path),
                    false => watched.files.push(path),
                }
            }
        }
        watched
    }

    /// Reads all files.
    pub fn read(&mut self) -> Reading {
        self.read_some(false)
    }

    /// Looks up again the hosts that did not resolve. Files that have changed since they were read
    /// stay as they were read.
    pub fn read_for_hosts(&mut self) -> Reading {
        self.read_some(true)
    }

    fn read_some(&mut self, is_for_hosts: bool) -> Reading {
        let mut reading = Reading::default();
        let found = match is_for_hosts {
            true => self.files.keys().cloned().collect(),
            false => self.list(&mut reading),
        };
        // What was in a directory and is there no more has been taken away.
        self.files.retain(|key, _| {
            let stays = found.contains(key);
            if !stays {
                reading.has_changed = true;
                reading.warnings.push(format!("{} is gone, and its names", key.1.display()));
            }
            stays
        });
        let mut hosts = std::mem::take(&mut self.hosts);
        let mut looking_up = hosts.reading();
        for key in found {
            if is_for_hosts
                && !self.files.get(&key).is_some_and(|content| content.wants_hosts(&key.1))
            {
                continue;
            }
            if let Err(reason) = self.read_file(&key, &mut looking_up, &mut reading) {
                reading.refused.push(reason);
            }
        }
        self.hosts = hosts;
        self.has_read = true;
        reading.lacks_hosts = self.files.values().any(|content| content.lacks_hosts);
        if is_for_hosts {
            reading.warnings.clear(); // they were told
        }
        if reading.has_changed || !is_for_hosts {
            reading.table = self.merge(&mut reading);
        }
        reading
    }

    /// The files that there are, in order. What cannot be seen is not taken for gone.
    fn list(&mut self, reading: &mut Reading) -> BTreeSet<(usize, PathBuf)> {
        let mut found = BTreeSet::new();
        for number in 0..self.paths.len() {
            let path = self.paths[number].clone();
            if path.is_dir() {
                self.directories.insert(number);
            }
            if is_stdin(&path) || !self.directories.contains(&number) {
                found.insert((number, path));
                continue;
            }
            match self.list_directory(number, &path) {
                Ok(files) => found.extend(files),
                Err(reason) => {
                    reading.refused.push(reason);
                    found.extend(self.files.keys().filter(|(of, _)| *of == number).cloned());
                }
            }
        }
        found
    }

    fn list_directory(
        &self,
        number: usize,
        path: &Path,
    ) -> Result<BTreeSet<(usize, PathBuf)>, String> {
        let name = path.display();
        let entries = fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let entries = entries.map_err(|error| format!("{name}: {error}"))?;
        let files = entries.into_iter().map(|entry| entry.path()).filter(|file| is_wanted(file));
        let files: BTreeSet<_> = files.map(|file| (number, file)).collect();
        let known = self.files.iter().filter(|((of, _), _)| *of == number);
        let (mut had, mut gone) = (0, 0);
        for (key, content) in known {
            had += count(&content.table);
            gone += if files.contains(key) { 0 } else { count(&content.table) };
        }
        if gone * 2 > had && !self.judgement.may_shrink {
            let told = "most of its names are gone (--allow-shrink takes it)";
            return Err(format!("{name}: {told}"));
        }
        Ok(files)
    }

    fn read_file(
        &mut self,
        key: &(usize, PathBuf),
        hosts: &mut hosts::Reading<'_>,
        reading: &mut Reading,
    ) -> Result<(), String> {
        let path = &key.1;
        let name = path.display();
        let Some(Opened { from, state }) = self.open(key)? else { return Ok(()) };
        let mut text = Vec::new();
        let from = match state {
            Some(_) => from,
            None => Box::new(Copying { from, text: &mut text }),
        };
        let reader = BufReader::with_capacity(1 << 18, from);
        let mut named = Vec::new();
        let read = PvFile::read(reader, &name.to_string(), &mut |host| {
            named.push(host.to_owned());
            hosts.resolve(host)
        });
        let failed_hosts: Vec<_> =
            named.into_iter().filter(|host| hosts.has_failed(host)).collect();
        self.judge(key, &read, state)?;
        for host in &failed_hosts {
            let kept = match read.unknown_hosts.contains(host) {
                true => "its names are left out",
                false => "its last address stays",
            };
            reading.warnings.push(format!("{name}: the host {host} does not resolve: {kept}"));
        }
        if read.mistake_count > 0 {
            reading
                .warnings
                .push(format!("{}; these lines are left out", mistakes_of(&read, "\nnicring: ")));
        }
        if read.is_cut {
            reading.warnings.push(format!("{name}: its last line has no end: is it whole?"));
        }
        let is_same = self.files.get(key).is_some_and(|before| is_same(&before.table, &read.table));
        reading.has_changed |= !is_same;
        let (table, was_cut) = (read.table, read.is_cut);
        let lacks_hosts = !failed_hosts.is_empty();
        let pipe = Some(text).filter(|_| lacks_hosts && state.is_none());
        let content = Content { table, was_cut, lacks_hosts, state, pipe };
        self.files.insert(key.clone(), content);
        Ok(())
    }

    /// Opens a file, or a pipe's text; `None` where a pipe has nothing more to say.
    fn open(&self, key: &(usize, PathBuf)) -> Result<Option<Opened<'_>>, String> {
        let path = &key.1;
        let failed = |error: io::Error| format!("{}: {error}", path.display());
        let before = self.files.get(key);
        if let Some(before) = before.filter(|before| before.state.is_none()) {
            let opened = |text| Opened { from: Box::new(text) as _, state: None };
            return Ok(before.pipe.as_deref().map(opened));
        }
        if is_stdin(path) {
            let from = Box::new(io::stdin());
            return Ok(Some(Opened { from, state: None }));
        }
        let metadata = fs::metadata(path).map_err(failed)?;
        let state = metadata.is_file().then(|| State::from(&metadata));
        if before.is_some() && state.is_none() {
            return Err(format!("{}: it is no regular file any more", path.display()));
        }
        let from = Box::new(File::open(path).map_err(failed)?);
        Ok(Some(Opened { from, state }))
    }

    /// Whether the content of a file is good; if not, why.
    fn judge(
        &self,
        key: &(usize, PathBuf),
        read: &PvFile,
        state: Option<State>,
    ) -> Result<(), String> {
        let name = key.1.display();
        if read.is_incomplete || read.mistake_count > 0 && !self.judgement.skips_bad_lines {
            return Err(mistakes_of(read, "\nnicring: "));
        }
        let now = fs::metadata(&key.1).ok();
        if state.is_some() && now.as_ref().map(State::from) != state {
            return Err(format!("{name}: it changed while it was read"));
        }
        // At the start there is nothing to compare with, and nothing to keep.
        if !self.has_read {
            return Ok(());
        }
        let before = self.files.get(key);
        if read.is_cut && !before.is_some_and(|before| before.was_cut) {
            return Err(format!("{name}: its last line has no end: it may be cut"));
        }
        let Some(before) = before else { return Ok(()) };
        let (had, has) = (count(&before.table), count(&read.table));
        // Names of hosts that do not resolve are not lost by the file.
        if self.judgement.may_shrink || has * 2 >= had || !read.unknown_hosts.is_empty() {
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

/// A file that was opened.
struct Opened<'a> {
    from: Box<dyn Read + 'a>,
    /// How it was when it was opened; `None` of a pipe.
    state: Option<State>,
}

/// Reads, and keeps what was read.
struct Copying<'a> {
    from: Box<dyn Read + 'a>,
    text: &'a mut Vec<u8>,
}

impl Read for Copying<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.from.read(buffer)?;
        self.text.extend_from_slice(&buffer[..len]);
        Ok(len)
    }
}

/// How many of many alike a text shows.
const SHOWN_COUNT: usize = 20;

/// What to watch for changes.
#[derive(Debug, Default)]
pub struct Watched {
    pub directories: Vec<PathBuf>,
    pub files: Vec<PathBuf>,
}

impl Watched {
    /// The directories that the system is asked to watch.
    pub fn places(&self) -> Vec<PathBuf> {
        let parent = |file: &PathBuf| match file.parent() {
            Some(parent) if parent != Path::new("") => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let mut places: Vec<_> =
            self.directories.iter().cloned().chain(self.files.iter().map(parent)).collect();
        places.sort();
        places.dedup();
        places
    }

    /// Whether a change of this file is one of the names.
    pub fn concerns(&self, changed: &Path) -> bool {
        let is_in = |directory: &PathBuf| changed.parent() == Some(directory);
        let is_it = |file: &PathBuf| changed.strip_prefix(".").unwrap_or(changed) == file;
        let name = changed.file_name().unwrap_or_default().to_string_lossy();
        self.files.iter().any(is_it)
            || has_wanted_name(&name) && self.directories.iter().any(is_in)
            || self.directories.iter().any(|directory| changed == directory)
    }
}

/// Whether two tables answer alike.
fn is_same(one: &NameTable, other: &NameTable) -> bool {
    let patterns = |table: &NameTable| {
        let of_one =
            |(protocol, prefix, server): (_, &str, _)| (protocol, prefix.to_owned(), server);
        let mut patterns: Vec<_> = table.patterns().map(of_one).collect();
        patterns.sort();
        patterns
    };
    one.iter().eq(other.iter()) && patterns(one) == patterns(other)
}

fn count(table: &NameTable) -> usize {
    Protocol::ALL.iter().map(|protocol| table.len(*protocol) + table.pattern_count(*protocol)).sum()
}

/// All mistakes that are kept, and how many more there are.
pub fn mistakes_of(read: &PvFile, separator: &str) -> String {
    let mut lines: Vec<_> = read.mistakes.iter().map(ToString::to_string).collect();
    let more = read.mistake_count - read.mistakes.len();
    if more > 0 {
        lines.push(format!("and {more} more mistakes"));
    }
    lines.join(separator)
}

fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

/// Whether a file of a directory is one of names. What cannot be seen may be one.
fn is_wanted(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    has_wanted_name(&name) && fs::metadata(path).map_or(true, |metadata| metadata.is_file())
}

/// No hidden file, and none that an editor left.
fn has_wanted_name(name: &str) -> bool {
    !name.starts_with('.') && !name.ends_with('~')
}
