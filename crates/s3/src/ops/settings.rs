//! What buckets and objects are set to: versions, tags, cross-origin rules, expiry; and what is always the same here.

use super::*;
use crate::buckets::BucketConfig;

async fn configured(ops: &Operations, name: &str) -> S3Result<Arc<BucketConfig>> {
    let bucket = ops.bucket(name).await?;
    ops.0.check_bucket(&bucket).await?;
    Ok(bucket.config)
}

fn none_such(code: &'static str, message: &'static str) -> S3Error {
    let mut e = error(S3ErrorCode::Custom(code.into()), message);
    e.set_status_code(hyper::StatusCode::NOT_FOUND);
    e
}

pub(super) async fn get_bucket_versioning(
    ops: &Operations,
    req: S3Request<GetBucketVersioningInput>,
) -> S3Result<S3Response<GetBucketVersioningOutput>> {
    let status = match configured(ops, &req.input.bucket).await?.versioning {
        Versioning::Never => None,
        Versioning::Enabled => Some(BucketVersioningStatus::from_static(BucketVersioningStatus::ENABLED)),
        Versioning::Suspended => Some(BucketVersioningStatus::from_static(BucketVersioningStatus::SUSPENDED)),
    };
    ok(GetBucketVersioningOutput { status, ..Default::default() })
}

pub(super) async fn put_bucket_versioning(
    ops: &Operations,
    req: S3Request<PutBucketVersioningInput>,
) -> S3Result<S3Response<PutBucketVersioningOutput>> {
    let asked = req.input.versioning_configuration;
    if asked.mfa_delete.is_some_and(|m| m.as_str() == "Enabled") {
        return Err(not_here("MFA delete"));
    }
    let versioning = match asked.status.as_ref().map(|s| s.as_str()) {
        Some(BucketVersioningStatus::ENABLED) => Versioning::Enabled,
        Some(BucketVersioningStatus::SUSPENDED) => Versioning::Suspended,
        _ => return Err(error(S3ErrorCode::MalformedXML, "The versioning status is Enabled or Suspended")),
    };
    ops.0.buckets.configure(&req.input.bucket, |config| config.versioning = versioning).await?;
    ok(PutBucketVersioningOutput {})
}

pub(super) async fn get_bucket_tagging(
    ops: &Operations,
    req: S3Request<GetBucketTaggingInput>,
) -> S3Result<S3Response<GetBucketTaggingOutput>> {
    let tag_set = configured(ops, &req.input.bucket).await?.tags.clone();
    ok(GetBucketTaggingOutput { tag_set: tag_set.ok_or_else(|| none_such("NoSuchTagSet", "The TagSet does not exist"))? })
}

pub(super) async fn put_bucket_tagging(
    ops: &Operations,
    req: S3Request<PutBucketTaggingInput>,
) -> S3Result<S3Response<PutBucketTaggingOutput>> {
    tagging::check(req.input.tagging.tag_set.clone(), tagging::BUCKET_TAGS)?;
    let tags = req.input.tagging.tag_set;
    ops.0.buckets.configure(&req.input.bucket, |config| config.tags = Some(tags.clone())).await?;
    Ok(S3Response::with_status(PutBucketTaggingOutput {}, hyper::StatusCode::NO_CONTENT))
}

pub(super) async fn delete_bucket_tagging(
    ops: &Operations,
    req: S3Request<DeleteBucketTaggingInput>,
) -> S3Result<S3Response<DeleteBucketTaggingOutput>> {
    ops.0.buckets.configure(&req.input.bucket, |config| config.tags = None).await?;
    ok(DeleteBucketTaggingOutput {})
}

pub(super) async fn get_bucket_cors(ops: &Operations, req: S3Request<GetBucketCorsInput>) -> S3Result<S3Response<GetBucketCorsOutput>> {
    let cors = configured(ops, &req.input.bucket).await?.cors.clone();
    let cors = cors.ok_or_else(|| none_such("NoSuchCORSConfiguration", "The CORS configuration does not exist"))?;
    ok(GetBucketCorsOutput { cors_rules: Some(cors.cors_rules) })
}

pub(super) async fn put_bucket_cors(ops: &Operations, req: S3Request<PutBucketCorsInput>) -> S3Result<S3Response<PutBucketCorsOutput>> {
    let cors = req.input.cors_configuration;
    crate::cors::check(&cors)?;
    ops.0.buckets.configure(&req.input.bucket, |config| config.cors = Some(cors.clone())).await?;
    ok(PutBucketCorsOutput {})
}

pub(super) async fn delete_bucket_cors(
    ops: &Operations,
    req: S3Request<DeleteBucketCorsInput>,
) -> S3Result<S3Response<DeleteBucketCorsOutput>> {
    ops.0.buckets.configure(&req.input.bucket, |config| config.cors = None).await?;
    ok(DeleteBucketCorsOutput {})
}

pub(super) async fn get_bucket_lifecycle_configuration(
    ops: &Operations,
    req: S3Request<GetBucketLifecycleConfigurationInput>,
) -> S3Result<S3Response<GetBucketLifecycleConfigurationOutput>> {
    let lifecycle = configured(ops, &req.input.bucket).await?.lifecycle.clone();
    let lifecycle = lifecycle.ok_or_else(|| none_such("NoSuchLifecycleConfiguration", "The lifecycle configuration does not exist"))?;
    ok(GetBucketLifecycleConfigurationOutput { rules: Some(lifecycle.rules), ..Default::default() })
}

pub(super) async fn put_bucket_lifecycle_configuration(
    ops: &Operations,
    req: S3Request<PutBucketLifecycleConfigurationInput>,
) -> S3Result<S3Response<PutBucketLifecycleConfigurationOutput>> {
    let mut asked = req.input.lifecycle_configuration.ok_or_else(|| plain(S3ErrorCode::MalformedXML))?;
    lifecycle::check(&asked)?;
    for rule in asked.rules.iter_mut().filter(|r| r.id.as_ref().is_none_or(String::is_empty)) {
        rule.id = Some(ops.0.new_id());
    }
    ops.0.buckets.configure(&req.input.bucket, |config| config.lifecycle = Some(asked.clone())).await?;
    ok(PutBucketLifecycleConfigurationOutput::default())
}

pub(super) async fn delete_bucket_lifecycle(
    ops: &Operations,
    req: S3Request<DeleteBucketLifecycleInput>,
) -> S3Result<S3Response<DeleteBucketLifecycleOutput>> {
    ops.0.buckets.configure(&req.input.bucket, |config| config.lifecycle = None).await?;
    ok(DeleteBucketLifecycleOutput {})
}

pub(super) async fn get_public_access_block(
    ops: &Operations,
    req: S3Request<GetPublicAccessBlockInput>,
) -> S3Result<S3Response<GetPublicAccessBlockOutput>> {
    let block = configured(ops, &req.input.bucket).await?.public_access.clone();
    let block =
        block.ok_or_else(|| none_such("NoSuchPublicAccessBlockConfiguration", "The public access block configuration was not found"))?;
    ok(GetPublicAccessBlockOutput { public_access_block_configuration: Some(block) })
}

pub(super) async fn put_public_access_block(
    ops: &Operations,
    req: S3Request<PutPublicAccessBlockInput>,
) -> S3Result<S3Response<PutPublicAccessBlockOutput>> {
    let block = req.input.public_access_block_configuration;
    ops.0.buckets.configure(&req.input.bucket, |config| config.public_access = Some(block.clone())).await?;
    ok(PutPublicAccessBlockOutput {})
}

pub(super) async fn delete_public_access_block(
    ops: &Operations,
    req: S3Request<DeletePublicAccessBlockInput>,
) -> S3Result<S3Response<DeletePublicAccessBlockOutput>> {
    ops.0.buckets.configure(&req.input.bucket, |config| config.public_access = None).await?;
    ok(DeletePublicAccessBlockOutput {})
}

/// Whether a list of rights says only what is so: that the owner may do everything. `s3cmd` copies such ones.
fn says_nothing_new(ops: &Operations, policy: Option<&AccessControlPolicy>) -> bool {
    let is_owners = |grant: &Grant| {
        let id = grant.grantee.as_ref().and_then(|g| g.id.as_ref());
        id == ops.0.owner.id.as_ref() && grant.permission.as_ref().is_some_and(|p| p.as_str() == Permission::FULL_CONTROL)
    };
    policy.is_none_or(|policy| policy.grants.iter().flatten().all(is_owners))
}

pub(super) async fn get_bucket_acl(ops: &Operations, req: S3Request<GetBucketAclInput>) -> S3Result<S3Response<GetBucketAclOutput>> {
    configured(ops, &req.input.bucket).await?;
    ok(GetBucketAclOutput { grants: Some(ops.grants()), owner: Some(ops.0.owner.clone()) })
}

pub(super) async fn put_bucket_acl(ops: &Operations, req: S3Request<PutBucketAclInput>) -> S3Result<S3Response<PutBucketAclOutput>> {
    let input = req.input;
    configured(ops, &input.bucket).await?;
    let grants = !says_nothing_new(ops, input.access_control_policy.as_ref())
        || input.grant_full_control.is_some()
        || input.grant_read.is_some()
        || input.grant_read_acp.is_some()
        || input.grant_write.is_some()
        || input.grant_write_acp.is_some();
    check_acl(input.acl.as_ref().map(|a| a.as_str()), grants)?;
    ok(PutBucketAclOutput {})
}

pub(super) async fn get_object_acl(ops: &Operations, req: S3Request<GetObjectAclInput>) -> S3Result<S3Response<GetObjectAclOutput>> {
    let bucket = ops.bucket(&req.input.bucket).await?;
    ops.0.object(&bucket, &req.input.key, req.input.version_id.as_deref()).await?;
    ok(GetObjectAclOutput { grants: Some(ops.grants()), owner: Some(ops.0.owner.clone()), ..Default::default() })
}

pub(super) async fn put_object_acl(ops: &Operations, req: S3Request<PutObjectAclInput>) -> S3Result<S3Response<PutObjectAclOutput>> {
    let input = req.input;
    let bucket = ops.bucket(&input.bucket).await?;
    ops.0.object(&bucket, &input.key, input.version_id.as_deref()).await?;
    let grants = !says_nothing_new(ops, input.access_control_policy.as_ref())
        || input.grant_full_control.is_some()
        || input.grant_read.is_some()
        || input.grant_read_acp.is_some()
        || input.grant_write.is_some()
        || input.grant_write_acp.is_some();
    check_acl(input.acl.as_ref().map(|a| a.as_str()), grants)?;
    ok(PutObjectAclOutput::default())
}

pub(super) async fn get_object_tagging(
    ops: &Operations,
    req: S3Request<GetObjectTaggingInput>,
) -> S3Result<S3Response<GetObjectTaggingOutput>> {
    let bucket = ops.bucket(&req.input.bucket).await?;
    let object = ops.0.object(&bucket, &req.input.key, req.input.version_id.as_deref()).await?;
    ok(GetObjectTaggingOutput {
        tag_set: object.meta.tag_set(),
        version_id: bucket.has_versions().then(|| id_of(&object.meta).to_string()),
    })
}

pub(super) async fn put_object_tagging(
    ops: &Operations,
    req: S3Request<PutObjectTaggingInput>,
) -> S3Result<S3Response<PutObjectTaggingOutput>> {
    let input = req.input;
    let bucket = ops.bucket(&input.bucket).await?;
    let tags = tagging::check(input.tagging.tag_set, tagging::OBJECT_TAGS)?;
    let object = ops.0.set_tags(&bucket, &input.key, input.version_id.as_deref(), tags).await?;
    ok(PutObjectTaggingOutput { version_id: bucket.has_versions().then(|| id_of(&object.meta).to_string()) })
}

pub(super) async fn delete_object_tagging(
    ops: &Operations,
    req: S3Request<DeleteObjectTaggingInput>,
) -> S3Result<S3Response<DeleteObjectTaggingOutput>> {
    let input = req.input;
    let bucket = ops.bucket(&input.bucket).await?;
    let object = ops.0.set_tags(&bucket, &input.key, input.version_id.as_deref(), Vec::new()).await?;
    let output = DeleteObjectTaggingOutput { version_id: bucket.has_versions().then(|| id_of(&object.meta).to_string()) };
    Ok(S3Response::with_status(output, hyper::StatusCode::NO_CONTENT))
}

pub(super) async fn get_bucket_policy(
    ops: &Operations,
    req: S3Request<GetBucketPolicyInput>,
) -> S3Result<S3Response<GetBucketPolicyOutput>> {
    configured(ops, &req.input.bucket).await?;
    Err(none_such("NoSuchBucketPolicy", "The bucket policy does not exist"))
}

pub(super) async fn get_bucket_policy_status(
    ops: &Operations,
    req: S3Request<GetBucketPolicyStatusInput>,
) -> S3Result<S3Response<GetBucketPolicyStatusOutput>> {
    configured(ops, &req.input.bucket).await?;
    Err(none_such("NoSuchBucketPolicy", "The bucket policy does not exist"))
}

pub(super) async fn get_bucket_website(
    ops: &Operations,
    req: S3Request<GetBucketWebsiteInput>,
) -> S3Result<S3Response<GetBucketWebsiteOutput>> {
    configured(ops, &req.input.bucket).await?;
    Err(none_such("NoSuchWebsiteConfiguration", "The specified bucket does not have a website configuration"))
}

pub(super) async fn get_bucket_replication(
    ops: &Operations,
    req: S3Request<GetBucketReplicationInput>,
) -> S3Result<S3Response<GetBucketReplicationOutput>> {
    configured(ops, &req.input.bucket).await?;
    Err(none_such("ReplicationConfigurationNotFoundError", "The replication configuration was not found"))
}

pub(super) async fn get_bucket_encryption(
    ops: &Operations,
    req: S3Request<GetBucketEncryptionInput>,
) -> S3Result<S3Response<GetBucketEncryptionOutput>> {
    configured(ops, &req.input.bucket).await?;
    Err(none_such("ServerSideEncryptionConfigurationNotFoundError", "The server side encryption configuration was not found"))
}

pub(super) async fn get_object_lock_configuration(
    ops: &Operations,
    req: S3Request<GetObjectLockConfigurationInput>,
) -> S3Result<S3Response<GetObjectLockConfigurationOutput>> {
    configured(ops, &req.input.bucket).await?;
    Err(none_such("ObjectLockConfigurationNotFoundError", "Object Lock configuration does not exist for this bucket"))
}

pub(super) async fn get_bucket_request_payment(
    ops: &Operations,
    req: S3Request<GetBucketRequestPaymentInput>,
) -> S3Result<S3Response<GetBucketRequestPaymentOutput>> {
    configured(ops, &req.input.bucket).await?;
    ok(GetBucketRequestPaymentOutput { payer: Some(Payer::from_static(Payer::BUCKET_OWNER)) })
}

pub(super) async fn get_bucket_logging(
    ops: &Operations,
    req: S3Request<GetBucketLoggingInput>,
) -> S3Result<S3Response<GetBucketLoggingOutput>> {
    configured(ops, &req.input.bucket).await?;
    ok(GetBucketLoggingOutput::default())
}

pub(super) async fn get_bucket_accelerate_configuration(
    ops: &Operations,
    req: S3Request<GetBucketAccelerateConfigurationInput>,
) -> S3Result<S3Response<GetBucketAccelerateConfigurationOutput>> {
    configured(ops, &req.input.bucket).await?;
    ok(GetBucketAccelerateConfigurationOutput::default())
}

pub(super) async fn get_bucket_notification_configuration(
    ops: &Operations,
    req: S3Request<GetBucketNotificationConfigurationInput>,
) -> S3Result<S3Response<GetBucketNotificationConfigurationOutput>> {
    configured(ops, &req.input.bucket).await?;
    ok(GetBucketNotificationConfigurationOutput::default())
}

pub(super) async fn get_bucket_ownership_controls(
    ops: &Operations,
    req: S3Request<GetBucketOwnershipControlsInput>,
) -> S3Result<S3Response<GetBucketOwnershipControlsOutput>> {
    configured(ops, &req.input.bucket).await?;
    let rule = OwnershipControlsRule { object_ownership: ObjectOwnership::from_static(ObjectOwnership::BUCKET_OWNER_ENFORCED) };
    ok(GetBucketOwnershipControlsOutput { ownership_controls: Some(OwnershipControls { rules: vec![rule] }) })
}

pub(super) async fn get_object_legal_hold(
    ops: &Operations,
    req: S3Request<GetObjectLegalHoldInput>,
) -> S3Result<S3Response<GetObjectLegalHoldOutput>> {
    configured(ops, &req.input.bucket).await?;
    Err(error(S3ErrorCode::InvalidRequest, "Bucket is missing Object Lock Configuration"))
}

pub(super) async fn get_object_retention(
    ops: &Operations,
    req: S3Request<GetObjectRetentionInput>,
) -> S3Result<S3Response<GetObjectRetentionOutput>> {
    configured(ops, &req.input.bucket).await?;
    Err(error(S3ErrorCode::InvalidRequest, "Bucket is missing Object Lock Configuration"))
}
