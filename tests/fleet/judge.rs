//! How a fleet must end.

use packmule::Missing;

use super::*;

impl Fleet {
    pub(super) fn live(&mut self, met: &mut Met) -> Result<(), String> {
        let steps = self.below(60) + 20;
        for _ in 0..steps {
            let was = ids(&self.devices);
            self.step(met)?;
            self.watch();
            self.same_identities(&was)?;
        }
        let was = ids(&self.devices);
        let revoked: Vec<usize> = (0..self.devices.len()).filter(|d| self.devices[*d].revoked).collect();
        for _ in 0..4 {
            // A revocation that nobody has heard of but a base that was restored since is none any more.
            for d in &revoked {
                self.devices[*d].revoked = self.is_known_as_revoked(*d);
            }
            for d in 0..self.devices.len() {
                self.world.tick(1_000);
                if !self.devices[d].revoked {
                    self.exchange(d, 3)?;
                    self.watch();
                }
            }
            self.same_identities(&was)?;
        }
        self.in_step()?;
        let there = self.devices[0].gathered("readings", None);
        met.twice += there.windows(2).filter(|pair| pair[0] == pair[1]).count();
        met.second += self.devices.iter().filter(|d| d.second).count() as u32;
        met.conflicts += self.devices[0].engine.conflicts().unwrap().len();
        met.verdicts += self.devices.iter().map(own_verdicts).sum::<usize>();
        Ok(())
    }

    /// Whether a device that is not revoked itself knows that another one is, under the identity that it has or one that it
    /// has left: a revocation covers those that follow, and what these send is not taken in.
    fn is_known_as_revoked(&self, of: usize) -> bool {
        let is_of_it =
            |id| id == self.devices[of].engine.identity().id || self.devices[of].revoked_as.contains(&id);
        let mut others = self.devices.iter().enumerate().filter(|(n, d)| *n != of && !d.revoked);
        others
            .any(|(_, d)| d.engine.devices().unwrap().iter().any(|known| known.revoked && is_of_it(known.id)))
    }

    /// Traces what the query in `PACKMULE_WATCH` gives on each device now, where that differs from before.
    fn watch(&mut self) {
        let Ok(sql) = std::env::var("PACKMULE_WATCH") else { return };
        for d in 0..self.devices.len() {
            let line = format!("    d{d} has {:?}", dump(&self.devices[d].app, &sql));
            let of_it = format!("    d{d} has ");
            if self.trace.iter().rev().find(|before| before.starts_with(&of_it)) != Some(&line) {
                self.trace.push(line);
            }
        }
    }

    fn same_identities(&mut self, was: &[DeviceId]) -> Result<(), String> {
        for (d, was) in was.iter().enumerate() {
            if self.devices[d].engine.identity().id != *was {
                self.trace.push(format!("d{d} has another identity"));
                if !self.devices[d].second {
                    return Err(format!("d{d} has another identity and is no second history"));
                }
                self.devices[d].lost = None;
            }
        }
        Ok(())
    }

    fn in_step(&self) -> Result<(), String> {
        let all: Vec<(usize, &Device)> =
            self.devices.iter().enumerate().filter(|(_, d)| !d.revoked).collect();
        let digest = |d: &Device| d.engine.digest(false).unwrap();
        let first = digest(all[0].1);
        let apart: Vec<usize> = all.iter().filter(|(_, d)| digest(d) != first).map(|(n, _)| *n).collect();
        if !apart.is_empty() {
            return Err(format!("{apart:?} have another digest than d{}\n{}", all[0].0, shown(&all)));
        }
        for (n, device) in &all {
            let mut waits = device.engine.status().unwrap().waits;
            // What a revoked device wrote and nobody had taken in is void.
            waits.retain(|wait| wait.missing != Missing::Vouching || !self.is_revoked(&wait.author));
            if !waits.is_empty() {
                return Err(format!("at d{n} waits {waits:?}"));
            }
            let problems = device.engine.verify().unwrap().problems;
            if !problems.is_empty() {
                return Err(format!("at d{n} is wrong {problems:?}"));
            }
            if device.has("mirror") {
                let [is, mirrored] =
                    ["tags", "mirror"].map(|t| dump(&device.app, &format!("SELECT * FROM {t} ORDER BY 1")));
                if is != mirrored {
                    return Err(format!("at d{n} triggers made {mirrored:?} of {is:?}"));
                }
            }
            if contested(device) != contested(all[0].1) {
                return Err(format!("d{n} has other conflicts than d{}\n{}", all[0].0, shown(&all)));
            }
        }
        for (n, copy) in all.iter().filter(|(_, d)| d.silent && !d.second) {
            self.has_caught_up(*n, copy)?;
        }
        for (n, base) in all.iter().filter(|(_, d)| d.base) {
            self.has_gathered(*n, base, &all)?;
        }
        Ok(())
    }

    /// Whether the device of this label is revoked, or the one of which it is a second history.
    fn is_revoked(&self, label: &str) -> bool {
        let named = |d: &Device| label.starts_with(&format!("{}-", d.engine.identity().name));
        self.devices.iter().any(|d| d.revoked && named(d))
    }

    /// A copy that wrote nothing has what the device has of its own.
    fn has_caught_up(&self, n: usize, copy: &Device) -> Result<(), String> {
        let of = &self.devices[copy.twin.unwrap()];
        let has = copy.own("readings");
        let lacks: Vec<_> = of.own("readings").into_iter().filter(|v| !has.contains(v)).collect();
        if !lacks.is_empty() || of.own("state") != copy.own("state") {
            let states = (of.own("state"), copy.own("state"));
            return Err(format!("the copy d{n} lacks readings {lacks:?}; states are {states:?}"));
        }
        Ok(())
    }

    /// A base has what all others have of their own.
    fn has_gathered(&self, n: usize, base: &Device, all: &[(usize, &Device)]) -> Result<(), String> {
        let there = base.gathered("readings", None);
        let distinct: BTreeSet<&String> = there.iter().collect();
        // A second history that nobody tells where it begins writes again what it may have written alone.
        let twice = there.windows(2).filter(|pair| pair[0] == pair[1]);
        let wrong: Vec<_> = twice.filter(|pair| !self.devices[self.authors[&pair[0]]].second).collect();
        if !wrong.is_empty() {
            return Err(format!("base d{n} has readings twice: {wrong:?}"));
        }
        for (m, other) in all.iter().filter(|(m, _)| *m != n) {
            let mut lacks = other.own("readings");
            lacks.retain(|v| !(distinct.contains(v) || other.silent && self.ever_pruned.contains(v)));
            if !lacks.is_empty() {
                return Err(format!("base d{n} lacks readings of d{m}: {lacks:?}"));
            }
            let (own, here) = (other.own("state"), base.gathered("state", Some(&other.label())));
            if !other.second && own != here {
                return Err(format!("base d{n} has of d{m}'s state {here:?}, not {own:?}"));
            }
        }
        let of_others = |v: &&String| self.authors[*v] != n && !self.devices[self.authors[*v]].revoked;
        let lost: Vec<_> = self.pruned.iter().filter(of_others).filter(|v| !distinct.contains(v)).collect();
        if !lost.is_empty() {
            return Err(format!("base d{n} lacks readings that were pruned: {lost:?}"));
        }
        Ok(())
    }
}

/// The open conflicts, each with its different contents. Who wrote them is not remembered everywhere.
fn contested(device: &Device) -> BTreeSet<String> {
    let open = device.engine.conflicts().unwrap();
    let one = |c: &packmule::Conflict| {
        let contents: BTreeSet<_> = c.versions.iter().map(|v| format!("{:?}", v.values)).collect();
        format!("{} {:?} {:?} {contents:?}", c.table, c.kind, c.key)
    };
    open.iter().map(one).collect()
}

fn shown(all: &[(usize, &Device)]) -> String {
    let one = |(n, d): &(usize, &Device)| {
        let rows = |table: &&str| dump(&d.app, &format!("SELECT * FROM {table} ORDER BY 1"));
        let tables: Vec<_> = ["notes", "tags", "marks"].iter().filter(|t| d.has(t)).map(rows).collect();
        let open = d.engine.conflicts().unwrap();
        let versions: Vec<_> = open
            .iter()
            .flat_map(|c| c.versions.iter().map(|v| (&c.kind, &c.key, v.device, v.op, v.at, &v.values)))
            .collect();
        let waits = d.engine.status().unwrap().waits;
        let groups = "SELECT dev, stream, first, last, pair, lamport FROM _pm_group WHERE NOT applied";
        let groups = dump(&d.app, groups);
        format!("d{n} {} {tables:?}\n    {waits:?} {groups:?}\n    {versions:?}", d.engine.identity().id)
    };
    all.iter().map(one).collect::<Vec<_>>().join("\n")
}
