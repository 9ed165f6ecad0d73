//! Looks for something below a directory.

use std::io;
use std::mem::MaybeUninit;

use super::beneath::Root;
use crate::model::RelPath;

const LIST_BUFFER_BYTES: usize = 32 * 1024;

/// The first path at or below `path` for which `is` holds, in no particular order; `None` if there is none, or nothing
/// is at `path`. Follows no link.
///
/// RACE: what comes to be there meanwhile may be missed.
///
/// # Errors
/// A directory cannot be listed, or something lies deeper than a path can say: it is not known then.
pub fn find_below(root: &Root, path: &RelPath, is: &dyn Fn(&RelPath) -> bool) -> io::Result<Option<RelPath>> {
    let mut buffer = vec![MaybeUninit::uninit(); LIST_BUFFER_BYTES];
    let mut ahead = vec![path.clone()];
    while let Some(path) = ahead.pop() {
        if is(&path) {
            return Ok(Some(path));
        }
        let dir = match root.dir(&path) {
            Ok(dir) => dir,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => continue,
            Err(error) => return Err(error),
        };
        let mut found = None;
        dir.each_name(&mut buffer, &mut |name| {
            // Another root's own is no path, and not ours to judge.
            if name.to_bytes() == crate::model::RESERVED_NAME {
                return Ok(());
            }
            let child =
                path.join(name.to_bytes()).map_err(|_| io::Error::other("it is too deep to be looked through"))?;
            if is(&child) {
                found.get_or_insert(child);
            } else if dir.stat(name.to_bytes()).is_ok_and(|stat| stat.is_directory()) {
                ahead.push(child);
            }
            Ok(())
        })?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}
