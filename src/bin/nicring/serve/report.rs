//! What a service did, for people and for machines.

use std::time::Duration;

use nicring::{
    Backend, Counts, Stats,
    search::{NicSearchCounts, Protocol, Reject, SearchCounts},
};
use serde_json::{Map, Value, json};

use super::answer::Answers;
use crate::cli::text::{grouped, percent, printable, short, table};

/// Everything counted, over all engines.
#[derive(Debug, Clone, Default)]
pub struct Report {
    pub elapsed: Duration,
    /// The backend that runs.
    pub backend: String,
    /// By protocol, like [`NicReport::searches`].
    pub searches: [SearchCounts; 2],
    pub nics: Vec<NicReport>,
    /// CPU time of the engines' threads; `None` where the system does not report it.
    pub cpu: Option<Duration>,
    outbox_full_count: u64,
    no_host_count: u64,
    turn_count: u64,
    overflow_count: u64,
}

/// What happened on one NIC.
#[derive(Debug, Clone)]
pub struct NicReport {
    pub name: String,
    pub index: u32,
    pub searches: [NicSearchCounts; 2],
    pub counts: Counts,
}

impl Report {
    pub fn new(elapsed: Duration, backend: Backend) -> Self {
        let backend = backend.to_string();
        Self { elapsed, backend, cpu: Some(Duration::ZERO), ..Self::default() }
    }

    /// Adds what one engine counted.
    pub fn add(&mut self, stats: &Stats, answers: &Answers) {
        for (own, other) in self.searches.iter_mut().zip(answers.counts) {
            *own += other;
        }
        for nic in &stats.nics {
            self.nic(nic.index, &nic.name).counts += nic.counts;
        }
        for searches in &answers.nics {
            // NICs that are long gone share the row of what belongs to none.
            let known = stats.nics.iter().find(|nic| Some(nic.index) == searches.nic);
            let nic = known.map_or((0, "(any)"), |nic| (nic.index, nic.name.as_str()));
            self.nic(nic.0, nic.1).searches[searches.protocol as usize] += *searches;
        }
        self.cpu = self.cpu.zip(answers.cpu).map(|(own, other)| own + other);
        self.outbox_full_count += stats.outbox_full_count;
        self.no_host_count += stats.no_host_count;
        self.turn_count += stats.turn_count;
        self.overflow_count += stats.overflow_count;
    }

    fn nic(&mut self, index: u32, name: &str) -> &mut NicReport {
        let position = self.nics.iter().position(|nic| nic.index == index).unwrap_or_else(|| {
            let searches =
                Protocol::ALL.map(|protocol| NicSearchCounts::new(Some(index), protocol));
            let (name, counts) = (name.to_owned(), Counts::default());
            self.nics.push(NicReport { name, index, searches, counts });
            self.nics.len() - 1
        });
        &mut self.nics[position]
    }

    /// The counts of both protocols together.
    pub fn searched(&self) -> SearchCounts {
        let [mut total, pva] = self.searches;
        total += pva;
        total
    }

    pub fn received_count(&self) -> u64 {
        self.nics.iter().map(|nic| nic.counts.received_count()).sum()
    }

    /// How many datagrams the kernel dropped before they were received; `None` where it does not
    /// count them.
    pub fn lost_count(&self) -> Option<u64> {
        self.nics.iter().map(|nic| nic.counts.kernel_drop_count()).sum()
    }

    /// How many replies were not sent.
    fn unsent_count(&self) -> u64 {
        let unsent = |nic: &NicReport| nic.counts.would_block_count + nic.counts.send_error_count;
        self.outbox_full_count + self.nics.iter().map(unsent).sum::<u64>()
    }

    fn rejected_count(&self) -> u64 {
        let total = self.searched();
        Reject::ALL.iter().map(|reject| total.rejected(*reject)).sum()
    }

    fn cpu_per(&self, count: u64) -> Option<Duration> {
        let cpu = self.cpu?;
        (count > 0).then(|| Duration::from_nanos((cpu.as_nanos() / u128::from(count)) as u64))
    }

    /// One line about what happened since `before`.
    pub fn live_line(&self, before: &Self) -> String {
        let seconds = self.elapsed.saturating_sub(before.elapsed).as_secs_f64().max(1e-3);
        let rate = |now: u64, before: u64| {
            grouped((now.saturating_sub(before) as f64 / seconds).round() as u64)
        };
        let (now, past) = (self.searched(), before.searched());
        let searched = now.name_count.saturating_sub(past.name_count);
        // At the first report, no thread has published its CPU time yet.
        let past_cpu = before.cpu.unwrap_or_default();
        let cpu = self.cpu.filter(|_| searched > 0).map_or_else(
            || "-".to_owned(),
            |cpu| short(cpu.saturating_sub(past_cpu).div_f64(searched as f64)),
        );
        let nics = self.nics.iter().filter(|nic| nic.counts.received_count() > 0).map(|nic| {
            let past = before.nics.iter().find(|past| past.index == nic.index);
            let past = past.map_or(0, |past| past.counts.received_count());
            format!("{} {}/s", printable(&nic.name), rate(nic.counts.received_count(), past))
        });
        let nics = nics.collect::<Vec<_>>();
        let lost = self.lost_count().zip(before.lost_count());
        let lost = lost.map(|(now, past)| now.saturating_sub(past));
        format!(
            "{:>4.0} s  searches {}/s  answered {}/s  lost {}  CPU {cpu} per search  datagrams: {}",
            self.elapsed.as_secs_f64(),
            rate(now.name_count, past.name_count),
            rate(now.hit_count, past.hit_count),
            lost.map_or_else(|| "unknown".to_owned(), grouped),
            if nics.is_empty() { "none".to_owned() } else { nics.join(", ") },
        )
    }

    /// The totals as tables.
    pub fn text(&self) -> String {
        let heads = ["NIC", "protocol", "datagrams", "searches", "answered", "no such name"];
        let mut rows = vec![heads.map(str::to_owned).to_vec()];
        let row = |name: &str, protocol: &str, counts: [u64; 3]| {
            let [_, name_count, hit_count] = counts;
            let missed = name_count.saturating_sub(hit_count);
            let names = [name, protocol].map(str::to_owned).into_iter();
            names.chain(counts.map(grouped)).chain([grouped(missed)]).collect::<Vec<_>>()
        };
        let mut total = [0; 3];
        for nic in &self.nics {
            for one in nic.searches.iter().filter(|one| one.datagram_count > 0) {
                let counts = [one.datagram_count, one.name_count, one.hit_count];
                rows.push(row(&printable(&nic.name), one.protocol.name(), counts));
                total.iter_mut().zip(counts).for_each(|(total, count)| *total += count);
            }
        }
        rows.push(row("all", "both", total));
        format!("{}\n{}", table(&rows), self.summary())
    }

    fn summary(&self) -> String {
        let (total, received) = (self.searched(), self.received_count());
        let per = |count| self.cpu_per(count).map_or_else(|| "-".to_owned(), short);
        let lost: Vec<_> = self
            .nics
            .iter()
            .filter_map(|nic| {
                Some((printable(&nic.name), nic.counts.kernel_drop_count().filter(|n| *n > 0)?))
            })
            .map(|(name, count)| format!("{name} {}", grouped(count)))
            .collect();
        let lost_where =
            if lost.is_empty() { String::new() } else { format!(": {}", lost.join(", ")) };
        let lost = self.lost_count().map_or_else(
            || "unknown".to_owned(),
            |lost| format!("{} ({}){lost_where}", grouped(lost), percent(lost, received + lost)),
        );
        let lines = [
            format!(
                "in {}: {} datagrams received, {} replies sent, {} not sent",
                short(self.elapsed),
                grouped(received),
                grouped(self.nics.iter().map(|nic| nic.counts.sent_count).sum()),
                grouped(self.unsent_count()),
            ),
            format!("lost in full receive buffers: {lost}"),
            format!(
                "CPU of the server: {}; {} per search, {} per datagram",
                self.cpu.map_or_else(|| "unknown".to_owned(), short),
                per(total.name_count),
                per(received),
            ),
        ];
        let remarks = [
            ("refused as malformed", self.rejected_count()),
            ("from ignored sources", total.ignored_count),
            ("asking for a sign of life only", total.ping_count),
            (
                "not sent, no room (--send-buffer-bytes, net.core.wmem_max)",
                self.nics.iter().map(|nic| nic.counts.would_block_count).sum(),
            ),
            ("not sent, to an address of more than one host", self.no_host_count),
        ];
        let remarks = remarks.into_iter().chain(self.set_aside());
        let remarks = remarks.filter(|(_, count)| *count > 0);
        let remarks = remarks.map(|(what, count)| format!("{what}: {}", grouped(count)));
        lines.into_iter().chain(remarks).collect::<Vec<_>>().join("\n")
    }

    /// What the kernel delivered and nobody looked at, by reason.
    fn set_aside(&self) -> [(&'static str, u64); 5] {
        let sum = |count: fn(&Counts) -> u64| self.nics.iter().map(|nic| count(&nic.counts)).sum();
        [
            (
                "set aside, from a source that cannot be answered",
                sum(|counts| counts.guarded_count),
            ),
            ("set aside, at a NIC or address not chosen", sum(|counts| counts.unchosen_count)),
            ("set aside, further copies of a broadcast", sum(|counts| counts.copy_count)),
            ("set aside, still queued when a socket closed", sum(|counts| counts.left_count)),
            ("cut off, longer than a buffer", sum(|counts| counts.truncated_count)),
        ]
    }

    /// The totals as a JSON object.
    pub fn json(&self) -> Value {
        let (total, received) = (self.searched(), self.received_count());
        let ns = |time: Option<Duration>| time.map(|time| time.as_nanos() as u64);
        let nics = self.nics.iter().map(|nic| {
            let mut object = counts_object(nic.counts.iter());
            object.insert("name".to_owned(), json!(nic.name));
            object.insert("index".to_owned(), json!(nic.index));
            for one in &nic.searches {
                let counts = json!({
                    "datagram_count": one.datagram_count,
                    "name_count": one.name_count,
                    "hit_count": one.hit_count,
                });
                object.insert(one.protocol.to_string(), counts);
            }
            Value::Object(object)
        });
        let [guarded, unchosen, copies, left, _] = self.set_aside().map(|(_, count)| count);
        let mut object = json!({
            "elapsed_s": self.elapsed.as_secs_f64(),
            "backend": self.backend,
            "received_count": received,
            "searched_count": total.name_count,
            "answered_count": total.hit_count,
            "rejected_count": self.rejected_count(),
            "lost_count": self.lost_count(),
            "unsent_count": self.unsent_count(),
            "no_host_count": self.no_host_count,
            "guarded_count": guarded,
            "unchosen_count": unchosen,
            "copy_count": copies,
            "left_count": left,
            "turn_count": self.turn_count,
            "overflow_count": self.overflow_count,
            "cpu_ns": ns(self.cpu),
            "cpu_ns_per_search": ns(self.cpu_per(total.name_count)),
            "cpu_ns_per_datagram": ns(self.cpu_per(received)),
            "nics": nics.collect::<Vec<_>>(),
        });
        for (protocol, counts) in Protocol::ALL.iter().zip(&self.searches) {
            object[protocol.name()] = Value::Object(counts_object(counts.iter()));
        }
        object
    }
}

fn counts_object(counts: impl Iterator<Item = (&'static str, u64)>) -> Map<String, Value> {
    counts.map(|(name, count)| (name.to_owned(), json!(count))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_set_aside_is_in_the_totals_by_reason() {
        let mut report = Report::new(Duration::from_secs(1), Backend::Portable);
        let counts = &mut report.nic(1, "lo").counts;
        (counts.guarded_count, counts.unchosen_count) = (1, 2);
        (counts.copy_count, counts.left_count) = (3, 4);
        let text = report.text();
        for line in [
            "set aside, from a source that cannot be answered: 1",
            "set aside, at a NIC or address not chosen: 2",
            "set aside, further copies of a broadcast: 3",
            "set aside, still queued when a socket closed: 4",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        let json = report.json();
        assert_eq!((&json["copy_count"], &json["left_count"]), (&json!(3), &json!(4)));
    }

    #[test]
    fn two_engines_on_one_nic_are_one_row_and_cpu_is_divided() {
        let mut on_nic = NicSearchCounts::new(Some(1), Protocol::Ca);
        (on_nic.datagram_count, on_nic.name_count, on_nic.hit_count) = (2, 4, 3);
        let counts = SearchCounts::default();
        let mut answers = Answers { counts: [counts; 2], ..Answers::default() };
        answers.counts[0].name_count = 4;
        answers.nics.push(on_nic);
        answers.cpu = Some(Duration::from_nanos(800));
        let mut report = Report::new(Duration::from_secs(1), Backend::Portable);
        report.add(&Stats::default(), &answers);
        report.add(&Stats::default(), &answers);
        assert_eq!(report.nics.len(), 1);
        assert_eq!(report.json()["nics"][0]["ca"]["hit_count"], 6);
        assert_eq!(report.json()["cpu_ns_per_search"], 200);
        let text = report.text();
        let all = text.lines().find(|line| line.starts_with("all")).expect("a row of sums");
        assert_eq!(all.split_whitespace().collect::<Vec<_>>(), ["all", "both", "4", "8", "6", "2"]);
    }
}
