//! Pages of lists that are short enough to be in memory: by name, in bytewise order.

use crate::api::Result;

use super::convert::invalid;

/// Items of a page if the request says nothing.
const USUAL: usize = 100;
/// Items of a page at most.
const MOST: usize = 1000;

/// The number of items that a request asks for.
pub(super) fn size(asked: u32) -> usize {
    match usize::try_from(asked).unwrap_or(MOST) {
        0 => USUAL,
        asked => asked.min(MOST),
    }
}

/// The items after `token`, at most as many as asked for, and the token of the next page (empty: none).
pub(super) fn page<T>(
    mut items: Vec<T>,
    name: impl Fn(&T) -> &str,
    asked: u32,
    token: &str,
) -> Result<(Vec<T>, String)> {
    if token.len() > 255 {
        return Err(invalid("the page token is none that this node gave"));
    }
    items.sort_by(|a, b| name(a).cmp(name(b)));
    let mut rest = items.split_off(items.partition_point(|item| name(item) <= token));
    let more = rest.len() > size(asked);
    rest.truncate(size(asked));
    let next = rest.last().filter(|_| more).map(|item| name(item).to_owned()).unwrap_or_default();
    Ok((rest, next))
}
