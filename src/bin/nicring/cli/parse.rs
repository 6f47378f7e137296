//! Values of options.

use std::{str::FromStr, time::Duration};

use nicring::Error;

/// Parses a setting of the library. The error omits the setting's name, because clap names the
/// option.
pub fn setting<T: FromStr<Err = Error>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error| match error {
        Error::Setting { reason, .. } => reason,
        other => other.to_string(),
    })
}

/// Parses a time in seconds, of at least one millisecond.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let time = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    time.filter(|time| *time >= Duration::from_millis(1) && time.as_secs() < 1 << 32)
        .ok_or_else(|| "expected a number of seconds above 0".to_owned())
}
