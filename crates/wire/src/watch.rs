//! Changes of a space as they happen.

use crate::{Authed, rpc};
use minicbor::{Decode, Encode};
use model::SpaceId;
use model::history::Changes;

rpc!(
    /// Logged-in member of the space: the changes after a revision, as soon as there are any. An answer
    /// without changes means that none came in time: ask again from where it says. `Insufficient` when
    /// too many wait already. Whoever is no member any more is `Denied` within moments.
    WatchSpace, "/v1/watch", Authed<WatchRequest> => Changes
);

/// Longest time that a coordinator waits for changes, in milliseconds.
pub const WAIT_MAX_MS: u64 = 10_000;

/// See [`WatchSpace`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct WatchRequest {
    /// Space.
    #[n(0)]
    pub space: SpaceId,
    /// Changes after this revision; `u64::MAX`: none, only the latest revision, at once.
    #[n(1)]
    pub after: u64,
    /// How long to wait for one, in milliseconds (at most [`WAIT_MAX_MS`]).
    #[n(2)]
    pub wait_ms: u64,
}
