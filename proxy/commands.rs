//! What commands mean for a proxy in front of many nodes. Pure: a request, its row and the policy in, a plan out;
//! replies in, one reply out.

pub mod database;
pub mod merge;
pub mod plan;
pub mod rules;
pub mod scripts;
pub mod shown;
pub mod table;
