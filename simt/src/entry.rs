//! Entry points: declared once, known to every backend.

/// What the host side knows about a kernel: its launch bounds, its parameters and how to emulate it.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Name of the symbol in the PTX.
    pub name: &'static str,
    /// Most threads a block may have: `.maxntid`.
    pub max_threads: u32,
    /// Blocks of that size that must fit on one multiprocessor by registers: `.minnctapersm`.
    pub min_blocks: u32,
    /// Blocks of a cluster: `.reqnctapercluster`; 1 for none, 0 for as many as the launch says.
    pub cluster: u32,
    /// Lowest compute capability, as in `80` for 8.0.
    pub min_arch: u32,
    /// Parameters in order.
    pub parameters: &'static [Parameter],
    /// Runs one thread of the kernel on the emulator. Each parameter is one slot.
    ///
    /// # Safety
    /// One slot per parameter, each holding a valid value of the parameter's type.
    #[cfg(not(target_arch = "nvptx64"))]
    pub thread: unsafe fn(&[u64]),
}

/// One parameter of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name in the source.
    pub name: &'static str,
    /// Its Rust type.
    pub ty: &'static str,
}

/// A type that a kernel parameter may have: it travels as one 64-bit slot.
///
/// The driver reads the low bytes of a slot that holds a smaller type (all hosts of CUDA are little-endian).
pub trait Slot: Copy {
    /// The slot that holds this value.
    fn to_slot(self) -> u64;
    /// The value that a slot holds.
    fn from_slot(slot: u64) -> Self;
}

impl<T> Slot for *const T {
    fn to_slot(self) -> u64 {
        self as u64
    }
    fn from_slot(slot: u64) -> Self {
        slot as *const T
    }
}

impl<T> Slot for *mut T {
    fn to_slot(self) -> u64 {
        self as u64
    }
    fn from_slot(slot: u64) -> Self {
        slot as *mut T
    }
}

impl Slot for u64 {
    fn to_slot(self) -> u64 {
        self
    }
    fn from_slot(slot: u64) -> Self {
        slot
    }
}

impl Slot for u32 {
    fn to_slot(self) -> u64 {
        u64::from(self)
    }
    fn from_slot(slot: u64) -> Self {
        slot as u32
    }
}

impl Slot for i32 {
    fn to_slot(self) -> u64 {
        u64::from(self.cast_unsigned())
    }
    fn from_slot(slot: u64) -> Self {
        (slot as u32).cast_signed()
    }
}

impl Slot for f32 {
    fn to_slot(self) -> u64 {
        u64::from(self.to_bits())
    }
    fn from_slot(slot: u64) -> Self {
        f32::from_bits(slot as u32)
    }
}

/// Declares the kernels of a crate and the table of them.
///
/// ```
/// # use dsa_simt as simt;
/// simt::kernels! {
///     /// The kernels of this crate.
///     pub static ENTRIES;
///
///     /// Doubles `len` words of `data`.
///     #[launch(max_threads = 256, min_blocks = 1, cluster = 1, arch = 80)]
///     kernel double(data: *mut u32, len: u32) {
///         // SAFETY: the launcher promises that `data` holds `len` words.
///         let data = unsafe { simt::Global::from_raw(data, len as usize) };
///         let i = simt::block::index() * simt::block::threads() + simt::thread::index();
///         if i < len {
///             data.set(i as usize, 2 * data.get(i as usize));
///         }
///     }
/// }
/// assert_eq!(ENTRIES[0].name, "double");
/// ```
///
/// On the GPU each kernel becomes an entry point: with stock `rustc` by the ABI `ptx-kernel`, with rust-cuda by the
/// attribute `cuda_std::kernel`. Elsewhere it is a plain function and a row of the table, which is also where the PTX
/// post-processing takes the launch bounds from.
/// A kernel with `arch = 90` is compiled for the GPU only with the declaring crate's feature `sm_90`.
#[macro_export]
macro_rules! kernels {
    (
        $(#[$table_meta:meta])*
        $vis:vis static $table:ident;
        $(
            $(#[doc = $doc:expr])*
            #[launch(max_threads = $threads:expr, min_blocks = $blocks:expr, cluster = $cluster:expr, arch = $arch:tt)]
            kernel $name:ident ( $( $arg:ident : $ty:ty ),* $(,)? ) $body:block
        )*
    ) => {
        $(
            $crate::kernels!(@entry $arch [$(#[doc = $doc])*] $name ( $( $arg : $ty ),* ) $body);
        )*

        $(#[$table_meta])*
        #[cfg(not(target_arch = "nvptx64"))]
        $vis static $table: &[$crate::Entry] = &[
            $(
                $crate::Entry {
                    name: stringify!($name),
                    max_threads: $threads,
                    min_blocks: $blocks,
                    cluster: $cluster,
                    min_arch: $arch,
                    parameters: &[
                        $( $crate::Parameter { name: stringify!($arg), ty: stringify!($ty) } ),*
                    ],
                    thread: {
                        unsafe fn thread(slots: &[u64]) {
                            let mut slots = slots.iter();
                            $(
                                let $arg = <$ty as $crate::Slot>::from_slot(
                                    *slots.next().expect("one slot per parameter"),
                                );
                            )*
                            // SAFETY: the caller's promise about the slots.
                            unsafe { $name( $( $arg ),* ) }
                        }
                        thread
                    },
                }
            ),*
        ];
    };
    (@entry 80 [$($meta:tt)*] $name:ident ( $( $arg:ident : $ty:ty ),* ) $body:block) => {
        $crate::kernels!(@function [] [$($meta)*] $name ( $( $arg : $ty ),* ) $body);
    };
    (@entry 90 [$($meta:tt)*] $name:ident ( $( $arg:ident : $ty:ty ),* ) $body:block) => {
        $crate::kernels!(
            @function
            [#[cfg(any(not(target_arch = "nvptx64"), feature = "sm_90"))]]
            [$($meta)*] $name ( $( $arg : $ty ),* ) $body
        );
    };
    (@function [$($cfg:tt)*] [$($meta:tt)*] $name:ident ( $( $arg:ident : $ty:ty ),* ) $body:block) => {
        $crate::entry_point! {
            $($cfg)*
            $($meta)*
            ///
            /// # Safety
            /// A kernel entry point: launched by the host with arguments that satisfy its documentation.
            #[allow(clippy::too_many_arguments)]
            fn $name( $( $arg : $ty ),* ) $body
        }
    };
}

/// A kernel's function as the backend's compiler wants an entry point. For [`kernels!`].
///
/// One macro for each backend, not one with conditions: those would be about the features of the declaring crate.
#[cfg(all(target_arch = "nvptx64", not(feature = "rust-cuda")))]
#[doc(hidden)]
#[macro_export]
macro_rules! entry_point {
    ($(#[$meta:meta])* fn $name:ident ( $( $arg:ident : $ty:ty ),* ) $body:block) => {
        $(#[$meta])*
        #[unsafe(no_mangle)]
        pub unsafe extern "ptx-kernel" fn $name( $( $arg : $ty ),* ) $body
    };
}

/// A kernel's function as the backend's compiler wants an entry point. For [`kernels!`].
#[cfg(all(target_arch = "nvptx64", feature = "rust-cuda"))]
#[doc(hidden)]
#[macro_export]
macro_rules! entry_point {
    ($(#[$meta:meta])* fn $name:ident ( $( $arg:ident : $ty:ty ),* ) $body:block) => {
        $(#[$meta])*
        #[$crate::cuda_std::kernel]
        pub unsafe fn $name( $( $arg : $ty ),* ) $body
    };
}

/// A kernel's function as the backend's compiler wants an entry point. For [`kernels!`].
#[cfg(not(target_arch = "nvptx64"))]
#[doc(hidden)]
#[macro_export]
macro_rules! entry_point {
    ($(#[$meta:meta])* fn $name:ident ( $( $arg:ident : $ty:ty ),* ) $body:block) => {
        $(#[$meta])*
        pub unsafe fn $name( $( $arg : $ty ),* ) $body
    };
}

/// The panic handler of a crate of kernels: a kernel that panics stops the launch with an error the host sees.
///
/// With rust-cuda it is `cuda_std`'s, off the GPU `std`'s, and this is nothing.
#[cfg(all(target_arch = "nvptx64", not(feature = "rust-cuda")))]
#[macro_export]
macro_rules! panic_handler {
    () => {
        #[panic_handler]
        fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
            $crate::trap()
        }
    };
}

/// The panic handler of a crate of kernels: a kernel that panics stops the launch with an error the host sees.
///
/// With rust-cuda it is `cuda_std`'s, off the GPU `std`'s, and this is nothing.
#[cfg(not(all(target_arch = "nvptx64", not(feature = "rust-cuda"))))]
#[macro_export]
macro_rules! panic_handler {
    () => {};
}
