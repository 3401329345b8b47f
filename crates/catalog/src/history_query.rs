//! Questions about what was: versions, trash, the doors of folders, the log of changes.

use crate::kv::Kv;
use crate::query::{get, page, with_commits};
use crate::row::{InTrash, Keeping, Manifest, Place, Space, Version, stored_bytes};
use crate::{RETENTION_MS, key};
use model::history::{Changes, Doors, History, KeptSize, LOG_COMMITS, Note, Noted, TrashPage, Trashed, What};
use model::tree::EntryRow;
use model::{EntryId, Error, FolderId, Result, SpaceId};
use std::collections::BTreeSet;

/// Most folders whose doors are asked for at once.
const DOORS_MAX: usize = 256;
/// Most rows of the way up from all of them.
const WAY_MAX: usize = 4_096;
/// Most items of a page of trash.
const TRASH_MAX: usize = 500;
/// Bytes of sealed rows after which a page of trash or changes ends.
const ROWS_BYTES: usize = 2 << 20;
/// Changes after which a page of them ends.
const CHANGES_MAX: usize = 512;
/// Objects named after which a page of sizes ends.
const NAMED_MAX: usize = 20_000;

fn retention(kv: &dyn Kv, space: SpaceId) -> Result<u64> {
    Ok(get::<Keeping>(kv, &key::keeping(space))?.map_or(RETENTION_MS, |k| k.retention_ms))
}

fn version(kv: &dyn Kv, space: SpaceId, entry: EntryId, rev: u64) -> Result<Option<EntryRow>> {
    Ok(get::<Version>(kv, &key::version(space, entry, rev))?.map(|v| v.row))
}

pub(crate) fn history(kv: &dyn Kv, space: SpaceId, entry: EntryId, after: u64, limit: usize) -> Result<History> {
    let (from, to) = (key::version(space, entry, after.saturating_add(1)), key::end_of(&key::versions(space, entry)));
    let (versions, more) = page::<Version>(kv, &from, &to, limit)?;
    let mut ended_ms: Vec<u64> = versions.iter().map(|(_, v)| v.ended_ms).collect();
    let rows = with_commits(kv, space, versions.into_iter().map(|(_, v)| v.row).collect(), false, more)?;
    ended_ms.truncate(rows.rows.len());
    Ok(History { rows, ended_ms, retention_ms: retention(kv, space)? })
}

pub(crate) fn trash(kv: &dyn Kv, space: SpaceId, after: Option<(u64, EntryId)>, limit: usize) -> Result<TrashPage> {
    let prefix = key::trash(space);
    let from = after.map_or(prefix.clone(), |(ended_ms, entry)| [key::trash_by_time(space, ended_ms, entry), vec![0]].concat());
    let (keys, mut more) = page::<()>(kv, &from, &key::end_of(&prefix), limit.min(TRASH_MAX))?;
    let (mut items, mut rows, mut bytes) = (Vec::new(), Vec::new(), 0);
    for (at, ()) in keys {
        if bytes > ROWS_BYTES {
            more = true;
            break;
        }
        let missing = || Error::corrupt("an entry of the trash is missing from the catalog");
        let entry = key::read_trash(&at).ok_or_else(missing)?;
        let InTrash { rev, ended_ms, child } = get(kv, &key::in_trash(space, entry))?.ok_or_else(missing)?;
        for rev in [rev.saturating_sub(1), rev] {
            if let Some(row) = version(kv, space, entry, rev)? {
                bytes += row.row.sealed.len();
                rows.push(row);
            }
        }
        items.push(Trashed { entry, rev, ended_ms, child });
    }
    Ok(TrashPage { items, rows: with_commits(kv, space, rows, false, false)?, more, retention_ms: retention(kv, space)? })
}

/// The row by which a folder is entered, and whether it is in the trash.
fn door(kv: &dyn Kv, space: SpaceId, folder: FolderId) -> Result<Option<(EntryRow, bool)>> {
    if let Some(Place { folder: at, tag }) = get(kv, &key::door(space, folder))?
        && let Some(row) = get::<EntryRow>(kv, &key::entry(space, at, tag))?.filter(|r| r.child == Some(folder))
    {
        return Ok(Some((row, false)));
    }
    let Some(entry) = get::<EntryId>(kv, &key::trashed_folder(space, folder))? else { return Ok(None) };
    let Some(InTrash { rev, .. }) = get(kv, &key::in_trash(space, entry))? else { return Ok(None) };
    Ok(version(kv, space, entry, rev.saturating_sub(1))?.map(|row| (row, true)))
}

pub(crate) fn doors(kv: &dyn Kv, id: SpaceId, folders: &[FolderId]) -> Result<Doors> {
    if folders.len() > DOORS_MAX {
        return Err(Error::invalid(format!("at most {DOORS_MAX} folders can be asked for at once")));
    }
    let Some(space) = get::<Space>(kv, &key::space(id))? else { return Ok(Doors::default()) };
    let (mut rows, mut removed, mut seen) = (Vec::new(), Vec::new(), BTreeSet::from([space.root]));
    let mut more = false;
    for folder in folders {
        let mut at = *folder;
        // Each folder once: ways meet on their way up.
        while seen.insert(at) {
            if rows.len() >= WAY_MAX {
                more = true;
                break;
            }
            let Some((row, gone)) = door(kv, id, at)? else { break };
            if gone {
                removed.push(at);
            }
            at = row.row.folder;
            rows.push(row);
        }
    }
    Ok(Doors { rows: with_commits(kv, id, rows, false, more)?, removed })
}

pub(crate) fn changes(kv: &dyn Kv, id: SpaceId, after: u64) -> Result<Changes> {
    let now = get::<Space>(kv, &key::space(id))?.map_or(0, |s| s.revision);
    // A revision from the future belongs to a catalog that was restored since.
    let resync = after != u64::MAX && (after > now || after.saturating_add(LOG_COMMITS) < now);
    if resync || after >= now {
        return Ok(Changes { upto: now, resync, ..Changes::default() });
    }
    let (from, to) = (key::changed(id, after + 1), key::changed(id, u64::MAX));
    let (noted, more) = page::<Noted>(kv, &from, &to, CHANGES_MAX)?;
    let mut told = Changes { upto: now, more, ..Changes::default() };
    let (mut rows, mut seen, mut bytes, mut count) = (Vec::new(), BTreeSet::new(), 0, 0);
    for (_, commit) in noted {
        if bytes > ROWS_BYTES || count > CHANGES_MAX {
            told.more = true;
            break;
        }
        count += commit.notes.len();
        for note in &commit.notes {
            for rev in revisions(note) {
                if !seen.insert((note.entry, rev)) {
                    continue;
                }
                if let Some(row) = row_at(kv, id, note, rev)? {
                    bytes += row.row.sealed.len();
                    rows.push(row);
                }
            }
        }
        told.upto = commit.revision;
        told.commits.push(commit);
    }
    if !told.more {
        told.upto = now;
    }
    told.rows = with_commits(kv, id, rows, false, false)?;
    Ok(told)
}

/// The revisions by which a change can be told: the new one, and where the name may have changed the one before.
fn revisions(note: &Note) -> impl Iterator<Item = u64> {
    let before = matches!(note.what, What::Remove) || note.from.is_some();
    let new = note.what != What::Purge;
    [new.then_some(note.rev), before.then(|| note.rev.saturating_sub(1))].into_iter().flatten()
}

/// A revision of an entry: the current one, or an older one.
fn row_at(kv: &dyn Kv, space: SpaceId, note: &Note, rev: u64) -> Result<Option<EntryRow>> {
    if let Some(old) = version(kv, space, note.entry, rev)? {
        return Ok(Some(old));
    }
    let Some(Place { folder, tag }) = get(kv, &key::place(space, note.entry))? else { return Ok(None) };
    Ok(get::<EntryRow>(kv, &key::entry(space, folder, tag))?.filter(|r| (r.row.entry, r.row.rev) == (note.entry, rev)))
}

pub(crate) fn kept(kv: &dyn Kv, space: SpaceId, after: Option<(EntryId, u64)>, limit: usize) -> Result<(Vec<KeptSize>, bool)> {
    let prefix = key::versions_of(space);
    let from = after.map_or(prefix.clone(), |(entry, rev)| [key::version(space, entry, rev), vec![0]].concat());
    let (versions, more) = page::<Version>(kv, &from, &key::end_of(&prefix), limit)?;
    let (mut kept, mut named, mut more) = (Vec::with_capacity(versions.len()), 0, more);
    for (_, Version { row, .. }) in versions {
        if named > NAMED_MAX {
            more = true;
            break;
        }
        let mut size = KeptSize {
            entry: row.row.entry,
            rev: row.row.rev,
            folder: row.row.folder,
            trashed: kv.get(&key::in_trash(space, row.row.entry))?.is_some(),
            child: row.child.filter(|_| row.row.sealed.is_empty()),
            sealed: row.row.sealed.len() as u64,
            objects: Vec::new(),
        };
        if let Some(manifest) = row.manifest {
            let held: Option<Manifest> = get(kv, &key::manifest(space, manifest))?;
            let held = held.ok_or_else(|| Error::corrupt("a manifest is missing from the catalog"))?;
            size.objects = held.row.objects.iter().map(|o| (o.object, stored_bytes(o))).collect();
            named += size.objects.len();
        }
        kept.push(size);
    }
    Ok((kept, more))
}
