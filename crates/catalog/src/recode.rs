//! Re-coding: a space gets another policy, and its objects are coded anew, one after another, without
//! any key and while they stay readable.
//!
//! Each policy that a space is given draws the space's next *coding generation*. An object that is to
//! be re-coded goes from the generation that it has to that one: its shards of the new generation are
//! written beside the old ones, and when all are durable one command ([`Tx::recoded`]) makes them
//! those that count. So a generation of an object means one policy only, whatever is interrupted or
//! decided anew in between; doing it again makes the same shards. Nodes drop other generations after
//! a grace for readers ([`generations`]).
//!
//! Only what was there when the policy was set is re-coded. What is uploaded later with a policy of
//! its own keeps that, until the space is given a policy again.

use crate::kv::Kv;
use crate::query::{get, page};
use crate::row::{Object, Space, added, stored_bytes};
use crate::tx::{Step, Tx};
use crate::{key, query};
use model::cluster::{FeedItem, Generations};
use model::command::{Answer, Outcome, SpaceCoding};
use model::tree::{ManifestRow, ObjectUse};
use model::{AccountId, Epoch, Error, ObjectId, Policy, Result, SpaceId};
use std::collections::BTreeMap;

/// Objects looked at for one page of those that are to be re-coded.
const LOOKED_AT: usize = 2_000;

impl Tx<'_> {
    /// An admin gives a space another policy.
    pub(crate) fn set_space_policy(&mut self, by: Option<AccountId>, id: SpaceId, policy: Policy) -> Step<Outcome> {
        let admin = self.admin(by)?;
        policy.check()?;
        let mut space: Space = self.get(&key::space(id))?.ok_or_else(|| Error::not_found("there is no such space"))?;
        let (objects, bytes) = space.coding.others(policy);
        let coding = &mut space.coding;
        if space.policy == Some(policy) && (objects, bytes) == (coding.left, coding.left_bytes) {
            return Ok(Outcome::Done);
        }
        coding.generation = coding.generation.checked_add(1).ok_or_else(|| {
            Error::insufficient("this space was given another policy 65,535 times: its generations are used up")
                .hint("copy its files into another space")
        })?;
        let before = (coding.left, coding.left_bytes);
        (coding.since_ms, coding.since_feed) = (self.now, self.counters.totals.feed);
        (coding.left, coding.left_bytes) = (objects, bytes);
        let was = space.policy.replace(policy);
        let totals = &mut self.counters.totals;
        totals.recode = added(totals.recode.saturating_sub(before.0), objects)?;
        totals.recode_bytes = added(totals.recode_bytes.saturating_sub(before.1), bytes)?;
        (self.counters.recoded_ms, self.counters.revision) = (self.now, self.counters.revision + 1);
        self.put(&key::space(id), &space)?;
        let was = was.map_or_else(|| "the cluster's default".to_string(), |p| p.to_string());
        let detail = format!("space {id}: {policy} instead of {was}, by {}; {objects} objects are coded anew", admin.name);
        self.event("policy-changed", None, detail)?;
        Ok(Outcome::Done)
    }

    /// An object's next generation is whole: it counts from now on.
    pub(crate) fn recoded(&mut self, id: ObjectId, from: u16, to: u16, policy: Policy, layout: Epoch) -> Step<Outcome> {
        let key = key::object(id);
        let Some(mut object) = self.get::<Object>(&key)?.filter(|o| o.refs > 0 && !o.dead) else {
            return Err(Error::conflict("the object was removed meanwhile").into());
        };
        let mut space: Space = self.must(&key::space(object.space))?;
        if object.generation != from || wanted(&space, &object) != Some((to, policy)) {
            return Err(Error::conflict("the object is to be coded otherwise by now").into());
        }
        let row = self.get::<model::Layout>(&key::layout(policy.width()))?;
        if layout == Epoch(0) || row.is_none_or(|current| layout > current.epoch) {
            return Err(Error::invalid("an object was placed by a layout that does not exist").into());
        }
        self.uncount(&mut space, &object);
        self.delete(&key::feed(object.feed))?;
        let content = &mut object.content;
        (content.policy, content.generation, content.layout) = (policy, to, layout);
        // All its shards are durable, each at its place.
        content.partial.clear();
        (object.generation, object.recoded_ms) = (to, self.now);
        self.counters.recoded_ms = self.now;
        object.feed = self.feed(FeedItem::Live(object.content.clone(), to))?;
        self.count(&mut space, &object)?;
        self.put(&key, &object)?;
        self.put(&key::space(object.space), &space)?;
        if space.coding.left == 0 {
            self.event("space-recoded", None, format!("space {}: all that was there is coded {policy} now", object.space))?;
        }
        Ok(Outcome::Done)
    }

    /// Counts a live object wherever objects are counted.
    pub(crate) fn count(&mut self, space: &mut Space, object: &Object) -> Result<()> {
        space.take(stored_bytes(&object.content))?;
        self.counters.count(&object.content)?;
        space.coding.count(&object.content)?;
        if wanted(space, object).is_some() {
            let (totals, coding, bytes) = (&mut self.counters.totals, &mut space.coding, object.content.bytes);
            (coding.left, coding.left_bytes) = (coding.left + 1, added(coding.left_bytes, bytes)?);
            (totals.recode, totals.recode_bytes) = (totals.recode + 1, added(totals.recode_bytes, bytes)?);
        }
        Ok(())
    }

    /// Counts it no more.
    pub(crate) fn uncount(&mut self, space: &mut Space, object: &Object) {
        space.used = space.used.saturating_sub(stored_bytes(&object.content));
        self.counters.uncount(&object.content);
        if wanted(space, object).is_some() {
            let (totals, coding, bytes) = (&mut self.counters.totals, &mut space.coding, object.content.bytes);
            (coding.left, coding.left_bytes) = (coding.left.saturating_sub(1), coding.left_bytes.saturating_sub(bytes));
            (totals.recode, totals.recode_bytes) = (totals.recode.saturating_sub(1), totals.recode_bytes.saturating_sub(bytes));
        }
        space.coding.uncount(&object.content);
    }
}

/// The generation and policy that an object is to have, where it is to be re-coded.
pub(crate) fn wanted(space: &Space, object: &Object) -> Option<(u16, Policy)> {
    let coding = &space.coding;
    let policy = space.policy.filter(|p| coding.generation > object.generation && *p != object.content.policy)?;
    // Committed by then, or at least begun.
    let earlier = object.feed <= coding.since_feed || object.content.object.time_ms() <= coding.since_ms;
    earlier.then_some((coding.generation, policy))
}

/// One page of the objects that are to be re-coded, and where to go on.
pub(crate) fn to_recode(kv: &dyn Kv, after: Option<ObjectId>, limit: usize) -> Result<Answer> {
    let nothing = Answer::Recode(Vec::new(), false, None);
    if query::counters(kv)?.totals.recode == 0 {
        return Ok(nothing);
    }
    let prefix = key::objects();
    let from = after.map_or(prefix.clone(), |o| [key::object(o), vec![0]].concat());
    let (rows, mut more) = page::<Object>(kv, &from, &key::end_of(&prefix), LOOKED_AT)?;
    let mut spaces: BTreeMap<SpaceId, Option<Space>> = BTreeMap::new();
    let (mut found, mut next) = (Vec::new(), None);
    for (_, object) in rows {
        if found.len() == limit.max(1) {
            more = true;
            break;
        }
        next = Some(object.content.object);
        let space = match spaces.entry(object.space) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(slot) => slot.insert(get(kv, &key::space(object.space))?),
        };
        let live = object.refs > 0 && !object.dead;
        if let Some((generation, policy)) = space.as_ref().filter(|_| live).and_then(|s| wanted(s, &object)) {
            found.push((object.content, generation, policy));
        }
    }
    Ok(Answer::Recode(found, more, next.filter(|_| more)))
}

/// Which generations of an object count; `None` when nobody reads it any more.
pub(crate) fn generations(kv: &dyn Kv, id: ObjectId) -> Result<Option<Generations>> {
    let Some(object) = get::<Object>(kv, &key::object(id))?.filter(|o| !o.dead) else { return Ok(None) };
    let Some(space) = get::<Space>(kv, &key::space(object.space))? else { return Ok(None) };
    Ok(Some(Generations {
        current: object.generation,
        next: wanted(&space, &object).map(|(generation, _)| generation),
        given: space.coding.generation,
        since_ms: object.recoded_ms.max(space.coding.since_ms),
    }))
}

/// How the objects of a space are coded.
pub(crate) fn of_space(kv: &dyn Kv, id: SpaceId) -> Result<Option<SpaceCoding>> {
    Ok(get::<Space>(kv, &key::space(id))?.map(|space| SpaceCoding {
        owner: space.owner,
        policy: space.policy,
        policies: space.coding.policies,
        left: space.coding.left,
        left_bytes: space.coding.left_bytes,
    }))
}

/// Says of a manifest's objects how they are coded now, where any were ever coded anew. The manifest tells how they
/// were when it came.
pub(crate) fn bring_up_to_date(kv: &dyn Kv, was_any_recoded: bool, manifest: &mut ManifestRow) -> Result<()> {
    // Also where its space never was: an object may belong to another one.
    if !was_any_recoded {
        return Ok(());
    }
    for content in &mut manifest.objects {
        if let Some(Object { content: now, .. }) = get::<Object>(kv, &key::object(content.object))? {
            let ObjectUse { policy, generation, layout, .. } = now;
            (content.policy, content.generation, content.layout) = (policy, generation, layout);
        }
    }
    Ok(())
}
