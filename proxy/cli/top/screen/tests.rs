//! The screen over a status, in a terminal that only keeps what is drawn.

use std::time::Instant;

use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
    style::Color,
};

use super::{
    super::{source::News, table},
    *,
};

const TOLD: &str = include_str!("../../../../tests/seen/top/status.json");

fn status() -> Status {
    Status::parse(TOLD).expect("a status")
}

fn app(view: View) -> App {
    let mut app = App::new("127.0.0.1:9380".to_owned(), view, false);
    app.hear(News::Status(Box::new(status())));
    app
}

fn drawn(app: &App, width: u16, height: u16) -> (String, Vec<Color>) {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
    terminal.draw(|frame| draw(frame, app)).expect("drawn");
    let buffer = terminal.backend().buffer();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    let text: Vec<String> = (0..height).map(line).collect();
    (text.join("\n"), buffer.content().iter().map(|cell| cell.fg).collect())
}

fn seen(app: &App) -> String {
    drawn(app, 80, 24).0
}

fn press(app: &mut App, code: KeyCode) -> bool {
    app.press(KeyEvent::new(code, KeyModifiers::NONE))
}

#[test]
fn a_lost_node_is_seen_in_80_columns_and_without_colour() {
    let (text, colours) = drawn(&app(View::Nodes), 80, 24);
    for told in [
        "127.0.0.1:7002 does not answer since 14:02:11 UTC; slots 10923-16383 answer errors.",
        "LOST 2m05s",
        "SLOW",
        "1,500 requests/s  p50 0.3 ms  p99 2.1 ms  errors/s 12  slots 10,923 of 16,384",
        "clients 12 (2 blocked)  absorbed: 3 redirects, 4 retries; given up 5",
        "[1 Nodes]",
        "q quit",
    ] {
        assert!(text.replace('\n', " ").contains(told), "{told}\n{text}");
    }
    let bar = text.lines().find(|line| line.starts_with("aaaa")).expect("the bar of slots");
    assert!(bar.ends_with("!!!!") && bar.contains('b') && bar.len() == 80, "{bar}");
    assert!(colours.iter().all(|colour| *colour == Color::Reset), "no colour is used");
}

#[test]
fn each_view_has_its_table() {
    for (view, told) in [
        (View::Nodes, &["node", "req/s", "p99 ms", "127.0.0.1:7000"][..]),
        (View::Slots, &["0-5460", "ERRORS: owner lost", "MOVING to 127.0.0.1:7001"]),
        (View::Clients, &["worker", "10.0.0.9:5555", "get"]),
        (View::Keys, &["user:7", "50", "incr"]),
        (View::Slow, &["13", "300", "KEYS *"]),
        (View::Large, &["reply", "1.0M", "lrange"]),
        (View::Events, &["warning", "node 127.0.0.1:7002 cannot be reached"]),
        (View::Databases, &["shop", "1,234"]),
    ] {
        let text = seen(&app(view));
        for told in told {
            assert!(text.contains(told), "{view:?}: {told}\n{text}");
        }
        let mut nobody = app(view);
        nobody.status = Some(Status::default());
        assert!(seen(&nobody).contains(view.nothing()), "{view:?}");
    }
}

#[test]
fn any_size_is_drawn_and_any_name_is_text() {
    let mut app = app(View::Nodes);
    let status = app.status.as_mut().expect("there");
    status.nodes[0].node = "\u{1b}[2J\n".repeat(40);
    for view in View::ALL {
        app.view = view;
        for (width, height) in [(1, 1), (7, 3), (40, 10), (80, 24), (300, 100)] {
            let (text, _) = drawn(&app, width, height);
            assert!(!text.contains('\u{1b}'), "{view:?}");
        }
    }
    app.helps = true;
    assert!(seen(&app).contains("another view"));
    drawn(&app, 3, 2);
}

#[test]
fn colours_are_there_where_they_are_wanted() {
    let mut app = app(View::Nodes);
    app.colours = true;
    let (_, colours) = drawn(&app, 80, 24);
    for colour in [Color::Red, Color::Yellow, Color::Green] {
        assert!(colours.contains(&colour), "{colour:?}");
    }
}

#[test]
fn keys_change_view_order_and_place() {
    let mut app = app(View::Nodes);
    assert!(press(&mut app, KeyCode::Char('5')));
    assert_eq!(app.view, View::Slow);
    press(&mut app, KeyCode::BackTab);
    assert_eq!(app.view, View::Keys);
    app.view = View::Nodes;
    let order = |app: &App| -> Vec<String> {
        let table = Table::of(app.status.as_ref().expect("there"), View::Nodes, app.sort());
        table.rows.iter().map(|row| row[0].text.clone()).collect()
    };
    assert_eq!(order(&app), ["a", "b", "c"]);
    // The sixth column is requests a second, the largest first.
    (0..6).for_each(|_| assert!(press(&mut app, KeyCode::Char('>'))));
    assert_eq!(order(&app), ["b", "a", "c"]);
    press(&mut app, KeyCode::Char('r'));
    assert_eq!(order(&app), ["c", "a", "b"]);
    press(&mut app, KeyCode::Down);
    assert_eq!(app.scrolled, 1);
    (0..9).for_each(|_| assert!(press(&mut app, KeyCode::PageDown)));
    assert_eq!(app.scrolled, 2, "not past the last");
    assert!(!press(&mut app, KeyCode::Char('q')));
    assert!(!app.press(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)));
    assert!(app.press(KeyEvent::new(KeyCode::Char('z'), KeyModifiers::CONTROL)));
}

#[test]
fn a_proxy_that_is_silent_is_said_and_what_was_known_stays() {
    let mut app = app(View::Nodes);
    app.hear(News::Trouble("connection refused".to_owned()));
    let text = seen(&app).replace('\n', " ");
    assert!(text.contains("NO ANSWER from 127.0.0.1:9380 for 0s: connection refused"), "{text}");
    assert!(text.contains("127.0.0.1:7000"), "{text}");
    let since: Instant = app.trouble.as_ref().expect("trouble").1;
    app.hear(News::Trouble("again".to_owned()));
    assert_eq!(app.trouble.as_ref().expect("trouble").1, since, "since the first");
    app.hear(News::Status(Box::new(status())));
    assert!(app.trouble.is_none());
    let nothing = App::new("127.0.0.1:1".to_owned(), View::Nodes, true);
    assert!(seen(&nothing).contains("asking 127.0.0.1:1 ..."));
}

#[test]
fn while_it_stands_still_nothing_changes() {
    let mut app = app(View::Nodes);
    press(&mut app, KeyCode::Char(' '));
    app.hear(News::Status(Box::default()));
    let text = seen(&app);
    assert!(text.contains("PAUSED") && text.contains("127.0.0.1:7000"), "{text}");
}

#[test]
fn once_prints_all_columns_uncut() {
    let text = table::plain(&status(), View::Nodes, Sort::default());
    for told in ["replica of", "LOST 2m05s", "connection refused", "Redis 7.0.15", "10,923 of 16,384"] {
        assert!(text.contains(told), "{told}\n{text}");
    }
    assert!(!text.contains('~') && !text.contains('\u{1b}'), "{text}");
    let rows = |text: &str| text.lines().filter(|line| line.contains("127.0.0.1:70")).count();
    assert_eq!(rows(&table::plain(&status(), View::Nodes, Sort::default())), 4, "three nodes and the sentence\n{text}");
}

#[test]
fn long_texts_go_on_in_the_next_line() {
    assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
    assert_eq!(wrapped("abcdefghij k", 4), ["abcd", "efgh", "ij k"]);
}
