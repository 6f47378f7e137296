//! How costs grow with the number of NICs at the same total rate.

use std::fmt::Write;

use nicring_bench::{
    contestant::Contestant,
    statistics::{Ratio, ratio},
};

use super::{
    round::{Figures, Measurement},
    schedule::{Row, Schedule},
    table::{figures_in_round, nics_text},
};

/// One Markdown table for each work that was measured with more than one number of NICs.
pub fn text(schedule: &Schedule, measurements: &[Measurement]) -> String {
    let mut text = String::new();
    for (position, base) in schedule.rows.iter().enumerate() {
        let is_same = |row: &&Row| row.work == base.work;
        let is_first = !schedule.rows[..position].iter().any(|row| is_same(&row));
        let others: Vec<&Row> = schedule.rows[position + 1..].iter().filter(is_same).collect();
        if base.work.has_fixed_rate() && is_first && !others.is_empty() {
            append_table(&mut text, base, &others, measurements);
        }
    }
    text
}

fn append_table(text: &mut String, base: &Row, others: &[&Row], measurements: &[Measurement]) {
    let base_nics = nics_text(base.nic_count);
    let _ = writeln!(text, "\n### {}: more NICs against {base_nics}\n\n| contestant |", base.work);
    text.truncate(text.len() - 1);
    for row in others {
        let nics = nics_text(row.nic_count);
        let _ = write!(text, " {nics}: CPU | {nics}: machine |");
    }
    let _ = writeln!(text, "\n|---|{}", "---:|".repeat(2 * others.len()));
    for contestant in &base.contestants {
        let _ = write!(text, "| {} |", contestant.title());
        for row in others {
            for cost in [|f: &Figures| f.cpu_ns, |f: &Figures| f.machine_ns] {
                let ratio = growth(measurements, base, row, *contestant, cost);
                let ratio = ratio.map_or("-".into(), |ratio| ratio.to_string());
                let _ = write!(text, " {ratio} |");
            }
        }
        text.push('\n');
    }
}

fn growth(
    measurements: &[Measurement],
    base: &Row,
    row: &Row,
    contestant: Contestant,
    cost: fn(&Figures) -> f64,
) -> Option<Ratio> {
    let pairs = measurements.iter().filter_map(|measurement| {
        let more = figures_in_round(measurements, row, contestant, measurement.round)?;
        let less = figures_in_round(measurements, base, contestant, measurement.round)?;
        let is_base = (measurement.work, measurement.nic_count, measurement.contestant)
            == (base.work, base.nic_count, contestant);
        is_base.then(|| (cost(more), cost(less)))
    });
    ratio(&pairs.collect::<Vec<_>>())
}
