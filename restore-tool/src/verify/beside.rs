//! Holds and verdicts: what stands beside the histories, and what no history needs.

use duramen_archive::{Branch, Hold, ObjectKey, Verdict, paths};
use futures::TryStreamExt as _;

use super::Context;
use crate::Result;

/// What to do with one that is damaged.
const MEND: &str = "no history needs it: put it back, or delete it";

/// Every hold can be read, and is under its own key.
pub(super) async fn holds(context: &Context) -> Result<()> {
    for (key, hold) in Hold::each(&context.store).await? {
        context.looked_at(0);
        if context.absorb(&key, hold)?.is_none() {
            context.find(&key, MEND);
        }
    }
    Ok(())
}

/// The description of every branch can be read, and is under its own key: others may descend from this one.
pub(super) async fn branches(context: &Context) -> Result<()> {
    let keys: Vec<ObjectKey> = context
        .store
        .list(paths::BRANCHES, None)
        .try_filter_map(async |object| Ok(object.key.filter(|key| matches!(key, ObjectKey::Branch(_)))))
        .try_collect()
        .await?;
    for key in keys {
        context.newest.see(&key);
        let ObjectKey::Branch(name) = &key else { continue };
        // The line of this one is looked at anyway.
        if *name != context.branch
            && context.absorb(&key, Branch::open(&context.store, name).await)?.is_some()
        {
            context.looked_at(0);
        }
    }
    Ok(())
}

/// The verdicts on the branch, oldest first, and whether every verdict of the archive could be read.
pub(super) async fn verdicts(context: &Context) -> Result<(Vec<Verdict>, bool)> {
    let (mut verdicts, mut all) = (Vec::new(), true);
    for (key, verdict) in Verdict::each(&context.store).await? {
        context.looked_at(0);
        context.newest.see(&key);
        match context.absorb(&key, verdict)? {
            Some(verdict) => {
                context.newest.expect(&verdict, &context.branch);
                if verdict.branch == context.branch {
                    verdicts.push(verdict);
                }
            }
            None => {
                context.find(&key, MEND);
                all = false;
            }
        }
    }
    Ok((verdicts, all))
}
