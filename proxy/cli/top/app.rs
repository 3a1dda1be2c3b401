//! What is looked at, and what keys change of it: no terminal is needed for that.

use std::time::Instant;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::{
    source::News,
    status::Status,
    table::{Sort, Table, View},
};

/// How far PageUp and PageDown go.
const PAGE: usize = 10;

/// What the screen shows.
#[derive(Default)]
pub struct App {
    /// Whom it is about.
    pub at: String,
    pub colours: bool,
    /// The last that was told.
    pub status: Option<Status>,
    /// Why nothing is told now, and since when.
    pub trouble: Option<(String, Instant)>,
    pub view: View,
    /// How each view is sorted.
    sorts: [Sort; View::ALL.len()],
    pub scrolled: usize,
    pub paused: bool,
    pub helps: bool,
}

impl App {
    pub fn new(at: String, view: View, colours: bool) -> App {
        App { at, view, colours, ..App::default() }
    }

    fn place(&self) -> usize {
        View::ALL.iter().position(|view| *view == self.view).unwrap_or(0)
    }

    pub fn sort(&self) -> Sort {
        self.sorts[self.place()]
    }

    /// Takes what is told. Whether the program goes on.
    pub fn hear(&mut self, news: News) -> bool {
        match news {
            News::End => return false,
            News::Status(status) => {
                self.trouble = None;
                if !self.paused || self.status.is_none() {
                    self.status = Some(*status);
                }
            }
            News::Trouble(why) => {
                let since = self.trouble.take().map_or_else(Instant::now, |(_, since)| since);
                self.trouble = Some((why, since));
            }
        }
        true
    }

    /// Does what a key says. Whether the program goes on.
    pub fn press(&mut self, key: KeyEvent) -> bool {
        if key.kind == KeyEventKind::Release {
            return true;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return !matches!(key.code, KeyCode::Char('c' | 'd'));
        }
        match key.code {
            KeyCode::Esc if self.helps => self.helps = false,
            KeyCode::Char('q' | 'Q') => return false,
            KeyCode::Char('?' | 'h') => self.helps = !self.helps,
            KeyCode::Char(' ') => self.paused = !self.paused,
            KeyCode::Char(digit @ '1'..='8') => self.look(digit as usize - '1' as usize),
            KeyCode::Tab | KeyCode::Right => self.look((self.place() + 1) % View::ALL.len()),
            KeyCode::BackTab | KeyCode::Left => self.look((self.place() + View::ALL.len() - 1) % View::ALL.len()),
            KeyCode::Char('>' | '.' | 's') => self.sort_by_next(1),
            KeyCode::Char('<' | ',') => self.sort_by_next(-1),
            KeyCode::Char('r') => {
                let place = self.place();
                self.sorts[place].reversed = !self.sorts[place].reversed;
            }
            KeyCode::Down | KeyCode::Char('j') => self.scroll(1),
            KeyCode::Up | KeyCode::Char('k') => self.scrolled = self.scrolled.saturating_sub(1),
            KeyCode::PageDown => self.scroll(PAGE),
            KeyCode::PageUp => self.scrolled = self.scrolled.saturating_sub(PAGE),
            KeyCode::Home => self.scrolled = 0,
            _ => {}
        }
        true
    }

    fn look(&mut self, index: usize) {
        self.view = View::ALL[index];
        self.scrolled = 0;
    }

    fn rows(&self) -> (usize, usize) {
        let Some(status) = &self.status else { return (0, 0) };
        let table = Table::of(status, self.view, Sort::default());
        (table.columns.len(), table.rows.len())
    }

    fn scroll(&mut self, by: usize) {
        self.scrolled = (self.scrolled + by).min(self.rows().1.saturating_sub(1));
    }

    /// The next column, or the one before; ahead of the first is the order in which it comes.
    fn sort_by_next(&mut self, by: i64) {
        let (columns, place) = (self.rows().0 as i64, self.place());
        let now = self.sorts[place].column.map_or(-1, |column| column as i64);
        let next = (now + 1 + by).rem_euclid(columns + 1) - 1;
        self.sorts[place].column = usize::try_from(next).ok();
    }
}
