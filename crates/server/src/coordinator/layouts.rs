//! Changes of the layouts: what an operator asks for, and what the leader begins and ends by itself.
//!
//! A plan is made here, from the current layouts and the nodes as they are now, and travels in the
//! command; the catalog checks it and decides whether it may begin. Planning is arithmetic over
//! all slots, so it runs where it delays nobody.
//!
//! The leader looks every second. A change has ended when each node that holds slots in any layout that
//! is still readable has said that it knows the new epoch (from then on it refuses writes placed by
//! older ones) and that nothing is left to fetch or to hand over; nodes that are out are not waited for.
//! A node that is out is planned around as soon as the others suffice; where they do not, its slots stay
//! with it and are vacant in effect: no node ever gets two shards of a chunk.

use super::state::{State, confused};
use catalog::layout::{self, Description};
use model::cluster::{ClusterView, Node, NodeState};
use model::command::{Answer, Command, NewLayouts, Query};
use model::layout::{DeviceInfo, LayoutChange};
use model::{AccountId, DeviceId, Epoch, Error, Layout, NodeId, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use wire::SessionToken;
use wire::coordinator::{ChangeRequest, DeviceMove, PlanResponse, WidthPlan};

/// How much of a device a plan may fill.
const USABLE_PERCENT: u64 = 97;

/// A layout's nodes: all that the leader's loop needs of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Placed {
    /// Nodes that it was planned over.
    pub members: BTreeSet<NodeId>,
    /// Nodes with slots.
    pub holders: BTreeSet<NodeId>,
    /// Devices with slots, with their nodes.
    pub devices: BTreeSet<(NodeId, DeviceId)>,
}

/// Names a layout as it is now: the earlier ones of a width change when a node is replaced, and with
/// that the current epoch does.
pub(crate) type PlacedKey = (u8, Epoch, Epoch);

/// The nodes of all readable layouts of a width.
#[derive(Debug, Clone, Default)]
pub(crate) struct Readable {
    pub current: Placed,
    pub earlier: Vec<Placed>,
}

impl Readable {
    fn holders(&self) -> impl Iterator<Item = NodeId> {
        std::iter::once(&self.current).chain(&self.earlier).flat_map(|p| p.holders.iter().copied())
    }

    /// Nodes of any of them.
    pub fn members(&self) -> impl Iterator<Item = NodeId> {
        std::iter::once(&self.current).chain(&self.earlier).flat_map(|p| p.members.iter().copied())
    }
}

/// What a plan starts from.
struct Wish {
    drain: Vec<NodeId>,
    keep: Vec<NodeId>,
    remove: Vec<NodeId>,
    /// Nodes that hold the next layouts.
    members: BTreeSet<NodeId>,
    why: String,
    loss: bool,
}

impl State {
    /// What a change would do.
    pub async fn plan_layout(&self, session: SessionToken, request: ChangeRequest) -> Result<PlanResponse> {
        self.admin(&session).await?;
        let view = self.view().await?;
        let wish = wish(&view, &self.readable(&view).await?, &request)?;
        Ok(self.planned(&view, wish).await?.1)
    }

    /// Plans a change and begins it. Where nothing would change, nothing is begun.
    pub async fn apply_layout(&self, session: SessionToken, request: ChangeRequest) -> Result<PlanResponse> {
        let who = self.admin(&session).await?;
        let view = self.view().await?;
        if let Some(change) = view.changes.iter().find(|c| !c.stopped) {
            return Err(Error::conflict(format!("another change is under way: {}. A second one waits until it is done", change.why))
                .hint("shardkeep cluster layout show; shardkeep cluster layout stop lets another take its place"));
        }
        let is_now = |(width, epoch): &(u8, Epoch)| view.layouts.contains(&(*width, *epoch));
        if !request.expect.iter().all(is_now) || (!request.expect.is_empty() && request.expect.len() != view.layouts.len()) {
            return Err(Error::conflict("the layout has changed since this change was planned").hint("plan it again"));
        }
        let wish = wish(&view, &self.readable(&view).await?, &request)?;
        let (new, response) = self.planned(&view, wish).await?;
        self.check_room(&response, &self.bytes_by_width().await?)?;
        if !response.why.is_empty() {
            self.begin(Some(who.account), new).await?;
        }
        Ok(response)
    }

    /// Forgets a node that holds nothing; one that holds slots counts as lost from now on.
    pub async fn remove_node(&self, by: AccountId, node: NodeId) -> Result<()> {
        let view = self.view().await?;
        let row = view.nodes.iter().find(|n| n.id == node).ok_or_else(|| no_node(node))?;
        let readable = self.readable(&view).await?;
        if !readable.values().any(|r| r.holders().any(|n| n == node)) {
            return self.propose(self.request_id(), Some(by), Command::RemoveNode(node)).await.map(|_| ());
        }
        let without = |n: &Node| n.id != node && is_usable(n);
        let held: BTreeMap<u8, Readable> = readable.into_iter().filter(|(_, r)| r.current.holders.contains(&node)).collect();
        for (width, r) in &held {
            let members = of_current(std::slice::from_ref(r));
            check_count(&view, *width, view.nodes.iter().filter(|n| members.contains(&n.id) && without(n)).count())?;
        }
        let members = of_current(&held.values().cloned().collect::<Vec<_>>());
        let wish = Wish {
            drain: Vec::new(),
            keep: Vec::new(),
            remove: vec![node],
            members: view.nodes.iter().filter(|n| members.contains(&n.id) && without(n)).map(|n| n.id).collect(),
            why: format!("{} was removed", row.name),
            loss: true,
        };
        let widths: Vec<u8> = held.into_keys().collect();
        let (new, response) = self.planned_for(&view, wish, &widths).await?;
        self.check_room(&response, &self.bytes_by_width().await?)?;
        self.begin(Some(by), new).await
    }

    async fn begin(&self, by: Option<AccountId>, new: NewLayouts) -> Result<()> {
        let why = new.why.clone();
        self.propose(self.request_id(), by, Command::ChangeLayouts(Box::new(new))).await?;
        tracing::info!(why, "the layout changes");
        Ok(())
    }

    async fn planned(&self, view: &ClusterView, wish: Wish) -> Result<(NewLayouts, PlanResponse)> {
        let widths: Vec<u8> = view.layouts.iter().map(|(width, _)| *width).collect();
        if widths.is_empty() {
            return Err(Error::unavailable("there is no layout yet: the first one makes itself when enough nodes have joined")
                .hint("shardkeep cluster status"));
        }
        self.planned_for(view, wish, &widths).await
    }

    async fn planned_for(&self, view: &ClusterView, wish: Wish, widths: &[u8]) -> Result<(NewLayouts, PlanResponse)> {
        let members: Vec<&Node> = view.nodes.iter().filter(|n| wish.members.contains(&n.id)).collect();
        let devices: Vec<DeviceInfo> = members.iter().flat_map(|n| devices_of(n)).collect();
        let nodes = members.iter().filter(|n| n.devices.iter().any(|d| d.capacity > 0)).count();
        let mut old = Vec::new();
        for width in widths {
            check_count(view, *width, nodes)?;
            let Answer::Layout(Some(layout)) = self.ask(Query::Layout(*width)).await? else { return Err(confused()) };
            old.push(layout);
        }
        let by_width = self.bytes_by_width().await?;
        let bytes: Vec<u64> = widths.iter().map(|w| by_width.get(w).copied().unwrap_or(0)).collect();
        let plans = self.env.blocking(move || plan_all(&old, &devices)).await?;
        let part = |bytes: u64, slots: u64, of: u64| (u128::from(bytes) * u128::from(slots) / u128::from(of.max(1))) as u64;
        let sum = |slots: fn(&Description) -> u64| plans.iter().zip(&bytes).map(|((_, d), b)| part(*b, slots(d), d.slots)).sum();
        let nothing = wish.drain.is_empty() && wish.keep.is_empty() && wish.remove.is_empty() && plans.iter().all(|(_, d)| d.moved == 0);
        let response = PlanResponse {
            widths: plans.iter().map(width_plan).collect(),
            moved_bytes: sum(|d| d.moved),
            minimum_bytes: sum(|d| d.minimum),
            why: if nothing { String::new() } else { wish.why.clone() },
        };
        let layouts = plans.into_iter().map(|(layout, d)| (layout, d.moved, d.minimum)).collect();
        let Wish { drain, keep, remove, why, loss, .. } = wish;
        Ok((NewLayouts { layouts, drain, keep, loss, why, remove }, response))
    }

    /// What lies in all slots of a width: as the catalog counts it, by policy.
    async fn bytes_by_width(&self) -> Result<BTreeMap<u8, u64>> {
        let Answer::Totals(totals) = self.ask(Query::Totals).await? else { return Err(confused()) };
        let mut bytes = BTreeMap::new();
        totals.policies.iter().for_each(|(p, _, b)| *bytes.entry(p.width()).or_default() += b);
        Ok(bytes)
    }

    /// `Insufficient` where a device would get more than it has room for. Devices that never said how full they are
    /// are believed to be empty.
    fn check_room(&self, plan: &PlanResponse, bytes: &BTreeMap<u8, u64>) -> Result<()> {
        let memory = self.memory();
        let devices = memory.heard.values().flat_map(|h| &h.heartbeat.devices);
        let free: BTreeMap<DeviceId, u64> = devices.map(|d| (d.id, (d.capacity / 100 * USABLE_PERCENT).saturating_sub(d.used))).collect();
        match short_of_room(plan, bytes, &free) {
            Some((node, missing)) => Err(Error::insufficient(format!(
                "node-{node} would have to take {} MiB more than it has room for",
                missing.div_ceil(1 << 20)
            ))
            .hint("let further nodes join first (shardkeep cluster token node), or remove files that are not needed")),
            None => Ok(()),
        }
    }

    /// The nodes of all readable layouts, by width. A layout is fetched once: it is long.
    pub(crate) async fn readable(&self, view: &ClusterView) -> Result<BTreeMap<u8, Readable>> {
        let mut all = BTreeMap::new();
        let mut known = BTreeMap::new();
        for (width, now) in &view.layouts {
            let change = view.changes.iter().find(|c| c.width == *width);
            let current = self.placed((*width, *now, *now), &mut known).await?;
            let mut earlier = Vec::new();
            for epoch in change.iter().flat_map(|c| &c.from) {
                earlier.push(self.placed((*width, *epoch, *now), &mut known).await?);
            }
            all.insert(*width, Readable { current, earlier });
        }
        self.memory().placed = known;
        Ok(all)
    }

    async fn placed(&self, key: PlacedKey, known: &mut BTreeMap<PlacedKey, Placed>) -> Result<Placed> {
        let cached = self.memory().placed.get(&key).cloned();
        let placed = match cached {
            Some(placed) => placed,
            None => match self.ask(Query::LayoutAt { width: key.0, epoch: key.1, have: None }).await? {
                Answer::Layout(Some(layout)) => {
                    let devices = layout::filled(&layout);
                    Placed { members: layout::members(&layout), holders: devices.iter().map(|(node, _)| *node).collect(), devices }
                }
                // It ended since the view was asked for.
                Answer::Layout(None) => Placed::default(),
                _ => return Err(confused()),
            },
        };
        known.insert(key, placed.clone());
        Ok(placed)
    }

    /// One look of the leader: what has arrived is finished, what is lost is planned around, and who
    /// wants to be taken in is.
    pub(crate) async fn tend_layouts(&self) -> Result<()> {
        let view = self.view().await?;
        let readable = self.readable(&view).await?;
        for change in &view.changes {
            if readable.get(&change.width).is_some_and(|r| self.has_arrived(&view, change, r)) {
                self.command(Command::FinishLayout { width: change.width, epoch: change.to }).await?;
                tracing::info!(width = change.width, epoch = %change.to, "everything has arrived: the change of the layout is done");
            }
        }
        let gone = self.gone(&view, &readable);
        if let Some((wish, widths)) = loss(&view, &readable).or_else(|| disks_lost(&view, &readable, &gone)) {
            let (new, response) = self.planned_for(&view, wish, &widths).await?;
            let bytes = self.bytes_by_width().await?;
            if let Err(e) = self.check_room(&response, &bytes) {
                // What is lost stays vacant, rather than that all disks fill up and nothing can be written.
                tracing::warn!(error = %e, "the loss cannot be planned around");
            } else if response.widths.iter().any(|w| w.moved > 0) {
                return self.begin(None, new).await;
            }
        }
        if view.changes.is_empty() && !view.layouts.is_empty() {
            let eager = |n: &Node| self.memory().heard.get(&n.id).is_some_and(|h| h.heartbeat.auto_add);
            let add: Vec<NodeId> =
                view.nodes.iter().filter(|n| n.state == NodeState::Joining && is_usable(n) && eager(n)).map(|n| n.id).collect();
            if !add.is_empty() {
                let request = ChangeRequest { add, ..ChangeRequest::default() };
                let (new, _) = self.planned(&view, wish(&view, &readable, &request)?).await?;
                return self.begin(None, new).await;
            }
        }
        Ok(())
    }

    /// Devices with slots whose nodes run without them, for as long as a node may be silent before it is out.
    fn gone(&self, view: &ClusterView, readable: &BTreeMap<u8, Readable>) -> BTreeSet<DeviceId> {
        let Some(limit) = self.limits.out else { return BTreeSet::new() };
        let now = self.now();
        let memory = &mut *self.memory();
        let heard = &memory.heard;
        let is_gone = |(node, device): &&(NodeId, DeviceId)| {
            let up = view.nodes.iter().find(|n| n.id == *node).filter(|n| matches!(n.state, NodeState::Up | NodeState::Draining));
            let told = |d: &[model::cluster::Device]| d.iter().any(|d| d.id == *device);
            up.is_some_and(|n| !told(&n.devices)) && heard.get(node).is_some_and(|h| !told(&h.heartbeat.devices))
        };
        let gone: BTreeSet<DeviceId> = readable.values().flat_map(|r| &r.current.devices).filter(is_gone).map(|(_, d)| *d).collect();
        memory.gone.retain(|device, _| gone.contains(device));
        gone.into_iter().filter(|device| now.saturating_sub(*memory.gone.entry(*device).or_insert(now)) >= limit).collect()
    }

    fn has_arrived(&self, view: &ClusterView, change: &LayoutChange, readable: &Readable) -> bool {
        let (now, memory) = (self.now(), self.memory());
        let is_out = |id: &NodeId| view.nodes.iter().find(|n| n.id == *id).is_none_or(|n| n.state == NodeState::Out);
        let settled = |id: NodeId| {
            memory.heard.get(&id).is_some_and(|heard| {
                now.saturating_sub(heard.at) < self.limits.suspect.max(Duration::from_secs(2))
                    && heard.heartbeat.layouts.iter().any(|p| p.width == change.width && p.epoch == change.to && p.settled)
            })
        };
        readable.holders().all(|id| is_out(&id) || settled(id))
    }
}

/// The first device that would get more than it has room for, and how much more.
fn short_of_room(plan: &PlanResponse, bytes: &BTreeMap<u8, u64>, free: &BTreeMap<DeviceId, u64>) -> Option<(NodeId, u64)> {
    let mut gains: BTreeMap<DeviceId, (NodeId, u64, u64)> = BTreeMap::new();
    for width in &plan.widths {
        let all = bytes.get(&width.width).copied().unwrap_or(0);
        let part = |slots: u64| (u128::from(all) * u128::from(slots) / u128::from(width.slots.max(1))) as u64;
        for d in &width.devices {
            let of = gains.entry(d.device).or_insert((d.node, 0, 0));
            (of.1, of.2) = (of.1 + part(d.gains), of.2 + part(d.gives));
        }
    }
    let short = |(device, (node, gains, gives)): (DeviceId, (NodeId, u64, u64))| {
        let room = free.get(&device)?.saturating_add(gives);
        (gains > room).then(|| (node, gains - room))
    };
    gains.into_iter().find_map(short)
}

/// Whether layouts may be planned over a node.
fn is_usable(node: &Node) -> bool {
    !node.devices.is_empty() && !node.draining && !node.leaving && node.state != NodeState::Out
}

fn devices_of(node: &Node) -> impl Iterator<Item = DeviceInfo> {
    let info = |d: &model::cluster::Device| DeviceInfo { device: d.id, node: node.id, zone: node.zone.clone(), capacity: d.capacity };
    node.devices.iter().map(info)
}

fn no_node(node: NodeId) -> Error {
    Error::not_found(format!("there is no node-{node}")).hint("shardkeep cluster status")
}

/// Nodes over which the current layouts were planned.
fn of_current<'a>(readable: impl IntoIterator<Item = &'a Readable>) -> BTreeSet<NodeId> {
    readable.into_iter().flat_map(|r| r.current.members.iter().copied()).collect()
}

/// What an operator's request asks for.
fn wish(view: &ClusterView, readable: &BTreeMap<u8, Readable>, request: &ChangeRequest) -> Result<Wish> {
    let row = |id: &NodeId| view.nodes.iter().find(|n| n.id == *id).ok_or_else(|| no_node(*id));
    let mut members: BTreeSet<NodeId> = of_current(readable.values());
    let mut add = request.add.clone();
    if add.is_empty() && request.drain.is_empty() {
        add.extend(view.nodes.iter().filter(|n| n.state == NodeState::Joining && is_usable(n)).map(|n| n.id));
    }
    let mut keep = Vec::new();
    for id in &add {
        let node = row(id)?;
        if request.drain.contains(id) {
            return Err(Error::invalid(format!("{} cannot be both added and drained", node.name)));
        }
        if node.leaving {
            return Err(Error::conflict(format!("{} was removed; it can join again with a token of its own", node.name)));
        }
        if node.devices.is_empty() || matches!(node.state, NodeState::Out | NodeState::Down) {
            return Err(Error::unavailable(format!("{} does not answer", node.name)).hint("start it, then try again"));
        }
        if node.draining {
            keep.push(*id);
        } else if members.contains(id) {
            return Err(Error::exists(format!("{} holds shards already", node.name)).hint("shardkeep cluster layout plan"));
        }
        members.insert(*id);
    }
    for id in &request.drain {
        let node = row(id)?;
        if node.draining && !members.contains(id) {
            return Err(Error::exists(format!("{} is drained already", node.name)).hint(format!("shardkeep cluster remove {}", node.name)));
        }
    }
    members.retain(|id| !request.drain.contains(id));
    let usable = |id: &NodeId| view.nodes.iter().any(|n| n.id == *id && (is_usable(n) || keep.contains(id)));
    members.retain(usable);
    let names = |ids: &[NodeId]| ids.iter().map(|id| format!("node-{id}")).collect::<Vec<_>>().join(", ");
    let mut why = Vec::new();
    if !add.is_empty() {
        why.push(format!("add {}", names(&add)));
    }
    if !request.drain.is_empty() {
        why.push(format!("drain {}", names(&request.drain)));
    }
    if why.is_empty() {
        why.push("balance anew".into());
    }
    Ok(Wish { drain: request.drain.clone(), keep, remove: Vec::new(), members, why: why.join("; "), loss: false })
}

/// What to plan because nodes are out that hold slots, and for which widths; `None` where there is none, or
/// too few nodes remain: then their slots stay with them.
fn loss(view: &ClusterView, readable: &BTreeMap<u8, Readable>) -> Option<(Wish, Vec<u8>)> {
    let out: BTreeSet<NodeId> = view.nodes.iter().filter(|n| n.state == NodeState::Out).map(|n| n.id).collect();
    let hit: Vec<(&u8, &Readable)> = readable.iter().filter(|(_, r)| !r.current.holders.is_disjoint(&out)).collect();
    let lost: BTreeSet<NodeId> = hit.iter().flat_map(|(_, r)| r.current.holders.intersection(&out)).copied().collect();
    let all = of_current(hit.iter().map(|(_, r)| *r));
    let there = |n: &&Node| all.contains(&n.id) && n.state != NodeState::Out && !n.leaving && n.devices.iter().any(|d| d.capacity > 0);
    let kept: BTreeSet<NodeId> = view.nodes.iter().filter(there).filter(|n| !n.draining).map(|n| n.id).collect();
    // A node that an operator wants emptied holds shards on, rather than that they are missing.
    let with_draining: BTreeSet<NodeId> = view.nodes.iter().filter(there).map(|n| n.id).collect();
    for members in [kept, with_draining] {
        let widths: Vec<u8> = hit.iter().map(|(w, _)| **w).filter(|w| usize::from(*w) <= members.len()).collect();
        if !widths.is_empty() {
            let names: Vec<String> = lost.iter().map(|id| format!("node-{id}")).collect();
            let verb = if names.len() == 1 { "is" } else { "are" };
            let why = format!("{} {verb} out", names.join(", "));
            return Some((Wish { drain: vec![], keep: vec![], remove: vec![], members, why, loss: true }, widths));
        }
    }
    None
}

/// What to plan because nodes have lost disks for good: the same nodes, with the disks that they have.
fn disks_lost(view: &ClusterView, readable: &BTreeMap<u8, Readable>, gone: &BTreeSet<DeviceId>) -> Option<(Wish, Vec<u8>)> {
    let lost = |r: &Readable| -> BTreeSet<NodeId> { r.current.devices.iter().filter(|(_, d)| gone.contains(d)).map(|(n, _)| *n).collect() };
    let hit: Vec<(&u8, &Readable)> = readable.iter().filter(|(_, r)| !lost(r).is_empty()).collect();
    let nodes: BTreeSet<NodeId> = hit.iter().flat_map(|(_, r)| lost(r)).collect();
    let there = |id: &NodeId| view.nodes.iter().any(|n| n.id == *id && is_usable(n) && n.devices.iter().any(|d| d.capacity > 0));
    let members: BTreeSet<NodeId> = of_current(hit.iter().map(|(_, r)| *r)).into_iter().filter(there).collect();
    let widths: Vec<u8> = hit.iter().map(|(w, _)| **w).filter(|w| usize::from(*w) <= members.len()).collect();
    let names: Vec<String> = nodes.iter().map(|id| format!("node-{id}")).collect();
    let why = format!("a disk of {} is gone", names.join(", "));
    (!widths.is_empty()).then_some((Wish { drain: vec![], keep: vec![], remove: vec![], members, why, loss: true }, widths))
}

/// `Unavailable`, naming a policy, unless there are as many nodes as a chunk has shards.
fn check_count(view: &ClusterView, width: u8, nodes: usize) -> Result<()> {
    if nodes >= usize::from(width) {
        return Ok(());
    }
    let policy =
        if view.policy.width() == width { format!("policy {} puts", view.policy) } else { format!("policies of {width} shards put") };
    // Not `Unavailable`: waiting and asking again changes nothing.
    Err(Error::invalid(format!("{policy} every shard of a chunk on a node of its own, {width} in all, and only {nodes} would remain"))
        .hint("let further nodes join first: shardkeep cluster token node"))
}

fn plan_all(old: &[Layout], devices: &[DeviceInfo]) -> Result<Vec<(Layout, Description)>> {
    let plan = |old: &Layout| {
        let new = layout::plan(Some(old), Epoch(old.epoch.0 + 1), old.power, old.width, devices)?;
        let description = layout::describe(old, &new);
        Ok((new, description))
    };
    old.iter().map(plan).collect()
}

fn width_plan((layout, d): &(Layout, Description)) -> WidthPlan {
    let moves = |g: &layout::Gain| DeviceMove { device: g.device, node: g.node, before: g.before, gains: g.gains, gives: g.gives };
    WidthPlan {
        width: layout.width,
        epoch: Epoch(layout.epoch.0.saturating_sub(1)),
        slots: d.slots,
        moved: d.moved,
        minimum: d.minimum,
        balance_ppm: d.balance_ppm,
        devices: d.devices.iter().map(moves).collect(),
    }
}

#[cfg(test)]
mod tests;
