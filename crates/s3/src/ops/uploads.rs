//! Multipart uploads.

use super::*;

/// Most parts or uploads of a page.
const PAGE: i32 = 1_000;
/// Uploads of at most so many parts are complete at once: the parts of longer ones may have to be stored anew.
const AT_ONCE: usize = 256;

pub(super) async fn create_multipart_upload(
    ops: &Operations,
    req: S3Request<CreateMultipartUploadInput>,
) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
    let input = req.input;
    let bucket = ops.bucket(&input.bucket).await?;
    let meta = Meta { id: None, ..asked!(input).keep(ops.0.new_meta(&bucket))? };
    let algorithm = input.checksum_algorithm.as_ref().map(|a| known(a.as_str())).transpose()?;
    let kind = input.checksum_type.as_ref().map(|k| k.as_str().to_ascii_uppercase());
    if kind.as_deref().is_some_and(|k| ![ChecksumType::FULL_OBJECT, ChecksumType::COMPOSITE].contains(&k)) {
        return Err(error(S3ErrorCode::InvalidRequest, "Value for x-amz-checksum-type header is invalid."));
    }
    match (algorithm, kind.as_deref()) {
        (Some(algorithm), Some(kind)) if !checksum::is_possible(algorithm, kind) => {
            let text = format!("The {kind} checksum type cannot be used with the {} checksum algorithm.", algorithm.to_lowercase());
            return Err(error(S3ErrorCode::InvalidRequest, text));
        }
        (None, Some(_)) => {
            return Err(error(
                S3ErrorCode::InvalidRequest,
                "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.",
            ));
        }
        _ => {}
    }
    let record = Record { key: input.key.clone(), algorithm: algorithm.map(str::to_string), kind };
    let id = ops.0.begin_upload(&bucket, &meta, &record).await?;
    let kind = algorithm.map(|a| record.kind.clone().unwrap_or_else(|| checksum::default_type(a).into()));
    ok(CreateMultipartUploadOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(id),
        checksum_algorithm: algorithm.map(|a| ChecksumAlgorithm::from(a.to_string())),
        checksum_type: kind.map(ChecksumType::from),
        server_side_encryption: Some(aes256()),
        ..Default::default()
    })
}

pub(super) async fn upload_part(ops: &Operations, req: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
    let mut input = req.input;
    crate::multipart::check_number(input.part_number)?;
    let bucket = ops.bucket(&input.bucket).await?;
    let upload = ops.0.upload(&bucket, &input.key, &input.upload_id).await?;
    let claims = Claims::of(carried!(input, req.trailing_headers), &req.headers, upload.record.algorithm.as_deref())?;
    let digest = ops.0.put_part(&upload, input.part_number, input.body.take(), claims).await?;
    let sums = digest.sum.as_ref().map(Sum::to_checksum).unwrap_or_default();
    ok(UploadPartOutput {
        e_tag: Some(strong(data_encoding::HEXLOWER.encode(&digest.md5))),
        server_side_encryption: Some(aes256()),
        checksum_crc32: sums.checksum_crc32,
        checksum_crc32c: sums.checksum_crc32c,
        checksum_crc64nvme: sums.checksum_crc64nvme,
        checksum_sha1: sums.checksum_sha1,
        checksum_sha256: sums.checksum_sha256,
        ..Default::default()
    })
}

pub(super) async fn upload_part_copy(ops: &Operations, req: S3Request<UploadPartCopyInput>) -> S3Result<S3Response<UploadPartCopyOutput>> {
    let input = &req.input;
    crate::multipart::check_number(input.part_number)?;
    let bucket = ops.bucket(&input.bucket).await?;
    let upload = ops.0.upload(&bucket, &input.key, &input.upload_id).await?;
    let (from_bucket, object) = ops.copy_source(&req, &input.copy_source, &copy_conditions!(input)).await?;
    let range = match &input.copy_source_range {
        Some(text) => whole_range(text, object.entry.size)?,
        None => 0..object.entry.size,
    };
    let reading = Portion { range, partial: true, parts: None };
    let carried = Carried { algorithm: upload.record.algorithm.clone(), ..Default::default() };
    let claims = Claims::of(carried, &Default::default(), None)?;
    let blob = body(&ops.0, &object, &reading).await?;
    let digest = ops.0.put_part(&upload, input.part_number, Some(blob), claims).await?;
    let sums = digest.sum.as_ref().map(Sum::to_checksum).unwrap_or_default();
    let copied = CopyPartResult {
        e_tag: Some(strong(data_encoding::HEXLOWER.encode(&digest.md5))),
        last_modified: Some(timestamp(ops.0.client.env().now_ms())),
        checksum_crc32: sums.checksum_crc32,
        checksum_crc32c: sums.checksum_crc32c,
        checksum_crc64nvme: sums.checksum_crc64nvme,
        checksum_sha1: sums.checksum_sha1,
        checksum_sha256: sums.checksum_sha256,
    };
    ok(UploadPartCopyOutput {
        copy_part_result: Some(copied),
        server_side_encryption: Some(aes256()),
        copy_source_version_id: from_bucket.has_versions().then(|| id_of(&object.meta).to_string()),
        ..Default::default()
    })
}

/// `bytes=A-B` with both ends inside: what a copy of a part may name.
fn whole_range(text: &str, size: u64) -> S3Result<std::ops::Range<u64>> {
    let wrong = |why: String| error(S3ErrorCode::InvalidArgument, why);
    let form = || {
        wrong("The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the zero-based offsets of the first and last bytes to copy".into())
    };
    let (first, last) = text.strip_prefix("bytes=").and_then(|r| r.split_once('-')).ok_or_else(form)?;
    let number = |text: &str| text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit())).ok_or_else(form);
    let (first, last): (u64, u64) = (number(first)?, number(last)?);
    if first > last {
        return Err(form());
    }
    if last >= size {
        return Err(wrong(format!("Range specified is not valid for source object of size: {size}")));
    }
    Ok(first..last + 1)
}

pub(super) async fn complete_multipart_upload(
    ops: &Operations,
    req: S3Request<CompleteMultipartUploadInput>,
) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
    let bucket = ops.bucket(&req.input.bucket).await?;
    let (key, id) = (req.input.key.clone(), req.input.upload_id.clone());
    let place = ops.0.url_of(&req.headers, &req.uri);
    match complete(ops, &bucket, req.input, place.clone()).await {
        // By another request at the same time, or by one whose answer was lost.
        Err(e) if *e.code() == S3ErrorCode::NoSuchUpload => match ops.0.completed(&bucket, &key, &id).await? {
            Some(object) => ok(completed(&bucket, key, &object.meta, object.entry.size, place)),
            None => Err(e),
        },
        done => done,
    }
}

async fn complete(
    ops: &Operations,
    bucket: &Bucket,
    input: CompleteMultipartUploadInput,
    place: String,
) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
    let upload = ops.0.upload(bucket, &input.key, &input.upload_id).await?;
    let named = input.multipart_upload.and_then(|m| m.parts).unwrap_or_default();
    let claimed = Checksum {
        checksum_crc32: input.checksum_crc32,
        checksum_crc32c: input.checksum_crc32c,
        checksum_crc64nvme: input.checksum_crc64nvme,
        checksum_sha1: input.checksum_sha1,
        checksum_sha256: input.checksum_sha256,
        ..Default::default()
    };
    let whole = crate::body::ALGORITHMS.iter().find_map(|(algorithm, ..)| Sum::of(&claimed, algorithm));
    let is_good = |sum: &Sum| {
        // Of parts' checksums their number may follow.
        let value = sum.value.split_once('-').map_or(sum.value.as_str(), |(value, _)| value);
        let length = crate::body::ALGORITHMS.iter().find(|(a, ..)| *a == sum.algorithm).map(|(.., length)| *length);
        crate::body::decoded_len(value) == length
    };
    if whole.as_ref().is_some_and(|sum| !is_good(sum)) {
        return Err(error(S3ErrorCode::InvalidRequest, "Value for the checksum of the object is invalid."));
    }
    let kind = upload.record.checksum().1;
    if input.checksum_type.as_ref().is_some_and(|asked| !asked.as_str().eq_ignore_ascii_case(&kind)) {
        let text = format!("The upload was created with the {kind} checksum type; the complete request names another one.");
        return Err(error(S3ErrorCode::InvalidRequest, text));
    }
    let (parts, mut meta) = ops.0.chosen(&upload, &named, whole.as_ref()).await?;
    let size: u64 = parts.iter().map(|p| p.entry.size).sum();
    if input.mpu_object_size.is_some_and(|claimed| u64::try_from(claimed) != Ok(size)) {
        return Err(error(S3ErrorCode::InvalidRequest, "The provided 'x-amz-mp-object-size' header does not match what was computed"));
    }
    meta.id = ops.0.new_meta(bucket).id;
    let conditions = Conditions { matches: input.if_match, none_match: input.if_none_match, ..Default::default() };
    let done = completed(bucket, input.key.clone(), &meta, size, place);
    if parts.len() <= AT_ONCE {
        ops.0.complete(bucket, &upload, &parts, &meta, &conditions).await?;
        return ok(done);
    }
    // It may take minutes: the answer begins now, and goes on as S3 does, with spaces, so that nobody gives it up.
    let (gateway, bucket) = (ops.0.clone(), bucket.clone());
    let (version_id, expiration) = (done.version_id.clone(), done.expiration.clone());
    let future = async move { gateway.complete(&bucket, &upload, &parts, &meta, &conditions).await.map(|()| done) };
    ok(CompleteMultipartUploadOutput {
        version_id,
        expiration,
        server_side_encryption: Some(aes256()),
        future: Some(Box::pin(future)),
        ..Default::default()
    })
}

fn completed(bucket: &Bucket, key: String, meta: &Meta, size: u64, place: String) -> CompleteMultipartUploadOutput {
    let sums = meta.checksum.as_ref().map(Sum::to_checksum).unwrap_or_default();
    let etag = meta.md5.map(|md5| format!("{}-{}", data_encoding::HEXLOWER.encode(&*md5), meta.part_count()));
    CompleteMultipartUploadOutput {
        expiration: lifecycle::expiration(&bucket.config, &key, meta, size, meta.modified_ms.unwrap_or_default()),
        location: Some(place),
        bucket: Some(bucket.name.clone()),
        key: Some(key),
        e_tag: etag.map(strong),
        server_side_encryption: Some(aes256()),
        checksum_crc32: sums.checksum_crc32,
        checksum_crc32c: sums.checksum_crc32c,
        checksum_crc64nvme: sums.checksum_crc64nvme,
        checksum_sha1: sums.checksum_sha1,
        checksum_sha256: sums.checksum_sha256,
        checksum_type: sums.checksum_type,
        version_id: bucket.has_versions().then(|| id_of(meta).to_string()),
        ..Default::default()
    }
}

pub(super) async fn abort_multipart_upload(
    ops: &Operations,
    req: S3Request<AbortMultipartUploadInput>,
) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
    let input = req.input;
    let bucket = ops.bucket(&input.bucket).await?;
    let upload = ops.0.upload(&bucket, &input.key, &input.upload_id).await?;
    ops.0.abort(&upload).await?;
    Ok(with_status(AbortMultipartUploadOutput::default(), hyper::StatusCode::NO_CONTENT))
}

fn kind_of(upload: &Upload) -> (Option<ChecksumAlgorithm>, Option<ChecksumType>) {
    let algorithm = upload.record.algorithm.clone();
    let kind = algorithm.as_deref().map(|a| upload.record.kind.clone().unwrap_or_else(|| checksum::default_type(a).into()));
    (algorithm.map(ChecksumAlgorithm::from), kind.map(ChecksumType::from))
}

fn class_of(upload: &Upload) -> Option<StorageClass> {
    let class = upload.meta.headers.storage_class.clone();
    Some(class.map_or(StorageClass::from_static(StorageClass::STANDARD), StorageClass::from))
}

pub(super) async fn list_parts(ops: &Operations, req: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
    let input = req.input;
    let bucket = ops.bucket(&input.bucket).await?;
    let upload = ops.0.upload(&bucket, &input.key, &input.upload_id).await?;
    let max = match input.max_parts {
        Some(n) if n < 0 => {
            return Err(error(S3ErrorCode::InvalidArgument, "Argument max-parts must be an integer between 0 and 2147483647"));
        }
        n => n.unwrap_or(PAGE).min(PAGE),
    };
    if input.part_number_marker.is_some_and(|n| n < 0) {
        return Err(error(S3ErrorCode::InvalidArgument, "Argument part-number-marker must be an integer between 0 and 2147483647"));
    }
    let after = input.part_number_marker.unwrap_or(0).clamp(0, PARTS_MAX);
    let mut parts: Vec<_> = ops.0.parts(&upload).await?.into_iter().filter(|p| p.number > after).collect();
    let truncated = parts.len() > max as usize;
    parts.truncate(max as usize);
    let next = parts.last().map(|p| p.number);
    let part = |p: crate::multipart::Part| {
        let sums = p.object.meta.checksum.as_ref().filter(|_| upload.record.algorithm.is_some()).map(Sum::to_checksum).unwrap_or_default();
        Part {
            part_number: Some(p.number),
            e_tag: Some(strong(p.object.etag())),
            size: Some(p.object.entry.size as i64),
            last_modified: Some(timestamp(p.object.modified_ms())),
            checksum_crc32: sums.checksum_crc32,
            checksum_crc32c: sums.checksum_crc32c,
            checksum_crc64nvme: sums.checksum_crc64nvme,
            checksum_sha1: sums.checksum_sha1,
            checksum_sha256: sums.checksum_sha256,
        }
    };
    let (checksum_algorithm, checksum_type) = kind_of(&upload);
    let parts: Vec<Part> = parts.into_iter().map(part).collect();
    let owner = &ops.0.owner;
    ok(ListPartsOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(input.upload_id),
        max_parts: Some(max),
        part_number_marker: Some(after),
        next_part_number_marker: next,
        is_truncated: Some(truncated),
        parts: Some(parts).filter(|p| !p.is_empty()),
        checksum_algorithm,
        checksum_type,
        owner: Some(owner.clone()),
        initiator: Some(Initiator { display_name: owner.display_name.clone(), id: owner.id.clone() }),
        storage_class: class_of(&upload),
        ..Default::default()
    })
}

pub(super) async fn list_multipart_uploads(
    ops: &Operations,
    req: S3Request<ListMultipartUploadsInput>,
) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
    let input = req.input;
    let encode = encoder(input.encoding_type.as_ref())?;
    let max = match input.max_uploads {
        Some(n) if n < 0 => {
            return Err(error(S3ErrorCode::InvalidArgument, "Argument max-uploads must be an integer between 0 and 2147483647"));
        }
        n => n.unwrap_or(PAGE).min(PAGE),
    };
    let bucket = ops.bucket(&input.bucket).await?;
    let prefix = input.prefix.clone().unwrap_or_default();
    let delimiter = input.delimiter.clone().filter(|d| !d.is_empty());
    let key_marker = input.key_marker.clone().unwrap_or_default();
    let id_marker = input.upload_id_marker.clone().filter(|m| !m.is_empty());
    let (mut uploads, mut found): (Vec<MultipartUpload>, Vec<String>) = (Vec::new(), Vec::new());
    let (mut next, mut truncated) = (None, false);
    let all = ops.0.uploads(&bucket).await?;
    // After the marker's upload; after all of the marker's key where it names none, or one that is gone.
    let named = all.iter().position(|u| u.record.key == key_marker && id_marker.as_ref() == Some(&u.id));
    let begin = named.map_or_else(|| all.partition_point(|u| !key_marker.is_empty() && u.record.key <= key_marker), |at| at + 1);
    for (i, upload) in all.into_iter().enumerate() {
        let key = &upload.record.key;
        let Some(rest) = key.strip_prefix(&prefix) else { continue };
        if i < begin {
            continue;
        }
        let group = delimiter.as_ref().and_then(|d| Some(key[..prefix.len() + rest.find(d.as_str())? + d.len()].to_string()));
        if group.as_ref().is_some_and(|g| found.last() == Some(g) || *g <= key_marker) {
            continue;
        }
        if uploads.len() + found.len() >= max as usize {
            truncated = true;
            break;
        }
        next = Some((group.clone().unwrap_or_else(|| key.clone()), upload.id.clone()));
        match group {
            Some(group) => found.push(group),
            None => {
                let (checksum_algorithm, checksum_type) = kind_of(&upload);
                let owner = &ops.0.owner;
                uploads.push(MultipartUpload {
                    key: Some(encode(key.clone())),
                    upload_id: Some(upload.id.clone()),
                    initiated: Some(timestamp(upload.begun_ms)),
                    initiator: Some(Initiator { display_name: owner.display_name.clone(), id: owner.id.clone() }),
                    owner: Some(owner.clone()),
                    storage_class: class_of(&upload),
                    checksum_algorithm,
                    checksum_type,
                });
            }
        }
    }
    let next = next.filter(|_| truncated);
    ok(ListMultipartUploadsOutput {
        bucket: Some(input.bucket),
        prefix: Some(encode(prefix)),
        key_marker: Some(encode(key_marker)),
        upload_id_marker: Some(input.upload_id_marker.unwrap_or_default()),
        next_key_marker: next.as_ref().map(|(key, _)| encode(key.clone())),
        next_upload_id_marker: next.map(|(_, id)| id),
        max_uploads: Some(max),
        is_truncated: Some(truncated),
        uploads: Some(uploads).filter(|u| !u.is_empty()),
        common_prefixes: groups(&found, encode),
        delimiter: delimiter.map(encode),
        encoding_type: input.encoding_type,
        ..Default::default()
    })
}
