//! The proxy's own users (`[users]`): who they are, where they work, and how much they may have.

use std::{fs, path::PathBuf};

use super::listeners::{at, with_file};
use crate::support::{Client, Cluster, Proxy, cluster::shared, eventually, reaper};

/// A file with these passwords.
fn passwords(name: &str, text: &str) -> PathBuf {
    let file = reaper::folder("passwords").join(format!("{name}-{}", std::process::id()));
    fs::write(&file, text).expect("a file");
    file
}

/// A user's table.
fn user(name: &str, more: &str) -> String {
    let file = passwords(name, &format!("{name}-secret\n"));
    format!("[users.{name}]\npassword_file = \"{}\"\n{more}\n", file.display())
}

fn start(cluster: &Cluster, text: &str) -> (Proxy, Vec<u16>) {
    let (settings, ports) = with_file(cluster, text);
    (Proxy::start(settings), ports)
}

fn log_in(mut client: Client, name: &str) -> Client {
    assert_eq!(client.line(&format!("AUTH {name} {name}-secret")), "+OK\r\n");
    client
}

#[test]
fn a_user_works_in_its_database_and_nowhere_else() {
    let cluster = Cluster::three();
    let text = [
        "databases = 2",
        "[[listeners]]\naddress = \"127.0.0.1:{a}\"\ndatabase = \"jobs\"",
        &user("celery", "database = \"celery\""),
        &user("shop", "database = \"shop\""),
        &user("whole", ""),
    ];
    let (proxy, ports) = start(&cluster, &text.join("\n"));
    for line in ["GET a", "CLIENT LIST", "PROXY NODE slot:1 KEYS *", "SELECT 1"] {
        assert!(proxy.client().line(line).0.starts_with(b"-NOAUTH "), "{line}");
    }
    let (mut celery, mut shop) = (log_in(proxy.client(), "celery"), log_in(proxy.client(), "shop"));
    let mut whole = log_in(proxy.client(), "whole");
    for (client, value) in [(&mut celery, "of celery"), (&mut shop, "of shop")] {
        client.call(&["MSET", "a", value, "b", value]);
        client.line("SELECT 1");
        client.call(&["SET", "c", value]);
        client.line("SELECT 0");
    }
    assert_eq!(celery.line("MGET a b").texts(), ["of celery", "of celery"]);
    assert_eq!(shop.line("MGET a b").texts(), ["of shop", "of shop"]);
    assert_eq!(shop.line("GET c"), "$-1\r\n");
    let mut kept = whole.line("KEYS *").texts();
    kept.sort_unstable();
    assert_eq!(kept, ["{celery/1}c", "{celery}a", "{celery}b", "{shop/1}c", "{shop}a", "{shop}b"]);
    // Its database goes with it, whatever listener it comes by; another is left with the connection's user.
    let mut moves = log_in(at(ports[0]), "celery");
    assert_eq!(moves.line("GET a").string(), "of celery");
    moves.line("SELECT 1");
    assert_eq!(moves.line("AUTH shop shop-secret"), "+OK\r\n");
    assert_eq!(moves.line("GET a").string(), "of shop", "and its SELECT does not");
    assert!(moves.line("CLIENT INFO").string().contains(" db=0 "));
    assert_eq!(moves.line("AUTH whole whole-secret"), "+OK\r\n");
    assert_eq!(moves.line("GET a"), "$-1\r\n", "in the database of its listener");
    assert!(!moves.line("HELLO 3 AUTH celery celery-secret").is_error());
    assert_eq!(moves.line("GET a").string(), "of celery");
    assert_eq!(moves.line("ACL WHOAMI").string(), "celery");
    moves.line("RESET");
    assert!(moves.line("GET a").0.starts_with(b"-NOAUTH "));
}

#[test]
fn what_a_user_is_told_of_others_is_nothing() {
    let text = [user("one", "database = \"one\""), user("two", "database = \"two\""), user("free", "")].concat();
    let (proxy, _) = start(shared(), &text);
    let (mut one, mut two) = (log_in(proxy.client(), "one"), log_in(proxy.client(), "two"));
    let mut free = log_in(proxy.client(), "free");
    let id = two.line("CLIENT ID").integer();
    let list = one.line("CLIENT LIST").string();
    assert!(list.contains("user=one") && !list.contains("user=two"), "{list}");
    assert_eq!(one.line(&format!("CLIENT LIST ID {id}")).string(), "");
    assert_eq!(one.line(&format!("CLIENT KILL ID {id}")), ":0\r\n");
    assert_eq!(one.line("CLIENT KILL SKIPME yes TYPE normal"), ":0\r\n");
    assert_eq!(one.line(&format!("CLIENT UNBLOCK {id}")), ":0\r\n");
    let stranger = one.line(&format!("CLIENT TRACKING ON REDIRECT {id}"));
    assert_eq!(stranger, "-ERR The client ID you want redirect to does not exist\r\n");
    assert_eq!(two.line("PING"), "+PONG\r\n");
    for line in ["CLIENT PAUSE 1000", "CLIENT UNPAUSE", "SCRIPT FLUSH"] {
        let refused = one.line(line);
        let expected = "would act on clients of other users than 'one'";
        assert!(String::from_utf8_lossy(&refused.0).contains(expected), "{line}: {refused:?}");
    }
    for line in ["ACL SETUSER x on", "ACL DELUSER one", "ACL LOAD", "ACL SAVE"] {
        for client in [&mut one, &mut free] {
            let refused = client.line(line);
            assert!(String::from_utf8_lossy(&refused.0).contains("is about the nodes' users"), "{line}: {refused:?}");
        }
    }
    assert_eq!(one.line("ACL USERS").texts(), ["one"]);
    assert_eq!(one.line("ACL GETUSER two"), "*-1\r\n");
    assert_eq!(one.line("ACL DRYRUN two GET a"), "-ERR User 'two' not found\r\n");
    // In MULTI it is refused when it is queued.
    free.line("MULTI");
    assert!(free.line("ACL LIST").is_error());
    assert!(free.line("EXEC").0.starts_with(b"-EXECABORT"));
    assert!(!one.line("ACL CAT").is_error());
}

#[test]
fn passwords_are_several_and_change() {
    let file = passwords("turns", "first\r\nsecond\n\n");
    let text = format!("[users.turns]\npassword_file = \"{}\"\n", file.display());
    let (settings, _) = with_file(shared(), &text);
    let proxy = Proxy::start(settings.expecting("the new passwords of the user turns are not taken"));
    let said = |password: &str| proxy.client().line(&format!("AUTH turns {password}"));
    let right = |password: &str| said(password) == "+OK\r\n";
    assert!(right("first") && right("second") && !right("third") && !right("first\r"));
    assert_eq!(said("third"), "-WRONGPASS invalid username-password pair or user is disabled.\r\n");
    let mut stays = proxy.client();
    stays.line("AUTH turns first");
    fs::write(&file, "second\nthird\n").expect("a file");
    eventually("the new password is taken", || right("third"));
    assert!(right("second") && !right("first"));
    assert_eq!(stays.line("PING"), "+PONG\r\n", "who has logged in stays");
    fs::write(&file, "\n").expect("a file");
    eventually("an empty file is refused", || proxy.log().contains("turns are not taken"));
    assert!(right("third"));
}

#[test]
fn others_are_left_to_the_nodes_but_not_their_default_user() {
    let cluster = Cluster::three();
    for node in 0..3 {
        cluster.node(node).client().line("ACL SETUSER bob on >bobs ~* &* +@all");
    }
    let text = [
        user("celery", "database = \"celery\""),
        "[[listeners]]\naddress = \"127.0.0.1:{a}\"\nusers = [\"default\"]\n".into(),
    ];
    let (proxy, ports) = start(&cluster, &text.concat());
    let mut bob = proxy.client();
    assert_eq!(bob.line("AUTH bob bobs"), "+OK\r\n");
    assert_eq!(bob.line("SET foo bar"), "+OK\r\n");
    assert_eq!(bob.line("ACL WHOAMI").string(), "bob");
    assert!(bob.line("AUTH default anything").0.starts_with(b"-WRONGPASS "), "the nodes would take anything");
    assert!(bob.line("AUTH anything").0.starts_with(b"-WRONGPASS "));
    assert_eq!(at(ports[0]).line("AUTH default anything"), "+OK\r\n", "where a listener names it");
    assert!(at(ports[0]).line("AUTH celery celery-secret").0.starts_with(b"-WRONGPASS "));
    // As a user of the proxy's own, nothing of bob's rights is left, nor the other way round.
    assert_eq!(bob.line("AUTH celery celery-secret"), "+OK\r\n");
    assert_eq!(bob.line("GET foo"), "$-1\r\n");
    assert_eq!(bob.line("AUTH bob bobs"), "+OK\r\n");
    assert_eq!(bob.line("GET foo").string(), "bar");
}

#[test]
fn a_user_has_as_much_as_it_may() {
    let text = [
        user("few", "max_clients = 2"),
        user("slow", "max_requests_per_second = 20\ndatabase = \"slow\""),
        user("other", ""),
    ];
    let (proxy, _) = start(shared(), &text.concat());
    let (mut one, two) = (log_in(proxy.client(), "few"), log_in(proxy.client(), "few"));
    let mut third = proxy.client();
    let refused = "-ERR proxy: max number of clients of the user 'few' reached (SLOTWAY-USER-CLIENTS)\r\n";
    assert_eq!(third.line("AUTH few few-secret"), refused);
    assert_eq!(third.line("HELLO 3 AUTH few few-secret"), refused);
    assert_eq!(one.line("AUTH few few-secret"), "+OK\r\n", "who has a place keeps it");
    drop(two);
    eventually("a place is free", || third.line("AUTH few few-secret") == "+OK\r\n");
    assert_eq!(one.line("AUTH other other-secret"), "+OK\r\n");
    eventually("another is free", || proxy.client().line("AUTH few few-secret") == "+OK\r\n");

    let mut slow = log_in(proxy.client(), "slow");
    let lines: Vec<Vec<String>> = (0..60).map(|_| vec!["INCR".into(), "counter".into()]).collect();
    let replies = slow.pipeline(&lines);
    let refused = replies.iter().filter(|reply| reply.is_error()).count();
    let expected = "-ERR proxy: the user 'slow' may send 20 requests a second, and has; this one was not carried out (SLOTWAY-RATE-LIMIT)\r\n";
    assert!(replies.iter().filter(|reply| reply.is_error()).all(|reply| *reply == expected), "{replies:?}");
    assert!((20..40).contains(&(60 - refused)), "{refused} of 60 were refused");
    assert_eq!(log_in(proxy.client(), "other").line("PING"), "+PONG\r\n");
    let counted = || -> i64 {
        let reply = slow.line("GET counter");
        if reply.is_error() { -1 } else { reply.string().parse().expect("a number") }
    };
    let mut counted = counted;
    let carried_out = 60 - i64::try_from(refused).expect("few");
    eventually("it may ask again", || counted() == carried_out);
}

#[test]
fn what_is_held_for_a_user_is_bounded() {
    let text = [user("hungry", "max_buffered = \"4MiB\""), user("modest", "")].concat();
    let (settings, _) = with_file(shared(), &text);
    let proxy = Proxy::start(settings);
    let (mut one, mut other) = (log_in(proxy.client(), "hungry"), log_in(proxy.client(), "hungry"));
    let mut modest = log_in(proxy.client(), "modest");
    // What MULTI queues is held: 3 MiB and 3 MiB are more than it may have together.
    let value = "x".repeat(1 << 20);
    for client in [&mut one, &mut other] {
        client.line("MULTI");
    }
    for _ in 0..3 {
        one.call(&["SET", "foo", &value]);
    }
    other.send(&["SET", "foo", &value]);
    other.send(&["SET", "foo", &value]);
    eventually("one of them has gone", || {
        let list = modest.line("PING");
        assert_eq!(list, "+PONG\r\n");
        proxy.log().contains("the client that holds most is closed")
    });
    assert_eq!(modest.line("GET nothing"), "$-1\r\n");
}

#[test]
fn bad_users_are_named() {
    let file = passwords("bad", "x\n");
    for (text, error) in [
        (
            "[users.a]\npassword_file = \"/nowhere\"\n".to_owned(),
            "`users.a.password_file`: cannot take the password from /nowhere",
        ),
        ("[users.a]\n".to_owned(), "`password_file` is missing"),
        (format!("[users.\"a b\"]\npassword_file = \"{}\"\n", file.display()), "`a b` is no name of a user"),
        (
            format!("client_password = \"x\"\n[users.default]\npassword_file = \"{}\"\n", file.display()),
            "the user `default` is there twice",
        ),
        (
            "client_password = \"x\"\n[[listeners]]\naddress = \":1\"\nusers = [\"bob\"]\n".to_owned(),
            "`listeners` names the user `bob`, who could not log in",
        ),
    ] {
        let (settings, _) = with_file(shared(), &text);
        let said = super::listeners::checked(&settings).expect_err(&text);
        assert!(said.contains(error), "{text}: {said}");
    }
}
