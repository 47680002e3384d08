//! What we write the kernel could have written: it reads back as it was. Whatever the kernel
//! writes is read without a panic.

use super::*;
use crate::ring::fake::Dice;

fn said(written: &Written) -> Said {
    read(written.bytes())
}

#[test]
fn what_is_written_for_a_send_reads_back_as_it_was() {
    let addresses = ["192.0.2.1:4318", "[2001:db8::7]:4318", "[::ffff:192.0.2.9]:1"];
    let locals = ["192.0.2.200", "2001:db8::8", "::ffff:192.0.2.200", "0.0.0.0", "::"];
    let mut kept = 0;
    for to in addresses.map(|to| to.parse::<SocketAddr>().unwrap()) {
        for from in locals.map(|from| from.parse::<IpAddr>().unwrap()) {
            for ecn in 0..4 {
                for segment_bytes in [None, Some(1), Some(1452), Some(u16::MAX)] {
                    let mut written = Written::new();
                    written.write(&to, Some(from), ecn, segment_bytes);
                    let from = from.to_canonical();
                    let fits = from.is_ipv4() == to.ip().to_canonical().is_ipv4();
                    let local = Some(from).filter(|from| fits && !from.is_unspecified());
                    kept += usize::from(local.is_some());
                    // The segment length of a send has the type of its own that a receive lacks.
                    let expected = Said { local, ecn, segment_bytes: None };
                    assert_eq!(said(&written), expected, "{to} {from} {ecn} {segment_bytes:?}");
                }
            }
        }
    }
    assert!(kept > 0);
}

#[test]
fn a_segment_length_of_the_kernel_is_read_and_nonsense_is_not() {
    for (bytes, expected) in [(1452, Some(1452)), (0, None), (-1, None)] {
        let mut written = Written::new();
        written.push(libc::SOL_UDP, 12_345, b"what later kernels may say");
        written.push(libc::SOL_UDP, libc::UDP_GRO, &i32::to_ne_bytes(bytes));
        assert_eq!(said(&written).segment_bytes, expected);
    }
}

#[test]
fn an_address_reads_back_as_it_was_on_a_socket_of_either_family() {
    for address in ["192.0.2.1:4318", "[2001:db8::7]:65535", "[fe80::1%7]:1"] {
        let address: SocketAddr = address.parse().unwrap();
        for is_ipv6 in [false, true] {
            let mut name = [0xff; NAME_BYTES];
            let length = write_address(&address, is_ipv6, &mut name);
            assert_eq!(read_address(&name[..length]), Some(address));
            for cut in 0..length {
                let _ = read_address(&name[..cut]);
            }
        }
    }
    assert_eq!(read_address(&[1; NAME_BYTES]), None, "a family that nobody knows");
}

#[test]
fn no_control_bytes_make_the_reader_panic_or_run_for_ever() {
    for seed in 0..20_000 {
        let mut dice = Dice::new(seed);
        let mut written = Written::new();
        let to: SocketAddr = "192.0.2.1:1".parse().unwrap();
        written.write(&to, Some(to.ip()), 1, Some(7));
        let mut control = written.bytes().to_vec();
        for _ in 0..1 + dice.below(6) {
            let at = dice.below(control.len() as u64) as usize;
            control[at] = dice.number() as u8;
        }
        control.truncate(dice.below(1 + control.len() as u64) as usize);
        assert!(read(&control).ecn < 4, "seed {seed}");
    }
}
