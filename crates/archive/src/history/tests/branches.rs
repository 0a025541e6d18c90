//! Branches cut in the middle of a segment.

use super::*;

/// A branch of `main` after `cut` entries, whose own log begins there.
async fn branch(main: &BranchView, child: &str, model: &Model, cut: usize) -> BranchView {
    let state = &model.states[cut];
    let point = HistoryPoint {
        end: state.end(),
        chain: state.chain(),
        term: state.applied().map_or(Term::ZERO, |id| id.term),
        time: state.time(),
    };
    let mut shards = Vec::new();
    for shard in main.shard_ids() {
        shards.push(if shard == SHARD { point } else { main.end(shard).await.unwrap() });
    }
    let cut = Cut { time: point.time, shards };
    let branch = Branch::child(main.store(), main.branch(), name(child), cut, "test").unwrap();
    branch.create(main.store()).await.unwrap();
    BranchView::open(main.store(), &name(child)).await.unwrap()
}

#[tokio::test]
async fn a_branch_cut_within_a_segment_reads_its_own_history_only() {
    for (seed, first_cut) in [(20, 37), (21, 50), (22, 63)] {
        let store = memory();
        let main = archive(&store).await;
        let log = RandomLog::new(seed).take(100);
        write(&main, &ShardState::new(SHARD), &log, &[30, 7, 25]).await;
        let parent = Model::of(log);

        let child = branch(&main, "child", &parent, first_cut).await;
        let begin = &parent.states[first_cut];
        let own = RandomLog::branch(seed + 100, begin.clone()).take(60);
        write(&child, begin, &own, &[20, 9]).await;
        let child = BranchView::open(&store, &name("child")).await.unwrap();
        let whole: Vec<Logged> = parent.log[..first_cut].iter().cloned().chain(own).collect();
        let model = Model::of(whole);
        let (history, shard) = (history(&child), child.shard(SHARD).await.unwrap());
        model.check_states(&history, &shard, 3).await;
        model.check_times(&history, &shard).await;
        model.check_streams(&history, &shard).await;
        model.check_timestamps(&history, &shard).await;
        model.check_entries(&history, &shard).await;

        // A branch of the branch, cut in the parent's part, and one cut in the branch's own.
        for (name, cut) in [("early", first_cut - 5), ("late", first_cut + 25)] {
            let view = branch(&child, name, &model, cut).await;
            let begin = &model.states[cut];
            let own = RandomLog::branch(seed + 200, begin.clone()).take(30);
            write(&view, begin, &own, &[11]).await;
            let view = BranchView::open(&store, &super::name(name)).await.unwrap();
            let shard = view.shard(SHARD).await.unwrap();
            let model = Model::of(model.log[..cut].iter().cloned().chain(own).collect());
            model.check_states(&history, &shard, 7).await;
            model.check_streams(&history, &shard).await;
            model.check_entries(&history, &shard).await;
        }
        // The parent is as it was.
        let shard = main.shard(SHARD).await.unwrap();
        parent.check_states(&history, &shard, 9).await;
    }
}
