//! Nothing: the work is in the build script, which is where `cuda_builder` is made to run.
