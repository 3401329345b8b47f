//! The brake: a wrong catalog must not be able to erase data.
//!
//! A node remembers which incarnation of the catalog it followed, and how far its feed went. Another
//! incarnation, a feed that ends before that, or a catalog that does not know what this node holds
//! freezes collection here: nothing is dropped any more, by feed or by expiry, also after a restart,
//! until an operator has looked (`cluster thaw`). What must be rebuilt still is. A catalog that was
//! restored is frozen itself until then, for all nodes; and while no coordinator takes this node's
//! heartbeat it cannot know which catalog answers its questions, so it drops nothing either.
//!
//! ```text
//! DIR/catalog-seen    CBOR [version: 1, ?incarnation, feed, ?[reason, ?thaws at which it froze]]
//!                     first folder only
//! ```

use super::state::State;
use env::{DiskExt, Env};
use minicbor::{Decode, Encode};
use model::cbor;
use model::cluster::CatalogLife;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// How often a feed that only grows is noted. (Cursors are durable too, and no further behind.)
const NOTE: Duration = Duration::from_secs(30);
/// More than this part of the objects unknown to the catalog: it is not the one by which they were stored.
const FOREIGN: u64 = 100;
/// So many unknown objects are no sign of that: an interrupted upload leaves them behind, of which at most
/// 256 files are on their way at a time.
const ORPHANS: u64 = 300;

/// How often it is noted when the catalog answered, in milliseconds.
const CONTACT_MS: u64 = 3600 * 1000;
/// After so long a silence objects may be unknown to the right catalog since they died and were forgotten. A day less
/// than that takes, for clocks and for what was noted late.
const FORGOTTEN_MS: u64 = catalog::DEAD_LIFE_MS - 24 * 3600 * 1000;

/// What a node remembers of the catalog.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Seen {
    #[n(0)]
    version: u8,
    /// The incarnation that it followed; `None`: it has met no catalog yet.
    #[n(1)]
    incarnation: Option<Incarnation>,
    /// Highest number of its feed.
    #[n(2)]
    feed: u64,
    /// Collection is frozen here.
    #[n(3)]
    frozen: Option<Frozen>,
    /// Its time when it last answered, to within an hour; 0: not known.
    #[n(4)]
    #[cbor(default)]
    contact_ms: u64,
    /// The feed is to be read from its start: its numbers mean other things than before.
    #[n(5)]
    #[cbor(default)]
    rewind: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
struct Incarnation(#[cbor(n(0), with = "minicbor::bytes")] [u8; 16]);

/// Why collection is frozen here.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Frozen {
    #[n(0)]
    reason: String,
    /// How often operators had thawed until then: another thaw releases it. `None`: not known yet.
    #[n(1)]
    thaws: Option<u64>,
}

/// What follows from an answer of the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The catalog goes on from what was seen.
    Goes,
    /// It does not: the kind of event, and why.
    Freeze(&'static str, String),
    /// An operator has released collection.
    Release,
}

impl Seen {
    const VERSION: u8 = 1;

    /// Whether the right catalog may have forgotten by now what has died since it last answered.
    fn was_away_long(&self, now_ms: u64) -> bool {
        self.contact_ms > 0 && now_ms.saturating_sub(self.contact_ms) > FORGOTTEN_MS
    }

    /// Judges an answer. Pure.
    fn judge(&self, life: &CatalogLife, feed: u64) -> Verdict {
        if let Some(frozen) = &self.frozen {
            return if frozen.thaws.is_some_and(|thaws| thaws < life.thaws) { Verdict::Release } else { Verdict::Goes };
        }
        match self.incarnation {
            Some(Incarnation(seen)) if seen != life.incarnation && is_told(life) => {
                let why = "the catalog is another incarnation than the one that this node followed: it was restored from a backup";
                Verdict::Freeze("catalog-is-another", why.into())
            }
            _ if feed < self.feed => {
                let why = format!("the catalog's feed ends at {feed}, and this node has followed it to {}", self.feed);
                Verdict::Freeze("catalog-went-back", why)
            }
            _ => Verdict::Goes,
        }
    }
}

/// Coordinators of the version before say nothing of the catalog's life.
fn is_told(life: &CatalogLife) -> bool {
    life.incarnation != [0; 16]
}

/// Whether a catalog that knows so many of a node's objects, and not so many, is not theirs.
pub(crate) fn is_foreign(known: u64, unknown: u64) -> bool {
    unknown > ORPHANS && unknown.saturating_mul(FOREIGN) > known.saturating_add(unknown)
}

/// The brake of a node.
#[derive(Debug, Default)]
pub(crate) struct Brake {
    now: Mutex<Now>,
    /// What is here is to be counted now, not within the hour.
    pub count: Notify,
}

#[derive(Debug, Default)]
struct Now {
    seen: Seen,
    /// Of the last heartbeat; `None` while heartbeats fail.
    life: Option<CatalogLife>,
    /// Monotonic time at which the file was written.
    noted: Duration,
    /// Shards of objects that the catalog does not know.
    unknown: u64,
    /// The node was away for longer than the catalog remembers what has died, and has not looked through what it
    /// holds since.
    away_long: bool,
}

impl Brake {
    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing may be dropped.
    pub fn is_on(&self) -> bool {
        let now = self.now();
        now.seen.frozen.is_some() || now.life.is_none_or(|life| life.frozen)
    }

    /// Whether devices must forget how far they have followed the feed.
    pub fn wants_rewind(&self) -> bool {
        self.now().seen.rewind
    }

    /// Why this node drops nothing any more, where it froze by itself.
    pub fn reason(&self) -> Option<String> {
        self.now().seen.frozen.as_ref().map(|f| f.reason.clone())
    }

    /// The catalog may have been restored: what it does not know may be wanted.
    pub fn doubts_catalog(&self) -> bool {
        let now = self.now();
        now.seen.frozen.is_some() || now.life.is_some_and(|life| life.frozen)
    }

    /// Log time of the last backup of the catalog, as of the last heartbeat; 0: none.
    pub fn backed_ms(&self) -> u64 {
        self.now().life.map_or(0, |life| super::generations::last_backup(&life))
    }

    /// Shards of objects that the catalog does not know, as last counted.
    pub fn unknown(&self) -> u64 {
        self.now().unknown
    }

    pub fn set_unknown(&self, shards: u64) {
        self.now().unknown = shards;
    }

    /// Whether much may be here that died unseen, and that the right catalog has forgotten.
    pub fn was_away_long(&self) -> bool {
        self.now().away_long
    }

    /// Everything here was looked at, and what was dead is dropped.
    pub fn has_caught_up(&self) {
        self.now().away_long = false;
    }

    /// No coordinator takes this node's heartbeat: who will answer next is not known.
    pub fn silent(&self) {
        self.now().life = None;
    }
}

fn file(dir: &Path) -> PathBuf {
    dir.join("catalog-seen")
}

/// The mark of versions that had no thaw.
fn old_mark(dir: &Path) -> PathBuf {
    dir.join("collection-frozen")
}

async fn read(env: &Env, dir: &Path) -> Seen {
    let (disk, path, mark) = (env.disk.clone(), file(dir), old_mark(dir));
    let look = move || {
        let bytes = match disk.read(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            // What cannot be read is not nothing.
            read => Some(read.unwrap_or_default()),
        };
        (bytes, disk.try_exists(&mark).unwrap_or(true))
    };
    let (bytes, marked) = env.blocking(look).await;
    let held = bytes.as_ref().map(|bytes| cbor::from_slice::<Seen>(bytes).ok().filter(|s| s.version == Seen::VERSION));
    let frozen = |reason: &str| Seen { frozen: Some(Frozen { reason: reason.into(), thaws: None }), ..Seen::default() };
    match held {
        Some(Some(seen)) => seen,
        // What it remembered is lost: an operator has to look.
        Some(None) => frozen("what this node remembered of the catalog is damaged"),
        None if marked => frozen("an earlier version of the software froze it: the catalog had gone back"),
        None => Seen::default(),
    }
}

impl State {
    fn first_dir(&self) -> Option<&Path> {
        self.devices.first().map(|d| d.dir.as_path())
    }

    /// Whether nothing may be dropped.
    pub fn is_frozen(&self) -> bool {
        self.brake.is_on()
    }

    /// At the start: what an earlier one has seen holds.
    pub async fn load_brake(&self) {
        let Some(dir) = self.first_dir() else { return };
        let seen = read(&self.env, dir).await;
        self.brake.now().seen = seen;
    }

    /// Remembers how far the catalog's feed was followed.
    pub fn followed(&self, feed: u64) {
        let seen = &mut self.brake.now().seen;
        // (Numbers of a catalog that is not followed any more count for nothing.)
        if !seen.rewind {
            seen.feed = seen.feed.max(feed);
        }
    }

    /// The catalog has answered a heartbeat, at its time `time_ms`.
    pub async fn check_brake(&self, life: &CatalogLife, feed: u64, time_ms: u64) {
        let (verdict, was_frozen) = {
            let now = self.brake.now();
            (now.seen.judge(life, feed), now.life.map(|l| l.frozen))
        };
        match verdict {
            Verdict::Freeze(what, reason) => self.freeze(what, reason, life.thaws).await,
            Verdict::Release => {
                {
                    let seen = &mut self.brake.now().seen;
                    *seen = Seen { incarnation: Some(Incarnation(life.incarnation)), feed, frozen: None, rewind: true, ..seen.clone() };
                }
                self.note_seen().await;
                tracing::info!("an operator has released collection");
                self.brake.count.notify_one();
            }
            Verdict::Goes => self.goes(life, feed, time_ms).await,
        }
        self.brake.now().life = Some(*life);
        if was_frozen.is_some_and(|frozen| frozen != life.frozen) || was_frozen.is_none() && life.frozen {
            self.brake.count.notify_one();
        }
    }

    async fn goes(&self, life: &CatalogLife, feed: u64, time_ms: u64) {
        let at = self.env.clock.monotonic();
        let note = {
            let now = &mut *self.brake.now();
            let before = now.seen.clone();
            now.seen.version = Seen::VERSION;
            match &mut now.seen.frozen {
                Some(frozen) => frozen.thaws = frozen.thaws.or(Some(life.thaws)),
                None => {
                    now.seen.incarnation = Some(Incarnation(life.incarnation)).filter(|_| is_told(life)).or(now.seen.incarnation);
                    now.seen.feed = now.seen.feed.max(feed);
                }
            }
            now.away_long |= before.was_away_long(time_ms);
            if time_ms.saturating_sub(before.contact_ms) > CONTACT_MS {
                now.seen.contact_ms = time_ms;
            }
            let grew = now.seen.feed != before.feed;
            let other = Seen { feed: before.feed, ..now.seen.clone() } != before;
            other || grew && at.saturating_sub(now.noted) >= NOTE
        };
        if note {
            self.note_seen().await;
        }
    }

    /// Freezes collection on this node.
    pub async fn freeze(&self, what: &str, reason: String, thaws: u64) {
        {
            let seen = &mut self.brake.now().seen;
            seen.version = Seen::VERSION;
            seen.frozen = Some(Frozen { reason: reason.clone(), thaws: Some(thaws) });
            // What this catalog wants to be here is read from its start.
            seen.rewind = true;
        }
        self.note_seen().await;
        self.brake.count.notify_one();
        self.link.report(what, format!("{reason}: nothing is dropped until shardkeep cluster thaw")).await;
    }

    /// The catalog does not know much of what is here.
    pub async fn is_stranger(&self, known: u64, unknown: u64) {
        let life = {
            let now = self.brake.now();
            now.life.filter(|_| now.seen.frozen.is_none())
        };
        if let Some(life) = life {
            let reason = format!("the catalog does not know {unknown} of the {} objects of which this node holds shards", known + unknown);
            self.freeze("catalog-is-another", reason, life.thaws).await;
        }
    }

    /// The devices' places in the feed are noted as its start.
    pub async fn note_rewound(&self) {
        self.brake.now().seen.rewind = false;
        self.note_seen().await;
    }

    async fn note_seen(&self) {
        let Some(dir) = self.first_dir() else { return };
        let at = self.env.clock.monotonic();
        let seen = {
            let now = &mut *self.brake.now();
            now.noted = at;
            now.seen.clone()
        };
        let (disk, path, mark) = (self.env.disk.clone(), file(dir), old_mark(dir));
        let written = self.env.blocking(move || {
            disk.replace(&path, &cbor::to_vec(&seen))?;
            if disk.exists(&mark) { disk.remove_file(&mark) } else { Ok(()) }
        });
        if let Err(e) = written.await {
            tracing::error!(error = %e, "what this node has seen of the catalog cannot be noted");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(incarnation: u8, thaws: u64) -> CatalogLife {
        CatalogLife { incarnation: [incarnation; 16], thaws, ..CatalogLife::default() }
    }

    fn seen(incarnation: u8, feed: u64) -> Seen {
        Seen { version: 1, incarnation: Some(Incarnation([incarnation; 16])), feed, frozen: None, contact_ms: 0, rewind: false }
    }

    #[test]
    fn a_catalog_that_goes_on_is_followed_and_any_other_freezes() {
        assert_eq!(Seen::default().judge(&life(1, 0), 0), Verdict::Goes);
        assert_eq!(seen(1, 7).judge(&life(1, 0), 7), Verdict::Goes);
        let kind = |verdict| match verdict {
            Verdict::Freeze(what, _) => what,
            other => panic!("{other:?}"),
        };
        assert_eq!(kind(seen(1, 7).judge(&life(1, 0), 6)), "catalog-went-back");
        assert_eq!(kind(seen(1, 7).judge(&life(2, 0), 100)), "catalog-is-another");
        assert_eq!(seen(1, 7).judge(&CatalogLife::default(), 7), Verdict::Goes, "an older coordinator says nothing of it");
    }

    #[test]
    fn only_a_thaw_after_the_freeze_releases() {
        let frozen = |thaws| Seen { frozen: Some(Frozen { reason: "x".into(), thaws }), ..seen(1, 7) };
        assert_eq!(frozen(Some(3)).judge(&life(2, 3), 0), Verdict::Goes);
        assert_eq!(frozen(Some(3)).judge(&life(2, 4), 0), Verdict::Release);
        assert_eq!(frozen(None).judge(&life(2, 4), 0), Verdict::Goes);
    }

    #[test]
    fn an_interrupted_upload_is_no_sign_of_a_foreign_catalog() {
        assert!(!is_foreign(0, 256));
        assert!(!is_foreign(100_000, 1_000));
        assert!(is_foreign(50_000, 1_000));
        assert!(is_foreign(0, 301));
    }

    /// Found by review: a node that came back after eight days froze itself, since it held much that was dead and forgotten.
    #[test]
    fn a_node_that_was_away_for_longer_than_the_dead_are_remembered_knows_it() {
        let day = 24 * 3600 * 1000;
        let seen = Seen { contact_ms: 100 * day, ..seen(1, 5) };
        assert!(!seen.was_away_long(100 * day) && !seen.was_away_long(105 * day));
        assert!(seen.was_away_long(107 * day));
        // Not known: as if it had been there.
        assert!(!Seen { contact_ms: 0, ..seen }.was_away_long(1000 * day));
    }

    #[test]
    fn what_an_earlier_version_remembered_is_read() {
        let old = (1u8, Some((minicbor::bytes::ByteArray::from([7; 16]),)), 42u64, None::<u8>);
        let read = cbor::from_slice::<Seen>(&cbor::to_vec(&old)).unwrap();
        assert_eq!(read, seen(7, 42));
        assert_eq!(cbor::from_slice::<Seen>(&cbor::to_vec(&read)).unwrap(), read);
    }
}
