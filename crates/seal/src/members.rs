//! The chain of signed member sets: who belongs to a space, in which role, in which key epoch.
//!
//! The chain begins at the genesis record, whose hash *is* the space's id, so that a server can
//! invent no history: set 1 is signed by the creator named there, each later one by an admin of the
//! set before.

use crate::identity;
use minicbor::bytes::ByteArray;
use model::account::{Identity, IdentityBody, Member, MemberSet, MemberSetBody, Role};
use model::{AccountId, Error, Hash, KeyEpoch, Result, SpaceId, cbor, signed};
use std::collections::BTreeMap;

/// The suite that this code speaks. A set that demands a higher one is refused, and so is a fall.
pub const SUITE: u16 = 1;

/// Encoded genesis: `[creator fingerprint bstr32, nonce bstr16]`.
pub fn genesis(creator: Hash, nonce: [u8; 16]) -> Vec<u8> {
    cbor::to_vec(&(creator, ByteArray::from(nonce)))
}

/// The identities that a server sent along, each checked, by account and fingerprint.
pub(crate) struct Identities(BTreeMap<(AccountId, Hash), IdentityBody>);

impl Identities {
    pub(crate) fn verify(identities: &[Identity]) -> Result<Self> {
        let mut known = BTreeMap::new();
        for identity in identities {
            let body = identity::verify(identity)?;
            if known.insert((body.account, identity.fingerprint()), body).is_some() {
                return Err(Error::corrupt("an identity comes twice"));
            }
        }
        Ok(Identities(known))
    }

    pub(crate) fn get(&self, account: AccountId, fingerprint: Hash) -> Option<&IdentityBody> {
        self.0.get(&(account, fingerprint))
    }
}

/// A verified chain of member sets, oldest first; never empty.
pub struct Chain {
    sets: Vec<(Hash, MemberSetBody)>,
}

impl Chain {
    /// Verifies a whole chain against the space's id.
    pub(crate) fn verify(space: SpaceId, genesis: &[u8], sets: &[MemberSet], identities: &Identities) -> Result<Self> {
        let bad = |why: &str| Error::corrupt(format!("the member history of a space does not verify: {why}"));
        if Hash::of(genesis).0.get(..16) != Some(space.0.as_slice()) {
            return Err(bad("its genesis record is another space's"));
        }
        let (creator, _nonce): (Hash, ByteArray<16>) = cbor::from_canonical(genesis)?;
        let mut chain: Vec<(Hash, MemberSetBody)> = Vec::with_capacity(sets.len());
        for set in sets {
            let body: MemberSetBody = cbor::from_canonical(&set.body)?;
            if body.space != space {
                return Err(bad("a set belongs to another space"));
            }
            if body.members.is_empty() || !body.members.is_sorted_by(|a, b| a.account < b.account) {
                return Err(bad("a set is empty, out of order or names someone twice"));
            }
            if body.min_suite == 0 || body.min_suite > SUITE {
                return Err(bad("a set demands a cryptographic suite that this version does not have"));
            }
            // Whoever signs stands as an admin in the set before; the creator in the first itself.
            let author = match chain.last() {
                None => {
                    if body.seq != 1 || body.epoch != KeyEpoch(1) || body.prev != Hash([0; 32]) {
                        return Err(bad("it does not begin at its beginning"));
                    }
                    member(&body, set.author).filter(|m| m.fingerprint == creator)
                }
                Some((hash, prev)) => {
                    if body.prev != *hash || Some(body.seq) != prev.seq.checked_add(1) {
                        return Err(bad("a set does not follow the one before"));
                    }
                    if body.min_suite < prev.min_suite {
                        return Err(bad("a set lowers the cryptographic suite"));
                    }
                    let expected = if someone_lost(prev, &body) { prev.epoch.0.checked_add(1) } else { Some(prev.epoch.0) };
                    if Some(body.epoch.0) != expected {
                        return Err(bad("a set has the wrong key epoch"));
                    }
                    member(prev, set.author)
                }
            };
            let author = author.filter(|m| m.role == Role::Admin).ok_or_else(|| bad("a set is not signed by an admin"))?;
            let key = identities.get(author.account, author.fingerprint).ok_or_else(|| bad("an admin's identity is missing"))?;
            signed::verify(&key.signing, "member-set", &set.body, &set.signature).map_err(|_| bad("a signature is wrong"))?;
            chain.push((Hash::of(&set.body), body));
        }
        if chain.is_empty() {
            return Err(bad("it is empty"));
        }
        Ok(Chain { sets: chain })
    }

    /// The newest set with its hash.
    pub fn newest(&self) -> (&Hash, &MemberSetBody) {
        let (hash, set) = &self.sets[self.sets.len() - 1];
        (hash, set)
    }

    /// The set of a number, with its hash.
    pub fn at(&self, seq: u64) -> Option<(&Hash, &MemberSetBody)> {
        let index = usize::try_from(seq.checked_sub(1)?).ok()?;
        self.sets.get(index).map(|(hash, set)| (hash, set))
    }

    /// The set with a hash.
    pub fn by_hash(&self, hash: &Hash) -> Option<&MemberSetBody> {
        self.sets.iter().find(|(h, _)| h == hash).map(|(_, set)| set)
    }

    /// A member as the *last* set of an epoch has it: that set decides what signatures of the
    /// epoch were allowed to do.
    pub fn in_epoch(&self, account: AccountId, epoch: KeyEpoch) -> Option<&Member> {
        let (_, set) = self.sets.iter().rev().find(|(_, set)| set.epoch == epoch)?;
        member(set, account)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &MemberSetBody> {
        self.sets.iter().map(|(_, set)| set)
    }
}

/// Finds a member.
pub fn member(set: &MemberSetBody, account: AccountId) -> Option<&Member> {
    set.members.binary_search_by_key(&account, |m| m.account).ok().and_then(|i| set.members.get(i))
}

/// Whether someone of `prev` is gone, demoted, or there with other keys: then the epoch must grow.
fn someone_lost(prev: &MemberSetBody, next: &MemberSetBody) -> bool {
    prev.members.iter().any(|old| lost(old, &next.members))
}

/// Whether a member is gone from, or less in, a later set. Its members are sorted by account.
pub(crate) fn lost(old: &Member, next: &[Member]) -> bool {
    let new = next.binary_search_by_key(&old.account, |m| m.account).ok().and_then(|i| next.get(i));
    new.is_none_or(|new| new.role < old.role || new.fingerprint != old.fingerprint)
}
