//! Listening sockets: one per thread on the same port.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use crate::error::GatewayError;

const BACKLOG: i32 = 4096;

/// Listens `count` times on `addr`; with port 0, on the port that the first one gets.
///
/// `SO_REUSEPORT` would let any other process of the same user share the port in silence, so unless
/// `share` is wanted, a plain socket first makes sure that nobody listens there.
pub(crate) fn listeners(
    addr: SocketAddr,
    count: usize,
    share: bool,
) -> Result<Vec<TcpListener>, GatewayError> {
    let failed = |source| GatewayError::Listen { addr, source };
    if !share && addr.port() != 0 {
        drop(listen(addr, false).map_err(failed)?);
    }
    let first = listen(addr, true).map_err(failed)?;
    let bound = first.local_addr().map_err(failed)?;
    let mut all = vec![first];
    for _ in 1..count {
        all.push(listen(bound, true).map_err(failed)?);
    }
    Ok(all)
}

fn listen(addr: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// One listening socket that nobody shares.
pub(crate) fn listener(addr: SocketAddr) -> Result<TcpListener, GatewayError> {
    listen(addr, false).map_err(|source| GatewayError::Listen { addr, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_shared_among_own_sockets_only() {
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        let own = listeners(any, 3, false).unwrap();
        let addr = own[0].local_addr().unwrap();
        assert!(own.iter().all(|l| l.local_addr().unwrap() == addr));
        assert!(matches!(
            listeners(addr, 1, false),
            Err(GatewayError::Listen { .. })
        ));
        assert!(listeners(addr, 1, true).is_ok());
    }
}
