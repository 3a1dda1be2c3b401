//! Whatever bytes a client sends, it meets what one server would do to it, and nobody else meets anything: those who
//! share its node connections see no error, and no such connection is lost. Redis takes some frames that Valkey refuses
//! by closing the connection that they came by.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use crate::support::{
    Client, Cluster, Flavour, Node, Proxy, Random, Settings, Setup, Shape, client::frame, until, words,
};

/// How many mutated inputs are sent to each kind of server, unless `SLOTWAY_TEST_MUTATIONS` says otherwise.
const MUTATIONS: usize = 1500;

/// A cluster behind a proxy, and one server of the same kind.
pub struct Bench {
    // Before its nodes: it is ended first.
    pub proxy: Proxy,
    pub cluster: Cluster,
    pub oracle: Node,
    /// What the servers call CLIENT.
    client: &'static str,
    /// What neighbours have been answered.
    served: AtomicUsize,
}

impl Bench {
    pub fn new(flavour: Flavour, config: &[&str]) -> Bench {
        let config: Vec<String> = config.iter().map(|line| (*line).to_owned()).collect();
        let cluster = Cluster::start(Shape { flavour, config: config.clone(), ..Shape::default() });
        let oracle = Node::start(&Setup { flavour, config: config.clone(), ..Setup::default() });
        // One worker: whoever goes to a node shares the connection to it.
        let settings = Settings::new(cluster.seeds()).with("WORKERS", 1).expecting("possible SECURITY ATTACK");
        let proxy = Proxy::start(settings);
        let client = if config.iter().any(|line| line.contains(" CLIENT ")) { "customer" } else { "CLIENT" };
        Bench { proxy, cluster, oracle, client, served: AtomicUsize::new(0) }
    }

    /// Does `work` while neighbours ask all nodes by the connections that all share. None of them may meet an error, or
    /// what is another's, and none of those connections may be lost.
    pub fn beside_neighbours<T>(&self, work: impl FnOnce() -> T) -> T {
        let keys: Vec<String> = (0..3).map(|index| self.cluster.key_on(index, "neighbour:")).collect();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let neighbours: Vec<_> = (0..2)
                .map(|number| {
                    let (keys, done) = (&keys, &done);
                    scope.spawn(move || self.ask_on(number, keys, done))
                })
                .collect();
            // They have to be told to end, whatever becomes of the work.
            let _over = Over(&done);
            let are_served = || {
                let served = self.served.load(Relaxed);
                until("the neighbours to be served", Duration::from_secs(20), || {
                    let over = neighbours.iter().any(|one| one.is_finished());
                    (over || self.served.load(Relaxed) > served + 12).then_some(())
                });
            };
            are_served();
            let before = self.links();
            assert_eq!(before.len(), 3, "one connection to each node: {before:?}");
            let result = work();
            are_served();
            done.store(true, Relaxed);
            for neighbour in neighbours {
                neighbour.join().expect("a neighbour met no error");
            }
            let lost: Vec<_> = before.difference(&self.links()).cloned().collect();
            assert!(lost.is_empty(), "shared connections were lost: {lost:?}; the proxy's log:\n{}", self.proxy.log());
            result
        })
    }

    /// Asks every node by scripts, which need no data there, until `done`.
    fn ask_on(&self, number: usize, keys: &[String], done: &AtomicBool) {
        let mut client = self.proxy.client();
        let mut round = 0;
        while !done.load(Relaxed) {
            round += 1;
            let requests: Vec<Vec<String>> = keys
                .iter()
                .map(|key| {
                    ["EVAL", "return ARGV[1]", "1", key, &format!("{number}.{round}.{key}")].map(str::to_owned).to_vec()
                })
                .collect();
            for (request, reply) in requests.iter().zip(client.pipeline(&requests)) {
                let own = &request[4];
                assert_eq!(reply, format!("${}\r\n{own}\r\n", own.len()).as_str(), "asked for {own}");
            }
            self.served.fetch_add(requests.len(), Relaxed);
        }
    }

    /// The connections by which scripts have come to the nodes last: those of the neighbours.
    fn links(&self) -> BTreeSet<String> {
        let nodes = self.cluster.nodes.iter();
        nodes.flat_map(|node| self.connections(node, "cmd=eval")).collect()
    }

    /// The connections to a node that CLIENT LIST describes with this word.
    pub fn connections(&self, node: &Node, word: &str) -> Vec<String> {
        let list = node.line(&format!("{} LIST", self.client)).string();
        let lines = list.lines().filter(|line| line.split(' ').any(|field| field == word));
        lines.filter_map(|line| Some(format!("{} {}", node.port, line.split(' ').next()?))).collect()
    }

    /// What the proxy and the one server answer to these bytes, up to the end of the connection.
    pub fn answers(&self, bytes: &[u8]) -> [Vec<u8>; 2] {
        let (theirs, closes) = answer(self.oracle.client(), bytes, true);
        // Where one server closes by itself, the proxy does; nobody tells it that no more will come.
        let (ours, _) = answer(self.proxy.client(), bytes, !closes);
        [ours, theirs]
    }

    /// Forgets all data.
    fn flush(&self) {
        for node in self.cluster.nodes.iter().chain([&self.oracle]) {
            assert_eq!(node.line("FLUSHALL"), "+OK\r\n");
        }
    }
}

/// Sets the flag when it goes.
pub struct Over<'a>(pub &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// All that comes back for these bytes, and whether that is the end without more ado.
fn answer(mut client: Client, bytes: &[u8], finishes: bool) -> (Vec<u8>, bool) {
    client.patience = Duration::from_secs(20);
    let _ = client.try_send_raw(bytes);
    if finishes {
        let _ = client.stream().shutdown(std::net::Shutdown::Write);
    }
    let said = client.read_to_end().unwrap_or_else(|error| panic!("{}: {error}", shown(bytes)));
    let closes = said.split(|&byte| byte == b'\n').any(|line| line.starts_with(b"-ERR Protocol error: "));
    (said, closes)
}

fn shown(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(400)].escape_ascii().to_string()
}

/// Runs a test for Redis, and for Valkey where that is installed.
pub fn with_both(name: &str, test: impl Fn(Flavour)) {
    test(Flavour::Redis);
    if Flavour::Valkey.is_here(name) {
        test(Flavour::Valkey);
    }
}

/// Frames whose lines or texts do not end as they should, or have a NUL in their heads.
const CROOKED: &[&[u8]] = &[
    b"*2\r\n$3\r\nGET\r\n$1\r\naXY",
    b"*2\rX$3\r\nGET\r\n$1\r\na\r\n",
    b"*2\r\n$3\rXGET\r\n$1\r\na\r\n",
    b"*3\r\n$3\r\nSETXX$1\r\na\r\n$1\r\n1\r\n",
    b"*3\r\n$3\r\nSET\r\n$1\r\na\n\r$1\r\r1\0\0",
    b"*3\r\n$4\r\nMGET\r\n$1\r\na**$1\r\nb\r\n",
    b"*3\r\n$3\r\nDEL\r\n$1\r\na\r\n$1\r\nb$$",
    b"*0\rX",
    b"*-1\rX",
    b"*1\r\n$5\r\nMULTIXX*2\r\n$3\r\nGET\r\n$1\r\naXX*1\r\n$4\r\nEXECXX",
    b"*2\r\n$5\r\nWATCH\r\n$1\r\na??*1\r\n$5\r\nMULTI??*2\r\n$3\r\nGET\r\n$1\r\naXX*1\r\n$4\r\nEXECXX",
    b"*5\r\n$4\r\nEVAL\r\n$14\r\nreturn ARGV[1]XX$1\r\n1\r\n$1\r\na\r\n$1\r\nx--",
    b"*3\r\n$6\r\nSCRIPT\r\n$4\r\nLOADXX$8\r\nreturn 7\r\n",
    b"*3\r\n$5\r\nBLPOP\r\n$1\r\nl\r\n$4\r\n0.01XX",
    b"*2\r\n$7\r\nPUBLISH\r\n$1\r\ncXX",
    b"*3\r\n$7\r\nPUBLISH\r\n$1\r\nc\r\n$1\r\nmXX",
    b"*2\r\n$4\r\nECHO\r\n$1\r\na\rX",
    b"*1\r\n$6\r\nDBSIZEXX",
    b"*1\r\n$7\r\nNOSUCH!XX",
    b"*2\0\r\n$3\r\nGET\r\n$1\r\na\r\n",
    b"*2\r\n\0\r\nGET\r\n$1\r\na\r\n",
    b"*2\r\n$3\0\r\nGET\r\n$1\r\na\r\n",
    b"GET a\0\r\n",
    b"SET \"a\"b 'c'\"d\"e\r\nGET ab\r\n",
    b"ECHO \"\"'a'\x0b\"b\"\r\n",
    b"*1\r\n\xff4\r\nPING\r\n",
    b"*x\rX",
    b"*1\r\n$x\rX",
    b"*1\r\n+4\rX",
    b"*1\r\n$0\r\nXX",
];

#[test]
fn crooked_frames_cost_nobody_but_their_sender() {
    with_both("frames::crooked_frames_cost_nobody_but_their_sender", |flavour| {
        let bench = Bench::new(flavour, &[]);
        let padding = vec![b'p'; 66 * 1024];
        bench.beside_neighbours(|| {
            for bytes in CROOKED {
                // Alone; among others; and with so much behind it that nothing is waited for any more.
                let request = frame(&words("ECHO behind"));
                for bytes in [bytes.to_vec(), [&request, *bytes, &request].concat(), [*bytes, &padding].concat()] {
                    let [ours, theirs] = bench.answers(&bytes);
                    assert_eq!(shown(&ours), shown(&theirs), "{flavour:?}: {}", shown(&bytes));
                }
            }
        });
    });
}

/// What mutated inputs are made of. Commands with several keys are such as may have them in several slots.
const CORPUS: &[&str] = &[
    "SET a b",
    "GET a",
    "MGET a b c",
    "MSET a 1 b 2",
    "DEL a b",
    "EXISTS a a c",
    "INCR n",
    "APPEND a xyz",
    "GETRANGE a 0 -1",
    "SETRANGE a 3 zz",
    "LPUSH l 1 2 3",
    "LRANGE l 0 -1",
    "HSET h f v",
    "HGET h f",
    "ZADD z 1 a 2 b",
    "ZRANGE z 0 -1 WITHSCORES",
    "EVAL return{ARGV[1],ARGV[2]} 1 a x y",
    "SET a v EX 1000 NX GET",
    "OBJECT ENCODING a",
    "TYPE a",
    "ECHO ahoy",
    "PING",
    "CLIENT SETNAME me",
    "CLIENT GETNAME",
    "CLIENT REPLY SKIP",
    "RESET",
    "QUIT",
];
const TRANSACTION: &[&str] = &["MULTI", "SET a b", "GET a", "EXEC"];

/// Some requests in a row, in one form or the other, damaged here and there.
fn mutated(random: &mut Random) -> Vec<u8> {
    let written = |random: &mut Random, line: &str| {
        if random.one_in(5) { format!("{line}\r\n").into_bytes() } else { frame(&words(line)) }
    };
    let mut bytes: Vec<u8> = if random.one_in(6) {
        TRANSACTION.iter().flat_map(|line| written(random, line)).collect()
    } else {
        let lines: Vec<&str> = (0..=random.below(4)).map(|_| *random.pick(CORPUS)).collect();
        lines.into_iter().flat_map(|line| written(random, line)).collect()
    };
    for _ in 0..random.below(4) {
        mutate(&mut bytes, random);
    }
    // What comes behind shows whether the connection is still open, and in step.
    if random.one_in(2) {
        bytes.extend_from_slice(b"\r\n*2\r\n$4\r\nECHO\r\n$6\r\nbehind\r\n");
    }
    bytes
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    const ENDS: &[&[u8]] = &[b"\n", b"\r", b"\rX", b"XY", b"\n\r", b"\r\r", b"\0\0", b"  ", b"", b"\r\n\r\n", b"\r\0"];
    const NUMBERS: &[&str] = &[
        "0",
        "1",
        "2",
        "3",
        "4",
        "5",
        "10",
        "-1",
        "-2",
        "01",
        "+1",
        "",
        " 1",
        "1 ",
        "-0",
        "1.0",
        "0x1",
        "16385",
        "65537",
        "536870912",
        "536870913",
        "2147483647",
        "2147483648",
        "4294967296",
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775808",
        "99999999999999999999",
        "1\0",
    ];
    if bytes.is_empty() {
        return bytes.push(random.next() as u8);
    }
    let place = random.below(bytes.len());
    let find = |wanted: fn(&[u8]) -> bool| {
        let places = (0..bytes.len()).map(|shift| (place + shift) % bytes.len());
        places.into_iter().find(|&at| wanted(&bytes[at..]))
    };
    match random.below(9) {
        0 => bytes[place] ^= 1 << random.below(8),
        1 => bytes[place] = random.next() as u8,
        2 => drop(bytes.remove(place)),
        3 => bytes.insert(place, *random.pick(b"\r\n*$0123456789-+:'\"\\x{}\0 \t")),
        4 if random.one_in(3) => bytes.truncate(place),
        4 | 5 => {
            if let Some(at) = find(|rest| rest.starts_with(b"\r\n")) {
                bytes.splice(at..at + 2, random.pick(ENDS).iter().copied());
            }
        }
        6 | 7 => {
            if let Some(at) = find(|rest| matches!(rest, [b'*' | b'$', b'0'..=b'9', ..])) {
                let digits = bytes[at + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                bytes.splice(at + 1..at + 1 + digits, random.pick(NUMBERS).bytes());
            }
        }
        _ => {
            let line: &&str = random.pick(CORPUS);
            let piece = frame(&words(line));
            let from = random.below(piece.len());
            bytes.splice(place..place, piece[from..].iter().copied());
        }
    }
}

/// Where one server answers and a cluster cannot, or the proxy will not.
fn is_excused(ours: &[u8]) -> bool {
    let says = |text: &[u8]| ours.windows(text.len()).any(|part| part == text);
    says(b"-CROSSSLOT ") || says(b"-ERR proxy: ") || says(b" through the proxy: ")
}

#[test]
fn mutated_frames_meet_what_one_server_does_to_them() {
    let name = "frames::mutated_frames_meet_what_one_server_does_to_them";
    let random = Random::seeded(name);
    let count = std::env::var("SLOTWAY_TEST_MUTATIONS").ok().and_then(|count| count.parse().ok()).unwrap_or(MUTATIONS);
    with_both(name, |flavour| {
        let bench = Bench::new(flavour, &[]);
        let mut random = Random::new(random.seed);
        let start = Instant::now();
        let (mut refused, mut excused, mut again) = (0, 0, 0);
        bench.beside_neighbours(|| {
            for number in 1..=count {
                if number % 100_000 == 0 {
                    println!("{flavour:?}: {number} inputs in {:?}", start.elapsed());
                }
                let mut bytes = mutated(&mut random);
                if flavour == Flavour::Valkey {
                    // In inline requests its `isspace` is not that of C: 0xff is a space there.
                    bytes.iter_mut().filter(|byte| **byte == 0xff).for_each(|byte| *byte = 0xfe);
                }
                if flavour == Flavour::Valkey && bytes.windows(4).any(|part| part.eq_ignore_ascii_case(b"SKIP")) {
                    // To CLIENT REPLY SKIP a line of spaces is no request there, but an empty one is.
                    continue;
                }
                let [ours, theirs] = bench.answers(&bytes);
                refused += usize::from(theirs.windows(16).any(|part| part == b"Protocol error: "));
                if is_excused(&ours) {
                    excused += 1;
                    bench.flush();
                } else if ours != theirs {
                    // A key may have come to its time in between: what is a difference is one from scratch, too.
                    again += 1;
                    bench.flush();
                    let [ours, theirs] = bench.answers(&bytes);
                    assert_eq!(shown(&ours), shown(&theirs), "{flavour:?}: {}", bytes.escape_ascii());
                    assert_eq!(ours, theirs, "{flavour:?}: {}", bytes.escape_ascii());
                }
            }
        });
        let served = bench.served.load(Relaxed);
        println!(
            "{flavour:?}: {count} inputs in {:?}: {refused} refused by the server, {excused} by the proxy, {again} asked again; \
             neighbours got {served} replies",
            start.elapsed()
        );
        assert!(excused * 20 <= count, "{excused} of {count} inputs could not be compared");
        assert!(again * 100 <= count, "{again} of {count} inputs differed at first");
    });
}

/// The names by which these servers know what would be the end of a shared connection: COMMAND does not list them.
const RENAMED: &[&str] = &[
    "rename-command MONITOR spy",
    "rename-command CLIENT customer",
    "rename-command SUBSCRIBE hear",
    "rename-command QUIT leave",
    "rename-command RESET anew",
    "rename-command MULTI many",
    "rename-command SELECT choose",
];

#[test]
fn a_command_under_another_name_changes_no_shared_connection() {
    with_both("frames::a_command_under_another_name_changes_no_shared_connection", |flavour| {
        let bench = Bench::new(flavour, RENAMED);
        bench.beside_neighbours(|| {
            let mut oracle = bench.oracle.client();
            for line in [
                "customer SETNAME x",
                "customer REPLY OFF",
                "customer NO-EVICT on",
                "spy",
                "hear news",
                "anew",
                "many",
                "choose 0",
                "leave",
                "nothing of the kind",
            ] {
                // Some of them end the connection that they come by, or answer nothing.
                let mut client = bench.proxy.client().patient(Duration::from_secs(10));
                let _ = client.try_call(&words(line));
                assert_eq!(bench.proxy.client().line("GET a"), "$-1\r\n", "{line}");
            }
            for _ in 0..20 {
                let line = "nothing of the kind";
                assert_eq!(bench.proxy.client().line(line), oracle.line(line));
            }
        });
    });
}

/// A bulk string of this many bytes.
fn large(bytes: usize) -> Vec<u8> {
    vec![b'v'; bytes]
}

#[test]
fn a_large_request_is_nobody_else_s_business() {
    const MIB: usize = 1024 * 1024;
    with_both("frames::a_large_request_is_nobody_else_s_business", |flavour| {
        // As little as a server may be told to take.
        let bench = Bench::new(flavour, &["client-query-buffer-limit 1mb", "proto-max-bulk-len 1mb"]);
        let same = |requests: &[Vec<&[u8]>]| {
            let bytes: Vec<u8> = requests.iter().flat_map(|args| frame(args)).collect();
            let [ours, theirs] = [bench.proxy.client(), bench.oracle.client()].map(|client| {
                let mut client = client.patient(Duration::from_secs(20));
                client.exchange(&bytes, requests.len())
            });
            for (ours, theirs) in ours.iter().zip(&theirs) {
                assert!(ours == theirs, "{flavour:?}: {ours:?} instead of {theirs:?}");
            }
        };
        let (value, too_long) = (large(MIB - 64), large(2 * MIB));
        let many: Vec<Vec<u8>> = (0..30_000).map(|number| format!("element {number:0>40}").into_bytes()).collect();
        bench.beside_neighbours(|| {
            // In the order sent, whatever their sizes.
            let set = |value| vec![&b"SET"[..], b"k", value];
            let (get, length) = (vec![&b"GET"[..], b"k"], vec![&b"STRLEN"[..], b"k"]);
            same(&[
                set(b"small"),
                set(&value),
                length.clone(),
                set(b"small"),
                get.clone(),
                set(&value),
                set(b"x"),
                get.clone(),
            ]);
            same(&[[vec![&b"RPUSH"[..], b"list"], many.iter().map(Vec::as_slice).collect()].concat()]);
            same(&[
                vec![b"MSET", b"k1", &value, b"k2", &value, b"k3", b"s"],
                vec![b"STRLEN", b"k2"],
                vec![b"MGET", b"k3", b"none"],
            ]);
            same(&[vec![b"EVAL", b"return #ARGV[1]", b"1", b"k", &value]]);
            same(&[vec![b"ECHO", &value], vec![b"NOSUCH", &value]]);
            let half = &value[..MIB / 2 - 100];
            same(&[vec![b"MULTI"], set(half), vec![b"APPEND", b"k", half], length.clone(), vec![b"EXEC"], length]);
            // Longer than the nodes take: `node_limits` compares what is said to that.
            for _ in 0..3 {
                let mut client = bench.proxy.client().patient(Duration::from_secs(20));
                let _ = client.try_call(&[b"SET", &b"k"[..], &too_long]);
            }
        });
    });
}

#[test]
fn a_node_that_evicts_clients_evicts_no_shared_connection() {
    with_both("frames::a_node_that_evicts_clients_evicts_no_shared_connection", |flavour| {
        let bench = Bench::new(flavour, &["maxmemory-clients 8mb"]);
        let keys: Vec<String> = (0..3).map(|index| bench.cluster.key_on(index, "big:")).collect();
        for (index, key) in keys.iter().enumerate() {
            let reply = bench.cluster.node(index).client().call(&[&b"SET"[..], key.as_bytes(), &large(300_000)]);
            assert_eq!(reply, "+OK\r\n");
        }
        bench.beside_neighbours(|| {
            for key in &keys {
                // Replies of 30 MB, which wait at the node for a moment.
                let mut greedy = bench.proxy.client().patient(Duration::from_secs(30));
                greedy.send_raw(&frame(&["GET", key]).repeat(100));
                let _ = (0..100).try_for_each(|_| greedy.read().map(drop));
            }
        });
    });
}
