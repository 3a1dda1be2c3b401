//! `slotway top` in a real pseudo-terminal before a real proxy, and for scripts.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio},
};

use crate::support::{Cluster, Proxy, Settings, cluster::shared, eventually, ports::free_port, proxy::only_set_here};

/// `slotway top` in a terminal of its own.
struct Terminal {
    driver: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Terminal {
    fn of(args: &[&str], variables: &[(&str, &str)]) -> Terminal {
        const SCRIPT: &str = include_str!("top/terminal.py");
        let mut command = Command::new("python3");
        only_set_here(&mut command).args(["-c", SCRIPT, env!("CARGO_BIN_EXE_slotway"), "top"]).args(args);
        command.env_remove("NO_COLOR").env("TERM", "xterm-256color").envs(variables.iter().copied());
        let mut driver = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3");
        let to = driver.stdin.take().expect("piped");
        let from = BufReader::new(driver.stdout.take().expect("piped"));
        Terminal { driver, to, from }
    }

    #[track_caller]
    fn does(&mut self, line: &str) -> String {
        writeln!(self.to, "{line}").expect("the driver lives");
        let mut answer = String::new();
        self.from.read_line(&mut answer).expect("an answer");
        assert!(!answer.is_empty() && !answer.starts_with("never seen"), "{line}: {answer}");
        answer
    }

    #[track_caller]
    fn sees(&mut self, text: &str) {
        self.does(&format!("see {text}"));
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// `slotway top` with these arguments, to its end.
pub fn top(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slotway"));
    only_set_here(command.arg("top").args(args).stdin(Stdio::null())).output().expect("the program runs")
}

/// Where a proxy's page is.
pub fn url(proxy: &Proxy) -> String {
    format!("http://127.0.0.1:{}", proxy.admin)
}

#[test]
fn a_terminal_shows_what_is_lost_and_comes_back_by_itself() {
    let mut cluster = Cluster::three();
    let settings = Settings::new(cluster.seeds()).with("REFRESH_INTERVAL", "1s").expecting_warnings();
    let proxy = Proxy::start(settings);
    let label = cluster.node(2).address();
    let mut terminal = Terminal::of(&[&url(&proxy)], &[]);
    terminal.sees("All 16,384 slots are served by 3 primaries");
    cluster.nodes[2].kill();
    terminal.sees("LOST");
    // Drawn anew as a whole, at another size.
    terminal.does("resize 132 40");
    terminal.sees(&format!("{label} does not answer since "));
    terminal.does("press 7");
    terminal.sees(&format!("node {label} cannot be reached"));
    cluster.nodes[2].restart();
    terminal.sees("All 16,384 slots");
    // The proxy itself ends, and another begins in its place.
    let again = Settings::new(cluster.seeds()).at_ports_of(&proxy);
    drop(proxy);
    terminal.sees("NO ANSWER from 127.0.0.1:");
    let _proxy = Proxy::start(again);
    terminal.sees("All 16,384 slots");
    terminal.does("press q");
    let end = terminal.does("end");
    assert_eq!(end, "code 0 left True restored True colours True\n");
}

#[test]
fn a_terminal_is_left_in_order_however_it_ends() {
    let proxy = Proxy::before(shared());
    for (how, code) in [("press \\x03", 0), ("press q", 0), ("signal 15", 0), ("signal 1", 0)] {
        let mut terminal = Terminal::of(&["--admin", &format!("127.0.0.1:{}", proxy.admin)], &[("NO_COLOR", "1")]);
        terminal.sees("All 16,384 slots");
        terminal.does(how);
        assert_eq!(terminal.does("end"), format!("code {code} left True restored True colours False\n"), "{how}");
    }
}

#[test]
fn scripts_get_a_table_or_json_and_an_exit_code() {
    let proxy = Proxy::before(shared());
    let mut client = proxy.client();
    eventually("a key to be hot", || {
        (0..200).for_each(|_| drop(client.line("GET top:hot")));
        let once = top(&[&url(&proxy), "--once", "--view", "keys"]);
        String::from_utf8_lossy(&once.stdout).contains("top:hot")
    });
    let once = top(&[&url(&proxy), "--once"]);
    let text = String::from_utf8(once.stdout).expect("text");
    assert!(once.status.success() && once.stderr.is_empty(), "{text}");
    assert!(text.contains("slots are served by") && text.contains("p99 ms"), "{text}");
    for node in &shared().nodes {
        assert!(text.contains(&node.address()), "{text}");
    }
    let json = top(&[&url(&proxy), "--json"]);
    let told: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(told["slots"], 16384);
    let nobody = top(&["--admin", &format!("127.0.0.1:{}", free_port()), "--once"]);
    let said = String::from_utf8(nobody.stderr).expect("text");
    assert_eq!(nobody.status.code(), Some(1), "{said}");
    assert!(said.contains("no answer from 127.0.0.1:") && said.ends_with("(SLOTWAY-NO-PROXY)\n"), "{said}");
    // A Redis is no admin port, and a pipe no terminal.
    let redis = top(&[&format!("http://{}", shared().nodes[0].address()), "--once"]);
    let said = String::from_utf8(redis.stderr).expect("text");
    assert_eq!(redis.status.code(), Some(1), "{said}");
    let piped = top(&[&url(&proxy)]);
    assert!(String::from_utf8_lossy(&piped.stderr).contains("--once"), "{piped:?}");
}
