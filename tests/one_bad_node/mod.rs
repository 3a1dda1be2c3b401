//! Promise 6: one bad node costs its own slots only, and nobody waits for ever.

pub mod busy;
pub mod deadlines;
pub mod half_open;
pub mod lost_node;
pub mod turned_away;
