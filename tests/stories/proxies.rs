//! Proxies that nobody here wrote, before a base's port: nginx, and one that ends TLS.

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use rusqlite::types::Value as Sql;

use crate::http::{BUNDLE, curl, fingerprint, is_here};
use crate::network::Serve;
use crate::skips;
use crate::support::{Desk, has};

/// nginx in a folder of its own, before this port.
struct Nginx {
    child: Child,
    at: String,
}

impl Nginx {
    fn before(desk: &Desk, at: &str) -> Option<Self> {
        let program =
            ["nginx", "/usr/sbin/nginx"].into_iter().find(|p| Command::new(p).arg("-v").output().is_ok());
        let Some(program) = program else {
            skips::skip("nginx", "it is not installed");
            return None;
        };
        let folder = desk.path("nginx");
        std::fs::create_dir(&folder).unwrap();
        // Free now, and nobody else takes it so soon.
        let own = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let places: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|what| format!("{what}_temp_path {}/{what};\n", folder.display()))
            .collect();
        let config = format!(
            "daemon off; master_process off; pid {dir}/pid; error_log stderr;\nevents {{}}\nhttp {{ access_log off; {places}
             server {{ listen {own}; client_max_body_size 300m;\n location /packmule/ {{ proxy_pass http://{at};
             proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;
             proxy_set_header X-Forwarded-For $remote_addr; }}\n location /old/ {{ proxy_pass http://{at}/packmule/; }} }}
             map $http_upgrade $connection_upgrade {{ default upgrade; '' close; }} }}\n",
            dir = folder.display()
        );
        std::fs::write(folder.join("conf"), config).unwrap();
        let mut command = Command::new(program);
        command.args(["-e", "stderr", "-p"]).arg(&folder).arg("-c").arg(folder.join("conf"));
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        // It listens as soon as somebody gets through; where it ends before, it says why.
        while TcpStream::connect(own).is_err() {
            if let Some(ended) = child.try_wait().unwrap() {
                let said: Vec<_> =
                    BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok).collect();
                panic!("nginx: {ended}: {said:?}");
            }
            std::thread::yield_now();
        }
        Some(Self { child, at: own.to_string() })
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Through a proxy that nobody here wrote: a WebSocket, a session over HTTP (also by HTTP/1.0, without connections that
/// stay), and bundles.
#[test]
fn everything_goes_through_nginx() {
    let desk = Desk::fleet(&["north"]);
    let serve = Serve::new(&desk, &["base.db"]);
    let Some(nginx) = Nginx::before(&desk, &serve.at) else { return };
    let ways = [
        format!("ws://{}", nginx.at),
        format!("http://{}", nginx.at),
        format!("http://{}/old/1/session", nginx.at),
    ];
    for (n, way) in ways.iter().enumerate() {
        let noise = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
            INSERT INTO settings SELECT 'KIND' || i, hex(randomblob(300)), NULL FROM n";
        desk.sql("north.db", &noise.replace("KIND", &format!("north{n}-")));
        if n > 0 {
            desk.sql("base.db", &noise.replace("KIND", &format!("base{n}-")));
        }
        desk.sql("north.db", "INSERT INTO readings (value) VALUES (1)");
        has(&desk.run(&format!("sync north.db {way}")).ok(), &["in step with base-"]);
        assert_eq!(
            desk.value("base.db", "SELECT count(*) FROM readings"),
            Sql::Integer(n as i64 + 1),
            "{way}"
        );
        assert_eq!(desk.run("digest north.db").ok(), desk.run("digest base.db").ok(), "{way}");
    }
    if is_here("curl", "--version") {
        desk.sql("north.db", "INSERT INTO readings (value) VALUES (4)");
        desk.run("export north.db north.pmb").ok();
        let brought = curl(&desk, &nginx.at, &["--data-binary", "@north.pmb", BUNDLE]);
        assert_eq!((brought.status, &brought.document()["ops"]), (200, &1.into()));
        let fetched = curl(&desk, &nginx.at, &[&format!("{BUNDLE}?for={}", fingerprint(&desk, "north"))]);
        assert_eq!(fetched.status, 200);
        std::fs::write(desk.path("for-north.pmb"), &fetched.body).unwrap();
        desk.run("import north.db for-north.pmb").ok();
        // The figures are not passed on.
        assert_eq!(curl(&desk, &nginx.at, &["/metrics"]).status, 404);
    }
    // Behind it nobody is.
    let at = nginx.at.clone();
    serve.end();
    let gone = desk.run(&format!("sync north.db http://{at}"));
    has(
        &gone.refused(&format!("http://{at}/packmule/1/session")),
        &["a web server answers there, with status 502"],
    );
}

/// An address with TLS is refused with others in its place; each of them is typed, and leads there.
#[test]
fn in_the_place_of_an_address_with_tls_others_lead_there() {
    let desk = Desk::fleet(&["north"]);
    let serve = Serve::new(&desk, &["base.db"]);
    let Some(nginx) = Nginx::before(&desk, &serve.at) else { return };
    if !is_here("openssl", "version") || !is_here("python3", "--version") {
        return;
    }
    let key = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=base -days 2 -out c -keyout k";
    let made = Command::new("openssl").args(key.split(' ')).current_dir(desk.path("")).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let pem = ["c", "k"].map(|file| std::fs::read_to_string(desk.path(file)).unwrap()).concat();
    std::fs::write(desk.path("both.pem"), pem).unwrap();
    let mut rows = 0;
    for scheme in ["https", "wss"] {
        let said = desk.run(&format!("sync north.db {scheme}://base.example:8443/old/1/session")).usage();
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        let plain = scheme.strip_suffix('s').unwrap();
        let mut ways: Vec<String> = said
            .split([' ', ','])
            .filter(|word| word.starts_with(&format!("{plain}://base.example")))
            .map(str::to_owned)
            .collect();
        ways.push(said.split('\'').nth(1).unwrap().to_owned());
        assert_eq!(ways.len(), 3, "{said}");
        for way in ways {
            let mut end = None;
            let mut way = way
                .replace("base.example:7225", &serve.at)
                .replace("base.example:80/", &format!("{}/", nginx.at));
            if way.starts_with("exec:") {
                let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/net/tls_end.py");
                let mut command = Command::new("python3");
                command.args([script, desk.path("both.pem").to_str().unwrap(), &serve.at]);
                let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
                let mut port = String::new();
                BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
                way = way.replace("base.example:8443", &format!("127.0.0.1:{}", port.trim()));
                end = Some(child);
            } else if plain == "ws" {
                way = way.replace("/old/1/session", "/packmule/1");
            }
            desk.sql("north.db", "INSERT INTO readings (value) VALUES (1)");
            // openssl has a word on standard error for whoever made the certificate.
            let synced = desk.command(&["sync", "north.db", &way]).output().unwrap();
            assert!(synced.status.success(), "{way}: {synced:?}");
            rows += 1;
            assert_eq!(desk.value("base.db", "SELECT count(*) FROM readings"), Sql::Integer(rows), "{way}");
            if let Some(mut end) = end {
                assert!(end.wait().unwrap().success());
            }
        }
    }
    serve.end();
}
