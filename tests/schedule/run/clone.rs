//! Clones of a device's card: two histories under one identity, until the clone hears of the other one.

use super::*;

/// A clone that has not heard yet that it is one.
pub(super) struct Copy {
    /// Of this device.
    pub of: usize,
    /// How many of its groups both have.
    pub common: usize,
    /// The last frame of these.
    pub position: u64,
}

impl Run {
    /// What goes on here must leave copies alone that have the same identity as another device.
    pub(super) fn has_copy(&self) -> bool {
        self.devices.iter().any(|device| device.copy.is_some())
    }

    /// Copies a device; both write something, so that there are two histories.
    pub(super) fn clone(&mut self, d: usize, writes: &[Step]) {
        if self.has_copy() || self.devices.len() > 4 || self.active().len() < 2 {
            return;
        }
        self.seal(d);
        let n = self.devices.len();
        let to = self.path(n);
        copy_card(&self.devices[d].engine, &to);
        // At the same moment the same writes would make the same frames, which is one history.
        let clock = Arc::new(AtomicI64::new(self.now(d) + 1));
        let engine = Engine::open_with(&to, self.options_by(&clock)).unwrap();
        let (lamport, common) = (self.devices[d].lamport, self.devices[d].ends.len());
        let position = self.devices[d].ends.last().copied().unwrap_or(0);
        self.add_device(engine, clock, lamport, Some(Copy { of: d, common, position }));
        self.trace.push(format!("d{n}: a copy of d{d}"));
        for who in [n, d] {
            for step in writes {
                let Step::Write { t, sql, forced, moves, .. } = step else { continue };
                self.write(who, *t, sql, forced.as_ref(), *moves);
            }
            self.seal(who);
        }
        if self.devices[n].ends.is_empty() || self.devices[d].ends.len() == common {
            // Nothing came of it on one of the two: there is one history.
            self.devices.pop();
            self.ids.pop();
            self.groups.retain(|group| group.device != n);
            std::fs::remove_file(&to).unwrap();
            std::fs::remove_file(to.with_extension("db.pmkey")).unwrap();
            self.trace.push(format!("d{n}: is thrown away"));
        }
    }

    /// After an import: a clone takes a new identity if it has heard of the other history. What
    /// it wrote since is re-authored by it, after a group that says what it had seen.
    pub(super) fn note_new_identity(&mut self, n: usize, position: u64) {
        let id = self.devices[n].engine.identity().id.to_string();
        if id == self.ids[n] {
            return;
        }
        let Copy { of, common, .. } = self.devices[n].copy.take().unwrap();
        self.ids[n] = id;
        let told = self.devices[n].engine.devices().unwrap().iter().find(|d| d.this).unwrap().shared;
        let shift = position - told;
        // What it took for its own, not knowing that others have it, is told twice.
        let ends = self.devices[of].ends.clone();
        let mut certain = ends[..common].iter().filter(|end| **end <= shift + 1).count();
        if shift == 0 && self.first_group_writes(n) {
            certain = 0; // Then nothing comes before what is re-authored.
        }
        let mut moved: Vec<(u64, Group)> = Vec::new();
        let again = self.groups.iter().filter(|g| g.device == of && (certain..common).contains(&g.number));
        moved.extend(again.map(|g| (ends[g.number], g.clone())));
        let own = self.groups.iter().filter(|g| g.device == n);
        moved.extend(own.map(|g| (self.devices[n].ends[g.number], g.clone())));
        self.groups.retain(|g| g.device != n);
        if certain > 0 {
            let (_, first) = moved.first().unwrap();
            let start = Group { writes: BTreeMap::new(), uniques: BTreeSet::new(), ..first.clone() };
            moved.insert(0, (shift + 1, start));
        }
        self.devices[n].ends.clear();
        for (number, (end, group)) in moved.into_iter().enumerate() {
            let mut seen = group.seen.clone();
            seen.resize(self.devices.len(), 0);
            (seen[of], seen[n]) = (certain, 0);
            self.devices[n].ends.push(end - shift);
            self.groups.push(Group { device: n, number, seen, ..group });
        }
        self.anew += 1;
        self.trace.push(format!("d{n}: goes on anew, after {certain} of {common} groups of d{of}"));
    }

    fn first_group_writes(&self, n: usize) -> bool {
        self.own_groups(n).iter().any(|group| group.frames.0 == 1 && group.ops > 0)
    }

    /// Each clone hears of the other history.
    pub(super) fn enlighten(&mut self) {
        let Some(n) = self.devices.iter().position(|device| device.copy.is_some()) else { return };
        let teller = self.active().into_iter().find(|d| *d != n && Some(*d) != self.copied(n)).unwrap();
        // What it says is refused, and tells who hears it that this device lacks what others have of it: the answer has
        // the proof. It may take a second visit.
        for _ in 0..2 {
            if self.devices[n].copy.is_some() {
                let said = self.bundle(n, Some(teller));
                let refused = crate::common::try_import(&mut self.devices[teller].engine, &said);
                assert!(matches!(refused, Err(packmule::Error::Twin { .. })), "d{teller}: {refused:?}");
                let bytes = self.bundle(teller, Some(n));
                self.take_in(n, &bytes);
            }
        }
        assert!(self.devices[n].copy.is_none(), "d{n} goes on as a second history");
    }

    /// The device that another is a clone of.
    pub(super) fn copied(&self, n: usize) -> Option<usize> {
        self.devices[n].copy.as_ref().map(|copy| copy.of)
    }
}
