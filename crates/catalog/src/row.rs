//! Rows that only the catalog itself knows. Those that clients see are in `model`.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use model::account::{Member, Role, SpaceLabel};
use model::command::{Applied, Totals};
use model::tree::{EntryRow, ManifestRow, ObjectUse};
use model::{AccountId, EntryId, Error, FolderId, Hash, KeyEpoch, LinkId, NameTag, Policy, Result, SpaceId};

/// Counters and log time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Counters {
    #[n(0)]
    pub totals: Totals,
    /// Log time, milliseconds since 1970: the greatest of all proposals so far.
    #[n(1)]
    pub time_ms: u64,
    /// Id of the next node; never reused.
    #[n(2)]
    pub next_node: u64,
    /// BLAKE3 of the last event's encoding.
    #[n(3)]
    pub last_event: Option<Hash>,
    /// See `ClusterView::revision`.
    #[n(4)]
    #[cbor(default)]
    pub revision: u64,
    /// Highest id of a coordinator that was ever given out; never reused.
    #[n(5)]
    #[cbor(default)]
    pub last_coordinator: u64,
    /// See `ClusterView::recoded_ms`.
    #[n(6)]
    #[cbor(default)]
    pub recoded_ms: u64,
}

impl Counters {
    /// Counts a live object.
    pub fn count(&mut self, content: &ObjectUse) -> Result<()> {
        let (chunks, bytes, of) = (chunk_count(content), stored_bytes(content), content.policy);
        let totals = &mut self.totals;
        totals.objects += 1;
        totals.chunks = added(totals.chunks, chunks)?;
        totals.bytes = added(totals.bytes, bytes)?;
        let at = totals.policies.partition_point(|(p, _, _)| (p.k, p.m) < (of.k, of.m));
        match totals.policies.get_mut(at).filter(|(p, _, _)| *p == of) {
            Some((_, c, b)) => (*c, *b) = (added(*c, chunks)?, added(*b, bytes)?),
            None => totals.policies.insert(at, (of, chunks, bytes)),
        }
        Ok(())
    }

    /// Counts it no more.
    pub fn uncount(&mut self, content: &ObjectUse) {
        let (chunks, bytes, of) = (chunk_count(content), stored_bytes(content), content.policy);
        let totals = &mut self.totals;
        totals.objects = totals.objects.saturating_sub(1);
        totals.chunks = totals.chunks.saturating_sub(chunks);
        totals.bytes = totals.bytes.saturating_sub(bytes);
        for (_, c, b) in totals.policies.iter_mut().filter(|(p, _, _)| *p == of) {
            (*c, *b) = (c.saturating_sub(chunks), b.saturating_sub(bytes));
        }
        totals.policies.retain(|(_, chunks, _)| *chunks > 0);
    }
}

/// The result of a command.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Answered {
    #[n(0)]
    pub applied: Applied,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Session {
    #[n(0)]
    pub account: AccountId,
    #[n(1)]
    pub expires_ms: u64,
}

/// A session of whoever holds a link.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct LinkSession {
    #[n(0)]
    pub link: LinkId,
    #[n(1)]
    pub expires_ms: u64,
}

/// A space.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Space {
    #[n(0)]
    pub genesis: ByteVec,
    #[n(1)]
    pub root: FolderId,
    /// Whose quota it counts against.
    #[n(2)]
    pub owner: AccountId,
    /// Members by the last set.
    #[n(3)]
    pub members: Vec<Member>,
    /// Key epoch by the last set.
    #[n(4)]
    pub epoch: KeyEpoch,
    #[n(5)]
    pub policy: Option<Policy>,
    /// Bytes on disk: of all shards of live objects, and of sealed entries.
    #[n(6)]
    pub used: u64,
    /// Grows by one with every commit.
    #[n(7)]
    pub revision: u64,
    /// How its objects are coded.
    #[n(8)]
    #[cbor(default)]
    pub coding: Coding,
    /// Number of the newest member set; 0: the first.
    #[n(9)]
    #[cbor(default)]
    pub seq: u64,
    /// The space in which it was a folder when it was shared first.
    #[n(10)]
    pub parent: Option<SpaceId>,
    /// What it is called (opaque).
    #[n(11)]
    pub label: Option<SpaceLabel>,
    /// Members that have left, whom the newest set still lists.
    #[n(12)]
    #[cbor(default)]
    pub left: Vec<AccountId>,
    /// Folders below which nobody writes now.
    #[n(13)]
    #[cbor(default)]
    pub locks: Vec<Lock>,
    /// The re-key under way into this space.
    #[n(14)]
    pub rekey: Option<Rekeying>,
    /// Where it is in its life.
    #[n(15)]
    #[cbor(default)]
    pub stage: Stage,
    /// The entry of its parent that leads to it.
    #[n(16)]
    pub door: Option<EntryId>,
}

/// Where a space is in its life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub(crate) enum Stage {
    /// In use.
    #[default]
    #[n(0)]
    Live,
    /// The re-key that makes it has not ended: nobody lists it or writes in it.
    #[n(1)]
    Coming,
    /// Destroyed: what is left of it goes bit by bit.
    #[n(2)]
    Dead,
}

/// A folder that is being re-keyed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Lock {
    #[n(0)]
    pub folder: FolderId,
    /// The space that it is re-keyed into.
    #[n(1)]
    pub target: SpaceId,
    /// Log time after which the lock means nothing.
    #[n(2)]
    pub expires_ms: u64,
}

/// A re-key under way.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Rekeying {
    #[n(0)]
    pub source: SpaceId,
    #[n(1)]
    pub folder: FolderId,
    #[n(2)]
    pub root: FolderId,
    #[n(3)]
    pub by: AccountId,
    /// The target's key epoch.
    #[n(4)]
    pub epoch: KeyEpoch,
    #[n(5)]
    pub expires_ms: u64,
    /// Bytes of rows so far, and how many there may be.
    #[n(6)]
    pub taken: u64,
    #[n(7)]
    pub most: u64,
}

/// That an account is a member of a space.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Joined {
    #[n(0)]
    pub role: Role,
    /// Log time since when it has this role.
    #[n(1)]
    pub since_ms: u64,
}

/// How the live objects of a space are coded, and which of them are to be coded anew.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Coding {
    /// The last coding generation given out: one with each policy that the space is given.
    #[n(0)]
    pub generation: u16,
    /// When that was: log time, milliseconds since 1970.
    #[n(1)]
    pub since_ms: u64,
    /// And the feed's last number then.
    #[n(2)]
    pub since_feed: u64,
    /// Objects still to be re-coded.
    #[n(3)]
    pub left: u64,
    /// Their sealed bytes.
    #[n(4)]
    pub left_bytes: u64,
    /// Live objects and their sealed bytes by policy, in order of k and m.
    #[n(5)]
    pub policies: Vec<(Policy, u64, u64)>,
}

impl Coding {
    /// Counts a live object.
    pub fn count(&mut self, content: &ObjectUse) -> Result<()> {
        let of = content.policy;
        let at = self.policies.partition_point(|(p, _, _)| (p.k, p.m) < (of.k, of.m));
        match self.policies.get_mut(at).filter(|(p, _, _)| *p == of) {
            Some((_, objects, bytes)) => (*objects, *bytes) = (*objects + 1, added(*bytes, content.bytes)?),
            None => self.policies.insert(at, (of, 1, content.bytes)),
        }
        Ok(())
    }

    /// Counts it no more.
    pub fn uncount(&mut self, content: &ObjectUse) {
        for (_, objects, bytes) in self.policies.iter_mut().filter(|(p, _, _)| *p == content.policy) {
            (*objects, *bytes) = (objects.saturating_sub(1), bytes.saturating_sub(content.bytes));
        }
        self.policies.retain(|(_, objects, _)| *objects > 0);
    }

    /// Objects of all other policies than this one, and their sealed bytes.
    pub fn others(&self, policy: Policy) -> (u64, u64) {
        let others = self.policies.iter().filter(|(p, _, _)| *p != policy);
        others.fold((0, 0), |(objects, bytes), (_, o, b)| (objects + o, bytes.saturating_add(*b)))
    }
}

impl Space {
    /// Number of the newest member set.
    pub fn seq(&self) -> u64 {
        self.seq.max(1)
    }

    /// A member that has not left.
    pub fn role(&self, account: AccountId) -> Option<Role> {
        self.members.iter().find(|m| m.account == account).map(|m| m.role)
    }

    /// Counts bytes on disk.
    pub fn take(&mut self, bytes: u64) -> Result<()> {
        self.used = added(self.used, bytes)?;
        Ok(())
    }
}

/// The sum of two counts. Sizes are what clients claim: together they may be more than a number holds.
pub(crate) fn added(count: u64, more: u64) -> Result<u64> {
    count.checked_add(more).ok_or_else(|| Error::insufficient("more bytes than any cluster can hold"))
}

/// Where an entry lies.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Place {
    #[n(0)]
    pub folder: FolderId,
    #[n(1)]
    pub tag: NameTag,
}

/// An older version of an entry, or its removal.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Version {
    #[n(0)]
    pub row: EntryRow,
    /// Log time at which it ceased to be current.
    #[n(1)]
    pub ended_ms: u64,
}

/// An entry in the trash.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct InTrash {
    /// The revision that removed it.
    #[n(0)]
    pub rev: u64,
    /// Log time of that.
    #[n(1)]
    pub ended_ms: u64,
    /// The folder that it was the door to.
    #[n(2)]
    pub child: Option<FolderId>,
}

/// For how long a space keeps what was, where that is not the default.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Keeping {
    #[n(0)]
    pub retention_ms: u64,
}

/// Another retention is being carried out: the endings of versions are moved, in order of their keys.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Sweep {
    /// The retention before.
    #[n(0)]
    pub was_ms: u64,
    /// The last version moved.
    #[n(1)]
    pub after: Option<(EntryId, u64)>,
}

/// Where an older version is, for the list of what ends.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct VersionId {
    #[n(0)]
    pub space: SpaceId,
    #[n(1)]
    pub entry: EntryId,
    #[n(2)]
    pub rev: u64,
}

/// A manifest and how many rows name it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Manifest {
    #[n(0)]
    pub refs: u32,
    #[n(1)]
    pub row: ManifestRow,
}

/// An object.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Object {
    #[n(0)]
    pub space: SpaceId,
    #[n(1)]
    pub content: ObjectUse,
    /// Manifests that refer to it. 0: it dies after the grace.
    #[n(2)]
    pub refs: u32,
    /// Coding generation.
    #[n(3)]
    pub generation: u16,
    /// Its number in the feed.
    #[n(4)]
    pub feed: u64,
    /// It is dead: its shards are being dropped.
    #[n(5)]
    pub dead: bool,
    /// Log time of the last re-coding, milliseconds since 1970; 0: never.
    #[n(6)]
    #[cbor(default)]
    pub recoded_ms: u64,
}

/// Bytes on disk of all shards of an object.
pub(crate) fn stored_bytes(content: &ObjectUse) -> u64 {
    let (k, n) = (u64::from(content.policy.k.max(1)), u64::from(content.policy.width()));
    content.bytes.div_ceil(k).saturating_mul(n)
}

/// How many chunks an object has.
pub(crate) fn chunk_count(content: &ObjectUse) -> u64 {
    content.chunks.iter().map(|(from, to)| u64::from(to.saturating_sub(*from))).sum()
}
