//! Chains of launches: captured once, replayed for each measurement.

use dsa_kernels::{Device, Error, Event, Graph, Stream};

/// Fewest launches of a graph.
pub const CHAIN: usize = 40;

/// Graphs to be replayed one after the other, in a cycle.
pub struct Chain {
    graphs: Vec<Graph>,
    launches_per_graph: usize,
    next: usize,
    stream: Stream,
    begin: Event,
    end: Event,
}

impl Chain {
    /// Captures `plan`; `enqueue` puts one launch, that reads the given input, on the stream.
    pub fn capture(
        device: &Device,
        stream: &Stream,
        plan: &Rotation,
        mut enqueue: impl FnMut(&Stream, usize) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let mut graphs = Vec::with_capacity(plan.graphs);
        let mut launch = 0;
        for _ in 0..plan.graphs {
            graphs.push(Graph::capture(stream, |stream| {
                for _ in 0..plan.launches_per_graph {
                    enqueue(stream, launch % plan.inputs)?;
                    launch += 1;
                }
                Ok(())
            })?);
        }
        Ok(Self {
            graphs,
            launches_per_graph: plan.launches_per_graph,
            next: 0,
            stream: stream.clone(),
            begin: Event::new(device)?,
            end: Event::new(device)?,
        })
    }

    /// Replays `replays` graphs; microseconds per launch, times `replays`.
    pub fn replay(&mut self, replays: u64) -> Result<f64, Error> {
        self.begin.record(&self.stream)?;
        for _ in 0..replays {
            self.graphs[self.next].launch(&self.stream)?;
            self.next = (self.next + 1) % self.graphs.len();
        }
        self.end.record(&self.stream)?;
        Ok(self.end.elapsed_us(&self.begin)? / self.launches_per_graph as f64)
    }

    /// Launches of one graph.
    pub fn launches_per_graph(&self) -> usize {
        self.launches_per_graph
    }
}

/// Which input each launch of a cycle of graphs reads: launch `i` reads input `i % inputs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Different inputs.
    pub inputs: usize,
    /// Graphs of a cycle.
    pub graphs: usize,
    /// Launches of each graph.
    pub launches_per_graph: usize,
}

impl Rotation {
    /// Every launch reads the same input.
    pub const HOT: Self = Self { inputs: 1, graphs: 1, launches_per_graph: CHAIN };

    /// Between two launches that read the same input, more than twice `l2_bytes` are read.
    ///
    /// Each input has `bytes` bytes that are read. A cycle of graphs uses every input equally often, so
    /// that this also holds from the end of a cycle to its beginning.
    pub fn cold(bytes: u64, l2_bytes: u64) -> Self {
        let inputs = (2 * l2_bytes / bytes.max(1)) as usize + 1;
        if inputs <= CHAIN {
            let launches_per_graph = inputs * CHAIN.div_ceil(inputs);
            return Self { inputs, graphs: 1, launches_per_graph };
        }
        let graphs = inputs.div_ceil(CHAIN);
        Self { inputs: graphs * CHAIN, graphs, launches_per_graph: CHAIN }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const L2: u64 = 60 << 20;

    #[test]
    fn a_cycle_uses_every_input_equally_often() {
        for bytes in [1, 12 << 10, 1 << 20, 3 << 20, 7_340_032, 33 << 20, 268 << 20] {
            let plan = Rotation::cold(bytes.max(4096), L2);
            assert!(plan.launches_per_graph >= CHAIN, "{plan:?}");
            assert_eq!(plan.graphs * plan.launches_per_graph % plan.inputs, 0, "{bytes} bytes: {plan:?}");
        }
    }

    #[test]
    fn more_than_twice_the_cache_is_read_before_an_input_returns() {
        for bytes in [12 << 10, 1 << 20, 3 << 20, 7_340_032, 33 << 20, 2 * L2 - 1, 2 * L2, 268 << 20] {
            let plan = Rotation::cold(bytes, L2);
            assert!(plan.inputs as u64 * bytes > 2 * L2, "{bytes} bytes: {plan:?}");
        }
        assert_eq!(Rotation::cold(268 << 20, L2).inputs, 1);
    }

    #[test]
    fn launches_take_the_inputs_in_turn_across_graphs() {
        let device = Device::emulator();
        let stream = device.stream().unwrap();
        let mut taken = Vec::new();
        let plan = Rotation { inputs: 6, graphs: 3, launches_per_graph: 4 };
        let chain = Chain::capture(&device, &stream, &plan, |_, input| {
            taken.push(input);
            Ok(())
        });
        assert_eq!(chain.unwrap().launches_per_graph(), 4);
        assert_eq!(taken, [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn replays_run_the_graphs_in_a_cycle() {
        let device = Device::emulator();
        let stream = device.stream().unwrap();
        let buffers = [0u8; 3].map(|byte| device.upload(&[byte; 4]).unwrap());
        let plan = Rotation { inputs: 3, graphs: 3, launches_per_graph: 1 };
        let mut chain =
            Chain::capture(&device, &stream, &plan, |stream, input| buffers[input].fill_async(stream, 7))
                .unwrap();
        let written = || buffers.each_ref().map(|buffer| buffer.download().unwrap()[0]);
        chain.replay(2).unwrap();
        assert_eq!(written(), [7, 7, 0]);
        chain.replay(1).unwrap();
        assert_eq!(written(), [7, 7, 7]);
    }
}
