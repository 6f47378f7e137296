//! Counts as metrics of OpenMetrics 1.0, through the crate [`prometheus_client`].
//!
//! Names, units and labels are chosen here. Escaping, the order of families and the end of the text
//! are that crate's. Text by hand would take fewer crates, but would not stand in a program's own
//! registry, among its own metrics.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};

use crate::{
    datagram::Class,
    engine::Handle,
    stats::{Counts, NicStats, Stats},
};

/// What the engine has counted, at each scrape.
///
/// The names are those of [`Stats`] and [`Counts`], without `_count` and after `nicring_`. Counts
/// of a NIC have the labels `nic` and `index`; the datagrams received have a `class` too, as
/// [`Class::name`]:
///
/// ```text
/// nicring_received_total{nic="eth0",index="2",class="subnet"} 5
/// nicring_received_bytes_total{nic="eth0",index="2"} 200
/// nicring_lent 3
/// ```
///
/// They stand among the program's own metrics, with what prefix and labels its registry gives them.
/// Several engines in one registry need a prefix each
/// ([`Registry::sub_registry_with_prefix`][prefix]), because OpenMetrics allows a name once.
///
/// [prefix]: https://docs.rs/prometheus-client/0.26/prometheus_client/registry/struct.Registry.html
///
/// ```
/// use prometheus_client::{encoding::text, registry::Registry};
///
/// # let engine = nicring::Engine::builder().port(0).nic("127.0.0.1").open()?;
/// let mut registry = Registry::default();
/// registry.register_collector(Box::new(engine.handle()));
///
/// let mut answer = String::new(); // of an HTTP server to GET /metrics
/// text::encode(&mut answer, &registry)?;
/// assert!(answer.contains("# TYPE nicring_sent counter\n"));
/// assert!(answer.ends_with("# EOF\n")); // `encode_registry` writes it without the end
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl Collector for Handle {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.stats().encode(encoder)
    }
}

/// As for [`Handle`], of this one snapshot.
impl Collector for Stats {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // Each field is named, so that none is forgotten.
        let Self {
            nics,
            outbox_full_count,
            no_host_count,
            stopped_count,
            lease_wait_count,
            lent_count,
            lent_peak_count,
            posted_count,
            posted_peak_count,
            turn_count,
            overflow_count,
        } = self;
        encode_nics(nics, &mut encoder)?;
        for (name, help, value) in [
            ("outbox_full", "Datagrams refused because the outbox was full", outbox_full_count),
            ("no_host", "Answers refused because they were for no host", no_host_count),
            ("stopped", "Datagrams refused because the engine was told to stop", stopped_count),
            ("lease_wait", "Times that there was no batch to receive into", lease_wait_count),
            ("turn", "Turns of the engine's loop", turn_count),
            ("overflow", "Overflows of the completion queue", overflow_count),
        ] {
            let (name, counter) = (format!("nicring_{name}"), ConstCounter::new(*value));
            counter.encode(encoder.encode_descriptor(&name, help, None, MetricType::Counter)?)?;
        }
        for (name, help, value) in [
            ("lent", "Batches that tasks keep", lent_count),
            ("lent_peak", "The most batches that tasks have kept at once", lent_peak_count),
            ("posted", "Datagrams of handles that wait for the engine's thread", posted_count),
            ("posted_peak", "The most of them that have waited at once", posted_peak_count),
        ] {
            let (name, gauge) = (format!("nicring_{name}"), ConstGauge::new(*value));
            gauge.encode(encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?)?;
        }
        Ok(())
    }
}

/// Each metric stands once, with the values of all NICs.
fn encode_nics(nics: &[NicStats], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let (name, help) = ("nicring_received", "Datagrams received");
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for nic in nics {
        let index = nic.index.to_string();
        for class in Class::ALL {
            let labels = [("nic", nic.name.as_str()), ("index", &index), ("class", class.name())];
            let counter = ConstCounter::new(nic.counts.received_in(class));
            counter.encode(metric.encode_family(&labels)?)?;
        }
    }
    for count in Counts::others() {
        let (name, unit) = match count.name.strip_suffix("_bytes") {
            Some(name) => (name, Some(&Unit::Bytes)),
            None => (count.name.trim_end_matches("_count"), None),
        };
        let (name, help) = (format!("nicring_{name}"), first_sentence(count.about));
        let mut metric = encoder.encode_descriptor(&name, help, unit, MetricType::Counter)?;
        for nic in nics {
            let index = nic.index.to_string();
            let labels = [("nic", nic.name.as_str()), ("index", &index)];
            let Some(value) = nic.counts.value(count) else { continue };
            ConstCounter::new(value).encode(metric.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

/// What a documentation says first, without the full stop.
fn first_sentence(about: &str) -> &str {
    let about = about.trim();
    let end = about.find(". ").unwrap_or(about.len());
    about[..end].trim_end_matches('.')
}

#[cfg(test)]
mod tests {
    use prometheus_client::{encoding::text, registry::Registry};

    use super::*;
    use crate::stats::{StatsTable, add};

    fn text_of(stats: Stats) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(stats));
        let mut text = String::new();
        text::encode(&mut text, &registry).expect("a string takes all");
        text
    }

    #[test]
    fn a_metric_stands_once_with_the_values_of_all_nics() {
        let table = StatsTable::default();
        for (index, name) in [(1, "lo"), (2, "eth0"), (7, "eth0")] {
            let nic = table.nic(index, name);
            add(&nic.received_by_class[Class::Subnet as usize], index.into());
            add(&nic.received_bytes, 40);
        }
        table.note_lent();
        let text = text_of(table.snapshot());
        let start = r#"# HELP nicring_received Datagrams received
# TYPE nicring_received counter
nicring_received_total{nic="lo",index="1",class="unicast"} 0
nicring_received_total{nic="lo",index="1",class="subnet"} 1
nicring_received_total{nic="lo",index="1",class="limited"} 0
nicring_received_total{nic="lo",index="1",class="group"} 0
nicring_received_total{nic="eth0",index="2",class="unicast"} 0
nicring_received_total{nic="eth0",index="2",class="subnet"} 2
nicring_received_total{nic="eth0",index="2",class="limited"} 0
nicring_received_total{nic="eth0",index="2",class="group"} 0
nicring_received_total{nic="eth0",index="7",class="unicast"} 0
nicring_received_total{nic="eth0",index="7",class="subnet"} 7
nicring_received_total{nic="eth0",index="7",class="limited"} 0
nicring_received_total{nic="eth0",index="7",class="group"} 0
# HELP nicring_received_bytes Payload bytes received
# TYPE nicring_received_bytes counter
# UNIT nicring_received_bytes bytes
nicring_received_bytes_total{nic="lo",index="1"} 40
nicring_received_bytes_total{nic="eth0",index="2"} 40
nicring_received_bytes_total{nic="eth0",index="7"} 40
# HELP nicring_truncated Datagrams that were longer than a buffer
# TYPE nicring_truncated counter
nicring_truncated_total{nic="lo",index="1"} 0
"#;
        assert!(text.starts_with(start), "{text}");
        let end = "# HELP nicring_lent Batches that tasks keep
# TYPE nicring_lent gauge
nicring_lent 1
# HELP nicring_lent_peak The most batches that tasks have kept at once
# TYPE nicring_lent_peak gauge
nicring_lent_peak 1
# HELP nicring_posted Datagrams of handles that wait for the engine's thread
# TYPE nicring_posted gauge
nicring_posted 0
# HELP nicring_posted_peak The most of them that have waited at once
# TYPE nicring_posted_peak gauge
nicring_posted_peak 0
# EOF
";
        assert!(text.ends_with(end), "{text}");
    }

    #[test]
    fn every_count_is_a_metric_with_one_line_of_help() {
        let text = text_of(Stats::default());
        for count in Counts::others() {
            let (name, help) = (count.name.trim_end_matches("_count"), first_sentence(count.about));
            let lines = format!("# HELP nicring_{name} {help}\n# TYPE nicring_{name} counter\n");
            assert!(text.contains(&lines), "no {lines} in {text}");
            assert!(help.len() > 10 && !help.contains(['\n', '\\']), "{help:?}");
        }
    }

    /// Linux takes quotes and backslashes in names.
    #[test]
    fn the_name_of_a_nic_ends_no_label() {
        let name = r#"a"} 1 \"#.to_owned();
        let nics = vec![NicStats { name, index: 3, counts: Counts::default() }];
        let text = text_of(Stats { nics, ..Stats::default() });
        let line = r#"nicring_sent_total{nic="a\"} 1 \\",index="3"} 0"#;
        assert!(text.lines().any(|found| found == line), "no {line} in {text}");
    }
}
