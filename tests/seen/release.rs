//! What a build says of itself.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::{Proxy, cluster::shared, proxy::only_set_here, reaper};

#[test]
fn the_build_is_told_alike_everywhere() {
    let proxy = Proxy::before(shared());
    let mut command = Command::new(env!("CARGO_BIN_EXE_slotway"));
    let told = only_set_here(&mut command).arg("--version").output().expect("the program runs");
    let told = String::from_utf8(told.stdout).expect("text");
    let version = env!("CARGO_PKG_VERSION");
    assert!(told.starts_with(&format!("slotway {version}")), "{told}");

    let info = proxy.client().line("PROXY INFO").texts();
    let value = |name: &str| info.iter().find_map(|line| line.strip_prefix(name)).expect("a line").to_owned();
    assert_eq!(value("version:"), version);
    let revision = value("revision:");
    // That of the tests' own build, unless they are about another.
    assert!(revision == "unknown" || told.contains(&revision), "{revision} and {told}");
    let labels = [format!("version=\"{version}\""), format!("revision=\"{revision}\"")];
    assert_eq!(proxy.metric("slotway_build_info", &labels.each_ref().map(String::as_str)), 1.0);
    let (_, status) = proxy.page("/api/status");
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!((status["version"].as_str(), status["revision"].as_str()), (Some(version), Some(&*revision)));
}

/// The build script itself, in repositories made for it.
#[test]
fn a_release_tells_its_commit_and_a_tarball_none() {
    let folder = reaper::folder("revision");
    let script = folder.join("build-script");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("proxy/build.rs");
    let compiled = Command::new("rustc").args(["--edition=2024", "-o"]).args([&script, &source]).status();
    assert!(compiled.expect("rustc").success());
    let tree = folder.join("tree");
    fs::create_dir_all(tree.join("proxy")).expect("a folder");
    fs::write(tree.join("proxy/main.rs"), "one").expect("written");
    let says = |place: &Path, profile: &str, given: &str| {
        let mut command = Command::new(&script);
        command
            .current_dir(place)
            .env("PROFILE", profile)
            .env("SLOTWAY_REVISION", given)
            .env("CARGO_PKG_VERSION", "1.2.3");
        let output = command.output().expect("the script");
        let said = String::from_utf8(output.stdout).expect("text");
        let value = |name: &str| said.lines().find_map(|line| line.strip_prefix(name)).expect("a line").to_owned();
        (value("cargo::rustc-env=SLOTWAY_LONG_VERSION="), value("cargo::rustc-env=SLOTWAY_REVISION="))
    };
    let pair = |long: &str, revision: &str| (long.to_owned(), revision.to_owned());

    assert_eq!(says(&tree, "release", ""), pair("1.2.3", "unknown"), "an unpacked tarball");
    assert_eq!(says(&tree, "release", "abc"), pair("1.2.3 (abc)", "abc"), "the image");
    let commit = committed(&tree);
    assert_eq!(says(&tree, "release", ""), pair(&format!("1.2.3 ({commit} 2020-02-02)"), &commit));
    assert_eq!(says(&tree, "debug", ""), pair("1.2.3 (debug build)", "unknown"));
    fs::write(tree.join("README.md"), "a page, which the program is not made of").expect("written");
    assert_eq!(says(&tree, "release", "").1, commit);
    fs::write(tree.join("proxy/main.rs"), "two").expect("written");
    let dirty = format!("{commit}-dirty");
    assert_eq!(says(&tree, "release", ""), pair(&format!("1.2.3 ({dirty} 2020-02-02)"), &dirty));
    // A tarball inside another's repository.
    assert_eq!(says(&tree.join("proxy"), "release", ""), pair("1.2.3", "unknown"));
}

/// Makes the folder a repository with one commit of a known day; its hash.
fn committed(tree: &PathBuf) -> String {
    let git = |args: &[&str]| {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=a", "-c", "user.email=a@b"]).args(args).current_dir(tree);
        let output = command.env("GIT_COMMITTER_DATE", "2020-02-02T12:00:00Z").output().expect("git");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    };
    git(&["init", "--quiet"]);
    git(&["add", "."]);
    git(&["commit", "--quiet", "--message", "one"]);
    git(&["rev-parse", "--short=12", "HEAD"])
}
