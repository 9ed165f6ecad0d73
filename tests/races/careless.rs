//! What the races would find: a helper that goes by path, as any first draft does, is caught in each kind of work within
//! the time that rfleet is raced.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::time::Instant;

use rustix::fs::{XattrFlags, setxattr};

use super::support::flipper::{Flip, Flipper, OUTSIDE_NAME, SECRET, be_flipper};
use super::{Arena, RACED};

/// Work in the directory `w/d` below a root; whether it came by something that is outside only.
type Work = fn(&Path) -> bool;

/// Nothing that is done here tells; what it does is looked for outside.
fn blind<T>(_: T) -> bool {
    false
}

const WORKS: [(&str, Work); 14] = [
    ("open", |root| blind(fs::write(root.join("w/d/new"), "x"))),
    ("chmod", |root| blind(fs::set_permissions(root.join("w/d/f"), fs::Permissions::from_mode(0o604)))),
    ("chown", |root| blind(chown(root.join("w/d/f"), Some(4711), None))),
    ("utimes", |root| {
        blind(fs::File::open(root.join("w/d/f")).and_then(|file| file.set_modified(std::time::UNIX_EPOCH)))
    }),
    ("rename", |root| {
        blind(fs::rename(root.join("w/d/secret"), root.join("w/d/other")))
            || blind(fs::rename(root.join("w/d/other"), root.join("w/d/secret")))
    }),
    ("unlink", |root| blind(fs::remove_file(root.join("w/d/secret")))),
    ("mkdir", |root| blind(fs::create_dir(root.join("w/d/new-dir")))),
    ("symlink", |root| blind(symlink("x", root.join("w/d/new-link")))),
    ("link", |root| blind(fs::hard_link(root.join("told"), root.join("w/d/new-name")))),
    ("rmdir", |root| blind(fs::remove_dir(root.join("w/d/made")))),
    ("setxattr", |root| blind(setxattr(root.join("w/d/f"), "user.race", b"x", XattrFlags::empty()))),
    ("listing", |root| {
        let names = fs::read_dir(root.join("w/d")).into_iter().flatten().flatten();
        names.map(|entry| entry.file_name()).any(|name| name == OUTSIDE_NAME)
    }),
    ("read", |root| fs::read(root.join("w/d/secret")).is_ok_and(|content| content == SECRET.as_bytes())),
    ("stat and open", |root| {
        // A look beforehand does not help.
        let at = root.join("w/d/secret");
        let is_inside = fs::canonicalize(&at).is_ok_and(|path| path.starts_with(root));
        is_inside && fs::read(&at).is_ok_and(|content| content == SECRET.as_bytes())
    }),
];

#[test]
fn a_careless_helper_would_have_been_caught() {
    if be_flipper() {
        return;
    }
    for (what, work) in WORKS {
        let arena = Arena::new();
        let test = "careless::a_careless_helper_would_have_been_caught";
        let _flipper = Flipper::start(test, &arena.root, Flip::Directory);
        let began = Instant::now();
        let mut rounds = 0u64;
        let mut caught = false;
        while !caught && began.elapsed() < RACED {
            caught = work(&arena.root);
            rounds += 1;
            if rounds.is_multiple_of(64) && !caught {
                caught = !arena.outside.differences().is_empty();
            }
        }
        assert!(caught, "{what} by path was not led outside in {rounds} rounds");
    }
}

/// A read leaves a trace, on which the races rely.
#[test]
fn what_is_read_outside_is_seen() {
    let arena = Arena::new();
    arena.outside.assert_untouched("nothing was done");
    fs::read(arena.root.join("w/l")).unwrap();
    assert_eq!(arena.outside.differences().len(), 1);
}
