//! Where each device stands: how far it has followed the feed, by which layouts it has everything that
//! belongs on it, and whether it must walk through all of the feed again.
//!
//! ```text
//! DEVICE/arrived          CBOR [version 2, {width: epoch}, {width: epoch} or null, place in the feed, place in the feed,
//!                         id of the log] ‖ BLAKE3 of it: by which layouts everything has arrived; a walk under way, by
//!                         which, how far; and up to where everything has been looked at, by that log
//! DEVICE/walk-again       the device may have lost shards: its log was not whole, or some were set aside
//! ```
//!
//! A device without a good file of its own log looks at the whole feed. So it does after each scrub of everything:
//! what is missing for a reason that nobody thought of is found within thirty days as well.

use super::state::{Device, State};
use env::{DiskExt, Env};
use minicbor::{Decode, Encode};
use model::{Epoch, Error, Hash, Result, cbor};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Layouts by their widths.
type Epochs = BTreeMap<u8, Epoch>;

/// The file `arrived`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
struct Arrived {
    #[n(0)]
    version: u8,
    /// By these layouts everything that belongs on the device has arrived.
    #[n(1)]
    epochs: Epochs,
    /// By these it is being looked for.
    #[n(2)]
    walking: Option<Epochs>,
    /// Up to here in the feed.
    #[n(3)]
    walked: u64,
    /// Up to here everything has been looked at.
    #[n(4)]
    stored: u64,
    /// By this log.
    #[n(5)]
    #[cbor(with = "minicbor::bytes")]
    log: [u8; 16],
}

impl Arrived {
    const VERSION: u8 = 2;

    fn new(log: [u8; 16]) -> Self {
        Arrived { version: Self::VERSION, log, ..Arrived::default() }
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = cbor::to_vec(self);
        let hash = Hash::of(&bytes);
        bytes.extend_from_slice(&hash.0);
        bytes
    }

    /// What another version wrote, another log's, and what is damaged, all count as nothing.
    fn read(bytes: &[u8], log: [u8; 16]) -> Option<Self> {
        let (body, hash) = bytes.split_last_chunk::<32>()?;
        let arrived = cbor::from_canonical::<Arrived>(body).ok()?;
        (Hash::of(body).0 == *hash && arrived.version == Self::VERSION && arrived.log == log).then_some(arrived)
    }
}

/// Where a device stands.
pub(crate) struct Cursor {
    dir: PathBuf,
    /// What the file `arrived` says.
    arrived: Arrived,
    /// The device lost shards, or perhaps did: another walk, up to here so far. In memory only: a crash
    /// begins it again.
    again: Option<u64>,
    /// Why, in words.
    why: &'static str,
    /// What opening found wrong with the log, until the event log has been told.
    untold: Vec<(&'static str, String)>,
    /// That shards were missing after the start has been told, or there were none.
    named: bool,
}

impl Cursor {
    /// From the device's folder. A device whose log was not whole, now or at a start whose walk never
    /// came to its end, walks again; one without files begins at the start.
    pub async fn load(state: &State, device: &Device) -> Cursor {
        let dir = device.dir.clone();
        let (disk, arrived, mark) = (state.env.disk.clone(), arrived_file(&dir), walk_mark(&dir));
        let (arrived, marked) = state.env.blocking(move || (disk.read(&arrived).ok(), disk.try_exists(&mark).unwrap_or(true))).await;
        let log = device.store.log();
        let arrived = arrived.and_then(|bytes| Arrived::read(&bytes, log)).unwrap_or_else(|| Arrived::new(log));
        state.followed(arrived.stored);
        let suspect = device.store.is_suspect();
        let why = if suspect { "its log was not whole" } else { "bad ones were set aside before it stopped" };
        if marked {
            state.marked.lock().await.insert(device.id);
        }
        state.memory().arrived.insert(device.id, arrived.epochs.clone());
        Cursor { dir, arrived, again: (marked || suspect).then_some(0), why, untold: found_wrong(device), named: false }
    }

    /// Begins another walk where somebody found a reason.
    pub fn look_again_if_asked(&mut self, state: &State, device: &Device) {
        let memory = &mut *state.memory();
        let (overflowed, asked) = (memory.aside.take_overflowed(device.id), memory.walks.remove(&device.id));
        if overflowed || asked {
            self.again = Some(0);
            self.why = if overflowed { "many were found bad" } else { "all were counted" };
        }
    }

    /// Takes the mark off the device when no walk is under way and nothing is owed.
    pub async fn settle_mark(&self, state: &State, device: &Device) {
        if self.again.is_none() {
            state.settle_mark(device).await;
        }
    }

    /// Everything up to here has been looked at, by the layouts of today and with the log as it is.
    pub fn done(&self) -> u64 {
        let stored = self.arrived.stored;
        let walked = self.arrived.walking.as_ref().map_or(stored, |_| self.arrived.walked.min(stored));
        self.again.unwrap_or(walked).min(walked)
    }

    /// Whether there is something to look at before a number of the feed.
    pub fn is_behind(&self, target: u64) -> bool {
        self.done() < target || self.again.is_some() || self.arrived.walking.is_some()
    }

    /// Whether more may be missing than the feed's end tells.
    pub fn walks(&self) -> bool {
        self.again.is_some() || self.arrived.walking.is_some()
    }

    /// Why shards may be missing on the device, in words.
    pub fn why_missing(&self) -> &'static str {
        match (&self.again, &self.arrived.walking) {
            (Some(_), _) => self.why,
            (None, Some(_)) => "the layout has changed",
            (None, None) => "they were stored while it was away or late",
        }
    }

    /// True once after a start, where something is missing in the first round.
    pub fn names_missing(&mut self) -> bool {
        !std::mem::replace(&mut self.named, true)
    }

    /// Tells the event log what opening found wrong.
    pub async fn tell(&mut self, state: &State) {
        for (what, detail) in std::mem::take(&mut self.untold) {
            state.link.report(what, detail).await;
        }
    }

    /// The feed is read again from its start: its numbers mean other things now. Whether that is noted.
    pub async fn rewind(&mut self, state: &State) -> bool {
        self.arrived.stored = 0;
        self.arrived.walked = 0;
        self.again = self.again.map(|_| 0);
        let noted = self.write(state, &self.arrived).await;
        noted.inspect_err(|e| tracing::warn!(error = %e, "where a device stands cannot be noted")).is_ok()
    }

    /// Begins a walk where a layout has changed so that the device gained slots. Where it gained none,
    /// everything has arrived. A movement that an operator has stopped waits.
    pub async fn look_at_layouts(&mut self, state: &State, device: &Device) {
        let now = state.map.epochs();
        let changed: Vec<u8> = now.iter().filter(|(w, e)| self.arrived.epochs.get(w) != Some(e)).map(|(w, _)| *w).collect();
        if changed.is_empty() {
            self.arrived.walking = None;
            return;
        }
        if changed.iter().any(|width| state.map.is_stopped(*width)) {
            self.arrived.walking = None;
            return;
        }
        if self.arrived.walking.as_ref() == Some(&now) {
            return;
        }
        let gained = changed.iter().any(|width| self.gained(state, device, *width));
        let mut next = Arrived { walking: Some(now.clone()), walked: 0, ..self.arrived.clone() };
        if !gained {
            next = Arrived { epochs: now, walking: None, ..next };
        }
        if let Err(e) = self.note(state, device, next).await {
            tracing::warn!(device = %device.id, error = %e, "where a device stands cannot be noted");
        }
    }

    /// Whether a device has slots of a width that it had not in the layout by which all had arrived.
    fn gained(&self, state: &State, device: &Device, width: u8) -> bool {
        let Some(layouts) = state.map.layouts(width) else { return true };
        let Some(known) = self.arrived.epochs.get(&width) else {
            // Nothing can have been stored by a width before its first layout. Into a later one this
            // device came when others had filled it already.
            return layouts.current.epoch > Epoch(1);
        };
        let Some(before) = layouts.earlier.iter().find(|l| l.epoch == *known) else { return true };
        let mine = |l: &model::Layout| {
            let index = l.devices.iter().position(|d| d.device == device.id);
            (l.slot_indexes(), index.map(|i| i as u16))
        };
        let ((now, me), (then, me_then)) = (mine(&layouts.current), mine(before));
        me.is_some_and(|me| now.iter().zip(&then).any(|(n, t)| *n == me && Some(*t) != me_then))
    }

    /// Whether the layouts have changed since the walk that is under way began, or it was stopped.
    pub fn is_outdated(&self, state: &State) -> bool {
        let now = state.map.epochs();
        let stopped = || now.keys().any(|width| state.map.is_stopped(*width));
        self.arrived.walking.as_ref().is_some_and(|epochs| *epochs != now || stopped())
    }

    /// Everything up to a place has been looked at, and nothing is missing.
    pub async fn advance(&mut self, state: &State, done: u64) -> Result<()> {
        self.again = self.again.map(|at| at.max(done));
        let mut next = self.arrived.clone();
        if next.walking.is_some() {
            next.walked = next.walked.max(done);
        }
        next.stored = next.stored.max(done);
        if next != self.arrived {
            self.write(state, &next).await?;
            self.arrived = next;
        }
        state.followed(done);
        Ok(())
    }

    /// All of the feed has been looked at, and nothing is missing.
    pub async fn arrived(&mut self, state: &State, device: &Device) -> Result<()> {
        self.named = true;
        if let Some(epochs) = self.arrived.walking.clone() {
            self.note(state, device, Arrived { epochs, walking: None, walked: 0, ..self.arrived.clone() }).await?;
        }
        self.again = None;
        self.settle_mark(state, device).await;
        Ok(())
    }

    async fn note(&mut self, state: &State, device: &Device, next: Arrived) -> Result<()> {
        self.write(state, &next).await?;
        state.memory().arrived.insert(device.id, next.epochs.clone());
        self.arrived = next;
        state.hand_over.notify_one();
        Ok(())
    }

    async fn write(&self, state: &State, arrived: &Arrived) -> Result<()> {
        let (disk, file, bytes) = (state.env.disk.clone(), arrived_file(&self.dir), arrived.to_bytes());
        let shown = file.display().to_string();
        let written = state.env.blocking(move || disk.replace(&file, &bytes)).await;
        written.map_err(|e| Error::unavailable(format!("cannot write {shown}: {e}")))
    }
}

fn arrived_file(dir: &Path) -> PathBuf {
    dir.join("arrived")
}

/// Where it is marked that a device may have lost shards. Opening the log cuts what is torn, so
/// without the mark a crash before the walk would make the loss look like a whole log.
fn walk_mark(dir: &Path) -> PathBuf {
    dir.join("walk-again")
}

/// Marks a device whose log was not whole when it was opened. A full disk may not take the mark, and
/// must be read all the same.
pub(crate) async fn mark_suspect(env: &Env, device: &Device) {
    if !device.store.is_suspect() {
        return;
    }
    if let Err(e) = mark(env, device).await {
        tracing::warn!(device = %device.id, error = %e, "a suspect device cannot be marked");
        return;
    }
    if let Err(e) = device.store.give_up_missing().await {
        tracing::warn!(device = %device.id, error = %e, "the list of segments cannot be written");
    }
}

/// Marks a device, durably: it may have lost shards.
pub(crate) async fn mark(env: &Env, device: &Device) -> std::io::Result<()> {
    let (disk, mark) = (env.disk.clone(), walk_mark(&device.dir));
    env.blocking(move || disk.replace(&mark, b"")).await
}

/// Takes the mark off.
pub(crate) async fn unmark(env: &Env, device: &Device) -> std::io::Result<()> {
    let (disk, mark) = (env.disk.clone(), walk_mark(&device.dir));
    env.blocking(move || if disk.exists(&mark) { disk.remove_file(&mark) } else { Ok(()) }).await
}

/// What opening a device found wrong, in the words of the event log.
fn found_wrong(device: &Device) -> Vec<(&'static str, String)> {
    let (id, ranges, cut) = (device.id, device.store.damaged_ranges(), device.store.cut_bytes());
    let mut found = Vec::new();
    if ranges > 0 {
        found.push((
            "device-damaged",
            format!("the log of device {id} was damaged in {ranges} places when it was opened: what was there is rebuilt"),
        ));
    }
    let gone = device.store.missing_segments();
    if gone > 0 {
        found.push(("device-damaged", format!("{gone} segments of the log of device {id} are gone: what was there is rebuilt")));
    }
    if device.store.is_list_damaged() {
        found.push(("device-damaged", format!("the list of segments of device {id} was damaged: what is missing is rebuilt")));
    }
    if cut > 0 {
        let detail = format!(
            "the last {cut} bytes in the log of device {id} were no whole record, and were cut off: a write that a crash interrupted, or damage"
        );
        found.push(("log-cut", detail));
    }
    found
}
