//! criterion as all benches use it.

use std::time::Duration;

use criterion::Criterion;

/// Few and short samples, so that all benches together take two minutes: how many, and how many
/// milliseconds it warms up and measures.
pub fn quick(sample_size: usize, [warm_up_ms, measure_ms]: [u64; 2]) -> Criterion {
    Criterion::default()
        .sample_size(sample_size)
        .warm_up_time(Duration::from_millis(warm_up_ms))
        .measurement_time(Duration::from_millis(measure_ms))
        .nresamples(10_000)
        .noise_threshold(0.1)
        .without_plots()
        .configure_from_args()
}
