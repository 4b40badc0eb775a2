//! The contents of a bundle, for people.

use std::collections::HashMap;
use std::io::Read;

use ed25519_compact::{PublicKey, Signature};
use packmule_core::model::{DeviceId, Stream, WallMs};
use packmule_core::wire::{
    Block, Certificate, Chain, Checkpoint, DecodeError, DefId, DefReader, Frame, Header, HeaderReader, Ops,
    Position, Section, Shape,
};

use crate::engine::error::{BundleProblem, Error, Result};
use crate::engine::log::bundle::{BundleReader, HeaderCheck, Item};
#[cfg(feature = "serde")]
use crate::engine::store::json;
use crate::engine::table::coding::Codings;
use crate::engine::table::def::TableDef;

/// What a bundle says of itself.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct BundleInfo {
    /// Who made it.
    pub sender: Option<DeviceId>,
    /// For whom, if for one device.
    pub receiver: Option<DeviceId>,
    /// When, by the sender's clock.
    #[cfg_attr(feature = "serde", serde(rename = "made", serialize_with = "json::time"))]
    pub wall: WallMs,
    /// What the sender had when it made it; with `vector_differs`, only what differs from what the receiver said last.
    #[cfg_attr(feature = "serde", serde(rename = "sender_had", serialize_with = "json::vector"))]
    pub vector: Vec<Position>,
    /// The sender tells only what differs from what the receiver said last.
    #[cfg_attr(feature = "serde", serde(rename = "sender_had_differs"))]
    pub vector_differs: bool,
    /// The header's signature is that of the sender's certificate in the bundle; `None` if it has none.
    pub signed: Option<bool>,
    /// The devices whose certificates are in it: id, name, base, issued by a fleet.
    #[cfg_attr(feature = "serde", serde(rename = "certificates", serialize_with = "json::certificates"))]
    pub devices: Vec<(DeviceId, String, bool, bool)>,
    /// The groups of frames.
    pub groups: Vec<GroupInfo>,
    /// Of a snapshot: rows of what its maker had.
    pub state_rows: u64,
    /// Bytes in all.
    pub bytes: u64,
}

/// A group of frames in a bundle.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct GroupInfo {
    /// Who wrote it.
    #[cfg_attr(feature = "serde", serde(rename = "device"))]
    pub author: DeviceId,
    /// In which of its streams.
    pub stream: Stream,
    /// The first frame.
    pub first: u64,
    /// The last frame.
    pub last: u64,
    /// The author's stamp.
    #[cfg_attr(feature = "serde", serde(rename = "stamp"))]
    pub lamport: u64,
    /// When it was sealed, by the author's clock.
    #[cfg_attr(feature = "serde", serde(rename = "at", serialize_with = "json::time"))]
    pub wall: WallMs,
    /// Bytes of frames.
    pub bytes: u64,
    /// Tables that are defined in it, as far as it can be read without a database.
    #[cfg_attr(feature = "serde", serde(rename = "defines"))]
    pub tables: Vec<String>,
    /// The signature is that of the certificate in the bundle; `None` if there is no certificate.
    pub signed: Option<bool>,
}

/// What the maker signs begins with this.
pub(crate) const SEAL_DOMAIN: &[u8] = b"packmule/1 snapshot";

/// Shows what is in a bundle and checks all that can be checked without a database.
///
/// # Errors
/// [`Error::Bundle`] if it is damaged, [`Error::Stream`] if it cannot be read.
pub fn inspect(input: impl Read) -> Result<BundleInfo, Error> {
    let mut reader = BundleReader::new(input);
    let mut inspection = Inspection::default();
    loop {
        let at = reader.offset();
        match reader.next_item()? {
            Item::Header(header) => inspection.header(&header),
            Item::Certificate(certificate, _) => inspection.certificate(&certificate),
            Item::Frame(section, frame, bytes) => inspection.frame(at, section, &frame, bytes)?,
            Item::Checkpoint(checkpoint, _, end) => inspection.checkpoint(&checkpoint, &end),
            Item::State(_) => inspection.info.state_rows += 1,
            Item::Part(_) | Item::Revocation(_) | Item::Newest(_) | Item::FleetKey(..) => {}
            Item::Seal(signature, digest) => inspection.sealed(at, &signature, &digest)?,
            Item::End => return Ok(BundleInfo { bytes: reader.offset(), ..inspection.ended() }),
        }
    }
}

/// A bundle that is being inspected.
#[derive(Default)]
struct Inspection {
    info: BundleInfo,
    /// The public keys of the certificates that came.
    keys: HashMap<DeviceId, [u8; 32]>,
    /// The group whose checkpoint has not come yet.
    group: Option<GroupInfo>,
    header: Option<HeaderCheck>,
    codings: Codings,
    defined: Defined,
}

/// The definitions in a bundle of which rows may follow: which of the columns are keys. Of more than so many none.
#[derive(Default)]
struct Defined(HashMap<DefId, Vec<bool>>);

/// See [`Defined`].
const DEFINED_MAX: usize = 1_000;

impl Defined {
    /// Finds the names of the tables that a frame in its plain form defines, up to rows whose definition is not in the bundle:
    /// nobody knows where they end.
    fn find_tables(&mut self, frame: &Frame<'_>, tables: &mut Vec<String>) -> Result<(), DecodeError> {
        let mut blocks = frame.blocks();
        while let Some(block) = blocks.next_block()? {
            match block {
                Block::Def(body) => {
                    tables.push(DefReader::new(body)?.head.name.into());
                    if let Ok(def) = TableDef::hear(body)
                        && self.0.len() < DEFINED_MAX
                    {
                        self.0.insert(DefId::of(body), def.key_flags());
                    }
                }
                Block::Rows { def, body, offset } => {
                    let Some(keys) = self.0.get(&def) else { return Ok(()) };
                    let mut ops = Ops::new(body, offset, Shape { keys });
                    while ops.next_op()?.is_some() {}
                    blocks.resume(ops.rest());
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Inspection {
    /// Shows the header.
    fn header(&mut self, header: &HeaderReader<'_>) {
        let Header { sender, receiver, wall, .. } = header.header;
        let info = &mut self.info;
        (info.sender, info.receiver, info.wall) = (Some(sender), receiver, wall);
        info.vector = header.applied().collect();
        info.vector_differs = header.header.base.is_some();
        self.header = Some(HeaderCheck::of(header));
    }

    /// Shows a certificate, and keeps its key.
    fn certificate(&mut self, certificate: &Certificate<'_>) {
        let id = certificate.device();
        self.keys.insert(id, certificate.public_key);
        let device = (id, certificate.name.into(), certificate.base, certificate.fleet.is_some());
        self.info.devices.push(device);
    }

    /// Shows a frame as a part of its group.
    fn frame(&mut self, at: u64, section: Section, frame: &Frame<'_>, bytes: &[u8]) -> Result<()> {
        let group = self.group.get_or_insert_with(|| GroupInfo {
            author: section.author,
            stream: section.stream,
            first: frame.head.seq,
            last: frame.head.seq,
            lamport: frame.group.map_or(0, |g| g.lamport),
            wall: frame.group.map_or(0, |g| g.wall),
            bytes: 0,
            tables: Vec::new(),
            signed: None,
        });
        group.bytes += bytes.len() as u64;
        if frame.is_newer() {
            return Ok(());
        }
        let defined = &mut self.defined;
        let found = self.codings.plain(frame, |plain| defined.find_tables(plain, &mut group.tables));
        found.and_then(|found| found).map_err(|e| Error::bundle(at, e))
    }

    /// Closes a group, and verifies its signature if the author's certificate is there.
    fn checkpoint(&mut self, checkpoint: &Checkpoint, end: &Chain) {
        if let Some(mut group) = self.group.take() {
            group.last = checkpoint.last;
            group.signed = self.keys.get(&checkpoint.author).map(|key| checkpoint.verify(key, end).is_ok());
            self.info.groups.push(group);
        }
    }

    /// Verifies the maker's signature at the end of a state.
    fn sealed(&self, at: u64, signature: &[u8; 64], digest: &[u8; 32]) -> Result<()> {
        let key = self.info.sender.and_then(|maker| self.keys.get(&maker));
        if !key.is_some_and(|key| is_sealed_by(key, signature, digest)) {
            return Err(Error::bundle(at, BundleProblem::Signature("its maker".into())));
        }
        Ok(())
    }

    /// Says whether the header of a bundle that is whole carries its sender's signature.
    fn ended(self) -> BundleInfo {
        let Self { info, keys, header, .. } = self;
        BundleInfo { signed: header.and_then(|check| Some(check.verify(keys.get(&check.sender)?))), ..info }
    }
}

/// Returns whether a snapshot with this digest carries the signature of this key.
pub(super) fn is_sealed_by(key: &[u8; 32], signature: &[u8; 64], digest: &[u8; 32]) -> bool {
    PublicKey::new(*key).verify([SEAL_DOMAIN, digest].concat(), &Signature::new(*signature)).is_ok()
}
