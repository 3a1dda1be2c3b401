//! Which commit the program is built from, for `--version`, PROXY INFO and `slotway_build_info`.
//!
//! `SLOTWAY_REVISION` says so where there is no repository (the image); else git does; else it is `unknown`. A build of the same
//! commit says the same wherever and whenever it is made: the date is the commit's.

use std::{path::Path, process::Command};

/// What the program is built from, beside this file.
const SOURCES: [&str; 4] = ["proxy", "config", "Cargo.toml", "Cargo.lock"];

fn main() {
    println!("cargo::rerun-if-env-changed=SLOTWAY_REVISION");
    let given = std::env::var("SLOTWAY_REVISION").ok().filter(|revision| !revision.is_empty());
    // A debug build does not ask git: it would be built again after each commit.
    let is_release = std::env::var("PROFILE").as_deref() == Ok("release");
    let (revision, date) = match given {
        Some(revision) => (Some(revision), None),
        None if is_release => revision().unzip(),
        None => (None, None),
    };
    let version = std::env::var("CARGO_PKG_VERSION").expect("cargo says it");
    let long = match (&revision, date) {
        (Some(revision), Some(date)) => format!("{version} ({revision} {date})"),
        (Some(revision), None) => format!("{version} ({revision})"),
        (None, _) if is_release => version,
        (None, _) => format!("{version} (debug build)"),
    };
    println!("cargo::rustc-env=SLOTWAY_REVISION={}", revision.as_deref().unwrap_or("unknown"));
    println!("cargo::rustc-env=SLOTWAY_LONG_VERSION={long}");
    if !is_release {
        println!("cargo::rerun-if-changed=proxy/build.rs");
    }
}

/// The commit, with `-dirty` behind it where the sources are otherwise, and its day; `None` without git or where the tree is no repository of
/// its own, such as an unpacked tarball inside another one.
fn revision() -> Option<(String, String)> {
    let root = Path::new(&git(&["rev-parse", "--show-toplevel"])?).canonicalize().ok()?;
    // Cargo runs this in the package's own folder.
    if root != Path::new(".").canonicalize().ok()? {
        return None;
    }
    // Another branch, another commit. Of a file that is not there cargo would think that it changes all the time.
    let followed = ["HEAD", "logs/HEAD"].map(|name| git(&["rev-parse", "--git-path", name]));
    for path in followed.into_iter().flatten().filter(|path| Path::new(path).exists()) {
        println!("cargo::rerun-if-changed={path}");
    }
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
    }
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = git(&[&["status", "--porcelain", "--"][..], &SOURCES].concat())?;
    let date = git(&["show", "-s", "--format=%cs", "HEAD"])?;
    Some((if changed.is_empty() { commit } else { format!("{commit}-dirty") }, date))
}

/// What git prints; `None` where it fails or there is none.
fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("--no-optional-locks").args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
