//! Export to an OpenTelemetry collector, by OTLP over HTTP: all metrics, and a span for each request that took long or failed.
//!
//! RESP has no headers, so that no trace goes on from a client's: each span is a trace of its own. The messages are built
//! here, of the types that OpenTelemetry generates from its own definition: its SDK takes no histogram whose buckets are
//! counted already, and would keep another set of all counts.

mod numbers;
mod spans;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::http::{Request, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    resource::v1::Resource,
};
use prost::Message;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    metrics::{Metrics, readable::unix_time, spans::Span},
    protocol::address::Address,
};

/// How long spans wait for others, so that many make one message.
const GATHER: Duration = Duration::from_secs(1);
/// Spans in one message.
const MOST_AT_ONCE: usize = 512;
/// How long the collector may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often the log tells that it takes nothing.
const COMPLAIN_AGAIN: Duration = Duration::from_secs(60);

/// Exports until `stop`, and then once more. Ends at once where no collector is named.
pub async fn export(config: Arc<Config>, metrics: Metrics, stop: CancellationToken) {
    let Some(collector) = config.otlp.clone() else { return };
    let mut exporter = Exporter::new(&config, collector, metrics.clone());
    let mut spans = metrics.spans().listen();
    let mut due = interval(config.otlp_interval);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut gathered, mut first): (Vec<Span>, _) = (Vec::new(), Instant::now());
    loop {
        let room = MOST_AT_ONCE.saturating_sub(gathered.len());
        tokio::select! {
            () = stop.cancelled() => break,
            _ = due.tick() => exporter.send_metrics().await,
            Some(span) = spans.recv(), if room > 0 => {
                if gathered.is_empty() {
                    first = Instant::now();
                }
                gathered.push(span);
            }
            () = sleep_until(if room > 0 { first + GATHER } else { first }), if !gathered.is_empty() => {
                exporter.send_spans(std::mem::take(&mut gathered)).await;
            }
        }
    }
    exporter.send_spans(gathered).await;
    exporter.send_metrics().await;
}

struct Exporter {
    client: Client<HttpConnector, Full<Bytes>>,
    collector: Address,
    metrics: Metrics,
    resource: Resource,
    sample: f64,
    started: SystemTime,
    complained: Option<Instant>,
}

impl Exporter {
    fn new(config: &Config, collector: Address, metrics: Metrics) -> Exporter {
        let listens = config.addresses().next().map(ToString::to_string).unwrap_or_default();
        let attributes = vec![
            text("service.name", "slotway"),
            text("service.version", env!("CARGO_PKG_VERSION")),
            text("service.instance.id", &listens),
        ];
        Exporter {
            client: Client::builder(TokioExecutor::new()).build_http(),
            collector,
            metrics,
            resource: Resource { attributes, ..Resource::default() },
            sample: config.otlp_sample,
            started: SystemTime::now(),
            complained: None,
        }
    }

    async fn send_metrics(&mut self) {
        let metrics = self.metrics.clone();
        // With many nodes this takes some milliseconds.
        let Ok(page) = tokio::task::spawn_blocking(move || metrics.render()).await else { return };
        let message = numbers::message(&page, self.resource.clone(), self.started, SystemTime::now());
        self.send("/v1/metrics", message.encode_to_vec()).await;
    }

    async fn send_spans(&mut self, mut gathered: Vec<Span>) {
        let sample = self.sample;
        gathered.retain(|_| spans::is_chosen(sample));
        let dropped = self.metrics.spans().dropped();
        if dropped > 0 {
            tracing::debug!(dropped, "spans that had no room");
        }
        if !gathered.is_empty() {
            let message = spans::message(&gathered, self.resource.clone());
            self.send("/v1/traces", message.encode_to_vec()).await;
        }
    }

    /// What the collector does not take is lost, but for metrics: the next message has all of them.
    async fn send(&mut self, path: &str, body: Vec<u8>) {
        let outcome = match timeout(PATIENCE, self.post(path, body)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("no answer within {PATIENCE:?}")),
        };
        match outcome {
            Ok(()) if self.complained.take().is_some() => {
                tracing::info!("the OTLP collector at {} takes what it is sent again", self.collector);
            }
            Err(why) if self.complained.is_none_or(|since| since.elapsed() >= COMPLAIN_AGAIN) => {
                tracing::warn!("the OTLP collector at {} does not take what it is sent: {why}", self.collector);
                self.complained = Some(Instant::now());
            }
            _ => {}
        }
    }

    async fn post(&self, path: &str, body: Vec<u8>) -> Result<(), String> {
        let request = Request::post(format!("http://{}{path}", self.collector))
            .header(header::CONTENT_TYPE, "application/x-protobuf")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| error.to_string())?;
        let answer = self.client.request(request).await.map_err(|error| {
            let cause = std::error::Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
            format!("{error}{cause}")
        })?;
        let status = answer.status();
        // Read to its end, so that the connection can be used again.
        let _ = answer.into_body().collect().await;
        if status.is_success() { Ok(()) } else { Err(format!("it answers {status}")) }
    }
}

fn scope() -> InstrumentationScope {
    let (name, version) = ("slotway".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    InstrumentationScope { name, version, ..InstrumentationScope::default() }
}

fn attribute(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, any_value::Value::StringValue(value.to_owned()))
}

fn nanos(at: SystemTime) -> u64 {
    u64::try_from(unix_time(at).as_nanos()).unwrap_or(u64::MAX)
}
