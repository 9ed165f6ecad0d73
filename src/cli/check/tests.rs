use super::*;

#[test]
fn the_worst_area_decides_the_exit_code() {
    assert_eq!(exit(false, false, false), Exit::Done);
    assert_eq!(exit(false, false, true), Exit::Partial);
    assert_eq!(exit(false, true, true), Exit::Refused);
    assert_eq!(exit(true, true, true), Exit::Usage);
}

#[test]
fn a_line_is_one_line_whatever_a_host_says() {
    let mut finding = Finding::new("root", Status::Fail, "uploads: no\n\x1b[2J");
    finding.host = Some("web\n2".into());
    assert_eq!(finding.line(), "fail  root      web\\n2: uploads: no\\n\\u{1b}[2J");
}

#[test]
fn machines_get_the_documented_keys() {
    let finding = Finding::new("config", Status::Warn, "a\nb");
    let expected = serde_json::json!({ "check": "config", "host": null, "status": "warn", "detail": "a\nb" });
    assert_eq!(serde_json::json!(finding), expected);
}
