//! What the system says about this process, read anew for each scrape.

use std::fmt::Write;

use super::{
    names::{self, Family},
    text,
};

/// Adds the process metrics; one that the system does not tell is left out.
pub(super) fn write(out: &mut String) {
    let process = metrics_process::collector::collect();
    let whole = |number: Option<u64>| number.map(|number| number as f64);
    let families: [(&Family, Option<f64>); 6] = [
        (&names::PROCESS_CPU, process.cpu_seconds_total),
        (&names::PROCESS_MEMORY, whole(process.resident_memory_bytes)),
        (&names::PROCESS_OPEN_FDS, whole(process.open_fds)),
        (&names::PROCESS_MAX_FDS, whole(process.max_fds)),
        (&names::PROCESS_START, whole(process.start_time_seconds)),
        (&names::PROCESS_THREADS, whole(process.threads)),
    ];
    for (family, value) in families {
        if let Some(value) = value {
            text::head(out, family);
            let _ = writeln!(out, "{} {value}\n", family.name);
        }
    }
}
