//! Mailboxes: messages in the order in which they were sent, bounded in number and bytes. Servers see who
//! writes to whom, when, and about how much.

use crate::key;
use crate::kv::Kv;
use crate::query::{get, page};
use crate::tx::{Step, Tx};
use model::account::{Account, IdentityBody};
use model::command::{Answer, Outcome};
use model::message::{ENVELOPE_MAX, Envelope, MAIL_BYTES_MAX, MAIL_MAX, MailItem, Mailbox, Message, Thread, UNREAD_MAX};
use model::{AccountId, Error, Hash, Kind, Result, cbor, signed};

/// Most numbers in one mark.
const MARKED_MAX: usize = 1_024;

impl Tx<'_> {
    pub(crate) fn send_message(
        &mut self,
        by: Option<AccountId>,
        from: AccountId,
        to: AccountId,
        message: &Message,
        copy: &Message,
    ) -> Step<Outcome> {
        if by != Some(from) {
            return Err(Error::denied("only the account itself may send its messages").into());
        }
        let sender: Account = self.get(&key::account(from))?.ok_or_else(|| Error::denied("there is no such account"))?;
        let recipient: Account = self.get(&key::account(to))?.ok_or_else(|| Error::not_found("there is no such account"))?;
        if from == to {
            return Err(Error::invalid("a message goes to somebody else").into());
        }
        let who = sender.identity.verify()?;
        let (sent, kept) = (envelope(message, "message", &who)?, envelope(copy, "message-copy", &who)?);
        for envelope in [&sent, &kept] {
            if envelope.sender != sender.identity.fingerprint() || envelope.recipient != recipient.identity.fingerprint() {
                return Err(Error::denied("a message names another sender or recipient").into());
            }
        }
        let mut thread: Thread = self.get(&key::thread(from, to))?.unwrap_or_default();
        if thread.seq.checked_add(1) != Some(sent.seq) || sent.prev != thread.last {
            return Err(Error::conflict("another message was sent meanwhile").into());
        }
        if (kept.seq, kept.prev) != (sent.seq, sent.prev) {
            return Err(Error::invalid("a copy is of another message").into());
        }
        if thread.unread >= UNREAD_MAX {
            return Err(
                Error::insufficient(format!("{} has not read {UNREAD_MAX} messages of yours: wait for that", recipient.name)).into()
            );
        }
        thread = Thread { seq: sent.seq, last: Hash::of(&message.body), unread: thread.unread + 1 };
        self.put(&key::thread(from, to), &thread)?;
        let full = |own: bool| match own {
            true => Error::insufficient("your own mailbox is full of messages that you have not read").hint("shardkeep message read"),
            false => Error::insufficient(format!("the mailbox of {} is full of messages that were not read", recipient.name)),
        };
        let time_ms = self.now;
        self.deliver(to, MailItem { number: 0, peer: from, incoming: true, message: message.clone(), time_ms, read: false }, full(false))?;
        let number =
            self.deliver(from, MailItem { number: 0, peer: to, incoming: false, message: copy.clone(), time_ms, read: true }, full(true))?;
        Ok(Outcome::Sent { number, time_ms })
    }

    /// Puts a message into a mailbox; the oldest ones that were read make room. Its number there.
    fn deliver(&mut self, owner: AccountId, item: MailItem, full: Error) -> Step<u64> {
        let mut mailbox: Mailbox = self.get(&key::mailbox(owner))?.unwrap_or_default();
        let bytes = item.message.body.len() as u64;
        let fits = |m: &Mailbox| m.count < MAIL_MAX && m.bytes.saturating_add(bytes) <= MAIL_BYTES_MAX;
        if !fits(&mailbox) {
            let prefix = key::mail(owner);
            for key in self.keys(&prefix, &key::end_of(&prefix), usize::MAX)? {
                let old: MailItem = self.must(&key)?;
                if old.read {
                    self.delete(&key)?;
                    mailbox.count = mailbox.count.saturating_sub(1);
                    mailbox.bytes = mailbox.bytes.saturating_sub(old.message.body.len() as u64);
                }
                if fits(&mailbox) {
                    break;
                }
            }
        }
        if !fits(&mailbox) {
            return Err(full.into());
        }
        let number = mailbox.last + 1;
        let unread = mailbox.unread + u64::from(!item.read);
        mailbox = Mailbox { last: number, count: mailbox.count + 1, bytes: mailbox.bytes + bytes, unread };
        self.put(&key::mail_item(owner, number), &MailItem { number, ..item })?;
        self.put(&key::mailbox(owner), &mailbox)?;
        Ok(number)
    }

    /// Marks messages as read. Those that are not there, or were read, are no error.
    pub(crate) fn read_messages(&mut self, by: Option<AccountId>, owner: AccountId, numbers: &[u64]) -> Step<Outcome> {
        if by != Some(owner) {
            return Err(Error::denied("only the account itself may do this").into());
        }
        if numbers.len() > MARKED_MAX {
            return Err(Error::invalid(format!("at most {MARKED_MAX} messages can be marked at once")).into());
        }
        let mut mailbox: Mailbox = self.get(&key::mailbox(owner))?.unwrap_or_default();
        for number in numbers {
            let at = key::mail_item(owner, *number);
            let Some(item) = self.get::<MailItem>(&at)?.filter(|item| !item.read) else { continue };
            let thread = key::thread(item.peer, owner);
            let mut state: Thread = self.get(&thread)?.unwrap_or_default();
            state.unread = state.unread.saturating_sub(1);
            self.put(&thread, &state)?;
            self.put(&at, &MailItem { read: true, ..item })?;
            mailbox.unread = mailbox.unread.saturating_sub(1);
        }
        self.put(&key::mailbox(owner), &mailbox)?;
        Ok(Outcome::Done)
    }
}

/// Checks signature and form of a message. What is sealed in it is not for servers.
fn envelope(message: &Message, kind: &str, who: &IdentityBody) -> Result<Envelope> {
    if message.body.len() > ENVELOPE_MAX {
        return Err(Error::invalid("a message is too long"));
    }
    signed::verify(&who.signing, kind, &message.body, &message.signature)?;
    cbor::from_canonical(&message.body).map_err(|e| Error::new(Kind::Invalid, e.message))
}

/// Counts of a mailbox.
pub(crate) fn mailbox(kv: &dyn Kv, owner: AccountId) -> Result<Answer> {
    Ok(Answer::Mailbox(get(kv, &key::mailbox(owner))?.unwrap_or_default()))
}

/// A page of a mailbox, in the order of arrival.
pub(crate) fn mail(kv: &dyn Kv, owner: AccountId, after: u64, limit: usize) -> Result<Answer> {
    let (from, to) = (key::mail_item(owner, after.saturating_add(1)), key::end_of(&key::mail(owner)));
    let (items, more) = page::<MailItem>(kv, &from, &to, limit)?;
    Ok(Answer::Mail(items.into_iter().map(|(_, item)| item).collect(), more))
}

/// How far one account has written to another.
pub(crate) fn thread(kv: &dyn Kv, from: AccountId, to: AccountId) -> Result<Answer> {
    Ok(Answer::Thread(get(kv, &key::thread(from, to))?.unwrap_or_default()))
}
