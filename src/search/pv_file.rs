//! The PV file.
use std::fmt;
use std::io::BufRead;

use super::NameTable;

/// Reads lines of `PROTOCOL NAME SERVER`. `file` is what errors call it.
pub fn read_pv_file(reader: impl BufRead, file: &str) -> Result<NameTable, PvFileError> {
    todo!()
}

/// Why a PV file was refused: displays as `FILE:LINE:COLUMN: expected ..., found ...`.
#[derive(Debug)]
pub struct PvFileError(());
impl fmt::Display for PvFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!()
    }
}
impl std::error::Error for PvFileError {}
