//! What of HTTP is spoken: the opening of a WebSocket, at either end.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::stream::{Files, Stream};
use super::websocket::{PATH, PROTOCOL, WebSocket, accept, base64};
use super::{Error, Host, random};

/// A request or an answer is no longer, without its body.
pub(super) const HEAD_MAX: usize = 4_096;
const HEADERS_MAX: usize = 40;

/// What a server makes of a request.
pub(super) enum Asked {
    /// Its head is not here whole.
    More,
    /// It opens a WebSocket: what is answered, and how long its head is.
    Opens(Vec<u8>, usize),
    /// It asks for something else: what is answered.
    Else(Vec<u8>),
}

/// Reads a request.
pub(super) fn asked(bytes: &[u8]) -> Asked {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let used = match request.parse(bytes) {
        Ok(httparse::Status::Complete(used)) => used,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_MAX => return Asked::More,
        _ => return Asked::Else(answer("400 Bad Request", "this is no request\n")),
    };
    let path = request.path.unwrap_or_default();
    if path.split('?').next() != Some(PATH) {
        return Asked::Else(answer("404 Not Found", "a WebSocket is at /packmule/1\n"));
    }
    let header = |name: &str| value(request.headers, name);
    let has = |name: &str, word: &str| words(header(name)).any(|has| has.eq_ignore_ascii_case(word));
    let (Some("GET"), true, true) =
        (request.method, has("Upgrade", "websocket"), has("Connection", "upgrade"))
    else {
        return Asked::Else(answer("426 Upgrade Required", "this is a WebSocket\n"));
    };
    if header("Sec-WebSocket-Version") != Some("13") {
        let head = "HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 13\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        return Asked::Else(head.into());
    }
    let (Some(key), true) = (header("Sec-WebSocket-Key"), has("Sec-WebSocket-Protocol", PROTOCOL)) else {
        return Asked::Else(answer("400 Bad Request", "the subprotocol is packmule.1\n"));
    };
    let opens = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\
         Sec-WebSocket-Protocol: {PROTOCOL}\r\n\r\n",
        accept(key)
    );
    Asked::Opens(opens.into(), used)
}

fn answer(status: &str, text: &str) -> Vec<u8> {
    let len = text.len();
    format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n{text}").into()
}

fn value<'a>(headers: &[httparse::Header<'a>], name: &str) -> Option<&'a str> {
    let found = headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
    std::str::from_utf8(found.value).ok().map(str::trim)
}

fn words(value: Option<&str>) -> impl Iterator<Item = &str> {
    value.unwrap_or_default().split(',').map(str::trim)
}

/// Opens a WebSocket over a connection.
pub(super) fn open(
    mut stream: TcpStream,
    (host, path): (&Host, &str),
    patience: Option<Duration>,
) -> Result<Box<dyn Stream>, Error> {
    let key = base64(&random::<16>()?);
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: {PROTOCOL}\r\n\r\n"
    );
    stream.set_read_timeout(patience).map_err(Error::Unreachable)?;
    stream.write_all(request.as_bytes()).map_err(Error::Unreachable)?;
    let mut bytes = Vec::new();
    let used = loop {
        let mut some = [0; 512];
        let count = match stream.read(&mut some) {
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(Error::Unreachable(e)),
        };
        bytes.extend_from_slice(&some[..count]);
        match opened(&bytes, &accept(&key))? {
            Some(used) => break used,
            None if count == 0 || bytes.len() > HEAD_MAX => return Err(Error::Foreign),
            None => {}
        }
    };
    let files = Files::tcp(stream).map_err(Error::Unreachable)?;
    bytes.drain(..used);
    Ok(Box::new(WebSocket::new(Box::new(files), true, mask, (bytes, Vec::new()))))
}

/// Reads the answer. Returns how long its head is, once it is here.
fn opened(bytes: &[u8], accepts: &str) -> Result<Option<usize>, Error> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let used = match response.parse(bytes) {
        Ok(httparse::Status::Complete(used)) => used,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Error::Foreign),
    };
    match response.code {
        Some(101) => {}
        code => return Err(Error::Http(code.unwrap_or_default())),
    }
    let header = |name: &str| value(response.headers, name);
    let is_right =
        header("Sec-WebSocket-Accept") == Some(accepts) && header("Sec-WebSocket-Protocol") == Some(PROTOCOL);
    if is_right { Ok(Some(used)) } else { Err(Error::Foreign) }
}

/// A mask, which proxies are not to foresee. Where there is no randomness, there is no session either.
pub(super) fn mask() -> [u8; 4] {
    random().unwrap_or_default()
}
