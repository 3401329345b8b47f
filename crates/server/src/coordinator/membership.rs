//! Servers join, say that they live, and report what they find.
//!
//! A heartbeat is remembered here; the catalog hears of it only when something changed that others
//! need to know (address, zone, devices, software). A join token is consumed through the log
//! *before* its certificate exists, so no token ever makes two servers.

use super::state::{Heard, State, confused};
use model::account::{Invite, canonical_name};
use model::cluster::{Device, Node, NodeState, Token};
use model::command::{Answer, Command, Outcome, Query};
use model::{Error, Hash, InviteId, NodeId, Result, TokenId};
use transport::{CERTIFICATE_VALIDITY, InviteText, JoinToken, ServerId, check_join_proof};
use wire::SessionToken;
use wire::coordinator::{
    CreateInviteRequest, CreateTokenRequest, HeartbeatRequest, HeartbeatResponse, JoinRequest, JoinResponse, ReportPeerRequest,
    ReportShardRequest, TextResponse,
};

/// Longest life of a token or invite: 90 days.
const LONGEST_MS: u64 = 90 * 24 * 60 * 60 * 1000;
/// Most devices of a node.
const DEVICES_MAX: usize = 64;
/// Longest text of a report.
const DETAIL_MAX: usize = 500;

impl State {
    /// Makes a join token. Admins only.
    pub async fn create_token(&self, session: SessionToken, request: CreateTokenRequest) -> Result<TextResponse> {
        let who = self.admin(&session).await?;
        let expires_ms = self.now_ms() + valid(request.valid_ms)?;
        let id = TokenId(self.env.random());
        let secret = self.env.random();
        let token = Token { id, secret, role: request.role, expires_ms, replace: request.replace, used: false };
        self.propose(self.request_id(), Some(who.account), Command::CreateToken(token)).await?;
        let token =
            JoinToken { root: self.root.fingerprint(), id, role: request.role, secret, expires_ms, coordinators: self.addresses().await? };
        Ok(TextResponse { text: token.to_text(), expires_ms })
    }

    /// Makes an invite. Admins only.
    pub async fn create_invite(&self, session: SessionToken, request: CreateInviteRequest) -> Result<TextResponse> {
        let who = self.admin(&session).await?;
        let expires_ms = self.now_ms() + valid(request.valid_ms)?;
        let name = canonical_name(&request.name)?;
        let (invite, secret) = new_invite(&self.env, name, request.admin, request.quota, expires_ms);
        let text = InviteText {
            root: self.root.fingerprint(),
            id: invite.id,
            secret,
            name: invite.name.clone(),
            expires_ms,
            coordinators: self.addresses().await?,
        };
        self.propose(self.request_id(), Some(who.account), Command::CreateInvite(invite)).await?;
        Ok(TextResponse { text: text.to_text(), expires_ms })
    }

    /// Gives a certificate to the holder of a join token. `binding`: this connection's exporter.
    pub async fn join(&self, request: JoinRequest, binding: &[u8; 32]) -> Result<JoinResponse> {
        wire::PROTOCOL.admit(request.protocol)?;
        let denied = || Error::denied("this join token is not valid: it was used, has expired, or is not for this role");
        let Answer::Token(token) = self.ask(Query::Token(request.token)).await? else { return Err(confused()) };
        let token = token.ok_or_else(denied)?;
        check_join_proof(&token.secret, request.token, request.role, binding, &request.key, &request.proof).map_err(|_| denied())?;
        if token.used || token.role != request.role || token.expires_ms <= self.now_ms() {
            return Err(denied());
        }
        let command = Command::ConsumeToken { token: request.token, role: request.role, key: Hash::of(&request.key) };
        let outcome = self.command(command).await.map_err(|e| if e.kind == model::Kind::Denied { denied() } else { e })?;
        let Outcome::Joined { node, coordinator } = outcome else { return Err(confused()) };
        let id = match (node, coordinator) {
            (Some(node), None) => ServerId::Node(node),
            (None, Some(coordinator)) => ServerId::Coordinator(coordinator),
            _ => return Err(confused()),
        };
        let certificate = self.certify(id, &request.key)?;
        tracing::info!(%id, "a server joined");
        let mut coordinators: Vec<_> = self.view().await?.coordinators.into_iter().map(|c| (c.id, c.address)).collect();
        coordinators.retain(|(_, address)| !address.is_empty());
        Ok(JoinResponse {
            cluster: self.cluster,
            root: self.root.cert_der().to_vec().into(),
            certificate: certificate.into(),
            node,
            coordinator,
            coordinators,
        })
    }

    fn certify(&self, id: ServerId, key: &[u8]) -> Result<Vec<u8>> {
        self.root.issue(id, self.cluster, key, self.settled_ms()?, CERTIFICATE_VALIDITY)
    }

    /// A node lives. `node` is who its certificate says it is.
    pub async fn heartbeat(&self, node: NodeId, mut request: HeartbeatRequest) -> Result<HeartbeatResponse> {
        if request.devices.len() > DEVICES_MAX || request.address.len() > 256 || request.zone.len() > 64 || request.version.len() > 64 {
            return Err(Error::invalid("a heartbeat with impossible fields"));
        }
        // Nodes of the first version did not say.
        if request.protocol != wire::Version::default() {
            wire::PROTOCOL.admit(request.protocol)?;
        }
        let view = self.view().await?;
        let Some(known) = view.nodes.iter().find(|n| n.id == node) else {
            self.stranger(node, &request.address).await;
            return Err(Error::denied("this node is not a member of the cluster")
                .hint("make a token with shardkeep cluster token node, and start it with --join: it joins anew with what it holds"));
        };
        self.hear_clock(ServerId::Node(node), request.now_ms);
        let certificate = match request.renew.take() {
            Some(key) if Hash::of(&key) == known.key => Some(self.certify(ServerId::Node(node), &key)?.into()),
            Some(_) => return Err(Error::denied("a certificate is renewed for the same key only")),
            None => None,
        };
        if changed(known, &request) {
            let HeartbeatRequest { address, zone, devices, version, .. } = request.clone();
            self.command(Command::UpdateNode { node, address, zone, devices, version }).await?;
            self.lay_out_if_possible().await;
        }
        let Answer::Totals(totals) = self.ask(Query::Totals).await? else { return Err(confused()) };
        let at = self.now();
        let wanting = {
            let heard = &mut self.memory().heard;
            let owes = match heard.get(&node) {
                Some(last) if last.heartbeat.started_ms == request.started_ms && at.saturating_sub(last.at) < self.limits.suspect => {
                    last.owes
                }
                // It may have been here all the time, heard by another leader.
                None if !matches!(known.state, NodeState::Down | NodeState::Out) => 0,
                _ => totals.feed,
            };
            heard.insert(node, Heard { at, heartbeat: request, owes });
            heard.iter().filter(|(_, h)| h.heartbeat.repair.shards > 0).map(|(id, _)| *id).collect()
        };
        Ok(HeartbeatResponse {
            layouts: view.layouts,
            feed: totals.feed,
            coordinators: view.coordinators.into_iter().map(|c| c.address).filter(|a| !a.is_empty()).collect(),
            certificate,
            time_ms: view.time_ms,
            revision: view.revision,
            life: view.life,
            wanting,
            busy: self.is_busy(),
        })
    }

    /// A node calls that is no member: the operator hears of it once.
    async fn stranger(&self, node: NodeId, address: &str) {
        if self.memory().strangers_told.insert(node) {
            let detail = format!(
                "node-{node}, which is no member, calls from {}: it was removed, or joined after the backup from which this \
                 catalog was restored; started with a new token it joins anew, with what it holds",
                clean(address)
            );
            self.event(&format!("node-{node}"), "node-unknown", None, detail).await;
        }
    }

    /// Makes the first layout of the default policy as soon as enough nodes have joined.
    pub async fn lay_out_if_possible(&self) {
        let Ok(view) = self.view().await else { return };
        let width = view.policy.width();
        let ready = view.nodes.iter().filter(|n| !n.devices.is_empty()).count();
        if ready < width as usize || view.layouts.iter().any(|(w, _)| *w == width) {
            return;
        }
        match self.make_layout(width).await {
            Ok(()) => tracing::info!(width, nodes = ready, "the first layout is made"),
            Err(e) => tracing::warn!(error = %e, "the first layout could not be made"),
        }
    }

    /// A client found a bad shard.
    pub async fn report_shard(&self, session: SessionToken, request: ReportShardRequest) -> Result<()> {
        let who = self.who(&session).await?;
        let detail = format!(
            "shard {} of chunk {}/{}: {}",
            request.shard.index,
            request.shard.chunk.object,
            request.shard.chunk.number,
            clean(&request.detail)
        );
        let source = format!("account {}", who.name);
        self.event(&source, "shard-bad-answer", Some(request.node), format!("{detail} (seen by {source})")).await;
        Ok(())
    }

    /// A node reports something for the log.
    pub async fn report_peer(&self, node: NodeId, request: ReportPeerRequest) -> Result<()> {
        let word =
            !request.what.is_empty() && request.what.len() <= 40 && request.what.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
        if !word {
            return Err(Error::invalid("the kind of an event is a word"));
        }
        self.try_event(&format!("node {node}"), &request.what, Some(node), clean(&request.detail)).await
    }

    async fn addresses(&self) -> Result<Vec<String>> {
        Ok(self.view().await?.coordinators.into_iter().map(|c| c.address).filter(|a| !a.is_empty()).collect())
    }
}

/// A fresh invite with its secret.
pub(crate) fn new_invite(env: &env::Env, name: String, admin: bool, quota: Option<u64>, expires_ms: u64) -> (Invite, [u8; 32]) {
    let secret: [u8; 32] = env.random();
    (Invite { id: InviteId(env.random()), secret_hash: Hash::of(&secret), name, admin, quota, expires_ms }, secret)
}

fn valid(valid_ms: u64) -> Result<u64> {
    if valid_ms == 0 || valid_ms > LONGEST_MS {
        return Err(Error::invalid("tokens and invites are valid for 90 days at most"));
    }
    Ok(valid_ms)
}

/// Whether the catalog must hear of a heartbeat: use alone is no reason, nor is a capacity that moves
/// by less than a twentieth (what a file system has left for us changes with its other files).
fn changed(known: &Node, heartbeat: &HeartbeatRequest) -> bool {
    let close = |a: u64, b: u64| a.abs_diff(b) <= a / 20;
    let same = |a: &Device, b: &Device| a.id == b.id && close(a.capacity, b.capacity) && a.problem == b.problem;
    known.address != heartbeat.address
        || known.zone != heartbeat.zone
        || known.version != heartbeat.version
        || known.devices.len() != heartbeat.devices.len()
        || !known.devices.iter().zip(&heartbeat.devices).all(|(a, b)| same(a, b))
}

/// Text from a peer as it may stand in the log: short, one line, printable.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(DETAIL_MAX).collect()
}
