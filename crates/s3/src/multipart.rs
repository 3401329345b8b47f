//! Multipart uploads: each part is a file of its own from the moment at which it is acknowledged, so that an upload
//! goes on after any restart; completing joins them, and content stays where it is.
//!
//! ```text
//! BUCKET/.s3~uploads/ID          the upload: its key, and what is to be kept with the object
//! BUCKET/.s3~uploads/ID.parts/N  part N, five digits
//! ```

use crate::Gateway;
use crate::body::{Claims, Digest};
use crate::buckets::Bucket;
use crate::checksum;
use crate::conditions::Conditions;
use crate::errors::{error, from_client, plain};
use crate::keys::UPLOADS;
use crate::meta::{Meta, Sum};
use crate::objects::{PUT_MAX, receive};
use crate::tree::{Object, below};
use client::{Compose, Composed, Entry, EntryKind, OnConflict, PutOptions, RemotePath, Source};
use minicbor::{Decode, Encode};
use model::{Kind, cbor};
use s3s::dto::{ChecksumAlgorithm, ChecksumType, CompletedPart, StreamingBlob};
use s3s::{S3ErrorCode, S3Result};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Highest number of a part.
pub const PARTS_MAX: i32 = 10_000;
/// Fewest bytes of a part that is not the last one.
const PART_MIN: u64 = 5 << 20;
/// How often a completion is tried while others write to the same key.
const TRIES: usize = 16;
/// The property of an upload's record, beside what is to be kept with the object.
const RECORD: &[u8] = b"s3-upload";

/// What an upload is for.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Record {
    /// Key.
    #[n(0)]
    pub key: String,
    /// Checksum algorithm that it was begun with.
    #[n(1)]
    pub algorithm: Option<String>,
    /// Kind of checksum: of the whole, or of the parts'.
    #[n(2)]
    pub kind: Option<String>,
}

impl Record {
    /// The algorithm and the kind of the object's checksum.
    pub fn checksum(&self) -> (String, String) {
        let algorithm = self.algorithm.clone().unwrap_or_else(|| ChecksumAlgorithm::CRC64NVME.into());
        let kind = self.kind.clone().unwrap_or_else(|| checksum::default_type(&algorithm).into());
        (algorithm, kind)
    }
}

/// An upload under way.
#[derive(Clone)]
pub struct Upload {
    /// Its id.
    pub id: String,
    /// What it is for.
    pub record: Record,
    /// What is to be kept with the object.
    pub meta: Meta,
    /// When it began, milliseconds since 1970.
    pub begun_ms: u64,
    entry: Entry,
    parts: RemotePath,
}

/// A part.
pub struct Part {
    /// Its number.
    pub number: i32,
    /// Its file.
    pub object: Object,
}

fn uploads_of(bucket: &Bucket) -> S3Result<RemotePath> {
    below(&bucket.path, UPLOADS).map_err(from_client)
}

fn is_id(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

impl Upload {
    /// Of its record's file; `None` where it is none.
    fn of(entry: Entry) -> Option<Self> {
        let record = minicbor::decode(entry.property(RECORD)?).ok()?;
        let id = Some(entry.name()).filter(|id| is_id(id) && entry.kind == EntryKind::File)?;
        let parts = below(&entry.path.parent()?, &format!("{id}.parts")).ok()?;
        let meta = Meta::of(&entry);
        Some(Upload { id, record, begun_ms: meta.modified_ms(&entry), meta, entry, parts })
    }
}

/// `InvalidArgument` for what is no number of a part.
pub fn check_number(number: i32) -> S3Result<()> {
    if (1..=PARTS_MAX).contains(&number) {
        return Ok(());
    }
    Err(error(S3ErrorCode::InvalidArgument, "Part number must be an integer between 1 and 10000, inclusive"))
}

impl Gateway {
    /// Begins an upload.
    pub(crate) async fn begin_upload(&self, bucket: &Bucket, meta: &Meta, record: &Record) -> S3Result<String> {
        crate::tree::check_key(&record.key)?;
        let id = self.new_id();
        let uploads = uploads_of(bucket)?;
        let parts = below(&uploads, &format!("{id}.parts")).map_err(from_client)?;
        self.check_bucket(bucket).await?;
        self.client.mkdir(&parts, true).await.map_err(from_client)?;
        let path = below(&uploads, &id).map_err(from_client)?;
        let spot = self.client.spot(&path).await.map_err(from_client)?;
        let properties = meta.to_properties().with(RECORD, cbor::to_vec(record));
        let source = Source::Described(Box::new(tokio::io::empty()), Box::new(move || Ok(properties)));
        self.writer.put(spot, source, PutOptions { if_absent: true, ..Default::default() }).await.map_err(from_client)?;
        Ok(id)
    }

    /// An upload of a key. `NoSuchUpload`.
    pub(crate) async fn upload(&self, bucket: &Bucket, key: &str, id: &str) -> S3Result<Upload> {
        let none = || plain(S3ErrorCode::NoSuchUpload);
        if !is_id(id) {
            return Err(none());
        }
        let path = below(&uploads_of(bucket)?, id).map_err(from_client)?;
        let entry = match self.client.stat(&path).await {
            Err(e) if matches!(e.kind, Kind::NotFound | Kind::Invalid) => {
                self.check_bucket(bucket).await?;
                return Err(none());
            }
            entry => entry.map_err(from_client)?,
        };
        Upload::of(entry).filter(|u| u.record.key == key).ok_or_else(none)
    }

    /// All uploads of a bucket, by key and time.
    pub(crate) async fn uploads(&self, bucket: &Bucket) -> S3Result<Vec<Upload>> {
        let entries = match self.client.list(&uploads_of(bucket)?).await {
            Err(e) if e.kind == Kind::NotFound => {
                self.check_bucket(bucket).await?;
                return Ok(Vec::new());
            }
            entries => entries.map_err(from_client)?,
        };
        let mut uploads: Vec<Upload> = entries.into_iter().filter_map(Upload::of).collect();
        uploads.sort_by(|a, b| (&a.record.key, a.begun_ms, &a.id).cmp(&(&b.record.key, b.begun_ms, &b.id)));
        Ok(uploads)
    }

    /// Stores a part, in the place of an earlier one of its number.
    pub(crate) async fn put_part(&self, upload: &Upload, number: i32, blob: Option<StreamingBlob>, claims: Claims) -> S3Result<Digest> {
        check_number(number)?;
        if claims.length.is_some_and(|length| length > PUT_MAX) {
            return Err(plain(S3ErrorCode::EntityTooLarge));
        }
        let path = below(&upload.parts, &format!("{number:05}")).map_err(from_client)?;
        let gone = |e: model::Error| if e.kind == Kind::NotFound { plain(S3ErrorCode::NoSuchUpload) } else { from_client(e) };
        let spot = self.client.spot(&path).await.map_err(gone)?;
        let (source, receiving) = receive(Meta::new(self.client.env().now_ms()), blob, claims, true);
        let options = PutOptions { on_conflict: OnConflict::Overwrite, allow_degraded: self.allow_degraded, ..Default::default() };
        let done = self.writer.put(spot, source, options).await;
        receiving.end(done.map(|_| ()).map_err(gone)).map(|stored| stored.digest)
    }

    /// The parts of an upload, by number.
    pub(crate) async fn parts(&self, upload: &Upload) -> S3Result<Vec<Part>> {
        let listed = async {
            let folder = self.client.stat(&upload.parts).await?;
            self.client.list_entries(&folder, true).await
        };
        let entries = match listed.await {
            Err(e) if e.kind == Kind::NotFound => return Err(plain(S3ErrorCode::NoSuchUpload)),
            entries => entries.map_err(from_client)?,
        };
        let part = |entry: Entry| Some(Part { number: entry.name().parse().ok()?, object: Object::new(entry) });
        let mut parts: Vec<Part> = entries.into_iter().filter(|e| e.kind == EntryKind::File).filter_map(part).collect();
        parts.sort_by_key(|p| p.number);
        Ok(parts)
    }

    /// The parts that a completion names, checked, and what is to be kept with the object of them.
    pub(crate) async fn chosen(&self, upload: &Upload, named: &[CompletedPart], whole: Option<&Sum>) -> S3Result<(Vec<Object>, Meta)> {
        if named.is_empty() {
            return Err(error(S3ErrorCode::MalformedXML, "You must specify at least one part"));
        }
        if named.iter().any(|p| p.part_number.is_none() || p.e_tag.is_none()) {
            return Err(plain(S3ErrorCode::MalformedXML));
        }
        if named.iter().any(|p| p.part_number.is_some_and(|n| n < 1)) {
            return Err(error(S3ErrorCode::InvalidArgument, "PartNumber must be >= 1"));
        }
        let (algorithm, kind) = upload.record.checksum();
        let each = upload.record.algorithm.is_some() && kind == ChecksumType::COMPOSITE;
        let mut there: BTreeMap<i32, Object> = self.parts(upload).await?.into_iter().map(|p| (p.number, p.object)).collect();
        let numbers: Vec<i32> = named.iter().map(|p| p.part_number.unwrap_or_default()).collect();
        if !numbers.is_sorted_by(|a, b| a < b) {
            return Err(plain(S3ErrorCode::InvalidPartOrder));
        }
        let mut chosen = Vec::with_capacity(named.len());
        for (i, (part, number)) in named.iter().zip(numbers).enumerate() {
            let object = there.remove(&number).ok_or_else(|| plain(S3ErrorCode::InvalidPart))?;
            let etag = part.e_tag.as_ref().map(|e| e.value().to_string());
            if etag.is_none_or(|etag| etag != object.etag()) {
                return Err(plain(S3ErrorCode::InvalidPart));
            }
            let sum = object.meta.checksum.as_ref();
            let claimed = [
                ("CRC32", &part.checksum_crc32),
                ("CRC32C", &part.checksum_crc32c),
                ("CRC64NVME", &part.checksum_crc64nvme),
                ("SHA1", &part.checksum_sha1),
                ("SHA256", &part.checksum_sha256),
            ];
            let wrong = |(algorithm, value): &(&str, &Option<String>)| {
                value.as_ref().is_some_and(|v| sum.is_none_or(|s| s.algorithm != *algorithm || s.value != *v))
            };
            if claimed.iter().any(wrong) {
                return Err(plain(S3ErrorCode::InvalidPart));
            }
            if each && claimed.iter().all(|(_, value)| value.is_none()) {
                let text = format!(
                    "The upload was created using a {} checksum. The complete request must include the checksum for each part. It was missing for part {number} in the request.",
                    algorithm.to_lowercase()
                );
                return Err(error(S3ErrorCode::InvalidRequest, text));
            }
            if object.entry.size < PART_MIN && i + 1 < named.len() {
                let text =
                    format!("Your proposed upload is smaller than the minimum allowed size: part {number} has {} bytes", object.entry.size);
                return Err(error(S3ErrorCode::EntityTooSmall, text));
            }
            chosen.push(object);
        }
        let mut meta = Meta { modified_ms: Some(self.client.env().now_ms()), upload: Some(upload.id.clone()), ..upload.meta.clone() };
        meta.set_parts(chosen.iter().map(|o| o.entry.size));
        meta.md5 = Some(checksum::md5_of(chosen.iter().filter_map(|o| o.meta.md5.map(Into::into))).into());
        let parts: Vec<checksum::Part> = chosen.iter().map(|o| (o.meta.sum_of(&algorithm), o.entry.size)).collect();
        meta.checksum = checksum::of_parts(&algorithm, &kind, &parts);
        match (whole, &meta.checksum) {
            (Some(claimed), Some(sum)) if claimed.algorithm != sum.algorithm => {
                Err(error(S3ErrorCode::InvalidRequest, "The checksum is of another algorithm than the upload's."))
            }
            (Some(claimed), Some(sum)) if claimed.value != sum.value => Err(plain(S3ErrorCode::BadDigest)),
            _ => Ok((chosen, meta)),
        }
    }

    /// Makes the object of an upload's parts; the upload is gone at the same moment. Content stays where it is,
    /// unless it lies in more objects than one file can name: then it is read and stored anew.
    pub(crate) async fn complete(
        self: &Arc<Self>,
        bucket: &Bucket,
        upload: &Upload,
        parts: &[Object],
        meta: &Meta,
        conditions: &Conditions,
    ) -> S3Result<()> {
        let sources: Vec<Entry> = parts.iter().map(|p| p.entry.clone()).collect();
        let gone = |e: model::Error| if e.kind == Kind::NotFound { plain(S3ErrorCode::NoSuchUpload) } else { from_client(e) };
        let folder = self.client.stat(&upload.parts).await.map_err(gone)?;
        for _ in 0..TRIES {
            let hold = self.histories.hold(bucket, &upload.record.key).await;
            let spot = self.over(bucket, &upload.record.key, conditions).await?;
            let how = Compose {
                if_version: spot.entry().map(|e| e.version),
                if_absent: spot.entry().is_none(),
                more: meta.to_properties().into_pairs(),
                also_purge: vec![upload.entry.clone(), folder.clone()],
                allow_degraded: self.allow_degraded,
                ..Compose::default()
            };
            match self.client.compose(&sources, spot.path(), how).await {
                Ok(Composed::Made(_)) => return Ok(()),
                // Too many objects for one file, or the key leads into another space.
                Ok(Composed::TooMany) | Err(model::Error { kind: Kind::Invalid, .. }) => {
                    drop(hold);
                    let (content, properties) = (self.client.read_all(sources), meta.to_properties());
                    let source = Source::Described(Box::new(content), Box::new(move || Ok(properties)));
                    self.store(bucket, &upload.record.key, conditions, source).await?;
                    self.clear(upload).await;
                    return Ok(());
                }
                Err(e) if matches!(e.kind, Kind::Conflict | Kind::Exists | Kind::NotFound) => {}
                Err(e) => return Err(from_client(e)),
            }
            // Somebody else wrote to the key, or to the upload.
            self.upload(bucket, &upload.record.key, &upload.id).await?;
        }
        Err(plain(S3ErrorCode::OperationAborted))
    }

    /// The object that an upload has become already, for whoever did not hear of it.
    pub(crate) async fn completed(&self, bucket: &Bucket, key: &str, id: &str) -> S3Result<Option<Object>> {
        match self.object(bucket, key, None).await {
            Ok(object) if object.meta.upload.as_deref() == Some(id) => Ok(Some(object)),
            Ok(_) => Ok(None),
            Err(e) if *e.code() == S3ErrorCode::NoSuchKey => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Ends an upload: what it brought is destroyed. `NoSuchUpload`.
    pub(crate) async fn abort(&self, upload: &Upload) -> S3Result<()> {
        let spot = self.client.spot(&upload.entry.path).await.map_err(from_client)?;
        match self.writer.remove(spot, true).await {
            Err(e) if e.kind == Kind::NotFound => return Err(plain(S3ErrorCode::NoSuchUpload)),
            done => done.map_err(from_client)?,
        }
        self.clear_parts(&upload.parts).await;
        Ok(())
    }

    /// Clears away what is left of an upload that is complete. What fails is swept later.
    async fn clear(&self, upload: &Upload) {
        if let Ok(spot) = self.client.spot(&upload.entry.path).await
            && let Err(e) = self.writer.remove(spot, true).await
            && e.kind != Kind::NotFound
        {
            tracing::warn!(error = %e, "the record of a complete upload stays until it is swept");
        }
        self.clear_parts(&upload.parts).await;
    }

    async fn clear_parts(&self, parts: &RemotePath) {
        if let Err(e) = self.client.remove(parts, true, true).await
            && e.kind != Kind::NotFound
        {
            tracing::warn!(error = %e, "the parts of an upload that has ended stay until they are swept");
        }
    }

    /// Destroys parts of uploads that are no more, in a bucket.
    pub(crate) async fn sweep_parts(&self, bucket: &Bucket) -> S3Result<()> {
        let entries = match self.client.list(&uploads_of(bucket)?).await {
            Err(e) if e.kind == Kind::NotFound => return Ok(()),
            entries => entries.map_err(from_client)?,
        };
        for entry in &entries {
            let name = entry.name();
            let of = name.strip_suffix(".parts").filter(|id| is_id(id));
            // A fresh one may be without its record still.
            let old = entry.committed_ms.saturating_add(3_600_000) < self.client.env().now_ms();
            if old && of.is_some_and(|id| !entries.iter().any(|e| e.name() == id)) {
                self.clear_parts(&entry.path).await;
            }
        }
        Ok(())
    }
}
