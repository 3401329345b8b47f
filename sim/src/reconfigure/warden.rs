//! The warden: lets coordinators join, removes them, and replaces one whose disk is lost, while
//! everything else goes on.
//!
//! A coordinator that was removed is switched off as soon as its removal is answered: from then on nobody
//! may need it. At most one loses its disk at a time, and the next one no sooner than the group goes on
//! without it. One of those of the beginning always stays, so that whoever was away for long finds the others.

use super::servers::Build;
use super::stage::{Phase, Stage, Wish};
use super::user::{Scene, opened};
use crate::cluster::dice::Dice;
use env::Env;
use model::cluster::ServerRole;
use model::{CoordinatorId, Error, Kind};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use wire::coordinator::{Administration, StatusResponse};

/// Most coordinators.
const MOST: usize = 5;
/// One that is listed, and which nobody says to be, never came to life.
const STRANGE: Duration = Duration::from_secs(60);
/// Longest time between mending and a group in which all vote and answer.
const SETTLED_WITHIN: Duration = Duration::from_secs(10 * 60);

/// One that is to leave the group.
struct Going {
    host: usize,
    id: CoordinatorId,
    /// Its disk is gone already.
    lost: bool,
}

struct Warden {
    scene: Scene,
    dice: Dice,
    /// Hosts of coordinators.
    hosts: usize,
    /// Never leaves.
    keeper: usize,
    going: Option<Going>,
    /// Listed ones whom no host knows, and since when.
    strangers: BTreeMap<CoordinatorId, Duration>,
}

/// The warden's program.
pub async fn warden(env: Env, stage: Stage, seed: u64, build: Build) -> env::sim::Result {
    let client = opened(&env, &stage, "warden", None).await;
    let scene = Scene { env: env.clone(), stage, name: "warden".into(), client };
    let (hosts, keeper) = (build.coordinators + build.heirs, build.coordinators - 1);
    let mut warden = Warden { scene, dice: Dice::new(seed, "warden"), hosts, keeper, going: None, strangers: BTreeMap::new() };
    warden.scene.ready(Phase::Setup).await;
    while warden.scene.phase() == Phase::Play {
        let pause = warden.dice.between(1_000, 8_000);
        env.sleep(Duration::from_millis(pause)).await;
        if let Some(status) = warden.attend().await {
            warden.act(&status).await;
        }
    }
    warden.settle().await;
    warden.scene.ready(Phase::Mend).await;
    warden.scene.ready(Phase::Check).await;
    // Some come to life only now, and find themselves removed.
    loop {
        env.sleep(Duration::from_secs(5)).await;
        warden.attend().await;
    }
}

impl Warden {
    async fn status(&self) -> Result<StatusResponse, Error> {
        self.scene.bounded("status", self.scene.client.status()).await
    }

    fn seats(&self) -> BTreeMap<usize, CoordinatorId> {
        self.scene.stage.lock().seats.clone()
    }

    /// Goes on with what was begun. The status, where nothing is left to go on with.
    async fn attend(&mut self) -> Option<StatusResponse> {
        // Before the status, which therefore knows of all of them.
        let seats = self.seats();
        let status = match self.status().await {
            Ok(status) => status,
            Err(e) => {
                self.scene.tell(format!("status: {e}"));
                return None;
            }
        };
        if self.going.is_some() {
            self.send_off().await;
            return None;
        }
        let listed: BTreeSet<CoordinatorId> = status.coordinators.iter().map(|(id, _)| *id).collect();
        // Taken for one that never came to life.
        if let Some((host, _)) = seats.iter().find(|(_, id)| !listed.contains(id)) {
            self.vacate(*host);
            return None;
        }
        let now = self.scene.now();
        self.strangers.retain(|id, _| listed.contains(id));
        for id in listed.iter().filter(|id| !seats.values().any(|seat| seat == *id)) {
            if now > *self.strangers.entry(*id).or_insert(now) + STRANGE {
                let _ = self.remove(*id).await;
                return None;
            }
        }
        Some(status)
    }

    async fn act(&mut self, status: &StatusResponse) {
        let seats = self.seats();
        let voters: BTreeMap<CoordinatorId, bool> =
            status.coordinators.iter().filter(|(id, _)| !status.learners.contains(id)).copied().collect();
        let votes = |(_, id): &(&usize, &CoordinatorId)| voters.contains_key(id);
        let may_go: Vec<(usize, CoordinatorId)> =
            seats.iter().filter(votes).filter(|(host, _)| **host != self.keeper).map(|(host, id)| (*host, *id)).collect();
        let all_up = status.coordinators.len() == voters.len() && voters.values().all(|up| *up);
        match self.dice.below(5) {
            0..=1 if status.coordinators.len() < MOST => self.admit(&seats).await,
            2 => {
                if let Some((host, id)) = self.one(&may_go) {
                    self.going = Some(Going { host, id, lost: false });
                    self.send_off().await;
                }
            }
            3 if all_up && voters.len() >= 3 => {
                if let Some((host, id)) = self.one(&may_go) {
                    self.going = Some(Going { host, id, lost: true });
                    self.vacate(host);
                }
            }
            _ => {}
        }
    }

    fn one(&mut self, of: &[(usize, CoordinatorId)]) -> Option<(usize, CoordinatorId)> {
        of.get(self.dice.below(of.len() as u64) as usize).copied()
    }

    /// A token for a host that waits for one.
    async fn admit(&mut self, seats: &BTreeMap<usize, CoordinatorId>) {
        let idle = |host: &usize| !seats.contains_key(host) && !self.scene.stage.lock().tokens.contains_key(&format!("coordinator{host}"));
        let Some(host) = (0..self.hosts).find(idle) else { return };
        let asked = self.scene.client.create_token(ServerRole::Coordinator, Duration::from_secs(24 * 3600), None);
        let text = match self.scene.bounded("token", asked).await {
            Ok((token, _)) => {
                self.scene.stage.lock().tokens.insert(format!("coordinator{host}"), token);
                "given".into()
            }
            Err(e) => e.to_string(),
        };
        self.scene.tell(format!("token for coordinator{host}: {text}"));
    }

    /// Its machine is taken away, and comes back empty.
    fn vacate(&self, host: usize) {
        self.scene.stage.lock().wishes.push_back(Wish::Vacate(host));
    }

    async fn remove(&self, id: CoordinatorId) -> Result<(), Error> {
        let removal = self.scene.client.administer(Administration::RemoveCoordinator(id));
        let done = self.scene.bounded("removal", removal).await;
        let text = done.as_ref().map_or_else(|e| format!("{:?}: {e}", e.kind), |()| "done".into());
        self.scene.tell(format!("removes coordinator-{id}: {text}"));
        done
    }

    /// One more try to have the group go on without somebody.
    async fn send_off(&mut self) {
        let Some(Going { host, id, lost }) = self.going.take() else { return };
        let now = self.scene.now();
        self.scene.stage.lock().broken = Some(now);
        match self.remove(id).await {
            Ok(()) => {}
            Err(e) if e.kind == Kind::NotFound => {}
            // The others need it, for now.
            Err(e) if e.kind == Kind::Invalid && !lost => return,
            Err(_) => return self.going = Some(Going { host, id, lost }),
        }
        if !lost {
            self.vacate(host);
        }
    }

    /// Until all that are listed vote and answer.
    async fn settle(&mut self) {
        let began = self.scene.now();
        loop {
            if let Some(status) = self.attend().await {
                let seats = self.seats();
                let silent: Vec<_> = status.coordinators.iter().filter(|(_, up)| !up).map(|(id, _)| *id).collect();
                let unlisted = seats.values().find(|id| !status.coordinators.iter().any(|(listed, _)| listed == *id));
                if silent.is_empty() && status.learners.is_empty() && unlisted.is_none() {
                    return self.scene.tell(format!("sees all of {:?} vote and answer", status.coordinators));
                }
                self.scene.tell(format!("waits for {silent:?}, {:?}, {unlisted:?}", status.learners));
            }
            let now = self.scene.now();
            if now > began + SETTLED_WITHIN {
                return self.scene.stage.lock().fail(now, format!("the coordinators do not settle within {SETTLED_WITHIN:?}"));
            }
            self.scene.env.sleep(Duration::from_secs(2)).await;
        }
    }
}
