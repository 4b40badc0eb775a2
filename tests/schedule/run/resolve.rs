//! A conflict resolved on a device, and what the model expects of that.

use std::collections::BTreeMap;

use packmule::{ConflictKind, Resolution};

use super::*;
use crate::schedule::How;

impl Run {
    pub(super) fn resolve(&mut self, d: usize, step: &Step) {
        let Step::Resolve { pick, how, version, column, value: at, .. } = step else { return };
        self.seal(d);
        let conflicts = self.devices[d].engine.conflicts().unwrap();
        if conflicts.is_empty() {
            return;
        }
        let conflict = &conflicts[pick % conflicts.len()];
        let place = self.place(conflict);
        let table = self.tables[place.0];
        let chosen = &conflict.versions[version % conflict.versions.len()];
        let (name, pool) = table.columns[column % table.columns.len()];
        let literal = pool[at % pool.len()];
        let resolution = match how {
            How::Take => match chosen.device {
                Some(device) => Resolution::Take(device),
                None => return,
            },
            How::Set => Resolution::Set(vec![(name.into(), value(literal))]),
            How::Delete => Resolution::Delete,
            How::KeepBoth => Resolution::KeepBoth,
        };
        let state = self.state_at(d);
        let groups = self.groups_at(d);
        let known = model::heads(&groups);
        let heads = known.get(&place).map(Vec::as_slice).unwrap_or_default();
        let mut base = state.row(&place).cloned().unwrap();
        if let Some((added, ..)) = table.added
            && !has_column(&self.devices[d].app, table, added)
        {
            base.remove(added);
        }
        let mut rows: Vec<(Place, Option<Row>, bool)> = Vec::new();
        let set = |heads: &[&model::Head<'_>]| {
            let mut row = base.clone();
            for head in heads {
                for (c, v) in head.write.row.iter().flatten() {
                    let own = !table.keys.contains(&c.as_str()) && table.rule(c) != Rule::Counter;
                    if own && head.live.contains(c) {
                        row.insert(c.clone(), v.clone());
                    }
                }
            }
            row
        };
        match (&conflict.kind, how) {
            (_, How::Delete) => rows.push((place.clone(), None, false)),
            (_, How::Set) => {
                let mut row = base.clone();
                row.insert(name.into(), if literal == "-0.0" { "0.0r".into() } else { render(literal) });
                rows.push((place.clone(), Some(row), false));
            }
            (ConflictKind::Unique(_), How::Take) => {
                let holder = (place.0, self.key(table, &conflict.versions[1].values));
                if chosen.device == conflict.versions[0].device {
                    rows.push((holder, None, false));
                    rows.push((place.clone(), Some(base.clone()), false));
                } else {
                    rows.push((place.clone(), None, false));
                }
            }
            (_, How::Take) => {
                let own: Vec<_> = heads
                    .iter()
                    .filter(|h| {
                        Some(self.ids[h.group.device].as_str())
                            == chosen.device.map(|d| d.to_string()).as_deref()
                    })
                    .collect();
                let delete = own.iter().any(|h| h.write.row.is_none());
                let mut row = set(&own);
                // The key as that version spells it.
                let spelled = own.last().and_then(|head| head.write.row.as_ref());
                for (c, v) in spelled.into_iter().flatten() {
                    if table.keys.contains(&c.as_str()) {
                        row.insert(c.clone(), v.clone());
                    }
                }
                rows.push((place.clone(), if delete { None } else { Some(row) }, false));
            }
            (_, How::KeepBoth) => {
                rows.push((place.clone(), Some(base.clone()), false));
                let mut different = vec![base.clone()];
                for head in
                    model::ordered(table, heads, &self.ids).into_iter().filter(|h| h.write.row.is_some())
                {
                    let row = set(&[head]);
                    if !different.contains(&row) {
                        different.push(row.clone());
                        rows.push((place.clone(), Some(row), true));
                    }
                }
            }
        }
        let id = conflict.id.clone();
        let before = table_rows(&self.devices[d].app, table);
        let done = self.devices[d].engine.resolve(&id, &resolution);
        self.trace.push(format!("d{d}: {} of {place:?}: {resolution:?}: {done:?}", conflict.kind.word()));
        if let Err(e) = done {
            assert!(matches!(e, packmule::Error::CannotResolve { .. }), "{e:?}");
            return;
        }
        let after = table_rows(&self.devices[d].app, table);
        // Which keys the new rows got is the engine's choice.
        let fresh: Vec<&String> = after
            .keys()
            .filter(|k| !before.contains_key(*k) && !state.parked.contains_key(&(place.0, (*k).clone())))
            .collect();
        let mut fresh: Vec<&String> = if *how == How::KeepBoth { fresh } else { Vec::new() };
        let mut writes = BTreeMap::new();
        let old_of = |place: &Place| state.row(place).cloned();
        for (mut place, mut row, new) in rows {
            if new {
                let rest = |row: &Row| {
                    let mut row = row.clone();
                    row.retain(|c, _| !table.keys.contains(&c.as_str()));
                    row
                };
                let found =
                    fresh.iter().position(|k| row.as_ref().is_some_and(|row| rest(row) == rest(&after[*k])));
                let Some(key) = found.map(|at| fresh.remove(at)) else { panic!("a version became no row") };
                place.1.clone_from(key);
                if let Some(row) = &mut row {
                    for c in table.keys {
                        row.insert(c.to_string(), after[key][*c].clone());
                    }
                }
            }
            let image = if row.is_none() && table.images() { old_of(&place) } else { None };
            let mut added = BTreeMap::new();
            if let (Some(row), Some(old), false) = (&row, old_of(&place), new) {
                for c in table.counters() {
                    added.insert(c.to_owned(), number(row.get(c)) - number(old.get(c)));
                }
            }
            writes.insert(
                place,
                Write { row, image, insert: new, added, claim: u64::MAX, wall: None, base: None },
            );
        }
        self.resolved += 1;
        self.sealed(d, writes, true);
        let state = self.state_at(d);
        self.check_shown(d, &state);
    }
}
