//! Sharing: a folder becomes a space of its own, people come into it and leave it, and when somebody is
//! removed everything in it gets new keys.
//!
//! Shares nest: a folder in a shared folder may be shared with more people. Whoever comes into the outer one
//! comes into the inner ones as well, and whoever is removed from it leaves them, unless the inner one was
//! shared with them by name. Which of both it was stands in the inner one's sealed label.

use crate::path::RemotePath;
use crate::rekey::Rekeyed;
use crate::session::Client;
use crate::shared::Share;
use crate::spaces::Space;
use crate::tree::{Entry, EntryKind};
use crate::upload::{OnConflict, Put, PutOptions, Source};
use crate::ways::Ways;
use crate::{Progress, PutReport};
use model::account::{Identity, Member, Membership, Role, canonical_name};
use model::command::{Command, Query, Rekey};
use model::{AccountId, Error, Kind, Result, SpaceId};
use seal::members::member;
use seal::sharing::{Label, create_named};
use seal::tree::{Content, RowVerifier};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How often a member set is made anew because somebody else was faster.
const TRIES: usize = 8;
/// Files rewritten under new content keys at a time.
const REWRITTEN: usize = 256;

/// What came of sharing or of its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shared {
    /// Entries that were sealed under new keys.
    pub rekeyed: Rekeyed,
    /// Spaces below it whose members changed as well.
    pub nested: u64,
}

/// A member of a shared folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareMember {
    /// Account name.
    pub name: String,
    /// Role.
    pub role: Role,
    /// Since when, milliseconds since 1970, as the servers say; `None`: they do not.
    pub since_ms: Option<u64>,
    /// Has left by themselves; the keys are changed at the next change of members.
    pub left: bool,
}

/// A shared folder that the account is in.
#[derive(Debug, Clone)]
pub struct ShareInfo {
    /// The space.
    pub space: SpaceId,
    /// Where it is in this account's tree; `None`: nowhere now.
    pub path: Option<RemotePath>,
    /// Account name of its owner.
    pub owner: String,
    /// What its admins call it.
    pub name: String,
    /// This account owns it.
    pub mine: bool,
    /// This account's role, and since when, milliseconds since 1970.
    pub role: Role,
    /// See `role`.
    pub since_ms: u64,
    /// Not listed under `/Shared`.
    pub hidden: bool,
    /// Everybody in it, by name.
    pub members: Vec<ShareMember>,
    /// Somebody was removed, and what is in it has not got new keys yet.
    pub unfinished: bool,
}

/// What is to change in a member set.
enum Step<'a> {
    /// These come in, or get another role.
    Grant(&'a BTreeMap<AccountId, (Role, Identity)>, bool),
    /// This one goes.
    Remove(AccountId),
    /// Nobody but those who have left.
    Settle,
}

impl Client {
    /// Shares a folder with others, each in a role; whoever is in it already gets this role. The folder becomes
    /// a space of its own when it is none yet: everything below it is sealed anew.
    pub async fn share(&self, path: &RemotePath, with: &[(String, Role)]) -> Result<Shared> {
        let mut roles = BTreeMap::new();
        for (name, role) in with {
            let name = canonical_name(name)?;
            if name == self.unlocked().name() {
                return Err(Error::invalid("you are in your own folders already"));
            }
            roles.insert(name, *role);
        }
        if roles.is_empty() {
            return Err(Error::invalid("nobody is named to share with"));
        }
        let entry = self.shareable(path).await?;
        let names: Vec<String> = roles.keys().cloned().collect();
        let mut people = BTreeMap::new();
        let identities = self.pinned_all(&names).await?;
        let granted: Vec<Role> = roles.values().copied().collect();
        let called = entry.name();
        for (identity, role) in identities.iter().cloned().zip(roles.into_values()) {
            let account = seal::identity::verify(&identity)?.account;
            people.insert(account, (role, identity));
        }
        if let Content::Space(id) = entry.found.entry.content {
            let mut shared = self.change_space(id, &Step::Grant(&people, true)).await?;
            for below in self.spaces_below(id).await? {
                shared.nested += u64::from(self.change_space(below, &Step::Grant(&people, false)).await.map(|_| true)?);
            }
            self.invite(&identities, id, &called, &granted).await;
            return Ok(shared);
        }
        let (id, rekeyed) = self.make_space(path, people.clone()).await?;
        // Shared folders may have been in it before.
        let below = self.spaces_below(id).await?;
        for below in &below {
            self.change_space(*below, &Step::Grant(&people, false)).await?;
        }
        self.invite(&identities, id, &called, &granted).await;
        Ok(Shared { rekeyed, nested: below.len() as u64 })
    }

    /// Takes a folder back from somebody: refused everything at once, and everything below it gets new keys. With
    /// `contents` the contents of files get new keys, too, which means that they are stored anew.
    pub async fn unshare(&self, path: &RemotePath, name: &str, contents: bool, progress: Arc<dyn Progress>) -> Result<(Shared, PutReport)> {
        let name = canonical_name(name)?;
        let space = self.shared_space(path).await?;
        let account = match self.member_named(&space, &name)? {
            Some(account) => account,
            // Begun before, and not ended: it goes on.
            None if space.root_epoch() < space.epoch() || contents => AccountId([0; 16]),
            None => return Err(Error::not_found(format!("{path} is not shared with '{name}'"))),
        };
        if account == self.unlocked().account() {
            return Err(Error::invalid("you cannot take a folder from yourself").hint("shardkeep shares leave PATH"));
        }
        let mut shared = Shared::default();
        // The inner ones first: whoever is out of the outer one cannot come into them any more.
        for below in self.spaces_below(space.id()).await? {
            let inner = self.space_anew(below).await?;
            let named = inner.label.as_ref().is_some_and(|l| l.direct.contains(&account));
            if !named && member(inner.members().newest().1, account).is_some() {
                let done = self.change_space(below, &Step::Remove(account)).await?;
                shared.rekeyed.entries += done.rekeyed.entries;
                shared.nested += 1;
            }
        }
        let done = self.change_space(space.id(), &Step::Remove(account)).await?;
        shared.rekeyed.entries += done.rekeyed.entries;
        shared.rekeyed.older += done.rekeyed.older;
        let report = if contents { self.reencrypt(path, progress).await? } else { PutReport::default() };
        Ok((shared, report))
    }

    /// Leaves a folder that somebody else shares.
    pub async fn leave(&self, path: &RemotePath) -> Result<()> {
        let space = self.shared_space(path).await?.id();
        self.propose(Command::LeaveSpace { space }).await?;
        self.forget_space(space);
        Ok(())
    }

    /// Hands a shared folder on: from now on it is that admin's, and counts against their quota.
    pub async fn transfer_share(&self, path: &RemotePath, name: &str) -> Result<()> {
        let name = canonical_name(name)?;
        let space = self.shared_space(path).await?;
        let to = self.member_named(&space, &name)?;
        let to = to.ok_or_else(|| {
            Error::not_found(format!("{path} is not shared with '{name}'")).hint(format!("shardkeep share {path} {name}:admin"))
        })?;
        self.propose(Command::TransferSpace { space: space.id(), to }).await?;
        self.space_anew(space.id()).await.map(|_| ())
    }

    /// All shared folders that the account is in, by owner and name, and why others could not be opened. As an
    /// admin's client it takes whoever has left out of the signed set, which changes the keys.
    pub async fn shares(&self) -> Result<(Vec<ShareInfo>, Vec<(SpaceId, Error)>)> {
        let account = self.unlocked().account();
        let mut failed = Vec::new();
        for m in self.memberships().await?.iter().filter(|m| m.role == Role::Admin) {
            match self.space_anew(m.space).await {
                Ok(space) if !space.info.left.is_empty() || space.root_epoch() < space.epoch() => {
                    if let Err(e) = self.change_space(m.space, &Step::Settle).await {
                        failed.push((m.space, e));
                    }
                }
                _ => {}
            }
        }
        let all = self.memberships().await?;
        let (shown, _) = self.shared().await?;
        let shown: BTreeMap<SpaceId, Share> = shown.into_iter().map(|s| (s.space.id(), s)).collect();
        let mut infos = Vec::new();
        for m in &all {
            let opened = match self.space(m.space).await {
                Ok(space) if space.seq() >= m.seq && space.info.owner == Some(m.owner) => Ok(space),
                _ => self.space_anew(m.space).await,
            };
            match opened.and_then(|space| self.share_info(m, &space, shown.get(&m.space), account)) {
                Ok(info) => infos.push(info),
                Err(e) => failed.push((m.space, e)),
            }
        }
        let known = infos.iter().filter_map(|i| Some((i.space, i.path.clone()?))).collect();
        for info in infos.iter_mut().filter(|i| i.path.is_none()) {
            info.path = self.path_of(info.space, &all, &known).await.unwrap_or_default();
        }
        infos.sort_by(|a, b| (!a.mine, &a.owner, &a.name).cmp(&(!b.mine, &b.owner, &b.name)));
        Ok((infos, failed))
    }

    fn share_info(&self, m: &Membership, space: &Arc<Space>, shown: Option<&Share>, account: AccountId) -> Result<ShareInfo> {
        let owner = space.owner()?;
        let since: BTreeMap<AccountId, u64> = space.info.since.iter().copied().collect();
        let mut members = Vec::new();
        for listed in &space.members().newest().1.members {
            let left = space.info.left.contains(&listed.account);
            let since_ms = since.get(&listed.account).copied();
            members.push(ShareMember { name: space.name_of(listed.account)?, role: listed.role, since_ms, left });
        }
        members.sort_by(|a, b| a.name.cmp(&b.name));
        let path = shown.map(|s| {
            let of = |text: &str| seal::tree::Name::new(text);
            Ok::<_, Error>(RemotePath::root().join(&of(crate::shared::SHARED)?).join(&of(&s.owner)?).join(&s.name))
        });
        let name = space.label.as_ref().map_or_else(|| m.space.to_string(), |l| String::from_utf8_lossy(l.name.as_bytes()).into_owned());
        Ok(ShareInfo {
            space: m.space,
            path: path.transpose()?,
            owner: space.name_of(owner)?,
            name,
            mine: owner == account,
            role: m.role,
            since_ms: m.since_ms,
            hidden: shown.is_some_and(|s| s.hidden),
            members,
            unfinished: space.root_epoch() < space.epoch(),
        })
    }

    /// Stores the contents of all files below a folder anew, under fresh keys. Older versions keep theirs. A file that
    /// somebody writes meanwhile has fresh keys by that.
    pub async fn reencrypt(&self, path: &RemotePath, progress: Arc<dyn Progress>) -> Result<PutReport> {
        let mut files: Vec<Entry> = Vec::new();
        self.walk(path, true, |entry| {
            if entry.kind == EntryKind::File && !entry.inline {
                files.push(entry.clone());
            }
            Ok(())
        })
        .await?;
        let mut all = PutReport::default();
        for some in files.chunks(REWRITTEN) {
            let puts = some.iter().map(|e| Put { source: Source::Entry(Box::new(e.clone())), remote: e.path.clone() }).collect();
            let options = PutOptions { on_conflict: OnConflict::Refuse, ..PutOptions::default() };
            let mut report = self.put(puts, options, progress.clone()).await?;
            report.failed.retain(|(_, e)| !matches!(e.kind, Kind::Conflict | Kind::NotFound));
            all.files += report.files;
            all.bytes += report.bytes;
            all.degraded |= report.degraded;
            all.failed.extend(report.failed);
        }
        Ok(all)
    }

    /// A folder that can be shared.
    async fn shareable(&self, path: &RemotePath) -> Result<Entry> {
        if path.name().is_none() {
            return Err(Error::invalid("your root cannot be shared: share a folder in it"));
        }
        let entry = self.stat(path).await?;
        match entry.kind {
            EntryKind::Folder if entry.place.is_some() => Err(crate::shared::not_here(path)),
            EntryKind::Folder => Ok(entry),
            _ => Err(Error::invalid(format!("{path}: only folders are shared: put it into one, and share that"))),
        }
    }

    /// The space behind the entry of a shared folder, as it is now.
    async fn shared_space(&self, path: &RemotePath) -> Result<Arc<Space>> {
        match self.shareable(path).await?.found.entry.content {
            Content::Space(id) => self.space_anew(id).await,
            _ => Err(Error::not_found(format!("{path} is not shared"))),
        }
    }

    fn member_named(&self, space: &Space, name: &str) -> Result<Option<AccountId>> {
        for m in &space.members().newest().1.members {
            if space.name_of(m.account)? == name {
                return Ok(Some(m.account));
            }
        }
        Ok(None)
    }

    /// Spaces that were shared from within a space, at any depth, of which this account is an admin: inner ones first.
    async fn spaces_below(&self, top: SpaceId) -> Result<Vec<SpaceId>> {
        let all = self.memberships().await?;
        let (mut found, mut level) = (Vec::new(), BTreeSet::from([top]));
        while !level.is_empty() && found.len() <= all.len() {
            let next: Vec<&Membership> = all.iter().filter(|m| m.parent.is_some_and(|p| level.contains(&p))).collect();
            level = next.iter().map(|m| m.space).collect();
            found.extend(next.into_iter().filter(|m| m.role == Role::Admin).map(|m| m.space));
        }
        found.reverse();
        Ok(found)
    }

    /// A folder becomes a space.
    async fn make_space(&self, path: &RemotePath, people: BTreeMap<AccountId, (Role, Identity)>) -> Result<(SpaceId, Rekeyed)> {
        let (parent, name, entry) = self.resolve(path).await?;
        let entry = entry.ok_or_else(|| Error::not_found(format!("{path}: no such folder")))?;
        let folder = self.folder_of(&entry).await?;
        let me = self.unlocked().account();
        if parent.space.role(me, parent.space.epoch()) != Some(Role::Admin) {
            return Err(Error::denied(format!("{path}: only admins of a shared folder may share what is in it")));
        }
        let label = Label { name, direct: people.keys().copied().collect() };
        let (new, sealed) = create_named(self.unlocked(), &label, &mut self.env().rand())?;
        let id = new.id();
        let rekey = Rekey { source: parent.space.id(), folder: folder.keys.folder, target: id, root: new.root, new: Some((new, sealed)) };
        self.propose(Command::BeginRekey(Box::new(rekey))).await?;
        let done = async {
            let target = self.space_anew(id).await?;
            let done = self.reseal(&folder.space, &target, folder.keys.clone(), target.root.clone()).await?;
            // Whoever is in the folder around it is in it as well.
            let mut all = people;
            for m in &parent.space.members().newest().1.members {
                if m.account != me && !all.contains_key(&m.account) && !parent.space.info.left.contains(&m.account) {
                    let identity = parent.space.info.identities.iter().find(|i| i.fingerprint() == m.fingerprint);
                    let identity = identity.ok_or_else(|| Error::corrupt("a member's identity is missing"))?;
                    all.insert(m.account, (m.role, identity.clone()));
                }
            }
            self.set_members(&target, &Step::Grant(&all, false)).await?;
            let change = self.door_change(&parent, &entry.found, id)?;
            let (_, record) = parent.space.sign_commit(self.unlocked(), [&change.row], &mut self.env().rand())?;
            self.propose(Command::SwapRekey { target: id, door: Some((record, Box::new(change))) }).await?;
            Ok(done)
        };
        let done = done.await;
        self.folders().forget(path);
        Ok((id, self.end_rekey(id, done).await?))
    }

    /// Changes the members of a space, and seals everything in it anew where that takes a new key.
    async fn change_space(&self, id: SpaceId, step: &Step<'_>) -> Result<Shared> {
        let mut tries = 0;
        // New members get the newest key only: first everything has to be under it.
        let mut rekeyed = self.rekey_space(id).await?;
        loop {
            let space = self.space_anew(id).await?;
            // Whoever has left goes first: those who come get keys under which everything is.
            let settle = !space.info.left.is_empty() && matches!(step, Step::Grant(..));
            match self.set_members(&space, if settle { &Step::Settle } else { step }).await {
                Ok(()) if settle => {
                    self.rekey_space(id).await?;
                }
                Ok(()) => break,
                Err(e) if e.kind == Kind::Conflict && tries < TRIES => tries += 1,
                Err(e) => return Err(e),
            }
        }
        let done = self.rekey_space(id).await?;
        rekeyed.entries += done.entries;
        rekeyed.older += done.older;
        rekeyed.left += done.left;
        Ok(Shared { rekeyed, nested: 0 })
    }

    /// Proposes the next member set, unless it is the same.
    async fn set_members(&self, space: &Arc<Space>, step: &Step<'_>) -> Result<()> {
        let now = &space.members().newest().1.members;
        let left = &space.info.left;
        let mut members: BTreeMap<AccountId, Member> =
            now.iter().filter(|m| !left.contains(&m.account)).map(|m| (m.account, m.clone())).collect();
        let mut identities: Vec<Identity> = space.info.identities.clone();
        let mut label = space.label.clone().ok_or_else(|| Error::corrupt("a shared folder has no name"))?;
        match step {
            Step::Grant(people, named) => {
                for (account, (role, identity)) in *people {
                    let new = Member { account: *account, fingerprint: identity.fingerprint(), role: *role };
                    if !named && members.contains_key(account) {
                        continue;
                    }
                    if space.info.owner == Some(*account) && *role < Role::Admin {
                        return Err(Error::invalid("the owner of a folder is its admin"));
                    }
                    members.insert(*account, new);
                    if !identities.iter().any(|i| i.fingerprint() == identity.fingerprint()) {
                        identities.push(identity.clone());
                    }
                    if *named && !label.direct.contains(account) {
                        label.direct.push(*account);
                    }
                }
            }
            Step::Remove(account) => {
                if space.info.owner == Some(*account) {
                    return Err(Error::denied("a folder cannot be taken from its owner"));
                }
                members.remove(account);
                label.direct.retain(|a| a != account);
            }
            Step::Settle => {}
        }
        label.direct.retain(|a| members.contains_key(a));
        label.direct.sort();
        let same = Some(&label) == space.label.as_ref() && left.is_empty() && members.values().eq(now.iter());
        if same {
            return Ok(());
        }
        let members: Vec<Member> = members.into_values().collect();
        let mut rng = self.env().rand();
        let next = space.next_set(self.unlocked(), members, &identities, &label, &mut rng)?;
        let command = Command::ChangeMembers { space: space.id(), members: next.members, grants: next.grants, label: Some(next.label) };
        self.propose(command).await?;
        self.space_anew(space.id()).await.map(|_| ())
    }

    /// Where a space lies in this account's tree: under `/Shared`, or behind a folder of a space of its own.
    async fn path_of(&self, id: SpaceId, all: &[Membership], shown: &BTreeMap<SpaceId, RemotePath>) -> Result<Option<RemotePath>> {
        // Up to a space whose path is known, then down again through the doors.
        let (mut way, mut at) = (Vec::new(), id);
        let mut path = loop {
            if at == self.home().id() {
                break RemotePath::root();
            }
            if let Some(path) = shown.get(&at) {
                break path.clone();
            }
            let Some((m, door)) = all.iter().find(|m| m.space == at).and_then(|m| Some((m, m.door?))) else { return Ok(None) };
            let Some(parent) = m.parent.filter(|_| way.len() < all.len()) else { return Ok(None) };
            way.push((parent, door));
            at = parent;
        };
        for (parent, (folder, tag)) in way.into_iter().rev() {
            let space = self.space(parent).await?;
            let mut ways = Ways::new(&space.at(path));
            self.learn(&space, &mut ways, [folder]).await?;
            let Some(at) = ways.get(folder).filter(|w| !w.removed) else { return Ok(None) };
            let query = Query::Lookup { space: parent, folder, tags: vec![tag], manifests: false };
            let (rows, space) = self.rows(&space, query).await?;
            let verified = RowVerifier::new(&space).verify(&rows)?;
            let Some(row) = verified.rows().next() else { return Ok(None) };
            path = at.path.join(&row.open(&at.keys)?.entry.name);
        }
        Ok(Some(path))
    }
}
