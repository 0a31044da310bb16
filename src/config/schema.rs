//! The JSON Schema of the configuration, for editors that complete keys and mark mistakes.

use super::keys::{self, Given, Key, Kind};
use super::values::{duration_words, size_words};
use super::yaml::{self, Value as Yaml};
use serde_json::{Map, Value, json};

/// A value that is wholly or partly taken from the environment cannot be judged by an editor.
const ENVIRONMENT: &str = r"^.*\$\{[A-Za-z0-9_]+\}.*$";

/// The schema, draft 2020-12.
pub fn schema() -> Value {
    let mut schema = section("");
    let head = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "mapigate",
        "description": "Configuration of mapigate, the front door of a mail site.",
    });
    if let (Value::Object(schema), Value::Object(head)) = (&mut schema, head) {
        schema.extend(head);
    }
    schema
}

fn section(path: &str) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for key in keys::children(path) {
        if matches!(key.given, Given::Required { .. }) {
            required.push(key.leaf());
        }
        properties.insert(key.leaf().to_owned(), property(key));
    }
    let mut schema = json!({
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    });
    if let (Some(schema), false) = (schema.as_object_mut(), required.is_empty()) {
        schema.insert("required".to_owned(), json!(required));
    }
    schema
}

fn property(key: &Key) -> Value {
    let mut schema = of_kind(&key.kind, key.path);
    let Some(object) = schema.as_object_mut() else {
        return schema;
    };
    let range = match key.kind {
        Kind::Duration(least, most) => {
            format!(
                " From {} to {}.",
                duration_words(least),
                duration_words(most)
            )
        }
        Kind::Size(least, most) => format!(" From {} to {}.", size_words(least), size_words(most)),
        _ => String::new(),
    };
    object.insert(
        "description".to_owned(),
        json!(format!("{}{range}", key.doc)),
    );
    match key.given {
        Given::Default("") => {}
        Given::Default(text) => {
            object.insert("default".to_owned(), default(&key.kind, text));
        }
        Given::Required { example, .. }
        | Given::Optional { example, .. }
        | Given::Usual { example, .. } => {
            if !example.is_empty() && !matches!(key.kind, Kind::Named(..)) {
                object.insert("examples".to_owned(), json!([default(&key.kind, example)]));
            }
        }
    }
    schema
}

fn of_kind(kind: &Kind, path: &str) -> Value {
    match *kind {
        Kind::Section => section(path),
        Kind::SectionOrOff => json!({ "anyOf": [section(path), word("off")] }),
        Kind::Named(item, _) => {
            let item = of_kind(item, &format!("{path}.*"));
            json!({ "type": "object", "minProperties": 1, "additionalProperties": item })
        }
        Kind::NamedOrFile(item, _) => {
            let mut schema = section(path);
            if let Some(object) = schema.as_object_mut() {
                object.insert("minProperties".to_owned(), json!(1));
                let names = of_kind(item, &format!("{path}.*"));
                object.insert("additionalProperties".to_owned(), names);
            }
            schema
        }
        Kind::List(item) => {
            json!({ "type": "array", "items": of_kind(item, &format!("{path}[]")) })
        }
        Kind::Switch => json!({ "type": ["boolean", "string"], "pattern": ENVIRONMENT }),
        Kind::Count(least, most) => number(least, most),
        Kind::CountOrAuto(least, most) => {
            json!({ "anyOf": [number(least, most), word("auto")] })
        }
        Kind::Duration(..) => text(r"^[0-9.]+ ?[a-zµ]+( ?[0-9.]+ ?[a-zµ]+)*$"),
        Kind::Size(..) => text(r"^[0-9]+(\.[0-9]+)? ?([kKmMgGtT]i?)?[bB]?$"),
        Kind::Choice(words) => choice(words),
        Kind::Address => text(r":[0-9]+$"),
        Kind::AddressOrOff => text(r"(:[0-9]+$)|^off$"),
        Kind::HostPort => text(r"^[^/]+:[0-9]+$"),
        Kind::MapiUrl => text(r"^https://[^/]+/mapi/?$"),
        Kind::Url => text(r"^https?://[^/]+(/.*)?$"),
        Kind::HttpsUrl => text(r"^https://[^/]+(/.*)?$"),
        Kind::Build => text(r"^[0-9]+(\.[0-9]+){1,3}$"),
        Kind::PageOrOff => text(r"^(/.*|off)$"),
        Kind::Text
        | Kind::Secret
        | Kind::Name
        | Kind::Host
        | Kind::Network
        | Kind::File
        | Kind::Folder
        | Kind::FileOr(_)
        | Kind::Token
        | Kind::LogFilter => json!({ "type": "string", "minLength": 1 }),
    }
}

fn text(pattern: &str) -> Value {
    json!({ "type": "string", "pattern": format!("({pattern})|({ENVIRONMENT})") })
}

fn number(least: u64, most: u64) -> Value {
    json!({
        "type": ["integer", "string"],
        "minimum": least,
        "maximum": most,
        "pattern": ENVIRONMENT,
    })
}

fn word(word: &str) -> Value {
    json!({ "const": word })
}

/// `version: 1` and `versions: [1.2]` are numbers to an editor; we read their text.
fn choice(words: &[&str]) -> Value {
    let mut values: Vec<Value> = words.iter().map(|word| json!(word)).collect();
    for word in words {
        if let Ok(Value::Number(number)) = serde_json::from_str(word) {
            values.push(Value::Number(number));
        }
    }
    json!({ "anyOf": [{ "enum": values }, { "type": "string", "pattern": ENVIRONMENT }] })
}

/// The words of the file as JSON.
fn default(kind: &Kind, text: &str) -> Value {
    let node = yaml::parse(text).map(|node| node.value);
    let value = |kind: &Kind, text: &str| match kind {
        Kind::Switch | Kind::Count(..) | Kind::CountOrAuto(..) => {
            serde_json::from_str(text).unwrap_or_else(|_: serde_json::Error| json!(text))
        }
        _ => json!(text),
    };
    match (kind, node) {
        (Kind::List(item), Ok(Yaml::List(nodes))) => {
            let of = |node: yaml::Node| match node.value {
                Yaml::Scalar(text) => Some(value(item, &text)),
                _ => None,
            };
            Value::Array(nodes.into_iter().filter_map(of).collect())
        }
        (kind, Ok(Yaml::Scalar(text))) => value(kind, &text),
        _ => json!(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_knows_keys_defaults_and_ranges() {
        let schema = schema();

        let head = &schema["properties"]["limits"]["properties"]["head"];
        assert_eq!(head["default"], "128KiB");
        assert!(head["description"].as_str().unwrap().contains("From 1KiB"));
        let server = &schema["properties"]["servers"]["additionalProperties"];
        assert_eq!(server["required"], json!(["address"]));
        assert_eq!(server["additionalProperties"], json!(false));
        assert_eq!(server["properties"]["normalize"]["default"], json!(true));
        assert_eq!(
            schema["properties"]["tls"]["properties"]["versions"]["default"],
            json!(["1.2", "1.3"])
        );
        assert!(
            schema["required"]
                .as_array()
                .unwrap()
                .contains(&json!("version"))
        );
    }

    #[test]
    fn every_key_has_a_description_in_the_schema() {
        let text = schema().to_string();

        for key in keys::KEYS {
            let doc = json!(key.doc).to_string();
            assert!(text.contains(doc.trim_end_matches('"')), "{}", key.path);
        }
    }
}
