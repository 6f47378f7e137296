//! The file, read by tokio-uring; where io_uring is refused, by blocking reads.

use std::{fs::File, io, os::unix::fs::FileExt, rc::Rc};

use nicring::HandlerRuntime;
use tokio_uring::fs::File as UringFile;

/// The longest line, with its end.
const LINE_LEN_MAX: usize = 1024;

/// A file of sorted lines.
pub struct SortedFile {
    len: u64,
    how: How,
}

enum How {
    Uring(Rc<UringFile>),
    Blocking(File),
}

impl SortedFile {
    /// # Panics
    ///
    /// If there is no such file.
    pub fn open(path: &str, runtime: HandlerRuntime) -> Self {
        let file = File::open(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let len = file.metadata().map_or(0, |metadata| metadata.len());
        let how = match runtime {
            HandlerRuntime::TokioUring => How::Uring(Rc::new(UringFile::from_std(file))),
            _ => How::Blocking(file),
        };
        Self { len, how }
    }

    /// The line that begins with `name` and a blank.
    pub async fn find(&self, name: &[u8]) -> Option<Vec<u8>> {
        let (mut low, mut high) = (0, self.len); // it begins at `low` or later, and before `high`
        while low < high {
            let middle = low + (high - low) / 2;
            let (start, line) = self.line_at(middle).await.ok()?;
            let key = line.split(|byte| *byte == b' ').next().unwrap_or_default();
            match key.cmp(name) {
                std::cmp::Ordering::Equal => return Some(line),
                std::cmp::Ordering::Less => low = start + line.len() as u64 + 1,
                std::cmp::Ordering::Greater => high = start,
            }
        }
        None
    }

    /// The line in which the byte at an offset is: where it begins, and what it is.
    async fn line_at(&self, at: u64) -> io::Result<(u64, Vec<u8>)> {
        let from = at.saturating_sub(LINE_LEN_MAX as u64);
        let bytes = self.read(from).await?;
        let within = (at - from) as usize;
        let (before, after) = bytes.split_at(within.min(bytes.len()));
        let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let end =
            after.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |end| within + end);
        Ok((from + start as u64, bytes[start..end].to_vec()))
    }

    async fn read(&self, at: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; 2 * LINE_LEN_MAX];
        let len = match &self.how {
            How::Uring(file) => {
                let (read, returned) = file.read_at(bytes, at).await;
                bytes = returned;
                read?
            }
            How::Blocking(file) => file.read_at(&mut bytes, at)?,
        };
        bytes.truncate(len);
        Ok(bytes)
    }
}
