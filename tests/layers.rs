//! A file of `proxy/` imports only from the layers below its own; the order stands in `proxy/lib.rs`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

#[test]
fn imports_point_down() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("proxy");
    let layers = layers(&fs::read_to_string(root.join("lib.rs")).expect("proxy/lib.rs"));
    assert_eq!(layers.len(), 4, "the layers in the doc of proxy/lib.rs: {layers:?}");
    let layer_of = |module: &str| layers.iter().position(|layer| layer.iter().any(|name| name == module));
    let mut wrong = Vec::new();
    for file in sources(&root) {
        let path = file.strip_prefix(&root).expect("a file of the proxy");
        let own = path.iter().next().expect("a name").to_string_lossy().trim_end_matches(".rs").to_owned();
        // The program stands above the library, and can only use what that makes public.
        if ["lib", "main", "cli"].contains(&&*own) {
            continue;
        }
        let Some(layer) = layer_of(&own) else {
            wrong.push(format!("{} is in no layer of proxy/lib.rs", path.display()));
            continue;
        };
        let text = fs::read_to_string(&file).expect("a source file");
        // Tests may use what they like.
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        for module in imported(text) {
            if layer_of(&module).is_some_and(|below| below > layer) {
                wrong.push(format!("{} (layer {layer}) uses crate::{module}, of a higher layer", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// The modules of each layer, the lowest first, as the doc of `proxy/lib.rs` lists them: `- 0, bytes, pure: ...`.
fn layers(doc: &str) -> Vec<Vec<String>> {
    let lines = doc.lines().filter_map(|line| line.strip_prefix("//! - "));
    let lines = lines.filter(|line| line.starts_with(|first: char| first.is_ascii_digit()));
    lines.map(|line| line.split('`').skip(1).step_by(2).map(str::to_owned).collect()).collect()
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
    let text = "use crate::slot::Slot;\nuse crate::{address::Address, resp::{Value, write}, says};\n// crate::not\nlet x = crate::plan::of();";
    assert_eq!(imported(text).into_iter().collect::<Vec<_>>(), ["address", "plan", "resp", "says", "slot"]);
}
