//! People: accounts on several machines, who pins whose key, and what admins may do to accounts.

use crate::support::{Cluster, PASSWORD, Tell, at};
use client::{Client, ClientOptions, PinState};
use model::Kind;
use std::time::Duration;
use wire::coordinator::Administration;

/// Another password.
const ANOTHER: &str = "a different horse with another staple";

/// An admin's cluster without nodes, and users who registered.
pub async fn cluster_of(names: &[&str]) -> (Cluster, Client, Vec<Client>) {
    let (cluster, admin) = Cluster::start(0).await;
    let mut users = Vec::new();
    for name in names {
        users.push(user(&cluster, &admin, name).await);
    }
    (cluster, admin, users)
}

pub async fn user(cluster: &Cluster, admin: &Client, name: &str) -> Client {
    let (invite, _) = admin.create_invite(name, false, None, Duration::from_secs(600)).await.unwrap();
    Client::register(cluster.profile(name), &invite, PASSWORD, ClientOptions::default()).await.unwrap().0
}

fn address(cluster: &Cluster, of: &Client) -> Option<client::Address> {
    Some(client::Address { coordinator: cluster.address.clone(), fingerprint: of.profile().info().unwrap().fingerprint() })
}

/// Logs in on a machine that knows nothing.
async fn login(cluster: &Cluster, known: &Client, machine: &str, user: &str, password: &str) -> model::Result<Client> {
    let at = address(cluster, known);
    Client::login(cluster.profile(machine), Some(user), at, password, ClientOptions::default()).await
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
    let elsewhere = login(&cluster, ann, "elsewhere", "ann", PASSWORD).await.unwrap();
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

#[tokio::test(flavor = "multi_thread")]
async fn an_account_lives_on_several_machines_and_leaves_them_one_by_one() {
    let (cluster, admin, users) = cluster_of(&["ann"]).await;
    let ann = &users[0];
    ann.put_bytes("/a", b"from home".to_vec()).await.unwrap();
    let office = login(&cluster, &admin, "office", "ann", PASSWORD).await.unwrap();
    let phone = login(&cluster, &admin, "phone", "ann", PASSWORD).await.unwrap();
    assert_eq!(office.read("/a").await.unwrap(), b"from home");
    phone.put_bytes("/b", b"from the phone".to_vec()).await.unwrap();
    assert_eq!(ann.read("/b").await.unwrap(), b"from the phone");

    phone.logout().await.unwrap();
    assert_eq!(phone.read("/a").await.unwrap_err().kind, Kind::Denied);
    assert!(Client::open(cluster.profile("phone"), ClientOptions::default()).await.is_err());
    assert_eq!(office.read("/b").await.unwrap(), b"from the phone");

    // A new password ends the sessions of all other machines.
    ann.change_password(PASSWORD, ANOTHER).await.unwrap();
    assert_eq!(office.read("/a").await.unwrap_err().kind, Kind::Denied);
    assert_eq!(login(&cluster, &admin, "office", "ann", PASSWORD).await.err().unwrap().kind, Kind::Denied);
    let office = login(&cluster, &admin, "office", "ann", ANOTHER).await.unwrap();
    assert_eq!(office.read("/a").await.unwrap(), b"from home");
}

#[tokio::test(flavor = "multi_thread")]
async fn recovery_on_a_fresh_machine_opens_everything_and_shuts_out_the_old_password() {
    let (cluster, admin) = Cluster::start(0).await;
    let (invite, _) = admin.create_invite("ann", false, None, Duration::from_secs(600)).await.unwrap();
    let registered = Client::register(cluster.profile("ann"), &invite, PASSWORD, ClientOptions::default()).await.unwrap();
    let (ann, words) = registered;
    ann.put_bytes("/a", b"still mine".to_vec()).await.unwrap();
    let pinned = ann.pinned("admin").await.unwrap().fingerprint();

    let at = || address(&cluster, &admin);
    let recover = |machine: &str, words: String| {
        let profile = cluster.profile(machine);
        async move { Client::recover(profile, "ann", at(), &words, ANOTHER, ClientOptions::default()).await }
    };
    // Other words, which are words: nothing changes.
    let (invite, _) = admin.create_invite("bea", false, None, Duration::from_secs(600)).await.unwrap();
    let others = Client::register(cluster.profile("bea"), &invite, PASSWORD, ClientOptions::default());
    let others = others.await.unwrap().1;
    assert_eq!(recover("thief", others.to_string()).await.err().unwrap().kind, Kind::Denied);
    assert_eq!(ann.read("/a").await.unwrap(), b"still mine");

    let fresh = recover("fresh", words.to_string().to_uppercase()).await.unwrap();
    assert_eq!(fresh.read("/a").await.unwrap(), b"still mine");
    assert_eq!(fresh.first_notes().unwrap().pins, 1);
    assert_eq!(fresh.pinned("admin").await.unwrap().fingerprint(), pinned);
    assert_eq!(ann.read("/a").await.unwrap_err().kind, Kind::Denied);
    assert_eq!(login(&cluster, &admin, "old", "ann", PASSWORD).await.err().unwrap().kind, Kind::Denied);
    assert!(login(&cluster, &admin, "new", "ann", ANOTHER).await.is_ok());
    // The words are good again and again, until they are replaced.
    assert!(recover("again", words.to_string()).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_account_is_out_at_once_and_nobody_can_tell_it_from_one_that_never_was() {
    let (cluster, admin, users) = cluster_of(&["ann", "bea"]).await;
    let [ann, bea] = users.as_slice() else { unreachable!() };
    ann.put_bytes("/a", b"kept".to_vec()).await.unwrap();
    let disable = |name: &str, disabled| Administration::SetDisabled { name: name.into(), disabled };
    assert_eq!(bea.administer(disable("ann", true)).await.unwrap_err().kind, Kind::Denied);
    assert_eq!(admin.administer(disable("nobody", true)).await.unwrap_err().kind, Kind::NotFound);
    assert_eq!(admin.administer(disable("admin", true)).await.unwrap_err().kind, Kind::Invalid);

    admin.administer(disable("ann", true)).await.unwrap();
    assert_eq!(ann.read("/a").await.unwrap_err().kind, Kind::Denied);
    assert_eq!(ann.put_bytes("/b", vec![1; 100_000]).await.unwrap_err().kind, Kind::Denied);
    let mut answers = Vec::new();
    for (user, password) in [("ann", PASSWORD), ("ann", ANOTHER), ("nobody", PASSWORD)] {
        let e = login(&cluster, &admin, "elsewhere", user, password).await.err().unwrap();
        answers.push((e.kind, e.message));
    }
    assert!(answers.iter().all(|a| *a == answers[0]), "{answers:?}");
    assert!(admin.users().await.unwrap().iter().any(|u| u.name == "ann" && u.disabled));

    admin.administer(disable("ann", false)).await.unwrap();
    let again = login(&cluster, &admin, "elsewhere", "ann", PASSWORD).await.unwrap();
    assert_eq!(again.read("/a").await.unwrap(), b"kept");

    // A quota counts from the next change on; what is there stays.
    admin.administer(Administration::SetQuota { name: "ann".into(), quota: Some(1) }).await.unwrap();
    assert_eq!(again.put_bytes("/b", b"more".to_vec()).await.unwrap_err().kind, Kind::Insufficient);
    assert_eq!(again.read("/a").await.unwrap(), b"kept");
    admin.administer(Administration::SetQuota { name: "ann".into(), quota: None }).await.unwrap();
    again.put_bytes("/b", b"more".to_vec()).await.unwrap();
    assert_eq!(again.stat(&at("/b")).await.unwrap().size, 4);
}
