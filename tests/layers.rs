//! A file of `proxy/` imports only from its own room and from those above it in the list that stands in `proxy/lib.rs`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

#[test]
fn imports_point_up_the_list() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("proxy");
    let rooms = rooms(&fs::read_to_string(root.join("lib.rs")).expect("proxy/lib.rs"));
    assert_eq!(rooms.len(), 9, "the rooms in the doc of proxy/lib.rs: {rooms:?}");
    let place_of = |room: &str| rooms.iter().position(|known| known == room);
    let mut wrong = Vec::new();
    for file in sources(&root) {
        let path = file.strip_prefix(&root).expect("a file of the proxy");
        let own = path.iter().next().expect("a name").to_string_lossy().trim_end_matches(".rs").to_owned();
        // The program stands above the library, and can only use what that makes public; the build script uses nothing of it.
        if ["lib", "main", "cli", "pages", "build"].contains(&&*own) {
            continue;
        }
        let Some(place) = place_of(&own) else {
            wrong.push(format!("{} is in no room of proxy/lib.rs", path.display()));
            continue;
        };
        let text = fs::read_to_string(&file).expect("a source file");
        // Tests may use what they like, and so may what exists for them alone.
        let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        if ["tests.rs", "memory.rs", "scripted.rs"].iter().any(|name| path.ends_with(name)) {
            continue;
        }
        for room in imported(text) {
            if place_of(&room).is_none_or(|other| other > place) {
                wrong.push(format!("{} uses crate::{room}, which is below its own room in the list", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// The rooms, as the doc of `proxy/lib.rs` lists them: "- `name`: ...".
fn rooms(doc: &str) -> Vec<String> {
    let lines = doc.lines().filter_map(|line| line.strip_prefix("//! - `"));
    lines.filter_map(|line| line.split_once("`:")).map(|(name, _)| name.to_owned()).collect()
}

/// The top modules that a source names after `crate::`, in `use` lines with braces too, and in paths.
fn imported(text: &str) -> BTreeSet<String> {
    let mut modules = BTreeSet::new();
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    for rest in code.split("crate::").skip(1) {
        if let Some(group) = rest.strip_prefix('{') {
            let (mut depth, mut word) = (0, String::new());
            for letter in group.chars() {
                match letter {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        modules.insert(head(&word));
                        word.clear();
                    }
                    letter => word.push(letter),
                }
            }
            modules.insert(head(&word));
        } else {
            modules.insert(head(rest));
        }
    }
    // `crate::Something` is a type of the root, `crate::name!` a macro: neither is a module.
    modules.retain(|module| module.starts_with(|first: char| first.is_ascii_lowercase()));
    modules
}

fn head(path: &str) -> String {
    path.trim().chars().take_while(|letter| letter.is_ascii_alphanumeric() || *letter == '_').collect()
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
    files
}

#[test]
fn imports_are_found_in_every_form() {
    let text = "use crate::cluster::topology::Node;\nuse crate::{metrics, protocol::{resp::{Value, write}, says}};\n// crate::not\nlet x = crate::commands::plan::of();";
    assert_eq!(imported(text).into_iter().collect::<Vec<_>>(), ["cluster", "commands", "metrics", "protocol"]);
}
