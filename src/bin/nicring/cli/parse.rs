//! Values of options.

use std::{str::FromStr, thread, time::Duration};

use nicring::Error;

/// Parses a setting of the library. The error omits the setting's name, because clap names the
/// option.
pub fn setting<T: FromStr<Err = Error>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error| match error {
        Error::Setting { reason, .. } => reason,
        other => other.to_string(),
    })
}

/// Parses a time with its unit: `1ms`, `500us`, `0.5ms`, `0`.
pub fn delay(text: &str) -> Result<Duration, String> {
    let digits_len = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic()).len();
    let (number, unit) = text.split_at(digits_len);
    let second_parts = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "" if number == "0" => 1.0,
        _ => f64::NAN,
    };
    let time = number.parse::<f64>().ok().map(|number| number * second_parts);
    time.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| "expected a time with its unit, such as 1ms or 500us, or 0".to_owned())
}

/// Parses a number of shards: 1 to 64, or `auto`. The kernel's part of receiving takes about as
/// much time as the program's, so auto leaves it half of the processors.
pub fn shards(text: &str) -> Result<usize, String> {
    let half = || thread::available_parallelism().map_or(1, |all| (all.get() / 2).clamp(1, 64));
    let count = if text == "auto" { Some(half()) } else { text.parse().ok() };
    count
        .filter(|count| (1..=64).contains(count))
        .ok_or_else(|| "expected a number of 1 to 64, or auto".to_owned())
}

/// Parses a time in seconds, of at least one millisecond.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let time = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    time.filter(|time| *time >= Duration::from_millis(1) && time.as_secs() < 1 << 32)
        .ok_or_else(|| "expected a number of seconds above 0".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_counted_or_left_to_the_processors() {
        assert_eq!((shards("1"), shards("64")), (Ok(1), Ok(64)));
        assert!(shards("auto").is_ok_and(|count| count >= 1));
        for text in ["", "0", "65", "-1", "two", "Auto"] {
            assert!(shards(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_delay_has_a_unit_unless_it_is_none() {
        for (text, us) in [("1ms", 1_000), ("0.5ms", 500), ("500us", 500), ("2s", 2_000_000)] {
            assert_eq!(delay(text), Ok(Duration::from_micros(us)), "{text}");
        }
        assert_eq!((delay("0"), delay("0ms")), (Ok(Duration::ZERO), Ok(Duration::ZERO)));
        for text in ["", "1", "ms", "-1ms", "1h", "1 ms ", "infs", "nanms", "1e300s"] {
            assert!(delay(text).is_err(), "{text}");
        }
    }
}
