//! Hostile peers over a real sshd, once in each direction: what `hostile_primary` and `hostile_secondary` show over pipes
//! holds where the bytes come through SSH.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::process::Command;

use rfleet::model::{Digest, Expected};
use rfleet::wire::{BlockWriter, Change, Record, RefusalKind, ToPrimary, ToReceiver, encode};
use support::fleet::over_ssh;
use support::impostor::{Awaited, Impostor};
use support::primary::{meta, path};
use support::sshd::{SshdOptions, client_config};
use support::victim::Victim;
use support::{Push, Scratch, Snapshot, Sshd, Tree, assert_same, rfleet_bin};

#[test]
fn a_hostile_primary_over_ssh_is_refused_and_changes_nothing() {
    let scratch = Scratch::new();
    let (root, outside) = (scratch.path("root"), scratch.path("outside"));
    Tree::new().file("secret", "sentinel").create(&outside);
    Tree::new().file("file", "text").link("link", outside.to_str().unwrap()).create(&root);
    let (before, sentinel) = (Snapshot::take(&root), Snapshot::take(&outside));
    let sshd = Sshd::start(&scratch, "far");
    let client = client_config(&scratch, "ssh_config", &[sshd.client_block("far", "")]);
    let config = Victim::config(&scratch, &root, "timeout = \"5s\"");
    let connect = || {
        let mut command = Command::new("ssh");
        scratch.hermetic(&mut command);
        command.arg("-F").arg(&client).arg("far").arg(rfleet_bin()).args(["receive", "--config"]).arg(&config);
        Victim::behind(command)
    };
    let below = {
        let mut block = BlockWriter::new();
        let digest = Digest::of(b"planted");
        let record = Record::File { path: path("link/secret"), meta: meta(0o644, 5), bytes: 7, digest };
        block.push(&record, b"planted");
        block.take_frame(None)
    };
    let root_gone = Change::Remove { path: path(""), was: Expected::Directory };
    let attacks = [
        ("a question while changing", encode(&ToReceiver::List)),
        ("the removal of the root", encode(&ToReceiver::Changes(vec![root_gone]))),
        ("a frame without end", [0xff, 0xff, 0xff, 0xff, 0].to_vec()),
        ("content below a link, and the end", below),
        ("signs of life without end", encode(&ToReceiver::Heartbeat).repeat(100_000)),
    ];
    for (what, bytes) in attacks {
        let mut victim = connect();
        victim.begin(5);
        victim.send_bytes(&bytes);
        let ended = victim.end();
        assert_eq!(ended.code, Some(1), "{what}: {}", ended.stderr);
        ended.assert_modest(what);
        let refused = ended.refusal().is_none_or(|refusal| refusal.kind == RefusalKind::BadRequest);
        assert!(refused, "{what}: {:?}", ended.refusal());
        sentinel.assert_untouched(&outside);
        let now = Snapshot::take(&root);
        for name in [b"file".as_slice(), b"link"] {
            assert!(now.entries.get(name) == before.entries.get(name), "{what}");
        }
        assert_eq!(now.entries.len(), before.entries.len(), "{what}");
    }
}

#[test]
fn a_hostile_secondary_over_ssh_fails_alone() {
    let scratch = Scratch::new();
    let source = scratch.path("source");
    Tree::new().file("a", "text").file("d/e", "more").create(&source);
    let impostors = [Awaited::Inventory, Awaited::Resend].map(|awaited| {
        Impostor::new(&scratch, &format!("{awaited:?}").to_lowercase(), move |line| {
            line.serve_until(awaited);
            line.say(&ToPrimary::EndOfEntries);
            line.until_end();
        })
    });
    let good = Sshd::start(&scratch, "good");
    let mut blocks = vec![good.client_block("good", "")];
    let mut sick = Vec::new();
    for impostor in &impostors {
        let [.., input, output] = impostor.command.as_slice() else { panic!("no pipes") };
        let forced_command = Some(format!("cat {output} & exec cat >{input}"));
        let sshd = Sshd::start_with(
            &scratch,
            &format!("sshd-{}", impostor.name),
            &SshdOptions { forced_command, ..SshdOptions::default() },
        );
        blocks.push(sshd.client_block(&impostor.name, ""));
        sick.push(sshd);
    }
    let client = client_config(&scratch, "ssh_config", &blocks);
    let destination = |name: &str| format!("{name}:{}", scratch.path(&format!("copy-{name}")).display());
    let names = ["good", "inventory", "resend"].map(destination);
    let outcome = over_ssh(Push::adhoc(&scratch, &source, &names), &client).run();
    outcome.assert_code(3);
    let report = outcome.report();
    assert_eq!(report.host(&destination("good")).state, "done", "{}", outcome.said());
    assert_same(&source, &scratch.path("copy-good"));
    for name in ["inventory", "resend"] {
        let host = report.host(&destination(name));
        let error = host.error.as_deref().unwrap_or_default();
        assert!(host.state == "failed" && error.contains("where that has no place"), "{host:?}");
    }
    assert!(!outcome.stderr.contains("panicked"), "{}", outcome.said());
    impostors.into_iter().for_each(Impostor::join);
}
