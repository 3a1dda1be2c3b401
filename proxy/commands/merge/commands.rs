//! The sections of INFO about commands, and LATENCY HISTOGRAM, as of what clients did.

use std::collections::BTreeSet;

use super::account::{Calls, Ledger};
use crate::protocol::resp::write;

/// What a call took at least, in microseconds, where no node has measured one: what the proxy answers itself.
const LEAST_USEC: u64 = 1;
/// The least that a call took, as the server writes its percentiles.
const LEAST_PERCENTILE: &str = "1.003";
/// The percentiles that a server tells unless it is configured otherwise.
const PERCENTILES: &[&str] = &["p50", "p99", "p99.9"];

/// Appends the lines of `# Commandstats`, from those of all nodes together.
pub fn stats(lines: &[(&str, String)], account: &Ledger, out: &mut String) {
    let mut told = BTreeSet::new();
    for (line, value) in lines {
        let Some(name) = line.strip_prefix("cmdstat_") else { continue };
        told.insert(name);
        let read = |field: &str| field_of(value, field).and_then(|number| number.parse().ok()).unwrap_or(0);
        let at_nodes = Calls { calls: read("calls"), rejected: read("rejected_calls"), failed: read("failed_calls") };
        let Some(calls) = account.calls(name, at_nodes) else { continue };
        let usec = match account.is_told_by_nodes(name) {
            true => read("usec"),
            false if at_nodes.calls == 0 => calls.calls * LEAST_USEC,
            false => share(read("usec"), calls.calls, at_nodes.calls),
        };
        let fields = value.split(',').filter_map(|field| field.split_once('='));
        let fields = fields.map(|(field, number)| match amended(field, calls, usec) {
            Some(amended) => format!("{field}={amended}"),
            None => format!("{field}={number}"),
        });
        out.push_str(&format!("{line}:{}\r\n", fields.collect::<Vec<_>>().join(",")));
    }
    for (name, calls) in account.others(&told) {
        let usec = calls.calls * LEAST_USEC;
        let fields = ["calls", "usec", "usec_per_call", "rejected_calls", "failed_calls"];
        let fields = fields.map(|field| format!("{field}={}", amended(field, calls, usec).unwrap_or_default()));
        out.push_str(&format!("cmdstat_{name}:{}\r\n", fields.join(",")));
    }
}

fn field_of<'a>(value: &'a str, field: &str) -> Option<&'a str> {
    value
        .split(',')
        .filter_map(|field| field.split_once('='))
        .find(|(name, _)| *name == field)
        .map(|(_, number)| number)
}

fn amended(field: &str, calls: Calls, usec: u64) -> Option<String> {
    Some(match field {
        "calls" => calls.calls.to_string(),
        "usec" => usec.to_string(),
        "usec_per_call" => format!("{:.2}", usec as f64 / calls.calls.max(1) as f64),
        "rejected_calls" => calls.rejected.to_string(),
        "failed_calls" => calls.failed.to_string(),
        _ => return None,
    })
}

/// `part` of `whole` of something.
fn share(of: u64, part: u64, whole: u64) -> u64 {
    (of as f64 * part as f64 / whole.max(1) as f64).round() as u64
}

/// Appends the lines of `# Latencystats`, from those of all nodes together.
pub fn percentiles(lines: &[(&str, String)], account: &Ledger, out: &mut String) {
    const PREFIX: &str = "latency_percentiles_usec_";
    let mut told = BTreeSet::new();
    for (line, value) in lines {
        let Some(name) = line.strip_prefix(PREFIX) else { continue };
        told.insert(name);
        let is_called = || account.calls(name, Calls::default()).is_some_and(|calls| calls.calls > 0);
        if account.is_told_by_nodes(name) || is_called() {
            out.push_str(&format!("{line}:{value}\r\n"));
        }
    }
    let like = lines.first().map(|(_, value)| value.split(',').filter_map(|field| field.split_once('=')));
    let names: Vec<&str> = like.map_or_else(|| PERCENTILES.to_vec(), |fields| fields.map(|(name, _)| name).collect());
    let least: Vec<String> = names.iter().map(|name| format!("{name}={LEAST_PERCENTILE}")).collect();
    for (name, _) in account.others(&told).into_iter().filter(|(_, calls)| calls.calls > 0) {
        out.push_str(&format!("{PREFIX}{name}:{}\r\n", least.join(",")));
    }
}

/// A command's histogram of all nodes together: how many calls took up to each bound.
pub type Histogram = Vec<(i64, i64)>;

/// What clients did of a command, of which all nodes together tell `calls` and a histogram; `None` where that is nothing.
pub fn histogram(name: &str, calls: i64, histogram: Histogram, account: &Ledger) -> Option<(i64, Histogram)> {
    let at_nodes = Calls { calls: u64::try_from(calls).unwrap_or(0), ..Calls::default() };
    let then = account.calls(name, at_nodes)?.calls;
    let scale = |count: i64| share(u64::try_from(count).unwrap_or(0), then, at_nodes.calls) as i64;
    // A bound that nobody is left for is none.
    let mut scaled: Histogram = Vec::with_capacity(histogram.len());
    for (bound, count) in histogram {
        let count = scale(count);
        if count > scaled.last().map_or(0, |(_, before)| *before) {
            scaled.push((bound, count));
        }
    }
    (then > 0).then(|| (i64::try_from(then).unwrap_or(i64::MAX), scaled))
}

/// What clients did of commands that nodes do not tell of.
pub fn other_histograms<'a>(told: &BTreeSet<&str>, account: &'a Ledger) -> Vec<(&'a str, i64, Histogram)> {
    let others = account.others(told).into_iter().filter(|(_, calls)| calls.calls > 0);
    others
        .map(|(name, calls)| {
            let calls = i64::try_from(calls.calls).unwrap_or(i64::MAX);
            (name, calls, vec![(LEAST_USEC as i64, calls)])
        })
        .collect()
}

/// Appends a command's entry of LATENCY HISTOGRAM, in maps of RESP3 or arrays of RESP2.
pub fn write_histogram(kind: u8, name: &str, calls: i64, histogram: &[(i64, i64)], out: &mut Vec<u8>) {
    let head = |out: &mut Vec<u8>, count: usize| {
        write::head(out, kind, (if kind == b'%' { count } else { 2 * count }) as i64);
    };
    write::bulk(out, name.as_bytes());
    head(out, 2);
    write::bulk(out, b"calls");
    write::integer(out, calls);
    write::bulk(out, b"histogram_usec");
    head(out, histogram.len());
    for (bound, count) in histogram {
        write::integer(out, *bound);
        write::integer(out, *count);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        commands::table::CommandTable,
        metrics::{CommandClass, CommandId, Metrics},
    };

    /// Of two PINGs, one ECHO and one CONFIG SET that was refused.
    fn account() -> Ledger {
        let metrics = Metrics::new();
        let tally = metrics.client_tally();
        let answered = |name, failed| tally.command(CommandId::of(name), CommandClass::Admin, failed, Duration::ZERO);
        (0..2).for_each(|_| answered("ping", false));
        answered("echo", false);
        answered("config|set", true);
        tally.rejected(CommandId::of("config|set"));
        Ledger { commands: CommandTable::builtin(), metrics, only: Vec::new(), own: None }
    }

    #[test]
    fn lines_tell_of_clients() {
        let lines = [
            ("cmdstat_get", "calls=4,usec=8,usec_per_call=2.00,rejected_calls=0,failed_calls=1,new=7"),
            ("cmdstat_ping", "calls=10,usec=30,usec_per_call=3.00,rejected_calls=0,failed_calls=0"),
            ("cmdstat_cluster|myid", "calls=10,usec=30,usec_per_call=3.00,rejected_calls=0,failed_calls=0"),
        ];
        let mut out = String::new();
        stats(&lines.map(|(line, value)| (line, value.to_owned())), &account(), &mut out);
        let expected = "cmdstat_get:calls=4,usec=8,usec_per_call=2.00,rejected_calls=0,failed_calls=1,new=7\n\
            cmdstat_ping:calls=2,usec=6,usec_per_call=3.00,rejected_calls=0,failed_calls=0\n\
            cmdstat_config|set:calls=0,usec=0,usec_per_call=0.00,rejected_calls=1,failed_calls=0\n\
            cmdstat_echo:calls=1,usec=1,usec_per_call=1.00,rejected_calls=0,failed_calls=0\n";
        assert_eq!(out.replace("\r\n", "\n"), expected);
    }

    #[test]
    fn percentiles_are_of_what_clients_called() {
        let lines = ["get", "ping", "cluster|myid"]
            .map(|name| (format!("latency_percentiles_usec_{name}"), "p50=2.007,p99.9=3.007".to_owned()));
        let lines: Vec<(&str, String)> = lines.iter().map(|(line, value)| (line.as_str(), value.clone())).collect();
        let mut out = String::new();
        percentiles(&lines, &account(), &mut out);
        let expected = "get:p50=2.007,p99.9=3.007\nping:p50=2.007,p99.9=3.007\necho:p50=1.003,p99.9=1.003\n";
        assert_eq!(out.replace("\r\n", "\n").replace("latency_percentiles_usec_", ""), expected);
    }

    #[test]
    fn histograms_are_scaled_to_the_calls_of_clients() {
        let account = account();
        let told = vec![(1, 5), (2, 5), (8, 9), (64, 10)];
        assert_eq!(histogram("get", 10, told.clone(), &account), Some((10, vec![(1, 5), (8, 9), (64, 10)])));
        assert_eq!(histogram("ping", 10, told.clone(), &account), Some((2, vec![(1, 1), (8, 2)])));
        assert_eq!(histogram("cluster|myid", 10, told, &account), None);
        let others = other_histograms(&BTreeSet::from(["ping"]), &account);
        assert_eq!(others, [("echo", 1, vec![(1, 1)])]);
    }
}
