//! Promises 2 and 3 over random histories: whatever happened to the source, the hosts and the primary's state, and in
//! whatever order, a push of a source at rest makes every host equal to a plain copy of it.
//!
//! `RFLEET_HISTORY_SEED=123 cargo nextest run -E 'test(history)'` runs one seed, `RFLEET_HISTORY_SEEDS=20000` as many.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use rstest::rstest;
use support::secondary::remove;
use support::{Config, Editor, Need, Outcome, Push, Rng, Scratch, Secondary, Snapshot, plain_copy, rfleet_bin};

/// Seeds that a whole run takes, and the tests they are spread over.
const SEEDS: u64 = 2_080;
const SHARDS: u64 = 8;

/// Fewer on a disk: it is for the inode numbers, which a memory filesystem never gives twice.
const SEEDS_ON_DISK: u64 = 48;

/// What a version can do beyond comparing sizes and times at every push.
#[derive(Clone, Copy, Debug)]
struct Abilities {
    /// A change that only the change time tells is found.
    unseen: bool,
    /// What a push replaces or deletes is kept.
    attic: bool,
}

/// What must not be lost any more. The stories demand more as soon as the binary shows more.
const AT_LEAST: Abilities = Abilities { unseen: true, attic: false };

/// What this binary shows that it can do; the stories then demand it everywhere.
fn abilities() -> Abilities {
    static SHOWN: OnceLock<Abilities> = OnceLock::new();
    *SHOWN.get_or_init(|| {
        let scratch = Scratch::new();
        let world = World::new(&scratch, &scratch.dir("abilities"), 0, AT_LEAST);
        let (ours, theirs) = (world.source.join("file"), world.hosts[0].root.join("file"));
        fs::write(&ours, "one").unwrap();
        world.push(&[], None, &[]).assert_code(0);
        let time = fs::metadata(&ours).unwrap().modified().unwrap();
        fs::write(&ours, "two").unwrap();
        fs::File::options().append(true).open(&ours).unwrap().set_modified(time).unwrap();
        world.push(&[], None, &[]).assert_code(0);
        let unseen = fs::read(&theirs).unwrap() == b"two";
        fs::write(&theirs, "by hand").unwrap();
        world.push(&["--full"], None, &[]).assert_code(0);
        let attic = world.hosts[0].root.join(".rfleet/attic").exists();
        Abilities { unseen: unseen || AT_LEAST.unseen, attic: attic || AT_LEAST.attic }
    })
}

/// A primary, its secondaries, and all that happened to them so far.
struct World<'a> {
    scratch: &'a Scratch,
    base: PathBuf,
    seed: u64,
    able: Abilities,
    rng: Rng,
    source: PathBuf,
    editor: Editor,
    hosts: Vec<Secondary>,
    /// Each line is something that happened.
    log: Vec<String>,
    state_copies: usize,
    serial: usize,
}

impl Drop for World<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut said = format!("the history of seed {}:\n", self.seed);
            self.log.iter().for_each(|line| writeln!(said, "  {line}").unwrap());
            eprintln!("{said}again: RFLEET_HISTORY_SEED={} cargo nextest run -E 'test(history)'", self.seed);
        }
    }
}

impl<'a> World<'a> {
    fn new(scratch: &'a Scratch, base: &Path, seed: u64, able: Abilities) -> Self {
        let mut rng = Rng::new(seed);
        let source = base.join("source");
        let entries = 6 + rng.below(14);
        let editor = Editor::start(&source, Rng::new(seed ^ 0xed17), entries);
        let hosts = (1..=*rng.pick(&[2, 2, 2, 2, 3, 3, 3, 4])).map(|n| {
            let name = format!("h{n}");
            let root = base.join(&name);
            let durability = if rng.chance(8) { "commit" } else { "none" };
            let policy = format!("[receive]\ndurability = \"{durability}\"");
            let config = Config::new("cms").root("www", &root, "").lines(&policy);
            config.write_to(&base.join(format!("{name}.toml")));
            Secondary::new(&name, &root)
        });
        let hosts = hosts.collect();
        for own in ["state", "run"] {
            fs::create_dir(base.join(own)).unwrap();
        }
        let (base, log) = (base.to_owned(), Vec::new());
        Self { scratch, base, seed, able, rng, source, editor, hosts, log, state_copies: 0, serial: 0 }
    }

    /// The command line for some push, and for `verify`.
    fn command(&self, words: &[&str], absent: &[usize]) -> Push<'a> {
        let bin = rfleet_bin().to_str().unwrap();
        let mut config = Config::new("cms").root("www", &self.source, "delete = true\nmax_delete = \"100%\"");
        for (n, host) in self.hosts.iter().enumerate() {
            let own = self.base.join(format!("{}.toml", host.name));
            let receive = [bin, "receive", "--config", own.to_str().unwrap()];
            let command: &[&str] = if absent.contains(&n) { &["/bin/false"] } else { &receive };
            config = config.host_command(&host.name, command, "www", &host.root);
        }
        let file = self.base.join("rfleet.toml");
        config.write_to(&file);
        let state = self.base.join("state");
        let command = Push::command(self.scratch, words).arg("-q").arg("--config").arg(file);
        command.env("STATE_DIRECTORY", state).env("RUNTIME_DIRECTORY", self.base.join("run"))
    }

    fn push(&self, flags: &[&str], only: Option<usize>, absent: &[usize]) -> Outcome {
        let mut push = self.command(&["push"], absent).args(flags);
        if let Some(only) = only {
            push = push.args(&["--host", &self.hosts[only].name]);
        }
        push.run()
    }

    /// Something is done to the source.
    fn edit(&mut self) {
        for _ in 0..self.rng.below(8) {
            self.editor.act();
        }
        self.take_note_of_edits();
    }

    fn take_note_of_edits(&mut self) {
        let edits = std::mem::take(&mut self.editor.log);
        self.log.extend(edits.into_iter().map(|edit| format!("  {edit}")));
    }

    fn note_unseen(&mut self, before: usize) {
        if self.editor.unseen != before {
            self.hosts.iter_mut().for_each(|host| host.unseen(self.able.unseen));
        }
    }

    /// Sometimes something happens to a host, or to what the primary remembers.
    fn strike(&mut self) {
        if self.rng.chance(3) {
            let n = self.rng.below(self.hosts.len());
            let said = self.hosts[n].strike(&mut self.rng, self.editor.unseen);
            self.log.push(said);
        }
        if self.rng.chance(6) {
            self.damage_state();
        }
    }

    fn damage_state(&mut self) {
        let state = self.base.join("state");
        let mut files = files_below(&state);
        let said = match self.rng.below(6) {
            0 | 1 if self.state_copies > 0 => {
                let copy = self.base.join(format!("state.copy{}", 1 + self.rng.below(self.state_copies)));
                remove(&state);
                plain_copy(&copy, &state);
                format!("older copy {}", copy.display())
            }
            kind if kind > 2 && !files.is_empty() => {
                if self.rng.chance(2) {
                    files = vec![self.rng.pick(&files).clone()];
                }
                for file in &files {
                    self.damage(file, kind);
                }
                format!("damaged {files:?}")
            }
            _ => {
                remove(&state);
                fs::create_dir(&state).unwrap();
                "deleted".to_owned()
            }
        };
        self.log.push(format!("state: {said}"));
        self.hosts.iter_mut().for_each(Secondary::forgotten);
    }

    fn damage(&mut self, file: &Path, kind: usize) {
        let size = usize::try_from(fs::metadata(file).unwrap().len()).unwrap();
        match kind {
            3 => fs::write(file, self.rng.bytes(size)).unwrap(),
            _ => {
                let kept = u64::try_from(self.rng.below(size)).unwrap();
                fs::OpenOptions::new().write(true).open(file).unwrap().set_len(kept).unwrap();
            }
        }
    }

    fn keep_copies(&mut self) {
        for host in &mut self.hosts {
            if self.rng.chance(4) {
                host.keep_copy(self.editor.unseen);
                self.log.push(format!("{}: copy kept", host.name));
            }
        }
        if self.state_copies < 3 && self.rng.chance(4) {
            self.state_copies += 1;
            plain_copy(&self.base.join("state"), &self.base.join(format!("state.copy{}", self.state_copies)));
            self.log.push(format!("state: copy {} kept", self.state_copies));
        }
    }

    /// One cycle: changes, mishaps, and a push or another look.
    fn step(&mut self) {
        let before = self.editor.unseen;
        self.edit();
        self.note_unseen(before);
        self.strike();
        match self.rng.below(20) {
            0..=9 => {
                let absent = (0..self.hosts.len()).filter(|_| self.rng.chance(5)).collect::<Vec<_>>();
                self.push_at_rest(None, &absent, false);
            }
            10 | 11 => {
                let only = self.rng.below(self.hosts.len());
                self.push_at_rest(Some(only), &[], false);
            }
            12 => self.push_at_rest(None, &[], true),
            13 => self.dry_run(),
            14 => self.verify(),
            _ => self.push_meanwhile(),
        }
        self.keep_copies();
    }

    /// The plain copy that the hosts are held against.
    fn oracle(&mut self) -> Snapshot {
        self.serial += 1;
        let path = self.base.join(format!("oracle{}", self.serial));
        plain_copy(&self.source, &path);
        let oracle = Snapshot::take(&path);
        remove(&path);
        oracle
    }

    fn flags(&self, who: &[usize], full: bool) -> Vec<&'static str> {
        let any = |wanted: fn(&Secondary) -> bool| who.iter().any(|&n| wanted(&self.hosts[n]));
        // A comparison by sizes and times may take the place of what the index knows.
        let contents = full && any(|host| host.now.need == Need::Contents || host.now.waits_for_unseen);
        let adopt = any(Secondary::is_a_strangers);
        [(full, "--full"), (contents, "--checksum"), (adopt, "--adopt")].iter().filter(|f| f.0).map(|f| f.1).collect()
    }

    /// A push while nobody writes in the source: each host that such a push can repair is equal to the oracle.
    fn push_at_rest(&mut self, only: Option<usize>, absent: &[usize], full: bool) {
        let oracle = self.oracle();
        let asked: Vec<_> = only.map_or_else(|| (0..self.hosts.len()).collect(), |only| vec![only]);
        let who: Vec<_> = asked.into_iter().filter(|n| !absent.contains(n)).collect();
        let flags = self.flags(&who, full);
        self.log.push(format!("push {flags:?} to {only:?} without {absent:?}"));
        let outcome = self.push(&flags, only, absent);
        let contents = flags.contains(&"--checksum");
        let repairs = |need: Need| match need {
            Need::Push => true,
            Need::Full => full,
            Need::Contents => contents,
        };
        let expected: &[i32] = if !absent.is_empty() {
            &[3]
        } else if who.iter().all(|&n| repairs(self.hosts[n].now.need)) {
            &[0]
        } else {
            &[0, 3]
        };
        assert!(outcome.code().is_some_and(|code| expected.contains(&code)), "{expected:?}: {}", outcome.said());
        for n in who {
            let host = &mut self.hosts[n];
            if repairs(host.now.need) {
                let lines = oracle.differences(&Snapshot::take(&host.root));
                assert!(lines.is_empty(), "{} differs:\n{}\n{}", host.name, lines.join("\n"), outcome.said());
                host.now.need = Need::Push;
                (host.now.waits_for_unseen, host.now.unknown) = (false, false);
            }
        }
        self.check_attics(&outcome);
    }

    fn check_attics(&self, outcome: &Outcome) {
        if self.able.attic {
            let lost: Vec<_> = self.hosts.iter().flat_map(Secondary::lost_by_hand).collect();
            assert!(lost.is_empty(), "written by hand and lost:\n{}\n{}", lost.join("\n"), outcome.said());
        }
    }

    /// A push while the source changes: it may find what vanishes; a later one has to make it good.
    fn push_meanwhile(&mut self) {
        let who: Vec<_> = (0..self.hosts.len()).collect();
        let flags = self.flags(&who, false);
        self.log.push(format!("push {flags:?} while"));
        let before = self.editor.unseen;
        let running = self.command(&["push"], &[]).args(&flags).start();
        self.editor.watched = true;
        let (editor, mut rng) = (&mut self.editor, Rng::new(self.rng.next()));
        let outcome = std::thread::scope(|scope| {
            scope.spawn(move || {
                for _ in 0..2 + rng.below(10) {
                    editor.act();
                    // The story is about random moments, so this is a wait for nothing but time.
                    std::thread::sleep(Duration::from_micros(rng.next() % 3_000));
                }
            });
            running.finish()
        });
        self.editor.watched = false;
        self.take_note_of_edits();
        self.note_unseen(before);
        assert!(matches!(outcome.code(), Some(0 | 3)), "{}", outcome.said());
        self.check_attics(&outcome);
    }

    fn dry_run(&mut self) {
        let who: Vec<_> = (0..self.hosts.len()).collect();
        let flags = self.flags(&who, false);
        let record = |host: &Secondary| fs::read(host.root.join(".rfleet/state")).ok();
        let before: Vec<_> = self.hosts.iter().map(|host| (Snapshot::take(&host.root), record(host))).collect();
        self.log.push(format!("push -n {flags:?}"));
        self.push(&[&["-n"], &*flags].concat(), None, &[]).assert_code(0);
        for (host, (tree, state)) in self.hosts.iter().zip(before) {
            tree.assert_untouched(&host.root);
            assert_eq!(record(host), state, "the record of {}", host.name);
        }
    }

    /// It finds differences if there are any, and only then.
    fn verify(&mut self) {
        if self.hosts.iter().any(Secondary::is_a_strangers) {
            return;
        }
        let checksum = self.rng.chance(2);
        self.log.push(format!("verify{}", if checksum { " --checksum" } else { "" }));
        let outcome = self.command(&["verify"], &[]).args(if checksum { &["--checksum"] } else { &[] }).run();
        let oracle = self.oracle();
        let differs = |host: &Secondary| !oracle.differences(&Snapshot::take(&host.root)).is_empty();
        let unseen = |host: &Secondary| host.now.need == Need::Contents || host.now.waits_for_unseen;
        let expected: &[i32] = if !self.hosts.iter().any(differs) {
            &[0]
        } else if checksum || self.hosts.iter().any(|host| differs(host) && !unseen(host)) {
            &[3]
        } else {
            &[0, 3]
        };
        assert!(outcome.code().is_some_and(|code| expected.contains(&code)), "{expected:?}: {}", outcome.said());
    }

    fn end(&mut self) {
        // What a plain push can repair must be repaired by one, however it came about.
        let full = self.hosts.iter().any(|host| host.now.need > Need::Push);
        let before = Snapshot::take(&self.source);
        self.push_at_rest(None, &[], full);
        before.assert_untouched(&self.source);
    }
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(dir).into_iter().flatten().flatten().map(|child| child.path()).collect();
    found.sort();
    found.into_iter().flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

fn run_seed(scratch: &Scratch, place: &Path, seed: u64) {
    let base = place.join(format!("seed{seed}"));
    fs::create_dir(&base).unwrap();
    let mut world = World::new(scratch, &base, seed, abilities());
    for _ in 0..4 + world.rng.below(4) {
        world.step();
    }
    world.end();
    drop(world);
    fs::remove_dir_all(&base).unwrap();
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|e| panic!("{variable}={text}: {e}")))
}

/// The seeds of one part of `parts`, of `all`; the one that was asked for is in the part that it is always in.
fn run_seeds(scratch: &Scratch, place: &Path, part: u64, parts: u64, all: u64) {
    let wanted = number("RFLEET_HISTORY_SEED");
    let all = number("RFLEET_HISTORY_SEEDS").unwrap_or(all);
    for seed in wanted.map_or(0..all, |seed| seed..seed + 1).filter(|seed| seed % parts == part) {
        run_seed(scratch, place, seed);
    }
    scratch.assert_no_leftovers();
}

#[rstest]
fn history(#[values(0, 1, 2, 3, 4, 5, 6, 7)] shard: u64) {
    let scratch = Scratch::new();
    let place = scratch.dir("worlds");
    run_seeds(&scratch, &place, shard, SHARDS, SEEDS);
}

/// On a filesystem that gives the number of a deleted file to the next one.
#[test]
fn history_where_inode_numbers_come_again() {
    let scratch = Scratch::new();
    let place = scratch.mount_image("disk", &["mkfs.ext4", "-q", "-O", "^has_journal"], 256 << 20);
    run_seeds(&scratch, &place, 0, 1, SEEDS_ON_DISK);
}
