//! The emulator, used directly.

use std::error::Error;

use dsa_kernels::{Device, DeviceProperties, LaunchConfig, Module};
use dsa_simt::emu::{Launch, Memory, run};

use crate::Binding;

pub(crate) struct Emulated {
    memory: Memory,
    properties: DeviceProperties,
}

impl Emulated {
    pub(crate) fn new() -> Self {
        Self { memory: Memory::new(), properties: Device::emulator().properties().clone() }
    }
}

impl Binding for Emulated {
    fn properties(&self) -> &DeviceProperties {
        &self.properties
    }

    fn upload(&self, bytes: &[u8]) -> Result<u64, Box<dyn Error>> {
        let address = self.memory.allocate(bytes.len().max(1), "example")?;
        self.memory.write(address, bytes)?;
        Ok(address)
    }

    fn download(&self, address: u64, len: usize) -> Result<Vec<u8>, Box<dyn Error>> {
        let mut bytes = vec![0; len];
        self.memory.read(address, &mut bytes)?;
        Ok(bytes)
    }

    fn launch(
        &self,
        module: &Module,
        entry: &str,
        config: LaunchConfig,
        slots: &[u64],
    ) -> Result<(), Box<dyn Error>> {
        let launch = Launch::new(config.grid, config.block)
            .with_cluster(config.cluster)
            .with_shared_bytes(config.shared_bytes)
            .with_cooperative(config.cooperative)
            .with_overlap(config.overlap);
        run(&self.memory, module.entry(entry)?, &launch, slots)?;
        Ok(())
    }
}
