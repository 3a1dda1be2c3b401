//! Clients by TLS, which is the same to them as with one server: promise 1.

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    path::Path,
    process::Command,
    sync::Arc,
    time::Duration,
};

use redis::{ClientTlsConfig, TlsCertificates};
use rustls::ClientConfig;

use crate::{
    one_redis::clients::{python, run, said, script},
    support::{
        Authority, Client, Issued, Node, Proxy, Settings, Setup, TlsProxy, cluster::shared, eventually, http,
        ports::free_port, proxy::only_set_here, wire::Wire,
    },
};

fn start(name: &str, expected: &[&str]) -> TlsProxy {
    start_with(name, &[], expected)
}

fn start_with(name: &str, more: &[(&str, String)], expected: &[&str]) -> TlsProxy {
    let authority = Authority::new(name);
    let own = authority.issue("proxy", &["localhost", "127.0.0.1"]);
    TlsProxy::start(authority, own, more, expected)
}

/// A proxy that asks its clients for certificates, as `auth` says, and a client's of the CA that it takes.
fn start_with_ca(name: &str, auth: &str, expected: &[&str]) -> (TlsProxy, Issued) {
    // The CA's file is where the next proxy of this name has it.
    let ca = Authority::new(&format!("{name}-clients"));
    let more = [("TLS_CA_CERT_FILE", ca.certificate.display().to_string()), ("TLS_AUTH_CLIENTS", auth.to_owned())];
    (start_with(name, &more, expected), ca.issue("client", &["somebody"]))
}

fn connect(address: &str, config: Arc<ClientConfig>) -> std::io::Result<Client> {
    Client::try_connect_tls(address, "localhost", config)
}

#[test]
fn a_client_by_tls_meets_what_one_server_shows() {
    let (tls, oracle) = (start("same", &[]), Node::standalone());
    let (mut ours, mut theirs) = (tls.client(), oracle.client());
    for line in [
        "PING",
        "SET tls:a 1",
        "INCR tls:a",
        "MGET tls:a tls:b",
        "MULTI",
        "INCR tls:a",
        "GET tls:a",
        "EXEC",
        "EXEC",
        "WATCH tls:a",
        "UNWATCH",
        "RPUSH tls:l one two",
        "BLPOP tls:l 0",
        "BLPOP tls:none 0.01",
        "SUBSCRIBE tls:c",
        "UNSUBSCRIBE tls:c",
        "EVAL return(KEYS[1]) 1 tls:a",
        "HGET tls:a f",
        "GET",
        "NOTHING",
        "DEL tls:a tls:b tls:l",
    ] {
        assert_eq!(ours.line(line), theirs.line(line), "{line}");
    }
    let deep: Vec<Vec<String>> = (0..20_000)
        .map(|number| match number % 3 {
            0 => vec!["SET".into(), format!("tls:{number}"), "v".repeat(number % 700)],
            _ => vec!["GET".into(), format!("tls:{}", number / 3 * 3)],
        })
        .collect();
    assert!(ours.pipeline(&deep) == theirs.pipeline(&deep), "a deep pipeline");
    for length in [16_383, 16_384, 16_385, 300_000, 5_000_000] {
        let value = "x".repeat(length);
        assert_eq!(ours.call(&["SET", "tls:long", &value]), theirs.call(&["SET", "tls:long", &value]));
        assert!(ours.line("GET tls:long") == theirs.line("GET tls:long"), "{length} bytes");
    }
    assert_eq!(ours.line("DEL tls:long"), theirs.line("DEL tls:long"));
    let handshakes = || tls.proxy.metric("slotway_client_tls_handshakes_total", &["outcome=\"ok\""]);
    eventually("the handshake to be counted", || handshakes() == 1.0);
}

#[test]
fn what_a_client_does_not_read_is_kept_whole() {
    let tls = start("slow", &[]);
    let mut client = tls.client();
    let value: String = (0..1_000_000).map(|number| char::from(b'a' + (number % 23) as u8)).collect();
    assert_eq!(client.call(&["SET", "tls:slow", &value]), "+OK\r\n");
    // More than the sockets take; the small one behind them must come, too, when nothing else wakes anybody.
    for _ in 0..40 {
        client.send(&["GET", "tls:slow"]);
        client.send(&["ECHO", "behind"]);
    }
    eventually("the proxy to be held up", || tls.proxy.metric("slotway_client_buffered_bytes", &[]) > 1e6);
    for _ in 0..40 {
        assert!(client.reply().text() == value.as_bytes());
        assert_eq!(client.reply(), "$6\r\nbehind\r\n");
    }
    assert_eq!(client.line("DEL tls:slow"), ":1\r\n");
}

#[test]
fn who_waits_is_told_what_was_owed_and_who_leaves_is_noticed() {
    let tls = start("waits", &[]);
    let (mut waits, mut other) = (tls.client(), tls.client());
    waits.send_raw(b"ECHO first\r\nBLPOP tls:queue 0\r\n");
    assert_eq!(waits.reply(), "$5\r\nfirst\r\n");
    assert_eq!(other.line("RPUSH tls:queue one"), ":1\r\n");
    assert_eq!(waits.reply(), "*2\r\n$9\r\ntls:queue\r\n$3\r\none\r\n");
    // Gone while it waits: nothing is popped for it.
    waits.send(&["BLPOP", "tls:queue", "0"]);
    eventually("it to wait", || tls.proxy.metric("slotway_blocked_clients", &[]) == 1.0);
    drop(waits);
    eventually("its leaving to be noticed", || tls.proxy.metric("slotway_blocked_clients", &[]) == 0.0);
    assert_eq!(other.line("RPUSH tls:queue two"), ":1\r\n");
    assert_eq!(other.line("LPOP tls:queue"), "$3\r\ntwo\r\n");
    // Published from the plain side.
    assert!(!other.line("SUBSCRIBE tls:news").is_error());
    let mut plain = tls.proxy.client();
    assert_eq!(plain.line("PUBLISH tls:news hello"), ":1\r\n");
    assert_eq!(other.reply(), "*3\r\n$7\r\nmessage\r\n$8\r\ntls:news\r\n$5\r\nhello\r\n");
}

#[test]
fn a_half_closed_client_gets_its_replies() {
    let tls = start("half", &[]);
    let mut client = tls.client();
    client.send_raw(b"ECHO a\r\nGET tls:absent\r\nECHO b\r\n");
    client.stream().shutdown(Shutdown::Write).expect("a shutdown");
    assert_eq!(client.read_to_end().expect("an end"), b"$1\r\na\r\n$-1\r\n$1\r\nb\r\n");
}

#[test]
fn redis_cli_and_openssl_come_in() {
    let tls = start("tools", &["do not come to speak TLS: nothing in common"]);
    let (port, ca) = (tls.port.to_string(), tls.authority.certificate.display().to_string());
    let arguments = ["-h", "localhost", "-p", &port, "--tls", "--cacert", &ca];
    let cli = |args: &[&str]| said(&run("redis-cli", &[&arguments, args].concat(), b""));
    assert_eq!(cli(&["set", "tls:cli", "bar"]).trim(), "OK");
    assert_eq!(cli(&["get", "tls:cli"]).trim(), "bar");
    assert_eq!(cli(&["-3", "del", "tls:cli"]).trim(), "1");
    let address = format!("localhost:{port}");
    for (version, works) in [("-tls1_2", true), ("-tls1_3", true), ("-tls1_1", false)] {
        let args = ["s_client", "-connect", &address, "-CAfile", &ca, "-verify_return_error", "-quiet", version];
        // `quit` has the proxy close the connection, which ends the program.
        let text = said(&run("openssl", &args, b"ping\r\nquit\r\n"));
        assert_eq!(text.contains("+PONG\r\n+OK"), works, "{version}: {text}");
    }
    // Other clients go on as ever, and so does the plain port.
    assert_eq!(tls.client().line("PING"), "+PONG\r\n");
    assert_eq!(tls.proxy.client().line("PING"), "+PONG\r\n");
}

#[test]
fn redis_py_comes_in() {
    if let Some(python) = python("redis_py_comes_in", "redis") {
        let tls = start("python", &[]);
        let ca = tls.authority.certificate.display();
        let url = format!("rediss://localhost:{}?ssl_ca_certs={ca}", tls.port);
        script(&python, &tls.proxy, "plain.py", &[&url]);
    }
}

/// redis-rs over rustls, without a certificate of its own and with one.
#[test]
fn redis_rs_comes_in() {
    let pem = |path: &Path| fs::read(path).expect("PEM");
    let (mutual, own) = start_with_ca("redis-rs-mutual", "yes", &[]);
    let one_sided = start("redis-rs", &["it does not accept our certificate"]);
    let shown = ClientTlsConfig { client_cert: pem(&own.certificate), client_key: pem(&own.key) };
    for (tls, client_tls) in [(&one_sided, None), (&mutual, Some(shown))] {
        let known = TlsCertificates { client_tls, root_cert: Some(pem(&tls.authority.certificate)) };
        let client =
            redis::Client::build_with_tls(format!("rediss://localhost:{}", tls.port), known).expect("a client");
        let mut connection = client.get_connection().expect("a connection");
        let value = "x".repeat(100_000);
        let told: (String, Vec<Option<String>>, i64) = redis::pipe()
            .cmd("SET")
            .arg("tls:rs")
            .arg(&value)
            .cmd("MGET")
            .arg("tls:rs")
            .arg("tls:rs:none")
            .cmd("DEL")
            .arg("tls:rs")
            .query(&mut connection)
            .expect("replies");
        assert_eq!(told, ("OK".to_owned(), vec![Some(value), None], 1));
        let mut listening = client.get_connection().expect("a connection");
        let mut listening = listening.as_pubsub();
        listening.subscribe("tls:rs").expect("subscribed");
        let heard: i64 = redis::cmd("PUBLISH").arg("tls:rs").arg("word").query(&mut connection).expect("a count");
        assert_eq!((heard, listening.get_message().expect("a message").get_payload_bytes()), (1, &b"word"[..]));
    }
    let stranger = TlsCertificates { client_tls: None, root_cert: Some(pem(&mutual.authority.certificate)) };
    let client =
        redis::Client::build_with_tls(format!("rediss://localhost:{}", one_sided.port), stranger).expect("a client");
    assert!(client.get_connection().is_err(), "a certificate of another CA");
}

#[test]
fn no_certificate_is_asked_for_unless_a_ca_is_named() {
    let (tls, own) = start_with_ca("no", "no", &[]);
    assert_eq!(tls.client().line("PING"), "+PONG\r\n");
    assert_eq!(tls.client_as(Some(&own)).expect("a client").line("PING"), "+PONG\r\n");
}

#[test]
fn an_optional_certificate_must_be_good() {
    let (tls, own) = start_with_ca("optional", "optional", &["its certificate is of no CA in `tls_ca_cert_file`"]);
    assert_eq!(tls.client().line("PING"), "+PONG\r\n");
    assert_eq!(tls.client_as(Some(&own)).expect("a client").line("PING"), "+PONG\r\n");
    let strange = tls.authority.issue("strange", &["somebody"]);
    assert!(is_turned_away(tls.client_as(Some(&strange))));
    eventually("it to be logged", || tls.proxy.log().contains("its certificate is of no CA"));
}

#[test]
fn with_a_ca_and_nothing_else_said_clients_must_show_a_certificate() {
    let why = "it has shown no certificate, and `tls_auth_clients` is yes";
    let (tls, own) = start_with_ca("must", "", &[why]);
    assert_eq!(tls.client_as(Some(&own)).expect("a client").line("PING"), "+PONG\r\n");
    assert!(is_turned_away(tls.client_as(None)));
    eventually("it to be logged", || tls.proxy.log().contains(why));
    // The plain port beside it is what it was.
    assert_eq!(tls.proxy.client().line("PING"), "+PONG\r\n");
    let turned_away = || tls.proxy.metric("slotway_client_tls_handshakes_total", &["outcome=\"certificate\""]);
    eventually("it to be counted", || turned_away() == 1.0);
}

/// In TLS 1.3 a client may learn so only when it reads.
fn is_turned_away(client: std::io::Result<Client>) -> bool {
    client.and_then(|mut client| client.try_call(&["PING"])).is_err()
}

#[test]
fn who_speaks_plain_text_to_tls_is_told_so_and_the_log_says_it_once() {
    let line = "speaks plain text to rediss://127.0.0.1:";
    let tls = start("plain", &[line]);
    for _ in 0..3 {
        let mut stream = TcpStream::connect(tls.address()).expect("a connection");
        stream.write_all(b"*1\r\n$4\r\nPING\r\n").expect("sent");
        let mut said = String::new();
        stream.read_to_string(&mut said).expect("an answer");
        assert_eq!(
            said,
            "-ERR proxy: this port speaks TLS: connect to it with rediss://, or redis-cli --tls (SLOTWAY-SPEAKS-TLS)\r\n"
        );
    }
    eventually("all to be counted", || {
        tls.proxy.metric("slotway_client_tls_handshakes_total", &["outcome=\"plain_text\""]) == 3.0
    });
    assert_eq!(tls.proxy.log().matches(line).count(), 1, "{}", tls.proxy.log());
    eventually("all to be gone", || tls.proxy.metric("slotway_client_connections", &[]) == 0.0);
}

#[test]
fn who_speaks_tls_to_a_plain_port_is_in_the_log_once() {
    let line = "which speaks plain text: have it connect to a rediss:// port";
    let tls = start("crossed", &[line]);
    for _ in 0..2 {
        let mut greeting = TcpStream::connect(tls.proxy.address()).expect("a connection");
        greeting.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        // The head of a ClientHello; a plain server waits for more, and so does the proxy.
        greeting.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").expect("sent");
        eventually("it to be logged", || tls.proxy.log().contains(line));
    }
    assert_eq!(tls.proxy.log().matches(line).count(), 1, "{}", tls.proxy.log());
}

#[test]
fn who_speaks_tls_to_a_plain_admin_port_is_in_the_log_once() {
    let line = "which speaks plain HTTP: have it use http://";
    let proxy = Proxy::start(Settings::new(shared().seeds()).expecting(line));
    for _ in 0..2 {
        let mut greeting = TcpStream::connect(format!("127.0.0.1:{}", proxy.admin)).expect("a connection");
        greeting.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").expect("sent");
        // What is no HTTP is answered, with an error, and closed.
        let _ = greeting.read_to_end(&mut Vec::new());
    }
    assert_eq!(proxy.log().matches(line).count(), 1, "{}", proxy.log());
}

#[test]
fn a_client_that_says_nothing_holds_up_neither_others_nor_the_end() {
    let tls = start("silent", &[]);
    let silent = TcpStream::connect(tls.address()).expect("a connection");
    eventually("it to be there", || tls.proxy.metric("slotway_client_connections", &[]) == 1.0);
    assert_eq!(tls.client().line("PING"), "+PONG\r\n");
    let began = std::time::Instant::now();
    tls.proxy.shut_down();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    drop(silent);
}

#[test]
fn files_that_are_of_no_use_are_named_with_what_to_do() {
    let authority = Authority::new("useless");
    let (own, other) = (authority.issue("own", &["localhost"]), authority.issue("other", &["localhost"]));
    let (certificate, key) = (own.certificate.display().to_string(), own.key.display().to_string());
    let (missing, empty) = (authority.folder.join("missing").display().to_string(), authority.folder.join("empty"));
    std::fs::write(&empty, "").expect("a file");
    let (empty, other) = (empty.display().to_string(), other.key.display().to_string());
    for (files, says) in [
        (
            vec![("CERT", &certificate)],
            "rediss://127.0.0.1:1 speaks TLS, which takes a certificate and its key".to_owned(),
        ),
        (vec![("CERT", &missing), ("KEY", &key)], format!("`tls_cert_file`: {missing}: cannot read it: No such file")),
        (vec![("CERT", &empty), ("KEY", &key)], format!("`tls_cert_file`: {empty}: there is no certificate in it")),
        (
            vec![("CERT", &key), ("KEY", &key)],
            format!("`tls_cert_file`: {key}: there is a key and no certificate in it"),
        ),
        (
            vec![("CERT", &certificate), ("KEY", &certificate)],
            format!("`tls_key_file`: {certificate}: there is no key in it"),
        ),
        (
            vec![("CERT", &certificate), ("KEY", &other)],
            format!("`tls_key_file`: {other}: it is not the key of the certificate in"),
        ),
        (
            vec![("CERT", &certificate), ("KEY", &key), ("CA_CERT", &empty)],
            format!("`tls_ca_cert_file`: {empty}: there is no certificate in it"),
        ),
    ] {
        for way in ["serve", "check"] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_slotway"));
            only_set_here(&mut command).args([way, "--seeds", "127.0.0.1:1", "--admin", "off"]);
            command.args(["--listen", "rediss://127.0.0.1:1"]);
            for (name, file) in &files {
                command.env(format!("SLOTWAY_TLS_{name}_FILE"), file);
            }
            let output = command.output().expect("slotway");
            assert_eq!(output.status.code(), Some(1), "{}", said(&output));
            assert!(said(&output).contains(&says), "{says}\n{}", said(&output));
        }
    }
}

#[test]
fn the_admin_port_speaks_tls_where_that_is_said() {
    const PLAIN: &str = "speaks plain HTTP to the admin port";
    // Clients must show a certificate; visitors have none.
    let ca = Authority::new("admin-clients");
    let authority = Authority::new("admin");
    let own = authority.issue("proxy", &["localhost"]);
    let settings = Settings::new(shared().seeds())
        .with("TLS_CERT_FILE", own.certificate.display())
        .with("TLS_KEY_FILE", own.key.display())
        .with("TLS_CA_CERT_FILE", ca.certificate.display())
        .with("ADMIN_TLS", true)
        .expecting(PLAIN);
    let proxy = Proxy::launch(settings);
    let admin = format!("127.0.0.1:{}", proxy.admin);
    let healthcheck = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_slotway"));
        only_set_here(&mut command).args(["healthcheck", "--admin", &admin]).args(more).output().expect("slotway")
    };
    eventually("it to be ready", || healthcheck(&["--admin-tls"]).status.success());
    assert!(!healthcheck(&[]).status.success(), "by plain HTTP");
    let (status, told) = http::fetch(&admin, "/readyz").expect("an answer");
    assert!(status == 400 && told.contains("https://"), "{status} {told}");
    assert_eq!(proxy.log().matches(PLAIN).count(), 1, "{}", proxy.log());
    let socket = TcpStream::connect(&admin).expect("a connection");
    let mut page = Wire::secured(socket, "localhost", authority.trusting(None)).expect("TLS");
    page.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
    let mut text = String::new();
    page.read_to_string(&mut text).expect("a page");
    assert!(text.starts_with("HTTP/1.1 200 ") && text.contains("slotway_ready 1"), "{text}");
}

#[test]
fn a_server_of_its_own_speaks_as_the_proxy_does() {
    let tls = start("server", &[]);
    let port = free_port();
    let config = vec![
        format!("tls-port {port}"),
        format!("tls-cert-file {}", tls.own.certificate.display()),
        format!("tls-key-file {}", tls.own.key.display()),
        format!("tls-ca-cert-file {}", tls.authority.certificate.display()),
        "tls-auth-clients no".to_owned(),
    ];
    let _server = Node::start(&Setup { config, ..Setup::default() });
    let mut theirs = connect(&format!("127.0.0.1:{port}"), tls.authority.trusting(None)).expect("a client");
    let mut ours = tls.client();
    for line in ["PING", "SET tls:s 1", "CLIENT GETNAME", "DEL tls:s", "QUIT"] {
        assert_eq!(ours.line(line), theirs.line(line), "{line}");
    }
    // Both announce the end.
    assert_eq!(ours.read_to_end().expect("an end"), theirs.read_to_end().expect("an end"));
}
