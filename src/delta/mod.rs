//! Content differences.
/// x
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SignatureSpec {
    /// x
    pub block_bytes: u32,
    /// y
    pub strong_bytes: u8,
}
