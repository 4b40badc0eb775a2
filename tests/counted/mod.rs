//! Work and memory, counted: steps of SQLite's virtual machine, allocations of the library's own, and how many bytes these
//! took at their most. Each counts for its thread alone.
#![allow(dead_code)] // Each test uses a part of it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ffi::{c_char, c_int, c_void};
use std::time::Instant;

use rusqlite::ffi;

/// The system's allocator, counted.
struct Counting;

thread_local! {
    static STEPS: Cell<u64> = const { Cell::new(0) };
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static NOW: Cell<i64> = const { Cell::new(0) };
    static MOST: Cell<i64> = const { Cell::new(0) };
}

fn now(bytes: i64) {
    // A thread that ends frees what it has when these are gone already.
    let _ = NOW.try_with(|now| {
        now.set(now.get() + bytes);
        MOST.with(|most| most.set(most.get().max(now.get())));
    });
}

// SAFETY: every call goes on to the system's allocator as it is; the counts are apart from that.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|all| all.set(all.get() + 1));
        now(layout.size() as i64);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        now(-(layout.size() as i64));
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// So many steps are counted as one.
pub const AT_ONCE: c_int = 20;

unsafe extern "C" fn count(_: *mut c_void) -> c_int {
    STEPS.with(|steps| steps.set(steps.get() + 1));
    0
}

unsafe extern "C" fn watch(
    db: *mut ffi::sqlite3,
    _: *mut *mut c_char,
    _: *const ffi::sqlite3_api_routines,
) -> c_int {
    // SAFETY: SQLite has just opened this connection.
    unsafe { ffi::sqlite3_progress_handler(db, AT_ONCE, Some(count), std::ptr::null_mut()) };
    ffi::SQLITE_OK
}

/// What a part of the work took.
pub struct Part {
    pub name: &'static str,
    /// Twenties of steps of SQLite's virtual machine.
    pub steps: u64,
    pub allocations: u64,
    /// Of the library's own, at their most.
    pub bytes: u64,
}

/// What each part of the work took.
pub struct Counted(pub Vec<Part>);

impl Counted {
    /// Watches every connection that is opened from now on.
    pub fn new() -> Self {
        // SAFETY: the function is never unloaded.
        unsafe { ffi::sqlite3_auto_extension(Some(watch)) };
        Self(Vec::new())
    }

    pub fn part<R>(&mut self, n: u64, name: &'static str, work: impl FnOnce() -> R) -> R {
        let (steps, allocations) = (STEPS.with(Cell::get), ALLOCATIONS.with(Cell::get));
        let (begun, from) = (NOW.with(Cell::get), Instant::now());
        MOST.with(|most| most.set(begun));
        let done = work();
        let part = Part {
            name,
            steps: STEPS.with(Cell::get) - steps,
            allocations: ALLOCATIONS.with(Cell::get) - allocations,
            bytes: (MOST.with(Cell::get) - begun) as u64,
        };
        println!(
            "{n}: {name}: {} steps, {} allocations, {} KiB, {:?}",
            part.steps * AT_ONCE as u64,
            part.allocations,
            part.bytes >> 10,
            from.elapsed()
        );
        self.0.push(part);
        done
    }

    /// Takes off the last part what SQLite itself does.
    pub fn take_off(&mut self, steps: u64) {
        if let Some(part) = self.0.last_mut() {
            part.steps = part.steps.saturating_sub(steps / AT_ONCE as u64);
        }
    }
}

/// Runs a case at n and 4 n, and finds its work linear.
pub fn is_linear(usual: u64, case: fn(&mut Counted, u64)) {
    let given = std::env::var("PACKMULE_LINEAR").unwrap_or_else(|_| format!("{usual},{}", 4 * usual));
    let sizes: Vec<u64> = given.split(',').map(|n| n.parse().unwrap()).collect();
    let all: Vec<Counted> = sizes
        .iter()
        .map(|n| {
            let mut counted = Counted::new();
            case(&mut counted, *n);
            counted
        })
        .collect();
    for (pair, sizes) in all.windows(2).zip(sizes.windows(2)) {
        let times = sizes[1] as f64 / sizes[0] as f64;
        for (few, many) in pair[0].0.iter().zip(&pair[1].0) {
            for (what, few_of, many_of, least) in [
                ("steps", few.steps, many.steps, 100.0),
                ("allocations", few.allocations, many.allocations, 2_000.0),
            ] {
                let most = (few_of as f64 + least) * times * 1.4;
                let name = few.name;
                assert!(
                    many_of as f64 <= most,
                    "{name}: {few_of} {what} for {}, {many_of} for {}",
                    sizes[0],
                    sizes[1]
                );
            }
        }
    }
}
