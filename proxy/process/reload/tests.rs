use std::{
    fs,
    path::{Path, PathBuf},
};

use futures_util::FutureExt;
use tempfile::TempDir;

use super::*;
use crate::{
    clients::ListenerSettings,
    process::{discovery::scripted::Network, inherited::Inherited},
    protocol::endpoint::Endpoint,
};

const NODE: &str = "10.0.0.1:7000";

/// What a reloader needs: a file, and a process that has begun with it.
struct Process {
    _folder: TempDir,
    file: PathBuf,
    network: Network,
    shared: Shared,
    listeners: Listeners,
    in_force: watch::Sender<Arc<Config>>,
}

impl Process {
    /// A process that has begun with this configuration, over a scripted node.
    fn new(text: &str) -> Process {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("slotway.toml");
        fs::write(&file, whole(text)).unwrap();
        let config = Config::load(&sources(&file)).unwrap();
        let network = Network::default();
        let listeners = Listeners::open(&config, None, &mut Inherited::default()).unwrap();
        let (mut shared, _) = Shared::of(config, &certificates(&Config::defaults()));
        shared.dialer = network.dialer();
        let in_force = watch::Sender::new(shared.config.clone());
        Process { _folder: folder, file, network, shared, listeners, in_force }
    }

    fn acceptor(&self) -> Acceptor<'_> {
        Acceptor::new(&self.shared, &[])
    }

    fn reloader<'a>(&'a self, acceptor: &'a Acceptor<'a>) -> Reloader<'a> {
        let sources = sources(&self.file);
        Reloader {
            rereading: Rereading::new(sources, Box::new(|_| {})),
            config: &self.in_force,
            certificates: certificates(&self.shared.config),
            passwords: Passwords::of(&self.shared.config, &self.shared.users),
            workers: &[],
            listeners: &self.listeners,
            acceptor,
            shared: &self.shared,
        }
    }

    /// The configuration is this from now on.
    fn write(&self, text: &str) {
        fs::write(&self.file, whole(text)).unwrap();
    }

    /// What is in force, of what the tests change: in the configuration, and where it reaches.
    fn in_force(&self) -> [usize; 2] {
        [self.in_force.borrow().max_clients, self.shared.descriptors.max_clients()]
    }
}

/// A configuration with this in it. The system chooses the port, where none is said.
fn whole(text: &str) -> String {
    let listen = if text.contains("listen = ") { "" } else { "listen = \"127.0.0.1:0\"\n" };
    format!("seeds = [\"{NODE}\"]\n{listen}{text}")
}

fn sources(file: &Path) -> Sources {
    Sources { file: Some(file.to_path_buf()), ..Sources::default() }
}

fn certificates(config: &Config) -> Certificates {
    Certificates::load(config).expect("none are named")
}

#[tokio::test(start_paused = true)]
async fn all_of_a_new_configuration_is_taken_or_nothing() {
    let password = "max_clients = 7\npassword = \"new\"";
    for (text, node_says, expected) in [
        ("max_clients = 7", "", Ok("max_clients = 7 (it was 9)")),
        ("max_clients = 9", "", Ok("nothing has changed")),
        ("max_clients = 9\nworkers = 3", "", Ok("workers = 3 needs a restart: it is still 0")),
        ("max_clients = 7\nrequest_timeout = \"soon\"", "", Err("request_timeout")),
        ("max_clients = 7\nseed = []", "", Err("there is no key `seed`")),
        // A node is asked by a new password before anybody depends on it.
        (password, "-WRONGPASS invalid username-password pair", Err("`password`: 10.0.0.1:7000 does not take it")),
        (password, "+OK", Ok("password = \"****\" (it was \"\")")),
        // One that cannot say so now is no reason: nodes may be restarted with it later.
        (password, "-LOADING Redis is loading the dataset in memory", Ok("password = \"****\"")),
    ] {
        let process = Process::new("max_clients = 9");
        process.network.start(NODE, "a");
        process.network.says(NODE, "AUTH new", &format!("{node_says}\r\n"));
        let acceptor = process.acceptor();
        let mut reloader = process.reloader(&acceptor);
        process.write(text);
        let found = reloader.reload().await.map(|lines| lines.join("; "));
        match (&found, expected) {
            (Ok(found), Ok(expected)) => assert!(found.contains(expected), "{text}: {found}"),
            (Err(found), Err(expected)) => assert!(found.contains(expected), "{text}: {found}"),
            _ => panic!("{text}: {found:?}"),
        }
        let most = if found.is_ok() && text.starts_with("max_clients = 7") { 7 } else { 9 };
        assert_eq!(process.in_force(), [most; 2], "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_refused_is_told_again_and_what_was_taken_is_not() {
    let process = Process::new("max_clients = 9");
    let acceptor = process.acceptor();
    let mut reloader = process.reloader(&acceptor);
    process.write("max_clients = 7\nworkers = 3");
    let both = ["max_clients = 7 (it was 9)", "workers = 3 needs a restart: it is still 0"];
    assert_eq!(reloader.reload().await.unwrap(), both);
    assert_eq!(reloader.reload().await.unwrap(), both[1..]);
    process.write("max_clients = 0x");
    assert!(reloader.reload().await.is_err());
    process.write("max_clients = 7");
    assert_eq!(reloader.reload().await.unwrap(), ["nothing has changed"]);
}

#[tokio::test(start_paused = true)]
async fn clients_of_a_user_that_is_gone_have_to_go() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    fs::write(&secret, "secret\n").unwrap();
    let user = |name: &str| format!("[users.{name}]\npassword_file = \"{}\"\n", secret.display());
    let process = Process::new(&[user("shop"), user("jobs")].concat());
    let client = |name: &str| {
        let here = || Endpoint::Tcp("127.0.0.1:1".parse().unwrap());
        let client = process.shared.clients.join(here(), here(), Arc::default());
        client.about().user = name.into();
        client
    };
    let (gone, kept) = (client("shop"), client("jobs"));
    process.write(&user("jobs"));
    process.reloader(&process.acceptor()).reload().await.unwrap();
    assert_eq!((gone.order(), kept.order()), (Order::Drain, Order::Serve));
    assert!(process.shared.users.find(b"shop").is_none());
}

#[tokio::test(start_paused = true)]
async fn who_asks_is_answered_though_others_have_gone() {
    let process = Process::new("max_clients = 9");
    let acceptor = process.acceptor();
    let reloader = process.reloader(&acceptor);
    let reloads = reloader.rereading.reloads.clone();
    process.write("max_clients = 7");
    let asking = async {
        assert!(reloads.ask().now_or_never().is_none(), "it has asked, and goes");
        reloads.ask().await
    };
    let report = tokio::select! {
        () = reloader.run() => panic!("it goes on"),
        report = asking => report,
    };
    assert_eq!(report.unwrap(), ["nothing has changed"], "the first has had its way");
}

#[tokio::test]
async fn listeners_are_opened_and_closed_or_none_of_them_is() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second, third] = ["a", "b", "c"].map(|name| folder.path().join(name));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = |places: &[&str]| format!("listen = {places:?}");
    let unix = |path: &Path| format!("unix://{}", path.display());
    let process = Process::new(&listen(&[&unix(&first), &unix(&second)]));
    let acceptor = process.acceptor();
    let mut reloader = process.reloader(&acceptor);
    let open = || process.listeners.addresses();
    assert_eq!(open(), [unix(&first), unix(&second)]);
    let came = |number: usize| {
        let here = || Endpoint::Tcp("127.0.0.1:1".parse().unwrap());
        process.shared.clients.join(here(), here(), Arc::new(ListenerSettings { number, ..Default::default() }))
    };
    let (of_first, of_second) = (came(0), came(1));

    let certified = "tls_cert_file = \"/none\"\ntls_key_file = \"/none\"\n";
    for (before, last, why) in [
        ("", taken.local_addr().unwrap().to_string(), "the port is taken"),
        ("", unix(folder.path()), "cannot listen on"),
        ("", format!("{}?mode=600", unix(&first)), "which is the same place"),
        (certified, "rediss://127.0.0.1:0".to_owned(), "has begun without TLS"),
    ] {
        process.write(&(before.to_owned() + &listen(&[&unix(&third), &unix(&second), &last])));
        let refused = reloader.reload().await.unwrap_err();
        assert!(refused.contains(why), "{last}: {refused}");
        assert_eq!(open(), [unix(&first), unix(&second)], "{last}");
        assert_eq!([&first, &second, &third].map(|path| path.exists()), [true, true, false], "{last}");
        assert_eq!([&of_first, &of_second].map(|client| client.order()), [Order::Serve; 2], "{last}");
    }

    process.write(&listen(&[&unix(&third), &unix(&second)]));
    let report = reloader.reload().await.unwrap().join("; ");
    assert!(report.contains(&format!("{} is closed, and 1 clients who came by it", unix(&first))), "{report}");
    assert_eq!(open(), [unix(&third), unix(&second)]);
    assert_eq!([&first, &second, &third].map(|path| path.exists()), [false, true, true]);
    assert_eq!([of_first, of_second].map(|client| client.order()), [Order::Drain, Order::Serve]);
}
