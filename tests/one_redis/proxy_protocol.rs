//! `proxy_protocol = true`: a client behind a load balancer is known by its own address.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use super::listeners::{checked, with_file};
use crate::support::{Client, Proxy, Reply, certificates::Authority, cluster::shared, eventually, wire::Wire};

const TRUSTED: &str = "trusted_proxies = [\"127.0.0.0/8\"]\n";
const LISTENER: &str = "[[listeners]]\naddress = \"127.0.0.1:{a}\"\nproxy_protocol = true\n";

/// A header: who has connected to where, by IPv4.
fn header(source: [u8; 4], port: u16) -> Vec<u8> {
    let (destination, to) = ([10, 0, 0, 1], 6380_u16);
    let rest = [&source[..], &destination, &port.to_be_bytes(), &to.to_be_bytes()].concat();
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11", &(rest.len() as u16).to_be_bytes()[..], &rest].concat()
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    stream
}

fn after(port: u16, header: &[u8]) -> Client {
    let mut stream = connect(port);
    stream.write_all(header).expect("sending");
    Client::over(Wire::Plain(stream))
}

#[test]
fn a_client_is_known_by_its_own_address() {
    let (settings, ports) = with_file(shared(), &format!("{TRUSTED}{LISTENER}"));
    let proxy = Proxy::start(settings);
    let mut client = after(ports[0], &header([192, 0, 2, 7], 4711));
    let info = client.line("CLIENT INFO").string();
    assert!(info.contains(" addr=192.0.2.7:4711 laddr=10.0.0.1:6380 "), "{info}");
    let mut plain = proxy.client();
    assert!(plain.line("CLIENT LIST").string().contains(" addr=192.0.2.7:4711 "));
    // The header may come in pieces, with requests behind it.
    let (bytes, mut stream) = (header([192, 0, 2, 8], 1), connect(ports[0]));
    for piece in bytes.chunks(5) {
        stream.write_all(piece).expect("sending");
        stream.flush().expect("sending");
    }
    stream.write_all(b"PING\r\nCLIENT INFO\r\n").expect("sending");
    let mut pieces = Client::over(Wire::Plain(stream));
    assert_eq!(pieces.reply(), "+PONG\r\n");
    assert!(pieces.reply().string().contains(" addr=192.0.2.8:1 "));
    // CLIENT KILL goes by that address.
    assert_eq!(plain.line("CLIENT KILL ADDR 192.0.2.7:4711"), ":1\r\n");
    // A load balancer that asks for itself (LOCAL) is a client like others.
    let mut itself = after(ports[0], b"\r\n\r\n\0\r\nQUIT\n\x20\x00\0\0");
    assert!(itself.line("CLIENT INFO").string().contains(" addr=127.0.0.1:"));
}

#[test]
fn whoever_sends_none_or_is_not_trusted_is_closed_and_told_of() {
    for (text, bytes, why) in [
        (TRUSTED, &b"PING\r\nPING\r\nPING\r\n"[..], "it does not begin with a PROXY header"),
        (TRUSTED, b"PROXY TCP4 192.0.2.1 10.0.0.1 1 2\r\n", "it speaks version 1"),
        (TRUSTED, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x04abcd", "its PROXY header is malformed"),
        ("trusted_proxies = [\"10.0.0.0/8\"]\n", &header([192, 0, 2, 7], 1), "127.0.0.1 is in none of the networks"),
    ] {
        let (settings, ports) = with_file(shared(), &format!("{text}{LISTENER}"));
        let proxy =
            Proxy::start(settings.expecting("where a PROXY header is expected (`proxy_protocol`), and is closed"));
        let mut stream = connect(ports[0]);
        stream.write_all(bytes).expect("sending");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty(), "{}", answer.escape_ascii());
        eventually("the log tells", || proxy.log().contains(why));
        let ended = || proxy.metric("slotway_client_disconnects_total", &["reason=\"proxy_header\""]) == 1.0;
        eventually("it is counted", ended);
        // Who comes and goes without a word is no news: so do health checks.
        drop(connect(ports[0]));
        eventually("it has gone", || {
            proxy.metric("slotway_client_disconnects_total", &["reason=\"proxy_header\""]) == 2.0
        });
        assert_eq!(proxy.log().matches(" WARN ").count(), 1);
    }
}

#[test]
fn the_header_stands_before_tls() {
    let ca = Authority::new("ca");
    let own = ca.issue("proxy", &["localhost"]);
    let text = format!(
        "{TRUSTED}tls_cert_file = \"{}\"\ntls_key_file = \"{}\"\n{}",
        own.certificate.display(),
        own.key.display(),
        LISTENER.replace("127.0.0.1:{a}", "rediss://127.0.0.1:{a}")
    );
    let (settings, ports) = with_file(shared(), &text);
    let _proxy = Proxy::start(settings);
    let mut stream = connect(ports[0]);
    stream.write_all(&header([192, 0, 2, 9], 99)).expect("sending");
    let mut client = Client::over(Wire::secured(stream, "localhost", ca.trusting(None)).expect("TLS"));
    let reply: Reply = client.line("CLIENT INFO");
    assert!(reply.string().contains(" addr=192.0.2.9:99 "));
}

#[test]
fn whose_word_is_taken_must_be_said() {
    for (text, error) in [
        (LISTENER.to_owned(), "`proxy_protocol` takes `trusted_proxies`"),
        (
            format!("trusted_proxies = [\"10.0.0.0/99\"]\n{LISTENER}"),
            "`10.0.0.0/99` is no network: write it as 10.0.0.0/8",
        ),
        (format!("trusted_proxies = [\"balancer\"]\n{LISTENER}"), "`balancer` is no network"),
    ] {
        let (settings, _) = with_file(shared(), &text);
        let said = checked(&settings).expect_err(&text);
        assert!(said.contains(error), "{text}: {said}");
    }
}

#[test]
fn a_port_that_is_open_to_everyone_serves_its_own_machine_alone() {
    let listener = LISTENER.replace("127.0.0.1", "0.0.0.0");
    let denied = |reply: Reply| reply.0.starts_with(b"-DENIED Slotway is running in protected mode: ");
    let (far, near) = (header([192, 0, 2, 7], 4711), header([127, 0, 0, 1], 4711));
    let run = |more: &str, warns: bool| {
        let (mut settings, ports) = with_file(shared(), &format!("{more}\n{TRUSTED}{listener}"));
        if warns {
            settings = settings.expecting("0.0.0.0").expecting("is refused");
        }
        (Proxy::start(settings), ports[0])
    };
    let (proxy, port) = run("", true);
    let mut refused = after(port, &far);
    assert!(denied(refused.reply()), "before it has said anything");
    assert_eq!(refused.read_to_end().expect("the end"), b"");
    assert_eq!(after(port, &near).line("PING"), "+PONG\r\n");
    eventually("it to be counted", || {
        proxy.metric("slotway_client_disconnects_total", &["reason=\"protected_mode\""]) == 1.0
    });
    let (_proxy, port) = run("allow_insecure_bind = true", false);
    assert_eq!(after(port, &far).line("PING"), "+PONG\r\n");
    let (_proxy, port) = run("protected_mode = false", true);
    assert_eq!(after(port, &far).line("PING"), "+PONG\r\n");
    let (_proxy, port) = run("client_password = \"secret\"", false);
    let mut asked = after(port, &far);
    assert!(asked.line("PING").0.starts_with(b"-NOAUTH "));
    assert_eq!(asked.line("AUTH secret"), "+OK\r\n");
    assert_eq!(asked.line("PING"), "+PONG\r\n");
}
