//! What a node knows of the cluster: layouts by width with the earlier ones that are still readable,
//! nodes with their addresses and states, the key that signs capabilities. Fetched from the
//! coordinators when a heartbeat says that something changed.
//!
//! Learning a newer layout is also the fence: from then on no write placed by an older one is taken.
//! Writes hold [`Map::gate`] from that check until they are durable, and a new layout waits for them;
//! so whoever looks at the shards afterwards sees every one that was acknowledged before.

use super::link::Link;
use model::cluster::{ClusterView, NodeState};
use model::command::{Answer, Query};
use model::layout::{LayoutChange, Layouts};
use model::{Epoch, Error, Layout, NodeId, PublicKey, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{RwLock, RwLockReadGuard};

/// What is known now. Cheap to read.
#[derive(Debug, Default)]
pub(crate) struct Map {
    known: Mutex<Known>,
    gate: RwLock<()>,
}

#[derive(Debug, Default)]
struct Known {
    layouts: BTreeMap<u8, Layouts>,
    nodes: BTreeMap<NodeId, (String, NodeState)>,
    capability_key: Option<PublicKey>,
    revision: u64,
    incarnation: [u8; 16],
    /// Nodes that miss shards.
    wanting: BTreeSet<NodeId>,
}

impl Map {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The layouts of a width.
    pub fn layouts(&self, width: u8) -> Option<Layouts> {
        self.known().layouts.get(&width).cloned()
    }

    /// The newest layout of a width.
    pub fn layout(&self, width: u8) -> Option<Arc<Layout>> {
        self.known().layouts.get(&width).map(|l| l.current.clone())
    }

    /// Widths of which a layout is known, with its epoch.
    pub fn epochs(&self) -> BTreeMap<u8, Epoch> {
        self.known().layouts.iter().map(|(width, l)| (*width, l.current.epoch)).collect()
    }

    /// Widths whose movement an operator has stopped.
    pub fn is_stopped(&self, width: u8) -> bool {
        self.known().layouts.get(&width).is_some_and(|l| l.stopped)
    }

    pub fn address(&self, node: NodeId) -> Option<String> {
        self.known().nodes.get(&node).map(|(address, _)| address.clone())
    }

    /// Whether the cluster takes a node for running. One that is not known yet is given a chance.
    pub fn is_up(&self, node: NodeId) -> bool {
        self.known().nodes.get(&node).is_none_or(|(_, state)| !matches!(state, NodeState::Down | NodeState::Out))
    }

    /// Notes which nodes miss shards by their own word.
    pub fn note_wanting(&self, nodes: Vec<NodeId>) {
        self.known().wanting = nodes.into_iter().collect();
    }

    /// Whether a node runs and has all that it should have, as far as is known.
    pub fn is_whole(&self, node: NodeId) -> bool {
        self.is_up(node) && !self.known().wanting.contains(&node)
    }

    /// Whether the cluster has given a node up: what it held counts as gone.
    pub fn is_out(&self, node: NodeId) -> bool {
        self.known().nodes.get(&node).is_some_and(|(_, state)| *state == NodeState::Out)
    }

    /// `Unavailable` before the first talk with a coordinator.
    pub fn capability_key(&self) -> Result<PublicKey> {
        self.known().capability_key.ok_or_else(|| Error::unavailable("this node has not yet heard from a coordinator"))
    }

    /// Held from the check of an epoch until what it allowed is done: no newer layout comes between.
    pub async fn gate(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read().await
    }

    /// `Conflict` for a write placed by an epoch older than the one known: its writer must fetch the
    /// layout and place again. Newer epochs pass: the writer knows more than this node. To be asked
    /// behind [`Map::gate`].
    pub fn fence(&self, width: u8, epoch: Epoch) -> Result<()> {
        match self.layout(width) {
            Some(layout) if epoch < layout.epoch => {
                Err(Error::conflict(format!("the layout has changed: epoch {epoch} is over, epoch {} holds", layout.epoch)))
            }
            _ => Ok(()),
        }
    }

    /// Whether the catalog's view of servers and layouts is another than the one known.
    pub fn is_behind(&self, revision: u64) -> bool {
        let known = self.known();
        known.capability_key.is_none() || known.revision != revision
    }

    /// Fetches nodes, key and layouts. Whether a layout or its change is another than before.
    pub async fn refresh(&self, link: &Link) -> Result<bool> {
        let Answer::Cluster(view) = link.ask(&Query::Cluster).await? else { return Err(super::link::confused()) };
        let mut fresh = BTreeMap::new();
        for (width, epoch) in &view.layouts {
            if let Some(layouts) = self.fetch(link, *width, *epoch, &view).await? {
                fresh.insert(*width, layouts);
            }
        }
        Ok(self.learn(*view, fresh).await)
    }

    async fn fetch(&self, link: &Link, width: u8, epoch: Epoch, view: &ClusterView) -> Result<Option<Layouts>> {
        // Epochs of another life of the catalog name other layouts.
        let known = self.layouts(width).filter(|_| self.known().incarnation == view.life.incarnation);
        let have = |epoch: Epoch| known.as_ref().and_then(|l| l.at(epoch)).cloned();
        let ask = |query: Query| async move { link.ask(&query).await };
        let change: Option<&LayoutChange> = view.changes.iter().find(|c| c.width == width);
        let mut all = Vec::new();
        let earlier = change.map(|c| c.from.as_slice()).unwrap_or_default().iter().rev().copied();
        for epoch in std::iter::once(epoch).chain(earlier) {
            let layout = match have(epoch) {
                Some(layout) => Some(layout),
                None => {
                    let base = known.as_ref().map(|l| &l.current).or(all.first());
                    wire::layouts::layout_at(ask, width, epoch, base.map(|l| &**l)).await?.map(Arc::new)
                }
            };
            all.extend(layout);
        }
        // One that is gone by now was replaced since: the next heartbeat tells.
        let mut all = all.into_iter();
        let Some(current) = all.next().filter(|l| l.epoch == epoch) else { return Ok(None) };
        Ok(Some(Layouts { current, earlier: all.collect(), stopped: change.is_some_and(|c| c.stopped) }))
    }

    /// Takes over what was fetched. Waits for the writes that an older layout still allowed.
    async fn learn(&self, view: ClusterView, fresh: BTreeMap<u8, Layouts>) -> bool {
        let _gate = self.gate.write().await;
        let mut known = self.known();
        let mut changed = false;
        // After a restore the epochs of the catalog's former life mean nothing any more.
        if std::mem::replace(&mut known.incarnation, view.life.incarnation) != view.life.incarnation {
            known.layouts.clear();
        }
        let all = view.layouts.len() == fresh.len();
        for (width, layouts) in fresh {
            let before = known.layouts.get(&width);
            // A coordinator that lags behind must not take back a fence.
            if before.is_some_and(|b| b.current.epoch > layouts.current.epoch) {
                continue;
            }
            let same = before.is_some_and(|b| {
                b.current.epoch == layouts.current.epoch && b.earlier.len() == layouts.earlier.len() && b.stopped == layouts.stopped
            });
            if !same {
                tracing::info!(width, epoch = %layouts.current.epoch, earlier = layouts.earlier.len(), "layout");
                changed = true;
            }
            known.layouts.insert(width, layouts);
        }
        known.nodes = view.nodes.into_iter().map(|n| (n.id, (n.address, n.state))).collect();
        known.capability_key = Some(view.capability_key);
        if all {
            known.revision = view.revision;
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::layout::DeviceInfo;
    use model::{ChunkRef, DeviceId, ObjectId};

    fn layout(epoch: u64, devices: [u8; 2]) -> Arc<Layout> {
        let info = |i: u8| DeviceInfo { device: DeviceId([i; 16]), node: NodeId(i as u64), zone: String::new(), capacity: 1 };
        Arc::new(Layout::new(Epoch(epoch), 0, 2, devices.map(info).to_vec(), &[0, 1]).unwrap())
    }

    fn with(current: Arc<Layout>, earlier: Vec<Arc<Layout>>) -> Map {
        let map = Map::default();
        map.known().layouts.insert(2, Layouts { current, earlier, stopped: false });
        map.known().capability_key = Some(PublicKey([1; 32]));
        map.known().revision = 7;
        map
    }

    #[test]
    fn whoever_is_rebuilding_runs_and_is_not_counted_on() {
        let map = with(layout(5, [1, 2]), Vec::new());
        map.known().nodes =
            [(1, NodeState::Up), (2, NodeState::Up), (3, NodeState::Down)].map(|(n, s)| (NodeId(n), (String::new(), s))).into();
        map.note_wanting(vec![NodeId(2)]);
        assert_eq!([1, 2, 3].map(|n| (map.is_up(NodeId(n)), map.is_whole(NodeId(n)))), [(true, true), (true, false), (false, false)]);
        map.note_wanting(Vec::new());
        assert!(map.is_whole(NodeId(2)));
    }

    /// Rule 1: epochs fence.
    #[test]
    fn rule_01_an_older_epoch_is_fenced_and_a_newer_one_passes() {
        let map = with(layout(5, [1, 2]), Vec::new());
        assert_eq!(map.fence(2, Epoch(4)).unwrap_err().kind, model::Kind::Conflict);
        assert_eq!(map.fence(2, Epoch(5)), Ok(()));
        assert_eq!(map.fence(2, Epoch(6)), Ok(()));
        assert_eq!(map.fence(3, Epoch(1)), Ok(()));
    }

    #[test]
    fn a_shard_is_looked_for_at_its_rightful_place_first_and_then_at_earlier_ones() {
        let map = with(layout(5, [1, 3]), vec![layout(4, [1, 2]), layout(3, [4, 2])]);
        let layouts = map.layouts(2).unwrap();
        let chunk = ChunkRef { object: ObjectId([1; 16]), number: 0 };
        let nodes = |index| layouts.holders(&chunk, index).iter().map(|d| d.node.0).collect::<Vec<_>>();
        assert_eq!((nodes(0), nodes(1)), (vec![1, 4], vec![3, 2]));
        assert!(layouts.is_rightful(&chunk, 1, DeviceId([3; 16])) && !layouts.is_rightful(&chunk, 1, DeviceId([2; 16])));
    }

    #[test]
    fn another_revision_means_behind() {
        let map = with(layout(5, [1, 2]), Vec::new());
        assert!(!map.is_behind(7) && map.is_behind(8) && map.is_behind(6));
        assert!(Map::default().is_behind(0));
    }
}
