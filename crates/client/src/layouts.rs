//! Changes of the layouts, for admins of a cluster.

use crate::connection::unexpected;
use crate::session::Client;
use model::command::{Answer, Query};
use model::{Epoch, Layout, Result};
use wire::coordinator::{ApplyLayout, ChangeRequest, PlanLayout, PlanResponse};

impl Client {
    /// The layout for chunks of `width` shards at an epoch: the current one, or an earlier one at whose places
    /// shards may still lie; `None` when it is neither.
    pub async fn layout_at(&self, width: u8, epoch: Epoch) -> Result<Option<Layout>> {
        match self.cluster().ask(Query::LayoutAt { width, epoch }).await? {
            Answer::Layout(Some(layout)) => layout.check().map(|()| Some(layout)),
            Answer::Layout(None) => Ok(None),
            _ => Err(unexpected()),
        }
    }

    /// What a change of the layouts would do. Changes nothing. Admins only.
    pub async fn plan_layout(&self, request: ChangeRequest) -> Result<PlanResponse> {
        self.cluster().authed::<PlanLayout, _>(request).await
    }

    /// Begins a change of the layouts; answers what it does. `Conflict` while another is under way, or when
    /// the epochs expected are not the current ones. Admins only.
    ///
    /// Not proposed under a key of the client's own: asked again after a lost answer it is a `Conflict`,
    /// since the change is under way by then.
    pub async fn apply_layout(&self, request: ChangeRequest) -> Result<PlanResponse> {
        self.cluster().authed::<ApplyLayout, _>(request).await
    }
}
