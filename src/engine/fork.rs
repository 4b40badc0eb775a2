//! A second history goes on under a new identity, with all that it wrote.
//!
//! What this device wrote after the two histories parted is told anew: the same groups, with the same stamps
//! and in the same order, signed by a new key. Their contexts say the same as before, and that the new
//! device had seen the old one up to where both were one. So nothing that concurs becomes causal, nor
//! the other way round, and what the first history has from there on comes in as from any other device.
//!
//! The new certificate is vouched for by the old key, as one of a fleet is by the fleet's: whoever trusts
//! the old identity trusts the new one.

use std::collections::{BTreeMap, BTreeSet};

use ed25519_compact::SecretKey;
use packmule_core::model::{DeviceId, Stream};
use packmule_core::wire::{Chain, Checkpoint, FRAME_MAX, FrameFlags, FrameWriter, GroupDigest, GroupStart};

use super::apply::Seen;
use super::catalog::State;
use super::devices::{StreamPosition, label};
use super::error::{Error, Result};
use super::log::{parse, put_frame, put_own_group};
use super::references::Cause;
use super::{Engine, keys, store};

/// A group of ours that is told anew.
struct Old {
    first: u64,
    last: u64,
    lamport: u64,
    wall: i64,
}

/// What is told anew, and by whom.
struct Move<'a> {
    old: (i64, DeviceId),
    new: (i64, DeviceId),
    key: &'a SecretKey,
    /// Up to here the frames of each stream stay the old device's.
    common: [u64; 2],
    /// By how much a frame's number in each stream gets less.
    shift: [u64; 2],
}

impl Move<'_> {
    fn seq(&self, stream: Stream, old: u64) -> u64 {
        old - self.shift[usize::from(stream.number())]
    }

    /// What a context says of our shared stream, which is the old device's and the new one's now.
    fn context(&self, id: DeviceId, seq: u64) -> (DeviceId, u64) {
        if id == self.old.1 && seq > self.common[0] {
            (self.new.1, self.seq(Stream::Shared, seq))
        } else {
            (id, seq)
        }
    }
}

impl Engine {
    /// Whether what is written here would be a second history, and something is.
    pub(crate) fn must_fork(&self) -> Result<bool> {
        if !self.is_set_back()? {
            return Ok(false);
        }
        for table in self.tables() {
            if table.state == State::Tracked && (!table.announced || self.unsealed(&table, 1)? > 0) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Goes on as another device from the last frames of each stream that are certainly the old one's too.
    ///
    /// # Errors
    /// [`Error::KeyMissing`], [`Error::Io`]; [`Error::Forked`] if others built on what parts from the first
    /// history.
    pub(crate) fn go_on_anew(&mut self, common: [u64; 2]) -> Result<()> {
        if self.poisoned {
            return Err(Error::Poisoned);
        }
        let before = (self.key.clone(), self.me, self.identity.clone());
        self.db.execute_batch("BEGIN IMMEDIATE")?;
        let result = self.go_on_anew_here(common);
        let result = self.end_transaction(result);
        if result.is_err() {
            (self.key, self.me, self.identity) = before;
            return result;
        }
        keys::adopt_new_key(&keys::device_key_path(&self.path))
    }

    fn go_on_anew_here(&mut self, common: [u64; 2]) -> Result<()> {
        self.load_catalog()?;
        self.begin_settling()?;
        let common = self.whole_seals(common)?;
        let built: Option<i64> = super::value::maybe(
            &self.db,
            "SELECT dev FROM _pm_context WHERE other = ?1 AND dev <> ?1 AND seq > ?2",
            (self.me, common[0]),
        )?;
        if let Some(other) = built {
            return Err(Error::Forked {
                device: self.device_label(self.me)?,
                other: self.device_label(other)?,
            });
        }
        let old = (self.me, self.identity.id);
        let was = self.device_label(self.me)?;
        let key = self.become_another()?;
        let contexts_at = self.told_until(old.0, common)?;
        let mut shift = [0; 2];
        for stream in Stream::ALL {
            let at = usize::from(stream.number());
            // One group more comes first, which tells the context.
            shift[at] = common[at].saturating_sub(1);
        }
        let of = Move { old, new: (self.me, self.identity.id), key: &key, common, shift };
        self.db.execute_batch(
            "CREATE INDEX IF NOT EXISTS _pm_head_place ON _pm_head (dev, seq);
             CREATE INDEX IF NOT EXISTS _pm_count_place ON _pm_count (dev, seq)",
        )?;
        let mut moved = 0;
        for stream in Stream::ALL {
            moved += self.move_stream(&of, stream, &contexts_at[usize::from(stream.number())])?;
        }
        self.db.execute_batch("DROP INDEX _pm_head_place; DROP INDEX _pm_count_place")?;
        for stream in Stream::ALL {
            let at = usize::from(stream.number());
            self.set_contexts(old.0, stream, &contexts_at[at])?;
            self.db.execute(
                "UPDATE _pm_ack SET seq = min(seq, ?3) WHERE dev = ?1 AND stream = ?2",
                (old.0, stream.number(), common[at]),
            )?;
        }
        self.forget_mirror()?;
        self.key = Some(key);
        let what = format!(
            "this database was a second history of {was}: a copy, or set back to a backup. It goes on as {} with all that \
             it wrote (frames told anew: {moved}). Should no board go on as {was}, retire it: packmule retire DB {}",
            label(self.identity.id, Some(&self.identity.name)),
            old.1
        );
        store::notice(&self.db, &what, self.now())?;
        self.settle(&Cause { dev: self.me, first: common[0] + 1, seen: &Seen::All })?;
        self.remember_schema()
    }

    /// Makes places in both streams fit: a seal that spans both is told anew whole, and what is told anew
    /// was seen by nothing that is not.
    fn whole_seals(&self, mut common: [u64; 2]) -> Result<[u64; 2]> {
        for stream in Stream::ALL {
            let at = usize::from(stream.number());
            common[at] = common[at].min(self.position(self.me, stream)?.seq);
        }
        loop {
            let before = common;
            for stream in Stream::ALL {
                let at = usize::from(stream.number());
                // In the middle of a group is before it.
                let inside: Option<u64> = super::value::maybe(
                    &self.db,
                    "SELECT first FROM _pm_group WHERE dev = ?1 AND stream = ?2 AND first <= ?3 AND last > ?3 AND applied",
                    (self.me, stream.number(), common[at]),
                )?;
                common[at] = inside.map_or(common[at], |first| first - 1);
                let pair: Option<u64> = self.db.query_row(
                    "SELECT min(pair) FROM _pm_group WHERE dev = ?1 AND stream = ?2 AND last > ?3 AND pair > 0 AND applied",
                    (self.me, stream.number(), common[at]),
                    |row| row.get(0),
                )?;
                common[1 - at] = pair.map_or(common[1 - at], |pair| common[1 - at].min(pair - 1));
            }
            let groups = self.groups_after(self.me, Stream::Own, 0)?;
            for group in groups.iter().filter(|g| g.first <= common[1]) {
                let body = self.frame_here(self.me, Stream::Own, group.first)?;
                let saw = parse(&body)?.context().any(|(id, n)| id == self.identity.id && n > common[0]);
                if saw {
                    common[1] = group.first - 1;
                    break;
                }
            }
            if common == before {
                return Ok(common);
            }
        }
    }

    fn groups_after(&self, dev: i64, stream: Stream, after: u64) -> Result<Vec<Old>> {
        let mut statement = self.db.prepare_cached(
            "SELECT first, last, lamport, wall FROM _pm_group
             WHERE dev = ?1 AND stream = ?2 AND first > ?3 AND applied ORDER BY last",
        )?;
        let rows = statement.query_map((dev, stream.number(), after), |row| {
            Ok(Old { first: row.get(0)?, last: row.get(1)?, lamport: row.get(2)?, wall: row.get(3)? })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// What the groups of each stream up to a place had told of what was seen.
    fn told_until(&self, dev: i64, common: [u64; 2]) -> Result<[BTreeMap<i64, u64>; 2]> {
        let mut told = [BTreeMap::new(), BTreeMap::new()];
        for stream in Stream::ALL {
            let at = usize::from(stream.number());
            let mut later: BTreeSet<i64> = BTreeSet::new();
            for group in self.groups_after(dev, stream, 0)? {
                let body = self.frame_here(dev, stream, group.first)?;
                for (id, seq) in parse(&body)?.context() {
                    let other = self.device_number_or_new(id)?;
                    if group.first <= common[at] {
                        told[at].insert(other, seq);
                    } else {
                        later.insert(other);
                    }
                }
            }
            for (other, seq) in self.context_of(dev, stream)? {
                // What was told in what is folded away everybody has: that nobody writes beside what is
                // folded away is all that counts.
                let seen =
                    if later.contains(&other) { self.floor(other, Stream::Shared)?.min(seq) } else { seq };
                if seen > told[at].get(&other).copied().unwrap_or(0) {
                    told[at].insert(other, seen);
                }
            }
        }
        Ok(told)
    }

    fn set_contexts(&self, dev: i64, stream: Stream, contexts: &BTreeMap<i64, u64>) -> Result<()> {
        self.db.execute("DELETE FROM _pm_context WHERE dev = ?1 AND stream = ?2", (dev, stream.number()))?;
        for (other, seq) in contexts {
            self.set_context(dev, stream, *other, *seq)?;
        }
        Ok(())
    }

    /// Takes another identity; the old one is a device like others from then on.
    fn become_another(&mut self) -> Result<SecretKey> {
        let mut name = self.identity.name.clone();
        while name.len() > 59 {
            name.pop();
        }
        let name = |id: DeviceId| format!("{name}-{:04x}", id.short() >> 16);
        let voucher = self.signing_key()?.clone();
        self.take_identity(name, Some(&voucher), None)
    }

    /// Tells what a stream has after the common part anew; returns how many frames.
    fn move_stream(&self, of: &Move<'_>, stream: Stream, before: &BTreeMap<i64, u64>) -> Result<u64> {
        let at = usize::from(stream.number());
        let common = of.common[at];
        let ours = self.position(of.old.0, stream)?.seq;
        let chain = if common == 0 {
            None
        } else {
            let chain = self.chain_at(of.old.0, stream, common)?;
            Some(chain.ok_or_else(|| Error::damaged("a chain that nothing in the log tells"))?)
        };
        let groups = self.groups_after(of.old.0, stream, common)?;
        match chain {
            Some(chain) => self.set_position(of.old.0, stream, StreamPosition { seq: common, chain })?,
            None => {
                let place = (of.old.0, stream.number());
                self.db.execute("DELETE FROM _pm_stream WHERE dev = ?1 AND stream = ?2", place)?;
            }
        }
        let Some(first) = groups.first() else { return Ok(0) };
        let contexts = self.context_of(of.old.0, stream)?;
        let mut position = StreamPosition { seq: 0, chain: Chain::start(&of.key.public_key(), stream) };
        let mut buf = vec![0; FRAME_MAX];
        if common > 0 {
            self.tell_start(of, stream, first, before, &mut buf, &mut position)?;
        }
        for group in &groups {
            self.move_group(of, stream, group, &mut buf, &mut position)?;
        }
        self.set_position(of.new.0, stream, position)?;
        for (other, seq) in contexts.into_iter().chain(before.iter().map(|(other, seq)| (*other, *seq))) {
            let (id, seq) = of.context(self.device_id(other)?, seq);
            self.set_context(of.new.0, stream, self.device_number_or_new(id)?, seq)?;
        }
        if stream == Stream::Shared && common > 0 {
            self.set_context(of.new.0, stream, of.old.0, common)?;
        }
        Ok(ours - common)
    }

    /// The first group of the new device: it has seen what the old one had.
    fn tell_start(
        &self,
        of: &Move<'_>,
        stream: Stream,
        next: &Old,
        before: &BTreeMap<i64, u64>,
        buf: &mut [u8],
        position: &mut StreamPosition,
    ) -> Result<()> {
        let mut context = BTreeMap::new();
        for (other, seq) in before {
            context.insert(self.device_id(*other)?, *seq);
        }
        // Nothing is written in it, so it may have seen what the next one has: that it had not would keep
        // it out where all of that is folded away.
        let body = self.frame_here(of.old.0, stream, next.first)?;
        for (id, seq) in parse(&body)?.context().map(|(id, seq)| of.context(id, seq)) {
            if id != of.new.1 {
                context.entry(id).and_modify(|known| *known = seq.max(*known)).or_insert(seq);
            }
        }
        if stream == Stream::Shared {
            context.insert(of.old.1, of.common[0]);
        }
        let context: Vec<_> = context.into_iter().collect();
        let start = GroupStart { lamport: next.lamport, wall: next.wall, pair: 0, context: &context };
        let too_many = |_| Error::damaged("more devices than a frame can name");
        let mut writer =
            FrameWriter::new(buf, FrameFlags::default(), position.seq + 1, Some(start)).map_err(too_many)?;
        let frame = writer.finish();
        let mut digest = GroupDigest::default();
        digest.add(frame);
        put_frame(&self.db, of.new.0, stream, position.seq + 1, frame)?;
        let place = (position.seq + 1, position.seq + 1, 0);
        self.sign_group(of, stream, next, place, digest, position)
    }

    fn move_group(
        &self,
        of: &Move<'_>,
        stream: Stream,
        group: &Old,
        buf: &mut [u8],
        position: &mut StreamPosition,
    ) -> Result<()> {
        let other = stream.other();
        let mut digest = GroupDigest::default();
        let mut pair = 0;
        for seq in group.first..=group.last {
            let body = self.frame_here(of.old.0, stream, seq)?;
            let frame = parse(&body)?;
            let to = of.seq(stream, seq);
            let mut context: Vec<_> = frame.context().map(|(id, seq)| of.context(id, seq)).collect();
            context.sort_unstable();
            let start = frame.group.map(|head| {
                pair = if head.pair == 0 { 0 } else { of.seq(other, head.pair) };
                GroupStart { lamport: head.lamport, wall: head.wall, pair, context: &context }
            });
            let too_long = |_| Error::damaged("a frame whose head became longer");
            let (len, less) = frame.moved(buf, to, start).map_err(too_long)?;
            digest.add(&buf[..len]);
            put_frame(&self.db, of.new.0, stream, to, &buf[..len])?;
            if stream == Stream::Shared {
                self.move_versions(of, seq, to, less)?;
            }
        }
        let place = (of.old.0, stream.number(), group.first, group.last);
        self.db.execute(
            "DELETE FROM _pm_frame WHERE dev = ?1 AND stream = ?2 AND seq BETWEEN ?3 AND ?4",
            place,
        )?;
        self.db.execute(
            "DELETE FROM _pm_group WHERE dev = ?1 AND stream = ?2 AND first >= ?3 AND last <= ?4",
            place,
        )?;
        let place = (of.seq(stream, group.first), of.seq(stream, group.last), pair);
        self.sign_group(of, stream, group, place, digest, position)
    }

    /// Signs a group of the new device whose frames are in the log.
    fn sign_group(
        &self,
        of: &Move<'_>,
        stream: Stream,
        like: &Old,
        (first, last, pair): (u64, u64, u64),
        digest: GroupDigest,
        position: &mut StreamPosition,
    ) -> Result<()> {
        let chain = position.chain.after(&digest.finish());
        let checkpoint = Checkpoint::sign(of.key, of.new.1, stream, first, last, position.chain, &chain);
        put_own_group(&self.db, of.new.0, &checkpoint, (like.lamport, like.wall, pair), &chain)?;
        *position = StreamPosition { seq: last, chain };
        Ok(())
    }

    /// The versions of a frame that has moved, and what it declared.
    fn move_versions(&self, of: &Move<'_>, seq: u64, to: u64, less: u32) -> Result<()> {
        let keys = self
            .db
            .prepare_cached("SELECT tid, key FROM _pm_head WHERE dev = ?1 AND seq = ?2")?
            .query_map((of.old.0, seq), |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<Vec<(i64, Vec<u8>)>>>()?;
        for (tid, key) in &keys {
            self.put_off(*tid, key)?;
        }
        self.db
            .prepare_cached(
                "UPDATE _pm_head SET dev = ?3, seq = ?4, place = place - ?5 WHERE dev = ?1 AND seq = ?2",
            )?
            .execute((of.old.0, seq, of.new.0, to, less))?;
        for sql in [
            "UPDATE _pm_count SET dev = ?3, seq = ?4 WHERE dev = ?1 AND seq = ?2",
            "UPDATE _pm_declared SET dev = ?3, seq = ?4 WHERE dev = ?1 AND seq = ?2",
            "UPDATE _pm_device SET retired_by = ?3, retired_seq = ?4 WHERE retired_by = ?1 AND retired_seq = ?2",
        ] {
            self.db.prepare_cached(sql)?.execute((of.old.0, seq, of.new.0, to))?;
        }
        Ok(())
    }
}
