//! The strongest oracle: the same random commands to one standalone server and to the proxy, and the reply bytes must
//! be equal. A family of commands is added by rows in `differential/rows.rs`.

mod rows;

use slotway::resp::reply::Scanner;

use self::rows::{Compare, ROWS};
use crate::support::{Client, Cluster, Flavour, Node, Proxy, Random, Reply, Settings, Setup, Shape, client::show};

/// How many commands each run sends.
const COMMANDS: usize = 6000;

#[test]
fn redis_resp2() {
    compare(Flavour::Redis, 2);
}

#[test]
fn redis_resp3() {
    compare(Flavour::Redis, 3);
}

#[test]
fn valkey_resp2() {
    if Flavour::Valkey.is_here("differential::valkey_resp2") {
        compare(Flavour::Valkey, 2);
    }
}

#[test]
fn valkey_resp3() {
    if Flavour::Valkey.is_here("differential::valkey_resp3") {
        compare(Flavour::Valkey, 3);
    }
}

fn compare(flavour: Flavour, version: u8) {
    let cluster = Cluster::start(Shape { flavour, ..Shape::default() });
    let oracle = Node::start(&Setup { flavour, ..Setup::default() });
    let proxy = Proxy::start(Settings::new(cluster.seeds()));
    let mut random = Random::seeded(&format!("differential {flavour:?} RESP{version}"));
    let (mut ours, mut theirs) = (proxy.client_of(version), oracle.client());
    theirs.line(&format!("HELLO {version}"));
    let mut sent = 0;
    let mut recent: Vec<String> = Vec::new();
    while sent < COMMANDS {
        let count = if random.one_in(3) { 1 } else { 1 + random.below(50) };
        let commands: Vec<Command> = (0..count).map(|_| Command::random(&mut random)).collect();
        let requests: Vec<Vec<Vec<u8>>> = commands.iter().map(|command| command.args.clone()).collect();
        let replies = exchange(&mut ours, &requests).into_iter().zip(exchange(&mut theirs, &requests));
        for (command, (ours, theirs)) in commands.iter().zip(replies) {
            let shown = show(&command.args);
            let equal = match command.compare {
                Compare::Bytes => ours == theirs,
                Compare::Set => sorted(&ours, 1) == sorted(&theirs, 1),
                Compare::Pairs => sorted(&ours, 2) == sorted(&theirs, 2),
            };
            assert!(
                equal,
                "seed {}, command {sent} in a pipeline of {count}: {shown}\n the proxy: {ours:?}\none server: {theirs:?}\nbefore it:\n  {}",
                random.seed,
                recent.iter().rev().take(12).rev().cloned().collect::<Vec<_>>().join("\n  ")
            );
            recent.push(format!("{shown} -> {ours:?}"));
            sent += 1;
        }
    }
}

fn exchange(client: &mut Client, requests: &[Vec<Vec<u8>>]) -> Vec<Reply> {
    match requests {
        [one] => vec![client.call(one)],
        many => client.pipeline(many),
    }
}

/// The head of a reply and its elements in groups of `group`, sorted; an error or a null is its head alone.
fn sorted(reply: &Reply, group: usize) -> (Vec<u8>, Vec<Vec<u8>>) {
    let head = reply.0.iter().position(|&byte| byte == b'\n').map_or(reply.0.len(), |end| end + 1);
    let (head, mut rest) = reply.0.split_at(head);
    let mut elements: Vec<&[u8]> = Vec::new();
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
    let mut groups: Vec<Vec<u8>> = elements.chunks(group).map(<[&[u8]]>::concat).collect();
    groups.sort_unstable();
    (head.to_vec(), groups)
}

struct Command {
    args: Vec<Vec<u8>>,
    compare: Compare,
}

impl Command {
    fn random(random: &mut Random) -> Command {
        let &(row, compare) = random.pick(ROWS);
        // All tagged keys of one command lie in one slot.
        let tag = random.below(3);
        let mut args: Vec<Vec<u8>> = row.split(' ').map(|word| fill(word, tag, random)).collect();
        match random.below(60) {
            0 if args.len() > 1 => drop(args.pop()),
            1 => args.extend(args.last().cloned()),
            2 => args[0] = args[0].to_ascii_lowercase(),
            _ => {}
        }
        Command { args, compare }
    }
}

/// The bytes that a word of a row stands for.
fn fill(word: &str, tag: usize, random: &mut Random) -> Vec<u8> {
    let text = match word.split_at_checked(1) {
        Some(("$", family)) if random.one_in(3) => format!("{{{}}}{family}{}", random.below(3), random.below(3)),
        Some(("$", family)) => format!("{family}{}", random.below(5)),
        Some(("%", family)) => format!("{{{tag}}}{family}{}", random.below(3)),
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
        _ => word.replace('~', " "),
    };
    text.into_bytes()
}
