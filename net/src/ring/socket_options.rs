//! Socket options that the safe crates don't know: what datagram sockets need to say and to hear.
//!
//! Each is one number or one program; the kernel copies it before the call returns.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// One instruction of a classic BPF program.
pub(crate) use libc::sock_filter as Instruction;

pub(crate) fn set_number(
    socket: impl AsFd,
    level: c_int,
    name: c_int,
    number: c_int,
) -> io::Result<()> {
    set(socket, level, name, &number)
}

/// Gives the reuseport group of `socket` the program that picks a datagram's socket, by place.
pub(crate) fn attach_reuseport_program(
    socket: impl AsFd,
    program: &mut [Instruction],
) -> io::Result<()> {
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    set(socket, libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, &program)
}

fn set<T>(socket: impl AsFd, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    let value: *const T = value;
    // SAFETY: `value` points at a whole `T` that lives until the call returns, and so does what it
    // points at in turn; the kernel reads no more than the length says, and writes nothing.
    let outcome = unsafe {
        let fd = socket.as_fd().as_raw_fd();
        libc::setsockopt(fd, level, name, value.cast(), size_of::<T>() as libc::socklen_t)
    };
    match outcome {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
