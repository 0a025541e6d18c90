//! The demo's nodes: each with its own ports on loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use duramen_client::Client;
use duramen_types::BranchName;

use crate::Node;
use crate::config::Config;
use crate::server::{Listeners, Serving};

/// How long a node of the demo may take to stop.
const STOP: Duration = Duration::from_secs(10);

/// A running node and a client of it.
#[derive(Debug)]
pub struct Running {
    pub node: Node,
    pub client: Client,
    serving: Serving,
}

impl Running {
    /// Starts a node with `data` as its directory on `branch` of the archive at `archive`.
    pub async fn start(data: &Path, archive: &str, branch: Option<&BranchName>) -> anyhow::Result<Self> {
        let mut config = Config::default();
        data.clone_into(&mut config.node.data);
        config.archive.url = Some(archive.to_owned());
        config.archive.branch = branch.cloned();
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        (config.listen.clients, config.listen.admin) = (anywhere, anywhere);
        let listeners = Listeners::bind(&config.listen).await?;
        let node = Node::start(&config).await?;
        let metrics = Arc::clone(node.metrics());
        let serving = listeners.serve(node.clone(), Arc::new(config), metrics).await?;
        let client = Client::connect(&format!("http://{}", serving.clients())).await.context("connecting")?;
        Ok(Self { node, client, serving })
    }

    /// Stops the node as SIGTERM does.
    pub async fn stop(self) -> anyhow::Result<()> {
        let Self { node, client, mut serving } = self;
        drop(client);
        serving.drain(STOP).await;
        node.shutdown(STOP).await?;
        serving.close().await;
        Ok(())
    }
}
