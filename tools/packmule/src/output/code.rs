//! The codes of failures that are not the library's. They stay what they are; `src/docs/errors.md` has them all.

/// The command line is wrong.
pub const USAGE: &str = "usage";
/// Refused for a reason that has no code of its own: the words say it.
pub const REFUSED: &str = "refused";
/// The file of `run` says something that it cannot.
pub const CONFIG: &str = "config";
/// The other end cannot be reached, or the connection broke off.
pub const CONNECTION: &str = "connection";
/// The other end went no further.
pub const PEER_REFUSED: &str = "peer-refused";
/// The other end has as many sessions as it takes; also over HTTP.
#[cfg(feature = "net")]
pub const BUSY: &str = "busy";
/// The library's.
#[cfg(feature = "net")]
pub const REVOKED: &str = "revoked";
/// Of several requests for admission none was granted.
pub const NOBODY_ADMITTED: &str = "nobody-admitted";
/// What was checked is not as it should be.
pub const PROBLEMS_FOUND: &str = "problems-found";
/// The library's, also where a session says it.
pub const UNTRUSTED: &str = "untrusted";

/// Those that the library does not have.
#[cfg(all(test, feature = "net"))]
const OWN: &[&str] = &[USAGE, REFUSED, CONFIG, CONNECTION, PEER_REFUSED, NOBODY_ADMITTED, PROBLEMS_FOUND];

/// The page has every code, and no other; each with its meaning and what to do.
#[test]
#[cfg(feature = "net")]
fn the_page_has_every_code_and_no_other() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../src/docs/errors.md");
    let page = std::fs::read_to_string(path).unwrap();
    let mut on_page = Vec::new();
    for row in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        assert!(cells.len() == 3 && cells.iter().all(|cell| !cell.is_empty()), "{row}");
        on_page.push(cells[0].trim_matches('`'));
    }
    let mut codes: Vec<&str> =
        packmule::Error::CODES.iter().chain(OWN).chain(&packmule::carry::net::HTTP_CODES).copied().collect();
    codes.sort_unstable();
    assert_eq!(on_page, codes, "in order of the alphabet, each once");
    assert!([BUSY, REVOKED, UNTRUSTED].iter().all(|code| codes.contains(code)));
    let word = |code: &&str| code.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    assert!(codes.iter().all(word), "{codes:?}");
}
