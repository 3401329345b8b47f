//! Objects in the tree: found, and given room.
//!
//! Folders that have become empty stay: somebody may have made them on purpose, and to S3 they are not there.

use crate::errors::{from_client, plain};
use crate::keys::{self, KEY_MAX, Place};
use crate::meta::Meta;
use client::{Client, Entry, EntryKind, RemotePath, Spot};
use model::{Error, Kind, Result};
use s3s::{S3ErrorCode, S3Result};

/// How often room is made for a file while others change the same folders.
const TRIES: usize = 16;

/// An object.
#[derive(Clone)]
pub struct Object {
    /// Its entry.
    pub entry: Entry,
    /// What is kept beside its content.
    pub meta: Meta,
}

impl Object {
    /// The object of an entry.
    pub fn new(entry: Entry) -> Self {
        let meta = Meta::of(&entry);
        Object { entry, meta }
    }

    /// Its ETag, without quotes.
    pub fn etag(&self) -> String {
        self.meta.etag(&self.entry)
    }

    /// When it was last modified, milliseconds since 1970.
    pub fn modified_ms(&self) -> u64 {
        self.meta.modified_ms(&self.entry)
    }
}

/// Where a key leads.
pub struct Found {
    /// What lies there: a file, or (only where asked for) the mark of its deletion.
    pub object: Option<Object>,
    /// The place; `None` where a folder above it is missing.
    pub spot: Option<Spot>,
    /// Its path.
    pub path: RemotePath,
}

impl Found {
    fn at(spot: Spot) -> Self {
        let object = spot.entry().filter(|e| e.kind == EntryKind::File).cloned().map(Object::new);
        Found { object, path: spot.path().clone(), spot: Some(spot) }
    }
}

/// A key's place below a bucket's folder.
pub struct Spots {
    folders: Vec<RemotePath>,
    plain: RemotePath,
    aside: RemotePath,
    deleted: RemotePath,
}

/// `KeyTooLongError` for what is no key.
pub fn check_key(key: &str) -> S3Result<()> {
    if key.len() > KEY_MAX {
        return Err(plain(S3ErrorCode::KeyTooLongError));
    }
    if key.is_empty() { Err(plain(S3ErrorCode::UserKeyMustBeSpecified)) } else { Ok(()) }
}

/// The path of a name in a folder.
pub fn below(folder: &RemotePath, name: &str) -> Result<RemotePath> {
    // A root's path ends with the slash already; empty parts count for nothing.
    RemotePath::parse(&format!("{folder}/{name}"))
}

impl Spots {
    /// The places of a key in a bucket.
    pub fn of(bucket: &RemotePath, key: &str) -> S3Result<Self> {
        check_key(key)?;
        let place = Place::of(key);
        let mut at = bucket.clone();
        let mut folders = Vec::with_capacity(place.folders.len());
        for name in &place.folders {
            at = below(&at, name).map_err(from_client)?;
            folders.push(at.clone());
        }
        let path = |name: &str| below(&at, name).map_err(from_client);
        Ok(Spots { plain: path(&place.name)?, aside: path(&place.aside())?, deleted: path(&place.deleted())?, folders })
    }
}

impl Spots {
    /// Whether a path is that of the key's mark of deletion.
    pub fn is_deleted(&self, path: &RemotePath) -> bool {
        *path == self.deleted
    }

    /// Where the mark of the key's deletion lies.
    pub fn mark(&self) -> &RemotePath {
        &self.deleted
    }

    /// Where the key's object is to lie that lies nowhere yet.
    pub async fn free(&self, client: &Client) -> Result<RemotePath> {
        let there = look(client, &self.plain).await?;
        Ok(if there.is_some_and(|s| kind(&s) == Some(EntryKind::Folder)) { self.aside.clone() } else { self.plain.clone() })
    }
}

/// A place; `None` where a folder on the way is missing, or is none.
async fn look(client: &Client, path: &RemotePath) -> Result<Option<Spot>> {
    match client.spot(path).await {
        Ok(spot) => Ok(Some(spot)),
        Err(e) if matches!(e.kind, Kind::NotFound | Kind::Invalid) => Ok(None),
        Err(e) => Err(e),
    }
}

fn kind(spot: &Spot) -> Option<EntryKind> {
    spot.entry().map(|e| e.kind)
}

/// The object of a key. `marks`: also one that was deleted (its mark), for buckets that keep versions.
pub async fn find(client: &Client, spots: &Spots, marks: bool) -> Result<Found> {
    let Some(plain) = look(client, &spots.plain).await? else {
        return Ok(Found { object: None, spot: None, path: spots.plain.clone() });
    };
    match kind(&plain) {
        // A symlink is none of S3's things; a write replaces it.
        Some(EntryKind::File | EntryKind::Symlink) => Ok(Found::at(plain)),
        taken => {
            let aside = look(client, &spots.aside).await?;
            if let Some(aside) = aside.as_ref().filter(|a| kind(a) == Some(EntryKind::File)) {
                return Ok(Found::at(aside.clone()));
            }
            if marks && let Some(mark) = look(client, &spots.deleted).await?.filter(|m| kind(m) == Some(EntryKind::File)) {
                return Ok(Found::at(mark));
            }
            Ok(match (taken, aside) {
                (None, _) => Found::at(plain),
                (Some(_), Some(aside)) => Found::at(aside),
                (Some(_), None) => Found { object: None, spot: None, path: spots.aside.clone() },
            })
        }
    }
}

/// A place to store a key's object at: folders above it are made, files that stand in the way give way.
pub async fn room(client: &Client, spots: &Spots, path: &RemotePath) -> Result<Spot> {
    let mut last = None;
    for _ in 0..TRIES {
        match client.spot(path).await {
            Ok(spot) => return Ok(spot),
            Err(e) if matches!(e.kind, Kind::NotFound | Kind::Invalid | Kind::Conflict | Kind::Exists) => last = Some(e),
            Err(e) => return Err(e),
        }
        if let Err(e) = make_folders(client, spots).await {
            if !matches!(e.kind, Kind::Conflict | Kind::Exists | Kind::NotFound | Kind::Invalid) {
                return Err(e);
            }
            last = Some(e);
        }
    }
    Err(last.unwrap_or_else(|| Error::conflict("the folders above it are being changed all the time")))
}

async fn make_folders(client: &Client, spots: &Spots) -> Result<()> {
    for folder in &spots.folders {
        match client.stat(folder).await {
            Ok(entry) if entry.kind == EntryKind::Folder => {}
            Ok(entry) => client.displace(folder, &keys::aside(&entry.name())).await?,
            Err(e) if e.kind == Kind::NotFound => match client.mkdir(folder, false).await {
                Err(e) if e.kind == Kind::Exists => {}
                made => made?,
            },
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
