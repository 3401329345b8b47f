//! What went wrong, as S3 says it. The one table from the client's kinds of errors to S3's codes.

use hyper::StatusCode;
use model::{Error, Kind};
use s3s::{S3Error, S3ErrorCode};

/// An S3 error of a code, with a message.
pub fn error(code: S3ErrorCode, message: impl Into<String>) -> S3Error {
    S3Error::with_message(code, message.into())
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
    if e.kind == Kind::NotFound { S3ErrorCode::NoSuchBucket.into() } else { from_client(e) }
}

/// What S3 has and this gateway has not, and why.
pub fn not_here(what: &str) -> S3Error {
    error(S3ErrorCode::NotImplemented, format!("{what} is not supported by this gateway: see docs/s3.md"))
}

/// A precondition that does not hold.
pub fn precondition(which: &str) -> S3Error {
    error(S3ErrorCode::PreconditionFailed, format!("At least one of the preconditions you specified did not hold: {which}"))
}
