//! Who is on this network: a question to all on the link, and the answers of those who serve and say so.
//!
//! Datagrams to a group of the link alone, over IPv6 (whose link-local addresses need no router and nobody who hands out
//! addresses) and IPv4; no name, no clock. Nothing that is heard so is trusted: it says where to knock, and the session
//! proves who is there. A question is as long as an answer can be, so that nobody is made to answer more than was sent.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use packmule_core::model::DeviceId;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, ipproto, socket_with, sockopt};
use sha2::{Digest, Sha256};

use super::stream::Bell;
use super::{Address, Error, Host, random};
use crate::carry::stop::Stop;
use crate::engine::{self, Engine};

/// The groups: of the link alone, and of no assigned use.
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff12, 0, 0, 0, 0, 0, 0, 0x7225);
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 255, 72, 25);
/// What a datagram begins with: the magic and the version.
const MAGIC: [u8; 5] = *b"\x89PKF\x01";
/// Every datagram is as long as this.
const LEN: usize = 128;
const NAME_MAX: usize = 64;
/// Devices that are listed at most.
const FOUND_MAX: usize = 256;
/// Answers a second at most.
const ANSWERS_MAX: u32 = 50;
/// Interfaces that came later are joined after so long.
const JOIN_EVERY: Duration = Duration::from_secs(30);
/// A question is asked again after these times: datagrams get lost.
const ASKED: [Duration; 3] = [Duration::ZERO, Duration::from_millis(200), Duration::from_millis(800)];

/// What a device says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its id, as it says.
    pub id: DeviceId,
    /// Its name, as it says.
    pub name: String,
    /// It says that it gathers.
    pub base: bool,
    /// A sign of the fleet that it says it belongs to; zeros: of none.
    fleet: [u8; 8],
    /// Where it serves: several where it was heard by several ways.
    pub addresses: Vec<SocketAddr>,
}

impl Found {
    /// Makes what the device of a database says of itself.
    pub fn of(engine: &Engine) -> Self {
        let identity = engine.identity();
        let (name, id) = (identity.name.clone(), identity.id);
        let fleet = identity.fleet.map(|key| sign_of(&key)).unwrap_or_default();
        Self { id, name, base: identity.base, fleet, addresses: Vec::new() }
    }

    /// Returns whether it says that it is of the fleet of a database's device, or is one that this device trusts. The
    /// session proves it, or not.
    ///
    /// # Errors
    /// [`Error::Sqlite`](crate::Error::Sqlite).
    pub fn is_of_ours(&self, engine: &Engine) -> engine::Result<bool> {
        let identity = engine.identity();
        if self.id == identity.id {
            return Ok(false);
        }
        let same = identity.fleet.is_some_and(|key| sign_of(&key) == self.fleet);
        Ok(same || engine.peers()?.iter().any(|peer| peer.id == self.id))
    }

    /// Returns where it serves, as `sync` takes it.
    pub fn served_at(&self) -> Vec<Address> {
        let host = |at: &SocketAddr| {
            let name = match at {
                // A link's address is one of an interface.
                SocketAddr::V6(v6) if v6.scope_id() != 0 => format!("{}%{}", v6.ip(), v6.scope_id()),
                other => other.ip().to_string(),
            };
            Address::Tcp(Host { name, port: at.port() })
        };
        self.addresses.iter().map(host).collect()
    }

    fn answer(&self, nonce: [u8; 8], port: u16) -> [u8; LEN] {
        let mut name = self.name.len().min(NAME_MAX);
        while !self.name.is_char_boundary(name) {
            name -= 1;
        }
        let mut bytes = MAGIC.to_vec();
        bytes.push(if self.base { 2 } else { 1 });
        bytes.extend(nonce);
        bytes.extend(port.to_le_bytes());
        bytes.extend(self.id.0);
        bytes.extend(self.fleet);
        bytes.push(name as u8);
        bytes.extend(self.name.bytes().take(name));
        bytes.resize(LEN, 0);
        bytes.try_into().unwrap_or([0; LEN])
    }

    /// Reads an answer to the question of this nonce.
    pub(super) fn parse(bytes: &[u8], nonce: [u8; 8], from: SocketAddr) -> Option<Self> {
        let (head, rest) = bytes.split_at_checked(14).filter(|_| bytes.len() == LEN)?;
        let base = match head.get(5)? {
            1 => false,
            2 => true,
            _ => return None,
        };
        if head[..5] != MAGIC || head[6..] != nonce {
            return None;
        }
        let (port, rest) = rest.split_first_chunk::<2>()?;
        let (id, rest) = rest.split_first_chunk::<16>()?;
        let (fleet, rest) = rest.split_first_chunk::<8>()?;
        let (len, rest) = rest.split_first()?;
        let name = std::str::from_utf8(rest.get(..usize::from(*len).min(NAME_MAX))?).ok()?;
        let mut at = from;
        at.set_port(u16::from_le_bytes(*port));
        let addresses = if at.port() == 0 { return None } else { vec![at] };
        Some(Self { id: DeviceId(*id), name: name.into(), base, fleet: *fleet, addresses })
    }
}

/// A sign of a fleet by its public key, which tells nobody the key.
fn sign_of(key: &[u8; 32]) -> [u8; 8] {
    let hash = Sha256::new().chain_update(b"packmule sign of a fleet").chain_update(key).finalize();
    hash.first_chunk().copied().unwrap_or_default()
}

/// A socket of one family, that hears the group or asks it.
struct Group {
    socket: UdpSocket,
    v6: bool,
}

impl Group {
    /// Opens a port: 0 is a free one, to ask from. Several programs can hear the same.
    fn open(v6: bool, port: u16) -> io::Result<Self> {
        let family = if v6 { AddressFamily::INET6 } else { AddressFamily::INET };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(family, SocketType::DGRAM, flags, Some(ipproto::UDP))?;
        if v6 {
            sockopt::set_ipv6_v6only(&socket, true)?;
        }
        if port != 0 {
            sockopt::set_socket_reuseaddr(&socket, true)?;
        }
        let any: IpAddr = if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        bind(&socket, &SocketAddr::new(any, port))?;
        Ok(Self { socket: socket.into(), v6 })
    }

    /// Joins the group on every interface. One that is joined already, or cannot be, is left as it is.
    fn join_all(&self) {
        for index in interfaces() {
            let _ = if self.v6 {
                sockopt::set_ipv6_add_membership(&self.socket, &GROUP_V6, index)
            } else {
                let any = Ipv4Addr::UNSPECIFIED;
                sockopt::set_ip_add_membership_with_ifindex(&self.socket, &GROUP_V4, &any, index)
            };
        }
    }

    /// Asks all on every interface, and whoever is on this machine. What does not go out by one way goes by another.
    fn ask(&self, question: &[u8], port: u16) {
        for index in interfaces() {
            let to: SocketAddr = if self.v6 {
                SocketAddrV6::new(GROUP_V6, port, 0, index).into()
            } else {
                let any = Ipv4Addr::UNSPECIFIED;
                let _ = sockopt::set_ip_multicast_if_with_ifindex(&self.socket, &GROUP_V4, &any, index);
                SocketAddrV4::new(GROUP_V4, port).into()
            };
            let _ = self.socket.send_to(question, to);
        }
        let here: IpAddr = if self.v6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
        let _ = self.socket.send_to(question, (here, port));
    }
}

/// Lists the indices of the interfaces; 0, the system's choice, where it does not tell.
fn interfaces() -> Vec<u32> {
    let index = |entry: io::Result<fs::DirEntry>| {
        fs::read_to_string(entry.ok()?.path().join("ifindex")).ok()?.trim().parse().ok()
    };
    let all: Vec<u32> =
        fs::read_dir("/sys/class/net").map(|all| all.filter_map(index).collect()).unwrap_or_default();
    if all.is_empty() { vec![0] } else { all }
}

/// Answers whoever asks on this network who is there, until [`Stop::stop`]: `me`, who serves at this address. The question
/// comes to the UDP port `port`, which is [`PORT`](super::PORT) for all.
///
/// # Errors
/// [`Error::Listen`].
pub fn announce(me: &Found, serves: SocketAddr, port: u16, stop: &Stop) -> Result<(), Error> {
    let bell = Bell::new(stop).map_err(Error::Listen)?;
    // Where it serves on both, both are answered; a family that this machine has not is none.
    let both = serves.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let families = [true, false].into_iter().filter(|v6| both || serves.is_ipv6() == *v6);
    let mut groups = Vec::new();
    let mut why = None;
    for v6 in families {
        // The answer comes from the address at which it serves: that is where it can be reached.
        let from = if both { Group::open(v6, 0).map(|g| g.socket) } else { bound(serves.ip()) };
        match (Group::open(v6, port), from) {
            (Ok(group), Ok(from)) => groups.push((group, from)),
            (Err(e), _) | (_, Err(e)) => why = Some(e),
        }
    }
    if groups.is_empty() {
        return Err(Error::Listen(why.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into())));
    }
    let mut joined: Option<Instant> = None;
    let mut second = (Instant::now(), 0);
    while !stop.stopped() {
        if joined.is_none_or(|at| at.elapsed() >= JOIN_EVERY) {
            groups.iter().for_each(|(group, _)| group.join_all());
            joined = Some(Instant::now());
        }
        for (group, from) in &groups {
            let mut bytes = [0; LEN + 1];
            while let Ok((LEN, asks)) = group.socket.recv_from(&mut bytes) {
                let Some(nonce) = question(&bytes[..LEN]) else { continue };
                if second.0.elapsed() >= Duration::from_secs(1) {
                    second = (Instant::now(), 0);
                }
                second.1 += 1;
                if second.1 <= ANSWERS_MAX {
                    let _ = from.send_to(&me.answer(nonce, serves.port()), asks);
                }
            }
        }
        let files: Vec<(BorrowedFd<'_>, bool)> =
            groups.iter().map(|(group, _)| (group.socket.as_fd(), false)).collect();
        bell.wait(&files, JOIN_EVERY);
    }
    Ok(())
}

fn bound(ip: IpAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((ip, 0))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Returns the nonce of a question.
pub(super) fn question(bytes: &[u8]) -> Option<[u8; 8]> {
    let rest = bytes.strip_prefix(&MAGIC)?.strip_prefix(&[0])?;
    rest.first_chunk().copied()
}

/// Asks who is on this network, and hears the answers for so long, or until [`Stop::stop`]. Bases come first, then by id.
/// At most 256 are listed.
///
/// # Errors
/// [`Error::Unreachable`] where nothing can be sent at all.
pub fn find(time: Duration, port: u16, stop: &Stop) -> Result<Vec<Found>, Error> {
    let bell = Bell::new(stop).map_err(Error::Unreachable)?;
    let nonce: [u8; 8] = random()?;
    let mut asks = MAGIC.to_vec();
    asks.push(0);
    asks.extend(nonce);
    asks.resize(LEN, 0);
    let groups: Vec<Group> = [true, false].into_iter().flat_map(|v6| Group::open(v6, 0)).collect();
    if groups.is_empty() {
        return Err(Error::Unreachable(io::ErrorKind::NetworkUnreachable.into()));
    }
    let begun = Instant::now();
    let mut due = ASKED.iter().copied().peekable();
    let mut found: BTreeMap<[u8; 16], Found> = BTreeMap::new();
    while !stop.stopped() && begun.elapsed() < time {
        while due.next_if(|due| begun.elapsed() >= *due).is_some() {
            groups.iter().for_each(|group| group.ask(&asks, port));
        }
        for group in &groups {
            let mut bytes = [0; LEN + 1];
            while let Ok((count, from)) = group.socket.recv_from(&mut bytes) {
                let Some(heard) = Found::parse(&bytes[..count], nonce, from) else { continue };
                note(&mut found, heard);
            }
        }
        let next = due.peek().copied().unwrap_or(time).min(time).saturating_sub(begun.elapsed());
        let files: Vec<(BorrowedFd<'_>, bool)> =
            groups.iter().map(|group| (group.socket.as_fd(), false)).collect();
        bell.wait(&files, next.max(Duration::from_millis(1)));
    }
    let mut all: Vec<Found> = found.into_values().collect();
    all.sort_by_key(|found| !found.base);
    Ok(all)
}

/// Notes one that was heard, by one more way perhaps.
fn note(found: &mut BTreeMap<[u8; 16], Found>, heard: Found) {
    if let Some(known) = found.get_mut(&heard.id.0) {
        let new = heard.addresses.into_iter().filter(|at| !known.addresses.contains(at));
        known.addresses.extend(new.collect::<Vec<_>>());
    } else if found.len() < FOUND_MAX {
        found.insert(heard.id.0, heard);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_answered_is_read_and_nothing_else() {
        let from: SocketAddr = ([192, 0, 2, 1], 9).into();
        let name = format!("{}é", "a".repeat(63));
        let me = Found { id: DeviceId([7; 16]), name, base: true, fleet: [3; 8], addresses: Vec::new() };
        let bytes = me.answer([5; 8], 7_000);
        let Some(heard) = Found::parse(&bytes, [5; 8], from) else { panic!("it is an answer") };
        assert_eq!((heard.id, heard.base, heard.fleet, heard.name.len()), (me.id, true, [3; 8], 63));
        assert_eq!(heard.served_at()[0].to_string(), "tcp://192.0.2.1:7000");
        assert!(Found::parse(&bytes, [6; 8], from).is_none(), "it answers another question");
        assert!(question(&bytes).is_none());
        for at in 0..LEN {
            // Whatever is changed: it is read as something, or not at all.
            let mut other = bytes;
            other[at] ^= 0xff;
            let _ = Found::parse(&other, [5; 8], from);
            assert!(Found::parse(&bytes[..at], [5; 8], from).is_none());
        }
    }
}
