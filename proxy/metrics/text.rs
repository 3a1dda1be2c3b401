//! The Prometheus text format, by the functions of its exporter.

use metrics_exporter_prometheus::formatting;

use super::names::{Family, SeriesKind};

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

/// Families by name: in another order from scrape to scrape people find them hard to read.
pub(super) fn sorted(text: &str) -> String {
    let mut families: Vec<&str> = text.split("\n\n").map(str::trim).filter(|family| !family.is_empty()).collect();
    families.sort_unstable();
    families.join("\n") + "\n"
}
