//! What is the same for every bucket here: asked for it is told, and what says just that may be put. Anything else is
//! not here, and not accepted in silence.

use super::settings::{configured, none_such};
use super::*;

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
    let by_default = ServerSideEncryptionByDefault { kms_master_key_id: None, sse_algorithm: aes256() };
    let rule = ServerSideEncryptionRule { apply_server_side_encryption_by_default: Some(by_default), bucket_key_enabled: Some(false) };
    let configuration = ServerSideEncryptionConfiguration { rules: vec![rule] };
    ok(GetBucketEncryptionOutput { server_side_encryption_configuration: Some(configuration) })
}

pub(super) async fn put_bucket_encryption(
    ops: &Operations,
    req: S3Request<PutBucketEncryptionInput>,
) -> S3Result<S3Response<PutBucketEncryptionOutput>> {
    configured(ops, &req.input.bucket).await?;
    let rules = req.input.server_side_encryption_configuration.rules;
    let algorithms = rules.iter().map(|r| r.apply_server_side_encryption_by_default.as_ref().map(|d| d.sse_algorithm.as_str()));
    let [Some(algorithm)] = algorithms.collect::<Vec<_>>()[..] else { return Err(plain(S3ErrorCode::MalformedXML)) };
    match algorithm {
        ServerSideEncryption::AES256 => ok(PutBucketEncryptionOutput {}),
        _ => Err(not_here("encryption with a key service (SSE-KMS); everything is encrypted before it leaves this machine")),
    }
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

/// Taking away what a bucket does not have is done already.
macro_rules! nothing_to_delete {
    ($($name:ident: $input:ty => $output:expr, $type:ty;)*) => {
        $(pub(super) async fn $name(ops: &Operations, req: S3Request<$input>) -> S3Result<S3Response<$type>> {
            configured(ops, &req.input.bucket).await?;
            Ok(with_status($output, hyper::StatusCode::NO_CONTENT))
        })*
    };
}

nothing_to_delete! {
    delete_bucket_policy: DeleteBucketPolicyInput => DeleteBucketPolicyOutput {}, DeleteBucketPolicyOutput;
    delete_bucket_website: DeleteBucketWebsiteInput => DeleteBucketWebsiteOutput {}, DeleteBucketWebsiteOutput;
    delete_bucket_replication: DeleteBucketReplicationInput => DeleteBucketReplicationOutput {}, DeleteBucketReplicationOutput;
    delete_bucket_encryption: DeleteBucketEncryptionInput => DeleteBucketEncryptionOutput {}, DeleteBucketEncryptionOutput;
}

pub(super) async fn put_bucket_request_payment(
    ops: &Operations,
    req: S3Request<PutBucketRequestPaymentInput>,
) -> S3Result<S3Response<PutBucketRequestPaymentOutput>> {
    configured(ops, &req.input.bucket).await?;
    match req.input.request_payment_configuration.payer.as_str() {
        Payer::BUCKET_OWNER => ok(PutBucketRequestPaymentOutput {}),
        Payer::REQUESTER => Err(not_here("payment by whoever asks")),
        _ => Err(plain(S3ErrorCode::MalformedXML)),
    }
}

pub(super) async fn put_bucket_accelerate_configuration(
    ops: &Operations,
    req: S3Request<PutBucketAccelerateConfigurationInput>,
) -> S3Result<S3Response<PutBucketAccelerateConfigurationOutput>> {
    configured(ops, &req.input.bucket).await?;
    match req.input.accelerate_configuration.status.as_ref().map(|s| s.as_str()) {
        Some(BucketAccelerateStatus::SUSPENDED) => ok(PutBucketAccelerateConfigurationOutput {}),
        Some(BucketAccelerateStatus::ENABLED) => Err(not_here("transfer acceleration")),
        _ => Err(plain(S3ErrorCode::MalformedXML)),
    }
}

pub(super) async fn put_bucket_logging(
    ops: &Operations,
    req: S3Request<PutBucketLoggingInput>,
) -> S3Result<S3Response<PutBucketLoggingOutput>> {
    configured(ops, &req.input.bucket).await?;
    match req.input.bucket_logging_status.logging_enabled {
        None => ok(PutBucketLoggingOutput {}),
        Some(_) => Err(not_here("logging into a bucket; requests are noted on standard error")),
    }
}

pub(super) async fn put_bucket_notification_configuration(
    ops: &Operations,
    req: S3Request<PutBucketNotificationConfigurationInput>,
) -> S3Result<S3Response<PutBucketNotificationConfigurationOutput>> {
    configured(ops, &req.input.bucket).await?;
    if req.input.notification_configuration == NotificationConfiguration::default() {
        return ok(PutBucketNotificationConfigurationOutput {});
    }
    Err(not_here("notifications"))
}

pub(super) async fn put_bucket_ownership_controls(
    ops: &Operations,
    req: S3Request<PutBucketOwnershipControlsInput>,
) -> S3Result<S3Response<PutBucketOwnershipControlsOutput>> {
    configured(ops, &req.input.bucket).await?;
    let rules = req.input.ownership_controls.rules;
    match rules.iter().map(|r| r.object_ownership.as_str()).collect::<Vec<_>>()[..] {
        [ObjectOwnership::BUCKET_OWNER_ENFORCED] => ok(PutBucketOwnershipControlsOutput {}),
        [ObjectOwnership::BUCKET_OWNER_PREFERRED | ObjectOwnership::OBJECT_WRITER] => {
            Err(not_here("ACLs; what is stored here is the owner's"))
        }
        _ => Err(plain(S3ErrorCode::MalformedXML)),
    }
}
