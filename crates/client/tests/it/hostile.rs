//! Coordinators that lie: they keep, replay, exchange and invent what they hold, also together with readers and
//! former members. Nothing of it is shown.

use crate::sharing::{cluster_of, kind, unshare, with};
use crate::support::{Tell, at};
use client::Client;
use model::account::{MemberSet, MemberSetBody, Role};
use model::command::{Answer, Query, Rows};
use model::{Error, Hash, Kind, Result, cbor};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A client of the same account, started anew: what it knows comes from its profile and the servers.
async fn again(client: &Client) -> Client {
    Client::open(client.profile().clone(), Default::default()).await.unwrap()
}

/// Answers to questions for a space are changed by `change`.
fn space_answers(client: &Client, change: impl Fn(&mut model::account::SpaceInfo) + Send + Sync + 'static) {
    client.cluster().lies(move |query, answer| match (query, answer) {
        (Query::Space { .. }, Ok(Answer::Space(Some(mut info)))) => {
            change(&mut info);
            Ok(Answer::Space(Some(info)))
        }
        (_, answer) => answer,
    });
}

/// Rows in answers are changed by `change`.
fn row_answers(client: &Client, change: impl Fn(&Query, Rows) -> Rows + Send + Sync + 'static) {
    client.cluster().lies(move |query, answer| match answer {
        Ok(Answer::Rows(rows)) => Ok(Answer::Rows(change(query, rows))),
        answer => answer,
    });
}

/// What a client's servers answer, kept.
fn record(client: &Client) -> Arc<Mutex<Vec<(Query, Result<Answer>)>>> {
    let kept: Arc<Mutex<Vec<(Query, Result<Answer>)>>> = Arc::default();
    let all = kept.clone();
    client.cluster().lies(move |query, answer| {
        all.lock().unwrap().push((query.clone(), answer.clone()));
        answer
    });
    kept
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attack_04_another_key_is_shown_for_somebody() {
    let (_cluster, _, users) = cluster_of(&["ann", "bea", "mallory"]).await;
    let [ann, bea, _] = users.as_slice() else { unreachable!() };
    ann.mkdir(&at("/Work"), false).await.unwrap();
    ann.pinned("bea").await.unwrap();
    // The servers hand out mallory's identity for bea's: under its own name, and with bea's account and name.
    let session = Mutex::new(None::<model::account::Identity>);
    let mallory = ann.pinned("mallory").await.unwrap();
    *session.lock().unwrap() = Some(mallory.clone());
    ann.cluster().lies(move |query, answer| match query {
        Query::IdentityByName(_) => Ok(Answer::Identities(session.lock().unwrap().iter().cloned().collect())),
        _ => answer,
    });
    assert_eq!(kind(ann.share(&at("/Work"), &with(&[("bea", Role::Read)])).await), Kind::Corrupt);
    let key = seal::keys::SigningKey::from_seed(&[7; 32]);
    let body = model::account::IdentityBody { signing: key.public(), ..bea.pinned("bea").await.unwrap().verify().unwrap() };
    let body = cbor::to_vec(&body);
    let forged = model::account::Identity { signature: key.sign("identity", &body), body: body.into() };
    ann.cluster().lies(move |query, answer| match query {
        Query::IdentityByName(_) => Ok(Answer::Identities(vec![forged.clone()])),
        _ => answer,
    });
    let e = ann.share(&at("/Work"), &with(&[("bea", Role::Read)])).await.unwrap_err();
    assert_eq!((e.kind, e.hint.as_deref()), (Kind::Denied, Some("shardkeep verify-user bea")), "a changed key is a hard stop");
    assert_eq!(bea.names("/").await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attack_05_06_07_19_spaces_that_servers_change_do_not_open() {
    let (_cluster, _, users) = cluster_of(&["ann", "bea", "cem"]).await;
    let [ann, bea, _] = users.as_slice() else { unreachable!() };
    ann.mkdir(&at("/Work/sub"), true).await.unwrap();
    ann.share(&at("/Work"), &with(&[("bea", Role::Read)])).await.unwrap();
    let old = record(bea);
    assert_eq!(bea.names("/Shared/ann/Work").await, ["sub"]);
    let lies: [fn(&mut model::account::SpaceInfo); 7] = [
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
        let bea = again(bea).await;
        space_answers(&bea, lie);
        assert_eq!(kind(bea.list(&at("/Shared/ann/Work")).await), Kind::Corrupt, "lie {i}");
        assert!(bea.names("/Shared").await.is_empty(), "lie {i}: what does not verify is not shown");
    }
    // 19: what she saw before, now that she has seen more. Her notes remember, on every machine.
    ann.share(&at("/Work"), &with(&[("cem", Role::Read)])).await.unwrap();
    let bea = again(bea).await;
    assert_eq!(bea.names("/Shared/ann/Work").await, ["sub"]);
    let bea = again(&bea).await;
    let old = old.lock().unwrap().clone();
    bea.cluster().lies(move |query, answer| match query {
        Query::Space { .. } => old.iter().find(|(q, _)| q == query).map_or(answer, |(_, old)| old.clone()),
        _ => answer,
    });
    assert_eq!(kind(bea.list(&at("/Shared/ann/Work")).await), Kind::Corrupt);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attack_13_15_25_rows_of_other_places_and_hands_are_refused() {
    let (_cluster, _, users) = cluster_of(&["ann", "bea"]).await;
    let [ann, bea] = users.as_slice() else { unreachable!() };
    ann.mkdir(&at("/Work/a"), true).await.unwrap();
    ann.mkdir(&at("/Work/b"), true).await.unwrap();
    ann.put_bytes("/Work/a/file", b"in a".to_vec()).await.unwrap();
    ann.put_bytes("/Work/b/file", b"in b".to_vec()).await.unwrap();
    ann.share(&at("/Work"), &with(&[("bea", Role::Read)])).await.unwrap();
    bea.put_bytes("/mine", b"hers".to_vec()).await.unwrap();
    let kept = record(bea);
    assert_eq!(bea.read("/Shared/ann/Work/a/file").await.unwrap(), b"in a");
    assert_eq!(bea.read("/Shared/ann/Work/b/file").await.unwrap(), b"in b");
    bea.list(&at("/Shared/ann/Work/a")).await.unwrap();
    bea.list(&at("/Shared/ann/Work/b")).await.unwrap();
    bea.list(&at("/")).await.unwrap();
    let listed = |kept: &[(Query, Result<Answer>)]| -> Vec<Rows> {
        let lists = kept.iter().filter(|(q, _)| matches!(q, Query::List { .. }));
        lists.filter_map(|(_, a)| if let Ok(Answer::Rows(rows)) = a { Some(rows.clone()) } else { None }).collect()
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
        row_answers(bea, move |query, rows| if matches!(query, Query::List { .. }) { lie(rows) } else { rows });
        assert_eq!(kind(bea.list(&at("/Shared/ann/Work/a")).await), Kind::Corrupt, "lie {i}");
    }
    row_answers(bea, move |query, rows| match query {
        Query::Walk { .. } => {
            let mut rows = rows;
            rows.rows.extend(a.rows.clone());
            rows.commits.extend(a.commits.clone());
            rows
        }
        _ => rows,
    });
    assert_eq!(kind(bea.read("/Shared/ann/Work/b/file").await), Kind::Corrupt);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attack_20_a_former_reader_and_all_servers_open_nothing_new() {
    let (_cluster, _, users) = cluster_of(&["ann", "bea", "cem"]).await;
    let [ann, bea, cem] = users.as_slice() else { unreachable!() };
    ann.mkdir(&at("/Work"), false).await.unwrap();
    ann.put_bytes("/Work/old", b"old".to_vec()).await.unwrap();
    ann.share(&at("/Work"), &with(&[("bea", Role::Write), ("cem", Role::Read)])).await.unwrap();
    let hers = record(bea);
    assert_eq!(bea.read("/Shared/ann/Work/old").await.unwrap(), b"old");
    unshare(ann, "/Work", "bea").await.unwrap();
    ann.put_bytes("/Work/new", b"new secret".to_vec()).await.unwrap();
    let theirs = record(cem);
    assert_eq!(cem.read("/Shared/ann/Work/new").await.unwrap(), b"new secret");
    cem.list(&at("/Shared/ann/Work")).await.unwrap();
    let (hers, theirs) = (hers.lock().unwrap().clone(), theirs.lock().unwrap().clone());
    // The servers show her everything that they show to cem, and all that they showed her before.
    let bea = again(bea).await;
    bea.cluster().lies(move |query, answer| {
        let of = |kept: &[(Query, Result<Answer>)]| kept.iter().rev().find(|(q, a)| same(q, query) && a.is_ok()).map(|(_, a)| a.clone());
        let spaces = matches!(query, Query::Space { .. } | Query::Spaces { .. });
        if spaces { of(&hers) } else { of(&theirs).or_else(|| of(&hers)) }.unwrap_or(answer)
    });
    let opened = bea.read("/Shared/ann/Work/new").await;
    assert!(opened.is_err(), "{opened:?}");
    let listed: Result<Vec<_>, Error> = bea.list(&at("/Shared/ann/Work")).await;
    assert!(listed.as_ref().map_or(true, |l| l.iter().all(|e| e.name() != "new")), "{:?}", listed.map(|l| l.len()));
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
