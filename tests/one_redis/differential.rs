//! The strongest oracle: the same random commands to one standalone server and to the proxy, and the reply bytes must
//! be equal. A family of commands is added by rows in `differential/rows.rs` and `differential/wider.rs`; what clients
//! do with their connections and with each other is in `differential/turns.rs`.

mod in_database;
mod rows;
mod turns;
mod wider;

use std::thread;

use slotway::protocol::resp::reply::Scanner;

use self::rows::{Compare, ROWS};
use crate::support::{
    Client, Cluster, Flavour, Node, Proxy, Random, Reply, Settings, Setup, Shape,
    client::{frame, show},
};

/// How many commands each run sends.
const COMMANDS: usize = 6000;
/// How many clients there are at once, and how many commands each sends.
const CLIENTS: usize = 6;
const COMMANDS_OF_EACH: usize = 1500;

for_flavours_and_versions!(compare);
for_flavours! {
    redis_several_clients_at_once: Redis => compare_at_once;
    valkey_several_clients_at_once: Valkey => compare_at_once;
}

/// One server, and the proxy before a cluster of the same servers.
struct Pair {
    oracle: Node,
    proxy: Proxy,
    cluster: Cluster,
}

impl Pair {
    fn start(flavour: Flavour) -> Pair {
        Pair::with(flavour, |settings| settings)
    }

    /// The proxy's settings as `set` has them.
    fn with(flavour: Flavour, set: impl Fn(Settings) -> Settings) -> Pair {
        let cluster = Cluster::start(Shape { flavour, ..Shape::default() });
        let oracle = Node::start(&Setup { flavour, ..Setup::default() });
        Pair { oracle, proxy: Proxy::start(set(Settings::new(cluster.seeds()))), cluster }
    }

    /// A client of each: the proxy's first.
    fn clients(&self, version: u8) -> [Client; 2] {
        let mut theirs = self.oracle.client();
        theirs.line(&format!("HELLO {version}"));
        [self.proxy.client_of(version), theirs]
    }
}

fn compare(flavour: Flavour, version: u8) {
    let pair = Pair::start(flavour);
    let mut random = Random::seeded(&format!("differential {flavour:?} RESP{version}"));
    let rows: Vec<_> = ROWS.iter().chain(wider::ROWS).copied().collect();
    send_and_compare(&pair, version, &rows, "", COMMANDS, &mut random);
    compare_scans(&pair, version, &random);
    // Few keys come at once, wherever they are.
    let [ours, theirs] = pair.clients(version).map(|mut client| {
        client.line("FLUSHALL");
        client.line("MSET a 1 b 2 c 3 d 4 e 5 f 6");
        client.line("SCAN 0")
    });
    assert_eq!(page(&ours, 1), page(&theirs, 1), "SCAN of a few keys: {ours:?}, by one server {theirs:?}");
}

/// All keys are found by SCAN with each of its options.
fn compare_scans(pair: &Pair, version: u8, random: &Random) {
    for scan in ["", " MATCH str*", " TYPE zset", " MATCH {1}* COUNT 1", " COUNT 1", " MATCH *2 TYPE hash COUNT 1000"] {
        let [ours, theirs] = pair.clients(version).map(|mut client| scanned(&mut client, scan));
        assert_eq!(ours, theirs, "SCAN 0{scan}, seed {}", random.seed);
    }
}

/// Several clients with keys of their own, all at the same time; what is about all keys is left out.
fn compare_at_once(flavour: Flavour) {
    let pair = Pair::start(flavour);
    let about_all = ["DBSIZE", "KEYS", "FLUSHALL", "FLUSHDB", "RANDOMKEY", "SCRIPT", "PUBLISH", "PUBSUB"];
    let rows: Vec<_> = ROWS.iter().chain(wider::ROWS).copied().collect();
    let rows: Vec<_> =
        rows.into_iter().filter(|(row, _)| !about_all.iter().any(|about| row.starts_with(about))).collect();
    let mut random = Random::seeded(&format!("differential {flavour:?}, several clients"));
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (pair, rows, mut random) = (&pair, &rows, Random::new(random.next()));
            let version = 2 + (number % 2) as u8;
            let prefix = format!("c{number}");
            scope.spawn(move || send_and_compare(pair, version, rows, &prefix, COMMANDS_OF_EACH, &mut random));
        }
    });
}

/// Sends random commands, with keys that begin with `prefix`, until two replies differ or `count` have been sent.
fn send_and_compare(
    pair: &Pair,
    version: u8,
    rows: &[(&str, Compare)],
    prefix: &str,
    count: usize,
    random: &mut Random,
) {
    let [mut ours, mut theirs] = pair.clients(version);
    let mut sent = 0;
    let mut recent: Vec<String> = Vec::new();
    while sent < count {
        let depth = if random.one_in(3) { 1 } else { 1 + random.below(50) };
        let commands: Vec<Command> = (0..depth).map(|_| Command::random(rows, prefix, random)).collect();
        let ours = exchange(&mut ours, commands.iter());
        // What was rightly refused is left out at the one server.
        let done: Vec<(&Command, Reply)> =
            commands.iter().zip(ours).filter(|(command, reply)| !command.crosses(reply)).collect();
        let theirs = exchange(&mut theirs, done.iter().map(|(command, _)| *command));
        for ((command, ours), theirs) in done.iter().zip(theirs) {
            let shown = show(&command.args);
            if !command.equal(ours, &theirs) {
                println!("before it:\n  {}", recent[recent.len().saturating_sub(depth + 10)..].join("\n  "));
                let mut keys = pair.clients(2).map(|mut client| client.line("KEYS *").texts());
                keys.iter_mut().for_each(|keys| keys.sort_unstable());
                println!("keys now, by the proxy: {:?}\nkeys now, by one server: {:?}", keys[0], keys[1]);
                let seed = random.seed;
                panic!(
                    "seed {seed}, command {sent} in a pipeline of {depth}: {shown}\n the proxy: {ours:?}\none server: {theirs:?}"
                );
            }
            recent.push(format!("{shown} -> {ours:?}"));
            sent += 1;
        }
    }
}

/// One command by itself, several as a pipeline.
fn exchange<'a>(client: &mut Client, commands: impl Iterator<Item = &'a Command>) -> Vec<Reply> {
    let requests: Vec<&Vec<Vec<u8>>> = commands.map(|command| &command.args).collect();
    match *requests {
        [one] => vec![client.call(one)],
        _ => client.exchange(&requests.iter().flat_map(|args| frame(args)).collect::<Vec<_>>(), requests.len()),
    }
}

/// All that SCAN finds, with `options`.
pub fn scanned(client: &mut Client, options: &str) -> std::collections::BTreeSet<String> {
    scanned_for(client, &options.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>())
}

/// Likewise, with options of any bytes.
pub fn scanned_for(client: &mut Client, options: &[&str]) -> std::collections::BTreeSet<String> {
    let mut found = std::collections::BTreeSet::new();
    let mut cursor = "0".to_owned();
    loop {
        let page = client.call(&[&["SCAN", &cursor], options].concat()).value();
        let [next, keys] = page.items() else { panic!("{page:?}") };
        found.extend(keys.items().iter().map(|key| key.str().expect("a key").to_owned()));
        cursor = next.str().expect("a cursor").to_owned();
        if cursor == "0" {
            return found;
        }
    }
}

/// The head of a reply and its elements in groups of `group`, sorted; an error or a null is its head alone.
fn sorted(reply: &[u8], group: usize) -> (Vec<u8>, Vec<Vec<u8>>) {
    let (head, rest) = reply.split_at(end_of_line(reply));
    let mut groups: Vec<Vec<u8>> = elements(rest).chunks(group).map(<[&[u8]]>::concat).collect();
    groups.sort_unstable();
    (head.to_vec(), groups)
}

/// The cursor of a page and what is in it, sorted; an error as it is.
fn page(reply: &Reply, group: usize) -> (Vec<u8>, Vec<Vec<u8>>) {
    match *elements(&reply.0[end_of_line(&reply.0)..]) {
        [cursor, found] => (cursor.to_vec(), sorted(found, group).1),
        _ => (reply.0.clone(), Vec::new()),
    }
}

fn end_of_line(reply: &[u8]) -> usize {
    reply.iter().position(|&byte| byte == b'\n').map_or(reply.len(), |end| end + 1)
}

fn elements(mut rest: &[u8]) -> Vec<&[u8]> {
    let mut elements = Vec::new();
    while !rest.is_empty() {
        match Scanner::default().find(rest) {
            Ok(Some(end)) => {
                elements.push(&rest[..end]);
                rest = &rest[end..];
            }
            _ => {
                // A bulk string's text.
                elements.push(rest);
                rest = &[];
            }
        }
    }
    elements
}

struct Command {
    args: Vec<Vec<u8>>,
    compare: Compare,
    mutated: bool,
}

impl Command {
    fn random(rows: &[(&str, Compare)], prefix: &str, random: &mut Random) -> Command {
        let &(row, compare) = random.pick(rows);
        // All tagged keys of one command lie in one slot.
        let tag = random.below(3);
        let mut args: Vec<Vec<u8>> = row.split(' ').map(|word| fill(word, tag, prefix, random)).collect();
        let mutation = random.below(60);
        // COMMAND alone lists all commands, in no defined order; others alone choose by chance.
        let fixed = ["COMMAND", "SPOP", "HRANDFIELD", "SRANDMEMBER", "SCAN", "HELLO", "CLIENT", "TIME"];
        let fixed = fixed.iter().any(|name| name.as_bytes() == args[0]);
        match mutation {
            0 | 1 if fixed => {}
            0 if args.len() > 1 => drop(args.pop()),
            1 => args.extend(args.last().cloned()),
            2 => args[0] = args[0].to_ascii_lowercase(),
            _ => {}
        }
        Command { args, compare, mutated: mutation < 2 }
    }

    /// Whether it was rightly refused since its keys are in several slots: with an argument too many, a value may be
    /// taken for a key, by a node of a cluster too.
    fn crosses(&self, reply: &Reply) -> bool {
        (self.mutated || matches!(self.compare, Compare::UnlessCrossing)) && reply.0.starts_with(b"-CROSSSLOT")
    }

    fn equal(&self, ours: &Reply, theirs: &Reply) -> bool {
        match self.compare {
            Compare::Bytes | Compare::UnlessCrossing => ours == theirs,
            Compare::Set => sorted(&ours.0, 1) == sorted(&theirs.0, 1),
            Compare::Pairs => sorted(&ours.0, 2) == sorted(&theirs.0, 2),
            Compare::Page(group) => page(ours, group) == page(theirs, group),
            Compare::Kind => ours.0.first() == theirs.0.first(),
        }
    }
}

/// The families of keys that hold values of one kind, unless a command makes something else of one.
const FAMILIES: &[&str] = &["str", "list", "hash", "set", "zset", "stream", "geo", "hll", "bits"];

/// The bytes that a word of a row stands for.
fn fill(word: &str, tag: usize, prefix: &str, random: &mut Random) -> Vec<u8> {
    let family = |family: &str, random: &mut Random| match FAMILIES.contains(&family) && random.one_in(40) {
        true => random.pick(FAMILIES).to_string(),
        false => family.to_owned(),
    };
    let text = match word.split_at_checked(1) {
        Some(("$", name)) if random.one_in(3) => {
            format!("{prefix}{{{}}}{}{}", random.below(3), family(name, random), random.below(3))
        }
        Some(("$", name)) => format!("{prefix}{}{}", family(name, random), random.below(5)),
        Some(("%", name)) => format!("{prefix}{{{tag}}}{}{}", family(name, random), random.below(3)),
        Some(("?", "v")) => match random.below(8) {
            0 => String::new(),
            1 => "a\r\nb\0c".to_owned(),
            2 => "long".repeat(random.below(100)),
            3 => {
                return {
                    let length = random.below(30);
                    random.bytes(length)
                };
            }
            4 | 5 => random.below(1000).to_string(),
            _ => format!("value{}", random.below(50)),
        },
        Some(("?", "i")) => match random.below(12) {
            0 => "-1".to_owned(),
            1 => "0".to_owned(),
            2 => format!("-{}", random.below(20)),
            3 => "notanumber".to_owned(),
            _ => random.below(20).to_string(),
        },
        Some(("?", "n")) => (1 + random.below(5)).to_string(),
        Some(("?", "f")) => match random.below(12) {
            0 => "inf".to_owned(),
            1 => "-inf".to_owned(),
            2 => "nan".to_owned(),
            3 => "(3".to_owned(),
            _ => format!("{}.{}", random.below(40) as i64 - 20, random.below(100)),
        },
        Some(("?", "m")) => format!("member{}", random.below(12)),
        Some(("?", "lon")) => format!("{}.{}", random.below(360) as i64 - 180, random.below(100)),
        Some(("?", "lat")) => format!("{}.{}", random.below(160) as i64 - 80, random.below(100)),
        Some(("?", "id")) => format!("{}-{}", random.below(200), random.below(10)),
        Some(("?", "lex")) => format!("{}{}", random.pick(&["[", "("]), random.pick(&["member1", "member5", "a", "z"])),
        _ => match word.split_once('?') {
            Some((before, after)) if !before.is_empty() && !after.is_empty() => {
                return [before.as_bytes(), &fill(&format!("?{after}"), tag, prefix, random)].concat();
            }
            _ => word.replace('~', " "),
        },
    };
    text.into_bytes()
}

/// A test for each row; one of a flavour that is not here says so, and passes.
macro_rules! for_flavours {
    ($($name:ident: $flavour:ident => $check:expr;)+) => {$(
        #[test]
        fn $name() {
            let flavour = $crate::support::Flavour::$flavour;
            if flavour.is_here(concat!(module_path!(), "::", stringify!($name))) {
                $check(flavour);
            }
        }
    )+};
}

/// A test for each flavour and version of the protocol.
macro_rules! for_flavours_and_versions {
    ($check:ident) => {
        $crate::one_redis::differential::for_flavours! {
            redis_resp2: Redis => |flavour| $check(flavour, 2);
            redis_resp3: Redis => |flavour| $check(flavour, 3);
            valkey_resp2: Valkey => |flavour| $check(flavour, 2);
            valkey_resp3: Valkey => |flavour| $check(flavour, 3);
        }
    };
}

use {for_flavours, for_flavours_and_versions};
