//! Export by OTLP, to a receiver that decodes what it gets by OpenTelemetry's own definition.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::{
    collector::{metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::{KeyValue, any_value::Value},
    metrics::v1::metric::Data,
    trace::v1::Span,
};
use prost::Message;

use crate::support::{Cluster, Proxy, Settings};

/// What a collector was sent: where to, and the body.
type Posted = (String, Vec<u8>);

/// A collector on a port of its own, and what it has been sent.
fn collector() -> (u16, Receiver<Posted>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let sender = sender.clone();
            thread::spawn(move || serve(stream, |posted| sender.send(posted).is_ok()));
        }
    });
    (port, receiver)
}

/// Takes requests on one connection until it ends.
fn serve(mut stream: TcpStream, take: impl Fn(Posted) -> bool) {
    let mut bytes = Vec::new();
    let mut chunk = [0; 65536];
    loop {
        let whole = bytes.windows(4).position(|window| window == b"\r\n\r\n").and_then(|end| {
            let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            let length =
                head.lines().find_map(|line| line.strip_prefix("content-length: "))?.trim().parse::<usize>().ok()?;
            assert!(head.contains("content-type: application/x-protobuf"), "{head}");
            let path = head.split(' ').nth(1)?.to_owned();
            (bytes.len() >= end + 4 + length).then_some((path, end + 4, length))
        });
        if let Some((path, start, length)) = whole {
            let body = bytes.drain(..start + length).skip(start).collect();
            let answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
            if !take((path, body)) || stream.write_all(answer).is_err() {
                return;
            }
            continue;
        }
        match stream.read(&mut chunk) {
            Ok(count) if count > 0 => bytes.extend_from_slice(&chunk[..count]),
            _ => return,
        }
    }
}

/// The first of what is sent to `path` that is what is looked for.
fn wait_for<T>(sent: &Receiver<Posted>, path: &str, look: impl Fn(&[u8]) -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let (to, body) = sent.recv_timeout(left).unwrap_or_else(|_| panic!("nothing of the kind came to {path}"));
        if let Some(found) = Some(body).filter(|_| to == path).and_then(|body| look(&body)) {
            return found;
        }
    }
}

fn attribute(all: &[KeyValue], key: &str) -> Option<Value> {
    all.iter().find(|attribute| attribute.key == key)?.value.clone()?.value
}

fn text(all: &[KeyValue], key: &str) -> String {
    match attribute(all, key) {
        Some(Value::StringValue(text)) => text,
        other => panic!("{key}: {other:?} in {all:?}"),
    }
}

fn seconds(all: &[KeyValue], key: &str) -> f64 {
    match attribute(all, key) {
        Some(Value::DoubleValue(seconds)) => seconds,
        other => panic!("{key}: {other:?} in {all:?}"),
    }
}

fn spans(body: &[u8]) -> Vec<Span> {
    let message = ExportTraceServiceRequest::decode(body).expect("spans");
    let resource = message.resource_spans[0].resource.clone().expect("a resource");
    assert_eq!(text(&resource.attributes, "service.name"), "slotway");
    message.resource_spans[0].scope_spans[0].spans.clone()
}

#[test]
fn metrics_and_slow_and_failed_requests_are_exported() {
    let (port, sent) = collector();
    let mut cluster = Cluster::three();
    let proxy = Proxy::start(
        Settings::new(cluster.seeds())
            .with("OTLP", format!("127.0.0.1:{port}"))
            .with("OTLP_INTERVAL", "200ms")
            .with("SLOW_REQUEST", "30ms")
            .with("REFRESH_INTERVAL", "1s")
            .with("RETRY_TIMEOUT", "100ms")
            .expecting_warnings(),
    );
    let mut client = proxy.client();
    let key = cluster.key_on(1, "otlp:");
    for _ in 0..50 {
        client.call(&["SET", &key, "v"]);
    }
    let slot = cluster.node(1).line(&format!("CLUSTER KEYSLOT {key}")).integer();
    let label = cluster.node(1).address();

    // The numbers that /metrics has.
    let counted = |body: &[u8]| {
        let message = ExportMetricsServiceRequest::decode(body).expect("metrics");
        let all = message.resource_metrics[0].scope_metrics[0].metrics.clone();
        let durations = all.iter().find(|metric| metric.name == "slotway_node_request_duration_seconds")?;
        let Some(Data::Histogram(durations)) = &durations.data else { panic!("no histogram: {durations:?}") };
        let is_it = |all: &[KeyValue]| text(all, "node") == label && text(all, "class") == "write";
        let point = durations.data_points.iter().find(|point| is_it(&point.attributes))?;
        assert_eq!(point.bucket_counts.iter().sum::<u64>(), point.count);
        (point.count == 50 && point.sum > Some(0.0)).then_some(())
    };
    wait_for(&sent, "/v1/metrics", counted);

    // A slow request: where its time went.
    client.call(&["EVAL", "local t = redis.call('TIME') repeat local n = redis.call('TIME') until (n[1] - t[1]) * 1000000 + n[2] - t[2] > 50000 return 1", "1", &key]);
    let slow = wait_for(&sent, "/v1/traces", |body| spans(body).into_iter().find(|span| span.name == "EVAL"));
    let about = &slow.attributes;
    assert_eq!(format!("{}:{}", text(about, "server.address"), cluster.node(1).port), label);
    assert_eq!(attribute(about, "server.port"), Some(Value::IntValue(i64::from(cluster.node(1).port))));
    assert_eq!(attribute(about, "slotway.slot"), Some(Value::IntValue(slot)));
    assert!(seconds(about, "slotway.node_seconds") >= 0.05, "{about:?}");
    assert!(seconds(about, "slotway.queue_seconds") < 0.05, "{about:?}");
    let took = Duration::from_nanos(slow.end_time_unix_nano - slow.start_time_unix_nano);
    assert!(took >= Duration::from_millis(50) && took < Duration::from_secs(5), "{took:?}");
    assert_eq!((slow.trace_id.len(), slow.span_id.len()), (16, 8));
    assert!(!format!("{slow:?}").contains("otlp:"), "a key is in a span");

    // A failed one: why.
    cluster.nodes[1].kill();
    let error = client.call(&["GET", &key]);
    assert!(error.is_error(), "{error:?}");
    let failed = |body: &[u8]| spans(body).into_iter().find(|span| span.status.as_ref().is_some_and(|it| it.code == 2));
    let failed = wait_for(&sent, "/v1/traces", failed);
    assert_eq!(text(&failed.attributes, "slotway.class"), "read");
    assert_eq!(attribute(&failed.attributes, "server.port"), Some(Value::IntValue(i64::from(cluster.node(1).port))));
    assert!(!failed.status.expect("a status").message.is_empty());
}

#[test]
fn a_collector_that_is_not_there_is_told_of_once_and_hurts_nobody() {
    let cluster = Cluster::three();
    let proxy = Proxy::start(
        Settings::new(cluster.seeds())
            .with("OTLP", format!("127.0.0.1:{}", crate::support::ports::free_port()))
            .with("OTLP_INTERVAL", "50ms")
            .expecting("does not take what it is sent"),
    );
    crate::support::eventually("it to be told", || proxy.log().contains("does not take what it is sent"));
    let mut client = proxy.client();
    assert_eq!(client.line("SET otlp:a 1"), "+OK\r\n");
    let log = proxy.shut_down();
    assert_eq!(log.matches("does not take what it is sent").count(), 1, "{log}");
}
