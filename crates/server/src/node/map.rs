//! What a node knows of the cluster: layouts by width, addresses of nodes, the key that signs
//! capabilities. Fetched from the coordinators when a heartbeat says that it changed.

use super::link::Link;
use model::cluster::ClusterView;
use model::command::{Answer, Query};
use model::{Epoch, Error, Layout, NodeId, PublicKey, Result};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is known now. Cheap to read.
#[derive(Debug, Default)]
pub(crate) struct Map {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    layouts: BTreeMap<u8, Arc<Layout>>,
    addresses: BTreeMap<NodeId, String>,
    capability_key: Option<PublicKey>,
}

impl Map {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn layout(&self, width: u8) -> Option<Arc<Layout>> {
        self.known().layouts.get(&width).cloned()
    }

    /// Layouts of all widths.
    pub fn layouts(&self) -> Vec<Arc<Layout>> {
        self.known().layouts.values().cloned().collect()
    }

    pub fn address(&self, node: NodeId) -> Option<String> {
        self.known().addresses.get(&node).cloned()
    }

    /// `Unavailable` before the first talk with a coordinator.
    pub fn capability_key(&self) -> Result<PublicKey> {
        self.known().capability_key.ok_or_else(|| Error::unavailable("this node has not yet heard from a coordinator"))
    }

    /// `Conflict` for a write placed by an epoch older than the one known: its writer must fetch the
    /// layout and place again. Newer epochs pass: the writer knows more than this node.
    pub fn fence(&self, width: u8, epoch: Epoch) -> Result<()> {
        match self.layout(width) {
            Some(layout) if epoch < layout.epoch => {
                Err(Error::conflict(format!("the layout has changed: epoch {epoch} is over, epoch {} holds", layout.epoch)))
            }
            _ => Ok(()),
        }
    }

    /// Whether a heartbeat's answer names layouts that are newer than those known.
    pub fn is_behind(&self, layouts: &[(u8, Epoch)]) -> bool {
        let known = self.known();
        known.capability_key.is_none() || layouts.iter().any(|(width, epoch)| known.layouts.get(width).is_none_or(|l| l.epoch < *epoch))
    }

    /// Fetches nodes, key and newer layouts.
    pub async fn refresh(&self, link: &Link) -> Result<()> {
        let Answer::Cluster(view) = link.ask(&Query::Cluster).await? else { return Err(super::link::confused()) };
        let ClusterView { nodes, layouts, capability_key, .. } = *view;
        {
            let mut known = self.known();
            known.addresses = nodes.into_iter().map(|n| (n.id, n.address)).collect();
            known.capability_key = Some(capability_key);
        }
        for (width, epoch) in layouts {
            if self.layout(width).is_some_and(|l| l.epoch >= epoch) {
                continue;
            }
            let Answer::Layout(layout) = link.ask(&Query::Layout(width)).await? else { return Err(super::link::confused()) };
            let Some(layout) = layout else { continue };
            layout.check()?;
            tracing::info!(width, epoch = %layout.epoch, "layout");
            self.known().layouts.insert(width, Arc::new(layout));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{DeviceId, layout::DeviceInfo};

    fn with_epoch(epoch: u64) -> Map {
        let info = DeviceInfo { device: DeviceId([1; 16]), node: NodeId(1), zone: String::new(), capacity: 1 };
        let layout = Layout::new(Epoch(epoch), 0, 1, vec![info], &[0]).unwrap();
        let map = Map::default();
        map.known().layouts.insert(1, Arc::new(layout));
        map.known().capability_key = Some(PublicKey([1; 32]));
        map
    }

    #[test]
    fn an_older_epoch_is_fenced_and_a_newer_one_passes() {
        let map = with_epoch(5);
        assert_eq!(map.fence(1, Epoch(4)).unwrap_err().kind, model::Kind::Conflict);
        assert_eq!(map.fence(1, Epoch(5)), Ok(()));
        assert_eq!(map.fence(1, Epoch(6)), Ok(()));
        assert_eq!(map.fence(2, Epoch(1)), Ok(()));
    }

    #[test]
    fn a_newer_layout_or_a_new_width_means_behind() {
        let map = with_epoch(5);
        assert!(!map.is_behind(&[(1, Epoch(5))]));
        assert!(map.is_behind(&[(1, Epoch(6))]));
        assert!(map.is_behind(&[(1, Epoch(5)), (4, Epoch(1))]));
        assert!(Map::default().is_behind(&[]));
    }
}
