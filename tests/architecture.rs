//! Which module may use which: [`MODULES`] is the rule and its documentation, the rest checks it.
//!
//! Every file under `src/` is read; comments, texts and everything under `#[cfg(test)]` are left
//! out. What a failure prints is the file, the line and the reason for the rule.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// One module directly below `src/`.
struct Module {
    /// Its name: `src/NAME.rs` or `src/NAME/`.
    name: &'static str,
    /// The modules of this crate that it may use.
    may_use: &'static [&'static str],
    /// Why these and no others.
    why: &'static str,
}

/// The import table. Each row may use only rows above it, so there is no cycle.
const MODULES: &[Module] = &[
    Module {
        name: "model",
        may_use: &[],
        why: "the nouns that everything shares; a noun that knew a module would tie all others to it",
    },
    Module {
        name: "observe",
        may_use: &["model"],
        why: "a port: work reports through it, and it must not know what the work is",
    },
    Module {
        name: "status",
        may_use: &[],
        why: "the document that an agent, its page and `rfleet status` share: plain data",
    },
    Module {
        name: "control",
        may_use: &["status"],
        why: "what is said over the agent's socket: plain data that both ends share, with the status in it",
    },
    Module {
        name: "delta",
        may_use: &[],
        why: "bytes in, operations out: it can be fuzzed and reused without any of the rest",
    },
    Module {
        name: "plan",
        may_use: &["model"],
        why: "pure: what is decided from two listings must not depend on how they were come by",
    },
    Module {
        name: "index",
        may_use: &["model"],
        why: "the record of a root in a database of its own: what a scan found is handed to it, and it never looks itself",
    },
    Module {
        name: "wire",
        may_use: &["model", "delta"],
        why: "bytes to typed values and back; delta only for the signature lengths in a request",
    },
    Module {
        name: "tree",
        may_use: &["model"],
        why: "the only code that touches a synced directory; it knows no message and no link, so whoever audits \
              containment reads this folder and nothing else",
    },
    Module {
        name: "transport",
        may_use: &[],
        why: "moves bytes and knows no message; tree, transport and discovery are siblings that push, receive and cli \
              introduce to each other",
    },
    Module {
        name: "discovery",
        may_use: &["model"],
        why: "says who is in the fleet; it neither connects nor reads a root",
    },
    Module {
        name: "payload",
        may_use: &["model", "plan", "delta", "wire", "tree"],
        why: "reads files and encodes blocks once; it does not know which hosts read them, or over what",
    },
    Module {
        name: "push",
        may_use: &["model", "observe", "plan", "index", "delta", "wire", "tree", "transport", "payload"],
        why: "the primary's half of a session; options come as plain values, never as the configuration file",
    },
    Module {
        name: "receive",
        may_use: &["model", "delta", "wire", "tree"],
        why: "the far end: what it does must not depend on code that only a primary needs, and it links to nothing \
              but its standard input and output",
    },
    Module {
        name: "serve",
        may_use: &["status"],
        why: "shows the status that it is handed: it asks nothing of what works, so nobody who looks can hold up a push",
    },
    Module {
        name: "agent",
        may_use: &["model", "observe", "status", "control", "plan", "tree", "push"],
        why: "the daemon: it decides when to look and whom to send to, and leaves both to tree and push; its settings are \
              plain values, and only cli starts it",
    },
    Module {
        name: "config",
        may_use: &["model", "plan", "receive", "transport"],
        why: "turns what the file says into the options of the others, whose types it takes and whose work it never does",
    },
    Module {
        name: "cli",
        may_use: &[
            "model",
            "observe",
            "status",
            "control",
            "delta",
            "plan",
            "index",
            "wire",
            "tree",
            "transport",
            "discovery",
            "payload",
            "push",
            "receive",
            "serve",
            "agent",
            "config",
        ],
        why: "the only place that knows everything, and the only one that prints",
    },
];

/// Something outside the crate that only some modules may use.
struct Outside {
    /// Paths, as they are written in code.
    paths: &'static [&'static str],
    /// The modules that may.
    only: &'static [&'static str],
    /// Why.
    why: &'static str,
}

/// What only some modules may use of the standard library and of other crates.
const OUTSIDE: &[Outside] = &[
    Outside {
        paths: &["std::fs", "rustix::fs", "tempfile"],
        only: &["tree", "transport", "index", "payload", "receive", "agent", "config", "cli"],
        why: "model, plan, delta and wire are pure, push works through tree and payload; index only removes a database \
              that cannot be used, and agent has files of its own in the state directory",
    },
    Outside {
        paths: &["std::process::Command", "tokio::process", "openssh"],
        only: &["transport", "cli"],
        why: "programs are started in one place, without a shell",
    },
    Outside {
        paths: &[
            "std::net::TcpStream",
            "std::net::TcpListener",
            "std::net::UdpSocket",
            "std::os::unix::net",
            // Not `tokio::net::unix::pipe`: a pipe is what a link gives to write to.
            "tokio::net::TcpStream",
            "tokio::net::TcpListener",
            "tokio::net::UdpSocket",
            "tokio::net::UnixStream",
            "tokio::net::UnixListener",
        ],
        only: &["transport", "discovery", "agent", "serve", "cli"],
        why: "sockets belong to the rim; serve and the agent listen, and only that",
    },
    Outside {
        paths: &["std::env"],
        only: &["config", "transport", "cli"],
        why: "the environment is read where options are made (config, cli) and where ssh's own files are found; \
              nothing further in may depend on it",
    },
    Outside {
        paths: &["std::time::SystemTime"],
        only: &["agent", "cli"],
        why: "the wall clock is read at the edge and passed down, or tests could not set it",
    },
    Outside {
        paths: &["std::time::Instant", "std::thread", "tokio", "rustix"],
        only: &["tree", "transport", "discovery", "payload", "push", "receive", "agent", "serve", "config", "cli"],
        why: "model, observe, plan, delta and wire know no clock, no thread and no system call",
    },
    Outside {
        paths: &["anyhow", "clap", "indicatif", "tracing_subscriber", "tracing_journald"],
        only: &["cli"],
        why: "how people are spoken to is the command line's business; a library returns typed errors",
    },
    Outside {
        paths: &["axum", "hyper", "hyper_util", "maud", "prometheus_client"],
        only: &["serve"],
        why: "HTTP, its page and the metrics are one listener's business",
    },
    Outside { paths: &["rusqlite"], only: &["index"], why: "one schema, in one place" },
    Outside { paths: &["ignore"], only: &["model"], why: "patterns are read as git reads them in one place" },
    Outside { paths: &["fast_rsync"], only: &["delta"], why: "its signatures are checked before they are believed" },
    Outside { paths: &["sd_notify"], only: &["agent"], why: "only what stays has a service manager to talk to" },
    Outside {
        paths: &["landlock"],
        only: &["receive"],
        why: "it confines the whole process for good, which only a receiver's can be",
    },
    Outside { paths: &["postcard", "zstd"], only: &["wire"], why: "caps on what a peer sends are kept in one place" },
];

/// One use of a path: `a::b::c` at a line of a file.
struct Use {
    line: usize,
    path: Vec<String>,
}

#[test]
fn modules_use_only_what_the_table_allows() {
    let mut failures = String::new();
    for file in sources() {
        let module = file.module();
        if module == "lib" {
            continue;
        }
        let uses = uses(&file.tokens);
        for one in &uses {
            if let Some(why) = forbidden(&module, &file, one) {
                let _ = writeln!(failures, "{}:{}: `{}`: {why}", file.shown, one.line, one.path.join("::"));
            }
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
}

#[test]
fn every_module_has_a_row() {
    let known: BTreeSet<&str> = MODULES.iter().map(|row| row.name).chain(["lib", "main"]).collect();
    let strangers: BTreeSet<String> =
        sources().iter().map(Source::module).filter(|module| !known.contains(module.as_str())).collect();
    assert!(strangers.is_empty(), "no row in MODULES for {strangers:?}: add it, with what it may use and why");
}

#[test]
fn the_table_has_no_cycle_and_keeps_siblings_apart() {
    let mut above: Vec<&str> = Vec::new();
    for row in MODULES {
        for used in row.may_use {
            assert!(above.contains(used), "{} may use {used}, which does not stand above it", row.name);
        }
        assert!(!row.why.is_empty());
        above.push(row.name);
    }
    let siblings = ["tree", "transport", "discovery"];
    let users: BTreeMap<&str, &[&str]> = MODULES.iter().map(|row| (row.name, row.may_use)).collect();
    for one in siblings {
        assert!(siblings.iter().all(|other| !users[one].contains(other)), "{one} uses a sibling");
    }
    for (module, used) in &users {
        assert!(*module == "cli" || !used.contains(&"config"), "{module} uses config; only cli does");
    }
}

#[test]
fn the_reader_of_code_sees_what_matters() {
    let code = r#"
        //! crate::comment
        use crate::{model::{Kind, RelPath as R}, tree::*, plan};
        pub(crate) fn f<'a>(c: char) -> &'a str { let _ = ('"', '\'', b'x'); crate::wire::decode(c); "crate::text" }
        /* crate::block /* crate::nested */ */
        const RAW: &str = r"crate::raw";
        #[cfg(test)]
        use crate::config;
        #[cfg(test)]
        mod tests { use crate::push::Limiter; fn g() { { std::fs::read("x"); } } }
        fn h() { std::time::Instant::now(); super::super::delta::x(); }
    "#;
    let found: Vec<String> = uses(&tokens(code)).iter().map(|one| one.path.join("::")).collect();
    assert_eq!(
        found.iter().filter(|path| path.contains("::")).collect::<Vec<_>>(),
        [
            "crate::model::Kind",
            "crate::model::RelPath",
            "crate::tree::*",
            "crate::plan",
            "crate::wire::decode",
            "std::time::Instant::now",
            "super::super::delta::x",
        ]
        .iter()
        .collect::<Vec<_>>()
    );
}

#[test]
fn the_tests_that_the_security_page_names_exist() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(top.join("docs/security.md")).expect("the page is there");
    let mut files = Vec::new();
    collect(&top.join("src"), &mut files);
    collect(&top.join("tests"), &mut files);
    let code: String = files.iter().map(|file| fs::read_to_string(file).expect("a source is readable")).collect();
    // The last column of each table row that has a test's name in it.
    let rows = page.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |")?.rsplit(" | ").next());
    let named = rows.flat_map(|cell| cell.split('`').skip(1).step_by(2)).filter(|name| name.matches('_').count() > 1);
    let named: Vec<&str> = named.collect();
    assert!(named.len() > 30, "the page names {} tests", named.len());
    let missing: Vec<&&str> = named.iter().filter(|name| !code.contains(&format!("fn {name}("))).collect();
    assert!(missing.is_empty(), "docs/security.md names tests that do not exist: {missing:?}");
}

/// Why `one` is not allowed in `module`; `None` if it is.
fn forbidden(module: &str, file: &Source, one: &Use) -> Option<String> {
    let names: Vec<&str> = one.path.iter().map(String::as_str).collect();
    let supers = names.iter().take_while(|name| **name == "super").count();
    // As many `super` as the file lies deep lead to the crate, past the table.
    let target = match names.as_slice() {
        ["crate" | "rfleet", target, ..] => Some(*target),
        _ if supers > 0 && supers >= file.depth() => match names.get(supers) {
            Some(target) if *target != module => {
                return Some(format!("write `crate::{target}`, so that this table sees it"));
            }
            _ => None,
        },
        _ => None,
    };
    if target == Some("*") {
        return Some("no `use crate::*`: what a file uses must be readable at its top".into());
    }
    match (module, target) {
        ("main", Some("cli")) | (_, None) => {}
        ("main", Some(_)) => return Some("main.rs parses and runs: it knows nothing but `rfleet::cli`".into()),
        (_, Some(target)) if target == module => {}
        (_, Some(target)) => {
            let row = MODULES.iter().find(|row| row.name == module);
            // Names that are no module (items re-exported by lib.rs) are no edge that the table could allow.
            if !row.is_some_and(|row| row.may_use.contains(&target)) {
                let why = row.map_or("it has no row in MODULES", |row| row.why);
                return Some(format!("{module} may not use {target} ({why})"));
            }
        }
    }
    let begins = |path: &str| path.split("::").enumerate().all(|(at, name)| names.get(at) == Some(&name));
    // A name alone is a variable or a field as often as a crate.
    let outside = OUTSIDE
        .iter()
        .find(|row| names.len() > 1 && !row.only.contains(&module) && row.paths.iter().any(|path| begins(path)));
    outside.map(|row| format!("{module} may not use this, only {} ({})", row.only.join(", "), row.why))
}

/// A file under `src/`.
struct Source {
    /// Relative to `src/`.
    path: PathBuf,
    /// For messages.
    shown: String,
    tokens: Vec<Token>,
}

impl Source {
    /// The module directly below the crate that the file belongs to.
    fn module(&self) -> String {
        let first = self.path.components().next().expect("a file has a name");
        Path::new(first.as_os_str()).file_stem().expect("a file has a name").to_string_lossy().into_owned()
    }

    /// How many modules deep its code lies: 1 for `src/observe.rs` and `src/tree/mod.rs`.
    fn depth(&self) -> usize {
        let last = self.path.file_name().is_some_and(|name| name == "mod.rs");
        self.path.components().count() - usize::from(last)
    }
}

/// All files under `src/` but those that are modules of tests.
fn sources() -> Vec<Source> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    collect(&src, &mut paths);
    paths.sort();
    assert!(paths.len() > 10, "{} holds the sources", src.display());
    let mut tests = BTreeSet::new();
    let mut sources = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).expect("a source is readable UTF-8");
        for name in test_files(&lex(&text)) {
            let parent = path.parent().expect("a file lies in a directory");
            let is_mod = path.file_stem().is_some_and(|stem| stem == "mod" || stem == "lib" || stem == "main");
            let dir = if is_mod { parent.to_owned() } else { path.with_extension("") };
            tests.insert(dir.join(format!("{name}.rs")));
            tests.insert(dir.join(name).join("mod.rs"));
        }
        let shown = format!("src/{}", path.strip_prefix(&src).expect("it lies in src").display());
        sources.push((
            path.clone(),
            Source { path: path.strip_prefix(&src).expect("it lies in src").into(), shown, tokens: tokens(&text) },
        ));
    }
    let in_tests = |path: &Path| {
        tests.iter().any(|test| {
            path == test
                || test.file_name().is_some_and(|name| name == "mod.rs")
                    && path.starts_with(test.parent().expect("it lies in a directory"))
        })
    };
    sources.into_iter().filter(|(path, _)| !in_tests(path)).map(|(_, source)| source).collect()
}

fn collect(dir: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory of sources can be listed") {
        let path = entry.expect("an entry can be read").path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

/// A name, `::` or a single other character.
#[derive(Clone, Debug, PartialEq)]
struct Token {
    line: usize,
    text: String,
}

/// The tokens of `code` that count: without what is under `#[cfg(test)]`.
fn tokens(code: &str) -> Vec<Token> {
    let all = lex(code);
    let mut kept = Vec::new();
    let mut at = 0;
    while at < all.len() {
        match cfg_test(&all, at) {
            Some(item) => at = end_of_item(&all, item),
            None => {
                kept.push(all[at].clone());
                at += 1;
            }
        }
    }
    kept
}

/// Names of the modules in files of their own that are declared under `#[cfg(test)]`.
fn test_files(all: &[Token]) -> Vec<String> {
    let mut names = Vec::new();
    for at in 0..all.len() {
        if let Some(item) = cfg_test(all, at) {
            let texts: Vec<&str> = all[item..].iter().take(3).map(|token| token.text.as_str()).collect();
            if let ["mod", name, ";"] = texts.as_slice() {
                names.push((*name).to_owned());
            }
        }
    }
    names
}

/// If `#[cfg(test)]` begins at `at`: where the item that it is about begins.
fn cfg_test(all: &[Token], at: usize) -> Option<usize> {
    let words = ["#", "[", "cfg", "(", "test", ")", "]"];
    let here = all.get(at..at + words.len())?;
    if here.iter().map(|token| token.text.as_str()).ne(words) {
        return None;
    }
    let mut item = at + words.len();
    while all.get(item).is_some_and(|token| token.text == "#") {
        item = end_of_group(all, item + 1);
    }
    Some(item)
}

/// Just after the item at `at`: after its `;`, or after its block.
fn end_of_item(all: &[Token], mut at: usize) -> usize {
    while let Some(token) = all.get(at) {
        match token.text.as_str() {
            ";" => return at + 1,
            "{" => {
                let end = end_of_group(all, at);
                // `use a::{b, c};` goes on after its group.
                return if all.get(end).is_some_and(|token| token.text == ";") { end + 1 } else { end };
            }
            "(" | "[" => at = end_of_group(all, at),
            _ => at += 1,
        }
    }
    at
}

/// Just after the bracket that closes the one at `at`.
fn end_of_group(all: &[Token], at: usize) -> usize {
    let mut depth = 0_usize;
    for (offset, token) in all[at..].iter().enumerate() {
        match token.text.as_str() {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + offset + 1;
        }
    }
    all.len()
}

/// All paths in `tokens`, groups spread out.
fn uses(tokens: &[Token]) -> Vec<Use> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if is_name(&tokens[at].text) && at.checked_sub(1).is_none_or(|before| tokens[before].text != "::") {
            at = path(tokens, at, &[], &mut found);
        } else {
            at += 1;
        }
    }
    found
}

/// Reads the path at `at` below `prefix`; returns where it ends.
fn path(tokens: &[Token], mut at: usize, prefix: &[String], found: &mut Vec<Use>) -> usize {
    let line = tokens[at].line;
    let mut names = prefix.to_vec();
    loop {
        match tokens.get(at).map(|token| token.text.as_str()) {
            Some("{") if names.len() > prefix.len() || !prefix.is_empty() => {
                at += 1;
                while let Some(token) = tokens.get(at) {
                    match token.text.as_str() {
                        "}" => return at + 1,
                        "," => at += 1,
                        // `as Name` gives no path of its own.
                        "as" => at += 2,
                        _ => at = path(tokens, at, &names, found).max(at + 1),
                    }
                }
                return at;
            }
            Some(text) if is_name(text) || text == "*" => names.push(text.to_owned()),
            _ => break,
        }
        at += 1;
        match tokens.get(at) {
            Some(token) if token.text == "::" => at += 1,
            _ => break,
        }
    }
    found.push(Use { line, path: names });
    at
}

fn is_name(text: &str) -> bool {
    text.starts_with(|char: char| char.is_alphabetic() || char == '_')
}

/// Names, `::` and other characters of `code`, without comments, texts and characters.
fn lex(code: &str) -> Vec<Token> {
    let chars: Vec<char> = code.chars().collect();
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < chars.len() {
        let start = at;
        let next = chars.get(at + 1).copied().unwrap_or(' ');
        match chars[at] {
            '/' if next == '/' => at = chars[at..].iter().position(|c| *c == '\n').map_or(chars.len(), |n| at + n),
            '/' if next == '*' => at = end_of_comment(&chars, at),
            '"' => at = end_of_text(&chars, at),
            '\'' => at = end_of_char(&chars, at),
            ':' if next == ':' => {
                tokens.push(Token { line, text: "::".into() });
                at += 2;
            }
            c if c.is_alphabetic() || c == '_' => {
                while chars.get(at).is_some_and(|c| c.is_alphanumeric() || *c == '_') {
                    at += 1;
                }
                let word: String = chars[start..at].iter().collect();
                match (word.as_str(), chars.get(at)) {
                    ("r" | "br" | "cr", Some('"' | '#')) if raw_text(&chars, at).is_some() => {
                        at = raw_text(&chars, at).expect("just looked at");
                    }
                    ("b" | "c", Some('"')) | ("b", Some('\'')) => {}
                    _ => tokens.push(Token { line, text: word }),
                }
            }
            c => {
                if !c.is_whitespace() {
                    tokens.push(Token { line, text: c.into() });
                }
                at += 1;
            }
        }
        line += chars[start..at].iter().filter(|c| **c == '\n').count();
    }
    tokens
}

fn end_of_comment(chars: &[char], mut at: usize) -> usize {
    let mut depth = 0;
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn end_of_text(chars: &[char], mut at: usize) -> usize {
    at += 1;
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// The end of a character, or of the quote of a lifetime.
fn end_of_char(chars: &[char], at: usize) -> usize {
    match (chars.get(at + 1), chars.get(at + 2)) {
        (Some('\\'), _) => chars[at + 3..].iter().position(|c| *c == '\'').map_or(chars.len(), |n| at + 4 + n),
        (Some(_), Some('\'')) => at + 3,
        _ => at + 1,
    }
}

/// The end of the raw text whose hashes begin at `at`; `None` if there is none (`r#name`).
fn raw_text(chars: &[char], at: usize) -> Option<usize> {
    let hashes = chars[at..].iter().take_while(|c| **c == '#').count();
    if chars.get(at + hashes) != Some(&'"') {
        return None;
    }
    let closing: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let body = at + hashes + 1;
    let end = chars[body..].windows(closing.len()).position(|window| window == closing)?;
    Some(body + end + closing.len())
}
