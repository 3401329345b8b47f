//! Invites, accounts, sessions, and the home space that an account is born with.

use crate::key;
use crate::row::{Session, Space};
use crate::tx::{Step, Tx};
use minicbor::bytes::{ByteArray, ByteVec};
use model::account::{
    Account, GrantBody, IdentityBody, Invite, LoginRecord, Member, MemberSetBody, NewSpace, RecoverBody, RecoveryRecord, Role, StateRecord,
    canonical_name,
};
use model::command::Outcome;
use model::{AccountId, Error, Hash, InviteId, KeyEpoch, Result, Signature, cbor, signed};

/// Longest sealed record of an account, in bytes.
const SEALED_MAX: usize = 64 << 10;
/// Longest sealed notes of an account, in bytes: pins of some thousand others.
const NOTES_MAX: usize = 1 << 20;
/// Longest login record, in bytes.
const LOGIN_MAX: usize = 4 << 10;

fn denied(why: &str) -> Error {
    Error::denied(why)
}

fn check_login(login: &LoginRecord) -> Result<()> {
    if login.opaque.len() > LOGIN_MAX || login.pw_wrap.len() > LOGIN_MAX {
        Err(Error::invalid("a login record that is too long"))
    } else {
        Ok(())
    }
}

impl Tx<'_> {
    /// The account that asks, if it may administer the cluster.
    pub(crate) fn admin(&self, by: Option<AccountId>) -> Step<Account> {
        let account = match by {
            Some(by) => self.get::<Account>(&key::account(by))?,
            None => None,
        };
        let admin = account.filter(|a| a.admin && !a.disabled);
        admin.ok_or_else(|| denied("only admins of the cluster may do this").into())
    }

    pub(crate) fn create_invite(&mut self, by: Option<AccountId>, invite: &Invite) -> Step<Outcome> {
        let admin = self.admin(by)?;
        if canonical_name(&invite.name)? != invite.name {
            return Err(Error::invalid("an invite names its account in canonical form").into());
        }
        if self.has(&key::name(&invite.name))? {
            return Err(Error::exists(format!("there is an account '{}' already", invite.name)).into());
        }
        if self.has(&key::invite(invite.id))? {
            return Err(Error::exists("there is such an invite already").into());
        }
        self.put_invite(invite)?;
        self.event("invite-created", None, format!("{} invited {}", admin.name, invite.name))?;
        Ok(Outcome::Done)
    }

    /// Keeps an invite until it is used or some time after it has expired.
    pub(crate) fn put_invite(&mut self, invite: &Invite) -> Step<()> {
        self.put(&key::invite(invite.id), invite)?;
        self.end_at(invite.expires_ms.saturating_add(crate::REQUEST_LIFE_MS), crate::expiry::INVITE, &invite.id.0)
    }

    pub(crate) fn register(&mut self, id: InviteId, secret_hash: Hash, account: &Account, home: &NewSpace) -> Step<Outcome> {
        let invite = self.get::<Invite>(&key::invite(id))?.filter(|i| i.secret_hash == secret_hash && i.expires_ms > self.now);
        let invite = invite.ok_or_else(|| denied("this invite is not valid: it was used, has expired, or is mistyped"))?;
        if account.name != invite.name {
            return Err(denied("this invite is for another account name").into());
        }
        if self.has(&key::name(&account.name))? || self.has(&key::account(account.id))? {
            return Err(Error::exists(format!("there is an account '{}' already", account.name)).into());
        }
        check_login(&account.login)?;
        if account.secrets.len() > SEALED_MAX
            || account.state.sealed.len() > SEALED_MAX
            || account.recovery.rec_wrap.len() > LOGIN_MAX
            || account.identity.body.len() > LOGIN_MAX
        {
            return Err(Error::invalid("an account record that is too long").into());
        }
        // Later ones count on from here.
        if (account.login.n, account.recovery.n, account.state.seq) != (1, 1, 1) {
            return Err(Error::invalid("records are numbered from 1").into());
        }
        let who = account.identity.verify()?;
        if who.account != account.id || who.name != account.name {
            return Err(denied("the identity belongs to another account").into());
        }
        let space = new_space(home, account, &who)?;
        if account.home != home.id() || self.has(&key::space(home.id()))? {
            return Err(Error::invalid("the home space is not this account's").into());
        }
        self.put(&key::space(home.id()), &space)?;
        self.put(&key::member_set(home.id(), 1), &home.members)?;
        self.put(&key::grant(home.id(), account.id, KeyEpoch(1)), &home.grant)?;
        let account = Account { admin: invite.admin, quota: invite.quota, disabled: false, ..account.clone() };
        self.put(&key::account(account.id), &account)?;
        self.put(&key::name(&account.name), &account.id)?;
        self.delete(&key::invite(id))?;
        self.counters.totals.accounts += 1;
        self.event("account-registered", None, format!("{}{}", account.name, if account.admin { " (admin)" } else { "" }))?;
        Ok(Outcome::Done)
    }

    pub(crate) fn replace_login(
        &mut self,
        by: Option<AccountId>,
        id: AccountId,
        expect_n: u64,
        login: &LoginRecord,
        recovery: Option<&RecoveryRecord>,
        proof: Option<&(ByteVec, Signature)>,
    ) -> Step<Outcome> {
        let mut account: Account = self.get(&key::account(id))?.ok_or_else(|| denied("there is no such account"))?;
        match proof {
            Some((body, signature)) => check_recovery(&account, login, body, signature)?,
            None if by == Some(id) => {}
            None => return Err(denied("only the account itself may do this").into()),
        }
        if account.login.n != expect_n {
            return Err(Error::conflict("the password was changed meanwhile").into());
        }
        check_login(login)?;
        let follows = |before: u64, n: u64| before.checked_add(1) == Some(n);
        if !follows(expect_n, login.n) || recovery.is_some_and(|r| !follows(account.recovery.n, r.n)) {
            return Err(Error::invalid("records are numbered one after another").into());
        }
        if recovery.is_some_and(|r| r.rec_wrap.len() > LOGIN_MAX) {
            return Err(Error::invalid("a recovery record that is too long").into());
        }
        account.login = login.clone();
        if let Some(recovery) = recovery {
            account.recovery = recovery.clone();
        }
        self.put(&key::account(id), &account)?;
        // Whoever held the old password is out.
        self.end_sessions(id)?;
        let how = if proof.is_some() { "account-recovered" } else { "password-changed" };
        self.event(how, None, account.name)?;
        Ok(Outcome::Done)
    }

    fn end_sessions(&mut self, id: AccountId) -> Step<()> {
        let prefix = key::sessions_of(id);
        for of in self.keys(&prefix, &key::end_of(&prefix), usize::MAX)? {
            self.delete(&of)?;
            if let Some(hash) = of.get(prefix.len()..).and_then(Hash::from_slice) {
                self.delete(&key::session(&hash))?;
            }
        }
        Ok(())
    }

    /// Shuts an account out, or lets it in again. Nobody shuts out themselves, so an admin is left.
    pub(crate) fn set_disabled(&mut self, by: Option<AccountId>, id: AccountId, disabled: bool) -> Step<Outcome> {
        let admin = self.admin(by)?;
        if admin.id == id {
            return Err(Error::invalid("you cannot disable your own account").hint("ask another admin").into());
        }
        let account: Account = self.get(&key::account(id))?.ok_or_else(|| Error::not_found("there is no such account"))?;
        if account.disabled == disabled {
            return Ok(Outcome::Done);
        }
        if disabled {
            self.end_sessions(id)?;
        }
        let what = if disabled { "account-disabled" } else { "account-enabled" };
        self.event(what, None, format!("{} by {}", account.name, admin.name))?;
        self.put(&key::account(id), &Account { disabled, ..account })?;
        Ok(Outcome::Done)
    }

    /// Another quota. What is stored stays, also above it.
    pub(crate) fn set_quota(&mut self, by: Option<AccountId>, id: AccountId, quota: Option<u64>) -> Step<Outcome> {
        let admin = self.admin(by)?;
        let account: Account = self.get(&key::account(id))?.ok_or_else(|| Error::not_found("there is no such account"))?;
        let to = quota.map_or_else(|| "no limit".into(), |q| format!("{q} bytes"));
        self.event("quota-changed", None, format!("{} to {to} by {}", account.name, admin.name))?;
        self.put(&key::account(id), &Account { quota, ..account })?;
        Ok(Outcome::Done)
    }

    pub(crate) fn put_state(&mut self, by: Option<AccountId>, id: AccountId, state: &StateRecord) -> Step<Outcome> {
        if by != Some(id) {
            return Err(denied("only the account itself may do this").into());
        }
        let mut account: Account = self.get(&key::account(id))?.ok_or_else(|| denied("there is no such account"))?;
        if state.sealed.len() > NOTES_MAX {
            return Err(Error::invalid("the account's notes are too long").into());
        }
        if account.state.seq.checked_add(1) != Some(state.seq) {
            return Err(Error::conflict("the account's notes were changed meanwhile").into());
        }
        account.state = state.clone();
        self.put(&key::account(id), &account)?;
        Ok(Outcome::Done)
    }

    pub(crate) fn open_session(&mut self, token: Hash, id: AccountId, expires_ms: u64) -> Step<Outcome> {
        let account = self.get::<Account>(&key::account(id))?.filter(|a| !a.disabled);
        account.ok_or_else(|| denied("there is no such account"))?;
        if expires_ms <= self.now || self.has(&key::session(&token))? {
            return Err(Error::invalid("a session that cannot be").into());
        }
        self.put(&key::session(&token), &Session { account: id, expires_ms })?;
        self.put(&key::session_of(id, &token), &())?;
        self.end_at(expires_ms, crate::expiry::SESSION, &token.0)?;
        Ok(Outcome::Done)
    }

    pub(crate) fn close_session(&mut self, token: &Hash) -> Step<Outcome> {
        if let Some(session) = self.get::<Session>(&key::session(token))? {
            self.delete(&key::session(token))?;
            self.delete(&key::session_of(session.account, token))?;
        }
        Ok(Outcome::Done)
    }
}

/// The words' key must have signed exactly this replacement.
fn check_recovery(account: &Account, login: &LoginRecord, body: &[u8], signature: &Signature) -> Result<()> {
    signed::verify(&account.recovery.rec_auth, "recover", body, signature)?;
    let proof: RecoverBody = cbor::from_canonical(body)?;
    if proof.account == account.id && proof.login == Hash::of(&cbor::to_vec(login)) && proof.n == login.n {
        Ok(())
    } else {
        Err(denied("the proof is for another replacement"))
    }
}

/// Checks a space whose only member is its creator, and makes its row.
pub(crate) fn new_space(space: &NewSpace, creator: &Account, who: &IdentityBody) -> Result<Space> {
    let wrong = |what: &str| Error::invalid(format!("a new space is not well made: {what}"));
    let fingerprint = creator.identity.fingerprint();
    let (by, _nonce): (Hash, ByteArray<16>) = cbor::from_canonical(&space.genesis)?;
    if by != fingerprint {
        return Err(wrong("its genesis names another creator"));
    }
    let set: MemberSetBody = cbor::from_canonical(&space.members.body)?;
    signed::verify(&who.signing, "member-set", &space.members.body, &space.members.signature)?;
    let only = Member { account: creator.id, fingerprint, role: Role::Admin };
    let first = set.space == space.id() && set.seq == 1 && set.epoch == KeyEpoch(1) && set.prev == Hash([0; 32]);
    if !first || set.members != [only] || space.members.author != creator.id {
        return Err(wrong("its first member set"));
    }
    let grant: GrantBody = cbor::from_canonical(&space.grant.body)?;
    signed::verify(&who.signing, "grant", &space.grant.body, &space.grant.signature)?;
    let to_self = grant.space == space.id()
        && grant.epoch == KeyEpoch(1)
        && grant.members == Hash::of(&space.members.body)
        && grant.sender == fingerprint
        && grant.recipient == creator.id
        && grant.recipient_fingerprint == fingerprint;
    if !to_self || space.grant.author != creator.id || space.grant.body.len() > LOGIN_MAX {
        return Err(wrong("its grant"));
    }
    Ok(Space {
        genesis: space.genesis.clone(),
        root: space.root,
        owner: creator.id,
        members: set.members,
        epoch: set.epoch,
        policy: None,
        used: 0,
        revision: 0,
        coding: Default::default(),
        seq: 1,
        parent: None,
        label: None,
        left: Vec::new(),
        locks: Vec::new(),
        rekey: None,
        stage: Default::default(),
        door: None,
    })
}
