//! What each step in the life of a request costs: finding it, planning it, the line of replies, merging split ones.
//!
//! `cargo bench --bench pieces`, or with a filter: `cargo bench --bench pieces -- parse`.

use divan::{Bencher, black_box, counter::ItemsCount};
use slotway::{
    commands::table::CommandTable,
    protocol::resp::{reply::Scanner, request::Parser, write},
};

fn main() {
    divan::main();
}

/// The frame of a request, from its words.
fn frame(line: &str) -> Vec<u8> {
    let mut out = Vec::new();
    write::request(&mut out, &line.split(' ').collect::<Vec<_>>());
    out
}

/// A request that touches `count` keys.
fn many(name: &str, count: usize) -> Vec<u8> {
    frame(&(0..count).fold(name.to_owned(), |line, number| format!("{line} key:{number}")))
}

mod parse {
    use super::*;

    #[divan::bench(args = ["GET key:000000000001", "SET key:000000000001 xxx", "HSET h a 1 b 2 c 3 d 4"])]
    fn requests(bencher: Bencher, line: &str) {
        let bytes = frame(line).repeat(64);
        bencher.counter(ItemsCount::new(64usize)).bench_local(|| {
            let (mut parser, mut rest) = (Parser::default(), bytes.as_slice());
            while let Ok(Some(found)) = parser.find(rest) {
                black_box(parser.request(rest, found));
                rest = &rest[found.used..];
            }
        });
    }

    #[divan::bench(args = ["$3\r\nxxx\r\n", "+OK\r\n", "*3\r\n$1\r\na\r\n$1\r\nb\r\n$-1\r\n"])]
    fn replies(bencher: Bencher, reply: &str) {
        let bytes = reply.repeat(64).into_bytes();
        bencher.counter(ItemsCount::new(64usize)).bench_local(|| {
            let (mut scanner, mut rest) = (Scanner::default(), bytes.as_slice());
            while let Ok(Some(end)) = scanner.find(rest) {
                if end == 0 {
                    break;
                }
                rest = black_box(&rest[end..]);
            }
        });
    }
}

mod plan {
    use slotway::commands::plan::{Policy, plan};

    use super::*;

    const LINES: [&str; 5] = [
        "GET key:000000000001",
        "SET key:000000000001 xxx",
        "EVAL return 1 2 {a}1 {a}2 x",
        "XREAD COUNT 2 STREAMS {a}1 {a}2 0 0",
        "ZUNIONSTORE {a}d 2 {a}1 {a}2 WEIGHTS 1 2",
    ];

    #[divan::bench(args = LINES)]
    fn one_slot(bencher: Bencher, line: &str) {
        planned(bencher, frame(line));
    }

    #[divan::bench(args = [2, 10, 100])]
    fn split(bencher: Bencher, keys: usize) {
        planned(bencher, many("MGET", keys));
    }

    fn planned(bencher: Bencher, bytes: Vec<u8>) {
        let (table, policy, mut parser) = (CommandTable::builtin(), Policy::default(), Parser::default());
        let found = parser.find(&bytes).expect("well formed").expect("whole");
        let request = parser.request(&bytes, found);
        bencher.bench_local(|| plan(&request, table.find(&request), &policy));
    }
}

mod line {
    use std::rc::Rc;

    use slotway::{
        cluster::topology::Route,
        metrics::Metrics,
        protocol::slot::Slot,
        upstream::ticket::{Clock, Label, Line},
    };

    use super::*;

    /// Opens places, fills them in order or the other way round, and writes the replies out.
    #[divan::bench(args = [(1, false), (16, false), (16, true)])]
    fn open_fill_write(bencher: Bencher, (places, backwards): (usize, bool)) {
        let tally = Rc::new(Metrics::new().client_tally());
        let clock = Rc::new(Clock::start());
        let line = Line::new(tally, clock, 1024);
        let mut tickets = Vec::new();
        bencher.counter(ItemsCount::new(places)).bench_local(|| {
            for _ in 0..places {
                tickets.push(line.open(Some(Label::of(None)), 32, Route::Slot(Slot::of(b"key"))));
            }
            if backwards {
                tickets.drain(..).rev().for_each(|ticket| ticket.fill(b"$3\r\nxxx\r\n"));
            } else {
                tickets.drain(..).for_each(|ticket| ticket.fill(b"$3\r\nxxx\r\n"));
            }
            line.write_out(|bytes| (bytes.len(), black_box(bytes.len())))
        });
    }
}

mod merge {
    use slotway::commands::{
        merge::Merge,
        plan::{Plan, Policy, plan},
    };

    use super::*;

    #[divan::bench(args = [2, 10, 100])]
    fn mget(bencher: Bencher, keys: usize) {
        let (table, bytes, mut parser) = (CommandTable::builtin(), many("MGET", keys), Parser::default());
        let found = parser.find(&bytes).expect("well formed").expect("whole");
        let request = parser.request(&bytes, found);
        let Plan::Split(split) = plan(&request, table.find(&request), &Policy::default()) else {
            panic!("MGET of {keys} keys is split");
        };
        let replies: Vec<Vec<u8>> = (0..split.parts.len())
            .map(|part| {
                let count = split.keys_of(part).len();
                [format!("*{count}\r\n"), "$3\r\nxxx\r\n".repeat(count)].concat().into_bytes()
            })
            .collect();
        let mut out = Vec::new();
        bencher.counter(ItemsCount::new(keys)).bench_local(|| {
            let mut merge = Merge::of_split(&split, None, false);
            for (part, reply) in replies.iter().enumerate() {
                merge.take(part, reply);
            }
            out.clear();
            merge.finish(&mut out);
            black_box(out.len())
        });
    }
}

mod scrape {
    use std::{sync::Arc, time::Duration};

    use slotway::{
        clients::Clients,
        metrics::{CommandClass, CommandId, Libraries, Metrics, NodeState, RequestClass, Slots},
        protocol::endpoint::Endpoint,
    };

    use super::*;

    /// Such a page of /metrics is written anew for each scrape.
    #[divan::bench(args = [(3, 50), (100, 10_000)])]
    fn page(bencher: Bencher, (nodes, clients): (usize, usize)) {
        let metrics = Metrics::new();
        let label = |number| -> Arc<str> { format!("redis-{number}.example.internal:7000").into() };
        let state =
            |number| NodeState { label: label(number), address: label(number), role: "primary", up: true, slots: 163 };
        metrics.topology(1, Slots { assigned: 16384, reachable: 16384 }, (0..nodes).map(state).collect());
        let (of_clients, of_nodes) = (metrics.client_tally(), metrics.node_tallies());
        for spec in CommandTable::builtin().rows() {
            let took = Duration::from_micros(300);
            of_clients.command(CommandId::of(&spec.name), CommandClass::Read, false, took);
        }
        for number in 0..nodes {
            let tally = of_nodes.of(&label(number));
            tally.queued(30);
            tally.replied(RequestClass::Read, Duration::from_micros(300));
        }
        of_clients.publish();
        of_nodes.publish(|_| true);
        let registry = Clients::new(usize::MAX);
        let end = Endpoint::Tcp(([127, 0, 0, 1], 1).into());
        for _ in 0..clients {
            registry.join(end.clone(), end.clone(), Arc::default()).about().library = b"redis-py".to_vec();
        }
        println!("{nodes} nodes, {clients} clients: {} bytes", metrics.render().len());
        bencher.bench_local(|| {
            let mut libraries = Libraries::default();
            registry.all().iter().for_each(|client| libraries.add(&client.about().library));
            metrics.client_libraries(libraries);
            metrics.render()
        });
    }
}
