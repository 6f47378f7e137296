//! Prints what was measured, for people and for machines.

use std::fmt::Write;

use nicring_bench::{
    contestant::Contestant,
    statistics::{self, median},
};
use serde_json::{Value, json};

use super::{
    machine::Header,
    round::{Figures, Measurement},
    schedule::{Row, Schedule},
};

/// Markdown tables, one per work and number of NICs.
pub fn text(header: &Header, schedule: &Schedule, measurements: &[Measurement]) -> String {
    let mut text = format!(
        "{header}\nMedians of {} rounds. CPU: all threads of the receiver. Machine: both sides, \
         without the sender's waiting. In brackets: 90 % interval.\n",
        schedule.round_count
    );
    for row in &schedule.rows {
        let _ = write!(text, "\n### {}, {}\n\n", row.work, nics_text(row.nic_count));
        append_table(&mut text, row, measurements);
    }
    text
}

fn append_table(text: &mut String, row: &Row, measurements: &[Measurement]) {
    let has_delays = row.work.has_delays(row.nic_count);
    let (against, unit) = (row.against.title(), row.work.unit());
    let mut head = format!(
        "| contestant | CPU ns per {unit} | CPU / {against}'s | machine ns per {unit} | \
         machine / {against}'s | system calls per {unit} | allocations per {unit} | \
         {unit}s per second | lost % | RSS MiB (own) |"
    );
    if has_delays {
        let _ = write!(head, " p50 us | p50 / {against}'s | p99 us | p99.9 us | again |");
    }
    let is_served_in_loop = row.work.is_for_servers() && row.work.is_closed_loop();
    if is_served_in_loop {
        let _ = write!(head, " answers per second | / {against}'s |");
    }
    if row.work.is_for_servers() {
        let _ = write!(head, " server busy % | client busy % |");
    }
    let column_count = head.matches('|').count() - 1;
    let _ = writeln!(text, "{head}\n|---|{}", "---:|".repeat(column_count - 1));
    for contestant in &row.contestants {
        let (title, figures) = (contestant.title(), figures_of(measurements, row, *contestant));
        if figures.is_empty() {
            let reason = reason_of(measurements, row, *contestant);
            let _ = writeln!(text, "| {title} | {reason} {}", "|".repeat(column_count - 1));
            continue;
        }
        let ratio = |of| ratio_text(measurements, row, *contestant, of);
        let _ = write!(text, "| {title} ");
        let ratios = [ratio(|f| Some(f.cpu_ns)), ratio(|f| Some(f.machine_ns))];
        append_costs(text, &figures, &ratios);
        if has_delays {
            append_delays(text, &figures, &ratio(|f| f.delays_us.map(|us| us[0])));
        }
        if is_served_in_loop {
            let answers_per_second = median(figures.iter().map(|f| f.answers_per_second));
            let ratio = ratio(|f| Some(f.answers_per_second));
            let _ = write!(text, " {answers_per_second:.0} | {ratio} |");
        }
        if row.work.is_for_servers() {
            append_busy(text, &figures);
        }
        text.push('\n');
    }
}

const MIB: f64 = (1 << 20) as f64;

fn append_costs(text: &mut String, figures: &[&Figures], [ratio, machine_ratio]: &[String; 2]) {
    let of = |field: fn(&Figures) -> f64| median(figures.iter().map(|figures| field(figures)));
    let syscalls = median(figures.iter().filter_map(|figures| figures.syscalls));
    let syscalls = if syscalls.is_nan() { "-".into() } else { format!("{syscalls:.3}") };
    let own_bytes = figures.iter().filter_map(|f| f.own_rss_bytes);
    let own_mib = median(own_bytes.map(|bytes| bytes as f64 / MIB));
    let _ = write!(
        text,
        "| {:.0} | {ratio} | {:.0} | {machine_ratio} | {syscalls} | {} | {:.0} | {:.3} | \
         {:.1} ({}) |",
        of(|f| f.cpu_ns),
        of(|f| f.machine_ns),
        allocations_text(median(figures.iter().filter_map(|f| f.allocations))),
        of(|f| f.per_second),
        100.0 * of(|f| f.loss),
        of(|f| f.rss_bytes as f64 / MIB),
        if own_mib.is_nan() { "-".into() } else { format!("{own_mib:.1}") },
    );
}

pub fn nics_text(nic_count: u8) -> String {
    format!("{nic_count} NIC{}", if nic_count == 1 { "" } else { "s" })
}

/// Distinguishes none (`0`), a few, and not counted (`-`).
fn allocations_text(allocations: f64) -> String {
    match allocations {
        0.0 => "0".into(),
        _ if allocations.is_nan() => "-".into(),
        _ => format!("{allocations:.4}"),
    }
}

/// The tails have their intervals: only these show whether two tails differ.
fn append_delays(text: &mut String, figures: &[&Figures], ratio: &str) {
    let us_at = |position: usize| {
        figures.iter().filter_map(move |f| f.delays_us.map(|us| us[position])).collect::<Vec<_>>()
    };
    let _ = write!(text, " {:.0} | {ratio} |", median(us_at(0)));
    for position in [1, 2] {
        let delays = us_at(position).into_iter().map(|us| (us, 1.0));
        let delay = statistics::ratio(&delays.collect::<Vec<_>>());
        let delay = delay.map_or("-".into(), |delay| format!("{delay:.0}"));
        let _ = write!(text, " {delay} |");
    }
    let _ = write!(text, " {} |", median(figures.iter().map(|f| f.duplicate_count as f64)));
}

/// How busy a server and its client were.
fn append_busy(text: &mut String, figures: &[&Figures]) {
    let server_busy = median(figures.iter().map(|f| f.cpu_ns * f.per_second / 1e9));
    let client_busy = median(figures.iter().map(|f| f.client_busy));
    let [server_busy, client_busy] = [server_busy, client_busy].map(|share| 100.0 * share);
    let _ = write!(text, " {server_busy:.0} | {client_busy:.0} |");
}

fn measurements_of<'a>(
    measurements: &'a [Measurement],
    row: &Row,
    contestant: Contestant,
) -> impl Iterator<Item = &'a Measurement> {
    let wanted = (row.work, row.nic_count, contestant);
    measurements.iter().filter(move |measurement| {
        (measurement.work, measurement.nic_count, measurement.contestant) == wanted
    })
}

/// The figures of the measurements that did not fail.
pub fn figures_of<'a>(
    measurements: &'a [Measurement],
    row: &Row,
    contestant: Contestant,
) -> Vec<&'a Figures> {
    measurements_of(measurements, row, contestant)
        .filter_map(|measurement| measurement.result.as_ref().ok())
        .collect()
}

/// The figures of one round, unless its measurement failed.
pub fn figures_in_round<'a>(
    measurements: &'a [Measurement],
    row: &Row,
    contestant: Contestant,
    round: u32,
) -> Option<&'a Figures> {
    measurements_of(measurements, row, contestant)
        .find(|measurement| measurement.round == round)?
        .result
        .as_ref()
        .ok()
}

fn reason_of<'a>(measurements: &'a [Measurement], row: &Row, contestant: Contestant) -> &'a str {
    let mut measurements = measurements_of(measurements, row, contestant);
    measurements
        .find_map(|measurement| measurement.result.as_ref().err())
        .map_or("", |reason| reason)
}

/// The ratio of a contestant's figure to that of the one it is compared with, over the rounds that
/// both have.
fn ratio_text(
    measurements: &[Measurement],
    row: &Row,
    contestant: Contestant,
    of: fn(&Figures) -> Option<f64>,
) -> String {
    let in_round = |contestant, round| of(figures_in_round(measurements, row, contestant, round)?);
    let rounds =
        measurements_of(measurements, row, contestant).map(|measurement| measurement.round);
    let pairs: Vec<(f64, f64)> =
        rounds.filter_map(|r| in_round(contestant, r).zip(in_round(row.against, r))).collect();
    match statistics::ratio(&pairs) {
        Some(ratio) if contestant != row.against => format!("{ratio:.2}"),
        _ => "-".into(),
    }
}

/// Every measurement as JSON.
pub fn json(header: &Header, measurements: &[Measurement]) -> Value {
    let measurements: Vec<Value> = measurements.iter().map(json_of).collect();
    json!({
        "kernel": header.kernel,
        "cpu": header.cpu,
        "cpu_count": header.cpu_count,
        "date": header.date,
        "is_pinned": header.is_pinned,
        "measurements": measurements,
    })
}

fn json_of(measurement: &Measurement) -> Value {
    let mut value = json!({
        "work": measurement.work.to_string(),
        "unit": measurement.work.unit(),
        "nics": measurement.nic_count,
        "contestant": measurement.contestant.to_string(),
        "round": measurement.round,
    });
    let rest = match &measurement.result {
        Err(reason) => json!({ "failed": reason }),
        Ok(figures) => json!({
            "cpu_ns": figures.cpu_ns,
            "machine_ns": figures.machine_ns,
            "syscalls": figures.syscalls,
            "allocations": figures.allocations,
            "per_second": figures.per_second,
            "answers_per_second": figures.answers_per_second,
            "client_busy": figures.client_busy,
            "loss": figures.loss,
            "duplicates": figures.duplicate_count,
            "rss_bytes": figures.rss_bytes,
            "own_rss_bytes": figures.own_rss_bytes,
            "delay_us": figures.delays_us.map(|[p50, p99, p99_9]| {
                json!({ "p50": p50, "p99": p99, "p99_9": p99_9 })
            }),
        }),
    };
    if let (Value::Object(value), Value::Object(rest)) = (&mut value, rest) {
        value.extend(rest);
    }
    value
}
