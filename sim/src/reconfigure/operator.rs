//! The operator: adds, drains, replaces and removes nodes, stops changes and lets them go on, and in the
//! end looks until everything is whole.
//!
//! At most one node has lost shards at a time, until everything was seen whole after it: chunks that
//! were stored while a server was away have one loss less to spare, and say so. Only when all is whole,
//! and nothing else breaks, two nodes lose theirs at once.

use super::stage::{Phase, Stage, Wish};
use super::user::{FILES, LOOK, Scene, opened, path};
use crate::cluster::dice::Dice;
use client::status::{Layouts, Report};
use client::{RemotePath, ShardPlaceState};
use env::Env;
use model::cluster::{Node, NodeState, ServerRole};
use model::{EntryId, Error, Kind, NodeId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use wire::coordinator::{Administration, ChangeRequest, HeartbeatRequest, StatusResponse};

/// Longest time between mending and everything whole at its place.
const WHOLE_WITHIN: Duration = Duration::from_secs(15 * 60);
/// Time for nodes to hear that they are to scrub, and to do it.
const SCRUB: Duration = Duration::from_secs(60);
/// Time for nodes to notice what they miss.
const NOTICED: Duration = Duration::from_secs(20);
/// Longest time in which what is dead must be gone.
const CLEAR_WITHIN: Duration = Duration::from_secs(10 * 60);
/// Nodes are sent away only while so many are there.
const SPARE: usize = 5;

/// All that it does, and what of it changes layouts only.
const ACTS: &[u64] = &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17];
const CHANGES: &[u64] = &[3, 6, 7, 8, 10, 11, 12, 17];

struct Operator {
    scene: Scene,
    dice: Dice,
    /// Nodes that may come, in order.
    spares: Vec<usize>,
    /// Nodes whose removal was asked for.
    leaving: BTreeSet<usize>,
    /// When everything was last seen whole.
    looked: Duration,
    /// What was last known of the layouts.
    layouts: Layouts,
}

/// A shard of what a file holds now: name, entry, version, chunk, index.
type Held = (&'static str, EntryId, u64, u64, u8);

/// The operator's program.
pub async fn operator(env: Env, stage: Stage, seed: u64, spares: Vec<usize>) -> env::sim::Result {
    let client = opened(&env, &stage, "operator", None).await;
    let scene = Scene { env: env.clone(), stage, name: "operator".into(), client };
    let dice = Dice::new(seed, "operator");
    let mut operator = Operator { scene, dice, spares, leaving: BTreeSet::new(), looked: Duration::ZERO, layouts: Layouts::default() };
    loop {
        let phase = operator.scene.phase();
        match phase {
            Phase::Play | Phase::Later | Phase::Anew => operator.play(phase).await,
            Phase::Mend | Phase::MendAnew => operator.mend().await,
            Phase::Restore => operator.reunite().await,
            Phase::Clear => operator.clear().await,
            _ => {}
        }
        operator.scene.ready(phase).await;
    }
}

impl Operator {
    async fn play(&mut self, phase: Phase) {
        // Who comes and goes after a backup is not known to it.
        let acts = if phase == Phase::Later && self.dice.one_in(2) { CHANGES } else { ACTS };
        while self.scene.phase() == phase {
            let pause = self.dice.between(2_000, 10_000);
            self.scene.env.sleep(Duration::from_millis(pause)).await;
            self.act(acts).await;
        }
    }

    /// A catalog was restored: nodes that it does not know join it anew, with what they hold, and those that it knows
    /// and that are gone are removed. Until everything is whole by that catalog's layouts.
    async fn reunite(&mut self) {
        while !self.scene.stage.lock().restores.1 {
            self.scene.env.sleep(LOOK).await;
        }
        self.leaving.clear();
        loop {
            self.scene.env.sleep(Duration::from_secs(2)).await;
            let Ok(status) = self.status().await else { continue };
            if self.reunite_step(&status).await {
                return self.until_whole("after the restore").await;
            }
        }
    }

    /// One step of that. Whether nothing is left to do.
    async fn reunite_step(&mut self, status: &StatusResponse) -> bool {
        let nodes = self.numbered(status);
        let alive: BTreeMap<usize, NodeId> = {
            let shared = self.scene.stage.lock();
            shared.ids.iter().filter(|(n, _)| !shared.gone.contains(n)).map(|(n, id)| (*n, *id)).collect()
        };
        let strangers: Vec<usize> = alive.keys().filter(|n| !nodes.contains_key(n)).copied().collect();
        for number in &strangers {
            if self.scene.stage.lock().wanting.insert(*number) {
                self.wish(Wish::Restart(*number));
            }
        }
        self.attend(&nodes).await;
        let ghosts: Vec<&Node> = status.cluster.nodes.iter().filter(|n| !alive.values().any(|id| *id == n.id)).collect();
        let joining = |n: &Node| n.state == NodeState::Joining;
        let idle = status.cluster.changes.is_empty();
        if !strangers.is_empty() {
            return false;
        }
        if idle && nodes.values().any(joining) {
            self.apply(ChangeRequest::default()).await;
            return false;
        }
        // Also while a change is under way, which may wait for them.
        for ghost in ghosts.iter().filter(|n| !n.leaving) {
            let _ = self.administer(Administration::RemoveNode(ghost.id)).await;
        }
        idle && ghosts.is_empty()
    }

    async fn status(&self) -> Result<StatusResponse, Error> {
        self.scene.bounded("status", self.scene.client.status()).await
    }

    /// Nodes by their numbers.
    fn numbered(&self, status: &StatusResponse) -> BTreeMap<usize, Node> {
        let ids = self.scene.stage.lock().ids.clone();
        let find = |id: NodeId| status.cluster.nodes.iter().find(|n| n.id == id).cloned();
        ids.into_iter().filter_map(|(number, id)| Some((number, find(id)?))).collect()
    }

    /// What the nodes that still are somebody last said.
    fn heard<'s>(&self, status: &'s StatusResponse) -> Vec<(NodeId, &'s HeartbeatRequest)> {
        let ids: BTreeSet<NodeId> = {
            let shared = self.scene.stage.lock();
            shared.ids.iter().filter(|(n, _)| !shared.gone.contains(n)).map(|(_, id)| *id).collect()
        };
        status.nodes.iter().filter(|n| ids.contains(&n.node)).filter_map(|n| Some((n.node, n.heartbeat.as_ref()?))).collect()
    }

    fn wish(&self, wish: Wish) {
        self.scene.stage.lock().wishes.push_back(wish);
    }

    /// One thing, as the seed has it.
    async fn act(&mut self, acts: &[u64]) {
        let status = match self.status().await {
            Ok(status) => status,
            Err(e) => return self.scene.tell(format!("status: {e}")),
        };
        self.believe().await;
        let nodes = self.numbered(&status);
        self.attend(&nodes).await;
        let in_state = |is: fn(NodeState) -> bool| nodes.iter().filter(move |(_, n)| is(n.state)).map(|(i, n)| (*i, n.id)).collect();
        let up: Vec<(usize, NodeId)> = in_state(|s| s == NodeState::Up);
        let draining: Vec<(usize, NodeId)> = in_state(|s| s == NodeState::Draining);
        let joining: Vec<(usize, NodeId)> = in_state(|s| s == NodeState::Joining);
        match acts[self.dice.below(acts.len() as u64) as usize] {
            0..=2 => self.admit().await,
            3..=5 => self.apply(ChangeRequest::default()).await,
            6 => {
                if let Some((_, id)) = self.one(&joining) {
                    self.apply(ChangeRequest { add: vec![id], ..ChangeRequest::default() }).await;
                }
            }
            7..=9 if up.len() >= SPARE => {
                if let Some((_, id)) = self.one(&up) {
                    self.apply(ChangeRequest { drain: vec![id], ..ChangeRequest::default() }).await;
                }
            }
            10 => {
                if let Some((_, id)) = self.one(&draining) {
                    self.apply(ChangeRequest { add: vec![id], ..ChangeRequest::default() }).await;
                }
            }
            11 => self.administer(Administration::StopLayout).await.unwrap_or(()),
            12 => self.administer(Administration::ResumeLayout).await.unwrap_or(()),
            13 => {
                if let Some((number, id)) = self.one(&draining)
                    && status.cluster.changes.is_empty()
                    && self.is_empty(&status, id).await
                {
                    self.remove(number, id).await;
                }
            }
            14 => {
                if let Some((number, id)) = self.one(&up).filter(|_| up.len() > SPARE)
                    && self.may_hurt(number)
                {
                    self.remove(number, id).await;
                }
            }
            15 => {
                if let Some((number, id)) = self.one(&up)
                    && self.may_hurt(number)
                {
                    let rest = self.dice.below(90_000);
                    self.replace(number, id, rest).await;
                }
            }
            16 => {
                if let Some((number, _)) = self.one(&up) {
                    if self.dice.one_in(2) && self.may_hurt(number) {
                        self.wish(Wish::Rot(number));
                    } else {
                        let (grow, zone) = (self.dice.one_in(2), self.dice.pick(&["", "east", "west", "north"]));
                        if let Some(setup) = self.scene.stage.lock().setups.get_mut(&number) {
                            setup.capacity = if grow { setup.capacity * 3 / 2 } else { setup.capacity * 3 / 4 };
                            setup.zone = zone.into();
                        }
                        self.wish(Wish::Restart(number));
                    }
                }
            }
            _ => drop(self.look(&status).await),
        }
    }

    fn one(&mut self, of: &[(usize, NodeId)]) -> Option<(usize, NodeId)> {
        of.get(self.dice.below(of.len() as u64) as usize).copied()
    }

    /// Notes that a node loses shards, if none has that was not healed since.
    fn may_hurt(&self, number: usize) -> bool {
        let now = self.scene.now();
        let mut shared = self.scene.stage.lock();
        let may = shared.hurt.is_empty();
        if may {
            shared.hurt.insert(number, now);
        }
        may
    }

    /// Gives tokens to those who wait for one; switches off who is no member any more.
    async fn attend(&mut self, nodes: &BTreeMap<usize, Node>) {
        let gone: Vec<usize> = {
            let shared = self.scene.stage.lock();
            let vanished = |n: &&usize| !nodes.contains_key(n) && !shared.gone.contains(n) && !shared.wanting.contains(n);
            shared.ids.keys().filter(|n| self.leaving.contains(n)).filter(vanished).copied().collect()
        };
        for number in gone {
            self.wish(Wish::Discard(number));
        }
        let wanting: Vec<usize> = self.scene.stage.lock().wanting.iter().copied().collect();
        for number in wanting {
            self.token(number, nodes.get(&number).map(|n| n.id)).await;
        }
    }

    async fn token(&self, number: usize, replace: Option<NodeId>) -> bool {
        let asked = self.scene.client.create_token(ServerRole::Node, Duration::from_secs(24 * 3600), replace);
        match self.scene.bounded("token", asked).await {
            Ok((token, _)) => {
                self.scene.tell(format!("token for node{number}, replaces {replace:?}"));
                let mut shared = self.scene.stage.lock();
                shared.wanting.remove(&number);
                shared.tokens.insert(format!("node{number}"), token);
                true
            }
            Err(e) => {
                self.scene.tell(format!("token for node{number}: {e}"));
                false
            }
        }
    }

    async fn admit(&mut self) {
        if let Some(number) = self.spares.first().copied()
            && self.token(number, None).await
        {
            self.spares.remove(0);
        }
    }

    async fn apply(&self, request: ChangeRequest) {
        let what = format!("apply add {:?} drain {:?}", request.add, request.drain);
        let done = self.scene.bounded("apply", self.scene.client.apply_layout(request)).await;
        let text = done.map_or_else(
            |e| format!("{:?}: {e}", e.kind),
            |p| format!("'{}', moves {:?}", p.why, p.widths.iter().map(|w| (w.width, w.moved, w.minimum)).collect::<Vec<_>>()),
        );
        self.scene.tell(format!("{what}: {text}"));
    }

    async fn administer(&self, what: Administration) -> Result<(), Error> {
        let text = format!("{what:?}");
        let done = self.scene.bounded("administer", self.scene.client.administer(what)).await;
        self.scene.tell(format!("{text}: {}", done.as_ref().map_or_else(|e| format!("{:?}: {e}", e.kind), |()| "ok".into())));
        done
    }

    /// Whether a node holds no slots.
    async fn is_empty(&self, status: &StatusResponse, id: NodeId) -> bool {
        for (width, _) in &status.cluster.layouts {
            let layout = self.scene.bounded("layout", self.scene.client.layout(*width)).await;
            let Ok(Some(layout)) = layout else { return false };
            let slots: BTreeSet<u16> = layout.slot_indexes().into_iter().collect();
            if slots.iter().filter_map(|s| layout.devices.get(usize::from(*s))).any(|d| d.node == id) {
                return false;
            }
        }
        true
    }

    async fn remove(&mut self, number: usize, id: NodeId) {
        match self.administer(Administration::RemoveNode(id)).await {
            Ok(()) => {
                self.leaving.insert(number);
                self.wish(Wish::Discard(number));
            }
            // Nobody knows: when it has vanished it is switched off.
            Err(e) if e.kind == Kind::Unavailable => drop(self.leaving.insert(number)),
            Err(_) => drop(self.scene.stage.lock().hurt.remove(&number)),
        }
    }

    async fn replace(&mut self, number: usize, id: NodeId, rest: u64) {
        if self.token(number, Some(id)).await {
            self.wish(Wish::Wipe(number, rest));
        } else {
            self.scene.stage.lock().hurt.remove(&number);
        }
    }

    /// Whether `cluster status` would call the data safe.
    async fn calls_safe(&mut self) -> Option<bool> {
        let mut doubts = BTreeSet::new();
        loop {
            let status = self.status().await.ok()?;
            let known = std::mem::take(&mut self.layouts);
            self.layouts = self.scene.bounded("layouts", Layouts::fetch(&self.scene.client, &status, known)).await.ok()?;
            let report = Report::of(&status, &self.layouts, &doubts);
            if report.doubts.is_subset(&doubts) {
                return Some(report.safe);
            }
            doubts.extend(report.doubts);
            self.scene.env.sleep(Duration::from_millis(1200)).await;
        }
    }

    /// Shards that their holders say they have not.
    async fn missing(&self) -> BTreeSet<Held> {
        let mut missing = BTreeSet::new();
        for name in FILES.iter().copied() {
            let Ok(entry) = self.scene.bounded("stat", self.scene.client.stat(&path(name))).await else { continue };
            let Ok(chunks) = self.scene.bounded("places", self.scene.client.places(&entry, false)).await else { continue };
            for chunk in chunks {
                let gone = chunk.shards.iter().filter(|s| s.state == ShardPlaceState::Missing);
                missing.extend(gone.map(|s| (name, entry.id, entry.version, chunk.number, s.index)));
            }
        }
        missing
    }

    /// What the status calls safe is whole. A shard that is missing twice, with time between for nodes to notice,
    /// while the status calls the data safe before and after both, was lost unnoticed. What has rotted and was not
    /// read since nobody can know of.
    async fn believe(&mut self) {
        if self.scene.stage.lock().rotten || self.calls_safe().await != Some(true) {
            return;
        }
        let first = self.missing().await;
        if first.is_empty() || self.calls_safe().await != Some(true) {
            return;
        }
        self.scene.env.sleep(NOTICED).await;
        if self.calls_safe().await != Some(true) {
            return;
        }
        let still: BTreeSet<Held> = self.missing().await.intersection(&first).copied().collect();
        if !still.is_empty() && self.calls_safe().await == Some(true) {
            let now = self.scene.now();
            self.scene.stage.lock().fail(now, format!("called safe while shards were missing: {still:?}"));
        }
    }

    /// Looks at every shard. Whether all are at their places; what is not well otherwise.
    async fn look(&mut self, status: &StatusResponse) -> Result<(), String> {
        let began = self.scene.now();
        let looked = self.scene.bounded("verify", self.scene.client.verify(&RemotePath::root(), true, true, Arc::new(()))).await;
        let why = match looked {
            Err(e) => format!("{:?}: {e}", e.kind),
            Ok(r) if r.ok < r.chunks || !r.problems.is_empty() => {
                format!("{} of {} chunks whole, {} lost; {:?}", r.ok, r.chunks, r.lost, r.problems.iter().take(4).collect::<Vec<_>>())
            }
            Ok(_) if !status.cluster.changes.is_empty() => {
                let changes: Vec<_> = status.cluster.changes.iter().map(|c| (c.width, c.to, c.stopped, &c.why)).collect();
                format!("all chunks whole; changes under way: {changes:?}; {}", progress(status))
            }
            Ok(_) => {
                self.scene.tell("sees everything whole");
                let mut shared = self.scene.stage.lock();
                shared.hurt.retain(|_, since| *since >= began);
                shared.rotten &= !shared.hurt.is_empty();
                drop(shared);
                self.looked = began;
                return Ok(());
            }
        };
        self.scene.tell(format!("looks: {why}"));
        Err(why)
    }

    /// Lets all changes end, and looks until everything is whole. Then two nodes may lose everything.
    async fn mend(&mut self) {
        self.until_whole("after the last fault").await;
        if self.dice.one_in(3) {
            // Nobody reads older versions: rot in them is found by a scrub only, and would be a third loss.
            while self.administer(Administration::Scrub).await.is_err() {
                self.scene.env.sleep(Duration::from_secs(1)).await;
            }
            self.scene.env.sleep(SCRUB).await;
            self.until_whole("after a scrub").await;
            let Ok(status) = self.status().await else { return };
            let mut up: Vec<(usize, NodeId)> =
                self.numbered(&status).iter().filter(|(_, n)| n.state == NodeState::Up).map(|(i, n)| (*i, n.id)).collect();
            let wipe = self.dice.one_in(2);
            for _ in 0..2 {
                let Some(victim) = self.one(&up) else { break };
                up.retain(|v| *v != victim);
                if wipe {
                    self.replace(victim.0, victim.1, 0).await;
                } else {
                    self.wish(Wish::Rot(victim.0));
                }
            }
            // The machines go down with the next step.
            self.scene.env.sleep(Duration::from_secs(10)).await;
            self.until_whole("after two nodes lost shards").await;
        }
    }

    async fn until_whole(&mut self, what: &str) {
        let began = self.scene.now();
        let mut applied = false;
        loop {
            let why = match self.status().await {
                Err(e) => format!("{:?}: {e}", e.kind),
                Ok(status) => match self.tend(&status, &mut applied).await {
                    Ok(()) => return,
                    Err(why) => why,
                },
            };
            let now = self.scene.now();
            if now > began + WHOLE_WITHIN {
                return self.scene.stage.lock().fail(now, format!("not whole {WHOLE_WITHIN:?} {what}: {why}"));
            }
            self.scene.env.sleep(Duration::from_secs(5)).await;
        }
    }

    async fn tend(&mut self, status: &StatusResponse, applied: &mut bool) -> Result<(), String> {
        let nodes = self.numbered(status);
        self.attend(&nodes).await;
        if status.cluster.changes.iter().any(|c| c.stopped) {
            let _ = self.administer(Administration::ResumeLayout).await;
        }
        let calm = |n: &Node| n.leaving || matches!(n.state, NodeState::Up | NodeState::Draining | NodeState::Joining);
        if let Some(away) = nodes.values().find(|n| !calm(n)) {
            return Err(format!("{} is {:?}", away.name, away.state));
        }
        if status.cluster.changes.is_empty() && !*applied {
            let done = self.scene.client.apply_layout(ChangeRequest::default()).await;
            *applied = done.is_ok();
            let text = done.map_or_else(|e| format!("{:?}: {e}", e.kind), |p| p.why);
            self.scene.tell(format!("balances: {text}"));
            return Err(format!("balanced: {text}"));
        }
        // Not only what the users see now: older versions, too.
        let feed = status.totals.feed;
        let is_busy = |h: &HeartbeatRequest| h.repair.surplus > 0 || h.repair.shards > 0 || h.repair.whole_to < feed;
        let heard = self.heard(status).into_iter();
        let busy: Vec<String> = heard.filter(|(_, h)| is_busy(h)).map(|(n, h)| format!("node {n}: {:?}", h.repair)).collect();
        self.believe().await;
        self.look(status).await?;
        if busy.is_empty() { Ok(()) } else { Err(format!("busy: {busy:?}")) }
    }

    /// Removes everything for good, lets time pass, and looks that nothing is left on any disk.
    async fn clear(&mut self) {
        for name in FILES {
            loop {
                match self.scene.bounded("purge", self.scene.client.remove(&path(name), false, true)).await {
                    Ok(_) => break,
                    Err(e) if e.kind == Kind::NotFound => break,
                    Err(_) => self.scene.env.sleep(Duration::from_secs(1)).await,
                }
            }
        }
        // Over the grace of the dead, then over the life of what was never committed; who starts looks.
        self.wish(Wish::Hours(2));
        self.scene.env.sleep(Duration::from_secs(30)).await;
        self.wish(Wish::Hours(30));
        self.scene.env.sleep(Duration::from_secs(15)).await;
        let numbers: Vec<usize> = self.scene.stage.lock().ids.keys().copied().collect();
        numbers.into_iter().for_each(|n| self.wish(Wish::Restart(n)));
        let began = self.scene.now();
        loop {
            self.scene.env.sleep(Duration::from_secs(10)).await;
            let left = match self.status().await {
                Err(e) => format!("{:?}: {e}", e.kind),
                Ok(status) => {
                    let shards = |h: &HeartbeatRequest| h.devices.iter().map(|d| d.shards).sum::<u64>();
                    let held = self.heard(&status).into_iter().map(|(n, h)| (n, shards(h)));
                    let held: Vec<(NodeId, u64)> = held.filter(|(_, shards)| *shards > 0).collect();
                    if held.is_empty() && self.scene.now() > began + LOOK * 100 {
                        return self.scene.tell("nothing is left");
                    }
                    format!("shards left by node: {held:?}; {} objects live", status.totals.objects)
                }
            };
            let now = self.scene.now();
            self.scene.tell(left.clone());
            if now > began + CLEAR_WITHIN {
                return self.scene.stage.lock().fail(now, format!("not clear {CLEAR_WITHIN:?} after everything was removed: {left}"));
            }
        }
    }
}

/// How far nodes are with their layouts.
fn progress(status: &StatusResponse) -> String {
    let of = |n: &wire::coordinator::NodeReport| {
        let h = n.heartbeat.as_ref()?;
        Some(format!(
            "node {} {:?}: {:?} {:?}",
            n.node,
            n.state,
            h.layouts.iter().map(|l| (l.width, l.epoch.0, l.settled)).collect::<Vec<_>>(),
            h.repair
        ))
    };
    status.nodes.iter().filter_map(of).collect::<Vec<_>>().join("; ")
}
