//! The Docker engine and its tools, and the images that the stories need.

use std::{
    fs::File,
    io::Write,
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// Images of the compose files and Dockerfiles. `files.rs` checks that these are the names they use.
pub const PUBLIC_IMAGES: [&str; 4] =
    ["redis:7", "rust:1.95-slim-bookworm", "python:3.11-slim-bookworm", "prom/prometheus:v3.5.0"];
/// Where the package is installed.
pub const DEBIAN: &str = "debian:12-slim";
const APPLICATION: &str = "slotway-shop:test";
/// The Dockerfile as it stands, but with a compiler in a hurry: all else about the image is as users get it, and its size
/// only larger.
const QUICK: [&str; 8] = [
    "--build-arg",
    "REVISION=0123456789ab",
    "--build-arg",
    "CARGO_PROFILE_RELEASE_LTO=off",
    "--build-arg",
    "CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16",
    "--build-arg",
    "CARGO_PROFILE_RELEASE_OPT_LEVEL=1",
];

/// One story's turn with the engine; the next may begin when it is dropped.
pub struct Turn {
    _lock: File,
}

/// The images this run tests.
pub struct Images {
    pub proxy: String,
    pub application: String,
}

/// This story's turn, or `None`, said loudly, where there is no engine.
pub fn turn() -> Option<Turn> {
    static ENGINE: OnceLock<Result<(), String>> = OnceLock::new();
    if let Err(why) = ENGINE.get_or_init(look_for_an_engine) {
        assert!(std::env::var("SLOTWAY_DOCKER").as_deref() != Ok("required"), "no Docker engine: {why}");
        let story = thread::current().name().unwrap_or("a docker test").to_owned();
        // Not eprintln!, which the test harness keeps to itself when a test passes.
        let _ = writeln!(std::io::stderr(), "\n!!! SKIPPED {story}: no Docker engine ({why})\n");
        return None;
    }
    let lock = File::create(std::env::temp_dir().join("slotway-docker-tests.lock")).expect("a lock file");
    lock.lock().expect("the lock");
    images();
    Some(Turn { _lock: lock })
}

/// The images, built once in each run.
pub fn images() -> &'static Images {
    static IMAGES: OnceLock<Images> = OnceLock::new();
    IMAGES.get_or_init(|| {
        for image in PUBLIC_IMAGES {
            provide(image);
        }
        let proxy = match std::env::var("SLOTWAY_DOCKER_IMAGE") {
            Ok(image) => image,
            Err(_) => {
                build("slotway:test", &[&QUICK[..], &["-f", "deploy/Dockerfile", "."]].concat());
                "slotway:test".into()
            }
        };
        build(APPLICATION, &["deploy/sidecar"]);
        Images { proxy, application: APPLICATION.into() }
    })
}

/// The root of the repository.
pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// What `docker ARGS` prints; a panic where it fails.
#[track_caller]
pub fn docker(args: &[&str]) -> String {
    try_docker(args).unwrap_or_else(|error| panic!("{error}"))
}

/// What `docker ARGS` prints, or what it complains of.
pub fn try_docker(args: &[&str]) -> Result<String, String> {
    said(Command::new("docker").args(args))
}

/// What a command prints, or what it complains of.
pub fn said(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    let Output { status, stdout, stderr } = output;
    let out = String::from_utf8_lossy(&stdout).trim_end().to_owned();
    match status.success() {
        true => Ok(out),
        false => Err(format!("{command:?}: {status}\n{out}\n{}", String::from_utf8_lossy(&stderr))),
    }
}

/// The words of the Compose tool that is there: the plugin (v2), or docker-compose 1.29.
pub fn compose_tool() -> &'static [&'static str] {
    static TOOL: OnceLock<&[&str]> = OnceLock::new();
    TOOL.get_or_init(|| match try_docker(&["compose", "version"]) {
        Ok(_) => &["docker", "compose"],
        Err(_) => &["docker-compose"],
    })
}

/// The first `Some` of `look`, asked every tenth of a second: looking costs a process here.
#[track_caller]
pub fn until<T>(what: &str, patience: Duration, look: impl FnMut() -> Option<T>) -> T {
    crate::support::wait::until_by(Duration::from_millis(100), what, patience, look)
}

fn look_for_an_engine() -> Result<(), String> {
    try_docker(&["version", "--format", "{{.Server.Version}}"])?;
    let tool = compose_tool();
    said(Command::new(tool[0]).args(&tool[1..]).arg("version")).map(drop)
}

/// Has `image` here: as it is, pulled, or as a stand-in.
pub fn provide(image: &str) {
    let made_here = r#"{{index .Config.Labels "slotway.stand-in"}}"#;
    let present = try_docker(&["image", "inspect", "--format", made_here, image]);
    let stand_in = present.as_ref().is_ok_and(|label| !label.is_empty() && label != "<no value>");
    if present.is_ok() && !stand_in {
        return;
    }
    // Where one cannot be pulled, neither can the next: a network that swallows packets is not waited for again.
    static PULLS: AtomicBool = AtomicBool::new(true);
    let pull = PULLS.load(Ordering::Relaxed) && std::env::var("SLOTWAY_DOCKER_PULL").as_deref() != Ok("never");
    if pull && said(Command::new("timeout").args(["300", "docker", "pull", "--quiet", image])).is_ok() {
        return;
    }
    PULLS.store(false, Ordering::Relaxed);
    let script = repository().join("tests/docker/stand_ins.py");
    let made = said(Command::new("python3").arg(script).arg(image)).unwrap_or_else(|error| panic!("{error}"));
    let _ = writeln!(std::io::stderr(), "no public {image} to be had: a local stand-in of that name is used. {made}");
}

/// `docker build`, by the engine's own builder: with a stand-in there is no registry for BuildKit to ask.
fn build(tag: &str, args: &[&str]) {
    let mut command = Command::new("docker");
    command.args(["build", "--quiet", "--force-rm", "-t", tag]).args(args).current_dir(repository());
    if try_docker(&["buildx", "version"]).is_err() {
        command.env("DOCKER_BUILDKIT", "0");
    }
    said(&mut command).unwrap_or_else(|error| panic!("{error}"));
}
