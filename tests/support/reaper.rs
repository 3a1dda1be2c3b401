//! One small shell per test process that outlives it by a moment: it ends every server still running and removes the
//! temporary folder, however the test process ended (a panic, Ctrl-C, a kill).

use std::{
    fs,
    io::Write,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{ChildStdin, Command, Stdio},
    sync::{
        LazyLock, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

const SCRIPT: &str = r#"
pids=
while read -r line; do
    case $line in
        +*) pids="$pids ${line#+}" ;;
        -*) kept=; for pid in $pids; do [ "$pid" = "${line#-}" ] || kept="$kept $pid"; done; pids=$kept ;;
    esac
done
[ -z "$pids" ] || kill -9 $pids 2>/dev/null
rm -rf "$1"
"#;

struct Reaper {
    folder: PathBuf,
    orders: Mutex<ChildStdin>,
}

static REAPER: LazyLock<Reaper> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("slotway-tests-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a temporary folder");
    // A process group of its own: Ctrl-C must not reach it before it has done its work. It outlives this process, so
    // that nobody here can wait for it.
    #[allow(clippy::zombie_processes)]
    let mut shell = Command::new("sh")
        .args(["-c", SCRIPT, "reaper"])
        .arg(&folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("sh");
    let orders = Mutex::new(shell.stdin.take().expect("its input"));
    Reaper { folder, orders }
});

/// The process `pid` is to be ended with the test process.
pub fn watch(pid: u32) {
    order(&format!("+{pid}\n"));
}

/// The process `pid` has ended and been waited for.
pub fn forget(pid: u32) {
    order(&format!("-{pid}\n"));
}

/// A new folder, removed when the test process ends.
pub fn folder(name: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let folder = root().join(format!("{}-{name}", NEXT.fetch_add(1, Ordering::Relaxed)));
    fs::create_dir_all(&folder).expect("a temporary folder");
    folder
}

fn root() -> &'static Path {
    &REAPER.folder
}

fn order(line: &str) {
    let mut orders = REAPER.orders.lock().unwrap_or_else(PoisonError::into_inner);
    orders.write_all(line.as_bytes()).expect("the reaper takes orders");
}
