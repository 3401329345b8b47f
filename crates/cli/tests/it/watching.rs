//! Commands that go on until they are told to end: `cluster events --follow` and `cluster status --watch`.

use crate::support::{Cluster, Running, terminate, until};
use serde_json::Value;

/// The objects or documents that a command told so far, one after the other.
fn told(of: &Running) -> Vec<Value> {
    serde_json::Deserializer::from_str(&of.said().0).into_iter().map_while(Result::ok).collect()
}

/// How a command that is told to end does so: well, and without a complaint.
#[track_caller]
fn ends_well(running: Running) {
    terminate(running.pid());
    let ran = running.wait();
    assert!(ran.code == 0 || ran.code == 130, "{ran:?}");
}

#[test]
fn events_are_followed_beyond_an_outage_and_told_once() {
    let mut cluster = Cluster::start(1);
    let owner = cluster.owner.clone();
    let follow = owner.start(&["--json", "cluster", "events", "--follow"]);
    let after = owner.events().last().unwrap()["seq"].as_u64().unwrap();
    let later = owner.start(&["--json", "cluster", "events", "-f", "--after", &after.to_string()]);
    until("it told what was", 20, || !told(&follow).is_empty());
    owner.ok(&["cluster", "token", "node"]);
    until("it tells what happens", 20, || told(&later).iter().any(|e| e["what"] == "token-created"));

    // Longer than a command waits for a coordinator.
    cluster.kill_coordinator();
    until("it says that nobody answers", 60, || follow.said().1.contains("no coordinator answers"));
    cluster.start_coordinator();
    owner.ok(&["cluster", "token", "coordinator"]);
    let all = owner.events();
    until("it tells what happened since", 60, || told(&follow).len() >= all.len());

    let seqs = |of: &[Value]| of.iter().map(|e| e["seq"].as_u64().unwrap()).collect::<Vec<_>>();
    let (followed, known) = (seqs(&told(&follow)), seqs(&all));
    assert_eq!(followed[..known.len()], known, "each once, in order");
    let later_seqs = seqs(&told(&later));
    assert_eq!(later_seqs.first(), known.iter().find(|seq| **seq > after), "{later_seqs:?}");
    assert_eq!(follow.said().1.matches("no coordinator answers").count(), 1, "an outage is told once: {}", follow.said().1);
    ends_well(follow);
    ends_well(later);
}

#[test]
fn a_watched_status_shows_what_changes_beyond_an_outage() {
    let mut cluster = Cluster::start(4);
    let watch = cluster.owner.start(&["--json", "cluster", "status", "--watch"]);
    let shown = cluster.owner.start(&["cluster", "status", "-w"]);
    let states =
        |of: &Value| -> Vec<String> { of["nodes"].as_array().unwrap().iter().map(|n| n["state"].as_str().unwrap().to_string()).collect() };
    until("it shows all nodes", 20, || told(&watch).last().is_some_and(|s| states(s) == ["up"; 4]));
    cluster.kill_node(1);
    until("it shows that one is away", 30, || told(&watch).last().is_some_and(|s| states(s)[1] != "up"));

    cluster.kill_coordinator();
    until("it says that nobody answers", 60, || watch.said().1.contains("no coordinator answers"));
    until("so it does to people", 60, || shown.said().0.contains("no coordinator answers"));
    let before = told(&watch).len();
    cluster.start_coordinator();
    cluster.start_node(1);
    until("it shows all again", 60, || {
        let told = told(&watch);
        told.len() > before && states(told.last().unwrap()) == ["up"; 4]
    });
    let text = shown.said().0;
    assert!(!text.contains('\u{1b}'), "what is no terminal gets no control characters: {text:?}");
    ends_well(watch);
    ends_well(shown);
}
