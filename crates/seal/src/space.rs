//! Opening a space: its member history verified, its keys taken from grants, its root found.

use crate::account::{Seen, Unlocked};
use crate::grant;
use crate::keys::{FolderKey, SpaceKey, fresh};
use crate::members::{Chain, Identities, SUITE, genesis, member};
use crate::tree::FolderKeys;
use model::account::{Grant, GrantBody, Member, MemberSet, MemberSetBody, NewSpace, Role, SpaceInfo};
use model::tree::{COMMIT_MAX, CommitBody, CommitRecord, Row};
use model::{AccountId, CommitId, Error, FolderId, Hash, KeyEpoch, PublicKey, Result, SpaceId, cbor, signed};
use rand_core::CryptoRng;
use std::collections::BTreeMap;

/// Makes a space whose only member is its creator: genesis, first member set, grant to self.
pub fn create(me: &Unlocked, rng: &mut impl CryptoRng) -> Result<NewSpace> {
    make(me, rng).map(|(new, _)| new)
}

/// The same with the space's key.
pub(crate) fn make(me: &Unlocked, rng: &mut impl CryptoRng) -> Result<(NewSpace, SpaceKey)> {
    let genesis = genesis(me.fingerprint(), fresh(rng));
    let mut id = [0u8; 16];
    id.copy_from_slice(&Hash::of(&genesis).0[..16]);
    let (space, epoch) = (SpaceId(id), KeyEpoch(1));
    let key = SpaceKey::generate(rng);
    let members = MemberSetBody {
        space,
        seq: 1,
        epoch,
        prev: Hash([0; 32]),
        min_suite: SUITE,
        members: vec![Member { account: me.account(), fingerprint: me.fingerprint(), role: Role::Admin }],
    };
    let body = cbor::to_vec(&members);
    let members_hash = Hash::of(&body);
    let members = MemberSet { author: me.account(), signature: me.signing.sign("member-set", &body), body: body.into() };
    let mut grant = GrantBody {
        space,
        epoch,
        members: members_hash,
        sender: me.fingerprint(),
        recipient: me.account(),
        recipient_fingerprint: me.fingerprint(),
        enc: Vec::new().into(),
        sealed: Vec::new().into(),
        head: None,
    };
    grant::seal(&mut grant, &key, &me.kem.public(), rng)?;
    let body = cbor::to_vec(&grant);
    let grant = Grant { author: me.account(), signature: me.signing.sign("grant", &body), body: body.into() };
    Ok((NewSpace { genesis: genesis.into(), root: key.root_id(), members, grant }, key))
}

/// What to remember of a space just made.
pub fn first_seen(new: &NewSpace) -> Seen {
    Seen { space: new.id(), seq: 1, hash: Hash::of(&new.members.body), head: None }
}

/// The keys of all who were ever members.
fn signers(chain: &Chain, identities: &Identities) -> BTreeMap<(AccountId, Hash), PublicKey> {
    let mut signers = BTreeMap::new();
    for m in chain.all().flat_map(|set| &set.members) {
        // A missing identity matters only once something signed by it turns up.
        if let Some(identity) = identities.get(m.account, m.fingerprint) {
            signers.insert((m.account, m.fingerprint), identity.signing);
        }
    }
    signers
}

/// A space whose history and grants were verified: the keys of its epochs, and who may write.
pub struct OpenSpace {
    id: SpaceId,
    me: AccountId,
    chain: Chain,
    keys: BTreeMap<KeyEpoch, SpaceKey>,
    signers: BTreeMap<(AccountId, Hash), PublicKey>,
    root: (FolderId, KeyEpoch),
}

impl OpenSpace {
    /// Verifies everything that a server says of a space, and opens the keys granted to `me`.
    /// `seen` is the highest member set remembered: a chain that does not contain it was rolled
    /// back or forked (`Corrupt`). `Denied` when `me` is no member now.
    pub fn open(info: &SpaceInfo, me: &Unlocked, seen: Option<&Seen>) -> Result<Self> {
        let identities = Identities::verify(&info.identities)?;
        let chain = Chain::verify(info.space, &info.genesis, &info.member_sets, &identities)?;
        if let Some(seen) = seen {
            let same = seen.space == info.space && chain.at(seen.seq).is_some_and(|(hash, _)| *hash == seen.hash);
            if !same {
                return Err(Error::corrupt("the members of a space were rolled back or forked by the servers"));
            }
        }
        let (_, newest) = chain.newest();
        let listed = member(newest, me.account()).ok_or_else(|| Error::denied("this account is no member of the space"))?;
        if listed.fingerprint != me.fingerprint() {
            return Err(Error::corrupt("the space lists another identity under this account"));
        }
        let current = newest.epoch;
        let mut keys = BTreeMap::new();
        for grant in &info.grants {
            let (epoch, key) = open_grant(grant, info.space, me, &chain, &identities)?;
            if keys.insert(epoch, key).is_some() {
                return Err(Error::corrupt("a space has two keys for one epoch"));
            }
        }
        if !keys.contains_key(&current) {
            return Err(Error::corrupt("the grant for the current epoch of a space is missing"));
        }
        // The root's id is derived from the key of its epoch: that finds the epoch, and refuses a
        // root that a server chose.
        let root_epoch = keys.iter().rev().find(|(_, key)| key.root_id() == info.root).map(|(epoch, _)| *epoch);
        let root_epoch = root_epoch.ok_or_else(|| Error::corrupt("the root folder of a space is not its own"))?;
        let signers = signers(&chain, &identities);
        Ok(OpenSpace { id: info.space, me: me.account(), chain, keys, signers, root: (info.root, root_epoch) })
    }

    /// Verifies what a server says of a space for somebody who holds no key of it but a folder's, by a link:
    /// enough to know whose signatures count. `seen` is the member set that the link's maker knew.
    pub fn without_keys(info: &SpaceInfo, seen: &Seen) -> Result<Self> {
        let identities = Identities::verify(&info.identities)?;
        let chain = Chain::verify(info.space, &info.genesis, &info.member_sets, &identities)?;
        if seen.space != info.space || chain.at(seen.seq).is_none_or(|(hash, _)| *hash != seen.hash) {
            return Err(Error::corrupt("the members of a space were rolled back or forked by the servers"));
        }
        let signers = signers(&chain, &identities);
        let epoch = chain.newest().1.epoch;
        Ok(OpenSpace { id: info.space, me: AccountId([0; 16]), chain, keys: BTreeMap::new(), signers, root: (info.root, epoch) })
    }

    /// The space.
    pub fn id(&self) -> SpaceId {
        self.id
    }

    /// The current key epoch: new folders are made in it.
    pub fn epoch(&self) -> KeyEpoch {
        self.chain.newest().1.epoch
    }

    /// The member history.
    pub fn members(&self) -> &Chain {
        &self.chain
    }

    /// What to remember: the highest member set.
    pub fn seen(&self) -> Seen {
        let (hash, set) = self.chain.newest();
        Seen { space: self.id, seq: set.seq, hash: *hash, head: None }
    }

    /// An account's role in an epoch: that of the epoch's last member set.
    pub fn role(&self, account: AccountId, epoch: KeyEpoch) -> Option<Role> {
        self.chain.in_epoch(account, epoch).map(|m| m.role)
    }

    /// Whether an account's signatures of an epoch count as writes.
    pub fn may_write(&self, account: AccountId, epoch: KeyEpoch) -> bool {
        self.role(account, epoch).is_some_and(|role| role >= Role::Write)
    }

    /// The root folder.
    pub fn root_id(&self) -> FolderId {
        self.root.0
    }

    /// The key epoch of the root folder.
    pub fn root_epoch(&self) -> KeyEpoch {
        self.root.1
    }

    /// The space key of an epoch, where it was granted.
    pub(crate) fn key_of(&self, epoch: KeyEpoch) -> Result<&SpaceKey> {
        self.keys.get(&epoch).ok_or_else(|| Error::corrupt("the key of a space's epoch is missing"))
    }

    /// DK of the root folder.
    pub fn root_key(&self) -> Result<FolderKey> {
        let (folder, epoch) = self.root;
        Ok(self.key_of(epoch)?.root_key(&cbor::to_vec(&("root", self.id, folder, epoch))))
    }

    /// The root folder's row keys.
    pub fn root(&self) -> Result<FolderKeys> {
        Ok(FolderKeys::new(self.id, self.root.0, self.root.1, &self.root_key()?))
    }

    /// Signs a commit of rows (as many as the commit has changes, in their order). `Denied` without
    /// the right to write, `Invalid` for rows of other spaces or more than a commit holds.
    pub fn sign_commit<'r>(
        &self,
        me: &Unlocked,
        rows: impl IntoIterator<Item = &'r Row>,
        rng: &mut impl CryptoRng,
    ) -> Result<(CommitId, CommitRecord)> {
        let epoch = self.epoch();
        if me.account() != self.me || !self.may_write(self.me, epoch) {
            return Err(Error::denied("this account may only read in this space"));
        }
        let mut hashes = Vec::new();
        for row in rows {
            if row.space != self.id || row.epoch > epoch || row.rev == 0 {
                return Err(Error::invalid("a commit holds rows that are not of its space and epoch"));
            }
            hashes.push(row.hash());
        }
        if hashes.is_empty() || hashes.len() > COMMIT_MAX {
            return Err(Error::invalid(format!("a commit holds 1 to {COMMIT_MAX} changes")));
        }
        let commit = CommitId(fresh(rng));
        let body = cbor::to_vec(&CommitBody { space: self.id, epoch, commit, rows: hashes });
        let signature = me.signing.sign("commit", &body);
        Ok((commit, CommitRecord { author: self.me, body: body.into(), signature }))
    }

    /// Checks a commit's record: this space, an author who might write in its epoch, a good
    /// signature. Everything else is `Corrupt`.
    pub fn verify_commit(&self, record: &CommitRecord) -> Result<CommitBody> {
        let bad = |why: &str| Error::corrupt(format!("a commit does not verify: {why}"));
        let body: CommitBody = cbor::from_canonical(&record.body)?;
        if body.space != self.id {
            return Err(bad("it belongs to another space"));
        }
        let author = self.chain.in_epoch(record.author, body.epoch).filter(|m| m.role >= Role::Write);
        let author = author.ok_or_else(|| bad("its author might not write in that epoch"))?;
        let key = self.signers.get(&(author.account, author.fingerprint)).ok_or_else(|| bad("its author's identity is missing"))?;
        signed::verify(key, "commit", &record.body, &record.signature).map_err(|_| bad("its signature is wrong"))?;
        Ok(body)
    }
}

fn open_grant(grant: &Grant, space: SpaceId, me: &Unlocked, chain: &Chain, identities: &Identities) -> Result<(KeyEpoch, SpaceKey)> {
    let bad = |why: &str| Error::corrupt(format!("a grant of a space key does not verify: {why}"));
    let body: GrantBody = cbor::from_canonical(&grant.body)?;
    let set = chain.by_hash(&body.members).ok_or_else(|| bad("it names no member set of this space"))?;
    if body.space != space || set.epoch != body.epoch {
        return Err(bad("it belongs to another space or epoch"));
    }
    let sender = member(set, grant.author).filter(|m| m.role == Role::Admin && m.fingerprint == body.sender);
    let sender = sender.ok_or_else(|| bad("it is not from an admin"))?;
    let listed = member(set, me.account()).is_some_and(|m| m.fingerprint == me.fingerprint());
    if !listed || body.recipient != me.account() || body.recipient_fingerprint != me.fingerprint() {
        return Err(bad("it is not for this account"));
    }
    let key = identities.get(sender.account, sender.fingerprint).ok_or_else(|| bad("the admin's identity is missing"))?;
    signed::verify(&key.signing, "grant", &grant.body, &grant.signature).map_err(|_| bad("its signature is wrong"))?;
    Ok((body.epoch, grant::open(&body, &me.kem)?))
}
