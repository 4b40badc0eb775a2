//! Full-text and spatial indexes, which an application keeps by triggers.

use super::*;

/// As the documentation of FTS5 shows them.
pub const EXTERNAL: &str = "
    CREATE VIRTUAL TABLE fts USING fts5(title, body, content='docs', content_rowid='id');
    CREATE TRIGGER docs_ai AFTER INSERT ON docs BEGIN
      INSERT INTO fts(rowid, title, body) VALUES (new.id, new.title, new.body);
    END;
    CREATE TRIGGER docs_ad AFTER DELETE ON docs BEGIN
      INSERT INTO fts(fts, rowid, title, body) VALUES('delete', old.id, old.title, old.body);
    END;
    CREATE TRIGGER docs_au AFTER UPDATE ON docs BEGIN
      INSERT INTO fts(fts, rowid, title, body) VALUES('delete', old.id, old.title, old.body);
      INSERT INTO fts(rowid, title, body) VALUES (new.id, new.title, new.body);
    END;";
const CONTENTLESS: &str = "
    CREATE VIRTUAL TABLE fts USING fts5(title, body, content='', contentless_delete=1);
    CREATE TRIGGER docs_ai AFTER INSERT ON docs BEGIN
      INSERT INTO fts(rowid, title, body) VALUES (new.id, new.title, new.body);
    END;
    CREATE TRIGGER docs_ad AFTER DELETE ON docs BEGIN
      DELETE FROM fts WHERE rowid = old.id;
    END;
    CREATE TRIGGER docs_au AFTER UPDATE ON docs BEGIN
      INSERT OR REPLACE INTO fts(rowid, title, body) VALUES (new.id, new.title, new.body);
    END;";

/// The index finds exactly what the table has.
pub fn index_is_right(engine: &Engine, external: bool) {
    for word in ["red", "green", "blue", "one", "two", "three"] {
        let found = rows(engine, &format!("SELECT rowid FROM fts WHERE fts MATCH '{word}' ORDER BY 1"));
        let there = rows(
            engine,
            &format!("SELECT id FROM docs WHERE title || ' ' || body LIKE '%{word}%' ORDER BY 1"),
        );
        assert_eq!(found, there, "{word}");
    }
    if external {
        sql(engine, "INSERT INTO fts(fts, rank) VALUES('integrity-check', 1)");
    }
}

#[test]
fn a_full_text_index_follows() {
    for (own, external) in [(EXTERNAL, true), (CONTENTLESS, false)] {
        let (_world, mut a, mut b) = two(own);
        sql(
            &a,
            "INSERT INTO docs VALUES (1, 'red', 'one', 'x'), (2, 'green', 'two', 'y'), (3, 'blue', 'three', NULL)",
        );
        carry(&mut a, &mut b);
        index_is_right(&b, external);
        assert_eq!(rows(&b, "SELECT count(*) FROM fts WHERE fts MATCH 'red OR green OR blue'"), ["3"]);
        sql(
            &a,
            "UPDATE docs SET body = 'two' WHERE id = 1; DELETE FROM docs WHERE id = 2; UPDATE docs SET tag = 'z' WHERE id = 3",
        );
        carry(&mut a, &mut b);
        index_is_right(&b, external);
        // Contested rows: both ways, updates and a delete.
        sql(&a, "UPDATE docs SET title = 'green' WHERE id = 1; UPDATE docs SET title = 'red' WHERE id = 3");
        sql(&b, "UPDATE docs SET title = 'blue' WHERE id = 1; DELETE FROM docs WHERE id = 3");
        carry_all(&mut [&mut a, &mut b]);
        digests_equal(&[&a, &b]);
        index_is_right(&b, external);
        assert_eq!(b.conflicts().unwrap().len(), 2);
        let id = b.conflicts().unwrap()[0].id.clone();
        b.resolve(&id, &Resolution::Take(a.identity().id)).unwrap();
        index_is_right(&b, external);
        let id = b.conflicts().unwrap()[0].id.clone();
        b.resolve(&id, &Resolution::Delete).unwrap();
        index_is_right(&b, external);
        carry_all(&mut [&mut a, &mut b]);
        digests_equal(&[&a, &b]);
        assert!(b.conflicts().unwrap().is_empty());
        assert_eq!(notices(&b), [""; 0]);
        nothing_leaked(&mut b);
    }
}

#[test]
fn a_full_text_index_follows_quarantined_rows() {
    for (own, external) in [(EXTERNAL, true), (CONTENTLESS, false)] {
        let (_world, mut a, mut b) = two(own);
        one_makes_room(&mut a, &mut b);
        index_is_right(&b, external);
        assert_eq!(rows(&b, "SELECT id FROM docs ORDER BY 1"), ["1", "7"]);
        sql(&a, "UPDATE docs SET tag = 'free' WHERE id = 1");
        carry_all(&mut [&mut a, &mut b]);
        digests_equal(&[&a, &b]);
        index_is_right(&b, external);
        assert_eq!(rows(&b, "SELECT id FROM docs ORDER BY 1"), ["1", "2", "7"]);
        // A swap of unique values within one group.
        sql(
            &a,
            "UPDATE docs SET tag = 't' WHERE id = 1; UPDATE docs SET tag = 'free', title = 'red' WHERE id = 7; UPDATE docs SET tag = 'y' WHERE id = 1",
        );
        carry_all(&mut [&mut a, &mut b]);
        digests_equal(&[&a, &b]);
        index_is_right(&b, external);
        assert_eq!(rows(&b, "SELECT tag FROM docs WHERE id IN (1, 7) ORDER BY id"), ["\"y\"", "\"free\""]);
        assert_eq!(notices(&b), [""; 0]);
        nothing_leaked(&mut b);
    }
}

/// A GeoPackage in small: what its triggers call is there, and the index follows.
#[test]
fn a_spatial_index_follows() {
    const INDEX: &str = "CREATE VIRTUAL TABLE rtree USING rtree(id, minx, maxx, miny, maxy);
        CREATE TRIGGER ri AFTER INSERT ON docs WHEN (new.tag NOT NULL AND NOT ST_IsEmpty(new.tag)) BEGIN
          INSERT OR REPLACE INTO rtree VALUES (new.id, ST_MinX(new.tag), ST_MaxX(new.tag), ST_MinY(new.tag), ST_MaxY(new.tag)); END;
        CREATE TRIGGER rd AFTER DELETE ON docs WHEN old.tag NOT NULL BEGIN DELETE FROM rtree WHERE id = old.id; END;";
    let (_world, mut a, mut b) = two(INDEX);
    sql(
        &a,
        "INSERT INTO docs VALUES (1, 'oak', '', x'47500001000000000101000000000000000000F03F0000000000000040')",
    );
    carry(&mut a, &mut b);
    assert_eq!(rows(&b, "SELECT * FROM rtree"), ["1|1.0r|1.0r|2.0r|2.0r"]);
    sql(&a, "DELETE FROM docs");
    carry(&mut a, &mut b);
    assert_eq!(rows(&b, "SELECT * FROM rtree"), [""; 0]);
    assert_eq!(notices(&b), [""; 0]);
}
