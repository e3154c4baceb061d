//! Listening sockets: one per thread on the same port.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::GatewayConfig;
use crate::error::GatewayError;

const BACKLOG: i32 = 4096;

/// What a gateway listens on.
pub struct Sockets {
    pub(crate) clients: Vec<TcpListener>,
    pub(crate) admin: TcpListener,
    configured: (SocketAddr, SocketAddr),
}

impl Sockets {
    /// Takes the sockets that another process listened on by the same configured addresses, and binds
    /// what is missing: one per thread for clients.
    ///
    /// `SO_REUSEPORT` would let any other process of the same user share the port in silence, so unless
    /// that is wanted, a plain socket first makes sure that nobody listens there.
    pub fn bind(
        config: &GatewayConfig,
        clients: Vec<TcpListener>,
        admin: Option<TcpListener>,
    ) -> Result<Self, GatewayError> {
        let addr = config.listen;
        let failed = |source| GatewayError::Listen { addr, source };
        let mut clients = clients;
        if clients.is_empty() {
            if !config.share_port && addr.port() != 0 {
                drop(listen(addr, false).map_err(failed)?);
            }
            clients.push(listen(addr, true).map_err(failed)?);
        }
        // With port 0, the one that the first one got.
        let bound = clients[0].local_addr().map_err(failed)?;
        // A socket that was taken over is never closed: somebody may be waiting in its queue.
        while clients.len() < config.thread_count() {
            clients.push(listen(bound, true).map_err(failed)?);
        }
        let admin = match admin {
            Some(admin) => admin,
            None => listen(config.admin_listen, false).map_err(|source| GatewayError::Listen {
                addr: config.admin_listen,
                source,
            })?,
        };
        Ok(Self {
            clients,
            admin,
            configured: (addr, config.admin_listen),
        })
    }

    /// Where clients connect.
    pub fn addr(&self) -> Result<SocketAddr, GatewayError> {
        local(&self.clients[0], self.configured.0)
    }

    /// Where the gateway's own figures are.
    pub fn admin_addr(&self) -> Result<SocketAddr, GatewayError> {
        local(&self.admin, self.configured.1)
    }

    /// The sockets once more, to hand them over: those for clients, and the admin port's.
    pub fn duplicate(&self) -> io::Result<(Vec<TcpListener>, TcpListener)> {
        let clients = self.clients.iter().map(TcpListener::try_clone);
        Ok((clients.collect::<io::Result<_>>()?, self.admin.try_clone()?))
    }
}

fn local(listener: &TcpListener, addr: SocketAddr) -> Result<SocketAddr, GatewayError> {
    let local = listener.local_addr();
    local.map_err(|source| GatewayError::Listen { addr, source })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn config(listen: SocketAddr, threads: usize, share_port: bool) -> GatewayConfig {
        GatewayConfig {
            listen,
            admin_listen: ([127, 0, 0, 1], 0).into(),
            threads,
            share_port,
            ..GatewayConfig::default()
        }
    }

    fn bind(config: &GatewayConfig) -> Result<Sockets, GatewayError> {
        Sockets::bind(config, Vec::new(), None)
    }

    #[test]
    fn the_port_is_shared_among_own_sockets_only() {
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        let own = bind(&config(any, 3, false)).unwrap();
        let addr = own.addr().unwrap();
        let same = |l: &TcpListener| l.local_addr().unwrap() == addr;
        assert_eq!(own.clients.len(), 3);
        assert!(own.clients.iter().all(same));
        assert!(matches!(
            bind(&config(addr, 1, false)),
            Err(GatewayError::Listen { .. })
        ));
        assert!(bind(&config(addr, 1, true)).is_ok());
    }

    #[test]
    fn sockets_that_were_taken_over_are_kept_and_made_more() {
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        let old = bind(&config(any, 2, false)).unwrap();
        for (threads, sockets) in [(1, 2), (2, 2), (4, 4)] {
            let (clients, admin) = old.duplicate().unwrap();
            let config = config(any, threads, false);
            let new = Sockets::bind(&config, clients, Some(admin)).unwrap();
            assert_eq!(new.addr().unwrap(), old.addr().unwrap());
            assert_eq!(new.admin_addr().unwrap(), old.admin_addr().unwrap());
            assert_eq!(new.clients.len(), sockets);
        }
    }
}
