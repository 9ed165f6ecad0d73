//! Patterns are read as git reads them: the same files and the same tree, asked of `git check-ignore`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use support::{Config, Push, Rng, Scratch};

/// Names with everything that patterns speak of. A name that ends with a slash is a directory.
const PATHS: &[&str] = &[
    "a",
    "b",
    "ab",
    "abc",
    "a.log",
    "keep.log",
    "A",
    "a b",
    "a ",
    "tab\t",
    "#a",
    "!a",
    "a{b,c}",
    "{a}",
    "a[b",
    "[a]",
    "a]b",
    "a-b",
    "a^b",
    "a\\b",
    "*",
    "?",
    "**",
    "x.tmp",
    "x.tmp.bak",
    ".hidden",
    ".a.log",
    "ä",
    "äb",
    "1",
    "-",
    "]",
    "^",
    "!",
    "build/",
    "build/a",
    "build/out/",
    "build/out/a.log",
    "d/",
    "d/a",
    "d/b",
    "d/a.log",
    "d/keep.log",
    "d/cache/",
    "d/cache/a",
    "d/cache/keep",
    "d/cache/sub/",
    "d/cache/sub/a",
    "d/e/",
    "d/e/a",
    "d/e/b",
    "d/e/f/",
    "d/e/f/a",
    "d/e/f/b",
    "d/e/f/a.log",
    "cache/",
    "cache/a",
    "cache/keep",
    "x/",
    "x/build/",
    "x/build/a",
    "x/y/",
    "x/y/build/",
    "x/y/build/a",
    "x/a",
    "x/ab",
    "x/d/",
    "x/d/a",
    "x/d/e/",
    "x/d/e/a",
    "foo/",
    "foo/bar/",
    "foo/bar/baz",
    "foo/x/",
    "foo/x/bar",
    "foo/x/y/",
    "foo/x/y/bar",
    "foobar",
    "fooXbar",
    "n/",
    "n/.rfleetignored",
];

// Not among them: `foo**/bar`. The manual of git has these stars as one; git itself takes the plain beginning away before
// it looks at the stars, and finds them at the beginning then.
/// Lines, each tried alone, and with a line before it that takes everything away and one that does not.
const PATTERNS: &[&str] = &[
    "a",
    "/a",
    "a/",
    "/a/",
    "d/a",
    "/d/a",
    "d/a/",
    "d/",
    "/d",
    "d",
    "*.log",
    "/*.log",
    "d/*.log",
    "*",
    "/*",
    "/*/",
    "*/",
    "**",
    "**/",
    "/**",
    "/**/",
    "**/a",
    "**/a/",
    "/**/a",
    "a/**",
    "d/**",
    "d/**/",
    "/d/**",
    "d/**/a",
    "d/**/f",
    "**/e/**",
    "**/e/a",
    "d/*",
    "d/*/",
    "d/*/a",
    "d/*/*",
    "d/**/*/a",
    "foo**bar",
    "foo/**bar",
    "foo*",
    "**foo",
    "foo/**/bar",
    "***",
    "***/a",
    "d/***/a",
    "a*c",
    "a?c",
    "?",
    "??",
    "[ab]",
    "[!a]",
    "[^a]",
    "[a-c]*",
    "[]a]",
    "[!]a]",
    "[a\\]]",
    "[\\]]",
    "[a-]",
    "[-a]",
    "[\\-a]",
    "[+--]",
    "[--1]",
    "[]-a]",
    "[z-a]",
    "[a-z]b",
    "[[:alpha:]]",
    "[[:digit:]]",
    "[^[:alnum:]]",
    "[[:upper:][:digit:]]",
    "[!!]",
    "[\\!]",
    "[\\^]",
    "[!^]",
    "[^!]",
    "d[/]a",
    "d[!x]a",
    "d[+-9]a",
    "foo[!x]bar",
    "a\\{b,c}",
    "a{b,c}",
    "{a}",
    "{a,b}",
    "a\\[b",
    "\\[a\\]",
    "a\\]b",
    "a]b",
    "a\\\\b",
    "\\*",
    "\\?",
    "\\*\\*",
    "\\a",
    "\\#a",
    "#a",
    "\\!a",
    "!a",
    "a ",
    "a\\ ",
    "a\\  ",
    "a b",
    "a\\ b",
    "tab\t",
    "a  ",
    "ä",
    "ä*",
    "?b",
    "[ä]",
    "A",
    "cache/",
    "/cache",
    "d/cache",
    "cache/keep",
    "cache/*",
    "build/out",
    "out/",
    "**/cache/keep",
    ".*",
    ".?*",
    "n/.rfleetignored",
    "x/**/a",
    "x/*/a",
    "/x/*/build",
    "foo//bar",
    "//a",
    "a//",
    "./a",
    "../a",
    "d/./a",
    "\\/a",
    "d\\/a",
];

/// Those among them that can match nothing. rfleet says so, and a configuration must not have them.
const NEVER: &[&str] = &["[z-a]", "d[/]a", "foo//bar", "//a", "a//", "./a", "../a", "d/./a", "\\/a"];

/// Files of patterns by directory, the topmost (the root's own list) under "-".
type Files<'f> = Vec<(&'f str, String)>;

struct Case {
    scratch: Scratch,
}

impl Case {
    fn new() -> Self {
        let scratch = Scratch::new();
        let source = scratch.dir("source");
        for name in PATHS {
            let path = source.join(name);
            if name.ends_with('/') { fs::create_dir_all(path).unwrap() } else { fs::write(path, name).unwrap() }
        }
        // The directory is a repository only for git's questions.
        git(&scratch, &source, &["init", "--quiet", "--bare", "../repository"], "");
        Self { scratch }
    }

    /// What git takes as not ignored.
    fn git_keeps(&self, files: &Files<'_>) -> BTreeSet<String> {
        let source = self.scratch.path("source");
        let _ = fs::remove_file(self.scratch.path("repository/info/exclude"));
        for (dir, text) in files {
            let at = match *dir {
                "-" => self.scratch.write("repository/info/exclude", text),
                dir => source.join(dir).join(".gitignore"),
            };
            fs::write(at, text).unwrap();
        }
        let names: String = PATHS.iter().map(|name| format!("{}\0", name.trim_end_matches('/'))).collect();
        let words = ["check-ignore", "--no-index", "-z", "--stdin"];
        let ignored: BTreeSet<String> =
            git(&self.scratch, &source, &words, &names).split('\0').map(str::to_owned).collect();
        for (dir, _) in files.iter().filter(|(dir, _)| *dir != "-") {
            fs::remove_file(source.join(dir).join(".gitignore")).unwrap();
        }
        let own = PATHS.iter().map(|name| name.trim_end_matches('/').to_owned());
        own.filter(|name| !ignored.contains(name)).collect()
    }

    /// What a push brings to an empty place.
    fn rfleet_keeps(&self, files: &Files<'_>) -> BTreeSet<String> {
        let (source, copy) = (self.scratch.path("source"), self.scratch.path("copy"));
        let _ = fs::remove_dir_all(&copy);
        let mut push = Push::adhoc(&self.scratch, &source, &[&copy]).no_json();
        for (dir, text) in files {
            match *dir {
                "-" => {
                    let lines: Vec<&str> = text.lines().collect();
                    let config = Config::new("cms").root("data", &source, &format!("exclude = {lines:?}"));
                    let receiver = [support::rfleet_bin().to_str().unwrap(), "receive"];
                    let config =
                        config.host_command("copy", &receiver, "data", &copy).write(&self.scratch, "rfleet.toml");
                    push = Push::configured(&self.scratch, &config).no_json();
                }
                dir => fs::write(source.join(dir).join(".rfleetignore"), text).unwrap(),
            }
        }
        // Something that is always there: an empty source is refused.
        fs::write(source.join("n/always"), "").unwrap();
        let outcome = push.run();
        for (dir, _) in files.iter().filter(|(dir, _)| *dir != "-") {
            fs::remove_file(source.join(dir).join(".rfleetignore")).unwrap();
        }
        assert!(matches!(outcome.code(), Some(0 | 3 | 4)), "{files:?}: {}", outcome.said());
        PATHS
            .iter()
            .map(|name| name.trim_end_matches('/').to_owned())
            .filter(|name| fs::symlink_metadata(copy.join(name)).is_ok())
            .collect()
    }

    fn compare(&self, files: &Files<'_>) {
        let (git, own) = (self.git_keeps(files), self.rfleet_keeps(files));
        let only = |a: &BTreeSet<String>, b: &BTreeSet<String>| a.difference(b).cloned().collect::<Vec<_>>();
        assert_eq!((only(&git, &own), only(&own, &git)), (vec![], vec![]), "git keeps, rfleet keeps, by {files:?}");
    }
}

fn git(scratch: &Scratch, source: &Path, words: &[&str], input: &str) -> String {
    let mut command = Command::new("git");
    scratch.hermetic(&mut command);
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CEILING_DIRECTORIES", scratch.root());
    if words[0] != "init" {
        command.env("GIT_DIR", scratch.path("repository")).env("GIT_WORK_TREE", source);
    }
    command.args(words).current_dir(source).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("git: {e}; tests/run installs it"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    // 1: no path is ignored.
    assert!(matches!(output.status.code(), Some(0 | 1)), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn each_pattern_leaves_out_what_git_ignores() {
    let case = Case::new();
    for pattern in PATTERNS {
        case.compare(&vec![("d", format!("{pattern}\n")), (".", format!("{pattern}\n"))]);
        case.compare(&vec![(".", format!("*\n!*/\n!{pattern}\n"))]);
    }
}

#[test]
fn files_at_several_depths_have_the_precedence_that_git_gives_them() {
    let case = Case::new();
    let mut rng = Rng::new(20);
    // The list of the root holds patterns and nothing else.
    let is_one = |line: &&str| *line != "#a" && !line.contains(['\t', 'ä']) && !NEVER.contains(line);
    let usable: Vec<&str> = PATTERNS.iter().copied().filter(is_one).collect();
    for _ in 0..60 {
        let mut files: Files<'_> = Vec::new();
        for dir in ["-", ".", "d", "d/e", "d/cache", "x", "foo"] {
            if !rng.chance(2) {
                continue;
            }
            let lines = (0..1 + rng.below(4)).map(|_| {
                let not = if rng.chance(3) { "!" } else { "" };
                format!("{not}{}\n", rng.pick(&usable))
            });
            files.push((dir, lines.collect()));
        }
        case.compare(&files);
    }
}
