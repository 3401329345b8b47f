//! Where things go: the destination rules of `cp`. An existing folder takes the sources under their
//! names; otherwise the one source becomes the destination. A slash at the end means a folder, and
//! a source that ends in `/.` means what lies in it.

use crate::failure::Failure;
use client::{Client, Entry, EntryKind, RemotePath};
use model::{Error, Kind, Result};
use seal::tree::Name;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Standard input or output in the place of a path.
pub const STREAM: &str = "-";

/// A path of a remote place, as typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Typed {
    pub path: RemotePath,
    /// Ends in a slash (or is the root): can only be a folder.
    pub slash: bool,
    /// Ends in `/.` (or is the root): means what lies in it.
    pub contents: bool,
}

/// Reads a remote path; also names that are no text.
pub fn remote(typed: &OsStr) -> Result<Typed, Failure> {
    let bytes = typed.as_bytes();
    let shown = || typed.to_string_lossy().into_owned();
    if bytes.is_empty() {
        return Err(Failure::usage("a remote path is empty: the root is '/'"));
    }
    if bytes == STREAM.as_bytes() {
        return Err(Failure::usage("'-' is standard input or output, and here a remote path is needed (a file of that name is '/-')"));
    }
    let mut path = RemotePath::root();
    for name in bytes.split(|b| *b == b'/').filter(|n| !n.is_empty() && *n != b".") {
        if name == b".." {
            return Err(Failure::usage(format!("'{}': remote paths begin at your root and know no '..'", shown())));
        }
        path = path.join(&Name::from_bytes(name).map_err(|e| Failure::usage(format!("'{}': {}", shown(), e.message)))?);
    }
    let contents = path.name().is_none() || bytes.ends_with(b"/.");
    Ok(Typed { path, slash: contents || bytes.ends_with(b"/"), contents })
}

/// What lies at a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum There {
    Nothing,
    Folder,
    /// A file, a symlink.
    Other,
}

/// One of the things to be moved, copied, stored or fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source<S> {
    pub what: S,
    /// Its name in a folder; `None`: what lies in it goes there.
    pub name: Option<Vec<u8>>,
    pub folder: bool,
}

/// A destination to which names can be added.
pub trait Destination: Clone + Ord {
    fn below(&self, name: &[u8]) -> Result<Self>;
    fn shown(&self) -> String;
    /// The command that makes this folder.
    fn make(&self) -> String;
}

impl Destination for RemotePath {
    fn below(&self, name: &[u8]) -> Result<Self> {
        Ok(self.join(&Name::from_bytes(name)?))
    }
    fn shown(&self) -> String {
        self.to_string()
    }
    fn make(&self) -> String {
        format!("shardkeep mkdir -p {self}")
    }
}

impl Destination for PathBuf {
    fn below(&self, name: &[u8]) -> Result<Self> {
        Ok(crate::local::join(self, name))
    }
    fn shown(&self) -> String {
        self.display().to_string()
    }
    fn make(&self) -> String {
        format!("mkdir -p {}", self.display())
    }
}

/// The exact place of each source. `there` is what lies at the destination now; `slash`: it was
/// typed with a slash at the end; `several`: more than one source was typed.
pub fn places<S, D: Destination>(
    sources: Vec<Source<S>>,
    destination: &D,
    slash: bool,
    several: bool,
    there: There,
) -> Result<Vec<(S, D)>, Failure> {
    let shown = || destination.shown();
    let one_folder = matches!(sources.as_slice(), [one] if one.folder);
    let into = match there {
        There::Folder => true,
        There::Other if slash || several => return Err(Error::invalid(format!("{} is not a folder", shown())).into()),
        There::Nothing if several || slash && !one_folder => {
            return Err(Error::not_found(format!("{}: no such folder", shown())).hint(destination.make()).into());
        }
        There::Other | There::Nothing => false,
    };
    let mut taken = BTreeSet::new();
    let mut placed = Vec::with_capacity(sources.len());
    for source in sources {
        let place = match &source.name {
            Some(name) if into => destination.below(name)?,
            _ => destination.clone(),
        };
        // Two folders whose contents go to one place are no conflict yet; two files of a name are.
        if !taken.insert(place.clone()) && source.name.is_some() {
            return Err(Failure::usage(format!("two of the sources would become {}", place.shown())));
        }
        placed.push((source.what, place));
    }
    Ok(placed)
}

/// What lies at a remote destination.
pub async fn remote_there(client: &Client, path: &RemotePath) -> Result<There> {
    match client.stat(path).await {
        Ok(Entry { kind: EntryKind::Folder, .. }) => Ok(There::Folder),
        Ok(_) => Ok(There::Other),
        Err(e) if e.kind == Kind::NotFound => Ok(There::Nothing),
        Err(e) => Err(e),
    }
}

/// What lies at a local destination; a symlink to a folder is one. Blocking.
pub fn local_there(path: &Path) -> There {
    match path.metadata() {
        Ok(meta) if meta.is_dir() => There::Folder,
        Ok(_) => There::Other,
        // A symlink that leads nowhere is still something.
        Err(_) if path.symlink_metadata().is_ok() => There::Other,
        Err(_) => There::Nothing,
    }
}

/// The name under which a local path goes into a folder; `None` for `.`, `..`, `/` and what ends in
/// `/.`, which mean what lies in them.
pub fn local_name(path: &Path) -> Option<Vec<u8>> {
    if path.as_os_str().as_bytes().ends_with(b"/.") {
        return None;
    }
    path.file_name().map(|name| name.as_bytes().to_vec())
}

/// Whether a local path was typed with a slash at its end.
pub fn ends_in_slash(path: &OsStr) -> bool {
    path.as_bytes().ends_with(b"/") || path.as_bytes().ends_with(b"/.")
}

#[cfg(test)]
mod tests;
