//! Object ids and the two proofs that come with them: the upload grant, for the catalog, and one
//! capability a node, by which the node lets the holder put and get shards for ten minutes.

use super::session::Who;
use super::state::State;
use model::account::Role;
use model::cluster::{Capability, CapabilityBody, NodeState, Operation, UploadGrant, UploadGrantBody};
use model::{Error, NodeId, ObjectId, PublicKey, Result, cbor, signed};
use wire::SessionToken;
use wire::coordinator::{UploadRequest, UploadResponse};

/// How long a capability is good.
pub const VALID_MS: u64 = 10 * 60 * 1000;
/// How long capabilities of an object may be renewed: uploads older than that have expired.
const RENEW_MS: u64 = 24 * 60 * 60 * 1000;
/// Most objects in one request.
const OBJECTS_MAX: u32 = 256;

impl State {
    /// Issues object ids, or renews the capabilities of those issued before.
    pub async fn upload(&self, token: SessionToken, request: UploadRequest) -> Result<UploadResponse> {
        let who = self.who(&token).await?;
        self.check_member(&who, request.space, Role::Write).await?;
        self.user_called();
        let (objects, grant) = match request.renew {
            Some(grant) => (self.granted(&who, &request.space, &grant)?, grant),
            None => {
                if request.objects == 0 || request.objects > OBJECTS_MAX {
                    return Err(Error::invalid(format!("1 to {OBJECTS_MAX} objects can be asked for at once")));
                }
                let now = self.now_ms();
                let objects: Vec<ObjectId> = (0..request.objects).map(|_| ObjectId::new(now, self.env.random())).collect();
                let body = UploadGrantBody { objects: objects.clone(), account: who.account, space: request.space };
                let body = cbor::to_vec(&body);
                let signature = self.sign("upload-grant", &body);
                (objects, UploadGrant { body: body.into(), signature })
            }
        };
        let operations = vec![Operation::Put, Operation::Get];
        let capabilities = self.capabilities(&who, operations, &objects, request.byte_limit, request.holder).await?;
        Ok(UploadResponse { objects, grant, capabilities, valid_ms: VALID_MS })
    }

    /// Capabilities that allow reading, one a node.
    pub async fn read_capabilities(&self, token: SessionToken, holder: PublicKey) -> Result<Vec<(NodeId, Capability)>> {
        let (who, objects) = match self.who(&token).await {
            Err(e) if e.kind == model::Kind::Denied => {
                let link = self.link(&token).await?.ok_or(e)?;
                self.reader_by_link(&link).await?
            }
            who => (who?, Vec::new()),
        };
        self.capabilities(&who, vec![Operation::Get], &objects, 0, holder).await
    }

    /// The objects of a grant, if it is ours, this account's for this space, and young enough.
    fn granted(&self, who: &Who, space: &model::SpaceId, grant: &UploadGrant) -> Result<Vec<ObjectId>> {
        let key = PublicKey(self.capability.verifying_key().to_bytes());
        signed::verify(&key, "upload-grant", &grant.body, &grant.signature)?;
        let body: UploadGrantBody = cbor::from_canonical(&grant.body)?;
        if body.account != who.account || body.space != *space {
            return Err(Error::denied("this upload was granted to another account or space"));
        }
        let now = self.now_ms();
        if body.objects.iter().any(|o| o.time_ms().saturating_add(RENEW_MS) <= now) {
            return Err(Error::denied("this upload has expired: begin it again"));
        }
        Ok(body.objects)
    }

    async fn capabilities(
        &self,
        who: &Who,
        operations: Vec<Operation>,
        objects: &[ObjectId],
        byte_limit: u64,
        holder: PublicKey,
    ) -> Result<Vec<(NodeId, Capability)>> {
        let now = self.settled_ms()?;
        let nodes = self.view().await?.nodes;
        // Nodes that are out get none: the layout goes on without them.
        let nodes = nodes.into_iter().filter(|n| n.state != NodeState::Out);
        let capability = |audience| {
            let body = CapabilityBody {
                audience,
                account: who.account,
                operations: operations.clone(),
                objects: objects.to_vec(),
                byte_limit,
                holder,
                not_before_ms: now,
                expires_ms: now + VALID_MS,
            };
            let body = cbor::to_vec(&body);
            let signature = self.sign("capability", &body);
            (audience, Capability { body: body.into(), signature })
        };
        Ok(nodes.map(|n| capability(n.id)).collect())
    }
}
