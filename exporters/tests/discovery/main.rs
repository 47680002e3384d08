//! Discovery against what it is made for: a folder whose files are replaced, name servers that
//! answer well and badly, and real etcd and Consul servers that are stopped, restarted and emptied.
//!
//! etcd and Consul are found by the environment variables FOREBAY_ETCD and FOREBAY_CONSUL, or where
//! `.ci/packages` and `tests/interop/install` put them. In CI a missing one is a failure.

#[cfg(test)]
mod consul;
#[cfg(test)]
mod dns;
#[cfg(test)]
mod etcd;
#[cfg(test)]
mod file;
#[cfg(test)]
mod name_server;
#[cfg(test)]
mod rig;
#[cfg(test)]
mod secured;
#[cfg(test)]
mod server;
