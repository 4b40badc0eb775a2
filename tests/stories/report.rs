//! The fleet on one page, and whether a person is needed.

use crate::support::{Desk, has};

/// Opening tags in a page: all that a browser would act on.
fn tags(page: &str) -> std::collections::BTreeSet<String> {
    let name = |tag: &str| tag.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '!').collect();
    page.split('<').skip(1).map(name).filter(|tag: &String| !tag.is_empty()).collect()
}

#[test]
fn a_page_has_all_in_itself_and_what_devices_wrote_is_text() {
    let (desk, _) = Desk::conflict();
    let table = "<script>alert(1)</script>";
    for db in ["north.db", "east.db"] {
        desk.sql(db, &format!("CREATE TABLE \"{table}\" (\"<b>\" TEXT PRIMARY KEY, v)"));
        desk.run_words(&["track", db, table]).ok();
    }
    desk.sql("north.db", &format!("INSERT INTO \"{table}\" VALUES ('<img src=x>', 'a\"onload=''x')"));
    desk.sql("east.db", &format!("INSERT INTO \"{table}\" VALUES ('<img src=x>', '</dd><style>')"));
    for (from, to) in [("north", "base"), ("east", "base"), ("base", "east")] {
        desk.carry(from, to);
    }
    desk.sql("east.db", &format!("CREATE TABLE IF NOT EXISTS \"{table}\" (\"<b>\" TEXT PRIMARY KEY, v)"));
    let page = |db: &str| {
        desk.run(&format!("report {db} fleet.html")).ok();
        std::fs::read_to_string(desk.path("fleet.html")).unwrap()
    };
    let of_east = page("east.db");
    has(
        &of_east,
        &[
            "To do",
            "Devices",
            "north-",
            "Rows written",
            "<rect",
            "Open conflicts",
            "&lt;script&gt;",
            "&lt;img src=x&gt;",
        ],
    );
    for page in [of_east, page("base.db")] {
        let known = "!doctype !-- html head meta title style body header h1 p div b span section h2 ul li br code table \
                     thead tr th tbody td figure svg line rect figcaption i article h3 dl dt dd";
        for tag in tags(&page) {
            assert!(known.split(' ').any(|known| known == tag || tag == "!" || tag == "title"), "<{tag}>");
        }
        assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("url("), "{page}");
    }
    // Another file stays.
    std::fs::write(desk.path("letter.html"), "<p>dear").unwrap();
    has(&desk.run("report base.db letter.html").refused("letter.html"), &["is no report"]);
}

#[test]
fn status_says_what_to_do_and_whether_a_person_must() {
    let (desk, id) = Desk::conflict();
    has(
        &desk.run("status base.db").ok(),
        &["to do", "1 conflict is open", "packmule conflicts base.db --brief"],
    );
    let checked = desk.run("status base.db --check");
    assert_eq!(checked.status, Some(3), "{}{}", checked.out, checked.err);
    has(&checked.out, &["1 thing needs a person", "packmule conflicts base.db --brief"]);
    assert_eq!(checked.err, "");
    let document: serde_json::Value =
        serde_json::from_str(&desk.run("status base.db --check --json").out).unwrap();
    assert_eq!(document["person_needed"], true);
    assert_eq!(document["to_do"][0]["command"], "packmule conflicts base.db --brief");
    desk.run(&format!("resolve base.db {id} --take east")).ok();
    has(&desk.run("status base.db --check").ok(), &["no person is needed"]);
    // A board that was not heard is no reason; nor is what is not sealed yet.
    desk.sql("north.db", "UPDATE settings SET value = 5");
    has(&desk.run("status north.db").ok(), &["to do", "1 write is not sealed", "packmule seal north.db"]);
    // Who has not been heard for days is named, and nobody need do anything about it.
    let ago = "UPDATE _pm_device SET heard = heard - 10 * 86400000 WHERE name = 'north'";
    desk.sql("base.db", ago);
    has(&desk.run("status base.db").ok(), &["to do", "north-", "was not heard for 10 days"]);
    has(&desk.run("status base.db --check").ok(), &["no person is needed"]);
}

/// A link over a network, with what it carried and how fast: in `status` and on the page.
#[test]
fn what_links_carried_is_shown() {
    let desk = Desk::fleet(&["north"]);
    desk.sql("north.db", "INSERT INTO settings VALUES ('interval', 60, '')");
    assert!(!desk.run("status north.db").ok().contains("  link "), "cards and files have no rate");
    let command = format!("exec:{} serve base.db --stdio", crate::support::PACKMULE);
    desk.run_words(&["sync", "north.db", &command]).ok();
    for (db, peer, way) in [("north.db", "base-", "bytes_sent"), ("base.db", "north-", "bytes_received")] {
        // How wide the rate is depends on the machine, and so where the line breaks.
        let status = desk.run(&format!("status {db}")).ok().split_whitespace().collect::<Vec<_>>().join(" ");
        has(&status, &["link ", peer, "by pipe: ", "/s, in step 20"]);
        let document = desk.run(&format!("status {db} --json")).json();
        let link = &document["links"][0];
        assert_eq!((&link["link"], &link["sessions"]), (&"pipe".into(), &1.into()));
        assert!(link["in_step"].is_string(), "{link}");
        assert!(link[way].as_u64() > Some(0) && link["goodput"].as_u64() > Some(0), "{link}");
        desk.run(&format!("report {db} fleet.html")).ok();
        let page = std::fs::read_to_string(desk.path("fleet.html")).unwrap();
        has(&page, &["<h2>Links</h2>", peer, " by pipe", "/s", "just now"]);
    }
}
