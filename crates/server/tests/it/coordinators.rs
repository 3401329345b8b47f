//! Three coordinators: they join, agree, and go on when one of them is gone.

use crate::support::faults::Faults;
use crate::support::*;
use env::Env;
use model::cluster::{Event, NodeState, ServerRole};
use model::command::{Answer, Command, Outcome, Query};
use model::{Error, Kind, RequestId, Result};
use server::consensus::CHECKPOINT_EVERY;
use server::coordinator::{self, Coordinator};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;
use transport::{JoinToken, Mode, Pool, Target};
use wire::admin::{OpenBackup, ReadBackup, ReadBackupRequest};
use wire::coordinator::*;
use wire::{Authed, Rpc};

/// Coordinators in one process, each in its own folder and at its own port, and their admin.
struct Group {
    env: Env,
    cluster: Cluster,
    admin: User,
    /// By number of the folder; the first one is the founder's.
    running: Vec<Option<coordinator::Running>>,
    addresses: Vec<String>,
    pool: Pool,
}

impl Group {
    /// So many coordinators, all of them voters.
    async fn of(size: usize) -> Self {
        let mut group = Self::with_checkpoints(CHECKPOINT_EVERY).await;
        for _ in 1..size {
            group.join().await;
        }
        group.wait_for(size).await;
        group
    }

    async fn with_checkpoints(every: u64) -> Self {
        Self::in_world(env::real::env(), every).await
    }

    async fn in_world(env: Env, every: u64) -> Self {
        let mut cluster = Cluster::start_as(env.clone(), |config| config.checkpoint_every = every).await;
        let admin = cluster.register(&cluster.invite.clone()).await.unwrap();
        let first = cluster.coordinator.take().unwrap();
        let (addresses, pool) = (vec![first.address.clone()], cluster.pool());
        Group { env, cluster, admin, running: vec![Some(first)], addresses, pool }
    }

    fn folder(&self, i: usize) -> PathBuf {
        self.cluster.dir.path().join(if i == 0 { "c".to_string() } else { format!("c{i}") })
    }

    fn config(&self, i: usize, listen: &str) -> coordinator::CoordinatorConfig {
        Cluster::config_with(self.folder(i), listen, self.cluster.checkpoint_every)
    }

    async fn token(&self) -> String {
        let request = CreateTokenRequest { role: ServerRole::Coordinator, valid_ms: 3_600_000, replace: None };
        self.rpc::<CreateToken, _>(request).await.unwrap().text
    }

    /// One more joins.
    async fn join(&mut self) -> usize {
        let i = self.running.len();
        let config = coordinator::CoordinatorConfig { join: Some(self.token().await), ..self.config(i, "127.0.0.1:0") };
        let running = Coordinator::start(self.env.clone(), config).await.unwrap();
        assert!(running.caught_up, "it has the catalog when its start returns");
        self.addresses.push(running.address.clone());
        self.running.push(Some(running));
        i
    }

    async fn stop(&mut self, i: usize) {
        self.running[i].take().unwrap().shutdown().await;
    }

    /// As a crash: nobody is told, nothing is handed over.
    fn kill(&mut self, i: usize) {
        drop(self.running[i].take().unwrap());
    }

    async fn start(&mut self, i: usize) {
        // A killed one may still be letting go of its folder and port.
        for _ in 0..300 {
            match Coordinator::start(self.env.clone(), self.config(i, &self.addresses[i])).await {
                Ok(running) => return self.running[i] = Some(running),
                Err(e) if matches!(e.kind, Kind::Unavailable | Kind::Conflict) => self.env.sleep(Duration::from_millis(100)).await,
                Err(e) => panic!("{e:?}"),
            }
        }
        panic!("coordinator {i} does not start");
    }

    fn leader(&self) -> Option<usize> {
        self.running.iter().position(|r| r.as_ref().is_some_and(|r| r.leads()))
    }

    async fn at<R: Rpc>(&self, i: usize, request: &R::Request) -> Result<R::Response>
    where
        R::Request: Sync,
    {
        self.pool.rpc::<R>(&Target::coordinator(&self.addresses[i]).with(Mode::Control), request, SOON).await
    }

    /// As a client does: whichever answers, tried again for 20 s.
    async fn rpc<R: Rpc<Request = Authed<T>>, T: Sync>(&self, request: T) -> Result<R::Response>
    where
        R::Request: Sync,
    {
        let request = Authed { session: self.admin.session, request };
        let mut last = Error::unavailable("nobody");
        for _ in 0..400 {
            for (i, running) in self.running.iter().enumerate() {
                if running.is_none() {
                    continue;
                }
                match self.at::<R>(i, &request).await {
                    Err(e) if e.kind == Kind::Unavailable => last = e,
                    answer => return answer,
                }
            }
            self.env.sleep(Duration::from_millis(50)).await;
        }
        Err(last)
    }

    async fn status(&self) -> StatusResponse {
        self.rpc::<Status, _>(()).await.unwrap()
    }

    /// Waits until so many coordinators answer, and all have a vote.
    async fn wait_for(&self, size: usize) {
        eventually(&self.env, "all coordinators vote and answer", || async {
            let status = self.status().await;
            status.coordinators.len() == size && status.coordinators.iter().all(|(_, up)| *up) && status.learners.is_empty()
        })
        .await;
    }

    /// One change under a request id of its own: notes of the account, numbered.
    async fn write(&self, seq: u64) -> Result<Outcome> {
        let state = model::account::StateRecord { seq, ..self.admin.account.state.clone() };
        let command = Command::PutState { account: self.admin.account.id, state };
        let request = ProposeRequest { request: RequestId::new(self.env.now_ms(), self.env.random()), command };
        self.rpc::<Propose, _>(request).await?
    }

    async fn events(&self) -> Vec<Event> {
        match self.rpc::<Ask, _>(Query::Events { after: 0, limit: 1000 }).await.unwrap() {
            Answer::Events(events) => events,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn coordinators_join_and_get_a_vote() {
    let group = Group::of(3).await;
    let status = group.status().await;
    let listed: Vec<(u64, String)> = status.cluster.coordinators.iter().map(|c| (c.id.0, c.address.clone())).collect();
    assert_eq!(listed, [(1, group.addresses[0].clone()), (2, group.addresses[1].clone()), (3, group.addresses[2].clone())]);
    // A follower says who leads, and does not pretend to know.
    let request = Authed { session: group.admin.session, request: Query::Cluster };
    eventually(&group.env, "all name the one that leads", || async {
        let Some(leader) = group.leader() else { return false };
        let (id, address) = (leader as u64 + 1, &group.addresses[leader]);
        let mut agree = group.status().await.cluster.leader.map(|l| l.0) == Some(id);
        for i in 0..3 {
            let Ok(hello) = group.at::<Hello>(i, &wire::PROTOCOL).await else { return false };
            agree &= (hello.leader.as_ref(), hello.leads) == (Some(address), i == leader);
            let answer = group.at::<Ask>(i, &request).await;
            agree &= match i == leader {
                true => answer.is_ok(),
                false => answer.is_err_and(|e| {
                    let why = format!("coordinator-{} does not lead: coordinator-{id} at {address} does", i + 1);
                    e.kind == Kind::Unavailable && e.message == why
                }),
            };
        }
        agree
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_go_on_when_the_leader_is_killed_and_none_is_lost_or_doubled() {
    let mut group = Group::of(3).await;
    let mut seq = group.admin.account.state.seq;
    for round in 0..2 {
        for _ in 0..20 {
            seq += 1;
            // `Conflict` would mean that an earlier one was applied twice, or not at all.
            assert_eq!(group.write(seq).await, Ok(Outcome::Done), "round {round}, write {seq}");
        }
        let leader = group.leader().unwrap();
        group.kill(leader);
        let start = group.env.clock.monotonic();
        seq += 1;
        assert_eq!(group.write(seq).await, Ok(Outcome::Done));
        let pause = group.env.clock.monotonic() - start;
        assert!(pause < SOON, "writes paused for {pause:?}");
        group.start(leader).await;
        group.wait_for(3).await;
    }
    let Answer::Cluster(_) = group.rpc::<Ask, _>(Query::Cluster).await.unwrap() else { panic!("no view") };
    let whoami = group.rpc::<WhoAmI, _>(()).await.unwrap();
    assert_eq!(whoami.account.state.seq, seq);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_three_start_again() {
    let mut group = Group::of(3).await;
    let seq = group.admin.account.state.seq + 1;
    group.write(seq).await.unwrap();
    for i in 0..3 {
        group.kill(i);
    }
    for i in 0..3 {
        group.start(i).await;
    }
    assert_eq!(group.rpc::<WhoAmI, _>(()).await.unwrap().account.state.seq, seq);
    group.wait_for(3).await;
    group.write(seq + 1).await.unwrap();
    // In peace as well.
    for i in 0..3 {
        group.stop(i).await;
    }
    for i in 0..3 {
        group.start(i).await;
    }
    assert_eq!(group.rpc::<WhoAmI, _>(()).await.unwrap().account.state.seq, seq + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stops_hands_over() {
    let mut group = Group::of(3).await;
    let leader = group.leader().unwrap();
    group.stop(leader).await;
    eventually(&group.env, "another one leads", || async { group.leader().is_some_and(|other| other != leader) }).await;
    let seq = group.admin.account.state.seq + 1;
    group.write(seq).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_survivor_says_what_it_cannot_do() {
    let mut group = Group::of(3).await;
    let session = group.admin.session;
    let leader = group.leader().unwrap();
    for i in (0..3).filter(|i| *i != leader) {
        group.kill(i);
    }
    let refused = |e: Error| {
        assert_eq!(e.kind, Kind::Unavailable);
        let why = "this coordinator reaches 1 of 3 coordinators, no majority: it can neither change the catalog nor vouch for it";
        (e.message == why).then_some(e.hint.unwrap_or_default())
    };
    // It still believes that it leads, and must not hang.
    let start = group.env.clock.monotonic();
    group.at::<Ask>(leader, &Authed { session, request: Query::Cluster }).await.unwrap_err();
    assert!(group.env.clock.monotonic() - start < SOON);
    eventually(&group.env, "the reason is named", || async {
        let e = group.at::<Ask>(leader, &Authed { session, request: Query::Cluster }).await.unwrap_err();
        refused(e).is_some_and(|hint| hint.starts_with("start coordinator-") && hint.contains(" or "))
    })
    .await;
    assert!(!group.at::<Hello>(leader, &wire::PROTOCOL).await.unwrap().leads);
    // One more is a majority.
    let other = (leader + 1) % 3;
    group.start(other).await;
    group.write(group.admin.account.state.seq + 1).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_far_behind_gets_a_snapshot() {
    let mut group = Group::with_checkpoints(20).await;
    group.join().await;
    group.join().await;
    group.wait_for(3).await;
    let behind = (0..3).find(|i| Some(*i) != group.leader()).unwrap();
    group.kill(behind);
    let mut seq = group.admin.account.state.seq;
    // More than the log keeps: 20 entries, after a snapshot each 100.
    for _ in 0..400 {
        seq += 1;
        group.write(seq).await.unwrap();
    }
    group.start(behind).await;
    let leader = group.leader().unwrap();
    eventually(&group.env, "it has caught up", || async {
        group.running[behind].as_ref().unwrap().applied_index() + 20 >= group.running[leader].as_ref().unwrap().applied_index()
    })
    .await;
    // It counts: with it and one other the catalog goes on, and it can lead.
    let third = (0..3).find(|i| *i != behind && *i != leader).unwrap();
    group.kill(leader);
    seq += 1;
    group.write(seq).await.unwrap();
    assert!(group.running[third].is_some());
    let whoami = group.rpc::<WhoAmI, _>(()).await.unwrap();
    assert_eq!(whoami.account.state.seq, seq);
    // A newcomer to a purged log gets one, too.
    group.start(leader).await;
    group.wait_for(3).await;
    group.join().await;
    group.wait_for(4).await;
    let left = std::fs::read_dir(group.cluster.dir.path().join(format!("c{behind}").trim_end_matches('0'))).unwrap();
    let left: Vec<String> = left.map(|e| e.unwrap().file_name().into_string().unwrap()).filter(|n| n.starts_with("incoming-")).collect();
    assert_eq!(left, Vec::<String>::new(), "nothing is left of the transfer");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_removed_is_out_and_says_so() {
    let mut group = Group::of(3).await;
    let session = group.admin.session;
    let gone = group.leader().unwrap();
    let id = group.running[gone].as_ref().unwrap().id;
    group.rpc::<Administer, _>(Administration::RemoveCoordinator(id)).await.unwrap();
    eventually(&group.env, "another one leads a group of two", || async {
        let Ok(status) = group.rpc::<Status, _>(()).await else { return false };
        status.coordinators.len() == 2 && status.cluster.leader.is_some_and(|l| l != id)
    })
    .await;
    eventually(&group.env, "the removed one says so", || async {
        let e = group.at::<Ask>(gone, &Authed { session, request: Query::Cluster }).await.unwrap_err();
        e.kind == Kind::Unavailable && e.message == format!("coordinator-{id} was removed from the cluster and serves nothing any more")
    })
    .await;
    // It never votes: with one of the two that remain down, there is no majority, whatever it does.
    let remaining: Vec<usize> = (0..3).filter(|i| *i != gone).collect();
    group.kill(remaining[1]);
    group.env.sleep(Duration::from_secs(4)).await;
    let e = group.at::<Ask>(remaining[0], &Authed { session, request: Query::Cluster }).await.unwrap_err();
    assert!(e.message.contains("reaches 1 of 2 coordinators"), "{e}");
    group.start(remaining[1]).await;
    // Started again, it learns that it is out.
    group.kill(gone);
    group.start(gone).await;
    eventually(&group.env, "the removed one says so again", || async {
        let e = group.at::<Ask>(gone, &Authed { session, request: Query::Cluster }).await.unwrap_err();
        e.message.contains("was removed from the cluster")
    })
    .await;
    let events: BTreeSet<String> = group.events().await.into_iter().map(|e| e.what).collect();
    assert!(events.contains("coordinator-joined") && events.contains("coordinator-removed"), "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_that_would_leave_no_majority_is_refused() {
    let mut group = Group::of(3).await;
    let leader = group.leader().unwrap();
    let (dead, alive) = ((leader + 1) % 3, (leader + 2) % 3);
    let id = |group: &Group, i: usize| group.running[i].as_ref().unwrap().id;
    let (dead_id, alive_id) = (id(&group, dead), id(&group, alive));
    group.kill(dead);
    eventually(&group.env, "it is seen to be down", || async {
        group.status().await.coordinators.iter().any(|(id, up)| *id == dead_id && !up)
    })
    .await;
    let refused = group.rpc::<Administer, _>(Administration::RemoveCoordinator(alive_id)).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Invalid);
    assert!(refused.message.contains("of the 2 that would remain only 1 would answer"), "{refused}");
    // The dead one may go, and another one takes its place under a number of its own.
    group.rpc::<Administer, _>(Administration::RemoveCoordinator(dead_id)).await.unwrap();
    let new = group.join().await;
    assert_eq!(id(&group, new).0, 4);
    group.wait_for(3).await;
}

/// A token that was made before knows none of those who came later and lead now.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_names_followers_only_is_enough_to_join() {
    let mut group = Group::of(3).await;
    let leader = group.leader().unwrap();
    let (address, all) = (group.addresses[leader].clone(), group.addresses.clone());
    let of_followers = |text: String| {
        let token = JoinToken::parse(&text).unwrap();
        JoinToken { coordinators: all.iter().filter(|a| **a != address).cloned().collect(), ..token }.to_text()
    };
    let token = of_followers(group.admin.token(None).await);
    group.cluster.start_node(0, Some(token)).await.unwrap();
    let token = of_followers(group.token().await);
    let config = coordinator::CoordinatorConfig { join: Some(token), ..group.config(3, "127.0.0.1:0") };
    let joined = Coordinator::start(group.env.clone(), config).await.unwrap();
    assert!(joined.caught_up);
    group.wait_for(4).await;
}

/// It has no catalog that names others, and the one that took it in is gone for good.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_knows_only_coordinators_that_are_gone_asks_who_serves_where_they_were() {
    let mut group = Group::of(1).await;
    let founder = group.running[0].as_ref().unwrap().id;
    // It is taken in, and stops before it has anything.
    let obstacle = group.folder(1).join("log");
    std::fs::create_dir_all(group.folder(1)).unwrap();
    std::fs::write(&obstacle, b"").unwrap();
    let config = coordinator::CoordinatorConfig { join: Some(group.token().await), ..group.config(1, "127.0.0.1:0") };
    assert_eq!(Coordinator::start(group.env.clone(), config).await.err().unwrap().kind, Kind::Unavailable);
    assert!(group.status().await.cluster.coordinators.iter().any(|c| c.id != founder && c.address.is_empty()));
    // Meanwhile two others come, the later one to where the founder was.
    group.running.push(None);
    group.addresses.push(String::new());
    group.join().await;
    eventually(&group.env, "another one votes", || async {
        let status = group.status().await;
        status.coordinators.len() == 3 && status.learners.len() == 1
    })
    .await;
    group.rpc::<Administer, _>(Administration::RemoveCoordinator(founder)).await.unwrap();
    group.stop(0).await;
    let config = coordinator::CoordinatorConfig { join: Some(group.token().await), ..group.config(3, &group.addresses[0]) };
    group.running.push(Some(Coordinator::start(group.env.clone(), config).await.unwrap()));
    group.addresses.push(group.addresses[0].clone());

    std::fs::remove_file(&obstacle).unwrap();
    let late = Coordinator::start(group.env.clone(), group.config(1, "127.0.0.1:0")).await.unwrap();
    group.addresses[1] = late.address.clone();
    group.running[1] = Some(late);
    group.wait_for(3).await;
}

/// Nobody but the two can agree to go on without one of them.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_removed_may_be_stopped_as_soon_as_its_removal_is_answered() {
    for leads in [true, false] {
        let mut group = Group::of(2).await;
        let leader = group.leader().unwrap();
        let gone = if leads { leader } else { 1 - leader };
        let id = |group: &Group, i: usize| group.running[i].as_ref().unwrap().id;
        group.rpc::<Administer, _>(Administration::RemoveCoordinator(id(&group, gone))).await.unwrap();
        group.kill(gone);
        assert_eq!(group.write(group.admin.account.state.seq + 1).await, Ok(Outcome::Done));
        assert_eq!(group.status().await.coordinators.len(), 1);
        let last = Administration::RemoveCoordinator(id(&group, 1 - gone));
        let refused = group.rpc::<Administer, _>(last).await.unwrap_err();
        assert_eq!(refused.message, "the last coordinator cannot be removed: the cluster is what it keeps");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_with_a_catalog_does_not_join_and_a_node_token_makes_no_coordinator() {
    let group = Group::of(1).await;
    let node_token = group.admin.token(None).await;
    let config = coordinator::CoordinatorConfig { join: Some(node_token), ..group.config(7, "127.0.0.1:0") };
    let refused = Coordinator::start(group.env.clone(), config).await.err().unwrap();
    assert_eq!((refused.kind, refused.message.as_str()), (Kind::Denied, "this join token is not for a coordinator"));

    let other = Cluster::start().await;
    let dir = other.dir.path().join("c");
    other.coordinator.unwrap().shutdown().await;
    std::fs::remove_file(dir.join("coordinator")).unwrap();
    let config =
        coordinator::CoordinatorConfig { join: Some(group.token().await), ..coordinator::CoordinatorConfig::new(&dir, "127.0.0.1:0") };
    let refused = Coordinator::start(group.env.clone(), config).await.err().unwrap();
    assert_eq!(refused.kind, Kind::Invalid, "{refused}");
    // Without a token it goes on as the lone coordinator of the first version that it may be.
    let again = Coordinator::start(group.env.clone(), coordinator::CoordinatorConfig::new(&dir, "127.0.0.1:0")).await.unwrap();
    assert_eq!(again.id.0, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_says_nothing_costs_a_second_once() {
    let group = Group::of(3).await;
    // Takes connections and never says anything.
    let hole = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = hole.local_addr().unwrap().to_string();
    let follower = (group.leader().unwrap() + 1) % 3;
    let known = vec![silent.clone(), group.addresses[follower].clone()];
    let coordinators = transport::Coordinators::new(group.env.clone(), group.pool.clone(), known);
    let request = Authed { session: group.admin.session, request: () };
    let timed = || async {
        let start = group.env.clock.monotonic();
        coordinators.rpc::<WhoAmI>(&request, SOON).await.unwrap();
        group.env.clock.monotonic() - start
    };
    // The leader is not even known: the follower names it.
    let first = timed().await;
    assert!(first > Duration::from_millis(900), "{first:?}");
    assert_ne!(coordinators.known()[0], silent, "who answered is remembered");
    let second = timed().await;
    assert!(second < SOON, "{second:?}");
}

/// Heartbeats are remembered by the leader alone: one that begins to lead has heard nobody yet.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_change_of_leader_nobody_is_down_without_a_reason() {
    let mut group = Group::of(3).await;
    let token = group.admin.token(None).await;
    let node = group.cluster.start_node(0, Some(token)).await.unwrap();
    // Longer than it takes for a silent node to count as down.
    group.env.sleep(Duration::from_secs(5)).await;
    let leader = group.leader().unwrap();
    group.kill(leader);
    for _ in 0..40 {
        let status = group.status().await;
        let state = status.nodes.iter().find(|n| n.node == node).map(|n| n.state);
        assert!(!matches!(state, Some(NodeState::Down | NodeState::Out)), "{state:?}");
        group.env.sleep(Duration::from_millis(100)).await;
    }
    let events = group.events().await;
    assert!(events.iter().all(|e| e.what != "node-down" && e.what != "node-out"), "{events:?}");
    eventually(&group.env, "the node follows the new leader", || async {
        group.status().await.nodes.iter().any(|n| n.node == node && n.silent_ms.is_some_and(|ms| ms < 2000))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_major_version_is_told_who_is_too_old() {
    let group = Group::of(1).await;
    let ours = wire::PROTOCOL;
    let later = wire::Version { minor: ours.minor + 1, ..ours };
    assert!(group.at::<Hello>(0, &later).await.is_ok());
    let newer = wire::Version { major: ours.major + 1, minor: 0 };
    let refused = group.at::<Hello>(0, &newer).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Invalid);
    assert!(refused.message.ends_with("the server is too old and needs an upgrade"), "{refused}");
    let path = Hello::PATH.replace("/v1/", "/v2/");
    let refused = group.pool.call(&Target::coordinator(&group.addresses[0]), &path, bytes::Bytes::new(), (), SOON).await.unwrap_err();
    assert!(refused.message.ends_with("the server is too old and needs an upgrade"), "{refused}");
    // Coordinators' own paths are closed to everybody else.
    let head = wire::raft::Head::new(0);
    let refused = group.at::<wire::raft::Append>(0, &head).await.unwrap_err();
    assert!(matches!(refused.kind, Kind::Denied | Kind::Invalid), "{refused}");
}

/// Each letter of a word somewhere in a file becomes another one.
fn rot(path: &std::path::Path, word: &[u8]) {
    let mut bytes = std::fs::read(path).unwrap();
    let places: Vec<usize> = bytes.windows(word.len()).enumerate().filter(|(_, w)| *w == word).map(|(at, _)| at).collect();
    assert!(!places.is_empty());
    places.iter().for_each(|at| bytes[*at] ^= 0x20);
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_whose_catalog_has_rotted_is_named_and_does_not_lead() {
    let faults = Faults::default();
    let mut group = Group::in_world(faults.env(), 20).await;
    group.join().await;
    group.join().await;
    group.wait_for(3).await;
    let damaged = (group.leader().unwrap() + 1) % 3;
    let id = group.running[damaged].as_ref().unwrap().id;
    group.stop(damaged).await;
    rot(&group.folder(damaged).join("catalog.redb"), b"coordinator-joined");
    group.start(damaged).await;
    group.wait_for(3).await;
    assert_eq!(group.status().await.damaged, []);
    group.rpc::<Administer, _>(Administration::Scrub).await.unwrap();
    eventually(&group.env, "the damage is named", || async { group.status().await.damaged == [id] }).await;
    eventually(&group.env, "an event tells of it", || async {
        group.events().await.iter().any(|e| e.what == "catalog-damaged" && e.detail.contains(&format!("coordinator-{id}")))
    })
    .await;
    // It does not forget when its database has to be opened anew, nor do the others.
    faults.fill(&group.folder(damaged).join("catalog.redb"));
    let mut seq = group.admin.account.state.seq;
    for _ in 0..40 {
        seq += 1;
        group.write(seq).await.unwrap();
    }
    let request = Authed { session: group.admin.session, request: Query::Cluster };
    let says = |what: &'static str| {
        let (group, request) = (&group, &request);
        eventually(
            &group.env,
            what,
            move || async move { group.at::<Ask>(damaged, request).await.is_err_and(|e| e.message.contains(what)) },
        )
    };
    says("its disk is full").await;
    faults.mend();
    says("does not lead").await;
    group.env.sleep(Duration::from_secs(2)).await;
    eventually(&group.env, "the damage is known still", || async { group.status().await.damaged == [id] }).await;
    // Whoever takes over, it is not this one for long.
    for round in 0..4 {
        let leader = std::cell::Cell::new(damaged);
        eventually(&group.env, "a sound one leads", || async {
            leader.set(group.leader().unwrap_or(damaged));
            leader.get() != damaged
        })
        .await;
        let leader = leader.get();
        match round {
            0 => group.stop(leader).await,
            _ => group.kill(leader),
        }
        eventually(&group.env, "a sound one leads", || async { group.leader().is_some_and(|l| l != damaged) }).await;
        eventually(&group.env, "it knows of the damage", || async { group.status().await.damaged == [id] }).await;
        group.start(leader).await;
        group.wait_for(3).await;
    }
    let digests: Vec<_> = group.running.iter().flatten().map(|r| r.digest().unwrap()).collect();
    assert_eq!(digests.iter().filter(|d| d.kept == d.counted).count(), 2, "{digests:?}");
    // The last good catalog stays.
    let sound: Vec<_> = (0..3).filter(|i| *i != damaged).map(|i| group.running[i].as_ref().unwrap().id).collect();
    group.rpc::<Administer, _>(Administration::RemoveCoordinator(sound[0])).await.unwrap();
    eventually(&group.env, "the leader of two knows", || async { group.status().await.damaged == [id] }).await;
    let refused = group.rpc::<Administer, _>(Administration::RemoveCoordinator(sound[1])).await.unwrap_err();
    assert_eq!(refused.message, format!("coordinator-{} cannot be removed now: no other one has a catalog that is not damaged", sound[1]));
}

/// What would be worse than the damage: good copies that are replaced by bad ones.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_a_copy_of_a_catalog_that_has_rotted() {
    let mut group = Group::with_checkpoints(10).await;
    let mut seq = group.admin.account.state.seq;
    for _ in 0..100 {
        seq += 1;
        group.write(seq).await.unwrap();
    }
    group.stop(0).await;
    rot(&group.folder(0).join("catalog.redb"), b"account-registered");
    group.start(0).await;
    let opened = group.rpc::<OpenBackup, _>(()).await.unwrap();
    let mut after: Vec<u8> = Vec::new();
    let damaged = loop {
        let page = group.rpc::<ReadBackup, _>(ReadBackupRequest { id: opened.id, after: after.into() }).await.unwrap();
        after = page.rows.last().unwrap().0.to_vec();
        if !page.more {
            break page.damaged;
        }
    };
    assert!(damaged);
    assert_eq!(group.status().await.damaged.len(), 1);
    // One that joins would need a snapshot: the log does not go back so far.
    let config = coordinator::CoordinatorConfig { join: Some(group.token().await), ..group.config(1, "127.0.0.1:0") };
    let joined = Coordinator::start(group.env.clone(), config).await.unwrap();
    assert!(!joined.caught_up);
    assert_eq!(joined.applied_index(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_one_goes_on_by_itself_when_its_full_disk_has_room_again() {
    let faults = Faults::default();
    let group = Group::in_world(faults.env(), 20).await;
    let mut seq = group.admin.account.state.seq + 1;
    group.write(seq).await.unwrap();
    for what in ["log", "catalog.redb"] {
        faults.fill(&group.folder(0).join(what));
        // Whether these are done in the end is open, as for a client whose connection breaks.
        let state = model::account::StateRecord { seq: seq + 1, ..group.admin.account.state.clone() };
        let command = Command::PutState { account: group.admin.account.id, state };
        let request = ProposeRequest { request: RequestId::new(group.env.now_ms(), group.env.random()), command };
        let request = Authed { session: group.admin.session, request };
        eventually(&group.env, "it says why it does nothing", || async {
            match group.at::<Propose>(0, &request).await {
                Err(e) => {
                    assert_eq!(e.kind, Kind::Unavailable, "{e}");
                    e.message == "coordinator-1 takes no part at present: its disk is full"
                }
                Ok(_) => false,
            }
        })
        .await;
        faults.mend();
        seq += 1;
        // The same once more: done once, whether it was done before or is done now.
        eventually(&group.env, "it is opened anew", || async { group.at::<Propose>(0, &request).await.is_ok() }).await;
        assert_eq!(group.rpc::<WhoAmI, _>(()).await.unwrap().account.state.seq, seq, "{what}");
        seq += 1;
        assert_eq!(group.write(seq).await, Ok(Outcome::Done), "{what}");
    }
    let digest = group.running[0].as_ref().unwrap().digest().unwrap();
    assert_eq!(digest.kept, digest.counted);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_others_go_on_when_the_leaders_database_fails_and_it_comes_back() {
    let faults = Faults::default();
    let mut group = Group::in_world(faults.env(), 20).await;
    group.join().await;
    group.join().await;
    group.wait_for(3).await;
    let mut seq = group.admin.account.state.seq;
    for round in 0..2 {
        let leader = group.leader().unwrap();
        let database = group.folder(leader).join("catalog.redb");
        if round == 0 {
            faults.fill(&database)
        } else {
            faults.panic_once(&database)
        }
        for _ in 0..40 {
            seq += 1;
            assert_eq!(group.write(seq).await, Ok(Outcome::Done), "round {round}, write {seq}");
        }
        eventually(&group.env, "another one leads", || async { group.leader().is_some_and(|other| other != leader) }).await;
        eventually(&group.env, "it has panicked", || async { round == 0 || !faults.is_armed() }).await;
        faults.mend();
        eventually(&group.env, "it has caught up", || async {
            let index = |i: usize| group.running[i].as_ref().unwrap().applied_index();
            group.running[leader].as_ref().unwrap().digest().is_ok() && index(leader) + 20 >= index(group.leader().unwrap_or(leader))
        })
        .await;
        group.wait_for(3).await;
    }
    assert_eq!(group.rpc::<WhoAmI, _>(()).await.unwrap().account.state.seq, seq);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_whose_database_cannot_even_be_opened_ends_by_itself() {
    let faults = Faults::default();
    let group = Group::in_world(faults.env(), 20).await;
    group.write(group.admin.account.state.seq + 1).await.unwrap();
    faults.panic_always(&group.folder(0).join("catalog.redb"));
    let ended = group.env.timeout(Duration::from_secs(60), group.running[0].as_ref().unwrap().ended()).await;
    assert_eq!(ended.map(|e| e.kind), Some(Kind::Corrupt));
}
