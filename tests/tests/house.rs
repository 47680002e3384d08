//! The rules of the house, held by tests: the map is true, imports point down, unsafe has its
//! rooms, files announce themselves and stay short, nobody is named `util`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

const LINES_MAX: usize = 600;
const COLUMNS_MAX: usize = 100;

fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("tests/ stands in the repository").to_owned()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All files that belong to the repository, or soon will.
fn files() -> Vec<String> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git is here: glommio needs it to build");
    assert!(listed.status.success(), "git ls-files: {listed:?}");
    let mut files: Vec<String> = String::from_utf8_lossy(&listed.stdout)
        .lines()
        .filter(|path| root().join(path).is_file())
        .map(str::to_owned)
        .collect();
    files.sort();
    assert!(files.len() > 50, "the repository has files: {files:?}");
    files
}

fn rust_files() -> Vec<String> {
    files().into_iter().filter(|path| path.ends_with(".rs")).collect()
}

/// The lines of a fenced block of ARCHITECTURE.md.
fn block(language: &str) -> Vec<String> {
    let text = read(&root().join("ARCHITECTURE.md"));
    let start = text.find(&format!("```{language}\n")).expect("the block is there");
    let body = &text[start..];
    body.lines().skip(1).take_while(|line| *line != "```").map(str::to_owned).collect()
}

#[test]
fn every_path_that_a_page_names_exists() {
    let mut named = 0;
    for page in files().into_iter().filter(|path| path.ends_with(".md")) {
        let folder = root().join(&page).parent().expect("a folder").to_owned();
        let text = read(&root().join(&page));
        // Fenced blocks are drawings and samples; `code` in the text between them names things.
        let prose: String = text.split("```").step_by(2).collect();
        for word in prose.split('`').skip(1).step_by(2) {
            let is_path = word.contains('/')
                && !word.contains([' ', ':', '*', '{', '<', '$', '=', '['])
                && !word.starts_with(['/', '.', '-'])
                && word.rsplit('/').next().is_some_and(|name| name.contains('.'))
                && !word.starts_with("application/");
            if is_path {
                named += 1;
                let exists = root().join(word).exists() || folder.join(word).exists();
                assert!(exists, "{page} names {word}, which is not there");
            }
        }
    }
    assert!(named > 15, "only {named} paths were found: the search is broken");
}

#[test]
fn the_configuration_in_the_readme_is_valid() {
    let text = read(&root().join("README.md"));
    let (_, example) = text.split_once("```yaml\n").expect("an example");
    let (example, _) = example.split_once("```").expect("its end");
    let output = Command::new(forebay_tests::forebay::program())
        .args(["validate", "--config", &format!("yaml:{example}")])
        .output()
        .expect("forebay starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn every_folder_of_the_map_exists_and_every_crate_is_on_it() {
    let on_the_map: BTreeSet<String> = block("text")
        .iter()
        .filter_map(|line| line.split_once('/').map(|(folder, _)| folder.to_owned()))
        .collect();
    for folder in &on_the_map {
        assert!(root().join(folder).is_dir(), "{folder}/ is on the map only");
    }
    for file in files().iter().filter(|file| file.contains('/') && !file.starts_with('.')) {
        let folder = file.split('/').next().expect("a folder");
        assert!(on_the_map.contains(folder), "{folder}/ is not on the map");
    }
}

#[test]
fn crates_import_only_what_the_arrows_allow() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let metadata = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo metadata");
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).expect("JSON");
    let mut drawn: BTreeSet<(String, String)> = BTreeSet::new();
    let mut crates = BTreeSet::new();
    for line in block("arrows") {
        let (from, to) = line.split_once(" ->").expect("an arrow");
        crates.insert(from.to_owned());
        drawn.extend(to.split_whitespace().map(|to| (from.to_owned(), to.to_owned())));
    }
    let folder = |package: &str| match package {
        "forebay" => Some("engine".to_owned()),
        name => name.strip_prefix("forebay-").map(str::to_owned),
    };
    let mut real = BTreeSet::new();
    let mut members = BTreeSet::new();
    for package in metadata["packages"].as_array().expect("packages") {
        let from = folder(package["name"].as_str().expect("a name")).expect("ours");
        members.insert(from.clone());
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let is_ours = dependency["path"].is_string();
            if let Some(to) = folder(dependency["name"].as_str().expect("a name"))
                && is_ours
            {
                real.insert((from.clone(), to));
            }
        }
    }
    assert_eq!(real, drawn, "left: Cargo.toml, right: ARCHITECTURE.md");
    assert_eq!(members, crates);
}

#[test]
fn unsafe_stays_in_the_rooms_that_the_map_names() {
    let rooms: BTreeSet<String> = block("unsafe").into_iter().collect();
    let opened = format!("allow({}_code)", "unsafe");
    let open: BTreeSet<String> = rust_files()
        .into_iter()
        .filter(|path| read(&root().join(path)).contains(&opened))
        .collect();
    assert_eq!(open, rooms, "left: the code, right: ARCHITECTURE.md");
}

#[test]
fn every_file_announces_itself_stays_short_and_has_an_honest_name() {
    let mut wrong = Vec::new();
    for path in rust_files() {
        let text = read(&root().join(&path));
        let name = path.rsplit('/').next().expect("a name");
        if !text.starts_with("//!") {
            wrong.push(format!("{path}: does not open with //!"));
        }
        let lines = text.lines().count();
        if lines > LINES_MAX {
            wrong.push(format!("{path}: {lines} lines, at most {LINES_MAX}"));
        }
        for (number, line) in text.lines().enumerate() {
            // A long string that can't be broken is left to rustfmt's judgement.
            if line.chars().count() > COLUMNS_MAX && !line.contains('"') {
                wrong.push(format!("{path}:{}: over {COLUMNS_MAX} columns", number + 1));
            }
        }
        if ["mod.rs", "util.rs", "utils.rs", "common.rs", "helper.rs", "helpers.rs"].contains(&name)
        {
            wrong.push(format!("{path}: a name that says nothing"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_one_file_names_glommio() {
    let word = format!("{}::", "glommio");
    let naming: Vec<String> = rust_files()
        .into_iter()
        .filter(|path| {
            let text = read(&root().join(path));
            text.match_indices(&word).any(|(at, _)| {
                let before = text[..at].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
            })
        })
        .collect();
    assert_eq!(naming, ["net/src/glommio_io.rs"]);
}

#[test]
fn the_protocol_and_codec_rooms_read_no_clock() {
    let clocks = ["Instant::now", "SystemTime::now", "thread::sleep"];
    let mut reading = Vec::new();
    for path in rust_files() {
        let is_sans_io = path.starts_with("codec/src/")
            || path.starts_with("net/src/http")
            || path.starts_with("net/src/quic")
            || path.starts_with("net/src/server/")
            || ["retry", "breaker", "balance", "budget", "dispatch", "endpoints"]
                .map(|room| format!("exporters/src/{room}"))
                .iter()
                .any(|room| path.starts_with(room) && !path.ends_with("/tests.rs"))
            || [
                "net/src/request.rs",
                "net/src/grpc.rs",
                "exporters/src/discovery/keeper.rs",
                "exporters/src/discovery/registrar/pulse.rs",
            ]
            .contains(&path.as_str())
            || ["engine/src/acks.rs", "engine/src/batches.rs", "engine/src/ingest.rs"]
                .contains(&path.as_str());
        let text = read(&root().join(&path));
        if is_sans_io && clocks.iter().any(|clock| text.contains(clock)) {
            reading.push(path);
        }
    }
    assert!(reading.is_empty(), "time comes in as `now`: {reading:?}");
}
