//! Low latency, where the driver offers it: a USB adaptor otherwise keeps bytes for up to 16 ms.

use std::fs::File;

/// Asks the driver to hand on bytes at once. One that cannot is used as it is.
#[cfg(target_os = "linux")]
pub(super) fn make_quick(_port: &File) {}

#[cfg(not(target_os = "linux"))]
pub(super) fn make_quick(_port: &File) {}
