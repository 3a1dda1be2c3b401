#![no_main]

#[allow(dead_code, reason = "each target needs one of the bodies")]
#[path = "../bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::replies(data));
