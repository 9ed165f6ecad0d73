//! Looks for something below a directory.

use std::io;
use std::mem::MaybeUninit;

use super::beneath::Root;
use crate::model::RelPath;

const LIST_BUFFER_BYTES: usize = 32 * 1024;

/// The first path at or below `path` for which `is` holds, in no particular order; `None` if there is none. `is` is told
/// whether it is a directory, and asked of `path` itself as of one, also if nothing is there. Follows no link.
///
/// RACE: what comes to be there meanwhile may be missed.
///
/// # Errors
/// A directory cannot be listed, or something lies deeper than a path can say: it is not known then.
pub fn find_below(
    root: &Root,
    path: &RelPath,
    is: &mut dyn FnMut(&RelPath, bool) -> bool,
) -> io::Result<Option<RelPath>> {
    if is(path, true) {
        return Ok(Some(path.clone()));
    }
    let mut buffer = vec![MaybeUninit::uninit(); LIST_BUFFER_BYTES];
    let mut ahead = vec![path.clone()];
    while let Some(path) = ahead.pop() {
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
            let is_directory = dir.stat(name.to_bytes()).is_ok_and(|stat| stat.is_directory());
            if is(&child, is_directory) {
                found.get_or_insert(child);
            } else if is_directory {
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
