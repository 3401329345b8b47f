//! A coordinator's place among the others: from its join, when it has no catalog yet, to its
//! removal. It keeps the others told where it is, keeps its card, and, where it leads, has the group
//! follow the catalog. What needs the catalog is in [`State`], which exists as soon as the catalog's
//! first row is here.

use super::card::Card;
use super::state::{Keys, State, confused};
use super::{detector::Limits, opaque::Opaque, watch};
use crate::consensus::{Consensus, Health};
use env::Env;
use model::cluster::Coordinator;
use model::command::{Answer, Command, Genesis, Query};
use model::{ClusterId, CoordinatorId, Error, Result};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use transport::{ClusterRoot, ServerId, TlsIdentity};
use wire::Version;
use wire::coordinator::HelloResponse;
use wire::raft::{Announced, Announcement};

/// Pause between two looks at one's place.
const ROUND: Duration = Duration::from_millis(500);
/// Rounds without a leader after which the others are told again where this coordinator is, and may say
/// that it was removed.
const ALONE: u32 = 10;
/// Rounds before a coordinator that finds itself removed asks whether it is still needed.
const FAREWELL: u32 = 10;

/// One coordinator of the group. Behind an `Arc`, shared by its service and its loops.
pub(crate) struct Part {
    pub env: Env,
    pub me: CoordinatorId,
    pub cluster: ClusterId,
    /// Address that others connect to.
    pub address: String,
    /// Cluster root certificate, DER.
    pub root: Vec<u8>,
    pub consensus: Consensus,
    pub limits: Limits,
    state: OnceLock<Arc<State>>,
    removed: AtomicBool,
}

impl Part {
    pub fn new(env: Env, consensus: Consensus, card: &Card, address: String, limits: Limits) -> Self {
        let (me, cluster, root) = (card.id, card.cluster, card.root.to_vec());
        Part { env, me, cluster, address, root, consensus, limits, state: OnceLock::new(), removed: AtomicBool::new(false) }
    }

    /// What serves the catalog. `Unavailable` while there is none here, and when this coordinator was
    /// removed.
    pub fn state(&self) -> Result<&Arc<State>> {
        if self.removed.load(Ordering::Relaxed) {
            return Err(Error::unavailable(format!("coordinator-{} was removed from the cluster and serves nothing any more", self.me))
                .hint("stop it; to have another one: shardkeep cluster token coordinator"));
        }
        self.state
            .get()
            .ok_or_else(|| Error::unavailable("this coordinator is still catching up: it has joined, and does not have the catalog yet"))
    }

    /// The catalog's first row, where it is here.
    pub fn genesis(&self) -> Result<Option<Box<Genesis>>> {
        match self.consensus.query_local(&Query::Genesis)? {
            Answer::Genesis(genesis) => Ok(genesis),
            _ => Err(confused()),
        }
    }

    /// From now on the catalog can be served.
    pub fn open(&self, genesis: &Genesis) -> Result<Arc<State>> {
        let keys = Keys {
            root: ClusterRoot::load(&genesis.root_cert, &genesis.root_key)?,
            opaque: Opaque::load(&genesis.opaque_setup, genesis.cluster)?,
            capability: ed25519_dalek::SigningKey::from_bytes(&genesis.capability_seed),
        };
        let state = State::new(self.env.clone(), self.consensus.clone(), self.cluster, self.me, keys, self.limits);
        Ok(self.state.get_or_init(|| Arc::new(state)).clone())
    }

    /// Who this is, and who leads.
    pub async fn hello(&self, theirs: Version) -> Result<HelloResponse> {
        wire::PROTOCOL.admit(theirs)?;
        let leads = self.consensus.surely_leads() && self.state().is_ok();
        let leader = match leads {
            true => Some(self.address.clone()),
            false => self.consensus.leader().and_then(|id| self.consensus.roster().address(id)),
        };
        Ok(HelloResponse {
            protocol: wire::PROTOCOL,
            software: env!("CARGO_PKG_VERSION").into(),
            cluster: self.cluster,
            leader,
            root: self.root.clone().into(),
            leads,
        })
    }

    /// Another coordinator says where it is. The leader writes it down, and knows who was removed.
    pub async fn on_announce(&self, from: CoordinatorId, announcement: Announcement) -> Result<Announced> {
        self.consensus.check_head(&announcement.head)?;
        let Announcement { address, version, damaged, short_of_room, now_ms, .. } = announcement;
        if address.is_empty() || address.len() > 256 || version.len() > 64 {
            return Err(Error::invalid("an announcement with impossible fields"));
        }
        self.consensus.roster().moved(from, &address);
        self.consensus.roster().says(from, Health { damaged, short_of_room });
        let Answer::Cluster(view) = self.consensus.query(Query::Cluster).await? else { return Err(confused()) };
        let Some(row) = view.coordinators.iter().find(|c| c.id == from) else {
            // Until then the others may need its vote to go on without it.
            return Ok(Announced { places: Vec::new(), removed: self.consensus.is_without(from) });
        };
        self.state()?.hear_clock(ServerId::Coordinator(from), now_ms);
        if row.address != address || row.version != version {
            self.command(Command::UpdateCoordinator { id: from, address, version }).await?;
        }
        let places = view.coordinators.into_iter().filter(|c| !c.address.is_empty()).map(|c| (c.id, c.address));
        Ok(Announced { places: places.collect(), removed: false })
    }

    async fn command(&self, command: Command) -> Result<()> {
        self.state()?.command(command).await.map(|_| ())
    }

    fn is_current(&self, row: &Coordinator) -> bool {
        row.address == self.address && row.version == env!("CARGO_PKG_VERSION")
    }

    /// Keeps this coordinator's place until the process stops or it was removed.
    pub async fn keep_place(&self, mut card: Card, card_file: PathBuf) {
        let (mut listed_before, mut told, mut alone, mut farewell) = (false, false, 0, 0);
        let (mut told_health, mut told_leader) = (Health::default(), None);
        loop {
            // Not read is not the same as not listed.
            let (row, was_read) = match self.consensus.read_roster() {
                Ok(row) => (row, true),
                Err(e) => {
                    tracing::warn!(error = %e, "the list of coordinators could not be read");
                    (None, false)
                }
            };
            if card.note_peers(self.consensus.roster())
                && let Err(e) = card.write(&self.env, &card_file).await
            {
                tracing::warn!(error = %e, "the card could not be written");
            }
            listed_before |= row.is_some();
            if self.consensus.is_leader() {
                self.lead(row.as_ref()).await;
                (told, alone) = (true, 0);
            } else if listed_before && was_read && row.is_none() {
                // Applied here, so it is true. It goes when the others can do without it.
                self.remove();
                farewell += 1;
                // (A leader of a version before this one says so as soon as the row is gone.)
                if farewell >= FAREWELL && self.consensus.announce(&self.address).await.is_ok_and(|stays| !stays) {
                    return self.consensus.leave().await;
                }
            } else {
                let health = self.consensus.roster().health();
                let is_well = health == Health::default();
                let leader = self.consensus.leader();
                alone = if is_well && leader.is_some() { 0 } else { alone + 1 };
                let is_new = leader.is_some() && leader != told_leader;
                if !told || health != told_health || is_new || alone >= ALONE || row.as_ref().is_some_and(|row| !self.is_current(row)) {
                    alone = 0;
                    match self.consensus.announce(&self.address).await {
                        Ok(true) => (told, told_health, told_leader) = (true, health, leader),
                        Ok(false) => {
                            self.remove();
                            return self.consensus.leave().await;
                        }
                        Err(e) => tracing::debug!(error = %e, "no leader takes this coordinator's address"),
                    }
                }
            }
            self.consensus.sweep().await;
            self.env.sleep(ROUND).await;
        }
    }

    fn remove(&self) {
        if !self.removed.swap(true, Ordering::Relaxed) {
            tracing::error!(id = %self.me, "this coordinator was removed from the cluster: it serves nothing any more and can be stopped");
        }
    }

    /// What the leader does for the group.
    async fn lead(&self, row: Option<&Coordinator>) {
        if row.is_some_and(|row| !self.is_current(row)) {
            let (address, version) = (self.address.clone(), env!("CARGO_PKG_VERSION").into());
            if let Err(e) = self.command(Command::UpdateCoordinator { id: self.me, address, version }).await {
                tracing::debug!(error = %e, "this coordinator's address could not be written down");
            }
        }
        if let Err(e) = self.consensus.follow_catalog().await {
            tracing::debug!(error = %e, "the group could not be changed");
        }
        if self.consensus.roster().health().damaged {
            self.consensus.yield_to_sound().await;
        }
    }

    /// What a coordinator does by itself once it has the catalog. Never ends.
    pub async fn serve_catalog(&self, identity: Arc<TlsIdentity>, spki: Vec<u8>) {
        let state = loop {
            let opened = self.genesis().and_then(|genesis| genesis.map(|g| self.open(&g)).transpose());
            match opened {
                Ok(Some(state)) => break state,
                Ok(None) => {}
                Err(e) => tracing::warn!(error = %e, "the catalog cannot be served"),
            }
            self.env.sleep(ROUND).await;
        };
        futures::join!(watch::run(state.clone()), super::recode::run(state.clone()), super::renew(state, identity, spki));
    }
}
