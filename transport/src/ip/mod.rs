//! What transports over IP sockets share: opening a UDP socket, and which address to advertise.

mod advertise;

use std::io;
use std::net::{SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

pub use advertise::advertise_addr;

/// Where one address is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local {
    /// The address. Once bound, with the port that was found.
    pub addr: SocketAddr,
    /// Whether this is an IPv6 socket that carries IPv4 too.
    pub dual_stack: bool,
}

/// A non-blocking socket for this address, not bound yet.
///
/// # Errors
/// What the system says.
pub fn new_socket(local: Local, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(local.addr), kind, Some(protocol))?;
    if local.addr.is_ipv6() {
        socket.set_only_v6(!local.dual_stack)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Binds a non-blocking UDP socket and asks for buffers of these sizes in bytes, then half of it and
/// so on, as far as the system allows. Gives the socket and the size of its receive buffer as the
/// system reports it (Linux: twice the usable size).
///
/// # Errors
/// What the system says.
pub fn bind_udp(
    local: Local,
    recv_buffer_bytes: usize,
    send_buffer_bytes: usize,
) -> io::Result<(UdpSocket, usize)> {
    let socket = new_socket(local, Type::DGRAM, Protocol::UDP)?;
    ask_by_halves(recv_buffer_bytes, |bytes| socket.set_recv_buffer_size(bytes));
    ask_by_halves(send_buffer_bytes, |bytes| socket.set_send_buffer_size(bytes));
    let recv_buffer_bytes = socket.recv_buffer_size()?;
    socket.bind(&local.addr.into())?;
    Ok((socket.into(), recv_buffer_bytes))
}

/// Asks for `bytes`, then half of it and so on, until the system agrees. If it never does, its own
/// choice is as good.
fn ask_by_halves(bytes: usize, ask: impl Fn(usize) -> io::Result<()>) {
    let mut bytes = bytes;
    while bytes > 0 && ask(bytes).is_err() {
        bytes /= 2;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn buffers_are_asked_for_by_halves() {
        let asked = RefCell::new(Vec::new());
        let up_to = |limit| {
            let asked = &asked;
            move |bytes| {
                asked.borrow_mut().push(bytes);
                if bytes > limit { Err(io::ErrorKind::InvalidInput.into()) } else { Ok(()) }
            }
        };
        ask_by_halves(100, up_to(30));
        assert_eq!(asked.take(), [100, 50, 25]);
        ask_by_halves(3, up_to(0));
        assert_eq!(asked.take(), [3, 1]);
    }
}
