//! A node in use.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use duramen_tests::NodeProcess;
use serde_json::json;

/// What is done to the node for as long as the value lives, so that rates are not zero.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<Result<()>>>,
}

impl Load {
    /// Everything that gives a healthy node's panels data.
    pub fn on(node: &NodeProcess) -> Self {
        let url = node.client_url();
        Self::start(move |stop| use_node(&url, stop))
    }

    /// Small appends that wait for the local disk only, one after the other; until the node is gone, which is no error.
    pub fn of_small_appends(node: &NodeProcess) -> Self {
        let records = format!("{}/v1/tenants/default/streams/small/records?ack=local", node.client_url());
        Self::start(move |stop| {
            let agent = agent();
            while !stop.load(Ordering::Relaxed) && agent.post(&records).send("small").is_ok() {}
            Ok(())
        })
    }

    fn start(work: impl FnOnce(&AtomicBool) -> Result<()> + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || work(&stop)
        });
        Self { stop, thread: Some(thread) }
    }

    /// An error if it ended by itself: the node refused something that it should not have.
    pub fn goes_on(&self) -> Result<()> {
        match &self.thread {
            Some(thread) if thread.is_finished() => bail!("the load has ended"),
            _ => Ok(()),
        }
    }

    pub fn end(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().context("it runs")?.join().expect("the load does not panic")
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A patient client, to which no status is an error.
pub fn agent() -> ureq::Agent {
    let agent = ureq::Agent::config_builder().http_status_as_error(false);
    agent.timeout_global(Some(Duration::from_secs(600))).build().new_agent()
}

/// Appends with every level, reads hot and cold, moves a cursor, asks for what isn't there; again and again.
fn use_node(url: &str, stop: &AtomicBool) -> Result<()> {
    let agent = agent();
    let streams = format!("{url}/v1/tenants/default/streams");
    let value = "0123456789abcdef".repeat(2048);
    let mut past = 0;
    while !stop.load(Ordering::Relaxed) {
        for level in ["local", "quorum", "archived"] {
            let mut answer = agent
                .post(format!("{streams}/orders/records?ack={level}"))
                .content_type("text/plain")
                .send(&value)?;
            ensure!(answer.status() == 200, "append: {}", answer.body_mut().read_to_string()?);
        }
        for from in ["earliest", "tail"] {
            agent
                .get(format!("{streams}/orders/records?from={from}&limit=20"))
                .call()?
                .body_mut()
                .read_to_string()?;
        }
        let cursor = json!({ "offset": 1 }).to_string();
        let cursors = format!("{streams}/orders/cursors/slow");
        agent.put(cursors).content_type("application/json").send(cursor)?.body_mut().read_to_string()?;
        let missing = agent.get(format!("{streams}/nothing/records")).call()?;
        ensure!(missing.status() == 404, "a stream that was never written to is there");
        past += 1;
        let ahead =
            agent.get(&streams).header("duramen-seen", u64::MAX.saturating_sub(past).to_string()).call()?;
        ensure!(ahead.status().is_client_error() || ahead.status().is_server_error(), "a wild time is taken");
    }
    Ok(())
}
