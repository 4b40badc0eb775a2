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
            let none = || NoAddress("exec: needs a command".into());
            return Some(command.trim())
                .filter(|c| !c.is_empty())
                .map(|c| Self::Exec(c.into()))
                .ok_or_else(none);
        }
        if text == "find:" {
            return Ok(Self::Find);
        }
        match text.split_once("://") {
            Some(("tcp", host)) => host.strip_suffix('/').unwrap_or(host).parse().map(Self::Tcp),
            Some(("ws", rest)) => host_and_path(rest, PATH).map(|(host, path)| Self::WebSocket(host, path)),
            Some(("http", rest)) => host_and_path(rest, TURNS).map(|(host, path)| Self::Http(host, path)),
            Some((scheme, _)) => Err(NoAddress(format!(
                "{scheme}:// is not known: it is tcp://, ws://, http://, serial:, exec: or find:"
            ))),
            None => Err(NoAddress(format!(
                "`{text}` is no address: it begins with tcp://, ws://, http://, serial:, exec: or find:"
            ))),
        }
    }
}

/// Reads what stands behind a scheme. Without a path it is this one.
fn host_and_path(rest: &str, usual: &str) -> Result<(Host, String), NoAddress> {
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let path = if path.len() > 1 { path } else { usual };
    if path.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(NoAddress(format!("`{path}` is no path")));
    }
    Ok((host.parse()?, path.into()))
}

impl FromStr for Host {
    type Err = NoAddress;

    fn from_str(text: &str) -> Result<Self, NoAddress> {
        let wrong = || NoAddress(format!("`{text}` is no host with a port, such as 192.168.1.5:{PORT}"));
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
        if name.is_empty() || name.contains(['/', '@', ' ', '[', ']']) {
            return Err(wrong());
        }
        Ok(Self { name: name.into(), port })
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
            "tcp://u@h",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
