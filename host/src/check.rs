//! Checks that operators share.

use crate::{DeviceProperties, Error};

/// Refuses an address that is null or not a multiple of `alignment` bytes.
pub(crate) fn check_address(argument: &'static str, address: u64, alignment: u64) -> Result<(), Error> {
    if address == 0 {
        return Err(Error::argument(argument, "null", "a device address", "pass allocated device memory"));
    }
    if !address.is_multiple_of(alignment) {
        let value = format!("{address:#x}");
        let limit = format!("aligned to {alignment} bytes");
        return Err(Error::argument(argument, value, limit, "pass the address of an element"));
    }
    Ok(())
}

/// Refuses a number that is not in `low..=high`.
pub(crate) fn check_range(
    argument: &'static str,
    value: u32,
    low: u32,
    high: u32,
    help: &'static str,
) -> Result<(), Error> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(Error::argument(argument, value, format!("{low}..={high}"), help))
}

/// Refuses a device whose blocks cannot have `needed` bytes of shared memory.
pub(crate) fn check_shared_bytes(device: &DeviceProperties, needed: u32) -> Result<(), Error> {
    let found = device.shared_bytes_per_block;
    if found >= needed {
        return Ok(());
    }
    let limit = format!("at least {needed} bytes");
    Err(Error::argument("shared memory per block", found, limit, "use another device"))
}

/// Refuses a device that nothing can run on.
pub(crate) fn check_multiprocessors(device: &DeviceProperties) -> Result<(), Error> {
    if device.multiprocessors > 0 {
        return Ok(());
    }
    let help = "use a device with multiprocessors, or set EmulatorOptions::multiprocessors";
    Err(Error::argument("multiprocessors of the device", 0, "at least 1", help))
}
