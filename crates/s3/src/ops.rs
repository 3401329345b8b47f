//! S3's operations: each reads its request, asks the gateway, and says what came of it. Those of objects and buckets
//! are here, the others in files of their own.

use crate::access::AccessKeys;
use crate::answering::{BareETag, with_status};
use crate::answers::{Portion, head, listed, portion};
use crate::asked;
use crate::asked::{Asked, check_acl};
use crate::body::{Carried, Claims, known};
use crate::buckets::{Bucket, Versioning};
use crate::conditions::Conditions;
use crate::copy::{check_self, source};
use crate::errors::{error, not_here, plain};
use crate::listing::{Page, Wanted, encoder, page_size, read_token, token};
use crate::meta::{Meta, Sum, strong, timestamp};
use crate::multipart::{PARTS_MAX, Record, Upload};
use crate::tree::Object;
use crate::versions::id_of;
use crate::{Gateway, checksum, lifecycle, tagging};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use s3s::dto::*;
use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Deletes of one request under way at once.
const DELETES: usize = 32;
/// Most keys of a request to delete several.
const DELETES_MAX: usize = 1_000;
/// Most buckets of a page.
const BUCKETS_MAX: i32 = 10_000;
/// Histories asked for at once, for a listing of versions.
const HISTORIES: usize = 16;

/// The operations of a gateway.
pub struct Operations(pub Arc<Gateway>);

/// How everything is encrypted, as answers say it.
fn aes256() -> ServerSideEncryption {
    ServerSideEncryption::from_static(ServerSideEncryption::AES256)
}

fn ok<T>(output: T) -> S3Result<S3Response<T>> {
    Ok(S3Response::new(output))
}

/// Conditions of a read.
macro_rules! read_conditions {
    ($input:expr) => {
        Conditions {
            matches: $input.if_match.clone(),
            none_match: $input.if_none_match.clone(),
            modified_since: $input.if_modified_since.clone(),
            unmodified_since: $input.if_unmodified_since.clone(),
        }
    };
}

/// Conditions on the source of a copy.
macro_rules! copy_conditions {
    ($input:expr) => {
        Conditions {
            matches: $input.copy_source_if_match.clone(),
            none_match: $input.copy_source_if_none_match.clone(),
            modified_since: $input.copy_source_if_modified_since.clone(),
            unmodified_since: $input.copy_source_if_unmodified_since.clone(),
        }
    };
}

/// Checksums that a request carries.
macro_rules! carried {
    ($input:expr, $trailers:expr) => {
        Carried {
            md5: $input.content_md5.clone(),
            length: $input.content_length,
            sums: [
                $input.checksum_crc32.clone(),
                $input.checksum_crc32c.clone(),
                $input.checksum_crc64nvme.clone(),
                $input.checksum_sha1.clone(),
                $input.checksum_sha256.clone(),
            ],
            algorithm: $input.checksum_algorithm.as_ref().map(|a| a.as_str().to_string()),
            trailers: $trailers,
        }
    };
}

mod always;
mod settings;
mod uploads;
mod versions;

impl Operations {
    async fn bucket(&self, name: &str) -> S3Result<Bucket> {
        self.0.buckets.get(name).await
    }

    fn keys(&self) -> &AccessKeys {
        &self.0.keys
    }

    fn grants(&self) -> Vec<Grant> {
        let grantee = Grantee {
            display_name: self.0.owner.display_name.clone(),
            email_address: None,
            id: self.0.owner.id.clone(),
            type_: Type::from_static(Type::CANONICAL_USER),
            uri: None,
        };
        vec![Grant { grantee: Some(grantee), permission: Some(Permission::from_static(Permission::FULL_CONTROL)) }]
    }

    /// The source of a copy, if whoever asks may read it.
    async fn copy_source<T>(&self, req: &S3Request<T>, header: &CopySource, conditions: &Conditions) -> S3Result<(Bucket, Object)> {
        let from = source(header)?;
        self.keys().check(req.credentials.as_ref(), Some(from.bucket), false).await?;
        let bucket = self.bucket(from.bucket).await?;
        let object = self.0.object(&bucket, from.key, from.version).await.map_err(|e| match e.code() {
            S3ErrorCode::MethodNotAllowed => error(
                S3ErrorCode::InvalidRequest,
                "The source of a copy request may not specifically refer to a delete marker by version id.",
            ),
            _ => e,
        })?;
        conditions.check_copy(&object.etag(), object.modified_ms())?;
        Ok((bucket, object))
    }
}

/// When the bucket's rules let an object go.
fn expiration(bucket: &Bucket, key: &str, object: &Object) -> Option<String> {
    lifecycle::expiration(&bucket.config, key, &object.meta, object.entry.size, object.modified_ms())
}

/// A body out of an object's bytes.
async fn body(gateway: &Gateway, object: &Object, portion: &Portion) -> S3Result<StreamingBlob> {
    let reader = gateway.client.open_file(&object.entry).await.map_err(crate::errors::from_client)?;
    let mut parts = reader.stream(portion.range.clone());
    // What cannot be read at all is an error, not an answer that breaks off.
    let first = parts.try_next().await.map_err(crate::errors::from_client)?;
    Ok(StreamingBlob::wrap(futures::stream::iter(first.map(Ok)).chain(parts).map_ok(Bytes::from)))
}

fn wanted(prefix: Option<String>, delimiter: Option<String>, max: i32, after: Option<String>, marks: bool) -> Wanted {
    let delimiter = delimiter.filter(|d| !d.is_empty());
    Wanted { prefix: prefix.unwrap_or_default(), delimiter, after, max: max as usize, marks }
}

fn groups(page: &[String], encode: fn(String) -> String) -> Option<Vec<CommonPrefix>> {
    let groups: Vec<_> = page.iter().map(|g| CommonPrefix { prefix: Some(encode(g.clone())) }).collect();
    Some(groups).filter(|g| !g.is_empty())
}

#[async_trait::async_trait]
impl S3 for Operations {
    async fn list_buckets(&self, req: S3Request<ListBucketsInput>) -> S3Result<S3Response<ListBucketsOutput>> {
        let prefix = req.input.prefix.clone().unwrap_or_default();
        let after = req.input.continuation_token.as_deref().map(read_token).transpose()?.unwrap_or_default();
        let most = match req.input.max_buckets {
            None => usize::MAX,
            Some(n) if (1..=BUCKETS_MAX).contains(&n) => n as usize,
            Some(_) => return Err(error(S3ErrorCode::InvalidArgument, "max-buckets must be between 1 and 10000")),
        };
        let asked = req.input.bucket_region.is_some() || req.input.max_buckets.is_some() || !prefix.is_empty() || !after.is_empty();
        let region = asked.then(|| self.0.region.clone());
        let (mut buckets, mut more) = (Vec::new(), None);
        for (name, made_ms) in self.0.buckets.list().await? {
            if !name.starts_with(&prefix) || name <= after || !self.keys().sees(req.credentials.as_ref(), &name).await {
                continue;
            }
            if buckets.len() >= most {
                more = buckets.last().and_then(|b: &s3s::dto::Bucket| b.name.as_deref()).map(token);
                break;
            }
            buckets.push(s3s::dto::Bucket { name: Some(name), creation_date: Some(timestamp(made_ms)), bucket_region: region.clone() });
        }
        ok(ListBucketsOutput {
            buckets: Some(buckets),
            owner: Some(self.0.owner.clone()),
            continuation_token: more,
            prefix: req.input.prefix,
        })
    }

    async fn create_bucket(&self, req: S3Request<CreateBucketInput>) -> S3Result<S3Response<CreateBucketOutput>> {
        let input = req.input;
        let grants = input.grant_full_control.is_some() || input.grant_read.is_some() || input.grant_write.is_some();
        if check_acl(input.acl.as_ref().map(|a| a.as_str()), grants).is_err() {
            let text = "Bucket cannot have ACLs set with ObjectOwnership's BucketOwnerEnforced setting";
            return Err(error(S3ErrorCode::InvalidBucketAclWithObjectOwnership, text));
        }
        if input.object_lock_enabled_for_bucket == Some(true) {
            return Err(not_here("object lock"));
        }
        self.0.buckets.create(&input.bucket).await?;
        ok(CreateBucketOutput { location: Some(format!("/{}", input.bucket)) })
    }

    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        let bucket = self.bucket(&req.input.bucket).await?;
        self.0.check_bucket(&bucket).await?;
        ok(HeadBucketOutput { bucket_region: Some(self.0.region.clone()), ..Default::default() })
    }

    async fn delete_bucket(&self, req: S3Request<DeleteBucketInput>) -> S3Result<S3Response<DeleteBucketOutput>> {
        let bucket = self.bucket(&req.input.bucket).await?;
        let page = self.0.list(&bucket, &Wanted { max: 1, marks: true, ..Wanted::default() }).await?;
        if !page.objects.is_empty() {
            return Err(plain(S3ErrorCode::BucketNotEmpty));
        }
        self.0.buckets.remove(&bucket).await?;
        ok(DeleteBucketOutput {})
    }

    async fn get_bucket_location(&self, req: S3Request<GetBucketLocationInput>) -> S3Result<S3Response<GetBucketLocationOutput>> {
        self.bucket(&req.input.bucket).await?;
        let region = Some(self.0.region.clone()).filter(|r| r != "us-east-1");
        ok(GetBucketLocationOutput { location_constraint: region.map(BucketLocationConstraint::from) })
    }

    async fn put_object(&self, req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let bucket = self.bucket(&req.input.bucket).await?;
        let mut input = req.input;
        if input.write_offset_bytes.is_some() {
            return Err(not_here("appending to an object"));
        }
        let meta = asked!(input).keep(self.0.new_meta(&bucket))?;
        let conditions = Conditions { matches: input.if_match.clone(), none_match: input.if_none_match.clone(), ..Default::default() };
        let claims = Claims::of(carried!(input, req.trailing_headers), &req.headers, None)?;
        let stored = self.0.put(&bucket, &input.key, meta, &conditions, input.body.take(), claims).await?;
        let sums = stored.digest.sum.as_ref().map(Sum::to_checksum).unwrap_or_default();
        let stored_ms = stored.meta.modified_ms.unwrap_or_default();
        ok(PutObjectOutput {
            expiration: lifecycle::expiration(&bucket.config, &input.key, &stored.meta, stored.digest.length, stored_ms),
            e_tag: Some(strong(data_encoding::HEXLOWER.encode(&stored.digest.md5))),
            checksum_crc32: sums.checksum_crc32,
            checksum_crc32c: sums.checksum_crc32c,
            checksum_crc64nvme: sums.checksum_crc64nvme,
            checksum_sha1: sums.checksum_sha1,
            checksum_sha256: sums.checksum_sha256,
            checksum_type: sums.checksum_type,
            server_side_encryption: Some(aes256()),
            version_id: bucket.has_versions().then(|| id_of(&stored.meta).to_string()),
            ..Default::default()
        })
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = req.input;
        let bucket = self.bucket(&input.bucket).await?;
        let object = self.0.object(&bucket, &input.key, input.version_id.as_deref()).await?;
        read_conditions!(input).check_read(&object.etag(), object.modified_ms())?;
        let portion = portion(&object, input.range.as_ref(), input.part_number)?;
        let h = head(&object, &portion, bucket.has_versions(), input.checksum_mode.is_some());
        let tags = i32::try_from(object.meta.tags.len()).ok().filter(|n| *n > 0);
        let expiration = expiration(&bucket, &input.key, &object).filter(|_| input.version_id.is_none());
        let output = GetObjectOutput {
            expiration,
            body: Some(body(&self.0, &object, &portion).await?),
            accept_ranges: h.accept_ranges,
            cache_control: h.cache_control,
            checksum_crc32: h.checksum_crc32,
            checksum_crc32c: h.checksum_crc32c,
            checksum_crc64nvme: h.checksum_crc64nvme,
            checksum_sha1: h.checksum_sha1,
            checksum_sha256: h.checksum_sha256,
            checksum_type: h.checksum_type,
            content_disposition: h.content_disposition,
            content_encoding: h.content_encoding,
            content_language: h.content_language,
            content_length: h.content_length,
            content_range: h.content_range,
            content_type: h.content_type,
            e_tag: h.e_tag,
            expires: h.expires,
            last_modified: h.last_modified,
            metadata: h.metadata,
            parts_count: h.parts_count,
            server_side_encryption: h.server_side_encryption,
            storage_class: h.storage_class,
            tag_count: tags,
            version_id: h.version_id,
            website_redirect_location: h.website_redirect_location,
            ..Default::default()
        };
        let status = if portion.partial { hyper::StatusCode::PARTIAL_CONTENT } else { hyper::StatusCode::OK };
        Ok(with_status(output, status))
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = req.input;
        let bucket = self.bucket(&input.bucket).await?;
        let object = self.0.object(&bucket, &input.key, input.version_id.as_deref()).await?;
        read_conditions!(input).check_read(&object.etag(), object.modified_ms())?;
        let portion = portion(&object, input.range.as_ref(), input.part_number)?;
        let expiration = expiration(&bucket, &input.key, &object).filter(|_| input.version_id.is_none());
        let output = HeadObjectOutput { expiration, ..head(&object, &portion, bucket.has_versions(), input.checksum_mode.is_some()) };
        let status = if portion.partial { hyper::StatusCode::PARTIAL_CONTENT } else { hyper::StatusCode::OK };
        let mut response = with_status(output, status);
        if !object.meta.tags.is_empty() {
            response.headers.insert("x-amz-tagging-count", object.meta.tags.len().into());
        }
        response.headers.extend(crate::answers::overrides(&req.uri));
        Ok(response)
    }

    async fn get_object_attributes(&self, req: S3Request<GetObjectAttributesInput>) -> S3Result<S3Response<GetObjectAttributesOutput>> {
        let input = req.input;
        let bucket = self.bucket(&input.bucket).await?;
        let object = self.0.object(&bucket, &input.key, input.version_id.as_deref()).await?;
        crate::answers::check_attributes(&input.object_attributes)?;
        let asked = |name: &str| input.object_attributes.iter().any(|a| a.as_str().split(',').any(|a| a.trim() == name));
        let count = object.meta.part_count();
        let parts = (asked(ObjectAttributes::OBJECT_PARTS) && count > 0).then(|| {
            let after = input.part_number_marker.unwrap_or(0).max(0) as u64;
            let most = input.max_parts.unwrap_or(1_000).clamp(0, 1_000) as u64;
            let last = count.min(after + most);
            // Parts' own checksums are not kept: of a checksum of the whole S3 does not list them either.
            let part = |n| {
                Some(ObjectPart { part_number: i32::try_from(n).ok(), size: Some(object.meta.part(n)?.1 as i64), ..Default::default() })
            };
            GetObjectAttributesParts {
                total_parts_count: i32::try_from(count).ok(),
                is_truncated: Some(last < count),
                max_parts: Some(most as i32),
                part_number_marker: input.part_number_marker,
                next_part_number_marker: (last < count).then_some(last as i32),
                parts: Some((after + 1..=last).filter_map(part).collect()),
            }
        });
        let mut response = S3Response::new(GetObjectAttributesOutput {
            e_tag: asked(ObjectAttributes::ETAG).then(|| strong(object.etag())),
            checksum: object.meta.checksum.as_ref().filter(|_| asked(ObjectAttributes::CHECKSUM)).map(Sum::to_checksum),
            object_size: asked(ObjectAttributes::OBJECT_SIZE).then_some(object.entry.size as i64),
            storage_class: asked(ObjectAttributes::STORAGE_CLASS).then(|| {
                object.meta.headers.storage_class.clone().map_or(StorageClass::from_static(StorageClass::STANDARD), StorageClass::from)
            }),
            object_parts: parts,
            last_modified: Some(timestamp(object.modified_ms())),
            version_id: bucket.has_versions().then(|| id_of(&object.meta).to_string()),
            ..Default::default()
        });
        response.extensions.insert(BareETag);
        Ok(response)
    }

    async fn delete_object(&self, req: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        let input = req.input;
        let bucket = self.bucket(&input.bucket).await?;
        if input.if_match_size.is_some() || input.if_match_last_modified_time.is_some() {
            return Err(not_here("a condition of a deletion on size or time"));
        }
        let conditions = Conditions { matches: input.if_match.clone(), ..Default::default() };
        let deleted = self.0.delete(&bucket, &input.key, input.version_id.as_deref(), &conditions).await?;
        let output = DeleteObjectOutput { delete_marker: deleted.mark.then_some(true), version_id: deleted.version, ..Default::default() };
        Ok(with_status(output, hyper::StatusCode::NO_CONTENT))
    }

    async fn delete_objects(&self, req: S3Request<DeleteObjectsInput>) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let bucket = self.bucket(&req.input.bucket).await?;
        self.0.check_bucket(&bucket).await?;
        let Delete { objects, quiet } = req.input.delete;
        if objects.is_empty() || objects.len() > DELETES_MAX {
            return Err(plain(S3ErrorCode::MalformedXML));
        }
        if objects.iter().any(|o| o.size.is_some() || o.last_modified_time.is_some()) {
            return Err(not_here("a condition of a deletion on size or time"));
        }
        // What is of one key is done in the order given.
        let mut by_key: BTreeMap<String, Vec<(usize, ObjectIdentifier)>> = BTreeMap::new();
        for (i, object) in objects.into_iter().enumerate() {
            by_key.entry(object.key.clone()).or_default().push((i, object));
        }
        let bucket = &bucket;
        let of_key = |objects: Vec<(usize, ObjectIdentifier)>| async move {
            let mut done = Vec::with_capacity(objects.len());
            for (i, object) in objects {
                let matches = object.e_tag.clone().map(ETagCondition::ETag);
                let conditions = Conditions { matches, ..Default::default() };
                let deleted = self.0.delete(bucket, &object.key, object.version_id.as_deref(), &conditions).await;
                done.push((i, object, deleted));
            }
            done
        };
        let done: Vec<_> = futures::stream::iter(by_key.into_values()).map(of_key).buffer_unordered(DELETES).collect().await;
        let mut done: Vec<_> = done.into_iter().flatten().collect();
        done.sort_by_key(|(i, ..)| *i);
        let (mut deleted, mut errors) = (Vec::new(), Vec::new());
        for (_, object, result) in done {
            match result {
                Ok(d) => deleted.push(DeletedObject {
                    key: Some(object.key),
                    delete_marker: d.mark.then_some(true),
                    delete_marker_version_id: d.version.clone().filter(|_| d.mark),
                    version_id: object.version_id,
                }),
                Err(e) => errors.push(s3s::dto::Error {
                    code: Some(e.code().as_str().to_string()),
                    key: Some(object.key),
                    message: e.message().map(str::to_string),
                    version_id: object.version_id,
                }),
            }
        }
        let deleted = Some(deleted).filter(|d| !d.is_empty() && quiet != Some(true));
        ok(DeleteObjectsOutput { deleted, errors: Some(errors).filter(|e| !e.is_empty()), ..Default::default() })
    }

    async fn copy_object(&self, req: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
        let input = &req.input;
        let bucket = self.bucket(&input.bucket).await?;
        let replace = input.metadata_directive.as_ref().is_some_and(|d| d.as_str() == MetadataDirective::REPLACE);
        let replace_tags = input.tagging_directive.as_ref().is_some_and(|d| d.as_str() == TaggingDirective::REPLACE);
        let asked: Asked = asked!(input);
        asked.check()?;
        let from = source(&input.copy_source)?;
        let changes = replace || input.storage_class.is_some() || input.website_redirect_location.is_some() || asked.encryption.is_some();
        check_self(&from, &input.bucket, &input.key, changes)?;
        let (from_bucket, object) = self.copy_source(&req, &input.copy_source, &copy_conditions!(input)).await?;
        let mut meta =
            Meta { id: self.0.new_meta(&bucket).id, modified_ms: Some(self.0.client.env().now_ms()), upload: None, ..object.meta.clone() };
        let tags = if replace_tags { tagging::of_header(input.tagging.as_deref())? } else { meta.tags.clone() };
        let (class, redirect) = (asked.storage_class.clone(), asked.redirect.clone());
        if replace {
            meta = asked.keep_headers(meta);
        }
        // These are of each object alone.
        meta.headers.storage_class = class.filter(|c| c != "STANDARD");
        meta.headers.redirect = redirect;
        meta.tags = tags;
        let conditions = Conditions::of_headers(&req.headers)?;
        let algorithm = input.checksum_algorithm.as_ref().map(|a| known(a.as_str())).transpose()?;
        let (etag, meta) = match algorithm.filter(|a| meta.checksum.as_ref().is_none_or(|sum| sum.algorithm != *a)) {
            None => {
                self.0.copy(&object, &bucket, &input.key, &meta, &conditions).await?;
                (object.etag(), meta)
            }
            // Another checksum takes reading it all: it is stored anew.
            Some(algorithm) => {
                let whole = Portion { range: 0..object.entry.size, partial: false, parts: None };
                let content = body(&self.0, &object, &whole).await?;
                let claims =
                    Claims::of(Carried { algorithm: Some(algorithm.to_string()), ..Default::default() }, &Default::default(), None)?;
                let meta = Meta { md5: None, checksum: None, parts: Vec::new(), ..meta };
                let stored = self.0.put(&bucket, &input.key, meta, &conditions, Some(content), claims).await?;
                (data_encoding::HEXLOWER.encode(&stored.digest.md5), stored.meta)
            }
        };
        let sums = meta.checksum.as_ref().map(Sum::to_checksum).unwrap_or_default();
        let copied = CopyObjectResult {
            e_tag: Some(strong(etag)),
            last_modified: meta.modified_ms.map(timestamp),
            checksum_crc32: sums.checksum_crc32,
            checksum_crc32c: sums.checksum_crc32c,
            checksum_crc64nvme: sums.checksum_crc64nvme,
            checksum_sha1: sums.checksum_sha1,
            checksum_sha256: sums.checksum_sha256,
            checksum_type: sums.checksum_type,
        };
        ok(CopyObjectOutput {
            copy_object_result: Some(copied),
            expiration: lifecycle::expiration(&bucket.config, &input.key, &meta, object.entry.size, meta.modified_ms.unwrap_or_default()),
            server_side_encryption: Some(aes256()),
            copy_source_version_id: from_bucket.has_versions().then(|| id_of(&object.meta).to_string()),
            version_id: bucket.has_versions().then(|| id_of(&meta).to_string()),
            ..Default::default()
        })
    }

    async fn list_objects(&self, req: S3Request<ListObjectsInput>) -> S3Result<S3Response<ListObjectsOutput>> {
        let input = req.input;
        let encode = encoder(input.encoding_type.as_ref())?;
        let max = page_size(input.max_keys)?;
        let bucket = self.bucket(&input.bucket).await?;
        let after = input.marker.clone().filter(|m| !m.is_empty());
        let page = self.0.list(&bucket, &wanted(input.prefix.clone(), input.delimiter.clone(), max, after, false)).await?;
        let Page { objects, groups: found, truncated, last } = page;
        let next = last.filter(|_| truncated && input.delimiter.as_ref().is_some_and(|d| !d.is_empty()));
        ok(ListObjectsOutput {
            name: Some(input.bucket),
            prefix: Some(encode(input.prefix.unwrap_or_default())),
            marker: Some(encode(input.marker.unwrap_or_default())),
            max_keys: Some(max),
            is_truncated: Some(truncated),
            contents: Some(objects.into_iter().map(|(key, brief)| listed(encode(key), &brief, Some(self.0.owner.clone()))).collect()),
            common_prefixes: groups(&found, encode),
            delimiter: input.delimiter.filter(|d| !d.is_empty()).map(encode),
            next_marker: next.map(encode),
            encoding_type: input.encoding_type,
            ..Default::default()
        })
    }

    async fn list_objects_v2(&self, req: S3Request<ListObjectsV2Input>) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = req.input;
        let encode = encoder(input.encoding_type.as_ref())?;
        let max = page_size(input.max_keys)?;
        let bucket = self.bucket(&input.bucket).await?;
        let after = match &input.continuation_token {
            Some(token) => Some(read_token(token)?),
            None => input.start_after.clone().filter(|a| !a.is_empty()),
        };
        let page = self.0.list(&bucket, &wanted(input.prefix.clone(), input.delimiter.clone(), max, after, false)).await?;
        let Page { objects, groups: found, truncated, last } = page;
        let owner = (input.fetch_owner == Some(true)).then(|| self.0.owner.clone());
        ok(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: Some(encode(input.prefix.unwrap_or_default())),
            max_keys: Some(max),
            key_count: i32::try_from(objects.len() + found.len()).ok(),
            continuation_token: input.continuation_token,
            is_truncated: Some(truncated),
            next_continuation_token: last.filter(|_| truncated).map(|l| token(&l)),
            contents: Some(objects.into_iter().map(|(key, brief)| listed(encode(key), &brief, owner.clone())).collect()),
            common_prefixes: groups(&found, encode),
            delimiter: input.delimiter.filter(|d| !d.is_empty()).map(encode),
            encoding_type: input.encoding_type,
            start_after: input.start_after.map(encode),
            ..Default::default()
        })
    }

    async fn list_object_versions(&self, req: S3Request<ListObjectVersionsInput>) -> S3Result<S3Response<ListObjectVersionsOutput>> {
        versions::list_object_versions(self, req).await
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        uploads::create_multipart_upload(self, req).await
    }

    async fn upload_part(&self, req: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        uploads::upload_part(self, req).await
    }

    async fn upload_part_copy(&self, req: S3Request<UploadPartCopyInput>) -> S3Result<S3Response<UploadPartCopyOutput>> {
        uploads::upload_part_copy(self, req).await
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        uploads::complete_multipart_upload(self, req).await
    }

    async fn abort_multipart_upload(&self, req: S3Request<AbortMultipartUploadInput>) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        uploads::abort_multipart_upload(self, req).await
    }

    async fn list_parts(&self, req: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
        uploads::list_parts(self, req).await
    }

    async fn list_multipart_uploads(&self, req: S3Request<ListMultipartUploadsInput>) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        uploads::list_multipart_uploads(self, req).await
    }

    async fn get_bucket_versioning(&self, req: S3Request<GetBucketVersioningInput>) -> S3Result<S3Response<GetBucketVersioningOutput>> {
        settings::get_bucket_versioning(self, req).await
    }

    async fn put_bucket_versioning(&self, req: S3Request<PutBucketVersioningInput>) -> S3Result<S3Response<PutBucketVersioningOutput>> {
        settings::put_bucket_versioning(self, req).await
    }

    async fn get_bucket_tagging(&self, req: S3Request<GetBucketTaggingInput>) -> S3Result<S3Response<GetBucketTaggingOutput>> {
        settings::get_bucket_tagging(self, req).await
    }

    async fn put_bucket_tagging(&self, req: S3Request<PutBucketTaggingInput>) -> S3Result<S3Response<PutBucketTaggingOutput>> {
        settings::put_bucket_tagging(self, req).await
    }

    async fn delete_bucket_tagging(&self, req: S3Request<DeleteBucketTaggingInput>) -> S3Result<S3Response<DeleteBucketTaggingOutput>> {
        settings::delete_bucket_tagging(self, req).await
    }

    async fn get_bucket_cors(&self, req: S3Request<GetBucketCorsInput>) -> S3Result<S3Response<GetBucketCorsOutput>> {
        settings::get_bucket_cors(self, req).await
    }

    async fn put_bucket_cors(&self, req: S3Request<PutBucketCorsInput>) -> S3Result<S3Response<PutBucketCorsOutput>> {
        settings::put_bucket_cors(self, req).await
    }

    async fn delete_bucket_cors(&self, req: S3Request<DeleteBucketCorsInput>) -> S3Result<S3Response<DeleteBucketCorsOutput>> {
        settings::delete_bucket_cors(self, req).await
    }

    async fn get_bucket_lifecycle_configuration(
        &self,
        req: S3Request<GetBucketLifecycleConfigurationInput>,
    ) -> S3Result<S3Response<GetBucketLifecycleConfigurationOutput>> {
        settings::get_bucket_lifecycle_configuration(self, req).await
    }

    async fn put_bucket_lifecycle_configuration(
        &self,
        req: S3Request<PutBucketLifecycleConfigurationInput>,
    ) -> S3Result<S3Response<PutBucketLifecycleConfigurationOutput>> {
        settings::put_bucket_lifecycle_configuration(self, req).await
    }

    async fn delete_bucket_lifecycle(
        &self,
        req: S3Request<DeleteBucketLifecycleInput>,
    ) -> S3Result<S3Response<DeleteBucketLifecycleOutput>> {
        settings::delete_bucket_lifecycle(self, req).await
    }

    async fn get_public_access_block(&self, req: S3Request<GetPublicAccessBlockInput>) -> S3Result<S3Response<GetPublicAccessBlockOutput>> {
        settings::get_public_access_block(self, req).await
    }

    async fn put_public_access_block(&self, req: S3Request<PutPublicAccessBlockInput>) -> S3Result<S3Response<PutPublicAccessBlockOutput>> {
        settings::put_public_access_block(self, req).await
    }

    async fn delete_public_access_block(
        &self,
        req: S3Request<DeletePublicAccessBlockInput>,
    ) -> S3Result<S3Response<DeletePublicAccessBlockOutput>> {
        settings::delete_public_access_block(self, req).await
    }

    async fn get_bucket_acl(&self, req: S3Request<GetBucketAclInput>) -> S3Result<S3Response<GetBucketAclOutput>> {
        settings::get_bucket_acl(self, req).await
    }

    async fn put_bucket_acl(&self, req: S3Request<PutBucketAclInput>) -> S3Result<S3Response<PutBucketAclOutput>> {
        settings::put_bucket_acl(self, req).await
    }

    async fn get_object_acl(&self, req: S3Request<GetObjectAclInput>) -> S3Result<S3Response<GetObjectAclOutput>> {
        settings::get_object_acl(self, req).await
    }

    async fn put_object_acl(&self, req: S3Request<PutObjectAclInput>) -> S3Result<S3Response<PutObjectAclOutput>> {
        settings::put_object_acl(self, req).await
    }

    async fn get_object_tagging(&self, req: S3Request<GetObjectTaggingInput>) -> S3Result<S3Response<GetObjectTaggingOutput>> {
        settings::get_object_tagging(self, req).await
    }

    async fn put_object_tagging(&self, req: S3Request<PutObjectTaggingInput>) -> S3Result<S3Response<PutObjectTaggingOutput>> {
        settings::put_object_tagging(self, req).await
    }

    async fn delete_object_tagging(&self, req: S3Request<DeleteObjectTaggingInput>) -> S3Result<S3Response<DeleteObjectTaggingOutput>> {
        settings::delete_object_tagging(self, req).await
    }

    async fn get_bucket_policy(&self, req: S3Request<GetBucketPolicyInput>) -> S3Result<S3Response<GetBucketPolicyOutput>> {
        always::get_bucket_policy(self, req).await
    }

    async fn get_bucket_policy_status(
        &self,
        req: S3Request<GetBucketPolicyStatusInput>,
    ) -> S3Result<S3Response<GetBucketPolicyStatusOutput>> {
        always::get_bucket_policy_status(self, req).await
    }

    async fn get_bucket_website(&self, req: S3Request<GetBucketWebsiteInput>) -> S3Result<S3Response<GetBucketWebsiteOutput>> {
        always::get_bucket_website(self, req).await
    }

    async fn get_bucket_replication(&self, req: S3Request<GetBucketReplicationInput>) -> S3Result<S3Response<GetBucketReplicationOutput>> {
        always::get_bucket_replication(self, req).await
    }

    async fn get_bucket_encryption(&self, req: S3Request<GetBucketEncryptionInput>) -> S3Result<S3Response<GetBucketEncryptionOutput>> {
        always::get_bucket_encryption(self, req).await
    }

    async fn get_object_lock_configuration(
        &self,
        req: S3Request<GetObjectLockConfigurationInput>,
    ) -> S3Result<S3Response<GetObjectLockConfigurationOutput>> {
        always::get_object_lock_configuration(self, req).await
    }

    async fn get_bucket_request_payment(
        &self,
        req: S3Request<GetBucketRequestPaymentInput>,
    ) -> S3Result<S3Response<GetBucketRequestPaymentOutput>> {
        always::get_bucket_request_payment(self, req).await
    }

    async fn get_bucket_logging(&self, req: S3Request<GetBucketLoggingInput>) -> S3Result<S3Response<GetBucketLoggingOutput>> {
        always::get_bucket_logging(self, req).await
    }

    async fn get_bucket_accelerate_configuration(
        &self,
        req: S3Request<GetBucketAccelerateConfigurationInput>,
    ) -> S3Result<S3Response<GetBucketAccelerateConfigurationOutput>> {
        always::get_bucket_accelerate_configuration(self, req).await
    }

    async fn get_bucket_notification_configuration(
        &self,
        req: S3Request<GetBucketNotificationConfigurationInput>,
    ) -> S3Result<S3Response<GetBucketNotificationConfigurationOutput>> {
        always::get_bucket_notification_configuration(self, req).await
    }

    async fn get_bucket_ownership_controls(
        &self,
        req: S3Request<GetBucketOwnershipControlsInput>,
    ) -> S3Result<S3Response<GetBucketOwnershipControlsOutput>> {
        always::get_bucket_ownership_controls(self, req).await
    }

    async fn get_object_legal_hold(&self, req: S3Request<GetObjectLegalHoldInput>) -> S3Result<S3Response<GetObjectLegalHoldOutput>> {
        always::get_object_legal_hold(self, req).await
    }

    async fn get_object_retention(&self, req: S3Request<GetObjectRetentionInput>) -> S3Result<S3Response<GetObjectRetentionOutput>> {
        always::get_object_retention(self, req).await
    }

    async fn put_bucket_encryption(&self, req: S3Request<PutBucketEncryptionInput>) -> S3Result<S3Response<PutBucketEncryptionOutput>> {
        always::put_bucket_encryption(self, req).await
    }

    async fn delete_bucket_policy(&self, req: S3Request<DeleteBucketPolicyInput>) -> S3Result<S3Response<DeleteBucketPolicyOutput>> {
        always::delete_bucket_policy(self, req).await
    }

    async fn delete_bucket_website(&self, req: S3Request<DeleteBucketWebsiteInput>) -> S3Result<S3Response<DeleteBucketWebsiteOutput>> {
        always::delete_bucket_website(self, req).await
    }

    async fn delete_bucket_replication(
        &self,
        req: S3Request<DeleteBucketReplicationInput>,
    ) -> S3Result<S3Response<DeleteBucketReplicationOutput>> {
        always::delete_bucket_replication(self, req).await
    }

    async fn delete_bucket_encryption(
        &self,
        req: S3Request<DeleteBucketEncryptionInput>,
    ) -> S3Result<S3Response<DeleteBucketEncryptionOutput>> {
        always::delete_bucket_encryption(self, req).await
    }

    async fn put_bucket_request_payment(
        &self,
        req: S3Request<PutBucketRequestPaymentInput>,
    ) -> S3Result<S3Response<PutBucketRequestPaymentOutput>> {
        always::put_bucket_request_payment(self, req).await
    }

    async fn put_bucket_accelerate_configuration(
        &self,
        req: S3Request<PutBucketAccelerateConfigurationInput>,
    ) -> S3Result<S3Response<PutBucketAccelerateConfigurationOutput>> {
        always::put_bucket_accelerate_configuration(self, req).await
    }

    async fn put_bucket_logging(&self, req: S3Request<PutBucketLoggingInput>) -> S3Result<S3Response<PutBucketLoggingOutput>> {
        always::put_bucket_logging(self, req).await
    }

    async fn put_bucket_notification_configuration(
        &self,
        req: S3Request<PutBucketNotificationConfigurationInput>,
    ) -> S3Result<S3Response<PutBucketNotificationConfigurationOutput>> {
        always::put_bucket_notification_configuration(self, req).await
    }

    async fn put_bucket_ownership_controls(
        &self,
        req: S3Request<PutBucketOwnershipControlsInput>,
    ) -> S3Result<S3Response<PutBucketOwnershipControlsOutput>> {
        always::put_bucket_ownership_controls(self, req).await
    }
}
