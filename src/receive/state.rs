//! The record that a fleet leaves in a root: `.rfleet/state`, a few lines of TOML.

use serde::{Deserialize, Serialize};

use crate::model::{Digest, Position, Sequence, Stamp, Term};
use crate::wire::RootState;

/// Version of the format.
const VERSION: u32 = 1;

/// Starts the last line: a file that is cut short, or edited, is not believed.
const DIGEST: &str = "# ";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    version: u32,
    fleet: String,
    root: String,
    term: u64,
    primary: String,
    sequence: u64,
    /// In hexadecimal, since TOML's numbers are signed.
    stamp: String,
}

/// The record as the bytes of the file.
pub(super) fn encode(state: &RootState) -> Vec<u8> {
    let record = Record {
        version: VERSION,
        fleet: state.fleet.clone(),
        root: state.root.clone(),
        term: state.term.0,
        primary: state.primary.clone(),
        sequence: state.position.sequence.0,
        stamp: format!("{:016x}", state.position.stamp.0),
    };
    // Strings and numbers always make TOML.
    let text = toml::to_string(&record).unwrap_or_default();
    let text = format!("# What rfleet knows of this directory. Do not edit.\n{text}");
    format!("{text}{DIGEST}{}\n", Digest::of(text.as_bytes())).into_bytes()
}

/// The record in the file; `None` if it cannot be understood, which costs a comparison and an
/// adoption, never a wrong change.
pub fn decode(bytes: &[u8]) -> Option<RootState> {
    let (text, digest) = std::str::from_utf8(bytes).ok()?.rsplit_once(DIGEST)?;
    if digest != format!("{}\n", Digest::of(text.as_bytes())) {
        return None;
    }
    let record: Record = toml::from_str(text).ok()?;
    let stamp = Stamp(u64::from_str_radix(&record.stamp, 16).ok()?);
    let position = Position { sequence: Sequence(record.sequence), stamp };
    (record.version == VERSION).then_some(RootState {
        fleet: record.fleet,
        root: record.root,
        term: Term(record.term),
        primary: record.primary,
        position,
    })
}

/// `state` without what the root holds; `None` if that is not in it anyway.
pub(super) fn unknown_position(state: Option<&RootState>) -> Option<RootState> {
    let known = state.filter(|state| state.position != Position::default())?;
    Some(RootState { position: Position::default(), ..known.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_and_a_damaged_one_is_none() {
        let state = RootState {
            fleet: "cms".into(),
            root: "uploads".into(),
            term: Term(3),
            primary: "web\"1\n".into(),
            position: Position { sequence: Sequence(u64::from(u32::MAX)), stamp: Stamp(u64::MAX) },
        };
        let bytes = encode(&state);
        assert_eq!(decode(&bytes), Some(state));
        for end in 0..bytes.len() {
            assert_eq!(decode(&bytes[..end]), None, "{end}");
        }
        assert_eq!(decode(b"\xff"), None);
    }
}
