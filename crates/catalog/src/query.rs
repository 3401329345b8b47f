//! Questions to the catalog. They read one consistent view and change nothing.

use crate::kv::Kv;
use crate::row::{Counters, Manifest, Object, Session, Space, Stage, Version};
use crate::{UPLOAD_LIFE_MS, history_query, key, links, messages, recode, spaces};
use minicbor::Decode;
use model::account::{Account, Identity, MemberSetBody, SpaceInfo};
use model::cluster::{ClusterView, FeedItem, ObjectState};
use model::command::{Answer, Genesis, Query, Rows};
use model::tree::{CommitRecord, EntryRow, HAVE_MAX, ManifestRow, ObjectUse};
use model::{AccountId, CommitId, Epoch, Error, FolderId, Layout, ManifestId, NameTag, ObjectId, Result, SpaceId, cbor};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

/// Most places, ids or objects in one question.
const ASKED_MAX: usize = 1024;
/// Most rows of a page.
const PAGE_MAX: usize = 2_000;
/// Bytes of rows after which a page ends.
const PAGE_BYTES: usize = 4 << 20;
/// Bytes of rows, commit records and manifests after which an answer ends.
const ANSWER_BYTES: usize = 8 << 20;
/// About how long a row is beside its sealed part, in bytes.
const ROW_BYTES: usize = 128;

/// Answers a question. `Invalid` for one that asks too much; other errors mean that the store failed.
pub fn query(kv: &dyn Kv, query: &Query) -> Result<Answer> {
    Ok(match query {
        Query::AccountByName(name) => {
            let id: Option<AccountId> = get(kv, &key::name(name))?;
            Answer::Account(id.map(|id| get(kv, &key::account(id))).transpose()?.flatten())
        }
        Query::Account(id) => Answer::Account(get(kv, &key::account(*id))?),
        Query::Invite(id) => Answer::Invite(get(kv, &key::invite(*id))?),
        Query::Token(id) => Answer::Token(get(kv, &key::token(*id))?),
        Query::Session(token) => {
            let now = counters(kv)?.time_ms;
            let session: Option<Session> = get(kv, &key::session(token))?;
            Answer::Session(session.filter(|s| s.expires_ms > now).map(|s| s.account))
        }
        Query::Space { space, account } => Answer::Space(space_info(kv, *space, *account)?.map(Box::new)),
        Query::Lookup { space, folder, tags, manifests } => {
            let steps: Vec<_> = tags.iter().map(|tag| (*folder, *tag)).collect();
            Answer::Rows(walk(kv, *space, &steps, *manifests)?)
        }
        Query::Walk { space, steps, manifests } => Answer::Rows(walk(kv, *space, steps, *manifests)?),
        Query::List { space, folder, after, limit, manifests, have } => {
            if have.len() > HAVE_MAX {
                return Err(Error::invalid(format!("at most {HAVE_MAX} commits can be left out")));
            }
            let (rows, more) = list(kv, *space, *folder, *after, *limit as usize)?;
            let have = have.iter().copied().collect();
            Answer::Rows(with_commits_but(kv, *space, rows, *manifests, more, &have)?)
        }
        Query::Manifests { space, ids } => {
            check_count(ids.len())?;
            let found: Result<Vec<Option<Manifest>>> = ids.iter().map(|id| get(kv, &key::manifest(*space, *id))).collect();
            let mut found: Vec<ManifestRow> = found?.into_iter().flatten().map(|m| m.row).collect();
            let was_any_recoded = counters(kv)?.recoded_ms > 0;
            found.iter_mut().try_for_each(|row| recode::bring_up_to_date(kv, was_any_recoded, row))?;
            Answer::Manifests(found)
        }
        Query::Cluster => Answer::Cluster(Box::new(cluster(kv)?)),
        Query::Layout(width) => Answer::Layout(get(kv, &key::layout(*width))?),
        Query::LayoutAt { width, epoch, have } => {
            let wanted = layout_at(kv, *width, *epoch)?;
            let had = match have {
                Some(had) if had != epoch => layout_at(kv, *width, *had)?,
                _ => None,
            };
            match had.zip(wanted.as_ref()).and_then(|(had, wanted)| had.patch_to(wanted)) {
                Some(patch) => Answer::LayoutPatch(Box::new(patch)),
                None => Answer::Layout(wanted),
            }
        }
        Query::Accounts { after, limit } => {
            let prefix = key::accounts();
            let from = after.map_or(prefix.clone(), |a| [key::account(a), vec![0]].concat());
            let (accounts, more) = page::<Account>(kv, &from, &key::end_of(&prefix), *limit as usize)?;
            Answer::Accounts(accounts.into_iter().map(|(_, account)| account).collect(), more)
        }
        Query::Recode { after, limit } => recode::to_recode(kv, *after, *limit as usize)?,
        Query::Generations(ids) => {
            check_count(ids.len())?;
            Answer::Generations(ids.iter().map(|id| recode::generations(kv, *id)).collect::<Result<_>>()?)
        }
        Query::Coding(space) => Answer::Coding(recode::of_space(kv, *space)?),
        Query::Mailbox(owner) => messages::mailbox(kv, *owner)?,
        Query::Mail { account, after, limit } => messages::mail(kv, *account, *after, *limit as usize)?,
        Query::Thread { from, to } => messages::thread(kv, *from, *to)?,
        Query::LinkBySession(token) => links::by_session(kv, token, counters(kv)?.time_ms)?,
        Query::Links(owner) => links::of_account(kv, *owner)?,
        Query::Within { space, top, folders } => links::are_within(kv, *space, *top, folders)?,
        Query::IdentityByName(name) => {
            let id: Option<AccountId> = get(kv, &key::name(name))?;
            Answer::Identities(identities(kv, id.as_slice())?)
        }
        Query::Identities(ids) => {
            check_count(ids.len())?;
            Answer::Identities(identities(kv, ids)?)
        }
        Query::Spaces { account } => Answer::Spaces(spaces::memberships(kv, *account)?),
        Query::Role { space, account } => Answer::Role(spaces::role(kv, *space, *account)?),
        Query::Used(account) => Answer::Used(spaces::used(kv, *account)?),
        Query::Older { space, after, limit } => {
            let prefix = key::versions_of(*space);
            let from = after.map_or(prefix.clone(), |(entry, rev)| [key::version(*space, entry, rev), vec![0]].concat());
            let (versions, more) = page::<Version>(kv, &from, &key::end_of(&prefix), *limit as usize)?;
            Answer::Rows(with_commits(kv, *space, versions.into_iter().map(|(_, v)| v.row).collect(), false, more)?)
        }
        Query::Events { after, limit } => {
            let (from, to) = (key::event(after.saturating_add(1)), key::event(u64::MAX));
            Answer::Events(page(kv, &from, &to, *limit as usize)?.0.into_iter().map(|(_, event)| event).collect())
        }
        Query::Feed { after, limit } => {
            let (from, to) = (key::feed(after.saturating_add(1)), key::feed(u64::MAX));
            let (items, more) = page::<FeedItem>(kv, &from, &to, *limit as usize)?;
            let numbered = items.into_iter().filter_map(|(key, item)| Some((u64::from_be_bytes(key.get(1..)?.try_into().ok()?), item)));
            Answer::Feed(numbered.collect(), more)
        }
        Query::Objects(ids) => {
            check_count(ids.len())?;
            let now = counters(kv)?.time_ms;
            let states: Result<Vec<ObjectState>> = ids.iter().map(|id| object_state(kv, *id, now)).collect();
            Answer::Objects(states?)
        }
        Query::Totals => Answer::Totals(counters(kv)?.totals),
        Query::Genesis => Answer::Genesis(get(kv, &key::genesis())?.map(Box::new)),
        Query::Versions { space, entry } => {
            let prefix = key::versions(*space, *entry);
            let (versions, more) = page::<Version>(kv, &prefix, &key::end_of(&prefix), PAGE_MAX)?;
            let all: Vec<EntryRow> = versions.into_iter().map(|(_, v)| v.row).collect();
            Answer::Rows(with_commits(kv, *space, all, true, more)?)
        }
        Query::History { space, entry, after, limit } => {
            Answer::History(history_query::history(kv, *space, *entry, *after, *limit as usize)?)
        }
        Query::Trash { space, after, limit } => Answer::Trash(history_query::trash(kv, *space, *after, *limit as usize)?),
        Query::Doors { space, folders } => Answer::Doors(history_query::doors(kv, *space, folders)?),
        Query::Changes { space, after } => Answer::Changes(Box::new(history_query::changes(kv, *space, *after)?)),
        Query::Kept { space, after, limit } => {
            let (kept, more) = history_query::kept(kv, *space, *after, *limit as usize)?;
            Answer::Kept(kept, more)
        }
    })
}

pub(crate) fn get<T: for<'b> Decode<'b, ()>>(kv: &dyn Kv, key: &[u8]) -> Result<Option<T>> {
    kv.get(key)?.map(|bytes| cbor::from_slice(&bytes)).transpose()
}

/// All rows whose keys begin so.
pub(crate) fn rows<T: for<'b> Decode<'b, ()>>(kv: &dyn Kv, prefix: &[u8]) -> Result<Vec<T>> {
    let mut rows = Vec::new();
    kv.scan(prefix, &key::end_of(prefix), &mut |_, value| {
        rows.push(cbor::from_slice(value));
        ControlFlow::Continue(())
    })?;
    rows.into_iter().collect()
}

/// Rows with their keys.
pub(crate) type Page<T> = Vec<(Vec<u8>, T)>;

/// Rows in `[from, to)`, one page of them, and whether there are more.
pub(crate) fn page<T: for<'b> Decode<'b, ()>>(kv: &dyn Kv, from: &[u8], to: &[u8], limit: usize) -> Result<(Page<T>, bool)> {
    let limit = limit.clamp(1, PAGE_MAX);
    let (mut rows, mut bytes, mut more) = (Vec::new(), 0, false);
    kv.scan(from, to, &mut |key, value| {
        if rows.len() == limit || bytes > PAGE_BYTES {
            more = true;
            return ControlFlow::Break(());
        }
        bytes += value.len();
        rows.push(cbor::from_slice(value).map(|row| (key.to_vec(), row)));
        ControlFlow::Continue(())
    })?;
    Ok((rows.into_iter().collect::<Result<_>>()?, more))
}

/// The public identities of those accounts that exist.
fn identities(kv: &dyn Kv, ids: &[AccountId]) -> Result<Vec<Identity>> {
    let found: Result<Vec<Option<Account>>> = ids.iter().map(|id| get(kv, &key::account(*id))).collect();
    Ok(found?.into_iter().flatten().map(|account| account.identity).collect())
}

pub(crate) fn check_count(count: usize) -> Result<()> {
    if count > ASKED_MAX { Err(Error::invalid(format!("at most {ASKED_MAX} can be asked for at once"))) } else { Ok(()) }
}

pub(crate) fn counters(kv: &dyn Kv) -> Result<Counters> {
    Ok(get(kv, &key::counters())?.unwrap_or_default())
}

fn walk(kv: &dyn Kv, space: SpaceId, steps: &[(FolderId, NameTag)], manifests: bool) -> Result<Rows> {
    check_count(steps.len())?;
    let found: Result<Vec<Option<EntryRow>>> = steps.iter().map(|(folder, tag)| get(kv, &key::entry(space, *folder, *tag))).collect();
    let rows = with_commits(kv, space, found?.into_iter().flatten().collect(), manifests, false)?;
    // A row left out would read as a name that is free.
    if rows.more { Err(Error::invalid("too much is asked for at once")) } else { Ok(rows) }
}

/// The current layout of a width or an earlier one that is still readable, by its epoch.
fn layout_at(kv: &dyn Kv, width: u8, epoch: Epoch) -> Result<Option<Layout>> {
    let current: Option<Layout> = get(kv, &key::layout(width))?;
    match current.filter(|l| l.epoch == epoch) {
        Some(layout) => Ok(Some(layout)),
        None => get(kv, &key::earlier_layout(width, epoch)),
    }
}

fn list(kv: &dyn Kv, space: SpaceId, folder: FolderId, after: Option<NameTag>, limit: usize) -> Result<(Vec<EntryRow>, bool)> {
    let prefix = key::entries(space, folder);
    let from = match after {
        // The first key after that tag.
        Some(tag) => [key::entry(space, folder, tag), vec![0]].concat(),
        None => prefix.clone(),
    };
    let (rows, more) = page::<EntryRow>(kv, &from, &key::end_of(&prefix), limit)?;
    Ok((rows.into_iter().map(|(_, row)| row).collect(), more))
}

/// Rows with the commit records that they name, each once, and their manifests where asked for. Ends
/// early, with `more`, where all that would be too long for one answer.
pub(crate) fn with_commits(kv: &dyn Kv, id: SpaceId, rows: Vec<EntryRow>, manifests: bool, more: bool) -> Result<Rows> {
    with_commits_but(kv, id, rows, manifests, more, &BTreeSet::new())
}

/// The same without the records of commits that the asker has.
fn with_commits_but(
    kv: &dyn Kv,
    id: SpaceId,
    mut rows: Vec<EntryRow>,
    manifests: bool,
    mut more: bool,
    have: &BTreeSet<CommitId>,
) -> Result<Rows> {
    let space: Option<Space> = get(kv, &key::space(id))?;
    let was_any_recoded = counters(kv)?.recoded_ms > 0;
    let mut commits: BTreeMap<CommitId, CommitRecord> = BTreeMap::new();
    let mut found: BTreeMap<ManifestId, ManifestRow> = BTreeMap::new();
    let mut bytes = 0;
    for (i, row) in rows.iter().enumerate() {
        if bytes > ANSWER_BYTES {
            rows.truncate(i);
            more = true;
            break;
        }
        bytes += row.row.sealed.len() + ROW_BYTES;
        if let Entry::Vacant(slot) = commits.entry(row.commit)
            && !have.contains(&row.commit)
        {
            let record: Option<CommitRecord> = get(kv, &key::commit(id, row.commit))?;
            let record = record.ok_or_else(|| Error::corrupt("a commit record is missing from the catalog"))?;
            bytes += record.body.len() + ROW_BYTES;
            slot.insert(record);
        }
        if let Some(manifest) = row.manifest.filter(|m| manifests && !found.contains_key(m)) {
            let held: Option<Manifest> = get(kv, &key::manifest(id, manifest))?;
            let mut row = held.ok_or_else(|| Error::corrupt("a manifest is missing from the catalog"))?.row;
            recode::bring_up_to_date(kv, was_any_recoded, &mut row)?;
            bytes += row.sealed.len() + row.objects.iter().map(use_bytes).sum::<usize>() + ROW_BYTES;
            found.insert(manifest, row);
        }
    }
    let (revision, members, root) = space.map_or((0, 0, None), |s| (s.revision, s.seq(), Some(s.root)));
    Ok(Rows { rows, commits: commits.into_iter().collect(), manifests: found.into_values().collect(), more, revision, members, root })
}

/// About how long an object's description is, in bytes.
fn use_bytes(content: &ObjectUse) -> usize {
    ROW_BYTES + 10 * content.chunks.len() + 5 * content.partial.len()
}

fn space_info(kv: &dyn Kv, id: SpaceId, asker: AccountId) -> Result<Option<SpaceInfo>> {
    let Some(space) = get::<Space>(kv, &key::space(id))?.filter(|s| s.role(asker).is_some() && s.stage != Stage::Dead) else {
        return Ok(None);
    };
    let member_sets: Vec<model::account::MemberSet> = rows(kv, &key::member_sets(id))?;
    // Everybody whom any of the sets names, and who signed it.
    let mut named = BTreeMap::new();
    for set in &member_sets {
        let body: MemberSetBody = cbor::from_canonical(&set.body)?;
        named.extend(body.members.iter().map(|m| (m.account, ())));
        named.insert(set.author, ());
    }
    let mut identities = Vec::new();
    for account in named.into_keys() {
        identities.extend(get::<Account>(kv, &key::account(account))?.map(|a| a.identity));
    }
    let since = spaces::since(kv, id, &space)?;
    Ok(Some(SpaceInfo {
        space: id,
        genesis: space.genesis,
        root: space.root,
        member_sets,
        grants: rows(kv, &key::grants(id, asker))?,
        identities,
        policy: space.policy,
        used: space.used,
        since,
        owner: Some(space.owner),
        parent: space.parent,
        label: space.label,
        left: space.left,
    }))
}

fn cluster(kv: &dyn Kv) -> Result<ClusterView> {
    let genesis: Genesis = get(kv, &key::genesis())?.ok_or_else(|| Error::unavailable("this cluster is not initialised"))?;
    let mut layouts = Vec::new();
    let prefix = key::layouts();
    kv.scan(&prefix, &key::end_of(&prefix), &mut |_, value| {
        layouts.push(layout_epoch(value));
        ControlFlow::Continue(())
    })?;
    Ok(ClusterView {
        nodes: rows(kv, &key::nodes())?,
        coordinators: rows(kv, &key::coordinators())?,
        leader: None,
        policy: genesis.policy,
        layouts: layouts.into_iter().collect::<Result<_>>()?,
        capability_key: genesis.capability_key,
        time_ms: counters(kv)?.time_ms,
        power: genesis.power,
        revision: counters(kv)?.revision,
        changes: rows(kv, &key::changes())?,
        life: crate::life::of(kv, genesis.cluster)?,
        recoded_ms: counters(kv)?.recoded_ms,
    })
}

/// Width and epoch of an encoded layout, without decoding its long table.
pub(crate) fn layout_epoch(bytes: &[u8]) -> Result<(u8, model::Epoch)> {
    let bad = |e: minicbor::decode::Error| Error::corrupt(format!("undecodable layout: {e}"));
    let mut d = minicbor::Decoder::new(bytes);
    d.array().map_err(bad)?;
    let epoch = d.u64().map_err(bad)?;
    let _power = d.u8().map_err(bad)?;
    let width = d.u8().map_err(bad)?;
    Ok((width, model::Epoch(epoch)))
}

fn object_state(kv: &dyn Kv, id: ObjectId, now: u64) -> Result<ObjectState> {
    Ok(match get::<Object>(kv, &key::object(id))? {
        Some(object) if object.dead => ObjectState::Dead,
        Some(_) => ObjectState::Live,
        None if id.time_ms().saturating_add(UPLOAD_LIFE_MS) < now => ObjectState::Expired,
        None => ObjectState::Pending,
    })
}
