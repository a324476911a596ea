//! Dynamic shared memory.

use core::arch::asm;

/// The first byte of the block's dynamic shared memory, as a generic address.
///
/// The symbol is the one that `cargo xtask ptx` declares; `cuda_std` declares its own.
#[inline(always)]
pub fn dynamic_shared_mem<T>() -> *mut T {
    let address: *mut T;
    // SAFETY: an address is formed, nothing is accessed.
    unsafe {
        asm!(
            "mov.u64 {address}, dsa_dynamic_shared;",
            "cvta.shared.u64 {address}, {address};",
            address = out(reg64) address, options(pure, nomem, nostack)
        )
    };
    address
}
