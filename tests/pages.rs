//! The pages for who works on the source name what is there: every file of tests, and no path that is none.

use std::{fs, path::PathBuf};

/// A folder of tests for each promise.
const PROMISES: [&str; 8] =
    ["one_redis", "every_command", "redirection", "program_order", "in_step", "one_bad_node", "bounded", "seen"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn the_page_of_tests_names_every_file() {
    let page = page("tests/README.md");
    let promises = PROMISES.map(|folder| (format!("tests/{folder}"), String::new()));
    let others = [("tests", ""), ("tests/support", "support/")].map(|(folder, prefix)| (folder.into(), prefix.into()));
    for (folder, prefix) in promises.into_iter().chain(others) {
        for entry in fs::read_dir(root().join(&folder)).expect("a folder").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_missing = name.ends_with(".rs") && name != "mod.rs" && !page.contains(&format!("`{prefix}{name}`"));
            assert!(!is_missing, "tests/README.md does not say what {folder}/{name} proves");
        }
    }
}

#[test]
fn the_pages_name_files_that_exist() {
    // Where a page's short paths begin.
    let mut places: Vec<String> =
        ["", "proxy", "proxy/commands/table", "tests", "tests/one_redis/differential"].map(Into::into).into();
    places.extend(PROMISES.map(|folder| format!("tests/{folder}")));
    for name in ["ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "tests/README.md"] {
        for path in paths(&page(name)) {
            let exists = places.iter().any(|place| root().join(place).join(&path).exists());
            assert!(exists, "{name} names {path}, which is not there");
        }
    }
}

/// What stands between backticks and looks like a file or a folder.
fn paths(page: &str) -> Vec<String> {
    let code = page.split('`').skip(1).step_by(2);
    let endings = [".rs", ".md", ".toml", ".txt", ".yml", ".json", "/"];
    let is_path = |word: &&str| {
        endings.iter().any(|ending| word.ends_with(ending))
            && word.chars().all(|letter| letter.is_ascii_alphanumeric() || "./_-".contains(letter))
    };
    code.filter(is_path).filter(|path| *path != "/").map(str::to_owned).collect()
}

/// Links of the public pages that lead within this repository: to a file, and to a heading of it.
#[test]
fn links_lead_somewhere() {
    let anchor = |heading: &str| -> String {
        let kept =
            heading.to_lowercase().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>();
        kept.replace(' ', "-")
    };
    for name in
        ["README.md", "deploy/README.md", "deploy/troubleshooting.md", "config/limits.md", "config/databases.md"]
    {
        let page_text = page(name);
        let folder = root().join(name).parent().expect("a folder").to_owned();
        let links = page_text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link);
        for link in links.filter(|link| !link.contains("://")) {
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { root().join(name) } else { folder.join(path) };
            assert!(target.exists(), "{name} leads to {link}, which is not there");
            let is_there = || {
                let text = fs::read_to_string(&target).unwrap_or_default();
                let headings =
                    text.lines().filter_map(|line| Some(line.trim_start_matches('#')).filter(|rest| *rest != line));
                headings.map(str::trim).any(|found| anchor(found) == heading)
            };
            assert!(heading.is_empty() || is_there(), "{name} leads to {link}, and there is no such heading");
        }
    }
}
