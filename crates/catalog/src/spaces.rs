//! Spaces that are shared: who belongs to them, who owns them, and how that changes.
//!
//! The catalog checks every member set like a client does (chain, epoch rule, author), and that nobody
//! in it is left without the key: so that a space never comes into a state that its honest members
//! would refuse. From the moment at which a set is applied, whoever is not in it is refused everything.

use crate::kv::Kv;
use crate::query::get;
use crate::row::{Joined, Place, Space, Stage, added};
use crate::tx::{Step, Stop, Tx};
use crate::{key, query};
use model::account::{Account, Grant, GrantBody, IdentityBody, LabelBody, Member, MemberSet, MemberSetBody, Membership, Role, SpaceLabel};
use model::command::Outcome;
use model::{AccountId, Error, FolderId, Hash, KeyEpoch, NameTag, Result, SpaceId, cbor, signed};
use std::collections::{BTreeMap, BTreeSet};

/// Most members of a space.
const MEMBERS_MAX: usize = 5_000;
/// Longest body of a grant or a label, in bytes.
const BODY_MAX: usize = 128 << 10;

fn denied(why: &str) -> Stop {
    Error::denied(why).into()
}

fn wrong(why: &str) -> Stop {
    Error::invalid(format!("a member set that cannot be: {why}")).into()
}

impl Tx<'_> {
    /// A space in which an account has a role. Says nothing of spaces to those who are no members.
    pub(crate) fn space_of(&self, by: Option<AccountId>, id: SpaceId, least: Role) -> Step<(AccountId, Space)> {
        let by = by.ok_or_else(|| denied("only members of a space may do this"))?;
        let space = self.get::<Space>(&key::space(id))?.filter(|s| s.stage != Stage::Dead);
        let role = space.as_ref().and_then(|s| s.role(by));
        match (space, role) {
            (Some(space), Some(role)) if role >= least => Ok((by, space)),
            (Some(_), Some(_)) => Err(denied("your role in this space does not allow this")),
            _ => Err(denied("you are not a member of this space")),
        }
    }

    /// Homes belong to one account for good.
    fn check_no_home(&self, id: SpaceId, space: &Space) -> Step<()> {
        let owner: Account = self.must(&key::account(space.owner))?;
        if owner.home == id { Err(Error::invalid("a home space has one member for good").into()) } else { Ok(()) }
    }

    /// The signing key of an account, if its identity is still the one that was meant.
    pub(crate) fn signing_key(&self, account: AccountId, fingerprint: Hash) -> Step<model::PublicKey> {
        let account = self.get::<Account>(&key::account(account))?.filter(|a| a.identity.fingerprint() == fingerprint);
        let account = account.ok_or_else(|| denied("an account has another identity than the one that was meant"))?;
        // Checked when the account was made: anything else is damage.
        let body: IdentityBody = cbor::from_canonical(&account.identity.body).map_err(Stop::Failed)?;
        Ok(body.signing)
    }

    pub(crate) fn change_members(
        &mut self,
        by: Option<AccountId>,
        id: SpaceId,
        set: &MemberSet,
        grants: &[Grant],
        label: Option<&SpaceLabel>,
    ) -> Step<Outcome> {
        let (by, mut space) = self.space_of(by, id, Role::Admin)?;
        self.check_no_home(id, &space)?;
        if set.author != by {
            return Err(denied("a member set is proposed by the admin who signed it"));
        }
        let before: MemberSet = self.must(&key::member_set(id, space.seq()))?;
        let prev: MemberSetBody = cbor::from_canonical(&before.body).map_err(Stop::Failed)?;
        let body: MemberSetBody = cbor::from_canonical(&set.body)?;
        let author = prev.members.iter().find(|m| m.account == by && m.role == Role::Admin);
        let author = author.ok_or_else(|| denied("a member set is signed by an admin of the one before"))?.clone();
        if body.seq <= prev.seq {
            return Err(Error::conflict("somebody else changed the members of this space first").into());
        }
        check_follows(id, &before, &prev, &body)?;
        signed::verify(&self.signing_key(by, author.fingerprint)?, "member-set", &set.body, &set.signature)?;
        if !body.members.iter().any(|m| m.account == space.owner && m.role == Role::Admin) {
            return Err(wrong("the owner stays its admin"));
        }
        for member in &body.members {
            let known = prev.members.iter().any(|m| m.account == member.account && m.fingerprint == member.fingerprint);
            if !known {
                self.signing_key(member.account, member.fingerprint)?;
            }
        }
        let granted = self.check_grants(id, &body, Hash::of(&set.body), &author, grants)?;
        let grown = body.epoch > prev.epoch;
        let needs = |m: &&Member| grown || !prev.members.iter().any(|old| old.account == m.account);
        if body.members.iter().filter(needs).any(|m| !granted.contains(&m.account)) {
            return Err(wrong("somebody in it gets no key"));
        }
        match label {
            Some(label) => self.check_label(id, body.epoch, &author, label)?,
            None if grown && space.label.is_some() => return Err(wrong("a new key epoch seals the space's name anew")),
            None => {}
        }
        self.put(&key::member_set(id, body.seq), set)?;
        for (grant, account) in grants.iter().filter_map(|g| Some((g, cbor::from_canonical::<GrantBody>(&g.body).ok()?.recipient))) {
            self.put(&key::grant(id, account, body.epoch), grant)?;
        }
        // Whoever has left stays away, unless this set means to have them back.
        space.left.retain(|gone| body.members.iter().any(|m| m.account == *gone) && !granted.contains(gone));
        let left = space.left.clone();
        let now: Vec<Member> = body.members.iter().filter(|m| !left.contains(&m.account)).cloned().collect();
        let gone: Vec<AccountId> =
            prev.members.iter().map(|m| m.account).filter(|a| !body.members.iter().any(|m| m.account == *a)).collect();
        self.write_joined(id, &space.members, &now)?;
        for account in &gone {
            let prefix = key::grants(id, *account);
            for grant in self.keys(&prefix, &key::end_of(&prefix), usize::MAX)? {
                self.delete(&grant)?;
            }
        }
        (space.members, space.seq, space.epoch) = (now, body.seq, body.epoch);
        if let Some(label) = label {
            space.label = Some(label.clone());
        }
        space.revision += 1;
        let revision = space.revision;
        let detail = format!("space {id}: {} members, key epoch {}, {} removed", space.members.len(), space.epoch, gone.len());
        self.put(&key::space(id), &space)?;
        self.event("members-changed", None, detail)?;
        Ok(Outcome::Committed { revision, time_ms: self.now })
    }

    /// Each grant is this set's, from its author, to somebody in it, and nobody gets two. Who gets one.
    fn check_grants(&self, id: SpaceId, body: &MemberSetBody, set: Hash, author: &Member, grants: &[Grant]) -> Step<BTreeSet<AccountId>> {
        let mut granted = BTreeSet::new();
        if grants.is_empty() {
            return Ok(granted);
        }
        let key = self.signing_key(author.account, author.fingerprint)?;
        for grant in grants {
            if grant.body.len() > BODY_MAX {
                return Err(wrong("a grant is too long"));
            }
            let to: GrantBody = cbor::from_canonical(&grant.body)?;
            let fits = to.space == id && to.epoch == body.epoch && to.members == set && to.sender == author.fingerprint;
            let listed = body.members.iter().any(|m| m.account == to.recipient && m.fingerprint == to.recipient_fingerprint);
            if !fits || !listed || grant.author != author.account || !granted.insert(to.recipient) {
                return Err(denied("a grant is not for a member of this set, or not from its author"));
            }
            signed::verify(&key, "grant", &grant.body, &grant.signature)?;
        }
        Ok(granted)
    }

    pub(crate) fn check_label(&self, id: SpaceId, epoch: KeyEpoch, author: &Member, label: &SpaceLabel) -> Step<()> {
        let body: LabelBody = cbor::from_canonical(&label.body)?;
        if body.space != id || body.epoch != epoch || label.author != author.account || label.body.len() > BODY_MAX {
            return Err(denied("the name of a space is another one's, or not from its admin"));
        }
        let key = self.signing_key(author.account, author.fingerprint)?;
        signed::verify(&key, "space-label", &label.body, &label.signature)?;
        Ok(())
    }

    /// Who lists the space from now on, and since when.
    pub(crate) fn write_joined(&mut self, id: SpaceId, before: &[Member], now: &[Member]) -> Step<()> {
        let new: BTreeMap<AccountId, Role> = now.iter().map(|m| (m.account, m.role)).collect();
        for old in before.iter().filter(|m| !new.contains_key(&m.account)) {
            self.delete(&key::joined(old.account, id))?;
        }
        let old: BTreeMap<AccountId, Role> = before.iter().map(|m| (m.account, m.role)).collect();
        for (account, role) in new.into_iter().filter(|(account, role)| old.get(account) != Some(role)) {
            self.put(&key::joined(account, id), &Joined { role, since_ms: self.now })?;
        }
        Ok(())
    }

    pub(crate) fn leave_space(&mut self, by: Option<AccountId>, id: SpaceId) -> Step<Outcome> {
        let (by, mut space) = self.space_of(by, id, Role::Read)?;
        self.check_no_home(id, &space)?;
        if space.owner == by {
            return Err(Error::invalid("its owner cannot leave a space")
                .hint("hand it on first: shardkeep shares transfer PATH USER")
                .into());
        }
        space.members.retain(|m| m.account != by);
        space.left.push(by);
        space.revision += 1;
        self.put(&key::space(id), &space)?;
        self.delete(&key::joined(by, id))?;
        self.event("member-left", None, format!("space {id}: {} members are left", space.members.len()))?;
        Ok(Outcome::Done)
    }

    pub(crate) fn transfer_space(&mut self, by: Option<AccountId>, id: SpaceId, to: AccountId) -> Step<Outcome> {
        let (by, mut space) = self.space_of(by, id, Role::Admin)?;
        self.check_no_home(id, &space)?;
        if space.owner != by {
            return Err(denied("only its owner hands a space on"));
        }
        if space.role(to) != Some(Role::Admin) || space.stage != Stage::Live {
            return Err(Error::invalid("a space is handed on to one of its admins").hint("shardkeep share PATH USER:admin").into());
        }
        if to == by {
            return Ok(Outcome::Done);
        }
        let heir: Account = self.must(&key::account(to))?;
        let used = used(&self.kv, to).map_err(Stop::Failed)?;
        if heir.quota.is_some_and(|quota| used.saturating_add(space.used) > quota) {
            return Err(Error::insufficient(format!("{} has no room for the {} bytes of this space", heir.name, space.used)).into());
        }
        space.owner = to;
        space.revision += 1;
        self.delete(&key::owned(by, id))?;
        self.put(&key::owned(to, id), &())?;
        self.put(&key::space(id), &space)?;
        self.event("space-transferred", None, format!("space {id} belongs to {} now", heir.name))?;
        Ok(Outcome::Done)
    }

    pub(crate) fn delete_space(&mut self, by: Option<AccountId>, id: SpaceId) -> Step<Outcome> {
        let (by, mut space) = self.space_of(by, id, Role::Admin)?;
        self.check_no_home(id, &space)?;
        if space.owner != by || space.members.len() > 1 {
            return Err(denied("a space is destroyed by its owner, when nobody else is in it"));
        }
        if space.rekey.is_some() || !space.locks.is_empty() {
            return Err(Error::conflict("this space is being given new keys").into());
        }
        self.bury_space(id, &mut space)?;
        self.put(&key::space(id), &space)?;
        self.event("space-destroyed", None, format!("space {id}"))?;
        Ok(Outcome::Done)
    }

    /// Nobody lists the space any more, and its contents go bit by bit. The caller writes its row.
    pub(crate) fn bury_space(&mut self, id: SpaceId, space: &mut Space) -> Step<()> {
        for member in std::mem::take(&mut space.members) {
            self.delete(&key::joined(member.account, id))?;
        }
        self.delete(&key::owned(space.owner, id))?;
        (space.stage, space.rekey) = (Stage::Dead, None);
        space.locks.clear();
        self.forget_changes(id)?;
        self.doom(id, space.root)
    }

    /// Whether all spaces of its owner together fit the quota, when this one has grown.
    pub(crate) fn check_quota(&self, id: SpaceId, space: &Space, before: u64) -> Step<()> {
        if space.used <= before {
            return Ok(());
        }
        let owner: Account = self.must(&key::account(space.owner))?;
        let Some(quota) = owner.quota else { return Ok(()) };
        let mut all = space.used;
        for other in owned(&self.kv, &owner).map_err(Stop::Failed)?.into_iter().filter(|other| *other != id) {
            all = added(all, self.must::<Space>(&key::space(other))?.used)?;
        }
        if all > quota {
            return Err(Error::insufficient(format!("the quota of {quota} bytes on disk is used up ({all} are needed)")).into());
        }
        Ok(())
    }
}

/// A set follows the one before: numbers, hash, suite, order, epoch.
fn check_follows(id: SpaceId, before: &MemberSet, prev: &MemberSetBody, body: &MemberSetBody) -> Step<()> {
    if body.space != id || prev.seq.checked_add(1) != Some(body.seq) || body.prev != Hash::of(&before.body) {
        return Err(wrong("it does not follow the one before"));
    }
    if body.min_suite < prev.min_suite.max(1) {
        return Err(wrong("it lowers the cryptographic suite"));
    }
    if body.members.len() > MEMBERS_MAX {
        return Err(Error::insufficient(format!("a space has at most {MEMBERS_MAX} members")).into());
    }
    if body.members.is_empty() || !body.members.is_sorted_by(|a, b| a.account < b.account) {
        return Err(wrong("it is empty, out of order or names someone twice"));
    }
    let now: BTreeMap<AccountId, &Member> = body.members.iter().map(|m| (m.account, m)).collect();
    let lost = |old: &Member| now.get(&old.account).is_none_or(|new| new.role < old.role || new.fingerprint != old.fingerprint);
    let epoch = prev.epoch.0 + u64::from(prev.members.iter().any(lost));
    if body.epoch != KeyEpoch(epoch) {
        return Err(wrong("the key epoch grows exactly when somebody is removed or demoted"));
    }
    Ok(())
}

/// Spaces of an account's quota, its home first.
fn owned(kv: &dyn Kv, owner: &Account) -> Result<Vec<SpaceId>> {
    let prefix = key::owned_by(owner.id);
    let mut spaces = vec![owner.home];
    kv.scan(&prefix, &key::end_of(&prefix), &mut |key, _| {
        spaces.extend(key::read_space_of(key));
        std::ops::ControlFlow::Continue(())
    })?;
    Ok(spaces)
}

/// Bytes on disk that an account's quota counts.
pub(crate) fn used(kv: &dyn Kv, account: AccountId) -> Result<u64> {
    let Some(owner) = get::<Account>(kv, &key::account(account))? else { return Ok(0) };
    let mut all = 0u64;
    for space in owned(kv, &owner)? {
        all = all.saturating_add(get::<Space>(kv, &key::space(space))?.map_or(0, |s| s.used));
    }
    Ok(all)
}

/// The role of an account in a space.
pub(crate) fn role(kv: &dyn Kv, id: SpaceId, account: AccountId) -> Result<Option<Role>> {
    Ok(get::<Space>(kv, &key::space(id))?.filter(|s| s.stage != Stage::Dead).and_then(|s| s.role(account)))
}

/// Spaces that an account is a member of, its home and those that are not ready left out.
pub(crate) fn memberships(kv: &dyn Kv, account: AccountId) -> Result<Vec<Membership>> {
    let prefix = key::joined_by(account);
    let mut found: Vec<SpaceId> = Vec::new();
    kv.scan(&prefix, &key::end_of(&prefix), &mut |key, _| {
        found.extend(key::read_space_of(key));
        std::ops::ControlFlow::Continue(())
    })?;
    let mut memberships = Vec::with_capacity(found.len());
    for id in found {
        let (joined, space): (Option<Joined>, Option<Space>) = (get(kv, &key::joined(account, id))?, get(kv, &key::space(id))?);
        let live = space.filter(|s| s.stage == Stage::Live);
        if let (Some(Joined { role, since_ms }), Some(space)) = (joined, live) {
            let door = door(kv, &space, account)?;
            memberships.push(Membership { space: id, owner: space.owner, parent: space.parent, role, since_ms, seq: space.seq(), door });
        }
    }
    Ok(memberships)
}

/// Where in its parent the entry lies that leads to a space, for those who are in both.
fn door(kv: &dyn Kv, space: &Space, account: AccountId) -> Result<Option<(FolderId, NameTag)>> {
    let (Some(parent), Some(entry)) = (space.parent, space.door) else { return Ok(None) };
    if role(kv, parent, account)?.is_none() {
        return Ok(None);
    }
    Ok(get::<Place>(kv, &key::place(parent, entry))?.map(|place| (place.folder, place.tag)))
}

/// Since when each member has its role.
pub(crate) fn since(kv: &dyn Kv, id: SpaceId, space: &Space) -> Result<Vec<(AccountId, u64)>> {
    let mut since = Vec::with_capacity(space.members.len());
    for member in &space.members {
        let joined: Option<Joined> = query::get(kv, &key::joined(member.account, id))?;
        since.extend(joined.map(|j| (member.account, j.since_ms)));
    }
    Ok(since)
}
