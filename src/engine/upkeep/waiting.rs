//! What waits in the log, looked into: it is tried when its turn comes, and what is wrong with it can be told before.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use packmule_core::model::Stream;
use packmule_core::wire::DefId;

use crate::engine::apply::admissible::{Rules, SpanOrder};
use crate::engine::apply::aside::{self, Pieces};
use crate::engine::error::{self, Result};
use crate::engine::fleet::devices;
use crate::engine::log::frames;
use crate::engine::log::visit::{self, Part};
use crate::engine::store::value;
use crate::engine::table::catalog;
use crate::engine::table::def::TableDef;
use crate::engine::table::known::OpDef;
use crate::engine::table::replica::Replica;

/// So many groups are named, and no more: who signs one wrong group can sign many.
const NAMED_MAX: usize = 20;

/// Names the groups that wait and whose content cannot be applied here.
pub(crate) fn verify_waiting(replica: &Replica, problems: &mut Vec<String>) -> Result<()> {
    let mut waiting = replica.db.prepare(
        "SELECT dev, stream, first, last FROM _pm_group INDEXED BY _pm_group_waiting WHERE NOT applied
         ORDER BY dev, stream, first",
    )?;
    let mut rows = waiting.query([])?;
    let (mut named, mut defs, mut of) = (0, Defs::default(), None);
    while let Some(row) = rows.next()? {
        let (dev, number, first, last): (i64, u8, u64, u64) =
            (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
        if of.replace(dev) != Some(dev) {
            defs = Defs::default();
        }
        let stream = value::stream_of_number(number)?;
        let known = aside::reason(replica, (dev, stream, first))?;
        let what = match known {
            Some(reason) => Some(format!("are set aside: {reason}")),
            None => match look_into(replica, (dev, stream), (first, last), &defs) {
                Ok(()) => None,
                Err(e) if aside::is_of_content(&e) => {
                    Some(format!("wait, and cannot be applied: {}", aside::said(&e)))
                }
                Err(e) => return Err(e),
            },
        };
        if let Some(what) = what {
            let who = devices::device_label(replica, dev)?;
            problems.push(format!("frames {first} to {last} of {who} {what}"));
            named += 1;
        }
        if named >= NAMED_MAX {
            break;
        }
    }
    Ok(())
}

/// The definitions in the waiting groups of a device.
type Defs = RefCell<HashMap<DefId, Arc<OpDef>>>;

/// Refuses what an honest seal cannot have made, as far as the definitions are at hand.
fn look_into(
    replica: &Replica,
    (dev, stream): (i64, Stream),
    (first, last): (u64, u64),
    defs: &Defs,
) -> Result<()> {
    let (mut pieces, mut spans) = (Pieces::default(), SpanOrder::default());
    for seq in first..=last {
        let body = frames::frame_here(replica, dev, stream, seq)?;
        let frame = frames::parse(&body)?;
        if frame.is_newer() {
            return Ok(()); // It waits for a newer program.
        }
        let mut rules = Rules::of(&frame.head, stream)?.thorough();
        let find = |id| defs.borrow().get(&id).cloned().map_or_else(|| catalog::op_def(replica, id), Ok);
        visit::visit_waiting(replica, &frame, find, |part| {
            match part {
                Part::Definition(body) => {
                    let (id, def) = (DefId::of(body), TableDef::hear(body).map_err(error::bad)?);
                    let tid = catalog::table_of(replica, &def, &[])?.map_or(-1, |table| table.tid);
                    defs.borrow_mut().insert(id, Arc::new(OpDef::of(id, tid, def)));
                }
                Part::Span(span) => match find(span.def) {
                    Ok(def) => spans.check(&replica.db, &def, &span)?,
                    Err(failed) if failed.is_machines() => return Err(failed),
                    Err(_) => {}
                },
                Part::Piece(piece) => pieces.note_piece(seq, &piece)?,
                Part::Op(def, op) => {
                    let values = def.values_of(&op);
                    rules.check(stream, def, &op, &values)?;
                    pieces.claim(seq, &values)?;
                }
                _ => {}
            }
            Ok(())
        })?;
    }
    Ok(())
}
