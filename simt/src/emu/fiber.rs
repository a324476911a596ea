//! Fibers: one stack and one saved context per CUDA thread, and the pool that lends the stacks.

use std::sync::{Condvar, Mutex, PoisonError};

use corosensei::stack::{DefaultStack, Stack, StackPointer};
use corosensei::{Coroutine, CoroutineResult, Yielder};

/// Bytes of a stack. Only pages that are touched cost memory; a panic with a backtrace needs the most.
const STACK_BYTES: usize = 256 * 1024;
/// Stacks that may be lent at a time, in the whole process. Each takes two memory mappings (the stack and
/// its guard page) and Linux allows 65,530 by default.
const MOST_STACKS: usize = 24 * 1024;
/// Stacks start at different offsets from their alignment, so that the frames of a thousand suspended
/// threads do not all fall into the same cache sets.
const COLOURS: usize = 1024;
const COLOUR_BYTES: usize = 64;

/// A pooled stack.
pub(super) struct PooledStack {
    inner: DefaultStack,
    offset: usize,
}

// SAFETY: the memory between `limit` and `base` is a part of the inner stack's, with the same guard page
// at its end, and longer than the minimum: the largest offset is a quarter of the stack.
unsafe impl Stack for PooledStack {
    fn base(&self) -> StackPointer {
        let base = self.inner.base().get() - self.offset;
        StackPointer::new(base).expect("a stack is not at address 0")
    }
    fn limit(&self) -> StackPointer {
        self.inner.limit()
    }
    #[cfg(windows)]
    fn teb_fields(&self) -> corosensei::stack::StackTebFields {
        self.inner.teb_fields()
    }
    #[cfg(windows)]
    fn update_teb_fields(&mut self, stack_limit: usize, guaranteed_stack_bytes: usize) {
        self.inner.update_teb_fields(stack_limit, guaranteed_stack_bytes);
    }
}

struct Pool {
    free: Vec<PooledStack>,
    made: usize,
    lent: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool { free: Vec::new(), made: 0, lent: 0 });
static RETURNED: Condvar = Condvar::new();

/// The stacks of one launch, returned to the pool when dropped.
pub(super) struct Stacks {
    stacks: Vec<PooledStack>,
    count: usize,
}

impl Stacks {
    /// Takes `count` stacks, waiting for other launches to return theirs if need be.
    pub(super) fn take(count: usize) -> Result<Self, String> {
        if count > MOST_STACKS {
            return Err(format!("{count} resident threads; the emulator has stacks for {MOST_STACKS}"));
        }
        let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        while pool.lent + count > MOST_STACKS {
            pool = RETURNED.wait(pool).unwrap_or_else(PoisonError::into_inner);
        }
        while pool.free.len() < count {
            let inner = DefaultStack::new(STACK_BYTES)
                .map_err(|error| format!("no memory for the stack of a thread: {error}"))?;
            let offset = pool.made * 7 % COLOURS * COLOUR_BYTES;
            pool.made += 1;
            pool.free.push(PooledStack { inner, offset });
        }
        pool.lent += count;
        let rest = pool.free.len() - count;
        Ok(Self { stacks: pool.free.split_off(rest), count })
    }

    pub(super) fn pop(&mut self) -> Option<PooledStack> {
        self.stacks.pop()
    }

    pub(super) fn push(&mut self, stack: PooledStack) {
        self.stacks.push(stack);
    }
}

impl Drop for Stacks {
    fn drop(&mut self) {
        let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        pool.lent -= self.count;
        pool.free.append(&mut self.stacks);
        drop(pool);
        RETURNED.notify_all();
    }
}

/// A place for one thread: a stack, and the coroutine on it while a thread lives there.
pub(super) enum Fiber {
    Idle(PooledStack),
    Live(Coroutine<(), (), (), PooledStack>),
    /// Between the two; and what is left when the stack has been taken out.
    Gone,
}

/// What a fiber suspends itself with.
pub(super) type Suspender = Yielder<(), ()>;

impl Fiber {
    /// Puts a thread with this body on the stack; it runs at the first [`resume`](Self::resume).
    pub(super) fn start(&mut self, body: fn(&Suspender)) {
        if let Self::Idle(stack) = std::mem::replace(self, Self::Gone) {
            *self = Self::Live(Coroutine::with_stack(stack, move |suspender, ()| body(suspender)));
        }
    }

    /// Runs the thread until it suspends itself (`false`) or ends (`true`).
    #[inline]
    pub(super) fn resume(&mut self) -> bool {
        let Self::Live(coroutine) = self else { return true };
        match coroutine.resume(()) {
            CoroutineResult::Yield(()) => false,
            CoroutineResult::Return(()) => {
                self.abandon();
                true
            }
        }
    }

    /// Ends the thread wherever it is; its frames are dropped without running destructors.
    pub(super) fn abandon(&mut self) {
        match std::mem::replace(self, Self::Gone) {
            Self::Live(mut coroutine) => {
                // SAFETY: what lives on the stack is a kernel thread, which is suspended for good: nothing
                // outside points into its frames (the addresses it was given are those of the emulated
                // memory, and its suspender is used by itself only). Values it owns are leaked.
                unsafe { coroutine.force_reset() };
                *self = Self::Idle(coroutine.into_stack());
            }
            other => *self = other,
        }
    }

    /// The stack of an idle fiber.
    pub(super) fn into_stack(mut self) -> Option<PooledStack> {
        self.abandon();
        match self {
            Self::Idle(stack) => Some(stack),
            _ => None,
        }
    }
}
