use std::{
    fs,
    path::{Path, PathBuf},
};

use futures_util::FutureExt;
use tempfile::TempDir;

use super::*;
use crate::{process::discovery::scripted::Network, protocol::endpoint::Endpoint};

const NODE: &str = "10.0.0.1:7000";

/// What a reloader needs: a file, and a process that has begun with it.
struct Process {
    _folder: TempDir,
    file: PathBuf,
    network: Network,
    shared: Shared,
    in_force: watch::Sender<Arc<Config>>,
}

impl Process {
    /// A process that has begun with this configuration, over a scripted node.
    fn new(text: &str) -> Process {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("slotway.toml");
        fs::write(&file, format!("seeds = [\"{NODE}\"]\n{text}")).unwrap();
        let config = Config::load(&sources(&file)).unwrap();
        let network = Network::default();
        let (mut shared, _) = Shared::of(config, &certificates(&Config::defaults()));
        shared.dialer = network.dialer();
        let in_force = watch::Sender::new(shared.config.clone());
        Process { _folder: folder, file, network, shared, in_force }
    }

    fn reloader(&self) -> Reloader<'_> {
        let sources = sources(&self.file);
        Reloader {
            rereading: Rereading::new(sources, Box::new(|_| {})),
            config: &self.in_force,
            certificates: certificates(&self.shared.config),
            passwords: Passwords::of(&self.shared.config, &self.shared.users),
            workers: &[],
            shared: &self.shared,
        }
    }

    /// The configuration is this from now on.
    fn write(&self, text: &str) {
        fs::write(&self.file, format!("seeds = [\"{NODE}\"]\n{text}")).unwrap();
    }

    /// What is in force, of what the tests change: in the configuration, and where it reaches.
    fn in_force(&self) -> [usize; 2] {
        [self.in_force.borrow().max_clients, self.shared.descriptors.max_clients()]
    }
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
        let mut reloader = process.reloader();
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
    let mut reloader = process.reloader();
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
        let client = process.shared.clients.join(here(), here(), 0);
        client.about().user = name.into();
        client
    };
    let (gone, kept) = (client("shop"), client("jobs"));
    process.write(&user("jobs"));
    process.reloader().reload().await.unwrap();
    assert_eq!((gone.order(), kept.order()), (Order::Drain, Order::Serve));
    assert!(process.shared.users.find(b"shop").is_none());
}

#[tokio::test(start_paused = true)]
async fn who_asks_is_answered_though_others_have_gone() {
    let process = Process::new("max_clients = 9");
    let reloader = process.reloader();
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
