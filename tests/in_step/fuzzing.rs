//! The bodies of the fuzz targets, as property tests: random bytes, and bytes that are nearly right.

use proptest::{collection::vec, prelude::*, sample::select};

#[allow(clippy::expect_used, reason = "a fuzz target ends where something is wrong")]
#[path = "../../fuzz/bodies.rs"]
mod bodies;

/// What requests are made of, and what breaks them.
const OF_REQUESTS: &[&[u8]] = &[
    b"*1\r\n",
    b"*2\r\n",
    b"*3\r\n",
    b"*0\r\n",
    b"*-1\r\n",
    b"$4\r\nPING\r\n",
    b"$3\r\nGET\r\n",
    b"$1\r\nk\r\n",
    b"$0\r\n\r\n",
    b"$1\r\n\0\r\n",
    b"*1\rX",
    b"$4\rXPING\r\n",
    b"$4\r\nPINGXX",
    b"$1\r\na\n\r",
    b"PING\r\n",
    b"set 'a b' \"\\x41\\n\"\n",
    b"*",
    b"$",
    b"\r",
    b"\n",
    b"\r\n",
    b"\0",
    b"12",
    b"-",
    b"01",
    b"+",
    b" ",
    b"\"",
    b"'",
    b"*2147483647\r\n",
    b"*2147483648\r\n",
    b"$536870912\r\n",
    b"$536870913\r\n",
    b"*99999999999999999999\r\n",
    b"\xff",
    b"\x0b",
];

/// What replies are made of.
const OF_REPLIES: &[&[u8]] = &[
    b"|-1\r\n",
    b"%-1\r\n",
    b"+OK\r\n",
    b"-ERR x\r\n",
    b"-MOVED 1 a:1\r\n",
    b"-ASK 16383 [::1]:7\r\n",
    b":1\r\n",
    b":-0\r\n",
    b"$-1\r\n",
    b"$3\r\na\r\n\r\n",
    b"$0\r\n\r\n",
    b"*-1\r\n",
    b"*0\r\n",
    b"*2\r\n",
    b"%1\r\n",
    b"~2\r\n",
    b">2\r\n",
    b"|1\r\n",
    b"_\r\n",
    b"#t\r\n",
    b",1.5\r\n",
    b"(12\r\n",
    b"=7\r\ntxt:abc\r\n",
    b"!5\r\nERR x\r\n",
    b"*",
    b"$",
    b"%",
    b"|",
    b"\r\n",
    b"\r",
    b"\n",
    b"4294967295\r\n",
    b"$4294967296\r\n",
    b"*4294967295\r\n",
    b"%4294967295\r\n",
    b"$99999999999\r\n",
    b"-",
    b"0",
    b"7",
    b"\0",
];

/// Pieces of one kind, one behind the other, with a little noise among them.
fn pieces(kind: &'static [&'static [u8]]) -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![12 => select(kind).prop_map(<[u8]>::to_vec), 1 => vec(any::<u8>(), 0..4)];
    vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

/// What a body expects first, `choices`, and then what it is about.
fn input(choices: usize, stream: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let small = prop_oneof![3 => 0..8u8, 1 => any::<u8>()];
    (vec(small, choices), stream).prop_map(|(choices, stream)| [choices, stream].concat())
}

fn bulk(text: &str) -> Vec<u8> {
    format!("${}\r\n{text}\r\n", text.len()).into_bytes()
}

prop_compose! {
    /// A node in CLUSTER SLOTS.
    fn node()(
        host in select(&["10.0.0.1", "", "?", "::1", "a.example"][..]),
        port in select(&[0i64, 7000, 7001, 65536, -1][..]),
        id in select(&["n1", "n2", "n3", ""][..]),
        fields in 2..=3usize,
        with_host in any::<bool>(),
    ) -> Vec<u8> {
        let head = format!("*{}\r\n", fields).into_bytes();
        let host = if with_host { bulk(host) } else { b"$-1\r\n".to_vec() };
        let id = if fields == 3 { bulk(id) } else { Vec::new() };
        [head, host, format!(":{port}\r\n").into_bytes(), id].concat()
    }
}

prop_compose! {
    /// A reply of CLUSTER SLOTS, or nearly one.
    fn slots()(ranges in vec((-2..16_400i64, -2..16_400i64, vec(node(), 0..3)), 0..4)) -> Vec<u8> {
        let mut out = format!("*{}\r\n", ranges.len()).into_bytes();
        for (first, last, nodes) in ranges {
            out.extend(format!("*{}\r\n:{first}\r\n:{last}\r\n", 2 + nodes.len()).bytes());
            out.extend(nodes.concat());
        }
        out
    }
}

prop_compose! {
    /// A line of CLUSTER NODES, or nearly one.
    fn line()(
        id in select(&["n1", "n2", "n3", "n4", ""][..]),
        address in select(&["10.0.0.1:7000@17000", ":0@0", "10.0.0.9:7001@17001,b.example", "?", "::1:7@8"][..]),
        flags in select(&["master", "myself,master", "slave", "master,fail", "noaddr", "handshake", ""][..]),
        master in select(&["-", "n1", "n2", "nobody"][..]),
        epoch in select(&["0", "3", "99999999999999999999", "x"][..]),
        ranges in select(&["", " 0-100", " 5", " 16383-16384", " 9-1", " [7->-n2]", " [7-<-n1] 0-16383"][..]),
    ) -> String {
        format!("{id} {address} {flags} {master} 0 0 {epoch} connected{ranges}\n")
    }
}

proptest! {
    // A seed that fails is told in the message; none is written to the source tree.
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn requests_are_found_the_same_however_they_come(data in input(3, pieces(OF_REQUESTS))) {
        bodies::requests(&data);
    }

    #[test]
    fn any_bytes_are_requests_or_errors(data in vec(any::<u8>(), 0..200)) {
        bodies::requests(&data);
    }

    #[test]
    fn replies_end_where_they_end_however_they_come(data in input(2, pieces(OF_REPLIES))) {
        bodies::replies(&data);
    }

    #[test]
    fn any_bytes_are_replies_or_errors(data in vec(any::<u8>(), 0..200)) {
        bodies::replies(&data);
    }

    #[test]
    fn views_have_no_owners_from_elsewhere(
        first in slots(),
        lines in vec(line(), 0..6),
        other in slots(),
        place in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        damaged in prop::bool::weighted(0.3),
    ) {
        let mut data = [first, bulk(&lines.concat()), b"*0\r\n".to_vec(), other].concat();
        if damaged {
            let place = place.index(data.len());
            data[place] = byte;
        }
        bodies::topology(&data);
    }

    #[test]
    fn any_bytes_are_views_or_errors(data in pieces(OF_REPLIES)) {
        bodies::topology(&data);
    }
}
