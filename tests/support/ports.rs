//! Free ports below the range from which the kernel takes ports for outgoing connections, so that a server can be
//! stopped and started again on its port without a client's connection having taken it meanwhile.

use std::{
    net::{TcpListener, UdpSocket},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

const FIRST: u32 = 12000;
const COUNT: u32 = 20000;

static NEXT: AtomicU32 = AtomicU32::new(0);
/// A port is reserved among test processes by whoever holds the UDP port of the same number.
static RESERVED: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());

/// A port on which nothing listens, given out once among all test processes that run.
pub fn free_port() -> u16 {
    // Test processes that run at the same time begin far from each other.
    let offset = std::process::id().wrapping_mul(7919);
    for _ in 0..COUNT {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = (FIRST + offset.wrapping_add(next) % COUNT) as u16;
        let Ok(reservation) = UdpSocket::bind(("127.0.0.1", port)) else { continue };
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            RESERVED.lock().unwrap_or_else(PoisonError::into_inner).push(reservation);
            return port;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT);
}
