//! `docs/security.md` has a row for every class of attack, and each row names a test or says that it is open. (That the
//! tests exist is for `architecture` to see.)

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

/// Numbers that no row has: they belong to no class.
const UNUSED: [u32; 3] = [12, 32, 35];

fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/security.md")).unwrap()
}

/// What stands in backquotes in the last cell of a row.
fn named(row: &str) -> Vec<&str> {
    let cells: Vec<&str> = row.trim().trim_matches('|').split('|').collect();
    cells.last().unwrap().split('`').skip(1).step_by(2).collect()
}

fn rows(page: &str) -> impl Iterator<Item = &str> {
    page.lines().filter(|line| line.starts_with('|') && !line.starts_with("|---"))
}

#[test]
fn every_class_has_a_row_and_a_test_or_is_open() {
    let page = page();
    for number in (1..=40).filter(|number| !UNUSED.contains(number)) {
        let start = format!("| S{number:02} |");
        let found: Vec<&str> = rows(&page).filter(|row| row.starts_with(&start)).collect();
        let [row] = found.as_slice() else { panic!("S{number:02} has {} rows", found.len()) };
        assert!(!named(row).is_empty() || row.contains("open:"), "{row}");
    }
}
