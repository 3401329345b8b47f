//! Coordinators that lie: they keep, replay, exchange and invent what they hold, also together with readers and
//! former members. Nothing of it is shown.

use crate::sharing::{cluster_of, kind, unshare, with};
use crate::support::evil::Evil;
use crate::support::{Cluster, PASSWORD, Tell, at};
use client::{Client, ClientOptions};
use model::account::{MemberSet, MemberSetBody, Role, SpaceInfo};
use model::command::{Answer, Query, Rows};
use model::{Hash, Kind, cbor};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Logs in through the coordinator that cheats.
async fn login(cluster: &Cluster, evil: &Evil, admin: &Client, name: &str) -> Client {
    let profile = cluster.profile(&format!("{name}-deceived"));
    Client::login(profile, Some(name), evil.at(admin), PASSWORD, ClientOptions::default()).await.unwrap()
}

/// A client of the same account and machine, started anew: what it knows comes from its profile and the servers.
async fn again(client: &Client) -> Client {
    Client::open(client.profile().clone(), ClientOptions::default()).await.unwrap()
}

/// What is said of spaces is changed by `change`.
fn lie_about_spaces(evil: &Evil, change: impl Fn(&mut SpaceInfo) + Send + 'static) {
    evil.lie_about(move |_, answer| {
        if let Answer::Space(Some(info)) = answer {
            change(info);
        }
    });
}

/// What is said of rows is changed by `change`.
fn lie_about_rows(evil: &Evil, change: impl Fn(&Query, Rows) -> Rows + Send + 'static) {
    evil.lie_about(move |query, answer| {
        if let Answer::Rows(rows) = answer {
            *rows = change(query, rows.clone());
        }
    });
}

type Kept = Arc<Mutex<Vec<(Query, Answer)>>>;

/// What the servers answer is kept.
fn record(evil: &Evil) -> Kept {
    let kept = Kept::default();
    let all = kept.clone();
    evil.lie_about(move |query, answer| all.lock().unwrap().push((query.clone(), answer.clone())));
    kept
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attack_05_06_07_19_spaces_that_servers_change_do_not_open() {
    let (cluster, admin, users) = cluster_of(&["ann", "bea", "cem"]).await;
    let ann = &users[0];
    ann.mkdir(&at("/Work/sub"), true).await.unwrap();
    ann.share(&at("/Work"), &with(&[("bea", Role::Read)])).await.unwrap();
    let evil = Evil::start(&cluster, &admin).await;
    let bea = login(&cluster, &evil, &admin, "bea").await;
    let old = record(&evil);
    assert_eq!(bea.names("/Shared/ann/Work").await, ["sub"]);
    let lies: [fn(&mut SpaceInfo); 7] = [
        // 5: a root, or grants, of their own.
        |info| info.root.0[3] ^= 1,
        |info| info.grants.clear(),
        |info| info.grants.iter_mut().for_each(|g| g.body[90] ^= 1),
        // 6: a ghost among the members, signed by nobody; a history that begins elsewhere.
        |info| {
            let last = info.member_sets.last().unwrap();
            let mut body: MemberSetBody = cbor::from_canonical(&last.body).unwrap();
            (body.seq, body.prev) = (body.seq + 1, Hash::of(&last.body));
            body.members[0].role = Role::Admin;
            body.members[1].role = Role::Admin;
            info.member_sets.push(MemberSet { body: cbor::to_vec(&body).into(), ..last.clone() });
        },
        |info| drop(info.member_sets.remove(0)),
        // 7: a suite that this version does not have.
        |info| {
            let mut body: MemberSetBody = cbor::from_canonical(&info.member_sets[1].body).unwrap();
            body.min_suite = 9;
            info.member_sets[1].body = cbor::to_vec(&body).into();
        },
        |info| info.label.as_mut().unwrap().body[70] ^= 1,
    ];
    for (i, lie) in lies.into_iter().enumerate() {
        evil.honest();
        let bea = again(&bea).await;
        // Her home is none of theirs to change here.
        let home = bea.whoami().await.unwrap().id;
        lie_about_spaces(&evil, move |info| {
            if info.owner != Some(home) {
                lie(info);
            }
        });
        assert_eq!(kind(bea.list(&at("/Shared/ann/Work")).await), Kind::Corrupt, "lie {i}");
        assert!(bea.names("/Shared").await.is_empty(), "lie {i}: what does not verify is not shown");
    }
    // 19: what she saw before, now that she has seen more. Her notes remember, on every machine.
    ann.share(&at("/Work"), &with(&[("cem", Role::Read)])).await.unwrap();
    evil.honest();
    let bea = again(&bea).await;
    assert_eq!(bea.names("/Shared/ann/Work").await, ["sub"]);
    let old = old.lock().unwrap().clone();
    evil.lie_about(move |query, answer| {
        if let (Query::Space { .. }, Some((_, before))) = (query, old.iter().find(|(q, _)| q == query)) {
            *answer = before.clone();
        }
    });
    let bea = again(&bea).await;
    assert_eq!(kind(bea.list(&at("/Shared/ann/Work")).await), Kind::Corrupt);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attack_13_15_25_rows_of_other_places_and_hands_are_refused() {
    let (cluster, admin, users) = cluster_of(&["ann", "bea"]).await;
    let ann = &users[0];
    let evil = Evil::start(&cluster, &admin).await;
    let bea = &login(&cluster, &evil, &admin, "bea").await;
    ann.mkdir(&at("/Work/a"), true).await.unwrap();
    ann.mkdir(&at("/Work/b"), true).await.unwrap();
    ann.put_bytes("/Work/a/file", b"in a".to_vec()).await.unwrap();
    ann.put_bytes("/Work/b/file", b"in b".to_vec()).await.unwrap();
    ann.share(&at("/Work"), &with(&[("bea", Role::Read)])).await.unwrap();
    bea.put_bytes("/mine", b"hers".to_vec()).await.unwrap();
    let kept = record(&evil);
    assert_eq!(bea.read("/Shared/ann/Work/a/file").await.unwrap(), b"in a");
    assert_eq!(bea.read("/Shared/ann/Work/b/file").await.unwrap(), b"in b");
    bea.list(&at("/Shared/ann/Work/a")).await.unwrap();
    bea.list(&at("/Shared/ann/Work/b")).await.unwrap();
    bea.list(&at("/")).await.unwrap();
    let listed = |kept: &[(Query, Answer)]| -> Vec<Rows> {
        let lists = kept.iter().filter(|(q, _)| matches!(q, Query::List { .. }));
        lists.filter_map(|(_, a)| if let Answer::Rows(rows) = a { Some(rows.clone()) } else { None }).collect()
    };
    let [a, b, home] = listed(&kept.lock().unwrap()).try_into().unwrap();
    // 13 and 25: the rows of another folder, of another space, or under the tag of another name.
    let shuffle: [Arc<dyn Fn(Rows) -> Rows + Send + Sync>; 4] = [
        Arc::new(move |_| b.clone()),
        Arc::new(move |now| Rows { members: now.members, root: now.root, ..home.clone() }),
        Arc::new(|mut rows| {
            rows.rows.iter_mut().for_each(|r| r.row.tag.0[0] ^= 1);
            rows
        }),
        // 15: a file that a reader signs, or nobody.
        Arc::new(|mut rows| {
            rows.commits.iter_mut().for_each(|(_, c)| c.signature.0[9] ^= 1);
            rows
        }),
    ];
    for (i, lie) in shuffle.into_iter().enumerate() {
        lie_about_rows(&evil, move |query, rows| if matches!(query, Query::List { .. }) { lie(rows) } else { rows });
        assert_eq!(kind(bea.list(&at("/Shared/ann/Work/a")).await), Kind::Corrupt, "lie {i}");
    }
    let a = &a;
    let (more, commits) = (a.rows.clone(), a.commits.clone());
    lie_about_rows(&evil, move |query, rows| match query {
        Query::Walk { .. } => {
            let mut rows = rows;
            rows.rows.extend(more.clone());
            rows.commits.extend(commits.clone());
            rows
        }
        _ => rows,
    });
    assert_eq!(kind(bea.read("/Shared/ann/Work/b/file").await), Kind::Corrupt);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attack_20_a_former_reader_and_all_servers_open_nothing_new() {
    let (cluster, admin, users) = cluster_of(&["ann", "bea", "cem"]).await;
    let ann = &users[0];
    let evil = Evil::start(&cluster, &admin).await;
    let (bea, cem) = (login(&cluster, &evil, &admin, "bea").await, login(&cluster, &evil, &admin, "cem").await);
    ann.mkdir(&at("/Work"), false).await.unwrap();
    ann.put_bytes("/Work/old", b"old".to_vec()).await.unwrap();
    ann.share(&at("/Work"), &with(&[("bea", Role::Write), ("cem", Role::Read)])).await.unwrap();
    let hers = record(&evil);
    assert_eq!(bea.read("/Shared/ann/Work/old").await.unwrap(), b"old");
    unshare(ann, "/Work", "bea").await.unwrap();
    ann.put_bytes("/Work/new", b"new secret".to_vec()).await.unwrap();
    let theirs = record(&evil);
    assert_eq!(cem.read("/Shared/ann/Work/new").await.unwrap(), b"new secret");
    cem.list(&at("/Shared/ann/Work")).await.unwrap();
    // The servers show her everything that they show to cem, and all that they showed her before.
    evil.honest();
    let bea = again(&bea).await;
    assert!(bea.names("/").await.is_empty());
    let (hers, theirs) = (hers.lock().unwrap().clone(), theirs.lock().unwrap().clone());
    let of = |kept: &[(Query, Answer)], query: &Query| kept.iter().rev().find(|(q, _)| same(q, query)).map(|(_, a)| a.clone());
    let before = hers.clone();
    evil.lie_about(move |query, answer| {
        if let (Query::Space { .. } | Query::Spaces { .. }, Some(old)) = (query, of(&before, query)) {
            *answer = old;
        }
    });
    evil.answer_instead(move |query| of(&theirs, query).or_else(|| of(&hers, query)));
    let opened = bea.read("/Shared/ann/Work/new").await;
    assert_eq!(kind(opened), Kind::Corrupt, "she is shown its row, and it does not open");
    let listed = bea.list(&at("/Shared/ann/Work")).await;
    assert!(listed.is_err());
    // And cem is shown nothing that she signs, whatever the servers do: her key is good for older epochs only
    // (`seal`: attack_20).
}

/// Whether two questions ask for the same, whoever asks.
fn same(a: &Query, b: &Query) -> bool {
    match (a, b) {
        (Query::Space { space: a, .. }, Query::Space { space: b, .. }) => a == b,
        (Query::Spaces { .. }, Query::Spaces { .. }) | (Query::Walk { .. }, Query::Walk { .. }) => true,
        (Query::List { .. }, Query::List { .. }) => true,
        _ => a == b,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_while_keys_change_is_not_lost() {
    let (_cluster, _, users) = cluster_of(&["ann", "bea", "cem"]).await;
    let [ann, bea, cem] = users.as_slice() else { unreachable!() };
    ann.mkdir(&at("/Work"), false).await.unwrap();
    for i in 0..40 {
        ann.put_bytes(&format!("/Work/file-{i}"), vec![i; 100]).await.unwrap();
    }
    ann.share(&at("/Work"), &with(&[("bea", Role::Read), ("cem", Role::Write)])).await.unwrap();
    // A writer writes on while somebody else is removed: each write stands.
    let writing = async {
        for i in 0..20 {
            let len = if i % 4 == 0 { 100_000 } else { 50 };
            cem.put_bytes(&format!("/Shared/ann/Work/cem-{i}"), vec![1; len]).await.unwrap();
            cem.put_bytes("/Shared/ann/Work/file-7", vec![i; 70]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let ((), removed) = futures::join!(writing, unshare(ann, "/Work", "bea"));
    removed.unwrap();
    assert_eq!(ann.names("/Work").await.len(), 60);
    assert_eq!(ann.read("/Work/file-7").await.unwrap(), [19; 70]);
    assert_eq!(ann.read("/Work/cem-16").await.unwrap(), [1; 100_000]);
    assert_eq!(kind(bea.list(&at("/Shared/ann/Work")).await), Kind::NotFound);
}
