//! What deploy/release makes: whole and true, and its .deb on Debian, from the installation to the last file's removal.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::{
    engine::{DEBIAN, docker, images, provide, repository, said, try_docker, turn, until},
    stack::{Stack, address},
    support::reaper,
};

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The package's own files, apart from pages.
const FILES: [&str; 8] = [
    "/etc/slotway/slotway.toml",
    "/usr/bin/slotway",
    "/usr/lib/systemd/system/slotway.service",
    "/usr/lib/systemd/system/slotway.socket",
    "/usr/share/bash-completion/completions/slotway",
    "/usr/share/fish/vendor_completions.d/slotway.fish",
    "/usr/share/slotway/slotway.toml",
    "/usr/share/zsh/vendor-completions/_slotway",
];

/// What deploy/release has made: what `SLOTWAY_TEST_RELEASE` names, as `tests/run` does, else packed here of the image's program.
fn release() -> PathBuf {
    if let Some(folder) = std::env::var_os("SLOTWAY_TEST_RELEASE") {
        return folder.into();
    }
    let folder = reaper::folder("release");
    let container = docker(&["create", &images().proxy]);
    let copied = try_docker(&["cp", &format!("{container}:/slotway"), folder.to_str().expect("UTF-8")]);
    docker(&["rm", &container]);
    copied.expect("the program");
    let page = folder.join("page");
    let script = repository().join("deploy/release");
    said(Command::new(script).arg("--binary").args([&folder.join("slotway"), &page]))
        .unwrap_or_else(|error| panic!("{error}"));
    page
}

fn shell(folder: &Path, script: &str) -> String {
    let mut shell = Command::new("bash");
    said(shell.args(["-euo", "pipefail", "-c", script]).current_dir(folder)).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn the_release_is_whole_and_its_package_comes_and_goes() {
    let Ok(architecture) = said(Command::new("dpkg").arg("--print-architecture")) else {
        eprintln!("SKIPPED: packages are made by dpkg, which is not here");
        return;
    };
    let Some(_turn) = turn() else { return };
    let page = release();
    let (tarball, package) =
        (format!("slotway-{VERSION}-linux-{architecture}.tar.gz"), format!("slotway_{VERSION}_{architecture}.deb"));
    is_whole(&page, &tarball, &package);

    provide(DEBIAN);
    let stack = Stack::new("package", &["compose.yaml"]);
    stack.form();
    let run = ["run", "-d", "--name", "slotwaytest-package-debian", "--net", &stack.network(), DEBIAN, "sleep", "600"];
    let debian = docker(&run);
    let inside = |script: &str| docker(&["exec", &debian, "sh", "-euc", script]);
    // dpkg's own lists and logs aside.
    let files =
        || inside("find / -xdev -type f -o -xdev -type l | grep -Ev '^/(proc|sys|dev|tmp|var/(lib|log))/' | sort");
    let before = files();
    docker(&["cp", page.join(&package).to_str().expect("UTF-8"), &format!("{debian}:/tmp/slotway.deb")]);

    inside("dpkg -i /tmp/slotway.deb");
    let installed = files();
    // A slim image may be told to leave pages out, and that is its right.
    for file in FILES.into_iter().filter(|file| !file.contains("completion")) {
        assert!(installed.lines().any(|line| line == file), "{file} is not there:\n{installed}");
    }
    assert!(inside("slotway --version").starts_with(&format!("slotway {VERSION}")));
    serves(&stack, &debian, &inside);

    // The same package again, as an upgrade: what the operator has changed stays.
    inside("dpkg -i /tmp/slotway.deb && grep -q redis-7000 /etc/slotway/slotway.toml");
    inside("dpkg -r slotway && test ! -e /usr/bin/slotway && test -e /etc/slotway/slotway.toml");
    inside("dpkg -P slotway && test ! -e /etc/slotway");
    assert_eq!(files(), before, "something was left behind, or went along");
}

/// Runs what the unit runs, as nobody, and asks it from a node's container.
fn serves(stack: &Stack, debian: &str, inside: &impl Fn(&str) -> String) {
    inside(
        r#"sed -i 's/^seeds = .*/seeds = ["redis-7000:7000"]/; s/127.0.0.1:6380/0.0.0.0:6380/; $a allow_insecure_bind = true' \
           /etc/slotway/slotway.toml"#,
    );
    let command = inside("sed -n 's/^ExecStart=//p' /usr/lib/systemd/system/slotway.service");
    let run = [&["exec", "-d", "-u", "65534:65534", debian][..], &command.split(' ').collect::<Vec<_>>()].concat();
    docker(&run);
    until("the installed proxy to be ready", Duration::from_secs(30), || {
        try_docker(&["exec", debian, "slotway", "healthcheck"]).ok()
    });
    let address = address(debian);
    let ask = |command: &[&str]| stack.ask_node("redis-7000", &[&["-h", &address, "-p", "6380"], command].concat());
    for number in 0..50 {
        let (key, value) = (format!("key:{number}"), number.to_string());
        assert_eq!(ask(&["SET", &key, &value]).as_deref(), Ok("OK"));
        assert_eq!(ask(&["GET", &key]), Ok(value));
    }
    // Its own end, by the signal that systemd sends.
    let stop = "for file in /proc/[0-9]*/exe; do case $(readlink $file) in /usr/bin/slotway) kill -TERM $(basename $(dirname $file));; esac; done";
    inside(stop);
    until("the installed proxy to end", Duration::from_secs(30), || {
        inside("ls -l /proc/[0-9]*/exe 2>/dev/null | grep -c /usr/bin/slotway || true").eq("0").then_some(())
    });
}

fn architecture_of(tarball: &str) -> String {
    tarball.trim_end_matches(".tar.gz").rsplit('-').next().expect("a processor").to_owned()
}

/// By an emulator, where there is one.
fn runs_on_the_other_processor(page: &Path, ours: &str) {
    let [other, emulator] =
        if ours == "amd64" { ["arm64", "qemu-aarch64-static"] } else { ["amd64", "qemu-x86_64-static"] };
    let tarball = page.join(format!("slotway-{VERSION}-linux-{other}.tar.gz"));
    if !tarball.exists() || Command::new(emulator).arg("--version").output().is_err() {
        eprintln!("SKIPPED: the release has no {other}, or there is no {emulator} here");
        return;
    }
    let folder = reaper::folder("other-processor");
    shell(&folder, &format!("tar -xzf '{}' --strip-components 1", tarball.display()));
    let told = shell(&folder, &format!("{emulator} ./slotway --version && {emulator} ./slotway slot foo"));
    assert!(told.starts_with(&format!("slotway {VERSION}")) && told.contains("12182"), "{told}");
}

/// All that a release page has for this machine's processor.
fn is_whole(page: &Path, tarball: &str, package: &str) {
    shell(page, "sha256sum --check --strict SHA256SUMS");
    let sums = fs::read_to_string(page.join("SHA256SUMS")).expect("the sums");
    let summed: Vec<&str> = sums.lines().filter_map(|line| line.split_whitespace().last()).collect();
    let mut there: Vec<String> = fs::read_dir(page)
        .expect("the folder")
        .flatten()
        .map(|file| file.file_name().to_string_lossy().into())
        .collect();
    there.retain(|name| name != "SHA256SUMS");
    there.sort();
    assert_eq!(summed, there);
    assert!(summed.contains(&tarball) && summed.contains(&package), "{summed:?}");

    let listed = shell(page, &format!("tar -tzf {tarball}"));
    let root = tarball.trim_end_matches(".tar.gz");
    for file in
        ["slotway", "slotway.toml", "LICENSE", "systemd/slotway.service", "man/slotway.1.gz", "completions/_slotway"]
    {
        assert!(listed.lines().any(|line| line == format!("{root}/{file}")), "{file} is not in:\n{listed}");
    }
    let contents = shell(page, &format!("dpkg-deb --contents {package}"));
    for file in FILES {
        let packed = |line: &str| line.contains(" root/root ") && line.ends_with(&format!(" .{file}"));
        assert!(contents.lines().any(packed), "{file} is not in:\n{contents}");
    }
    for command in ["serve", "doctor", "copy"] {
        assert!(contents.contains(&format!("/man1/slotway-{command}.1.gz")), "{contents}");
    }
    // What the shell and man make of them.
    let folder = reaper::folder("package");
    shell(&folder, &format!("dpkg-deb --extract '{}' .", page.join(package).display()));
    let completes = "source usr/share/bash-completion/completions/slotway
        COMP_WORDS=(slotway serve --tls-c) COMP_CWORD=2; _slotway slotway --tls-c serve; echo \"${COMPREPLY[*]}\"";
    assert_eq!(shell(&folder, completes), "--tls-cert-file --tls-ca-cert-file");
    let manual = shell(&folder, "zcat usr/share/man/man1/slotway-serve.1.gz");
    assert!(manual.starts_with(".ie") && manual.contains(r"\-\-tls\-cert\-file"), "{manual}");

    runs_on_the_other_processor(page, &architecture_of(tarball));
    let Some(sbom) = there.iter().find(|name| name.ends_with(".cdx.json")) else {
        eprintln!("SKIPPED: the release has no SBOM, since cargo-cyclonedx is not installed");
        return;
    };
    let sbom: serde_json::Value = serde_json::from_slice(&fs::read(page.join(sbom)).expect("an SBOM")).expect("JSON");
    assert_eq!((sbom["bomFormat"].as_str(), sbom["specVersion"].as_str()), (Some("CycloneDX"), Some("1.5")));
    let components = sbom["components"].as_array().expect("components");
    let named = |name: &str| components.iter().find(|component| component["name"] == name);
    let tokio = named("tokio").expect("tokio is in the program");
    assert!(tokio["purl"].as_str().is_some_and(|purl| purl.starts_with("pkg:cargo/tokio@")), "{tokio}");
    assert!(tokio["licenses"].is_array() && tokio["hashes"].is_array(), "{tokio}");
    assert!(
        named("proptest").is_none() && named("clap_mangen").is_none(),
        "what tests and packages need is not in the program"
    );
}
