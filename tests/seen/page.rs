//! The status page in a real browser, and what can be said of it without one.

use std::{fs, path::Path, process::Command};

use crate::support::{Cluster, Proxy, Settings, eventually};

fn style() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("proxy/process/admin/page/style.css"))
        .expect("the style")
}

/// The relative luminance of a colour (WCAG 2.2).
fn luminance(colour: &str) -> f64 {
    let part = |at: usize| {
        let value = f64::from(u8::from_str_radix(&colour[at..at + 2], 16).expect("a colour")) / 255.0;
        if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
    };
    0.2126 * part(1) + 0.7152 * part(3) + 0.0722 * part(5)
}

fn contrast(one: &str, other: &str) -> f64 {
    let (one, other) = (luminance(one), luminance(other));
    (one.max(other) + 0.05) / (one.min(other) + 0.05)
}

/// 4.5 to 1 is what WCAG AA asks of text.
#[test]
fn every_text_is_readable_on_every_ground_by_day_and_by_night() {
    let style = style();
    let colour = |name: &str, at: usize| -> String {
        let line =
            style.lines().find_map(|line| line.trim().strip_prefix(&format!("--{name}: light-dark("))).expect(name);
        line.trim_end_matches(");").split(", ").nth(at).expect("two colours").to_owned()
    };
    for (at, theme) in ["light", "dark"].into_iter().enumerate() {
        let pairs = [
            ("text", &["page", "card", "sunk", "good-tint", "warn-tint", "bad-tint"][..]),
            ("soft", &["page", "card", "sunk", "warn-tint", "bad-tint"]),
            ("good", &["card", "good-tint"]),
            ("warn", &["card", "warn-tint"]),
            ("bad", &["card", "bad-tint"]),
            ("card", &["bad", "warn"]),
            ("accent", &["page", "card"]),
        ];
        for (text, grounds) in pairs {
            for ground in grounds {
                let ratio = contrast(&colour(text, at), &colour(ground, at));
                assert!(ratio >= 4.5, "{text} on {ground} ({theme}): {ratio:.2}");
            }
        }
    }
}

#[test]
fn the_page_asks_nobody_else_for_anything() {
    let cluster = Cluster::three();
    let proxy = Proxy::before(&cluster);
    let (status, page) = proxy.page("/");
    assert_eq!(status, 200);
    for outside in ["https://", "//cdn", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    let addresses: Vec<&str> =
        page.split("http://").skip(1).map(|rest| rest.split('"').next().unwrap_or_default()).collect();
    assert_eq!(addresses, ["www.w3.org/2000/svg"], "a name, which is never fetched");
}

/// What the page looks like to a browser that has run its script, where the browser can be had.
fn seen_by_a_browser(proxy: &Proxy, views: &str) -> Option<String> {
    const SCRIPT: &str = include_str!("page/look.py");
    let python = std::env::var_os("SLOTWAY_TEST_PYTHON").unwrap_or_else(|| "python3".into());
    let output = Command::new(python).args(["-c", SCRIPT, &proxy.admin.to_string(), views]).output().expect("python");
    match output.status.code() {
        Some(0) => Some(String::from_utf8_lossy(&output.stdout).into_owned()),
        Some(77) => {
            eprintln!("SKIPPED in a browser: {}", String::from_utf8_lossy(&output.stderr).trim());
            None
        }
        _ => panic!("{}", String::from_utf8_lossy(&output.stderr)),
    }
}

#[test]
fn a_browser_shows_what_is_lost_and_when_it_is_well_again() {
    let mut cluster = Cluster::three();
    let settings = Settings::new(cluster.seeds()).with("REFRESH_INTERVAL", "1s").expecting_warnings();
    let proxy = Proxy::start(settings);
    let Some(text) = seen_by_a_browser(&proxy, "phone") else { return };
    assert!(text.contains("All 16,384 slots are served by 3 primaries") && text.contains("errors: []"), "{text}");
    let label = cluster.node(2).address();
    cluster.nodes[2].kill();
    eventually("it to be noticed", || proxy.metric("slotway_slots_reachable", &[]) == 10923.0);
    let text = seen_by_a_browser(&proxy, "everywhere").expect("the browser");
    assert!(text.contains(&format!("{label} does not answer since ")) && text.contains("does not answer\n"), "{text}");
    cluster.nodes[2].restart();
    eventually("it to be back", || proxy.metric("slotway_slots_reachable", &[]) == 16384.0);
    let text = seen_by_a_browser(&proxy, "phone").expect("the browser");
    assert!(text.contains("All 16,384 slots") && text.contains(" is back after "), "{text}");
}
