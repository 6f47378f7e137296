//! Chooses io_uring or portable, and says why.

use std::{fmt, str, sync::Arc};

use crate::{
    error::{Error, Result, Unavailable},
    fallback::Portable,
    path::{BackendDriver, BackendSettings, BackendSetup},
    uring,
};

/// Which backend an engine runs on.
///
/// ```
/// # use nicring::Backend;
/// assert_eq!("portable".parse::<Backend>()?, Backend::Portable);
/// assert!("iouring?".parse::<Backend>().is_err());
/// # Ok::<(), nicring::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Backend {
    /// [`Backend::IoUring`] where it works, else [`Backend::Portable`]; the environment variable
    /// `NICRING_BACKEND` (`io_uring` or `portable`) takes precedence.
    #[default]
    Auto,
    /// io_uring, Linux 6.0 or later; an error where it cannot be used.
    IoUring,
    /// Readiness, and `recvmmsg` on Linux; elsewhere the calls that the system has.
    Portable,
}

impl Backend {
    /// The environment variable that [`Backend::Auto`] obeys.
    pub const ENVIRONMENT_VARIABLE: &str = "NICRING_BACKEND";
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Auto => "auto",
            Self::IoUring => "io_uring",
            Self::Portable => "portable",
        })
    }
}

impl str::FromStr for Backend {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" | "" => Ok(Self::Auto),
            "io_uring" => Ok(Self::IoUring),
            "portable" => Ok(Self::Portable),
            _ => {
                let reason = format!("{text:?}: expected auto, io_uring or portable");
                Err(Error::setting("backend", reason))
            }
        }
    }
}

/// Which backend runs, and why [`Backend::Auto`] did not choose io_uring.
///
/// ```
/// # let engine = nicring::Engine::builder().port(0).nic("127.0.0.1").open()?;
/// println!("running on {}", engine.handle().backend());
/// # Ok::<(), nicring::Error>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BackendReport {
    /// The backend that runs; never [`Backend::Auto`].
    pub backend: Backend,
    /// Why [`Backend::Auto`] did not choose io_uring.
    pub unavailable: Option<Arc<Unavailable>>,
    /// How the backend is set up.
    pub setup: BackendSetup,
}

impl fmt::Display for BackendReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.unavailable {
            Some(unavailable) => write!(f, "{unavailable}; running on the portable backend"),
            None => write!(f, "{} ({})", self.backend, self.setup),
        }
    }
}

/// Opens the backend that `choice` and the environment ask for.
pub(crate) fn open(
    choice: Backend,
    settings: &BackendSettings,
) -> Result<(Box<dyn BackendDriver>, BackendReport)> {
    let portable = |unavailable: Option<Unavailable>| -> Result<_> {
        let driver = Portable::open(settings)?;
        let report = BackendReport {
            backend: Backend::Portable,
            unavailable: unavailable.map(Arc::new),
            setup: Portable::setup(),
        };
        Ok((Box::new(driver) as Box<dyn BackendDriver>, report))
    };
    match resolve(choice, std::env::var(Backend::ENVIRONMENT_VARIABLE).ok())? {
        Backend::Portable => portable(None),
        Backend::IoUring => open_io_uring(settings).map_err(Error::Unavailable),
        Backend::Auto => match open_io_uring(settings) {
            Ok(opened) => Ok(opened),
            Err(unavailable) => {
                tracing::info!(%unavailable, "running on the portable backend");
                portable(Some(unavailable))
            }
        },
    }
}

fn open_io_uring(
    settings: &BackendSettings,
) -> Result<(Box<dyn BackendDriver>, BackendReport), Unavailable> {
    let (driver, setup) = uring::open(settings)?;
    let report = BackendReport { backend: Backend::IoUring, unavailable: None, setup };
    Ok((driver, report))
}

/// What `choice` stands for in this environment.
#[allow(dead_code, reason = "for the feature udp-v4")]
pub(crate) fn resolve_here(choice: Backend) -> Result<Backend> {
    resolve(choice, std::env::var(Backend::ENVIRONMENT_VARIABLE).ok())
}

fn resolve(choice: Backend, environment: Option<String>) -> Result<Backend> {
    match (choice, environment) {
        (Backend::Auto, Some(text)) => text.parse().map_err(|error| match error {
            Error::Setting { reason, .. } => Error::setting(Backend::ENVIRONMENT_VARIABLE, reason),
            other => other,
        }),
        _ => Ok(choice),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_overrides_auto_and_nothing_else() {
        let resolve = |choice, text: &str| resolve(choice, Some(text.to_owned()));
        assert_eq!(resolve(Backend::Auto, "portable").unwrap(), Backend::Portable);
        assert_eq!(resolve(Backend::Auto, "io_uring").unwrap(), Backend::IoUring);
        assert_eq!(resolve(Backend::Auto, "").unwrap(), Backend::Auto);
        assert_eq!(resolve(Backend::IoUring, "portable").unwrap(), Backend::IoUring);
        let error = resolve(Backend::Auto, "epoll").unwrap_err();
        assert_eq!(
            error.to_string(),
            "NICRING_BACKEND: \"epoll\": expected auto, io_uring or portable"
        );
    }
}
