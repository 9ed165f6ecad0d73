//! Every message in every state where it has no place, and every way to send no message at all.

use rfleet::wire::{
    BlockWriter, Committed, FrameKind, MAX_FRAME_BYTES, Record, Refusal, RefusalKind, ToPrimary, encode, frame_bytes,
};

use super::Story;
use super::support::impostor::{AWAITED, Awaited, directories, entries, inventory, welcome};

/// Every message that asks for something or answers something, by name.
fn every_message() -> Vec<(&'static str, ToPrimary)> {
    vec![
        ("welcome", ToPrimary::Welcome(welcome())),
        ("inventory", ToPrimary::Inventory(inventory())),
        ("directories", directories()),
        ("entries", ToPrimary::Entries(entries())),
        ("end-of-entries", ToPrimary::EndOfEntries),
        ("signature", ToPrimary::Signature { id: 4711, bytes: vec![1; 12], last: true }),
        ("no-signature", ToPrimary::NoSignature { id: 4711 }),
        ("resend", ToPrimary::Resend { paths: Vec::new(), last: true }),
        ("committed", ToPrimary::Committed(Committed::default())),
    ]
}

fn allows(awaited: Awaited, name: &str) -> bool {
    match awaited {
        Awaited::Welcome => name == "welcome",
        Awaited::Inventory => name == "inventory",
        Awaited::Directories => name == "directories",
        Awaited::Entries => ["entries", "end-of-entries"].contains(&name),
        // Answers to what was never asked are among the others.
        Awaited::Signatures | Awaited::Content => false,
        Awaited::Resend => name == "resend",
        Awaited::Commit => name == "committed",
    }
}

/// What is no message to a primary.
fn noise() -> Vec<(&'static str, Vec<u8>)> {
    let length = |bytes: usize| u32::try_from(bytes).unwrap().to_le_bytes().to_vec();
    let with = |body: &[u8]| frame_bytes(FrameKind::Message, body);
    let mut block = BlockWriter::new();
    block.push(&Record::Cancel, b"");
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 19).unwrap();
    let mut names = encode(&ToPrimary::Entries(entries()));
    // The length of the only name says four billion.
    names.splice(16.., [0xff, 0xff, 0xff, 0xff, 0x0f]);
    vec![
        ("text", b"Last login: Sat Nov 21 on pts/0\r\n".to_vec()),
        ("endless-length", [u32::MAX.to_le_bytes().as_slice(), &[0]].concat()),
        ("over-the-limit", [length(MAX_FRAME_BYTES + 1), vec![0]].concat()),
        ("unknown-kind", [length(0), vec![3]].concat()),
        ("a-block", block.take_frame(None)),
        ("a-bomb", frame_bytes(FrameKind::CompressedBlock, &bomb)),
        ("empty", with(b"")),
        ("unknown-message", with(&[13])),
        ("endless-number", with(&[0xff; 100])),
        ("more-after", with(&[2, 0])),
        ("endless-list", with(&[10, 0xff, 0xff, 0xff, 0xff, 0x0f])),
        ("endless-name", names),
        ("bad-path", with(&[10, 1, 2, b'.', b'.', 1])),
        ("cut-off", encode(&ToPrimary::Welcome(welcome()))[..20].to_vec()),
        ("cut-header", vec![1, 2]),
        ("nothing", Vec::new()),
    ]
}

#[test]
fn every_message_where_it_has_no_place_fails_that_host_alone() {
    for awaited in AWAITED {
        let mut story = Story::new();
        let mut names = Vec::new();
        for (name, message) in every_message().into_iter().filter(|(name, _)| !allows(awaited, name)) {
            story.host(name, move |line| {
                line.serve_until(awaited);
                line.say(&message);
                line.until_end();
            });
            names.push(name);
        }
        let told = story.push(&[]);
        told.outcome.assert_code(3);
        for name in names {
            told.assert_failed(name, &["where that has no place"]);
        }
        told.join();
    }
}

#[test]
fn what_is_no_message_fails_that_host_alone_in_every_state() {
    for awaited in AWAITED {
        let mut story = Story::new();
        for (name, bytes) in noise() {
            story.host(name, move |line| {
                line.serve_until(awaited);
                line.say_bytes(&bytes);
                // And the end of its output.
            });
        }
        let told = story.push(&[]);
        told.outcome.assert_code(3);
        for (name, _) in noise() {
            told.assert_failed(name, &[]);
        }
        told.join();
    }
}

#[test]
fn a_refusal_in_any_state_is_told_in_its_own_words_but_not_at_any_length() {
    let mut story = Story::new();
    for awaited in AWAITED {
        story.host(&format!("{awaited:?}").to_lowercase(), move |line| {
            line.serve_until(awaited);
            let message = format!("\u{1b}[2Jno, not {awaited:?}\n{}", "x".repeat(3 << 20));
            line.say(&ToPrimary::Refused(Refusal { kind: RefusalKind::Failed, message }));
            line.until_end();
        });
    }
    let told = story.push(&[]);
    told.outcome.assert_code(3);
    for awaited in AWAITED {
        let host = told.host(&format!("{awaited:?}").to_lowercase());
        let error = host.error.unwrap_or_default();
        assert!(error.contains(&format!("no, not {awaited:?}")) && error.len() < 10_000, "{} bytes", error.len());
    }
    told.join();
}

#[test]
fn silence_in_any_state_is_given_up_after_the_timeout() {
    let mut story = Story::new();
    for awaited in AWAITED {
        story.host(&format!("{awaited:?}").to_lowercase(), move |line| {
            line.serve_until(awaited);
            line.until_end();
        });
    }
    let told = story.push(&["--timeout", "3s"]);
    told.outcome.assert_code(3);
    for awaited in AWAITED {
        told.assert_failed(&format!("{awaited:?}").to_lowercase(), &["silent"]);
    }
    told.join();
}
