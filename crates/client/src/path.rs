//! Remote paths: `/`-separated names from the user's own root.

use model::{Error, Result};
use seal::tree::Name;
use std::fmt;

/// A remote path; the root has no names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RemotePath {
    names: Vec<Name>,
}

impl RemotePath {
    /// The root.
    pub fn root() -> Self {
        RemotePath { names: Vec::new() }
    }

    /// Reads a path; the first `/` may be left out. `Invalid` for names that cannot be (`..`, NUL,
    /// over 255 bytes).
    pub fn parse(path: &str) -> Result<Self> {
        let names = path.split('/').filter(|n| !n.is_empty() && *n != ".").map(Name::new).collect::<Result<_>>();
        Ok(RemotePath { names: names.map_err(|e| Error::invalid(format!("'{}': {}", path.escape_debug(), e.message)))? })
    }

    /// This path with one name more.
    pub fn join(&self, name: &Name) -> Self {
        let mut names = self.names.clone();
        names.push(name.clone());
        RemotePath { names }
    }

    /// The path without its last name; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        let (_, parents) = self.names.split_last()?;
        Some(RemotePath { names: parents.to_vec() })
    }

    /// The last name; `None` for the root.
    pub fn name(&self) -> Option<&Name> {
        self.names.last()
    }

    /// All names from the root.
    pub fn names(&self) -> &[Name] {
        &self.names
    }

    /// The first `n` names.
    pub fn prefix(&self, n: usize) -> Self {
        RemotePath { names: self.names.iter().take(n).cloned().collect() }
    }

    /// Whether this is `other` or lies below it.
    pub fn is_within(&self, other: &RemotePath) -> bool {
        self.names.starts_with(&other.names)
    }
}

impl fmt::Display for RemotePath {
    /// For people and JSON: names that are no text come out with replacement characters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.names.is_empty() {
            return f.write_str("/");
        }
        self.names.iter().try_for_each(|n| write!(f, "/{}", String::from_utf8_lossy(n.as_bytes())))
    }
}
