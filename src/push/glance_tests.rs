//! Looks at single paths against scans of everything: both must come to the same.

use std::fs;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use super::record::{Hosts, Record};
use super::source::{open, scan_source};
use super::{Extent, GuardSettings, Kept, Paths, RecordJob, RootJob};
use crate::model::{RelPath, Stamp, Term, Timestamp};
use crate::observe::Silent;
use crate::plan::guard::DeleteLimit;
use crate::tree::Selection;

struct Place {
    directory: TempDir,
    kept: Arc<Kept>,
    cycles: u64,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("src")).unwrap();
        fs::write(directory.path().join("src/always"), "x").unwrap();
        Place { directory, kept: Arc::default(), cycles: 0 }
    }

    fn source(&self) -> std::path::PathBuf {
        self.directory.path().join("src")
    }

    fn job(&mut self, index: &str, extent: Extent, kept: Option<Arc<Kept>>) -> RootJob {
        self.cycles += 1;
        let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap();
        let record = RecordJob {
            file: self.directory.path().join(index),
            machine: "m".into(),
            filter: String::new(),
            stamp: Stamp(self.cycles),
            now: Timestamp { secs: i64::try_from(now.as_secs()).unwrap(), nanos: now.subsec_nanos() },
            verify_interval: Duration::from_secs(3600),
            full: false,
        };
        RootJob {
            fleet: Some("f".into()),
            name: "r".into(),
            path: self.source(),
            require: None,
            local_destinations: Vec::new(),
            selection: Selection { max_size_bytes: Some(5000), ..Selection::default() },
            delete_excluded: false,
            delete: true,
            checksum: false,
            attributes: false,
            extent,
            kept,
            watcher: None,
            looked: None,
            ended: None,
            unsent: None,
            dry_run: false,
            itemize: false,
            record: Some(record),
            memory: None,
            guard: GuardSettings { max_delete: DeleteLimit::Default, confirmed: Vec::new(), adopt: false },
            term: Term(0),
            primary: "p".into(),
            timeout: Duration::from_secs(30),
            parallel: 1,
            limiter: None,
            monitor: Arc::new(Silent),
            stop: tokio::sync::watch::channel(false).1,
        }
    }

    /// What the index says after a look at `extent`, and whether that was a scan of everything.
    fn looked(&mut self, index: &str, extent: Extent, kept: Option<Arc<Kept>>) -> (Vec<String>, bool) {
        let job = self.job(index, extent, kept);
        let root = open(&job).unwrap();
        let keep = job.record.clone().unwrap();
        let record = Record::open(&job, &keep, &root, &Hosts { names: &[], greeted: true }).unwrap();
        let source = scan_source(&job, root, Some(&record)).unwrap();
        let index = record.index.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = index.shared_files().unwrap();
        let mut lines = Vec::new();
        index
            .each_directory(&shared, &mut |dir| {
                lines.push(format!("{} {:?}", dir.path, dir.meta));
                lines.extend(dir.nodes.iter().map(|node| format!("{} {node:?}", dir.path)));
            })
            .unwrap();
        assert_eq!(source.counts.entries, index.entries().unwrap(), "entries are counted right");
        (lines, source.whole)
    }
}

#[derive(Clone, Debug)]
enum Edit {
    Write(u8, u16),
    Mkdir(u8),
    Remove(u8),
    Rename(u8, u8),
    Link(u8, u8),
    Symlink(u8),
    Mode(u8, bool),
    Ignore(u8),
}

fn name(number: u8) -> String {
    let names = ["a", "b", "c"];
    let at = |number: u8| names[usize::from(number % 3)];
    match number / 3 % 3 {
        0 => at(number).to_owned(),
        1 => format!("{}/{}", at(number / 9), at(number)),
        _ => format!("{}/{}/{}", at(number / 27), at(number / 9), at(number)),
    }
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let edit = prop_oneof![
        5 => (any::<u8>(), 0..6000u16).prop_map(|(path, size)| Edit::Write(path, size)),
        4 => any::<u8>().prop_map(Edit::Mkdir),
        2 => any::<u8>().prop_map(Edit::Remove),
        4 => (any::<u8>(), any::<u8>()).prop_map(|(from, to)| Edit::Rename(from, to)),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(from, to)| Edit::Link(from, to)),
        1 => any::<u8>().prop_map(Edit::Symlink),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(path, executable)| Edit::Mode(path, executable)),
        1 => any::<u8>().prop_map(Edit::Ignore),
    ];
    proptest::collection::vec(edit, 1..12)
}

/// Does it as far as it can be done, and says where something may have happened, as file events would.
fn apply(root: &Path, edit: &Edit, dirty: &mut Paths) {
    use std::os::unix::fs::PermissionsExt;
    let mut touch = |path: &str| {
        let arrives = matches!(edit, Edit::Mkdir(_) | Edit::Rename(..));
        *dirty.entry(RelPath::new(path.as_bytes()).unwrap()).or_default() |= arrives;
    };
    match edit {
        Edit::Write(path, size) => {
            let path = name(*path);
            if fs::write(root.join(&path), vec![b'x'; usize::from(*size)]).is_ok() {
                touch(&path);
            }
        }
        Edit::Mkdir(path) => {
            let path = name(*path);
            if fs::create_dir(root.join(&path)).is_ok() {
                touch(&path);
            }
        }
        Edit::Remove(path) => {
            let path = name(*path);
            let at = root.join(&path);
            if at.is_dir() && !at.is_symlink() {
                // Each entry has its own event; that of the directory alone has to be enough.
                if fs::remove_dir_all(&at).is_ok() {
                    touch(&path);
                }
            } else if fs::remove_file(&at).is_ok() {
                touch(&path);
            }
        }
        Edit::Rename(from, to) => {
            let (from, to) = (name(*from), name(*to));
            if fs::rename(root.join(&from), root.join(&to)).is_ok() {
                touch(&from);
                touch(&to);
            }
        }
        Edit::Link(from, to) => {
            let (from, to) = (name(*from), name(*to));
            if from != to && root.join(&from).is_file() && fs::remove_file(root.join(&to)).is_ok() {
                touch(&to);
            }
            if fs::hard_link(root.join(&from), root.join(&to)).is_ok() {
                // The kernel tells nothing of the other names.
                touch(&to);
            }
        }
        Edit::Symlink(path) => {
            let path = name(*path);
            if std::os::unix::fs::symlink("nowhere/at/all", root.join(&path)).is_ok() {
                touch(&path);
            }
        }
        Edit::Mode(path, executable) => {
            let path = name(*path);
            let at = root.join(&path);
            let mode = if *executable || at.is_dir() { 0o755 } else { 0o640 };
            if !at.is_symlink() && fs::set_permissions(&at, fs::Permissions::from_mode(mode)).is_ok() {
                touch(&path);
            }
        }
        Edit::Ignore(path) => {
            let dir = name(*path);
            let file = format!("{dir}/.rfleetignore");
            if fs::write(root.join(&file), "c\n").is_ok() {
                touch(&file);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn looking_where_something_happened_is_as_good_as_scanning(rounds in proptest::collection::vec(edits(), 1..6)) {
        let mut place = Place::new();
        let kept = Arc::clone(&place.kept);
        place.looked("by-looks", Extent::Whole, Some(Arc::clone(&kept)));
        for round in rounds {
            let mut dirty = Paths::new();
            let source = place.source();
            round.iter().for_each(|edit| apply(&source, edit, &mut dirty));
            let extent = Extent::Paths(Arc::new(dirty.clone()));
            let (by_looks, _) = place.looked("by-looks", extent, Some(Arc::clone(&kept)));
            let (by_scan, _) = place.looked("by-scan", Extent::Whole, None);
            prop_assert_eq!(by_looks, by_scan, "after {:?}, dirty {:?}", round, dirty);
        }
    }
}

#[test]
fn what_changed_in_one_place_takes_no_scan() {
    let mut place = Place::new();
    let kept = Arc::clone(&place.kept);
    let source = place.source();
    fs::create_dir_all(source.join("a/b")).unwrap();
    assert!(place.looked("index", Extent::Whole, Some(Arc::clone(&kept))).1);
    let mut look = |paths: &[&str]| {
        let paths = paths.iter().map(|path| (RelPath::new(path.as_bytes()).unwrap(), false)).collect();
        place.looked("index", Extent::Paths(Arc::new(paths)), Some(Arc::clone(&kept))).1
    };
    fs::write(source.join("a/b/f"), "x").unwrap();
    assert!(!look(&["a/b/f"]));
    fs::rename(source.join("a"), source.join("c")).unwrap();
    assert!(!look(&["a", "c"]), "a renamed directory is listed, nothing else");
    fs::remove_dir_all(source.join("c")).unwrap();
    assert!(!look(&["c/b/f"]), "found by what was in it");
    fs::write(source.join("large"), vec![0; 6000]).unwrap();
    assert!(look(&["large"]), "what is too large is for a scan to say");
    fs::write(source.join(".rfleetignore"), "x").unwrap();
    assert!(look(&[".rfleetignore"]), "patterns bear on everything");
    assert!(!look(&[]));
}

/// The kernel tells of the name that something is done by, which may be gone when it is looked at.
#[test]
fn what_was_done_by_a_name_that_went_with_its_directory_is_found_at_the_others() {
    type Change = fn(&Path);
    let renamed: Change = |source| fs::rename(source.join("d"), source.join("e")).unwrap();
    let removed: Change = |source| fs::remove_dir_all(source.join("d")).unwrap();
    for afterwards in [renamed, removed] {
        let mut place = Place::new();
        let kept = Arc::clone(&place.kept);
        let source = place.source();
        fs::create_dir_all(source.join("d/below")).unwrap();
        fs::write(source.join("f"), "x").unwrap();
        fs::hard_link(source.join("f"), source.join("d/below/f")).unwrap();
        place.looked("by-looks", Extent::Whole, Some(Arc::clone(&kept)));
        fs::write(source.join("d/below/f"), "more").unwrap();
        fs::remove_file(source.join("d/below/f")).unwrap();
        afterwards(&source);
        let paths = [("d/below/f", false), ("d", false), ("e", true)];
        let paths = paths.map(|(path, is_deep)| (RelPath::new(path.as_bytes()).unwrap(), is_deep));
        let extent = Extent::Paths(Arc::new(paths.into_iter().collect()));
        let (by_looks, whole) = place.looked("by-looks", extent, Some(kept));
        assert!(!whole);
        assert_eq!(by_looks, place.looked("by-scan", Extent::Whole, None).0);
    }
}
