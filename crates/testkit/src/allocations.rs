//! Counts what the current thread allocates.
#![allow(unsafe_code, reason = "a global allocator cannot be written without")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator with a count for each thread. A test program installs it with
///
/// ```
/// use dnscrub_testkit::CountingAllocator;
///
/// #[global_allocator]
/// static ALLOCATOR: CountingAllocator = CountingAllocator;
///
/// let (sum, allocations) = CountingAllocator::count(|| 1 + 1);
/// assert_eq!((sum, allocations.allocations), (2, 0));
/// ```
///
/// [`is_installed`](Self::is_installed) tells a test that forgot the first two lines apart from
/// one that allocates nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct CountingAllocator;

/// What one thread did between two moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allocations {
    /// Blocks allocated, reallocations included.
    pub allocations: u64,
    /// Octets of these blocks.
    pub octets: u64,
    /// Blocks freed.
    pub frees: u64,
}

thread_local! {
    // A constant without a destructor: reading it never allocates.
    static COUNTS: Cell<Allocations> = const { Cell::new(Allocations { allocations: 0, octets: 0, frees: 0 }) };
}

impl CountingAllocator {
    /// Runs `work` and returns its result with what the current thread allocated meanwhile.
    pub fn count<T>(work: impl FnOnce() -> T) -> (T, Allocations) {
        let before = Self::start();
        let result = work();
        (result, Self::since(before))
    }

    /// The current thread's counts so far.
    #[must_use]
    pub fn start() -> Allocations {
        COUNTS.get()
    }

    /// What the current thread did since [`start`](Self::start).
    #[must_use]
    pub fn since(start: Allocations) -> Allocations {
        let now = COUNTS.get();
        Allocations {
            allocations: now.allocations - start.allocations,
            octets: now.octets - start.octets,
            frees: now.frees - start.frees,
        }
    }

    /// Whether this program's global allocator counts.
    #[must_use]
    pub fn is_installed() -> bool {
        let (block, allocations) = Self::count(|| std::hint::black_box(Box::new(0_u8)));
        drop(block);
        allocations.allocations > 0
    }
}

fn note(octets: Option<usize>) {
    // The counts are gone while a thread is being torn down; what it does then is not counted.
    let _ = COUNTS.try_with(|counts| {
        let mut now = counts.get();
        match octets {
            Some(octets) => {
                now.allocations += 1;
                now.octets += octets as u64;
            }
            None => now.frees += 1,
        }
        counts.set(now);
    });
}

// SAFETY: every call goes to the system's allocator with its arguments unchanged; `note` neither
// allocates nor unwinds.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(Some(layout.size()));
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(Some(layout.size()));
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        note(Some(new_size));
        // SAFETY: the caller keeps the contract of `GlobalAlloc::realloc`.
        unsafe { System.realloc(block, layout, new_size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        note(None);
        // SAFETY: the caller keeps the contract of `GlobalAlloc::dealloc`.
        unsafe { System.dealloc(block, layout) }
    }
}
