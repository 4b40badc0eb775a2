//! Low latency, where the driver offers it: a USB adaptor otherwise keeps bytes for up to 16 ms.

use std::fs::File;

/// Asks the driver to hand on bytes at once, or (`false`) not to. Returns whether that changed anything. A driver
/// that cannot is used as it is.
#[cfg(target_os = "linux")]
pub(super) fn set_quick(port: &File, quick: bool) -> bool {
    use rustix::ioctl::{Getter, Opcode, Setter, ioctl};

    const TIOCGSERIAL: Opcode = 0x541e;
    const TIOCSSERIAL: Opcode = 0x541f;

    // SAFETY: the request writes one `serial_struct`, at most 72 bytes, which is what `Settings` has, all of them
    // plain numbers.
    let got = unsafe { ioctl(port, Getter::<TIOCGSERIAL, Settings>::new()) };
    // A pseudo-terminal, for one, has no such thing.
    let Ok(mut settings) = got else { return false };
    if !settings.change(quick) {
        return false;
    }
    // SAFETY: the request reads one `serial_struct`: the one that the same driver has just given.
    unsafe { ioctl(port, Setter::<TIOCSSERIAL, Settings>::new(settings)) }.is_ok()
}

#[cfg(not(target_os = "linux"))]
pub(super) fn set_quick(_port: &File, _quick: bool) -> bool {
    false
}

/// The kernel's `struct serial_struct`: five `int`s up to `flags`, 72 bytes in all where pointers have 8
/// bytes and 60 where they have 4.
#[cfg(target_os = "linux")]
#[repr(C, align(8))]
struct Settings {
    head: [i32; 4],
    flags: i32,
    rest: [i32; 13],
}

#[cfg(target_os = "linux")]
impl Settings {
    /// `ASYNC_LOW_LATENCY`.
    const LOW_LATENCY: i32 = 1 << 13;

    /// Sets the flag. Returns whether it was otherwise.
    fn change(&mut self, quick: bool) -> bool {
        let before = self.flags;
        self.flags = if quick { before | Self::LOW_LATENCY } else { before & !Self::LOW_LATENCY };
        self.flags != before
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_changed_is_changed_back() {
        for flags in [0, 5, 1 << 13 | 5] {
            let mut settings = Settings { head: [7; 4], flags, rest: [9; 13] };
            let changed = settings.change(true);
            assert_eq!((changed, settings.flags), (flags & 1 << 13 == 0, flags | 1 << 13));
            if changed {
                assert!(settings.change(false));
            }
            assert_eq!((settings.head, settings.flags, settings.rest), ([7; 4], flags, [9; 13]));
        }
        assert_eq!((size_of::<Settings>(), std::mem::offset_of!(Settings, flags)), (72, 16));
    }
}
