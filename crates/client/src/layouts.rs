//! Layouts: those by which shards are placed and found, kept from one run to the next and brought up to date by
//! differences; and changes of them, for admins of a cluster.

use crate::connection::{Cluster, unexpected};
use crate::session::Client;
use model::cluster::{ClusterView, NodeState};
use model::command::{Answer, Query};
use model::layout::Layouts;
use model::{Epoch, Error, Kind, Layout, Result};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use wire::coordinator::{ApplyLayout, ChangeRequest, PlanLayout, PlanResponse};

/// How long the first layout of a width is waited for, while nodes join.
const PATIENCE: Duration = Duration::from_secs(10);

/// Layouts seen, by width.
#[derive(Default)]
pub(crate) struct KnownLayouts(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// Those that hold, as far as is known.
    now: BTreeMap<u8, Arc<Layouts>>,
    /// The last one seen, to which newer ones are fetched as differences.
    last: BTreeMap<u8, Arc<Layout>>,
    /// The life of the catalog to which they belong: epochs mean nothing beyond it.
    incarnation: [u8; 16],
}

impl KnownLayouts {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets those of which a view of the cluster names another epoch, or another end of their change; all,
    /// where the catalog was restored.
    pub fn keep_those_of(&self, view: &ClusterView) {
        let mut known = self.known();
        if known.incarnation != view.life.incarnation {
            *known = Known { incarnation: view.life.incarnation, ..Known::default() };
        }
        known.now.retain(|width, known| fits(view, *width, known));
    }

    fn learn(&self, width: u8, layouts: &Arc<Layouts>) {
        let mut known = self.known();
        known.last.insert(width, layouts.current.clone());
        known.now.insert(width, layouts.clone());
    }
}

impl Cluster {
    /// The layouts for chunks of `width` shards. Waits up to 10 s for the first one, while nodes join.
    pub(crate) async fn layouts(&self, width: u8) -> Result<Arc<Layouts>> {
        if let Some(layouts) = self.layouts.known().now.get(&width) {
            return Ok(layouts.clone());
        }
        let layout = match self.brought_up_to_date(width).await? {
            Some(layout) => layout,
            None => Arc::new(self.whole_layout(width).await?),
        };
        let layouts = Arc::new(self.with_earlier(layout).await?);
        self.layouts.learn(width, &layouts);
        Ok(layouts)
    }

    /// The current layout, by way of the last one seen or kept from an earlier run; `None` where there is none.
    async fn brought_up_to_date(&self, width: u8) -> Result<Option<Arc<Layout>>> {
        let seen = || self.layouts.known().last.get(&width).cloned();
        if seen().is_none() && self.profile.is_none() {
            return Ok(None);
        }
        let view = self.view(true).await?;
        let last = match (seen(), self.profile.clone()) {
            (None, Some(profile)) => {
                let life = view.life;
                self.env.blocking(move || profile.cached_layout(&life, width)).await.map(Arc::new)
            }
            (last, _) => last,
        };
        let last = last.filter(|last| last.power == view.power);
        let (Some(last), Some((_, epoch))) = (last, view.layouts.iter().find(|(w, _)| *w == width)) else { return Ok(None) };
        if last.epoch == *epoch {
            return Ok(Some(last));
        }
        let layout = wire::layouts::layout_at(|query| self.ask(query), width, *epoch, Some(&last)).await?;
        if let Some(layout) = &layout {
            self.cache(layout, &view).await;
        }
        Ok(layout.map(Arc::new))
    }

    /// The current layout, made now if there was none.
    async fn whole_layout(&self, width: u8) -> Result<Layout> {
        let start = self.env.clock.monotonic();
        loop {
            let missing = match self.ask(Query::Layout(width)).await {
                Ok(Answer::Layout(Some(layout))) => {
                    layout.check()?;
                    if layout.width != width {
                        return Err(unexpected());
                    }
                    self.cache(&layout, &*self.view(false).await?).await;
                    return Ok(layout);
                }
                Ok(Answer::Layout(None)) => None,
                Ok(_) => return Err(unexpected()),
                Err(e) if e.kind == Kind::Unavailable => Some(e),
                Err(e) => return Err(e),
            };
            if self.env.clock.monotonic() - start > PATIENCE {
                return Err(too_few(&*self.view(true).await?, width, missing));
            }
            self.env.sleep(Duration::from_millis(200)).await;
        }
    }

    async fn cache(&self, layout: &Layout, view: &ClusterView) {
        if let Some(profile) = self.profile.clone() {
            let (layout, life) = (layout.clone(), view.life);
            self.env.blocking(move || profile.cache_layout(&life, &layout)).await;
        }
    }

    /// A layout with those before it at whose places shards may still lie.
    async fn with_earlier(&self, current: Arc<Layout>) -> Result<Layouts> {
        let mut view = self.view(false).await?;
        if !view.layouts.contains(&(current.width, current.epoch)) {
            view = self.view(true).await?;
        }
        let change = view.changes.iter().find(|c| c.width == current.width && c.to == current.epoch);
        let mut earlier = Vec::new();
        for epoch in change.map(|c| c.from.as_slice()).unwrap_or_default().iter().rev() {
            // One that is gone by now is not needed any more.
            let layout = wire::layouts::layout_at(|query| self.ask(query), current.width, *epoch, Some(&current)).await?;
            earlier.extend(layout.map(Arc::new));
        }
        Ok(Layouts { current, earlier, stopped: change.is_some_and(|c| c.stopped) })
    }

    /// Forgets which layouts hold, and the view: a server said that they are old.
    pub(crate) fn outdated(&self) {
        self.layouts.known().now.clear();
        self.forget_view();
    }
}

impl Client {
    /// The layout for chunks of `width` shards at an epoch: the current one, or an earlier one at whose places
    /// shards may still lie; `None` when it is neither.
    pub async fn layout_at(&self, width: u8, epoch: Epoch) -> Result<Option<Layout>> {
        wire::layouts::layout_at(|query| self.cluster().ask(query), width, epoch, None).await
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

/// Whether layouts are those that a view of the cluster names.
fn fits(view: &ClusterView, width: u8, known: &Layouts) -> bool {
    let epoch = view.layouts.iter().find(|(w, _)| *w == width).map(|(_, epoch)| *epoch);
    let earlier = view.changes.iter().find(|c| c.width == width).map_or(0, |c| c.from.len());
    epoch == Some(known.current.epoch) && earlier == known.earlier.len()
}

/// Why there is no layout of a width: how many nodes are in use, and how many only wait to be added.
fn too_few(view: &ClusterView, width: u8, otherwise: Option<Error>) -> Error {
    let waiting = view.nodes.iter().filter(|n| n.state == NodeState::Joining).count();
    let in_use = view.nodes.iter().filter(|n| !matches!(n.state, NodeState::Joining | NodeState::Draining | NodeState::Out)).count();
    let missing = usize::from(width).saturating_sub(in_use);
    if missing == 0 {
        return otherwise.unwrap_or_else(|| Error::unavailable("the servers have not made a layout for this policy yet"));
    }
    // Before there is any layout, nodes that join wait for enough of them.
    if waiting == 0 || view.layouts.is_empty() {
        let joined = in_use + waiting;
        let missing = usize::from(width).saturating_sub(joined);
        return Error::unavailable(format!("{joined} of the {width} nodes that this policy needs have joined: {missing} are missing"))
            .hint("shardkeep cluster token node, then shardkeep serve node --join TOKEN on another machine");
    }
    let have = if waiting == 1 { "has joined and is" } else { "have joined and are" };
    let used = format!("{in_use} of the {width} nodes that this policy needs are in use");
    Error::unavailable(format!("{used}; {waiting} more {have} not in use yet")).hint("shardkeep cluster add")
}
