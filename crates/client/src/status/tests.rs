use super::*;
use model::cluster::{ClusterView, Coordinator, Device, Node};
use model::command::Totals;
use model::layout::{DeviceInfo, LayoutChange};
use model::{CoordinatorId, DeviceId, Epoch, Hash, Layout, Policy, PublicKey};
use wire::coordinator::{HeartbeatRequest, RepairReport};

const NOW: u64 = 1_800_000_000_000;

fn device(n: u64, shards: u64) -> Device {
    Device { id: DeviceId([n as u8; 16]), capacity: 1000, used: 10, problem: None, shards }
}

fn node(n: u64) -> Node {
    Node {
        id: NodeId(n),
        name: format!("node-{n}"),
        address: format!("192.0.2.{n}:10000"),
        zone: String::new(),
        devices: vec![device(n, 0)],
        state: NodeState::Up,
        key: Hash([0; 32]),
        version: "0.1.0".into(),
        draining: false,
        leaving: false,
    }
}

fn heard(n: u64) -> NodeReport {
    let heartbeat = HeartbeatRequest {
        address: String::new(),
        zone: String::new(),
        devices: vec![device(n, 100)],
        version: String::new(),
        repair: RepairReport { whole_to: 7, ..Default::default() },
        started_ms: NOW - 3_600_000,
        renew: None,
        layouts: Vec::new(),
        scrub: Default::default(),
        frozen: None,
        protocol: wire::PROTOCOL,
        auto_add: false,
        now_ms: NOW,
    };
    NodeReport { node: NodeId(n), state: NodeState::Up, silent_ms: Some(300), heartbeat: Some(heartbeat), owes: 0 }
}

/// A cluster of some nodes, 2+2, 100 chunks; all is well.
fn cluster(nodes: u64) -> (StatusResponse, Layout) {
    let view = ClusterView {
        nodes: (1..=nodes).map(node).collect(),
        coordinators: vec![Coordinator {
            id: CoordinatorId(1),
            address: "192.0.2.100:10000".into(),
            key: Default::default(),
            version: String::new(),
        }],
        leader: Some(CoordinatorId(1)),
        policy: Policy::DEFAULT,
        layouts: vec![(4, Epoch(1))],
        capability_key: PublicKey([0; 32]),
        time_ms: NOW,
        power: 3,
        revision: 1,
        changes: Vec::new(),
        life: Default::default(),
        recoded_ms: 0,
    };
    let totals = Totals { chunks: 100, feed: 7, ..Default::default() };
    let status = StatusResponse {
        cluster: view,
        totals,
        nodes: (1..=nodes).map(heard).collect(),
        coordinators: vec![(CoordinatorId(1), true)],
        learners: Vec::new(),
        damaged: Vec::new(),
        short_of_room: Vec::new(),
    };
    let devices =
        (1..=nodes).map(|n| DeviceInfo { device: DeviceId([n as u8; 16]), node: NodeId(n), zone: String::new(), capacity: 1000 }).collect();
    let slots: Vec<u16> = (0..8u64).flat_map(|p| (0..4u64).map(move |i| ((p + i) % nodes) as u16)).collect();
    (status, Layout::new(Epoch(1), 3, 4, devices, &slots).unwrap())
}

fn die(status: &mut StatusResponse, nodes: &[usize]) {
    for i in nodes {
        status.nodes[*i].state = NodeState::Down;
        status.nodes[*i].silent_ms = Some(12_000);
    }
}

fn count(report: &Report) -> [u64; 5] {
    let by = |r| report.chunks.by_redundancy[&r];
    [by(2), by(1), by(0), report.chunks.unavailable, report.chunks.lost]
}

fn layouts(layout: Option<&Layout>) -> Layouts {
    layout.map_or_else(Layouts::default, |l| Layouts::one(l.clone()))
}

/// A look, and a second one at the same state where the first has doubts.
fn look(status: &StatusResponse, layout: Option<&Layout>) -> Report {
    let layouts = layouts(layout);
    let first = Report::of(status, &layouts, &BTreeSet::new());
    Report::of(status, &layouts, &first.doubts)
}

#[test]
fn rule_08_safe_is_the_lesser_of_catalog_and_chunks() {
    let (mut status, layout) = cluster(4);
    let of = |up: &[bool]| up.iter().enumerate().map(|(i, up)| (CoordinatorId(i as u64 + 1), *up)).collect::<Vec<_>>();
    for (up, safe, survivable) in
        [(&[true][..], true, 0), (&[true; 3], true, 1), (&[true, true, false], false, 0), (&[true; 2], false, 0), (&[true; 5], true, 2)]
    {
        status.coordinators = of(up);
        let report = look(&status, Some(&layout));
        assert_eq!((report.safe, report.catalog_survivable, report.failures_survivable), (safe, survivable, Some(2)), "{up:?}");
    }
    // One whose catalog is damaged counts as none, and is to be replaced; a lone one needs its backup.
    for (up, remedy) in [(&[true; 3][..], "cluster remove coordinator-1"), (&[true], "cluster restore")] {
        (status.coordinators, status.damaged) = (of(up), vec![CoordinatorId(1)]);
        let report = look(&status, Some(&layout));
        assert_eq!((report.safe, report.catalog_survivable, report.problems.len()), (false, 0, 1));
        assert!(report.problems[0].remedy.contains(remedy), "{:?}", report.problems);
    }
    status.damaged.clear();
    // What a lone one leaves on the nodes is not to grow old.
    for (hours, problems) in [(5, 0), (7, 1)] {
        status.coordinators = of(&[true]);
        (status.cluster.life.snapshot_ms, status.cluster.time_ms) = (1_000_000, 1_000_000 + hours * 3_600_000);
        let report = look(&status, Some(&layout));
        assert_eq!((report.safe, report.problems.len()), (true, problems), "{:?}", report.problems);
    }
    // Little room is to be seen to, and as yet nothing is less safe.
    (status.coordinators, status.short_of_room) = (of(&[true; 3]), vec![CoordinatorId(2)]);
    let report = look(&status, Some(&layout));
    assert_eq!((report.safe, report.catalog_survivable, report.problems.len()), (true, 1, 1));
    assert_eq!(report.problems[0].place, "coordinator 2");
    status.short_of_room.clear();
    // One that is catching up does not count yet, and harms nothing.
    (status.coordinators, status.learners) = (of(&[true, true]), vec![CoordinatorId(2)]);
    assert!(look(&status, Some(&layout)).safe);
}

#[test]
fn a_whole_cluster_survives_its_parity() {
    let (status, layout) = cluster(4);
    let report = look(&status, Some(&layout));
    assert_eq!((report.safe, report.failures_survivable, report.catalog_survivable), (true, Some(2), 0));
    assert_eq!((count(&report), report.chunks.estimated), ([100, 0, 0, 0, 0], false));
    assert_eq!(report.problems, []);
    assert_eq!(report.repair.eta(), Some(0));
}

#[test]
fn each_lost_server_takes_one_away() {
    let (mut status, layout) = cluster(4);
    die(&mut status, &[1]);
    let report = look(&status, Some(&layout));
    assert_eq!((report.safe, report.failures_survivable, count(&report)), (false, Some(1), [0, 100, 0, 0, 0]));
    assert_eq!(report.problems.len(), 1);
    assert_eq!((report.problems[0].what.as_str(), report.problems[0].since), ("does not answer", Some(Duration::from_secs(12))));
    assert_eq!(report.problems[0].place, "node-2 (192.0.2.2:10000)");
    assert!(report.problems[0].remedy.ends_with("shardkeep cluster token node --replace node-2"));
    die(&mut status, &[3]);
    let report = look(&status, Some(&layout));
    assert_eq!((report.safe, report.failures_survivable, count(&report)), (false, Some(0), [0, 0, 100, 0, 0]));
    die(&mut status, &[0]);
    let report = look(&status, Some(&layout));
    assert_eq!((report.safe, report.failures_survivable, count(&report)), (false, Some(0), [0, 0, 0, 100, 0]));
    assert_eq!(report.problems[0].what, "so many servers are away that data cannot be read");
}

#[test]
fn a_node_that_rebuilds_does_not_count_until_it_is_whole() {
    let (mut status, layout) = cluster(4);
    let repair = RepairReport { shards: 40, bytes: 4000, rate: 300, whole_to: 2, ..Default::default() };
    status.nodes[2].heartbeat.as_mut().unwrap().repair = repair;
    let report = look(&status, Some(&layout));
    assert_eq!(report.failures_survivable, Some(1));
    assert_eq!((report.repair, report.repair.eta()), (Repair { shards: 40, bytes: 4000, rate: 300, surplus: 0 }, Some(14)));
}

#[test]
fn an_emptied_node_does_not_count_before_it_knows() {
    let (mut status, layout) = cluster(4);
    status.nodes[2].heartbeat.as_mut().unwrap().devices = vec![device(3, 0)];
    assert_eq!(look(&status, Some(&layout)).failures_survivable, Some(1));
}

/// Found by hand: right after the first upload most heartbeats know nothing of it yet, and the
/// status called data unreadable that was whole.
#[test]
fn heartbeats_older_than_an_upload_alarm_nobody() {
    let (mut status, layout) = cluster(4);
    for report in status.nodes.iter_mut().take(3) {
        report.heartbeat.as_mut().unwrap().devices = vec![device(report.node.0, 0)];
    }
    let first = Report::of(&status, &layouts(Some(&layout)), &BTreeSet::new());
    assert_eq!((first.failures_survivable, first.doubts.len()), (Some(2), 3));
    let (later, _) = cluster(4);
    assert_eq!(Report::of(&later, &layouts(Some(&layout)), &first.doubts).failures_survivable, Some(2));
}

#[test]
fn a_coordinator_that_just_started_waits_for_heartbeats_before_it_alarms() {
    let (mut status, layout) = cluster(4);
    (status.nodes[1].heartbeat, status.nodes[1].silent_ms) = (None, None);
    let first = Report::of(&status, &layouts(Some(&layout)), &BTreeSet::new());
    assert_eq!((first.failures_survivable, first.problems.len()), (Some(2), 0));
    let second = Report::of(&status, &layouts(Some(&layout)), &first.doubts);
    assert_eq!((second.failures_survivable, second.problems.len()), (Some(1), 1));
    assert_eq!(second.problems[0].place, "node-2");
}

#[test]
fn a_node_that_came_back_counts_when_it_has_looked_but_a_fresh_cluster_counts_at_once() {
    let (mut status, layout) = cluster(4);
    let back = status.nodes[2].heartbeat.as_mut().unwrap();
    (back.started_ms, back.repair.whole_to) = (NOW - 3000, 5);
    back.devices = vec![device(3, 90)];
    assert_eq!(look(&status, Some(&layout)).failures_survivable, Some(1));
    for report in &mut status.nodes {
        let heartbeat = report.heartbeat.as_mut().unwrap();
        (heartbeat.started_ms, heartbeat.repair.whole_to) = (NOW - 3000, 0);
    }
    assert_eq!(look(&status, Some(&layout)).failures_survivable, Some(2));
}

#[test]
fn with_more_nodes_than_shards_the_worst_partition_counts_and_chunks_are_estimated() {
    let (mut status, layout) = cluster(8);
    die(&mut status, &[0, 4]);
    let report = look(&status, Some(&layout));
    // Nodes 1 and 5 share no partition: each of the eight misses exactly one shard.
    assert_eq!((report.failures_survivable, count(&report)), (Some(1), [0, 100, 0, 0, 0]));
    assert!(!report.chunks.estimated);
    let (mut status, layout) = cluster(8);
    die(&mut status, &[0, 1]);
    let report = look(&status, Some(&layout));
    assert_eq!((report.failures_survivable, report.chunks.estimated), (Some(0), true));
    assert_eq!(count(&report), [37, 25, 38, 0, 0]);
}

#[test]
fn a_node_that_is_out_and_holds_nothing_is_no_problem_and_a_late_one_is() {
    let (mut status, layout) = cluster(4);
    let mut old = node(9);
    old.state = NodeState::Out;
    status.cluster.nodes.push(old);
    status.nodes.push(NodeReport { node: NodeId(9), state: NodeState::Out, silent_ms: None, heartbeat: None, owes: 0 });
    let report = look(&status, Some(&layout));
    assert_eq!((report.failures_survivable, report.problems.len()), (Some(2), 0));
    status.cluster.nodes.push(node(10));
    let mut late = heard(10);
    late.state = NodeState::Joining;
    status.nodes.push(late);
    let report = look(&status, Some(&layout));
    assert_eq!(report.problems[0].what, "has joined and holds nothing yet");
}

#[test]
fn without_a_layout_nothing_is_claimed() {
    let (status, _) = cluster(3);
    let report = look(&status, None);
    assert_eq!((report.safe, report.failures_survivable), (false, None));
    assert_eq!(report.problems[0].what, "3 of the 4 nodes that policy 2+2 needs have joined: nothing can be stored yet");
}

#[test]
fn lost_chunks_and_sick_disks_are_named() {
    let (mut status, layout) = cluster(4);
    let heartbeat = status.nodes[0].heartbeat.as_mut().unwrap();
    heartbeat.repair.lost = 3;
    heartbeat.devices[0].problem = Some("input/output error".into());
    let report = look(&status, Some(&layout));
    assert_eq!((report.safe, report.chunks.lost), (false, 3));
    let whats: Vec<&str> = report.problems.iter().map(|p| p.what.as_str()).collect();
    assert_eq!(whats, ["at least 3 chunks have too few shards left to be rebuilt", "input/output error"]);
}

fn misses(status: &mut StatusResponse, node: usize, shards: u64, exact: bool) {
    let repair = &mut status.nodes[node].heartbeat.as_mut().unwrap().repair;
    (repair.shards, repair.missing) = (shards, exact.then(|| vec![(Policy::DEFAULT, shards)]));
}

#[test]
fn single_shards_that_are_missing_are_counted_as_such() {
    let (mut status, layout) = cluster(4);
    misses(&mut status, 1, 3, true);
    let report = look(&status, Some(&layout));
    assert_eq!((report.safe, report.failures_survivable, report.chunks.estimated), (false, Some(1), false));
    assert_eq!(count(&report), [97, 3, 0, 0, 0]);
    // Of two nodes it is not known whether it is the same chunks: the worst is assumed, and said to be so.
    misses(&mut status, 2, 5, true);
    let report = look(&status, Some(&layout));
    assert_eq!((report.failures_survivable, report.chunks.estimated), (Some(0), true));
    assert_eq!(count(&report), [95, 2, 3, 0, 0]);
    // A node that has not looked at everything may miss all; one that is down does.
    misses(&mut status, 2, 5, false);
    assert_eq!(count(&look(&status, Some(&layout))), [0, 97, 3, 0, 0]);
    misses(&mut status, 2, 0, true);
    die(&mut status, &[3]);
    assert_eq!(count(&look(&status, Some(&layout))), [0, 97, 3, 0, 0]);
    // More than there are chunks, as heartbeats of different moments may say.
    misses(&mut status, 1, 300, true);
    assert_eq!(count(&look(&status, Some(&layout))), [0, 0, 100, 0, 0]);
}

#[test]
fn nodes_that_share_no_partition_miss_nothing_of_the_same_chunk() {
    let (mut status, layout) = cluster(8);
    misses(&mut status, 0, 3, true);
    misses(&mut status, 4, 3, true);
    let report = look(&status, Some(&layout));
    assert_eq!((report.failures_survivable, count(&report)), (Some(1), [97, 3, 0, 0, 0]));
}

#[test]
fn rule_12_a_node_that_was_away_counts_no_sooner_than_it_has_looked() {
    let (mut status, layout) = cluster(4);
    // As many shards as the others: some it misses, some are dead.
    (status.nodes[1].owes, status.totals.feed) = (9, 9);
    let first = Report::of(&status, &layouts(Some(&layout)), &BTreeSet::new());
    assert_eq!(first.doubts.len(), 1);
    let report = look(&status, Some(&layout));
    assert_eq!((report.safe, report.failures_survivable), (false, Some(1)));
    status.nodes[1].heartbeat.as_mut().unwrap().repair.whole_to = 9;
    assert!(look(&status, Some(&layout)).safe);
}

/// Found by the simulation: between a degraded upload and the next look of the nodes the status called the data safe.
#[test]
fn rule_12_after_a_degraded_upload_nothing_is_safe_before_every_node_has_looked() {
    let (mut status, layout) = cluster(4);
    (status.totals.partial, status.totals.feed) = (8, 9);
    let report = look(&status, Some(&layout));
    assert_eq!((report.safe, report.failures_survivable, report.chunks.estimated), (false, Some(1), true));
    for i in 0..4 {
        assert!(!look(&status, Some(&layout)).safe, "{i}");
        status.nodes[i].heartbeat.as_mut().unwrap().repair.whole_to = 8;
    }
    let report = look(&status, Some(&layout));
    assert_eq!((report.safe, report.failures_survivable, report.chunks.estimated), (true, Some(2), false));
}

/// A node of several disks of which one is gone, or another in its place, has lost what was on it.
#[test]
fn a_disk_that_is_gone_counts_as_lost_and_is_named() {
    let (mut status, layout) = cluster(4);
    for devices in [vec![], vec![device(77, 100)]] {
        status.nodes[2].heartbeat.as_mut().unwrap().devices = devices;
        let report = look(&status, Some(&layout));
        assert_eq!((report.safe, report.failures_survivable, count(&report)), (false, Some(1), [0, 100, 0, 0, 0]));
        let gone = report.problems.iter().find(|p| p.what == "a disk that holds shards is gone").unwrap();
        assert!(gone.place.starts_with("node-3, disk 03"), "{}", gone.place);
    }
}

/// Five nodes; the fifth is being taken in and has a part of its shards.
fn growing() -> (StatusResponse, Layouts) {
    let (mut status, new) = cluster(5);
    let (_, old) = cluster(4);
    let change = LayoutChange {
        width: 4,
        to: Epoch(2),
        from: vec![Epoch(1)],
        began_ms: NOW,
        stopped: false,
        moved: 8,
        minimum: 8,
        why: "add node-5".into(),
    };
    status.cluster.changes = vec![change];
    for report in &mut status.nodes {
        report.heartbeat.as_mut().unwrap().repair.shards = 20;
    }
    (status, Layouts::one(Layout { epoch: Epoch(2), ..new }).with_earlier(old))
}

#[test]
fn rule_12_safe_means_that_no_change_is_pending() {
    let (mut status, layouts) = growing();
    let report = Report::of(&status, &layouts, &BTreeSet::new());
    // Nothing is missing meanwhile: what has not arrived lies where it was.
    assert_eq!((report.safe, report.failures_survivable), (false, Some(2)));
    for report in &mut status.nodes {
        report.heartbeat.as_mut().unwrap().repair.shards = 0;
    }
    assert!(!Report::of(&status, &layouts, &BTreeSet::new()).safe);
    status.cluster.changes.clear();
    assert!(Report::of(&status, &layouts, &BTreeSet::new()).safe);
}

#[test]
fn a_server_lost_during_a_change_counts_as_lost() {
    let (mut status, layouts) = growing();
    die(&mut status, &[0]);
    assert_eq!(Report::of(&status, &layouts, &BTreeSet::new()).failures_survivable, Some(1));
}

#[test]
fn each_policy_that_holds_data_is_judged() {
    let (mut status, layout) = cluster(4);
    status.totals.policies = vec![(Policy { k: 1, m: 1 }, 30, 300), (Policy::DEFAULT, 70, 700)];
    let (_, two) = cluster(4);
    let slots: Vec<u16> = two.slot_indexes().chunks(4).flat_map(|p| p[..2].to_vec()).collect();
    let two = Layout::new(Epoch(1), 3, 2, two.devices, &slots).unwrap();
    let both = Layouts::one(layout).and(two);
    let report = Report::of(&status, &both, &BTreeSet::new());
    let of = |report: &Report| report.policies.iter().map(|p| (p.policy.to_string(), p.chunks, p.survivable)).collect::<Vec<_>>();
    assert_eq!(of(&report), [("2+2".into(), 70, Some(2)), ("1+1".into(), 30, Some(1))]);
    assert_eq!((report.safe, report.failures_survivable, count(&report)), (true, Some(1), [70, 30, 0, 0, 0]));
    die(&mut status, &[1]);
    let report = Report::of(&status, &both, &BTreeSet::new());
    assert_eq!(of(&report), [("2+2".into(), 70, Some(1)), ("1+1".into(), 30, Some(0))]);
    assert_eq!((report.safe, report.failures_survivable), (false, Some(0)));
    assert_eq!(report.problems[0].what, "one more lost server makes data of policy 1+1 unreadable");
}

#[test]
fn rule_03_vacant_slots_are_named() {
    let (mut status, layout) = cluster(4);
    status.cluster.nodes[2].state = NodeState::Out;
    status.nodes[2].state = NodeState::Out;
    let report = look(&status, Some(&layout));
    assert_eq!(report.failures_survivable, Some(1));
    assert_eq!(report.problems[0].what, "8 of 32 slots are vacant: too few nodes are left to put their shards on");
}

#[test]
fn who_waits_is_named_with_the_command_to_run() {
    let (mut status, layout) = cluster(4);
    for (id, state) in [(5, NodeState::Joining), (6, NodeState::Draining)] {
        status.cluster.nodes.push(node(id));
        status.nodes.push(NodeReport { state, ..heard(id) });
    }
    let report = look(&status, Some(&layout));
    let remedies: Vec<&str> = report.problems.iter().map(|p| p.remedy.as_str()).collect();
    assert_eq!(remedies, ["shardkeep cluster add node-5", "stop it, then shardkeep cluster remove node-6"]);
    assert!(report.safe);
}

#[test]
fn a_node_that_flaps_is_named_as_such() {
    let (mut status, layout) = cluster(4);
    status.nodes[1].state = NodeState::Down;
    let report = look(&status, Some(&layout));
    assert!(report.problems[0].what.starts_with("comes and goes"));
}
