//! Questions and changes of clients and peers: who may ask what. The rules stand on the exchanges
//! in `wire::coordinator`; what is not allowed there is refused here.
//!
//! Reading a space takes membership, checked here for every space that a question names. Who may
//! write is in the signed member set, which the catalog checks when it applies a commit.

use super::session::Who;
use super::state::{State, confused};
use model::account::Role;
use model::command::{Answer, Applied, Command, Query};
use model::{Error, Layout, Policy, Result};
use wire::SessionToken;
use wire::coordinator::ProposeRequest;

impl State {
    /// A logged-in client's question.
    pub async fn ask_as(&self, token: SessionToken, query: Query) -> Result<Answer> {
        let who = match self.who(&token).await {
            Err(e) if e.kind == model::Kind::Denied => {
                let link = self.link(&token).await?.ok_or(e)?;
                return self.ask_by_link(&link, query).await;
            }
            who => who?,
        };
        match &query {
            Query::Space { account, .. } if *account != who.account => {
                return Err(Error::denied("only your own view of a space is yours to ask for"));
            }
            // The answer itself says nothing to those who are no members.
            Query::Space { .. } | Query::Cluster | Query::LayoutAt { .. } => {}
            Query::Lookup { space, .. }
            | Query::List { space, .. }
            | Query::Walk { space, .. }
            | Query::Manifests { space, .. }
            | Query::Versions { space, .. }
            | Query::History { space, .. }
            | Query::Trash { space, .. }
            | Query::Doors { space, .. }
            | Query::Changes { space, .. }
            | Query::Kept { space, .. }
            | Query::Older { space, .. } => {
                self.user_called();
                self.check_member(&who, *space, Role::Read).await?;
            }
            Query::Spaces { account } if *account == who.account => {}
            Query::IdentityByName(_) => self.count_lookups(&who, 1)?,
            Query::Identities(ids) => self.count_lookups(&who, ids.len())?,
            Query::Mailbox(account) | Query::Mail { account, .. } | Query::Thread { from: account, .. } if *account != who.account => {
                return Err(Error::denied("only your own messages are yours to ask for"));
            }
            Query::Links(account) if *account != who.account => {
                return Err(Error::denied("only your own links are yours to ask for"));
            }
            Query::Links(_) | Query::Mailbox(_) | Query::Mail { .. } | Query::Thread { .. } => {}
            Query::Layout(width) => return self.layout(*width).await.map(Answer::Layout),
            Query::Events { .. } | Query::Totals if who.admin => {}
            Query::Events { .. } | Query::Totals => return Err(Error::denied("only admins of the cluster may ask this")),
            _ => return Err(Error::denied("clients may not ask this of the catalog")),
        }
        self.ask(query).await
    }

    /// A logged-in client's change. What the catalog decides, error or not, is the answer.
    pub async fn propose_as(&self, token: SessionToken, request: ProposeRequest) -> Result<Applied> {
        let who = self.who(&token).await?;
        self.user_called();
        match &request.command {
            Command::Commit { record, .. } if record.author != who.account => {
                return Err(Error::denied("a commit is proposed by the account that signed it"));
            }
            Command::PutState { account, .. } if *account != who.account => {
                return Err(Error::denied("only your own notes are yours to change"));
            }
            Command::SendMessage { from: account, .. } | Command::ReadMessages { account, .. } if *account != who.account => {
                return Err(Error::denied("only your own messages are yours to send and to mark"));
            }
            Command::SendMessage { .. } | Command::ReadMessages { .. } => {}
            Command::RekeyRows { record, .. } if record.author != who.account => {
                return Err(Error::denied("a re-key is proposed by the account that signed it"));
            }
            Command::CreateLink(link) if link.owner != who.account => {
                return Err(Error::denied("only your own links are yours to make"));
            }
            Command::CreateLink(_) | Command::RevokeLink(_) => {}
            Command::Commit { .. } | Command::PutState { .. } => {}
            // What the role of the account in the space allows, the catalog decides when it applies them.
            Command::ChangeMembers { .. }
            | Command::TransferSpace { .. }
            | Command::LeaveSpace { .. }
            | Command::BeginRekey(_)
            | Command::RekeyRows { .. }
            | Command::SwapRekey { .. }
            | Command::AbandonRekey { .. }
            | Command::DeleteSpace { .. }
            | Command::SetRetention { .. } => {}
            _ => return Err(Error::denied("clients may not change this in the catalog")),
        }
        self.decide(request.request, Some(who.account), request.command).await
    }

    /// A node's or coordinator's question.
    pub async fn ask_as_peer(&self, query: Query) -> Result<Answer> {
        match &query {
            Query::Cluster | Query::Feed { .. } | Query::Objects(_) | Query::Generations(_) | Query::LayoutAt { .. } => {
                self.ask(query).await
            }
            Query::Layout(width) => self.stored_layout(*width).await.map(Answer::Layout),
            _ => Err(Error::denied("servers may not ask this of the catalog")),
        }
    }

    /// Bytes on disk that count against an account's quota.
    pub async fn space_used(&self, who: &Who) -> Result<u64> {
        match self.ask(Query::Used(who.account)).await? {
            Answer::Used(used) => Ok(used),
            _ => Err(confused()),
        }
    }

    pub async fn stored_layout(&self, width: u8) -> Result<Option<Layout>> {
        match self.ask(Query::Layout(width)).await? {
            Answer::Layout(layout) => Ok(layout),
            _ => Err(confused()),
        }
    }

    /// The layout of a width, made now if enough nodes are there; `None` when they are not.
    async fn layout(&self, width: u8) -> Result<Option<Layout>> {
        if let Some(layout) = self.stored_layout(width).await? {
            return Ok(Some(layout));
        }
        if width == 0 || width > Policy::MAX_WIDTH {
            return Err(Error::invalid("no policy has this width"));
        }
        match self.make_layout(width).await {
            Ok(()) => self.stored_layout(width).await,
            Err(e) if e.kind == model::Kind::Unavailable => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Makes the first layout of a width over the nodes present. `Unavailable`: too few have joined.
    pub async fn make_layout(&self, width: u8) -> Result<()> {
        self.command(Command::MakeLayout { width }).await.map(|_| ())
    }
}
