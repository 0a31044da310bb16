//! Puts the environment in place of `${NAME}`, in every scalar of a tree.

use super::desk::joined;
use super::problem::{Complaint, quoted};
use super::yaml::{Entry, Node, Span, Value};

/// What gives the value of an environment variable.
pub(super) type Environment<'e> = &'e dyn Fn(&str) -> Option<String>;

/// Expands all scalars; `$${NAME}` stays as `${NAME}`. Gives what is wrong, with place and key.
pub(super) fn expand(
    root: &mut Node,
    environment: Environment<'_>,
) -> Vec<(Span, String, Complaint)> {
    let mut flaws = Vec::new();
    walk(root, "", environment, &mut flaws);
    flaws
}

fn walk(
    node: &mut Node,
    path: &str,
    environment: Environment<'_>,
    flaws: &mut Vec<(Span, String, Complaint)>,
) {
    match &mut node.value {
        Value::Scalar(text) if text.contains("${") => match expanded(text, environment) {
            Ok(expanded) => *text = expanded,
            Err(complaint) => {
                flaws.push((node.span, path.to_owned(), complaint));
                node.value = Value::Reported;
            }
        },
        Value::Nothing | Value::Reported | Value::Scalar(_) => {}
        Value::List(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                walk(item, &format!("{path}[{index}]"), environment, flaws);
            }
        }
        Value::Map(entries) => {
            for Entry { key, node, .. } in entries {
                walk(node, &joined(path, key), environment, flaws);
            }
        }
    }
}

fn expanded(text: &str, environment: Environment<'_>) -> Result<String, Complaint> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(literal) = before.strip_suffix('$') {
            out.push_str(literal);
            out.push_str("${");
            rest = after;
            continue;
        }
        out.push_str(before);
        let Some((name, after)) = after.split_once('}') else {
            return Err(Complaint::new(
                "`${` without its `}`",
                "write `${NAME}`; for the characters themselves write `$${`",
            ));
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || !name.chars().all(plain) {
            return Err(Complaint::new(
                format!(
                    "{} is not the name of an environment variable",
                    quoted(name)
                ),
                "use letters, digits and `_`; for the characters themselves write `$${`",
            ));
        }
        let value = environment(name).ok_or_else(|| {
            Complaint::new(
                format!("the environment variable {} is not set", quoted(name)),
                format!("set it where mapigate is started, as in `{name}=… mapigate …`"),
            )
        })?;
        out.push_str(&value);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_takes_the_place_of_its_name() {
        let environment = |name: &str| (name == "HOST").then(|| "mbx1".to_owned());
        let expanded = |text| expanded(text, &environment);

        assert_eq!(expanded("${HOST}.x:${HOST}").unwrap(), "mbx1.x:mbx1");
        assert_eq!(expanded("$${HOST}").unwrap(), "${HOST}");
        assert_eq!(expanded("$5").unwrap(), "$5");
        assert!(expanded("${NONE}").unwrap_err().what.contains("not set"));
        assert!(expanded("${HOST").is_err());
        assert!(expanded("${A B}").is_err());
    }
}
