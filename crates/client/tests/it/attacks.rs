//! What coordinators that cheat, and clients that speak the protocol as they like, try on accounts, pins,
//! messages and links. Numbers are those of the cryptography document.

use crate::people::{cluster_of, user};
use crate::support::evil::{Evil, Hostile, rewrite};
use crate::support::{Cluster, PASSWORD, Tell, at};
use client::{Client, ClientOptions, LinkOptions, MessageBody, PinState};
use model::account::Identity;
use model::command::{Answer, Command, Query};
use model::{Kind, Result};
use seal::keys::{KemKey, SigningKey};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use wire::Rpc;
use wire::coordinator::{
    LoginFinish, LoginFinishResponse, LoginStart, LoginStartRequest, RecoverStart, RecoverStartResponse, RegisterStart,
    RegisterStartRequest,
};

/// A change of an account's row on its way to its owner.
type Trick = Box<dyn Fn(&mut model::account::Account) + Send>;

fn kind<T>(result: Result<T>) -> Kind {
    result.map(|_| ()).unwrap_err().kind
}

fn text(text: &str) -> MessageBody {
    MessageBody::Text { text: text.into(), attachment: None }
}

/// Logs in through the coordinator that cheats, on a machine that knows nothing.
async fn login(cluster: &Cluster, evil: &Evil, admin: &Client, name: &str, machine: &str) -> Result<Client> {
    Client::login(cluster.profile(machine), Some(name), evil.at(admin), PASSWORD, ClientOptions::default()).await
}

/// An identity with keys of one's own under the account and name of another.
fn forged(of: &Identity) -> Identity {
    let body = of.verify().unwrap();
    let mut rng = env::real::env().rand();
    seal::identity::create(body.account, &body.name, &SigningKey::generate(&mut rng), &KemKey::generate(&mut rng))
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_01_and_03_key_blobs_flipped_swapped_and_replaced_at_login() {
    let (cluster, admin, users) = cluster_of(&["ann", "bea"]).await;
    let evil = Evil::start(&cluster, &admin).await;
    assert!(login(&cluster, &evil, &admin, "ann", "honest").await.is_ok());
    let taken = Arc::new(Mutex::new(None::<model::account::Account>));
    let keep = taken.clone();
    evil.lie(move |path, _, answer| {
        if path == LoginFinish::PATH {
            *keep.lock().unwrap() = Some(wire::decode::<LoginFinishResponse>(&answer).unwrap().account);
        }
        answer
    });
    login(&cluster, &evil, &admin, "bea", "bea2").await.unwrap();
    let bea = taken.lock().unwrap().clone().unwrap();
    let own = forged(&users[0].own_identity());
    let tricks: Vec<Trick> = vec![
        Box::new(|a| a.login.pw_wrap[40] ^= 1),
        Box::new(|a| a.secrets[40] ^= 1),
        Box::new(|a| a.state.sealed[60] ^= 1),
        Box::new({
            let bea = bea.clone();
            move |a| a.login.pw_wrap = bea.login.pw_wrap.clone()
        }),
        Box::new({
            let bea = bea.clone();
            move |a| a.secrets = bea.secrets.clone()
        }),
        Box::new({
            let bea = bea.clone();
            move |a| a.identity = bea.identity.clone()
        }),
        Box::new(move |a| a.identity = own.clone()),
        Box::new(|a| a.login.n += 1),
        Box::new(move |a| *a = bea.clone()),
    ];
    for (i, trick) in tricks.into_iter().enumerate() {
        evil.lie(move |path, _, answer| match path {
            LoginFinish::PATH => rewrite::<LoginFinishResponse>(&answer, |r| trick(&mut r.account)),
            wire::coordinator::WhoAmI::PATH => rewrite::<wire::coordinator::WhoAmIResponse>(&answer, |r| trick(&mut r.account)),
            _ => answer,
        });
        assert_eq!(kind(login(&cluster, &evil, &admin, "ann", &format!("victim{i}")).await), Kind::Corrupt, "trick {i}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_04_a_key_that_servers_replace_is_a_hard_stop_with_a_way_on() {
    let (cluster, admin, _users) = cluster_of(&["ann", "bea", "cem"]).await;
    let evil = Evil::start(&cluster, &admin).await;
    let ann = login(&cluster, &evil, &admin, "ann", "ann2").await.unwrap();
    let bea = ann.pinned("bea").await.unwrap();
    ann.accept(&ann.acquaintance("bea").await.unwrap(), true).await.unwrap();
    let safe = ann.acquaintance("bea").await.unwrap().safety_number;

    let false_bea = forged(&bea);
    let shown = false_bea.clone();
    evil.lie_about(move |_, answer| {
        if let Answer::Identities(all) = answer {
            all.iter_mut().filter(|i| i.verify().unwrap().name == "bea").for_each(|i| *i = shown.clone());
        }
    });
    let refused = ann.pinned("bea").await.unwrap_err();
    assert_eq!((refused.kind, refused.hint.as_deref()), (Kind::Denied, Some("shardkeep verify-user bea")));
    assert_eq!(kind(ann.pinned_ids(&[bea.verify().unwrap().account]).await), Kind::Denied);
    let seen = ann.acquaintance("bea").await.unwrap();
    assert_eq!(seen.state, PinState::Changed(bea.fingerprint(), true));
    assert_ne!(seen.safety_number, safe);
    // Looking changes nothing, and others are not concerned.
    assert_eq!(ann.acquaintance("bea").await.unwrap().state, PinState::Changed(bea.fingerprint(), true));
    assert!(ann.pinned("cem").await.is_ok());
    // One who is not who they are asked for, or not whole, is no identity at all.
    for lie in [forged(&ann.own_identity()), Identity { signature: bea.signature, ..false_bea.clone() }, bea.clone()] {
        evil.lie_about(move |query, answer| {
            if let (Query::IdentityByName(_), Answer::Identities(all)) = (query, answer) {
                *all = vec![lie.clone()];
            }
        });
        assert_eq!(kind(ann.pinned("cem").await), Kind::Corrupt);
    }
    evil.honest();
    assert_eq!(ann.acquaintance("bea").await.unwrap().state, PinState::Verified);
    // Taken by a person, it counts from then on, and is not verified.
    ann.accept(&ann.acquaintance("bea").await.unwrap(), false).await.unwrap();
    assert_eq!(kind(ann.accept(&seen, false).await), Kind::Conflict);
    let shown = false_bea.clone();
    evil.lie_about(move |_, answer| {
        if let Answer::Identities(all) = answer {
            all.iter_mut().filter(|i| i.verify().unwrap().name == "bea").for_each(|i| *i = shown.clone());
        }
    });
    ann.accept(&seen, false).await.unwrap();
    assert_eq!(ann.acquaintance("bea").await.unwrap().state, PinState::Pinned);
    evil.honest();
    assert_eq!(ann.acquaintance("bea").await.unwrap().state, PinState::Changed(false_bea.fingerprint(), false));
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_17_notes_rolled_back_are_noticed_where_newer_ones_were_seen() {
    let (cluster, admin, _users) = cluster_of(&["ann", "bea"]).await;
    let evil = Evil::start(&cluster, &admin).await;
    let ann = login(&cluster, &evil, &admin, "ann", "ann2").await.unwrap();
    let old = Arc::new(Mutex::new(None));
    let keep = old.clone();
    evil.lie(move |path, _, answer| {
        if path == wire::coordinator::WhoAmI::PATH {
            let now: wire::coordinator::WhoAmIResponse = wire::decode(&answer).unwrap();
            let state = keep.lock().unwrap().get_or_insert(now.account.state).clone();
            return rewrite::<wire::coordinator::WhoAmIResponse>(&answer, |r| r.account.state = state);
        }
        answer
    });
    // The first pin is made on the state that is kept; afterwards that one is older than what was seen.
    ann.pinned("bea").await.unwrap();
    assert_eq!(kind(ann.pinned("bea").await), Kind::Corrupt);
    assert_eq!(kind(Client::open(cluster.profile("ann2"), ClientOptions::default()).await), Kind::Corrupt);
    evil.honest();
    assert!(Client::open(cluster.profile("ann2"), ClientOptions::default()).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_23_recovery_is_neither_relayed_nor_made_with_another_record() {
    let (cluster, admin) = Cluster::start(0).await;
    let (invite, _) = admin.create_invite("ann", false, None, std::time::Duration::from_secs(600)).await.unwrap();
    let registered = Client::register(cluster.profile("ann"), &invite, PASSWORD, ClientOptions::default()).await;
    let (ann, words) = registered.unwrap();
    let evil = Evil::start(&cluster, &admin).await;
    let recover = |machine: &str| {
        let (profile, at, words) = (cluster.profile(machine), evil.at(&admin), words.to_string());
        async move { Client::recover(profile, "ann", at, &words, "another strong password", ClientOptions::default()).await }
    };
    // The proof holds on the connection on which it was made, and on no other.
    assert_eq!(kind(recover("relayed").await), Kind::Denied);
    let mut rng = env::real::env().rand();
    let other = seal::recovery::RecoveryWords::generate(&mut rng).auth_key();
    let tricks: Vec<(Kind, Trick)> = vec![
        (Kind::Corrupt, Box::new(|a| a.recovery.rec_wrap[50] ^= 1)),
        (Kind::Corrupt, Box::new(|a| a.recovery.n += 1)),
        (Kind::Corrupt, Box::new(|a| a.secrets[50] ^= 1)),
        (Kind::Denied, Box::new(move |a| a.recovery.rec_auth = other)),
    ];
    for (expected, trick) in tricks {
        evil.lie(move |path, _, answer| match path {
            RecoverStart::PATH => rewrite::<RecoverStartResponse>(&answer, |r| trick(&mut r.account)),
            _ => answer,
        });
        assert_eq!(kind(recover("tricked").await), expected);
    }
    // Nothing has changed: the session, the password, and the words, said to whom they concern.
    assert!(ann.whoami().await.is_ok());
    let honest = Some(client::Address { coordinator: cluster.address.clone(), ..evil.at(&admin).unwrap() });
    let profile = cluster.profile("honest");
    cluster.env.sleep(std::time::Duration::from_millis(1200)).await; // five were free
    assert!(Client::recover(profile, "ann", honest, &words, "another strong password", ClientOptions::default()).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_24_registration_evaluates_nothing_for_a_name_that_is_taken_and_little_for_others() {
    let (cluster, admin, _users) = cluster_of(&["ann"]).await;
    let hostile = Hostile::with_session_of(&cluster, "admin");
    // Two invites for one name: the second is still unused when the name is taken.
    let valid = std::time::Duration::from_secs(600);
    let (first, _) = admin.create_invite("bea", false, None, valid).await.unwrap();
    let (second, _) = admin.create_invite("bea", false, None, valid).await.unwrap();
    let start = |invite: &transport::InviteText, guess: &str| {
        let password = seal::password::Password::new(guess);
        let (_, request) = seal::login::Registration::start(password, "bea", &mut cluster.env.rand()).unwrap();
        RegisterStartRequest { invite: invite.id, secret_hash: model::Hash::of(&invite.secret), request: request.into() }
    };
    let [one, other] = [&first, &second].map(|text| transport::InviteText::parse(text).unwrap());
    // Each further one must wait twice as long, so that one is too early also where each takes its time.
    let mut refused = None;
    for i in 0..12 {
        refused = hostile.call::<RegisterStart>(&start(&other, &format!("a strong guess number {i}"))).await.err();
        if refused.is_some() {
            assert!(i >= 5, "{refused:?}");
            break;
        }
    }
    assert!(refused.unwrap().message.contains("too many attempts"));
    Client::register(cluster.profile("bea"), &first, PASSWORD, ClientOptions::default()).await.unwrap();
    let mut refused = None;
    for _ in 0..60 {
        cluster.env.sleep(std::time::Duration::from_secs(1)).await;
        refused = hostile.call::<RegisterStart>(&start(&other, "another strong guess")).await.err();
        if refused.as_ref().is_none_or(|e| !e.message.contains("too many attempts")) {
            break;
        }
    }
    assert_eq!(refused.unwrap().kind, Kind::Exists);
    assert_eq!(kind(hostile.call::<RegisterStart>(&start(&one, "another strong guess")).await), Kind::Denied);
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_02_and_24_a_disabled_account_costs_and_answers_like_one_that_never_was() {
    let (cluster, admin, _users) = cluster_of(&["ann"]).await;
    let disable = wire::coordinator::Administration::SetDisabled { name: "ann".into(), disabled: true };
    admin.administer(disable).await.unwrap();
    let hostile = Hostile::with_session_of(&cluster, "admin");
    let mut lengths = BTreeSet::new();
    for name in ["ann", "nobody"] {
        let mut refused = None;
        for guess in 0..12 {
            let (_, ke1) = seal::login::Login::start(seal::password::Password::new(PASSWORD), &mut cluster.env.rand()).unwrap();
            match hostile.call::<LoginStart>(&LoginStartRequest { name: name.into(), ke1: ke1.into() }).await {
                Ok(answer) => {
                    lengths.insert(answer.ke2.len());
                }
                Err(e) => {
                    refused = Some((guess, e));
                    break;
                }
            }
        }
        assert!(refused.as_ref().is_some_and(|(guess, e)| *guess >= 5 && e.message.contains("too many attempts")), "{name}: {refused:?}");
    }
    assert_eq!(lengths.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_38_servers_reflect_repeat_exchange_and_hide_messages() {
    let (cluster, admin, users) = cluster_of(&["ann", "bea"]).await;
    let evil = Evil::start(&cluster, &admin).await;
    let bea = login(&cluster, &evil, &admin, "bea", "bea2").await.unwrap();
    let ann = &users[0];
    let to_bea = ann.pinned("bea").await.unwrap();
    for said in ["one", "two", "three"] {
        ann.send_message(&to_bea, text(said)).await.unwrap();
    }
    bea.send_message(&bea.pinned("ann").await.unwrap(), text("back")).await.unwrap();
    let lie = |change: fn(&mut Vec<model::message::MailItem>)| {
        evil.lie_about(move |_, answer| {
            if let Answer::Mail(items, _) = answer {
                change(items);
            }
        });
    };
    let good = |mail: &[client::Mail]| mail.iter().map(|m| m.said.is_ok()).collect::<Vec<_>>();
    let mail = bea.mail().await.unwrap();
    assert_eq!(good(&mail), [true, true, true, true]);
    // Exchanged, changed, given out as another's, reflected.
    lie(|items| {
        let (one, two) = (items[0].message.clone(), items[1].message.clone());
        (items[0].message, items[1].message) = (two, one);
    });
    assert_eq!(good(&bea.mail().await.unwrap()), [true, false, true, true]);
    lie(|items| items[1].message.body[300] ^= 1);
    assert_eq!(good(&bea.mail().await.unwrap()), [true, false, true, true]);
    lie(|items| items[3].incoming = true);
    assert_eq!(good(&bea.mail().await.unwrap()), [true, true, true, false]);
    lie(|items| items[0].incoming = false);
    assert!(!good(&bea.mail().await.unwrap())[0]);
    let other = admin.own_identity().verify().unwrap().account;
    evil.lie_about(move |_, answer| {
        if let Answer::Mail(items, _) = answer {
            items[1].peer = other;
        }
    });
    assert!(!good(&bea.mail().await.unwrap())[1]);
    // Repeated under a number of its own; out of order.
    lie(|items| {
        let again = model::message::MailItem { number: 9, read: false, ..items[0].clone() };
        items.push(again);
    });
    assert_eq!(good(&bea.mail().await.unwrap()), [true, true, true, true, false]);
    lie(|items| items.reverse());
    assert_eq!(kind(bea.mail().await), Kind::Corrupt);
    // Held back: what comes after says so.
    lie(|items| {
        items.remove(1);
    });
    let mail = bea.mail().await.unwrap();
    assert_eq!(mail.iter().map(|m| m.missing).collect::<Vec<_>>(), [0, 1, 0]);
    // Read once, a message does not come again as a new one, on this machine or another.
    evil.honest();
    bea.mark_read(&BTreeSet::from([1, 2, 3])).await.unwrap();
    lie(|items| {
        let again = model::message::MailItem { number: 9, read: false, ..items[0].clone() };
        *items = vec![again];
    });
    assert_eq!(good(&bea.mail().await.unwrap()), [false]);
    let elsewhere = login(&cluster, &evil, &admin, "bea", "bea3").await.unwrap();
    assert_eq!(good(&elsewhere.mail().await.unwrap()), [false]);
    // Servers that forget what was sent are told so before anything is signed again.
    let lying = |query: &Query, answer: &mut Answer| {
        if let (Query::Thread { .. }, Answer::Thread(thread)) = (query, answer) {
            *thread = model::message::Thread::default();
        }
    };
    evil.lie_about(lying);
    let to_ann = bea.pinned("ann").await.unwrap();
    assert_eq!(kind(bea.send_message(&to_ann, text("again")).await), Kind::Corrupt);
    // Nothing that was said is in what the servers heard.
    assert!(!evil.heard(b"again") && !evil.heard(b"back"));
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_22_no_request_holds_the_secret_of_a_link_or_its_password() {
    let (cluster, admin, _users) = cluster_of(&["ann"]).await;
    let evil = Evil::start(&cluster, &admin).await;
    let ann = login(&cluster, &evil, &admin, "ann", "ann2").await.unwrap();
    ann.put_bytes("/plans", b"the plans themselves".to_vec()).await.unwrap();
    let password = zeroize::Zeroizing::new("open sesame".to_string());
    let link = ann.create_link(&at("/plans"), LinkOptions { password: Some(password), ..Default::default() }).await.unwrap();
    let text = link.text.unwrap();
    let opened = Client::open_link(cluster.profile("links"), &text, Some("open sesame"), ClientOptions::default()).await.unwrap();
    assert_eq!(opened.entry.name(), "plans");
    ann.links().await.unwrap();
    let parsed = transport::LinkText::parse(&text).unwrap();
    assert_eq!(parsed.coordinators, std::slice::from_ref(&evil.address));
    assert!(evil.calls(wire::link::OpenLink::PATH) == 1 && evil.heard(&parsed.id.0));
    let (_, fragment) = text.split_once("#1").unwrap();
    for secret in [&parsed.secret[..], &fragment.as_bytes()[..40], b"open sesame", b"the plans themselves", b"plans"] {
        assert!(!evil.heard(secret));
    }
    // Servers that show another record, or another file, show nothing.
    let other = ann.create_link(&at("/plans"), LinkOptions::default()).await.unwrap();
    assert_ne!(other.id, link.id);
    let kept = Arc::new(Mutex::new(None));
    let keep = kept.clone();
    evil.lie(move |path, _, answer| {
        if path != wire::link::OpenLink::PATH {
            return answer;
        }
        keep.lock().unwrap().get_or_insert_with(|| answer.clone()).clone()
    });
    assert!(Client::open_link(cluster.profile("links"), &text, Some("open sesame"), ClientOptions::default()).await.is_ok());
    let other = other.text.unwrap();
    assert_eq!(kind(Client::open_link(cluster.profile("links"), &other, None, ClientOptions::default()).await), Kind::Corrupt);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_clients_are_refused_by_the_server_what_is_not_theirs() {
    let (cluster, admin, users) = cluster_of(&["ann", "bea"]).await;
    let [ann, bea] = users.as_slice() else { unreachable!() };
    let cem = user(&cluster, &admin, "cem").await;
    ann.send_message(&ann.pinned("bea").await.unwrap(), text("for bea only")).await.unwrap();
    let id = |of: &Client| of.own_identity().verify().unwrap().account;
    let (ann_id, bea_id, cem_id) = (id(ann), id(bea), id(&cem));
    let hostile = Hostile::with_session_of(&cluster, "cem");
    for query in [
        Query::Mail { account: bea_id, after: 0, limit: 10 },
        Query::Mailbox(bea_id),
        Query::Thread { from: ann_id, to: bea_id },
        Query::Links(ann_id),
        Query::Account(ann_id),
        Query::AccountByName("ann".into()),
        Query::Accounts { after: None, limit: 10 },
        Query::LinkBySession(model::Hash([1; 32])),
        Query::Genesis,
        Query::Totals,
    ] {
        assert_eq!(kind(hostile.ask(query.clone()).await), Kind::Denied, "{query:?}");
    }
    let message = model::message::Message { body: vec![1].into(), signature: model::Signature([0; 64]) };
    for command in [
        Command::SendMessage { from: ann_id, to: bea_id, message: message.clone(), copy: message.clone() },
        Command::SendMessage { from: cem_id, to: bea_id, message: message.clone(), copy: message },
        Command::ReadMessages { account: bea_id, numbers: vec![1] },
        Command::SetDisabled { account: ann_id, disabled: true },
        Command::SetQuota { account: cem_id, quota: None },
        Command::OpenSession { token_hash: model::Hash([1; 32]), account: ann_id, expires_ms: u64::MAX },
        Command::OpenLink {
            link: model::LinkId([1; 16]),
            auth_hash: model::Hash([1; 32]),
            token_hash: model::Hash([2; 32]),
            expires_ms: u64::MAX,
        },
    ] {
        assert_eq!(kind(hostile.propose(command.clone()).await), Kind::Denied, "{command:?}");
    }
    assert_eq!(kind(hostile.propose(Command::RevokeLink(model::LinkId([1; 16]))).await), Kind::NotFound);
    // Whoever has no session at all is told nothing more.
    let nobody = Hostile::with(&cluster, &cluster.profile("cem"), wire::SessionToken([7; 32]));
    assert_eq!(kind(nobody.ask(Query::Cluster).await), Kind::Denied);
    assert_eq!(bea.mail().await.unwrap().len(), 1);
}
