//! How long a bundle may be. Nobody keeps it: what is written is thrown away.

use std::net::TcpStream;
use std::thread;

use super::*;
use crate::carry::net::{Listening, Options, Serving, Status, serve};
use crate::engine::Engine;

/// Has a bundle of so many bytes for whoever asks.
struct Long(u64);

impl Web for Long {
    fn spool(&self) -> io::Result<File> {
        File::options().read(true).write(true).open("/dev/null")
    }

    fn take(&self, _: SocketAddr, _: File) -> Reply {
        Reply { status: 200, kind: "text/plain", body: Vec::new() }
    }

    fn give(&self, _: SocketAddr, _: &str, to: &mut dyn Write) -> Result<(), Reply> {
        let piece = vec![0; 1 << 20];
        let mut left = self.0;
        while left > 0 {
            let some = left.min(piece.len() as u64);
            let failed = |_| Reply { status: 500, kind: "text/plain", body: Vec::new() };
            to.write_all(&piece[..some as usize]).map_err(failed)?;
            left -= some;
        }
        Ok(())
    }

    fn figures(&self) -> Reply {
        Reply { status: 200, kind: "text/plain", body: Vec::new() }
    }

    fn figures_for_all(&self) -> bool {
        false
    }
}

/// Returns what is answered to a request, up to its end or the end of the connection.
fn answer_to(request: &str, len: u64) -> String {
    let port = Listening::on("127.0.0.1:0".parse().unwrap()).unwrap();
    let (at, stop) = (port.address().unwrap(), Stop::default());
    let open = || Engine::open("/nowhere".as_ref());
    let report = |_: SocketAddr, _: &Status<'_>| ();
    let options = Options { plain: false, patience: None };
    let serving = Serving { open: &open, options: &options, report: &report, web: Some(&Long(len)) };
    thread::scope(|scope| {
        scope.spawn(|| serve(&port, serving, &stop).unwrap());
        let mut stream = TcpStream::connect(at).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        stop.stop();
        String::from_utf8_lossy(&said).into_owned()
    })
}

#[test]
fn what_is_longer_than_a_bundle_may_be_is_refused_with_what_to_do() {
    let wants = format!("GET /packmule/1/bundle?for={} HTTP/1.1\r\nHost: a\r\n\r\n", "0".repeat(32));
    let brings = |len: u64| {
        format!(
            "POST /packmule/1/bundle HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\n\r\nnoise for bundles"
        )
    };
    for (status, request, len) in [(507, &wants, BUNDLE_MAX + 1), (413, &brings(BUNDLE_MAX + 1), 0)] {
        let said = answer_to(request, len);
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{said}");
        assert!(said.contains("too-large") && said.contains("256 MiB; a session over this port"), "{said}");
    }
    // The controls: one byte less is no reason.
    let said = answer_to(&wants, BUNDLE_MAX);
    assert!(said.starts_with("HTTP/1.1 200 ") && said.contains("Content-Length: 268435456"), "{said}");
    let said = answer_to(&brings(BUNDLE_MAX), 0);
    assert!(said.starts_with("HTTP/1.1 400 ") && said.contains("not-a-bundle"), "{said}");
}
