//! Series, declared once: a line says what a worker counts and to which family it is published.

use std::{
    cell::Cell,
    sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
};

use metrics::{Counter, Gauge};

/// A number that only its worker touches.
#[derive(Debug, Default)]
pub(super) struct Count(Cell<u64>);

impl Count {
    pub(super) fn add(&self, more: u64) {
        self.0.set(self.0.get() + more);
    }

    pub(super) fn publish(&self, total: &Total) {
        total.add(self.take());
    }

    /// What has been counted since the last call.
    pub(super) fn take(&self) -> u64 {
        self.0.take()
    }
}

/// A worker's part of a number that goes up and down; what it published is taken back when the worker ends.
#[derive(Debug, Default)]
pub(super) struct GaugeShare {
    now: Cell<i64>,
    published: Cell<i64>,
}

impl GaugeShare {
    pub(super) fn add(&self, more: i64) {
        self.now.set(self.now.get() + more);
    }

    pub(super) fn publish(&self, level: &Level) {
        let now = self.now.get();
        level.now.fetch_add(now - self.published.replace(now), Relaxed);
    }

    pub(super) fn withdraw(&self, level: &Level) {
        level.now.fetch_sub(self.published.replace(0), Relaxed);
    }
}

/// What all workers have counted. A counter cannot be read: the sum is for the status page and INFO.
#[derive(Debug)]
pub(super) struct Total {
    counter: Counter,
    sum: AtomicU64,
}

impl Total {
    pub(super) fn new(counter: Counter) -> Total {
        Total { counter, sum: AtomicU64::default() }
    }

    pub(super) fn add(&self, more: u64) {
        if more > 0 {
            self.counter.increment(more);
            self.sum.fetch_add(more, Relaxed);
        }
    }

    pub(super) fn sum(&self) -> u64 {
        self.sum.load(Relaxed)
    }
}

/// The sum of all workers' parts.
#[derive(Debug)]
pub(super) struct Level {
    gauge: Gauge,
    now: AtomicI64,
}

impl Level {
    pub(super) fn new(gauge: Gauge) -> Level {
        Level { gauge, now: AtomicI64::default() }
    }

    pub(super) fn set(&self, now: i64) {
        self.now.store(now, Relaxed);
    }

    pub(super) fn now(&self) -> i64 {
        self.now.load(Relaxed)
    }

    /// Has the series show the present value.
    pub(super) fn show(&self) {
        self.gauge.set(self.now() as f64);
    }
}

/// Declares what a worker counts and what the process publishes of it, a series a line:
/// - `counters`: `name: FAMILY;`
/// - `counters by label`: `name: FAMILY by "label" in Values;`, one for each value of an enum that [`super::labels`] made;
///   with `and "label" = "value"` where the family has a label more;
/// - `levels`: `name: FAMILY;`
/// - `durations`: `name: FAMILY;`, and `durations by label` as `counters by label`.
macro_rules! series {
    (
        $(#[$local_doc:meta])* worker $local:ident;
        $(#[$shared_doc:meta])* process $shared:ident;
        counters { $($counter:ident: $counter_family:ident;)* }
        counters by label {
            $($group:ident: $group_family:ident by $word:literal in $values:ident $(and $more:literal = $value:literal)?;)*
        }
        levels { $($level:ident: $level_family:ident;)* }
        durations { $($duration:ident: $duration_family:ident;)* }
        durations by label { $($class:ident: $class_family:ident by $class_word:literal in $classes:ident;)* }
    ) => {
        $(#[$local_doc])*
        #[derive(Debug, Default)]
        struct $local {
            $($counter: $crate::metrics::series::Count,)*
            $($group: [$crate::metrics::series::Count; $values::ALL.len()],)*
            $($level: $crate::metrics::series::GaugeShare,)*
            $($duration: $crate::metrics::histogram::LocalHistogram,)*
            $($class: [$crate::metrics::histogram::LocalHistogram; $classes::ALL.len()],)*
        }

        impl $local {
            /// Adds what has been counted since the last call to what all have.
            fn publish(&self, shared: &$shared) {
                $(self.$counter.publish(&shared.$counter);)*
                $(self.$group.iter().zip(&shared.$group).for_each(|(count, total)| count.publish(total));)*
                $(self.$level.publish(&shared.$level);)*
                $(self.$duration.publish(&shared.$duration);)*
                $(self.$class.iter().zip(&shared.$class).for_each(|(local, total)| local.publish(total));)*
            }

            /// Takes the worker's part of every level back.
            fn withdraw(&self, shared: &$shared) {
                let _ = shared;
                $(self.$level.withdraw(&shared.$level);)*
            }
        }

        $(#[$shared_doc])*
        #[derive(Debug)]
        pub(super) struct $shared {
            $(pub(super) $counter: $crate::metrics::series::Total,)*
            $(pub(super) $group: [$crate::metrics::series::Total; $values::ALL.len()],)*
            $(pub(super) $level: $crate::metrics::series::Level,)*
            $(pub(super) $duration: std::sync::Arc<$crate::metrics::histogram::SharedHistogram>,)*
            $(pub(super) $class: [std::sync::Arc<$crate::metrics::histogram::SharedHistogram>; $classes::ALL.len()],)*
        }

        impl $shared {
            /// At zero. Every series has these labels beside its own.
            fn new(registry: &$crate::metrics::Registry, labels: &[(&'static str, &str)]) -> $shared {
                use $crate::metrics::{names, series::{Level, Total}};
                $shared {
                    $($counter: Total::new(registry.counter(&names::$counter_family, labels)),)*
                    $($group: $values::ALL.map(|value| {
                        let mut labels = labels.to_vec();
                        labels.push(($word, value.label()));
                        $(labels.push(($more, $value));)?
                        Total::new(registry.counter(&names::$group_family, &labels))
                    }),)*
                    $($level: Level::new(registry.gauge(&names::$level_family, labels)),)*
                    $($duration: registry.histogram(&names::$duration_family, labels),)*
                    $($class: $classes::ALL.map(|value| {
                        let mut labels = labels.to_vec();
                        labels.push(($class_word, value.label()));
                        registry.histogram(&names::$class_family, &labels)
                    }),)*
                }
            }

            /// Has the series of levels show their present values.
            fn show(&self) {
                $(self.$level.show();)*
            }
        }
    };
}

pub(super) use series;
