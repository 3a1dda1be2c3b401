//! What was: the points of the last quarter of an hour.

use std::{collections::BTreeMap, time::SystemTime};

use serde::Serialize;

use super::Shown;
use crate::{
    metrics::{
        history::{Pace, STEP},
        readable::unix_time,
    },
    process::admin::AdminView,
};

/// `/api/history`: the last quarter of an hour, a point every five seconds, the oldest first.
#[derive(Serialize)]
pub struct Past {
    step_seconds: u64,
    /// When the last point was, in Unix time.
    until: u64,
    all: Line,
    nodes: BTreeMap<String, Line>,
}

#[derive(Serialize)]
struct Line {
    requests: Vec<f64>,
    errors: Vec<f64>,
    p50: Vec<Option<f64>>,
    p99: Vec<Option<f64>>,
}

impl Line {
    fn of(paces: &[Pace]) -> Line {
        let shown = || paces.iter().map(|pace| Shown::of(*pace));
        Line {
            requests: shown().map(|pace| pace.requests).collect(),
            errors: shown().map(|pace| pace.errors).collect(),
            p50: shown().map(|pace| pace.p50).collect(),
            p99: shown().map(|pace| pace.p99).collect(),
        }
    }
}

pub fn past(view: &AdminView) -> Past {
    let points = view.metrics.history().points();
    Past {
        step_seconds: STEP,
        until: unix_time(SystemTime::now()).as_secs(),
        all: Line::of(&points.all),
        nodes: points.nodes.iter().map(|(label, paces)| (label.to_string(), Line::of(paces))).collect(),
    }
}
