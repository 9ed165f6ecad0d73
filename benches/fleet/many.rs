//! Trees that are big by the number of their files, which are tiny.

use std::fs::{self, File, FileTimes};
use std::io::{self, Write as _};
use std::path::Path;

use anyhow::Result;

use crate::random::Random;
use crate::tree::{Tree, age_directories, past};

/// Files in a directory of the wide tree, and directories in one above.
const FANOUT: u64 = 100;

/// The directory that is renamed, as it is called at first.
pub const ALBUM: &str = "album-0";

fn text_file(path: &Path, bytes: u64, random: &mut Random) -> io::Result<u64> {
    let mut text = String::new();
    while (text.len() as u64) < bytes {
        text.push_str(&format!("{:016x}\n", random.next()));
    }
    let mut file = File::create_new(path)?;
    file.write_all(text.as_bytes())?;
    file.set_times(FileTimes::new().set_modified(past(random)))?;
    Ok(text.len() as u64)
}

/// Make a tree of `files` files of 20 to 200 bytes, a hundred to a directory, in the new directory `path`.
pub fn wide(path: &Path, files: u64, seed: u64) -> Result<Tree> {
    let mut random = Random::new(seed ^ 0x51DE);
    let mut bytes = 0;
    for directory in 0..files.div_ceil(FANOUT) {
        let dir = path.join(format!("shelf-{:03}/box-{:03}", directory / FANOUT, directory % FANOUT));
        fs::create_dir_all(&dir)?;
        for number in directory * FANOUT..files.min((directory + 1) * FANOUT) {
            let size = 20 + random.below(165);
            bytes += text_file(&dir.join(format!("item-{number:07}.txt")), size, &mut random)?;
        }
    }
    let directories = age_directories(path, &mut random)?;
    Ok(Tree { path: path.to_owned(), files: Vec::new(), directories, bytes })
}

/// Make a directory [`ALBUM`] of `files` files of 200 to 4,000 bytes in the new directory `path`.
pub fn album(path: &Path, files: u64, seed: u64) -> Result<Tree> {
    let mut random = Random::new(seed ^ 0xA1B0);
    let dir = path.join(ALBUM);
    fs::create_dir_all(&dir)?;
    let mut bytes = 0;
    for number in 0..files {
        let size = 200 + random.below(3_800);
        bytes += text_file(&dir.join(format!("picture-{number:06}.txt")), size, &mut random)?;
    }
    let directories = age_directories(path, &mut random)?;
    Ok(Tree { path: path.to_owned(), files: Vec::new(), directories, bytes })
}
