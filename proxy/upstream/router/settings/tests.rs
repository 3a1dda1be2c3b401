use std::fs;

use super::*;
use crate::{
    config::{LIVE, Sources},
    upstream::link::Timeouts,
};

/// Every key that may change while clients are served, with a value that is not the default. Keys without one are followed
/// outside of workers: by the dialer, the registry of clients, the users, the listeners, the log, or whoever looks at the
/// configuration itself.
const CHANGED: &[(&str, Option<&str>)] = &[
    ("allow", Some(r#"["shutdown"]"#)),
    ("allow_insecure_bind", None),
    ("client_idle_timeout", Some(r#""5s""#)),
    ("client_password", Some(r#""secret""#)),
    ("client_password_file", None),
    ("client_username", Some(r#""app""#)),
    ("client_window", Some("7")),
    ("connect_timeout", None),
    ("cross_slot", Some(r#""reject""#)),
    ("deny", Some(r#"["keys"]"#)),
    ("drain_delay", None),
    ("drain_timeout", None),
    ("listen", None),
    ("listeners", None),
    ("log", None),
    ("max_buffered", None),
    ("max_clients", None),
    ("max_redirects", Some("3")),
    ("max_replica_lag", Some(r#""5s""#)),
    ("node_timeout", Some(r#""7s""#)),
    ("node_zones", Some(r#"["10.0.0.0/8=a"]"#)),
    ("password", None),
    ("password_file", None),
    ("protected_mode", Some("false")),
    ("pubsub", Some(r#"{ soft_time = "1s" }"#)),
    ("read_your_writes", Some(r#""5s""#)),
    ("reads", Some(r#""replica""#)),
    ("request_timeout", Some(r#""7s""#)),
    ("retry_timeout", Some(r#""7s""#)),
    ("slow_request", Some(r#""7s""#)),
    ("strict_order", Some("true")),
    ("trusted_proxies", None),
    ("users", None),
    ("zone", Some(r#""a""#)),
];

/// The configuration of this text.
fn config(text: &str) -> Config {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("slotway.toml");
    // A listener that is open to all, unless the mode protects it; `client_username` wants a password.
    let rest = if text.starts_with("client_") { "client_password = \"secret\"\n" } else { "" };
    let rest = if text.starts_with("client_password") { "" } else { rest };
    fs::write(&file, format!("listen = \"0.0.0.0:1\"\n{rest}{text}\n")).unwrap();
    Config::load(&Sources { file: Some(file), ..Sources::default() }).unwrap()
}

/// What a worker copies from a configuration.
fn copied(settings: &Settings, timeouts: &Timeouts) -> String {
    settings.version.set(0);
    // Every value is in there.
    settings.shown.take();
    format!("{settings:?} {timeouts:?}")
}

#[test]
fn what_a_reload_says_has_changed_has_changed_in_workers() {
    let mut live = LIVE.to_vec();
    live.sort_unstable();
    assert_eq!(CHANGED.iter().map(|(key, _)| *key).collect::<Vec<_>>(), live, "each key that may change, once");
    for (key, value) in CHANGED {
        let Some(value) = value else { continue };
        let (before, after) = (config(""), config(&format!("{key} = {value}")));
        let (settings, timeouts) = (Settings::of(&before), Timeouts::of(&before));
        let was = copied(&settings, &timeouts);
        settings.adopt(&after);
        timeouts.adopt(&after);
        let is = copied(&settings, &timeouts);
        assert_ne!(was, is, "{key} is not followed");
        assert_eq!(is, copied(&Settings::of(&after), &Timeouts::of(&after)), "{key} is followed in part");
    }
}

#[test]
fn sessions_are_told_of_what_they_keep_a_copy_of() {
    for (key, value, is_told) in [
        ("strict_order", "true", true),
        ("reads", "\"replica\"", true),
        ("client_window", "7", true),
        ("deny", "[\"keys\"]", false),
    ] {
        let settings = Settings::of(&config(""));
        settings.adopt(&config(&format!("{key} = {value}")));
        assert_eq!(settings.version() != 0, is_told, "{key}");
    }
}
