//! What operators ask for: the small things, each one command of the log, and who has accounts.

use super::state::{State, confused};
use model::account::canonical_name;
use model::command::{Answer, Command, Query};
use model::{AccountId, CoordinatorId, Error, Kind, Result};
use std::collections::BTreeSet;
use std::time::Duration;
use wire::SessionToken;
use wire::admin::{User, UsersRequest, UsersResponse};
use wire::coordinator::Administration;

/// Accounts in one answer.
const USERS: u32 = 200;
/// Time for the group to go on without a coordinator that was removed.
const REMOVAL: Duration = Duration::from_secs(8);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(50);

impl State {
    /// One of the small things, in the name of the admin who asks: the catalog writes the name down.
    pub async fn administer(&self, session: SessionToken, request: Administration) -> Result<()> {
        let who = self.admin(&session).await?;
        let command = match request {
            Administration::StopLayout => Command::PauseLayouts(true),
            Administration::ResumeLayout => Command::PauseLayouts(false),
            Administration::RemoveNode(node) => return self.remove_node(who.account, node).await,
            Administration::RemoveCoordinator(id) => return self.remove_coordinator(who.account, id).await,
            Administration::Scrub => Command::RequestScrub,
            Administration::Thaw => Command::Thaw,
            Administration::SetPolicy { space, policy } => return self.set_policy(who.account, space, policy).await,
            Administration::BackedUp => Command::NoteBackup,
            Administration::SetDisabled { name, disabled } => {
                let account = self.named(&name).await?;
                self.propose(self.request_id(), Some(who.account), Command::SetDisabled { account, disabled }).await?;
                self.memory().sessions.forget_account(account);
                return Ok(());
            }
            Administration::SetQuota { name, quota } => Command::SetQuota { account: self.named(&name).await?, quota },
        };
        self.propose(self.request_id(), Some(who.account), command).await.map(|_| ())
    }

    /// The account of a name.
    async fn named(&self, name: &str) -> Result<AccountId> {
        let account = self.account_by_name(&canonical_name(name)?).await?;
        account.map(|a| a.id).ok_or_else(|| Error::not_found(format!("there is no account '{name}'")))
    }

    /// Takes a coordinator out, and answers when the group can do without it: from then on it may be stopped.
    /// `Unavailable` when that takes too long; asked again, only the end is waited for.
    async fn remove_coordinator(&self, by: AccountId, id: CoordinatorId) -> Result<()> {
        // One at a time: each is weighed against those who stay.
        let _alone = self.removal.lock().await;
        let listed: BTreeSet<CoordinatorId> = self.view().await?.coordinators.into_iter().map(|c| c.id).collect();
        if listed.contains(&id) || self.consensus.is_without(id) {
            self.can_do_without(id, &listed)?;
            match self.propose(self.request_id(), Some(by), Command::RemoveCoordinator(id)).await {
                // Asked for before, when no majority answered, and carried out just now: the end is still to come.
                Err(e) if e.kind == Kind::NotFound && listed.contains(&id) => {}
                done => _ = done?,
            }
        }
        let out = async {
            while !self.consensus.is_without(id) && self.consensus.is_leader() {
                self.env.sleep(LOOK).await;
            }
        };
        let ended = self.env.timeout(REMOVAL, out).await.filter(|()| self.consensus.is_without(id));
        ended.ok_or_else(|| {
            Error::unavailable(format!("coordinator-{id} is off the list, but the others could not yet agree to go on without it"))
                .hint(format!("keep coordinator-{id} running until they do; start those that do not answer"))
        })
    }

    /// `Invalid`, with the reason, where those that would remain could not go on: a majority of them
    /// must answer. `listed`: those that the catalog has; others are on their way out.
    fn can_do_without(&self, id: CoordinatorId, listed: &BTreeSet<CoordinatorId>) -> Result<()> {
        let voters = self.consensus.group().voters;
        if !voters.contains(&id) || listed.len() < 2 {
            return Ok(());
        }
        let remaining: Vec<CoordinatorId> = voters.intersection(listed).copied().filter(|v| *v != id).collect();
        if remaining.is_empty() {
            return Err(Error::invalid(format!("coordinator-{id} cannot be removed now: no other one has a vote yet"))
                .hint("shardkeep cluster status shows when another one has caught up"));
        }
        let damaged = self.consensus.roster().damaged();
        if !damaged.contains(&id) && remaining.iter().all(|v| damaged.contains(v)) {
            return Err(Error::invalid(format!("coordinator-{id} cannot be removed now: no other one has a catalog that is not damaged"))
                .hint("let another one join first: shardkeep cluster token coordinator"));
        }
        let silent: Vec<String> =
            remaining.iter().filter(|v| !self.consensus.roster().is_live(**v)).map(|v| format!("coordinator-{v}")).collect();
        let live = remaining.len() - silent.len();
        if live * 2 > remaining.len() {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "coordinator-{id} cannot be removed now: of the {} that would remain only {live} would answer, which is no majority",
            remaining.len()
        ))
        .hint(format!("start {} first, or remove it instead", silent.join(" or "))))
    }

    /// Accounts, without what is sealed in them and without their login records.
    pub async fn users(&self, session: SessionToken, request: UsersRequest) -> Result<UsersResponse> {
        self.admin(&session).await?;
        let Answer::Accounts(accounts, more) = self.ask(Query::Accounts { after: request.after, limit: USERS }).await? else {
            return Err(confused());
        };
        let mut users = Vec::with_capacity(accounts.len());
        for account in accounts {
            // As fresh as the accounts, which were read linearisably just before.
            let space = self.consensus.query_local(&Query::Space { space: account.home, account: account.id })?;
            let Answer::Space(space) = space else { return Err(confused()) };
            users.push(User {
                id: account.id,
                name: account.name,
                admin: account.admin,
                disabled: account.disabled,
                quota: account.quota,
                used: space.map_or(0, |s| s.used),
            });
        }
        Ok(UsersResponse { users, more })
    }
}
