//! The Linux backend.
pub(crate) mod control;
pub(crate) mod meminfo;
pub(crate) mod mmsg;

pub(crate) fn open(
    _: &crate::backend::BackendSettings,
) -> Result<(Box<dyn crate::backend::BackendDriver>, String), crate::error::Unavailable> {
    Err(crate::error::Unavailable {
        operation: "io_uring",
        source: std::io::ErrorKind::Unsupported.into(),
        errno: "",
        remedy: "not yet",
    })
}
