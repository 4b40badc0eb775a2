//! A base with a port, and programs that nobody here wrote: curl brings and fetches bundles and speaks a session's first
//! words, Prometheus reads the figures. What stands before the port: `proxies`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use rusqlite::types::Value as Sql;
use serde_json::Value;

use crate::network::Serve;
use crate::skips;
use crate::support::{Desk, has};

/// Returns whether a program is there, and else counts what is not tested.
pub fn is_here(program: &str, version: &str) -> bool {
    let here = Command::new(program).arg(version).output().is_ok();
    if !here {
        skips::skip(program, "it is not installed");
    }
    here
}

/// What curl was answered.
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Answer {
    #[track_caller]
    pub fn document(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{}: {e}: {}", self.status, String::from_utf8_lossy(&self.body)))
    }

    /// It was refused, with this status and code.
    #[track_caller]
    fn refused(&self, status: u16, code: &str) {
        let document = self.document();
        assert_eq!((self.status, document["code"].as_str()), (status, Some(code)), "{document}");
        assert!(document["error"].as_str().is_some_and(|words| words.len() > 5), "{document}");
    }
}

/// Runs curl; the path is the last word.
#[track_caller]
pub fn curl(desk: &Desk, at: &str, words: &[&str]) -> Answer {
    let (path, words) = words.split_last().unwrap();
    let body = desk.path("answer");
    let mut command = Command::new("curl");
    command.args(["-s", "-w", "%{http_code}", "-o"]).arg(&body).args(words);
    let ran = command.current_dir(desk.path("")).arg(format!("http://{at}{path}")).output().unwrap();
    assert!(ran.status.success(), "curl {words:?} {path}: {ran:?}");
    let status = String::from_utf8_lossy(&ran.stdout).parse().unwrap();
    Answer { status, body: std::fs::read(&body).unwrap_or_default() }
}

pub fn fingerprint(desk: &Desk, device: &str) -> String {
    desk.run(&format!("status {device}.db --json")).json()["fingerprint"].as_str().unwrap().to_owned()
}

pub const BUNDLE: &str = "/packmule/1/bundle";

/// A board that has curl and a mobile network, and no Packmule that runs all day: it brings a bundle, and fetches one.
#[test]
fn curl_brings_and_fetches_bundles() {
    if !is_here("curl", "--version") {
        return;
    }
    let desk = Desk::fleet(&["north"]);
    desk.sql(
        "north.db",
        "INSERT INTO readings (value) VALUES (1), (2); INSERT INTO settings VALUES ('a', 1, NULL)",
    );
    desk.sql("base.db", "CREATE TABLE IF NOT EXISTS x (y)");
    let mut serve = Serve::new(&desk, &["base.db"]);
    let at = serve.at.clone();
    desk.run("export north.db north.pmb").ok();
    let brought = curl(&desk, &at, &["--data-binary", "@north.pmb", BUNDLE]);
    assert_eq!(brought.status, 200);
    let said = brought.document();
    assert_eq!((&said["ops"], &said["files"][0]["file"]), (&3.into(), &"bundle".into()), "{said}");
    // The same as `import --json` says of the same bundle, which is known by now.
    let again = curl(&desk, &at, &["--data-binary", "@north.pmb", BUNDLE]).document();
    let mut imported = desk.run("import base.db north.pmb --json").json();
    imported["files"][0]["file"] = "bundle".into();
    assert_eq!(again, imported);
    assert_eq!(desk.value("base.db", "SELECT count(*) FROM readings"), Sql::Integer(2));
    has(serve.wait("bundle in")["text"].as_str().unwrap(), &["took in a bundle", "3 rows applied"]);
    // The other way: only the board can read it.
    desk.sql("base.db", "UPDATE settings SET value = 7");
    let north = fingerprint(&desk, "north");
    let fetched = curl(&desk, &at, &[&format!("{BUNDLE}?for={north}")]);
    assert_eq!(fetched.status, 200);
    std::fs::write(desk.path("for-north.pmb"), &fetched.body).unwrap();
    desk.run("init other.db --name other --fleet fleet.key").ok();
    has(&desk.run("import other.db for-north.pmb").refused("for-north.pmb"), &["encrypted"]);
    desk.run("import north.db for-north.pmb").ok();
    assert_eq!(desk.value("north.db", "SELECT value FROM settings"), Sql::Integer(7));
    has(serve.wait("bundle out")["text"].as_str().unwrap(), &["gave a bundle for north-"]);
    assert_eq!(desk.run("digest north.db").ok(), desk.run("digest base.db").ok());
    serve.end();
}

/// A bundle that is too large for HTTP: the commands that are named instead are typed, and carry it.
#[test]
fn what_is_too_large_for_http_goes_by_the_commands_that_are_named() {
    if !is_here("curl", "--version") {
        return;
    }
    let desk = Desk::fleet(&["north"]);
    desk.sql("north.db", "INSERT INTO settings VALUES ('interval', 7, '')");
    let serve = Serve::new(&desk, &["base.db"]);
    let at = serve.at.clone();
    let large = ["--data-binary", "x", "-H", "Content-Length: 268435457", BUNDLE];
    let answer = curl(&desk, &at, &large);
    answer.refused(413, "too-large");
    let said = answer.document();
    let error = said["error"].as_str().unwrap();
    let commands: Vec<&str> = error.split('`').skip(1).step_by(2).collect();
    assert_eq!(commands.len(), 2, "{error}");
    std::fs::create_dir(desk.path("card")).unwrap();
    for command in commands {
        let line = command.replace("DB", "north.db").replace("HOST:PORT", &at).replace("DIRECTORY", "card");
        desk.run(line.strip_prefix("packmule ").unwrap()).ok();
    }
    assert_eq!(desk.run("digest north.db").ok(), desk.run("digest base.db").ok());
    serve.end();
}

#[test]
fn what_is_wrong_with_a_request_is_said_in_words_and_by_a_code() {
    if !is_here("curl", "--version") {
        return;
    }
    let desk = Desk::fleet(&["north"]);
    let serve = Serve::new(&desk, &["base.db"]);
    let at = serve.at.clone();
    let before = desk.dump("base.db");
    std::fs::write(desk.path("noise"), [7; 5_000]).unwrap();
    desk.run("fleet new other.key").ok();
    desk.run("init stranger.db --name stranger --fleet other.key").ok();
    desk.run("export stranger.db stranger.pmb").ok();
    desk.run("export north.db north.pmb").ok();
    let mut torn = std::fs::read(desk.path("north.pmb")).unwrap();
    torn.truncate(torn.len() - 9);
    std::fs::write(desk.path("torn.pmb"), torn).unwrap();
    let unknown = format!("{BUNDLE}?for={}", "ab".repeat(16));
    let own = format!("{BUNDLE}?for={}", fingerprint(&desk, "base"));
    let cases: &[(&[&str], u16, &str)] = &[
        (&["--data-binary", "@noise", BUNDLE], 400, "not-a-bundle"),
        (&["--data-binary", "@torn.pmb", BUNDLE], 400, "bundle-damaged"),
        (&["--data-binary", "", BUNDLE], 400, "bundle-empty"),
        (&["--data-binary", "@stranger.pmb", BUNDLE], 403, "untrusted"),
        (&["--data-binary", "@noise", "-H", "Content-Length: 999999999999", BUNDLE], 413, "too-large"),
        (&["--data-binary", "@north.pmb", "-H", "Transfer-Encoding: chunked", BUNDLE], 411, "http-length"),
        (&["-X", "DELETE", BUNDLE], 405, "http-method"),
        (&[BUNDLE], 400, "http-request"),
        (&[&format!("{BUNDLE}?for=north")], 400, "http-request"),
        (&[&unknown], 404, "unknown-device"),
        (&[&own], 400, "refused"),
        (&["/"], 404, "http-path"),
        (&["/packmule/1"], 426, "http-request"),
        (&["--data-binary", "x", "-H", "Packmule-Turn: 1", "/packmule/1/session"], 400, "http-request"),
        (
            &[
                "--data-binary",
                "x",
                "-H",
                "Packmule-Turn: 1",
                "-H",
                &format!("Packmule-Session: {}", "00".repeat(16)),
                "/packmule/1/session",
            ],
            404,
            "session-lost",
        ),
    ];
    for (words, status, code) in cases {
        curl(&desk, &at, words).refused(*status, code);
    }
    assert!(desk.dump("base.db") == before, "nothing of it did anything");
    serve.end();
}

/// A HEAD is answered by a head alone, whatever it asks for: what came behind would be taken for the next answer.
#[test]
fn a_head_has_no_body() {
    let desk = Desk::fleet(&["north"]);
    let serve = Serve::new(&desk, &["base.db"]);
    let answer = |method: &str, path: &str| {
        let mut stream = TcpStream::connect(&serve.at).unwrap();
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        let (head, body) = said.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    };
    for (path, status) in
        [("/", 404), (BUNDLE, 405), ("/metrics", 405), ("/packmule/1/session", 405), ("/packmule/1", 426)]
    {
        let [(head, none), (same, body)] = ["HEAD", "DELETE"].map(|method| answer(method, path));
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {head}");
        // The control has one, and all else is the same.
        assert_eq!((&none, &head), (&String::new(), &same), "{path}");
        assert!(body.contains("\"code\""), "{path}: {body}");
        // Whatever is said to be taken there is, and nothing else.
        let allowed: Vec<&str> = head
            .lines()
            .find_map(|line| line.strip_prefix("Allow: "))
            .map_or(Vec::new(), |line| line.split(", ").collect());
        assert_eq!(allowed.is_empty(), status != 405, "{path}: {head}");
        for method in ["GET", "POST", "PUT"].iter().filter(|_| status == 405) {
            let (head, _) = answer(method, path);
            let taken = !head.starts_with("HTTP/1.1 405 ");
            assert_eq!(taken, allowed.contains(method), "{method} {path}: {head}");
        }
    }
    serve.end();
}

/// The zone of a link's address is of this machine alone, and goes to nobody.
#[test]
fn a_request_does_not_say_the_zone_of_an_address() {
    let Ok(listening) = TcpListener::bind("[::1]:0") else {
        return skips::skip("the zone of an address", "there is no IPv6");
    };
    let desk = Desk::fleet(&["north"]);
    let port = listening.local_addr().unwrap().port();
    for scheme in ["http", "ws"] {
        let address = format!("{scheme}://[::1%1]:{port}");
        let heard = std::thread::scope(|scope| {
            let heard = scope.spawn(|| {
                let mut came = BufReader::new(listening.accept().unwrap().0).lines().map_while(Result::ok);
                came.find(|line| line.starts_with("Host: "))
            });
            let path = if scheme == "http" { "/packmule/1/session" } else { "/packmule/1" };
            desk.run(&format!("sync north.db {address}")).refused(&format!("{address}{path}"));
            heard.join().unwrap()
        });
        assert_eq!(heard, Some(format!("Host: [::1]:{port}")));
    }
}

/// Two that do not go on are at work for one address: a third request is put off, and sessions go on.
#[test]
fn requests_that_do_not_go_on_keep_no_others_out_for_good() {
    if !is_here("curl", "--version") {
        return;
    }
    let desk = Desk::fleet(&["north"]);
    let serve = Serve::new(&desk, &["base.db"]);
    let begun: Vec<TcpStream> = (0..2)
        .map(|_| {
            let mut stream = TcpStream::connect(&serve.at).unwrap();
            let head =
                format!("POST {BUNDLE} HTTP/1.1\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            let mut goes_on = [0; 25];
            stream.read_exact(&mut goes_on).unwrap();
            assert_eq!(&goes_on, b"HTTP/1.1 100 Continue\r\n\r\n");
            stream
        })
        .collect();
    curl(&desk, &serve.at, &["/metrics"]).refused(429, "too-many");
    desk.run(&format!("sync north.db http://{}", serve.at)).ok();
    drop(begun);
    // They are gone when it is noticed: nothing else tells.
    while curl(&desk, &serve.at, &["/metrics"]).status != 200 {}
    serve.end();
}

/// Asks for the figures. Returns the answer's status, and the connection, which stays.
fn ask_figures(at: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    (stream, answer.split(' ').nth(1).unwrap().to_owned())
}

/// Who has got an answer and does not go has a place still, or there would be threads without end; but not for long.
#[test]
fn who_was_answered_and_stays_takes_a_place_for_a_moment() {
    let desk = Desk::fleet(&["north"]);
    let serve = Serve::new(&desk, &["base.db"]);
    // On a machine that is very busy the moment may be over at once.
    let refused = (0..20).any(|_| {
        let stay: Vec<_> = (0..3).map(|_| ask_figures(&serve.at)).collect();
        stay[2].1 == "429"
    });
    assert!(refused);
    let stay: Vec<_> = (0..2).map(|_| ask_figures(&serve.at)).collect();
    while ask_figures(&serve.at).1 != "200" {}
    drop(stay);
    serve.end();
}

/// Prometheus's own program finds nothing to object to, on the page and in what `status` prints.
#[test]
fn prometheus_reads_the_figures() {
    if !is_here("curl", "--version") || !is_here("promtool", "--version") {
        return;
    }
    let desk = Desk::fleet(&["north"]);
    desk.sql("north.db", "CREATE TABLE \"a \"\"b\"\" \\ c\" (id TEXT PRIMARY KEY)");
    desk.run_words(&["track", "north.db", "a \"b\" \\ c"]).ok();
    desk.sql(
        "north.db",
        "INSERT INTO readings (value) VALUES (1); INSERT INTO settings VALUES ('a', 1, NULL)",
    );
    let mut serve = Serve::new(&desk, &["base.db"]);
    desk.run(&format!("sync north.db tcp://{}", serve.at)).ok();
    desk.run(&format!("sync north.db http://{}", serve.at)).ok();
    for _ in 0..2 {
        serve.wait("ended");
    }
    desk.sql("north.db", "INSERT INTO readings (value) VALUES (2)");
    desk.run("seal north.db").ok();
    let page = curl(&desk, &serve.at, &["/metrics"]);
    assert_eq!(page.status, 200);
    let served = String::from_utf8(page.body).unwrap();
    let north = desk.run("status north.db --prometheus").ok();
    for text in [&served, &north] {
        let mut tool = Command::new("promtool");
        let mut tool =
            tool.args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        tool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let said = tool.wait_with_output().unwrap();
        assert!(said.status.success(), "{}\n{text}", String::from_utf8_lossy(&said.stderr));
    }
    has(
        &served,
        &["packmule_device_info{name=\"base\"", "base=\"true\"", "packmule_process_written_bytes_total "],
    );
    has(&served, &["packmule_link_sessions_total{peer=\"north\"", "link=\"http\"} 1", "link=\"tcp\"} 1"]);
    has(
        &north,
        &[
            "packmule_rows_waiting{table=\"a \\\"b\\\" \\\\ c\"} 0",
            "packmule_peer_unacknowledged_frames{peer=\"base\"",
            "} 1\n",
            "packmule_link_in_step_timestamp_seconds{peer=\"base\"",
        ],
    );
    assert!(!north.contains("process"), "it is not the one that serves");
    // From a proxy, and by the name of another host, it comes from who knows where.
    for header in ["X-Forwarded-For: 10.0.0.1", "Host: rebound.example"] {
        curl(&desk, &serve.at, &["-H", header, "/metrics"]).refused(403, "metrics-local");
    }
    serve.end();
    let serve = Serve::new(&desk, &["base.db", "--metrics-from", "any"]);
    assert_eq!(curl(&desk, &serve.at, &["-H", "X-Forwarded-For: 10.0.0.1", "/metrics"]).status, 200);
    serve.end();
    has(&desk.run("status north.db --prometheus --check").usage(), &["--prometheus stands alone"]);
}

/// The dashboard that is packed names no figure and no label but those that there are.
#[test]
fn the_dashboard_shows_figures_that_there_are() {
    if !is_here("curl", "--version") {
        return;
    }
    let desk = Desk::fleet(&["north"]);
    let mut serve = Serve::new(&desk, &["base.db"]);
    desk.run(&format!("sync north.db tcp://{}", serve.at)).ok();
    serve.wait("ended");
    let page = String::from_utf8(curl(&desk, &serve.at, &["/metrics"]).body).unwrap();
    serve.end();
    let text = include_str!("../../boards/grafana.json");
    let dashboard: Value = serde_json::from_str(text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.len() > 10);
    for panel in panels {
        for target in panel["targets"].as_array().unwrap() {
            let (expr, legend) = (target["expr"].as_str().unwrap(), target["legendFormat"].as_str().unwrap());
            let at = expr.find("packmule_").unwrap_or_else(|| panic!("{expr}"));
            let name = expr[at..].split(|c: char| !c.is_ascii_lowercase() && c != '_').next().unwrap();
            has(&page, &[&format!("# TYPE {name} ")]);
            for label in legend.split("{{").skip(1).filter_map(|rest| rest.split("}}").next()) {
                // That one is Prometheus's own.
                let known = label == "instance" || page.contains(&format!("{label}=\""));
                assert!(known, "{label} in {legend}");
            }
        }
    }
    // Of what `status --prometheus` prints, all is what the page has.
    let printed = desk.run("status base.db --prometheus").ok();
    printed.lines().filter(|line| line.starts_with("# TYPE")).for_each(|line| has(&page, &[line]));
}

/// A session's first words by curl: it gets a token, and the other end's opening, and is out when it repeats itself.
#[test]
fn curl_begins_a_session_over_http() {
    if !is_here("curl", "--version") {
        return;
    }
    let desk = Desk::fleet(&["north"]);
    let serve = Serve::new(&desk, &["base.db", "--plain"]);
    const SESSION: &str = "/packmule/1/session";
    let opening = b"\x89PKS\x01\x00";
    std::fs::write(desk.path("opening"), opening).unwrap();
    let head = desk.path("head");
    let words = ["--data-binary", "@opening", "-D", head.to_str().unwrap(), SESSION];
    let answer = curl(&desk, &serve.at, &words);
    assert_eq!((answer.status, &answer.body[..]), (200, &opening[..]));
    let head = std::fs::read_to_string(&head).unwrap();
    let token =
        head.lines().find_map(|line| line.strip_prefix("Packmule-Session: ")).unwrap().trim().to_owned();
    assert_eq!(token.len(), 32, "{head}");
    let token = format!("Packmule-Session: {token}");
    let turn = |number: u32| {
        let number = format!("Packmule-Turn: {number}");
        curl(&desk, &serve.at, &["--data-binary", "no hello", "-H", &token, "-H", &number, SESSION])
    };
    // What is no hello ends it.
    assert_eq!((turn(1).status, turn(2).status), (200, 404));
    serve.end();
}

/// Whoever comes as the ninth is told so at once, in words that say what to do.
#[test]
fn the_ninth_is_told_to_come_again() {
    let names: Vec<String> = (0..9).map(|n| format!("b{n}")).collect();
    let desk = Desk::fleet(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let serve = Serve::new(&desk, &["base.db", "--plain"]);
    // They have said who they are, and then nothing more.
    let crowd: Vec<TcpStream> = names[..8].iter().map(|name| hello_of(&desk, name, &serve.at)).collect();
    for way in ["tcp", "ws", "http"] {
        let address = format!("{way}://{}", serve.at);
        let failed = desk.run(&format!("sync b8.db {address} --plain --json"));
        assert_eq!(failed.status, Some(1), "{}{}", failed.out, failed.err);
        let document: Value = serde_json::from_str(&failed.out).unwrap();
        assert_eq!(document["code"], "busy", "{document}");
        has(document["error"].as_str().unwrap(), &["busy: 8 sessions are running there; try again"]);
    }
    drop(crowd);
    serve.end();
}

/// Says a device's opening and hello to a server, as it said them to another one, and hears that the server has begun.
fn hello_of(desk: &Desk, name: &str, at: &str) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = listener.local_addr().unwrap();
    let db = format!("{name}.db");
    let mut command = desk.command(&["sync", &db, &format!("tcp://{other}"), "--plain", "--patience", "60"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let (mut board, _) = listener.accept().unwrap();
    let mut said = vec![0; 6];
    board.read_exact(&mut said).unwrap();
    board.write_all(&said).unwrap();
    let mut len = [0; 2];
    board.read_exact(&mut len).unwrap();
    let mut hello = vec![0; usize::from(u16::from_le_bytes(len))];
    board.read_exact(&mut hello).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let mut stream = TcpStream::connect(at).unwrap();
    said.extend(len);
    said.extend(hello);
    stream.write_all(&said).unwrap();
    // Its opening; then its hello, which comes from the session alone.
    let mut answer = [0; 9];
    stream.read_exact(&mut answer).unwrap();
    stream
}
