//! Codes ids in hexadecimal digits: UUIDs, addresses, hashes.

use super::coder::Coder;
use super::model::{Contexts, hash};
use super::table::Place;
use super::text::Hexed;
use super::value::{COLUMNS, Of, TEXT, Values, body, range};

/// So many digits of which nothing can be learned are said at once.
const TOGETHER: usize = 4;

impl Values {
    /// Codes a TEXT that differs from the `last` one in its hexadecimal digits. Returns where it ends.
    pub(super) fn hexed<C: Coder>(
        &mut self,
        coder: &mut C,
        buf: &mut [u8],
        at: usize,
        of: Of,
        last: Place,
    ) -> Result<usize, C::Stop> {
        let mut last_text = [0; 64];
        let of_last = buf.get(range(last)).filter(|last| last.first() == Some(&TEXT)).ok_or_else(C::bad)?;
        let hexed = Hexed::of(body(of_last)).ok_or_else(C::bad)?;
        let len = body(of_last).len();
        let text = last_text.get_mut(..len).ok_or_else(C::bad)?;
        text.copy_from_slice(body(of_last));
        let end = at + 2 + len;
        let whole = buf.get_mut(at..end).ok_or_else(C::bad)?;
        let (tag, values) = whole.split_at_mut_checked(2).ok_or_else(C::bad)?;
        tag.copy_from_slice(&[TEXT, len as u8]);
        let id = of.id ^ u32::from(TEXT);
        let noise = of.index % COLUMNS;
        self.noise[noise].count();
        let (mut prefix, mut one, mut same) = (0, 0, 1);
        let mut place = 0;
        while let (Some(was), Some(value)) = (text.get(place).copied(), values.get_mut(place)) {
            let Some(before) = hexed.digit(was) else {
                *value = was;
                place += 1;
                continue;
            };
            let digit_of = |text: &[u8], at| text.get(at).and_then(|byte| hexed.digit(*byte));
            let given = |place: usize| u32::from(digit_of(values, place).unwrap_or(0));
            let is_noise = |at: &usize| digit_of(text, *at).is_some() && self.noise[noise].is_at(*at);
            let noisy = (place..len.min(place + TOGETHER)).take_while(is_noise).count();
            let digits = if noisy > 0 {
                let given = (place..place + noisy).fold(0, |all, at| all << 4 | given(at));
                coder.direct(4 * noisy as u32, given)?
            } else {
                let spent = self.mixer.spent;
                let here = hash(id, place as u32);
                let contexts: Contexts = [
                    hash(here, 41),
                    hash(hash(here, 42), u32::from(before) << 1 | same),
                    hash(hash(here, 43), prefix),
                    hash(hash(here, 44), one),
                ];
                let digit = self.mixer.digits(coder, &contexts, (id ^ 7, 256), 4, given(place))?;
                self.noise[noise].learn(place, 2 * self.mixer.spent.wrapping_sub(spent));
                digit
            };
            for left in (0..noisy.max(1)).rev() {
                let digit = digits >> (4 * left) & 15;
                same &= u32::from(digit_of(text, place) == Some(digit as u8));
                prefix = hash(prefix, digit + 1);
                one = digit + 1;
                *values.get_mut(place).ok_or_else(C::bad)? = hexed.written(digit as u8);
                place += 1;
            }
        }
        Ok(end)
    }
}
