//! The host: its cores, limits and kernel, and who runs where. Reads the host, never changes it.

pub mod cores;
pub mod cpulist;
pub mod host;
