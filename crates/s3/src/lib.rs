//! The S3 gateway: runs at the user's side, speaks S3, and stores through the client core. A gateway, not a second
//! store: objects are files, and everything else sees them as that.
//!
//! ```text
//! http ─▶ gate ─▶ rechunk, documents ─▶ s3s: signatures, XML ─▶ ops ─▶ objects, listing, multipart, versions … ─▶ client
//!           └────▶ form ─────────────────────────────────────────────▶
//! ```
//! Read [`keys`] and [`meta`] first: how keys become paths, and what is kept beside content.

pub mod keys;
pub mod meta;

mod access;
mod answering;
mod answers;
mod asked;
mod body;
mod buckets;
mod checksum;
mod conditions;
mod documents;
mod errors;
mod tree;

mod cursor;
mod listing;
mod views;

mod copy;
mod multipart;
mod objects;
mod tagging;
mod versions;

mod cors;
mod lifecycle;
mod ops;

mod form;
mod gate;
mod http;
mod metrics;
mod rechunk;
mod refused;
mod tls;

pub use buckets::is_bucket_name;
pub use http::{Config, Running, serve};

use access::AccessKeys;
use buckets::Buckets;
use client::{Client, Writer};
use hyper::Uri;
use hyper::header::{HOST, HeaderMap};
use model::Result;
use s3s::dto::Owner;
use std::sync::Arc;
use versions::Histories;
use views::Views;

/// What all requests share.
pub(crate) struct Gateway {
    client: Client,
    writer: Writer,
    buckets: Buckets,
    keys: AccessKeys,
    views: Views,
    owner: Owner,
    region: String,
    /// Held by whoever changes the history of a key.
    histories: Histories,
    /// As URLs of it begin.
    scheme: &'static str,
    allow_degraded: bool,
}

impl Gateway {
    fn new(client: Client, config: &Config) -> Result<Arc<Self>> {
        let writer = client.writer();
        let buckets = Buckets::new(&client, &writer, config.buckets.clone())?;
        let keys = AccessKeys::new(&client, &config.account);
        let owner = Owner { display_name: Some(config.account.clone()), id: Some(config.account.clone()) };
        let (views, region, allow_degraded) = (Views::new(&client), config.region.clone(), config.allow_degraded);
        let scheme = if config.tls.is_some() { "https" } else { "http" };
        Ok(Arc::new(Gateway {
            client,
            writer,
            buckets,
            keys,
            views,
            owner,
            region,
            histories: Histories::default(),
            scheme,
            allow_degraded,
        }))
    }

    /// The URL of what a request asks for, by which whoever asks can reach it.
    fn url_of(&self, headers: &HeaderMap, uri: &Uri) -> String {
        let host = headers.get(HOST).and_then(|h| h.to_str().ok()).unwrap_or_default();
        format!("{}://{host}{}", self.scheme, uri.path())
    }
}
