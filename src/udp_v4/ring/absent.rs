//! The ring on systems without io_uring: always unavailable.

use std::{io, sync::Arc};

use super::feed::{Feed, Feeder};
use crate::error::Error;

/// Returns why io_uring is unavailable.
pub(super) fn check() -> io::Result<()> {
    Ok(crate::uring::check().map_err(Error::Unavailable)?)
}

/// As [`check`].
pub(super) fn attach(_: &Arc<Feed>) -> io::Result<Arc<dyn Feeder>> {
    check()?;
    Err(io::ErrorKind::Unsupported.into())
}
