//! Changes of the layouts: begun by one command, ended by another, and in between the layouts that were
//! replaced stay readable.
//!
//! The layouts come with the command. Whoever proposes it has planned them, so that two versions of the
//! planner never make replicas differ; what is checked here is what every layout must keep, however it
//! was found.
//!
//! Only one change of an operator runs at a time. A loss does not wait for it: it supersedes it, as another change
//! does once an operator has stopped it, and what shards may still lie by is then the union of all layouts that were
//! left unfinished.

use crate::tx::{Step, Tx};
use crate::{key, layout};
use model::cluster::{Node, NodeState};
use model::command::{NewLayouts, Outcome};
use model::layout::LayoutChange;
use model::{AccountId, DeviceId, Epoch, Error, Layout, NodeId};
use std::collections::{BTreeMap, BTreeSet};

impl Tx<'_> {
    pub(crate) fn change_layouts(&mut self, by: Option<AccountId>, new: &NewLayouts) -> Step<Outcome> {
        self.operator(by)?;
        let under_way: Vec<LayoutChange> = self.rows(&key::changes())?;
        if let Some(change) = under_way.iter().find(|c| !c.stopped).filter(|_| !new.loss) {
            return Err(Error::conflict(format!("another change is under way: {}. A second one waits until it is done", change.why))
                .hint("shardkeep cluster layout show")
                .into());
        }
        let current: Vec<Layout> = self.rows(&key::layouts())?;
        let widths: BTreeSet<u8> = new.layouts.iter().map(|(layout, _, _)| layout.width).collect();
        if widths.len() < new.layouts.len() || (!new.loss && current.iter().any(|l| !widths.contains(&l.width))) {
            return Err(Error::invalid("a change takes every width once").into());
        }
        let mut nodes: BTreeMap<NodeId, Node> = self.rows::<Node>(&key::nodes())?.into_iter().map(|n| (n.id, n)).collect();
        let mut words = Vec::new();
        for (layout, moved, minimum) in &new.layouts {
            let old = current.iter().find(|l| l.width == layout.width);
            let old = old.ok_or_else(|| Error::invalid(format!("there is no layout of width {}", layout.width)))?;
            check(old, layout, &nodes)?;
            let change = under_way.iter().find(|c| c.width == layout.width);
            let mut from = change.map_or_else(Vec::new, |c| c.from.clone());
            from.push(old.epoch);
            let why = match change {
                // All of them together are what is under way now.
                Some(change) => format!("{}, during: {}", new.why, change.why),
                None => new.why.clone(),
            };
            // Stopped or not before: a loss is not to wait.
            let row = LayoutChange {
                width: layout.width,
                to: layout.epoch,
                from,
                began_ms: self.now,
                stopped: false,
                moved: *moved,
                minimum: *minimum,
                why: shortened(why),
            };
            self.put(&key::earlier_layout(old.width, old.epoch), old)?;
            self.put(&key::layout(layout.width), layout)?;
            self.put(&key::change(layout.width), &row)?;
            let slots = u64::from(layout.partitions()) * u64::from(layout.width);
            words.push(format!("width {} to epoch {}: {moved} of {slots} slots move, at least {minimum} must", layout.width, layout.epoch));
        }
        self.mark(new, &mut nodes)?;
        let what = if new.layouts.is_empty() { "layout-unchanged" } else { "layout-changed" };
        self.event(what, None, format!("{} ({})", new.why, words.join("; ")))?;
        Ok(Outcome::Done)
    }

    /// What the change makes of nodes: emptied, kept, gone for good, and taken in.
    fn mark(&mut self, new: &NewLayouts, nodes: &mut BTreeMap<NodeId, Node>) -> Step<()> {
        let members = self.layout_members()?;
        for id in new.drain.iter().chain(&new.keep).chain(&new.remove) {
            if !nodes.contains_key(id) {
                return Err(Error::not_found(format!("there is no node {id}")).into());
            }
        }
        for node in nodes.values_mut() {
            let before = node.clone();
            if new.drain.contains(&node.id) {
                node.draining = true;
            }
            if new.keep.contains(&node.id) {
                node.draining = false;
            }
            node.state = match node.state {
                NodeState::Joining | NodeState::Up | NodeState::Suspect if node.draining => NodeState::Draining,
                NodeState::Draining if !node.draining && members.contains(&node.id) => NodeState::Up,
                NodeState::Draining if !node.draining => NodeState::Joining,
                NodeState::Joining if members.contains(&node.id) => NodeState::Up,
                state => state,
            };
            if new.remove.contains(&node.id) {
                (node.leaving, node.state) = (true, NodeState::Out);
            }
            if *node != before {
                self.put(&key::node(node.id), node)?;
            }
        }
        Ok(())
    }

    pub(crate) fn pause_layouts(&mut self, by: Option<AccountId>, stop: bool) -> Step<Outcome> {
        self.operator(by)?;
        let changes: Vec<LayoutChange> = self.rows(&key::changes())?;
        if changes.is_empty() {
            return Err(Error::conflict("no change of the layout is under way").hint("shardkeep cluster layout show").into());
        }
        let others: Vec<LayoutChange> = changes.into_iter().filter(|c| c.stopped != stop).collect();
        for change in &others {
            self.put(&key::change(change.width), &LayoutChange { stopped: stop, ..change.clone() })?;
        }
        if let Some(change) = others.first() {
            self.event(if stop { "layout-stopped" } else { "layout-resumed" }, None, change.why.clone())?;
        }
        Ok(Outcome::Done)
    }

    pub(crate) fn finish_layout(&mut self, width: u8, epoch: Epoch) -> Step<Outcome> {
        let change = self.get::<LayoutChange>(&key::change(width))?.filter(|c| c.to == epoch);
        let Some(change) = change else {
            return Err(Error::conflict(format!("no change of width {width} moves to epoch {epoch}")).into());
        };
        self.delete(&key::change(width))?;
        let earlier = key::earlier_layouts_of(width);
        for layout in self.keys(&earlier, &key::end_of(&earlier), usize::MAX)? {
            self.delete(&layout)?;
        }
        self.event("layout-finished", None, format!("{}: width {width} is at epoch {epoch}", change.why))?;
        self.forget_leavers()?;
        Ok(Outcome::Done)
    }

    /// Nodes that are gone for good are forgotten once no layout names them.
    fn forget_leavers(&mut self) -> Step<()> {
        let leavers: Vec<Node> = self.rows::<Node>(&key::nodes())?.into_iter().filter(|n| n.leaving).collect();
        if leavers.is_empty() {
            return Ok(());
        }
        let holders = self.slot_holders()?;
        for node in leavers.into_iter().filter(|n| !holders.contains(&n.id)) {
            self.forget_node(&node)?;
        }
        Ok(())
    }

    pub(crate) fn remove_node(&mut self, by: Option<AccountId>, id: NodeId) -> Step<Outcome> {
        self.operator(by)?;
        let node: Node = self.get(&key::node(id))?.ok_or_else(|| Error::not_found(format!("there is no node {id}")))?;
        if self.slot_holders()?.contains(&id) {
            return Err(Error::conflict(format!("{} still holds shards by the layout", node.name))
                .hint(format!("shardkeep cluster drain {}", node.name))
                .into());
        }
        self.forget_node(&node)?;
        Ok(Outcome::Done)
    }

    pub(crate) fn forget_node(&mut self, node: &Node) -> Step<()> {
        self.delete(&key::node(node.id))?;
        self.delete(&key::heir(node.id))?;
        self.event("node-removed", Some(node.id), node.name.clone())
    }

    /// `Denied` for accounts that are no admins. Servers themselves may.
    fn operator(&self, by: Option<AccountId>) -> Step<()> {
        if by.is_some() { self.admin(by).map(|_| ()) } else { Ok(()) }
    }

    /// Nodes over which the current layouts were planned.
    pub(crate) fn layout_members(&self) -> Step<BTreeSet<NodeId>> {
        Ok(self.rows::<Layout>(&key::layouts())?.iter().flat_map(layout::members).collect())
    }

    /// Nodes with slots in any readable layout.
    fn slot_holders(&self) -> Step<BTreeSet<NodeId>> {
        let mut layouts: Vec<Layout> = self.rows(&key::layouts())?;
        layouts.extend(self.rows::<Layout>(&key::earlier_layouts())?);
        Ok(layouts.iter().flat_map(layout::holders).collect())
    }
}

/// Whether a layout may come after another.
fn check(old: &Layout, new: &Layout, nodes: &BTreeMap<NodeId, Node>) -> Step<()> {
    new.check()?;
    if new.epoch.0 != old.epoch.0 + 1 {
        let was = old.epoch;
        return Err(Error::conflict(format!("the layout of width {} is at epoch {was} by now: plan again", old.width))
            .hint("shardkeep cluster layout plan")
            .into());
    }
    if new.power != old.power {
        return Err(Error::invalid("a layout keeps its number of partitions").into());
    }
    // A disk that its node no longer reports may keep the slots that it has.
    let mut known: BTreeSet<(NodeId, DeviceId)> = old.devices.iter().map(|d| (d.node, d.device)).collect();
    known.extend(nodes.values().flat_map(|n| n.devices.iter().map(|d| (n.id, d.id))));
    if !new.devices.iter().all(|d| nodes.contains_key(&d.node) && known.contains(&(d.node, d.device))) {
        return Err(Error::invalid("a layout names a device that no node has").into());
    }
    let node_of: Vec<NodeId> = new.devices.iter().map(|d| d.node).collect();
    let mut here: Vec<NodeId> = Vec::with_capacity(new.width as usize);
    for partition in new.slot_indexes().chunks_exact(new.width as usize) {
        here.clear();
        here.extend(partition.iter().filter_map(|slot| node_of.get(*slot as usize)));
        here.sort_unstable();
        if here.windows(2).any(|pair| matches!(pair, [a, b] if a == b)) {
            return Err(Error::invalid("a layout puts two shards of a chunk on one node").into());
        }
    }
    Ok(())
}

/// Losses upon losses add up; what is said of them does not grow without end.
fn shortened(why: String) -> String {
    match why.char_indices().nth(300) {
        Some((end, _)) => format!("{} …", &why[..end]),
        None => why,
    }
}
