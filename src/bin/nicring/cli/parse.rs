//! Values of options.

use std::{str::FromStr, time::Duration};

use nicring::Error;

/// A setting of the library, without its name in the error: the option has one of its own.
pub fn setting<T: FromStr<Err = Error>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error| match error {
        Error::Setting { reason, .. } => reason,
        other => other.to_string(),
    })
}

/// A time of at least a millisecond, in seconds.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let time = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    time.filter(|time| *time >= Duration::from_millis(1) && time.as_secs() < 1 << 32)
        .ok_or_else(|| "expected a number of seconds above 0".to_owned())
}
