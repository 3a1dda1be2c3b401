//! The command line: what it prints, what it complains of, and how it ends.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::Duration,
};

use crate::support::{Client, Cluster, Proxy, http, ports::free_port, reaper, until};

/// The program with these arguments and, of `SLOTWAY_…` variables, only these.
fn slotway(args: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slotway"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SLOTWAY_")) {
        command.env_remove(name);
    }
    command.args(args).envs(variables.iter().copied()).env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

fn run(args: &[&str], variables: &[(&str, &str)]) -> Output {
    slotway(args, variables).output().expect("the program runs")
}

#[track_caller]
fn prints(args: &[&str], variables: &[(&str, &str)]) -> String {
    let output = run(args, variables);
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[track_caller]
fn complains(args: &[&str], variables: &[(&str, &str)], code: i32) -> String {
    let output = run(args, variables);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
    String::from_utf8(output.stderr).expect("text")
}

#[test]
fn configuration_errors_name_the_source_the_key_and_what_to_do() {
    let folder = reaper::folder("cli");
    let file = folder.join("my.toml");
    let file = file.to_str().expect("text");
    fs::write(file, "request_timout = \"3s\"\n").expect("written");
    let base = free_ports(3).to_string();
    for (args, variables, said) in [
        (
            &["serve", "--config", file][..],
            &[][..],
            format!("slotway: {file}: there is no key `request_timout`; did you mean `request_timeout`? (SLOTWAY-UNKNOWN-KEY)\n"),
        ),
        (&["check"], &[("SLOTWAY_CONFIG", file)], format!("slotway: {file}: there is no key `request_timout`")),
        (
            &["serve"],
            &[("SLOTWAY_SEED", "a:1")],
            "slotway: environment: there is no key `SLOTWAY_SEED`; did you mean `SLOTWAY_SEEDS`? (SLOTWAY-UNKNOWN-KEY)\n".to_owned(),
        ),
        (
            &["serve", "--seeds", "7000"],
            &[],
            "slotway: bad value for `--seeds`: `7000` is no address: write host:port".to_owned(),
        ),
        (
            &["--request-timeout", "3"],
            &[],
            "slotway: bad value for `--request-timeout`: `3` is no duration (the unit is missing): write it as 500ms"
                .to_owned(),
        ),
        (&[], &[], "slotway: no seeds: name some nodes of the cluster, as in `slotway --seeds".to_owned()),
        (&["--config", "/nowhere.toml"], &[], "slotway: cannot read the configuration file /nowhere.toml: No such".to_owned()),
        (&["dev", "--base-port", "60000"], &[], "slotway: --base-port 60000: the nodes need ports up to 70002".to_owned()),
        (&["dev", "--server", "/nowhere", "--base-port", &base], &[], "slotway: --server: cannot run /nowhere: No such file".to_owned()),
    ] {
        // The ports of `dev` are looked at first.
        let ports = ["--listen", "127.0.0.1:0", "--admin", "off"];
        let args = if args.first() == Some(&"dev") { [args, &ports].concat() } else { args.to_vec() };
        let text = complains(&args, variables, 1);
        assert!(text.starts_with(&said), "{args:?} {variables:?}: {text}");
    }
    let text = complains(&["serve", "--seed", "a:1"], &[], 1);
    assert!(text.contains("'--seed'") && text.contains("'--seeds'"), "{text}");
}

#[test]
fn check_shows_every_value_and_its_source_but_no_secret() {
    let text = prints(
        &["check", "--seeds", "a:1,b:2", "--workers", "3"],
        &[("SLOTWAY_PASSWORD", "hunter2"), ("SLOTWAY_REQUEST_TIMEOUT", "1s"), ("SLOTWAY_PUBSUB__SOFT_TIME", "5s")],
    );
    let line = |key: &str| {
        let found =
            text.lines().find(|line| line.split(' ').next() == Some(key)).unwrap_or_else(|| panic!("{key}: {text}"));
        found.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("seeds"), "seeds = \"a:1,b:2\" # --seeds");
    assert_eq!(line("workers"), "workers = \"3\" # --workers");
    assert_eq!(line("request_timeout"), "request_timeout = \"1s\" # SLOTWAY_REQUEST_TIMEOUT");
    assert_eq!(line("pubsub.soft_time"), "pubsub.soft_time = \"5s\" # SLOTWAY_PUBSUB__SOFT_TIME");
    assert_eq!(line("max_redirects"), "max_redirects = 16 # default");
    assert_eq!(line("password"), "password = \"****\" # SLOTWAY_PASSWORD");
    assert!(!text.contains("hunter2"));
    assert!(complains(&["check"], &[], 1).contains("no seeds"));
}

#[test]
fn the_nodes_user_is_lent_to_a_network_only_where_that_is_meant() {
    let password = &[("SLOTWAY_PASSWORD", "hunter2"), ("SLOTWAY_USERNAME", "app")][..];
    let at = |listen: &'static str| ["--seeds", "127.0.0.1:1", "--listen", listen, "--admin", "off"];
    let open = at("0.0.0.0:0");
    for command in ["serve", "check"] {
        let text = complains(&[&[command], &open[..]].concat(), password, 1);
        assert!(text.contains("would work as the nodes' user `app` without a password"), "{command}: {text}");
        assert!(text.contains("say `allow_insecure_bind` where this is meant"), "{command}: {text}");
    }
    let said = |output: Vec<u8>| String::from_utf8(output).expect("text");
    let text = said(run(&[&["doctor"], &open[..]].concat(), password).stdout);
    let problem = "problem  proxy: everyone who can reach 0.0.0.0:0 would work as the nodes' user `app`: not served";
    assert!(text.contains(problem), "{text}");
    // It is said where it is served, too: to a sidecar, and where it is meant.
    for args in [at("127.0.0.1:0").to_vec(), [&open[..], &["--allow-insecure-bind"]].concat()] {
        let checked = run(&[&["check"], &args[..]].concat(), password);
        let text = said(checked.stderr);
        assert!(checked.status.success(), "{text}");
        assert!(text.contains("warning: whoever connects works as the nodes' user `app`"), "{text}");
        let text = said(run(&[&["doctor"], &args[..]].concat(), password).stdout);
        assert!(text.contains("warning  proxy: whoever connects works as the nodes' user `app`"), "{text}");
    }
    let with_both = [password, &[("SLOTWAY_CLIENT_PASSWORD", "hunter3")]].concat();
    let checked = run(&[&["check"], &open[..]].concat(), &with_both);
    assert!(checked.status.success() && checked.stderr.is_empty(), "{checked:?}");
}

#[test]
fn slots_and_plans_are_told_without_a_cluster() {
    assert_eq!(prints(&["slot", "foo", "{foo}bar", "bar"], &[]), "12182  foo\n12182  {foo}bar\n 5061  bar\n");
    assert_eq!(prints(&["slot", "--database", "shop", "foo"], &[]), " 3808  {shop}foo\n");
    let text = prints(&["explain", "mget", "foo", "bar", "{foo}x"], &[]);
    assert!(text.contains("key      foo  (slot 12182)"), "{text}");
    assert!(
        text.contains("in 2 parts") && text.contains("slot 12182: foo {foo}x") && text.contains("slot 5061: bar"),
        "{text}"
    );
    assert!(prints(&["explain", "set", "foo", "-1"], &[]).contains("by the owner of slot 12182"));
    assert!(prints(&["explain", "shutdown"], &[]).contains("not at all"));
    assert!(prints(&["explain", "slotway-node-lost"], &[]).contains("\nRan? It may have."));
    let nobody = run(&["explain", "SLOTWAY-NOSUCH"], &[]);
    let text = String::from_utf8(nobody.stderr).expect("text");
    assert!(!nobody.status.success() && text.contains("there is no SLOTWAY-NOSUCH"), "{text}");
}

#[test]
fn a_command_that_is_mistyped_in_deny_or_allow_is_pointed_out() {
    let known = "flushall,CONFIG GET,config|set,cluster,proxy node";
    let output = run(&["check", "--seeds", "a:1", "--deny", known, "--allow", "debug,shut down,flushal"], &[]);
    let said = String::from_utf8(output.stderr).expect("text");
    assert!(output.status.success() && said.lines().count() == 2, "{said}");
    assert!(said.starts_with("warning: deny or allow names `shut down`, which is no command"), "{said}");
    assert!(said.contains("names `flushal`"), "{said}");
}

#[test]
fn what_nobody_reads_is_no_fault() {
    for args in [&["check", "--seeds", "a:1"][..], &["slot", "foo"], &["explain", "get", "foo"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = slotway(args, &[]).stdout(writer).output().expect("the program runs");
        assert!(output.status.success() && output.stderr.is_empty(), "{args:?}: {output:?}");
    }
}

#[test]
fn a_port_that_is_taken_is_named_and_ends_with_2() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let text = complains(&["serve", "--seeds", "127.0.0.1:1", "--admin", "off", "--listen", &address], &[], 2);
    assert!(text.contains(&format!("slotway: cannot listen on {address}: the port is taken")), "{text}");
    let free = format!("127.0.0.1:{}", free_port());
    let text = complains(&["serve", "--seeds", "127.0.0.1:1", "--listen", &free, "--admin", &address], &[], 2);
    assert!(text.contains(&address), "{text}");
}

#[test]
fn the_health_check_asks_the_running_proxy() {
    let nobody = format!("127.0.0.1:{}", free_port());
    assert!(complains(&["healthcheck", "--admin", &nobody], &[], 1).contains(&format!("no answer from {nobody}")));
    assert!(complains(&["healthcheck", "--admin", "off"], &[], 1).contains("the admin port is off"));
    let cluster = Cluster::three();
    let proxy = Proxy::before(&cluster);
    let everywhere = format!("0.0.0.0:{}", proxy.admin);
    assert_eq!(prints(&["healthcheck"], &[("SLOTWAY_ADMIN", &everywhere)]), "ready\n");
}

/// A running `slotway dev`.
struct Dev {
    child: Child,
    base: u16,
    port: u16,
    admin: u16,
    folder: std::path::PathBuf,
}

impl Dev {
    /// Starts one whose temporary files go into a folder of their own.
    fn start(more: &[&str]) -> Dev {
        let (base, port, admin) = (free_ports(6), free_port(), free_port());
        let folder = reaper::folder("dev");
        let (listen, admin_address) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{admin}"));
        let base_port = base.to_string();
        let args = [&["dev", "--base-port", &base_port, "--listen", &listen, "--admin", &admin_address], more].concat();
        let out = fs::File::create(folder.join("out")).expect("a file");
        let child = slotway(&args, &[("TMPDIR", folder.to_str().expect("text"))])
            .stdout(out.try_clone().expect("the file twice"))
            .stderr(out)
            .spawn()
            .expect("the program runs");
        reaper::watch(child.id());
        Dev { child, base, port, admin, folder }
    }

    fn said(&self) -> String {
        fs::read_to_string(self.folder.join("out")).unwrap_or_default()
    }

    #[track_caller]
    fn wait_for(&mut self, words: &str) {
        until(&format!("dev to say {words}: {}", self.said()), Duration::from_secs(60), || {
            assert!(self.child.try_wait().expect("its state").is_none(), "it has ended: {}", self.said());
            self.said().contains(words).then_some(())
        });
    }

    #[track_caller]
    fn end(&mut self, signal: &str) -> ExitStatus {
        let done = Command::new("kill").args([signal, &self.child.id().to_string()]).status().expect("kill");
        assert!(done.success());
        let status = until("dev to end", Duration::from_secs(20), || self.child.try_wait().expect("its state"));
        reaper::forget(self.child.id());
        status
    }

    /// Nothing listens any more, and the temporary folder is empty but for what this test put there.
    #[track_caller]
    fn assert_nothing_is_left(&self, nodes: u16) {
        let ports = (self.base..self.base + nodes).flat_map(|port| [port, port + 10_000]);
        for port in ports.chain([self.port, self.admin]) {
            let free = || TcpListener::bind(("127.0.0.1", port)).ok();
            until(&format!("port {port} to be free"), Duration::from_secs(10), free);
        }
        let left =
            || fs::read_dir(&self.folder).expect("the folder").flatten().map(|entry| entry.file_name()).collect();
        until("the folder to be cleared", Duration::from_secs(10), || {
            let left: Vec<_> = left();
            (left == ["out"]).then_some(())
        });
    }
}

/// The first of so many ports in a row that are ours, with those 10000 above them free.
fn free_ports(count: u16) -> u16 {
    let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    until("ports in a row", Duration::from_secs(10), || {
        // Each is given out to nobody else from here on.
        let row: Vec<u16> = (0..count).map(|_| free_port()).collect();
        let unbroken = row.windows(2).all(|pair| pair[1] == pair[0] + 1);
        (unbroken && row.iter().all(|port| free(port + 10_000))).then(|| row[0])
    })
}

#[test]
fn dev_runs_a_real_cluster_and_leaves_nothing_behind() {
    let mut dev = Dev::start(&[]);
    dev.wait_for("Ctrl-C ends all of it");
    let said = dev.said();
    let third = dev.base + 2;
    for line in [
        format!("127.0.0.1:{}", dev.port),
        format!("status page http://127.0.0.1:{}/", dev.admin),
        "node, slots 0-5460".to_owned(),
        "node, slots 5461-10922".to_owned(),
        "node, slots 10923-16383".to_owned(),
        format!("redis-cli -p {} set foo bar", dev.port),
    ] {
        assert!(said.contains(&line), "{line}: {said}");
    }
    let mut client = Client::connect(&format!("127.0.0.1:{}", dev.port));
    assert_eq!(client.line("SET foo bar"), "+OK\r\n");
    // Slot 12182 is the third node's.
    let mut node = Client::connect(&format!("127.0.0.1:{third}"));
    assert_eq!(node.line("GET foo"), "$3\r\nbar\r\n");
    assert_eq!(http::fetch(&format!("127.0.0.1:{}", dev.admin), "/readyz").expect("an answer").0, 200);
    assert_eq!(dev.end("-TERM").code(), Some(0), "{}", dev.said());
    dev.assert_nothing_is_left(3);
}

#[test]
fn dev_ends_with_its_terminal() {
    let mut dev = Dev::start(&[]);
    dev.wait_for("Ctrl-C ends all of it");
    assert_eq!(dev.end("-HUP").code(), Some(0), "{}", dev.said());
    dev.assert_nothing_is_left(3);
}

#[test]
fn dev_with_replicas_tells_of_a_node_that_ends_and_survives_no_kill() {
    let mut dev = Dev::start(&["--replicas", "1"]);
    dev.wait_for("Ctrl-C ends all of it");
    assert!(dev.said().contains(&format!("node, replica of {}", dev.base)), "{}", dev.said());
    let last = dev.base + 5;
    let mut replica = Client::connect(&format!("127.0.0.1:{last}"));
    let _ = replica.try_call(&["SHUTDOWN", "NOSAVE"]);
    dev.wait_for(&format!("node {last} has ended"));
    // Even a kill leaves nothing behind.
    dev.end("-KILL");
    dev.assert_nothing_is_left(6);
}

#[test]
fn dev_names_a_port_that_is_taken() {
    let base = free_ports(3);
    let taken = TcpListener::bind(("127.0.0.1", base + 10_001)).expect("a port");
    let text =
        complains(&["dev", "--base-port", &base.to_string(), "--listen", "127.0.0.1:0", "--admin", "off"], &[], 2);
    assert!(text.contains(&format!("port {} is taken", base + 10_001)) && text.contains("--base-port"), "{text}");
    drop(taken);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address").to_string();
    let text = complains(&["dev", "--base-port", &base.to_string(), "--listen", &address, "--admin", "off"], &[], 2);
    assert!(text.contains(&format!("{address} is taken")) && text.contains("--listen"), "{text}");
}

#[test]
fn the_documented_file_is_a_configuration() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/slotway.toml");
    let text = prints(&["check", "--seeds", "a:1", "--config", file.to_str().expect("text")], &[]);
    assert_eq!(text.lines().filter(|line| line.ends_with("config/slotway.toml")).count(), text.lines().count() - 1);
}
