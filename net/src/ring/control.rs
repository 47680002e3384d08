//! Addresses and control messages (`cmsg`) as the kernel lays them out, read and written as bytes.
//!
//! Beside a datagram's payload the kernel says, and is told, the local address, the ECN bits and
//! the segment length. Numbers are the host's, but for ports and addresses, which are the
//! network's. What is not known is passed over; nothing here panics on what the kernel wrote.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Room for an address of either family.
pub(super) const NAME_BYTES: usize = 32;
/// What a datagram to us may bring: addresses, ECN, segment length, those of both families.
pub(super) const CONTROL_BYTES: usize = 144;
/// What a datagram of ours may need: one address, ECN, segment length.
const WRITTEN_BYTES_MAX: usize = 96;

/// A length, then level and type; the data follows, and the next message at a border of words.
const HEAD_BYTES: usize = WORD_BYTES + 8;
const WORD_BYTES: usize = size_of::<usize>();

const FAMILY_IPV4: u16 = libc::AF_INET as u16;
const FAMILY_IPV6: u16 = libc::AF_INET6 as u16;

/// What the control messages of a receive say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) local: Option<IpAddr>,
    pub(super) ecn: u8,
    pub(super) segment_bytes: Option<usize>,
}

pub(super) fn read(mut control: &[u8]) -> Said {
    let mut said = Said::default();
    while let Some(length) = control.first_chunk().map(|word| usize::from_ne_bytes(*word)) {
        let Some(message) = control.get(..length).filter(|message| message.len() >= HEAD_BYTES)
        else {
            break;
        };
        let (head, data) = message.split_at(HEAD_BYTES);
        said.hear(number(&head[WORD_BYTES..]), number(&head[WORD_BYTES + 4..]), data);
        control = control.get(length.next_multiple_of(WORD_BYTES)..).unwrap_or(&[]);
    }
    said
}

impl Said {
    fn hear(&mut self, level: i32, kind: i32, data: &[u8]) {
        match (level, kind) {
            // The interface, the address that an answer is to come from, the one in the packet.
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                let address = data.get(4..).and_then(|data| data.first_chunk::<4>());
                self.local = address.map(|octets| IpAddr::from(*octets)).or(self.local);
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let address = data.first_chunk::<16>();
                let address = address.map(|octets| Ipv6Addr::from(*octets).to_canonical());
                self.local = address.or(self.local);
            }
            (libc::IPPROTO_IP, libc::IP_TOS) => self.ecn = data.first().map_or(0, |tos| tos & 3),
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => self.ecn = number(data) as u8 & 3,
            (libc::SOL_UDP, libc::UDP_GRO) => {
                self.segment_bytes = usize::try_from(number(data)).ok().filter(|bytes| *bytes > 0);
            }
            _ => {}
        }
    }
}

fn number(bytes: &[u8]) -> i32 {
    bytes.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes))
}

/// Control messages for a send.
#[repr(C, align(8))]
pub(super) struct Written {
    bytes: [u8; WRITTEN_BYTES_MAX],
    length: usize,
}

impl Written {
    pub(super) fn new() -> Written {
        Written { bytes: [0; WRITTEN_BYTES_MAX], length: 0 }
    }

    /// What a datagram to an address of the family of `to` is to carry. `segment_bytes`: where the
    /// kernel is to cut it.
    pub(super) fn write(
        &mut self,
        to: &SocketAddr,
        from: Option<IpAddr>,
        ecn: u8,
        segment_bytes: Option<u16>,
    ) {
        self.length = 0;
        let is_ipv4 = to.ip().to_canonical().is_ipv4();
        match from.map(|from| from.to_canonical()).filter(|from| !from.is_unspecified()) {
            Some(IpAddr::V4(from)) if is_ipv4 => {
                let mut info = [0; 12];
                info[4..8].copy_from_slice(&from.octets());
                self.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            Some(IpAddr::V6(from)) if !is_ipv4 => {
                let mut info = [0; 20];
                info[..16].copy_from_slice(&from.octets());
                self.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
            _ => {}
        }
        let bits = i32::from(ecn).to_ne_bytes();
        match is_ipv4 {
            _ if ecn == 0 => {}
            true => self.push(libc::IPPROTO_IP, libc::IP_TOS, &bits),
            false => self.push(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &bits),
        }
        if let Some(bytes) = segment_bytes {
            self.push(libc::SOL_UDP, libc::UDP_SEGMENT, &bytes.to_ne_bytes());
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn push(&mut self, level: i32, kind: i32, data: &[u8]) {
        let room = &mut self.bytes[self.length..];
        let length = HEAD_BYTES + data.len();
        room[..WORD_BYTES].copy_from_slice(&length.to_ne_bytes());
        room[WORD_BYTES..][..4].copy_from_slice(&level.to_ne_bytes());
        room[WORD_BYTES + 4..][..4].copy_from_slice(&kind.to_ne_bytes());
        room[HEAD_BYTES..length].copy_from_slice(data);
        self.length += length.next_multiple_of(WORD_BYTES);
    }
}

/// The address that the kernel wrote, an IPv4 one also where an IPv6 socket has it.
pub(super) fn read_address(name: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(*name.first_chunk()?);
    let port = u16::from_be_bytes(*name.get(2..)?.first_chunk()?);
    match family {
        FAMILY_IPV4 => {
            let octets: &[u8; 4] = name.get(4..)?.first_chunk()?;
            Some(SocketAddr::from((Ipv4Addr::from(*octets), port)))
        }
        FAMILY_IPV6 => {
            let octets: &[u8; 16] = name.get(8..)?.first_chunk()?;
            let address = Ipv6Addr::from(*octets);
            let scope = u32::from_ne_bytes(*name.get(24..)?.first_chunk()?);
            Some(match address.to_canonical() {
                IpAddr::V4(address) => SocketAddr::from((address, port)),
                IpAddr::V6(_) => SocketAddr::V6(SocketAddrV6::new(address, port, 0, scope)),
            })
        }
        _ => None,
    }
}

/// Writes an address as a socket of this family wants it; says how long it is.
pub(super) fn write_address(
    address: &SocketAddr,
    is_ipv6: bool,
    name: &mut [u8; NAME_BYTES],
) -> usize {
    *name = [0; NAME_BYTES];
    name[2..4].copy_from_slice(&address.port().to_be_bytes());
    let octets = match address.ip().to_canonical() {
        IpAddr::V4(address) if !is_ipv6 => {
            name[..2].copy_from_slice(&FAMILY_IPV4.to_ne_bytes());
            name[4..8].copy_from_slice(&address.octets());
            return 16;
        }
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    };
    let scope = match address {
        SocketAddr::V4(_) => 0,
        SocketAddr::V6(address) => address.scope_id(),
    };
    name[..2].copy_from_slice(&FAMILY_IPV6.to_ne_bytes());
    name[8..24].copy_from_slice(&octets);
    name[24..28].copy_from_slice(&scope.to_ne_bytes());
    28
}

#[cfg(test)]
mod tests;
