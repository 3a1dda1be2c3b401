use super::*;
use crate::protocol::address::Address;
use std::io::Write;

fn sources(variables: &[(&str, &str)], flags: &[(&str, &str)]) -> Sources {
    let owned = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    Sources { file: None, variables: owned(variables), flags: owned(flags) }
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn complaint(sources: &Sources) -> String {
    Config::load(sources).expect_err("it should be refused").to_string()
}

#[test]
fn the_defaults_are_those_of_the_design() {
    let config = Config::defaults();
    assert_eq!(config.listen, ["127.0.0.1:6380".parse().unwrap()]);
    assert_eq!(config.admin, Some("127.0.0.1:9380".parse().unwrap()));
    assert_eq!((config.workers, config.max_redirects, config.client_window), (0, 16, 1024));
    assert_eq!(config.max_buffered, 256 << 20);
    assert_eq!((config.request_timeout, config.connect_timeout), (Duration::from_secs(3), Duration::from_secs(1)));
    assert_eq!((config.client_idle_timeout, config.tcp_keepalive), (None, Some(Duration::from_secs(60))));
    assert_eq!(config.pubsub.hard_limit, 32 << 20);
    assert!(config.password.is_none() && config.seeds.is_empty() && config.cross_slot == CrossSlot::Split);
    assert_eq!((config.reads, config.max_replica_lag), (ReadFrom::Primary, Duration::from_secs(10)));
    assert!(config.ready_to_serve().unwrap_err().to_string().contains("--seeds"));
}

#[test]
fn flags_beat_the_environment_which_beats_the_file() {
    let file = file("workers = 1\nmax_clients = 1\nmax_redirects = 1\n[pubsub]\nsoft_limit = \"1KiB\"\n");
    let mut sources = sources(
        &[
            ("SLOTWAY_WORKERS", "2"),
            ("SLOTWAY_MAX_CLIENTS", "2"),
            ("SLOTWAY_PUBSUB__HARD_LIMIT", "1MiB"),
            ("HOME", "/"),
        ],
        &[("workers", "3")],
    );
    sources.file = Some(file.path().to_owned());
    let config = Config::load(&sources).unwrap();
    assert_eq!((config.workers, config.max_clients, config.max_redirects), (3, 2, 1));
    let pubsub = config.pubsub;
    assert_eq!((pubsub.hard_limit, pubsub.soft_limit, pubsub.soft_time.as_secs()), (1 << 20, 1 << 10, 60));

    let shown = shown(&sources).unwrap();
    let from = |key: &str| shown.iter().find(|shown| shown.key == key).unwrap().from.clone();
    assert_eq!(from("workers"), "--workers");
    assert_eq!(from("pubsub.hard_limit"), "SLOTWAY_PUBSUB__HARD_LIMIT");
    assert_eq!(from("max_redirects"), file.path().display().to_string());
    assert_eq!(from("listen"), "default");
}

#[test]
fn the_file_may_be_named_by_the_environment() {
    let file = file("workers = 7");
    let path = file.path().display().to_string();
    assert_eq!(Config::load(&sources(&[("SLOTWAY_CONFIG", &path)], &[])).unwrap().workers, 7);
}

#[test]
fn values_come_in_every_spelling_that_is_plain() {
    let config = Config::load(&sources(
        &[
            ("SLOTWAY_SEEDS", "a:1, b:2,"),
            ("SLOTWAY_PASSWORD", "0123"),
            ("SLOTWAY_ADMIN", "off"),
            ("SLOTWAY_REUSE_PORT", "yes"),
            ("SLOTWAY_LISTEN", ":6380"),
            ("SLOTWAY_USERNAME", ""),
            ("SLOTWAY_DENY", "KEYS,FlushAll"),
            ("SLOTWAY_MAX_BUFFERED", "2000000"),
        ],
        &[],
    ))
    .unwrap();
    assert_eq!(*config.seeds, [Address::new("a", 1), Address::new("b", 2)]);
    assert_eq!(config.password.unwrap().reveal(), "0123", "a password of digits stays text");
    assert_eq!((config.admin, config.reuse_port, config.username), (None, true, None));
    assert_eq!(config.listen, ["0.0.0.0:6380".parse().unwrap()]);
    assert_eq!((config.deny, config.max_buffered), (vec!["keys".into(), "flushall".into()], 2_000_000));
}

#[test]
fn variables_of_a_service_called_slotway_are_passed_over() {
    let kubernetes = [
        ("SLOTWAY_PORT", "tcp://10.0.0.1:6380"),
        ("SLOTWAY_SERVICE_HOST", "10.0.0.1"),
        ("SLOTWAY_SERVICE_PORT", "6380"),
        ("SLOTWAY_SERVICE_PORT_REDIS", "6380"),
        ("SLOTWAY_PORT_6380_TCP_PROTO", "tcp"),
        ("SLOTWAY_ADMIN_PORT_9380_TCP_ADDR", "10.0.0.1"),
    ];
    Config::load(&sources(&kubernetes, &[])).unwrap();
}

#[test]
fn unknown_keys_name_the_source_the_key_and_the_nearest_right_one() {
    let file = file("request_timout = \"3s\"");
    let from_file = Sources { file: Some(file.path().to_owned()), ..Sources::default() };
    let path = file.path().display();
    assert_eq!(
        complaint(&from_file),
        format!("{path}: there is no key `request_timout`; did you mean `request_timeout`?")
    );
    for (sources, text) in [
        (
            sources(&[("SLOTWAY_SEED", "a:1")], &[]),
            "environment: there is no key `SLOTWAY_SEED`; did you mean `SLOTWAY_SEEDS`?",
        ),
        (
            sources(&[("SLOTWAY_PUBSUB__HARDLIMIT", "1")], &[]),
            "environment: there is no key `SLOTWAY_PUBSUB__HARDLIMIT`; did you mean `SLOTWAY_PUBSUB__HARD_LIMIT`?",
        ),
        (
            sources(&[("SLOTWAY_ZZZ", "1")], &[]),
            "environment: there is no key `SLOTWAY_ZZZ`; `slotway check` prints all there are",
        ),
    ] {
        assert_eq!(complaint(&sources), text);
    }
}

#[test]
fn bad_values_name_the_source_the_key_what_is_wrong_and_an_example() {
    for (key, value, text) in [
        (
            "request_timeout",
            "3",
            "bad value for `--request-timeout`: `3` is no duration (the unit is missing): write it as 500ms",
        ),
        ("request_timeout", "soon", "`soon` is no duration: write it as 500ms, 3s or \"1m 30s\""),
        ("request_timeout", "2 years", "`2 years` is more than a year"),
        ("max_buffered", "lots", "`lots` is no size: write it as 64KiB, 8MiB or 1GiB"),
        ("pubsub.hard_limit", "x", "bad value for `--pubsub-hard-limit`: `x` is no size"),
        ("seeds", "a:1,7000", "bad value for `--seeds`: `7000` is no address: write host:port"),
        ("listen", "6380", "`6380` is no IP address and port: write it as 127.0.0.1:6380"),
        ("listen", "", "it is empty: write where clients connect"),
        ("admin", "nine", "127.0.0.1:6380, 0.0.0.0:6380 or [::]:6380, or `off`"),
        ("workers", "-1", "`-1` is no whole number, such as 16"),
        ("client_window", "0", "it must be at least 1"),
        ("reuse_port", "maybe", "`maybe` is neither true nor false"),
        ("reads", "slave", "`slave` is neither `primary`, `replica` nor `nearest`"),
        ("cross_slot", "splitt", "`splitt` is neither `split` nor `reject`"),
        ("log_format", "xml", "`xml` is neither `text` nor `json`"),
        ("max_clients", "0", "it must be at least 1"),
        ("max_buffered", "0", "it must be at least 1MiB"),
        ("max_buffered", "256", "it must be at least 1MiB"),
        ("log", "a=b=c", "`a=b=c` is no log filter"),
        ("log", "warning", "`warning` is no log filter"),
        ("log", "", "`` is no log filter"),
        ("node_zones", "172.18.0.2", "`172.18.0.2` is no node's zone: write node=zone, as in 10.0.1.0/24=a"),
        ("address_map", "172.18.0.2", "rule `172.18.0.2`: write from=to, as in 172.18.0.2:7000=127.0.0.1:7000"),
        ("address_map", "172.18.0.2=127.0.0.1:7000", "the right side must be a host alone"),
    ] {
        let said = complaint(&sources(&[], &[(key, value)]));
        assert!(said.contains(text), "{key}={value}: {said}");
    }
    let file = file("seeds = [\"a:1\", \"b\"]");
    let said = complaint(&Sources { file: Some(file.path().to_owned()), ..Sources::default() });
    assert!(
        said.starts_with(&format!("{}: bad value for `seeds`: `b` is no address", file.path().display())),
        "{said}"
    );
}

#[test]
fn a_file_that_is_missing_or_no_toml_is_named() {
    let missing = Sources { file: Some("/nowhere/slotway.toml".into()), ..Sources::default() };
    assert!(complaint(&missing).starts_with("cannot read the configuration file /nowhere/slotway.toml: No such file"));

    let file = file("workers = 1\npassword = hunter2\n");
    let said = complaint(&Sources { file: Some(file.path().to_owned()), ..Sources::default() });
    assert!(said.starts_with(&format!("{}, line 2: ", file.path().display())), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn secrets_come_from_files_and_are_never_shown() {
    let secret = file("hunter2\n");
    let path = secret.path().display().to_string();
    let from_file = sources(&[], &[("password_file", &path), ("client_password", "hunter2")]);
    let config = Config::load(&from_file).unwrap();
    assert!(config.password.as_ref().unwrap().is(b"hunter2") && !config.password.as_ref().unwrap().is(b"hunter2\0"));
    assert!(!config.password.as_ref().unwrap().is(b"hunter"));
    let printed = format!("{config:?} {} {:?}", config.password.as_ref().unwrap(), shown(&from_file).unwrap());
    assert!(!printed.contains("hunter2"), "{printed}");

    let both = sources(&[], &[("password_file", &path), ("password", "x")]);
    assert_eq!(complaint(&both), "both `password` and `password_file` are set; keep one of them");
    let missing = sources(&[], &[("client_password_file", "/nowhere")]);
    assert!(complaint(&missing).starts_with("`client_password_file`: cannot take the password from /nowhere: No such"));
    let empty = file("\n");
    let empty = sources(&[], &[("password_file", empty.path().to_str().unwrap())]);
    assert!(complaint(&empty).ends_with("it is empty"));
}

#[test]
fn addresses_that_meet_are_refused() {
    let meets = |listen: &str, admin: &str| {
        let flags = [("seeds", "a:1"), ("listen", listen), ("admin", admin)];
        let said = Config::load(&sources(&[], &flags)).unwrap().ready_to_serve();
        said.err().map(|error| error.to_string())
    };
    let text =
        |at: &str| Some(format!("two addresses of listeners and `admin` meet at {at}: each needs a port of its own"));
    assert_eq!(meets("127.0.0.1:7", "127.0.0.1:7"), text("127.0.0.1:7"));
    assert_eq!(meets("127.0.0.1:7,127.0.0.1:7", "off"), text("127.0.0.1:7"));
    assert_eq!(meets("0.0.0.0:7", "127.0.0.1:7"), text("127.0.0.1:7"));
    assert_eq!(meets("127.0.0.1:7", "[::]:7"), text("[::]:7"));
    for (listen, admin) in [
        ("127.0.0.1:7,127.0.0.2:7", "off"),
        ("127.0.0.1:7", "127.0.0.1:8"),
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("0.0.0.0:7,[::1]:7", "127.0.0.1:8"),
    ] {
        assert_eq!(meets(listen, admin), None, "{listen} {admin}");
    }
}

#[test]
fn listeners_of_a_file_are_read_and_bad_ones_named() {
    let of = |text: &str| {
        let file = file(text);
        Config::load(&Sources { file: Some(file.path().to_owned()), ..Sources::default() })
            .map_err(|error| error.to_string().replace(&file.path().display().to_string(), "FILE"))
    };
    let config = of("[[listeners]]\naddress = \":1\"\ndatabase = \"shop\"\n\
         [[listeners]]\naddress = \"unix:///run/s.sock\"\nusers = [\"worker\"]\n")
    .unwrap();
    let all = config.all_listeners();
    let shown: Vec<String> = all.iter().map(|listener| listener.address.to_string()).collect();
    assert_eq!(shown, ["0.0.0.0:1", "unix:///run/s.sock"], "`listen` is not given");
    assert_eq!((all[0].database.as_deref(), &*all[1].users), (Some("shop"), &["worker".to_owned()][..]));
    let both = of("listen = \":2\"\n[[listeners]]\naddress = \":1\"\n").unwrap();
    assert_eq!(both.addresses().count(), 2);
    assert_eq!(config.insecure_binds().len(), 1);
    for (text, error) in [
        ("[[listeners]]\ndatabase = \"shop\"\n", "FILE: bad value for `listeners`: `address` is missing"),
        ("[[listeners]]\naddress = \"6380\"\n", "FILE: bad value for `listeners.address`: `6380` is no IP address"),
        ("[[listeners]]\naddress = \":1\"\ndatabse = \"x\"\n", "there is no key `listeners.databse`; did you mean"),
        ("[[listeners]]\naddress = \":1\"\nusers = [\"\"]\n", "FILE: bad value for `listeners.users`: a name is empty"),
        ("[[listeners]]\naddress = \":1\"\ndatabase = \"my shop\"\n", "`my shop` is no name of a database"),
        (
            "databases = 16\ndatabase = \"shop\"\n[[listeners]]\naddress = \":1\"\ndatabase = \"shop/3\"\n",
            "the databases `shop` and `shop/3` would share their keys: `shop/3` is one of each",
        ),
    ] {
        let said = of(text).expect_err(text);
        assert!(said.contains(error), "{text}: {said}");
    }
    let twice =
        "seeds = \"a:1\"\n[[listeners]]\naddress = \"unix:///s\"\n[[listeners]]\naddress = \"unix:///s?mode=600\"\n";
    let twice = of(twice).unwrap().ready_to_serve().unwrap_err().to_string();
    assert_eq!(twice, "the unix socket /s is listened on twice: each listener needs a path of its own");
}

#[test]
fn open_ports_without_a_password_are_pointed_out() {
    let open = |more: &[(&str, &str)]| {
        let flags = [&[("listen", "127.0.0.1:1,0.0.0.0:2")][..], more].concat();
        Config::load(&sources(&[], &flags)).unwrap().insecure_binds()
    };
    assert_eq!(open(&[]), ["0.0.0.0:2".parse().unwrap()]);
    assert!(open(&[("client_password", "x")]).is_empty());
    assert!(open(&[("allow_insecure_bind", "true")]).is_empty());
    let protected = |more: &[(&str, &str)]| {
        let flags = [&[("listen", "127.0.0.1:1,0.0.0.0:2,unix:///s")][..], more].concat();
        let config = Config::load(&sources(&[], &flags)).unwrap();
        let is_protected = |listener| config.protects() && config.is_open(listener);
        config.all_listeners().iter().map(is_protected).collect::<Vec<_>>()
    };
    assert_eq!(protected(&[]), [false, true, false]);
    for meant in [("client_password", "x"), ("allow_insecure_bind", "true"), ("protected_mode", "no")] {
        assert_eq!(protected(&[meant]), [false; 3], "{meant:?}");
    }
}

#[test]
fn the_nodes_user_is_lent_out_beyond_loopback_only_where_that_is_meant() {
    let serves = |listen: &str, more: &[(&str, &str)]| {
        let flags = [&[("listen", listen), ("seeds", "a:1"), ("password", "x")][..], more].concat();
        Config::load(&sources(&[], &flags)).unwrap().ready_to_serve().map_err(|why| why.to_string())
    };
    for listen in ["127.0.0.1:2", "[::1]:2", "127.0.0.7:2,[::1]:2", "[::ffff:127.0.0.1]:2"] {
        assert_eq!(serves(listen, &[]), Ok(()), "{listen}");
    }
    for (listen, named) in [("0.0.0.0:2", "0.0.0.0:2"), ("127.0.0.1:2,[::]:3", "[::]:3"), ("10.1.2.3:2", "10.1.2.3:2")]
    {
        let refused = serves(listen, &[]).unwrap_err();
        assert!(refused.starts_with(&format!("whoever reaches {named} would work as the nodes' user `default`")));
        let as_user = serves(listen, &[("username", "app")]).unwrap_err();
        assert!(as_user.contains("user `app`"), "{as_user}");
        assert_eq!(serves(listen, &[("allow_insecure_bind", "true")]), Ok(()), "{listen}");
        assert_eq!(serves(listen, &[("client_password", "y")]), Ok(()), "{listen}");
        // Without a password for the nodes there is nothing to lend: it is warned of only.
        assert_eq!(serves(listen, &[("password", "")]), Ok(()), "{listen}");
    }
}

#[test]
fn the_documented_file_names_every_key_with_a_comment() {
    // Every field must be in the file, or the defaults would not load; here: that each stands under a comment of its own
    // or of its group.
    let mut documented = false;
    for line in DEFAULTS.lines() {
        match line {
            "" => documented = false,
            line if line.starts_with('#') => documented = !line.starts_with("# ---"),
            line if line.starts_with('[') => {}
            line => assert!(documented, "no comment above: {line}"),
        }
    }
}

#[test]
fn tls_to_clients_takes_files_and_a_certificate_of_theirs_is_as_good_as_a_password() {
    let of = |more: &[(&str, &str)]| {
        let flags = [&[("listen", "127.0.0.1:1,rediss://0.0.0.0:2"), ("seeds", "a:1")][..], more].concat();
        Config::load(&sources(&[], &flags)).unwrap()
    };
    let pair = [("tls_cert_file", "c"), ("tls_key_file", "k")];
    let with = |more: &[(&'static str, &'static str)]| of(&[&pair[..], more].concat());
    for (config, error) in [
        (of(&[]), "rediss://0.0.0.0:2 speaks TLS"),
        (of(&pair[..1]), "`tls_cert_file` and `tls_key_file`"),
        (with(&[("tls_auth_clients", "yes")]), "`tls_ca_cert_file` (PEM)"),
        (with(&[("tls_auth_clients", "optional")]), "`tls_ca_cert_file` (PEM)"),
    ] {
        let found = config.ready_to_serve().unwrap_err().to_string();
        assert!(found.contains(error), "{found}");
    }
    for (more, auth, open) in [
        (vec![], AuthClients::No, true),
        (vec![("tls_ca_cert_file", "ca")], AuthClients::Yes, false),
        (vec![("tls_ca_cert_file", "ca"), ("tls_auth_clients", "no")], AuthClients::No, true),
        (vec![("tls_ca_cert_file", "ca"), ("tls_auth_clients", "Optional")], AuthClients::Optional, true),
    ] {
        let config = with(&more);
        assert_eq!(config.ready_to_serve().map_err(|why| why.to_string()), Ok(()));
        assert_eq!(config.client_tls().unwrap().unwrap().auth, auth);
        assert_eq!(!config.insecure_binds().is_empty(), open, "{more:?}");
    }
    assert!(Config::defaults().client_tls().unwrap().is_none());
}

#[test]
fn tls_to_nodes_is_said_by_seeds_or_by_a_switch() {
    let of = |more: &[(&str, &str)]| Config::load(&sources(&[], more));
    let tls = |more: &[(&str, &str)]| of(more).unwrap().node_tls().unwrap();
    assert!(tls(&[("seeds", "a:1,redis://b:2")]).is_none());
    for more in
        [[("seeds", "a:1,rediss://b:2"), ("node_tls", "false")], [("seeds", "redis://a:1"), ("node_tls", "true")]]
    {
        assert!(tls(&more).is_some(), "{more:?}");
    }
    let config = of(&[("seeds", "rediss://[::1]:1,b:2"), ("node_tls_server_name", "10.0.0.1")]).unwrap();
    assert_eq!(*config.seeds, [Address::new("::1", 1), Address::new("b", 2)]);
    assert!(config.node_tls().unwrap().unwrap().name.is_some() && !config.speaks_unchecked_tls());
    for (more, why) in [
        (vec![("seeds", "rediss://a:1,redis://b:2")], "the nodes of one cluster speak the same"),
        (vec![("seeds", "rediss://:secret@a:1")], "`...@a:1` is no address"),
        (vec![("node_tls_server_name", "no name")], "`no name` is no host name or IP address"),
    ] {
        let error = of(&more).unwrap_err().to_string();
        assert!(error.contains(why) && !error.contains("secret"), "{error}");
    }
    let half = of(&[("seeds", "rediss://a:1"), ("node_tls_cert_file", "c")]).unwrap().ready_to_serve().unwrap_err();
    assert_eq!(half.to_string(), "`node_tls_key_file` is missing: a certificate and its key go together");
    assert!(of(&[("node_tls_insecure_skip_verify", "yes"), ("node_tls", "yes")]).unwrap().speaks_unchecked_tls());
}
