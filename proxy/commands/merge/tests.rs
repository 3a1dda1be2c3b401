//! Tables of merges, and random ones against what one server would have said.

use proptest::prelude::*;

use super::*;
use crate::{
    commands::{
        plan::{self, Plan, Policy},
        table::CommandTable,
    },
    protocol::resp::request::Parser,
};

const ODD: &str = "-ERR proxy: the nodes' replies do not fit together (SLOTWAY-ODD-REPLIES)\r\n";

fn merged(rule: MergeRule, replies: &[&str], write: Option<&str>) -> String {
    let mut merge = Merge::new(rule, replies.len(), write, false);
    for (part, reply) in replies.iter().enumerate().rev() {
        assert_eq!(merge.take(part, reply.as_bytes()), part == 0);
    }
    let mut out = Vec::new();
    merge.finish(&mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn rules() {
    for (rule, replies, reply) in [
        (MergeRule::Sum, &[":1\r\n", ":2\r\n"][..], ":3\r\n"),
        (MergeRule::AllSucceeded, &["+OK\r\n", "+OK\r\n"], "+OK\r\n"),
        (MergeRule::AllSucceeded, &["+OK\r\n", "-ERR a\r\n"], "-ERR a\r\n"),
        (MergeRule::OneSucceeded, &["-NOTBUSY a\r\n", "+OK\r\n"], "+OK\r\n"),
        (MergeRule::OneSucceeded, &["-NOTBUSY a\r\n", "-UNKILLABLE b\r\n"], "-UNKILLABLE b\r\n"),
        (MergeRule::And, &["*2\r\n:1\r\n:1\r\n", "*2\r\n:1\r\n:0\r\n"], "*2\r\n:1\r\n:0\r\n"),
        (MergeRule::Or, &["*2\r\n:1\r\n:0\r\n", "*2\r\n:0\r\n:0\r\n"], "*2\r\n:1\r\n:0\r\n"),
        (MergeRule::And, &["*2\r\n:1\r\n:0\r\n", "*2\r\n:1\r\n:0\r\n"], "*2\r\n:1\r\n:0\r\n"),
        (MergeRule::And, &["*2\r\n:1\r\n:1\r\n", "*1\r\n:1\r\n"], ODD),
        (MergeRule::Min, &[":3\r\n", ":2\r\n"], ":2\r\n"),
        (MergeRule::Max, &[":3\r\n", ":2\r\n"], ":3\r\n"),
        (MergeRule::Concat, &["*1\r\n$1\r\na\r\n", "*0\r\n", "*1\r\n$1\r\nb\r\n"], "*2\r\n$1\r\na\r\n$1\r\nb\r\n"),
        (MergeRule::Concat, &["~1\r\n+a\r\n", "~0\r\n"], "~1\r\n+a\r\n"),
        (MergeRule::RandomKey, &["$-1\r\n", "$1\r\nb\r\n"], "$1\r\nb\r\n"),
        (MergeRule::RandomKey, &["$-1\r\n", "$-1\r\n"], "$-1\r\n"),
        (MergeRule::Fullest, &["$0\r\n\r\n", "$1\r\na\r\n"], "$1\r\na\r\n"),
        (MergeRule::SumByName, &["*2\r\n$1\r\na\r\n:0\r\n", "*2\r\n$1\r\na\r\n:2\r\n"], "*2\r\n$1\r\na\r\n:2\r\n"),
        (
            MergeRule::Newest(2),
            &["*2\r\n*2\r\n:9\r\n:5\r\n*2\r\n:8\r\n:3\r\n", "*1\r\n*2\r\n:1\r\n:4\r\n"],
            "*2\r\n*2\r\n:9\r\n:5\r\n*2\r\n:1\r\n:4\r\n",
        ),
        (
            MergeRule::Newest(9),
            &["*1\r\n*2\r\n:1\r\n:5\r\n", "*2\r\n*2\r\n:9\r\n:5\r\n*2\r\n:8\r\n:5\r\n"],
            "*3\r\n*2\r\n:9\r\n:5\r\n*2\r\n:1\r\n:5\r\n*2\r\n:8\r\n:5\r\n",
        ),
        (MergeRule::Sum, &[":1\r\n", "+OK\r\n"], ODD),
        // Once an array of two was announced for one element.
        (MergeRule::SumByName, &["*1\r\n$0\r\n\r\n"], ODD),
        (MergeRule::SumByName, &["*2\r\n$1\r\na\r\n:1\r\n", "*2\r\n$1\r\nb\r\n:2\r\n"], ODD),
    ] {
        assert_eq!(merged(rule, replies, None), reply, "{rule:?} {replies:?}");
    }
}

#[test]
fn a_write_done_in_part_says_so() {
    let said = merged(MergeRule::Sum, &[":1\r\n", "-OOM no\r\n"], Some("del"));
    assert_eq!(
        said,
        "-OOM no (proxy: DEL was done in 1 of 2 parts, not where this error came from) (SLOTWAY-DONE-IN-PART)\r\n"
    );
    assert_eq!(merged(MergeRule::Sum, &["-OOM no\r\n", "-OOM no\r\n"], Some("del")), "-OOM no\r\n");
    let followed = |replies: [&str; 2]| {
        let mut merge = Merge::new(MergeRule::AllSucceeded, 2, Some("function|flush"), false);
        merge.follow();
        for (part, reply) in replies.iter().enumerate() {
            merge.take(part, reply.as_bytes());
        }
        let (mut out, missed) = (Vec::new(), merge.missed());
        merge.finish(&mut out);
        (String::from_utf8(out).unwrap().contains("where it follows"), missed)
    };
    assert_eq!(followed(["+OK\r\n", "-BUSY x\r\n"]), (true, vec![1]));
    assert_eq!(followed(["+OK\r\n", "-ERR x\r\n"]), (false, vec![]));
    assert_eq!(followed(["-ERR x\r\n", "-BUSY x\r\n"]), (false, vec![]));
    assert_eq!(merged(MergeRule::KeyOrder, &["*0\r\n", "-LOADING\r\n"], None), "-LOADING\r\n");
}

/// Any reply, as deep as replies go.
fn any_reply() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..20).prop_map(|text| {
            let mut out = Vec::new();
            write::bulk(&mut out, &text);
            out
        }),
        Just(b"$-1\r\n".to_vec()),
        Just(b"*-1\r\n".to_vec()),
        Just(b"_\r\n".to_vec()),
        Just(b"#t\r\n".to_vec()),
        Just(b",1.5\r\n".to_vec()),
        Just(b"=7\r\ntxt:a\r\n\r\n".to_vec()),
        any::<i64>().prop_map(|number| format!(":{number}\r\n").into_bytes()),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        (proptest::collection::vec(inner, 0..4), prop::sample::select(&b"*~%"[..])).prop_map(|(mut items, kind)| {
            if kind == b'%' && items.len() % 2 == 1 {
                items.pop();
            }
            let count = if kind == b'%' { items.len() / 2 } else { items.len() };
            let mut out = Vec::new();
            write::head(&mut out, kind, count as i64);
            items.iter().for_each(|item| out.extend_from_slice(item));
            out
        })
    })
}

fn array_of<'a>(items: impl ExactSizeIterator<Item = &'a Vec<u8>>) -> Vec<u8> {
    let mut out = Vec::new();
    write::array(&mut out, items.len());
    items.for_each(|item| out.extend_from_slice(item));
    out
}

proptest! {
    // What fails once becomes a row of a table, not a file.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// MGET of random keys, some of them twice: parts are answered by what each of their keys holds.
    #[test]
    fn a_split_mget_is_answered_as_by_one_server(
        keys in proptest::collection::vec(0..12usize, 2..40),
        values in proptest::collection::vec(any_reply(), 12),
        backwards in any::<bool>(),
    ) {
        let mut words = vec![b"MGET".to_vec()];
        words.extend(keys.iter().map(|key| format!("key{key}").into_bytes()));
        let mut frame = Vec::new();
        write::request(&mut frame, &words);
        let mut parser = Parser::default();
        let found = parser.find(&frame).unwrap().unwrap();
        let request = parser.request(&frame, found);
        let table = CommandTable::builtin();
        let Plan::Split(split) = plan::plan(&request, table.find(&request), &Policy::default()) else { return Ok(()) };
        let mut merge = Merge::of_split(&split, None, false);
        let mut parts: Vec<usize> = (0..split.parts.len()).collect();
        if backwards {
            parts.reverse();
        }
        for part in parts {
            let held = split.keys_of(part).iter().map(|&index| &values[keys[index as usize - 1]]);
            merge.take(part, &array_of(held));
        }
        let mut out = Vec::new();
        merge.finish(&mut out);
        prop_assert_eq!(out, array_of(keys.iter().map(|&key| &values[key])));
    }

    /// Lists from all nodes, one behind the other.
    #[test]
    fn lists_are_put_together(lists in proptest::collection::vec(proptest::collection::vec(any_reply(), 0..6), 1..5)) {
        let mut merge = Merge::new(MergeRule::Concat, lists.len(), None, false);
        for (part, list) in lists.iter().enumerate() {
            prop_assert_eq!(merge.take(part, &array_of(list.iter())), part + 1 == lists.len());
        }
        let mut out = Vec::new();
        merge.finish(&mut out);
        prop_assert_eq!(out, array_of(lists.iter().flatten().collect::<Vec<_>>().into_iter()));
    }

    /// Whatever nodes answer, one whole reply comes of it, and an error where any has one.
    #[test]
    fn any_replies_make_one(
        replies in proptest::collection::vec(prop_oneof![4 => any_reply(), 1 => Just(b"-ERR x\r\n".to_vec())], 1..5),
        rule in prop::sample::select(vec![
            MergeRule::Sum, MergeRule::AllSucceeded, MergeRule::OneSucceeded, MergeRule::Concat, MergeRule::And, MergeRule::Min, MergeRule::RandomKey,
            MergeRule::Info, MergeRule::Newest(3), MergeRule::Entries, MergeRule::Fullest, MergeRule::SumByName, MergeRule::Role, MergeRule::Config, MergeRule::Latest,
            MergeRule::ByTime, MergeRule::Histogram, MergeRule::Memory, MergeRule::Youngest(3), MergeRule::Digest,
        ]),
    ) {
        let mut merge = Merge::new(rule, replies.len(), None, true);
        replies.iter().enumerate().for_each(|(part, reply)| { merge.take(part, reply); });
        let mut out = Vec::new();
        merge.finish(&mut out);
        prop_assert_eq!(crate::protocol::resp::reply::Scanner::default().find(&out), Ok(Some(out.len())));
        let failed = replies.iter().any(|reply| reply.starts_with(b"-"));
        let tolerant = matches!(rule, MergeRule::OneSucceeded | MergeRule::Info);
        prop_assert!(!failed || tolerant || out.starts_with(b"-ERR x"));
    }
}

#[test]
fn lost_nodes_are_spared_where_the_others_suffice() {
    let merged = |rule: MergeRule, spares: bool, replies: &[&str], lost: Option<usize>| {
        let mut merge = Merge::new(rule, replies.len(), None, false);
        if spares {
            merge.spare_lost();
        }
        for (part, reply) in replies.iter().enumerate().filter(|(_, reply)| !reply.is_empty()) {
            match lost {
                Some(lost) if lost == part => merge.take_lost(part, reply.as_bytes()),
                _ => merge.take(part, reply.as_bytes()),
            };
        }
        let (suffices, mut out) = (merge.suffices(), Vec::new());
        merge.finish(&mut out);
        (suffices, String::from_utf8(out).unwrap())
    };
    const GONE: &str = "-ERR proxy: a:1 is gone\r\n";
    for (rule, spares, replies, lost, suffices, expected) in [
        (MergeRule::Sum, false, [":1\r\n", GONE, ":2\r\n"], Some(1), false, GONE),
        (MergeRule::Sum, true, [":1\r\n", GONE, ":2\r\n"], Some(1), true, ":3\r\n"),
        // One that has not answered.
        (MergeRule::Sum, true, [":1\r\n", "", ":2\r\n"], None, true, ":3\r\n"),
        (MergeRule::Sum, true, [GONE, "", ""], Some(0), false, GONE),
        (MergeRule::AllSucceeded, true, ["+OK\r\n", GONE, "-ERR no\r\n"], Some(1), true, "-ERR no\r\n"),
        (MergeRule::RandomKey, true, ["$-1\r\n", GONE, "$1\r\na\r\n"], Some(1), true, "$1\r\na\r\n"),
        (MergeRule::RandomKey, true, ["$-1\r\n", GONE, "$-1\r\n"], Some(1), false, GONE),
        (MergeRule::OneSucceeded, true, ["-NOTBUSY x\r\n", GONE, "-NOTBUSY x\r\n"], Some(1), false, GONE),
        (MergeRule::OneSucceeded, true, ["-NOTBUSY x\r\n", "", "+OK\r\n"], None, true, "+OK\r\n"),
    ] {
        let expected = (suffices, expected.to_owned());
        assert_eq!(merged(rule, spares, &replies, lost), expected, "{rule:?} {replies:?}");
    }
}
