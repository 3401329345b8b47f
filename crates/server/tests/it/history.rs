//! What was, and what happens, is told to members of a space only: asked over the wire by a client of the
//! test's own, which knows every id.

use crate::support::{Cluster, User};
use model::command::{Answer, Command, Query};
use model::{EntryId, FolderId, Kind, RequestId};
use std::time::Duration;
use wire::coordinator::{Propose, ProposeRequest};
use wire::watch::{WatchRequest, WatchSpace};

async fn two() -> (Cluster, User, User) {
    let cluster = Cluster::start().await;
    let owner = cluster.register(&cluster.invite.clone()).await.unwrap();
    let invite = owner.invite("mallory").await;
    let mallory = cluster.register(&invite).await.unwrap();
    (cluster, owner, mallory)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attack_28_who_knows_the_ids_of_a_space_learns_and_changes_nothing_of_its_past() {
    let (_cluster, owner, mallory) = two().await;
    let space = owner.account.home;
    let (entry, folder) = (EntryId([1; 16]), FolderId([2; 16]));
    let all = [
        Query::History { space, entry, after: 0, limit: 10 },
        Query::Trash { space, after: None, limit: 10 },
        Query::Doors { space, folders: vec![folder] },
        Query::Changes { space, after: 0 },
        Query::Kept { space, after: None, limit: 10 },
    ];
    for query in all {
        assert_eq!(mallory.ask(query.clone()).await.unwrap_err().kind, Kind::Denied, "{query:?}");
        assert!(owner.ask(query).await.is_ok());
    }
    let watch = WatchRequest { space, after: 0, wait_ms: 0 };
    assert_eq!(mallory.rpc::<WatchSpace, _>(watch).await.unwrap_err().kind, Kind::Denied);
    let shorten = |user: &User| {
        let request = RequestId::new(user.env.now_ms(), user.env.random());
        ProposeRequest { request, command: Command::SetRetention { space, retention_ms: Some(0) } }
    };
    let refused = mallory.rpc::<Propose, _>(shorten(&mallory)).await.unwrap();
    assert_eq!(refused.unwrap_err().kind, Kind::Denied);
    assert!(owner.rpc::<Propose, _>(shorten(&owner)).await.unwrap().is_ok());
    let Answer::Trash(page) = owner.ask(Query::Trash { space, after: None, limit: 10 }).await.unwrap() else { panic!("trash") };
    assert_eq!(page.retention_ms, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_waits_no_longer_than_asked_and_many_do_not_wait_at_once() {
    let (_cluster, owner, _) = two().await;
    let space = owner.account.home;
    let watch = |wait_ms| owner.rpc::<WatchSpace, _>(WatchRequest { space, after: 0, wait_ms });
    let start = std::time::Instant::now();
    let told = watch(700).await.unwrap();
    assert_eq!((told.upto, told.resync, told.commits.len()), (0, false, 0));
    assert!(start.elapsed() >= Duration::from_millis(700) && start.elapsed() < Duration::from_secs(20));
    let answers = futures::future::join_all((0..80).map(|_| watch(3_000))).await;
    let refused: Vec<_> = answers.into_iter().filter_map(Result::err).collect();
    assert_eq!(refused.len(), 48, "{:?}", refused.first());
    assert!(refused.iter().all(|e| e.kind == Kind::Insufficient));
    assert!(watch(0).await.is_ok(), "and those who waited have left");
}
