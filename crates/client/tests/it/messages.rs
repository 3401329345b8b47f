//! Messages between accounts of one cluster.

use crate::people::cluster_of;
use client::{Attachment, Client, ClientOptions, MessageBody};
use model::Kind;
use std::collections::BTreeSet;

fn text(text: &str) -> MessageBody {
    MessageBody::Text { text: text.into(), attachment: None }
}

async fn send(from: &Client, to: &str, said: &str) {
    let to = from.pinned(to).await.unwrap();
    from.send_message(&to, text(said)).await.unwrap();
}

/// What lies in a mailbox: who wrote, what, and whether it was read.
async fn told(of: &Client) -> Vec<(String, bool, String, bool)> {
    let say = |body: &MessageBody| match body {
        MessageBody::Text { text, .. } => text.clone(),
        other => format!("{other:?}"),
    };
    let mail = of.mail().await.unwrap();
    assert!(mail.iter().all(|m| m.missing == 0));
    mail.into_iter().map(|m| (m.peer, m.incoming, say(&m.said.unwrap().body), m.read)).collect()
}

fn is(peer: &str, incoming: bool, said: &str, read: bool) -> (String, bool, String, bool) {
    (peer.into(), incoming, said.into(), read)
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_written_read_and_counted() {
    let (cluster, _, users) = cluster_of(&["ann", "bea"]).await;
    let [ann, bea] = users.as_slice() else { unreachable!() };
    send(ann, "bea", "hello").await;
    send(bea, "ann", "hello yourself").await;
    send(ann, "bea", "how are you").await;
    assert_eq!((ann.whoami().await.unwrap().unread, bea.whoami().await.unwrap().unread), (1, 2));
    assert_eq!(
        told(bea).await,
        [is("ann", true, "hello", false), is("ann", false, "hello yourself", true), is("ann", true, "how are you", false)]
    );
    assert_eq!(
        told(ann).await,
        [is("bea", false, "hello", true), is("bea", true, "hello yourself", false), is("bea", false, "how are you", true)]
    );
    bea.mark_read(&BTreeSet::from([1])).await.unwrap();
    assert_eq!(bea.whoami().await.unwrap().unread, 1);
    // On another run of the same machine all is as it was.
    let bea = Client::open(cluster.profile("bea"), ClientOptions::default()).await.unwrap();
    assert_eq!(told(&bea).await.iter().map(|(.., read)| *read).collect::<Vec<_>>(), [true, true, false]);
    send(ann, "bea", "one more").await;
    bea.mark_read(&(1..=4).collect()).await.unwrap();
    assert_eq!((bea.whoami().await.unwrap().unread, told(&bea).await.len()), (0, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_machines_write_at_the_same_time_and_both_arrive_in_order() {
    let (cluster, _, users) = cluster_of(&["ann", "bea"]).await;
    let open = || Client::open(cluster.profile("ann"), ClientOptions::default());
    let (one, other) = (open().await.unwrap(), open().await.unwrap());
    one.pinned("bea").await.unwrap();
    tokio::join!(send(&one, "bea", "a"), send(&other, "bea", "b"), send(&one, "bea", "c"));
    let mut said: Vec<String> = told(&users[1]).await.into_iter().map(|(_, _, said, _)| said).collect();
    said.sort();
    assert_eq!(said, ["a", "b", "c"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_along_arrives_whole_and_what_is_too_long_is_refused() {
    let (_cluster, _, users) = cluster_of(&["ann", "bea"]).await;
    let [ann, bea] = users.as_slice() else { unreachable!() };
    let to = ann.pinned("bea").await.unwrap();
    let attachment = Attachment::Inline { name: "a.bin".into(), bytes: vec![7; client::ATTACHED_MAX].into() };
    let body = MessageBody::Text { text: "x".repeat(client::TEXT_MAX), attachment: Some(attachment) };
    ann.send_message(&to, body.clone()).await.unwrap();
    assert_eq!(bea.mail().await.unwrap()[0].said.as_ref().unwrap().body, body);
    let long = text(&"x".repeat(client::TEXT_MAX + 1));
    assert_eq!(ann.send_message(&to, long).await.unwrap_err().kind, Kind::Invalid);
    let own = ann.own_identity();
    assert_eq!(ann.send_message(&own, text("me")).await.unwrap_err().kind, Kind::Invalid);
}
