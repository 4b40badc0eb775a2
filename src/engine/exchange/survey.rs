//! What a carrier needs to know to choose: what a bundle has, what peers have, what could be sent.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufReader, Read, Seek};

use packmule_core::model::{DeviceId, Stream};
use packmule_core::wire::{Certificate, Chain, Checkpoint, Position, Revocation, Section};
use sha2::{Digest, Sha256};

use crate::engine::apply::report::ImportReport;
use crate::engine::capture::groups::SealOptions;
use crate::engine::capture::seal;
use crate::engine::error::{BundleProblem, Error, Result, UntrustedDevice};
use crate::engine::exchange::admit::{self, Found};
use crate::engine::exchange::records::Positions;
use crate::engine::exchange::session::{self, StreamOut};
use crate::engine::exchange::state_rows::{Proof, StateRow};
use crate::engine::exchange::verified::Verified;
use crate::engine::exchange::{
    certificates, gathered_state, give_up, newest, reconcile, rekey, revoke, transaction, twin,
};
use crate::engine::fleet::devices::{self, Trust};
use crate::engine::fleet::membership::Retirement;
use crate::engine::fleet::peers::{self, Fit, OtherHistory, PeerEvidence};
use crate::engine::fleet::{admission, copies, gaps, membership, positions, revocation, succession, trust};
use crate::engine::log::bundle::{BundleReader, HeaderCheck, Item};
use crate::engine::merge::deferred;
#[cfg(feature = "serde")]
use crate::engine::store::json;
use crate::engine::store::value;
use crate::engine::table::catalog;
use crate::engine::table::replica::Replica;

/// Frames of one stream, all from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Span {
    /// Who wrote them.
    #[cfg_attr(feature = "serde", serde(rename = "device"))]
    pub author: DeviceId,
    /// In which of its streams.
    pub stream: Stream,
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
}

impl Span {
    /// Makes a span.
    pub fn new(author: DeviceId, stream: Stream, first: u64, last: u64) -> Self {
        Self { author, stream, first, last }
    }
}

/// What a bundle has, so far as it could be read.
#[derive(Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Survey {
    /// Who made it, if its header could be read.
    pub sender: Option<DeviceId>,
    /// For whom, if for one device.
    pub receiver: Option<DeviceId>,
    /// It is for anybody, or for this device, also under an identity that it had before.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub(crate) for_us: bool,
    /// This device made it: its signature is under the header.
    pub ours: bool,
    /// Another database under this device's identity made it: a copy that was set back.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub(crate) of_copy: bool,
    /// It has another history of this device than is here.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub(crate) apart: bool,
    /// It states what this device has under the incarnation of now.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub(crate) of_now: bool,
    /// What the sender had when it made it.
    #[cfg_attr(feature = "serde", serde(rename = "sender_had", serialize_with = "json::positions"))]
    pub vector: Positions,
    /// The same with the chains there, if this device made it.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub(crate) applied: Vec<Position>,
    /// It has a state, of the shared tables or of what its sender had gathered, which stands for all frames that the sender
    /// had of them.
    pub state: bool,
    /// What who takes the state must have, if this device made it.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub(crate) since: Positions,
    /// The frames in it, and those for which a state stands.
    pub spans: Vec<Span>,
    /// Up to where a state in it stands for the frames of streams.
    #[cfg_attr(feature = "serde", serde(skip))]
    stands_for: Vec<(DeviceId, Stream, u64)>,
    /// The hashes of the certificates in it, if this device made it.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub(crate) certificates: BTreeSet<[u8; 32]>,
    /// Why it is not whole; signatures of frames are not looked at.
    #[cfg_attr(feature = "serde", serde(serialize_with = "json::text"))]
    pub problem: Option<Error>,
}

/// A trusted device other than this one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Trusted {
    /// Its id.
    #[cfg_attr(feature = "serde", serde(rename = "fingerprint"))]
    pub id: DeviceId,
    /// It gathers the rows of per-device tables.
    pub base: bool,
    /// A bundle of its own making has been here, or it was met on a link.
    pub heard: bool,
    /// It takes per-device streams of others, as far as is known.
    pub takes_own: bool,
}

/// Reads a bundle to its end and reports what it has. Holds one record in memory, and a few numbers
/// a stream.
pub(crate) fn survey(replica: &Replica, input: impl Read) -> Survey {
    let mut survey = Survey::default();
    survey.problem = survey_into(replica, input, &mut survey).err().map(|e| *e);
    // A state has all that its maker had of its streams.
    for (author, stream, seq) in std::mem::take(&mut survey.stands_for) {
        survey.spans.retain(|span| (span.author, span.stream) != (author, stream) || span.last > seq);
        survey.spans.push(Span::new(author, stream, 1, seq));
    }
    survey
}

/// Reads a bundle into a survey, as far as it goes.
fn survey_into(replica: &Replica, input: impl Read, survey: &mut Survey) -> Result<()> {
    let mut reader = BundleReader::new(input);
    loop {
        match reader.next_item_knowing(&|bytes| trust::is_stored(replica, bytes))? {
            Item::Header(header) => {
                let sender = header.header.sender;
                survey.sender = Some(sender);
                survey.receiver = header.header.receiver;
                survey.for_us = match survey.receiver {
                    Some(receiver) => devices::is_or_was_me(replica, receiver)?,
                    None => true,
                };
                survey.vector = header.applied().map(|e| ((e.author, e.stream), e.seq)).collect();
                survey.ours = sender == replica.identity.id
                    && trust::trusted_key(replica, sender)?.is_some_and(|key| header.verify(&key).is_ok());
                let (own, by) = (copies::own(replica)?, copies::of(header.header.statement));
                survey.applied = header.applied().filter(|_| survey.ours).collect();
                survey.of_copy = by.is_some_and(|by| survey.ours && !own.contains(&by))
                    || has_more(replica, &survey.applied)?;
                survey.of_now = survey.ours && by == own.last().copied();
            }
            Item::Certificate(_, bytes) | Item::FleetKey(_, bytes) => {
                if survey.ours {
                    survey.certificates.insert(Sha256::digest(bytes).into());
                }
            }
            Item::Frame(..) | Item::Revocation(_) | Item::Newest(_) => {}
            Item::Checkpoint(checkpoint, _, end) => {
                survey.apart |= is_apart(replica, survey.sender, &checkpoint, &end)?;
                let (author, stream) = (checkpoint.author, checkpoint.stream);
                let (first, last) = (checkpoint.first, checkpoint.last);
                let goes_on = |s: &&mut Span| (s.author, s.stream, s.last + 1) == (author, stream, first);
                match survey.spans.iter_mut().find(goes_on) {
                    Some(span) => span.last = last,
                    None => survey.spans.push(Span { author, stream, first, last }),
                }
            }
            Item::State(body) => {
                let row = StateRow::parse(replica, body)?;
                match row.kind {
                    "stream" => {
                        let Proof { checkpoint, end, .. } = row.proof()?;
                        survey.apart |= is_apart(replica, survey.sender, &checkpoint, &end)?;
                        survey.stands_for.push(row.place()?);
                    }
                    "since" if survey.ours => {
                        let (id, seq) = row.since()?;
                        survey.since.insert((id, Stream::Shared), seq);
                    }
                    _ => {}
                }
            }
            Item::Part(_) => {}
            Item::Seal(..) => survey.state = true,
            Item::End => return Ok(()),
        }
    }
}

/// Returns whether somebody has more of other devices than is here, and than was given up here. Where this device has said so,
/// that was another database under its identity, or this one before it was set back.
fn has_more(replica: &Replica, applied: &[Position]) -> Result<bool> {
    let more = |entry: &Position| {
        Ok::<_, Error>(match devices::device_number(replica, entry.author)? {
            Some(dev) => {
                dev != replica.me && entry.seq > positions::position(replica, dev, entry.stream)?.seq
            }
            None => true,
        })
    };
    for entry in applied {
        if more(entry)? {
            return Ok(!has_given_up(replica, applied)?);
        }
    }
    Ok(false)
}

/// Returns whether a group is of another history of this device than is here. One that another database under its identity
/// brings is refused.
fn is_apart(
    replica: &Replica,
    sender: Option<DeviceId>,
    checkpoint: &Checkpoint,
    end: &Chain,
) -> Result<bool> {
    if checkpoint.author != replica.identity.id {
        return Ok(false);
    }
    let Some(key) = trust::trusted_key(replica, checkpoint.author)? else { return Ok(false) };
    if sender == Some(replica.identity.id) {
        // A clone of this device made it: this device cannot judge what it is worth.
        twin::refuse_twin(replica, checkpoint, Some(end), &key)?;
    }
    Ok(twin::fit(replica, checkpoint, Some(end), &key)? != Fit::Fits)
}

/// Returns whether one of these places is of a history that is given up here, or of this device's own that it took back.
pub(crate) fn has_given_up(replica: &Replica, applied: &[Position]) -> Result<bool> {
    for entry in applied.iter().filter(|entry| entry.stream == Stream::Shared) {
        if twin::is_taken_back(replica, entry)? {
            return Ok(true);
        }
        if let Some(dev) = devices::device_number(replica, entry.author)?
            && let Some(given_up) = peers::given_up(replica, dev)?
            && given_up.ends.contains(&(entry.seq, entry.tag))
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Records what a bundle's sender acknowledges, and takes in none of its frames: for a bundle that is for another
/// device, or has nothing new. The caller must know that it is whole. Where it acknowledges nothing new, nothing is
/// written. Returns the devices of which its sender says that it has another history than is here.
pub(crate) fn hear(replica: &mut Replica, input: impl Read) -> Result<Vec<DeviceId>> {
    let Preface { mut verified, check, sender_certificate, found, fleet, by_fleet, statements } =
        preface(replica, input)?;
    admit::take(replica, &found)?;
    if let (Some(check), Some(fleet)) = (&check, fleet) {
        // An admission. That of another fleet, or of others, is nothing to this device.
        if !check.verify(&fleet) {
            return Err(Error::bundle(0, BundleProblem::Signature("the fleet key".into())));
        }
        return store_members(replica, fleet, &by_fleet).map(|()| Vec::new());
    }
    let (Some(sender), Some(check)) = (verified.sender, check) else { return Ok(Vec::new()) };
    let own = sender_certificate.unwrap_or_default();
    let known = catalog::reading(replica, |e| {
        let Some(key) = trust::trusted_key(e, sender)? else { return Ok(false) };
        for statement in &statements {
            if revocation::is_news(e, statement)? {
                return Ok(false);
            }
        }
        let stored = own.is_empty() || trust::is_stored(e, &own)? && !admission::is_awaited(e, &own)?;
        let known = stored && check.verify(&key) && verified.is_recorded(e)?;
        Ok(known && compare(e, &mut verified, sender)?.is_none())
    })?;
    let was = replica.identity.id;
    if !known {
        let heard = if rekey::waits_here(replica)? {
            transaction::record(replica, |e| record_heard(e, &mut verified, (sender, &check), &own, &[]))
        } else {
            transaction::transaction(replica, |e| {
                record_heard(e, &mut verified, (sender, &check), &own, &statements)
            })
        };
        admit::who_asks(replica, &found, heard)?;
    }
    if !verified.is_old && !rekey::waits_here(replica)? {
        give_up::heard(replica, sender, &verified.said)?;
    }
    // A clone of this device decides nothing; nor does what is said of an identity that this device has just left.
    let ours = sender == was || replica.identity.id != was;
    let evidence = if ours { PeerEvidence::default() } else { verified.evidence };
    reconcile::reconcile_own_log(replica, &evidence)?;
    // Frames of theirs that came with it show which of the two histories is given up.
    Ok(verified.said.others.into_keys().collect())
}

/// Hears what the sender of a bundle has that is refused since it has another history of itself; `other` if its own
/// signature shows that. Whoever has the second history is shown the first with all that is sent.
pub(crate) fn hear_refused(
    replica: &mut Replica,
    bundle: &mut (impl Read + Seek),
    other: Option<OtherHistory>,
) -> Result<()> {
    bundle.rewind().map_err(Error::Stream)?;
    match hear(replica, BufReader::new(bundle)) {
        Err(e) if !matches!(*e, Error::Twin { .. } | Error::Untrusted(_) | Error::Bundle { .. }) => {
            return Err(e);
        }
        _ => {}
    }
    other.map_or(Ok(()), |other| transaction::record(replica, |e| give_up::note(e, &other)))
}

/// Takes in what the fleet's key says in a bundle of which nothing else is taken, since its maker is revoked: that holds,
/// whoever brings it. Returns whether any of it was news.
pub(crate) fn hear_fleet_key(replica: &mut Replica, bundle: &mut (impl Read + Seek)) -> Result<bool> {
    bundle.rewind().map_err(Error::Stream)?;
    let statements = preface(replica, BufReader::new(bundle))?.statements;
    let mut any = false;
    for statement in &statements {
        any |= catalog::reading(replica, |e| revocation::is_news(e, statement))?;
    }
    if !any || rekey::waits_here(replica)? {
        return Ok(false);
    }
    transaction::transaction(replica, |e| hear_revocations(e, &statements))?;
    Ok(true)
}

/// What stands before the frames of a bundle.
struct Preface {
    verified: Verified,
    check: Option<HeaderCheck>,
    sender_certificate: Option<Vec<u8>>,
    found: Found,
    /// The fleet whose key is the sender: the bundle is an admission.
    fleet: Option<[u8; 32]>,
    /// The certificates in it.
    by_fleet: Vec<Vec<u8>>,
    /// The revocations in it.
    statements: Vec<Revocation>,
}

/// Reads what stands before the frames of a bundle.
fn preface(replica: &Replica, input: impl Read) -> Result<Preface> {
    let (verified, found, by_fleet) = (Verified::default(), Found::default(), Vec::new());
    let mut preface = Preface {
        verified,
        check: None,
        sender_certificate: None,
        found,
        fleet: None,
        by_fleet,
        statements: Vec::new(),
    };
    let mut reader = BundleReader::new(input);
    loop {
        match reader.next_item_knowing(&|bytes| trust::is_stored(replica, bytes))? {
            Item::Header(header) => {
                preface.verified.read_header(replica, &header)?;
                preface.check = Some(HeaderCheck::of(&header));
            }
            Item::FleetKey(statement, bytes) => preface.found.see(replica, &statement, bytes)?,
            Item::Certificate(certificate, bytes) => {
                preface.found.see(replica, &certificate, bytes)?;
                let signed = certificate.fleet.map(|signed| signed.fleet);
                if Some(certificate.device()) == preface.verified.sender {
                    // Of several the last one asks for another name: it is no reason to forget the first.
                    preface.sender_certificate.get_or_insert_with(|| bytes.to_vec());
                }
                if let Some(signed) =
                    signed.filter(|key| preface.verified.sender == Some(DeviceId::of_key(key)))
                {
                    preface.fleet = Some(signed);
                    if preface.by_fleet.len() < MEMBERS_MAX {
                        preface.by_fleet.push(bytes.to_vec());
                    }
                }
            }
            Item::Revocation(statement) => preface.statements.push(statement),
            Item::Newest(shown) => newest::hear(replica, &shown, &mut preface.verified.evidence)?,
            _ => return Ok(preface),
        }
    }
}

/// How many certificates of an admission are taken.
const MEMBERS_MAX: usize = 1_024;

/// Stores the certificates of an admission by our fleet.
fn store_members(replica: &mut Replica, fleet: [u8; 32], members: &[Vec<u8>]) -> Result<()> {
    let Some(ours) = replica.identity.fleet else { return Ok(()) };
    if !succession::is_of_fleet(&replica.db, fleet, ours)? {
        return Ok(());
    }
    transaction::transaction(replica, |e| {
        for bytes in members {
            let certificate = Certificate::decode(bytes).map_err(|e| Error::bundle(0, e))?;
            if let Ok(trust) = trust::verify_certificate(e, &certificate)? {
                certificates::store(e, &certificate, bytes, trust)?;
            }
        }
        Ok(())
    })
}

/// Compares what a bundle's sender says with what is here. Returns from which frame on it has another history of itself.
fn compare(replica: &Replica, verified: &mut Verified, sender: DeviceId) -> Result<Option<u64>> {
    let Verified { applied, probes, evidence, said, .. } = verified;
    let apart = twin::compare_vector(replica, sender, (applied, probes), evidence)?;
    let other = apart.sender;
    said.also_said(apart);
    Ok(other)
}

/// Stores the certificate of a bundle's sender, and records what it acknowledges.
fn record_heard(
    replica: &Replica,
    verified: &mut Verified,
    (sender, check): (DeviceId, &HeaderCheck),
    certificate: &[u8],
    statements: &[Revocation],
) -> Result<()> {
    let read = |bytes| Certificate::read(bytes).map_err(|e| Error::bundle(0, e));
    let own = Some(certificate).filter(|bytes| !bytes.is_empty()).map(read).transpose()?;
    if let Some(own) = &own {
        let trust = trust::verify_certificate(replica, own)?
            .map_err(|untrusted| Error::Untrusted(vec![untrusted]))?;
        certificates::store(replica, own, certificate, trust)?;
    }
    let Some(key) = trust::trusted_key(replica, sender)? else {
        return Err(Error::Untrusted(vec![UntrustedDevice { id: sender, name: None, revoked: false }]).into());
    };
    if !check.verify(&key) {
        return Err(Error::bundle(0, BundleProblem::Signature(devices::name_of(replica, sender)?)));
    }
    hear_revocations(replica, statements)?;
    if let Some(own) = &own {
        admission::shown_by_itself(replica, own)?;
    }
    if let Some(seq) = compare(replica, verified, sender)? {
        peers::record_other_history(replica, sender)?;
        twin::record_twin(replica, &devices::name_of(replica, sender)?, seq)?;
    }
    verified.record_acknowledged(replica, sender)
}

/// Takes in statements of the fleet's key.
fn hear_revocations(replica: &Replica, statements: &[Revocation]) -> Result<()> {
    if !statements.is_empty() {
        deferred::begin_deferring(replica)?;
        seal::seal_here(replica, SealOptions::default())?;
    }
    for statement in statements {
        revoke::take_in(replica, statement, &mut ImportReport::default())?;
    }
    Ok(())
}

/// Lists the trusted devices other than this one that were not retired: bases first, then by id.
pub(crate) fn peers(replica: &Replica) -> Result<Vec<Trusted>> {
    catalog::reading(replica, |e| {
        let mut statement = e.db.prepare_cached(
            "SELECT n FROM _pm_device WHERE n <> ?1 AND trust IN (?2, ?3) AND NOT retired ORDER BY base DESC, id",
        )?;
        let all = statement.query_map((e.me, Trust::Singly, Trust::ByFleet), |row| row.get(0))?;
        all.map(|n| trusted(e, n?)).collect()
    })
}

/// Returns what became of a device, if it is retired.
pub(crate) fn retirement(replica: &Replica, id: DeviceId) -> Result<Option<Retirement>> {
    catalog::reading(replica, |e| match devices::device_number(e, id)? {
        Some(dev) => membership::retirement(e, dev),
        None => Ok(None),
    })
}

/// Lists the trusted devices that are retired and have spoken since: they are told, and say that they are back.
pub(crate) fn returning(replica: &Replica) -> Result<Vec<Trusted>> {
    catalog::reading(replica, |e| membership::returning(e)?.into_iter().map(|n| trusted(e, n)).collect())
}

/// Reads what is known of a trusted device.
fn trusted(replica: &Replica, n: i64) -> Result<Trusted> {
    let sql = "SELECT id, base, heard IS NOT NULL, base OR name IS NULL FROM _pm_device WHERE n = ?1";
    Ok(replica.db.prepare_cached(sql)?.query_row([n], |row| {
        let (id, base, heard, takes_own) = (DeviceId(row.get(0)?), row.get(1)?, row.get(2)?, row.get(3)?);
        Ok(Trusted { id, base, heard, takes_own })
    })?)
}

/// Lists what a device has: by its own acknowledgements, or by what its frames say it had seen. Of who has two histories it
/// may have given up all that it had seen: of these it has what it says, where it has sealed nothing since it spoke.
pub(crate) fn acknowledged_by(replica: &Replica, peer: DeviceId) -> Result<Positions> {
    catalog::reading(replica, |e| {
        let Some(peer) = devices::device_number(e, peer)? else { return Ok(Positions::new()) };
        let said = membership::said(e, peer, peer, Stream::Shared)?.unwrap_or(0);
        let spoke = positions::position(e, peer, Stream::Shared)?.seq <= said;
        let two = if spoke { peers::splits(e)? } else { BTreeMap::new() };
        let mut statement = e.db.prepare_cached(
            "SELECT d.id, stream, max(seq), d.n FROM (
               SELECT dev, stream, seq FROM _pm_ack WHERE peer = ?1
               UNION ALL SELECT other, 0, seq FROM _pm_context JOIN _pm_device ON n = ?1 AND NOT set_back
               WHERE dev = ?1)
             JOIN _pm_device d ON d.n = dev GROUP BY d.id, stream",
        )?;
        let mut rows = statement.query([peer])?;
        let mut has = Positions::new();
        while let Some(row) = rows.next()? {
            let stream = value::stream_of_number(row.get(1)?)?;
            let seq: u64 = row.get(2)?;
            let dev = row.get(3)?;
            let least = copies::least(e, peer, dev, stream)?;
            let given_up = stream == Stream::Shared && dev != peer && two.contains_key(&dev);
            if given_up && membership::said(e, peer, dev, stream)?.unwrap_or(0) == 0 {
                continue;
            }
            has.insert((DeviceId(row.get(0)?), stream), least.map_or(seq, |least| least.min(seq)));
        }
        Ok(has)
    })
}

/// Returns whether a device lacks frames that are folded here, by its last acknowledgement: it needs
/// the state.
pub(crate) fn needs_state(replica: &Replica, peer: &Trusted) -> Result<bool> {
    let has = acknowledged_by(replica, peer.id)?;
    catalog::reading(replica, |e| {
        for Position { author, stream, .. } in positions::vector(e)? {
            let goes = author == peer.id || stream == Stream::Shared || peer.takes_own;
            let Some(dev) = devices::device_number(e, author)?.filter(|_| goes) else { continue };
            // A device has all that it wrote, unless it says that it was set back.
            let unsaid = if author == peer.id { u64::MAX } else { 0 };
            let have = has.get(&(author, stream)).copied().unwrap_or(unsaid);
            let next = || session::next_in_log(e, Section { author, stream }, dev, have);
            let lacks = match stream {
                // Its next group can be in the log though a later one is not.
                Stream::Shared => {
                    membership::is_behind(e, dev, stream, have)? || matches!(next()?, StreamOut::Folded)
                }
                Stream::PerDevice => gathered_state::stands_for(e, dev, have)?,
            };
            if lacks {
                return Ok(true);
            }
        }
        Ok(false)
    })
}

/// Returns the hashes of the certificates that others are to have seen: ours, and those that go with all that is sent
/// to anyone.
pub(crate) fn stated_certificates(replica: &Replica) -> Result<BTreeSet<[u8; 32]>> {
    catalog::reading(replica, |e| {
        let mut all = admission::carried(e)?;
        all.extend(certificates::certificates_for(e, e.me)?.pop().map(|(_, own)| own));
        Ok(all.iter().map(|bytes| Sha256::digest(bytes).into()).collect())
    })
}

/// Lists what this device says that it has applied.
pub(crate) fn positions(replica: &Replica) -> Result<Positions> {
    catalog::reading(replica, |e| {
        Ok(gaps::said_vector(e)?.into_iter().map(|v| ((v.author, v.stream), v.seq)).collect())
    })
}

/// Lists what could be sent: of each stream, what is applied here and still in the log.
pub(crate) fn log_spans(replica: &Replica) -> Result<Vec<Span>> {
    catalog::reading(replica, |e| {
        let mut spans = Vec::new();
        for entry in positions::vector(e)? {
            let Some(dev) = devices::device_number(e, entry.author)? else { continue };
            let first: Option<u64> = value::maybe(
                &e.db,
                "SELECT first FROM _pm_group WHERE dev = ?1 AND stream = ?2 ORDER BY last LIMIT 1",
                (dev, entry.stream.number()),
            )?;
            if let Some(first) = first.filter(|first| *first <= entry.seq) {
                spans.push(Span { author: entry.author, stream: entry.stream, first, last: entry.seq });
            }
        }
        Ok(spans)
    })
}
