//! Opening the file: whoever can change it can run commands as rfleet's user, so a file that others
//! can write, or that another user owns or planted, is refused.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::error::ConfigError;

/// Largest file that is read; a fleet of ten thousand hosts fits.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Permission bits that let group or others write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Reads the file after checking that it can be trusted. The checks are made on the opened file.
///
/// # Errors
/// `Read` if it cannot be read, `Untrusted` if it is not a regular file of root or of the effective
/// user that only its owner can write, is too large, or lies behind a link that someone else made.
pub(super) fn read(path: &Path) -> Result<String, ConfigError> {
    let refuse = |problem: String| ConfigError::Untrusted { path: path.to_owned(), problem };
    let failed = |source: io::Error| ConfigError::Read { path: path.to_owned(), source };
    let file = open(path).map_err(failed)?.ok_or_else(|| {
        refuse("it is a symbolic link that neither root nor you own; give the real file to --config".to_owned())
    })?;
    let found = file.metadata().map_err(failed)?;
    if !found.is_file() {
        return Err(refuse("it is not a regular file".to_owned()));
    }
    if !is_trusted(found.uid()) {
        let way_out = format!("chown {} {}", geteuid().as_raw(), path.display());
        return Err(refuse(format!("user {} owns it, not root or you; `{way_out}`", found.uid())));
    }
    if found.mode() & WRITABLE_BY_OTHERS != 0 {
        let mode = found.mode() & 0o7777;
        return Err(refuse(format!(
            "others than its owner can write it (mode {mode:04o}); `chmod go-w {}`",
            path.display()
        )));
    }
    let too_large = || refuse(format!("it is larger than {MAX_FILE_BYTES} bytes"));
    if found.len() > MAX_FILE_BYTES {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_FILE_BYTES {
        return Err(too_large());
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + valid.iter().filter(|&&byte| byte == b'\n').count();
        ConfigError::Syntax { path: path.to_owned(), line, problem: "the file is not UTF-8".to_owned() }
    })
}

/// Opens `path` without blocking on a FIFO; `None` if it is a symlink of someone untrusted.
fn open(path: &Path) -> io::Result<Option<File>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    match rustix::fs::open(path, flags | OFlags::NOFOLLOW, Mode::empty()) {
        Err(Errno::LOOP) => {
            // RACE: the link can be exchanged between the check and the open. Who can do that can
            // name any file, but its owner and mode are checked on the handle all the same.
            if !is_trusted(fs::symlink_metadata(path)?.uid()) {
                return Ok(None);
            }
            Ok(Some(rustix::fs::open(path, flags, Mode::empty())?.into()))
        }
        opened => Ok(Some(opened?.into())),
    }
}

fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::PathBuf;

    use rstest::rstest;

    fn file(dir: &tempfile::TempDir, content: &[u8], mode: u32) -> PathBuf {
        let path = dir.path().join("rfleet.toml");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[rstest]
    #[case(0o600)]
    #[case(0o644)]
    #[case(0o440)]
    fn a_file_that_only_its_owner_writes_is_read(#[case] mode: u32) {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(&file(&dir, b"version = 1\n", mode)).unwrap(), "version = 1\n");
    }

    #[rstest]
    #[case(0o664)]
    #[case(0o646)]
    #[case(0o666)]
    fn a_file_that_others_write_is_refused(#[case] mode: u32) {
        let dir = tempfile::tempdir().unwrap();
        let path = file(&dir, b"", mode);
        let message = read(&path).unwrap_err().to_string();
        assert!(message.contains(&format!("`chmod go-w {}`", path.display())), "{message}");
        assert!(message.contains(&format!("mode 0{mode:o}")), "{message}");
    }

    #[test]
    fn another_users_file_or_link_is_refused() {
        if !geteuid().is_root() {
            // Only root can give files away; the check itself is a comparison of two numbers.
            assert!(!is_trusted(geteuid().as_raw().wrapping_add(1)));
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = file(&dir, b"", 0o600);
        let link = dir.path().join("link");
        symlink(&path, &link).unwrap();
        std::os::unix::fs::lchown(&link, Some(12345), None).unwrap();
        let message = read(&link).unwrap_err().to_string();
        assert!(message.contains("symbolic link that neither root nor you own"), "{message}");
        std::os::unix::fs::chown(&path, Some(12345), None).unwrap();
        let message = read(&path).unwrap_err().to_string();
        assert!(message.contains("user 12345 owns it") && message.contains("`chown 0 "), "{message}");
    }

    #[test]
    fn an_own_link_is_followed_and_its_target_checked() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(&dir, b"x", 0o600);
        let link = dir.path().join("link");
        symlink(&path, &link).unwrap();
        assert_eq!(read(&link).unwrap(), "x");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(matches!(read(&link), Err(ConfigError::Untrusted { .. })));
    }

    #[test]
    fn what_is_not_a_regular_file_is_refused_without_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, Mode::RUSR).unwrap();
        for path in [dir.path(), &fifo] {
            let message = read(path).unwrap_err().to_string();
            assert!(message.contains("not a regular file"), "{message}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let message = read(Path::new("/nonexistent/rfleet.toml")).unwrap_err().to_string();
        assert!(
            message.starts_with("/nonexistent/rfleet.toml: cannot read the configuration: No such file"),
            "{message}"
        );
    }

    #[test]
    fn a_file_over_the_limit_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let limit = usize::try_from(MAX_FILE_BYTES).unwrap();
        assert!(read(&file(&dir, &vec![b'#'; limit], 0o600)).is_ok());
        let message = read(&file(&dir, &vec![b'#'; limit + 1], 0o600)).unwrap_err().to_string();
        assert!(message.contains("larger than 1048576 bytes"), "{message}");
    }

    #[test]
    fn a_byte_that_is_not_utf8_is_named_by_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(&dir, b"version = 1\nfleet = \"\xff\"\n", 0o600);
        let message = read(&path).unwrap_err().to_string();
        assert_eq!(message, format!("{}:2: not valid TOML: the file is not UTF-8", path.display()));
    }
}
