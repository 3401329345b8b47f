//! Single files, one call each, committed together where they are ready at the same time: for gateways, which hear
//! of one file at a time and have many callers.

use super::{Place, Sent, There, Upload, Work, check_there};
use crate::commit::CommitSender;
use crate::edit::removal;
use crate::issue::Issuer;
use crate::path::RemotePath;
use crate::session::Client;
use crate::tree::{Entry, Folder};
use crate::upload::{Ask, PutOptions, Source};
use model::{Error, Result, SpaceId};
use seal::tree::Name;
use std::sync::Arc;

/// A place looked up, for something to be stored there.
#[derive(Clone)]
pub struct Spot {
    folder: Folder,
    name: Name,
    entry: Option<Entry>,
    path: RemotePath,
}

impl Spot {
    /// What lies there.
    pub fn entry(&self) -> Option<&Entry> {
        self.entry.as_ref()
    }

    /// Its path.
    pub fn path(&self) -> &RemotePath {
        &self.path
    }

    /// The space that it is in.
    pub(super) fn space(&self) -> SpaceId {
        self.folder.space.id()
    }

    /// For a file, if it may go there.
    pub(super) fn into_place(self, options: &PutOptions) -> Result<Place> {
        let Spot { folder, name, entry, path } = self;
        let there = entry.map(|e| (There { id: e.id, rev: e.version }, e.kind));
        check_there(&path, there, options)?;
        Ok(Place { folder, name, there: there.map(|(t, _)| t), path })
    }
}

/// Stores single files.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    issuer: Arc<Issuer>,
    /// Its task ends when the last writer is gone.
    commits: CommitSender,
}

impl Writer {
    /// Stores a stream, bytes or another entry at a place. Answers when it is committed, with the number of bytes
    /// and whether some shards are still missing.
    pub async fn put(&self, spot: Spot, source: Source, options: PutOptions) -> Result<(u64, bool)> {
        self.put_where(spot, source, options, None).await
    }

    /// The same for a file whose place may change meanwhile: `spot` is where it would go now. What `options` say of
    /// conflicts is not looked at then: whoever is asked decides.
    pub async fn put_where(&self, spot: Spot, source: Source, options: PutOptions, ask: Option<Ask>) -> Result<(u64, bool)> {
        self.client.check_writable(&spot.folder)?;
        let place = spot.into_place(&options)?;
        let path = place.path.clone();
        let work = match source {
            Source::Stream(stream) => Work::Stream(stream, None, path),
            Source::Described(stream, describe) => Work::Stream(stream, Some(describe), path),
            Source::Bytes(bytes) => Work::Bytes(bytes, path),
            Source::Entry(entry) => Work::Entry(entry, path),
            Source::Path(_) | Source::Queued(_) | Source::Spooled(_) => return Err(Error::invalid("a local file is put by its path")),
        };
        let (client, issuer, commits) = (self.client.clone(), self.issuer.clone(), self.commits.clone());
        let upload = Upload { client, options, progress: Arc::new(()), issuer, commits, ask };
        let Sent { bytes, degraded } = upload.one(work, place).await?;
        Ok((bytes, degraded))
    }

    /// Removes what lies at a place: to the trash, or with `purge` for real. `Conflict` when it has changed since
    /// it was looked up, `NotFound` when nothing was there.
    pub async fn remove(&self, spot: Spot, purge: bool) -> Result<()> {
        self.client.check_writable(&spot.folder)?;
        let entry = spot.entry.ok_or_else(|| Error::not_found(format!("{}: no such file or folder", spot.path)))?;
        let pending = removal(&spot.folder, &spot.name, &entry, purge);
        self.commits.send_file(pending, spot.path.to_string()).await
    }
}

impl Client {
    /// A place, for something to be stored there. `NotFound` when its folder is missing, `Invalid` when something
    /// on the way is no folder.
    pub async fn spot(&self, path: &RemotePath) -> Result<Spot> {
        let (folder, name, entry) = self.resolve(path).await?;
        Ok(Spot { folder, name, entry, path: path.clone() })
    }

    /// For many single files.
    pub fn writer(&self) -> Writer {
        Writer { client: self.clone(), issuer: Arc::default(), commits: self.committer().waiting_sender() }
    }
}
