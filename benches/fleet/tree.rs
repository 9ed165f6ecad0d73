//! What is synced: a tree like that of a WordPress site, and one big file; and the changes made to them.
//!
//! The mix follows a real site: most files are small PHP, CSS, JavaScript and language texts that compress well, an
//! eighth are images under `uploads/YEAR/MONTH` that do not and hold half of the bytes. A seed decides everything,
//! modification times too, which lie in the past: neither tool sees a file it has to call too young to trust.

use std::fmt::Write as _;
use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};

use crate::random::Random;

/// 2019-01-01, the age of the oldest file, in seconds since 1970.
const OLDEST_SECONDS: u64 = 1_546_300_800;
/// The oldest and the youngest file lie this many seconds apart: about seven years.
const AGE_SPAN_SECONDS: u64 = 7 * 365 * 86_400;
/// Files of one plugin before the next begins.
const FILES_PER_PLUGIN: u64 = 250;
/// Where a plugin's texts lie, with the endings found there.
const PLUGIN_DIRS: [(&str, &[&str]); 11] = [
    ("", &["php", "txt"]),
    ("includes", &["php"]),
    ("includes/admin", &["php"]),
    ("includes/rest-api/v2", &["php"]),
    ("assets/css", &["css", "min.css"]),
    ("assets/js", &["js", "min.js"]),
    ("assets/js/blocks", &["js", "json"]),
    ("languages", &["po", "json"]),
    ("templates/emails", &["php"]),
    ("vendor/acme/src", &["php"]),
    ("vendor/acme/src/Util", &["php"]),
];

/// A generated tree.
pub struct Tree {
    /// Its directory.
    pub path: PathBuf,
    /// Its regular files, where single ones are to be changed.
    pub files: Vec<PathBuf>,
    /// Its directories, symlinks apart.
    pub directories: u64,
    /// Bytes in its regular files.
    pub bytes: u64,
}

/// The words that names and texts are made of.
struct Vocabulary(Vec<String>);

impl Vocabulary {
    fn new(random: &mut Random) -> Self {
        const SYLLABLES: [&str; 24] = [
            "al", "be", "con", "der", "en", "fi", "get", "hook", "in", "jo", "ka", "li", "mo", "ne", "or", "post",
            "qu", "re", "set", "ta", "up", "ver", "wp", "ze",
        ];
        let word = |random: &mut Random| (0..2 + random.index(2)).map(|_| *random.pick(&SYLLABLES)).collect::<String>();
        Self((0..700).map(|_| word(random)).collect())
    }

    fn word(&self, random: &mut Random) -> &str {
        random.pick::<String>(&self.0)
    }
}

/// Append one line of code in the manner of `ending`.
fn push_line(text: &mut String, ending: &str, words: &Vocabulary, random: &mut Random) -> std::fmt::Result {
    let [a, b, c] = [0; 3].map(|_| words.word(random));
    let number = random.below(5000);
    match (ending, random.below(6)) {
        ("po", _) => {
            writeln!(text, "#: includes/class-{a}.php:{number}\nmsgid \"{b} the {c} {a}\"\nmsgstr \"{c} {b}\"\n")
        }
        ("json", _) => {
            writeln!(text, "  \"{a}_{b}\": {{ \"type\": \"string\", \"default\": \"{c}\", \"id\": {number} }},")
        }
        ("css" | "min.css", 0..3) => {
            writeln!(text, ".wp-block-{a} .{b}-{c} {{ margin: 0 {number}px; color: #{number:06x}; }}")
        }
        ("css" | "min.css", _) => {
            writeln!(text, "@media (max-width: {number}px) {{ #{a} > .{b} {{ display: {c}; }} }}")
        }
        ("js" | "min.js", 0..3) => writeln!(text, "  const {a} = wp.element.{b}( {c}, {{ key: {number} }} );"),
        ("js" | "min.js", _) => writeln!(text, "  if ( {a}.{b} !== undefined ) {{ return {c}( '{a}', {number} ); }}"),
        (_, 0) => {
            writeln!(text, "\n\t/**\n\t * Returns the {a} of a {b}.\n\t *\n\t * @param string ${c} The {c}.\n\t */")
        }
        (_, 1) => writeln!(text, "\tpublic function get_{a}_{b}( ${c}, $args = array() ) {{"),
        (_, 2) => writeln!(text, "\t\tif ( ! isset( ${a}['{b}'] ) || {number} < count( ${c} ) ) {{"),
        (_, 3) => writeln!(text, "\t\t\t$this->{a} = apply_filters( '{b}_{c}', ${a}, {number} );"),
        (_, 4) => writeln!(text, "\t\t\treturn new WP_Error( '{a}_{b}', __( 'Invalid {c}.', '{a}' ) );\n\t\t}}"),
        (_, _) => writeln!(text, "\t\t${a} = sanitize_text_field( wp_unslash( $_POST['{b}_{c}'] ) );"),
    }
}

/// A size in bytes: most lie near `least`, few near `least * spread`.
fn skewed_size(random: &mut Random, least: f64, spread: f64, skew: f64) -> usize {
    // INVARIANT: a float becomes the nearest usize or its limit, and the sizes here stay under a megabyte.
    (least * spread.powf(random.unit().powf(skew))) as usize
}

struct Generator {
    root: PathBuf,
    random: Random,
    words: Vocabulary,
    tree: Tree,
    buffer: Vec<u8>,
}

impl Generator {
    /// Write the buffer as a new file of an age that the seed decides.
    fn file(&mut self, relative: &str) -> io::Result<()> {
        let path = self.root.join(relative);
        let mut file = match File::create_new(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(path.parent().unwrap_or(&self.root))?;
                File::create_new(&path)?
            }
            other => other?,
        };
        file.write_all(&self.buffer)?;
        file.set_times(FileTimes::new().set_modified(past(&mut self.random)))?;
        self.tree.bytes += u64::try_from(self.buffer.len()).unwrap_or(u64::MAX);
        self.tree.files.push(path);
        Ok(())
    }

    fn text(&mut self, number: u64) -> Result<()> {
        let plugin = number / FILES_PER_PLUGIN;
        // The first plugins' worth of files stand for WordPress itself and its themes.
        let home = match plugin {
            0 => "wp-admin".to_owned(),
            1 | 2 => format!("wp-includes/part{plugin}"),
            3 | 4 => format!("wp-content/themes/theme{plugin}"),
            _ => format!("wp-content/plugins/{}-{plugin}", self.words.0[usize::try_from(plugin % 97)?]),
        };
        if number.is_multiple_of(FILES_PER_PLUGIN) {
            self.extras(&home)?;
        }
        let (dir, endings) = *self.random.pick(&PLUGIN_DIRS);
        let ending = *self.random.pick(endings);
        let size = skewed_size(&mut self.random, 300.0, 150.0, 2.35);
        let mut text =
            String::from("<?php\n/**\n * This file is part of the package. See LICENSE for the terms.\n */\n");
        while text.len() < size {
            push_line(&mut text, ending, &self.words, &mut self.random)?;
        }
        text.truncate(size);
        self.buffer = text.into_bytes();
        let slash = if dir.is_empty() { "" } else { "/" };
        let (a, b) = (self.words.word(&mut self.random), self.words.word(&mut self.random));
        let name = format!("{home}/{dir}{slash}class-{a}-{b}-{number}.{ending}");
        self.file(&name).with_context(|| name)
    }

    /// What every plugin has besides files: an empty directory and a link.
    fn extras(&self, home: &str) -> io::Result<()> {
        let home = self.root.join(home);
        fs::create_dir_all(home.join("cache"))?;
        fs::create_dir_all(home.join("vendor/bin"))?;
        std::os::unix::fs::symlink("../acme/src/Util", home.join("vendor/bin/util"))
    }

    fn image(&mut self, number: u64) -> Result<()> {
        let month = self.random.below(92);
        let (year, month) = (2019 + month / 12, 1 + month % 12);
        let size = skewed_size(&mut self.random, 5_000.0, 40.0, 1.8);
        let (ending, header): (_, &[u8]) = match self.random.below(4) {
            0 => ("png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"),
            _ => ("jpg", b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01\x01"),
        };
        self.buffer.resize(size, 0);
        self.random.fill(&mut self.buffer);
        self.buffer[..header.len()].copy_from_slice(header);
        let thumbnail = *self.random.pick(&["", "-150x150", "-300x200", "-768x512", "-1024x683"]);
        let place = *self.random.pick(&["Zürich", "team", "produkt bild", "header", "screenshot", "IMG"]);
        let word = self.words.word(&mut self.random);
        let name = format!("wp-content/uploads/{year}/{month:02}/{place}-{word}-{number}{thumbnail}.{ending}");
        self.file(&name).with_context(|| name)
    }
}

/// A time of modification that is long ago.
pub fn past(random: &mut Random) -> SystemTime {
    let seconds = OLDEST_SECONDS + random.below(AGE_SPAN_SECONDS);
    UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_nanos(random.below(1_000_000_000))
}

/// Give every directory below `dir`, and `dir`, an age; returns how many there are.
pub fn age_directories(dir: &Path, random: &mut Random) -> io::Result<u64> {
    let mut children = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            children.push(entry.path());
        }
    }
    children.sort();
    let mut count = 1;
    for child in children {
        count += age_directories(&child, random)?;
    }
    File::open(dir)?.set_times(FileTimes::new().set_modified(past(random)))?;
    Ok(count)
}

/// Make a CMS-like tree of `files` regular files in the new directory `path`.
pub fn cms(path: &Path, files: u64, seed: u64) -> Result<Tree> {
    let mut random = Random::new(seed);
    let words = Vocabulary::new(&mut random);
    fs::create_dir(path)?;
    let tree = Tree { path: path.to_owned(), files: Vec::new(), directories: 0, bytes: 0 };
    let mut generator = Generator { root: path.to_owned(), random, words, tree, buffer: Vec::new() };
    let images = files * 12 / 100;
    for number in 0..files - images {
        generator.text(number)?;
    }
    for number in 0..images {
        generator.image(number)?;
    }
    let Generator { mut random, mut tree, .. } = generator;
    tree.directories = age_directories(path, &mut random)?;
    Ok(tree)
}

/// Change `count` files of the tree the way an update does: one place overwritten, a line appended.
pub fn change_files(tree: &Tree, count: u64, random: &mut Random) -> Result<()> {
    for _ in 0..count {
        let file = OpenOptions::new().read(true).write(true).open(random.pick(&tree.files))?;
        let size = file.metadata()?.len();
        let note = format!("/* revision {:016x} */\n", random.next());
        file.write_all_at(note.as_bytes(), random.below(size))?;
        file.write_all_at(note.as_bytes(), file.metadata()?.len())?;
    }
    Ok(())
}

/// Write a file of `bytes` bytes that do not compress, unlike any other seed's.
pub fn big_file(path: &Path, bytes: u64, random: &mut Random) -> Result<()> {
    fs::create_dir_all(path.parent().context("a file lies in a directory")?)?;
    let mut file = File::create(path)?;
    let mut buffer = vec![0; 1 << 20];
    let mut left = bytes;
    while left > 0 {
        let size = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        random.fill(&mut buffer[..size]);
        file.write_all(&buffer[..size])?;
        left -= u64::try_from(size)?;
    }
    Ok(())
}

/// Make `edits` small edits, spread over the file: of four, two overwrite, one inserts and one removes up to 100 bytes.
pub fn edit_big_file(path: &Path, edits: u64, random: &mut Random) -> Result<()> {
    let size = fs::metadata(path)?.len();
    let mut places: Vec<u64> = (0..edits).map(|_| random.below(size)).collect();
    places.sort_unstable();
    let next = path.with_extension("next");
    let mut old = BufReader::with_capacity(1 << 20, File::open(path)?);
    let mut new = BufWriter::with_capacity(1 << 20, File::create(&next)?);
    let mut at = 0;
    for (number, place) in places.into_iter().enumerate() {
        io::copy(&mut old.by_ref().take(place.saturating_sub(at)), &mut new)?;
        at = at.max(place);
        let mut fresh = [0; 100];
        let length = 16 + random.index(fresh.len() - 16);
        random.fill(&mut fresh[..length]);
        let (insert, remove) = [(true, true), (true, false), (true, true), (false, true)][number % 4];
        if insert {
            new.write_all(&fresh[..length])?;
        }
        if remove {
            old.seek_relative(i64::try_from(length)?)?;
            at += u64::try_from(length)?;
        }
    }
    if at < size {
        old.seek(SeekFrom::Start(at))?;
        io::copy(&mut old, &mut new)?;
    }
    new.into_inner()?;
    fs::rename(next, path)?;
    Ok(())
}
