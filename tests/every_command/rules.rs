//! What rules allow is what servers allow by the same rules: every command of their tables, with random keys, judged here and by
//! ACL DRYRUN.

use std::sync::Arc;

use slotway::{
    commands::{
        rules::{Refusal, RefusalContext, Rights, Rules},
        table::{CommandTable, Spec},
    },
    protocol::resp::request::Parser,
};

use super::keys::request_of;
use crate::support::{Flavour, Node, Random, Setup, client::frame};

/// Requests of each command by each of the rules.
const REQUESTS: usize = 12;

const RULES: &[&str] = &[
    "",
    "+@all ~* &*",
    "+@all",
    "~a ~{c}* +@read",
    "~a ~b &news.* +@all -@dangerous",
    "%R~a %W~b %RW~key +@all &a",
    "%R~* %W~a +@all &b*",
    "%W~* +@write +@pubsub &*",
    "allkeys +@read -@slow +@admin -config +config|get &a",
    "allkeys allchannels +@all -@admin +client -client|kill +acl|whoami -get -sort",
    "+@connection +@transaction +select|0 +set|a ~a",
    "+get ~a (+set ~b) (+@hash %R~key)",
    "nocommands +@string +@bitmap -@read ~*",
    "+@slow -@scripting +@keyspace ~key ~1 ~STORE",
    "~* +@list +@blocking +@stream +@geo +@hyperloglog +@sortedset +@set +@hash",
];

#[test]
fn what_rules_allow_is_what_redis_allows() {
    compare(Flavour::Redis);
}

#[test]
fn what_rules_allow_is_what_valkey_allows() {
    if Flavour::Valkey.is_here("what_rules_allow_is_what_valkey_allows") {
        compare(Flavour::Valkey);
    }
}

fn compare(flavour: Flavour) {
    let node = Node::start(&Setup { flavour, ..Setup::default() });
    let mut client = node.client();
    let table = Arc::new(CommandTable::learn(&client.line("COMMAND").value()).expect("a table"));
    let is_old = flavour == Flavour::Redis && node.info("redis_version").starts_with("7.0");
    let mut random = Random::seeded("rules");
    let (mut refused, mut allowed) = (0, 0);
    for (number, text) in RULES.iter().enumerate() {
        let user = format!("user{number}");
        let reply = client.line(format!("ACL SETUSER {user} on >secret {text}").trim_end());
        assert_eq!(reply, "+OK\r\n", "{text}");
        let rights = Rights::of(&Arc::new(Rules::parse(text).expect(text)), &table);
        for spec in table.rows().iter().filter(|spec| !spec.container && !spec.is_own()) {
            let requests: Vec<Vec<String>> = (0..REQUESTS).map(|_| words_of(spec, &mut random)).collect();
            let asked: Vec<Vec<&str>> = requests
                .iter()
                .map(|words| ["ACL", "DRYRUN", &user].into_iter().chain(words.iter().map(String::as_str)).collect())
                .collect();
            for (words, reply) in requests.iter().zip(client.pipeline(&asked)) {
                // As many arguments as it does not take; and what servers find no key in, though there is one.
                if reply.is_error() || words[0] == "pfmerge" && words.len() == 2 {
                    continue;
                }
                let ours = judged(&rights, &table, words, &user, is_old);
                let theirs = String::from_utf8_lossy(&if reply == "+OK\r\n" { b"OK".to_vec() } else { reply.text() })
                    .into_owned();
                if theirs == "OK" {
                    allowed += 1
                } else {
                    refused += 1
                }
                assert_eq!(ours, theirs, "{text}: {words:?}");
            }
        }
    }
    assert!(refused > 5000 && allowed > 5000, "{refused} refused, {allowed} allowed");
}

/// A request, its name in words.
fn words_of(spec: &Spec, random: &mut Random) -> Vec<String> {
    let words = request_of(spec, random);
    words[0].split('|').map(str::to_owned).chain(words[1..].iter().cloned()).collect()
}

fn judged(rights: &Rights, table: &CommandTable, words: &[String], user: &str, is_old: bool) -> String {
    let (frame, mut parser) = (frame(words), Parser::default());
    let found = parser.find(&frame).expect("well formed").expect("whole");
    let request = parser.request(&frame, found);
    let spec = table.find(&request).expect("a row");
    let told = RefusalContext { user, command: &spec.name, is_old };
    match rights.refusal(spec, &request) {
        // Servers judge these when they run them.
        None | Some(Refusal::Code | Refusal::Option(_)) => "OK".to_owned(),
        Some(refusal) => String::from_utf8_lossy(&refusal.dry_run(told)).into_owned(),
    }
}
