//! What each fuzz target does with its bytes, and what must be true whatever they are. The targets beside this file
//! hand it a fuzzer's inputs, `tests/in_step/fuzzing.rs` those of proptest.

use slotway::{
    cluster::{
        refusal::Refusal,
        topology::{NOBODY, View},
    },
    protocol::{
        address::Address,
        resp::{
            Value,
            reply::Scanner,
            request::{FramingRules, Parser},
            write,
        },
        slot::SLOTS,
    },
};

/// What was found in a client's bytes: each request's arguments, where it ended, and what was wrong in the end.
type Found = (Vec<(Vec<Vec<u8>>, usize)>, Option<String>);

/// The request parser: what it finds does not depend on how the bytes arrive, and every frame is canonical. The first
/// three bytes say by which rules, and where the rest is cut.
pub fn requests(data: &[u8]) {
    let Some((choices, stream)) = data.split_first_chunk::<3>() else { return };
    let choice = |bit: u8| choices[0] & 1 << bit != 0;
    let rules = FramingRules {
        unauthenticated: choice(0),
        checks_line_ends: choice(1),
        sees_past_nul: choice(2),
        ..FramingRules::default()
    };
    let cuts = [usize::from(choices[1]) + 1, usize::from(choices[2]) + 1];
    let whole = found(stream, rules, &[stream.len().max(1)]);
    assert_eq!(found(stream, rules, &cuts), whole, "it depends on how the bytes arrive");
    assert_eq!(found(stream, rules, &[1]), whole, "it depends on how the bytes arrive");
    // Who looks at line ends finds the same as who does not, up to the first that is wrong.
    let strict = found(stream, FramingRules { checks_line_ends: true, ..rules }, &[stream.len().max(1)]);
    let lenient = found(stream, FramingRules { checks_line_ends: false, ..rules }, &[stream.len().max(1)]);
    assert!(lenient.0.starts_with(&strict.0), "line ends that are right make a difference");
}

fn found(stream: &[u8], rules: FramingRules, cuts: &[usize]) -> Found {
    let (mut parser, mut requests) = (Parser::new(rules), Vec::new());
    let (mut start, mut end) = (0, 0);
    for cut in cuts.iter().cycle() {
        end = (end + cut).min(stream.len());
        loop {
            let bytes = &stream[start..end];
            let found = match parser.find(bytes) {
                Ok(Some(found)) => found,
                Ok(None) => break,
                Err(wrong) => return (requests, Some(wrong.text.escape_ascii().to_string())),
            };
            assert!(found.used > 0 && found.used <= bytes.len(), "{found:?} of {} bytes", bytes.len());
            start += found.used;
            if !found.blank {
                let request = parser.request(bytes, found);
                let args: Vec<Vec<u8>> = request.args().map(<[u8]>::to_vec).collect();
                let mut canonical = Vec::new();
                write::request(&mut canonical, &args);
                assert_eq!(request.frame(), canonical, "a frame that is not canonical");
                requests.push((args, start));
            }
            parser.shrink();
        }
        if end == stream.len() {
            break;
        }
    }
    (requests, None)
}

/// The reply scanner: where replies end does not depend on how the bytes arrive or whether they are passed on in pieces,
/// and the tree that a reply is ends where the reply does.
pub fn replies(data: &[u8]) {
    let Some((choices, stream)) = data.split_first_chunk::<2>() else { return };
    let cuts = choices.map(|choice| usize::from(choice) + 1);
    let whole = ends(stream, &[stream.len().max(1)], false);
    assert_eq!(ends(stream, &cuts, false), whole, "it depends on how the bytes arrive");
    assert_eq!(ends(stream, &cuts, true), whole, "it depends on what is passed on in pieces");
    if let Some(&end) = whole.0.first() {
        match Value::parse(&stream[..end]) {
            Ok(Some((_, used))) => assert_eq!(used, end, "the tree ends elsewhere"),
            Ok(None) => panic!("the tree goes on"),
            Err(_) => {}
        }
    }
    let _ = Refusal::of(stream);
}

/// Where replies end, and whether something was malformed behind the last.
fn ends(stream: &[u8], cuts: &[usize], in_pieces: bool) -> (Vec<usize>, bool) {
    let (mut scanner, mut ends) = (Scanner::default(), Vec::new());
    let (mut start, mut end) = (0, 0);
    for cut in cuts.iter().cycle() {
        end = (end + cut).min(stream.len());
        while start < end {
            match scanner.find(&stream[start..end]) {
                Ok(Some(length)) => {
                    assert!(length <= end - start, "an end beyond the bytes");
                    start += length;
                    ends.push(start);
                }
                Ok(None) => {
                    if in_pieces {
                        let ready = scanner.scanned(end - start);
                        scanner.passed_on(ready);
                        start += ready;
                    }
                    break;
                }
                Err(_) => return (ends, true),
            }
        }
        if end == stream.len() {
            break;
        }
    }
    (ends, false)
}

/// What a node says of its cluster: the replies of CLUSTER SLOTS, NODES and SHARDS, one behind the other. No view has
/// owners that are not in it, and what two come to has none either.
pub fn topology(data: &[u8]) {
    let (mut rest, mut replies) = (data, Vec::new());
    while let (true, Ok(Some((value, used)))) = (replies.len() < 4, Value::parse(rest)) {
        replies.push(value);
        rest = &rest[used..];
    }
    let asked: Address = "10.0.0.1:7000".parse().expect("an address");
    let view = |slots: Option<&Value>, nodes: Option<&Value>, shards: Option<&Value>| {
        let view = View::parse(slots?, nodes.and_then(Value::str), shards, &asked).ok()?;
        check(&view);
        Some(view)
    };
    let one = view(replies.first(), replies.get(1), replies.get(2));
    let other = view(replies.get(3), replies.get(1), None);
    let views: Vec<View> = one.into_iter().chain(other).collect();
    if let Some(merged) = View::merge(views) {
        check(&merged);
    }
}

fn check(view: &View) {
    assert!(view.covered() <= SLOTS);
    let in_view = |index: u16| index == NOBODY || usize::from(index) < view.seen.len();
    assert!(view.slots.iter().all(|&index| in_view(index)), "a slot's owner is not in the view");
    assert!(view.seen.is_sorted_by(|one, next| one.id < next.id), "the nodes are not in order, or one is there twice");
}
