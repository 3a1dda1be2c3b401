//! The metrics as OTLP has them, made of the page that Prometheus gets: the same names, labels and numbers at either.

use std::time::SystemTime;

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::KeyValue,
    metrics::v1::{
        AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
        ScopeMetrics, Sum, metric::Data, number_data_point::Value,
    },
    resource::v1::Resource,
};

use super::{nanos, scope, text};

/// A family of the page while it is read.
#[derive(Default)]
struct Family<'a> {
    name: &'a str,
    help: &'a str,
    kind: &'a str,
    numbers: Vec<NumberDataPoint>,
    histograms: Vec<HistogramDataPoint>,
}

/// The message that exports a page of metrics, whose counts began at `started`.
pub(super) fn message(
    page: &str,
    resource: Resource,
    started: SystemTime,
    now: SystemTime,
) -> ExportMetricsServiceRequest {
    let times = (nanos(started), nanos(now));
    let mut metrics = Vec::new();
    let mut family = Family::default();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            metrics.extend(std::mem::take(&mut family).metric());
            (family.name, family.help) = rest.split_once(' ').unwrap_or((rest, ""));
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            family.kind = rest.rsplit(' ').next().unwrap_or_default();
        } else if !line.is_empty() {
            family.take(line, times);
        }
    }
    metrics.extend(family.metric());
    let scope_metrics = vec![ScopeMetrics { scope: Some(scope()), metrics, ..ScopeMetrics::default() }];
    let resource_metrics =
        vec![ResourceMetrics { resource: Some(resource), scope_metrics, ..ResourceMetrics::default() }];
    ExportMetricsServiceRequest { resource_metrics }
}

impl<'a> Family<'a> {
    fn take(&mut self, line: &'a str, (start_time_unix_nano, time_unix_nano): (u64, u64)) {
        let Some((series, value)) = line.rsplit_once(' ') else { return };
        let Ok(value) = value.parse::<f64>() else { return };
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels_of(labels.trim_end_matches('}'))),
            None => (series, Vec::new()),
        };
        if self.kind != "histogram" {
            let value = Some(Value::AsDouble(value));
            let attributes = attributes(&labels);
            let point =
                NumberDataPoint { attributes, start_time_unix_nano, time_unix_nano, value, ..Default::default() };
            return self.numbers.push(point);
        }
        let (bound, labels): (Vec<_>, Vec<_>) = labels.into_iter().partition(|(name, _)| *name == "le");
        let attributes = attributes(&labels);
        if self.histograms.last().is_none_or(|last| last.attributes != attributes) {
            let new = HistogramDataPoint { attributes, start_time_unix_nano, time_unix_nano, ..Default::default() };
            self.histograms.push(new);
        }
        let Some(point) = self.histograms.last_mut() else { return };
        match name.strip_prefix(self.name) {
            Some("_bucket") => {
                // Until it is whole, `count` is what the buckets so far have.
                point.bucket_counts.push((value as u64).saturating_sub(point.count));
                point.count = value as u64;
                point.explicit_bounds.extend(
                    bound.first().and_then(|(_, bound)| bound.parse::<f64>().ok()).filter(|bound| bound.is_finite()),
                );
            }
            Some("_sum") => point.sum = Some(value),
            _ => point.count = value as u64,
        }
    }

    fn metric(self) -> Option<Metric> {
        let aggregation_temporality = AggregationTemporality::Cumulative as i32;
        let data = match self.kind {
            "counter" => Data::Sum(Sum { data_points: self.numbers, aggregation_temporality, is_monotonic: true }),
            "gauge" => Data::Gauge(Gauge { data_points: self.numbers }),
            "histogram" => Data::Histogram(Histogram { data_points: self.histograms, aggregation_temporality }),
            _ => return None,
        };
        let unit = match self.name {
            name if name.contains("_seconds") => "s",
            name if name.contains("_bytes") => "By",
            _ => "1",
        };
        let (name, description, unit) = (self.name.to_owned(), self.help.to_owned(), unit.to_owned());
        Some(Metric { name, description, unit, data: Some(data), ..Metric::default() })
    }
}

fn attributes(labels: &[(&str, String)]) -> Vec<KeyValue> {
    labels.iter().map(|(name, value)| text(name, value)).collect()
}

/// `name="value",...`, whose values have `\`, `"` and line breaks escaped.
fn labels_of(mut rest: &str) -> Vec<(&str, String)> {
    let mut labels = Vec::new();
    while let Some((name, after)) = rest.split_once("=\"") {
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next() {
                None => break after.len(),
                Some((at, '"')) => break at + 1,
                Some((_, '\\')) => match chars.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, other)) => value.push(other),
                    None => {}
                },
                Some((_, other)) => value.push(other),
            }
        };
        labels.push((name, value));
        rest = after.get(end..).unwrap_or_default().trim_start_matches(',');
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Metrics, NodeState, Slots};

    #[test]
    fn labels_are_read_with_what_is_escaped_in_them() {
        assert_eq!(labels_of(r#"a="1",b="x\"y\\z\n""#), [("a", "1".to_owned()), ("b", "x\"y\\z\n".to_owned())]);
        assert!(labels_of("").is_empty());
    }

    #[test]
    fn the_whole_page_is_exported() {
        let metrics = Metrics::new();
        let node = NodeState { label: "a:1".into(), address: "10.0.0.1:1".into(), role: "primary", up: true, slots: 7 };
        metrics.topology(3, Slots::default(), vec![node]);
        metrics.refreshed(crate::metrics::Trigger::Start, true, std::time::Duration::from_micros(70));
        let page = metrics.render();
        let now = SystemTime::now();
        let message = message(&page, Resource::default(), now, now);
        let all = &message.resource_metrics[0].scope_metrics[0].metrics;
        assert_eq!(all.len(), page.lines().filter(|line| line.starts_with("# TYPE ")).count());
        let of = |name: &str| all.iter().find(|metric| metric.name == name).and_then(|metric| metric.data.as_ref());
        let Some(Data::Gauge(slots)) = of("slotway_node_slots") else { panic!("no gauge") };
        assert_eq!(slots.data_points[0].value, Some(Value::AsDouble(7.0)));
        assert_eq!(slots.data_points[0].attributes, [text("node", "a:1"), text("role", "primary")]);
        let Some(Data::Sum(connects)) = of("slotway_node_connects_total") else { panic!("no counter") };
        assert!(connects.is_monotonic);
        let Some(Data::Histogram(refreshes)) = of("slotway_topology_refresh_duration_seconds") else { panic!("none") };
        let point = &refreshes.data_points[0];
        assert_eq!((point.count, point.sum), (1, Some(0.00007)));
        assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
        assert_eq!((&point.bucket_counts[..3], point.explicit_bounds[1]), (&[0, 1, 0][..], 0.0001));
    }
}
