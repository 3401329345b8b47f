//! Keys by which programs prove themselves to the gateways that run at the user's side (S3 access keys). They are
//! not keys of anything stored: whoever has one may ask a running gateway, as far as the key allows.

use minicbor::{Decode, Encode};
use zeroize::Zeroize;

/// A key of a gateway. Its secret is wiped when dropped, and not printed.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct GatewayKey {
    /// The id by which requests name it.
    #[n(0)]
    pub id: String,
    /// Its secret, as text: requests are signed with it.
    #[n(1)]
    secret: String,
    /// It may read only.
    #[n(2)]
    pub read_only: bool,
    /// The buckets that it may use; `None`: all.
    #[n(3)]
    pub buckets: Option<Vec<String>>,
    /// When it was made, milliseconds since 1970.
    #[n(4)]
    pub created_ms: u64,
    /// What its owner calls it.
    #[n(5)]
    pub label: Option<String>,
}

impl GatewayKey {
    /// A key with everything allowed.
    pub fn new(id: String, secret: String, created_ms: u64) -> Self {
        GatewayKey { id, secret, read_only: false, buckets: None, created_ms, label: None }
    }

    /// The secret.
    pub fn secret(&self) -> &str {
        &self.secret
    }
}

impl std::fmt::Debug for GatewayKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GatewayKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Drop for GatewayKey {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}
