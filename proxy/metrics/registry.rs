//! Every series that is counted: where it is made, who still has it, and the text of all for a scrape.
//!
//! A series is an atomic behind a handle of the `metrics` facade. Its labels become text once, when it is made, and the maps are
//! in the order of the page, so that a scrape only copies texts and writes numbers. (The recorder of the exporter writes each
//! series' name and labels anew for each scrape, and puts them into maps of maps; it also drops what nobody has touched, where here
//! who has a handle keeps the series.)

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use metrics::{Counter, Gauge};

use super::{
    KEPT,
    histogram::{BOUNDS_MICROS, SharedHistogram},
    lock,
    names::{Family, SeriesKind},
    text,
};

/// Where series are made. Asking twice for the same series gives the same one.
#[derive(Default)]
pub(super) struct Registry {
    /// A gauge's are the bits of an `f64`.
    numbers: Mutex<Series<AtomicU64>>,
    histograms: Mutex<Series<SharedHistogram>>,
}

/// By the family's name and the labels, as they are shown.
type Series<T> = BTreeMap<(&'static str, String), Kept<T>>;

/// A series, and when somebody last had it.
struct Kept<T> {
    family: &'static Family,
    value: Arc<T>,
    owned: Instant,
}

impl<T> Kept<T> {
    /// Whether it is still to be shown.
    fn still(&mut self) -> bool {
        if Arc::strong_count(&self.value) > 1 {
            self.owned = Instant::now();
        }
        self.owned.elapsed() < KEPT
    }
}

impl Registry {
    pub(super) fn counter(&self, family: &'static Family, labels: &[(&'static str, &str)]) -> Counter {
        Counter::from_arc(of(&self.numbers, family, labels))
    }

    pub(super) fn gauge(&self, family: &'static Family, labels: &[(&'static str, &str)]) -> Gauge {
        Gauge::from_arc(of(&self.numbers, family, labels))
    }

    pub(super) fn histogram(&self, family: &'static Family, labels: &[(&'static str, &str)]) -> Arc<SharedHistogram> {
        of(&self.histograms, family, labels)
    }

    /// Adds all series that somebody has, or had a while ago.
    pub(super) fn write(&self, out: &mut String) {
        let (mut numbers, mut histograms) = (lock(&self.numbers), lock(&self.histograms));
        numbers.retain(|_, kept| kept.still());
        histograms.retain(|_, kept| kept.still());
        write_numbers(out, &numbers);
        write_histograms(out, &histograms);
    }
}

fn of<T: Default>(all: &Mutex<Series<T>>, family: &'static Family, labels: &[(&'static str, &str)]) -> Arc<T> {
    let shown: Vec<String> =
        labels.iter().map(|(name, value)| format!("{name}=\"{}\"", text::escaped(value))).collect();
    let new = || Kept { family, value: Arc::default(), owned: Instant::now() };
    lock(all).entry((family.name, shown.join(","))).or_insert_with(new).value.clone()
}

fn write_numbers(out: &mut String, all: &Series<AtomicU64>) {
    let mut family = "";
    for ((name, labels), kept) in all {
        if std::mem::replace(&mut family, name) != *name {
            out.push('\n');
            text::head(out, kept.family);
        }
        out.push_str(name);
        braced(out, labels);
        let value = kept.value.load(Relaxed);
        let _ = match kept.family.kind {
            SeriesKind::Gauge => writeln!(out, " {}", f64::from_bits(value)),
            SeriesKind::Counter | SeriesKind::Histogram => writeln!(out, " {value}"),
        };
    }
    out.push('\n');
}

fn write_histograms(out: &mut String, all: &Series<SharedHistogram>) {
    /// What stands between the labels and the count of a bucket.
    static BOUNDS: LazyLock<Vec<String>> = LazyLock::new(|| {
        let finite = BOUNDS_MICROS.iter().map(|&bound| format!("le=\"{}\"}} ", bound as f64 / 1e6));
        finite.chain(["le=\"+Inf\"} ".to_owned()]).collect()
    });
    let (mut family, mut bucket) = ("", String::new());
    for ((name, labels), kept) in all {
        if std::mem::replace(&mut family, name) != *name {
            out.push('\n');
            text::head(out, kept.family);
        }
        bucket.clear();
        let comma = if labels.is_empty() { "" } else { "," };
        [name, "_bucket{", labels, comma].iter().for_each(|part| bucket.push_str(part));
        let mut count = 0;
        for (bound, more) in BOUNDS.iter().zip(kept.value.counts()) {
            count += more;
            out.push_str(&bucket);
            out.push_str(bound);
            let _ = writeln!(out, "{count}");
        }
        for (what, value) in [("_sum", None), ("_count", Some(count))] {
            out.push_str(name);
            out.push_str(what);
            braced(out, labels);
            let _ = match value {
                Some(count) => writeln!(out, " {count}"),
                None => writeln!(out, " {}", kept.value.seconds()),
            };
        }
    }
    out.push('\n');
}

fn braced(out: &mut String, labels: &str) {
    if !labels.is_empty() {
        out.push('{');
        out.push_str(labels);
        out.push('}');
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::names;

    #[test]
    fn a_series_is_shown_as_long_as_somebody_has_it_and_a_while_longer() {
        let registry = Registry::default();
        let labels = [("node", "a\"b:1"), ("role", "primary")];
        let first = registry.counter(&names::NODE_REQUESTS, &labels);
        registry.counter(&names::NODE_REQUESTS, &labels).increment(2);
        first.increment(1);
        registry.gauge(&names::READY, &[]).set(1);
        registry.histogram(&names::REFRESH_DURATION, &[]).observe(Duration::from_millis(1500));
        let page = |registry: &Registry| {
            let mut out = String::new();
            registry.write(&mut out);
            out
        };
        let text = page(&registry);
        for line in [
            "slotway_node_requests_total{node=\"a\\\"b:1\",role=\"primary\"} 3",
            "slotway_ready 1",
            "slotway_topology_refresh_duration_seconds_bucket{le=\"1\"} 0",
            "slotway_topology_refresh_duration_seconds_bucket{le=\"2.5\"} 1",
            "slotway_topology_refresh_duration_seconds_bucket{le=\"+Inf\"} 1",
            "slotway_topology_refresh_duration_seconds_sum 1.5",
            "slotway_topology_refresh_duration_seconds_count 1",
        ] {
            assert!(text.lines().any(|known| known == line), "no {line} in\n{text}");
        }
        let old = Instant::now().checked_sub(KEPT).expect("the machine runs for longer");
        lock(&registry.numbers).values_mut().for_each(|kept| kept.owned = old);
        let text = page(&registry);
        assert!(text.contains("slotway_node_requests_total{") && !text.contains("slotway_ready"), "{text}");
    }
}
