//! Where few open files are allowed, clients are bounded by what is left for them, and everything else goes on.

use std::{process::Command, time::Duration};

use crate::support::{Client, Proxy, Reply, Settings, client::PATIENCE, cluster::shared, eventually, words};

const TOO_MANY: &str = "-ERR max number of clients reached\r\n";

/// So many newcomers: those who are served, and how many were turned away.
fn crowd(proxy: &Proxy, count: usize) -> (Vec<Client>, usize) {
    let newcomers: Vec<Client> = (0..count).map(|_| proxy.client()).collect();
    let mut served = Vec::new();
    for mut client in newcomers {
        match client.try_call(&["PING"]) {
            Ok(reply) if reply == "+PONG\r\n" => served.push(client),
            Ok(reply) => assert_eq!(reply, TOO_MANY),
            // Its own PING met a closed socket, so that the kernel threw away what it had been told.
            Err(_) => {}
        }
    }
    let refused = count - served.len();
    (served, refused)
}

/// A reply, where one comes so soon.
fn read_within(client: &mut Client, time: Duration) -> Option<Reply> {
    client.patience = time;
    let reply = client.read().ok();
    client.patience = PATIENCE;
    reply
}

fn limited(files: usize) -> Proxy {
    Proxy::start(Settings::new(shared().seeds()).with_open_files(files).expecting_warnings())
}

/// The shared links are there, and so is a page of the admin port.
#[track_caller]
fn all_is_well(proxy: &Proxy, client: &mut Client) {
    assert_eq!(client.line("MSET files:a 1 files:b 2 files:c 3 files:d 4"), "+OK\r\n");
    let got = client.line("MGET files:a files:b files:c files:d");
    assert_eq!(got, "*4\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n$1\r\n4\r\n");
    assert_eq!(proxy.page("/readyz").0, 200);
}

#[test]
fn clients_are_bounded_by_the_open_files_that_are_left_for_them() {
    let proxy = limited(120);
    let mut first = proxy.client();
    let most = first.line("CONFIG GET maxclients").texts()[1].clone();
    let most: usize = most.parse().expect("a number");
    assert!((30..100).contains(&most), "{most} clients with 120 files");
    let shown = first.line("INFO clients").string();
    assert!(shown.contains(&format!("maxclients:{most}\r\n")), "{shown}");
    let shown = first.line("PROXY INFO").texts();
    assert!(shown.contains(&format!("maxclients:{most}")), "{shown:?}");
    assert!(proxy.log().contains("max_clients is lowered"), "{}", proxy.log());
    drop(first);
    let mut served = Vec::new();
    eventually("as many clients as there may be", || {
        let (more, refused) = crowd(&proxy, 110 - served.len());
        served.extend(more);
        served.len() == most && refused > 0
    });
    assert!(proxy.metric("slotway_client_connections_rejected_total", &["max_clients"]) > 0.0);
    for client in &mut served {
        all_is_well(&proxy, client);
        assert_eq!(client.line("KEYS files:none*"), "*0\r\n");
    }
    for client in served.iter_mut().take(10) {
        client.send(&["BLPOP", "files:list", "0"]);
    }
    let mut other = served.pop().expect("a client");
    eventually("ten to be blocked", || other.line("INFO clients").string().contains("blocked_clients:10\r\n"));
    all_is_well(&proxy, &mut other);
    other.line("RPUSH files:list 1 2 3 4 5 6 7 8 9 10");
    for client in served.iter_mut().take(10) {
        assert_eq!(client.reply().texts()[0], "files:list");
    }
}

#[test]
fn connections_of_clients_own_starve_nobody() {
    let proxy = limited(120);
    let (mut served, _) = crowd(&proxy, 40);
    let mut free = served.split_off(30);
    for client in &mut served {
        client.send(&["BLPOP", "files:never", "0"]);
    }
    // Who finds no file for a connection is told so, or waits in vain for a while.
    let blocked = |free: &mut Client| {
        let info = free.line("INFO clients").string();
        let line = info.lines().find_map(|line| line.strip_prefix("blocked_clients:")).map(str::to_owned);
        line.expect("blocked_clients").parse::<usize>().expect("a number")
    };
    let mut errors = Vec::new();
    eventually("each to wait, or to be told", || {
        served.retain_mut(|client| match read_within(client, Duration::from_millis(1)) {
            Some(reply) => {
                errors.push(reply);
                false
            }
            None => true,
        });
        served.len() < 30 && blocked(&mut free[0]) == served.len()
    });
    for error in errors {
        let text = String::from_utf8_lossy(&error.0).into_owned();
        assert!(text.starts_with("-ERR proxy: cannot connect to") && text.contains("ulimit -n"), "{text}");
    }
    for client in &mut free {
        all_is_well(&proxy, client);
    }
    // A newcomer is told, or served.
    crowd(&proxy, 5);
    drop(served);
    let mut client = free.pop().expect("a client");
    eventually("their files to be free again", || {
        client.line("RPUSH files:list x");
        client.line("BLPOP files:list 1").value().items().len() == 2
    });
}

#[test]
fn a_newcomer_for_whom_the_system_has_no_file_is_told_so() {
    let proxy = Proxy::start(Settings::new(shared().seeds()).expecting_warnings());
    proxy.open_files_with_links();
    let mut client = proxy.client();
    all_is_well(&proxy, &mut client);
    let allow = |files: &str| {
        let pid = proxy.pid().to_string();
        let done = Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={files}:20000")]).status();
        assert!(done.expect("prlimit").success());
    };
    allow(&proxy.open_files().to_string());
    eventually("a newcomer to be told", || {
        // The first ones still find a number below the limit.
        let mut newcomers: Vec<Client> = (0..20).map(|_| proxy.client()).collect();
        newcomers.iter_mut().any(|client| read_within(client, Duration::from_millis(100)).is_some())
    });
    assert!(proxy.metric("slotway_client_connections_rejected_total", &["descriptors"]) > 0.0);
    assert_eq!(client.line("GET files:a"), "$1\r\n1\r\n");
    allow("20000");
    eventually("newcomers to be served", || proxy.client().try_call(&["PING"]).is_ok_and(|reply| reply == "+PONG\r\n"));
    let complaints = proxy.log().matches("cannot accept clients").count();
    assert!(complaints < 10, "{complaints} lines");
}

#[test]
fn a_crowd_that_monitors_and_tracks_leaves_the_links_alone() {
    let proxy = limited(120);
    let (mut served, _) = crowd(&proxy, 30);
    let mut other = served.pop().expect("a client");
    for (index, client) in served.iter_mut().enumerate() {
        let words = match index % 3 {
            0 => words("MONITOR"),
            1 => words("CLIENT TRACKING ON BCAST"),
            _ => words("PSUBSCRIBE __key*"),
        };
        client.send(&words);
    }
    all_is_well(&proxy, &mut other);
    for client in &mut served {
        // OK, or why not.
        let _ = read_within(client, Duration::from_secs(10)).expect("an answer");
    }
    all_is_well(&proxy, &mut other);
    assert_eq!(proxy.page("/metrics").0, 200);
}
