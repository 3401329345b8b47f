//! Changes of the layouts, as operators ask for them and the leader begins them.

use crate::support::*;
use model::cluster::NodeState;
use model::command::{Answer, Query};
use model::{Epoch, Kind, Layout, NodeId};
use wire::coordinator::*;

fn add(nodes: &[NodeId], expect: &[(u8, Epoch)]) -> ChangeRequest {
    ChangeRequest { add: nodes.to_vec(), drain: vec![], expect: expect.to_vec() }
}

fn nodes_of(layout: &Layout) -> Vec<NodeId> {
    catalog::layout::holders(layout).into_iter().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_taken_in_as_planned() {
    let (mut cluster, admin) = Cluster::whole().await;
    let token = admin.token(None).await;
    let fifth = cluster.start_node(4, Some(token)).await.unwrap();
    let plan = admin.rpc::<PlanLayout, _>(add(&[fifth], &[])).await.unwrap();
    assert_eq!((plan.why.as_str(), plan.widths.len(), plan.moved_bytes), ("add node-5", 1, 0));
    let width = &plan.widths[0];
    assert_eq!((width.width, width.epoch, width.slots, width.moved, width.minimum), (4, Epoch(1), 64, 12, 12));
    let gains: Vec<(u64, u64, u64)> = width.devices.iter().map(|d| (d.before, d.gains, d.gives)).collect();
    assert_eq!(gains.iter().filter(|g| **g == (0, 12, 0)).count(), 1);
    assert!(gains.iter().filter(|g| g.0 == 16).all(|g| g.1 == 0 && g.2 == 3));
    // A plan changes nothing.
    assert_eq!(admin.layout(4).await.epoch, Epoch(1));
    let ada = cluster.register(&admin.invite("ada").await).await.unwrap();
    assert_eq!(ada.rpc::<PlanLayout, _>(add(&[fifth], &[])).await.unwrap_err().kind, Kind::Denied);
    assert_eq!(ada.rpc::<ApplyLayout, _>(add(&[fifth], &[])).await.unwrap_err().kind, Kind::Denied);
    assert_eq!(admin.rpc::<ApplyLayout, _>(add(&[fifth], &[(4, Epoch(7))])).await.unwrap_err().kind, Kind::Conflict);
    assert_eq!(admin.rpc::<ApplyLayout, _>(add(&[fifth], &[(4, Epoch(1))])).await.unwrap(), plan);
    let layout = admin.layout(4).await;
    assert_eq!((layout.epoch, nodes_of(&layout).len()), (Epoch(2), 5));
    let before = admin.ask(Query::LayoutAt { width: 4, epoch: Epoch(1), have: None }).await.unwrap();
    assert!(matches!(before, Answer::Layout(Some(l)) if l.epoch == Epoch(1)));
    let change = admin.status().await.cluster.changes.remove(0);
    assert_eq!((change.why.as_str(), change.to, change.moved), ("add node-5", Epoch(2), 12));
}

#[tokio::test(flavor = "multi_thread")]
async fn unsafe_placement_is_refused_with_the_reason() {
    let (_cluster, admin) = Cluster::whole().await;
    let drain = ChangeRequest { drain: vec![NodeId(2)], ..ChangeRequest::default() };
    for refused in [admin.rpc::<PlanLayout, _>(drain.clone()).await, admin.rpc::<ApplyLayout, _>(drain).await] {
        let refused = refused.unwrap_err();
        assert_eq!(refused.kind, Kind::Invalid);
        assert_eq!(refused.message, "policy 2+2 puts every shard of a chunk on a node of its own, 4 in all, and only 3 would remain");
        assert!(refused.hint.unwrap().contains("cluster token node"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_02_a_node_that_is_out_is_planned_around_by_itself() {
    let (mut cluster, admin) = Cluster::whole_with_out(std::time::Duration::from_secs(6)).await;
    let token = admin.token(None).await;
    let fifth = cluster.start_node(4, Some(token)).await.unwrap();
    admin.rpc::<ApplyLayout, _>(add(&[fifth], &[])).await.unwrap();
    let lost = cluster.nodes[1].as_ref().unwrap().node;
    cluster.stop_node(1).await;
    let env = cluster.env.clone();
    eventually(&env, "the layout does without the lost node", || async {
        let layout = admin.layout(4).await;
        !nodes_of(&layout).contains(&lost)
    })
    .await;
    let status = admin.status().await;
    assert!(status.cluster.nodes.iter().any(|n| n.id == lost && n.state == NodeState::Out));
    let layout = admin.layout(4).await;
    assert!(layout.epoch > Epoch(1));
    assert_eq!(nodes_of(&layout).len(), 4);
}

/// With as many nodes as shards there is nowhere else to put them.
#[tokio::test(flavor = "multi_thread")]
async fn rule_03_out_leaves_a_slot_vacant() {
    let (mut cluster, admin) = Cluster::whole_with_out(std::time::Duration::from_secs(6)).await;
    let lost = cluster.nodes[1].as_ref().unwrap().node;
    cluster.stop_node(1).await;
    let env = cluster.env.clone();
    eventually(&env, "the node is out", || async {
        admin.status().await.cluster.nodes.iter().any(|n| n.id == lost && n.state == NodeState::Out)
    })
    .await;
    cluster.env.sleep(std::time::Duration::from_secs(3)).await;
    assert_eq!(admin.layout(4).await.epoch, Epoch(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_wants_to_be_taken_in_is() {
    let (mut cluster, admin) = Cluster::whole().await;
    let token = admin.token(None).await;
    let fifth = cluster.start_eager_node(4, token).await.unwrap();
    let env = cluster.env.clone();
    eventually(&env, "it holds slots", || async { nodes_of(&admin.layout(4).await).contains(&fifth) }).await;
}

/// The whole way: taken in, emptied, forgotten; each change ends by itself when all nodes are settled.
#[tokio::test(flavor = "multi_thread")]
async fn rule_01_changes_end_when_every_node_is_settled() {
    let (mut cluster, admin) = Cluster::whole().await;
    let upload = admin.upload(1).await;
    let object = upload.objects[0];
    for number in 0..12 {
        let chunk = model::ChunkRef { object, number };
        admin.store_chunk(&upload, chunk, vec![number as u8; 4000], &[]).await;
    }
    admin.commit(&upload, object, 12, 12 * 4000, vec![]).await.unwrap();
    let token = admin.token(None).await;
    let fifth = cluster.start_node(4, Some(token)).await.unwrap();
    admin.rpc::<ApplyLayout, _>(add(&[fifth], &[])).await.unwrap();
    let env = cluster.env.clone();
    let idle = || async { admin.status().await.cluster.changes.is_empty() };
    eventually(&env, "node-5 is taken in", idle).await;
    assert_eq!(admin.ask(Query::LayoutAt { width: 4, epoch: Epoch(1), have: None }).await.unwrap(), Answer::Layout(None));
    let drain = ChangeRequest { drain: vec![NodeId(2)], ..ChangeRequest::default() };
    let plan = admin.rpc::<ApplyLayout, _>(drain).await.unwrap();
    assert!(plan.moved_bytes > 0 && plan.minimum_bytes > 0, "{plan:?}");
    // A second change waits.
    let second = admin.rpc::<ApplyLayout, _>(ChangeRequest { drain: vec![NodeId(3)], ..ChangeRequest::default() }).await;
    assert!(matches!(second.unwrap_err().kind, Kind::Conflict | Kind::Unavailable));
    eventually(&env, "node-2 is emptied", idle).await;
    let status = admin.status().await;
    let row = status.nodes.iter().find(|n| n.node == NodeId(2)).unwrap();
    assert_eq!(row.heartbeat.as_ref().unwrap().devices[0].shards, 0);
    assert!(status.cluster.nodes.iter().any(|n| n.id == NodeId(2) && n.state == NodeState::Draining));
    assert_eq!(status.nodes.iter().map(|n| n.heartbeat.as_ref().unwrap().devices[0].shards).sum::<u64>(), 48);
    cluster.stop_node(1).await;
    admin.rpc::<Administer, _>(Administration::RemoveNode(NodeId(2))).await.unwrap();
    assert!(admin.status().await.cluster.nodes.iter().all(|n| n.id != NodeId(2)));
}

/// Gone for good while it still holds shards: they are rebuilt, then it is forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_removed_with_its_shards_counts_as_lost() {
    let (mut cluster, admin) = Cluster::whole().await;
    assert_eq!(admin.rpc::<Administer, _>(Administration::RemoveNode(NodeId(2))).await.unwrap_err().kind, Kind::Invalid);
    let token = admin.token(None).await;
    let fifth = cluster.start_node(4, Some(token)).await.unwrap();
    admin.rpc::<ApplyLayout, _>(add(&[fifth], &[])).await.unwrap();
    // During the change: it supersedes it.
    admin.rpc::<Administer, _>(Administration::RemoveNode(NodeId(2))).await.unwrap();
    let env = cluster.env.clone();
    eventually(&env, "node-2 is forgotten", || async { admin.status().await.cluster.nodes.iter().all(|n| n.id != NodeId(2)) }).await;
    assert_eq!(nodes_of(&admin.layout(4).await).len(), 4);
    assert!(admin.status().await.cluster.changes.is_empty());
}
