//! Clients by a unix socket, which is the same to them as with one server: promise 1.

use std::{
    fs,
    io::{Read, Write},
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::support::{Node, Proxy, Settings, Setup, cluster::shared, proxy::only_set_here, reaper, until};

/// A cluster's proxy, and a plain server, each with a unix socket.
struct Bench {
    proxy: Option<Proxy>,
    by_proxy: PathBuf,
    by_server: PathBuf,
    _server: Node,
}

impl Bench {
    fn new() -> Bench {
        let folder = reaper::folder("unix-sockets");
        let (by_proxy, by_server) = (folder.join("proxy.sock"), folder.join("server.sock"));
        let config = vec![format!("unixsocket {}", by_server.display())];
        let server = Node::start(&Setup { config, ..Setup::default() });
        let mut settings = Settings::new(shared().seeds());
        settings.flags = vec!["--listen".to_owned(), format!("unix://{}?mode=660", by_proxy.display())];
        Bench { proxy: Some(Proxy::start(settings)), by_proxy, by_server, _server: server }
    }
}

/// What a server answers to a line, until it has been silent for a moment or has closed.
fn told(path: &Path, lines: &str) -> String {
    let mut stream = UnixStream::connect(path).expect("a connection");
    stream.write_all(lines.as_bytes()).expect("sent");
    stream.shutdown(std::net::Shutdown::Write).expect("a shutdown");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn a_client_by_a_unix_socket_meets_what_one_server_shows() {
    let bench = Bench::new();
    for lines in [
        "PING\r\nSET unix:a 1\r\nINCR unix:a\r\nMGET unix:a unix:b\r\nDEL unix:a unix:b\r\n",
        "MULTI\r\nSET unix:a 1\r\nGET unix:a\r\nDEL unix:a\r\nEXEC\r\n",
        "CLIENT KILL ADDR /nowhere:0\r\nGET\r\nNOTHING\r\n",
    ] {
        assert_eq!(told(&bench.by_proxy, lines), told(&bench.by_server, lines), "{lines}");
    }
    // Redis names the server's own path at both ends, and marks such clients.
    for path in [&bench.by_proxy, &bench.by_server] {
        let info = told(path, "CLIENT INFO\r\n");
        let named = format!("addr={0}:0 laddr={0}:0 ", path.display());
        assert!(info.contains(&named) && info.contains(" flags=U "), "{info}");
    }
}

#[test]
fn redis_s_own_client_and_monitor_use_it() {
    let bench = Bench::new();
    let mut monitor = UnixStream::connect(&bench.by_proxy).expect("a connection");
    monitor.write_all(b"MONITOR\r\n").expect("sent");
    let mut ok = [0; 5];
    monitor.read_exact(&mut ok).expect("OK");
    let output = Command::new("redis-cli").arg("-s").arg(&bench.by_proxy).args(["set", "unix:k", "v"]).output();
    assert_eq!(String::from_utf8_lossy(&output.expect("redis-cli").stdout), "OK\n");
    let (mut shown, wanted) =
        (String::new(), format!("[0 unix:{}] \"set\" \"unix:k\" \"v\"", bench.by_proxy.display()));
    until("the command is shown", Duration::from_secs(10), || {
        let mut chunk = [0; 4096];
        let count = monitor.read(&mut chunk).expect("MONITOR goes on");
        shown += &String::from_utf8_lossy(&chunk[..count]);
        shown.contains(&wanted).then_some(())
    });
}

#[test]
fn the_socket_s_file_is_the_proxy_s_as_long_as_it_runs() {
    let mut bench = Bench::new();
    let found = fs::metadata(&bench.by_proxy).expect("a file");
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o777, 0o660);
    drop(bench.proxy.take());
    assert!(!bench.by_proxy.exists(), "it goes with the proxy");
    // One that a dead process has left behind is taken over.
    drop(UnixListener::bind(&bench.by_proxy).expect("a socket"));
    assert!(bench.by_proxy.exists());
    let mut settings = Settings::new(shared().seeds());
    settings.flags = vec!["--listen".to_owned(), format!("unix://{}", bench.by_proxy.display())];
    let proxy = Proxy::start(settings);
    assert_eq!(told(&bench.by_proxy, "PING\r\n"), "+PONG\r\n");
    // One that is in use is not.
    let output = only_set_here(&mut Command::new(env!("CARGO_BIN_EXE_slotway")))
        .args(["serve", "--seeds", "127.0.0.1:1", "--admin", "off"])
        .args(["--listen", &format!("unix://{}", bench.by_proxy.display())])
        .output()
        .expect("slotway");
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("the socket is taken"), "{said}");
    assert_eq!(told(&bench.by_proxy, "PING\r\n"), "+PONG\r\n");
    drop(proxy);
}

#[test]
fn a_file_that_is_no_socket_is_never_touched() {
    let file = reaper::folder("unix-file").join("data");
    fs::write(&file, "mine").expect("a file");
    let output = only_set_here(&mut Command::new(env!("CARGO_BIN_EXE_slotway")))
        .args(["serve", "--seeds", "127.0.0.1:1", "--admin", "off"])
        .args(["--listen", &format!("unix://{}", file.display())])
        .output()
        .expect("slotway");
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(fs::read_to_string(&file).expect("the file"), "mine");
}
