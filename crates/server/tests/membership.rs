//! Servers join with a token, once; what they may do stands in their certificate.

mod support;

use model::cluster::{NodeState, ServerRole};
use model::command::{Answer, Query};
use model::{Hash, Kind, NodeId};
use server::node::{Node, NodeConfig};
use support::*;
use transport::ServerKey;
use transport::{JoinToken, join_proof};
use wire::coordinator::*;

#[tokio::test(flavor = "multi_thread")]
async fn nodes_join_and_the_first_layout_makes_itself() {
    let (cluster, admin) = Cluster::whole().await;
    let layout = admin.layout(4).await;
    assert_eq!(layout.devices.len(), 4);
    let status = admin.status().await;
    assert!(status.nodes.iter().all(|n| n.heartbeat.is_some()));
    assert_eq!(status.cluster.nodes.iter().map(|n| n.id).collect::<Vec<_>>(), [1, 2, 3, 4].map(NodeId));
    assert_eq!(cluster.nodes[2].as_ref().unwrap().node, NodeId(3));
    eventually(&cluster.env, "all nodes are up", || async { admin.status().await.nodes.iter().all(|n| n.state == NodeState::Up) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_good_once() {
    let mut cluster = Cluster::start().await;
    let admin = cluster.register(&cluster.invite.clone()).await.unwrap();
    let token = admin.token(None).await;
    cluster.start_node(0, Some(token.clone())).await.unwrap();
    let again = cluster.start_node(1, Some(token)).await.unwrap_err();
    assert_eq!((again.kind, again.message.as_str()), (Kind::Denied, "this join token is not valid: it was used, has expired, or is not for this role"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_a_tampered_and_a_foreign_token_are_refused() {
    let mut cluster = Cluster::start().await;
    let admin = cluster.register(&cluster.invite.clone()).await.unwrap();

    let request = CreateTokenRequest { role: ServerRole::Node, valid_ms: 1, replace: None };
    let expired = admin.rpc::<CreateToken, _>(request).await.unwrap().text;
    cluster.env.sleep(std::time::Duration::from_millis(20)).await;
    assert_eq!(cluster.start_node(0, Some(expired)).await.unwrap_err().kind, Kind::Denied);

    let good = JoinToken::parse(&admin.token(None).await).unwrap();
    let secret = JoinToken { secret: [1; 32], ..good.clone() };
    assert_eq!(cluster.start_node(0, Some(secret.to_text())).await.unwrap_err().kind, Kind::Denied);
    // Attack 37: a server that is not the one pinned.
    let root = JoinToken { root: Hash([1; 32]), ..good.clone() };
    assert!(cluster.start_node(0, Some(root.to_text())).await.is_err());
    let typo = good.to_text().replacen("sk-join-", "sk-join-a", 1);
    assert_eq!(cluster.start_node(0, Some(typo)).await.unwrap_err().kind, Kind::Invalid);
    // None of that used it up.
    cluster.start_node(0, Some(good.to_text())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_without_a_card_needs_a_token() {
    let cluster = Cluster::start().await;
    let config = NodeConfig::new(cluster.node_dir(0), "127.0.0.1:0");
    let refused = Node::start(cluster.env.clone(), config).await.err().unwrap();
    assert_eq!(refused.kind, Kind::Denied);
    assert_eq!(refused.hint.as_deref(), Some("shardkeep cluster token node"));
}

/// Attack 29 and 37: the proof of a token made for one connection is worth nothing on another.
#[tokio::test(flavor = "multi_thread")]
async fn attack_37_a_join_proof_cannot_be_replayed_on_another_connection() {
    let cluster = Cluster::start().await;
    let admin = cluster.register(&cluster.invite.clone()).await.unwrap();
    let token = JoinToken::parse(&admin.token(None).await).unwrap();
    let key = ServerKey::generate(&cluster.env).unwrap();
    let first = cluster.pool().connect_once(&cluster.at(), SOON).await.unwrap();
    let proof = join_proof(&token.secret, token.id, ServerRole::Node, &first.binding().exporter, key.spki());
    let request = JoinRequest {
        token: token.id,
        role: ServerRole::Node,
        key: key.spki().to_vec().into(),
        proof: proof.to_vec().into(),
        protocol: wire::PROTOCOL,
    };
    assert_eq!(cluster.rpc::<Join>(&request).await.unwrap_err().kind, Kind::Denied);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_admins_make_tokens_and_invites() {
    let cluster = Cluster::start().await;
    let admin = cluster.register(&cluster.invite.clone()).await.unwrap();
    let ada = cluster.register(&admin.invite("ada").await).await.unwrap();
    let token = CreateTokenRequest { role: ServerRole::Node, valid_ms: 1000, replace: None };
    assert_eq!(ada.rpc::<CreateToken, _>(token).await.unwrap_err().kind, Kind::Denied);
    let invite = CreateInviteRequest { name: "eve".into(), admin: true, quota: None, valid_ms: 1000 };
    assert_eq!(ada.rpc::<CreateInvite, _>(invite).await.unwrap_err().kind, Kind::Denied);
    assert_eq!(ada.ask(Query::Events { after: 0, limit: 9 }).await.unwrap_err().kind, Kind::Denied);
    assert!(matches!(admin.ask(Query::Events { after: 0, limit: 9 }).await, Ok(Answer::Events(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_certificate_is_no_server() {
    let cluster = Cluster::start().await;
    assert_eq!(cluster.rpc::<AskPeer>(&Query::Cluster).await.unwrap_err().kind, Kind::Denied);
    let report = ReportPeerRequest { what: "shard-corrupt".into(), detail: String::new() };
    assert_eq!(cluster.rpc::<ReportPeer>(&report).await.unwrap_err().kind, Kind::Denied);
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_of_the_catalog_are_answered_to_nobody() {
    let (cluster, admin) = Cluster::whole().await;
    for query in [
        Query::Genesis,
        Query::AccountByName("admin".into()),
        Query::Session(Hash([0; 32])),
        Query::Token(model::TokenId([0; 16])),
        Query::Invite(model::InviteId([0; 16])),
        Query::Feed { after: 0, limit: 1 },
    ] {
        assert_eq!(admin.ask(query).await.unwrap_err().kind, Kind::Denied);
    }
    let other = Query::Space { space: admin.account.home, account: model::AccountId([9; 16]) };
    assert_eq!(admin.ask(other).await.unwrap_err().kind, Kind::Denied);
    drop(cluster);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_restarts_knows_everything_and_gives_no_second_invite() {
    let (mut cluster, admin) = Cluster::whole().await;
    let before = admin.layout(4).await;
    cluster.restart_coordinator().await;
    let again = cluster.coordinator.as_ref().unwrap();
    assert_eq!((again.cluster, again.fingerprint, again.invite.as_ref()), (cluster.cluster, cluster.fingerprint, None));
    assert_eq!(admin.layout(4).await, before);
    cluster.login("admin", PASSWORD).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_cannot_share_a_folder() {
    let mut cluster = Cluster::start().await;
    let admin = cluster.register(&cluster.invite.clone()).await.unwrap();
    let token = admin.token(None).await;
    cluster.start_node(0, Some(token)).await.unwrap();
    let config = NodeConfig::new(cluster.node_dir(0), "127.0.0.1:0");
    assert_eq!(Node::start(cluster.env.clone(), config).await.err().unwrap().kind, Kind::Conflict);
}
