//! The oracle: Debian's rsync must find nothing to do between a source and its copy.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

/// Panics with rsync's itemized lines when it would change anything in `copy`.
///
/// `.rfleet` is state of a configured destination, never a part of the tree.
pub fn assert_rsync_agrees(source: &Path, copy: &Path) {
    let slash = |path: &Path| {
        let mut text = OsString::from(path);
        text.push("/");
        text
    };
    let output = Command::new("rsync")
        .args(["-aHX", "--numeric-ids", "-n", "-i", "--delete", "--checksum", "--exclude=.rfleet"])
        .args([slash(source), slash(copy)])
        .env("LC_ALL", "C")
        .output()
        .unwrap_or_else(|e| panic!("cannot run rsync: {e}; tests/run installs it"));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.trim().is_empty(),
        "rsync finds differences between {} and {} ({}):\n{said}{}",
        source.display(),
        copy.display(),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}
