//! Re-coding: the leader carries out what `cluster policy` asks for, without any key.
//!
//! For each chunk of an object that is to have another policy, k of its shards are fetched from their
//! holders and checked, the sealed chunk is decoded and checked against its hash, coded by the new
//! policy as the next generation, and each new shard is brought to its holder by the layout of the new
//! width. When every shard of every chunk is durable, one command makes the new generation the one
//! that counts. Until then readers and repair know the old one only; so a crash anywhere leaves it as it
//! was, and what is there already is the same shards when it is done again: they are compared, and not
//! believed, since the old ones go when the new ones count, and a node could have put anything there.
//!
//! All that it knows is in the catalog, and it begins again from there, also at another leader. An object
//! for which it is impossible now (a holder is away, too few shards are left) is passed over, named in the
//! log of events, and tried again later. It takes half a core at most, and two chunks of memory.

use super::recode_chunk::{Chunk, Servers};
use super::state::{State, confused};
use futures::FutureExt;
use futures::stream::{self, StreamExt, TryStreamExt};
use model::command::{Answer, Command, Query, SpaceCoding};
use model::layout::Layouts;
use model::tree::ObjectUse;
use model::{AccountId, ChunkRef, Epoch, Error, Kind, Layout, ObjectId, Policy, Result, SpaceId};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use wire::SessionToken;
use wire::admin::{SpacePolicyRequest, SpacePolicyResponse};

/// Pause between two looks at whether there is something to do.
const ROUND: Duration = Duration::from_secs(2);
/// Pause after a pass in which something was passed over: doubles from [`ROUND`] up to this.
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// Objects in one question.
const PAGE: u32 = 64;
/// Objects at once: small ones wait for the consensus log mostly.
const OBJECTS: usize = 4;
/// Chunks at once.
const CHUNKS: usize = 2;
/// Layouts kept.
const LAYOUTS: usize = 16;
/// Objects named in an event.
const NAMED: usize = 3;

/// Objects that could not be done: how many, and some of them, by reason.
type PassedOver = BTreeMap<String, (u64, Vec<ObjectId>)>;

/// Runs until the process stops.
pub(crate) async fn run(state: Arc<State>) {
    let worker = Worker { state, layouts: Mutex::default(), chunks: Semaphore::new(CHUNKS) };
    let (mut pause, mut told) = (ROUND, Vec::new());
    loop {
        worker.state.env.sleep(pause).await;
        if !worker.state.consensus.is_leader() {
            pause = ROUND;
            continue;
        }
        match worker.pass().await {
            Ok(passed_over) if passed_over.is_empty() => {
                pause = ROUND;
                told.clear();
            }
            Ok(passed_over) => {
                pause = (pause * 2).min(PAUSE_MAX);
                let reasons: Vec<String> = passed_over.keys().cloned().collect();
                if reasons != told {
                    worker.tell(&passed_over).await;
                    told = reasons;
                }
            }
            Err(e) => {
                tracing::debug!(error = %e, "re-coding cannot go on now");
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

struct Worker {
    state: Arc<State>,
    layouts: Mutex<BTreeMap<(u8, Epoch), Arc<Layout>>>,
    /// One permit a chunk under way.
    chunks: Semaphore,
}

/// What is to become of an object.
struct Plan {
    policy: Policy,
    generation: u16,
    /// By which its shards lie now.
    from: Layouts,
    /// By which the new ones are placed.
    to: Arc<Layout>,
    servers: Servers,
}

impl Worker {
    /// Goes through everything that is to be re-coded, once. What was passed over.
    async fn pass(&self) -> Result<PassedOver> {
        let mut passed_over = PassedOver::new();
        let mut after = None;
        loop {
            // The first question of all is cheap where there is nothing to do.
            let Answer::Totals(totals) = self.state.consensus.query_local(&Query::Totals)? else { return Err(confused()) };
            if totals.recode == 0 {
                return Ok(passed_over);
            }
            let Answer::Recode(objects, more, next) = self.state.ask(Query::Recode { after, limit: PAGE }).await? else {
                return Err(confused());
            };
            let mut outcomes = stream::iter(objects)
                .map(|(content, generation, policy)| async move { (content.object, self.object(&content, generation, policy).await) })
                .buffer_unordered(OBJECTS);
            while let Some((object, outcome)) = outcomes.next().await {
                if let Err(e) = outcome {
                    tracing::debug!(%object, error = %e, "an object cannot be re-coded now");
                    let (count, named) = passed_over.entry(e.message).or_default();
                    *count += 1;
                    if named.len() < NAMED {
                        named.push(object);
                    }
                }
            }
            if !self.state.consensus.is_leader() {
                return Err(Error::unavailable("this coordinator does not lead any more"));
            }
            after = next;
            if !more || after.is_none() {
                return Ok(passed_over);
            }
        }
    }

    async fn tell(&self, passed_over: &PassedOver) {
        for (reason, (count, named)) in passed_over.iter().take(NAMED) {
            let named: Vec<String> = named.iter().map(|o| o.to_string()).collect();
            let detail = format!("{count} objects cannot be coded anew now, and are tried again later ({}): {reason}", named.join(", "));
            self.state.event("re-coding", "recode-waits", None, detail).await;
        }
    }

    /// Re-codes one object.
    async fn object(&self, content: &ObjectUse, generation: u16, policy: Policy) -> Result<()> {
        let plan = self.plan(content, generation, policy).await?;
        let numbers = content.chunks.clone().into_iter().flat_map(|(from, to)| from..to);
        let chunk = |number| Chunk {
            env: &self.state.env,
            chunk: ChunkRef { object: content.object, number },
            was: (content.policy, content.generation),
            becomes: (plan.policy, plan.generation),
            from: &plan.from,
            to: &plan.to,
            servers: &plan.servers,
        };
        let chunk = &chunk;
        let one = |number: u32| async move {
            let _permit = self.chunks.acquire().await.map_err(|_| Error::unavailable("this coordinator stops"))?;
            if !self.state.consensus.is_leader() {
                return Err(Error::unavailable("this coordinator does not lead any more"));
            }
            let worked = chunk(number).recode().await?;
            // Of two at once, each works a quarter of the time.
            self.state.env.sleep(worked * 3).await;
            Ok(())
        };
        stream::iter(numbers).map(|number| one(number).boxed()).buffer_unordered(CHUNKS).try_collect::<()>().await?;
        let (object, from, layout) = (content.object, content.generation, plan.to.epoch);
        match self.state.command(Command::Recoded { object, from, policy, layout, to: generation }).await {
            // Removed meanwhile, or decided anew: the next pass sees what is to be done.
            Err(e) if e.kind == Kind::Conflict => Ok(()),
            other => other.map(|_| ()),
        }
    }

    async fn plan(&self, content: &ObjectUse, generation: u16, policy: Policy) -> Result<Plan> {
        let width = policy.width();
        let mut view = self.state.view().await?;
        if !view.layouts.iter().any(|(w, _)| *w == width) {
            self.state.make_layout(width).await?;
            view = self.state.view().await?;
        }
        let epoch_of = |width: u8| {
            let found = view.layouts.iter().find(|(w, _)| *w == width).map(|(_, epoch)| *epoch);
            found.ok_or_else(|| Error::unavailable(format!("there is no layout of width {width}")))
        };
        let to = self.layout(width, epoch_of(width)?).await?;
        let was = content.policy.width();
        let current = self.layout(was, epoch_of(was)?).await?;
        let mut earlier = Vec::new();
        let change = view.changes.iter().find(|c| c.width == was);
        for epoch in change.map(|c| c.from.as_slice()).unwrap_or_default().iter().rev() {
            // One that is gone by now is not needed any more.
            earlier.extend(self.layout(was, *epoch).await.ok());
        }
        let from = Layouts { current, earlier, stopped: false };
        let pool = self.state.consensus.roster().pool().cloned();
        let pool = pool.ok_or_else(|| Error::unavailable("this coordinator has no certificate yet"))?;
        Ok(Plan { policy, generation, from, to, servers: Servers::new(pool, &view.nodes) })
    }

    /// A layout, from memory where it is known: it is long.
    async fn layout(&self, width: u8, epoch: Epoch) -> Result<Arc<Layout>> {
        let known = || self.layouts.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known().get(&(width, epoch)).cloned();
        if let Some(layout) = found {
            return Ok(layout);
        }
        let Answer::Layout(layout) = self.state.ask(Query::LayoutAt { width, epoch, have: None }).await? else { return Err(confused()) };
        let layout = layout.ok_or_else(|| Error::unavailable("the layout has changed meanwhile"))?;
        layout.check()?;
        let layout = Arc::new(layout);
        let mut known = known();
        if known.len() >= LAYOUTS {
            known.clear();
        }
        known.insert((width, epoch), layout.clone());
        Ok(layout)
    }
}

impl State {
    /// Gives a space another policy. `Conflict` where its shards could not be placed safely.
    pub async fn set_policy(&self, by: AccountId, space: SpaceId, policy: Policy) -> Result<()> {
        policy.check()?;
        self.make_layout(policy.width()).await.map_err(|e| {
            let refused = Error::conflict(format!("{policy} cannot be placed safely, each shard on a node of its own: {}", e.message));
            // Where another coordinator leads, the caller is to ask that one.
            if e.kind != Kind::Unavailable || !self.consensus.is_leader() {
                return e;
            }
            match e.hint {
                Some(hint) => refused.hint(hint),
                None => refused,
            }
        })?;
        self.propose(self.request_id(), Some(by), Command::SetSpacePolicy { space, policy }).await.map(|_| ())
    }

    /// How a space is coded, for an admin: by the name of its owner, or by its id.
    pub async fn space_policy(&self, session: SessionToken, request: SpacePolicyRequest) -> Result<SpacePolicyResponse> {
        self.admin(&session).await?;
        let unknown = || Error::not_found(format!("there is no account or space '{}'", request.space)).hint("shardkeep cluster users");
        let account = self.account_by_name(&request.space).await?;
        let space = account.map(|a| a.home).or_else(|| request.space.parse::<SpaceId>().ok()).ok_or_else(unknown)?;
        let coding: Option<SpaceCoding> = match self.ask(Query::Coding(space)).await? {
            Answer::Coding(coding) => coding,
            _ => return Err(confused()),
        };
        let coding = coding.ok_or_else(unknown)?;
        let owner = self.account(coding.owner).await?.map_or_else(String::new, |a| a.name);
        let default = self.view().await?.policy;
        Ok(SpacePolicyResponse { space, owner, default, coding })
    }
}
