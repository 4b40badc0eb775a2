//! Where the other end of a session is, as people write it.

use std::fmt;
use std::str::FromStr;

use super::http::TURNS;
use super::websocket::PATH;

/// The port where nobody names one.
pub const PORT: u16 = 7225;

/// Where the other end is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `tcp://HOST:PORT`: a program that listens.
    Tcp(Host),
    /// `ws://HOST:PORT/PATH`: the same, as a WebSocket; without a path [`/packmule/1`](super::serve), which a proxy may
    /// have elsewhere.
    WebSocket(Host, String),
    /// `http://HOST:PORT/PATH`: the same, in POSTs and their answers; without a path `/packmule/1/session`.
    Http(Host, String),
    /// `exec:COMMAND`: a command of the shell, whose standard input and output are the stream: `exec:ssh base packmule
    /// serve base.db --stdio`.
    Exec(String),
    /// `find:`: who announces on this network that it is of this device's fleet: a base, if there is one.
    Find,
}

/// A host and its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// A name, or an address without brackets.
    pub name: String,
    /// The port.
    pub port: u16,
}

/// Why an address is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoAddress(pub(super) String);

impl FromStr for Address {
    type Err = NoAddress;

    fn from_str(text: &str) -> Result<Self, NoAddress> {
        if let Some(command) = text.strip_prefix("exec:") {
            return match command.trim() {
                "" => Err(NoAddress("exec: needs a command".into())),
                command if command.contains('\0') => {
                    Err(NoAddress("exec: a command cannot have a NUL in it".into()))
                }
                command => Ok(Self::Exec(command.into())),
            };
        }
        if text == "find:" {
            return Ok(Self::Find);
        }
        match text.split_once("://") {
            Some(("tcp", host)) => host.strip_suffix('/').unwrap_or(host).parse().map(Self::Tcp),
            Some(("ws", rest)) => host_and_path(rest, PATH).map(|(host, path)| Self::WebSocket(host, path)),
            Some(("http", rest)) => host_and_path(rest, TURNS).map(|(host, path)| Self::Http(host, path)),
            Some(("wss", rest)) => Err(without_tls("ws", rest)),
            Some(("https", rest)) => Err(without_tls("http", rest)),
            Some((scheme, _)) => Err(NoAddress(format!(
                "{}:// is not known: it is tcp://, ws://, http://, serial:, exec: or find:",
                scheme.escape_debug()
            ))),
            None => Err(NoAddress(format!(
                "`{}` is no address: it begins with tcp://, ws://, http://, serial:, exec: or find:",
                text.escape_debug()
            ))),
        }
    }
}

/// Says what to type in the place of an address with TLS, which is not spoken.
fn without_tls(scheme: &str, rest: &str) -> NoAddress {
    let said = match host_and_path(rest, "") {
        Ok((Host { name, port }, path)) => {
            let at = |port| Host { name: name.clone(), port };
            // 7225 is what stands for no port, and no proxy's.
            let tls = at(if port == PORT { 443 } else { port });
            format!(
                "type {scheme}://{}, the port of `serve` itself, or {scheme}://{}{path}, the port of the proxy that has no TLS. \
                 Where nothing but TLS gets through: 'exec:openssl s_client -quiet -connect {tls}', if what ends the TLS \
                 there passes all bytes on to that port",
                at(PORT),
                at(80),
            )
        }
        Err(NoAddress(why)) => why,
    };
    NoAddress(format!(
        "{scheme}s:// is not spoken: what goes over {scheme}:// is encrypted from device to device, and a proxy such as nginx \
         may stand between; {said}"
    ))
}

/// Reads what stands behind a scheme. Without a path it is this one.
fn host_and_path(rest: &str, usual: &str) -> Result<(Host, String), NoAddress> {
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let path = if path.len() > 1 { path } else { usual };
    if path.contains(|c: char| c.is_whitespace() || c.is_control() || c == '#') {
        let path = path.escape_debug();
        return Err(NoAddress(format!(
            "`{path}` is no path: it has no spaces, no control characters and no #"
        )));
    }
    Ok((host.parse()?, path.into()))
}

impl FromStr for Host {
    type Err = NoAddress;

    fn from_str(text: &str) -> Result<Self, NoAddress> {
        let shown = text.escape_debug();
        if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            let why = "there are spaces or control characters in it";
            return Err(NoAddress(format!("`{shown}` is no host with a port: {why}")));
        }
        let wrong = || NoAddress(format!("`{shown}` is no host with a port, such as 192.168.1.5:{PORT}"));
        // An address of version 6 stands in brackets.
        let (name, rest) = match text.strip_prefix('[') {
            Some(inner) => inner.split_once(']').ok_or_else(wrong)?,
            None => text.split_at(text.find(':').unwrap_or(text.len())),
        };
        let port = match rest.strip_prefix(':') {
            Some(port) => port.parse().map_err(|_| wrong())?,
            None if rest.is_empty() => PORT,
            None => return Err(wrong()),
        };
        if name.is_empty() || name.contains(['/', '@', '[', ']', '?', '#', '\\']) {
            return Err(wrong());
        }
        Ok(Self { name: name.into(), port })
    }
}

impl Host {
    /// Returns it as the `Host` of a request over HTTP says it: the zone of a link's address means nothing to others.
    pub(super) fn of_request(&self) -> Self {
        let name = self.name.split_once('%').filter(|(address, _)| address.contains(':'));
        Self { name: name.map_or(&*self.name, |(address, _)| address).into(), port: self.port }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host) => write!(f, "tcp://{host}"),
            Self::WebSocket(host, path) => write!(f, "ws://{host}{path}"),
            Self::Http(host, path) => write!(f, "http://{host}{path}"),
            Self::Exec(command) => write!(f, "exec:{command}"),
            Self::Find => f.write_str("find:"),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.contains(':') {
            write!(f, "[{}]:{}", self.name, self.port)
        } else {
            write!(f, "{}:{}", self.name, self.port)
        }
    }
}

impl fmt::Display for NoAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NoAddress {}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // Tests.
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for (text, shown) in [
            ("tcp://base:7000", "tcp://base:7000"),
            ("tcp://base", "tcp://base:7225"),
            ("tcp://base/", "tcp://base:7225"),
            ("tcp://10.0.0.1:1", "tcp://10.0.0.1:1"),
            ("tcp://[fe80::1%eth0]:7225", "tcp://[fe80::1%eth0]:7225"),
            ("tcp://[::1]", "tcp://[::1]:7225"),
            ("ws://base", "ws://base:7225/packmule/1"),
            ("ws://base:80/", "ws://base:80/packmule/1"),
            ("ws://base:80/fleet", "ws://base:80/fleet"),
            ("http://base", "http://base:7225/packmule/1/session"),
            ("http://base:80/fleet", "http://base:80/fleet"),
            ("exec: ssh base packmule", "exec:ssh base packmule"),
            ("find:", "find:"),
        ] {
            let address: Result<Address, _> = text.parse();
            assert_eq!(address.map(|a| a.to_string()), Ok(shown.into()), "{text}");
        }
        for text in [
            "",
            "base",
            "tcp://",
            "tcp://:1",
            "tcp://a:b",
            "tcp://a:70000",
            "tcp://::1",
            "tcp://[::1",
            "ftp://a",
            "ws://",
            "ws://a/b c",
            "exec:",
            "exec:a\0b",
            "tcp://u@h",
            "http://a?b",
            "http://a/#b",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_would_be_a_line_of_its_own_in_a_request_is_named_and_shown_harmlessly() {
        for text in ["http://a\r\nX: y", "ws://[::1%a\nb]", "tcp://a\u{1b}[2J", "tcp://a b", "http://a\u{85}"]
        {
            let NoAddress(why) = text.parse::<Address>().unwrap_err();
            assert!(why.contains("spaces or control characters"), "{why}");
            assert!(!why.contains(char::is_control), "{why:?}");
        }
        for text in ["http://a/b\r\nX: y", "a\u{1b}[2J", "\u{7}://b", "https://a\nb", "wss://a/\n"] {
            let NoAddress(why) = text.parse::<Address>().unwrap_err();
            assert!(!why.contains(char::is_control), "{why:?}");
        }
    }

    #[test]
    fn an_address_with_tls_has_others_in_its_place() {
        for (text, others) in [
            (
                "https://base.example",
                ["http://base.example:7225,", "http://base.example:80,", "-connect base.example:443'"],
            ),
            ("wss://base:8443/fleet", ["ws://base:7225,", "ws://base:80/fleet,", "-connect base:8443'"]),
            (
                "https://[2001:db8::1]/",
                ["http://[2001:db8::1]:7225,", "http://[2001:db8::1]:80,", "-connect [2001:db8::1]:443'"],
            ),
        ] {
            let NoAddress(why) = text.parse::<Address>().unwrap_err();
            others.iter().for_each(|other| assert!(why.contains(other), "{why}"));
        }
    }

    #[test]
    fn a_request_has_no_zone() {
        for (text, said) in
            [("[fe80::1%eth0]:80", "[fe80::1]:80"), ("[::1]", "[::1]:7225"), ("base%x:1", "base%x:1")]
        {
            assert_eq!(text.parse::<Host>().unwrap().of_request().to_string(), said);
        }
    }
}
