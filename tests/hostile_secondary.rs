//! Secondaries that do not keep to the protocol, in every state of a primary: each fails by itself, with one line that says
//! why, and the hosts beside it get everything.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "hostile_secondary/flood.rs"]
mod flood;
#[path = "hostile_secondary/lies.rs"]
mod lies;
#[path = "hostile_secondary/states.rs"]
mod states;
mod support;

use std::path::PathBuf;

use support::impostor::{Impostor, LARGE, LARGE_BYTES, Line};
use support::rfleet::HostReport;
use support::victim::Peak;
use support::{Config, Outcome, Push, Rng, Scratch, Tree, assert_same, rfleet_bin};

/// A source, two honest hosts, and any number of others.
struct Story {
    scratch: Scratch,
    source: PathBuf,
    impostors: Vec<Impostor>,
}

/// What came of it.
struct Told {
    story: Story,
    outcome: Outcome,
    peak: u64,
}

const HONEST: [&str; 2] = ["good-a", "good-z"];

impl Story {
    fn new() -> Self {
        let scratch = Scratch::new();
        let source = scratch.path("source");
        let large = Rng::new(1).bytes(LARGE_BYTES);
        Tree::new().file("a", "text").file("d/e/f", "more").file(LARGE, large).link("l", "a").create(&source);
        Self { scratch, source, impostors: Vec::new() }
    }

    /// A host that follows `script`.
    fn host(&mut self, name: &str, script: impl FnOnce(&mut Line) + Send + 'static) {
        self.impostors.push(Impostor::new(&self.scratch, name, script));
    }

    /// Pushes to all, the honest hosts included.
    fn push(self, options: &[&str]) -> Told {
        self.run(&HONEST, options)
    }

    /// Pushes to the impostors alone.
    fn push_to_impostors(self, options: &[&str]) -> Told {
        self.run(&[], options)
    }

    fn run(self, honest: &[&str], options: &[&str]) -> Told {
        let names: Vec<&str> =
            honest.iter().copied().chain(self.impostors.iter().map(|impostor| impostor.name.as_str())).collect();
        let lines = "[push]\nparallel = 500";
        let mut config = Config::new("cms").root("www", &self.source, "").hosts(&names).lines(lines);
        for name in honest {
            let command = [rfleet_bin().to_str().unwrap(), "receive"];
            config = config.host_command(name, &command, "www", &self.scratch.path(name));
        }
        for impostor in &self.impostors {
            let command: Vec<&str> = impostor.command.iter().map(String::as_str).collect();
            // Configured commands get the root's place as further arguments, which the shell ignores.
            config = config.host_command(&impostor.name, &command, "www", &self.scratch.path("unused"));
        }
        let config = config.write(&self.scratch, "rfleet.toml");
        let running = Push::configured(&self.scratch, &config).args(options).start();
        let peak = Peak::of(running.pid());
        let outcome = running.finish();
        let told = Told { story: self, outcome, peak: peak.bytes() };
        assert!(!told.outcome.stderr.contains("panicked"), "{}", told.outcome.said());
        for name in honest {
            assert_eq!(told.host(name).state, "done", "{name}: {}", told.outcome.said());
            assert_same(&told.story.source, &told.story.scratch.path(name));
        }
        told
    }
}

impl Told {
    fn host(&self, name: &str) -> HostReport {
        let mut report = self.outcome.report();
        let hosts = &mut report.roots[0].hosts;
        let at = hosts.iter().position(|host| host.name == name);
        hosts.swap_remove(at.unwrap_or_else(|| panic!("no host {name}: {}", self.outcome.said())))
    }

    /// The host failed, and one line says why: with one of `words`, if there are any.
    fn assert_failed(&self, name: &str, words: &[&str]) {
        let host = self.host(name);
        assert_eq!(host.state, "failed", "{name}: {host:?}");
        let error = host.error.unwrap_or_default();
        assert!(!error.is_empty() && error.lines().count() == 1 && error.len() < 10_000, "{name}: {error:?}");
        assert!(words.is_empty() || words.iter().any(|word| error.contains(word)), "{name}: {error:?}");
    }

    /// Every script came to its end.
    fn join(self) {
        let Told { story, .. } = self;
        story.impostors.into_iter().for_each(Impostor::join);
        story.scratch.assert_no_leftovers();
    }
}
