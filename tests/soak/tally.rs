//! What the clients have met.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use crate::support::Reply;

/// Counts of all clients together.
#[derive(Default)]
pub struct Tally {
    pub requests: AtomicUsize,
    /// Replies that were errors.
    errors: AtomicUsize,
    /// The first errors, to show.
    examples: Mutex<Vec<String>>,
    /// Connections that ended under a client that stays.
    pub closed: AtomicUsize,
    pub pushed: AtomicUsize,
    pub popped: AtomicUsize,
    /// Pushes and pops of which nobody can tell whether they took place.
    pub unsure: AtomicUsize,
    pub troubles: AtomicUsize,
}

impl Tally {
    /// Counts a reply that was an error.
    pub fn failed(&self, request: &str, reply: &Reply) {
        self.errors.fetch_add(1, Relaxed);
        let mut examples = self.examples.lock().expect("no panic");
        if examples.len() < 10 {
            examples.push(format!("{request}: {}", String::from_utf8_lossy(&reply.0).trim_end()));
        }
    }

    /// Elements that were pushed and not popped.
    pub fn lost_elements(&self) -> usize {
        self.pushed.load(Relaxed).saturating_sub(self.popped.load(Relaxed))
    }

    /// The result, in words.
    pub fn print(&self, seconds: u64, left: usize) {
        let of = |count: &AtomicUsize| count.load(Relaxed);
        println!(
            "{seconds} s: {} requests, {} errors, {} troubles, {} connections closed by who gave up his place; \
             {} pushed, {} popped, {left} left, {} unsure",
            of(&self.requests),
            of(&self.errors),
            of(&self.troubles),
            of(&self.closed),
            of(&self.pushed),
            of(&self.popped),
            of(&self.unsure),
        );
        for example in self.examples.lock().expect("no panic").iter() {
            println!("  {example}");
        }
    }
}
