//! Exporter cores against real peers over loopback TCP: what arrives, how often, and what each
//! batch is told. Peers are tonic and hyper where a proper server is wanted, and plain sockets
//! where an improper one is.

#[cfg(test)]
mod cable;
#[cfg(test)]
mod fleet;
#[cfg(test)]
mod given_back;
#[cfg(test)]
mod grpc;
#[cfg(test)]
mod grpc_peer;
#[cfg(test)]
mod http;
#[cfg(test)]
mod http_peer;
#[cfg(test)]
mod lanes;
#[cfg(test)]
mod local;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod pool;
#[cfg(test)]
mod rig;
