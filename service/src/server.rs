//! The listeners: bound before anything else happens, served until the node is told to stop, drained within a limit.

mod accept;
mod body;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, header};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::Node;
use crate::config::{Config, Listen};
use crate::edge::Edge;
use crate::telemetry::{Metrics, Port};
use accept::{Acceptor, Routers};
pub(crate) use body::Cut;
use body::Receiving;

/// How often what histograms collected is folded.
const UPKEEP: Duration = Duration::from_secs(5);

/// Why a node doesn't listen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "{address} ({key}) is in use by another process, perhaps by another node: stop that, or choose another \
         address with {flag}"
    )]
    InUse { address: SocketAddr, key: &'static str, flag: &'static str },
    #[error("can't listen on {address} ({key}): choose another address with {flag}")]
    Bind {
        address: SocketAddr,
        key: &'static str,
        flag: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("the reflection service can't be set up")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Both ports, bound but not served yet: connections wait in the kernel.
#[derive(Debug)]
pub struct Listeners {
    clients: (TcpListener, SocketAddr),
    admin: (TcpListener, SocketAddr),
}

impl Listeners {
    /// Binds both addresses, or neither.
    pub async fn bind(listen: &Listen) -> Result<Self, Error> {
        Ok(Self {
            clients: bind(listen.clients, "listen.clients", "--listen").await?,
            admin: bind(listen.admin, "listen.admin", "--admin-listen").await?,
        })
    }

    /// The address for clients, with the port that was taken where 0 was asked for.
    pub const fn clients(&self) -> SocketAddr {
        self.clients.1
    }

    /// The address for operators, with the port that was taken where 0 was asked for.
    pub const fn admin(&self) -> SocketAddr {
        self.admin.1
    }

    /// Serves `node` on both ports, in tasks of their own.
    ///
    /// Dropping the result cuts all connections off; see [`Serving::drain`] for a friendly end.
    pub async fn serve(
        self,
        node: Node,
        config: Arc<Config>,
        metrics: Arc<Metrics>,
    ) -> Result<Serving, Error> {
        let (clients_address, admin_address) = (self.clients(), self.admin());
        let stopping = CancellationToken::new();
        let closing = CancellationToken::new();
        let span = tracing::info_span!("node", node = config.node.id);
        let edge = Arc::new(Edge::new(node, Arc::clone(&config), Arc::clone(&metrics), stopping.clone()));
        let receiving = Receiving::new(
            usize::try_from(config.log.byte_budget.as_u64()).unwrap_or(usize::MAX),
            config.listen.header_timeout,
            Arc::clone(&metrics),
        );
        let clients = Acceptor {
            listener: self.clients.0,
            routers: Routers {
                http: crate::http::router(&edge),
                grpc: Some(crate::grpc::router(&edge).await?),
                receiving: receiving.clone(),
            },
            port: Port::Clients,
            metrics: Arc::clone(&metrics),
            limits: config.listen.clone(),
            stop: stopping.clone(),
            span: span.clone(),
        };
        let admin = Acceptor {
            listener: self.admin.0,
            routers: Routers { http: crate::admin::router(&edge), grpc: None, receiving },
            port: Port::Admin,
            metrics: Arc::clone(&metrics),
            limits: config.listen.clone(),
            stop: closing.clone(),
            span,
        };
        Ok(Serving {
            clients_address,
            admin_address,
            clients: tokio::spawn(clients.run()),
            admin: tokio::spawn(admin.run()),
            upkeep: tokio::spawn(upkeep(metrics)),
            stopping,
            closing,
        })
    }
}

async fn bind(
    address: SocketAddr,
    key: &'static str,
    flag: &'static str,
) -> Result<(TcpListener, SocketAddr), Error> {
    let bound = async {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    bound.await.map_err(|source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => Error::InUse { address, key, flag },
        _ => Error::Bind { address, key, flag, source },
    })
}

async fn upkeep(metrics: Arc<Metrics>) {
    let mut interval = tokio::time::interval(UPKEEP);
    loop {
        interval.tick().await;
        metrics.upkeep();
    }
}

/// Both ports, being served.
#[derive(Debug)]
pub struct Serving {
    clients_address: SocketAddr,
    admin_address: SocketAddr,
    clients: JoinHandle<()>,
    admin: JoinHandle<()>,
    upkeep: JoinHandle<()>,
    stopping: CancellationToken,
    closing: CancellationToken,
}

impl Serving {
    /// The address for clients.
    pub const fn clients(&self) -> SocketAddr {
        self.clients_address
    }

    /// The address for operators.
    pub const fn admin(&self) -> SocketAddr {
        self.admin_address
    }

    /// Stops taking clients, ends followed reads and sessions, and lets requests under way finish within `limit`;
    /// what then is left is cut off. Gives whether everything finished. Operators are served on, and told that the
    /// node is not ready.
    pub async fn drain(&mut self, limit: Duration) -> bool {
        self.stopping.cancel();
        if self.clients.is_finished() {
            return true;
        }
        let finished = tokio::time::timeout(limit, &mut self.clients).await.is_ok();
        if !finished {
            self.clients.abort();
        }
        finished
    }

    /// Stops serving operators too, after at most a second for requests under way.
    pub async fn close(mut self) {
        self.stopping.cancel();
        self.closing.cancel();
        // Nothing depends on whether the last pages were delivered.
        let _ = tokio::time::timeout(Duration::from_secs(1), &mut self.admin).await;
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stopping.cancel();
        self.clients.abort();
        self.admin.abort();
        self.upkeep.abort();
    }
}

/// Whether a request is for gRPC rather than for HTTP/JSON.
fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

impl Routers {
    /// The router for a request, and whether it is that of gRPC.
    fn route(&self, headers: &HeaderMap) -> (Router, bool) {
        match &self.grpc {
            Some(grpc) if is_grpc(headers) => (grpc.clone(), true),
            _ => (self.http.clone(), false),
        }
    }
}

#[cfg(test)]
mod tests;
