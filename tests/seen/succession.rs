//! Processes that follow one another: an upgrade without a gap, and what a service manager passes and wants to know.

use std::{
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread,
    time::Duration,
};

use crate::support::{Client, Proxy, Settings, cluster::shared, eventually, proxy::only_set_here, reaper, until};

/// Says INCR again and again and fails where one goes wrong; returns how often.
fn count(client: &mut Client, key: &str, times: usize) {
    for _ in 0..times {
        let reply = client.call(&["INCR", key]);
        assert!(!reply.is_error(), "{reply:?}");
    }
}

#[test]
fn a_successor_takes_over_under_load_and_not_one_request_fails() {
    let path = reaper::folder("takeover").join("takeover.sock");
    let settings = || Settings::new(shared().seeds()).with("TAKEOVER", path.display());
    let mut old = Proxy::start(settings());
    let address = old.address();
    let (stop, brief, long) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let mut idle = old.client();
    idle.line("PING");
    thread::scope(|scope| {
        for _ in 0..2 {
            // Clients that come and go.
            scope.spawn(|| {
                while !stop.load(Relaxed) {
                    count(&mut Client::connect(&address), "succession:brief", 10);
                    brief.fetch_add(10, Relaxed);
                }
            });
            // Clients that stay.
            scope.spawn(|| {
                let mut client = Client::connect(&address);
                while !stop.load(Relaxed) {
                    count(&mut client, "succession:long", 10);
                    long.fetch_add(10, Relaxed);
                }
            });
        }
        eventually("load", || brief.load(Relaxed) > 100 && long.load(Relaxed) > 100);
        let new = Proxy::start(settings().at_ports_of(&old));
        eventually("the place to be taken", || new.log().contains("the place of the running process is taken"));
        // The old one lets go of who is idle, and of nobody else.
        assert_eq!(idle.read_to_end().expect("its end"), b"");
        let before = (brief.load(Relaxed), long.load(Relaxed));
        eventually("both kinds to go on", || {
            brief.load(Relaxed) > before.0 + 100 && long.load(Relaxed) > before.1 + 100
        });
        eventually("clients of the new one", || new.metric("slotway_client_connections_total", &[]) > 0.0);
        stop.store(true, Relaxed);
        // Once its clients have gone, it ends.
        assert_eq!(old.wait_for_end(Duration::from_secs(20)).code(), Some(0), "{}", old.log());
        // And that can be done again.
        let newest = Proxy::start(settings().at_ports_of(&new));
        eventually("the place to be taken", || newest.log().contains("the place of the running process is taken"));
        let mut new = new;
        assert_eq!(new.wait_for_end(Duration::from_secs(20)).code(), Some(0), "{}", new.log());
        let sum =
            |key: &str| Client::connect(&address).call(&["GET", key]).string().parse::<usize>().expect("a number");
        assert_eq!((sum("succession:brief"), sum("succession:long")), (brief.load(Relaxed), long.load(Relaxed)));
    });
}

#[test]
fn a_successor_that_cannot_serve_leaves_the_old_one_serving() {
    let path = reaper::folder("takeover").join("left.sock");
    let settings = |seeds: &str| Settings::new(seeds).with("TAKEOVER", path.display());
    let old = Proxy::start(settings(&shared().seeds()).expecting("did not become ready"));
    let mut new = Proxy::launch(settings("127.0.0.1:1").at_ports_of(&old).expecting_warnings().expecting("cannot"));
    eventually("it to ask", || old.log().contains("a successor asks for the listening sockets"));
    new.ask_to_end();
    let _ = new.wait_for_end(Duration::from_secs(20));
    eventually("the old one to say so", || old.log().contains("this process serves on"));
    assert_eq!(old.client().line("PING"), "+PONG\r\n");
}

/// The program with a listening socket as its descriptor 3, as a service manager starts it.
#[test]
fn a_service_manager_passes_sockets_and_is_told_when_they_are_served() {
    let folder = reaper::folder("manager");
    let told = UnixDatagram::bind(folder.join("notify")).expect("a socket");
    told.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("its address").to_string();
    // Before there is any proxy, clients wait.
    let mut early = Client::connect(&address);
    // It comes as standard input, of which the shell makes descriptor 3.
    let script = "exec 3<&0 0</dev/null; LISTEN_PID=$$ exec \"$0\" \"$@\"";
    let mut command = Command::new("bash");
    let mut child = only_set_here(&mut command)
        .args(["-c", script, env!("CARGO_BIN_EXE_slotway"), "serve", "--admin", "off", "--listen", &address])
        .args(["--seeds", &shared().seeds()])
        .env("LISTEN_FDS", "1")
        .env("NOTIFY_SOCKET", folder.join("notify"))
        .stdin(OwnedFd::from(listener.try_clone().expect("its copy")))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the proxy");
    reaper::watch(child.id());
    let mut said = [0; 256];
    let length = told.recv(&mut said).expect("READY=1");
    assert!(String::from_utf8_lossy(&said[..length]).contains("READY=1"));
    until("the early client to be served", Duration::from_secs(10), || {
        (!early.line("SET succession:early 1").is_error()).then_some(())
    });
    assert!(Command::new("kill").arg(child.id().to_string()).status().expect("kill").success());
    let length = told.recv(&mut said).expect("STOPPING=1");
    assert!(String::from_utf8_lossy(&said[..length]).contains("STOPPING=1"));
    assert!(child.wait().expect("its end").success());
    reaper::forget(child.id());
    // The socket is the manager's: whoever connects meanwhile waits for the next.
    assert!(Client::try_connect(&address).is_ok());
}

/// Who takes the place of a service's process tells the manager that it is the service now; the one before does not tell it that the
/// service stops.
#[test]
fn the_manager_is_told_who_the_service_is() {
    let folder = reaper::folder("manager-takeover");
    let told = UnixDatagram::bind(folder.join("notify")).expect("a socket");
    told.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    let hears = || {
        let mut said = [0; 256];
        let length = told.recv(&mut said).expect("news");
        String::from_utf8_lossy(&said[..length]).into_owned()
    };
    let settings = || {
        let mut settings = Settings::new(shared().seeds()).with("TAKEOVER", folder.join("takeover.sock").display());
        settings.env.push(("NOTIFY_SOCKET".into(), folder.join("notify").display().to_string()));
        settings
    };
    let mut old = Proxy::start(settings());
    assert_eq!(hears(), "READY=1\n");
    let new = Proxy::start(settings().at_ports_of(&old));
    // Before the old one goes: a manager that still takes it for the service takes its end for the service's.
    assert_eq!(hears(), format!("MAINPID={}\n", new.pid()));
    assert_eq!(hears(), "READY=1\n");
    assert_eq!(old.wait_for_end(Duration::from_secs(20)).code(), Some(0), "{}", old.log());
    new.shut_down();
    assert_eq!(hears(), "STOPPING=1\n", "of the new one alone");
}
