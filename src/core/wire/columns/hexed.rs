//! Codes ids in hexadecimal digits: UUIDs, addresses, hashes.

use super::coder::Coder;
use super::model::{Contexts, hash};
use super::number::Beside;
use super::text::Hexed;
use super::value::{COLUMNS, Of, Place, TEXT, Values, body, range};

impl Values {
    /// Codes a TEXT that differs from the `last` one in its hexadecimal digits. Returns where it ends.
    pub(super) fn hexed<C: Coder>(
        &mut self,
        coder: &mut C,
        buf: &mut [u8],
        at: usize,
        of: Of,
        (last, beside): (Place, Beside),
    ) -> Result<usize, C::Stop> {
        let mut text = [0; 64];
        let of_last = buf.get(range(last)).filter(|last| last.first() == Some(&TEXT)).ok_or_else(C::bad)?;
        let hexed = Hexed::of(body(of_last)).ok_or_else(C::bad)?;
        let len = body(of_last).len();
        text[..len].copy_from_slice(body(of_last));
        let (start, end) = (at + 2, at + 2 + len);
        let given = buf.get_mut(at..end).ok_or_else(C::bad)?;
        (given[0], given[1]) = (TEXT, len as u8);
        let id = of.id ^ u32::from(TEXT);
        let noise = of.index % COLUMNS;
        self.noise[noise].count();
        let (mut prefix, mut one, mut two, mut same) = (0, 0, 0, 1);
        for (place, slot) in buf[start..end].iter_mut().enumerate() {
            let Some(before) = hexed.digit(text[place]) else {
                *slot = text[place];
                continue;
            };
            let given = hexed.digit(*slot).unwrap_or(0);
            let digit = if self.noise[noise].is_at(place) {
                coder.direct(4, u32::from(given))?
            } else {
                let spent = self.mixer.spent;
                let here = hash(id, place as u32);
                let contexts: Contexts = [
                    hash(here, 41),
                    hash(hash(here, 42), u32::from(before) << 1 | same),
                    hash(hash(here, 43), prefix),
                    hash(hash(here, 44), one),
                    hash(hash(id, 45), two),
                    hash(hash(hash(here, 46), prefix), beside.one),
                ];
                let mut node = 1;
                for bit in (0..4).rev() {
                    let decided =
                        self.mixer.code(coder, &contexts, id ^ 7, node + 256, given >> bit & 1 == 1)?;
                    node = node << 1 | u32::from(decided);
                }
                self.noise[noise].learn(place, 2 * self.mixer.spent.wrapping_sub(spent));
                node & 15
            };
            same &= u32::from(digit == u32::from(before));
            prefix = hash(prefix, digit + 1);
            (two, one) = (one << 5 | (digit + 1), digit + 1);
            *slot = hexed.written(digit as u8);
        }
        Ok(end)
    }
}
