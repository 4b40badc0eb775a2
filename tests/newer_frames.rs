//! Devices of a newer program version in one fleet: what they write that this version cannot read waits by name, and harms
//! nobody.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Helpers of tests are tests.

mod bundles;
mod common;
use common::*;
use packmule::core::wire::{Frame, RecordKind};
use packmule::{Engine, Missing};

const NOTES: &str = "CREATE TABLE notes (id TEXT PRIMARY KEY, body)";

/// The bundle as a newer version would have written its last group: with this flag or codec, and a block that nobody here
/// knows.
fn newer(author: &Engine, bytes: &[u8], flag: u8, codec: u8) -> Vec<u8> {
    let mut records = bundles::records(bytes);
    let at = records.iter().rposition(|(kind, _)| *kind == RecordKind::Frame).unwrap();
    let mut body = records[at].1.clone();
    (body[1], body[2]) = (body[1] | flag, codec);
    let body = bundles::with_blocks(&body, &[99, 1, 2, 3]);
    assert!(Frame::parse(&body).unwrap().is_newer());
    bundles::replace_frame(&mut records, at, body, author);
    bundles::join(&records)
}

#[test]
fn what_a_newer_version_wrote_waits_by_name_and_the_rest_goes_on() {
    for (flag, codec) in [(128, 0), (0, 2)] {
        let world = World::new();
        let mut a = world.board_with("a", NOTES, &["notes"]);
        let mut b = world.board_with("b", NOTES, &["notes"]);
        let mut base = world.base("base");
        carry_all(&mut [&mut a, &mut b, &mut base]);
        sql(&a, "INSERT INTO notes VALUES ('newer', 1)");
        a.seal().unwrap();
        let whole = whole_bundle(&mut a);
        let forged = newer(&a, &whole, flag, codec);
        // Together with what others have written, in one bundle and in the next.
        let report = import(&mut base, &forged);
        assert_eq!(report.waits.len(), 1, "{report:?}");
        assert_eq!(report.waits[0].missing, Missing::Newer);
        sql(&b, "INSERT INTO notes VALUES ('of b', 1)");
        let report = carry(&mut b, &mut base);
        assert_eq!(report.ops, 1);
        sql(&base, "INSERT INTO notes VALUES ('of base', 1)");
        carry(&mut base, &mut b);
        digests_equal(&[&b, &base]);
        assert_eq!(rows(&base, "SELECT id FROM notes ORDER BY id"), ["\"of b\"", "\"of base\""]);
        assert_eq!(base.status().unwrap().waits[0].missing, Missing::Newer);
        base.compact().unwrap();
        assert!(base.verify().unwrap().problems.is_empty());
        // It is not acknowledged: its author keeps it.
        let (own, has) = (base.positions().unwrap(), a.positions().unwrap());
        let of = (a.identity().id, packmule::core::model::Stream::Shared);
        assert!(own.get(&of) < has.get(&of));
        assert_eq!(import(&mut base, &forged).waits.len(), 1, "again it is the same");
    }
}
