//! Memory that keeps its address, for structures that point at each other.

use std::ptr::{self, NonNull};

/// An owned slice that the kernel and other structures may point into while its owner moves.
///
/// Unlike a `Box`, it is always reached through the one raw pointer it was made with, so that
/// taking a reference does not invalidate the pointers handed out by [`Stable::at`].
pub(crate) struct Stable<T>(NonNull<[T]>);

impl<T> Stable<T> {
    pub(crate) fn new(items: Vec<T>) -> Self {
        Self(NonNull::from(Box::leak(items.into_boxed_slice())))
    }

    pub(crate) fn as_slice(&self) -> &[T] {
        // SAFETY: the slice is owned by `self`, initialised, and borrowed shared with `self`.
        unsafe { self.0.as_ref() }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: the slice is owned by `self`, initialised, and borrowed exclusively with `self`.
        unsafe { self.0.as_mut() }
    }

    /// Where the item is, or null past the end.
    pub(crate) fn at(&mut self, index: usize) -> *mut T {
        if index < self.0.len() {
            // SAFETY: the index is within the allocation.
            unsafe { self.0.as_ptr().cast::<T>().add(index) }
        } else {
            ptr::null_mut()
        }
    }
}

impl<T> Drop for Stable<T> {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `Box::leak` and is given back once.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

// SAFETY: `Stable` owns its items as a `Box` does; the pointer is not shared.
unsafe impl<T: Send> Send for Stable<T> {}
// SAFETY: a shared `Stable` gives out shared references only.
unsafe impl<T: Sync> Sync for Stable<T> {}
