//! The listing of versions.

use super::{HISTORIES, Operations, groups, ok, wanted};
use crate::errors::from_client;
use crate::listing::{encoder, page_size};
use crate::meta::{Sum, strong, timestamp};
use crate::tree::{Object, Spots, find};
use crate::versions::ObjectVersion as Known;
use futures::{StreamExt, TryStreamExt};
use s3s::dto::*;
use s3s::{S3Error, S3Request, S3Response, S3Result};

pub(super) async fn list_object_versions(
    ops: &Operations,
    req: S3Request<ListObjectVersionsInput>,
) -> S3Result<S3Response<ListObjectVersionsOutput>> {
    let input = req.input;
    let encode = encoder(input.encoding_type.as_ref())?;
    let max = page_size(input.max_keys)?;
    let bucket = ops.bucket(&input.bucket).await?;
    let key_marker = input.key_marker.clone().filter(|m| !m.is_empty());
    // Within a key's versions the page before ended after this one: the key itself comes again.
    let id_marker = input.version_id_marker.clone().filter(|m| !m.is_empty() && key_marker.is_some());
    let again = match (&key_marker, &id_marker) {
        (Some(key), Some(_)) => Some(key.clone()),
        _ => None,
    };
    let (mut versions, mut marks, mut prefixes) = (Vec::new(), Vec::new(), Vec::new());
    let (mut left, mut next) = (max as usize, None);
    let mut keys = Vec::new();
    if let Some(key) = again.filter(|k| input.prefix.as_ref().is_none_or(|p| k.starts_with(p))) {
        let exact = wanted(Some(key.clone()), None, 1, None, true);
        keys.extend(ops.0.list(&bucket, &exact).await?.objects.into_iter().filter(|(k, _)| *k == key));
    }
    let asked = wanted(input.prefix.clone(), input.delimiter.clone(), max, key_marker.clone(), bucket.has_versions());
    let page = ops.0.list(&bucket, &asked).await?;
    keys.extend(page.objects);
    // Keys and groups in one order, as pages are cut.
    let mut all: Vec<(String, Option<_>)> = keys.into_iter().map(|(key, brief)| (key, Some(brief))).collect();
    all.extend(page.groups.into_iter().map(|group| (group, None)));
    all.sort_by(|a, b| a.0.cmp(&b.0));
    let more = page.truncated;
    let bucket = &bucket;
    let mut histories = futures::stream::iter(all)
        .map(|(key, brief)| async move {
            if brief.is_none() {
                return Ok((key, None));
            }
            let found = find(&ops.0.client, &Spots::of(&bucket.path, &key)?, true).await.map_err(from_client)?;
            let versions = match found.object {
                Some(object) => ops.0.versions_of(&object.entry).await.map_err(from_client)?,
                // Gone since it was listed.
                None => Vec::new(),
            };
            Ok::<_, S3Error>((key, Some(versions)))
        })
        .buffered(HISTORIES);
    let mut last = None;
    'keys: while let Some((key, found)) = histories.try_next().await? {
        let Some(found) = found else {
            if left == 0 {
                next = last.clone();
                break;
            }
            left -= 1;
            last = Some((key.clone(), None));
            prefixes.push(key);
            continue;
        };
        let mut skip = id_marker.as_ref().filter(|_| key_marker.as_ref() == Some(&key));
        for version in found {
            if let Some(id) = skip {
                if version.id() == id {
                    skip = None;
                }
                continue;
            }
            if left == 0 {
                next = last.clone();
                break 'keys;
            }
            left -= 1;
            last = Some((key.clone(), Some(version.id().to_string())));
            let key = encode(key.clone());
            if version.object.meta.deleted {
                marks.push(mark(key, &version, &ops.0.owner));
            } else {
                versions.push(listed(key, &version, &ops.0.owner));
            }
        }
    }
    if next.is_none() && more {
        next = last;
    }
    let (next_key, next_id) = next.map_or((None, None), |(key, id)| (Some(key), id));
    ok(ListObjectVersionsOutput {
        name: Some(input.bucket),
        prefix: Some(encode(input.prefix.unwrap_or_default())),
        key_marker: Some(encode(input.key_marker.unwrap_or_default())),
        version_id_marker: Some(input.version_id_marker.unwrap_or_default()),
        max_keys: Some(max),
        is_truncated: Some(next_key.is_some()),
        next_key_marker: next_key.map(encode),
        next_version_id_marker: next_id,
        versions: Some(versions).filter(|v| !v.is_empty()),
        delete_markers: Some(marks).filter(|m| !m.is_empty()),
        common_prefixes: groups(&prefixes, encode),
        delimiter: input.delimiter.filter(|d| !d.is_empty()).map(encode),
        encoding_type: input.encoding_type,
        ..Default::default()
    })
}

fn listed(key: String, version: &Known, owner: &Owner) -> ObjectVersion {
    let object: &Object = &version.object;
    let class = object.meta.headers.storage_class.clone();
    let sum = object.meta.checksum.as_ref();
    let kind = |sum: &Sum| if sum.is_composite() { ChecksumType::COMPOSITE } else { ChecksumType::FULL_OBJECT };
    ObjectVersion {
        checksum_algorithm: sum.map(|sum| vec![ChecksumAlgorithm::from(sum.algorithm.clone())]),
        checksum_type: sum.map(|sum| ChecksumType::from_static(kind(sum))),
        key: Some(key),
        version_id: Some(version.id().to_string()),
        is_latest: Some(version.latest),
        last_modified: Some(timestamp(object.modified_ms())),
        e_tag: Some(strong(object.etag())),
        size: Some(object.entry.size as i64),
        storage_class: Some(
            class.map_or(ObjectVersionStorageClass::from_static(ObjectVersionStorageClass::STANDARD), ObjectVersionStorageClass::from),
        ),
        owner: Some(owner.clone()),
        ..Default::default()
    }
}

fn mark(key: String, version: &Known, owner: &Owner) -> DeleteMarkerEntry {
    DeleteMarkerEntry {
        key: Some(key),
        version_id: Some(version.id().to_string()),
        is_latest: Some(version.latest),
        last_modified: Some(timestamp(version.object.modified_ms())),
        owner: Some(owner.clone()),
    }
}
