//! The operations on hard and symbolic links.

use std::fs;
use std::os::unix::fs::symlink;

use super::{Done, Editor, Kind};

impl Editor {
    pub(super) fn link(&mut self) -> Done {
        let Some(from) = self.linkable() else { return Ok(None) };
        let to = self.free(None);
        fs::hard_link(self.at(&from), self.at(&to))?;
        Ok(Some(format!("{from} {to}")))
    }

    pub(super) fn unlink(&mut self) -> Done {
        let Some(path) = self.linked() else { return Ok(None) };
        fs::remove_file(self.at(&path))?;
        Ok(Some(path))
    }

    pub(super) fn rename_link(&mut self) -> Done {
        let Some(from) = self.linked() else { return Ok(None) };
        // Over another name of the same file this does nothing, as POSIX has it.
        let Some(to) = self.one(|path, kind| kind == Kind::File && path != from) else { return Ok(None) };
        self.rename(&from, &to)?;
        Ok(Some(format!("{from} {to}")))
    }

    pub(super) fn symlink(&mut self) -> Done {
        let path = self.free(None);
        symlink(self.name(), self.at(&path))?;
        Ok(Some(path))
    }

    pub(super) fn retarget(&mut self) -> Done {
        let Some(path) = self.one(|_, kind| kind == Kind::Link) else { return self.symlink() };
        fs::remove_file(self.at(&path))?;
        symlink(format!("to-{}", self.fresh()), self.at(&path))?;
        Ok(Some(path))
    }
}
