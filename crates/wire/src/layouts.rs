//! How layouts come from a coordinator: as a difference to one at hand where that is shorter.

use model::command::{Answer, Query};
use model::{Epoch, Error, Layout, Result};

/// A layout by its epoch, checked; `None` when it is neither the current one nor one that is still readable.
/// `ask` puts a question to the catalog; `have` is any other layout of that width, a late one at best.
///
/// A difference that does not fit what is at hand costs a second question. `Invalid`: the answer is to another
/// question.
pub async fn layout_at<F: Future<Output = Result<Answer>>>(
    ask: impl Fn(Query) -> F,
    width: u8,
    epoch: Epoch,
    have: Option<&Layout>,
) -> Result<Option<Layout>> {
    let confused = || Error::invalid("the coordinator's answer does not fit the question about a layout");
    let have = have.filter(|l| l.width == width && l.epoch != epoch);
    for have in have.map(Some).into_iter().chain([None]) {
        let layout = match (ask(Query::LayoutAt { width, epoch, have: have.map(|l| l.epoch) }).await?, have) {
            (Answer::Layout(None), _) => return Ok(None),
            (Answer::Layout(Some(layout)), _) => {
                layout.check()?;
                layout
            }
            (Answer::LayoutPatch(patch), Some(have)) => match have.patched(&patch) {
                Ok(layout) => layout,
                // Of another life of the catalog, perhaps.
                Err(_) => continue,
            },
            _ => return Err(confused()),
        };
        return if (layout.width, layout.epoch) == (width, epoch) { Ok(Some(layout)) } else { Err(confused()) };
    }
    Err(confused())
}
