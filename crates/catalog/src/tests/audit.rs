//! What must hold of all rows after every command: counters and references agree with what is there,
//! nothing is orphaned, nothing is referred to that is missing.

use super::rows_of;
use crate::key;
use crate::kv::{Kv, MemoryKv};
use crate::row::{Counters, InTrash, Manifest, Object, Place, Space, Version, VersionId, chunk_count, stored_bytes};
use minicbor::Decode;
use model::cluster::{Event, FeedItem};
use model::tree::{CONFLICTS, EntryRow};
use model::{CommitId, EntryId, FolderId, Hash, ManifestId, ObjectId, SpaceId, cbor};
use std::collections::{BTreeMap, BTreeSet};

fn table<T: for<'b> Decode<'b, ()>>(rows: &BTreeMap<Vec<u8>, Vec<u8>>, table: u8) -> Vec<(Vec<u8>, T)> {
    rows.range(vec![table]..vec![table + 1]).map(|(k, v)| (k.clone(), cbor::from_slice(v).expect("decodes"))).collect()
}

fn space_of(key: &[u8]) -> SpaceId {
    SpaceId::from_slice(&key[1..17]).expect("a space")
}

/// Panics unless everything agrees.
pub(super) fn check(kv: &MemoryKv) {
    let rows = rows_of(kv);
    let Some(counters) = rows.get(&key::counters()) else { return };
    let counters: Counters = cbor::from_slice(counters).expect("counters");
    let entries: Vec<(_, EntryRow)> = table(&rows, 0x30);
    let versions: Vec<(_, Version)> = table(&rows, 0x33);
    let manifests: Vec<(_, Manifest)> = table(&rows, 0x36);
    let objects: Vec<(_, Object)> = table(&rows, 0x40);
    let live: Vec<&Object> = objects.iter().map(|(_, o)| o).filter(|o| o.refs > 0).collect();

    // Counters.
    let totals = &counters.totals;
    assert_eq!(totals.entries, entries.len() as u64, "entries");
    assert_eq!(totals.objects, live.len() as u64, "objects");
    assert_eq!(totals.chunks, live.iter().map(|o| chunk_count(&o.content)).sum::<u64>(), "chunks");
    assert_eq!(totals.bytes, live.iter().map(|o| stored_bytes(&o.content)).sum::<u64>(), "bytes");
    let mut policies: BTreeMap<(u8, u8), (u64, u64)> = BTreeMap::new();
    for content in live.iter().map(|o| &o.content) {
        let sum = policies.entry((content.policy.k, content.policy.m)).or_default();
        *sum = (sum.0 + chunk_count(content), sum.1 + stored_bytes(content));
    }
    let counted: Vec<_> = totals.policies.iter().map(|(p, chunks, bytes)| ((p.k, p.m), (*chunks, *bytes))).collect();
    assert_eq!(counted, policies.into_iter().collect::<Vec<_>>(), "chunks and bytes by policy");
    assert_eq!(totals.accounts, rows.keys().filter(|k| k[0] == 0x10).count() as u64, "accounts");
    assert_eq!(totals.events, rows.keys().filter(|k| k[0] == 0x60).count() as u64, "events");

    // Each entry lies where its place says; each folder's door leads to it.
    let places: BTreeMap<Vec<u8>, Place> = table(&rows, 0x31).into_iter().collect();
    let mut doors = BTreeMap::new();
    for (at, entry) in &entries {
        let (space, row) = (space_of(at), &entry.row);
        assert_eq!(at, &key::entry(row.space, row.folder, row.tag), "an entry lies under its key");
        let here = Place { folder: row.folder, tag: row.tag };
        assert_eq!(places.get(&key::place(space, row.entry)), Some(&here), "place of {row:?}");
        if let Some(child) = entry.child {
            assert!(doors.insert(key::door(space, child), here).is_none(), "two doors to one folder");
        }
    }
    assert_eq!(places.len(), entries.len(), "places");
    // Doors that lead nowhere belong to folders in the trash.
    for (at, door) in table::<Place>(&rows, 0x32) {
        let child = FolderId::from_slice(&at[17..]).expect("a folder");
        let in_trash = versions.iter().any(|(_, v)| v.row.child == Some(child) && v.row.row.sealed.is_empty());
        assert!(doors.get(&at) == Some(&door) || in_trash, "door of {child}");
    }
    assert!(doors.keys().all(|d| rows.contains_key(d)), "a folder without a door");

    // The trash: what was removed last and does not stand anywhere, found by time, entry and folder.
    let trash: Vec<(_, InTrash)> = table(&rows, 0x3a);
    let mut folders = 0;
    for (at, trashed) in &trash {
        let (space, entry) = (space_of(at), EntryId::from_slice(&at[17..]).expect("an entry"));
        let removal = versions.iter().find(|(k, _)| *k == key::version(space, entry, trashed.rev)).map(|(_, v)| v);
        let removal = removal.expect("what is in the trash has its removal");
        assert!(removal.row.row.sealed.is_empty() && removal.row.child == trashed.child && removal.ended_ms == trashed.ended_ms);
        assert!(!places.contains_key(&key::place(space, entry)), "in the trash and not");
        assert!(rows.contains_key(&key::trash_by_time(space, trashed.ended_ms, entry)));
        if let Some(child) = trashed.child {
            assert_eq!(rows.get(&key::trashed_folder(space, child)), Some(&cbor::to_vec(&entry)));
            folders += 1;
        }
    }
    let count = |table: u8| rows.keys().filter(|k| k[0] == table).count();
    assert_eq!((count(0x39), count(0x3b)), (trash.len(), folders), "the trash by time and by folder");
    for (at, v) in versions.iter().filter(|(_, v)| v.row.row.sealed.is_empty()) {
        let (space, entry) = (space_of(at), v.row.row.entry);
        let later = versions.iter().any(|(_, o)| o.row.row.entry == entry && o.row.row.rev > v.row.row.rev && o.row.row.rev < CONFLICTS);
        let stands = places.contains_key(&key::place(space, entry));
        assert!(stands || later || rows.contains_key(&key::in_trash(space, entry)), "removed, and not in the trash");
    }

    // What refers to commits and manifests.
    let mut used: BTreeMap<SpaceId, u64> = BTreeMap::new();
    let mut commits: BTreeMap<(SpaceId, CommitId), u32> = BTreeMap::new();
    let mut held: BTreeMap<(SpaceId, ManifestId), u32> = BTreeMap::new();
    for (at, row) in entries.iter().map(|(k, r)| (k, r)).chain(versions.iter().map(|(k, v)| (k, &v.row))) {
        let space = space_of(at);
        *used.entry(space).or_default() += row.row.sealed.len() as u64;
        *commits.entry((space, row.commit)).or_default() += 1;
        if let Some(manifest) = row.manifest {
            *held.entry((space, manifest)).or_default() += 1;
        }
    }
    let refs: BTreeMap<_, _> =
        table::<u32>(&rows, 0x35).into_iter().map(|(k, n)| ((space_of(&k), CommitId::from_slice(&k[17..]).expect("id")), n)).collect();
    assert_eq!(refs, commits, "references to commits");
    let records: BTreeSet<_> =
        rows.keys().filter(|k| k[0] == 0x34).map(|k| (space_of(k), CommitId::from_slice(&k[17..]).expect("id"))).collect();
    assert_eq!(records, commits.into_keys().collect(), "commit records");
    let counted: BTreeMap<_, _> = manifests.iter().map(|(k, m)| ((space_of(k), m.row.id), m.refs)).collect();
    assert_eq!(counted, held, "references to manifests");

    // Objects, and what spaces use.
    let mut named: BTreeMap<ObjectId, u32> = BTreeMap::new();
    for (at, manifest) in &manifests {
        *used.entry(space_of(at)).or_default() += manifest.row.sealed.len() as u64;
        manifest.row.objects.iter().for_each(|o| *named.entry(o.object).or_default() += 1);
    }
    for object in &live {
        *used.entry(object.space).or_default() += stored_bytes(&object.content);
    }
    let refs: BTreeMap<_, _> = live.iter().map(|o| (o.content.object, o.refs)).collect();
    assert_eq!(refs, named, "references to objects");
    let mut recode = (0, 0);
    for (at, space) in table::<Space>(&rows, 0x20) {
        assert_eq!(space.used, used.remove(&space_of(&at)).unwrap_or(0), "bytes used by a space");
        let here = || live.iter().filter(|o| o.space == space_of(&at));
        let left: Vec<u64> = here().filter(|o| crate::recode::wanted(&space, o).is_some()).map(|o| o.content.bytes).collect();
        assert_eq!((space.coding.left, space.coding.left_bytes), (left.len() as u64, left.iter().sum()), "what is to be re-coded");
        let mut policies: BTreeMap<(u8, u8), (u64, u64)> = BTreeMap::new();
        for content in here().map(|o| &o.content) {
            let sum = policies.entry((content.policy.k, content.policy.m)).or_default();
            *sum = (sum.0 + 1, sum.1 + content.bytes);
        }
        let counted: Vec<_> = space.coding.policies.iter().map(|(p, o, b)| ((p.k, p.m), (*o, *b))).collect();
        assert_eq!(counted, policies.into_iter().collect::<Vec<_>>(), "objects of a space by policy");
        recode = (recode.0 + space.coding.left, recode.1 + space.coding.left_bytes);
    }
    assert_eq!((totals.recode, totals.recode_bytes), recode, "all that is to be re-coded");
    assert!(objects.iter().all(|(_, o)| o.content.generation == o.generation), "an object says its own generation");
    assert!(used.is_empty(), "rows of spaces that are not there");

    // Each object stands in the feed once, as what it is.
    let mut feed: BTreeMap<u64, FeedItem> =
        table(&rows, 0x41).into_iter().map(|(k, item)| (u64::from_be_bytes(k[1..].try_into().expect("8 bytes")), item)).collect();
    assert!(feed.keys().all(|n| *n <= totals.feed), "numbers of the feed");
    for (_, object) in &objects {
        let item = feed.remove(&object.feed).expect("an object in the feed");
        let right =
            if object.dead { FeedItem::Dead(object.content.object) } else { FeedItem::Live(object.content.clone(), object.generation) };
        assert_eq!(item, right);
    }
    assert!(feed.is_empty(), "the feed tells of objects that are not there");

    // What is to end is on the list of endings.
    let endings: BTreeSet<&[u8]> = rows.keys().filter(|k| k[0] == 0x70).map(|k| &k[9..]).collect();
    let ends = |kind: u8, row: &[u8]| endings.contains([&[kind], row].concat().as_slice());
    for (_, v) in &versions {
        let id = VersionId { space: v.row.row.space, entry: v.row.row.entry, rev: v.row.row.rev };
        assert!(ends(crate::expiry::VERSION, &cbor::to_vec(&id)), "a version that never ends");
    }
    for (_, object) in objects.iter().filter(|(_, o)| o.refs == 0) {
        let kind = if object.dead { crate::expiry::DEAD } else { crate::expiry::OBJECT };
        assert!(ends(kind, &object.content.object.0), "an object that never ends");
    }

    // The events are a chain.
    let mut prev = Hash([0; 32]);
    for (seq, (at, event)) in (1u64..).zip(table::<Event>(&rows, 0x60)) {
        assert_eq!((event.seq, event.prev), (seq, prev), "chain of events");
        prev = Hash::of(&rows[&at]);
    }
    let last = (totals.events > 0).then_some(prev);
    assert_eq!(counters.last_event, last, "end of the chain");
    assert_eq!(kv.get(&key::counters()).expect("memory"), Some(cbor::to_vec(&counters)), "counters encode as they were");
}
