//! Mailboxes: one after another, bounded, and only with the signatures of whoever sends.

use super::*;
use model::message::{Envelope, MAIL_MAX, MailItem, Mailbox, Message, Thread, UNREAD_MAX};

fn identity(world: &World, user: &User) -> Identity {
    match world.ask(&Query::IdentityByName(user.name.clone())) {
        Answer::Identities(mut all) => all.pop().expect("an identity"),
        other => panic!("{other:?}"),
    }
}

fn thread(world: &World, from: &User, to: &User) -> Thread {
    match world.ask(&Query::Thread { from: from.id, to: to.id }) {
        Answer::Thread(thread) => thread,
        other => panic!("{other:?}"),
    }
}

fn mailbox(world: &World, of: &User) -> Mailbox {
    match world.ask(&Query::Mailbox(of.id)) {
        Answer::Mailbox(mailbox) => mailbox,
        other => panic!("{other:?}"),
    }
}

fn mail(world: &World, of: &User) -> Vec<MailItem> {
    let mut all = Vec::new();
    loop {
        let after = all.last().map_or(0, |i: &MailItem| i.number);
        let Answer::Mail(items, more) = world.ask(&Query::Mail { account: of.id, after, limit: 300 }) else { panic!() };
        all.extend(items);
        if !more {
            return all;
        }
    }
}

/// The next message between two, with so many bytes in it.
fn next(world: &World, from: &User, to: &User, len: usize) -> Envelope {
    let thread = thread(world, from, to);
    Envelope {
        sender: identity(world, from).fingerprint(),
        recipient: identity(world, to).fingerprint(),
        seq: thread.seq + 1,
        prev: thread.last,
        enc: vec![1; 32].into(),
        sealed: vec![2; len].into(),
    }
}

fn signed_as(kind: &str, by: &User, envelope: &Envelope) -> Message {
    let body = cbor::to_vec(envelope);
    Message { signature: sign(&by.key, kind, &body), body: body.into() }
}

fn sending(from: &User, to: &User, envelope: &Envelope) -> Command {
    let (message, copy) = (signed_as("message", from, envelope), signed_as("message-copy", from, envelope));
    Command::SendMessage { from: from.id, to: to.id, message, copy }
}

fn send(world: &mut World, from: &User, to: &User) -> Applied {
    let envelope = next(world, from, to, 256);
    world.propose(Some(from.id), sending(from, to, &envelope))
}

fn read(world: &mut World, of: &User, numbers: Vec<u64>) {
    world.done(Some(of.id), Command::ReadMessages { account: of.id, numbers });
}

#[test]
fn messages_arrive_in_order_and_are_counted_until_they_are_read() {
    let (mut world, ann) = World::new();
    let bea = world.user(&ann, "bea");
    assert_eq!(mailbox(&world, &bea), Mailbox::default());
    for _ in 0..3 {
        assert!(send(&mut world, &ann, &bea).is_ok());
    }
    assert!(send(&mut world, &bea, &ann).is_ok());
    let items = mail(&world, &bea);
    let told: Vec<_> = items.iter().map(|i| (i.number, i.peer == ann.id, i.incoming, i.read)).collect();
    assert_eq!(told, [(1, true, true, false), (2, true, true, false), (3, true, true, false), (4, true, false, true)]);
    assert_eq!((mailbox(&world, &bea).unread, mailbox(&world, &ann).unread, thread(&world, &ann, &bea).unread), (3, 1, 3));
    read(&mut world, &bea, vec![2, 3, 3, 77]);
    assert_eq!((mailbox(&world, &bea).unread, mailbox(&world, &bea).count, thread(&world, &ann, &bea).unread), (1, 4, 1));
    assert_eq!(kind(&world.propose(Some(ann.id), Command::ReadMessages { account: bea.id, numbers: vec![1] })), Kind::Denied);
}

#[test]
fn attack_38_the_catalog_takes_the_next_message_of_its_signer_and_nothing_else() {
    let (mut world, ann) = World::new();
    let (bea, cem) = (world.user(&ann, "bea"), world.user(&ann, "cem"));
    let first = next(&world, &ann, &bea, 256);
    assert!(world.propose(Some(ann.id), sending(&ann, &bea, &first)).is_ok());
    let second = next(&world, &ann, &bea, 256);
    let refused = |world: &mut World, by: &User, command: Command| kind(&world.propose(Some(by.id), command));
    // Replay, a number left out, another one before, two at once.
    assert_eq!(refused(&mut world, &ann, sending(&ann, &bea, &first)), Kind::Conflict);
    assert_eq!(refused(&mut world, &ann, sending(&ann, &bea, &Envelope { seq: 3, ..second.clone() })), Kind::Conflict);
    assert_eq!(refused(&mut world, &ann, sending(&ann, &bea, &Envelope { prev: Hash([9; 32]), ..second.clone() })), Kind::Conflict);
    // Reflection, another recipient, another sender, another's name.
    let back = Envelope { sender: first.recipient, recipient: first.sender, ..first.clone() };
    assert_eq!(refused(&mut world, &bea, sending(&ann, &bea, &second)), Kind::Denied);
    assert_eq!(refused(&mut world, &bea, sending(&bea, &ann, &second)), Kind::Denied);
    assert_eq!(refused(&mut world, &ann, sending(&ann, &cem, &second)), Kind::Denied);
    assert_eq!(refused(&mut world, &ann, sending(&ann, &bea, &back)), Kind::Denied);
    let forged = Command::SendMessage {
        from: ann.id,
        to: bea.id,
        message: signed_as("message", &cem, &second),
        copy: signed_as("message-copy", &ann, &second),
    };
    assert_eq!(refused(&mut world, &ann, forged), Kind::Denied);
    // A copy is no message, and belongs to this one.
    let copy_as_message = Command::SendMessage {
        from: ann.id,
        to: bea.id,
        message: signed_as("message-copy", &ann, &second),
        copy: signed_as("message-copy", &ann, &second),
    };
    assert_eq!(refused(&mut world, &ann, copy_as_message), Kind::Denied);
    let other_copy = Command::SendMessage {
        from: ann.id,
        to: bea.id,
        message: signed_as("message", &ann, &second),
        copy: signed_as("message-copy", &ann, &first),
    };
    assert_eq!(refused(&mut world, &ann, other_copy), Kind::Invalid);
    let long = next(&world, &ann, &bea, 33 << 10);
    assert_eq!(refused(&mut world, &ann, sending(&ann, &bea, &long)), Kind::Invalid);
    let mut self_sent = second.clone();
    self_sent.recipient = first.sender;
    assert_eq!(refused(&mut world, &ann, sending(&ann, &ann, &self_sent)), Kind::Invalid);
    assert_eq!(mailbox(&world, &bea).count, 1);
    assert!(world.propose(Some(ann.id), sending(&ann, &bea, &second)).is_ok());
}

#[test]
fn a_mailbox_is_bounded_and_what_was_read_makes_room() {
    let (mut world, ann) = World::new();
    let bea = world.user(&ann, "bea");
    for _ in 0..UNREAD_MAX {
        assert!(send(&mut world, &ann, &bea).is_ok());
    }
    assert_eq!(kind(&send(&mut world, &ann, &bea)), Kind::Insufficient);
    let all = |world: &World, of: &User| mail(world, of).iter().map(|i| i.number).collect::<Vec<_>>();
    read(&mut world, &bea, vec![1]);
    for i in 0..MAIL_MAX {
        read(&mut world, &bea, vec![UNREAD_MAX + i]);
        assert!(send(&mut world, &ann, &bea).is_ok(), "{i}");
    }
    // Those that were never read are all there still.
    let (left, counts) = (all(&world, &bea), mailbox(&world, &bea));
    assert_eq!((left.len() as u64, counts.count, counts.unread), (MAIL_MAX, MAIL_MAX, UNREAD_MAX - 1));
    assert_eq!(left[0], 2);
    assert!(left.contains(&(UNREAD_MAX - 1)));
    let bytes: u64 = mail(&world, &bea).iter().map(|i| i.message.body.len() as u64).sum();
    assert_eq!(bytes, counts.bytes);
    // The sender's copies are bounded too.
    assert_eq!(mailbox(&world, &ann).count, MAIL_MAX);
    // Long ones are bounded by their bytes: nothing is read, so nothing goes.
    let cem = world.user(&ann, "cem");
    let writers = [world.user(&ann, "dan"), world.user(&ann, "eve")];
    let mut sent = 0;
    let refused = loop {
        let writer = &writers[(sent / UNREAD_MAX) as usize];
        let envelope = next(&world, writer, &cem, 30 << 10);
        match world.propose(Some(writer.id), sending(writer, &cem, &envelope)) {
            Ok(_) => sent += 1,
            refused => break refused,
        }
    };
    assert_eq!(kind(&refused), Kind::Insufficient);
    assert!((260..=273).contains(&sent), "{sent}");
}

#[test]
fn admins_shut_accounts_out_and_let_them_in_but_never_themselves() {
    let (mut world, ann) = World::new();
    let bea = world.user(&ann, "bea");
    let session = |n: u8| Command::OpenSession { token_hash: Hash([n; 32]), account: bea.id, expires_ms: START + DAY };
    world.done(None, session(1));
    world.done(None, session(2));
    let set = |account: &User, disabled| Command::SetDisabled { account: account.id, disabled };
    assert_eq!(kind(&world.propose(Some(bea.id), set(&ann, true))), Kind::Denied);
    assert_eq!(kind(&world.propose(None, set(&bea, true))), Kind::Denied);
    assert_eq!(kind(&world.propose(Some(ann.id), set(&ann, true))), Kind::Invalid);
    world.done(Some(ann.id), set(&bea, true));
    assert_eq!(world.ask(&Query::Session(Hash([1; 32]))), Answer::Session(None));
    assert_eq!(world.ask(&Query::Session(Hash([2; 32]))), Answer::Session(None));
    assert_eq!(kind(&world.propose(None, session(3))), Kind::Denied);
    world.done(Some(ann.id), set(&bea, false));
    world.done(None, session(4));
    let quota = |quota| Command::SetQuota { account: bea.id, quota };
    assert_eq!(kind(&world.propose(Some(bea.id), quota(None))), Kind::Denied);
    world.done(Some(ann.id), quota(Some(7)));
    let Answer::Account(Some(account)) = world.ask(&Query::Account(bea.id)) else { panic!() };
    assert_eq!((account.quota, account.disabled), (Some(7), false));
}
