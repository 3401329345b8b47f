//! A private file that gets its name when it is whole: until then it is `NAME.part`.

use env::{Disk, File, FileExt, Open};
use model::{Error, Kind, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file being written, readable by its owner only. Blocking. Dropped before [`PartFile::finish`], it
/// is removed.
pub struct PartFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    part: PathBuf,
    file: Option<Arc<dyn File>>,
    len: u64,
}

impl PartFile {
    /// Begins. `Exists` when there is a file of that name already.
    pub fn create(disk: Arc<dyn Disk>, path: &Path) -> Result<Self> {
        if disk.try_exists(path).map_err(|e| failed(path, &e))? {
            return Err(Error::exists(format!("{} is there already", path.display())));
        }
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let file = disk.open(&part, Open::OrCreate).map_err(|e| failed(&part, &e))?;
        file.set_len(0).map_err(|e| failed(&part, &e))?;
        Ok(PartFile { disk, path: path.to_path_buf(), part, file: Some(file), len: 0 })
    }

    /// Appends.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if let Some(file) = &self.file {
            file.write_all_at(bytes, self.len).map_err(|e| failed(&self.part, &e))?;
            self.len += bytes.len() as u64;
        }
        Ok(())
    }

    /// Makes it durable and gives it its name. Answers how long it is.
    pub fn finish(mut self) -> Result<u64> {
        if let Some(file) = self.file.take() {
            let done = file.sync_data().and_then(|()| self.disk.rename(&self.part, &self.path));
            done.and_then(|()| self.disk.sync_dir(self.path.parent().unwrap_or(Path::new(".")))).map_err(|e| failed(&self.path, &e))?;
        }
        Ok(self.len)
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            let _ = self.disk.remove_file(&self.part); // what cannot be removed says by its name what it is
        }
    }
}

fn failed(path: &Path, e: &std::io::Error) -> Error {
    let kind = match e.kind() {
        std::io::ErrorKind::NotFound => Kind::NotFound,
        std::io::ErrorKind::PermissionDenied => Kind::Denied,
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Kind::Insufficient,
        _ => Kind::Invalid,
    };
    Error::new(kind, format!("{}: {e}", path.display()))
}
