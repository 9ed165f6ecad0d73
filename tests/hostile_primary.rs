//! A primary that does not keep to the protocol, in every state of a receiver: the receiver ends in order, at once and
//! cheaply, and nothing outside the root, nor anything that was not legally changed, is another than before.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "hostile_primary/content.rs"]
mod content;
#[path = "hostile_primary/flood.rs"]
mod flood;
#[path = "hostile_primary/states.rs"]
mod states;
mod support;

use std::fs;
use std::path::PathBuf;

use support::victim::{Ended, Victim};
use support::{Scratch, Snapshot, Tree};

/// A root with something in it, and what lies beside it and must stay as it is.
struct Place {
    scratch: Scratch,
    root: PathBuf,
    outside: PathBuf,
    before: Snapshot,
}

impl Place {
    fn new() -> Self {
        let scratch = Scratch::new();
        let (root, outside) = (scratch.path("root"), scratch.path("outside"));
        Tree::new().file("secret", "sentinel").mode(0o640).dir("dir").create(&outside);
        let old = b"old content ".repeat(10_000);
        Tree::new()
            .file("file", "text")
            .file("dir/inner", "inner")
            .file("large", old)
            .link("link", outside.to_str().unwrap())
            .create(&root);
        let before = Snapshot::take(&outside);
        Self { scratch, root, outside, before }
    }

    /// A receiver that loses its patience soon.
    fn victim(&self) -> Victim {
        Victim::start(&self.scratch, &self.root, "timeout = \"2s\"")
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::take(&self.root)
    }

    /// Nothing of the stage is left, and nothing outside was touched.
    fn assert_safe(&self, what: &str) {
        let now = Snapshot::take(&self.outside);
        assert!(now.entries == self.before.entries, "{what}: something outside the root is another than before");
        assert!(!self.root.join(".rfleet/stage").exists(), "{what}: the stage is left");
    }

    /// The session failed in order, and the tree is what it was.
    fn assert_refused(&self, before: &Snapshot, ended: &Ended, what: &str) {
        ended.assert_failed_in_order(what);
        self.assert_safe(what);
        let now = self.snapshot();
        for (name, entry) in &before.entries {
            // A root that is worked on has its own record, and with it another time.
            if !name.is_empty() {
                assert!(now.entries.get(name) == Some(entry), "{what}: {} changed", String::from_utf8_lossy(name));
            }
        }
        let is_new = |name: &&Vec<u8>| !before.entries.contains_key(*name) && !name.starts_with(b".rfleet");
        assert_eq!(now.entries.keys().find(is_new), None, "{what}");
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.root.join(name)).unwrap()
    }
}
