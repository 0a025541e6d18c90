//! Peers of a group with one voter: there are none.
//!
//! A shard's group has one voter as long as its cluster has one node, so the consensus library never sends
//! anything; would it try, it is told that the peer cannot be reached.

use std::future::Future;

use openraft::error::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::network::v2::RaftNetworkV2;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::SnapshotOf;
use openraft::{AnyError, RaftNetworkFactory};

use super::raft::{RaftVote, ShardRaft};

/// Makes connections to peers that do not exist.
#[derive(Debug, Clone, Copy)]
pub struct SoleVoter;

/// A connection that reaches nobody.
#[derive(Debug)]
pub struct Nobody(u64);

impl Nobody {
    fn unreachable(&self) -> Unreachable<ShardRaft> {
        Unreachable::new(&AnyError::error(format!("node {} is not part of this one-node cluster", self.0)))
    }
}

impl RaftNetworkFactory<ShardRaft> for SoleVoter {
    type Network = Nobody;

    async fn new_client(&mut self, target: u64, _node: &openraft::impls::EmptyNode) -> Nobody {
        Nobody(target)
    }
}

impl RaftNetworkV2<ShardRaft> for Nobody {
    type SnapshotData = ();

    async fn append_entries(
        &mut self,
        _request: AppendEntriesRequest<ShardRaft>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<ShardRaft>, RPCError<ShardRaft>> {
        Err(RPCError::Unreachable(self.unreachable()))
    }

    async fn vote(
        &mut self,
        _request: VoteRequest<ShardRaft>,
        _option: RPCOption,
    ) -> Result<VoteResponse<ShardRaft>, RPCError<ShardRaft>> {
        Err(RPCError::Unreachable(self.unreachable()))
    }

    async fn full_snapshot(
        &mut self,
        _vote: RaftVote,
        _snapshot: SnapshotOf<ShardRaft, ()>,
        _cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<ShardRaft>, StreamingError<ShardRaft>> {
        Err(StreamingError::Unreachable(self.unreachable()))
    }
}
