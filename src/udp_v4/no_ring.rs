//! Systems without io_uring.

use std::{io, sync::Arc};

use super::feed::Feed;
use crate::error::Error;

/// There is none.
#[derive(Debug)]
pub(super) enum Hub {}

/// Nobody waits for it.
#[derive(Debug, Default)]
pub(super) struct Departure;

/// Says why not.
pub(super) fn check() -> io::Result<()> {
    Ok(crate::uring::check().map_err(Error::Unavailable)?)
}

/// As [`check`].
pub(super) fn attach(_: &Arc<Feed>) -> io::Result<Arc<Hub>> {
    check()?;
    Err(io::ErrorKind::Unsupported.into())
}

impl Hub {
    pub fn call(&self, _: &Arc<Feed>) -> bool {
        match *self {}
    }

    pub fn leave(&self, _: &Arc<Feed>) -> io::Result<()> {
        match *self {}
    }
}
