//! The Prometheus text format, for what the recorder cannot write.

use std::{collections::BTreeMap, fmt::Write, sync::Arc, time::Instant};

use metrics_exporter_prometheus::formatting;

use super::{
    KEPT, histogram,
    names::{Family, SeriesKind},
};

/// Which series a histogram is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SeriesKey {
    pub(super) family: &'static Family,
    pub(super) labels: Vec<(&'static str, String)>,
}

/// A histogram, and when somebody last had it.
#[derive(Debug)]
pub(super) struct KeptHistogram {
    pub(super) histogram: Arc<histogram::SharedHistogram>,
    owned: Instant,
}

impl SeriesKey {
    fn order(&self) -> (&'static str, &[(&'static str, String)]) {
        (self.family.name, &self.labels)
    }
}

impl PartialOrd for SeriesKey {
    fn partial_cmp(&self, other: &SeriesKey) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for SeriesKey {
    fn cmp(&self, other: &SeriesKey) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
    }
}

impl Default for KeptHistogram {
    fn default() -> KeptHistogram {
        KeptHistogram { histogram: Arc::default(), owned: Instant::now() }
    }
}

impl KeptHistogram {
    /// Whether it is still to be shown.
    pub(super) fn still(&mut self) -> bool {
        if Arc::strong_count(&self.histogram) > 1 {
            self.owned = Instant::now();
        }
        self.owned.elapsed() < KEPT
    }
}

/// The two lines above a family's series.
pub(super) fn head(out: &mut String, family: &Family) {
    let kind = match family.kind {
        SeriesKind::Counter => "counter",
        SeriesKind::Gauge => "gauge",
        SeriesKind::Histogram => "histogram",
    };
    formatting::write_help_line(out, family.name, None, None, family.help);
    formatting::write_type_line(out, family.name, None, None, kind);
}

/// A label's value with what must be escaped escaped.
pub(super) fn escaped(value: &str) -> String {
    formatting::sanitize_label_value(value)
}

/// Adds all histograms.
pub(super) fn histograms(out: &mut String, all: &BTreeMap<SeriesKey, KeptHistogram>) {
    let mut family = None;
    for (place, kept) in all {
        let name = place.family.name;
        if family.replace(name) != Some(name) {
            out.push('\n');
            head(out, place.family);
        }
        let shown = |(name, value): &(&str, String)| format!("{name}=\"{}\"", escaped(value));
        let label = place.labels.iter().map(shown).collect::<Vec<_>>().join(",");
        let comma = if label.is_empty() { "" } else { "," };
        let braced = if label.is_empty() { String::new() } else { format!("{{{label}}}") };
        let (buckets, count, sum) = kept.histogram.snapshot();
        for (bound, count) in buckets {
            let _ = writeln!(out, "{name}_bucket{{{label}{comma}le=\"{bound}\"}} {count}");
        }
        let _ = writeln!(out, "{name}_bucket{{{label}{comma}le=\"+Inf\"}} {count}");
        let _ = writeln!(out, "{name}_sum{braced} {sum}\n{name}_count{braced} {count}");
    }
    out.push('\n');
}

/// Families by name: the recorder's own order differs from scrape to scrape, which people find hard to read.
pub(super) fn sorted(text: &str) -> String {
    let mut families: Vec<&str> = text.split("\n\n").map(str::trim).filter(|family| !family.is_empty()).collect();
    families.sort_unstable();
    families.join("\n") + "\n"
}
