//! What applications do: writes, and changes of schema; and what the next seal makes of them in the model.

use super::*;

impl Run {
    /// Runs a statement on a device, and notes which rows it touched.
    pub(super) fn write(&mut self, d: usize, t: usize, sql: &str, forced: Option<&Vec<String>>, moves: bool) {
        let table = self.tables[t];
        let now = self.now(d);
        let later = table.later.filter(|_| self.has_unique(d, t));
        let unique_columns: Vec<&str> =
            table.unique_columns.iter().copied().chain(later.map(|(column, _)| column)).collect();
        let device = &mut self.devices[d];
        let before = table_rows(&device.app, table);
        let list = format!("_pm_dirty_{}", t + 1);
        let done = device.app.execute_batch(&format!(
            "BEGIN; {sql};
             {} COMMIT",
            if table.timed() {
                // The machine's clock is the device's.
                format!("UPDATE {list} SET wall = {now} WHERE rowid > {};", {
                    let last = dump(&device.app, &format!("SELECT coalesce(max(rowid), 0) FROM {list}"));
                    last[0].clone()
                })
            } else {
                String::new()
            }
        ));
        self.trace.push(format!("d{d}: {sql}{}", if done.is_err() { "  -- refused" } else { "" }));
        if done.is_err() {
            let _ = device.app.execute_batch("ROLLBACK");
            return;
        }
        let after = table_rows(&device.app, table);
        let gone = before.keys().any(|k| !after.contains_key(k));
        let forced = forced.filter(|_| !moves || gone).map(|key| {
            let row: Row =
                table.keys.iter().map(|c| c.to_string()).zip(key.iter().map(|v| render(v))).collect();
            table.key(&row)
        });
        let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        for k in keys {
            let (old, new) = (before.get(k), after.get(k));
            let forced = forced.as_ref() == Some(k) && new.is_some();
            if old == new && !forced {
                continue;
            }
            let touch = device.touched.entry((t, k.clone())).or_default();
            if table.timed() {
                touch.wall = Some(now);
            }
            let Some(new) = new else {
                touch.claimed = true;
                touch.image = old.cloned();
                continue;
            };
            let same_key = |old: &&Row| table.keys.iter().all(|c| old[*c] == new[*c]);
            let Some(old) = old.filter(same_key).filter(|_| !forced) else {
                touch.claimed = true;
                touch.inserted = true;
                continue;
            };
            for (column, value) in new.iter().filter(|(c, v)| old.get(*c) != Some(*v)) {
                touch.columns.insert(column.clone());
                touch.claimed |= unique_columns.is_empty() || unique_columns.contains(&column.as_str());
                if table.rule(column) == Rule::Counter {
                    *touch.added.entry(column.clone()).or_default() +=
                        number(Some(value)) - number(old.get(column));
                }
            }
        }
    }

    pub(super) fn seal(&mut self, d: usize) {
        let touched = std::mem::take(&mut self.devices[d].touched);
        let groups = if touched.is_empty() { Vec::new() } else { self.groups_at(d) };
        let known = model::heads(&groups);
        let mut writes = BTreeMap::new();
        for (place, touch) in touched {
            let table = self.tables[place.0];
            let row = table_rows(&self.devices[d].app, table).get(&place.1).cloned();
            let heads = known.get(&place).map(Vec::as_slice).unwrap_or_default();
            if row.is_none() && model::state(&self.tables, &groups, &self.ids).parked.contains_key(&place) {
                continue;
            }
            let unique = !table.uniques.is_empty() || self.has_unique(d, place.0);
            let claim =
                if touch.claimed || !unique { u64::MAX } else { model::claim(table, heads, &self.ids) };
            // Whoever changes a row that another had deleted makes it again, as long as he knows.
            let deleted = table.cell && !touch.inserted && heads.iter().any(|h| h.write.row.is_none());
            let forgotten = deleted && row.is_some() && !self.remembers_a_delete(d, &place);
            if forgotten {
                self.check_stable(heads);
            }
            let base = row.clone().filter(|_| forgotten);
            let partial = table.cell && !touch.inserted && (!deleted || forgotten);
            let carried = row.clone().map(|mut row| {
                row.retain(|c, _| !partial || touch.columns.contains(c) || table.keys.contains(&c.as_str()));
                row
            });
            let insert = carried.is_some() && touch.inserted;
            let added = if insert || carried.is_none() { BTreeMap::new() } else { touch.added };
            let image = touch.image.filter(|_| table.images());
            writes.insert(place, Write { row: carried, image, insert, added, claim, wall: touch.wall, base });
        }
        self.devices[d].engine.seal().unwrap();
        let before = self.devices[d].ends.len();
        self.sealed(d, writes, false);
        let after = self.devices[d].ends.len();
        if after > before {
            self.trace.push(format!("d{d}: sealed, group {after}"));
        }
    }

    /// Whether a device has not folded yet that a row was deleted.
    fn remembers_a_delete(&self, d: usize, place: &Place) -> bool {
        let name = self.tables[place.0].name;
        let key = match place.1.strip_prefix('[') {
            Some(hex) => format!("x'{}'", hex.trim_end_matches(']')),
            None => format!("CAST('{}' AS BLOB)", place.1.trim_matches('"')),
        };
        let sql = format!(
            "SELECT count(*) FROM _pm_head JOIN _pm_table USING (tid) WHERE kind = 3 AND name = '{name}' AND instr(key, {key})"
        );
        dump(&self.devices[d].app, &sql) != ["0"]
    }

    /// What is folded every device has.
    fn check_stable(&self, heads: &[model::Head<'_>]) {
        for n in self.active() {
            let seen = self.seen(n);
            let has = |h: &model::Head<'_>| seen[h.group.device] > h.group.number;
            assert!(heads.iter().all(has), "folded away somewhere, and not on d{n}: {heads:?}");
        }
    }

    pub(super) fn sealed(&mut self, d: usize, writes: BTreeMap<Place, Write>, must: bool) {
        let devices = self.devices[d].engine.devices().unwrap();
        let end = devices.iter().find(|device| device.this).unwrap().shared;
        let device = &self.devices[d];
        let start = device.copy.as_ref().map_or(0, |copy| copy.position);
        if end > device.ends.last().copied().unwrap_or(start) {
            self.note_group(d, end, writes);
        } else {
            assert!(writes.is_empty() && !must, "the model has writes that the seal has not: {writes:?}");
        }
    }

    pub(super) fn add_column(&mut self, d: usize, t: usize, fill: bool, command: bool) {
        let table = self.tables[t];
        let Some((name, declared, _, pool)) = table.added else { return };
        self.seal(d);
        let have = has_column(&self.devices[d].app, table, name);
        if have {
            return;
        }
        if command {
            let kind = declared.split(' ').next().unwrap();
            let default = declared.split_once(" DEFAULT ").map(|(_, literal)| value(literal));
            self.devices[d].engine.add_column(table.name, name, kind, default.as_ref()).unwrap();
            self.sealed(d, BTreeMap::new(), false);
        } else {
            let sql = format!("ALTER TABLE {} ADD COLUMN {name} {declared}", table.name);
            self.devices[d].app.execute_batch(&sql).unwrap();
        }
        self.trace.push(format!("d{d}: ALTER TABLE {} ADD COLUMN {name} {declared}", table.name));
        if fill {
            // Its triggers may not know the column yet: the seal finds what differs from the default.
            let sql = format!("UPDATE {} SET {name} = {}", table.name, pool[0]);
            let touched = self.devices[d].touched.clone();
            self.write(d, t, &sql, None, false);
            // Nobody noted when.
            let device = &mut self.devices[d];
            for (place, touch) in &mut device.touched {
                if !command && !touched.contains_key(place) {
                    touch.wall = None;
                    touch.claimed = true;
                }
            }
        }
        self.seal(d);
    }

    /// Whether a device has a table's later UNIQUE.
    pub(super) fn has_unique(&self, d: usize, t: usize) -> bool {
        self.groups_at(d).iter().any(|g| g.uniques.contains(&t))
    }

    pub(super) fn make_unique(&mut self, d: usize, t: usize) {
        let table = self.tables[t];
        let Some((column, _)) = table.later else { return };
        self.seal(d);
        if self.has_unique(d, t) {
            return;
        }
        let sql = format!("CREATE UNIQUE INDEX {0}_later ON {0} ({column})", table.name);
        let made = self.devices[d].app.execute_batch(&sql);
        self.trace.push(format!("d{d}: {sql}{}", if made.is_err() { "  -- refused" } else { "" }));
        if made.is_ok() {
            self.uniques += 1;
            let n = self.groups.len();
            self.seal(d);
            // Another device may have told just that before, which is here as well.
            for group in &mut self.groups[n..] {
                group.uniques.insert(t);
            }
            let state = self.state_at(d);
            self.check_shown(d, &state);
        }
    }
}
