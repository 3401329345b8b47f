//! What admins of a cluster may do beside tokens and invites.

use crate::session::Client;
use model::Result;
use wire::admin::{ListUsers, ShowSpacePolicy, SpacePolicyRequest, SpacePolicyResponse, User, UsersRequest};
use wire::coordinator::{Administer, Administration};

impl Client {
    /// One of the small things that operators ask for. Admins only.
    pub async fn administer(&self, request: Administration) -> Result<()> {
        self.cluster().authed::<Administer, _>(request).await
    }

    /// How the objects of a space are coded, by its owner's name or its id in hex. Admins only.
    pub async fn space_policy(&self, space: &str) -> Result<SpacePolicyResponse> {
        self.cluster().authed::<ShowSpacePolicy, _>(SpacePolicyRequest { space: space.into() }).await
    }

    /// All accounts, by name. Admins only.
    pub async fn users(&self) -> Result<Vec<User>> {
        let mut users: Vec<User> = Vec::new();
        loop {
            let after = users.last().map(|u| u.id);
            let page = self.cluster().authed::<ListUsers, _>(UsersRequest { after }).await?;
            let more = page.more && !page.users.is_empty();
            users.extend(page.users);
            if !more {
                users.sort_by(|a, b| a.name.cmp(&b.name));
                return Ok(users);
            }
        }
    }
}
