//! Links: reading without an account.

use crate::people::user;
use crate::support::{Cluster, PASSWORD, Tell, at, noise, sleeper};
use client::{Client, ClientOptions, LinkOptions, OpenedLink};
use model::{Kind, Policy, Result};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;
use zeroize::Zeroizing;

/// Opens a link on a machine that knows nothing.
async fn open(cluster: &Cluster, text: &str, password: Option<&str>) -> Result<OpenedLink> {
    Client::open_link(cluster.profile("links"), text, password, ClientOptions::default()).await
}

async fn make(of: &Client, path: &str) -> String {
    with(of, path, LinkOptions::default()).await
}

async fn with(of: &Client, path: &str, options: LinkOptions) -> String {
    of.create_link(&at(path), options).await.unwrap().text.unwrap().to_string()
}

async fn content(link: &OpenedLink) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    link.client.cat_entry(&link.entry, None, &mut out).await?;
    Ok(out)
}

fn kind<T>(result: Result<T>) -> Kind {
    result.map(|_| ()).unwrap_err().kind
}

/// Whether bytes occur in any file below a folder.
fn occurs(dir: &Path, what: &[u8]) -> bool {
    std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .any(|path| if path.is_dir() { occurs(&path, what) } else { std::fs::read(&path).unwrap().windows(what.len()).any(|w| w == what) })
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_folders_are_read_by_link_without_an_account() {
    let (cluster, admin) = Cluster::start(4).await;
    let ann = user(&cluster, &admin, "ann").await;
    let big = noise(1, 9 << 20);
    ann.mkdir(&at("/Trip/Day 1"), true).await.unwrap();
    ann.put_bytes("/note", b"a small secret".to_vec()).await.unwrap();
    ann.put_bytes("/big", big.clone()).await.unwrap();
    ann.put_bytes("/Trip/Day 1/photo", big[..300_000].to_vec()).await.unwrap();
    let (note, file, trip) = (make(&ann, "/note").await, make(&ann, "/big").await, make(&ann, "/Trip").await);

    let opened = open(&cluster, &note, None).await.unwrap();
    assert_eq!((opened.entry.name(), content(&opened).await.unwrap()), ("note".into(), b"a small secret".to_vec()));
    let opened = open(&cluster, &file, None).await.unwrap();
    assert_eq!(content(&opened).await.unwrap(), big);
    // A file is what it was when the link was made.
    ann.put_bytes("/big", b"another version".to_vec()).await.unwrap();
    assert_eq!(content(&open(&cluster, &file, None).await.unwrap()).await.unwrap(), big);

    // A folder is what it is now, with all below it, and nothing beside it.
    let folder = open(&cluster, &trip, None).await.unwrap();
    ann.put_bytes("/Trip/later", b"came later".to_vec()).await.unwrap();
    let names = |entries: &[client::Entry]| entries.iter().map(|e| e.name()).collect::<Vec<_>>();
    let inside = folder.client.list_entries(&folder.entry, false).await.unwrap();
    assert_eq!(names(&inside), ["Day 1", "later"]);
    let deeper = folder.client.list_entries(&inside[0], false).await.unwrap();
    assert_eq!(names(&deeper), ["photo"]);
    let to = cluster.dir.path().join("fetched");
    let found = vec![(Ok(folder.entry.clone()), at("/Trip"), to.clone())];
    let report = folder.client.get_found(found, true, std::sync::Arc::new(())).await.unwrap();
    assert!(report.failed.is_empty() && report.files == 2, "{report:?}");
    assert_eq!(std::fs::read(to.join("Day 1/photo")).unwrap(), &big[..300_000]);

    // By any account's link the servers give what it leads to, whatever its holder asks for.
    assert!(folder.client.list(&at("/")).await.is_err());
    assert!(folder.client.whoami().await.is_err());
    assert!(folder.client.put_bytes("/x", vec![1]).await.is_err());
    assert!(folder.client.pinned("ann").await.is_err());
    assert!(folder.client.mail().await.is_err());
    assert!(folder.client.status().await.is_err());

    // Revoked, it ends at once, also for those who are reading.
    let links = ann.links().await.unwrap();
    assert_eq!(
        links.iter().map(|l| (l.path.as_deref(), l.folder, l.opened)).collect::<Vec<_>>(),
        [(Some("/note"), false, 1), (Some("/big"), false, 2), (Some("/Trip"), true, 1)]
    );
    assert_eq!(links[2].text.as_ref().unwrap().as_str(), trip);
    ann.revoke_link(client::link_id(&trip).unwrap()).await.unwrap();
    assert_eq!(kind(folder.client.list_entries(&folder.entry, false).await), Kind::Denied);
    assert_eq!(kind(open(&cluster, &trip, None).await), Kind::Denied);
    assert_eq!(ann.links().await.unwrap().len(), 2);
    assert_eq!(kind(ann.revoke_link(client::link_id(&trip).unwrap()).await), Kind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_keep_time_number_and_password_of_a_link() {
    let (env, slept) = sleeper();
    let (cluster, admin) = Cluster::start_in(env, 0, Policy::DEFAULT).await;
    let ann = &user(&cluster, &admin, "ann").await;
    ann.put_bytes("/note", b"a small secret".to_vec()).await.unwrap();

    let once = with(ann, "/note", LinkOptions { count: Some(1), ..Default::default() }).await;
    assert!(open(&cluster, &once, None).await.is_ok());
    assert_eq!(kind(open(&cluster, &once, None).await), Kind::Denied);

    let password = |text: &str| Some(Zeroizing::new(text.to_string()));
    let locked = with(ann, "/note", LinkOptions { password: password("open sesame"), ..Default::default() }).await;
    assert_eq!(kind(open(&cluster, &locked, None).await), Kind::Denied);
    assert!(open(&cluster, &locked, Some("open sesame")).await.is_ok());
    // Guessing gets slow, as for any password.
    let mut refusals = Vec::new();
    for guess in ["a", "b", "c", "d", "e", "f", "g"] {
        refusals.push(open(&cluster, &locked, Some(guess)).await.err().unwrap());
    }
    assert!(refusals.iter().all(|e| e.kind == Kind::Denied));
    assert!(refusals.iter().any(|e| e.message.contains("too many attempts")), "{refusals:?}");

    let plain = make(ann, "/note").await;
    let short = with(ann, "/note", LinkOptions { expires: Some(Duration::from_secs(3600)), ..Default::default() }).await;
    assert!(open(&cluster, &short, None).await.is_ok());
    slept.store(2 * 3_600_000, Ordering::Relaxed);
    assert_eq!(kind(open(&cluster, &short, None).await), Kind::Denied);
    assert!(open(&cluster, &plain, None).await.is_ok(), "it alone has ended");

    // A link is as good as its maker. (Shut out once, she would have to log in again.)
    let disable = |disabled| wire::coordinator::Administration::SetDisabled { name: "ann".into(), disabled };
    admin.administer(disable(true)).await.unwrap();
    assert_eq!(kind(open(&cluster, &plain, None).await), Kind::Denied);
    admin.administer(disable(false)).await.unwrap();
    assert!(open(&cluster, &plain, None).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_22_the_secret_of_a_link_is_in_no_file_of_the_servers() {
    let (cluster, admin) = Cluster::start(4).await;
    admin.put_bytes("/holiday plans", noise(2, 200_000)).await.unwrap();
    let text = make(&admin, "/holiday plans").await;
    assert!(open(&cluster, &text, None).await.is_ok());
    let (_, fragment) = text.split_once("#1").unwrap();
    let parsed = transport::LinkText::parse(&text).unwrap();
    let secret = seal::link::Secret::from_bytes(&parsed.secret);
    let keys = seal::link::LinkKeys::derive(parsed.id, &secret, None).unwrap();
    let mut cluster = cluster;
    cluster.coordinator.take().unwrap().shutdown().await;
    let home = cluster.dir.path().join("home");
    for dir in ["c", "n0", "n1", "n2", "n3"].map(|d| cluster.dir.path().join(d)) {
        for what in [&parsed.secret[..], &fragment.as_bytes()[..40], keys.auth(), b"holiday plans", PASSWORD.as_bytes()] {
            assert!(!occurs(&dir, what));
        }
    }
    // The id is there, so the search would have found the rest; and at home the notes are sealed.
    assert!(occurs(&cluster.dir.path().join("c"), &parsed.id.0));
    assert!(!occurs(&home, &parsed.secret));
}
