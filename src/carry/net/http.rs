//! What of HTTP is spoken: the opening of a WebSocket, at either end, and the heads of requests and answers.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use packmule_core::model::{Hex, decode_hex};

use super::stream::{Files, Stream, wait_for};
use super::websocket::{PATH, PROTOCOL, WebSocket, accept, base64};
use super::{Error, Host, random};
use crate::carry::stop::Stop;

/// A request or an answer is no longer, without its body.
pub(super) const HEAD_MAX: usize = 4_096;
const HEADERS_MAX: usize = 40;
/// The body of an answer to a turn has no more.
pub(super) const ANSWER_MAX: usize = 65_536;

/// The path of a session over HTTP, which it takes in turns.
pub(super) const TURNS: &str = "/packmule/1/session";
/// The path of bundles.
const BUNDLES: &str = "/packmule/1/bundle";
/// The path of the figures.
const METRICS: &str = "/metrics";
/// The headers of a turn: whose it is, which, and that its sender says no more.
pub(super) const TOKEN: &str = "Packmule-Session";
pub(super) const TURN: &str = "Packmule-Turn";
pub(super) const OVER: &str = "Packmule-Over";

/// What a server makes of what came.
pub(super) enum Asked {
    /// Its head is not here whole.
    More,
    /// It opens a WebSocket: what is answered, and how long its head is.
    Opens(Vec<u8>, usize),
    /// It asks for something else that is here; how long its head is.
    Asks(Request, usize),
    /// It asks for what is not here: what is answered.
    Else(Vec<u8>),
}

/// A request.
pub(super) struct Request {
    pub(super) what: What,
    /// How many bytes its body has.
    pub(super) len: u64,
    /// Its connection stays for another one.
    pub(super) stays: bool,
    /// It waits for a word before it sends its body.
    pub(super) expects: bool,
}

/// What it asks for.
pub(super) enum What {
    /// A turn of a session.
    Turn(Turn),
    /// It brings a bundle.
    Brings,
    /// It wants a bundle for this device.
    Wants(String),
    /// It wants the figures. `local`: nothing in it says that it was passed on, or that it came by the name of a host.
    Metrics { local: bool },
}

/// What a turn says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    /// Of which session; the first one of a session has none.
    pub(super) token: Option<[u8; 16]>,
    /// The first one has 0.
    pub(super) number: u64,
    /// Its sender says no more.
    pub(super) over: bool,
}

/// A reason to refuse a request, of which programs have the code: see `src/docs/errors.md`.
pub(super) type Refused = (u16, &'static str, &'static str);
const NO_REQUEST: Refused = (400, "http-request", "this is no request of HTTP/1.1, or its head is too long");
const NO_SUCH: Refused = (
    404,
    "http-path",
    "here are /packmule/1 (a WebSocket), /packmule/1/session, /packmule/1/bundle and /metrics",
);
const NO_LENGTH: Refused = (411, "http-length", "the body's length is not said: send Content-Length");
const NO_DEVICE: Refused =
    (400, "http-request", "say for whom: ?for= and the fingerprint, 32 hexadecimal digits");

/// The codes of refusals over HTTP that are not those of [`Error::code`](crate::Error::code).
pub const HTTP_CODES: [&str; 10] = [
    "busy",
    "http-length",
    "http-method",
    "http-path",
    "http-request",
    "metrics-local",
    "session-lost",
    "too-large",
    "too-many",
    "too-slow",
];

/// Reads a request. A refused HEAD is answered by a head alone: whoever asks would take a body for the next answer.
pub(super) fn asked(bytes: &[u8]) -> Asked {
    match asked_with_body(bytes) {
        Asked::Else(mut answer) if bytes.trim_ascii_start().starts_with(b"HEAD ") => {
            let end = answer.windows(4).position(|four| four == b"\r\n\r\n").map_or(0, |at| at + 4);
            answer.truncate(end);
            Asked::Else(answer)
        }
        other => other,
    }
}

fn asked_with_body(bytes: &[u8]) -> Asked {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let used = match request.parse(bytes) {
        Ok(httparse::Status::Complete(used)) => used,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_MAX => return Asked::More,
        _ => return Asked::Else(refusal(NO_REQUEST)),
    };
    let whole = request.path.unwrap_or_default();
    let (path, query) = whole.split_once('?').unwrap_or((whole, ""));
    let method = request.method.unwrap_or_default();
    let what = match (path, method) {
        (PATH, _) => return opening(&request, used),
        (TURNS, "POST") => turn(request.headers).map(What::Turn),
        (BUNDLES, "POST") => Ok(What::Brings),
        (BUNDLES, "GET") => fingerprint(query).map(What::Wants).ok_or(NO_DEVICE),
        (METRICS, "GET") => Ok(What::Metrics { local: is_local(request.headers) }),
        (TURNS, _) => return not_allowed("POST", "a session takes POST"),
        (BUNDLES, _) => {
            return not_allowed("GET, POST", "bundles are brought with POST and fetched with GET");
        }
        (METRICS, _) => return not_allowed("GET", "the figures are fetched with GET"),
        _ => Err(NO_SUCH),
    };
    let len = body_len(request.headers, method);
    match (what, len) {
        (Ok(what), Ok(len)) => {
            let stays = request.version == Some(1) && !has(request.headers, "Connection", "close");
            let expects = has(request.headers, "Expect", "100-continue");
            Asked::Asks(Request { what, len, stays, expects }, used)
        }
        (Err(why), _) | (_, Err(why)) => Asked::Else(refusal(why)),
    }
}

/// Refuses a method, and says which are taken there.
fn not_allowed(allow: &str, words: &str) -> Asked {
    let body = document("http-method", words);
    let more = format!("Allow: {allow}\r\n");
    let head = head_with((405, "Method Not Allowed"), DOCUMENT, body.len() as u64, &more);
    Asked::Else([head, body].concat().into_bytes())
}

/// Reads how long the body is.
fn body_len(headers: &[httparse::Header<'_>], method: &str) -> Result<u64, Refused> {
    if value(headers, "Transfer-Encoding").is_some() {
        return Err(NO_LENGTH);
    }
    let mut said = headers.iter().filter(|header| header.name.eq_ignore_ascii_case("Content-Length"));
    match (said.next(), said.next()) {
        (None, _) if method == "POST" => Err(NO_LENGTH),
        (None, _) => Ok(0),
        (Some(len), None) => {
            let digits = len.value.iter().all(u8::is_ascii_digit);
            let len = std::str::from_utf8(len.value).ok().filter(|_| digits).and_then(|len| len.parse().ok());
            len.ok_or(NO_REQUEST)
        }
        (Some(_), Some(_)) => Err(NO_REQUEST),
    }
}

/// Reads the headers of a turn.
fn turn(headers: &[httparse::Header<'_>]) -> Result<Turn, Refused> {
    let wrong = (400, "http-request", "the headers of a turn are Packmule-Session and Packmule-Turn");
    let token = value(headers, TOKEN).map(token).map(|token| token.ok_or(wrong)).transpose()?;
    let number = value(headers, TURN).map_or(Ok(0), str::parse).map_err(|_| wrong)?;
    let over = value(headers, OVER) == Some("1");
    if token.is_none() != (number == 0) { Err(wrong) } else { Ok(Turn { token, number, over }) }
}

/// Reads a token.
fn token(text: &str) -> Option<[u8; 16]> {
    let mut token = [0; 16];
    decode_hex(text, &mut token).ok().map(|()| token)
}

/// Finds for whom a bundle is wanted.
fn fingerprint(query: &str) -> Option<String> {
    let named = query.split('&').find_map(|pair| pair.strip_prefix("for="))?;
    token(named).map(|id| Hex(&id).to_string())
}

/// Returns whether a request comes straight from a program on this machine, as far as it tells: a proxy says for whom it
/// asks, and a page of a browser comes by the name of its own host, which may have this machine's address.
fn is_local(headers: &[httparse::Header<'_>]) -> bool {
    let passed = ["Forwarded", "X-Forwarded-For", "X-Real-IP", "Via"];
    let host = value(headers, "Host").unwrap_or("localhost");
    let name = host
        .strip_prefix('[')
        .and_then(|host| host.split(']').next())
        .unwrap_or_else(|| host.split(':').next().unwrap_or_default());
    let is_here = name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok();
    is_here && !passed.iter().any(|name| value(headers, name).is_some())
}

/// Reads the opening of a WebSocket.
fn opening(request: &httparse::Request<'_, '_>, used: usize) -> Asked {
    let header = |name: &str| value(request.headers, name);
    let has = |name: &str, word: &str| has(request.headers, name, word);
    let (Some("GET"), true, true) =
        (request.method, has("Upgrade", "websocket"), has("Connection", "upgrade"))
    else {
        return Asked::Else(refusal((426, "http-request", "this is a WebSocket")));
    };
    if header("Sec-WebSocket-Version") != Some("13") {
        return Asked::Else(refusal((426, "http-request", "the WebSocket's version is 13")));
    }
    let (Some(key), true) = (header("Sec-WebSocket-Key"), has("Sec-WebSocket-Protocol", PROTOCOL)) else {
        return Asked::Else(refusal((400, "http-request", "the subprotocol is packmule.1")));
    };
    let opens = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\
         Sec-WebSocket-Protocol: {PROTOCOL}\r\n\r\n",
        accept(key)
    );
    Asked::Opens(opens.into(), used)
}

/// Returns the answer that refuses a request, whose connection then ends.
pub(super) fn refusal((status, code, words): Refused) -> Vec<u8> {
    answer(status, DOCUMENT, document(code, words).as_bytes())
}

/// The kind of a document.
const DOCUMENT: &str = "application/json";

fn document(code: &str, words: &str) -> String {
    format!("{{\"error\": \"{words}\", \"code\": \"{code}\"}}\n")
}

/// Returns a whole answer, whose connection then ends.
pub(super) fn answer(status: u16, kind: &str, body: &[u8]) -> Vec<u8> {
    let mut all = head(status, kind, body.len() as u64).into_bytes();
    all.extend_from_slice(body);
    all
}

/// Returns the head of an answer, whose connection then ends.
pub(super) fn head(status: u16, kind: &str, len: u64) -> String {
    let (reason, more) = match status {
        200 => ("OK", ""),
        400 => ("Bad Request", ""),
        403 => ("Forbidden", ""),
        404 => ("Not Found", ""),
        408 => ("Request Timeout", ""),
        409 => ("Conflict", ""),
        411 => ("Length Required", ""),
        413 => ("Content Too Large", ""),
        426 => ("Upgrade Required", "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"),
        429 => ("Too Many Requests", "Retry-After: 10\r\n"),
        503 => ("Service Unavailable", "Retry-After: 10\r\n"),
        507 => ("Insufficient Storage", ""),
        _ => ("Internal Server Error", ""),
    };
    head_with((status, reason), kind, len, more)
}

fn head_with((status, reason): (u16, &str), kind: &str, len: u64, more: &str) -> String {
    format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: {kind}\r\nContent-Length: {len}\r\nCache-Control: no-store\r\n\
         {more}Connection: close\r\n\r\n"
    )
}

/// Returns the head of an answer to a turn.
pub(super) fn turn_head(token: &[u8; 16], number: u64, (over, stays): (bool, bool), len: usize) -> Vec<u8> {
    let (over, stays) =
        (if over { "Packmule-Over: 1\r\n" } else { "" }, if stays { "keep-alive" } else { "close" });
    let token = Hex(token);
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {len}\r\n\
         Cache-Control: no-store\r\n{TOKEN}: {token}\r\n{TURN}: {number}\r\n{over}Connection: {stays}\r\n\r\n"
    )
    .into_bytes()
}

/// The head of an answer to a turn, as who asked reads it.
pub(super) struct Answered {
    /// How long the head is, and the body behind it.
    pub(super) len: [usize; 2],
    pub(super) token: [u8; 16],
    pub(super) number: u64,
    /// The other end says no more.
    pub(super) over: bool,
    pub(super) stays: bool,
}

/// Reads such a head, once it is here.
pub(super) fn answered(bytes: &[u8]) -> Result<Option<Answered>, Error> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let used = match response.parse(bytes) {
        Ok(httparse::Status::Complete(used)) => used,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_MAX => return Ok(None),
        _ => return Err(Error::Foreign),
    };
    match response.code {
        Some(200) => {}
        Some(503) => return Err(Error::Busy),
        code => return Err(Error::Http(code.unwrap_or_default())),
    }
    let header = |name: &str| value(response.headers, name);
    let number = |name: &str| header(name).and_then(|text| text.parse::<u64>().ok());
    let (Some(token), Some(turn), Some(len)) =
        (header(TOKEN).and_then(token), number(TURN), number("Content-Length"))
    else {
        return Err(Error::Foreign);
    };
    let stays = response.version == Some(1) && !has(response.headers, "Connection", "close");
    let len = usize::try_from(len).ok().filter(|len| *len <= ANSWER_MAX).ok_or(Error::Foreign)?;
    Ok(Some(Answered { len: [used, len], token, number: turn, over: header(OVER) == Some("1"), stays }))
}

fn value<'a>(headers: &[httparse::Header<'a>], name: &str) -> Option<&'a str> {
    let found = headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
    std::str::from_utf8(found.value).ok().map(str::trim)
}

/// Returns whether a header has a word, of any letters' case.
fn has(headers: &[httparse::Header<'_>], name: &str, word: &str) -> bool {
    let words = value(headers, name).unwrap_or_default();
    words.split(',').any(|has| has.trim().eq_ignore_ascii_case(word))
}

/// Opens a WebSocket over a connection.
pub(super) fn open(
    mut stream: TcpStream,
    (host, path): (&Host, &str),
    patience: Option<Duration>,
    stop: &Stop,
) -> Result<Box<dyn Stream>, Error> {
    let until = patience.map(|time| Instant::now() + time);
    let (key, host) = (base64(&random::<16>()?), host.of_request());
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: {PROTOCOL}\r\n\r\n"
    );
    // A new connection has room for it.
    stream.write_all(request.as_bytes()).map_err(Error::Unreachable)?;
    let mut bytes = Vec::new();
    let used = loop {
        let mut some = [0; 512];
        // The whole answer has so long, or one that sends it byte by byte would keep this end for ever.
        if let Err(e) = wait_for((stream.as_fd(), false), until, stop) {
            return Err(if stop.stopped() { Error::Stopped } else { Error::Unreachable(e) });
        }
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
pub(super) fn opened(bytes: &[u8], accepts: &str) -> Result<Option<usize>, Error> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let used = match response.parse(bytes) {
        Ok(httparse::Status::Complete(used)) => used,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Error::Foreign),
    };
    match response.code {
        Some(101) => {}
        Some(503) => return Err(Error::Busy),
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
