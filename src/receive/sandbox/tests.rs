//! On a thread of its own each, since a confinement is for good.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, OFlags, RenameFlags, XattrFlags, mknodat, open, renameat_with, setxattr};
use rustix::io::Errno;
use rustix::process::{getppid, test_kill_process};
use tempfile::TempDir;

use super::*;
use crate::model::Owners;
use crate::tree::SystemOwners;

struct Place {
    directory: TempDir,
}

impl Place {
    fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let place = Place { directory: TempDir::new_in(place).unwrap() };
        for name in ["root", "other", "outside"] {
            fs::create_dir_all(place.at(name).join("d")).unwrap();
            fs::write(place.at(name).join("f"), "x").unwrap();
        }
        place
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn roots(&self, names: &[&str]) -> Roots {
        Roots { named: names.iter().map(|name| ((*name).to_owned(), self.at(name))).collect(), unnamed: None }
    }
}

/// Does `work` on a thread of its own.
fn alone(work: impl FnOnce() + Send) {
    std::thread::scope(|scope| scope.spawn(work).join().unwrap());
}

fn errno<T>(result: io::Result<T>) -> Option<Errno> {
    result.err().as_ref().and_then(Errno::from_io_error)
}

fn enter(roots: &Roots) -> Sandbox {
    let sandbox = Sandbox::enter(true, roots);
    assert_eq!(sandbox.note(), None, "these tests need a kernel with Landlock");
    sandbox
}

fn assert_free(root: &Path) {
    fs::write(root.join("new"), "text").unwrap();
    assert_eq!(fs::read_to_string(root.join("new")).unwrap(), "text");
    OpenOptions::new().write(true).open(root.join("new")).unwrap().set_len(2).unwrap();
    // As content gets to its place, and into the attic.
    fs::rename(root.join("new"), root.join("d/new")).unwrap();
    fs::write(root.join("new"), "x").unwrap();
    renameat_with(CWD, root.join("new"), CWD, root.join("d/new"), RenameFlags::EXCHANGE).unwrap();
    fs::hard_link(root.join("new"), root.join("d/link")).unwrap();
    symlink("anywhere", root.join("symlink")).unwrap();
    mknodat(CWD, root.join("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    fs::create_dir(root.join("directory")).unwrap();
    fs::rename(root.join("directory"), root.join("d/directory")).unwrap();
    fs::remove_dir(root.join("d/directory")).unwrap();
    // Over the magic link of a handle.
    let named = open(root.join("pipe"), OFlags::PATH | OFlags::NOFOLLOW, Mode::empty()).unwrap();
    let magic = format!("/proc/self/fd/{}", named.as_raw_fd());
    fs::set_permissions(&magic, Permissions::from_mode(0o640)).unwrap();
    setxattr(root.join("new"), "user.a", b"1", XattrFlags::empty()).unwrap();
    for name in ["new", "d/new", "d/link", "symlink", "pipe"] {
        fs::remove_file(root.join(name)).unwrap();
    }
}

fn assert_closed(directory: &Path, root: &Path) {
    let denied = Some(Errno::ACCESS);
    assert_eq!(errno(File::open(directory.join("f"))), denied);
    assert_eq!(errno(OpenOptions::new().append(true).open(directory.join("f"))), denied);
    assert_eq!(errno(fs::write(directory.join("new"), "x")), denied);
    assert_eq!(errno(fs::read_dir(directory)), denied);
    assert_eq!(errno(fs::create_dir(directory.join("new"))), denied);
    assert_eq!(errno(fs::remove_file(directory.join("f"))), denied);
    assert_eq!(errno(fs::remove_dir(directory.join("d"))), denied);
    assert_eq!(errno(symlink("x", directory.join("new"))), denied);
    assert_eq!(errno(mknodat(CWD, directory.join("new"), FileType::Fifo, Mode::RUSR, 0).map_err(Into::into)), denied);
    for (from, to) in [(root, directory), (directory, root)] {
        for moved in [fs::rename(from.join("f"), to.join("new")), fs::hard_link(from.join("f"), to.join("new"))] {
            assert!(matches!(errno(moved), Some(Errno::ACCESS | Errno::XDEV)), "{}", from.display());
        }
    }
}

#[test]
fn a_confined_process_does_everything_in_its_root_and_nothing_outside() {
    let place = Place::new();
    alone(|| {
        enter(&place.roots(&["root"]));
        let (root, outside) = (place.at("root"), place.at("outside"));
        assert_free(&root);
        assert_closed(&outside, &root);
        // Threads that it starts are as confined.
        alone(|| assert_closed(&outside, &root));
        // A link in the root leads nowhere else.
        symlink(&outside, root.join("out")).unwrap();
        assert_eq!(errno(File::open(root.join("out/f"))), Some(Errno::ACCESS));
        assert_eq!(errno(File::open("/etc/shadow")), Some(Errno::ACCESS));
    });
    assert_eq!(fs::read_to_string(place.at("outside").join("f")).unwrap(), "x");
    assert!(File::open(place.at("outside/f")).is_ok(), "the other threads are free");
}

#[test]
fn nothing_is_executed_connected_to_or_signalled() {
    let place = Place::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let name = format!("rfleet-test-{}", std::process::id());
    let abstract_name = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
    let _abstract = UnixListener::bind_addr(&abstract_name).unwrap();
    let program = place.at("root/program");
    fs::copy("/bin/true", &program).unwrap();
    let connects = || (errno(TcpStream::connect(address)), errno(UnixStream::connect_addr(&abstract_name)));
    assert_eq!(connects(), (None, None));
    assert_eq!(test_kill_process(getppid().unwrap()), Ok(()));
    alone(|| {
        enter(&place.roots(&["root"]));
        assert_eq!(errno(Command::new(&program).status()), Some(Errno::ACCESS));
        assert_eq!(errno(Command::new("/bin/true").status()), Some(Errno::ACCESS));
        assert_eq!(connects(), (Some(Errno::ACCESS), Some(Errno::PERM)));
        assert_eq!(errno(TcpListener::bind("127.0.0.1:0")), Some(Errno::ACCESS));
        assert_eq!(test_kill_process(getppid().unwrap()), Err(Errno::PERM));
        let status = fs::read_to_string("/proc/self/task/self/status")
            .or_else(|_| fs::read_to_string("/proc/thread-self/status"));
        assert!(status.unwrap().contains("NoNewPrivs:\t1"));
    });
}

#[test]
fn users_and_groups_are_known_by_name() {
    let place = Place::new();
    alone(|| {
        enter(&place.roots(&["root"]));
        let owners = SystemOwners::new();
        assert_eq!((owners.user_id("root"), owners.group_name(0).as_deref()), (Some(0), Some("root")));
        assert_eq!(owners.user_id("no-such-user-here"), None);
    });
}

#[test]
fn each_step_narrows_the_one_before() {
    let place = Place::new();
    alone(|| {
        let mut sandbox = enter(&place.roots(&["root", "other"]));
        assert_eq!(sandbox.only, None);
        assert_free(&place.at("root"));
        assert_free(&place.at("other"));
        assert_closed(&place.at("outside"), &place.at("root"));
        sandbox.narrow(&place.at("root"));
        assert_free(&place.at("root"));
        assert_closed(&place.at("other"), &place.at("root"));
        // There is no way back.
        sandbox.narrow(&place.at("other"));
        assert_closed(&place.at("other"), &place.at("root"));
        assert_eq!(sandbox.note(), None);
    });
}

#[test]
fn a_root_that_is_not_there_can_be_made_and_is_all_that_is_left_then() {
    let (place, elsewhere) = (Place::new(), Place::new());
    let new = place.at("new");
    alone(|| {
        let mut sandbox = enter(&place.roots(&["new"]));
        sandbox.narrow(&new);
        assert_eq!(sandbox.only, None, "the directory above it is more than the root");
        assert_closed(&elsewhere.at("outside"), &place.at("root"));
        Root::open_or_create(&new).unwrap();
        sandbox.narrow(&new);
        assert_eq!(sandbox.only, Some(new.clone()));
        fs::create_dir(new.join("d")).unwrap();
        fs::write(new.join("f"), "x").unwrap();
        assert_free(&new);
        assert_closed(&place.at("outside"), &new);
    });
}

#[test]
fn links_of_the_operator_on_the_way_to_a_root_are_followed() {
    let place = Place::new();
    symlink(place.at("root"), place.at("link")).unwrap();
    alone(|| {
        let mut sandbox = enter(&place.roots(&["link"]));
        sandbox.narrow(&place.at("link"));
        assert_free(&place.at("root"));
        assert_free(&place.at("link"));
        assert_closed(&place.at("outside"), &place.at("root"));
        assert!(Root::open(&place.at("link")).is_ok());
    });
}

#[test]
fn without_a_root_or_without_the_wish_nothing_is_in_the_way_of_telling_so() {
    let place = Place::new();
    alone(|| {
        assert_eq!(Sandbox::enter(false, &place.roots(&["root"])).note(), None);
        assert!(File::open(place.at("outside/f")).is_ok());
        // Of roots that cannot be opened nothing is allowed.
        enter(&place.roots(&["root/f", "nowhere/at/all"]));
        assert!(matches!(Root::open(&place.at("root/f")), Err(RootError::NotADirectory(_))));
        assert!(matches!(Root::open(&place.at("nowhere/at/all")), Err(RootError::Missing(_))));
        assert_eq!(errno(File::open(place.at("root/f"))), Some(Errno::ACCESS));
        io::stderr().write_all(b"").unwrap();
    });
}
