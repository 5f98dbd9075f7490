//! What no compiler watches: which files may name which crate, and that the tests that the docs name are there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Every file of `core/src` that names one of `crates`, outside comments, is one of `doors`.
fn only(doors: &[&str], crates: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut through = 0;
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        if !code.into_iter().any(|line| crates.iter().any(|name| line.contains(name))) {
            continue;
        }
        let name = file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        assert!(doors.contains(&name.as_str()), "{name} names {crates:?}; only {doors:?} may");
        through += 1;
    }
    assert_eq!(through, doors.len(), "a door of {doors:?} is not used any more");
}

#[test]
fn one_file_imports_the_dynamodb_sdk() {
    only(&["table/dynamodb.rs"], &["aws_sdk_dynamodb"]);
}

#[test]
fn one_file_loads_aws_configuration() {
    only(&["store/aws.rs"], &["aws_config::", "aws_smithy_http_client::", "rustls::"]);
}

#[test]
fn one_file_deletes_objects_and_no_reader_lists_them() {
    only(&["upkeep/sweep.rs"], &["objects.delete(", "objects.halves("]);
    // Whether an era is free.
    only(&["restore.rs", "upkeep/sweep.rs"], &["objects.list("]);
}

#[test]
fn no_test_is_where_none_is_run() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/sim/src"), &mut files);
    assert!(!files.is_empty());
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(!text.contains("test]"), "{file:?}: its library says `test = false`");
    }
}

/// Names like `a_get_survives_everything_that_passes`, in back quotes, of three words and more.
fn tests_named_in(page: &str) -> BTreeSet<&str> {
    let word = |name: &&str| {
        let plain = |c: char| c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit();
        name.chars().all(plain) && name.matches('_').count() >= 2
    };
    page.split('`').skip(1).step_by(2).filter(word).collect()
}

#[test]
fn the_tests_that_the_docs_name_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    for folder in ["core", "cli", "functions", "tests"] {
        sources(&root.join(folder), &mut files);
    }
    let code: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    for page in ["FAULTS.md", "INVARIANTS.md"] {
        let text = std::fs::read_to_string(root.join("docs").join(page)).unwrap();
        let named = tests_named_in(&text);
        assert!(named.len() >= 5, "{page} names only {named:?}");
        let lost: Vec<_> = named.iter().filter(|name| !code.contains(&format!("fn {name}("))).collect();
        assert!(lost.is_empty(), "{page} names tests that are not there: {lost:?}");
    }
}
