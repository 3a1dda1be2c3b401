use bytes::Bytes;

use super::{error::LONGEST_REASON, *};
use crate::protocol::resp::write;

#[test]
fn a_login_is_one_write() {
    let secret = |username: Option<&str>| {
        Some(Credentials {
            username: username.map(|user| Bytes::copy_from_slice(user.as_bytes())),
            secret: Bytes::from("s"),
        })
    };
    let resp3 = Login { version: Version::Resp3, ..Login::default() };
    for (login, expected) in [
        (Login::default(), vec![]),
        (Login { credentials: secret(None), ..Login::default() }, vec!["AUTH s"]),
        (Login { credentials: secret(Some("u")), database: 3, ..Login::default() }, vec!["AUTH u s", "SELECT 3"]),
        (resp3.clone(), vec!["HELLO 3"]),
        (Login { node: Some("id".into()), greets: true, ..resp3.clone() }, vec!["HELLO 3", "CLUSTER MYID"]),
        (Login { greets: true, ..Login::default() }, vec!["PING"]),
        (Login { credentials: secret(None), ..resp3.clone() }, vec!["HELLO 3 AUTH default s"]),
        // What the proxy asks, it asks as itself.
        (
            Login {
                credentials: secret(Some("u")),
                own: secret(Some("u")),
                node: Some("id".into()),
                ..Login::default()
            },
            vec!["AUTH u s", "CLUSTER MYID"],
        ),
        (
            Login { credentials: secret(Some("u")), own: secret(Some("p")), node: Some("id".into()), ..resp3.clone() },
            vec!["AUTH p s", "CLUSTER MYID", "CLIENT ID", "HELLO 3 AUTH u s"],
        ),
        (
            Login { credentials: secret(Some("u")), node: Some("id".into()), database: 2, ..Login::default() },
            vec!["CLUSTER MYID", "CLIENT ID", "AUTH u s", "SELECT 2"],
        ),
        (
            Login { credentials: secret(Some("u")), readonly: true, ..resp3.clone() },
            vec!["HELLO 3 AUTH u s", "READONLY"],
        ),
        (Login { tracking: Some(TrackingRequest::default()), ..resp3.clone() }, vec!["HELLO 3", "CLIENT TRACKING ON"]),
        (
            Login {
                tracking: Some(TrackingRequest {
                    mode: TrackingMode::Broadcast,
                    prefixes: vec!["a".into(), "b".into()],
                    noloop: true,
                    apart: true,
                    redirect: Some(7),
                }),
                ..Login::default()
            },
            vec!["CLIENT TRACKING ON REDIRECT 7 BCAST PREFIX a PREFIX b NOLOOP"],
        ),
        (
            Login {
                tracking: Some(TrackingRequest { mode: TrackingMode::OptIn, ..TrackingRequest::default() }),
                ..resp3
            },
            vec!["HELLO 3", "CLIENT TRACKING ON OPTIN"],
        ),
    ] {
        let mut bytes = Vec::new();
        for line in &expected {
            write::request(&mut bytes, &line.split(' ').collect::<Vec<_>>());
        }
        let (out, steps) = handshake(&login, false);
        assert_eq!((out, steps.len()), (bytes, expected.len()), "{expected:?}");
    }
    let (out, steps) = handshake(&Login { database: 3, ..Login::default() }, true);
    assert_eq!(out, b"*2\r\n$5\r\nHELLO\r\n$1\r\n2\r\n*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n");
    assert_eq!(steps, [DialStep::Identify, DialStep::Select]);
}

#[test]
fn secrets_are_not_printed() {
    let credentials = Credentials { username: None, secret: Bytes::from("hunter2") };
    let login = Login { credentials: Some(credentials), ..Login::default() };
    assert!(!format!("{login:?}").contains("hunter2"));
}

#[test]
fn refusals_are_told_from_hiccups() {
    for (text, permanent) in [
        ("WRONGPASS invalid username-password pair or user is disabled.", true),
        ("NOAUTH Authentication required.", true),
        ("NOPROTO unsupported protocol version", true),
        ("ERR unknown command `HELLO`, with args beginning with: `3`, ", true),
        ("ERR AUTH <password> called without any password configured for the default user.", true),
        ("ERR DB index is out of range", true),
        ("DENIED Redis is running in protected mode", true),
        ("LOADING Redis is loading the dataset in memory", false),
        ("ERR max number of clients reached", false),
    ] {
        assert_eq!(is_permanent(text.as_bytes()), permanent, "{text}");
    }
    assert_eq!(reason(b"a\r\nb"), "a  b");
    assert_eq!(reason(&[b'x'; 999]).len(), LONGEST_REASON);
}

#[test]
fn only_who_may_not_tell_is_trusted_unasked() {
    for (error, trusted) in [
        ("NOPERM this user has no permissions to run the 'cluster|myid' command", true),
        ("BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.", true),
        ("ERR unknown command 'CLUSTER', with args beginning with: 'MYID' ", true),
        ("ERR unknown subcommand 'MYID'. Try CLUSTER HELP.", true),
        ("ERR Unknown subcommand or wrong number of arguments for 'MYID'. Try CLUSTER HELP.", true),
        ("ERR This instance has cluster support disabled", false),
        ("LOADING Redis is loading the dataset in memory", false),
        ("NOAUTH Authentication required.", false),
        ("ERR max number of clients reached", false),
        ("ERR max number of clients + cluster connections reached", false),
        ("DENIED Redis is running in protected mode because protected mode is enabled", false),
        ("MASTERDOWN Link with MASTER is down", false),
        ("ERR what is this?", false),
    ] {
        assert_eq!(may_not_tell(error.as_bytes()), trusted, "{error}");
    }
    assert!(is_turned_away(b"ERR max number of clients + cluster connections reached"));
    assert!(is_turned_away(b"DENIED Redis is running in protected mode"));
    assert!(!is_turned_away(b"NOAUTH Authentication required."));
}

/// What comes of peers that are no nodes, or will not have us.
mod refusals {
    use super::*;
    use crate::upstream::transport::memory::Memory;

    const NODE: &str = "127.0.0.1:7000";

    fn address() -> Address {
        Address::new("127.0.0.1", 7000)
    }

    fn resp3() -> Login {
        Login { version: Version::Resp3, ..Login::default() }
    }

    #[tokio::test]
    async fn a_closed_port_is_named() {
        let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let dialled = Dialer::default().dial(&Address::new("127.0.0.1", port), &Login::default()).await;
        let error = dialled.unwrap_err();
        assert_eq!(error.to_string(), format!("cannot connect to 127.0.0.1:{port}: connection refused"));
        assert_eq!((error.step, error.permanent), (DialStep::Connect, false));
    }

    #[tokio::test]
    async fn an_unknown_name_is_named() {
        let dialled = Dialer::default().dial(&Address::new("no-such-host.invalid", 1), &Login::default()).await;
        let error = dialled.unwrap_err();
        assert!(error.to_string().starts_with("cannot resolve no-such-host.invalid:1: "), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_says_nothing_is_left_in_time() {
        let memory = Memory::default();
        let mut backlog = memory.listen(NODE);
        let (started, dialer) = (Instant::now(), Dialer::to(&memory).within(Duration::from_millis(200)));
        let (at, login) = (address(), resp3());
        let (dialled, _peer) = tokio::join!(dialer.dial(&at, &login), backlog.accept());
        let error = dialled.unwrap_err();
        assert_eq!((error.step, error.why.as_str()), (DialStep::Login, "timed out"));
        assert_eq!(started.elapsed(), Duration::from_millis(200));
    }

    #[tokio::test]
    async fn what_a_server_says_on_turning_a_connection_away_is_told() {
        for (said, permanent) in
            [("ERR max number of clients reached", false), ("DENIED Redis is running in protected mode", true)]
        {
            for login in [
                Login { greets: true, ..Login::default() },
                Login { node: Some("id".into()), ..Login::default() },
                resp3(),
            ] {
                let memory = Memory::default();
                let mut backlog = memory.listen(NODE);
                let (at, dialer) = (address(), Dialer::to(&memory));
                let turns_away = async { backlog.accept().await.says(format!("-{said}\r\n").as_bytes()).await };
                let (dialled, ()) = tokio::join!(dialer.dial(&at, &login), turns_away);
                let error = dialled.unwrap_err();
                assert_eq!((error.step, error.why.as_str(), error.permanent), (DialStep::Admission, said, permanent));
                assert_eq!(error.reply(), format!("ERR proxy: cannot connect to {at}: {said} (SLOTWAY-NODE-REFUSES)"));
            }
        }
    }

    #[tokio::test]
    async fn a_peer_that_speaks_something_else_is_told() {
        let memory = Memory::default();
        let mut backlog = memory.listen(NODE);
        let speaks_http = async { backlog.accept().await.says(b"HTTP/1.1 400 Bad Request\r\n\r\n").await };
        let (at, login, dialer) = (address(), resp3(), Dialer::to(&memory));
        let (dialled, ()) = tokio::join!(dialer.dial(&at, &login), speaks_http);
        let error = dialled.unwrap_err();
        assert!(error.to_string().ends_with("it does not speak the Redis protocol"), "{error}");
    }

    #[tokio::test]
    async fn a_login_ends_with_nothing_left_to_read() {
        let memory = Memory::default();
        let mut backlog = memory.listen(NODE);
        let says_more = async {
            let mut peer = backlog.accept().await;
            peer.hears(b"*1\r\n$4\r\nPING\r\n").await;
            peer.says(b"+PONG\r\n+AND\r\n").await;
        };
        let (at, login, dialer) = (address(), Login { greets: true, ..Login::default() }, Dialer::to(&memory));
        let (dialled, ()) = tokio::join!(dialer.dial(&at, &login), says_more);
        assert_eq!(dialled.unwrap_err().why, "it said more than it was asked");
    }
}

/// What is agreed with a node, answer by answer.
mod answers {
    use super::*;
    use crate::upstream::transport::memory::Memory;

    fn password() -> Option<Credentials> {
        Some(Credentials { username: None, secret: Bytes::from("s") })
    }

    /// What comes of a login that a node answers so: the id of the connection, or the step that failed and whether for good.
    async fn answered(login: &Login, answers: &str) -> Result<Option<i64>, (DialStep, bool)> {
        let (memory, at) = (Memory::default(), Address::new("127.0.0.1", 7000));
        let (mut backlog, dialer) = (memory.listen("127.0.0.1:7000"), Dialer::to(&memory));
        let node = async {
            let mut peer = backlog.accept().await;
            peer.says(answers.replace('\n', "\r\n").as_bytes()).await;
            peer
        };
        let (opened, _peer) = tokio::join!(dialer.open(&at, login), node);
        opened.map(|opened| opened.id).map_err(|error| (error.step, error.permanent))
    }

    #[tokio::test(start_paused = true)]
    async fn each_answer_is_judged_by_what_it_is_for() {
        let own = Login { own: password(), credentials: password(), ..Login::default() };
        let at_node = |login: &Login| Login { node: Some("id".into()), ..login.clone() };
        let clients = Login {
            credentials: Some(Credentials { username: Some("u".into()), secret: "p".into() }),
            own: password(),
            ..Login::default()
        };
        let resp3 = Login { version: Version::Resp3, ..Login::default() };
        const WRONG: &str = "-WRONGPASS invalid username-password pair or user is disabled.\n";
        for (login, answers, expected) in [
            (resp3.clone(), "%1\n$2\nid\n:7\n", Ok(Some(7))),
            (own.clone(), "+OK\n*2\n$2\nid\n:7\n", Ok(Some(7))),
            // Before 6.0 nodes know no HELLO: the connection has no name.
            (own.clone(), "+OK\n-ERR unknown command `HELLO`, with args beginning with: `2`, \n", Ok(None)),
            (
                resp3.clone(),
                "-ERR unknown command `HELLO`, with args beginning with: `3`, \n",
                Err((DialStep::Login, true)),
            ),
            (own.clone(), WRONG, Err((DialStep::Login, true))),
            (own.clone(), "-LOADING Redis is loading the dataset in memory\n", Err((DialStep::Login, false))),
            (
                Login { database: 3, ..resp3.clone() },
                "%0\n-ERR DB index is out of range\n",
                Err((DialStep::Select, true)),
            ),
            (Login { readonly: true, ..resp3.clone() }, "%0\n-LOADING x\n", Err((DialStep::Readonly, false))),
            // It is content without.
            (
                Login { stays: true, ..own.clone() },
                "+OK\n*0\n-ERR unknown subcommand 'NO-EVICT'. Try CLIENT HELP.\n",
                Ok(None),
            ),
            // The node that is meant, another, and one that may not tell.
            (at_node(&own), "+OK\n*2\n$2\nid\n:7\n$2\nid\n", Ok(Some(7))),
            (at_node(&own), "+OK\n*0\n$5\nother\n", Err((DialStep::Connect, false))),
            (at_node(&own), "+OK\n*0\n-NOPERM this user has no permissions\n", Ok(None)),
            (at_node(&own), "+OK\n*0\n-LOADING x\n", Err((DialStep::Connect, false))),
            (at_node(&own), "+OK\n*0\n-NOAUTH Authentication required.\n", Err((DialStep::Login, true))),
            // Another user logs in: what the proxy asks as itself comes first, and decides nothing but which node it is.
            (at_node(&clients), "+OK\n$2\nid\n:9\n+OK\n", Ok(Some(9))),
            (at_node(&clients), &format!("{WRONG}-NOAUTH x\n-NOAUTH x\n+OK\n"), Ok(None)),
            (at_node(&clients), "+OK\n$5\nother\n:9\n+OK\n", Err((DialStep::Connect, false))),
            (at_node(&clients), &format!("+OK\n$2\nid\n:9\n{WRONG}"), Err((DialStep::Login, true))),
        ] {
            assert_eq!(answered(&login, answers).await, expected, "{login:?}: {answers}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_node_says_at_once_behind_its_answers_is_kept_for_who_listens() {
        let (memory, at) = (Memory::default(), Address::new("127.0.0.1", 7000));
        let (mut backlog, dialer) = (memory.listen("127.0.0.1:7000"), Dialer::to(&memory));
        let login = Login { version: Version::Resp3, ..Login::default() };
        let node = async {
            let mut peer = backlog.accept().await;
            peer.says(b"%0\r\n>1\r\n+news\r\n").await;
            peer
        };
        let (opened, _peer) = tokio::join!(dialer.open(&at, &login), node);
        let opened = opened.unwrap();
        assert_eq!(opened.rest, b">1\r\n+news\r\n");
        assert!(opened.quiet(&at).is_err(), "who asks would take it for a reply");
    }
}
