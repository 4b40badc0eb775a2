//! What happens to a fleet.

use packmule::carry::card::{self, Exchange, Limits, Skipped};
use packmule::carry::volume::Directory;
use packmule::{Error, Keep, Resolution};

use super::*;

impl Fleet {
    pub(super) fn exchange(&mut self, d: usize, card: usize) -> Result<Exchange, String> {
        let mut report = Exchange::default();
        let mut directory = Directory::open(&self.cards[card]).map_err(|e| e.to_string())?;
        let by_file = |device: &Device| {
            let sql = "SELECT count(*) FROM _pm_route WHERE route = 0";
            device.app.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap()
        };
        let before = by_file(&self.devices[d]);
        let engine = &mut self.devices[d].engine;
        card::exchange(engine, &mut directory, &Limits::default(), &mut |_, _| (), &mut report)
            .map_err(|e| format!("d{d} with card {card}: {e}"))?;
        // Fewer are told where a history is given up.
        if by_file(&self.devices[d]) > before {
            return Err(format!("d{d}: what came by a card is told as what came by a file"));
        }
        let ops: u64 = report.taken.iter().map(|(_, report)| report.ops).sum();
        let over: Vec<_> = report.stepped_over.iter().map(|(_, why)| said(why)).collect();
        self.trace.push(format!(
            "d{d} with card {card}: {} taken, {ops} rows, {} heard, {} left, {} states; stepped over {over:?}",
            report.taken.len(),
            report.heard.len(),
            report.left.len(),
            report.left.iter().filter(|left| left.state).count()
        ));
        self.recovered(d);
        Ok(report)
    }

    pub(super) fn step(&mut self, met: &mut Met) -> Result<(), String> {
        self.world.tick(1_000);
        let d = self.below(self.devices.len());
        let other = (d + 1 + self.below(self.devices.len() - 1)) % self.devices.len();
        let near = !self.apart || self.devices[d].group == self.devices[other].group;
        match self.below(100) {
            0..=27 => self.write(d),
            28..=57 => {
                let card = if self.apart { self.devices[d].group as usize } else { self.below(3) };
                met.states += self.exchange(d, card)?.left.iter().filter(|left| left.state).count() as u32;
            }
            58..=66 if near => {
                let [a, b] = self.devices.get_disjoint_mut([d, other]).unwrap();
                self.post.push((other, bundle(&mut a.engine, &b.engine)));
                self.trace.push(format!("d{d} packs for d{other}"));
            }
            67..=72 if !self.post.is_empty() => self.post_arrives(),
            73..=78 => self.compact(d, met),
            79..=81 => self.prune(d, met),
            82..=99 => self.happen(d, other, near, met),
            _ => {}
        }
        Ok(())
    }

    /// What happens more rarely.
    fn happen(&mut self, d: usize, other: usize, near: bool, met: &mut Met) {
        let base = self.devices[d].base;
        match self.below(20) {
            0..=1 if self.devices.len() < 6 => {
                let base = self.random.chance(15);
                self.appear(base);
            }
            2..=4 if !self.off("restore") => self.back_up(d),
            5..=8 if !self.off("restore") && self.can_be_restored(d) => {
                met.restored += 1;
                self.restore(d);
            }
            9 if !self.off("lost") => {
                let card = self.below(3);
                std::fs::remove_dir_all(&self.cards[card]).unwrap();
                std::fs::create_dir(&self.cards[card]).unwrap();
                self.trace.push(format!("card {card} is lost"));
            }
            10 if !self.off("copied") && !self.apart => {
                let (from, to) = (self.below(3), self.below(3));
                copy_files(&self.cards[from], &self.cards[to]);
                self.trace.push(format!("card {from} is copied to card {to}"));
            }
            11..=12 if !self.off("merge") && near && base => self.merge(d, other, met),
            13 if !self.off("retire") && base => self.retire(d, other, met),
            14 if !self.off("retire") && base => self.take_back(d, other, met),
            15 if !self.off("revoke") && base && !self.devices[other].base => self.revoke(d, other, met),
            16 if !self.off("twin") && self.devices.len() < 6 => self.copy(d, met),
            17..=18 => self.resolve(d, met),
            19 => {
                self.apart = false;
                self.trace.push("the groups meet".into());
            }
            _ => {}
        }
    }

    fn post_arrives(&mut self) {
        let at = self.below(self.post.len());
        let (to, bytes) =
            if self.random.chance(50) { self.post.swap_remove(at) } else { self.post[at].clone() };
        let taken = try_import(&mut self.devices[to].engine, &bytes);
        self.recovered(to);
        let how = taken.map(|r| r.ops).map_err(|e| e.to_string());
        self.trace.push(format!("d{to} takes a bundle: {how:?}"));
    }

    fn compact(&mut self, d: usize, met: &mut Met) {
        self.touched(d);
        let before = positions(&self.devices[d].engine);
        met.folded += self.devices[d].engine.compact().unwrap().frames;
        self.trace.push(format!("d{d} compacts"));
        if self.devices[d].silent && positions(&self.devices[d].engine) != before {
            // It says what it has seen. Others may take that in and build on it, as on a write.
            self.wrote(d);
        }
    }

    /// A board makes room.
    fn prune(&mut self, d: usize, met: &mut Met) {
        if !self.devices[d].owns("readings") || self.devices[d].silent || self.off("prune") {
            return;
        }
        self.touched(d);
        let keep = Keep::Rows(self.random.below(3));
        let before = self.devices[d].own("readings");
        let report = self.devices[d].engine.prune("readings", keep).unwrap();
        let left = self.devices[d].own("readings");
        // By the word of a base that has lost them with its card, and has not said so yet, they are lost.
        let there = self.gathered_anywhere();
        let is_there = |v: &&String| !self.base_restored || there.contains(*v);
        let gone: Vec<String> = before.into_iter().filter(|v| !left.contains(v)).collect();
        self.pruned.extend(gone.iter().filter(|v| is_there(v)).cloned());
        self.ever_pruned.extend(gone);
        met.pruned += report.rows;
        self.trace.push(format!("d{d} prunes {} rows by the word of {:?}", report.rows, report.base));
    }

    /// The readings that any base has.
    fn gathered_anywhere(&self) -> BTreeSet<String> {
        let bases = self.devices.iter().filter(|d| d.base);
        bases.flat_map(|base| base.gathered("readings", None)).collect()
    }

    fn back_up(&mut self, d: usize) {
        let to = self.file();
        // What is not sealed in a backup is written again by who is restored from it.
        self.touched(d);
        let _ = self.devices[d].engine.seal();
        copy_card(&self.devices[d].engine, &to);
        self.devices[d].backups.push(to);
        self.trace.push(format!("d{d} is backed up"));
    }

    fn can_be_restored(&self, d: usize) -> bool {
        self.devices[d].twin.is_none() && !self.devices[d].backups.is_empty()
    }

    fn restore(&mut self, d: usize) {
        let n = self.below(self.devices[d].backups.len());
        let (from, to) = (self.devices[d].backups[n].clone(), self.file());
        for (from, to) in [(from.clone(), to.clone()), (key_file(&from), key_file(&to))] {
            std::fs::copy(from, to).unwrap();
        }
        let options = self.options();
        let device = &mut self.devices[d];
        let was = device.lost.unwrap_or_default();
        let now = positions(&device.engine);
        device.lost = Some([was[0].max(now[0]), was[1].max(now[1])]);
        let before = device.engine.identity().id;
        device.engine = Engine::open_with(&to, options).unwrap();
        device.second |= device.engine.identity().id != before;
        self.connect(d);
        let device = &mut self.devices[d];
        device.verdicts = own_verdicts(device);
        if device.base {
            // What it alone had, and boards have pruned by its word, is lost.
            self.base_restored = true;
            let there = self.gathered_anywhere();
            self.pruned.retain(|reading| there.contains(reading));
        }
        self.trace.push(format!("d{d} is restored"));
        self.recovered(d);
    }

    /// A copy of a device's card, its key beside it, is run as another device; both have something to write, or the copy
    /// writes nothing.
    fn copy(&mut self, of: usize, met: &mut Met) {
        if self.devices[of].base || self.devices[of].twin.is_some() || self.devices[of].lost.is_some() {
            return;
        }
        let n = self.devices.len();
        let to = self.file();
        self.touched(of);
        let _ = self.devices[of].engine.seal();
        copy_card(&self.devices[of].engine, &to);
        let engine = Engine::open_with(&to, self.options()).unwrap();
        let group = self.devices[of].group;
        self.devices.push(Device::new(engine, false, group));
        self.connect(n);
        for (d, twin) in [(of, n), (n, of)] {
            self.devices[d].wrote = false;
            self.devices[d].twin = Some(twin);
            self.devices[d].verdicts = own_verdicts(&self.devices[d]);
        }
        self.devices[n].revoked = self.devices[of].revoked;
        self.devices[n].revoked_as = self.devices[of].revoked_as.clone();
        self.devices[n].second = self.devices[of].second;
        met.copied += 1;
        let silent = !self.off("silent") && self.random.chance(50);
        self.devices[n].silent = silent;
        met.silent += u32::from(silent);
        self.trace.push(format!("d{n} is a {}copy of d{of}", if silent { "silent " } else { "" }));
        [of, n].iter().for_each(|d| self.write(*d));
    }

    /// A copy of a device's card, its key beside it, is merged at the office.
    fn merge(&mut self, base: usize, of: usize, met: &mut Met) {
        let copy = self.file();
        copy_card(&self.devices[of].engine, &copy);
        let merged = self.devices[base].engine.import_database(&copy, &mut |_| ());
        met.merged += u32::from(merged.is_ok());
        let how = merged.map(|r| r.ops).map_err(|e| e.to_string());
        self.trace.push(format!("d{base} merges a copy of d{of}: {how:?}"));
        self.recovered(base);
    }

    fn retire(&mut self, base: usize, of: usize, met: &mut Met) {
        let id = self.devices[of].engine.identity().id;
        self.touched(base);
        met.retired += u32::from(self.devices[base].engine.retire(id, None).is_ok());
        self.trace.push(format!("d{base} retires d{of}"));
    }

    fn take_back(&mut self, base: usize, of: usize, met: &mut Met) {
        let id = self.devices[of].engine.identity().id;
        self.touched(base);
        if self.devices[base].engine.take_back_retirement(id, None).is_ok() {
            met.back += 1;
            self.trace.push(format!("d{base} takes back that d{of} is retired"));
        }
    }

    fn revoke(&mut self, base: usize, thief: usize, met: &mut Met) {
        let id = self.devices[thief].engine.identity().id;
        let revoked = self.devices[thief].revoked;
        if !self.devices[base].engine.devices().unwrap().iter().any(|known| known.id == id) {
            return;
        }
        self.touched(base);
        let (key, engine) = (Some(&self.world.fleet), &mut self.devices[base].engine);
        let done = if revoked { engine.take_back_revocation(id, key) } else { engine.revoke(id, key) };
        if done.is_ok() {
            let all = [Some(thief), self.devices[thief].twin];
            for d in all.into_iter().flatten() {
                let device = &mut self.devices[d];
                device.revoked = !revoked;
                device.revoked_as.push(id);
            }
            met.revoked += 1;
            self.trace.push(format!("d{base} {} d{thief}", if revoked { "takes back" } else { "revokes" }));
        }
    }

    /// Somebody decides about a conflict.
    fn resolve(&mut self, d: usize, met: &mut Met) {
        let open = self.devices[d].engine.conflicts().unwrap();
        if open.is_empty() || self.devices[d].silent {
            return;
        }
        let conflict = &open[self.below(open.len())];
        let version = &conflict.versions[self.below(conflict.versions.len())];
        let how = match version.device {
            Some(device) if self.random.chance(75) => Resolution::Take(device),
            _ => Resolution::Delete,
        };
        self.touched(d);
        let done = self.devices[d].engine.resolve(&conflict.id, &how);
        met.resolved += u32::from(done.is_ok());
        let said = done.map_err(|e| e.to_string());
        self.trace.push(format!("d{d} resolves {} {:?} by {how:?}: {said:?}", conflict.table, conflict.key));
    }
}

fn said(why: &Skipped) -> String {
    match why {
        Skipped::Refused(e @ (Error::Twin { .. } | Error::Untrusted(_))) => {
            e.to_string().chars().take(60).collect()
        }
        other => format!("{other:?}"),
    }
}

/// Copies the files of a card beside those of another one.
fn copy_files(from: &Path, to: &Path) {
    let folder = from.join("PACKMULE");
    if from == to || !folder.is_dir() {
        return;
    }
    std::fs::create_dir_all(to.join("PACKMULE")).unwrap();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join("PACKMULE").join(path.file_name().unwrap())).unwrap();
    }
}
