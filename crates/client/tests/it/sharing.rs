//! Folders are shared, written by several, taken back, nested, left, handed on, and moved.

use crate::support::{Cluster, PASSWORD, Tell, at, noise};
use client::{Client, ClientOptions};
use model::account::Role;
use model::{Kind, Result};
use std::sync::Arc;
use std::time::Duration;

pub async fn cluster_of(names: &[&str]) -> (Cluster, Client, Vec<Client>) {
    let (cluster, admin) = Cluster::start(4).await;
    let mut users = Vec::new();
    for name in names {
        let (invite, _) = admin.create_invite(name, false, None, Duration::from_secs(600)).await.unwrap();
        users.push(Client::register(cluster.profile(name), &invite, PASSWORD, ClientOptions::default()).await.unwrap().0);
    }
    (cluster, admin, users)
}

pub fn with(people: &[(&str, Role)]) -> Vec<(String, Role)> {
    people.iter().map(|(name, role)| (name.to_string(), *role)).collect()
}

pub async fn unshare(client: &Client, path: &str, name: &str) -> Result<()> {
    client.unshare(&at(path), name, false, Arc::new(())).await.map(|_| ())
}

#[track_caller]
pub fn kind<T>(result: Result<T>) -> Kind {
    match result {
        Ok(_) => panic!("this should have failed"),
        Err(e) => e.kind,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_is_shared_read_write_and_admin_and_taken_back() {
    let (_cluster, _, users) = cluster_of(&["ann", "bea", "cem"]).await;
    let [ann, bea, cem] = users.as_slice() else { unreachable!() };
    let big = noise(1, 5 << 20);
    ann.mkdir(&at("/Work/deep/er"), true).await.unwrap();
    ann.put_bytes("/Work/note", b"first".to_vec()).await.unwrap();
    ann.put_bytes("/Work/note", b"second".to_vec()).await.unwrap();
    ann.put_bytes("/Work/deep/big", big.clone()).await.unwrap();
    ann.put_bytes("/Work/deep/gone", b"gone".to_vec()).await.unwrap();
    ann.remove(&at("/Work/deep/gone"), false, false).await.unwrap();
    assert_eq!(bea.names("/").await, Vec::<String>::new());

    let done = ann.share(&at("/Work"), &with(&[("bea", Role::Read)])).await.unwrap();
    assert_eq!((done.rekeyed.entries, done.rekeyed.older, done.rekeyed.left), (4, 3, 0));
    // The owner sees it where it was, the other one under the owner's name.
    assert_eq!(ann.names("/").await, ["Work"]);
    assert_eq!(ann.names("/Work").await, ["deep", "note"]);
    assert_eq!(bea.names("/").await, ["Shared"]);
    assert_eq!(bea.names("/Shared").await, ["ann"]);
    assert_eq!(bea.names("/Shared/ann").await, ["Work"]);
    assert_eq!(bea.read("/Shared/ann/Work/note").await.unwrap(), b"second");
    assert!(bea.read("/Shared/ann/Work/deep/big").await.unwrap() == big);
    assert!(ann.read("/Work/deep/big").await.unwrap() == big);
    assert_eq!(kind(cem.stat(&at("/Shared/ann/Work")).await), Kind::NotFound);

    // Who may read may not write, whatever it is.
    let e = bea.put_bytes("/Shared/ann/Work/mine", vec![1]).await.unwrap_err();
    assert_eq!(e.kind, Kind::Denied);
    assert!(e.message.contains("only read"), "{e}");
    assert_eq!(kind(bea.mkdir(&at("/Shared/ann/Work/new"), false).await), Kind::Denied);
    assert_eq!(kind(bea.remove(&at("/Shared/ann/Work/note"), false, false).await), Kind::Denied);
    assert_eq!(kind(bea.rename(&at("/Shared/ann/Work/note"), &at("/Shared/ann/Work/other")).await), Kind::Denied);
    assert_eq!(kind(bea.rename(&at("/Shared/ann/Work/note"), &at("/taken")).await), Kind::Denied);
    assert_eq!(kind(bea.share(&at("/Shared/ann/Work"), &with(&[("cem", Role::Read)])).await), Kind::Denied);
    assert_eq!(kind(bea.put_bytes("/Shared/ann/x", vec![1]).await), Kind::Invalid);
    // Copying out is reading.
    bea.copy(&at("/Shared/ann/Work/deep"), &at("/copy"), true).await.unwrap();
    assert!(bea.read("/copy/big").await.unwrap() == big);

    // More people, and another role.
    ann.share(&at("/Work"), &with(&[("bea", Role::Write), ("cem", Role::Admin)])).await.unwrap();
    bea.put_bytes("/Shared/ann/Work/bea", noise(2, 10_000)).await.unwrap();
    bea.put_bytes("/Shared/ann/Work/note", b"third".to_vec()).await.unwrap();
    assert_eq!(ann.read("/Work/note").await.unwrap(), b"third");
    assert_eq!(ann.read("/Work/bea").await.unwrap(), noise(2, 10_000));
    assert_eq!(cem.read("/Shared/ann/Work/bea").await.unwrap(), noise(2, 10_000));
    cem.rename(&at("/Shared/ann/Work/bea"), &at("/Shared/ann/Work/deep/bea")).await.unwrap();
    let (shares, failed) = ann.shares().await.unwrap();
    assert!(failed.is_empty());
    assert_eq!((shares.len(), shares[0].owner.as_str(), shares[0].name.as_str(), shares[0].mine), (1, "ann", "Work", true));
    assert_eq!(shares[0].path, Some(at("/Work")));
    let members: Vec<_> = shares[0].members.iter().map(|m| (m.name.as_str(), m.role)).collect();
    assert_eq!(members, [("ann", Role::Admin), ("bea", Role::Write), ("cem", Role::Admin)]);
    assert!(shares[0].members.iter().all(|m| m.since_ms.is_some()));
    let (shares, _) = cem.shares().await.unwrap();
    assert_eq!((shares[0].path.as_ref().unwrap().to_string().as_str(), shares[0].mine), ("/Shared/ann/Work", false));

    // An admin removes somebody; the owner stays.
    assert_eq!(kind(unshare(cem, "/Shared/ann/Work", "ann").await), Kind::Denied);
    unshare(cem, "/Shared/ann/Work", "bea").await.unwrap();
    assert_eq!(kind(bea.read("/Shared/ann/Work/note").await), Kind::Denied);
    assert_eq!(kind(bea.read("/Shared/ann/Work/note").await), Kind::NotFound, "it is not even there");
    assert_eq!(bea.names("/").await, ["copy"]);
    // Everybody else goes on, under new keys.
    assert_eq!(ann.names("/Work").await, ["deep", "note"]);
    assert_eq!(cem.read("/Shared/ann/Work/deep/bea").await.unwrap(), noise(2, 10_000));
    ann.put_bytes("/Work/after", b"after".to_vec()).await.unwrap();
    assert_eq!(cem.read("/Shared/ann/Work/after").await.unwrap(), b"after");
    assert_eq!(kind(unshare(ann, "/Work", "bea").await), Kind::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_shared_may_be_renamed_hidden_left_and_handed_on() {
    let (cluster, _, users) = cluster_of(&["ann", "bea"]).await;
    let [ann, bea] = users.as_slice() else { unreachable!() };
    for name in ["One", "Two"] {
        ann.mkdir(&at(&format!("/{name}/in")), true).await.unwrap();
        ann.share(&at(&format!("/{name}")), &with(&[("bea", Role::Admin)])).await.unwrap();
    }
    bea.rename_share(&at("/Shared/ann/One"), Some("Uno")).await.unwrap();
    assert_eq!(kind(bea.rename_share(&at("/Shared/ann/Uno"), Some("Two")).await), Kind::Exists);
    bea.hide_share(&at("/Shared/ann/Two"), true).await.unwrap();
    assert_eq!(bea.names("/Shared/ann").await, ["Uno"]);
    assert_eq!(bea.names("/Shared/ann/Two").await, ["in"], "it can still be reached");
    // All of the account's machines know.
    let profile = cluster.profile("elsewhere");
    let address = client::Address { coordinator: cluster.address.clone(), fingerprint: ann.profile().info().unwrap().fingerprint() };
    let elsewhere = Client::login(profile, Some("bea"), Some(address), PASSWORD, ClientOptions::default()).await.unwrap();
    assert_eq!(elsewhere.names("/Shared/ann").await, ["Uno"]);
    bea.hide_share(&at("/Shared/ann/Two"), false).await.unwrap();
    bea.rename_share(&at("/Shared/ann/Uno"), None).await.unwrap();
    assert_eq!(bea.names("/Shared/ann").await, ["One", "Two"]);

    bea.leave(&at("/Shared/ann/One")).await.unwrap();
    assert_eq!(bea.names("/Shared/ann").await, ["Two"]);
    assert_eq!(kind(ann.leave(&at("/One")).await), Kind::Invalid);
    // The owner's next look takes her out of the signed set, and changes the keys.
    let (shares, _) = ann.shares().await.unwrap();
    assert_eq!(shares.iter().find(|s| s.name == "One").unwrap().members.len(), 1);
    assert_eq!(ann.names("/One").await, ["in"]);
    ann.share(&at("/One"), &with(&[("bea", Role::Read)])).await.unwrap();
    assert_eq!(bea.names("/Shared/ann/One").await, ["in"]);

    ann.transfer_share(&at("/Two"), "bea").await.unwrap();
    assert_eq!(bea.names("/Shared/bea").await, ["Two"]);
    assert_eq!(ann.names("/Two").await, ["in"], "the door stays where it was");
    assert_eq!(kind(ann.transfer_share(&at("/Two"), "ann").await), Kind::Denied);
    unshare(bea, "/Shared/bea/Two", "ann").await.unwrap();
    assert_eq!(kind(ann.list(&at("/Two")).await), Kind::Denied);
    // A door that leads nowhere any more can be cleared away, and takes nothing from whom the space is now.
    ann.remove(&at("/Two"), true, false).await.unwrap();
    assert!(!ann.names("/").await.contains(&"Two".to_string()));
    assert_eq!(bea.names("/Shared/bea/Two").await, ["in"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shares_nest_and_whoever_leaves_the_outer_one_leaves_the_inner_one() {
    let (_cluster, _, users) = cluster_of(&["ann", "bea", "cem", "dora"]).await;
    let [ann, bea, cem, dora] = users.as_slice() else { unreachable!() };
    ann.mkdir(&at("/Out/In/deep"), true).await.unwrap();
    ann.put_bytes("/Out/In/file", b"inner".to_vec()).await.unwrap();
    ann.share(&at("/Out"), &with(&[("bea", Role::Write), ("dora", Role::Admin)])).await.unwrap();
    // An admin shares a part of it with one more; who is in the outer one stays in.
    assert_eq!(kind(bea.share(&at("/Shared/ann/Out/In"), &with(&[("cem", Role::Read)])).await), Kind::Denied);
    dora.share(&at("/Shared/ann/Out/In"), &with(&[("cem", Role::Read)])).await.unwrap();
    assert_eq!(cem.names("/Shared/ann").await, ["In"]);
    assert_eq!(cem.read("/Shared/ann/In/file").await.unwrap(), b"inner");
    assert_eq!(kind(cem.names_of("/Shared/ann/Out").await), Kind::NotFound);
    assert_eq!(bea.names("/Shared/ann").await, ["Out"], "it is reached through the outer one");
    bea.put_bytes("/Shared/ann/Out/In/bea", b"hers".to_vec()).await.unwrap();
    assert_eq!(ann.read("/Out/In/bea").await.unwrap(), b"hers");
    assert_eq!(cem.read("/Shared/ann/In/bea").await.unwrap(), b"hers");

    let (shares, _) = dora.shares().await.unwrap();
    let paths: Vec<String> = shares.iter().map(|s| s.path.as_ref().unwrap().to_string()).collect();
    assert_eq!(paths, ["/Shared/ann/Out/In", "/Shared/ann/Out"]);

    // Removed from the outer one, she is out of the inner one as well; he, who was named there, stays.
    unshare(ann, "/Out", "bea").await.unwrap();
    assert_eq!(kind(bea.read("/Shared/ann/Out/In/file").await), Kind::Denied);
    assert_eq!(bea.names("/").await, Vec::<String>::new());
    assert_eq!(cem.read("/Shared/ann/In/file").await.unwrap(), b"inner");
    assert_eq!(dora.read("/Shared/ann/Out/In/file").await.unwrap(), b"inner");
    // Back in the outer one, back in the inner one.
    ann.share(&at("/Out"), &with(&[("bea", Role::Read)])).await.unwrap();
    assert_eq!(bea.read("/Shared/ann/Out/In/file").await.unwrap(), b"inner");

    // The inner one shared first, then the one around it.
    ann.mkdir(&at("/Far/Near/x"), true).await.unwrap();
    ann.share(&at("/Far/Near"), &with(&[("cem", Role::Read)])).await.unwrap();
    assert_eq!(cem.names("/Shared/ann/Near").await, ["x"]);
    ann.share(&at("/Far"), &with(&[("bea", Role::Read)])).await.unwrap();
    assert_eq!(bea.names("/Shared/ann/Far/Near").await, ["x"]);
    assert_eq!(ann.names("/Far/Near").await, ["x"]);
    assert_eq!(cem.names("/Shared/ann/Near").await, ["x"]);
    let (shares, _) = ann.shares().await.unwrap();
    let paths: Vec<String> = shares.iter().map(|s| s.path.as_ref().unwrap().to_string()).collect();
    assert_eq!(paths, ["/Far", "/Out/In", "/Far/Near", "/Out"]);
    unshare(ann, "/Far", "bea").await.unwrap();
    assert_eq!(kind(bea.list(&at("/Shared/ann/Far/Near")).await), Kind::Denied);
    assert_eq!(ann.names("/Far/Near").await, ["x"]);
    let (shares, _) = ann.shares().await.unwrap();
    assert_eq!(shares[2].path, Some(at("/Far/Near")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moves_into_and_out_of_shared_folders_carry_the_contents() {
    let (_cluster, _, users) = cluster_of(&["ann", "bea"]).await;
    let [ann, bea] = users.as_slice() else { unreachable!() };
    ann.mkdir(&at("/Team"), false).await.unwrap();
    ann.share(&at("/Team"), &with(&[("bea", Role::Write)])).await.unwrap();
    let big = noise(3, 6 << 20);
    bea.mkdir(&at("/Mine/sub"), true).await.unwrap();
    bea.put_bytes("/Mine/sub/big", big.clone()).await.unwrap();
    bea.put_bytes("/Mine/small", b"small".to_vec()).await.unwrap();
    bea.rename(&at("/Mine"), &at("/Shared/ann/Team/Hers")).await.unwrap();
    assert_eq!(bea.names("/").await, ["Shared"]);
    assert!(ann.read("/Team/Hers/sub/big").await.unwrap() == big);
    assert_eq!(ann.read("/Team/Hers/small").await.unwrap(), b"small");
    ann.rename(&at("/Team/Hers/sub"), &at("/back")).await.unwrap();
    assert!(ann.read("/back/big").await.unwrap() == big);
    assert_eq!(bea.names("/Shared/ann/Team/Hers").await, ["small"]);
    // Within the shared folder a copy costs its entries only.
    bea.copy(&at("/Shared/ann/Team/Hers"), &at("/Shared/ann/Team/Copy"), true).await.unwrap();
    assert_eq!(ann.read("/Team/Copy/small").await.unwrap(), b"small");
    // The door itself stays in its space, and does not go while others are in.
    ann.rename(&at("/Team"), &at("/Crew")).await.unwrap();
    assert_eq!(ann.names("/Crew").await, ["Copy", "Hers"]);
    assert_eq!(kind(ann.remove(&at("/Crew"), true, false).await), Kind::Invalid);
    assert_eq!(kind(bea.rename(&at("/Shared/ann/Team"), &at("/x")).await), Kind::Invalid);
    unshare(ann, "/Crew", "bea").await.unwrap();
    ann.remove(&at("/Crew"), true, true).await.unwrap();
    assert_eq!(ann.names("/").await, ["back"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contents_are_stored_anew_when_that_is_asked_for() {
    let (_cluster, _, users) = cluster_of(&["ann", "bea"]).await;
    let [ann, bea] = users.as_slice() else { unreachable!() };
    let big = noise(4, 5 << 20);
    ann.mkdir(&at("/Work"), false).await.unwrap();
    ann.put_bytes("/Work/big", big.clone()).await.unwrap();
    ann.share(&at("/Work"), &with(&[("bea", Role::Read)])).await.unwrap();
    assert!(bea.read("/Shared/ann/Work/big").await.unwrap() == big);
    let before = ann.stat(&at("/Work/big")).await.unwrap();
    let (done, report) = ann.unshare(&at("/Work"), "bea", true, Arc::new(())).await.unwrap();
    assert_eq!((done.rekeyed.entries, report.files, report.bytes), (1, 1, big.len() as u64));
    let after = ann.stat(&at("/Work/big")).await.unwrap();
    assert_eq!((after.size, after.mtime_ns, after.mode, after.version), (before.size, before.mtime_ns, before.mode, 2));
    assert!(ann.read("/Work/big").await.unwrap() == big);
}

trait More {
    async fn names_of(&self, path: &str) -> Result<Vec<String>>;
}

impl More for Client {
    async fn names_of(&self, path: &str) -> Result<Vec<String>> {
        Ok(self.list(&at(path)).await?.iter().map(|e| e.name()).collect())
    }
}
