//! People: accounts on several machines, who pins whose key, and what admins may do to accounts.

use crate::support::{Cluster, PASSWORD};
use client::{Client, ClientOptions, PinState};
use model::Kind;
use std::time::Duration;

/// An admin's cluster without nodes, and users who registered.
async fn cluster_of(names: &[&str]) -> (Cluster, Client, Vec<Client>) {
    let (cluster, admin) = Cluster::start(0).await;
    let mut users = Vec::new();
    for name in names {
        users.push(user(&cluster, &admin, name).await);
    }
    (cluster, admin, users)
}

async fn user(cluster: &Cluster, admin: &Client, name: &str) -> Client {
    let (invite, _) = admin.create_invite(name, false, None, Duration::from_secs(600)).await.unwrap();
    Client::register(cluster.profile(name), &invite, PASSWORD, ClientOptions::default()).await.unwrap().0
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_pinned_when_first_met_and_compared_by_people() {
    let (cluster, _, users) = cluster_of(&["ann", "bea", "cem"]).await;
    let [ann, bea, _] = users.as_slice() else { unreachable!() };

    let met = ann.acquaintance("bea").await.unwrap();
    assert_eq!(met.state, PinState::New);
    assert_eq!(met.safety_number, bea.acquaintance("Ann ").await.unwrap().safety_number);
    assert_eq!(met.safety_number.split(' ').count(), 12);
    assert_ne!(met.safety_number, ann.acquaintance("cem").await.unwrap().safety_number);

    let again = ann.acquaintance("bea").await.unwrap();
    assert_eq!((again.state.clone(), again.since_ms), (PinState::Pinned, met.since_ms));
    ann.accept(&again, true).await.unwrap();
    assert_eq!(ann.acquaintance("bea").await.unwrap().state, PinState::Verified);
    assert_eq!(ann.pinned("bea").await.unwrap().fingerprint(), met.fingerprint);

    assert_eq!(ann.pinned("nobody").await.unwrap_err().kind, Kind::NotFound);
    assert_eq!(ann.acquaintance("ann").await.unwrap_err().kind, Kind::Invalid);
    let all = ann.pinned_all(&["cem".into(), "bea".into(), "ann".into()]).await.unwrap();
    assert_eq!(all[1].fingerprint(), met.fingerprint);

    // Pins are the account's, not the machine's; another machine is told what it gets.
    assert_eq!(ann.first_notes().unwrap().pins, 0);
    let profile = cluster.profile("elsewhere");
    let address = client::Address { coordinator: cluster.address.clone(), fingerprint: ann.profile().info().unwrap().fingerprint() };
    let elsewhere = Client::login(profile.clone(), Some("ann"), Some(address), PASSWORD, ClientOptions::default()).await.unwrap();
    let age = elsewhere.first_notes().unwrap();
    assert_eq!(age.pins, 2);
    assert!(age.time_ms.abs_diff(cluster.env.now_ms()) < 60_000);
    assert_eq!(elsewhere.acquaintance("bea").await.unwrap().state, PinState::Verified);
    assert_eq!(Client::open(profile, ClientOptions::default()).await.unwrap().first_notes(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_machines_of_one_account_pin_at_the_same_time_and_neither_pin_is_lost() {
    let (cluster, admin, users) = cluster_of(&["ann", "bea", "cem"]).await;
    drop(users);
    let open = || Client::open(cluster.profile("ann"), ClientOptions::default());
    let (one, other) = (open().await.unwrap(), open().await.unwrap());
    let (names, others) = (["bea".to_string()], ["cem".to_string(), "admin".to_string()]);
    let (a, b) = tokio::join!(one.pinned_all(&names), other.pinned_all(&others));
    assert!(a.is_ok() && b.is_ok());
    for name in ["bea", "cem", "admin"] {
        assert_eq!(one.acquaintance(name).await.unwrap().state, PinState::Pinned, "{name}");
    }
    drop(admin);
}
