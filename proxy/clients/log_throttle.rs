//! Lines of the log that many clients bring about: each kind is told once a minute at most.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::Client;

/// How often.
const EVERY: Duration = Duration::from_secs(60);

/// How many of the bytes that are no request are told.
const MOST_SHOWN: usize = 64;

/// What clients and the proxy do not come to speak for.
#[derive(Debug, Default)]
pub struct Complaints {
    /// Plain text came where TLS is spoken.
    pub plain_text: LogThrottle,
    /// TLS came where plain text is spoken.
    pub tls: LogThrottle,
    /// A certificate did not count, on either side.
    pub certificate: LogThrottle,
    /// What should have come ahead of a client's bytes did not.
    pub proxy_header: LogThrottle,
    /// A client came from elsewhere to a port that is open to everyone.
    pub protected: LogThrottle,
    /// What is no request.
    pub protocol: LogThrottle,
    /// Anything else.
    pub otherwise: LogThrottle,
}

impl Complaints {
    /// A client is refused by `protected_mode`.
    pub fn of_protected(&self, client: &Client) {
        if self.protected.may_be_told() {
            let (peer, local) = (client.peer(), client.local());
            tracing::warn!(
                "client {peer} is refused: {local} is open to everyone and serves this machine alone (protected_mode): give clients a \
                 password, or say allow_insecure_bind where the network is closed"
            );
        }
    }

    /// A client has sent what is no request: `wrong` with it, at `bytes`, which are told where keys are.
    pub fn of_protocol(&self, client: &Client, wrong: &[u8], bytes: Option<&[u8]>) {
        if self.protocol.may_be_told() {
            let (peer, wrong) = (client.peer(), wrong.escape_ascii().to_string().replace("\\'", "'"));
            match bytes {
                Some(bytes) => tracing::info!(
                    "client {peer} is closed, since it sent what is no request ({wrong}): \"{}\"{}",
                    bytes[..bytes.len().min(MOST_SHOWN)].escape_ascii(),
                    if bytes.len() > MOST_SHOWN { " ..." } else { "" }
                ),
                None => tracing::info!("client {peer} is closed, since it sent what is no request ({wrong})"),
            }
        }
    }

    /// A client speaks TLS where that is not spoken.
    pub fn of_tls(&self, client: &Client) {
        if self.tls.may_be_told() {
            let (peer, local) = (client.peer(), client.local());
            tracing::warn!(
                "client {peer} speaks TLS to {local}, which speaks plain text: have it connect to a rediss:// port of `listen`, or \
                 without TLS (redis://)"
            );
        }
    }
}

/// When something was told last.
#[derive(Debug, Default)]
pub struct LogThrottle(Mutex<Option<Instant>>);

impl LogThrottle {
    /// Whether to tell it; then it has been told.
    pub fn may_be_told(&self) -> bool {
        self.may_be_told_at(Instant::now())
    }

    fn may_be_told_at(&self, now: Instant) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let may = last.is_none_or(|last| now.saturating_duration_since(last) >= EVERY);
        if may {
            *last = Some(now);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_a_minute_is_enough() {
        let (throttle, start) = (LogThrottle::default(), Instant::now());
        let told =
            [0, 1, 59, 60, 61, 119, 121].map(|seconds| throttle.may_be_told_at(start + Duration::from_secs(seconds)));
        assert_eq!(told, [true, false, false, true, false, false, true]);
    }
}
