//! What clients do with their connections and with each other, in random order: transactions, watched keys, versions,
//! subscriptions. A step is one client's, of both servers in turn, so that who comes first is the same at both.
//!
//! Not compared, since a proxy before many nodes cannot or should not do it: within MULTI, what is about all keys
//! (FLUSHALL, KEYS, DBSIZE, SCAN), what changes the connection on which the transaction runs (HELLO with another
//! version, AUTH, SUBSCRIBE, CLIENT REPLY), keys of several slots. Nor HELLO with another version while keys are watched:
//! the transaction then fails as if they had been touched.

use std::collections::BTreeSet;

use super::{Pair, for_flavours};
use crate::support::{
    Client, Flavour, Random, Reply,
    client::{frame, show},
};

const STEPS: usize = 1500;
const CLIENTS: usize = 3;

/// What transactions are made of. `?k` is one of the few keys.
pub(super) const IN_TRANSACTIONS: &[&str] = &[
    "SET ?k ?n",
    "GET ?k",
    "INCR ?k",
    "APPEND ?k x",
    "DEL ?k ?k",
    "MGET ?k ?k",
    "MSET ?k 1 ?k 2",
    "RPUSH ?l ?n ?n",
    "LPOP ?l",
    "LRANGE ?l 0 -1",
    "LPUSH ?k 1",
    "INCR ?l",
    "EXPIREAT ?k 1",
    "HSET ?h a ?n b ?n",
    "HGETALL ?h",
    "ZADD ?z 1.5 a",
    "ZRANGE ?z 0 -1 WITHSCORES",
    "ZSCORE ?z a",
    "SMISMEMBER ?h a",
    "XADD ?s * f",
    "XADD ?s ?n-?n f v",
    "XREAD COUNT 1 STREAMS ?s 0",
    "XREAD BLOCK 10 STREAMS ?s $",
    "BLPOP ?l 0.01",
    "BLMOVE ?l ?l LEFT RIGHT 0.01",
    "BZPOPMIN ?z 0.01",
    "BLPOP ?l notanumber",
    "EVAL redis.call('INCR',KEYS[1]);return~redis.call('GET',KEYS[1]) 1 ?k",
    "EVAL return~nosuch() 1 ?k",
    "EVALSHA ffffffffffffffffffffffffffffffffffffffff 1 ?k",
    "SET ?k",
    "GET",
    "NOSUCH ?k",
    "OBJECT NOSUCH ?k",
    "OBJECT ENCODING ?l",
    "CONFIG NOSUCH",
    "PING",
    "PING text",
    "PING too many",
    "ECHO text",
    "PUBLISH nobody text",
    "CLIENT SETNAME name?n",
    "CLIENT GETNAME",
    "CLIENT NOSUCH",
    "CLIENT SETNAME",
    "CLIENT KILL 1.2.3.4:5",
    "SELECT 0",
    "SELECT 99",
    "SELECT notanumber",
    "SCRIPT NOSUCH",
    "COMMAND COUNT",
    "TIME x",
    "UNWATCH",
];

/// What begins, ends and spoils them.
const AROUND_TRANSACTIONS: &[&str] = &[
    "MULTI",
    "MULTI",
    "MULTI",
    "EXEC",
    "EXEC",
    "EXEC",
    "DISCARD",
    "WATCH ?k",
    "WATCH ?k ?l",
    "WATCH ?k ?k ?z ?h",
    "UNWATCH",
    "WATCH",
    "EXEC now",
    "MULTI now",
    "DISCARD now",
    "RESET",
    "RESET now",
    "HELLO 2",
    "HELLO 3",
    "HELLO",
    "HELLO 3 SETNAME hello",
    "HELLO 2 NOSUCH",
    "HELLO 4",
];

for_flavours! {
    redis_transactions: Redis => transactions;
    valkey_transactions: Valkey => transactions;
}

fn transactions(flavour: Flavour) {
    transactions_of(&Pair::start(flavour), flavour, IN_TRANSACTIONS, |request| request);
}

/// Transactions made of `lines`, each request as `change` makes it.
pub(super) fn transactions_of(
    pair: &Pair,
    flavour: Flavour,
    lines: &[&str],
    change: impl Fn(Vec<String>) -> Vec<String>,
) {
    let mut random = Random::seeded(&format!("transactions in turns, {flavour:?}"));
    let mut clients: Vec<[Client; 2]> = (0..CLIENTS).map(|_| pair.clients(2)).collect();
    let mut states = [State::default(); CLIENTS];
    let mut recent: Vec<String> = Vec::new();
    for step in 0..STEPS {
        let which = random.below(CLIENTS);
        let count = if random.one_in(2) { 1 } else { 1 + random.below(12) };
        let requests: Vec<Vec<String>> =
            (0..count).map(|_| change(transactional(lines, &mut states[which], &mut random))).collect();
        let [ours, theirs] = clients[which].each_mut().map(|client| client.pipeline(&requests));
        for (request, (ours, theirs)) in requests.iter().zip(ours.iter().zip(&theirs)) {
            recent.push(format!("client {which}: {} -> {ours:?}", show(request)));
            if ours.without_id() != theirs.without_id() {
                println!("so far:\n  {}", recent[recent.len().saturating_sub(60)..].join("\n  "));
                panic!(
                    "seed {}, step {step}, client {which}: {}\n the proxy: {ours:?}\none server: {theirs:?}",
                    random.seed,
                    show(request)
                );
            }
        }
    }
}

/// What a client has begun.
#[derive(Clone, Copy, Default)]
struct State {
    queueing: bool,
    watching: bool,
}

fn transactional(lines: &[&str], state: &mut State, random: &mut Random) -> Vec<String> {
    loop {
        let from = if random.one_in(3) { AROUND_TRANSACTIONS } else { lines };
        let line = *random.pick(from);
        if line.starts_with("HELLO")
            && (state.queueing || state.watching)
            && !["HELLO 4", "HELLO 2 NOSUCH"].contains(&line)
        {
            continue;
        }
        match line.split(' ').next() {
            Some("MULTI") if line == "MULTI" => state.queueing = true,
            Some("WATCH") => state.watching |= !state.queueing,
            Some("RESET") if line == "RESET" => *state = State::default(),
            Some("EXEC") if state.queueing => *state = State::default(),
            Some("DISCARD") if state.queueing && line == "DISCARD" => *state = State::default(),
            _ => {}
        }
        return line.split(' ').map(|word| filled(word, random)).collect();
    }
}

fn filled(word: &str, random: &mut Random) -> String {
    match word.split_once('?') {
        Some((before, "n")) => format!("{before}{}", 1 + random.below(9)),
        Some((before, rest)) if rest.starts_with("n-") => {
            format!("{before}{}{}", 1 + random.below(9), filled(&rest[1..], random))
        }
        Some(("", kind)) => format!("{{t}}{kind}{}", random.below(2)),
        _ => word.replace('~', " "),
    }
}

/// What subscribers and publishers do.
const PUBLISHING: &[&str] = &[
    "SUBSCRIBE a",
    "SUBSCRIBE a b c",
    "SUBSCRIBE b b",
    "PSUBSCRIBE a*",
    "PSUBSCRIBE * [ab] a*",
    "SSUBSCRIBE a",
    "SSUBSCRIBE {a}1 a",
    "UNSUBSCRIBE a",
    "UNSUBSCRIBE a nosuch",
    "UNSUBSCRIBE",
    "PUNSUBSCRIBE *",
    "PUNSUBSCRIBE",
    "SUNSUBSCRIBE a",
    "SUNSUBSCRIBE",
    "SUBSCRIBE",
    "SUNSUBSCRIBE nosuch",
    "PUBLISH a ?n",
    "PUBLISH b ?n",
    "PUBLISH nobody ?n",
    "PUBLISH ab ?n",
    "SPUBLISH a ?n",
    "SPUBLISH {a}1 ?n",
    "PUBSUB NUMSUB a b c",
    "PUBSUB NUMPAT",
    "PUBSUB SHARDNUMSUB a",
    "PING",
    "PING text",
    "SET {t}k 1",
    "GET {t}k",
    "NOSUCH a",
    "GET",
    "MULTI now",
    "CLIENT NOSUCH",
    "HELLO 2",
    "HELLO 3",
    "RESET",
];

for_flavours! {
    redis_subscriptions: Redis => subscriptions;
    valkey_subscriptions: Valkey => subscriptions;
}

/// After each step, every client says ECHO or PING with a number, to which one server answers behind all that came
/// before. Messages take their time through the proxy, so that only their order and number must be the same.
fn subscriptions(flavour: Flavour) {
    let pair = Pair::start(flavour);
    let mut random = Random::seeded(&format!("subscriptions in turns, {flavour:?}"));
    let mut clients: Vec<[Client; 2]> = (0..CLIENTS + 1).map(|number| pair.clients(2 + number as u8 % 2)).collect();
    let mut recent: Vec<String> = Vec::new();
    for step in 0..STEPS / 3 {
        let which = random.below(clients.len());
        let count = if random.one_in(2) { 1 } else { 1 + random.below(6) };
        // RESET forgets what is still on its way, were it published in the same breath.
        let most = if count == 1 { PUBLISHING.len() } else { PUBLISHING.len() - 1 };
        let requests: Vec<Vec<String>> = (0..count)
            .map(|_| random.pick(&PUBLISHING[..most]).split(' ').map(|word| filled(word, &mut random)).collect())
            .collect();
        let frames: Vec<u8> = requests.iter().flat_map(|request| frame(request)).collect();
        clients[which].iter_mut().for_each(|client| client.send_raw(&frames));
        recent.push(requests.iter().map(|request| show(request)).collect::<Vec<_>>().join("; "));
        for (number, [ours, theirs]) in clients.iter_mut().enumerate() {
            // The client that acted first, so that what it has done is done.
            let mark = format!("mark-{step}-{number}");
            let expected = until_mark(theirs, &mark);
            ours.send(&["PING", &mark]);
            let got: Vec<Reply> = (0..expected.len()).map_while(|_| ours.read().ok()).collect();
            if ordered(&got, &mark) != ordered(&expected, &mark) {
                println!("so far:\n  {}", recent[recent.len().saturating_sub(25)..].join("\n  "));
                panic!(
                    "seed {}, step {step} of client {which}, at client {number}\n the proxy: {got:#?}\none server: {expected:#?}",
                    random.seed
                );
            }
        }
    }
}

fn until_mark(client: &mut Client, mark: &str) -> Vec<Reply> {
    client.send(&["PING", mark]);
    let mut replies = Vec::new();
    loop {
        let reply = client.reply();
        let is_mark = has(&reply, mark);
        replies.push(reply);
        if is_mark {
            return replies;
        }
    }
}

fn has(reply: &Reply, text: &str) -> bool {
    reply.0.windows(text.len()).any(|part| part == text.as_bytes())
}

/// Messages in their order, and replies in theirs. A message is in the version that is spoken when it comes. Shard channels have an order of their own, since each may be another
/// node's. Which of several patterns gets a message first is not defined, nor
/// which of several names is unsubscribed first.
fn ordered(replies: &[Reply], mark: &str) -> [Vec<Vec<u8>>; 3] {
    let is_message = |reply: &&Reply| has(reply, "message\r\n") && reply.0.len() > 8;
    let is_unsubscribed = |reply: &&Reply| has(reply, "unsubscribe\r\n") && !reply.is_error();
    let (shards, classic): (Vec<&Reply>, Vec<&Reply>) =
        replies.iter().filter(is_message).partition(|reply| has(reply, "smessage\r\n"));
    let messages: Vec<&Reply> = shards.into_iter().chain(classic).collect();
    let messages = messages.chunk_by(|a, b| published(a) == published(b)).flat_map(|same| {
        let mut same: Vec<Vec<u8>> = same.iter().map(|reply| reply.0[1..].to_vec()).collect();
        same.sort_unstable();
        same
    });
    let others = replies.iter().filter(|reply| !is_message(reply) && !is_unsubscribed(reply));
    let others = others.filter(|reply| !has(reply, mark)).map(Reply::without_id).collect();
    // Names without the counts behind them.
    let ended = replies.iter().filter(is_unsubscribed).map(|reply| {
        let end = reply.0.iter().rposition(|&byte| byte == b':').unwrap_or(0);
        reply.0[..end].to_vec()
    });
    let ended: BTreeSet<Vec<u8>> = ended.collect();
    [messages.collect(), others, ended.into_iter().collect()]
}

/// What was published, and on which channel.
fn published(message: &Reply) -> Vec<Vec<u8>> {
    let value = message.value();
    let last = &value.items()[value.items().len().saturating_sub(2)..];
    last.iter().map(|part| part.text().unwrap_or_default().to_vec()).collect()
}
