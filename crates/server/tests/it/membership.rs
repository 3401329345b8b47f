//! Servers join with a token, once; what they may do stands in their certificate.

use crate::support::*;
use env::DiskExt;
use model::cluster::{NodeState, ServerRole};
use model::command::{Answer, Query};
use model::{Hash, Kind, NodeId};
use server::node::{Node, NodeConfig};
use std::sync::atomic::Ordering;
use std::time::Duration;
use transport::{JoinToken, Mode, ServerKey, Target, join_proof};
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
    assert_eq!(
        (again.kind, again.message.as_str()),
        (Kind::Denied, "this join token is not valid: it was used, has expired, or is not for this role")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_a_tampered_and_a_foreign_token_are_refused() {
    let mut cluster = Cluster::start().await;
    let admin = cluster.register(&cluster.invite.clone()).await.unwrap();

    let request = CreateTokenRequest { role: ServerRole::Node, valid_ms: 1, replace: None };
    let expired = admin.rpc::<CreateToken, _>(request).await.unwrap().text;
    cluster.env.sleep(Duration::from_millis(20)).await;
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

/// Attack 37: a node that poses as a coordinator.
#[tokio::test(flavor = "multi_thread")]
async fn attack_37_a_nodes_certificate_is_no_coordinators() {
    let (cluster, _admin) = Cluster::whole().await;
    let node = cluster.nodes[0].as_ref().unwrap();
    let posing = Target::coordinator(&node.address).with(Mode::Control);
    assert_eq!(cluster.pool().rpc::<Hello>(&posing, &wire::PROTOCOL, SOON).await.unwrap_err().kind, Kind::Denied);
    let other = Target::node(NodeId(99), &node.address).with(Mode::Control);
    assert_eq!(cluster.pool().rpc::<Hello>(&other, &wire::PROTOCOL, SOON).await.unwrap_err().kind, Kind::Denied);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_node_is_down_and_comes_back_up() {
    let (mut cluster, admin) = Cluster::whole().await;
    let id = cluster.nodes[3].as_ref().unwrap().node;
    let env = cluster.env.clone();
    let is = |states: &'static [NodeState]| {
        let admin = &admin;
        move || async move { admin.status().await.nodes.iter().any(|n| n.node == id && states.contains(&n.state)) }
    };
    eventually(&env, "the node is up", is(&[NodeState::Up])).await;
    cluster.stop_node(3).await;
    eventually(&env, "the node is suspect", is(&[NodeState::Suspect, NodeState::Down])).await;
    eventually(&env, "the node is down", is(&[NodeState::Down])).await;
    eventually(&env, "the catalog says so too", || async {
        admin.status().await.cluster.nodes.iter().any(|n| n.id == id && n.state == NodeState::Down)
    })
    .await;
    cluster.start_node(3, None).await.unwrap();
    eventually(&env, "the node is up again", is(&[NodeState::Up])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_beyond_the_first_layout_stays_joining() {
    let (mut cluster, admin) = Cluster::whole().await;
    let token = admin.token(None).await;
    let id = cluster.start_node(4, Some(token)).await.unwrap();
    cluster.env.sleep(Duration::from_millis(2500)).await;
    assert!(admin.status().await.cluster.nodes.iter().any(|n| n.id == id && n.state == NodeState::Joining));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nodes_certificate_is_renewed_before_it_ends() {
    const DAY: u64 = 86_400_000;
    let (env, shift) = shifted();
    let mut cluster = Cluster::start_in(env.clone()).await;
    let mut admin = cluster.register(&cluster.invite.clone()).await.unwrap();
    let token = admin.token(None).await;
    let id = cluster.start_node(0, Some(token)).await.unwrap();
    let card = || env.disk.read(&cluster.node_dir(0).join("node")).unwrap();
    let before = card();
    shift.store(61 * DAY, Ordering::Relaxed);
    eventually(&env, "the certificate on disk is another", || async { card() != before }).await;
    // The first certificate would have ended by now; the coordinator makes its own at each start.
    shift.store(100 * DAY, Ordering::Relaxed);
    cluster.restart_coordinator().await;
    cluster.login_again(&mut admin).await;
    eventually(&env, "the node is heard", || async { admin.status().await.nodes.iter().any(|n| n.node == id && n.heartbeat.is_some()) })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_whose_clock_is_ahead_does_not_move_the_catalogs_time() {
    const DAY: u64 = 86_400_000;
    let (mut cluster, mut admin) = Cluster::whole().await;
    let real = std::mem::replace(&mut cluster.env, ahead(40 * DAY + 60_000));
    cluster.restart_coordinator().await;
    cluster.login_again(&mut admin).await;
    let status = admin.status().await;
    let off = status.cluster.time_ms.abs_diff(real.now_ms());
    assert!(off < DAY / 24, "the catalog's time is {} days ahead", off / DAY);
    let told = async || {
        let Answer::Events(events) = admin.ask(Query::Events { after: 0, limit: 1000 }).await.unwrap() else { panic!() };
        events.iter().any(|e| e.what == "clock-jump" && e.detail.contains("960 h ahead"))
    };
    eventually(&real, "it is told", told).await;
    // What it signs is good where clocks are right.
    let upload = admin.upload(1).await;
    let chunk = model::ChunkRef { object: upload.objects[0], number: 0 };
    admin.store_chunk(&upload, chunk, vec![7; 50_000], &[]).await;
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
