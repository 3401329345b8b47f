//! What buckets and objects are set to: versions, tags, cross-origin rules, expiry.

use super::*;
use crate::buckets::BucketConfig;
use crate::errors::refusal;

pub(super) async fn configured(ops: &Operations, name: &str) -> S3Result<Arc<BucketConfig>> {
    let bucket = ops.bucket(name).await?;
    ops.0.check_bucket(&bucket).await?;
    Ok(bucket.config)
}

pub(super) fn none_such(code: &'static str, message: &'static str) -> S3Error {
    refusal(code, hyper::StatusCode::NOT_FOUND, message)
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
    match asked.mfa_delete.as_ref().map(|m| m.as_str()) {
        Some(MFADelete::ENABLED) => return Err(not_here("MFA delete")),
        Some(MFADelete::DISABLED) | None => {}
        Some(_) => return Err(plain(S3ErrorCode::MalformedXML)),
    }
    let versioning = match asked.status.as_ref().map(|s| s.as_str()) {
        Some(BucketVersioningStatus::ENABLED) => Versioning::Enabled,
        Some(BucketVersioningStatus::SUSPENDED) => Versioning::Suspended,
        Some(_) => return Err(plain(S3ErrorCode::MalformedXML)),
        None => return Err(error(S3ErrorCode::IllegalVersioningConfigurationException, "The Versioning element must be specified")),
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
    Ok(with_status(PutBucketTaggingOutput {}, hyper::StatusCode::NO_CONTENT))
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
    let asked = req.input.public_access_block_configuration;
    let block = PublicAccessBlockConfiguration {
        block_public_acls: Some(asked.block_public_acls == Some(true)),
        block_public_policy: Some(asked.block_public_policy == Some(true)),
        ignore_public_acls: Some(asked.ignore_public_acls == Some(true)),
        restrict_public_buckets: Some(asked.restrict_public_buckets == Some(true)),
    };
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

/// Checks an ACL put: a canned one, headers that grant something, or a list of rights. Only what says what is so is
/// taken: that the owner, and nobody else, may do everything. `s3cmd` copies such lists.
fn check_put_acl(owner: &Owner, canned: Option<&str>, grants: bool, list: Option<&AccessControlPolicy>) -> S3Result<()> {
    let Some(list) = list else {
        if canned.is_none() && !grants {
            return Err(error(S3ErrorCode::MissingSecurityHeader, "Your request was missing a required header"));
        }
        return check_acl(canned, grants);
    };
    if list.owner.as_ref().is_some_and(|o| o.id != owner.id) {
        return Err(error(S3ErrorCode::AccessDenied, "Access Denied"));
    }
    let is_owners = |grant: &Grant| {
        let id = grant.grantee.as_ref().and_then(|g| g.id.as_ref());
        id == owner.id.as_ref() && grant.permission.as_ref().is_some_and(|p| p.as_str() == Permission::FULL_CONTROL)
    };
    let rights = list.grants.as_deref().unwrap_or_default();
    check_acl(canned, grants || rights.is_empty() || !rights.iter().all(is_owners))
}

pub(super) async fn get_bucket_acl(ops: &Operations, req: S3Request<GetBucketAclInput>) -> S3Result<S3Response<GetBucketAclOutput>> {
    configured(ops, &req.input.bucket).await?;
    ok(GetBucketAclOutput { grants: Some(ops.grants()), owner: Some(ops.0.owner.clone()) })
}

pub(super) async fn put_bucket_acl(ops: &Operations, req: S3Request<PutBucketAclInput>) -> S3Result<S3Response<PutBucketAclOutput>> {
    let input = req.input;
    configured(ops, &input.bucket).await?;
    let grants = input.grant_full_control.is_some()
        || input.grant_read.is_some()
        || input.grant_read_acp.is_some()
        || input.grant_write.is_some()
        || input.grant_write_acp.is_some();
    check_put_acl(&ops.0.owner, input.acl.as_ref().map(|a| a.as_str()), grants, input.access_control_policy.as_ref())?;
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
    let grants = input.grant_full_control.is_some()
        || input.grant_read.is_some()
        || input.grant_read_acp.is_some()
        || input.grant_write.is_some()
        || input.grant_write_acp.is_some();
    check_put_acl(&ops.0.owner, input.acl.as_ref().map(|a| a.as_str()), grants, input.access_control_policy.as_ref())?;
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
    Ok(with_status(output, hyper::StatusCode::NO_CONTENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acl_says_what_is_so_or_is_refused() {
        let by = |id: &str| Owner { display_name: None, id: Some(id.into()) };
        let grant = |id: &str, permission: &'static str| Grant {
            grantee: Some(Grantee {
                display_name: None,
                email_address: None,
                id: Some(id.into()),
                type_: Type::from_static(Type::CANONICAL_USER),
                uri: None,
            }),
            permission: Some(Permission::from_static(permission)),
        };
        let list = |owner: &str, grants: Vec<Grant>| AccessControlPolicy { grants: Some(grants), owner: Some(by(owner)) };
        let code = |canned, grants, list: Option<AccessControlPolicy>| {
            check_put_acl(&by("me"), canned, grants, list.as_ref()).err().map(|e| e.code().clone())
        };
        let unsupported = Some(S3ErrorCode::AccessControlListNotSupported);
        let all = Permission::FULL_CONTROL;
        assert_eq!(code(None, false, None), Some(S3ErrorCode::MissingSecurityHeader));
        assert_eq!(code(Some("private"), false, None), None);
        assert_eq!(code(Some("public-read"), false, None), unsupported);
        assert_eq!(code(None, true, None), unsupported);
        assert_eq!(code(None, false, Some(list("me", vec![grant("me", all)]))), None);
        assert_eq!(code(None, false, Some(AccessControlPolicy { owner: None, ..list("me", vec![grant("me", all)]) })), None);
        assert_eq!(code(None, false, Some(list("you", vec![grant("me", all)]))), Some(S3ErrorCode::AccessDenied));
        assert_eq!(code(None, false, Some(list("me", vec![]))), unsupported);
        assert_eq!(code(None, false, Some(AccessControlPolicy::default())), unsupported);
        assert_eq!(code(None, false, Some(list("me", vec![grant("me", all), grant("you", all)]))), unsupported);
        assert_eq!(code(None, false, Some(list("me", vec![grant("me", Permission::READ)]))), unsupported);
    }
}
