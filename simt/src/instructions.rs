//! What both GPU backends have in common: the instructions that are `asm!`.
//!
//! They are the same text for both compilers. [`instructions!`] stands in each backend's implementation of
//! [`Machine`](crate::machine::Machine), which adds what its compiler has other words for: the thread's place,
//! the collectives and the start of shared memory.
//!
//! `asm!` fixes the width, address space, scope and order of an access, none of which `core` can express for this
//! target.

use core::arch::asm;

/// Stops the launch with an error.
pub(crate) fn trap() -> ! {
    // SAFETY: the instruction takes no operands and does not return.
    unsafe { asm!("trap;", options(noreturn, nostack)) }
}

/// `asm!` for the access instruction of one order and scope. A load or store that is not relaxed has one
/// other order; the callers have refused the rest.
macro_rules! atomic_load {
    ($space:literal, $class:ident, $address:expr, $order:expr, $scope:expr) => {{
        let value: u32;
        match ($order, $scope) {
            (Order::Relaxed, Scope::Block) => {
                asm!(concat!("ld.relaxed.cta.", $space, ".u32 {}, [{}];"), out(reg32) value, in($class) $address, options(nostack))
            }
            (Order::Relaxed, Scope::Cluster) => {
                asm!(concat!("ld.relaxed.cluster.", $space, ".u32 {}, [{}];"), out(reg32) value, in($class) $address, options(nostack))
            }
            (Order::Relaxed, Scope::Device) => {
                asm!(concat!("ld.relaxed.gpu.", $space, ".u32 {}, [{}];"), out(reg32) value, in($class) $address, options(nostack))
            }
            (_, Scope::Block) => {
                asm!(concat!("ld.acquire.cta.", $space, ".u32 {}, [{}];"), out(reg32) value, in($class) $address, options(nostack))
            }
            (_, Scope::Cluster) => {
                asm!(concat!("ld.acquire.cluster.", $space, ".u32 {}, [{}];"), out(reg32) value, in($class) $address, options(nostack))
            }
            (_, Scope::Device) => {
                asm!(concat!("ld.acquire.gpu.", $space, ".u32 {}, [{}];"), out(reg32) value, in($class) $address, options(nostack))
            }
        }
        value
    }};
}

macro_rules! atomic_store {
    ($space:literal, $class:ident, $address:expr, $value:expr, $order:expr, $scope:expr) => {
        match ($order, $scope) {
            (Order::Relaxed, Scope::Block) => {
                asm!(concat!("st.relaxed.cta.", $space, ".u32 [{}], {};"), in($class) $address, in(reg32) $value, options(nostack))
            }
            (Order::Relaxed, Scope::Cluster) => {
                asm!(concat!("st.relaxed.cluster.", $space, ".u32 [{}], {};"), in($class) $address, in(reg32) $value, options(nostack))
            }
            (Order::Relaxed, Scope::Device) => {
                asm!(concat!("st.relaxed.gpu.", $space, ".u32 [{}], {};"), in($class) $address, in(reg32) $value, options(nostack))
            }
            (_, Scope::Block) => {
                asm!(concat!("st.release.cta.", $space, ".u32 [{}], {};"), in($class) $address, in(reg32) $value, options(nostack))
            }
            (_, Scope::Cluster) => {
                asm!(concat!("st.release.cluster.", $space, ".u32 [{}], {};"), in($class) $address, in(reg32) $value, options(nostack))
            }
            (_, Scope::Device) => {
                asm!(concat!("st.release.gpu.", $space, ".u32 [{}], {};"), in($class) $address, in(reg32) $value, options(nostack))
            }
        }
    };
}

/// A read-modify-write with the instruction prefix already chosen.
macro_rules! atomic_op {
    ($prefix:expr, $class:ident, $op:expr, $address:expr, $value:expr) => {{
        let old: u32;
        match $op {
            AtomicOp::Add => {
                asm!(concat!($prefix, ".add.u32 {}, [{}], {};"), out(reg32) old, in($class) $address, in(reg32) $value, options(nostack))
            }
            AtomicOp::Max => {
                asm!(concat!($prefix, ".max.u32 {}, [{}], {};"), out(reg32) old, in($class) $address, in(reg32) $value, options(nostack))
            }
            AtomicOp::Min => {
                asm!(concat!($prefix, ".min.u32 {}, [{}], {};"), out(reg32) old, in($class) $address, in(reg32) $value, options(nostack))
            }
            AtomicOp::Or => {
                asm!(concat!($prefix, ".or.b32 {}, [{}], {};"), out(reg32) old, in($class) $address, in(reg32) $value, options(nostack))
            }
            AtomicOp::Exchange => {
                asm!(concat!($prefix, ".exch.b32 {}, [{}], {};"), out(reg32) old, in($class) $address, in(reg32) $value, options(nostack))
            }
        }
        old
    }};
}

/// [`atomic_op`] over all orders of one scope.
macro_rules! atomic_orders {
    ($scope:literal, $space:literal, $class:ident, $op:expr, $order:expr, $address:expr, $value:expr) => {
        match $order {
            Order::Relaxed => {
                atomic_op!(concat!("atom.relaxed.", $scope, ".", $space), $class, $op, $address, $value)
            }
            Order::Acquire => {
                atomic_op!(concat!("atom.acquire.", $scope, ".", $space), $class, $op, $address, $value)
            }
            Order::Release => {
                atomic_op!(concat!("atom.release.", $scope, ".", $space), $class, $op, $address, $value)
            }
            Order::AcqRel => {
                atomic_op!(concat!("atom.acq_rel.", $scope, ".", $space), $class, $op, $address, $value)
            }
        }
    };
}

/// The same without the old value. `exch` has no such form.
macro_rules! reduce_op {
    ($space:literal, $class:ident, $op:expr, $address:expr, $value:expr) => {
        match $op {
            AtomicOp::Add => {
                asm!(concat!("red.relaxed.", $space, ".add.u32 [{}], {};"), in($class) $address, in(reg32) $value, options(nostack))
            }
            AtomicOp::Max => {
                asm!(concat!("red.relaxed.", $space, ".max.u32 [{}], {};"), in($class) $address, in(reg32) $value, options(nostack))
            }
            AtomicOp::Min => {
                asm!(concat!("red.relaxed.", $space, ".min.u32 [{}], {};"), in($class) $address, in(reg32) $value, options(nostack))
            }
            AtomicOp::Or => {
                asm!(concat!("red.relaxed.", $space, ".or.b32 [{}], {};"), in($class) $address, in(reg32) $value, options(nostack))
            }
            AtomicOp::Exchange => {
                asm!(concat!("st.relaxed.", $space, ".u32 [{}], {};"), in($class) $address, in(reg32) $value, options(nostack))
            }
        }
    };
}

macro_rules! load4 {
    ($instruction:literal, $class:ident, $address:expr, $($option:ident),*) => {{
        let (a, b, c, d): (u32, u32, u32, u32);
        asm!(
            concat!($instruction, ".v4.u32 {{{}, {}, {}, {}}}, [{}];"),
            out(reg32) a, out(reg32) b, out(reg32) c, out(reg32) d, in($class) $address,
            options(nostack $(, $option)*)
        );
        [a, b, c, d]
    }};
}

macro_rules! store2 {
    ($instruction:literal, $class:ident, $address:expr, $value:expr) => {{
        let [a, b] = $value;
        asm!(
            concat!($instruction, ".v2.u32 [{}], {{{}, {}}};"),
            in($class) $address, in(reg32) a, in(reg32) b,
            options(nostack)
        );
    }};
}

macro_rules! store4 {
    ($instruction:literal, $class:ident, $address:expr, $value:expr) => {{
        let [a, b, c, d] = $value;
        asm!(
            concat!($instruction, ".v4.u32 [{}], {{{}, {}, {}, {}}};"),
            in($class) $address, in(reg32) a, in(reg32) b, in(reg32) c, in(reg32) d,
            options(nostack)
        );
    }};
}

/// The primitives of [`Machine`](crate::machine::Machine) that are `asm!`, for the body of its implementation.
///
/// SAFETY of the blocks that name none of their own: register reads and arithmetic have no preconditions; for
/// memory accesses the trait passes the precondition on to the caller.
macro_rules! instructions {
    () => {
        #[inline(always)]
        fn grid_blocks() -> u32 {
            // Not an intrinsic, which the optimiser would keep in a register: the value is in the constant bank.
            let blocks: u32;
            unsafe { asm!("mov.u32 {}, %nctaid.x;", out(reg32) blocks, options(nomem, nostack)) };
            blocks
        }

        #[inline(always)]
        fn wait_for_earlier_launches() {
            // The compiler takes memory for written here: no access moves above it. Only loads of the read-only
            // path could, which it takes for functions of their address: the golden checks look for accesses
            // above the wait in the machine code.
            #[cfg(feature = "sm_90")]
            // SAFETY: the instruction takes no operands.
            unsafe {
                asm!("griddepcontrol.wait;", options(nostack))
            }
        }
        #[inline(always)]
        fn let_later_launches_start() {
            #[cfg(feature = "sm_90")]
            // SAFETY: the instruction takes no operands.
            unsafe {
                asm!("griddepcontrol.launch_dependents;", options(nostack))
            }
        }

        #[inline(always)]
        fn warp_add_up(mask: u32, value: u32, delta: u32) -> u32 {
            let sum: u32;
            // The shuffle itself says whether there is such a lane, and otherwise gives the own value.
            unsafe {
                asm!(
                    "{{",
                    ".reg .pred is_lane;",
                    "shfl.sync.up.b32 {sum}|is_lane, {value}, {delta}, 0, {mask};",
                    "@is_lane add.u32 {sum}, {sum}, {value};",
                    "}}",
                    sum = out(reg32) sum, value = in(reg32) value, delta = in(reg32) delta, mask = in(reg32) mask,
                    options(nomem, nostack)
                )
            };
            sum
        }

        #[inline(always)]
        fn shared_bytes() -> u32 {
            let bytes: u32;
            unsafe { asm!("mov.u32 {}, %dynamic_smem_size;", out(reg32) bytes, options(pure, nomem, nostack)) };
            bytes
        }
        #[inline(always)]
        fn shared_at_rank(address: u32, rank: u32) -> u32 {
            let remote: u32;
            unsafe {
                asm!("mapa.shared::cluster.u32 {}, {}, {};", out(reg32) remote, in(reg32) address, in(reg32) rank, options(pure, nomem, nostack))
            };
            remote
        }
        #[inline(always)]
        unsafe fn shared_load(address: u32) -> u32 {
            let value: u32;
            unsafe {
                asm!("ld.shared.u32 {}, [{}];", out(reg32) value, in(reg32) address, options(nostack, readonly, pure))
            };
            value
        }
        #[inline(always)]
        unsafe fn shared_load4(address: u32) -> [u32; 4] {
            unsafe { load4!("ld.shared", reg32, address, readonly, pure) }
        }
        #[inline(always)]
        unsafe fn shared_store(address: u32, value: u32) {
            unsafe { asm!("st.shared.u32 [{}], {};", in(reg32) address, in(reg32) value, options(nostack)) }
        }
        #[inline(always)]
        unsafe fn shared_store4(address: u32, value: [u32; 4]) {
            unsafe { store4!("st.shared", reg32, address, value) }
        }
        #[inline(always)]
        unsafe fn shared_atomic_load(order: Order, scope: Scope, address: u32) -> u32 {
            unsafe { atomic_load!("shared", reg32, address, order, scope) }
        }
        #[inline(always)]
        unsafe fn shared_atomic_store(order: Order, scope: Scope, address: u32, value: u32) {
            unsafe { atomic_store!("shared", reg32, address, value, order, scope) }
        }
        #[inline(always)]
        unsafe fn shared_atomic(op: AtomicOp, address: u32, value: u32) -> u32 {
            unsafe { atomic_op!("atom.relaxed.cta.shared", reg32, op, address, value) }
        }
        #[inline(always)]
        unsafe fn shared_reduce(op: AtomicOp, address: u32, value: u32) {
            unsafe { reduce_op!("cta.shared", reg32, op, address, value) }
        }
        #[inline(always)]
        unsafe fn shared_remote_load(address: u32) -> u32 {
            let value: u32;
            unsafe {
                asm!("ld.shared::cluster.u32 {}, [{}];", out(reg32) value, in(reg32) address, options(nostack))
            };
            value
        }
        #[inline(always)]
        unsafe fn shared_remote_store(address: u32, value: u32) {
            unsafe {
                asm!("st.shared::cluster.u32 [{}], {};", in(reg32) address, in(reg32) value, options(nostack))
            }
        }
        #[inline(always)]
        unsafe fn shared_remote_atomic(op: AtomicOp, address: u32, value: u32) -> u32 {
            unsafe { atomic_op!("atom.relaxed.cluster.shared::cluster", reg32, op, address, value) }
        }

        #[inline(always)]
        unsafe fn global_load(address: *const u32) -> u32 {
            let value: u32;
            unsafe {
                asm!("ld.global.u32 {}, [{}];", out(reg32) value, in(reg64) address, options(nostack, readonly, pure))
            };
            value
        }
        #[inline(always)]
        unsafe fn global_load4(address: *const u32) -> [u32; 4] {
            unsafe { load4!("ld.global", reg64, address, readonly, pure) }
        }
        #[inline(always)]
        unsafe fn global_load_readonly(address: *const u32) -> u32 {
            let value: u32;
            unsafe {
                asm!("ld.global.nc.u32 {}, [{}];", out(reg32) value, in(reg64) address, options(nostack, nomem, pure))
            };
            value
        }
        #[inline(always)]
        unsafe fn global_load4_readonly(address: *const u32) -> [u32; 4] {
            unsafe { load4!("ld.global.nc", reg64, address, nomem, pure) }
        }
        #[inline(always)]
        unsafe fn global_load4_speculative(address: *const u32) -> [u32; 4] {
            // Not `ld.global.nc`: the assembler reads that ahead of the wait for earlier launches, if the address is known.
            unsafe { load4!("ld.global", reg64, address, readonly, pure) }
        }
        #[inline(always)]
        unsafe fn global_load2_readonly(address: *const u32) -> [u32; 2] {
            let (a, b): (u32, u32);
            unsafe {
                asm!(
                    "ld.global.nc.v2.u32 {{{}, {}}}, [{}];", out(reg32) a, out(reg32) b, in(reg64) address,
                    options(nostack, nomem, pure)
                )
            };
            [a, b]
        }
        #[inline(always)]
        unsafe fn global_load_half_readonly(address: *const u16) -> u16 {
            let value: u16;
            unsafe {
                asm!("ld.global.nc.u16 {}, [{}];", out(reg16) value, in(reg64) address, options(nostack, nomem, pure))
            };
            value
        }
        #[inline(always)]
        unsafe fn global_prefetch(address: *const u8) {
            unsafe {
                asm!("prefetch.global.L2 [{}];", in(reg64) address, options(nostack, nomem, preserves_flags))
            }
        }
        #[inline(always)]
        unsafe fn copy_async(to: u32, from: *const u32) {
            unsafe {
                asm!("cp.async.cg.shared.global [{}], [{}], 16;", in(reg32) to, in(reg64) from, options(nostack))
            }
        }
        #[inline(always)]
        fn copy_async_group() {
            // SAFETY: the instruction takes no operands.
            unsafe { asm!("cp.async.commit_group;", options(nostack)) }
        }
        #[inline(always)]
        fn copy_async_wait<const PENDING: u32>() {
            // SAFETY: the instruction takes no operands in registers.
            unsafe { asm!("cp.async.wait_group {};", const PENDING, options(nostack)) }
        }
        #[inline(always)]
        unsafe fn global_store_half(address: *mut u16, value: u16) {
            unsafe { asm!("st.global.u16 [{}], {};", in(reg64) address, in(reg16) value, options(nostack)) }
        }
        #[inline(always)]
        unsafe fn global_store(address: *mut u32, value: u32) {
            unsafe { asm!("st.global.u32 [{}], {};", in(reg64) address, in(reg32) value, options(nostack)) }
        }
        #[inline(always)]
        unsafe fn global_store2(address: *mut u32, value: [u32; 2]) {
            unsafe { store2!("st.global", reg64, address, value) }
        }
        #[inline(always)]
        unsafe fn global_store4(address: *mut u32, value: [u32; 4]) {
            unsafe { store4!("st.global", reg64, address, value) }
        }
        #[inline(always)]
        unsafe fn global_atomic_load(order: Order, scope: Scope, address: *const u32) -> u32 {
            unsafe { atomic_load!("global", reg64, address, order, scope) }
        }
        #[inline(always)]
        unsafe fn global_atomic_store(order: Order, scope: Scope, address: *mut u32, value: u32) {
            unsafe { atomic_store!("global", reg64, address, value, order, scope) }
        }
        #[inline(always)]
        unsafe fn global_atomic(op: AtomicOp, order: Order, scope: Scope, address: *mut u32, value: u32) -> u32 {
            unsafe {
                match scope {
                    Scope::Block => atomic_orders!("cta", "global", reg64, op, order, address, value),
                    Scope::Cluster => atomic_orders!("cluster", "global", reg64, op, order, address, value),
                    Scope::Device => atomic_orders!("gpu", "global", reg64, op, order, address, value),
                }
            }
        }
        #[inline(always)]
        unsafe fn global_reduce(op: AtomicOp, address: *mut u32, value: u32) {
            unsafe { reduce_op!("gpu.global", reg64, op, address, value) }
        }

        #[inline(always)]
        fn fence(scope: Scope) {
            unsafe {
                match scope {
                    Scope::Block => asm!("fence.acq_rel.cta;", options(nostack)),
                    Scope::Cluster => asm!("fence.acq_rel.cluster;", options(nostack)),
                    Scope::Device => asm!("fence.acq_rel.gpu;", options(nostack)),
                }
            }
        }
        #[inline(always)]
        fn f32_to_f16(value: f32) -> u16 {
            let bits: u16;
            unsafe {
                asm!("cvt.rn.f16.f32 {}, {};", out(reg16) bits, in(reg32) value, options(pure, nomem, nostack))
            };
            bits
        }
        #[inline(always)]
        fn f16_to_f32(bits: u16) -> f32 {
            let value: f32;
            unsafe {
                asm!("cvt.f32.f16 {}, {};", out(reg32) value, in(reg16) bits, options(pure, nomem, nostack))
            };
            value
        }
        #[inline(always)]
        fn half_pair(low: f32, high: f32) -> u32 {
            let pair: u32;
            unsafe {
                // The sum turns -0.0 into +0.0; the maximum of NaN and a number is the number.
                asm!(
                    "cvt.rn.f16x2.f32 {pair}, {high}, {low};",
                    "add.rn.f16x2 {pair}, {pair}, {zero};",
                    "max.f16x2 {pair}, {pair}, {lowest};",
                    pair = out(reg32) pair, high = in(reg32) high, low = in(reg32) low,
                    zero = in(reg32) 0, lowest = in(reg32) 0xfc00_fc00_u32,
                    options(pure, nomem, nostack)
                )
            };
            pair
        }
        #[inline(always)]
        fn half_pair_at_least(pair: u32, bounds: u32) -> u32 {
            let mask: u32;
            unsafe {
                asm!(
                    "set.ge.u32.f16x2 {}, {}, {};", out(reg32) mask, in(reg32) pair, in(reg32) bounds,
                    options(pure, nomem, nostack)
                )
            };
            mask
        }
        #[inline(always)]
        fn bf16_pair_at_least(pair: u32, bounds: u32) -> u32 {
            let mask: u32;
            #[cfg(feature = "sm_90")]
            unsafe {
                asm!(
                    "set.ge.u32.bf16x2 {}, {}, {};", out(reg32) mask, in(reg32) pair, in(reg32) bounds,
                    options(pure, nomem, nostack)
                )
            };
            #[cfg(not(feature = "sm_90"))]
            {
                // There is no such instruction before. A bf16 number is the upper half of an f32.
                let is_at_least = |shift: u32| {
                    let [value, bound] = [pair, bounds].map(|pair| f32::from_bits(pair << shift & 0xffff_0000));
                    value >= bound
                };
                mask = if is_at_least(16) { 0xffff } else { 0 } | if is_at_least(0) { 0xffff_0000 } else { 0 };
            }
            mask
        }
        #[inline(always)]
        fn bf16_pair(low: f32, high: f32) -> u32 {
            let pair: u32;
            unsafe {
                asm!(
                    "cvt.rn.bf16x2.f32 {}, {}, {};", out(reg32) pair, in(reg32) high, in(reg32) low,
                    options(pure, nomem, nostack)
                )
            };
            pair
        }
        #[inline(always)]
        fn fma(a: f32, b: f32, c: f32) -> f32 {
            let sum: f32;
            unsafe {
                asm!(
                    "fma.rn.f32 {}, {}, {}, {};", out(reg32) sum, in(reg32) a, in(reg32) b, in(reg32) c,
                    options(pure, nomem, nostack)
                )
            };
            sum
        }
        #[inline(always)]
        fn exp2(value: f32) -> f32 {
            let power: f32;
            unsafe {
                asm!("ex2.approx.ftz.f32 {}, {};", out(reg32) power, in(reg32) value, options(pure, nomem, nostack))
            };
            power
        }
        #[inline(always)]
        fn log2(value: f32) -> f32 {
            let logarithm: f32;
            unsafe {
                asm!("lg2.approx.f32 {}, {};", out(reg32) logarithm, in(reg32) value, options(pure, nomem, nostack))
            };
            logarithm
        }
        #[inline(always)]
        fn rsqrt(value: f32) -> f32 {
            let root: f32;
            unsafe {
                asm!("rsqrt.approx.f32 {}, {};", out(reg32) root, in(reg32) value, options(pure, nomem, nostack))
            };
            root
        }
        #[inline(always)]
        fn reciprocal(value: f32) -> f32 {
            let reciprocal: f32;
            unsafe {
                asm!(
                    "rcp.approx.ftz.f32 {}, {};", out(reg32) reciprocal, in(reg32) value,
                    options(pure, nomem, nostack)
                )
            };
            reciprocal
        }
        #[inline(always)]
        fn truncate(value: f32) -> u32 {
            let number: u32;
            unsafe {
                asm!(
                    "cvt.rzi.u32.f32 {}, {};", out(reg32) number, in(reg32) value,
                    options(pure, nomem, nostack)
                )
            };
            number
        }
        #[inline(always)]
        fn opaque(value: u32) -> u32 {
            let same: u32;
            unsafe { asm!("mov.u32 {}, {};", out(reg32) same, in(reg32) value, options(nomem, nostack)) };
            same
        }
        #[inline(always)]
        fn opaque_address(address: *mut u32) -> *mut u32 {
            let same: *mut u32;
            unsafe { asm!("mov.u64 {}, {};", out(reg64) same, in(reg64) address, options(nomem, nostack)) };
            same
        }
        #[inline(always)]
        fn spin_hint() {
            unsafe { asm!("nanosleep.u32 20;", options(nostack)) }
        }
        #[inline(always)]
        fn check_index(_space: Space, _index: usize, _count: usize, _length: usize) {}
    };
}
