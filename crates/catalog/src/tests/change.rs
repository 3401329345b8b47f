//! Changes of the layouts: begun, stopped, superseded, ended; and what stays readable meanwhile.

use super::*;
use crate::layout::{describe, plan};
use model::Layout;
use model::cluster::{ClusterView, Node, NodeState};
use model::command::NewLayouts;
use model::layout::{DeviceInfo, LayoutChange};

/// What a story of changes asks and says.
impl World {
    pub(crate) fn view(&self) -> ClusterView {
        match self.ask(&Query::Cluster) {
            Answer::Cluster(view) => *view,
            other => panic!("{other:?}"),
        }
    }

    fn node_row(&self, id: u64) -> Node {
        self.view().nodes.into_iter().find(|n| n.id == NodeId(id)).expect("the node")
    }

    fn layout(&self, width: u8, epoch: u64) -> Option<Layout> {
        match self.ask(&Query::LayoutAt { width, epoch: Epoch(epoch), have: None }) {
            Answer::Layout(layout) => layout,
            other => panic!("{other:?}"),
        }
    }

    fn current(&self, width: u8) -> Layout {
        match self.ask(&Query::Layout(width)) {
            Answer::Layout(Some(layout)) => layout,
            other => panic!("{other:?}"),
        }
    }

    /// All widths planned over these nodes.
    pub(super) fn planned(&self, nodes: &[u64]) -> NewLayouts {
        let view = self.view();
        let members = view.nodes.iter().filter(|n| nodes.contains(&n.id.0));
        let info = |n: &Node, d: &Device| DeviceInfo { device: d.id, node: n.id, zone: n.zone.clone(), capacity: d.capacity };
        let devices: Vec<DeviceInfo> = members.flat_map(|n| n.devices.iter().map(|d| info(n, d)).collect::<Vec<_>>()).collect();
        let next = |(width, epoch): &(u8, Epoch)| {
            let old = self.current(*width);
            let new = plan(Some(&old), Epoch(epoch.0 + 1), view.power, *width, &devices).expect("planned");
            let about = describe(&old, &new);
            (new, about.moved, about.minimum)
        };
        NewLayouts { layouts: view.layouts.iter().map(next).collect(), why: "a change".into(), ..NewLayouts::default() }
    }

    pub(super) fn change(&mut self, new: NewLayouts) -> Applied {
        self.propose(Some(stranger("operator").id), Command::ChangeLayouts(Box::new(new)))
    }

    fn finish(&mut self, width: u8, epoch: u64) -> Applied {
        self.propose(None, Command::FinishLayout { width, epoch: Epoch(epoch) })
    }

    fn last_event(&self) -> (String, String) {
        match self.ask(&Query::Events { after: self.totals().events - 1, limit: 1 }) {
            Answer::Events(events) => (events[0].what.clone(), events[0].detail.clone()),
            other => panic!("{other:?}"),
        }
    }
}

/// Four nodes in a layout of width 4 and one of width 2, and one that has joined since.
fn grown() -> World {
    let (mut world, _) = World::ready();
    world.done(None, Command::MakeLayout { width: 2 });
    world.nodes(&stranger("operator"), 1);
    assert_eq!(world.node_row(5).state, NodeState::Joining);
    world
}

#[test]
fn a_change_leaves_the_old_layout_readable_until_it_is_done() {
    let mut world = grown();
    let before = world.current(4);
    let change = NewLayouts { why: "add node-5".into(), ..world.planned(&[1, 2, 3, 4, 5]) };
    let moved: Vec<(u64, u64)> = change.layouts.iter().map(|(_, moved, minimum)| (*moved, *minimum)).collect();
    // 16 partitions: a fifth of 32, and of 64 slots.
    assert_eq!(moved, [(6, 6), (12, 12)]);
    assert_eq!(world.change(change), Ok(Outcome::Done));
    assert_eq!(world.last_event().0, "layout-changed");
    assert_eq!(world.view().layouts, [(2, Epoch(2)), (4, Epoch(2))]);
    assert_eq!(world.layout(4, 1), Some(before));
    assert_eq!(world.layout(4, 2), Some(world.current(4)));
    let row = |width, moved| LayoutChange {
        width,
        to: Epoch(2),
        from: vec![Epoch(1)],
        began_ms: START,
        stopped: false,
        moved,
        minimum: moved,
        why: "add node-5".into(),
    };
    assert_eq!(world.view().changes, [row(2, 6), row(4, 12)]);
    assert_eq!(world.node_row(5).state, NodeState::Up);
    // Each width ends by itself, and only at the epoch that is moved to.
    assert_eq!(kind(&world.finish(4, 1)), Kind::Conflict);
    assert_eq!(world.finish(4, 2), Ok(Outcome::Done));
    assert_eq!(world.last_event(), ("layout-finished".into(), "add node-5: width 4 is at epoch 2".into()));
    assert_eq!(world.layout(4, 1), None);
    assert!(world.layout(2, 1).is_some());
    assert_eq!(world.view().changes, [row(2, 6)]);
    assert_eq!(kind(&world.finish(4, 2)), Kind::Conflict);
    assert_eq!(world.finish(2, 2), Ok(Outcome::Done));
    assert!(!tables(&world.kv).iter().any(|(table, _)| [0x55, 0x56].contains(table)));
}

#[test]
fn a_second_change_waits() {
    let mut world = grown();
    let first = NewLayouts { why: "add node-5".into(), ..world.planned(&[1, 2, 3, 4, 5]) };
    world.change(first).expect("begun");
    let second = NewLayouts { drain: vec![NodeId(2)], why: "drain node-2".into(), ..world.planned(&[1, 3, 4, 5]) };
    let refused = world.change(second.clone()).expect_err("refused");
    assert_eq!(refused.kind, Kind::Conflict);
    assert_eq!(refused.message, "another change is under way: add node-5. A second one waits until it is done");
    assert_eq!(refused.hint.as_deref(), Some("shardkeep cluster layout show"));
    world.finish(2, 2).expect("done");
    assert_eq!(kind(&world.change(second.clone())), Kind::Conflict);
    world.finish(4, 2).expect("done");
    world.change(second).expect("begun");
    let node = world.node_row(2);
    assert_eq!((node.state, node.draining), (NodeState::Draining, true));
    // What was placed by any epoch so far may be committed.
    assert_eq!(world.view().layouts, [(2, Epoch(3)), (4, Epoch(3))]);
    // One that an operator has stopped is superseded, as by a loss.
    let third = NewLayouts { keep: vec![NodeId(2)], why: "add node-2".into(), ..world.planned(&[1, 2, 3, 4, 5]) };
    assert_eq!(kind(&world.change(third.clone())), Kind::Conflict);
    world.done(None, Command::PauseLayouts(true));
    world.change(third).expect("begun");
    for change in world.view().changes {
        assert_eq!((change.to, change.from, change.stopped), (Epoch(4), vec![Epoch(2), Epoch(3)], false));
        assert_eq!(change.why, "add node-2, during: drain node-2");
    }
    assert_eq!(world.node_row(2).state, NodeState::Up);
}

#[test]
fn rule_02_a_loss_supersedes_a_running_change() {
    let mut world = grown();
    let add = NewLayouts { why: "add node-5".into(), ..world.planned(&[1, 2, 3, 4, 5]) };
    world.change(add).expect("begun");
    world.done(None, Command::PauseLayouts(true));
    world.done(None, Command::SetNodeState { node: NodeId(3), state: NodeState::Out });
    let loss = NewLayouts { loss: true, why: "node-3 is out".into(), ..world.planned(&[1, 2, 4, 5]) };
    assert_eq!(world.propose(None, Command::ChangeLayouts(Box::new(loss))), Ok(Outcome::Done));
    for change in world.view().changes {
        assert_eq!((change.to, change.from, change.stopped), (Epoch(3), vec![Epoch(1), Epoch(2)], false));
        assert_eq!(change.why, "node-3 is out, during: add node-5");
    }
    // Readable is the union of all that is unfinished.
    for epoch in 1..=3 {
        assert!(world.layout(4, epoch).is_some(), "{epoch}");
    }
    // Whoever has one of them gets another as a difference; to one that is not readable it gets the whole.
    for (have, epoch) in [(1, 2), (2, 3), (3, 2)] {
        let wanted = world.layout(4, epoch).expect("readable");
        let asked = world.ask(&Query::LayoutAt { width: 4, epoch: Epoch(epoch), have: Some(Epoch(have)) });
        let Answer::LayoutPatch(patch) = asked else { panic!("{have} to {epoch}: not a difference") };
        assert_eq!(world.layout(4, have).expect("readable").patched(&patch), Ok(wanted));
    }
    for have in [3, 9] {
        let asked = world.ask(&Query::LayoutAt { width: 4, epoch: Epoch(3), have: Some(Epoch(have)) });
        assert_eq!(asked, Answer::Layout(world.layout(4, 3)));
    }
    assert!(world.current(4).devices.iter().all(|d| d.node != NodeId(3)));
    // The epoch that was superseded never ends; the last one ends all.
    assert_eq!(kind(&world.finish(4, 2)), Kind::Conflict);
    world.finish(4, 3).expect("done");
    assert_eq!((world.layout(4, 1), world.layout(4, 2)), (None, None));
    assert!(world.layout(2, 1).is_some());
}

#[test]
fn a_loss_leaves_widths_alone_for_which_too_few_nodes_remain() {
    let mut world = grown();
    let mut loss = NewLayouts { loss: true, ..world.planned(&[1, 2, 3, 4]) };
    loss.layouts.retain(|(l, _, _)| l.width == 2);
    world.change(loss).expect("begun");
    assert_eq!(world.view().layouts, [(2, Epoch(2)), (4, Epoch(1))]);
    // An operator's change takes all.
    world.finish(2, 2).expect("done");
    let mut some = world.planned(&[1, 2, 3, 4, 5]);
    some.layouts.pop();
    assert_eq!(kind(&world.change(some)), Kind::Invalid);
}

#[test]
fn a_change_is_stopped_and_goes_on() {
    let mut world = grown();
    assert_eq!(kind(&world.propose(None, Command::PauseLayouts(true))), Kind::Conflict);
    let add = NewLayouts { why: "add node-5".into(), ..world.planned(&[1, 2, 3, 4, 5]) };
    world.change(add).expect("begun");
    for (stop, what) in [(true, "layout-stopped"), (false, "layout-resumed")] {
        world.done(Some(stranger("operator").id), Command::PauseLayouts(stop));
        assert_eq!(world.last_event(), (what.into(), "add node-5".into()));
        assert!(world.view().changes.iter().all(|c| c.stopped == stop));
        // No news is no event.
        let events = world.totals().events;
        world.done(None, Command::PauseLayouts(stop));
        assert_eq!(world.totals().events, events);
    }
}

#[test]
fn layouts_that_cannot_be_are_refused() {
    let mut world = grown();
    let good = world.planned(&[1, 2, 3, 4, 5]);
    let guest = world.user(&stranger("operator"), "guest");
    assert_eq!(kind(&world.propose(Some(guest.id), Command::ChangeLayouts(Box::new(good.clone())))), Kind::Denied);
    assert_eq!(kind(&world.propose(Some(guest.id), Command::PauseLayouts(true))), Kind::Denied);
    assert_eq!(kind(&world.propose(Some(guest.id), Command::RemoveNode(NodeId(5)))), Kind::Denied);
    let with = |f: &dyn Fn(&mut Layout)| {
        let mut bad = good.clone();
        f(&mut bad.layouts[1].0);
        bad
    };
    let slot = |layout: &mut Layout, at: usize, to: u16| {
        let mut slots = layout.slot_indexes();
        slots[at] = to;
        *layout = Layout { slots: slots.iter().flat_map(|s| s.to_be_bytes()).collect::<Vec<u8>>().into(), ..layout.clone() };
    };
    let cases = [
        ("the same epoch", Kind::Conflict, with(&|l| l.epoch = Epoch(1))),
        ("an epoch skipped", Kind::Conflict, with(&|l| l.epoch = Epoch(3))),
        ("a width that there is not", Kind::Invalid, with(&|l| l.width = 3)),
        ("a slot without a device", Kind::Invalid, with(&|l| slot(l, 0, 77))),
        ("two shards on one node", Kind::Invalid, with(&|l| slot(l, 0, l.slot_indexes()[1]))),
        ("a device that nobody has", Kind::Invalid, with(&|l| l.devices[0].device = DeviceId([9; 16]))),
        ("a node that is not there", Kind::Invalid, with(&|l| l.devices[0].node = NodeId(9))),
        ("a width twice", Kind::Invalid, with(&|_| ())),
        ("a drain of nobody", Kind::NotFound, NewLayouts { drain: vec![NodeId(9)], ..good.clone() }),
    ];
    for (what, expected, mut change) in cases {
        if what == "a width twice" {
            change.layouts.push(good.layouts[1].clone());
        }
        assert_eq!(kind(&world.change(change)), expected, "{what}");
    }
    // A vacant slot is one that nobody may fill now.
    world.change(with(&|l| slot(l, 0, Layout::VACANT))).expect("begun");
}

#[test]
fn a_node_is_emptied_kept_again_and_forgotten() {
    let mut world = grown();
    let add = world.planned(&[1, 2, 3, 4, 5]);
    world.change(add).expect("begun");
    [2, 4].into_iter().for_each(|w| assert_eq!(world.finish(w, 2), Ok(Outcome::Done)));
    let drain = NewLayouts { drain: vec![NodeId(1)], ..world.planned(&[2, 3, 4, 5]) };
    world.change(drain).expect("begun");
    // It goes down and comes back: still to be emptied.
    world.done(None, Command::SetNodeState { node: NodeId(1), state: NodeState::Down });
    assert!(world.node_row(1).draining);
    world.done(None, Command::SetNodeState { node: NodeId(1), state: NodeState::Draining });
    let refused = world.propose(None, Command::RemoveNode(NodeId(1))).expect_err("it holds shards");
    assert_eq!((refused.kind, refused.hint.as_deref()), (Kind::Conflict, Some("shardkeep cluster drain node-1")));
    [2, 4].into_iter().for_each(|w| assert_eq!(world.finish(w, 3), Ok(Outcome::Done)));
    // Kept again after all.
    let keep = NewLayouts { keep: vec![NodeId(1)], ..world.planned(&[1, 2, 3, 4, 5]) };
    world.change(keep).expect("begun");
    assert_eq!((world.node_row(1).state, world.node_row(1).draining), (NodeState::Up, false));
    [2, 4].into_iter().for_each(|w| assert_eq!(world.finish(w, 4), Ok(Outcome::Done)));
    let drain = NewLayouts { drain: vec![NodeId(1)], ..world.planned(&[2, 3, 4, 5]) };
    world.change(drain).expect("begun");
    [2, 4].into_iter().for_each(|w| assert_eq!(world.finish(w, 5), Ok(Outcome::Done)));
    world.done(Some(stranger("operator").id), Command::RemoveNode(NodeId(1)));
    assert_eq!(world.last_event(), ("node-removed".into(), "node-1".into()));
    assert_eq!(world.view().nodes.iter().map(|n| n.id.0).collect::<Vec<_>>(), [2, 3, 4, 5]);
    assert_eq!(kind(&world.propose(None, Command::RemoveNode(NodeId(1)))), Kind::NotFound);
}

#[test]
fn a_node_that_is_gone_for_good_is_forgotten_with_the_change() {
    let mut world = grown();
    let gone = NewLayouts { remove: vec![NodeId(2)], loss: true, ..world.planned(&[1, 3, 4, 5]) };
    world.change(gone).expect("begun");
    assert_eq!((world.node_row(2).state, world.node_row(2).leaving), (NodeState::Out, true));
    world.finish(2, 2).expect("done");
    assert!(world.node_row(2).leaving);
    world.finish(4, 2).expect("done");
    assert_eq!(world.view().nodes.iter().map(|n| n.id.0).collect::<Vec<_>>(), [1, 3, 4, 5]);
    // Its number is not given out again.
    assert_eq!(world.nodes(&stranger("operator"), 1), [NodeId(6)]);
}

#[test]
fn rule_09_a_replaced_node_hands_on_its_slots_during_a_change_too() {
    let mut world = grown();
    let add = world.planned(&[1, 2, 3, 4, 5]);
    world.change(add).expect("begun");
    let (earlier, current) = (world.layout(4, 1).expect("readable"), world.current(4));
    let heir = world.node(&stranger("operator"), Some(NodeId(3)), &[2_000_000_000_000]);
    let replaced = |layout: &Layout| {
        let new = |d: &DeviceInfo| if d.node == NodeId(3) { (heir, device(heir, 0, 0).id) } else { (d.node, d.device) };
        layout.devices.iter().map(new).collect::<Vec<_>>()
    };
    let named = |layout: &Layout| layout.devices.iter().map(|d| (d.node, d.device)).collect::<Vec<_>>();
    let after = world.current(4);
    assert_eq!((after.epoch, &after.slots, named(&after)), (Epoch(3), &current.slots, replaced(&current)));
    let after = world.layout(4, 1).expect("readable");
    assert_eq!((after.epoch, &after.slots, named(&after)), (Epoch(1), &earlier.slots, replaced(&earlier)));
    for change in world.view().changes {
        assert_eq!((change.to, change.from), (Epoch(3), vec![Epoch(1)]));
    }
    world.finish(4, 3).expect("done");
}

#[test]
fn a_further_width_is_laid_over_the_nodes_that_hold_the_others() {
    let mut world = grown();
    let refused = world.propose(None, Command::MakeLayout { width: 5 }).expect_err("node-5 was not added");
    assert_eq!((refused.kind, refused.hint.as_deref()), (Kind::Unavailable, Some("shardkeep cluster add")));
    world.done(None, Command::MakeLayout { width: 3 });
    assert!(world.current(3).devices.iter().all(|d| d.node != NodeId(5)));
    // During a change over those that hold the new layouts.
    let drain = NewLayouts { drain: vec![NodeId(1)], ..world.planned(&[2, 3, 4, 5]) };
    world.change(drain).expect("begun");
    world.done(None, Command::MakeLayout { width: 1 });
    let mut nodes: Vec<u64> = world.current(1).devices.iter().map(|d| d.node.0).collect();
    nodes.sort_unstable();
    assert_eq!(nodes, [2, 3, 4, 5]);
    assert!(!world.view().changes.iter().any(|c| c.width == 1));
}

/// Everybody keeps a copy of nodes, layouts and changes, and fetches it anew when the revision is another.
#[test]
fn the_revision_grows_with_all_that_everybody_knows() {
    let mut world = grown();
    let mut last = world.view().revision;
    let add = world.planned(&[1, 2, 3, 4, 5]);
    let steps: Vec<(Command, bool)> = vec![
        (Command::Tick, false),
        (Command::Report { what: "test".into(), node: None, detail: String::new() }, false),
        (Command::ChangeLayouts(Box::new(add)), true),
        (Command::PauseLayouts(true), true),
        (Command::PauseLayouts(true), false),
        (Command::SetNodeState { node: NodeId(1), state: NodeState::Down }, true),
        (Command::SetNodeState { node: NodeId(1), state: NodeState::Down }, false),
        (update(NodeId(1), vec![device(NodeId(1), 0, 7)]), true),
        (Command::FinishLayout { width: 2, epoch: Epoch(2) }, true),
        (Command::FinishLayout { width: 2, epoch: Epoch(2) }, false),
        (Command::MakeLayout { width: 3 }, true),
        (Command::MakeLayout { width: 3 }, false),
    ];
    for (command, grows) in steps {
        let what = format!("{command:?}");
        let _ = world.propose(None, command);
        let now = world.view().revision;
        assert_eq!(now, last + u64::from(grows), "{}", &what[..what.len().min(60)]);
        last = now;
    }
}
