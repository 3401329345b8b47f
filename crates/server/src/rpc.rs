//! From bytes to messages and back, for the services of both roles.

use minicbor::Encode;
use model::Result;
use std::future::Future;
use transport::{Request, Response};
use wire::Rpc;

/// Answers one exchange: decodes the request, asks `handler`, encodes its answer.
pub(crate) async fn answer<R, F>(request: &Request, handler: impl FnOnce(R::Request) -> F) -> Result<Response>
where
    R: Rpc,
    F: Future<Output = Result<R::Response>>,
    R::Response: Encode<()>,
{
    let message: R::Request = wire::decode(&request.head)?;
    Ok(Response::message(&handler(message).await?))
}
