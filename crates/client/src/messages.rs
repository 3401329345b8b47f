//! Messages: sent to identities that were pinned, and read in the order in which they were written. What
//! the servers show must be what was signed, one after another: a message that is repeated, exchanged,
//! reflected or changed is shown as an error, one that is missing is said to be.

use crate::connection::unexpected;
use crate::session::Client;
use futures::StreamExt;
use model::account::{Identity, Role};
use model::command::{Answer, Command, Outcome, Query};
use model::message::{MailItem, Thread};
use model::{AccountId, Error, Hash, Kind, Result, SpaceId};
use seal::account::{Notes, ThreadMark};
use seal::message::{self, MessageBody, Said};
use std::collections::{BTreeMap, BTreeSet};

/// How often a message is sent while other machines of the account send too.
const TRIES: usize = 20;
/// Messages in one question.
const PAGE: u32 = 200;

/// Invitations under way at a time.
const INVITED: usize = 8;

/// A message that was sent.
#[derive(Clone, Copy)]
struct Sent {
    peer: AccountId,
    seq: u64,
    hash: Hash,
    number: u64,
}

/// A message in this account's mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// Its number in the mailbox.
    pub number: u64,
    /// Account name of the other one.
    pub peer: String,
    /// It came from the other one; otherwise it is one's own.
    pub incoming: bool,
    /// It was read.
    pub read: bool,
    /// When it was sent, milliseconds since 1970, as the servers say.
    pub time_ms: u64,
    /// So many messages of this sender before it are missing: the servers hold them back, or lost them.
    pub missing: u64,
    /// What it says, verified; or why it is not shown.
    pub said: Result<Said>,
}

impl Client {
    /// Sends a message to an identity that was pinned ([`Client::pinned`]); answers with its number in the
    /// own mailbox. `Insufficient` when the recipient's mailbox is full of unread ones.
    pub async fn send_message(&self, to: &Identity, body: MessageBody) -> Result<u64> {
        let (_, notes) = self.notes().await?;
        let sent = self.send_after(&notes, to, body).await?;
        self.note_sent(&[sent]).await?;
        Ok(sent.number)
    }

    /// Tells people that they have come into a space. Whoever cannot be told (their mailbox may be full) sees
    /// the share nevertheless: this is a courtesy.
    pub(crate) async fn invite(&self, people: &[Identity], space: SpaceId, name: &str, roles: &[Role]) {
        let Ok((_, notes)) = self.notes().await else { return };
        let told = people.iter().zip(roles).map(|(to, role)| {
            let body = MessageBody::ShareInvite { space, name: name.into(), role: *role };
            self.send_after(&notes, to, body)
        });
        let told: Vec<Result<Sent>> = futures::stream::iter(told).buffered(INVITED).collect().await;
        let mut sent = Vec::with_capacity(told.len());
        for one in told {
            match one {
                Ok(one) => sent.push(one),
                Err(e) => tracing::warn!(error = %e, "somebody could not be told of a share"),
            }
        }
        if let Err(e) = self.note_sent(&sent).await {
            tracing::warn!(error = %e, "it was not noted that invitations were sent");
        }
    }

    /// Sends the next message of a thread, which must go on from what the notes know of it.
    async fn send_after(&self, notes: &Notes, to: &Identity, body: MessageBody) -> Result<Sent> {
        let me = self.unlocked().account();
        let peer = seal::identity::verify(to)?.account;
        let mark = notes.thread(peer);
        for _ in 0..TRIES {
            let Answer::Thread(thread) = self.cluster().ask(Query::Thread { from: me, to: peer }).await? else { return Err(unexpected()) };
            if !goes_on(&mark, &thread) {
                return Err(Error::corrupt("the servers have lost or hidden messages that this account has sent"));
            }
            let said = Said { time_ms: self.env().now_ms(), body: body.clone() };
            let seq = thread.seq.checked_add(1).ok_or_else(unexpected)?;
            let outgoing = message::seal(self.unlocked(), to, seq, thread.last, &said, &mut self.env().rand())?;
            let hash = outgoing.hash();
            let command = Command::SendMessage { from: me, to: peer, message: outgoing.message, copy: outgoing.copy };
            match self.propose(command).await {
                Ok(Outcome::Sent { number, .. }) => return Ok(Sent { peer, seq, hash, number }),
                Ok(_) => return Err(unexpected()),
                Err(e) if e.kind == Kind::Conflict => {}
                Err(e) => return Err(e),
            }
        }
        Err(Error::conflict("other machines of this account send messages all the time").hint("try again"))
    }

    /// Remembers what was sent, so that servers cannot forget it.
    async fn note_sent(&self, sent: &[Sent]) -> Result<()> {
        self.change_notes(|notes| {
            let mut rose = false;
            for one in sent {
                let now = notes.thread(one.peer);
                if now.sent.0 < one.seq {
                    rose = true;
                    notes.set_thread(ThreadMark { sent: (one.seq, one.hash), ..now });
                }
            }
            Ok(((), rose))
        })
        .await
    }

    /// All messages in the mailbox, in the order of arrival, verified one by one.
    pub async fn mail(&self) -> Result<Vec<Mail>> {
        Ok(self.checked_mail().await?.into_iter().map(|(mail, ..)| mail).collect())
    }

    /// Marks messages as read: on the servers, for the count, and in the sealed notes, so that they can
    /// never come again as others.
    pub async fn mark_read(&self, numbers: &BTreeSet<u64>) -> Result<()> {
        let mut marks: BTreeMap<AccountId, ThreadMark> = BTreeMap::new();
        let mut unread = Vec::new();
        for (mail, peer, at) in self.checked_mail().await? {
            if !numbers.contains(&mail.number) {
                continue;
            }
            if !mail.read {
                unread.push(mail.number);
            }
            // One that did not verify is read as well, but nothing follows from it.
            if let (true, Some((seq, hash))) = (mail.incoming, at) {
                let sent = (0, Hash::default());
                marks.insert(peer, ThreadMark { account: peer, sent, received: (seq, hash), number: mail.number });
            }
        }
        if !marks.is_empty() {
            self.change_notes(|notes| Ok(((), raise(notes, &marks)))).await?;
        }
        for some in unread.chunks(1_000) {
            self.propose(Command::ReadMessages { account: self.unlocked().account(), numbers: some.to_vec() }).await?;
        }
        Ok(())
    }

    /// The mailbox with the other account, and the place in its thread of what verified.
    async fn checked_mail(&self) -> Result<Vec<(Mail, AccountId, Option<(u64, Hash)>)>> {
        let items = self.mail_items().await?;
        let peers: BTreeSet<AccountId> = items.iter().map(|i| i.peer).collect();
        let identities = self.identities_of(peers).await?;
        let (_, notes) = self.notes().await?;
        let mut threads = BTreeMap::new();
        let mut all = Vec::with_capacity(items.len());
        for item in items {
            let identity = identities.get(&item.peer).cloned().unwrap_or_else(|| Err(unexpected()));
            let thread = threads.entry(item.peer).or_insert_with(|| Incoming::new(notes.thread(item.peer)));
            let opened = identity.as_ref().map_err(Clone::clone).and_then(|identity| self.open_item(&item, identity));
            let placed = match opened {
                Ok((envelope, said)) if item.incoming => {
                    let at = (envelope.seq, Hash::of(&item.message.body));
                    thread.take(item.number, at, envelope.prev).map(|missing| (said, missing, Some(at)))
                }
                opened => opened.map(|(_, said)| (said, 0, None)),
            };
            let (said, missing, at) = match placed {
                Ok((said, missing, at)) => (Ok(said), missing, at),
                Err(e) => (Err(e), 0, None),
            };
            let name = |identity: &Identity| seal::identity::verify(identity).map(|body| body.name).ok();
            let peer = identity.ok().as_ref().and_then(name).unwrap_or_else(|| item.peer.to_string());
            let MailItem { number, incoming, time_ms, read, .. } = item;
            all.push((Mail { number, peer, incoming, read, time_ms, missing, said }, item.peer, at));
        }
        Ok(all)
    }

    fn open_item(&self, item: &MailItem, identity: &Identity) -> Result<(model::message::Envelope, Said)> {
        if item.incoming {
            return message::open(self.unlocked(), identity, &item.message);
        }
        let (envelope, said) = message::open_copy(self.unlocked(), &item.message)?;
        if envelope.recipient != identity.fingerprint() {
            return Err(Error::corrupt("the servers show a message that was sent to somebody else"));
        }
        Ok((envelope, said))
    }

    async fn mail_items(&self) -> Result<Vec<MailItem>> {
        let account = self.unlocked().account();
        let mut items: Vec<MailItem> = Vec::new();
        loop {
            let after = items.last().map_or(0, |i| i.number);
            let Answer::Mail(page, more) = self.cluster().ask(Query::Mail { account, after, limit: PAGE }).await? else {
                return Err(unexpected());
            };
            let begin = items.len();
            items.extend(page);
            if !items.is_sorted_by(|a, b| a.number < b.number) || items.len() > 2 * model::message::MAIL_MAX as usize {
                return Err(Error::corrupt("the servers show a mailbox out of order"));
            }
            if !more || items.len() == begin {
                return Ok(items);
            }
        }
    }

    /// The pinned identities of accounts; why not, for those that have changed.
    async fn identities_of(&self, accounts: BTreeSet<AccountId>) -> Result<BTreeMap<AccountId, Result<Identity>>> {
        let ids: Vec<AccountId> = accounts.into_iter().collect();
        let mut found = BTreeMap::new();
        let mut note = |identities: Vec<Identity>| {
            for identity in identities {
                if let Ok(body) = seal::identity::verify(&identity) {
                    found.insert(body.account, Ok(identity));
                }
            }
        };
        match self.pinned_ids(&ids).await {
            Ok(all) => note(all),
            Err(e) if e.kind == Kind::Denied => {
                let mut refused = Vec::new();
                for id in ids {
                    match self.pinned_ids(&[id]).await {
                        Ok(one) => note(one),
                        Err(e) => refused.push((id, e)),
                    }
                }
                found.extend(refused.into_iter().map(|(id, e)| (id, Err(e))));
            }
            Err(e) => return Err(e),
        }
        Ok(found)
    }
}

/// Whether what the servers say of a thread goes on from what was sent.
fn goes_on(mark: &ThreadMark, thread: &Thread) -> bool {
    thread.seq > mark.sent.0 || (thread.seq == mark.sent.0 && thread.last == mark.sent.1)
}

/// Raises the marks of what was received; whether any rose.
fn raise(notes: &mut Notes, marks: &BTreeMap<AccountId, ThreadMark>) -> bool {
    let mut rose = false;
    for (peer, mark) in marks {
        let now = notes.thread(*peer);
        if now.received.0 < mark.received.0 {
            rose = true;
            notes.set_thread(ThreadMark { received: mark.received, number: mark.number, ..now });
        }
    }
    rose
}

/// The messages of one sender, as they come by in the order of the mailbox.
struct Incoming {
    mark: ThreadMark,
    last: Option<(u64, Hash)>,
}

impl Incoming {
    fn new(mark: ThreadMark) -> Self {
        Incoming { mark, last: None }
    }

    /// Takes the next one; how many are missing before it. `Corrupt` for one that comes again, out of
    /// order, or does not follow from the one before.
    fn take(&mut self, number: u64, at: (u64, Hash), prev: Hash) -> Result<u64> {
        let (seq, hash) = at;
        let bad = || Error::corrupt("the servers repeat or exchange messages of this sender");
        let (read, read_hash) = self.mark.received;
        // What was read lies at or before its mark, and the rest after it.
        if (seq <= read) != (number <= self.mark.number) || (seq == read && hash != read_hash) {
            return Err(bad());
        }
        let before = match self.last {
            Some((last, _)) if seq <= last => return Err(bad()),
            Some(last) if last.0 >= read || seq <= read => Some(last),
            _ if seq > read => Some((read, read_hash)),
            _ => None,
        };
        self.last = Some(at);
        // Those that were read make room when the mailbox is full: none of them is missed.
        match before {
            Some((last, last_hash)) if last + 1 == seq => {
                if last_hash == prev {
                    Ok(0)
                } else {
                    Err(bad())
                }
            }
            Some((last, _)) if seq > read => Ok(seq - last - 1),
            _ => Ok(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u64) -> Hash {
        if n == 0 { Hash::default() } else { Hash([n as u8; 32]) }
    }

    /// Numbers in the mailbox and in the thread, and what is said of each.
    fn tell(read: (u64, u64), items: &[(u64, u64)]) -> Vec<Result<u64>> {
        let account = AccountId([1; 16]);
        let mark = ThreadMark { account, sent: (0, hash(0)), received: (read.1, hash(read.1)), number: read.0 };
        let mut thread = Incoming::new(mark);
        items.iter().map(|(number, seq)| thread.take(*number, (*seq, hash(*seq)), hash(seq - 1))).collect()
    }

    #[test]
    fn attack_38_a_message_that_was_read_does_not_come_again() {
        assert_eq!(tell((0, 0), &[(4, 1), (5, 2), (9, 3)]), [Ok(0), Ok(0), Ok(0)]);
        assert_eq!(tell((5, 2), &[(4, 1), (5, 2), (9, 3)]), [Ok(0), Ok(0), Ok(0)]);
        assert!(tell((5, 2), &[(9, 3), (10, 2)])[1].is_err());
        assert!(tell((5, 2), &[(10, 1)])[0].is_err());
        assert!(tell((5, 2), &[(4, 3)])[0].is_err());
        assert!(tell((0, 0), &[(4, 1), (5, 1)])[1].is_err());
        assert!(tell((0, 0), &[(4, 2), (5, 1)])[1].is_err());
    }

    #[test]
    fn attack_38_a_message_held_back_is_missed_and_another_in_its_place_refused() {
        assert_eq!(tell((5, 2), &[(9, 4)]), [Ok(1)]);
        assert_eq!(tell((0, 0), &[(4, 1), (9, 4), (10, 5)]), [Ok(0), Ok(2), Ok(0)]);
        // What was read made room.
        assert_eq!(tell((9, 6), &[(2, 2), (7, 5), (9, 6), (11, 7)]), [Ok(0), Ok(0), Ok(0), Ok(0)]);
        let account = AccountId([1; 16]);
        let mut thread = Incoming::new(ThreadMark { account, sent: (0, hash(0)), received: (2, hash(2)), number: 5 });
        assert!(thread.take(6, (3, hash(3)), hash(9)).is_err());
    }

    #[test]
    fn attack_38_servers_that_forget_what_was_sent_are_noticed() {
        let mark = ThreadMark { account: AccountId([1; 16]), sent: (3, hash(3)), received: (0, hash(0)), number: 0 };
        let thread = |seq, last| Thread { seq, last: hash(last), unread: 0 };
        assert!(goes_on(&mark, &thread(3, 3)) && goes_on(&mark, &thread(4, 9)));
        assert!(!goes_on(&mark, &thread(2, 2)) && !goes_on(&mark, &thread(3, 4)) && !goes_on(&mark, &thread(0, 0)));
    }
}
