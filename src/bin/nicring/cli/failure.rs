//! Why the program ends without having done what it was asked.

use std::{fmt, io, process::ExitCode};

/// Printed on stderr as `nicring: ...`.
#[derive(Debug)]
pub enum Failure {
    /// What was asked for is not possible: exit code 2.
    Usage(String),
    /// The program failed while running: exit code 1.
    Run(String),
}

impl Failure {
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(2),
            Self::Run(_) => ExitCode::from(1),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::Run(text) => f.write_str(text),
        }
    }
}

impl From<nicring::Error> for Failure {
    fn from(error: nicring::Error) -> Self {
        match error.kind() {
            io::ErrorKind::InvalidInput => Self::Usage(error.to_string()),
            _ => Self::Run(error.to_string()),
        }
    }
}
