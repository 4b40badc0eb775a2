//! The page of the JSON fields, and what it says of a document.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

/// A field, as the page has it.
struct Field {
    kind: String,
    may_be_absent: bool,
}

/// `src/docs/json.md`: the fields of each section.
pub struct Page(BTreeMap<String, BTreeMap<String, Field>>);

impl Page {
    /// Reads it.
    pub fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../src/docs/json.md");
        let mut sections: BTreeMap<String, BTreeMap<String, Field>> = BTreeMap::new();
        let mut section = String::new();
        for line in std::fs::read_to_string(path).unwrap().lines() {
            if let Some(title) = line.strip_prefix("## ") {
                section = title.to_owned();
            } else if let Some(row) = line.strip_prefix("| `") {
                let (field, rest) = row.split_once("` | ").unwrap();
                let (kind, meaning) = rest.split_once(" | ").unwrap();
                let may_be_absent = meaning.starts_with("*Where it applies.*");
                let field_of_page = Field { kind: kind.to_owned(), may_be_absent };
                sections.entry(section.clone()).or_default().insert(field.to_owned(), field_of_page);
            }
        }
        Self(sections)
    }

    /// The titles of the sections.
    pub fn sections(&self) -> BTreeSet<String> {
        self.0.keys().cloned().collect()
    }

    /// Checks that a document has the fields of a section, each of its type, and no others.
    #[track_caller]
    pub fn check(&self, section: &str, document: &Value) {
        let fields = self.0.get(section).unwrap_or_else(|| panic!("the page has no section {section}"));
        if let Err(wrong) = object(fields, "", document) {
            panic!("{section}: {wrong}\n{document:#}");
        }
    }
}

fn object(fields: &BTreeMap<String, Field>, prefix: &str, document: &Value) -> Result<(), String> {
    let printed = document.as_object().ok_or_else(|| format!("{prefix} is not an object"))?;
    for (path, field) in fields {
        let name = path.strip_prefix(prefix).filter(|name| !name.contains(['.', '[']));
        let Some(name) = name else { continue };
        match printed.get(name) {
            Some(value) => fits(fields, path, &field.kind, value)?,
            None if field.may_be_absent => {}
            None => return Err(format!("{path} is on the page and is not printed")),
        }
    }
    let unknown = printed.keys().find(|name| !fields.contains_key(&format!("{prefix}{name}")));
    unknown.map_or(Ok(()), |name| Err(format!("{prefix}{name} is printed and is not on the page")))
}

fn fits(fields: &BTreeMap<String, Field>, path: &str, kind: &str, value: &Value) -> Result<(), String> {
    if let Some(kind) = kind.strip_suffix(" or null") {
        return if value.is_null() { Ok(()) } else { fits(fields, path, kind, value) };
    }
    if let Some(of) = kind.strip_prefix("list of ") {
        let list = value.as_array().ok_or_else(|| format!("{path} is not a list"))?;
        return list.iter().try_for_each(|value| fits(fields, &format!("{path}[]"), of, value));
    }
    let fit = match kind {
        "object" => return object(fields, &format!("{path}."), value),
        "object, by NAME" => value.is_object(),
        "text" => value.is_string(),
        "true or false" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        other => return Err(format!("{path}: the page has the type {other}")),
    };
    if fit { Ok(()) } else { Err(format!("{path} is not {kind}: {value}")) }
}
