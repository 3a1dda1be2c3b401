//! INFO as one standalone server would write it: counters are added up over the nodes, the worst state counts, and
//! nothing tells that there is a cluster.
//!
//! The first node's text is the model: its sections, their order, its facts about software and machine. Which line is
//! treated how goes by its section, with the exceptions listed here.

use std::collections::BTreeSet;

use super::{account::Ledger, commands, elements::Head};

/// What the proxy knows better than any node: lines by name, `connected_clients` for one.
pub type Facts = Vec<(&'static str, String)>;

/// The fact that has the lines about keys: what nodes count is not only the client's.
pub const KEYSPACE: &str = "lines of the keyspace";

/// Appends the nodes' INFO replies as one; `None` where one of them is no text.
pub fn fold(replies: &[&[u8]], facts: &Facts, account: Option<&Ledger>, out: &mut Vec<u8>) -> Option<()> {
    let texts = replies.iter().map(|reply| text_of(reply)).collect::<Option<Vec<_>>>()?;
    let text = together(&texts, facts, account);
    let verbatim = replies.first()?.first() == Some(&b'=');
    // A verbatim string begins with its format.
    let format = if verbatim { "txt:" } else { "" };
    let kind = if verbatim { b'=' } else { b'$' };
    crate::protocol::resp::write::head(out, kind, (format.len() + text.len()) as i64);
    out.extend_from_slice(format.as_bytes());
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
    Some(())
}

/// The text of a bulk or verbatim string.
fn text_of(reply: &[u8]) -> Option<&str> {
    if Head::of(reply).is_some() {
        return None;
    }
    let (&kind, rest) = reply.split_first()?;
    let end = rest.iter().position(|&byte| byte == b'\n')?;
    let text = std::str::from_utf8(rest.get(end + 1..)?.strip_suffix(b"\r\n")?).ok()?;
    match kind {
        b'$' => Some(text),
        b'=' => text.strip_prefix("txt:"),
        _ => None,
    }
}

/// Lines that are not added up where others of their section are, or the other way round.
const LIKE_THE_FIRST: &[&str] = &[
    "maxclients",
    "total_system_memory",
    "expired_stale_perc",
    "expired_keys_with_volatile_items_stale_perc",
    "io_threads_active",
];
const THE_GREATEST: &[&str] = &[
    "client_recent_max_input_buffer",
    "client_recent_max_output_buffer",
    "latest_fork_usec",
    "number_of_cached_scripts",
    "number_of_functions",
    "number_of_libraries",
    "active_defrag_running",
    "instantaneous_eventloop_duration_usec",
    "current_eviction_exceeded_time",
    "current_active_defrag_time",
    "uptime_in_seconds",
    "uptime_in_days",
    // All channels and patterns are at the one node that all publishing goes through.
    "pubsub_channels",
    "pubsub_patterns",
];
/// Lines that are one line divided by another.
const QUOTIENTS: &[(&str, &str, &str)] = &[
    ("allocator_frag_ratio", "allocator_active", "allocator_allocated"),
    ("allocator_rss_ratio", "allocator_resident", "allocator_active"),
    ("rss_overhead_ratio", "used_memory_rss", "allocator_resident"),
    ("mem_fragmentation_ratio", "used_memory_rss", "used_memory"),
    ("used_memory_peak_perc", "used_memory", "used_memory_peak"),
];
const ADDED_UP: &[&str] =
    &["rdb_changes_since_last_save", "aof_current_size", "aof_base_size", "rdb_saves", "aof_rewrites"];
/// Lines that one standalone server would write so.
const FIXED: &[(&str, &str)] = &[
    ("redis_mode", "standalone"),
    ("server_mode", "standalone"),
    ("valkey_mode", "standalone"),
    ("cluster_enabled", "0"),
    ("cluster_connections", "0"),
    ("connected_slaves", "0"),
];

fn together(texts: &[&str], facts: &Facts, account: Option<&Ledger>) -> String {
    let mut sections: Vec<Section> = Vec::new();
    for (node, text) in texts.iter().enumerate() {
        let mut at = None;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("# ") {
                let known = sections.iter().position(|section| section.name == name);
                at = Some(known.unwrap_or_else(|| {
                    sections.push(Section { name, lines: Vec::new() });
                    sections.len() - 1
                }));
            } else if let (Some((name, value)), Some(section)) =
                (line.split_once(':'), at.and_then(|at| sections.get_mut(at)))
            {
                section.add(name, value, node == 0);
            }
        }
    }
    // A server outside of a cluster has nothing to say here.
    sections.iter_mut().filter(|section| section.name == "Cluster Info").for_each(|section| section.lines.clear());
    let keyspace = facts.iter().find(|(fact, _)| *fact == KEYSPACE).map(|(_, lines)| lines);
    if keyspace.is_some() {
        sections.retain(|section| section.name != "Keysizes");
    }
    let mut text = String::new();
    for section in &sections {
        if !text.is_empty() {
            text.push_str("\r\n");
        }
        text.push_str(&format!("# {}\r\n", section.name));
        if let Some(lines) = keyspace.filter(|_| section.name == "Keyspace") {
            text.push_str(lines);
            continue;
        }
        match (section.name, account) {
            ("Commandstats", Some(account)) => {
                commands::stats(&section.folded(), account, &mut text);
                continue;
            }
            ("Latencystats", Some(account)) => {
                commands::percentiles(&section.folded(), account, &mut text);
                continue;
            }
            _ => {}
        }
        for (name, values) in &section.lines {
            let fixed = facts.iter().find(|(fact, _)| fact == name).map(|(_, value)| value.clone());
            let fixed =
                fixed.or_else(|| FIXED.iter().find(|(fact, _)| fact == name).map(|(_, value)| (*value).to_owned()));
            let value = fixed.unwrap_or_else(|| section.value(name, values));
            text.push_str(&format!("{name}:{value}\r\n"));
        }
    }
    text
}

/// The lines of a section, each with its values by node.
struct Section<'a> {
    name: &'a str,
    lines: Vec<(&'a str, Vec<&'a str>)>,
}

impl<'a> Section<'a> {
    fn add(&mut self, name: &'a str, value: &'a str, first_node: bool) {
        let replica = name.strip_prefix("slave").is_some_and(|number| number.parse::<u32>().is_ok());
        // Where replicas are is the cluster's own matter, and so is where keys are.
        if replica || matches!(name, "errorstat_MOVED" | "errorstat_ASK") {
            return;
        }
        // Several modules are several lines of one name.
        let known = self.lines.iter_mut().find(|(known, _)| *known == name && self.name != "Modules");
        match known {
            Some((_, values)) => values.push(value),
            None if first_node || is_list(self.name) => self.lines.push((name, vec![value])),
            None => {}
        }
    }

    /// Each line with its value for all nodes together.
    fn folded(&self) -> Vec<(&'a str, String)> {
        self.lines.iter().map(|(name, values)| (*name, self.value(name, values))).collect()
    }

    fn value(&self, name: &str, values: &[&str]) -> String {
        let first = values.first().copied().unwrap_or_default();
        if is_list(self.name) {
            return fields(self.name, values);
        }
        if name.ends_with("_human") {
            let bytes = self.lines.iter().find(|(other, _)| name.strip_suffix("_human") == Some(other));
            return bytes.map_or(first.to_owned(), |(name, values)| human(&self.value(name, values)));
        }
        if let Some(quotient) = self.quotient(name) {
            return quotient;
        }
        // Where one node has no limit, all of them together have none.
        if name == "maxmemory" && values.contains(&"0") {
            return "0".to_owned();
        }
        let folded = match self.name {
            _ if LIKE_THE_FIRST.contains(&name) => None,
            _ if THE_GREATEST.contains(&name) => numbers(values, f64::max),
            _ if ADDED_UP.contains(&name) => numbers(values, |a, b| a + b),
            "Clients" | "Memory" | "Stats" | "CPU" => numbers(values, |a, b| a + b),
            // Clients wait for a server that is loading; the slots of the others are served.
            "Persistence" if matches!(name, "rdb_last_save_time" | "loading" | "async_loading") => {
                numbers(values, f64::min)
            }
            "Persistence" if name.ends_with("_status") => {
                return values.iter().find(|value| **value != "ok").unwrap_or(&first).to_string();
            }
            "Persistence" => numbers(values, f64::max),
            _ => None,
        };
        folded.unwrap_or_else(|| first.to_owned())
    }
}

impl Section<'_> {
    /// The value of a line that is one of [`QUOTIENTS`].
    fn quotient(&self, name: &str) -> Option<String> {
        let (_, above, below) = QUOTIENTS.iter().find(|(quotient, ..)| *quotient == name)?;
        let sum = |name: &str| {
            let (_, values) = self.lines.iter().find(|(other, _)| *other == name)?;
            numbers(values, |a, b| a + b)?.parse::<f64>().ok()
        };
        let quotient = sum(above)? / sum(below)?.max(1.0);
        Some(if name.ends_with("_perc") { format!("{:.2}%", 100.0 * quotient) } else { format!("{quotient:.2}") })
    }
}

/// Whether each line of a section is about something that not every node may have.
fn is_list(section: &str) -> bool {
    matches!(section, "Commandstats" | "Errorstats" | "Latencystats" | "Keyspace" | "Keysizes")
}

/// Numbers folded, written with as many decimals as the first; `None` where one is no number.
fn numbers(values: &[&str], both: impl Fn(f64, f64) -> f64) -> Option<String> {
    let decimals = decimals_of(values.first()?);
    let mut values = values.iter().map(|value| value.parse::<f64>().ok());
    let mut result = values.next()??;
    for value in values {
        result = both(result, value?);
    }
    Some(format!("{result:.decimals$}"))
}

/// How many decimals a number is written with; there is no use in more than a double has.
fn decimals_of(number: &str) -> usize {
    number.split_once('.').map_or(0, |(_, decimals)| decimals.len().min(17))
}

/// Bytes as the server writes them for people.
fn human(bytes: &str) -> String {
    let bytes: f64 = bytes.parse().unwrap_or(0.0);
    let (mut number, mut unit) = (bytes, 0);
    while number >= 1024.0 && unit < 5 {
        number /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes}B"),
        _ => format!("{number:.2}{}", ["B", "K", "M", "G", "T", "P"][unit]),
    }
}

/// Values such as `calls=1,usec=2`: field by field.
fn fields(section: &str, values: &[&str]) -> String {
    let read = |value: &str, field: &str| {
        let mut fields = value.split(',').filter_map(|field| field.split_once('='));
        fields.find(|(name, _)| *name == field).and_then(|(_, number)| number.parse::<f64>().ok()).unwrap_or(0.0)
    };
    let sum = |field: &str| values.iter().map(|value| read(value, field)).sum::<f64>();
    let mut seen = BTreeSet::new();
    let names = values.iter().flat_map(|value| value.split(',')).filter_map(|field| field.split_once('='));
    let folded = names.filter(|(name, _)| seen.insert(*name)).map(|(name, number)| {
        let decimals = decimals_of(number);
        let folded = match (section, name) {
            ("Latencystats", _) => values.iter().map(|value| read(value, name)).fold(0.0, f64::max),
            (_, "usec_per_call") => sum("usec") / sum("calls").max(1.0),
            (_, "avg_ttl") => {
                let weighed = values.iter().map(|value| read(value, "avg_ttl") * read(value, "expires")).sum::<f64>();
                (weighed / sum("expires").max(1.0)).trunc()
            }
            _ => sum(name),
        };
        format!("{name}={folded:.decimals$}")
    });
    folded.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(text: &str) -> Vec<u8> {
        let text = text.replace('\n', "\r\n");
        format!("${}\r\n{text}\r\n", text.len()).into_bytes()
    }

    fn folded(texts: &[&str], facts: Facts) -> String {
        let mut out = Vec::new();
        let replies: Vec<Vec<u8>> = texts.iter().map(|text| reply(text)).collect();
        fold(&replies.iter().map(Vec::as_slice).collect::<Vec<_>>(), &facts, None, &mut out).unwrap();
        String::from_utf8(out).unwrap().replace("\r\n", "\n")
    }

    #[test]
    fn nodes_look_like_one_server() {
        let first = "# Server\nredis_mode:cluster\ntcp_port:7000\n\n# Clients\nconnected_clients:3\nmaxclients:10000\n\n\
            # Memory\nused_memory:1024\nused_memory_human:1.00K\n\n# Persistence\nrdb_last_bgsave_status:ok\n\n\
            # Stats\ninstantaneous_input_kbps:0.10\ntotal_commands_processed:5\n\n\
            # Replication\nrole:master\nconnected_slaves:1\nslave0:ip=127.0.0.1\n\n# Commandstats\n\
            cmdstat_get:calls=1,usec=4,usec_per_call=4.00\n\n# Cluster\ncluster_enabled:1\n\n\
            # Keyspace\ndb0:keys=1,expires=1,avg_ttl=100\n";
        let second = "# Server\nredis_mode:cluster\ntcp_port:7001\n\n# Clients\nconnected_clients:2\nmaxclients:1\n\n\
            # Memory\nused_memory:1024\nused_memory_human:1.00K\n\n# Persistence\nrdb_last_bgsave_status:err\n\n\
            # Stats\ninstantaneous_input_kbps:0.25\ntotal_commands_processed:7\n\n\
            # Replication\nrole:master\nconnected_slaves:0\n\n# Commandstats\n\
            cmdstat_get:calls=3,usec=4,usec_per_call=1.33\ncmdstat_set:calls=1,usec=1,usec_per_call=1.00\n\n\
            # Cluster\ncluster_enabled:1\n\n# Keyspace\ndb0:keys=2,expires=3,avg_ttl=300\n";
        let text = "# Server\nredis_mode:standalone\ntcp_port:6380\n\n# Clients\nconnected_clients:5\nmaxclients:10000\n\n\
            # Memory\nused_memory:2048\nused_memory_human:2.00K\n\n# Persistence\nrdb_last_bgsave_status:err\n\n\
            # Stats\ninstantaneous_input_kbps:0.35\ntotal_commands_processed:12\n\n\
            # Replication\nrole:master\nconnected_slaves:0\n\n# Commandstats\n\
            cmdstat_get:calls=4,usec=8,usec_per_call=2.00\ncmdstat_set:calls=1,usec=1,usec_per_call=1.00\n\n\
            # Cluster\ncluster_enabled:0\n\n# Keyspace\ndb0:keys=3,expires=4,avg_ttl=250\n";
        let said = folded(&[first, second], vec![("tcp_port", "6380".into())]);
        assert_eq!(said, format!("${}\n{text}\n", text.replace('\n', "\r\n").len()));
    }

    #[test]
    fn memory_has_a_limit_where_every_node_has_one() {
        let node = |limit: &str| format!("# Memory\nused_memory:5\nmaxmemory:{limit}\nmaxmemory_human:?\n");
        for (limits, together) in [(["10", "20"], "30\nmaxmemory_human:30B"), (["10", "0"], "0\nmaxmemory_human:0B")] {
            let said = folded(&[&node(limits[0]), &node(limits[1])], Facts::new());
            assert!(said.contains(&format!("used_memory:10\nmaxmemory:{together}\n")), "{said}");
        }
    }

    #[test]
    fn databases_that_the_first_node_lacks_are_there() {
        let said = folded(&["# Keyspace\n", "# Keyspace\ndb0:keys=2,expires=0,avg_ttl=0\n"], Facts::new());
        assert!(said.ends_with("# Keyspace\ndb0:keys=2,expires=0,avg_ttl=0\n\n"), "{said}");
    }

    #[test]
    fn nobody_waits_for_one_node_that_loads() {
        let said = folded(&["# Persistence\nloading:1\n", "# Persistence\nloading:0\n"], Facts::new());
        assert!(said.contains("loading:0\n"), "{said}");
        let sizes =
            ["# Keysizes\ndb0_distrib_strings_sizes:1=2,4=1\n", "# Keysizes\ndb0_distrib_strings_sizes:1=1,8=5\n"];
        assert!(folded(&sizes, Facts::new()).contains("sizes:1=3,4=1,8=5\n"));
    }

    #[test]
    fn numbers_of_any_length_are_numbers() {
        let long = format!("# Memory\nused_memory:0.{}\n", "1".repeat(70_000));
        assert!(folded(&[&long, &long], Facts::new()).contains("used_memory:0.2222"));
        let long = format!("# Keyspace\ndb0:keys=0.{}\n", "1".repeat(70_000));
        assert!(folded(&[&long, &long], Facts::new()).contains("keys=0.2222"));
    }

    #[test]
    fn keys_of_others_are_not_told() {
        let said = folded(&["# CPU\nx:1\n\n# Keyspace\ndb0:keys=1\n"], vec![(KEYSPACE, "db2:keys=7\r\n".to_owned())]);
        assert_eq!(said, "$38\n# CPU\nx:1\n\n# Keyspace\ndb2:keys=7\n\n");
    }

    #[test]
    fn a_verbatim_string_stays_one() {
        let mut out = Vec::new();
        let reply = b"=26\r\ntxt:# Server\r\ntcp_port:1\r\n\r\n".to_vec();
        assert_eq!(fold(&[&reply, &reply], &Facts::new(), None, &mut out), Some(()));
        assert_eq!(out, reply);
        assert_eq!(fold(&[b":1\r\n"], &Facts::new(), None, &mut out), None);
    }
}
