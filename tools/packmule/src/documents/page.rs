//! The page of the JSON fields, `src/docs/json.md`, made from the types of the documents.

use std::fmt::Write;
use std::path::Path;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::Value;

use super::*;

const HEAD: &str = "\
# JSON documents

What each command prints with `--json`: one document. Made from `tools/packmule/src/documents`, by its test
`PACKMULE_BLESS=1 cargo test -p packmule-cli --bin packmule page`; do not edit it.

Fields can be added. Those that are here keep their names and meanings; a field marked *where it applies* can be
absent. Times are ISO 8601, UTC. `a[].b` is the field `b` of each element of the list `a`, `a.NAME` a field with
a name of the user's.
";

/// Makes the page.
fn page() -> String {
    let mut page = HEAD.to_owned();
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let mut types = settings.with(|settings| settings.inline_subschemas = true).into_generator();
    section::<Initialised>(&mut page, &mut types, "init");
    section::<Removed>(&mut page, &mut types, "init --remove");
    section::<FleetKeyMade>(&mut page, &mut types, "fleet new");
    section::<FleetKeyRotated>(&mut page, &mut types, "fleet rotate");
    section::<AdmittedDevices>(&mut page, &mut types, "admit");
    section::<Renamed>(&mut page, &mut types, "rename");
    section::<Trusted>(&mut page, &mut types, "trust");
    section::<Revoked>(&mut page, &mut types, "revoke");
    section::<Devices>(&mut page, &mut types, "devices");
    section::<Retired>(&mut page, &mut types, "retire");
    section::<Tracked>(&mut page, &mut types, "track");
    section::<Untracked>(&mut page, &mut types, "untrack");
    section::<Changed>(&mut page, &mut types, "schema");
    section::<Sealed>(&mut page, &mut types, "seal");
    section::<report::CompactReport>(&mut page, &mut types, "compact");
    section::<report::PruneReport>(&mut page, &mut types, "prune");
    section::<SnapshotWritten>(&mut page, &mut types, "snapshot");
    section::<Joined>(&mut page, &mut types, "join");
    section::<Exported>(&mut page, &mut types, "export");
    section::<Imported>(&mut page, &mut types, "import");
    section::<Imported>(&mut page, &mut types, "merge");
    section::<Synced>(&mut page, &mut types, "sync");
    section::<Event>(&mut page, &mut types, "serve");
    section::<Event>(&mut page, &mut types, "run");
    section::<RunChecked>(&mut page, &mut types, "run --check");
    section::<FoundDevices>(&mut page, &mut types, "find");
    section::<Exchanged>(&mut page, &mut types, "exchange");
    section::<Conflicts>(&mut page, &mut types, "conflicts");
    section::<conflicts::Resolution>(&mut page, &mut types, "resolve");
    section::<Undone>(&mut page, &mut types, "resolve --undo");
    section::<DecidedByPrograms>(&mut page, &mut types, "decide");
    section::<Status>(&mut page, &mut types, "status");
    section::<TakenBackWrites>(&mut page, &mut types, "undo");
    section::<Restored>(&mut page, &mut types, "restore");
    section::<AtWritten>(&mut page, &mut types, "at");
    section::<Reported>(&mut page, &mut types, "report");
    section::<look::Log>(&mut page, &mut types, "log");
    section::<Digest>(&mut page, &mut types, "digest");
    section::<Verified>(&mut page, &mut types, "verify");
    section::<Inspected>(&mut page, &mut types, "inspect");
    section::<Board>(&mut page, &mut types, "board");
    section::<Installed>(&mut page, &mut types, "board install");
    section::<RemovedServices>(&mut page, &mut types, "board remove");
    section::<BoardChecked>(&mut page, &mut types, "board check");
    section::<CardChecked>(&mut page, &mut types, "board card");
    section::<Completions>(&mut page, &mut types, "completions");
    section::<Manual>(&mut page, &mut types, "man");
    section::<Demo>(&mut page, &mut types, "demo");
    section::<ErrorDocument>(&mut page, &mut types, "any command that fails");
    page
}

fn section<T: JsonSchema>(page: &mut String, types: &mut SchemaGenerator, title: &str) {
    let mut rows = Vec::new();
    object(T::json_schema(types).as_value(), "", &mut rows);
    writeln!(page, "\n## {title}\n\n| field | value | meaning |\n|---|---|---|").unwrap();
    rows.iter().for_each(|row| page.push_str(row));
}

/// Adds the fields of an object, and those of what is in them.
fn object(schema: &Value, path: &str, rows: &mut Vec<String>) {
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}{name}");
        let mut meaning = field["description"].as_str().unwrap_or_default().replace('\n', " ");
        assert!(!meaning.is_empty(), "{path} has no comment");
        let mut kind = kind(field);
        if !required.contains(&Value::from(name.as_str())) {
            // It is absent rather than null, unless its comment says otherwise.
            if !meaning.contains("null") {
                kind = kind.replace(" or null", "");
            }
            meaning.insert_str(0, "*Where it applies.* ");
        }
        let meaning = meaning.replace('|', "\\|");
        rows.push(format!("| `{path}` | {kind} | {meaning} |\n"));
        inner(field, &path, rows);
    }
}

fn inner(field: &Value, path: &str, rows: &mut Vec<String>) {
    let field = not_null(field);
    if field["properties"].is_object() {
        object(field, &format!("{path}."), rows);
    }
    if field["items"].is_object() {
        inner(&field["items"], &format!("{path}[]"), rows);
    }
}

/// Returns the type beside null, if null is the other one.
fn not_null(field: &Value) -> &Value {
    let choices = field["anyOf"].as_array();
    choices.and_then(|choices| choices.iter().find(|choice| choice["type"] != "null")).unwrap_or(field)
}

/// Names a type.
fn kind(field: &Value) -> String {
    if field["anyOf"].is_array() {
        return format!("{} or null", kind(not_null(field)));
    }
    let name = |word: &Value| match word.as_str() {
        Some("string") => "text".to_owned(),
        Some("boolean") => "true or false".to_owned(),
        Some("array") if field["items"].is_object() => format!("list of {}", kind(&field["items"])),
        Some("object") if !field["properties"].is_object() => "object, by NAME".to_owned(),
        Some(word) => word.to_owned(),
        None => panic!("{field}"),
    };
    match &field["type"] {
        Value::Array(words) => words.iter().map(name).collect::<Vec<_>>().join(" or "),
        word => name(word),
    }
}

#[test]
fn the_page_is_what_the_types_are() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../src/docs/json.md");
    let page = page();
    if std::env::var_os("PACKMULE_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &page).unwrap();
    }
    let is = std::fs::read_to_string(path).unwrap_or_default();
    assert!(is == page, "src/docs/json.md is not what the types are: run this test with PACKMULE_BLESS=1");
}
