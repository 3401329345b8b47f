use super::*;
use model::Kind;
use model::cluster::Device;
use model::{CoordinatorId, DeviceId, Hash, PublicKey};

fn node(id: u64, state: NodeState) -> Node {
    let device = Device { id: DeviceId([id as u8; 16]), capacity: 1000, used: 0, problem: None, shards: 0 };
    Node {
        id: NodeId(id),
        name: format!("node-{id}"),
        address: format!("192.0.2.{id}:10000"),
        zone: String::new(),
        devices: vec![device],
        state,
        key: Hash([0; 32]),
        version: String::new(),
        draining: state == NodeState::Draining,
        leaving: false,
    }
}

/// Nodes 1… in these states; 2+2.
fn cluster(states: &[NodeState]) -> ClusterView {
    ClusterView {
        nodes: (1..).zip(states).map(|(id, state)| node(id, *state)).collect(),
        coordinators: vec![],
        leader: Some(CoordinatorId(1)),
        policy: model::Policy::DEFAULT,
        layouts: vec![(4, Epoch(1))],
        capability_key: PublicKey([0; 32]),
        time_ms: 0,
        power: 4,
        revision: 1,
        changes: vec![],
        life: Default::default(),
        recoded_ms: 0,
    }
}

fn ids(ids: &[u64]) -> Vec<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

/// A layout of a width over these nodes.
fn over(width: u8, nodes: &[u64]) -> BTreeMap<u8, Readable> {
    let nodes: BTreeSet<NodeId> = ids(nodes).into_iter().collect();
    BTreeMap::from([(
        width,
        Readable { current: Placed { members: nodes.clone(), holders: nodes, devices: BTreeSet::new() }, earlier: vec![] },
    )])
}

fn asks(add: &[u64], drain: &[u64]) -> ChangeRequest {
    ChangeRequest { add: ids(add), drain: ids(drain), expect: vec![] }
}

use NodeState::{Down, Draining, Joining, Out, Up};

#[test]
fn nodes_are_taken_in_by_name_or_all_that_wait() {
    let view = cluster(&[Up, Up, Up, Up, Joining, Joining]);
    let now = over(4, &[1, 2, 3, 4]);
    let one = wish(&view, &now, &asks(&[5], &[])).unwrap();
    assert_eq!((one.members.into_iter().collect::<Vec<_>>(), one.why.as_str()), (ids(&[1, 2, 3, 4, 5]), "add node-5"));
    let all = wish(&view, &now, &asks(&[], &[])).unwrap();
    assert_eq!((all.members.len(), all.why.as_str()), (6, "add node-5, node-6"));
    let both = wish(&view, &now, &asks(&[6], &[2])).unwrap();
    assert_eq!((both.members.into_iter().collect::<Vec<_>>(), both.why.as_str()), (ids(&[1, 3, 4, 6]), "add node-6; drain node-2"));
    // Draining alone takes nobody in.
    assert_eq!(wish(&view, &now, &asks(&[], &[1])).unwrap().members.into_iter().collect::<Vec<_>>(), ids(&[2, 3, 4]));
    let nobody = cluster(&[Up, Up, Up, Up]);
    assert_eq!(wish(&nobody, &now, &asks(&[], &[])).unwrap().why, "balance anew");
}

#[test]
fn what_cannot_be_is_refused_with_the_reason() {
    let view = cluster(&[Up, Up, Up, Up, Out, Down, Draining]);
    let now = over(4, &[1, 2, 3, 4]);
    let refused = |add: &[u64], drain: &[u64]| wish(&view, &now, &asks(add, drain)).err().map(|e| (e.kind, e.message)).unwrap();
    assert_eq!(refused(&[9], &[]), (Kind::NotFound, "there is no node-9".into()));
    assert_eq!(refused(&[], &[9]), (Kind::NotFound, "there is no node-9".into()));
    assert_eq!(refused(&[1], &[]), (Kind::Exists, "node-1 holds shards already".into()));
    assert_eq!(refused(&[5], &[]).0, Kind::Unavailable);
    assert_eq!(refused(&[6], &[]).0, Kind::Unavailable);
    assert_eq!(refused(&[2], &[2]).0, Kind::Invalid);
    assert_eq!(refused(&[], &[7]), (Kind::Exists, "node-7 is drained already".into()));
    let few = check_count(&view, 4, 3).unwrap_err();
    assert_eq!(few.message, "policy 2+2 puts every shard of a chunk on a node of its own, 4 in all, and only 3 would remain");
}

#[test]
fn a_drained_node_is_kept_when_it_is_added_again() {
    let view = cluster(&[Up, Up, Up, Up, Draining]);
    let kept = wish(&view, &over(4, &[1, 2, 3, 4]), &asks(&[5], &[])).unwrap();
    assert_eq!((kept.keep, kept.members.len()), (ids(&[5]), 5));
}

#[test]
fn rule_02_a_node_that_is_out_is_planned_around() {
    let view = cluster(&[Up, Up, Out, Up, Up, Joining]);
    let (wish, widths) = loss(&view, &over(4, &[1, 2, 3, 4, 5])).unwrap();
    assert_eq!((wish.members.into_iter().collect::<Vec<_>>(), wish.why.as_str(), wish.loss), (ids(&[1, 2, 4, 5]), "node-3 is out", true));
    assert_eq!(widths, [4]);
    // Once planned around there is nothing more to do.
    assert!(loss(&view, &over(4, &[1, 2, 4, 5])).is_none());
}

#[test]
fn rule_03_out_leaves_slots_vacant_where_too_few_nodes_remain() {
    let view = cluster(&[Up, Up, Out, Up, Joining]);
    assert!(loss(&view, &over(4, &[1, 2, 3, 4])).is_none());
    // A narrower width goes on meanwhile.
    let mut widths = over(4, &[1, 2, 3, 4]);
    widths.extend(over(2, &[1, 2, 3, 4]));
    assert_eq!(loss(&view, &widths).unwrap().1, [2]);
}

#[test]
fn a_node_to_be_emptied_holds_on_where_it_is_needed() {
    let view = cluster(&[Up, Up, Out, Up, Draining]);
    let (wish, _) = loss(&view, &over(4, &[1, 2, 3, 4, 5])).unwrap();
    assert_eq!(wish.members.into_iter().collect::<Vec<_>>(), ids(&[1, 2, 4, 5]));
}

#[test]
fn a_plan_that_does_not_fit_names_the_node() {
    let device = |id: u8, gains, gives| DeviceMove { device: DeviceId([id; 16]), node: NodeId(u64::from(id)), before: 4, gains, gives };
    let plan = |devices| PlanResponse {
        widths: vec![WidthPlan { width: 4, epoch: Epoch(1), slots: 16, moved: 4, minimum: 4, balance_ppm: 0, devices }],
        moved_bytes: 0,
        minimum_bytes: 0,
        why: String::new(),
    };
    let (bytes, free) = (BTreeMap::from([(4, 1600)]), BTreeMap::from([(DeviceId([1; 16]), 300), (DeviceId([2; 16]), 1000)]));
    let short = |devices| short_of_room(&plan(devices), &bytes, &free);
    assert_eq!(short(vec![device(1, 3, 0), device(2, 10, 0)]), None);
    assert_eq!(short(vec![device(1, 4, 0), device(2, 0, 4)]), Some((NodeId(1), 100)));
    // What goes away makes room, and of one that has not said how full it is nothing is known.
    assert_eq!(short(vec![device(1, 4, 1), device(3, 16, 0)]), None);
}

#[test]
fn disks_that_are_gone_are_planned_around_where_enough_nodes_are_left() {
    let view = cluster(&[Up, Up, Up, Up, Down]);
    let mut now = over(4, &[1, 2, 3, 4, 5]);
    let gone = DeviceId([77; 16]);
    now.get_mut(&4).unwrap().current.devices = BTreeSet::from([(NodeId(2), gone), (NodeId(1), DeviceId([1; 16]))]);
    assert!(disks_lost(&view, &now, &BTreeSet::new()).is_none());
    let (wish, widths) = disks_lost(&view, &now, &BTreeSet::from([gone])).unwrap();
    assert_eq!((wish.why.as_str(), wish.loss, widths), ("a disk of node-2 is gone", true, vec![4]));
    assert_eq!(wish.members, ids(&[1, 2, 3, 4, 5]).into_iter().collect());
    let few = cluster(&[Up, Up, Up, Out, Out]);
    assert!(disks_lost(&few, &now, &BTreeSet::from([gone])).is_none());
}
