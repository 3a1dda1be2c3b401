//! Spans as OTLP has them. Names of attributes are those of OpenTelemetry's conventions for databases where it has one.

use std::hash::{BuildHasher, Hasher, RandomState};

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span as Shown, Status, span::SpanKind, status::StatusCode},
};

use super::{attribute, nanos, scope, text};
use crate::{metrics::spans::Span, protocol::address::Address};

/// Whether one of so many, between 0 and 1, is exported.
pub(super) fn is_chosen(sample: f64) -> bool {
    sample >= 1.0 || (random() as f64 / u64::MAX as f64) < sample
}

/// The message that exports them.
pub(super) fn message(spans: &[Span], resource: Resource) -> ExportTraceServiceRequest {
    let spans = spans.iter().map(shown).collect();
    let scope_spans = vec![ScopeSpans { scope: Some(scope()), spans, ..ScopeSpans::default() }];
    let resource_spans = vec![ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() }];
    ExportTraceServiceRequest { resource_spans }
}

fn shown(span: &Span) -> Shown {
    let [high, low, id] = [random(), random(), random()].map(u64::to_be_bytes);
    let status = match &span.error {
        Some(error) => Status { code: StatusCode::Error as i32, message: error.clone() },
        None => Status::default(),
    };
    Shown {
        trace_id: [high, low].concat(),
        span_id: id.to_vec(),
        name: span.command.clone().unwrap_or_else(|| span.class.label().to_owned()),
        kind: SpanKind::Client as i32,
        start_time_unix_nano: nanos(span.end - span.took),
        end_time_unix_nano: nanos(span.end),
        attributes: attributes(span),
        status: Some(status),
        ..Shown::default()
    }
}

fn attributes(span: &Span) -> Vec<KeyValue> {
    let mut all = vec![text("db.system.name", "redis"), text("slotway.class", span.class.label())];
    match span.node.parse::<Address>() {
        Ok(Address { host, port }) => {
            all.push(text("server.address", &host));
            all.push(attribute("server.port", Value::IntValue(i64::from(port))));
        }
        Err(_) => all.push(text("server.address", &span.node)),
    }
    all.extend(span.command.as_ref().map(|command| text("db.operation.name", command)));
    all.extend(span.slot.map(|slot| attribute("slotway.slot", Value::IntValue(i64::from(slot.number())))));
    if span.client > 0 {
        all.push(attribute("slotway.client_id", Value::IntValue(i64::try_from(span.client).unwrap_or(i64::MAX))));
    }
    if let Some((here, there)) = span.parts {
        all.push(attribute("slotway.queue_seconds", Value::DoubleValue(here.as_secs_f64())));
        all.push(attribute("slotway.node_seconds", Value::DoubleValue(there.as_secs_f64())));
    }
    // The code word, such as CLUSTERDOWN: of few values.
    let code = span.error.as_deref().and_then(|error| error.split(' ').next());
    all.extend(code.map(|code| text("error.type", code)));
    all
}

/// The standard library seeds each `RandomState` anew.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
