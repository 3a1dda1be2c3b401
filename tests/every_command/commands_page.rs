//! The page of all commands, `config/commands.md`: made from what real servers say of their commands and from what the
//! proxy makes of them.
//!
//! It is made by
//! `SLOTWAY_TEST_VALKEY=<valkey-server 9.1> cargo test --test integration -- --ignored write_the_page_of_commands`
//! with Redis 7.0.15 as `redis-server`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use slotway::{
    cluster::explain,
    commands::table::{CommandTable, Flags, Spec, Treatment, differences, in_database::InDatabase, refused},
    protocol::resp::Value,
};

use super::keys::documented_servers;

/// Where the page is kept.
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/commands.md");

const HEAD: &str = "\
# Every command, and how it is served

All commands of Redis 7.0.15 and Valkey 9.1. This page is made from the servers' own `COMMAND` (see
`tests/every_command/commands_page.rs`), and a test keeps it true. A command that is not here, of a newer server or a module, is
served by what its server says of it.

- *Served by* is where a request goes and, where several nodes answer, how their replies become one. \"Primary\" is a
  node that owns slots.
- *Unlike one Redis* says where a client could notice a difference. Where nothing stands, replies are byte for byte
  those of one server; what is refused says why, and is reached by `PROXY NODE <host:port> <command>`.
- `deny` in the configuration refuses more commands, `allow` lets refused ones through: by the names of this page.
- `PROXY EXPLAIN <command>` says it for one request, with its keys, slots and nodes.
";

/// The servers' groups in the order of the page, and what they are called there.
const GROUPS: &[(&str, &str)] = &[
    ("generic", "Keys"),
    ("string", "Strings"),
    ("hash", "Hashes"),
    ("list", "Lists"),
    ("set", "Sets"),
    ("sorted-set", "Sorted sets"),
    ("stream", "Streams"),
    ("bitmap", "Bitmaps"),
    ("geo", "Places"),
    ("hyperloglog", "HyperLogLogs"),
    ("pubsub", "Publish and subscribe"),
    ("transactions", "Transactions"),
    ("scripting", "Scripts and functions"),
    ("connection", "Connections"),
    ("server", "Server"),
    ("cluster", "Cluster"),
    ("proxy", "The proxy's own"),
];

/// What stands above the table of lost primaries.
const LOST: &str = "
## While a primary is lost

A node that is killed, frozen or cut off, and has no replica, costs the keys in its own slots. What is not about keys is
answered by another node; where all have to be asked, this is what becomes of it. Nobody waits for the lost node where it
is not needed: at once where it refuses connections, else half a second after the others have answered (a second, where a
connection of one's own has to be made).

| Command | With one primary lost |
| --- | --- |
";

/// What stands above the table of busy primaries.
const BUSY: &str = "
## While a script runs for long on a primary

What has a key there, or is put together from all primaries, is told BUSY, as by one Redis. What changes all of them is
begun only when all of them listen.

| Command | With one primary busy |
| --- | --- |
";

/// What stands above the table of databases.
const INSIDE: &str = "
## In a database of its own

Where `database` or SELECT gives a client a database in one slot, no key is in another slot, and what stands above about slots does
not concern it: commands are as on one server, whole and at one moment, but for these. A command that is not on this page is
refused there.

| Command | In a database of its own |
| --- | --- |
";

/// Lists in README and the configuration are written by hand. A paragraph of theirs, or a row of a table, has all names.
#[test]
fn what_is_split_is_named_wherever_users_read_of_it() {
    let table = CommandTable::builtin();
    let split: Vec<&Spec> = table.rows().iter().filter(|spec| matches!(spec.treatment, Treatment::Split(_))).collect();
    for spec in &split {
        assert!(differences::of(&spec.name).is_some(), "{} has no sentence in differences.rs", spec.name);
        assert_eq!(spec.in_database, InDatabase::Keys, "{} is not in in_database/names.rs", spec.name);
    }
    let named = |all: &[&Spec]| all.iter().map(|spec| spec.name.to_uppercase()).collect::<Vec<String>>();
    let from_replicas: Vec<&Spec> = split.iter().copied().filter(|spec| spec.reads_key_by_key()).collect();
    for page in ["README.md", "config/slotway.toml"] {
        let text = fs::read_to_string(format!("{}/{page}", env!("CARGO_MANIFEST_DIR"))).expect("a page");
        let paragraphs: Vec<&str> = text.split("\n\n").flat_map(|part| part.split("\n|")).collect();
        let says = |about: &str, names: &[String]| {
            paragraphs.iter().any(|text| text.contains(about) && names.iter().all(|name| text.contains(name.as_str())))
        };
        assert!(says("split", &named(&split)), "{page} does not say that all these are split: {:?}", named(&split));
        let names = named(&from_replicas);
        assert!(says("replica", &names), "{page} does not say that replicas answer all these: {names:?}");
    }
}

#[test]
fn the_page_of_commands_is_what_servers_say() {
    let Some(page) = page_of_servers("the_page_of_commands_is_what_servers_say") else { return };
    let kept = fs::read_to_string(PAGE).expect("the page");
    for (kept, page) in kept.lines().zip(page.lines()) {
        assert_eq!(kept, page, "see the head of tests/every_command/commands_page.rs for how the page is made");
    }
    assert_eq!(kept, page);
}

#[test]
#[ignore = "writes config/commands.md"]
fn write_the_page_of_commands() {
    let page = page_of_servers("write_the_page_of_commands").expect("Redis 7.0.15 and Valkey 9.1");
    fs::write(PAGE, page).expect("the page written");
}

/// What can be told without the servers: that the page has what the proxy makes of each command of its built-in table.
#[test]
fn the_page_of_commands_has_every_row_of_the_builtin_table() {
    let kept = fs::read_to_string(PAGE).expect("the page");
    let lines: BTreeSet<&str> = kept.lines().map(|line| line.trim_end()).collect();
    for spec in CommandTable::builtin().rows().iter().filter(|spec| is_shown(spec)) {
        let any = ["", " (Redis)", " (Valkey)"].iter().any(|only| lines.contains(&*line(spec, only)));
        assert!(any, "not in config/commands.md: {}", line(spec, ""));
    }
}

#[test]
fn every_difference_is_of_a_known_command() {
    let table = CommandTable::builtin();
    let mut seen = BTreeSet::new();
    for name in differences::names() {
        assert!(table.rows().iter().any(|spec| *spec.name == *name), "{name} is no command");
        assert!(seen.insert(name), "{name} has two differences");
    }
}

/// Commands for administrators that are served: each has been thought of. What is new to this list and can hurt a node
/// or the cluster belongs to what is refused (`proxy/commands/table/refused.rs`).
const SERVED_TO_ADMINISTRATORS: &[&str] = &[
    "acl|dryrun",
    "acl|getuser",
    "acl|list",
    "acl|log",
    "acl|users",
    "bgrewriteaof",
    "bgsave",
    "client|kill",
    "client|list",
    "client|no-evict",
    "client|pause",
    "client|unblock",
    "client|unpause",
    "cluster|count-failure-reports",
    "cluster|getslotmigrations",
    "cluster|replicas",
    "cluster|slaves",
    "commandlog|get",
    "commandlog|len",
    "commandlog|reset",
    "config|get",
    "config|resetstat",
    "config|set",
    "debug",
    "latency|doctor",
    "latency|graph",
    "latency|histogram",
    "latency|history",
    "latency|latest",
    "latency|reset",
    "module|list",
    "monitor",
    "pfdebug",
    "pfselftest",
    "slowlog|get",
    "slowlog|len",
    "slowlog|reset",
];

#[test]
fn every_command_for_administrators_has_been_thought_of() {
    let table = CommandTable::builtin();
    let served = table.rows().iter().filter(|spec| spec.flags.has(Flags::ADMIN) && spec.refused.is_none());
    let served: Vec<&str> = served.map(|spec| &*spec.name).collect();
    assert_eq!(served, SERVED_TO_ADMINISTRATORS);
    // Subcommands that are new to the proxy may change what others share.
    for name in ["cluster|frob", "client|frob"] {
        assert!(refused::why(name).is_some(), "{name}");
    }
}

/// The page, or `None` where the very servers are not here.
fn page_of_servers(test: &str) -> Option<String> {
    let mut rows: BTreeMap<String, (Spec, Vec<&'static str>)> = BTreeMap::new();
    let mut groups: BTreeMap<String, String> = BTreeMap::new();
    for (node, only) in documented_servers(test)?.iter().zip([" (Redis)", " (Valkey)"]) {
        let table = CommandTable::learn(&node.line("COMMAND").value()).expect("a table");
        for spec in table.rows().iter().filter(|spec| is_shown(spec)) {
            let shown = spec.name.replace('|', " ");
            let (row, servers) = rows.entry(shown).or_insert((spec.clone(), Vec::new()));
            *row = spec.clone();
            servers.push(only);
        }
        groups.extend(groups_of(&node.line("COMMAND DOCS").value()));
    }
    let mut page = HEAD.to_owned();
    for (group, title) in GROUPS {
        page.push_str(&format!("\n## {title}\n\n| Command | Served by | Unlike one Redis |\n| --- | --- | --- |\n"));
        for (name, (spec, servers)) in &rows {
            let command = name.split(' ').next().unwrap_or_default();
            let own = groups.get(command).map_or("proxy", String::as_str);
            if own == *group {
                let only = if servers.len() == 1 { servers[0] } else { "" };
                page.push_str(&format!("{}\n", line(spec, only)));
            }
        }
    }
    for head in [LOST, BUSY] {
        page.push_str(head);
        let words = |spec: &Spec| if head == LOST { spec.when_lost.words() } else { spec.when_busy.words() };
        for (name, (spec, servers)) in rows.iter().filter(|(_, (spec, _))| spec.refused.is_none()) {
            if let Some(words) = words(spec) {
                let only = if servers.len() == 1 { servers[0] } else { "" };
                page.push_str(&format!("| `{}`{only} | {words} |\n", name.to_ascii_uppercase()));
            }
        }
    }
    page.push_str(INSIDE);
    for (name, (spec, servers)) in rows.iter().filter(|(_, (spec, _))| spec.refused.is_none()) {
        if let Some(words) = spec.in_database.words(spec) {
            let only = if servers.len() == 1 { servers[0] } else { "" };
            page.push_str(&format!("| `{}`{only} | {words} |\n", name.to_ascii_uppercase()));
        }
    }
    let strange: BTreeSet<&String> =
        groups.values().filter(|group| GROUPS.iter().all(|(known, _)| known != group)).collect();
    assert!(strange.is_empty(), "groups that the page does not know: {strange:?}");
    Some(page)
}

/// The group of each command, as `COMMAND DOCS` has it.
fn groups_of(docs: &Value) -> BTreeMap<String, String> {
    let pairs = docs.items().chunks_exact(2);
    let groups =
        pairs.filter_map(|pair| Some((pair[0].str()?.to_ascii_lowercase(), pair[1].field("group")?.str()?.to_owned())));
    groups.collect()
}

/// Of a command with subcommands, they are what is called.
fn is_shown(spec: &Spec) -> bool {
    !spec.container || spec.takes(1)
}

fn line(spec: &Spec, only: &str) -> String {
    let name = spec.name.replace('|', " ").to_ascii_uppercase();
    let note = differences::of(&spec.name).map_or(String::new(), |note| format!("{note} "));
    format!("| `{name}`{only} | {} | {note}|", explain::treatment(spec)).trim_end().to_owned()
}
