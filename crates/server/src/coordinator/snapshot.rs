//! A coordinator that is alone leaves encrypted snapshots of its catalog on nodes, by itself, and a fresh
//! one can be made from the newest of them: see [`super::recovery`] for what lies there.

use super::backup::page;
use super::part::Part;
use super::recovery::{HEAD, PIECE_MAX, RecoveryKey};
use super::restore::{Page, Restored, restore};
use super::state::State;
use crate::store::{END, Sum, View};
use bytes::Bytes;
use catalog::kv::Kv;
use ed25519_dalek::{Signer, SigningKey};
use env::{Env, File, FileExt, Open};
use minicbor::bytes::ByteVec;
use model::cluster::NodeState;
use model::command::Command;
use model::{ClusterId, Error, Hash, Kind, PublicKey, Result, Signature, cbor, signed};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use transport::{Binding, ClientTls, OnConnect, Pool, PoolConfig, Target, Trust};
use wire::Rpc;
use wire::node::{Prove, ProveRequest, proof_body};
use wire::snapshot::{GetSnapshot, GetSnapshotRequest, PutSnapshot, PutSnapshotRequest};

/// Pause between two snapshots.
const EVERY: Duration = Duration::from_secs(600);
/// Nodes that get one.
const COPIES: usize = 3;
/// Bytes sent at a time.
const PART: usize = 2 << 20;
/// Deadline of a part.
const DEADLINE: Duration = Duration::from_secs(30);
/// Version of what is in the pieces.
const VERSION: u8 = 1;
/// Tables whose rows change without anything having been changed: counters, answers, and the life.
const FLEETING: std::ops::RangeInclusive<u8> = 0x02..=0x04;

/// Runs until the process stops. `first`: when the first one is made.
pub(crate) async fn run(part: Arc<Part>, dir: PathBuf, first: Duration) {
    let env = part.env.clone();
    let root = Hash::of(&part.root);
    let key = match RecoveryKey::of_folder(&env, &dir, root).await {
        Ok(key) => Arc::new(key),
        Err(e) => {
            tracing::error!(error = %e, "no snapshots of the catalog are made");
            return;
        }
    };
    let (mut pause, mut before) = (first, None);
    loop {
        env.sleep(pause).await;
        pause = EVERY;
        let Ok(state) = part.state() else { continue };
        let (making, key) = (state.clone(), key.clone());
        // In a task of its own: over pages that make no sense the database panics.
        let made = env.spawn(async move { make(&making, &key, before).await }).await;
        match made.unwrap_or_else(|_| Err(Error::corrupt("the catalog cannot be read"))) {
            Ok(done) => before = done.or(before),
            Err(e) => {
                // Perhaps nodes are just starting.
                pause = first.min(EVERY);
                tracing::warn!(error = %e, "no snapshot of the catalog could be put onto nodes");
            }
        }
    }
}

/// Makes a snapshot, if this coordinator is alone and something has changed; answers what it is of.
async fn make(state: &Arc<State>, key: &RecoveryKey, before: Option<Hash>) -> Result<Option<Hash>> {
    if !state.consensus.is_leader() {
        return Ok(None);
    }
    let cluster = state.view().await?;
    if cluster.coordinators.len() != 1 {
        return Ok(None);
    }
    let view = Arc::new(state.consensus.view()?);
    let (digest, sum) = {
        let view = view.clone();
        state.env.blocking(move || digest(&view)).await?
    };
    if view.sum()? != Some(sum) {
        state.consensus.roster().set_damaged(true);
        return Err(Error::corrupt("the catalog is damaged: the snapshots that nodes have are kept"));
    }
    if before == Some(digest) {
        return Ok(None);
    }
    let silent = |n: &model::cluster::Node| matches!(n.state, NodeState::Down | NodeState::Out) || n.address.is_empty();
    let (mut copies, mut last) = (0, Error::unavailable("there are no nodes yet"));
    for node in cluster.nodes.iter().filter(|n| !silent(n)) {
        match send(state, key, &view, cluster.time_ms, &Target::node(node.id, &node.address)).await {
            Ok(()) => copies += 1,
            Err(e) => last = e,
        }
        if copies == COPIES {
            break;
        }
    }
    if copies == 0 {
        return Err(last);
    }
    state.command(Command::NoteBackup).await?;
    tracing::info!(copies, "a snapshot of the catalog was put onto nodes");
    Ok(Some(digest))
}

/// What a snapshot would be of, and the sum over all rows.
fn digest(view: &View) -> Result<(Hash, Sum)> {
    let (mut hasher, mut sum) = (blake3::Hasher::new(), Sum::default());
    view.scan(&[], END, &mut |key, value| {
        sum.add(key, value);
        if !key.first().is_some_and(|table| FLEETING.contains(table)) {
            hasher.update(&(key.len() as u64).to_be_bytes());
            hasher.update(key);
            hasher.update(&(value.len() as u64).to_be_bytes());
            hasher.update(value);
        }
        ControlFlow::Continue(())
    })?;
    Ok((Hash(*hasher.finalize().as_bytes()), sum))
}

/// Sends a snapshot to one node.
async fn send(state: &Arc<State>, key: &RecoveryKey, view: &Arc<View>, time_ms: u64, target: &Target) -> Result<()> {
    let pool = state.consensus.roster().pool().ok_or_else(|| Error::unavailable("this coordinator is starting"))?;
    let owner = PublicKey(key.owner()?.verifying_key().to_bytes());
    let mut pieces = key.seal(&state.env)?;
    let mut waiting = pieces.head.to_vec();
    waiting.extend(pieces.seal(cbor::to_vec(&(VERSION, state.cluster, time_ms)), false)?);
    let (mut offset, mut after, mut more) = (0u64, Vec::new(), true);
    while more || !waiting.is_empty() {
        while more && waiting.len() < PART {
            let (rows, from) = (view.clone(), after.clone());
            let next = state.env.blocking(move || page(&rows, &from)).await?;
            more = next.more && !next.rows.is_empty();
            after = next.rows.last().map(|(key, _)| key.to_vec()).unwrap_or_default();
            waiting.extend(pieces.seal(cbor::to_vec(&next.rows), !more)?);
        }
        let rest = waiting.split_off(waiting.len().min(PART));
        let body = Bytes::from(std::mem::replace(&mut waiting, rest));
        let len = body.len() as u64;
        let request = PutSnapshotRequest { owner, time_ms, offset, last: !more && waiting.is_empty() };
        pool.rpc_body::<PutSnapshot>(target, &request, body, DEADLINE).await?;
        offset += len;
    }
    Ok(())
}

/// Proves the owner's key on each connection to a node.
struct Owner(SigningKey);

impl OnConnect for Owner {
    fn prove(&self, binding: &Binding) -> Option<(&'static str, Bytes)> {
        let holder = PublicKey(self.0.verifying_key().to_bytes());
        let body = proof_body(&binding.exporter, &binding.certificate_hash, &holder);
        let signature = Signature(self.0.sign(&signed::signing_input("cap-proof", &body)).to_bytes());
        Some((Prove::PATH, wire::encode(&ProveRequest { protocol: wire::PROTOCOL, holder, signature }).into()))
    }
}

/// A fresh coordinator from the newest snapshot on some nodes. `key_file` is a copy of the lost
/// coordinator's `recovery-key`. `NotFound` when none of the nodes has one for this key.
pub async fn restore_from_nodes(env: Env, addresses: &[String], key_file: &Path, dir: &Path) -> Result<Restored> {
    let key = RecoveryKey::read(&env, key_file).await?;
    let tls = ClientTls::new(&env, Trust::Fingerprint(key.root), None)?;
    let pool = Pool::new(env.clone(), tls, PoolConfig::default(), Some(Arc::new(Owner(key.owner()?))));
    let mut newest: Option<(u64, Target)> = None;
    let mut last = Error::invalid("no node was named");
    for address in addresses {
        let target = Target::any_node(address);
        match pool.rpc::<GetSnapshot>(&target, &GetSnapshotRequest { time_ms: None, offset: 0 }, DEADLINE).await {
            Ok(found) if newest.as_ref().is_none_or(|(time, _)| *time < found.time_ms) => newest = Some((found.time_ms, target)),
            Ok(_) => {}
            Err(e) => last = e,
        }
    }
    let (time_ms, target) = newest.ok_or(last)?;
    let mut name = dir.as_os_str().to_owned();
    name.push(".snapshot");
    let copy = PathBuf::from(name);
    let fetched = fetch(&env, &pool, &target, time_ms, &copy).await;
    let restored = match fetched {
        Ok(file) => {
            let mut reader = Reader::open(file, &key)?;
            restore(env.clone(), dir, move || reader.next_page()).await
        }
        Err(e) => Err(e),
    };
    let _ = env.disk.remove_file(&copy); // encrypted, and of no use beside the folder
    restored
}

/// Copies a snapshot, encrypted as it is, into a file.
async fn fetch(env: &Env, pool: &Pool, target: &Target, time_ms: u64, to: &Path) -> Result<Arc<dyn File>> {
    let failed = |e: std::io::Error| Error::new(Kind::Invalid, format!("{}: {e}", to.display()));
    let file = env.disk.open(to, Open::OrCreate).map_err(failed)?;
    file.set_len(0).map_err(failed)?;
    let mut offset = 0;
    loop {
        let request = GetSnapshotRequest { time_ms: Some(time_ms), offset };
        let (head, body) = pool.rpc_body::<GetSnapshot>(target, &request, Bytes::new(), DEADLINE).await?;
        if body.is_empty() && offset < head.len {
            return Err(Error::corrupt("a node gave a snapshot that is shorter than it said"));
        }
        let (copy, len) = (file.clone(), body.len() as u64);
        env.blocking(move || copy.write_all_at(&body, offset)).await.map_err(failed)?;
        offset += len;
        if offset >= head.len {
            return Ok(file);
        }
    }
}

/// A snapshot being read. Blocking.
struct Reader {
    file: Arc<dyn File>,
    len: u64,
    at: u64,
    pieces: super::recovery::Pieces,
    ended: bool,
}

impl Reader {
    fn open(file: Arc<dyn File>, key: &RecoveryKey) -> Result<Self> {
        let mut head = [0; HEAD];
        file.read_exact_at(&mut head, 0).map_err(|_| cut_off())?;
        let len = file.len().map_err(|_| cut_off())?;
        let mut reader = Reader { file, len, at: HEAD as u64, pieces: key.open(&head)?, ended: false };
        let first = reader.piece()?.ok_or_else(cut_off)?;
        let (version, _, _): (u8, ClusterId, u64) = cbor::from_canonical(&first)?;
        if version != VERSION {
            return Err(Error::invalid("this snapshot is of a version that this software does not know"));
        }
        Ok(reader)
    }

    fn piece(&mut self) -> Result<Option<Vec<u8>>> {
        if self.ended {
            return Ok(None);
        }
        let mut length = [0; 4];
        self.file.read_exact_at(&mut length, self.at).map_err(|_| cut_off())?;
        let length = u32::from_be_bytes(length) as usize;
        let end = self.at + 4 + length as u64;
        if length > PIECE_MAX || end > self.len {
            return Err(cut_off());
        }
        let mut sealed = vec![0; length];
        self.file.read_exact_at(&mut sealed, self.at + 4).map_err(|_| cut_off())?;
        (self.at, self.ended) = (end, end == self.len);
        self.pieces.open(sealed, self.ended).map(Some)
    }

    fn next_page(&mut self) -> Result<Option<Page>> {
        let Some(plaintext) = self.piece()? else { return Ok(None) };
        let rows: Vec<(ByteVec, ByteVec)> = cbor::from_slice(&plaintext)?;
        Ok(Some(rows.into_iter().map(|(key, value)| (key.into(), value.into())).collect()))
    }
}

fn cut_off() -> Error {
    Error::corrupt("this snapshot of the catalog is damaged, or its end is missing")
}
