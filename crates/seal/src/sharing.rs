//! How the members of a space change: the next set of the chain, a new key where somebody is removed or
//! demoted, grants for whoever needs one, and the space's name sealed for all of them.

use crate::account::Unlocked;
use crate::grant;
use crate::keys::{SpaceKey, fresh};
use crate::members::{Identities, SUITE, lost, member};
use crate::pad::{ENTRY_STEP, check_zeros};
use crate::primitive;
use crate::space::{OpenSpace, make};
use crate::tree::{FolderKeys, Name};
use minicbor::{Decode, Decoder, Encode};
use model::account::{Grant, GrantBody, Identity, LabelBody, Member, MemberSet, MemberSetBody, NewSpace, Role, SpaceInfo, SpaceLabel};
use model::{AccountId, Error, Hash, KeyEpoch, Result, SpaceId, cbor, signed};
use rand_core::CryptoRng;

/// What a space is called, and who was named when it was shared.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Label {
    /// Its name, as in `/Shared/OWNER/NAME`.
    #[n(0)]
    pub name: Name,
    /// Members with whom this very space was shared, sorted. The others came with the space above it.
    #[n(1)]
    pub direct: Vec<AccountId>,
}

/// The next state of a space, for `Command::ChangeMembers`.
pub struct NextSet {
    /// The set.
    pub members: MemberSet,
    /// Grants for whoever needs one.
    pub grants: Vec<Grant>,
    /// The name, sealed in the set's epoch.
    pub label: SpaceLabel,
    /// The key epoch has grown: everything is to be sealed under new keys.
    pub rekey: bool,
}

/// A space that a folder is to become, with its sealed name. Its only member is its creator.
pub fn create_named(me: &Unlocked, label: &Label, rng: &mut impl CryptoRng) -> Result<(NewSpace, SpaceLabel)> {
    let (new, key) = make(me, rng)?;
    let sealed = seal_label(me, new.id(), KeyEpoch(1), &key, label, rng);
    Ok((new, sealed))
}

impl OpenSpace {
    /// The set that follows the newest one: `members` in any order. `identities` are those of all of them,
    /// as pinned by the caller: a key is sealed to none that a member's fingerprint does not name.
    /// `Denied` unless `me` is an admin, `Invalid` when nothing changes or somebody comes twice.
    pub fn next_set(
        &self,
        me: &Unlocked,
        mut members: Vec<Member>,
        identities: &[Identity],
        label: &Label,
        rng: &mut impl CryptoRng,
    ) -> Result<NextSet> {
        let (prev_hash, prev) = self.members().newest();
        let admin = member(prev, me.account()).is_some_and(|m| m.role == Role::Admin && m.fingerprint == me.fingerprint());
        if !admin {
            return Err(Error::denied("only admins of a shared folder may say who belongs to it"));
        }
        members.sort_by_key(|m| m.account);
        if members.is_empty() || !members.is_sorted_by(|a, b| a.account < b.account) {
            return Err(Error::invalid("a space without members, or one of them twice"));
        }
        let known = Identities::verify(identities)?;
        let rekey = prev.members.iter().any(|old| lost(old, &members));
        let epoch = KeyEpoch(prev.epoch.0 + u64::from(rekey));
        let set =
            MemberSetBody { space: self.id(), seq: prev.seq + 1, epoch, prev: *prev_hash, min_suite: SUITE.max(prev.min_suite), members };
        let body = cbor::to_vec(&set);
        let hash = Hash::of(&body);
        let fresh_key;
        let key = if rekey {
            fresh_key = SpaceKey::from_bytes(&fresh(rng));
            &fresh_key
        } else {
            self.key_of(epoch)?
        };
        let mut grants = Vec::new();
        for to in set.members.iter().filter(|m| rekey || member(prev, m.account).is_none()) {
            let identity = known.get(to.account, to.fingerprint).ok_or_else(|| Error::invalid("a member's identity is missing"))?;
            grants.push(seal_grant(me, self.id(), epoch, hash, to, &identity.kem, key, rng)?);
        }
        let label = seal_label(me, self.id(), epoch, key, label, rng);
        let members = MemberSet { author: me.account(), signature: me.signing.sign("member-set", &body), body: body.into() };
        Ok(NextSet { members, grants, label, rekey })
    }

    /// The root folder of the newest epoch: where everything goes when it is sealed under new keys.
    pub fn next_root(&self) -> Result<FolderKeys> {
        let epoch = self.epoch();
        let key = self.key_of(epoch)?;
        let root = key.root_id();
        let dk = key.root_key(&cbor::to_vec(&("root", self.id(), root, epoch)));
        Ok(FolderKeys::new(self.id(), root, epoch, &dk))
    }

    /// Opens the name that admins gave the space. `Corrupt` for one that is not from an admin of its epoch.
    pub fn open_label(&self, label: &SpaceLabel, info: &SpaceInfo) -> Result<Label> {
        let bad = |why: &str| Error::corrupt(format!("the name of a shared folder does not verify: {why}"));
        let body: LabelBody = cbor::from_canonical(&label.body)?;
        let author = self.members().in_epoch(label.author, body.epoch).filter(|m| m.role == Role::Admin);
        let author = author.ok_or_else(|| bad("it is not from an admin"))?;
        if body.space != self.id() || info.space != self.id() {
            return Err(bad("it is another space's"));
        }
        let identity =
            info.identities.iter().find(|i| i.fingerprint() == author.fingerprint).ok_or_else(|| bad("its author is missing"))?;
        let who = identity.verify()?;
        signed::verify(&who.signing, "space-label", &label.body, &label.signature).map_err(|_| bad("its signature is wrong"))?;
        let key = self.key_of(body.epoch)?.sealing("label");
        let plain = primitive::open(&key, &label_context(self.id(), body.epoch), &body.sealed)?;
        let mut d = Decoder::new(&plain);
        let label: Label = d.decode().map_err(|_| bad("it is not decodable"))?;
        let (encoded, padding) = plain.split_at_checked(d.position()).ok_or_else(|| bad("it is cut off"))?;
        if cbor::to_vec(&label) != encoded || !label.direct.is_sorted_by(|a, b| a < b) {
            return Err(bad("it is not in canonical form"));
        }
        check_zeros(padding)?;
        Ok(label)
    }
}

#[allow(clippy::too_many_arguments)] // everything that gives a grant its meaning
fn seal_grant(
    me: &Unlocked,
    space: SpaceId,
    epoch: KeyEpoch,
    members: Hash,
    to: &Member,
    kem: &[u8],
    key: &SpaceKey,
    rng: &mut impl CryptoRng,
) -> Result<Grant> {
    let mut body = GrantBody {
        space,
        epoch,
        members,
        sender: me.fingerprint(),
        recipient: to.account,
        recipient_fingerprint: to.fingerprint,
        enc: Vec::new().into(),
        sealed: Vec::new().into(),
        head: None,
    };
    grant::seal(&mut body, key, kem, rng)?;
    let body = cbor::to_vec(&body);
    Ok(Grant { author: me.account(), signature: me.signing.sign("grant", &body), body: body.into() })
}

fn seal_label(me: &Unlocked, space: SpaceId, epoch: KeyEpoch, key: &SpaceKey, label: &Label, rng: &mut impl CryptoRng) -> SpaceLabel {
    let plain = cbor::to_vec(label);
    let mut sealed = Vec::new();
    let padded = plain.len().next_multiple_of(ENTRY_STEP);
    primitive::seal_to(&mut sealed, &key.sealing("label"), &label_context(space, epoch), &plain, padded, rng);
    let body = cbor::to_vec(&LabelBody { space, epoch, sealed: sealed.into() });
    SpaceLabel { author: me.account(), signature: me.signing.sign("space-label", &body), body: body.into() }
}

fn label_context(space: SpaceId, epoch: KeyEpoch) -> Vec<u8> {
    cbor::to_vec(&("label", space, epoch))
}
