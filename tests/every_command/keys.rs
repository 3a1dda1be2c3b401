//! What we know of commands against what real servers say: where keys are (`COMMAND GETKEYS`), and the built-in table.
//!
//! The built-in table `proxy/commands/table/table.txt` is made by
//! `SLOTWAY_TEST_VALKEY=<valkey-server 9.1> cargo test --test integration -- --ignored write_the_builtin_table`
//! with Redis 7.0.15 as `redis-server`.

use std::collections::BTreeMap;

use slotway::{
    commands::table::{
        CommandTable, Keys, Spec,
        command_info::{Begin, Find, KeyFlags},
        listing,
    },
    protocol::resp::request::Parser,
};

use crate::support::{Flavour, Node, Random, Setup, client::frame};

/// Where the built-in table is kept.
const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/proxy/commands/table/table.txt");
/// How many random requests of each command are compared.
const REQUESTS: usize = 60;
/// The words that random requests are made of: keys, numbers of keys, and what looks like an option.
const WORDS: &[&str] = &[
    "a",
    "b",
    "{c}d",
    "key",
    "",
    "0",
    "1",
    "2",
    "3",
    "4",
    "-1",
    "STORE",
    "store",
    "STOREDIST",
    "STREAMS",
    "streams",
    "BLOCK",
    "COUNT",
    "GROUP",
    "NOACK",
    "LIMIT",
    "GET",
    "BY",
    "KEYS",
    "AUTH",
    "AUTH2",
    "WEIGHTS",
    "m",
    "NX",
    "EX",
];

#[test]
fn our_keys_are_those_of_redis() {
    compare_keys(Flavour::Redis);
}

#[test]
fn our_keys_are_those_of_valkey() {
    if Flavour::Valkey.is_here("our_keys_are_those_of_valkey") {
        compare_keys(Flavour::Valkey);
    }
}

fn compare_keys(flavour: Flavour) {
    let node = Node::start(&Setup { flavour, ..Setup::default() });
    let mut client = node.client();
    let table = CommandTable::learn(&client.line("COMMAND").value()).expect("a table");
    let mut random = Random::seeded("keys");
    let (mut compared, mut with_keys) = (0, 0);
    for spec in table.rows().iter().filter(|spec| can_be_compared(spec)) {
        let requests: Vec<Vec<String>> = (0..REQUESTS).map(|_| request_of(spec, &mut random)).collect();
        let asked: Vec<Vec<&str>> = requests
            .iter()
            .map(|words| ["COMMAND", "GETKEYS"].into_iter().chain(words.iter().map(String::as_str)).collect())
            .collect();
        for (words, reply) in requests.iter().zip(client.pipeline(&asked)) {
            // An error says that there are no keys, or that there is no telling.
            let mut theirs = match words.as_slice() {
                // Except where a list of keys that may be empty is: the server's routing knows the target.
                [name, target] if name == "pfmerge" => vec![target.clone()],
                _ if reply.is_error() => Vec::new(),
                _ => reply.texts(),
            };
            let mut ours = keys_of(&table, words);
            theirs.sort();
            ours.sort();
            assert_eq!(ours, theirs, "{words:?}: {reply:?}");
            compared += 1;
            with_keys += usize::from(!theirs.is_empty());
        }
    }
    assert!(compared > 9000 && with_keys > compared / 2, "{with_keys} of {compared} requests had keys");
}

/// A channel is a key to us, since it goes by slot, but not to COMMAND GETKEYS.
fn can_be_compared(spec: &Spec) -> bool {
    spec.has_keys() && !spec.keys.iter().any(|keys| keys.flags.has(KeyFlags::NOT_KEY))
}

/// A request of this command. Those that end their options with a keyword are well formed, since COMMAND GETKEYS takes the
/// first such word for it, wherever it stands, while the server's routing does not.
pub fn request_of(spec: &Spec, random: &mut Random) -> Vec<String> {
    let options: &[&[&str]] = match &*spec.name {
        "xread" => &[&[], &["COUNT 1", "BLOCK 5"], &["STREAMS a 0", "streams a b 0 $"]],
        "xreadgroup" => &[&["GROUP g c"], &["COUNT 1", "block 5", "NOACK"], &["STREAMS a >", "STREAMS a b {c}d > > 0"]],
        "georadius" => &[&["a 1 2 3 m"], &["WITHDIST", "COUNT 2"], &["", "STORE b", "storedist b"]],
        "georadiusbymember" => &[&["a b 3 m"], &["ASC", "COUNT 2 ANY"], &["", "STORE b", "STOREDIST b"]],
        "migrate" => &[&["h 1 a 0 9", "h 1  0 9"], &["COPY", "AUTH KEYS", "REPLACE"], &["KEYS a b"]],
        _ => return random_request(spec, random),
    };
    let mut line = spec.name.to_string();
    for (place, choices) in options.iter().enumerate() {
        // A MIGRATE of one named key has no list of keys.
        let none = choices.is_empty() || (place == 2 && line.contains(" h 1 a ")) || (place == 1 && random.one_in(2));
        let choice = if none { "" } else { *random.pick(choices) };
        if !choice.is_empty() {
            line = format!("{line} {choice}");
        }
    }
    line.split(' ').map(str::to_owned).collect()
}

/// A request with the right number of arguments; half of them with a likely number of keys and a likely keyword.
fn random_request(spec: &Spec, random: &mut Random) -> Vec<String> {
    let mut words: Vec<String> = spec.name.split('|').map(str::to_owned).collect();
    let least = spec.arity.unsigned_abs() as usize;
    let count = if spec.arity < 0 { least + random.below(7) } else { least };
    words.extend((words.len()..count).map(|_| (*random.pick(WORDS)).to_owned()));
    if random.one_in(2) {
        return words;
    }
    for keys in &spec.keys {
        let (at, word) = match (&keys.begin, keys.find) {
            (Begin::Index(index), Find::Count { count_at, .. }) => ((index + count_at) as usize, "2"),
            (Begin::Keyword { word, from: 1.. }, _) => (1 + random.below(words.len() - 1), &**word),
            _ => continue,
        };
        if let Some(place) = words.get_mut(at) {
            *place = word.to_owned();
        }
    }
    words
}

fn keys_of(table: &CommandTable, words: &[String]) -> Vec<String> {
    let bytes = frame(words);
    let mut parser = Parser::default();
    let found = parser.find(&bytes).expect("well formed").expect("whole");
    let request = parser.request(&bytes, found);
    let spec = table.find(&request).expect("a row");
    let mut keys = Vec::new();
    assert_ne!(spec.keys_of(&request, &mut keys), Keys::AskServer, "{words:?}");
    keys.iter().map(|&index| words[index].clone()).collect()
}

#[test]
fn both_protocols_teach_the_same() {
    for flavour in [Flavour::Redis, Flavour::Valkey] {
        if !flavour.is_here("both_protocols_teach_the_same") {
            continue;
        }
        let node = Node::start(&Setup { flavour, ..Setup::default() });
        let mut client = node.client();
        let resp2 = CommandTable::learn(&client.line("COMMAND").value()).expect("a table");
        client.line("HELLO 3");
        let resp3 = CommandTable::learn(&client.line("COMMAND").value()).expect("a table");
        assert_eq!(resp2.rows(), resp3.rows());
        assert!(resp2.rows().len() > 300);
    }
}

#[test]
fn the_builtin_table_is_what_servers_say() {
    let Some(lines) = lines_of_servers("the_builtin_table_is_what_servers_say") else { return };
    let kept = std::fs::read_to_string(TABLE).expect("the built-in table");
    let kept: Vec<&str> = kept.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(kept, lines, "see the head of tests/every_command/keys.rs for how the table is made");
}

#[test]
#[ignore = "writes proxy/commands/table/table.txt"]
fn write_the_builtin_table() {
    let lines = lines_of_servers("write_the_builtin_table").expect("Redis 7.0.15 and Valkey 9.1");
    let head = "# The union of COMMAND of Redis 7.0.15 and Valkey 9.1; where both have a row, Valkey's. Made by tests/every_command/keys.rs.";
    std::fs::write(TABLE, format!("{head}\n{}\n", lines.join("\n"))).expect("the table written");
}

/// One server each of Redis 7.0.15 and Valkey 9.1, whose commands are documented; `None` where one of them is not here.
pub fn documented_servers(test: &str) -> Option<[Node; 2]> {
    let start = |flavour: Flavour, field: &str, version: &str| {
        if !flavour.is_here(test) {
            return None;
        }
        let node = Node::start(&Setup { flavour, ..Setup::default() });
        let found = node.info(field);
        if !found.starts_with(version) {
            eprintln!("SKIPPED {test}: {flavour:?} is {found}, not {version}");
            return None;
        }
        Some(node)
    };
    Some([start(Flavour::Redis, "redis_version", "7.0.15")?, start(Flavour::Valkey, "valkey_version", "9.1.")?])
}

/// The rows of Valkey 9.1 and what Redis 7.0.15 has beyond them; `None` where those very servers are not here.
fn lines_of_servers(test: &str) -> Option<Vec<String>> {
    let mut rows = BTreeMap::new();
    for node in documented_servers(test)? {
        for line in listing(&node.line("COMMAND").value()).expect("a table") {
            rows.insert(line.split('\t').next().unwrap_or_default().to_owned(), line);
        }
    }
    Some(rows.into_values().collect())
}
