//! stub
use crate::push::RootReport;
pub fn summary(_command: &str, reports: &[RootReport], _seconds: f64, _dry_run: bool) -> String {
    format!("{reports:#?}\n")
}
pub fn json(
    _command: &str,
    _fleet: Option<&str>,
    _dry_run: bool,
    _exit: u8,
    _seconds: f64,
    _reports: &[RootReport],
) -> serde_json::Value {
    serde_json::Value::Null
}
