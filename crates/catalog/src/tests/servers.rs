//! Join tokens, nodes, their layouts, and the log of events.

use super::*;
use model::Layout;
use model::cluster::{Event, Node, NodeState};

fn node(world: &World, id: NodeId) -> Node {
    match world.ask(&Query::Cluster) {
        Answer::Cluster(view) => view.nodes.into_iter().find(|n| n.id == id).expect("the node"),
        other => panic!("{other:?}"),
    }
}

fn layout(world: &World, width: u8) -> Layout {
    match world.ask(&Query::Layout(width)) {
        Answer::Layout(Some(layout)) => layout,
        other => panic!("{other:?}"),
    }
}

fn events(world: &World) -> Vec<Event> {
    match world.ask(&Query::Events { after: 0, limit: 2000 }) {
        Answer::Events(events) => events,
        other => panic!("{other:?}"),
    }
}

fn consume(token: &Token) -> Command {
    Command::ConsumeToken { token: token.id, role: ServerRole::Node, key: Hash([8; 32]) }
}

#[test]
fn a_token_lets_one_node_in() {
    let (mut world, operator) = World::new();
    let token = world.token(START + HOUR, None);
    world.done(Some(operator.id), Command::CreateToken(token.clone()));
    assert_eq!(world.ask(&Query::Token(token.id)), Answer::Token(Some(token.clone())));
    let joined = world.done(None, consume(&token));
    assert_eq!(joined, Outcome::Joined { node: Some(NodeId(1)), coordinator: None });
    let first = node(&world, NodeId(1));
    assert_eq!((first.name.as_str(), first.state, first.devices.len(), first.key), ("node-1", NodeState::Joining, 0, Hash([8; 32])));
    assert_eq!(kind(&world.propose(None, consume(&token))), Kind::Denied);
    // Its secret is gone with its use; its row a day after it has expired.
    let spent = Token { used: true, secret: [0; 32], ..token.clone() };
    assert_eq!(world.ask(&Query::Token(token.id)), Answer::Token(Some(spent)));
    world.pass(25 * HOUR);
    assert_eq!(world.ask(&Query::Token(token.id)), Answer::Token(None));
    // Numbers go up.
    assert_eq!(world.nodes(&operator, 2), [NodeId(2), NodeId(3)]);
}

#[test]
fn a_token_is_refused_too_late_for_another_role_or_unknown() {
    let (mut world, operator) = World::new();
    let token = world.token(START + HOUR, None);
    assert_eq!(kind(&world.propose(None, consume(&token))), Kind::Denied);
    world.done(Some(operator.id), Command::CreateToken(token.clone()));
    let as_coordinator = Command::ConsumeToken { token: token.id, role: ServerRole::Coordinator, key: Hash([8; 32]) };
    assert_eq!(kind(&world.propose(None, as_coordinator.clone())), Kind::Denied);
    world.now = START + HOUR;
    assert_eq!(kind(&world.propose(None, consume(&token))), Kind::Denied);
    // One for a coordinator makes no node.
    let token = Token { role: ServerRole::Coordinator, ..world.token(START + 2 * HOUR, None) };
    world.done(Some(operator.id), Command::CreateToken(token.clone()));
    assert_eq!(kind(&world.propose(None, consume(&token))), Kind::Denied);
}

#[test]
fn only_admins_make_tokens_that_can_be() {
    let (mut world, operator) = World::new();
    let guest = world.user(&operator, "guest");
    let token = world.token(START + HOUR, None);
    assert_eq!(kind(&world.propose(Some(guest.id), Command::CreateToken(token.clone()))), Kind::Denied);
    assert_eq!(kind(&world.propose(None, Command::CreateToken(token.clone()))), Kind::Denied);
    let used = Token { used: true, ..token.clone() };
    assert_eq!(kind(&world.propose(Some(operator.id), Command::CreateToken(used))), Kind::Invalid);
    let nobody = Token { replace: Some(NodeId(7)), ..token.clone() };
    assert_eq!(kind(&world.propose(Some(operator.id), Command::CreateToken(nobody))), Kind::NotFound);
    world.done(Some(operator.id), Command::CreateToken(token.clone()));
    assert_eq!(kind(&world.propose(Some(operator.id), Command::CreateToken(token))), Kind::Invalid);
}

#[test]
fn the_first_layout_needs_as_many_nodes_as_shards() {
    let (mut world, operator) = World::new();
    world.nodes(&operator, 3);
    let refused = world.propose(None, Command::MakeLayout { width: 4 }).expect_err("too few");
    assert_eq!((refused.kind, refused.message.as_str()), (Kind::Unavailable, "4 nodes are needed and 3 have joined: 1 more must join"));
    assert_eq!(world.ask(&Query::Layout(4)), Answer::Layout(None));
    // One that joined without a device does not count, nor one that is out or being drained.
    let token = world.token(START + HOUR, None);
    world.done(Some(operator.id), Command::CreateToken(token.clone()));
    world.done(None, consume(&token));
    assert_eq!(kind(&world.propose(None, Command::MakeLayout { width: 4 })), Kind::Unavailable);
    world.done(None, update(NodeId(4), vec![device(NodeId(4), 0, 1 << 40)]));
    for state in [NodeState::Out, NodeState::Draining] {
        world.done(None, Command::SetNodeState { node: NodeId(4), state });
        assert_eq!(kind(&world.propose(None, Command::MakeLayout { width: 4 })), Kind::Unavailable);
    }
    world.done(None, Command::SetNodeState { node: NodeId(4), state: NodeState::Suspect });
    assert_eq!(world.done(None, Command::MakeLayout { width: 4 }), Outcome::Layout(Epoch(1)));
    assert_eq!(
        (1..=4).map(|i| node(&world, NodeId(i)).state).collect::<Vec<_>>(),
        [NodeState::Up, NodeState::Up, NodeState::Up, NodeState::Suspect]
    );
    let made = layout(&world, 4);
    assert_eq!((made.power, made.width, made.devices.len()), (4, 4, 4));
    // Once made it stays; other widths have their own.
    world.nodes(&operator, 1);
    assert_eq!(world.done(None, Command::MakeLayout { width: 4 }), Outcome::Layout(Epoch(1)));
    assert_eq!(layout(&world, 4), made);
    assert_eq!(world.done(None, Command::MakeLayout { width: 2 }), Outcome::Layout(Epoch(1)));
    let Answer::Cluster(view) = world.ask(&Query::Cluster) else { panic!() };
    assert_eq!(view.layouts, [(2, Epoch(1)), (4, Epoch(1))]);
    for width in [0, 33] {
        assert_eq!(kind(&world.propose(None, Command::MakeLayout { width })), Kind::Invalid);
    }
}

#[test]
fn a_node_that_replaces_another_takes_its_slots_and_nothing_else_moves() {
    let (mut world, operator) = World::new();
    world.nodes(&operator, 5);
    world.done(None, Command::MakeLayout { width: 4 });
    world.done(None, Command::MakeLayout { width: 2 });
    let before = (layout(&world, 4), layout(&world, 2));
    let heir = world.node(&operator, Some(NodeId(3)), &[2_000_000_000_000]);
    assert_eq!(heir, NodeId(6));
    for (before, after) in [(&before.0, layout(&world, 4)), (&before.1, layout(&world, 2))] {
        assert_eq!((after.epoch, &after.slots), (Epoch(2), &before.slots));
        assert!(after.check().is_ok());
        for (old, new) in before.devices.iter().zip(&after.devices) {
            if old.node == NodeId(3) {
                let expected = (device(heir, 0, 0).id, heir, 2_000_000_000_000);
                assert_eq!((new.device, new.node, new.capacity), expected);
            } else {
                assert_eq!(old, new);
            }
        }
    }
    assert_eq!(node(&world, heir).state, NodeState::Up);
    let known = world.view().nodes;
    assert!(known.iter().all(|n| n.id != NodeId(3)), "nobody can take in again what was replaced: {known:?}");
    // It inherits once.
    world.done(None, update(heir, vec![device(heir, 0, 3), device(heir, 1, 4)]));
    assert_eq!(layout(&world, 4).epoch, Epoch(2));
}

#[test]
fn a_node_that_replaces_one_without_slots_joins_as_any_other() {
    let (mut world, operator) = World::new();
    world.nodes(&operator, 2);
    world.done(None, Command::MakeLayout { width: 2 });
    world.nodes(&operator, 1);
    let heir = world.node(&operator, Some(NodeId(3)), &[1000]);
    assert_eq!(node(&world, heir).state, NodeState::Joining);
    assert!(world.view().nodes.iter().all(|n| n.id != NodeId(3)));
    assert_eq!(layout(&world, 2).epoch, Epoch(1));
}

#[test]
fn disks_of_a_replaced_node_are_shared_out_among_the_heirs() {
    let (mut world, operator) = World::new();
    let old = world.node(&operator, None, &[1000, 1000, 1000]);
    world.nodes(&operator, 1);
    world.done(None, Command::MakeLayout { width: 2 });
    let heir = world.node(&operator, Some(old), &[1500, 1500]);
    let devices: Vec<DeviceId> = layout(&world, 2).devices.iter().filter(|d| d.node == heir).map(|d| d.device).collect();
    assert_eq!(devices, [device(heir, 0, 0).id, device(heir, 1, 0).id, device(heir, 0, 0).id]);
    assert!(layout(&world, 2).devices.iter().all(|d| d.node != old));
}

#[test]
fn nodes_say_what_they_are_and_not_what_others_are() {
    let (mut world, operator) = World::new();
    world.nodes(&operator, 2);
    let mine = |index| device(NodeId(1), index, 1000);
    world.done(None, update(NodeId(1), vec![mine(0), mine(1)]));
    assert_eq!((node(&world, NodeId(1)).devices.len(), node(&world, NodeId(1)).address.as_str()), (2, "192.0.2.1:7001"));
    assert_eq!(kind(&world.propose(None, update(NodeId(9), vec![]))), Kind::NotFound);
    assert_eq!(kind(&world.propose(None, update(NodeId(2), vec![mine(1)]))), Kind::Conflict);
    assert_eq!(kind(&world.propose(None, update(NodeId(2), vec![device(NodeId(2), 0, 1), device(NodeId(2), 0, 2)]))), Kind::Invalid);
    assert_eq!(kind(&world.propose(None, update(NodeId(2), (0..65).map(|i| device(NodeId(2), i, 1)).collect()))), Kind::Invalid);
    let long = |address: usize, zone: usize, version: usize| Command::UpdateNode {
        node: NodeId(1),
        address: "a".repeat(address),
        zone: "z".repeat(zone),
        devices: vec![],
        version: "v".repeat(version),
    };
    for command in [long(257, 0, 0), long(0, 65, 0), long(0, 0, 65)] {
        assert_eq!(kind(&world.propose(None, command)), Kind::Invalid);
    }
}

/// Capacities are what nodes claim, and their sums must not overflow on it.
#[test]
fn a_node_that_claims_all_bytes_there_are_breaks_nothing() {
    let (mut world, operator) = World::new();
    world.node(&operator, None, &[u64::MAX, u64::MAX]);
    world.node(&operator, None, &[u64::MAX]);
    world.nodes(&operator, 2);
    assert_eq!(world.propose(None, Command::MakeLayout { width: 2 }), Ok(Outcome::Layout(Epoch(1))));
    assert_eq!(world.propose(None, Command::MakeLayout { width: 4 }), Ok(Outcome::Layout(Epoch(1))));
}

#[test]
fn events_are_numbered_and_chained() {
    let (mut world, operator) = World::new();
    world.nodes(&operator, 1);
    world.now += 7;
    let report = Command::Report { what: "shard-corrupt".into(), node: Some(NodeId(1)), detail: "1 shard on a disk".into() };
    world.done(None, report.clone());
    let down = Command::SetNodeState { node: NodeId(1), state: NodeState::Down };
    world.done(None, down.clone());
    // No news is no event.
    world.done(None, down);
    assert_eq!(kind(&world.propose(None, Command::SetNodeState { node: NodeId(2), state: NodeState::Down })), Kind::NotFound);
    let events = events(&world);
    let words: Vec<&str> = events.iter().map(|e| e.what.as_str()).collect();
    assert_eq!(words, ["cluster-created", "account-registered", "token-created", "node-joined", "shard-corrupt", "node-down"]);
    assert_eq!(events[4].time_ms, START + 7);
    let mut prev = Hash([0; 32]);
    for (seq, event) in (1..).zip(&events) {
        assert_eq!((event.seq, event.prev), (seq, prev));
        prev = Hash::of(&cbor::to_vec(event));
    }
    let page = world.ask(&Query::Events { after: 2, limit: 2 });
    assert_eq!(page, Answer::Events(events[2..4].to_vec()));
    assert_eq!(world.ask(&Query::Events { after: 6, limit: 2 }), Answer::Events(vec![]));
    assert_eq!(world.totals().events, 6);
    // Reports are not remembered as requests: the same again is another event.
    let request = world.request();
    let proposal = Proposal { request, account: None, command: report, time_ms: world.now };
    assert_eq!((world.apply(&proposal), world.apply(&proposal)), (Ok(Outcome::Done), Ok(Outcome::Done)));
    assert_eq!(world.totals().events, 8);
}

#[test]
fn the_genesis_is_answered_in_process() {
    let (world, _) = World::new();
    assert_eq!(world.ask(&Query::Genesis), Answer::Genesis(Some(Box::new(genesis(&world.capability)))));
}
