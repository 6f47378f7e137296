//! What was measured, for people and for machines.

use std::fmt::Write;

use nicring_bench::contestant::Contestant;
use serde_json::{Value, json};

use super::{
    Plan,
    machine::Header,
    statistics::{Ratio, median, ratio},
    turn::{Figures, Turn},
    work::Work,
};

/// Tables in Markdown, one for each work and number of NICs.
pub fn text(header: &Header, plan: &Plan, turns: &[Turn]) -> String {
    let mut text = format!(
        "{header}\nMedians of {} rounds; costs are a datagram's. CPU: all threads of the receiver. \
         Machine: both sides, without the sender's waiting. In brackets: 90 % interval.\n",
        plan.round_count
    );
    for nic_count in &plan.nics {
        for work in &plan.works {
            let _ = write!(text, "\n### {work}, {}\n\n", nics_text(*nic_count));
            append_table(&mut text, plan, turns, *work, *nic_count);
        }
    }
    text
}

fn append_table(text: &mut String, plan: &Plan, turns: &[Turn], work: Work, nic_count: u8) {
    let has_delays = work.answer_count(nic_count) == 1;
    let against = plan.against;
    let mut head = format!(
        "| contestant | CPU ns | CPU / {against}'s | machine ns | system calls | allocations | \
         per second | lost % | RSS MiB (own) |"
    );
    if has_delays {
        head += " p50 us | p99 us | p99.9 us | again |";
    }
    let column_count = head.matches('|').count() - 1;
    let _ = writeln!(text, "{head}\n|---|{}", "---:|".repeat(column_count - 1));
    for contestant in &plan.contestants {
        let figures = figures_of(turns, work, nic_count, *contestant);
        if figures.is_empty() {
            let reason = reason_of(turns, work, nic_count, *contestant);
            let _ = writeln!(text, "| {contestant} | {reason} {}", "|".repeat(column_count - 1));
            continue;
        }
        let ratio = ratio_to(turns, work, nic_count, *contestant, against);
        let _ = write!(text, "| {contestant} ");
        append_costs(text, &figures, ratio);
        if has_delays {
            append_delays(text, &figures);
        }
        text.push('\n');
    }
}

fn append_costs(text: &mut String, figures: &[&Figures], ratio: Option<Ratio>) {
    let of = |field: fn(&Figures) -> f64| median(figures.iter().map(|figures| field(figures)));
    let ratio = ratio.map_or("-".into(), |Ratio { value, low, high }| {
        format!("{value:.2} [{low:.2}, {high:.2}]")
    });
    let syscalls = median(figures.iter().filter_map(|figures| figures.syscalls));
    let syscalls = if syscalls.is_nan() { "-".into() } else { format!("{syscalls:.3}") };
    let _ = write!(
        text,
        "| {:.0} | {ratio} | {:.0} | {syscalls} | {} | {:.0} | {:.3} | {:.1} ({:.1}) |",
        of(|f| f.cpu_ns),
        of(|f| f.machine_ns),
        allocations_text(of(|f| f.allocations)),
        of(|f| f.per_second),
        100.0 * of(|f| f.loss),
        of(|f| f.rss_bytes as f64) / f64::from(1 << 20),
        of(|f| f.own_rss_bytes as f64) / f64::from(1 << 20),
    );
}

pub fn nics_text(nic_count: u8) -> String {
    format!("{nic_count} NIC{}", if nic_count == 1 { "" } else { "s" })
}

/// None and a few are told apart.
fn allocations_text(allocations: f64) -> String {
    if allocations == 0.0 { "0".into() } else { format!("{allocations:.4}") }
}

fn append_delays(text: &mut String, figures: &[&Figures]) {
    for position in 0..3 {
        let delay = median(figures.iter().filter_map(|f| f.delays_us.map(|us| us[position])));
        let _ = write!(text, " {delay:.0} |");
    }
    let _ = write!(text, " {} |", median(figures.iter().map(|f| f.duplicate_count as f64)));
}

fn turns_of(
    turns: &[Turn],
    work: Work,
    nic_count: u8,
    contestant: Contestant,
) -> impl Iterator<Item = &Turn> {
    turns.iter().filter(move |turn| {
        (turn.work, turn.nic_count, turn.contestant) == (work, nic_count, contestant)
    })
}

/// What was measured, of the turns that did not fail.
pub fn figures_of(
    turns: &[Turn],
    work: Work,
    nic_count: u8,
    contestant: Contestant,
) -> Vec<&Figures> {
    turns_of(turns, work, nic_count, contestant)
        .filter_map(|turn| turn.result.as_ref().ok())
        .collect()
}

fn reason_of(turns: &[Turn], work: Work, nic_count: u8, contestant: Contestant) -> &str {
    let mut turns = turns_of(turns, work, nic_count, contestant);
    turns.find_map(|turn| turn.result.as_ref().err()).map_or("", |reason| reason)
}

/// The receivers' CPU time, by the rounds that both were in.
fn ratio_to(
    turns: &[Turn],
    work: Work,
    nic_count: u8,
    contestant: Contestant,
    against: Contestant,
) -> Option<Ratio> {
    if contestant == against {
        return None;
    }
    let cpu_ns_in = |contestant, round| {
        let mut turns = turns_of(turns, work, nic_count, contestant);
        turns.find(|turn| turn.round == round)?.result.as_ref().ok().map(|f| f.cpu_ns)
    };
    let rounds = turns_of(turns, work, nic_count, contestant).map(|turn| turn.round);
    let pairs: Vec<(f64, f64)> =
        rounds.filter_map(|r| cpu_ns_in(contestant, r).zip(cpu_ns_in(against, r))).collect();
    ratio(&pairs)
}

/// Every turn.
pub fn json(header: &Header, turns: &[Turn]) -> Value {
    let turns: Vec<Value> = turns.iter().map(turn_json).collect();
    json!({
        "kernel": header.kernel,
        "cpu": header.cpu,
        "cpu_count": header.cpu_count,
        "date": header.date,
        "is_pinned": header.is_pinned,
        "turns": turns,
    })
}

fn turn_json(turn: &Turn) -> Value {
    let mut value = json!({
        "work": turn.work.to_string(),
        "nics": turn.nic_count,
        "contestant": turn.contestant.to_string(),
        "round": turn.round,
    });
    let rest = match &turn.result {
        Err(reason) => json!({ "failed": reason }),
        Ok(figures) => json!({
            "cpu_ns": figures.cpu_ns,
            "machine_ns": figures.machine_ns,
            "syscalls": figures.syscalls,
            "allocations": figures.allocations,
            "per_second": figures.per_second,
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
