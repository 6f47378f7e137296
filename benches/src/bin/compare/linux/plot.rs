//! Draws the receivers' CPU time as bars, in an SVG that is legible on light and dark pages.

use std::fmt::Write;

use nicring_bench::statistics::{grouped, median};

use super::{
    machine::Header,
    round::Measurement,
    schedule::Schedule,
    table::{figures_of, nics_text},
};

const WIDTH: f64 = 760.0;
const NAME_WIDTH: f64 = 170.0;
const VALUE_WIDTH: f64 = 90.0;
const BAR_HEIGHT: f64 = 14.0;
const ROW_HEIGHT: f64 = 19.0;
const HEAD_HEIGHT: f64 = 64.0;
const GROUP_GAP: f64 = 42.0;
/// Neither black nor white: the page may be light or dark.
const INK: &str = "#7d8590";
const OURS: &str = "#2f81f7";
const THEIRS: &str = "#929aa3";

/// One work with one number of NICs.
struct Group {
    title: String,
    bars: Vec<(String, f64)>,
}

pub fn draw(header: &Header, schedule: &Schedule, measurements: &[Measurement]) -> String {
    let groups = groups(schedule, measurements);
    let row_count: usize = groups.iter().map(|group| group.bars.len()).sum();
    let height = HEAD_HEIGHT + groups.len() as f64 * GROUP_GAP + row_count as f64 * ROW_HEIGHT;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" font-family=\"system-ui, sans-serif\" \
         font-size=\"12\" fill=\"{INK}\">\n\
         <text x=\"8\" y=\"24\" font-size=\"15\" font-weight=\"600\">CPU time of the receiver, ns \
         (less is better)</text>\n<text x=\"8\" y=\"44\">{}</text>\n",
        escape(&header.to_string())
    );
    let mut top = HEAD_HEIGHT;
    for group in &groups {
        top += draw_group(&mut svg, group, top);
    }
    svg + "</svg>\n"
}

fn groups(schedule: &Schedule, measurements: &[Measurement]) -> Vec<Group> {
    let mut groups = Vec::new();
    for row in &schedule.rows {
        let mut bars = Vec::new();
        for contestant in &row.contestants {
            let figures = figures_of(measurements, row, *contestant);
            if !figures.is_empty() {
                let cpu_ns = median(figures.iter().map(|figures| figures.cpu_ns));
                bars.push((contestant.title(), cpu_ns));
            }
        }
        groups.push(Group {
            title: format!("{}, {}, per {}", row.work, nics_text(row.nic_count), row.work.unit()),
            bars,
        });
    }
    groups
}

/// Draws a group and returns its height. A bar beyond 2.5 times the median is cut and marked.
fn draw_group(svg: &mut String, group: &Group, top: f64) -> f64 {
    let _ = writeln!(
        svg,
        "<text x=\"8\" y=\"{:.0}\" font-weight=\"600\">{}</text>",
        top + 18.0,
        escape(&group.title)
    );
    let limit = 2.5 * median(group.bars.iter().map(|bar| bar.1));
    let longest = group.bars.iter().map(|bar| bar.1.min(limit)).fold(1.0, f64::max);
    let room = WIDTH - NAME_WIDTH - VALUE_WIDTH;
    for (row, (name, value)) in group.bars.iter().enumerate() {
        let y = top + 28.0 + row as f64 * ROW_HEIGHT;
        let width = room * value.min(limit) / longest;
        let is_ours = ["nicring", "recv_batch", "udp-v4"].iter().any(|ours| name.starts_with(ours));
        let _ = writeln!(
            svg,
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{NAME_WIDTH}\" y=\"{y:.0}\" width=\"{width:.1}\" height=\"{BAR_HEIGHT}\" \
             rx=\"2\" fill=\"{}\"/>",
            NAME_WIDTH - 8.0,
            y + 11.0,
            escape(name),
            if is_ours { OURS } else { THEIRS }
        );
        if *value > limit {
            let x = NAME_WIDTH + width - 24.0;
            let _ = writeln!(
                svg,
                "<path d=\"M{x:.1} {:.1}l8 -18m4 0l-8 18\" stroke=\"{INK}\" stroke-width=\"2\" \
                 fill=\"none\"/>",
                y + 16.0
            );
        }
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.0}\">{}</text>",
            NAME_WIDTH + width + 6.0,
            y + 11.0,
            grouped(*value)
        );
    }
    GROUP_GAP + group.bars.len() as f64 * ROW_HEIGHT
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
