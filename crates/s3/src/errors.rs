//! What went wrong, as S3 says it. The one table from the client's kinds of errors to S3's codes.

use hyper::StatusCode;
use model::{Error, Kind};
use s3s::{S3Error, S3ErrorCode};

/// An S3 error of a code, with a message.
pub fn error(code: S3ErrorCode, message: impl Into<String>) -> S3Error {
    S3Error::with_message(code, message.into())
}

/// An error of a code that s3s does not know, with its status.
pub fn refusal(code: &'static str, status: StatusCode, message: impl Into<String>) -> S3Error {
    let mut e = S3Error::with_message(S3ErrorCode::Custom(code.into()), message.into());
    e.set_status_code(status);
    e
}

/// An S3 error of a code, with S3's own words.
pub fn plain(code: S3ErrorCode) -> S3Error {
    let words = match &code {
        S3ErrorCode::BadDigest => "The Content-MD5 or checksum value that you specified did not match what the server received.",
        S3ErrorCode::BucketAlreadyOwnedByYou => "Your previous request to create the named bucket succeeded and you already own it.",
        S3ErrorCode::BucketNotEmpty => "The bucket you tried to delete is not empty.",
        S3ErrorCode::EntityTooLarge => "Your proposed upload exceeds the maximum allowed object size.",
        S3ErrorCode::IncompleteBody => "You did not provide the number of bytes specified by the Content-Length HTTP header.",
        S3ErrorCode::InternalError => "An internal error occurred. Try again.",
        S3ErrorCode::InvalidAccessKeyId => "The access key ID that you provided does not exist in our records.",
        S3ErrorCode::InvalidBucketName => "The specified bucket is not valid.",
        S3ErrorCode::InvalidDigest => "The Content-MD5 that you specified is not valid.",
        S3ErrorCode::InvalidPart => {
            "One or more of the specified parts could not be found. The part may not have been uploaded, or the specified entity tag may not match the part's entity tag."
        }
        S3ErrorCode::InvalidPartOrder => {
            "The list of parts was not in ascending order. The parts list must be specified in order by part number."
        }
        S3ErrorCode::InvalidStorageClass => "The storage class that you specified is not valid.",
        S3ErrorCode::KeyTooLongError => "Your key is too long.",
        S3ErrorCode::MalformedXML => "The XML that you provided was not well formed or did not validate against our published schema.",
        S3ErrorCode::MetadataTooLarge => "Your metadata headers exceed the maximum allowed metadata size.",
        S3ErrorCode::MethodNotAllowed => "The specified method is not allowed against this resource.",
        S3ErrorCode::NoSuchBucket => "The specified bucket does not exist.",
        S3ErrorCode::NoSuchKey => "The specified key does not exist.",
        S3ErrorCode::NoSuchUpload => {
            "The specified multipart upload does not exist. The upload ID might not be valid, or the multipart upload might have been aborted or completed."
        }
        S3ErrorCode::NoSuchVersion => "The version ID specified in the request does not match an existing version.",
        S3ErrorCode::OperationAborted => "A conflicting conditional operation is currently in progress against this resource. Try again.",
        S3ErrorCode::SignatureDoesNotMatch => {
            "The request signature that the server calculated does not match the signature that you provided."
        }
        S3ErrorCode::UserKeyMustBeSpecified => {
            "The bucket POST must contain the specified field name. If it is specified, check the order of the fields."
        }
        _ => return S3Error::new(code),
    };
    S3Error::with_message(code, words)
}

/// What the client says, where nothing more exact is known of it.
pub fn from_client(e: Error) -> S3Error {
    let text = match &e.hint {
        Some(hint) => format!("{} ({hint})", e.message),
        None => e.message.clone(),
    };
    match e.kind {
        Kind::NotFound => error(S3ErrorCode::NoSuchKey, text),
        Kind::Denied => error(S3ErrorCode::AccessDenied, text),
        Kind::Exists | Kind::Conflict => error(S3ErrorCode::OperationAborted, text),
        Kind::Unavailable => error(S3ErrorCode::ServiceUnavailable, text),
        Kind::Insufficient => {
            let mut full = error(S3ErrorCode::Custom("InsufficientStorage".into()), text);
            full.set_status_code(StatusCode::INSUFFICIENT_STORAGE);
            full
        }
        Kind::Corrupt => error(S3ErrorCode::InternalError, text),
        Kind::Invalid => error(S3ErrorCode::InvalidArgument, text),
    }
}

/// Of a bucket: what is not found is the bucket.
pub fn of_bucket(e: Error) -> S3Error {
    if e.kind == Kind::NotFound { plain(S3ErrorCode::NoSuchBucket) } else { from_client(e) }
}

/// What S3 has and this gateway has not, and why.
pub fn not_here(what: &str) -> S3Error {
    error(S3ErrorCode::NotImplemented, format!("{what} is not supported by this gateway: see docs/s3.md"))
}

/// A precondition that does not hold.
pub fn precondition(which: &str) -> S3Error {
    error(S3ErrorCode::PreconditionFailed, format!("At least one of the preconditions you specified did not hold: {which}"))
}
