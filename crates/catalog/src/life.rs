//! The life of the catalog: which incarnation it is, what operators ask of all nodes, and the first
//! command after a restore.
//!
//! Numbers (of the feed, of nodes, of epochs) mean something within one incarnation only. A catalog
//! that was restored from a backup gives out some of them a second time; so [`Tx::restored`] draws
//! another incarnation, freezes collection, and goes on well beyond every number that may have been
//! given out between the backup and the loss.

use crate::row::Counters;
use crate::tx::{Step, Tx};
use crate::{key, query};
use model::cluster::{CatalogLife, Coordinator};
use model::command::{Genesis, Outcome};
use model::layout::{Layout, LayoutChange};
use model::{AccountId, ClusterId, Epoch, Error, Hash};

/// How far a restored catalog goes beyond the numbers in its backup: nodes, epochs of layouts.
pub const RESTORE_GAP: u64 = 1_000;
/// Servers note snapshots every few minutes; the log of events hears of them once in this time.
const NOTED_MS: u64 = 24 * 3600 * 1000;

/// The first life of a cluster's catalog. It has no row until something in it changes.
pub(crate) fn first(cluster: ClusterId) -> CatalogLife {
    let hash = Hash::of(&[&b"shardkeep/v1/first-life"[..], &cluster.0].concat());
    let mut incarnation = [0; 16];
    incarnation.copy_from_slice(&hash.0[..16]);
    CatalogLife { incarnation, ..CatalogLife::default() }
}

impl Tx<'_> {
    fn life(&self) -> Step<CatalogLife> {
        match self.get(&key::life())? {
            Some(life) => Ok(life),
            None => Ok(first(self.must::<Genesis>(&key::genesis())?.cluster)),
        }
    }

    fn set_life(&mut self, life: &CatalogLife) -> Step<()> {
        self.counters.revision += 1;
        self.put(&key::life(), life)
    }

    /// An admin has every shard checked now.
    pub(crate) fn request_scrub(&mut self, by: Option<AccountId>) -> Step<Outcome> {
        let admin = self.admin(by)?;
        let life = self.life()?;
        // Always a later one: nodes answer the latest that they know.
        let scrub_ms = self.now.max(life.scrub_ms + 1);
        self.set_life(&CatalogLife { scrub_ms, ..life })?;
        self.event("scrub-requested", None, format!("{} has every shard checked", admin.name))?;
        Ok(Outcome::Done)
    }

    /// An admin releases collection.
    pub(crate) fn thaw(&mut self, by: Option<AccountId>) -> Step<Outcome> {
        let admin = self.admin(by)?;
        let life = self.life()?;
        self.set_life(&CatalogLife { frozen: false, thaws: life.thaws + 1, ..life })?;
        self.event("collection-thawed", None, format!("{} lets nodes drop what this catalog calls dead", admin.name))?;
        Ok(Outcome::Done)
    }

    /// An admin has written a backup; or the servers a snapshot onto the nodes.
    pub(crate) fn note_backup(&mut self, by: Option<AccountId>) -> Step<Outcome> {
        let detail = match by {
            Some(_) => format!("a backup was written by {}", self.admin(by)?.name),
            None => "an encrypted snapshot was put onto nodes".into(),
        };
        let life = self.life()?;
        if by.is_some() || life.snapshot_ms.saturating_add(NOTED_MS) <= self.now {
            self.event("catalog-backed-up", None, detail)?;
        }
        self.set_life(&match by {
            Some(_) => CatalogLife { backup_ms: self.now, ..life },
            None => CatalogLife { snapshot_ms: self.now, ..life },
        })?;
        Ok(Outcome::Done)
    }

    /// The first command after a restore.
    pub(crate) fn restored(&mut self, incarnation: [u8; 16], coordinator: &Coordinator) -> Step<Outcome> {
        let others: Vec<Coordinator> = self.rows(&key::coordinators())?;
        let highest = highest(&others, self.counters.last_coordinator);
        if coordinator.id.0 <= highest {
            return Err(Error::invalid(format!("coordinator {} was there before: a restore makes a new one", coordinator.id)).into());
        }
        let life = self.life()?;
        if incarnation == life.incarnation {
            return Err(Error::invalid("a restored catalog is another incarnation").into());
        }
        for other in &others {
            self.delete(&key::coordinator(other.id))?;
        }
        self.put(&key::coordinator(coordinator.id), coordinator)?;
        self.counters.last_coordinator = coordinator.id.0;
        self.counters.next_node += RESTORE_GAP;
        // Nodes may know epochs that the backup does not, and refuse writes by older ones.
        for mut layout in self.rows::<Layout>(&key::layouts())? {
            layout.epoch = Epoch(layout.epoch.0 + RESTORE_GAP);
            self.put(&key::layout(layout.width), &layout)?;
        }
        for mut change in self.rows::<LayoutChange>(&key::changes())? {
            change.to = Epoch(change.to.0 + RESTORE_GAP);
            self.put(&key::change(change.width), &change)?;
        }
        self.counters.revision += RESTORE_GAP;
        self.set_life(&CatalogLife { incarnation, frozen: true, ..life })?;
        let detail = format!("onto coordinator {}, from what it was at event {}", coordinator.id, self.counters.totals.events);
        self.event("catalog-restored", None, format!("{detail}: collection is frozen until cluster thaw"))?;
        Ok(Outcome::Done)
    }
}

fn highest(coordinators: &[Coordinator], given_out: u64) -> u64 {
    coordinators.iter().map(|c| c.id.0).max().unwrap_or(0).max(given_out)
}

/// The highest id that a coordinator of this catalog ever had.
pub fn last_coordinator(kv: &dyn crate::kv::Kv) -> model::Result<u64> {
    let counters: Counters = query::get(kv, &key::counters())?.unwrap_or_default();
    Ok(highest(&query::rows(kv, &key::coordinators())?, counters.last_coordinator))
}

/// The life of a catalog, for whoever asks.
pub(crate) fn of(kv: &dyn crate::kv::Kv, cluster: ClusterId) -> model::Result<CatalogLife> {
    Ok(query::get(kv, &key::life())?.unwrap_or_else(|| first(cluster)))
}
