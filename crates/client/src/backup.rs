//! A backup of the catalog: read from a coordinator as of one moment, encrypted here, written to a
//! file; and read again for a restore. The file is drawn in `seal::backup`.
//!
//! ```text
//! piece 0    CBOR [version: 1, cluster, catalog time, entries]
//! piece i    CBOR [[key, value]…]      rows in order of their keys
//! ```

use crate::Progress;
use crate::part::PartFile;
use crate::session::Client;
use env::{Env, File, FileExt, Open};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use model::{ClusterId, Error, Result, cbor};
use seal::backup::{BackupKey, HEAD, SEALED_MAX};
use seal::password::Password;
use std::path::Path;
use std::sync::Arc;
use wire::admin::{CloseBackup, OpenBackup, OpenBackupResponse, ReadBackup, ReadBackupRequest};
use wire::coordinator::Administration;
use zeroize::Zeroizing;

/// Version of what is in the pieces.
const VERSION: u8 = 1;

/// What a backup is of.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct BackupInfo {
    #[n(0)]
    version: u8,
    /// The cluster.
    #[n(1)]
    pub cluster: ClusterId,
    /// Catalog time, milliseconds since 1970.
    #[n(2)]
    pub time_ms: u64,
    /// Live entries.
    #[n(3)]
    pub entries: u64,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupReport {
    /// What it is of.
    pub info: BackupInfo,
    /// Rows.
    pub rows: u64,
    /// Length of the file.
    pub bytes: u64,
    /// Not all rows are what was once written.
    pub damaged: bool,
}

/// Rows with their keys.
pub type BackupRows = Vec<(Vec<u8>, Vec<u8>)>;

/// Refuses passphrases that are too easily guessed (`Invalid`, with the reason): whoever has the file
/// may try as many as he likes.
pub fn check_passphrase(passphrase: &str) -> Result<()> {
    Password::new(passphrase).check_strength("")
}

impl Client {
    /// Writes a backup of the whole catalog to a new file, and has the catalog note it. Admins only.
    /// `progress` counts rows as files; the total is the number of entries, a little less. `Corrupt` where the
    /// catalog is damaged, unless that is to be `accepted`.
    pub async fn backup(&self, file: &Path, passphrase: &str, accepted: bool, progress: &dyn Progress) -> Result<BackupReport> {
        let opened = self.cluster().authed::<OpenBackup, _>(()).await?;
        let (id, written) = (opened.id, self.write_backup(&opened, file, passphrase, accepted, progress).await);
        if let Err(e) = self.cluster().authed::<CloseBackup, _>(id).await {
            tracing::debug!(error = %e, "the view of a backup goes by itself");
        }
        let report = written?;
        // A damaged one is none to count on.
        if !report.damaged {
            self.administer(Administration::BackedUp).await?;
        }
        Ok(report)
    }

    async fn write_backup(
        &self,
        opened: &OpenBackupResponse,
        file: &Path,
        passphrase: &str,
        accepted: bool,
        progress: &dyn Progress,
    ) -> Result<BackupReport> {
        let env = self.env().clone();
        let info = BackupInfo { version: VERSION, cluster: opened.cluster, time_ms: opened.time_ms, entries: opened.entries };
        progress.total(info.entries, 0);
        let (disk, path, first, mut rng) = (env.disk.clone(), file.to_path_buf(), cbor::to_vec(&info), env.rand());
        let passphrase = Password::new(passphrase);
        let begin = move || -> Result<(PartFile, BackupKey)> {
            let mut part = PartFile::create(disk, &path)?;
            let mut key = BackupKey::create(&passphrase, &mut rng)?;
            part.write(&key.head())?;
            part.write(&key.seal(&first, false, &mut rng)?)?;
            Ok((part, key))
        };
        let (mut part, mut key) = env.blocking(begin).await?;
        let (mut after, mut rows) = (ByteVec::from(Vec::new()), 0u64);
        let damaged = loop {
            let page = self.cluster().authed::<ReadBackup, _>(ReadBackupRequest { id: opened.id, after: after.clone() }).await?;
            if page.damaged && !accepted {
                return Err(Error::corrupt("the catalog of this coordinator is damaged: its backup would be, too")
                    .hint("where there are others, replace the one that shardkeep cluster status names; else: --damaged"));
            }
            let (more, damaged) = (page.more && !page.rows.is_empty(), page.damaged);
            let count = page.rows.len() as u64;
            if let Some((key, _)) = page.rows.last() {
                after = key.clone();
            }
            let mut rng = env.rand();
            let seal = move || -> Result<(PartFile, BackupKey)> {
                let plaintext = Zeroizing::new(cbor::to_vec(&page.rows));
                part.write(&key.seal(&plaintext, !more, &mut rng)?)?;
                Ok((part, key))
            };
            (part, key) = env.blocking(seal).await?;
            rows += count;
            (0..count).for_each(|_| progress.file(""));
            if !more {
                break damaged;
            }
        };
        let bytes = env.blocking(move || part.finish()).await?;
        Ok(BackupReport { info, rows, bytes, damaged })
    }
}

/// A backup being read. Blocking.
pub struct BackupReader {
    file: Arc<dyn File>,
    len: u64,
    at: u64,
    key: BackupKey,
    info: BackupInfo,
    ended: bool,
}

impl BackupReader {
    /// Opens a backup. `Denied` for another passphrase, `Invalid` for what is none.
    pub fn open(env: &Env, path: &Path, passphrase: &str) -> Result<Self> {
        let io = |e: std::io::Error| {
            let kind = if e.kind() == std::io::ErrorKind::NotFound { model::Kind::NotFound } else { model::Kind::Invalid };
            Error::new(kind, format!("{}: {e}", path.display()))
        };
        let file = env.disk.open(path, Open::Existing).map_err(io)?;
        let len = file.len().map_err(io)?;
        let mut head = [0; HEAD];
        file.read_exact_at(&mut head, 0).map_err(|_| Error::invalid(format!("{} is no backup of a catalog", path.display())))?;
        let key = BackupKey::from_head(&Password::new(passphrase), &head)?;
        let info = BackupInfo { version: VERSION, cluster: ClusterId([0; 16]), time_ms: 0, entries: 0 };
        let mut reader = BackupReader { file, len, at: HEAD as u64, key, info, ended: false };
        let first = reader.piece()?.ok_or_else(cut_off)?;
        reader.info = cbor::from_canonical(&first)?;
        if reader.info.version != VERSION {
            return Err(Error::invalid("this backup is of a version that this software does not know"));
        }
        Ok(reader)
    }

    /// What it is of.
    pub fn info(&self) -> &BackupInfo {
        &self.info
    }

    /// The next rows; `None` after the last. `Corrupt` when the file is damaged or was cut off.
    pub fn next_rows(&mut self) -> Result<Option<BackupRows>> {
        match self.piece()? {
            Some(plaintext) => rows_of(&plaintext).map(Some),
            None => Ok(None),
        }
    }

    fn piece(&mut self) -> Result<Option<Zeroizing<Vec<u8>>>> {
        if self.ended {
            return Ok(None);
        }
        let mut length = [0; 4];
        self.file.read_exact_at(&mut length, self.at).map_err(|_| cut_off())?;
        let length = u32::from_be_bytes(length) as usize;
        let end = self.at + 4 + length as u64;
        if length > SEALED_MAX || end > self.len {
            return Err(cut_off());
        }
        let mut sealed = vec![0; length];
        self.file.read_exact_at(&mut sealed, self.at + 4).map_err(|_| cut_off())?;
        // The file's end is the last piece's, or it does not open.
        let last = end == self.len;
        let plaintext = self.key.open(&sealed, last)?;
        (self.at, self.ended) = (end, last);
        Ok(Some(plaintext))
    }
}

/// The rows in a piece.
pub fn rows_of(plaintext: &[u8]) -> Result<BackupRows> {
    let rows: Vec<(ByteVec, ByteVec)> = cbor::from_slice(plaintext)?;
    Ok(rows.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
}

fn cut_off() -> Error {
    Error::corrupt("this backup is damaged, or its end is missing: nothing of it can be used")
}
