//! `slotway copy`: what arrives is what was sent, wherever it goes; and what is in the way is told before anything is written.

use std::process::Command;

use super::listeners::{at, with_file};
use crate::support::{
    Authority, Client, Cluster, Node, Proxy, Settings, Setup, TlsProxy,
    cluster::{Shape, shared},
    eventually,
    node::Flavour,
    ports::free_port,
    proxy::only_set_here,
    random::Random,
};

/// What `slotway copy` says, on either stream, and whether it ended well.
fn copy(from: &str, to: &str, more: &[&str]) -> (bool, String) {
    let [from, to] =
        [from, to].map(|place| if place.contains("://") { place.to_owned() } else { format!("redis://{place}") });
    let mut command = Command::new(env!("CARGO_BIN_EXE_slotway"));
    let done = only_set_here(&mut command).args(["copy", "--from", &from, "--to", &to]).args(more).output();
    let done = done.expect("slotway copy");
    let text = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    (done.status.success(), text)
}

#[track_caller]
fn copies(from: &str, to: &str, more: &[&str]) -> String {
    let (well, said) = copy(from, to, more);
    assert!(well, "{said}");
    said
}

/// Keys of all types, small and large, some of which expire.
fn fill(server: &mut Client, count: usize) -> Vec<Vec<u8>> {
    let mut random = Random::seeded("copying");
    let (mut keys, mut requests) = (Vec::new(), Vec::new());
    for number in 0..count {
        let key = [format!("key:{number}").as_bytes(), &[number as u8, 0, b'\r', b'\n']].concat();
        let many = [1, 3, 40, 700][random.below(4)];
        let element = |index: usize| format!("element {index} of {number}").into_bytes();
        let mut request: Vec<Vec<u8>> = Vec::new();
        let mut says = |words: Vec<Vec<u8>>| request.extend(words);
        match number % 7 {
            0 => says(vec![b"SET".to_vec(), key.clone(), element(0).repeat(many)]),
            1 => says(vec![b"SET".to_vec(), key.clone(), number.to_string().into_bytes()]),
            2 => {
                says(vec![b"RPUSH".to_vec(), key.clone()]);
                says((0..many).map(element).collect());
            }
            3 => {
                says(vec![b"SADD".to_vec(), key.clone()]);
                says((0..many).map(element).collect());
            }
            4 => {
                says(vec![b"HSET".to_vec(), key.clone()]);
                says((0..2 * many).map(element).collect());
            }
            5 => {
                says(vec![b"ZADD".to_vec(), key.clone()]);
                says(
                    (0..2 * many).map(|at| if at % 2 == 0 { format!("{at}.5").into() } else { element(at) }).collect(),
                );
            }
            _ => {
                for at in 0..many.min(40) {
                    let id = format!("1-{}", at + 1).into_bytes();
                    requests.push(vec![b"XADD".to_vec(), key.clone(), id, b"field".to_vec(), element(at)]);
                }
                requests.push(["XGROUP", "CREATE", "", "group", "0"].map(|word| word.as_bytes().to_vec()).to_vec());
                requests.last_mut().expect("one")[2] = key.clone();
                let words = ["XREADGROUP", "GROUP", "group", "me", "COUNT", "2", "STREAMS", "", ">"];
                request = words.map(|word| word.as_bytes().to_vec()).to_vec();
                request[7] = key.clone();
            }
        }
        requests.push(request);
        if number % 3 == 0 {
            let time = (10_000_000 + number).to_string().into_bytes();
            requests.push(vec![b"PEXPIRE".to_vec(), key.clone(), time]);
        }
        keys.push(key);
    }
    for requests in requests.chunks(500) {
        assert!(server.pipeline(requests).iter().all(|reply| !reply.is_error()));
    }
    keys
}

/// The digests of values, and the times when they expire, as a server has them.
fn digests_at(client: &mut Client, keys: &[Vec<u8>], prefix: &[u8]) -> Vec<(String, i64)> {
    let mut requests = Vec::new();
    for key in keys {
        let kept = [prefix, key].concat();
        requests.push(vec![b"DEBUG".to_vec(), b"DIGEST-VALUE".to_vec(), kept.clone()]);
        requests.push(vec![b"PEXPIRETIME".to_vec(), kept]);
    }
    let replies = client.pipeline(&requests);
    replies.chunks_exact(2).map(|pair| (pair[0].texts().concat(), pair[1].integer())).collect()
}

#[test]
fn a_server_moves_into_a_database_and_a_spread_one() {
    let (cluster, old) = (Cluster::three(), Node::standalone());
    let keys = fill(&mut old.client(), 3000);
    let (settings, ports) = with_file(&cluster, "[[listeners]]\naddress = \"127.0.0.1:{a}\"\ndatabase = \"shop\"\n");
    let proxy = Proxy::start(settings);
    let said = copies(&old.address(), &format!("127.0.0.1:{}", ports[0]), &["--verify"]);
    assert!(said.contains("3000 keys copied") && said.contains("all 3000 keys are alike"), "{said}");
    let ours = digests_at(&mut old.client(), &keys, b"");
    let home = cluster.node(cluster.home_of("{shop}"));
    assert!(ours == digests_at(&mut home.client(), &keys, b"{shop}"), "the values at the node are others");
    assert_eq!(at(ports[0]).line("DBSIZE").integer(), 3000);

    // By its name, through a proxy that serves all: it is all there already.
    let said = copies(&old.address(), &proxy.address(), &["--database", "shop", "--verify"]);
    assert!(said.contains("3000 keys are at redis://") && said.contains("0 keys copied"), "{said}");

    let said = copies(&old.address(), &proxy.address(), &["--verify"]);
    assert!(said.contains("3000 keys copied") && said.contains("all 3000 keys are alike"), "{said}");
    for (key, expected) in keys.iter().zip(&ours).step_by(13) {
        let home = cluster.node(cluster.home_of(key));
        let found = digests_at(&mut home.client(), std::slice::from_ref(key), b"");
        assert_eq!(found.first(), Some(expected), "{}", key.escape_ascii());
    }
}

/// Where it was interrupted, it goes on: what is there is passed over, and nothing is lost or doubled.
#[test]
fn a_copy_that_was_killed_is_started_again() {
    let (old, new) = (Node::standalone(), Node::standalone());
    let sets = |number: usize| vec!["RPUSH".to_owned(), format!("key:{number}"), "a".repeat(200), number.to_string()];
    old.client().pipeline(&(0..20_000).map(sets).collect::<Vec<_>>());
    let mut command = Command::new(env!("CARGO_BIN_EXE_slotway"));
    let (from, to) = (format!("redis://{}", old.address()), format!("redis://{}", new.address()));
    let mut first =
        only_set_here(&mut command).args(["copy", "--from", &from, "--to", &to]).spawn().expect("slotway copy");
    let mut client = new.client();
    eventually("some keys are there", || client.line("DBSIZE").integer() > 0);
    let _ = first.kill();
    let _ = first.wait();
    let said = copies(&old.address(), &new.address(), &["--verify"]);
    assert!(said.contains("all 20000 keys are alike"), "{said}");
    assert_eq!(client.line("LLEN key:0").integer(), 2);
}

#[test]
fn what_is_in_the_way_is_told_before_anything_is_written() {
    let (old, new) = (Node::standalone(), Node::standalone());
    let (mut from, mut to) = (old.client(), new.client());
    for line in ["SET a 1", "RPUSH b x", "SET c 3", "SET d 4 PX 100000000", "SADD e 1 2 3", "SET only-here 1"] {
        from.line(line);
    }
    for line in ["SET a 1", "SET b string", "SET c 33", "SET d 4", "SADD e 1 2 4"] {
        to.line(line);
    }
    let (well, said) = copy(&old.address(), &new.address(), &[]);
    assert!(!well && said.contains("1 keys are at redis://"), "{said}");
    for example in [
        "b is a list, and a string there",
        "c has another value there",
        "d expires at another time there",
        "e has another value there",
        "4 keys and 0 function libraries are at redis://",
        "nothing has been copied",
    ] {
        assert!(said.contains(example), "{example}: {said}");
    }
    assert_eq!(to.line("EXISTS only-here"), ":0\r\n");
    let said = copies(&old.address(), &new.address(), &["--replace", "--verify"]);
    assert!(said.contains("5 keys are at redis://") && said.contains("6 keys copied"), "{said}");
    assert_eq!(to.line("LRANGE b 0 -1").texts(), ["x"]);
    assert_eq!(to.line("SISMEMBER e 4"), ":0\r\n");
    // Started again, it copies what is new, and nothing else.
    from.line("SET new 1");
    let said = copies(&old.address(), &new.address(), &[]);
    assert!(said.contains("6 keys are at redis://") && said.contains("1 keys copied"), "{said}");
}

#[test]
fn libraries_go_along_where_their_names_are_free() {
    let (old, new) = (Node::standalone(), Node::standalone());
    let library = |name: &str, what: &str| {
        format!("#!lua name={name}\nredis.register_function('{name}_f', function() return '{what}' end)")
    };
    old.client().call(&["FUNCTION", "LOAD", &library("mine", "old")]);
    old.client().call(&["FUNCTION", "LOAD", &library("both", "same")]);
    new.client().call(&["FUNCTION", "LOAD", &library("mine", "new")]);
    new.client().call(&["FUNCTION", "LOAD", &library("both", "same")]);
    old.client().line("SET foo bar");
    let (well, said) = copy(&old.address(), &new.address(), &[]);
    assert!(!well && said.contains("the function library mine is at redis://"), "{said}");
    assert!(!said.contains("library both"), "{said}");
    copies(&old.address(), &new.address(), &["--without-functions"]);
    assert_eq!(new.client().line("FCALL mine_f 0").string(), "new");
    copies(&old.address(), &new.address(), &["--replace"]);
    assert_eq!(new.client().line("FCALL mine_f 0").string(), "old");
    // In a database of its own they are refused; that is told before a key is written.
    let proxy = Proxy::start(Settings::new(shared().seeds()).with("DATABASE", "library-copied"));
    let (well, said) = copy(&old.address(), &proxy.address(), &[]);
    assert!(!well && said.contains("is refused there") && said.contains("--without-functions"), "{said}");
    assert_eq!(proxy.client().line("DBSIZE"), ":0\r\n");
    copies(&old.address(), &proxy.address(), &["--without-functions"]);
    assert_eq!(proxy.client().line("GET foo").string(), "bar");
}

/// A server that does not say when keys expire, as before Redis 7.0; a database other than 0; and one that asks for a password.
#[test]
fn servers_are_of_many_kinds() {
    let config = ["rename-command PEXPIRETIME \"\"", "requirepass sesame"].map(str::to_owned).to_vec();
    let (old, new) = (Node::start(&Setup { config, ..Setup::default() }), Node::standalone());
    let mut from = old.client();
    from.line("AUTH sesame");
    from.line("SELECT 3");
    from.line("SET foo bar PX 5000000");
    from.line("SET stays for-ever");
    let file = old.folder.join("password");
    std::fs::write(&file, "sesame\n").expect("a file");
    let place = format!("{}/3", old.address());
    let said = copies(&place, &new.address(), &["--verify", "--from-password-file", &file.display().to_string()]);
    assert!(said.contains("all 2 keys are alike"), "{said}");
    let left = new.client().line("PTTL foo").integer();
    assert!((4_900_000..=5_000_000).contains(&left), "{left}");
    assert_eq!(new.client().line("PTTL stays"), ":-1\r\n");
    let (well, said) = copy(&place, &new.address(), &[]);
    assert!(!well && said.contains("NOAUTH"), "{said}");
    let (well, said) = copy("127.0.0.1:1", &new.address(), &[]);
    assert!(!well && said.contains("127.0.0.1:1: "), "{said}");
}

/// `rediss://` on both sides; whoever shows no certificate of the CA that is named gets nothing.
#[test]
fn both_may_speak_tls() {
    let authority = Authority::new("copying");
    let issued = authority.issue("both", &["localhost"]);
    let port = free_port();
    let config = [
        format!("tls-port {port}"),
        format!("tls-cert-file {}", issued.certificate.display()),
        format!("tls-key-file {}", issued.key.display()),
        format!("tls-ca-cert-file {}", authority.certificate.display()),
        "tls-auth-clients no".to_owned(),
    ];
    let old = Node::start(&Setup { config: config.to_vec(), ..Setup::default() });
    // The cluster's keys are those of other tests, too.
    let value = "x".repeat(300_000);
    for number in 0..50 {
        assert_eq!(old.client().call(&["SET", &format!("copied:tls:{number}"), &value]), "+OK\r\n");
    }
    let tls = TlsProxy::start(authority, issued, &[], &["which speaks TLS"]);
    let (from, to) = (format!("rediss://localhost:{port}"), format!("rediss://localhost:{}", tls.port));
    let ca = tls.authority.certificate.display().to_string();
    let (well, said) =
        copy(&from, &to, &["--tls-ca-cert-file", &Authority::new("other").certificate.display().to_string()]);
    assert!(!well && said.contains(&from[9..]) && said.contains("certificate"), "{said}");
    let (well, said) = copy(&from, &format!("localhost:{}", tls.port), &["--tls-ca-cert-file", &ca]);
    assert!(!well && said.contains("rediss://"), "{said}");
    let said = copies(&from, &to, &["--tls-ca-cert-file", &ca, "--verify"]);
    assert!(said.contains("all 50 keys are alike"), "{said}");
    assert_eq!(tls.client().call(&["GET", "copied:tls:49"]).string(), value);
    let keys: Vec<String> = (0..50).map(|number| format!("copied:tls:{number}")).collect();
    let all: Vec<&str> = ["DEL"].into_iter().chain(keys.iter().map(String::as_str)).collect();
    assert_eq!(tls.client().call(&all), ":50\r\n");
}

/// Servers of two kinds write the same values in two ways: they are compared by what they hold.
#[test]
fn valkey_takes_what_redis_has() {
    if !Flavour::Valkey.is_here("copying::valkey_takes_what_redis_has") {
        return;
    }
    let cluster = Cluster::start(Shape { flavour: Flavour::Valkey, ..Shape::default() });
    let old = Node::standalone();
    fill(&mut old.client(), 700);
    let proxy = Proxy::start(Settings::new(cluster.seeds()).with("DATABASE", "shop"));
    let said = copies(&old.address(), &proxy.address(), &["--verify"]);
    assert!(said.contains("700 keys copied") && said.contains("all 700 keys are alike"), "{said}");
    // An older server cannot read what a newer one writes, and says so at the first key.
    let back = Node::standalone();
    let (well, said) = copy(&proxy.address(), &back.address(), &["--without-functions"]);
    assert!(!well && said.contains("it is older than the server that is copied from"), "{said}");
    assert_eq!(back.client().line("DBSIZE"), ":0\r\n");
}
