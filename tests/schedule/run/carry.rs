//! How frames get about, and which devices there are: bundles, compaction, lost devices and new ones.

use super::*;

impl Run {
    pub(super) fn export(&mut self, d: usize, to: usize, all: bool) {
        if self.devices[d].copy.is_some() {
            return; // What it says would be refused, or the other one would take a new identity.
        }
        let mut others = self.active();
        others.retain(|o| *o != d && self.copied(*o) != Some(d));
        let Some(to) = others.get(to % others.len().max(1)).copied() else { return };
        let bytes = self.bundle(d, Some(to).filter(|_| !all));
        self.trace.push(format!("d{d}: bundle {} for d{to}", self.bundles.len()));
        self.bundles.push((d, bytes));
    }

    /// For a device, or of all that there is.
    pub(super) fn bundle(&mut self, d: usize, to: Option<usize>) -> Vec<u8> {
        self.seal(d);
        let to = to.map(|to| self.devices[to].engine.identity().id);
        let mut bytes = Vec::new();
        let recipient = to.map_or(packmule::Recipient::Anyone, packmule::Recipient::Device);
        self.devices[d].engine.export(&mut bytes, recipient).unwrap();
        bytes
    }

    pub(super) fn take_in(&mut self, d: usize, bytes: &[u8]) -> packmule::ImportReport {
        self.seal(d);
        let position = self.devices[d].ends.last().copied().unwrap_or(0);
        let report = import(&mut self.devices[d].engine, bytes);
        self.note_new_identity(d, position);
        let lamport = self.groups_at(d).iter().map(|g| g.lamport).max().unwrap_or(0);
        self.devices[d].lamport = self.devices[d].lamport.max(lamport);
        report
    }

    pub(super) fn import(&mut self, d: usize, bundle: usize) {
        if self.bundles.is_empty() {
            return;
        }
        let bundle = bundle % self.bundles.len();
        let (maker, bytes) = self.bundles[bundle].clone();
        if self.copied(d) == Some(maker) {
            return; // The two cannot say which of them is to take a new identity: somebody else must.
        }
        let report = self.take_in(d, &bytes);
        self.trace.push(format!(
            "d{d}: took in bundle {bundle}: {} frames, {} waits",
            report.frames,
            report.waits.len()
        ));
        let state = self.state_at(d);
        self.check_shown(d, &state);
    }

    pub(super) fn meet(&mut self) {
        self.trace.push("all get all".into());
        let mut active = self.active();
        active.retain(|d| self.devices[*d].copy.is_none());
        for _ in 0..2 {
            for from in &active {
                for to in active.iter().filter(|to| *to != from) {
                    let bytes = self.bundle(*from, Some(*to));
                    self.take_in(*to, &bytes);
                }
            }
        }
    }

    /// Whether a device knows all others: it would fold what the others lack.
    pub(super) fn knows_all(&self, d: usize) -> bool {
        let known = self.devices[d].engine.devices().unwrap();
        !self.has_copy()
            && self.active().into_iter().all(|other| {
                let id = self.devices[other].engine.identity().id;
                known.iter().any(|k| k.id == id && k.name.is_some())
            })
    }

    pub(super) fn compact(&mut self, d: usize) {
        self.seal(d);
        if !self.knows_all(d) {
            return;
        }
        let before = self.devices[d].engine.digest(false).unwrap();
        let report = self.devices[d].engine.compact().unwrap();
        self.folded += report.versions as usize;
        self.trace
            .push(format!("d{d}: compacted, {} frames and {} versions", report.frames, report.versions));
        assert_eq!(self.devices[d].engine.digest(false).unwrap(), before, "the digest of d{d}");
        self.sealed(d, BTreeMap::new(), false);
    }

    pub(super) fn active(&self) -> Vec<usize> {
        (0..self.devices.len()).filter(|d| !self.retired.contains(d)).collect()
    }

    pub(super) fn retire(&mut self, d: usize, who: usize) {
        let mut others = self.active();
        others.retain(|o| *o != d);
        if others.len() < 2 || self.has_copy() {
            return;
        }
        let who = others[who % others.len()];
        others.retain(|o| *o != who);
        others.push(d);
        // Its last bundle has come to all.
        self.meet();
        let id = self.devices[who].engine.identity().id;
        self.trace.push(format!("d{d}: d{who} is lost"));
        // Each device says it for itself; what a base says travels.
        for d in others {
            let travels = self.devices[d].engine.retire(id, None).unwrap();
            self.sealed(d, BTreeMap::new(), travels);
        }
        self.retired.insert(who);
    }

    pub(super) fn join(&mut self, d: usize) {
        // Nobody may fold what the newcomer lacks.
        let all_known = self.active().into_iter().all(|d| self.knows_all(d));
        if self.devices.len() > 4 || !all_known {
            return;
        }
        self.seal(d);
        let mut bytes = Vec::new();
        self.devices[d].engine.snapshot(&mut bytes).unwrap();
        let n = self.devices.len();
        let clock = Arc::new(AtomicI64::new(self.now(d)));
        let name = format!("d{n}");
        let join = packmule::JoinOptions { name: Some(&name), fleet: Some(&self.world.fleet) };
        let (engine, _) =
            Engine::join(&self.path(n), &mut std::io::Cursor::new(&bytes), &join, self.options_by(&clock))
                .unwrap();
        assert_eq!(
            engine.digest(false).unwrap(),
            self.devices[d].engine.digest(false).unwrap(),
            "the digest of d{n}, which starts from d{d}"
        );
        self.trace.push(format!("d{n}: starts from d{d}"));
        self.joined += 1;
        let lamport = self.groups_at(d).iter().map(|g| g.lamport).max().unwrap_or(0);
        self.add_device(engine, clock, lamport, None);
        for to in self.active().into_iter().filter(|to| *to != n) {
            // Who does not know of it might fold what it lacks.
            let bytes = self.bundle(n, Some(to));
            self.bundles.push((n, bytes));
            self.import(to, self.bundles.len() - 1);
        }
    }
}
