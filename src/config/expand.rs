//! `${NAME}` in values.
//!
//! `${NAME}` becomes the environment variable NAME; `$${` stands for a literal `${`. Any other `$`
//! is itself, so patterns such as `~$*` need no escape. What a variable holds is not expanded again.

use thiserror::Error;

/// Why a value cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum ExpandError {
    /// The variable is not set, or not UTF-8.
    #[error("the environment variable `{0}` is not set")]
    Unset(String),
    /// A `${` without its `}`.
    #[error("`${{` has no closing `}}`; write `$${{` for a literal `${{`")]
    Unclosed,
    /// What stands between the braces cannot be a variable.
    #[error("`{0}` is not a variable name; write `$${{` for a literal `${{`")]
    Name(String),
}

/// `text` with its variables filled in by `env`.
pub(super) fn expand(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, ExpandError> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$${") {
            expanded.push_str("${");
            rest = after;
        } else if let Some(after) = rest.strip_prefix("${") {
            let (name, after) = after.split_once('}').ok_or(ExpandError::Unclosed)?;
            if !is_variable(name) {
                return Err(ExpandError::Name(name.escape_debug().to_string()));
            }
            expanded.push_str(&env(name).ok_or_else(|| ExpandError::Unset(name.to_owned()))?);
            rest = after;
        } else {
            expanded.push('$');
            rest = &rest[1..];
        }
    }
    expanded.push_str(rest);
    Ok(expanded)
}

fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("plain", Ok("plain"))]
    #[case("", Ok(""))]
    #[case("${A}", Ok("one"))]
    #[case("x${A}y${B}z", Ok("xoney${A}z"))]
    #[case("$A $ ~$* é$", Ok("$A $ ~$* é$"))]
    #[case("$${A}", Ok("${A}"))]
    #[case("$$${A}", Ok("$${A}"))]
    #[case("${NONE}", Err(ExpandError::Unset("NONE".to_owned())))]
    #[case("${A", Err(ExpandError::Unclosed))]
    #[case("${}", Err(ExpandError::Name(String::new())))]
    #[case("${A:-x}", Err(ExpandError::Name("A:-x".to_owned())))]
    #[case("${1}", Err(ExpandError::Name("1".to_owned())))]
    fn expansion(#[case] text: &str, #[case] expected: Result<&str, ExpandError>) {
        let env = |name: &str| match name {
            "A" => Some("one".to_owned()),
            "B" => Some("${A}".to_owned()),
            _ => None,
        };
        assert_eq!(expand(text, &env), expected.map(str::to_owned));
    }
}
