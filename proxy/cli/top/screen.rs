//! How it looks in a terminal: a function of what is known and what is looked at.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Clear, Paragraph, Wrap},
};

use super::{
    app::App,
    status::Status,
    table::{Sort, Table, Tone, View, age, fitted, letter, summary},
};

/// The most lines that the sentence takes.
const SENTENCE: usize = 3;

const HELP: &str = "\
 1-8, Tab   another view: nodes, slots, clients, hot keys, slow requests,
            large requests and replies, events, databases of their own
 < >        sort by another column      r  the other way round
 up, down   scroll (PageUp, PageDown, Home)
 space      stand still, and go on      ?  this help
 q, Ctrl-C  quit

 The bar shows all slots from left to right, each node by its letter: ! is
 where slots answer errors, > where they are being moved. LOST, SLOW and
 MOVING say what colours say. Latency is what clients wait for, in ms.";

/// Draws all of it.
pub fn draw(frame: &mut Frame, app: &App) {
    let area = frame.area();
    let sentence = sentence(app);
    let height = (sentence.chars().count().div_ceil(usize::from(area.width.max(1)))).clamp(1, SENTENCE);
    let [head, said, rates, bar, tabs, table, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(height as u16),
        Constraint::Length(2),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(Line::styled(title(app, area.width), app.style(Tone::Plain, Modifier::REVERSED)), head);
    let style = match (&app.trouble, &app.status) {
        (Some(_), _) => app.style(Tone::Bad, Modifier::BOLD),
        (None, Some(status)) => app.style(tone_of(status), Modifier::BOLD),
        (None, None) => Style::new(),
    };
    frame.render_widget(Paragraph::new(sentence).style(style).wrap(Wrap { trim: true }), said);
    if let Some(status) = &app.status {
        let [one, two] = summary(status);
        frame.render_widget(Paragraph::new(vec![Line::raw(one), Line::raw(two)]), rates);
        frame.render_widget(slot_bar(app, status, usize::from(bar.width)), bar);
        frame.render_widget(view_line(app), tabs);
        draw_table(frame, app, status, table);
    }
    frame.render_widget(
        Line::styled(" q quit  1-8 view  <> sort  r reverse  arrows scroll  space pause  ? help", app.quiet()),
        foot,
    );
    if app.helps {
        help(frame, area);
    }
}

impl App {
    /// How this tone looks: without colours it is the words that tell.
    fn style(&self, tone: Tone, modifier: Modifier) -> Style {
        let style = Style::new().add_modifier(modifier);
        match tone {
            _ if !self.colours => style,
            Tone::Plain => style,
            Tone::Good => style.fg(Color::Green),
            Tone::Warn => style.fg(Color::Yellow),
            Tone::Bad => style.fg(Color::Red),
        }
    }

    fn quiet(&self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }
}

fn tone_of(status: &Status) -> Tone {
    match status.state.as_str() {
        "ok" => Tone::Plain,
        "warn" | "part" => Tone::Warn,
        _ => Tone::Bad,
    }
}

/// What is to be known first.
fn sentence(app: &App) -> String {
    match (&app.trouble, &app.status) {
        (Some((why, since)), known) => {
            let for_long = age(since.elapsed().as_secs());
            let below = if known.is_some() { " What stands below is of before." } else { "" };
            format!("NO ANSWER from {} for {for_long}: {why}. Asking again every second.{below}", app.at)
        }
        (None, Some(status)) => status.sentence.clone(),
        (None, None) => format!("asking {} ...", app.at),
    }
}

fn title(app: &App, width: u16) -> String {
    let left = match &app.status {
        Some(status) => format!(" slotway {}  {}  up {}", status.version, app.at, age(status.uptime_seconds)),
        None => format!(" slotway top  {}", app.at),
    };
    let right = if app.paused { "PAUSED " } else { "" };
    let room = usize::from(width).saturating_sub(right.len());
    fitted(&left, room, false) + right
}

/// All slots, left to right: whose they are, what is lost and what moves.
fn slot_bar<'a>(app: &App, status: &Status, width: usize) -> Line<'a> {
    let slots = status.slots.max(1);
    let cell = |at: usize| {
        let (first, last) = (at * slots / width, ((at + 1) * slots / width).max(at * slots / width + 1) - 1);
        let mut owners = status.slot_map.iter().filter(|(from, to, _)| *from <= last && *to >= first);
        let worst = owners.clone().find(|(.., owner)| owner_of(status, *owner).is_none_or(|(_, up)| !up));
        let moves = status.moving.iter().any(|(slot, ..)| (first..=last).contains(slot));
        match (worst, owners.next_back().and_then(|(.., owner)| owner_of(status, *owner))) {
            (Some(_), _) | (_, None) => ('!', app.style(Tone::Bad, Modifier::REVERSED)),
            _ if moves => ('>', app.style(Tone::Warn, Modifier::REVERSED)),
            (None, Some((index, _))) => (letter(index), app.node_style(index)),
        }
    };
    let cells = (0..width).map(cell);
    Line::from(cells.map(|(shown, style)| Span::styled(shown.to_string(), style)).collect::<Vec<_>>())
}

fn owner_of(status: &Status, owner: i64) -> Option<(usize, bool)> {
    let index = usize::try_from(owner).ok()?;
    status.nodes.get(index).map(|node| (index, node.up))
}

impl App {
    fn node_style(&self, index: usize) -> Style {
        const COLOURS: [Color; 6] =
            [Color::Cyan, Color::Blue, Color::Magenta, Color::LightCyan, Color::LightBlue, Color::LightMagenta];
        if self.colours { Style::new().fg(COLOURS[index % COLOURS.len()]) } else { Style::new() }
    }
}

fn view_line<'a>(app: &App) -> Line<'a> {
    let tabs = View::ALL.iter().enumerate().flat_map(|(index, view)| {
        let style = if *view == app.view {
            Style::new().add_modifier(Modifier::REVERSED | Modifier::BOLD)
        } else {
            Style::new()
        };
        let marked = if *view == app.view { ('[', ']') } else { (' ', ' ') };
        [Span::styled(format!("{}{} {}{}", marked.0, index + 1, view.title(), marked.1), style)]
    });
    Line::from(tabs.collect::<Vec<_>>())
}

fn draw_table(frame: &mut Frame, app: &App, status: &Status, area: Rect) {
    let table = Table::of(status, app.view, app.sort());
    let widths = table.widths(usize::from(area.width));
    let mut lines = vec![heads(app, &table, &widths)];
    if table.rows.is_empty() {
        lines.push(Line::raw(app.view.nothing()));
    }
    let shown = usize::from(area.height).saturating_sub(1);
    let first = app.scrolled.min(table.rows.len().saturating_sub(shown));
    // Events are sentences: they are read to their end.
    if app.view == View::Events {
        let rest = usize::from(area.width).saturating_sub(17).max(10);
        for row in table.rows.iter().skip(first) {
            let style = app.style(row[1].tone, Modifier::empty());
            for (at, part) in wrapped(&row[2].text, rest).into_iter().enumerate() {
                let (time, level) = if at == 0 { (row[0].text.as_str(), row[1].text.as_str()) } else { ("", "") };
                lines.push(Line::styled(format!("{time:8} {level:7} {part}"), style));
            }
        }
    } else {
        lines.extend(table.rows.iter().skip(first).map(|row| {
            let cells = row.iter().zip(&table.columns).zip(&widths).enumerate();
            let spans = cells.flat_map(|(index, ((cell, column), width))| {
                let gap = if index > 0 { " " } else { "" };
                let style = app.style(cell.tone, Modifier::empty());
                [Span::raw(gap), Span::styled(fitted(&cell.text, *width, column.right), style)]
            });
            Line::from(spans.collect::<Vec<_>>())
        }));
    }
    lines.truncate(usize::from(area.height));
    let style = if app.trouble.is_some() { app.quiet() } else { Style::new() };
    frame.render_widget(Paragraph::new(lines).style(style), area);
}

/// The titles of columns, with a mark at the one that is sorted by.
fn heads<'a>(app: &App, table: &Table, widths: &[usize]) -> Line<'a> {
    let Sort { column: sorted, reversed } = app.sort();
    let cells = table.columns.iter().zip(widths).enumerate();
    let spans = cells.flat_map(|(index, (column, width))| {
        let gap = if index > 0 { " " } else { "" };
        let style = Style::new().add_modifier(Modifier::UNDERLINED);
        let style = if sorted == Some(index) { style.add_modifier(Modifier::BOLD | Modifier::REVERSED) } else { style };
        [Span::raw(gap), Span::styled(fitted(column.title, *width, column.right), style)]
    });
    let mark = match (sorted, reversed) {
        (Some(_), true) => Span::raw(" (reversed)"),
        _ => Span::raw(""),
    };
    Line::from(spans.chain([mark]).collect::<Vec<_>>())
}

/// A text in lines of at most this width, between words where it can be.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    // A terminal that does not know its size yet says that it has none.
    let width = width.max(1);
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        loop {
            let last = lines.last_mut().expect("there is one");
            let gap = usize::from(!last.is_empty());
            if last.chars().count() + gap + word.len() <= width {
                last.extend(std::iter::repeat_n(' ', gap).chain(word));
                break;
            }
            if word.len() <= width {
                lines.push(String::new());
                continue;
            }
            let part: String = word.drain(..width).collect();
            lines.push(part);
        }
    }
    lines.retain(|line| !line.is_empty());
    lines
}

fn help(frame: &mut Frame, area: Rect) {
    let lines: Vec<Line> = HELP.lines().map(Line::raw).collect();
    let (width, height) = (area.width.min(78), area.height.min(lines.len() as u16 + 2));
    let at = Rect { x: (area.width - width) / 2, y: (area.height - height) / 2, width, height };
    frame.render_widget(Clear, at);
    frame.render_widget(Paragraph::new(lines).block(ratatui::widgets::Block::bordered().title(" Keys ")), at);
}

#[cfg(test)]
mod tests;
