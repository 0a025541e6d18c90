//! What an archive still says of a branch whose description is gone: then it was lost, and the name is no mistake.

use duramen_archive::{Branch, ObjectKey, paths};
use futures::TryStreamExt as _;

use super::Context;
use crate::Result;

/// What speaks of the branch, if anything does: an object of its own, a verdict, or a branch that descends from it.
pub(super) async fn of(context: &Context) -> Result<Option<String>> {
    let (store, branch) = (&context.store, &context.branch);
    let mut own = store.list(&paths::branch_prefix(branch), None);
    while let Some(object) = own.try_next().await? {
        if object.key.as_ref().and_then(ObjectKey::branch) == Some(branch) {
            return Ok(Some(format!("{} is of this branch", object.path)));
        }
    }
    let key = ObjectKey::Branch(branch.clone()).to_string();
    if let Some((_, verdict)) = context.newest.missing().into_iter().find(|(missing, _)| *missing == key) {
        return Ok(Some(format!("{verdict} saw it")));
    }
    for name in Branch::list(store).await? {
        let key = ObjectKey::Branch(name.clone());
        let other = context.absorb(&key, Branch::open_if_present(store, &name).await)?.flatten();
        if other.is_some_and(|other| other.ancestry.iter().any(|ancestor| ancestor.branch == *branch)) {
            return Ok(Some(format!("branch {name} descends from it")));
        }
    }
    Ok(None)
}
