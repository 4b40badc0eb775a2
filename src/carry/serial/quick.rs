//! Low latency, where the driver offers it: a USB adaptor otherwise keeps bytes for up to 16 ms.

use std::fs::File;

/// Asks the driver to hand on bytes at once. One that cannot is used as it is.
#[cfg(target_os = "linux")]
pub(super) fn make_quick(port: &File) {
    use rustix::ioctl::{Getter, Opcode, Setter, ioctl};

    const TIOCGSERIAL: Opcode = 0x541e;
    const TIOCSSERIAL: Opcode = 0x541f;
    const LOW_LATENCY: i32 = 1 << 13;

    /// The kernel's `struct serial_struct`: five `int`s up to `flags`, 72 bytes in all where pointers have 8
    /// bytes and 60 where they have 4.
    #[repr(C, align(8))]
    struct Settings {
        head: [i32; 4],
        flags: i32,
        rest: [i32; 13],
    }

    // SAFETY: the request writes one `serial_struct`, at most 72 bytes, which is what `Settings` has, all of them
    // plain numbers.
    let got = unsafe { ioctl(port, Getter::<TIOCGSERIAL, Settings>::new()) };
    // A pseudo-terminal, for one, has no such thing.
    let Ok(mut settings) = got else { return };
    settings.flags |= LOW_LATENCY;
    // SAFETY: the request reads one `serial_struct`: the one that the same driver has just given.
    let _ = unsafe { ioctl(port, Setter::<TIOCSSERIAL, Settings>::new(settings)) };
}

#[cfg(not(target_os = "linux"))]
pub(super) fn make_quick(_port: &File) {}
