//! The operations on hard and symbolic links.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::super::tree::{set_mode, set_time};
use super::{Done, Editor, Kind, join, parent_of};

impl Editor {
    pub(super) fn link(&mut self) -> Done {
        let Some(from) = self.file() else { return Ok(None) };
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

    pub(super) fn rename_over_link(&mut self) -> Done {
        let Some(to) = self.linked() else { return Ok(None) };
        let Some(from) = self.one(|path, kind| kind == Kind::File && path != to) else { return Ok(None) };
        self.rename(&from, &to)?;
        Ok(Some(format!("{from} {to}")))
    }

    pub(super) fn link_across(&mut self) -> Done {
        let Some(from) = self.file() else { return Ok(None) };
        let parent = parent_of(&from).to_owned();
        let Some(dir) = self.one(|path, kind| kind == Kind::Dir && path != parent) else { return self.link() };
        let to = join(&dir, &format!("l{}", self.fresh()));
        fs::hard_link(self.at(&from), self.at(&to))?;
        Ok(Some(format!("{from} {to}")))
    }

    /// As what finds equal files makes them one.
    pub(super) fn link_over(&mut self) -> Done {
        let Some(from) = self.file() else { return Ok(None) };
        let Some(to) = self.one(|path, kind| kind == Kind::File && path != from) else { return Ok(None) };
        let aside = format!("{to}.link");
        fs::hard_link(self.at(&from), self.at(&aside))?;
        self.rename(&aside, &to)?;
        // Where both were names of one file already, the rename did nothing.
        let _ = fs::remove_file(self.at(&aside));
        Ok(Some(format!("{from} {to}")))
    }

    /// The name gets a file of its own with the same content, and the same time or another.
    pub(super) fn break_link(&mut self) -> Done {
        let Some(path) = self.linked() else { return Ok(None) };
        let (old, new) = (self.at(&path), self.at(&format!("{path}.part")));
        fs::copy(&old, &new)?;
        let keeps = self.rng.chance(2);
        if keeps {
            let before = fs::metadata(&old)?;
            set_time(&new, (before.mtime(), before.mtime_nsec()));
        } else {
            self.stamp_surely(&new);
        }
        fs::rename(new, old)?;
        Ok(Some(format!("{path}{}", if keeps { ", same time" } else { "" })))
    }

    /// Two names of different files change places.
    pub(super) fn exchange_links(&mut self) -> Done {
        let Some(one) = self.linked() else { return Ok(None) };
        let root = self.root.clone();
        let inode = |path: &str| fs::symlink_metadata(root.join(path)).map(|m| (m.ino(), m.nlink() > 1)).unwrap();
        let own = inode(&one).0;
        let other = self.one(|path, kind| kind == Kind::File && inode(path).1 && inode(path).0 != own);
        let Some(other) = other else { return Ok(None) };
        renameat_with(CWD, self.at(&one), CWD, self.at(&other), RenameFlags::EXCHANGE)?;
        Ok(Some(format!("{one} {other}")))
    }

    pub(super) fn chmod_link(&mut self) -> Done {
        let Some(path) = self.linked() else { return Ok(None) };
        let mode = *self.rng.pick(&[0o644, 0o600, 0o755, 0o444]);
        set_mode(&self.at(&path), mode);
        Ok(Some(format!("{mode:o} {path}")))
    }

    pub(super) fn append_to_link(&mut self) -> Done {
        let Some(path) = self.linked() else { return Ok(None) };
        self.append_to(path)
    }

    pub(super) fn rewrite_link(&mut self) -> Done {
        let Some(path) = self.linked() else { return Ok(None) };
        self.rewrite_at(path)
    }

    /// The name by which a listing tells the others goes.
    pub(super) fn unlink_first(&mut self) -> Done {
        let Some(one) = self.linked() else { return Ok(None) };
        let inode = |path: &str| fs::symlink_metadata(self.at(path)).map(|m| m.ino()).ok();
        let files = self.list().into_iter().filter(|(_, kind)| *kind == Kind::File).map(|(path, _)| path);
        let names = files.filter(|path| inode(path) == inode(&one));
        let in_order = |path: &String| {
            let dir: Vec<String> = parent_of(path).split('/').map(str::to_owned).collect();
            (dir, path.clone())
        };
        let Some(first) = names.min_by_key(in_order) else { return Ok(None) };
        fs::remove_file(self.at(&first))?;
        Ok(Some(first))
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
