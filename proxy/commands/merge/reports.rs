//! What nodes report of themselves (CONFIG GET, ROLE, LATENCY, MEMORY STATS, ACL LOG), put together as one server's report.

use std::collections::BTreeSet;

use super::{
    account::Ledger,
    commands::{self, Histogram},
    elements::{self, Elements, Head},
    info::Facts,
};
use crate::protocol::resp::{Value, reply::Scanner, write};

/// The names and values of a map: one of RESP3, or an array in which they take turns.
#[derive(Clone, Debug)]
struct Pairs<'a> {
    kind: u8,
    pairs: Vec<(&'a [u8], &'a [u8])>,
}

impl<'a> Pairs<'a> {
    fn of(reply: &'a [u8]) -> Option<Pairs<'a>> {
        let head = Head::of(reply)?;
        let mut left = reply.get(head.body..)?;
        let mut next = || {
            let end = Scanner::default().find(left).ok()??;
            let (element, rest) = left.split_at_checked(end)?;
            left = rest;
            Some(element)
        };
        let mut pairs = Vec::new();
        while let Some(name) = next() {
            pairs.push((name, next()?));
        }
        Some(Pairs { kind: head.kind, pairs })
    }

    /// Appends the head of a map of the same form.
    fn head(kind: u8, count: usize, out: &mut Vec<u8>) {
        write::head(out, kind, (if kind == b'%' { count } else { 2 * count }) as i64);
    }

    fn get(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }
}

/// The names in any of several maps, in the order in which they come first.
fn names_in<'a>(maps: &[Pairs<'a>]) -> Vec<&'a [u8]> {
    let mut seen = BTreeSet::new();
    let all = maps.iter().flat_map(|map| map.pairs.iter().map(|(name, _)| *name));
    all.filter(|name| seen.insert(*name)).collect()
}

/// The bytes of a bulk or simple string.
fn text(element: &[u8]) -> Option<Vec<u8>> {
    Value::parse(element).ok()??.0.text().map(<[u8]>::to_vec)
}

/// CONFIG GET: what the proxy knows better takes the place of the node's value.
pub fn config(reply: &[u8], facts: &Facts, out: &mut Vec<u8>) -> Option<()> {
    let map = Pairs::of(reply)?;
    Pairs::head(map.kind, map.pairs.len(), out);
    for (name, value) in map.pairs {
        out.extend_from_slice(name);
        // Redis 7.0 writes a name as it was asked for.
        let known =
            text(name).and_then(|name| facts.iter().find(|(fact, _)| fact.as_bytes().eq_ignore_ascii_case(&name)));
        match known {
            Some((_, own)) => write::bulk(out, own.as_bytes()),
            None => out.extend_from_slice(value),
        }
    }
    Some(())
}

/// ROLE: whoever follows a list of replicas would read from nodes that it may not reach. Replies of other forms pass.
pub fn role(reply: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let elements: Vec<&[u8]> = Elements::of(reply)?.collect();
    match elements[..] {
        [role, offset, _] if text(role)? == b"master" => {
            write::array(out, 3);
            out.extend_from_slice(role);
            out.extend_from_slice(offset);
            write::array(out, 0);
        }
        _ => out.extend_from_slice(reply),
    }
    Some(())
}

/// LATENCY LATEST: `[event, time, latest, greatest, ...]` of each event; its latest is that of the node that had it last.
pub fn latest(replies: &[Vec<u8>], out: &mut Vec<u8>) -> Option<()> {
    let mut events: Vec<Vec<&[u8]>> = Vec::new();
    for reply in replies {
        for event in Elements::of(reply)? {
            let event: Vec<&[u8]> = Elements::of(event)?.collect();
            let number = |event: &[&[u8]], at: usize| event.get(at).and_then(|number| elements::integer(number));
            match events.iter_mut().find(|known| known.first() == event.first()) {
                Some(known) => {
                    let greatest = if number(known, 3) >= number(&event, 3) { known.get(3) } else { event.get(3) };
                    let greatest = *greatest?;
                    if number(&event, 1) > number(known, 1) {
                        *known = event;
                    }
                    *known.get_mut(3)? = greatest;
                }
                None => events.push(event),
            }
        }
    }
    write::array(out, events.len());
    for event in &events {
        write::array(out, event.len());
        event.iter().for_each(|element| out.extend_from_slice(element));
    }
    Some(())
}

/// LATENCY HISTORY: `[time, milliseconds]` of each spike.
pub fn by_time(replies: &[Vec<u8>], out: &mut Vec<u8>) -> Option<()> {
    let mut samples = Vec::new();
    for reply in replies {
        for sample in Elements::of(reply)? {
            samples.push((elements::integer(Elements::of(sample)?.next()?)?, sample));
        }
    }
    samples.sort_by_key(|(time, _)| *time);
    write::array(out, samples.len());
    samples.iter().for_each(|(_, sample)| out.extend_from_slice(sample));
    Some(())
}

/// LATENCY HISTOGRAM: by command its calls, and how many took up to so many microseconds.
pub fn histogram(replies: &[Vec<u8>], account: Option<&Ledger>, out: &mut Vec<u8>) -> Option<()> {
    let nodes = replies.iter().map(|reply| Pairs::of(reply)).collect::<Option<Vec<_>>>()?;
    let kind = nodes.first()?.kind;
    let mut told = BTreeSet::new();
    let names: Vec<(&[u8], Vec<u8>)> =
        names_in(&nodes).into_iter().map(|name| Some((name, text(name)?))).collect::<Option<_>>()?;
    let (mut entries, mut count) = (Vec::new(), 0);
    for (element, name) in &names {
        let name = std::str::from_utf8(name).ok()?;
        let known = nodes.iter().filter_map(|node| node.get(element));
        let known = known.map(Pairs::of).collect::<Option<Vec<_>>>()?;
        let values = |field: &[u8]| known.iter().filter_map(|node| node.get(field)).collect::<Vec<_>>();
        let (calls, buckets) = (sum(&values(CALLS))?, buckets(&values(BUCKETS))?);
        told.insert(name);
        let clients = match account {
            Some(account) => commands::histogram(name, calls, buckets, account),
            None => Some((calls, buckets)),
        };
        if let Some((calls, buckets)) = clients {
            commands::write_histogram(kind, name, calls, &buckets, &mut entries);
            count += 1;
        }
    }
    for (name, calls, buckets) in account.map(|account| commands::other_histograms(&told, account)).unwrap_or_default()
    {
        commands::write_histogram(kind, name, calls, &buckets, &mut entries);
        count += 1;
    }
    Pairs::head(kind, count, out);
    out.extend_from_slice(&entries);
    Some(())
}

/// The fields of a command.
const CALLS: &[u8] = b"$5\r\ncalls\r\n";
const BUCKETS: &[u8] = b"$14\r\nhistogram_usec\r\n";

fn sum(numbers: &[&[u8]]) -> Option<i64> {
    numbers.iter().try_fold(0i64, |sum, number| Some(sum.saturating_add(elements::integer(number)?)))
}

/// Counts up to each bound. A node that does not have a bound has as many up to it as up to its next lower one.
fn buckets(histograms: &[&[u8]]) -> Option<Histogram> {
    let mut nodes: Vec<Histogram> = Vec::new();
    for histogram in histograms {
        let pairs = Pairs::of(histogram)?.pairs.into_iter();
        let numbers = pairs.map(|(bound, count)| Some((elements::integer(bound)?, elements::integer(count)?)));
        nodes.push(numbers.collect::<Option<_>>()?);
    }
    let bounds: BTreeSet<i64> = nodes.iter().flatten().map(|(bound, _)| *bound).collect();
    let up_to =
        |bound: i64| move |node: &Histogram| node.iter().rev().find(|(own, _)| *own <= bound).map_or(0, |(_, n)| *n);
    Some(bounds.into_iter().map(|bound| (bound, nodes.iter().map(up_to(bound)).fold(0, i64::saturating_add))).collect())
}

/// MEMORY STATS: sizes and counts are added up, database by database too; ratios and percentages are averaged.
pub fn memory(replies: &[&[u8]], out: &mut Vec<u8>) -> Option<()> {
    let nodes = replies.iter().map(|reply| Pairs::of(reply)).collect::<Option<Vec<_>>>()?;
    let names = names_in(&nodes);
    Pairs::head(nodes.first()?.kind, names.len(), out);
    for name in names {
        out.extend_from_slice(name);
        let values: Vec<&[u8]> = nodes.iter().filter_map(|node| node.get(name)).collect();
        let average = name.windows(8).any(|part| part == b"-per-key");
        match *values.first()?.first()? {
            b':' if average => write::integer(out, sum(&values)? / values.len() as i64),
            b':' => write::integer(out, sum(&values)?),
            b'*' | b'%' => memory(&values, out)?,
            kind => mean(kind, &values, out)?,
        }
    }
    Some(())
}

/// The mean of doubles, written as the server writes them: `,` in RESP3, a bulk string in RESP2.
fn mean(kind: u8, values: &[&[u8]], out: &mut Vec<u8>) -> Option<()> {
    let numbers = values.iter().map(|value| Value::parse(value).ok()??.0.str()?.parse::<f64>().ok());
    let Some(numbers) = numbers.collect::<Option<Vec<f64>>>() else {
        out.extend_from_slice(values.first()?);
        return Some(());
    };
    let mean = (numbers.iter().sum::<f64>() / numbers.len() as f64).to_string();
    match kind {
        b',' => out.extend_from_slice(format!(",{mean}\r\n").as_bytes()),
        _ => write::bulk(out, mean.as_bytes()),
    }
    Some(())
}

/// ACL LOG: the entries of all nodes, the youngest first.
pub fn youngest(replies: &[Vec<u8>], count: usize, out: &mut Vec<u8>) -> Option<()> {
    let mut entries = Vec::new();
    for reply in replies {
        for entry in Elements::of(reply)? {
            let age = Value::parse(entry).ok()??.0.field("age-seconds")?.str()?.parse::<f64>().ok()?;
            entries.push((age, entry));
        }
    }
    entries.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    entries.truncate(count);
    write::array(out, entries.len());
    entries.iter().for_each(|(_, entry)| out.extend_from_slice(entry));
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes for people to write: words with `;` for the ends of lines.
    fn frames(texts: &[&str]) -> Vec<Vec<u8>> {
        texts.iter().map(|text| text.replace(';', "\r\n").into_bytes()).collect()
    }

    fn shown(out: Vec<u8>) -> String {
        String::from_utf8(out).unwrap().replace("\r\n", ";")
    }

    #[test]
    fn latest_events_of_all_nodes() {
        let replies = frames(&["*1;*4;$1;a;:10;:5;:9;", "*2;*4;$1;a;:12;:3;:7;*4;$1;b;:1;:1;:1;", "*0;"]);
        let mut out = Vec::new();
        latest(&replies, &mut out).unwrap();
        assert_eq!(shown(out), "*2;*4;$1;a;:12;:3;:9;*4;$1;b;:1;:1;:1;");
        let mut out = Vec::new();
        by_time(&frames(&["*1;*2;:5;:1;", "*2;*2;:3;:2;*2;:9;:4;"]), &mut out).unwrap();
        assert_eq!(shown(out), "*3;*2;:3;:2;*2;:5;:1;*2;:9;:4;");
    }

    #[test]
    fn histograms_are_cumulative() {
        let one = "%1;$3;get;%2;$5;calls;:5;$14;histogram_usec;%2;:1;:2;:4;:5;";
        let two = "%2;$3;get;%2;$5;calls;:3;$14;histogram_usec;%2;:2;:1;:8;:3;$3;set;%2;$5;calls;:1;$14;histogram_usec;%1;:1;:1;";
        let mut out = Vec::new();
        histogram(&frames(&[one, two]), None, &mut out).unwrap();
        let sum = "%2;$3;get;%2;$5;calls;:8;$14;histogram_usec;%4;:1;:2;:2;:3;:4;:6;:8;:8;$3;set;%2;$5;calls;:1;$14;histogram_usec;%1;:1;:1;";
        assert_eq!(shown(out), sum);
        // RESP2 has the same in arrays.
        let flat = |text: &str| text.replace("%1", "*2").replace("%2", "*4").replace("%4", "*8");
        let mut out = Vec::new();
        histogram(&frames(&[&flat(one), &flat(two)]), None, &mut out).unwrap();
        assert_eq!(shown(out), flat(sum));
    }

    #[test]
    fn memory_is_added_up() {
        let replies = frames(&["*8;+a;:1;+x-per-key;:4;+r;$1;1;+db.0;*2;+m;:5;", "*6;+a;:2;+x-per-key;:2;+r;$1;2;"]);
        let replies: Vec<&[u8]> = replies.iter().map(Vec::as_slice).collect();
        let mut out = Vec::new();
        memory(&replies, &mut out).unwrap();
        assert_eq!(shown(out), "*8;+a;:3;+x-per-key;:3;+r;$3;1.5;+db.0;*2;+m;:5;");
    }

    #[test]
    fn a_master_alone_with_its_own_values() {
        let mut out = Vec::new();
        role(&frames(&["*3;$6;master;:7;*1;*3;$1;h;$1;1;$1;7;"])[0], &mut out).unwrap();
        assert_eq!(shown(out), "*3;$6;master;:7;*0;");
        let mut out = Vec::new();
        let facts = vec![("port", "6380".to_owned())];
        config(&frames(&["*4;$4;PORT;$4;7000;$2;hz;$2;10;"])[0], &facts, &mut out).unwrap();
        assert_eq!(shown(out), "*4;$4;PORT;$4;6380;$2;hz;$2;10;");
    }

    #[test]
    fn the_youngest_of_all_logs() {
        let entry = |age: &str| format!("*2;$11;age-seconds;${};{age};", age.len());
        let one = format!("*2;{}{}", entry("1.5"), entry("20"));
        let two = format!("*1;{}", entry("3"));
        let mut out = Vec::new();
        youngest(&frames(&[&one, &two]), 2, &mut out).unwrap();
        assert_eq!(shown(out), format!("*2;{}{}", entry("1.5"), entry("3")));
    }
}
