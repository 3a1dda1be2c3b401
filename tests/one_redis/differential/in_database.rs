//! In a database of its own (`--database`), the same random commands as elsewhere, but with any keys: nothing has a tag,
//! and nothing is refused for its slots. Beside it there are a database of the same keys and keys of nobody's, which must
//! be as they were.

use std::collections::BTreeMap;

use super::{
    COMMANDS, Pair, compare_scans, for_flavours, for_flavours_and_versions,
    rows::{Compare, ROWS},
    send_and_compare,
    turns::{IN_TRANSACTIONS, transactions_of},
    wider,
};
use crate::support::{Client, Flavour, Proxy, Random, Settings};

/// What is not served there yet, or is about more than the database.
const LEFT_OUT: &[&str] = &["ACL DRYRUN", "FUNCTION", "PFDEBUG"];

for_flavours_and_versions!(compare);
for_flavours! {
    redis_transactions: Redis => transactions;
    valkey_transactions: Valkey => transactions;
}

fn pair(flavour: Flavour) -> Pair {
    Pair::with(flavour, |settings| settings.with("DATABASE", "shop"))
}

fn is_left_out(line: &str) -> bool {
    LEFT_OUT.iter().any(|start| line.starts_with(start))
}

fn compare(flavour: Flavour, version: u8) {
    let pair = pair(flavour);
    let neighbours = Neighbours::move_in(&pair);
    let mut random = Random::seeded(&format!("differential in a database, {flavour:?} RESP{version}"));
    let rows: Vec<(String, Compare)> = ROWS
        .iter()
        .chain(wider::ROWS)
        .filter(|(row, _)| !is_left_out(row))
        // Keys of any name, where a cluster would have them in one slot.
        .map(|(row, compare)| (row.replace('%', "$"), *compare))
        .map(|(row, compare)| (row, if matches!(compare, Compare::UnlessCrossing) { Compare::Bytes } else { compare }))
        .collect();
    let rows: Vec<(&str, Compare)> = rows.iter().map(|(row, compare)| (row.as_str(), *compare)).collect();
    send_and_compare(&pair, version, &rows, "", COMMANDS, &mut random);
    compare_scans(&pair, version, &random);
    neighbours.are_as_they_were();
}

fn transactions(flavour: Flavour) {
    let pair = pair(flavour);
    let neighbours = Neighbours::move_in(&pair);
    let whole = ["DBSIZE", "FLUSHDB", "KEYS ?k", "KEYS ?k extra", "LMPOP 2 ?l ?k LEFT", "SORT ?l ALPHA STORE ?k"];
    let lines = IN_TRANSACTIONS.iter().filter(|line| !is_left_out(line)).copied().chain(whole);
    let untagged = |request: Vec<String>| request.iter().map(|word| word.replace("{t}", "")).collect();
    transactions_of(&pair, flavour, &lines.collect::<Vec<_>>(), untagged);
    neighbours.are_as_they_were();
}

/// Who else has keys in the cluster: another database with keys of the same names, and keys that are nobody's.
struct Neighbours {
    blog: Proxy,
    whole: Proxy,
    before: [BTreeMap<String, String>; 2],
}

impl Neighbours {
    fn move_in(pair: &Pair) -> Neighbours {
        let settings = || Settings::new(pair.cluster.seeds());
        let (blog, whole) = (Proxy::start(settings().with("DATABASE", "blog")), Proxy::start(settings()));
        for family in ["str", "list", "hash", "set", "zset", "k", "l"] {
            for number in 0..5 {
                let value = format!("{family}{number} of the blog");
                assert_eq!(blog.client().call(&["SET", &format!("{family}{number}"), &value]).0, b"+OK\r\n");
                whole.client().call(&["SET", &format!("{family}{number}"), "nobody's"]);
            }
        }
        let before = [held(&mut blog.client()), held(&mut whole.client())];
        assert_eq!((before[0].len(), before[1].len()), (35, 2 * 35));
        Neighbours { blog, whole, before }
    }

    fn are_as_they_were(&self) {
        assert_eq!(held(&mut self.blog.client()), self.before[0]);
        let mut all = held(&mut self.whole.client());
        all.retain(|key, _| !key.starts_with("{shop}"));
        assert_eq!(all, self.before[1]);
    }
}

/// All keys that a client sees, and what they hold.
fn held(client: &mut Client) -> BTreeMap<String, String> {
    let keys = client.line("KEYS *").texts();
    keys.into_iter().map(|key| (key.clone(), format!("{:?}", client.call(&["GET", &key])))).collect()
}
