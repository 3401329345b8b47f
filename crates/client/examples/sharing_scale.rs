//! How long sharing takes with many members and many entries: a cluster in this process, so many accounts, a
//! folder with so many small files.
//!
//! ```sh
//! cargo run --release -p client --example sharing_scale -- [MEMBERS] [ENTRIES]     (1000 and 100000)
//! ```

#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // a measurement: it stops where something fails

use client::{Client, ClientOptions, Profile, Put, PutOptions, RemotePath, Source};
use futures::StreamExt;
use model::account::Role;
use model::cluster::ServerRole;
use server::coordinator::{Coordinator, CoordinatorConfig};
use server::node::{Node, NodeConfig};
use std::sync::Arc;
use std::time::{Duration, Instant};

const PASSWORD: &str = "correct horse battery staple";

fn at(path: &str) -> RemotePath {
    RemotePath::parse(path).unwrap()
}

async fn timed<T>(what: &str, work: impl Future<Output = T>) -> T {
    let start = Instant::now();
    let done = work.await;
    println!("{what:<44} {:>8.2} s", start.elapsed().as_secs_f64());
    done
}

#[tokio::main]
async fn main() {
    let mut numbers = std::env::args().skip(1).map(|a| a.parse::<usize>().expect("a number"));
    let (members, entries) = (numbers.next().unwrap_or(1000), numbers.next().unwrap_or(100_000));
    let env = env::real::env();
    let dir = tempfile::tempdir().unwrap();
    let config = CoordinatorConfig { power: 6, ..CoordinatorConfig::new(dir.path().join("c"), "127.0.0.1:0") };
    let coordinator = Coordinator::start(env.clone(), config).await.unwrap();
    let profile = |name: &str| Profile::new(env.clone(), &dir.path().join("home"), name).unwrap();
    let register =
        async |invite: String, name: String| Client::register(profile(&name), &invite, PASSWORD, ClientOptions::default()).await.unwrap().0;
    let admin = register(coordinator.invite.clone().unwrap(), "admin".into()).await;
    let mut nodes = Vec::new();
    for i in 0..4 {
        let (token, _) = admin.create_token(ServerRole::Node, Duration::from_secs(600), None).await.unwrap();
        let config =
            NodeConfig { join: Some(token), capacity: Some(8 << 30), ..NodeConfig::new(dir.path().join(format!("n{i}")), "127.0.0.1:0") };
        nodes.push(Node::start(env.clone(), config).await.unwrap());
    }
    let people = timed(&format!("registering {members} accounts"), async {
        let all = futures::stream::iter(0..members).map(|i| {
            let (admin, register) = (&admin, &register);
            async move {
                let name = format!("user-{i}");
                let (invite, _) = admin.create_invite(&name, false, None, Duration::from_secs(3600)).await.unwrap();
                // Addresses are slowed down after many registrations: patience.
                (name.clone(), register(invite, name).await)
            }
        });
        all.buffered(4).collect::<Vec<_>>().await
    })
    .await;

    admin.mkdir(&at("/Big"), false).await.unwrap();
    timed(&format!("storing {entries} small files"), async {
        for some in (0..entries).collect::<Vec<_>>().chunks(10_000) {
            let puts =
                some.iter().map(|i| Put { source: Source::Bytes(format!("file {i}").into_bytes()), remote: at(&format!("/Big/file-{i}")) });
            let report = admin.put(puts.collect(), PutOptions::default(), Arc::new(())).await.unwrap();
            assert!(report.failed.is_empty());
        }
    })
    .await;
    let with: Vec<(String, Role)> = people.iter().map(|(name, _)| (name.clone(), Role::Read)).collect();
    timed("share the folder with the first member", admin.share(&at("/Big"), &with[..1])).await.unwrap();
    timed(&format!("share it with {} more", members - 1), admin.share(&at("/Big"), &with)).await.unwrap();
    let listed = timed("first listing by a new member", people.last().unwrap().1.list(&at("/Shared/admin/Big"))).await.unwrap();
    assert_eq!(listed.len(), entries);
    timed("second listing", people.last().unwrap().1.list(&at("/Shared/admin/Big"))).await.unwrap();
    timed("listing by the owner", admin.list(&at("/Big"))).await.unwrap();
    timed("revoke one member, all new keys", admin.unshare(&at("/Big"), &with[0].0, false, Arc::new(()))).await.unwrap();
    let listed = timed("listing by a member after that", people.last().unwrap().1.list(&at("/Shared/admin/Big"))).await.unwrap();
    assert_eq!(listed.len(), entries);
    for node in nodes {
        node.shutdown().await;
    }
    coordinator.shutdown().await;
}
