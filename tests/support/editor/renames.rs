//! The operations that move names around.

use std::fs;
use std::os::unix::fs::symlink;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::super::copy::plain_copy;
use super::{Done, Editor, Kind, NAMES, is_below, join, parent_of};

impl Editor {
    pub(super) fn rename_file(&mut self) -> Done {
        let Some(from) = self.one(|_, kind| kind != Kind::Dir) else { return Ok(None) };
        let to = self.free(None);
        self.rename(&from, &to)?;
        Ok(Some(format!("{from} {to}")))
    }

    pub(super) fn rename_over_file(&mut self) -> Done {
        let Some(from) = self.one(|_, kind| kind != Kind::Dir) else { return Ok(None) };
        let Some(to) = self.one(|path, kind| kind != Kind::Dir && path != from) else { return Ok(None) };
        self.rename(&from, &to)?;
        Ok(Some(format!("{from} {to}")))
    }

    pub(super) fn rename_dir(&mut self) -> Done {
        let Some(from) = self.dir() else { return Ok(None) };
        let to = self.free(Some(&from));
        self.rename(&from, &to)?;
        Ok(Some(format!("{from} {to}")))
    }

    pub(super) fn rename_into(&mut self) -> Done {
        let Some(from) = self.dir() else { return Ok(None) };
        let Some(into) = self.one(|path, kind| kind == Kind::Dir && path != from && !is_below(path, &from)) else {
            return Ok(None);
        };
        let to = join(&into, from.rsplit('/').next().unwrap());
        // May be itself, or taken: then it says so.
        self.rename(&from, &to)?;
        Ok(Some(format!("{from} {to}")))
    }

    pub(super) fn rename_over_dir(&mut self) -> Done {
        let Some(from) = self.dir() else { return Ok(None) };
        let root = self.root.clone();
        let is_empty = |path: &str| fs::read_dir(root.join(path)).unwrap().next().is_none();
        let there =
            self.one(|path, kind| kind == Kind::Dir && path != from && !is_below(path, &from) && is_empty(path));
        let to = match there {
            Some(to) => to,
            None => {
                let to = self.free(Some(&from));
                fs::create_dir(self.at(&to))?;
                to
            }
        };
        self.rename(&from, &to)?;
        Ok(Some(format!("{from} {to}")))
    }

    pub(super) fn swap(&mut self) -> Done {
        let Some((one, other)) = self.two() else { return Ok(None) };
        let aside = self.free(Some(&one));
        // Where the name aside lies in the other, this goes back and forth all the same.
        self.rename(&one, &aside)?;
        self.rename(&other, &one)?;
        let aside = if is_below(&aside, &other) { aside.replacen(&other, &one, 1) } else { aside };
        self.rename(&aside, &other)?;
        Ok(Some(format!("{one} {other}")))
    }

    pub(super) fn exchange(&mut self) -> Done {
        let Some((one, other)) = self.two() else { return Ok(None) };
        renameat_with(CWD, self.at(&one), CWD, self.at(&other), RenameFlags::EXCHANGE)?;
        Ok(Some(format!("{one} {other}")))
    }

    /// Every name gets what the next one had.
    pub(super) fn chain(&mut self) -> Done {
        let Some(first) = self.any() else { return Ok(None) };
        let parent = first.rsplit_once('/').map_or("", |(parent, _)| parent).to_owned();
        let mut row: Vec<String> =
            self.list().into_iter().map(|(path, _)| path).filter(|path| parent_of(path) == parent).collect();
        if self.rng.chance(2) {
            row.reverse();
        }
        row.truncate(4);
        let free = self.free(Some(&row[0]));
        self.rename(&row[0], &free)?;
        for pair in row.windows(2) {
            self.rename(&pair[1], &pair[0])?;
        }
        Ok(Some(format!("{free} <- {}", row.join(" <- "))))
    }

    /// `mv site old; mv new site; rm -r old`, where the new one is another tree or a changed copy.
    pub(super) fn deploy(&mut self) -> Done {
        let Some(site) = self.dir() else { return Ok(None) };
        let new = self.free(Some(&site));
        if self.rng.chance(2) {
            plain_copy(&self.at(&site), &self.at(&new));
            self.write(&join(&new, "release"))?;
        } else {
            fs::create_dir(self.at(&new))?;
            for name in &NAMES[..1 + self.rng.below(3)] {
                self.write(&join(&new, name))?;
            }
        }
        let old = format!("{site}.{}", self.fresh());
        self.rename(&site, &old)?;
        self.rename(&new, &site)?;
        let keeps = self.rng.chance(4);
        if !keeps {
            fs::remove_dir_all(self.at(&old))?;
        }
        Ok(Some(format!("{site} from {new}, {} {old}", if keeps { "keeps" } else { "rm -r" })))
    }

    pub(super) fn wrap(&mut self) -> Done {
        let Some(from) = self.any() else { return Ok(None) };
        let dir = self.free(Some(&from));
        fs::create_dir(self.at(&dir))?;
        let to = join(&dir, self.name());
        self.rename(&from, &to)?;
        Ok(Some(format!("{from} {to}")))
    }

    pub(super) fn rename_and_change(&mut self) -> Done {
        let Some(from) = self.dir() else { return Ok(None) };
        let to = self.free(Some(&from));
        self.rename(&from, &to)?;
        let inside = self.one(|path, kind| kind == Kind::File && is_below(path, &to));
        let change = match inside {
            Some(file) if self.rng.chance(3) => {
                fs::remove_file(self.at(&file))?;
                format!("rm {file}")
            }
            Some(file) => {
                self.write(&file)?;
                format!("write {file}")
            }
            None => {
                let file = join(&to, "inside");
                self.write(&file)?;
                format!("create {file}")
            }
        };
        Ok(Some(format!("{from} {to}, {change}")))
    }

    pub(super) fn rename_and_make(&mut self) -> Done {
        let Some(from) = self.any() else { return Ok(None) };
        let to = self.free(Some(&from));
        self.rename(&from, &to)?;
        let what = match self.rng.below(4) {
            0 => {
                fs::create_dir(self.at(&from))?;
                self.write(&join(&from, "a"))?;
                "dir"
            }
            1 => {
                symlink(to.rsplit('/').next().unwrap(), self.at(&from))?;
                "link"
            }
            2 if fs::symlink_metadata(self.at(&to)).is_ok_and(|m| m.is_file()) => {
                fs::hard_link(self.at(&to), self.at(&from))?;
                "hard link"
            }
            _ => {
                self.write(&from)?;
                "file"
            }
        };
        Ok(Some(format!("{from} {to}, {what} {from}")))
    }
}
