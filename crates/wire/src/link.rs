//! Opening a link: what people without an account may say to a coordinator.

use crate::{SessionToken, rpc};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use model::account::SpaceInfo;
use model::tree::ManifestRow;
use model::{LinkId, RequestId};

rpc!(
    /// Holder of a link: a session that reads what it leads to, and nothing else. Wrong proofs count like
    /// wrong passwords. Allowed with it: `Ask` for `Cluster`, `Layout`, `LayoutAt`, `Manifests`, and of the
    /// folder that it leads to `Lookup`, `List` and `Walk`; `ReadCapabilities`.
    OpenLink, "/v1/link/open", OpenLinkRequest => OpenLinkResponse
);

/// See [`OpenLink`].
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct OpenLinkRequest {
    /// Idempotence key: sent again, it is not counted again.
    #[n(0)]
    pub request: RequestId,
    /// Which link.
    #[n(1)]
    pub link: LinkId,
    /// Derived from the link's secret, and from its password. Secret.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub auth: [u8; 32],
    /// Token of the session to begin, drawn by the client.
    #[n(3)]
    pub session: SessionToken,
}

impl std::fmt::Debug for OpenLinkRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OpenLinkRequest({}, …)", self.link)
    }
}

/// See [`OpenLink`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct OpenLinkResponse {
    /// The sealed record.
    #[n(0)]
    pub sealed: ByteVec,
    /// Of a file in chunks: its manifest. Missing when the file is gone.
    #[n(1)]
    pub manifest: Option<ManifestRow>,
    /// Of a folder: who may sign what lies in it. Without grants.
    #[n(2)]
    pub space: Option<SpaceInfo>,
    /// Catalog time at which the session ends, milliseconds since 1970.
    #[n(3)]
    pub expires_ms: u64,
}
