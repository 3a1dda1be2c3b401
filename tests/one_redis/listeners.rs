//! `[[listeners]]`: each port with a database of its own, and with those who may log in there.

use std::{fs, net::TcpListener, process::Command};

use crate::support::{
    Client, Cluster, Node, Proxy, Settings, cluster::shared, ports::free_port, proxy::only_set_here, reaper,
};

/// In front of `cluster`, with this file besides; `{a}`, `{b}` ... in it are ports, which are told.
pub fn with_file(cluster: &Cluster, text: &str) -> (Settings, Vec<u16>) {
    let (mut text, mut ports) = (text.to_owned(), Vec::new());
    for letter in 'a'..='e' {
        let named = format!("{{{letter}}}");
        if text.contains(&named) {
            let port = free_port();
            text = text.replace(&named, &port.to_string());
            ports.push(port);
        }
    }
    let file = reaper::folder(&format!("file-{}", free_port())).join("slotway.toml");
    fs::write(&file, text).expect("a file");
    let mut settings = Settings::new(cluster.seeds());
    settings.flags = vec!["--config".into(), file.display().to_string()];
    (settings, ports)
}

/// What `slotway check` says of these settings; or what is wrong with them.
pub fn checked(settings: &Settings) -> Result<String, String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slotway"));
    let done = only_set_here(&mut command).arg("check").args(&settings.flags).args(["--seeds", "127.0.0.1:1"]).output();
    let done = done.expect("slotway check");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if done.status.success() { Ok(text(&done.stdout)) } else { Err(text(&done.stderr)) }
}

pub fn at(port: u16) -> Client {
    Client::connect(&format!("127.0.0.1:{port}"))
}

#[test]
fn each_listener_leads_to_its_database() {
    let cluster = Cluster::three();
    let text = "databases = 4\n\
        [[listeners]]\naddress = \"127.0.0.1:{a}\"\ndatabase = \"shop\"\n\
        [[listeners]]\naddress = \"redis://127.0.0.1:{b}\"\ndatabase = \"jobs\"\n\
        [[listeners]]\naddress = \"127.0.0.1:{c}\"\ndatabase = \"shop\"\n";
    let (settings, ports) = with_file(&cluster, text);
    let proxy = Proxy::start(settings);
    let (mut whole, mut shop, mut jobs, mut again) = (proxy.client(), at(ports[0]), at(ports[1]), at(ports[2]));
    assert_eq!(shop.line("MSET a 1 b 2 c 3"), "+OK\r\n");
    assert_eq!(jobs.line("SET a job"), "+OK\r\n");
    assert_eq!(again.line("MGET a b c").texts(), ["1", "2", "3"], "two listeners of one database");
    assert_eq!(jobs.line("KEYS *").texts(), ["a"]);
    let mut kept = whole.line("KEYS *").texts();
    kept.sort_unstable();
    assert_eq!(kept, ["{jobs}a", "{shop}a", "{shop}b", "{shop}c"]);
    // SELECT chooses among those of one name, and among nameless ones where there is none.
    assert_eq!(jobs.line("SELECT 3"), "+OK\r\n");
    assert_eq!(jobs.line("GET a"), "$-1\r\n");
    jobs.line("SET third x");
    assert_eq!(whole.line("EXISTS {jobs/3}third").integer(), 1);
    assert_eq!(jobs.line("SELECT 4"), "-ERR DB index is out of range\r\n");
    assert_eq!(whole.line("SELECT 1"), "+OK\r\n");
    assert_eq!(whole.line("DBSIZE").integer(), 0);
    assert_eq!(jobs.line("RESET"), "+RESET\r\n");
    assert_eq!(jobs.line("GET a").string(), "job");
}

/// `--listen` may be said again, as a URL or not, by IPv4 or IPv6; `[::]` is every address of both.
#[test]
fn addresses_are_of_either_version_of_ip() {
    if TcpListener::bind("[::1]:0").is_err() {
        eprintln!("SKIPPED addresses_are_of_either_version_of_ip: no IPv6 here");
        return;
    }
    let [first, second, third] = [(); 3].map(|()| free_port());
    let mut settings = Settings::new(shared().seeds()).expecting("asks nobody for a password");
    settings.flags = [format!("redis://[::1]:{first}"), format!("[::]:{second},127.0.0.1:{third}")]
        .map(|at| format!("--listen={at}"))
        .into();
    let proxy = Proxy::start(settings);
    for (address, shown) in [
        (format!("[::1]:{first}"), format!(" laddr=[::1]:{first} ")),
        (format!("[::1]:{second}"), format!(" laddr=[::1]:{second} ")),
        (format!("127.0.0.1:{second}"), format!(" laddr=127.0.0.1:{second} ")),
        (format!("127.0.0.1:{third}"), format!(" laddr=127.0.0.1:{third} ")),
    ] {
        let mut client = Client::connect(&address);
        assert_eq!(client.line("SET listeners:ip 1"), "+OK\r\n");
        let info = client.line("CLIENT INFO").string();
        assert!(info.contains(&shown), "{address}: {info}");
        assert!(proxy.client().line("CLIENT LIST").string().contains(&shown), "{address}");
    }
}

/// What a listener says of who may log in is said of the nodes' users, too.
#[test]
fn a_listener_takes_only_its_users() {
    let cluster = Cluster::three();
    for node in 0..3 {
        for user in ["worker", "other"] {
            cluster.node(node).client().line(&format!("ACL SETUSER {user} on >secret ~* &* +@all"));
        }
    }
    let text = "[[listeners]]\naddress = \"127.0.0.1:{a}\"\nusers = [\"worker\"]\n";
    let (settings, ports) = with_file(&cluster, text);
    let proxy = Proxy::start(settings);
    let (mut client, oracle) = (at(ports[0]), Node::standalone());
    oracle.client().line("CONFIG SET requirepass x");
    let mut theirs = oracle.client();
    for line in ["GET foo", "PING", "CLIENT LIST"] {
        assert_eq!(client.line(line), theirs.line(line), "{line} before anybody has logged in");
    }
    for wrong in ["AUTH other secret", "AUTH secret", "AUTH worker wrong", "HELLO 3 AUTH other secret"] {
        let refused = client.line(wrong);
        assert!(refused.0.starts_with(b"-WRONGPASS "), "{wrong}: {refused:?}");
    }
    assert_eq!(client.line("AUTH worker secret"), "+OK\r\n");
    assert_eq!(client.line("ACL WHOAMI").string(), "worker");
    assert_eq!(client.line("SET foo bar"), "+OK\r\n");
    client.line("RESET");
    assert!(client.line("GET foo").0.starts_with(b"-NOAUTH "));
    // At the others all is as ever.
    let mut open = proxy.client();
    assert_eq!(open.line("GET foo").string(), "bar");
    assert_eq!(open.line("AUTH other secret"), "+OK\r\n");
}

/// `listen` has an address by default, which is none of those that are listed.
#[test]
fn those_that_are_listed_are_all() {
    let (settings, ports) = with_file(shared(), "[[listeners]]\naddress = \"127.0.0.1:{a}\"\n");
    let said = checked(&settings).expect("it is fine");
    assert!(said.contains(&format!("127.0.0.1:{}", ports[0])), "{said}");
}
