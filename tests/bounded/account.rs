//! Whatever a client makes the proxy hold is in one account: memory stays within `max_buffered`, and CLIENT LIST tells
//! what each client costs.

use std::time::Duration;

use crate::support::{
    Client, Cluster, Flavour, Node, Proxy, Settings, Setup, Shape,
    client::{PATIENCE, frame, words},
    cluster::shared,
    eventually, until,
};

const MIB: u64 = 1024 * 1024;
/// How much each client makes the proxy hold, and how many try.
const EACH: usize = 4 * 1024 * 1024;
const CLIENTS: usize = 40;

/// A long word of its own.
fn word(number: usize, length: usize) -> Vec<u8> {
    let mut word = format!("{number:06}").into_bytes();
    word.resize(length, b'x');
    word
}

/// So many requests with one word more than `head`, of `length` bytes, all different.
fn many(head: &str, count: usize, length: usize) -> Vec<u8> {
    let request = |number: usize| {
        let mut args: Vec<Vec<u8>> = words(head).into_iter().map(|word| word.as_bytes().to_vec()).collect();
        args.push(word(number, length));
        frame(&args)
    };
    (0..count).flat_map(request).collect()
}

/// What one of many clients sends, by name.
fn ways(flavour: Flavour) -> Vec<(&'static str, Vec<u8>)> {
    let multi = |rest: Vec<u8>| [frame(&["MULTI"]), rest].concat();
    let prefixes: Vec<Vec<u8>> = (0..16).map(|number| word(number, EACH / 16)).collect();
    let track = prefixes.iter().flat_map(|prefix| [b"PREFIX".to_vec(), prefix.clone()]);
    let track = words("CLIENT TRACKING ON BCAST").into_iter().map(|word| word.as_bytes().to_vec()).chain(track);
    let names = std::iter::once(b"SUBSCRIBE".to_vec()).chain((0..200).map(|number| word(number, EACH / 200)));
    let names: Vec<Vec<u8>> = names.collect();
    let mut ways = vec![
        ("a name", many("CLIENT SETNAME", 1, EACH)),
        ("a name in HELLO", many("HELLO 3 SETNAME", 1, EACH)),
        ("a password that no node asked for", many("AUTH default", 1, EACH)),
        ("a transaction of tiny commands that the proxy answers", multi(frame(&["READONLY"]).repeat(12_000))),
        ("a transaction of one large command", multi(many("SET {account}", 1, EACH))),
        ("names of channels", frame(&names)),
        ("prefixes of keys", [frame(&["HELLO", "3"]), frame(&track.collect::<Vec<_>>())].concat()),
        ("a blocking command", many("BLPOP account:none", 1, EACH).replace_timeout()),
        ("a request of tiny arguments that is not whole", {
            let mut bytes = b"*700000\r\n$3\r\nDEL\r\n".to_vec();
            bytes.extend(b"$0\r\n\r\n".repeat(690_000));
            bytes
        }),
        ("a large request that is not whole", {
            let mut bytes = format!("*2\r\n$3\r\nGET\r\n${}\r\n", 2 * EACH).into_bytes();
            bytes.extend(vec![b'x'; EACH]);
            bytes
        }),
    ];
    if flavour == Flavour::Valkey {
        ways.push(("a library's name", many("CLIENT SETINFO lib-name", 1, EACH)));
    }
    ways
}

trait ReplaceTimeout {
    fn replace_timeout(self) -> Self;
}

impl ReplaceTimeout for Vec<u8> {
    /// `BLPOP key key`, with a timeout behind.
    fn replace_timeout(self) -> Vec<u8> {
        let rest = self.strip_prefix(b"*3\r\n").expect("three words");
        [b"*4\r\n", rest, b"$1\r\n0\r\n"].concat()
    }
}

fn all_ways_are_bounded(cluster: &Cluster, flavour: Flavour) {
    let mut wrong = Vec::new();
    for (way, bytes) in ways(flavour) {
        let settings = Settings::new(cluster.seeds()).with("MAX_BUFFERED", "32MiB").with("WORKERS", 1);
        let proxy = Proxy::start(settings.expecting_warnings());
        proxy.open_files_with_links();
        let before = proxy.resident();
        let mut most = 0;
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let mut client = proxy.client();
            let stream = client.stream().try_clone().expect("a second handle");
            stream.set_write_timeout(Some(Duration::from_millis(300))).expect("a timeout");
            // One that is sent away meanwhile, or is not read, cannot send it all.
            let _ = client.try_send_raw(&bytes);
            clients.push(client);
            most = most.max(proxy.resident());
        }
        // All of it has come, or has been refused, or waits in the sockets, once nothing more comes.
        let (mut received, mut quiet) = (0.0, 0);
        until(&format!("{way}: nothing more to come"), 4 * PATIENCE, || {
            most = most.max(proxy.resident());
            let now = proxy.metric("slotway_client_received_bytes_total", &[]);
            quiet = if now == received { quiet + 1 } else { 0 };
            received = now;
            (quiet > 10).then_some(())
        });
        let grown = most.saturating_sub(before);
        // What nodes are being told is held several times, and a session that waits for them goes when they have answered.
        let told = ["names of channels", "prefixes of keys"].contains(&way);
        if grown >= if told { 176 } else { 112 } * MIB {
            wrong.push(format!("{way}: {} MiB beyond the {} MiB of before", grown / MIB, before / MIB));
        }
        assert_eq!(proxy.client().line("PING"), "+PONG\r\n", "{way}");
        drop(clients);
        // Who has gone with half a request waits for its turn to be read to its end.
        until(&format!("{way}: nothing to be held any more"), 4 * PATIENCE, || {
            (proxy.metric("slotway_client_buffered_bytes", &[]) == 0.0).then_some(())
        });
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_clients_leave_with_the_proxy_is_bounded() {
    all_ways_are_bounded(shared(), Flavour::Redis);
}

#[test]
fn what_clients_leave_with_the_proxy_is_bounded_before_valkey() {
    if Flavour::Valkey.is_here("what_clients_leave_with_the_proxy_is_bounded_before_valkey") {
        let cluster = Cluster::start(Shape { flavour: Flavour::Valkey, ..Shape::default() });
        all_ways_are_bounded(&cluster, Flavour::Valkey);
    }
}

/// A field of the line that a client has in CLIENT LIST, as `other` sees it.
fn field(other: &mut Client, id: i64, name: &str) -> usize {
    let list = other.line("CLIENT LIST").string();
    let line = list.lines().find(|line| line.starts_with(&format!("id={id} "))).expect("its line").to_owned();
    value_in(&line, name)
}

fn value_in(line: &str, name: &str) -> usize {
    let value = line.split(' ').find_map(|word| word.strip_prefix(&format!("{name}="))).expect("the field");
    value.parse().unwrap_or_else(|_| panic!("{name}={value}"))
}

/// What is told of memory is the same as on a server, as far as both hold the same.
fn lines_are_true(proxy: &Proxy, server: &Node, flavour: Flavour) {
    for address in [proxy.address(), server.address()] {
        let connect = || Client::connect(&address);
        let mut other = connect();
        // The request itself is in a query buffer: that of the client, or one that all share.
        let own = other.line("CLIENT LIST").string();
        let own = own.lines().last().expect("a line");
        let (list, info) = if flavour == Flavour::Redis { (26, 26) } else { (0, 0) };
        assert_eq!(value_in(own, "qbuf"), list, "{address}: {own}");
        assert_eq!(value_in(own, "argv-mem"), 10, "{address}: {own}");
        assert_eq!(value_in(&other.line("CLIENT INFO").string(), "qbuf"), info, "{address}");
        // A client that waits for nothing holds nothing.
        let mut idle = connect();
        let id = idle.line("CLIENT ID").integer();
        for name in ["qbuf", "argv-mem", "multi-mem", "obl", "oll", "omem"] {
            assert_eq!(field(&mut other, id, name), 0, "{address}: {name}");
        }
        let at_rest = field(&mut other, id, "tot-mem");
        assert!(at_rest > 500, "{address}: {at_rest}");
        // A request that is not whole: what has come, and the arguments that are whole.
        let part = &frame(&["SET", "account", &"x".repeat(50_000)])[..40_000];
        idle.send_raw(part);
        eventually("its bytes to come", || field(&mut other, id, "qbuf") > 39_000);
        assert_eq!(field(&mut other, id, "argv-mem"), 10, "{address}");
        let now = field(&mut other, id, "tot-mem");
        assert!(now >= at_rest + 20_000 && now < at_rest + 200_000, "{address}: {at_rest}, now {now}");
        // A blocked client's arguments.
        let mut blocked = connect();
        let id = blocked.line("CLIENT ID").integer();
        blocked.send(&["BLPOP", "nolist", "0"]);
        eventually("its arguments to be told", || field(&mut other, id, "argv-mem") == 12);
        assert_eq!(field(&mut other, id, "qbuf"), 0, "{address}");
        // A transaction.
        let mut queues = connect();
        let id = queues.line("CLIENT ID").integer();
        queues.line("MULTI");
        queues.line(&format!("SET account {}", "x".repeat(10_000)));
        // What it holds is told right behind its reply.
        eventually("what is queued to be told", || {
            (10_000..21_000).contains(&field(&mut other, id, "multi-mem")) && field(&mut other, id, "tot-mem") >= 10_000
        });
        queues.line("DISCARD");
        eventually("nothing to be queued", || field(&mut other, id, "multi-mem") == 0);
        // One that does not read: its replies are in the buffer and in the list behind it.
        other.line(&format!("SET account:big {}", "x".repeat(2_000_000)));
        let mut slow = connect();
        let id = slow.line("CLIENT ID").integer();
        (0..20).for_each(|_| slow.send(&["GET", "account:big"]));
        eventually("replies to be held", || {
            let [obl, omem] = ["obl", "omem"].map(|name| field(&mut other, id, name));
            omem > 100_000 && obl <= 16 * 1024 + 8
        });
        let elements = field(&mut other, id, "oll");
        // Valkey keeps large values themselves, and not copies in a list.
        let lists = flavour == Flavour::Redis || address == proxy.address();
        assert!(!lists || (1..=45).contains(&elements), "{address}: {elements}");
        let list = other.line("CLIENT LIST").string();
        let line = list.lines().find(|line| line.starts_with(&format!("id={id} "))).expect("its line");
        assert!(value_in(line, "tot-mem") >= value_in(line, "omem"), "{address}: {line}");
        assert!(line.contains(" events=rw ") && value_in(line, "rbs") >= value_in(line, "obl"), "{address}: {line}");
        slow.patience = PATIENCE;
        (0..20).for_each(|_| assert_eq!(slow.reply().text().len(), 2_000_000));
        eventually("nothing to be held any more", || field(&mut other, id, "omem") == 0);
        assert_eq!(field(&mut other, id, "oll"), 0, "{address}");
        // The most that waited to be written is told for some seconds.
        other.line(&format!("SET account:small {}", "x".repeat(5_000)));
        eventually("the peak to be told", || {
            slow.line("GET account:small");
            field(&mut other, id, "rbp") >= 500
        });
        until("the peak to be forgotten", Duration::from_secs(20), || {
            (field(&mut other, id, "rbp") == 0).then_some(())
        });
        // A name.
        let before = field(&mut other, id, "tot-mem");
        slow.line(&format!("CLIENT SETNAME {}", "n".repeat(5_000)));
        if address == proxy.address() {
            eventually("the name to be counted", || field(&mut other, id, "tot-mem") >= before + 5_000);
        }
    }
}

#[test]
fn client_list_tells_the_truth_about_memory() {
    lines_are_true(&Proxy::before(shared()), &Node::standalone(), Flavour::Redis);
}

#[test]
fn client_list_tells_the_truth_about_memory_as_valkey_does() {
    if Flavour::Valkey.is_here("client_list_tells_the_truth_about_memory_as_valkey_does") {
        let cluster = Cluster::start(Shape { flavour: Flavour::Valkey, ..Shape::default() });
        let server = Node::start(&Setup { flavour: Flavour::Valkey, ..Setup::default() });
        lines_are_true(&Proxy::before(&cluster), &server, Flavour::Valkey);
    }
}
