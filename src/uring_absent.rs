//! Stands in for `uring/` on systems other than Linux: io_uring is unavailable.

use std::io;

use crate::{
    error::Unavailable,
    path::{BackendDriver, BackendSettings, BackendSetup},
};

pub(crate) fn open(
    _: &BackendSettings,
) -> Result<(Box<dyn BackendDriver>, BackendSetup), Unavailable> {
    Err(unavailable())
}

#[allow(dead_code, reason = "for the feature udp-v4")]
pub(crate) fn check() -> Result<(), Unavailable> {
    Err(unavailable())
}

fn unavailable() -> Unavailable {
    Unavailable {
        operation: "io_uring",
        source: io::ErrorKind::Unsupported.into(),
        errno: "not Linux",
        remedy: "this system has no io_uring; the portable backend keeps the same behaviour",
    }
}
