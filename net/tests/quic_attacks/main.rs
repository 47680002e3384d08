//! QUIC and HTTP/3 under attack, in virtual time and without a socket: strangers that forge their
//! addresses, clients that flood, stall and break the rules, and whoever else is on the way.
//!
//! Each attack is held to three things: what becomes of it, which counter shows it, and what it
//! may cost. Beside it somebody honest is served. `stage` is the server, `caller` a client by
//! quinn, `forge` packets made by hand.

mod addresses;
#[path = "../tls/blind.rs"]
mod blind;
mod caller;
mod codes;
mod floods;
mod forge;
mod forgeries;
mod gaps;
mod handshakes;
#[path = "../simulation_quic/papers.rs"]
mod papers;
mod slow;
mod stage;
#[allow(dead_code, reason = "the simulation talks more than this")]
#[path = "../simulation/talk.rs"]
mod talk;
#[allow(dead_code, reason = "a day of the simulation has more terms")]
#[path = "../simulation_quic/terms.rs"]
mod terms;
#[allow(dead_code, reason = "the simulation's requests are others")]
#[path = "../simulation_quic/wire.rs"]
mod wire;
