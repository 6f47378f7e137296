//! The file where there is no io_uring: read whole when it is opened.

use std::fs;

use nicring::HandlerRuntime;

/// A file of sorted lines.
pub struct SortedFile(Vec<u8>);

impl SortedFile {
    /// # Panics
    ///
    /// If there is no such file.
    pub fn open(path: &str, _: HandlerRuntime) -> Self {
        Self(fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}")))
    }

    /// The line that begins with `name` and a blank.
    pub async fn find(&self, name: &[u8]) -> Option<Vec<u8>> {
        let mut lines = self.0.split(|byte| *byte == b'\n');
        let is_it =
            |line: &&[u8]| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(b" "));
        lines.find(is_it).map(<[u8]>::to_vec)
    }
}
