//! How the program ends where nothing else can be done: a panic, no memory. Both end with exit status 1, as all that
//! fails, and not with an abort; the database is as after a power cut then.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;

use signal_hook::consts::SIGXFSZ;

/// The system's allocator. Where it has nothing left, the program ends: with Rust's own handler it would abort.
pub struct Allocator;

// SAFETY: every call goes on to the system's allocator as it is. It never returns null: the program ends before.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc`, which is this one's.
        given(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc_zeroed`, which is this one's.
        given(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `realloc`, which is this one's.
        given(unsafe { System.realloc(at, layout, size) }, size)
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`, which is this one's.
        unsafe { System.dealloc(at, layout) }
    }
}

fn given(at: *mut u8, size: usize) -> *mut u8 {
    if at.is_null() {
        out_of_memory(size);
    }
    at
}

/// Ends the program, without allocating.
#[cold]
fn out_of_memory(size: usize) -> ! {
    let mut digits = [b'0'; 20];
    let (mut left, mut from) = (size, digits.len());
    while let Some(at) = from.checked_sub(1).filter(|_| left > 0) {
        from = at;
        digits[from] = b'0' + (left % 10) as u8;
        left /= 10;
    }
    for part in [&b"packmule: there is not enough memory: "[..], &digits[from..], b" bytes more are needed\n"]
    {
        // A closed standard error changes nothing.
        let _ = rustix::io::write(rustix::stdio::stderr(), part);
    }
    signal_hook::low_level::exit(1)
}

/// Lets a file that may not be any longer (`ulimit -f`) be an error of the write, as a full disk is, and not a sudden end.
pub fn go_on_at_limits() {
    // Without it all is as the system has it.
    let _ = signal_hook::flag::register(SIGXFSZ, Arc::default());
}

/// Lets a panic say in one line what happened, and end the program: nothing is unwound, so that small programs need not
/// have what that takes.
pub fn end_at_panics() {
    std::panic::set_hook(Box::new(|panic| {
        use std::io::Write;
        let text = format!("packmule: this is a fault of Packmule, please report it: {panic}\n");
        let _ = std::io::stderr().write_all(text.as_bytes());
        signal_hook::low_level::exit(1)
    }));
}
