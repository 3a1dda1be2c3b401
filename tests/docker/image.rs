//! The image: what is in it, who it runs as, how big it is.

use super::{
    engine::{docker, images, said, try_docker, turn},
    support::reaper,
};
use std::{fs, process::Command};

fn inspect(what: &str) -> String {
    docker(&["image", "inspect", "--format", what, &images().proxy])
}

#[test]
fn is_one_static_binary_for_an_ordinary_user() {
    let Some(_turn) = turn() else { return };
    let size: u64 = inspect("{{.Size}}").parse().expect("bytes");
    // Half of that with the optimizations of a release, which tests do without.
    assert!(size < 24_000_000, "the image has {size} bytes");
    let user = inspect("{{.Config.User}}");
    assert!(user.split(':').all(|id| id.parse::<u32>().is_ok_and(|id| id >= 1000)), "user {user:?}");
    assert_eq!(inspect("{{json .Config.Healthcheck.Test}}"), r#"["CMD","/slotway","healthcheck"]"#);
    assert_eq!(inspect(r#"{{index .Config.Labels "org.opencontainers.image.title"}}"#), "slotway");
    assert_eq!(inspect(r#"{{index .Config.Labels "org.opencontainers.image.licenses"}}"#), "Apache-2.0");
    assert_ne!(inspect(r#"{{index .Config.Labels "org.opencontainers.image.version"}}"#), "");

    let container = docker(&["create", &images().proxy]);
    let folder = reaper::folder("image");
    let export = format!("docker export {container} | tar -tvf - | awk '$1 ~ /^-/ && $3 > 0 {{ print $NF }}'");
    let files = said(Command::new("sh").args(["-c", &export])).expect("the image's files");
    let copied = try_docker(&["cp", &format!("{container}:/slotway"), folder.to_str().expect("UTF-8")]);
    docker(&["rm", &container]);
    assert_eq!(files, "slotway", "all files of the image");
    copied.expect("/slotway");
    let binary = fs::read(folder.join("slotway")).expect("the binary");
    assert!(!asks_for_an_interpreter(&binary), "the binary is linked dynamically");
}

#[test]
fn says_what_is_wrong_and_ends() {
    let Some(_turn) = turn() else { return };
    let image = &images().proxy;
    let version = docker(&["run", "--rm", "--read-only", "--user", "1234:1234", image, "--version"]);
    let revision = inspect(r#"{{index .Config.Labels "org.opencontainers.image.revision"}}"#);
    assert!(version.starts_with("slotway ") && version.ends_with(&format!(" ({revision})")), "{version}, {revision}");
    let refused = try_docker(&["run", "--rm", "-e", "SLOTWAY_SEED=a:1", image]).expect_err("an unknown key");
    assert!(refused.contains("SLOTWAY_SEEDS"), "no suggestion in: {refused}");
    assert!(refused.contains("exit status: 1"), "{refused}");
}

/// Whether an ELF binary (64 bit, little-endian: amd64 and arm64) has a PT_INTERP header, which names a dynamic linker.
fn asks_for_an_interpreter(elf: &[u8]) -> bool {
    let number =
        |at: usize, length: usize| elf[at..at + length].iter().rev().fold(0, |sum, &byte| sum << 8 | usize::from(byte));
    assert_eq!(&elf[..5], b"\x7fELF\x02", "no 64-bit ELF binary");
    let (headers, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    (0..count).any(|index| number(headers + index * size, 4) == 3)
}
