//! Scripts and functions: every node has what one Redis would have.

use std::{thread, time::Duration};

use slotway::commands::scripts::Sha;

use crate::support::{
    Client, Cluster, Flavour, Node, Proxy, Random, Reply, Settings, Shape,
    client::{frame, words},
    eventually, until,
};

/// Appends its argument to a list and returns how long it is.
const PUSH: &str = "return redis.call('RPUSH',KEYS[1],ARGV[1])";
/// The same, and it could make errors of its own.
const PUSH_OR_FAIL: &str =
    "if ARGV[1] == '' then return redis.error_reply('ERR empty') end return redis.call('RPUSH',KEYS[1],ARGV[1])";
const LIBRARY: &str = "#!lua name=mylib\nredis.register_function('push',function(keys,args) return redis.call('RPUSH',keys[1],args[1]) end)\nredis.register_function{function_name='size',callback=function(keys) return redis.call('LLEN',keys[1]) end,flags={'no-writes'}}";

fn sha(text: &str) -> String {
    String::from_utf8(Sha::of(text.as_bytes()).digits().to_vec()).unwrap()
}

fn flush_all(cluster: &Cluster) {
    for node in &cluster.nodes {
        assert_eq!(node.line("SCRIPT FLUSH"), "+OK\r\n");
    }
}

/// Requests, `{t}` being a tag; the words are split at `|`.
const SEQUENCE: &[&str] = &[
    "EVAL|return 1|0",
    "EVAL|return {KEYS[1],ARGV[1],#KEYS}|1|{t}k|a",
    "EVAL|return {1,2.9,'x',false,{err='MY error'}}|0",
    "EVAL|return {ok='fine'}|0",
    "EVAL|return redis.call('SET',KEYS[1],ARGV[1])|1|{t}k|v",
    "EVAL|return redis.call('INCR',KEYS[1])|1|{t}k",
    "EVAL|return redis.pcall('INCR',KEYS[1])|1|{t}k",
    "EVAL|return redis.error_reply('MINE is this')|0",
    "EVAL|syntax error here|0",
    "EVAL|error('thrown')|0",
    "EVAL|return 1|-1",
    "EVAL|return 1|x",
    "EVAL|return 1|2|{t}k",
    "EVAL|return 1",
    "EVAL",
    "EVAL_RO|return redis.call('GET',KEYS[1])|1|{t}k",
    "EVAL_RO|return redis.call('SET',KEYS[1],'w')|1|{t}k",
    "EVAL|redis.setresp(3); return redis.call('HGETALL',KEYS[1])|1|{t}h",
    "EVALSHA|ffffffffffffffffffffffffffffffffffffffff|0",
    "EVALSHA|ffffffffffffffffffffffffffffffffffffffff|1|{t}k",
    "EVALSHA|short|0",
    "EVALSHA|ffffffffffffffffffffffffffffffffffffffff|-1",
    "EVALSHA_RO|ffffffffffffffffffffffffffffffffffffffff|0",
    "EVALSHA",
    // `return 1`, in either case.
    "EVALSHA|e0e1f9fabfc9d4800c877a703b823ac0578ff8db|0",
    "EVALSHA|E0E1F9FABFC9D4800C877A703B823AC0578FF8DB|1|{t}k|arg",
    "EVALSHA_RO|e0e1f9fabfc9d4800c877a703b823ac0578ff8db|0",
    "SCRIPT|LOAD|return ARGV[1]",
    "SCRIPT|LOAD|return (",
    "SCRIPT|LOAD",
    "SCRIPT|EXISTS|e0e1f9fabfc9d4800c877a703b823ac0578ff8db|ffffffffffffffffffffffffffffffffffffffff|x",
    "SCRIPT|EXISTS",
    "SCRIPT|NOSUCH",
    "SCRIPT|HELP|x",
    "SCRIPT|FLUSH|LATER",
    "SCRIPT|EXISTS|e0e1f9fabfc9d4800c877a703b823ac0578ff8db",
    "SCRIPT|FLUSH|ASYNC",
    "EVALSHA|e0e1f9fabfc9d4800c877a703b823ac0578ff8db|0",
    "SCRIPT|EXISTS|e0e1f9fabfc9d4800c877a703b823ac0578ff8db",
    "SCRIPT|LOAD|return 1",
    "SCRIPT|FLUSH",
    "EVALSHA|e0e1f9fabfc9d4800c877a703b823ac0578ff8db|0",
    "SCRIPT|KILL",
    "FUNCTION|KILL",
    "FUNCTION|FLUSH",
    "FUNCTION|LIST",
    "FUNCTION|STATS",
    "FUNCTION|LOAD|#!lua name=lib\nredis.register_function('f',function(keys,args) return #keys + #args end)",
    "FUNCTION|LOAD|#!lua name=lib\nredis.register_function('f',function(keys,args) return 1 end)",
    "FUNCTION|LOAD|nonsense",
    "FUNCTION|LOAD|REPLACE|#!lua name=lib\nredis.register_function('f',function(keys,args) return #keys * 10 + #args end)",
    "FCALL|f|2|{t}k|{t}l|a",
    "FCALL|f|0",
    "FCALL|nosuch|0",
    "FCALL|nosuch|1|{t}k",
    "FCALL|f|-1",
    "FCALL|f|5|{t}k",
    "FCALL|f",
    "FCALL_RO|f|1|{t}k",
    "FUNCTION|LIST|LIBRARYNAME|li*|WITHCODE",
    "FUNCTION|STATS",
    "FUNCTION|DUMP",
    "FUNCTION|RESTORE|nonsense",
    "FUNCTION|DELETE|nosuch",
    "FUNCTION|DELETE|lib",
    "FCALL|f|0",
    "FUNCTION|FLUSH|LATER",
    "MULTI",
    "EVAL|return redis.call('RPUSH',KEYS[1],'m')|1|{t}m",
    "EVALSHA|ffffffffffffffffffffffffffffffffffffffff|1|{t}m",
    "SCRIPT|LOAD|return 'loaded within'",
    "FCALL|nosuch|1|{t}m",
    "EXEC",
];

#[test]
fn every_text_is_that_of_one_redis() {
    for flavour in [Flavour::Redis, Flavour::Valkey] {
        if !flavour.is_here("every_text_is_that_of_one_redis") {
            continue;
        }
        let cluster = Cluster::start(Shape { flavour, ..Shape::default() });
        let proxy = Proxy::before(&cluster);
        let oracle = Node::start(&crate::support::Setup { flavour, ..Default::default() });
        for version in [2, 3] {
            for pipelined in [false, true] {
                let tag = format!("{{s{version}-{pipelined}}}");
                let requests: Vec<Vec<String>> = SEQUENCE
                    .iter()
                    .map(|line| line.split('|').map(|word| word.replace("{t}", &tag)).collect())
                    .collect();
                let run = |address: String| -> Vec<Reply> {
                    let mut client = Client::connect(&address);
                    client.line("FUNCTION FLUSH");
                    client.line("SCRIPT FLUSH");
                    client.line(&format!("HELLO {version}"));
                    if pipelined {
                        client.pipeline(&requests)
                    } else {
                        requests.iter().map(|request| client.call(request)).collect()
                    }
                };
                let (ours, theirs) = (run(proxy.address()), run(oracle.address()));
                for (line, (ours, theirs)) in SEQUENCE.iter().zip(ours.iter().zip(&theirs)) {
                    assert_eq!(ours, theirs, "{line} in RESP{version} of {flavour:?}, pipelined: {pipelined}");
                }
            }
        }
    }
}

#[test]
fn a_script_that_a_node_has_lost_runs_again() {
    let cluster = Cluster::three();
    let proxy = Proxy::before(&cluster);
    let (mut client, mut other) = (proxy.client(), proxy.client());
    let keys: Vec<String> = (0..3).map(|index| cluster.key_on(index, "lost")).collect();
    client.call(&["SCRIPT", "LOAD", PUSH]);
    client.call(&["EVAL", PUSH_OR_FAIL, "1", &keys[0], "x"]);
    for text in [PUSH, PUSH_OR_FAIL] {
        for key in &keys {
            client.call(&["DEL", key]);
            for round in 1..=3 {
                flush_all(&cluster);
                assert_eq!(other.call(&["EVALSHA", &sha(text), "1", key, "a"]).integer(), round);
            }
            assert_eq!(client.call(&["LLEN", key]).integer(), 3);
        }
    }
    eventually("it to be counted", || proxy.metric("slotway_retries_total", &["noscript"]) >= 18.0);
    // What the proxy remembers exists.
    flush_all(&cluster);
    assert_eq!(client.call(&["SCRIPT", "EXISTS", &sha(PUSH), &sha("return 'never'")]), "*2\r\n:1\r\n:0\r\n");
    for node in &cluster.nodes {
        assert_eq!(node.client().call(&["SCRIPT", "EXISTS", &sha(PUSH)]), "*1\r\n:1\r\n");
    }
    // SCRIPT FLUSH is meant.
    client.line("SCRIPT FLUSH");
    let reply = other.call(&["EVALSHA", &sha(PUSH), "1", &keys[0], "a"]);
    assert!(reply.0.starts_with(b"-NOSCRIPT"), "{reply:?}");
    assert_eq!(client.call(&["SCRIPT", "EXISTS", &sha(PUSH)]), "*1\r\n:0\r\n");
}

/// Pushes numbers to lists by EVALSHA and by plain commands: each list must have them in their order.
fn exact_order(proxy: &Proxy, keys: &[String], mut disturb: impl FnMut()) {
    let mut client = proxy.client();
    let mut random = Random::new(7);
    client.call(&["SCRIPT", "LOAD", PUSH]);
    client.call(&["SCRIPT", "LOAD", PUSH_OR_FAIL]);
    for key in keys {
        client.call(&["DEL", key]);
    }
    let mut lengths = vec![0; keys.len()];
    for round in 0..60 {
        disturb();
        let (mut requests, mut expected) = (Vec::new(), Vec::new());
        for _ in 0..1 + random.below(12) {
            let which = random.below(keys.len());
            let number = lengths[which].to_string();
            lengths[which] += 1;
            let key = &keys[which];
            requests.push(match random.below(5) {
                0 => frame(&["RPUSH", key, &number]),
                1 | 2 => frame(&["EVALSHA", &sha(PUSH), "1", key, &number]),
                _ => frame(&["EVALSHA", &sha(PUSH_OR_FAIL), "1", key, &number]),
            });
            expected.push(format!(":{}\r\n", lengths[which]));
        }
        // All in one write, or one by one without waiting.
        let replies: Vec<Reply> = if round % 2 == 0 {
            client.exchange(&requests.concat(), requests.len())
        } else {
            requests.iter().for_each(|request| client.send_raw(request));
            requests.iter().map(|_| client.reply()).collect()
        };
        for (reply, expected) in replies.iter().zip(&expected) {
            assert_eq!(*reply, expected.as_str(), "round {round}");
        }
    }
    for (key, length) in keys.iter().zip(lengths) {
        let expected: Vec<String> = (0..length).map(|number: i32| number.to_string()).collect();
        assert_eq!(client.call(&["LRANGE", key, "0", "-1"]).texts(), expected, "{key}");
    }
}

#[test]
fn pipelines_keep_their_order_while_scripts_are_lost() {
    let cluster = Cluster::three();
    let proxy = Proxy::before(&cluster);
    let keys: Vec<String> =
        (0..3).flat_map(|index| ["a", "b"].map(|name| cluster.key_on(index, &format!("order{name}")))).collect();
    exact_order(&proxy, &keys, || flush_all(&cluster));
}

#[test]
fn long_scripts_of_several_nodes_are_not_overtaken() {
    let cluster = Cluster::three();
    let proxy = Proxy::before(&cluster);
    let mut client = proxy.client();
    // Too long to go ahead of each batch.
    let text = format!("{PUSH} --{}", "x".repeat(20_000));
    client.call(&["SCRIPT", "LOAD", &text]);
    let [first, second] = [0, 1].map(|index| cluster.key_on(index, "long"));
    flush_all(&cluster);
    let sha = sha(&text);
    let replies = client.pipeline(&[
        vec!["EVALSHA", &sha, "1", &first, "a"],
        vec!["EVALSHA", &sha, "1", &second, "a"],
        vec!["RPUSH", &first, "b"],
    ]);
    assert_eq!(replies, [":1\r\n", ":1\r\n", ":2\r\n"]);
}

#[test]
fn transactions_find_their_scripts() {
    let cluster = Cluster::three();
    let proxy = Proxy::before(&cluster);
    let mut client = proxy.client();
    client.call(&["SCRIPT", "LOAD", PUSH]);
    client.call(&["SCRIPT", "LOAD", PUSH_OR_FAIL]);
    let shas = [sha(PUSH), sha(PUSH_OR_FAIL)];
    for (round, extra) in [None, Some("CLIENT GETNAME"), Some("WATCH {tx}other")].into_iter().enumerate() {
        for pipelined in [false, true] {
            flush_all(&cluster);
            client.line("DEL {tx}k");
            if let Some(watch) = extra.filter(|extra| extra.starts_with("WATCH")) {
                assert_eq!(client.line(watch), "+OK\r\n");
            }
            let mut lines = vec!["MULTI".to_owned()];
            lines.push(format!("EVALSHA {} 1 {{tx}}k a", shas[0]));
            lines.push("RPUSH {tx}k b".to_owned());
            lines.push(format!("EVALSHA {} 1 {{tx}}k c", shas[1].to_uppercase()));
            lines.extend(extra.filter(|extra| extra.starts_with("CLIENT")).map(str::to_owned));
            lines.push("EXEC".to_owned());
            let requests: Vec<Vec<&str>> = lines.iter().map(|line| words(line)).collect();
            let replies =
                if pipelined { client.pipeline(&requests) } else { requests.iter().map(|r| client.call(r)).collect() };
            let expected = if round == 1 { "*4\r\n:1\r\n:2\r\n:3\r\n$-1\r\n" } else { "*3\r\n:1\r\n:2\r\n:3\r\n" };
            assert_eq!(*replies.last().unwrap(), expected);
            assert_eq!(client.line("LRANGE {tx}k 0 -1").texts(), ["a", "b", "c"]);
        }
    }
    // What is loaded within is known from then on, everywhere.
    client.line("MULTI");
    client.call(&["SCRIPT", "LOAD", "return KEYS[1]"]);
    assert_eq!(client.line("EXEC"), format!("*1\r\n$40\r\n{}\r\n", sha("return KEYS[1]")).as_str());
    for index in 0..3 {
        let key = cluster.key_on(index, "within");
        assert_eq!(client.call(&["EVALSHA", &sha("return KEYS[1]"), "1", &key]).string(), key);
    }
}

#[test]
fn a_script_that_says_noscript_itself_runs_once() {
    let cluster = Cluster::three();
    let proxy = Proxy::before(&cluster);
    let mut client = proxy.client();
    let words = "NOSCRIPT No matching script. Please use EVAL.";
    let fixed = format!("redis.call('INCR',KEYS[1]); return redis.error_reply('{words}')");
    let spoken = "redis.call('INCR',KEYS[1]); return redis.error_reply(ARGV[1])";
    let stored = "redis.call('INCR',KEYS[1]); return redis.error_reply(redis.call('GET',KEYS[2]))";
    client.call(&["SET", "{f}words", words]);
    for (number, text) in [fixed.as_str(), spoken, stored].into_iter().enumerate() {
        let key = format!("{{f}}{number}");
        client.call(&["SCRIPT", "LOAD", text]);
        // It was loaded long ago, as far as the proxy remembers: another one.
        let other = Proxy::before(&cluster);
        let mut calls = [proxy.client(), other.client()];
        other.client().call(&["EVAL", text, "2", "{f}unused", "{f}words", words]);
        for (calls, client) in calls.iter_mut().enumerate() {
            let reply = client.call(&["EVALSHA", &sha(text), "2", &key, "{f}words", words]);
            assert_eq!(reply, format!("-{words}\r\n").as_str());
            assert_eq!(client.call(&["GET", &key]).string(), (calls + 1).to_string(), "{text}");
        }
        // In a pipeline too.
        client.pipeline(&[
            vec!["EVALSHA", &sha(text), "2", &key, "{f}words", words],
            vec!["EVALSHA", &sha(text), "2", &key, "{f}words", words],
        ]);
        assert_eq!(client.call(&["GET", &key]).string(), "4");
    }
}

#[test]
fn a_promoted_node_has_scripts_and_functions() {
    // Of two primaries both would have to vote for each failover; of three, one may be late.
    let cluster = Cluster::start(Shape { replicas: 1, ..Shape::default() });
    let proxy = Proxy::before(&cluster);
    let mut client = proxy.client();
    let keys = [cluster.key_on(0, "one"), cluster.key_on(0, "two"), cluster.key_on(1, "three")];
    assert_eq!(client.call(&["FUNCTION", "LOAD", LIBRARY]).string(), "mylib");
    client.call(&["SCRIPT", "LOAD", PUSH]);
    let mut at = 0;
    exact_order(&proxy, &keys, || {
        at += 1;
        match at {
            10 => cluster.fail_over_to(3, ""),
            30 => cluster.fail_over_to(0, ""),
            _ => {}
        }
    });
    for key in &keys {
        client.call(&["DEL", key]);
        assert_eq!(client.call(&["FCALL", "push", "1", key, "x"]), ":1\r\n");
        assert_eq!(client.call(&["FCALL_RO", "size", "1", key]), ":1\r\n");
    }
}

#[test]
fn a_node_that_joins_has_scripts_and_functions() {
    let mut cluster = Cluster::three();
    let proxy = Proxy::before(&cluster);
    let mut client = proxy.client();
    assert_eq!(client.call(&["FUNCTION", "LOAD", LIBRARY]).string(), "mylib");
    client.call(&["SCRIPT", "LOAD", PUSH]);
    let joined = cluster.add_node();
    let (slot, from) = (12182, 2); // foo's
    // On its way, keys that are new are asked for at the new node already.
    cluster.open_slot(slot, from, joined);
    let requests = |prefix: &str| -> Vec<Vec<String>> {
        let key = format!("{{foo}}{prefix}");
        let call = |number: i32| match number % 3 {
            0 => vec!["FCALL".into(), "push".into(), "1".into(), key.clone(), number.to_string()],
            1 => vec!["EVALSHA".into(), sha(PUSH), "1".into(), key.clone(), number.to_string()],
            _ => vec!["RPUSH".into(), key.clone(), number.to_string()],
        };
        (0..12).map(call).collect()
    };
    let expected: Vec<String> = (1..=12).map(|number| format!(":{number}\r\n")).collect();
    let check = |client: &mut Client, prefix: &str, pipelined: bool| {
        let requests = requests(prefix);
        let replies =
            if pipelined { client.pipeline(&requests) } else { requests.iter().map(|r| client.call(r)).collect() };
        for (reply, expected) in replies.iter().zip(&expected) {
            assert_eq!(*reply, expected.as_str(), "{prefix}");
        }
        let numbers: Vec<String> = (0..12).map(|number| number.to_string()).collect();
        assert_eq!(client.line(&format!("LRANGE {{foo}}{prefix} 0 -1")).texts(), numbers);
    };
    check(&mut client, "asked", true);
    check(&mut client, "asked-singly", false);
    cluster.close_slot(slot, from, joined);
    check(&mut client, "moved", true);
    check(&mut client, "moved-singly", false);
    client.line("MULTI");
    client.line("FCALL push 1 {foo}tx 1");
    client.call(&["EVALSHA", &sha(PUSH), "1", "{foo}tx", "2"]);
    assert_eq!(client.line("EXEC"), "*2\r\n:1\r\n:2\r\n");
    assert!(proxy.metric("slotway_function_libraries_given_total", &[]) >= 1.0);
    assert!(proxy.log().contains("was given function libraries"), "{}", proxy.log());
    // It is in step with the others from then on.
    assert_eq!(client.line("FUNCTION DELETE mylib"), "+OK\r\n");
    for node in &cluster.nodes {
        assert_eq!(node.line("FUNCTION LIST"), "*0\r\n");
    }
}

#[test]
fn what_was_deleted_stays_so() {
    let mut cluster = Cluster::three();
    let proxy = Proxy::before(&cluster);
    let mut client = proxy.client();
    let library = |name: &str| {
        LIBRARY
            .replace("mylib", name)
            .replace("'push'", &format!("'push_{name}'"))
            .replace("'size'", &format!("'size_{name}'"))
    };
    for name in ["kept", "halfway", "later", "changed"] {
        assert_eq!(client.call(&["FUNCTION", "LOAD", &library(name)]).string(), name);
    }
    // A deletion that has not come to all nodes yet.
    assert_eq!(cluster.node(1).line("FUNCTION DELETE halfway"), "+OK\r\n");
    let joined = cluster.add_node();
    let names = |index: usize| {
        let list = cluster.node(index).line("FUNCTION LIST").value();
        let mut names: Vec<String> =
            list.items().iter().filter_map(|library| library.field("library_name")?.str().map(str::to_owned)).collect();
        names.sort();
        names
    };
    until("the functions to be given", Duration::from_secs(20), || {
        (names(joined) == ["changed", "kept", "later"]).then_some(())
    });
    // Deleted at all others: what was given is taken back. What somebody has changed is left alone.
    let own = library("changed").replace("RPUSH", "LPUSH");
    cluster.node(joined).client().call(&["FUNCTION", "LOAD", "REPLACE", &own]);
    for index in 0..3 {
        assert_eq!(cluster.node(index).line("FUNCTION DELETE later"), "+OK\r\n");
        assert_eq!(cluster.node(index).line("FUNCTION DELETE changed"), "+OK\r\n");
    }
    until("the gift to be taken back", Duration::from_secs(20), || {
        (names(joined) == ["changed", "kept"]).then_some(())
    });
    cluster.move_slot(0, 0, joined);
    let address = cluster.node(joined).address();
    eventually("the slot's move to be known", || proxy.metric("slotway_node_slots", &[&address]) >= 1.0);
    let listed =
        cluster.node(joined).client().call(&["FUNCTION", "LIST", "LIBRARYNAME", "changed", "WITHCODE"]).value();
    assert_eq!(listed.items()[0].field("library_code").unwrap().text(), Some(own.as_bytes()));
}

#[test]
fn a_busy_script_can_be_killed() {
    let config = vec!["busy-reply-threshold 50".to_owned()];
    let cluster = Cluster::start(Shape { config, ..Shape::default() });
    let settings = Settings::new(cluster.seeds()).with("REQUEST_TIMEOUT", "30s").with("NODE_TIMEOUT", "30s");
    let proxy = Proxy::start(settings.expecting_warnings());
    let mut client = proxy.client();
    client.call(&[
        "FUNCTION",
        "LOAD",
        "#!lua name=busy\nredis.register_function('spin',function() while true do end end)",
    ]);
    for (run, kill) in
        [(vec!["EVAL", "while true do end", "0"], "SCRIPT KILL"), (vec!["FCALL", "spin", "0"], "FUNCTION KILL")]
    {
        thread::scope(|scope| {
            let runs = scope.spawn(|| proxy.client().patient(Duration::from_secs(30)).call(&run));
            until("the script to be killed", Duration::from_secs(20), || {
                if kill == "FUNCTION KILL" {
                    let stats = client.line("FUNCTION STATS");
                    let running =
                        stats.value().field("running_script").is_some_and(|script| !script.items().is_empty());
                    if !running {
                        return None;
                    }
                }
                let reply = client.line(kill);
                assert!(reply == "+OK\r\n" || reply.0.starts_with(b"-NOTBUSY"), "{reply:?}");
                (reply == "+OK\r\n").then_some(())
            });
            let killed = runs.join().unwrap();
            assert!(String::from_utf8_lossy(&killed.0).contains("killed by user"), "{killed:?}");
        });
    }
    assert!(client.line("SCRIPT KILL").0.starts_with(b"-NOTBUSY"));
}

#[test]
fn a_user_who_may_not_load_scripts_may_run_them() {
    let cluster = Cluster::three();
    for node in &cluster.nodes {
        node.line("ACL SETUSER runner on >secret ~* +@all -script");
    }
    let proxy = Proxy::before(&cluster);
    let mut owner = proxy.client();
    owner.call(&["SCRIPT", "LOAD", PUSH]);
    let mut runner = proxy.client();
    assert_eq!(runner.line("AUTH runner secret"), "+OK\r\n");
    for number in 1..=3 {
        flush_all(&cluster);
        assert_eq!(runner.call(&["EVALSHA", &sha(PUSH), "1", "{run}k", "a"]).integer(), number);
    }
    // But not make them known.
    let refused = ["return 'mine'", "return 'also mine'", "return 'mine as well'"];
    assert!(runner.call(&["SCRIPT", "LOAD", refused[0]]).0.starts_with(b"-NOPERM"));
    for node in &cluster.nodes {
        node.line("ACL SETUSER runner -eval");
    }
    assert!(runner.call(&["EVAL", refused[1], "0"]).0.starts_with(b"-NOPERM"));
    runner.line("MULTI");
    runner.call(&["EVAL", refused[2], "1", "{run}k"]);
    assert!(runner.line("EXEC").0.starts_with(b"-EXECABORT"));
    for text in refused {
        let reply = runner.call(&["EVALSHA", &sha(text), "0"]);
        assert!(reply.0.starts_with(b"-NOSCRIPT"), "{text}: {reply:?}");
    }
    // Who may, may.
    for node in &cluster.nodes {
        node.line("ACL SETUSER writer on >secret ~* +@all");
    }
    let mut writer = proxy.client();
    assert_eq!(writer.line("AUTH writer secret"), "+OK\r\n");
    assert!(!writer.call(&["EVAL", "return 'written'", "0"]).is_error());
    writer.line("MULTI");
    writer.call(&["EVAL", "return 'in a transaction'", "1", "{run}k"]);
    assert_eq!(writer.line("EXEC"), "*1\r\n$16\r\nin a transaction\r\n");
    assert!(!writer.call(&["SCRIPT", "LOAD", "return 'loaded'"]).is_error());
    flush_all(&cluster);
    for text in ["written", "in a transaction", "loaded"] {
        let sha = sha(&format!("return '{text}'"));
        assert_eq!(runner.call(&["EVALSHA", &sha, "0"]).string(), text);
    }
}
