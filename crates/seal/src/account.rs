//! An account's secrets: how a root key opens them, and how a new account is made.
//!
//! ```text
//! password ─OPAQUE─▶ export key ─▶ pw_wrap ─┐
//!                        24 words ─▶ rec_wrap ─┴▶ RK ─▶ account_secrets {Ed25519 seed, KEM seed}, state
//! ```
//! RK is random and never changes; a new password or new words wrap it again.

use crate::gateway_key::GatewayKey;
use crate::keys::{ContentKey, ExportKey, KemKey, RootKey, SealKey, SigningKey, fresh};
use crate::login::Registered;
use crate::recovery::RecoveryWords;
use crate::tree::Name;
use crate::{identity, primitive, space};
use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};
use model::account::{Account, Identity, LoginRecord, NewSpace, SpaceInfo, StateRecord, canonical_name};
use model::{AccountId, ClusterId, Error, Hash, ObjectId, Result, SpaceId, cbor};
use rand_core::CryptoRng;
use zeroize::{Zeroize, Zeroizing};

/// An opened account: what a logged-in client works with. Holds no RK: changing the password or
/// the words takes a fresh login or the old words ([`open_root`], [`RecoveryWords::open_root`]).
pub struct Unlocked {
    cluster: ClusterId,
    account: AccountId,
    name: String,
    identity: Identity,
    fingerprint: Hash,
    pub(crate) signing: SigningKey,
    pub(crate) kem: KemKey,
    state: SealKey,
    local: SealKey,
}

/// Opens RK with a login's export key. `Corrupt` when the account's record is not the one that was
/// registered with this password.
pub fn open_root(export: &ExportKey, account: &Account) -> Result<RootKey> {
    let context = pw_wrap_context(account.id, account.identity.fingerprint(), account.login.n);
    let root = primitive::open(&export.sealing("pw-wrap"), &context, &account.login.pw_wrap)?;
    RootKey::from_slice(&root).ok_or_else(|| Error::corrupt("the password record holds no root key"))
}

/// Opens an account after a login: `pw_wrap`, then RK, then the account's secrets.
pub fn unlock(export: &ExportKey, account: &Account, cluster: ClusterId) -> Result<Unlocked> {
    Unlocked::from_root(&open_root(export, account)?, account, cluster)
}

/// Password record `n`: what OPAQUE registered, and RK sealed under its export key.
pub fn login_record(
    registered: &Registered,
    account: AccountId,
    fingerprint: Hash,
    n: u64,
    root: &RootKey,
    rng: &mut impl CryptoRng,
) -> LoginRecord {
    let wrap = primitive::seal(&registered.export_key.sealing("pw-wrap"), &pw_wrap_context(account, fingerprint, n), root.bytes(), rng);
    LoginRecord { opaque: registered.record.clone().into(), pw_wrap: wrap.into(), n }
}

/// A new account with its home space: everything that `Command::Register` carries, and what the
/// client keeps.
pub struct NewAccount {
    /// For the command. Admin, quota and disabled are the invite's, whatever stands here.
    pub account: Account,
    /// For the command.
    pub home: NewSpace,
    /// To be shown once.
    pub words: RecoveryWords,
    /// The account, opened.
    pub unlocked: Unlocked,
}

/// Makes an account after OPAQUE registration: fresh RK, keys, identity, words, notes and home
/// space. `name` must be canonical (`Invalid` otherwise).
pub fn new_account(registered: &Registered, name: &str, cluster: ClusterId, rng: &mut impl CryptoRng) -> Result<NewAccount> {
    if canonical_name(name)? != name {
        return Err(Error::invalid(format!("'{name}' is not in the canonical form of an account name")));
    }
    let id = AccountId(fresh(rng));
    let root = RootKey::generate(rng);
    let words = RecoveryWords::generate(rng);
    let signing = SigningKey::generate(rng);
    let kem = KemKey::generate(rng);
    let identity = identity::create(id, name, &signing, &kem);
    let fingerprint = identity.fingerprint();
    let secrets = seal_secrets(&root, id, fingerprint, &signing, &kem, rng);
    let login = login_record(registered, id, fingerprint, 1, &root, rng);
    let recovery = words.record(id, fingerprint, 1, &root, rng);
    let unlocked = Unlocked {
        cluster,
        account: id,
        name: name.into(),
        identity: identity.clone(),
        fingerprint,
        signing,
        kem,
        state: root.sealing("state"),
        local: root.sealing("local"),
    };
    let home = space::create(&unlocked, rng)?;
    let notes = Notes { spaces: vec![space::first_seen(&home)], ..Notes::default() };
    let state = unlocked.seal_notes(&notes, 1, rng);
    let account = Account {
        id,
        name: name.into(),
        identity,
        login,
        recovery,
        secrets: secrets.into(),
        state,
        home: home.id(),
        admin: false,
        quota: None,
        disabled: false,
    };
    Ok(NewAccount { account, home, words, unlocked })
}

/// An identity that no server knows, with a space of its own that exists nowhere: for those who read by a
/// link and have no account.
pub fn nobody(cluster: ClusterId, rng: &mut impl CryptoRng) -> Result<(Unlocked, SpaceInfo)> {
    let registered = Registered { record: Vec::new(), export_key: ExportKey::from_bytes(&fresh(rng)) };
    let NewAccount { account, home, unlocked, .. } = new_account(&registered, "nobody", cluster, rng)?;
    let info = SpaceInfo {
        space: home.id(),
        genesis: home.genesis,
        root: home.root,
        member_sets: vec![home.members],
        grants: vec![home.grant],
        identities: vec![account.identity],
        policy: None,
        used: 0,
        owner: Some(account.id),
        parent: None,
        label: None,
        left: Vec::new(),
        since: Vec::new(),
    };
    Ok((unlocked, info))
}

/// What `account_secrets` holds: `[Ed25519 seed bstr32, KEM seed bstr32]`.
#[derive(Encode, Decode)]
struct Secrets {
    #[n(0)]
    signing: ByteArray<32>,
    #[n(1)]
    kem: ByteArray<32>,
}

impl Drop for Secrets {
    fn drop(&mut self) {
        self.signing.zeroize();
        self.kem.zeroize();
    }
}

fn seal_secrets(
    root: &RootKey,
    account: AccountId,
    fingerprint: Hash,
    signing: &SigningKey,
    kem: &KemKey,
    rng: &mut impl CryptoRng,
) -> Vec<u8> {
    let secrets = Secrets { signing: (*signing.seed()).into(), kem: (*kem.bytes()).into() };
    let plain = encode_secret(&secrets, 128);
    primitive::seal(&root.sealing("account"), &secrets_context(account, fingerprint), &plain, rng)
}

impl Unlocked {
    /// Opens the account's secrets with RK, recomputes the public keys, and compares them with the
    /// signed identity: a server that puts another key pair in place is found out (`Corrupt`).
    pub fn from_root(root: &RootKey, account: &Account, cluster: ClusterId) -> Result<Self> {
        let fingerprint = account.identity.fingerprint();
        let plain = primitive::open(&root.sealing("account"), &secrets_context(account.id, fingerprint), &account.secrets)?;
        let secrets: Secrets = cbor::from_canonical(&plain)?;
        let unlocked = Unlocked {
            cluster,
            account: account.id,
            name: account.name.clone(),
            identity: account.identity.clone(),
            fingerprint,
            signing: SigningKey::from_seed(&secrets.signing),
            kem: KemKey::from_bytes(&secrets.kem),
            state: root.sealing("state"),
            local: root.sealing("local"),
        };
        unlocked.check_identity()?;
        Ok(unlocked)
    }

    fn check_identity(&self) -> Result<()> {
        let body = identity::verify(&self.identity)?;
        let own = body.account == self.account
            && body.name == self.name
            && body.signing == self.signing.public()
            && body.kem.as_slice() == self.kem.public().as_slice();
        if own { Ok(()) } else { Err(Error::corrupt("the account's identity does not belong to its private keys")) }
    }

    /// The cluster in which the account lives.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }
    /// The account.
    pub fn account(&self) -> AccountId {
        self.account
    }
    /// Its canonical name.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Its public identity.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }
    /// BLAKE3 of the identity's body.
    pub fn fingerprint(&self) -> Hash {
        self.fingerprint
    }

    /// Seals the notes as number `seq` (one more than the record replaced).
    pub fn seal_notes(&self, notes: &Notes, seq: u64, rng: &mut impl CryptoRng) -> StateRecord {
        let plain = encode_secret(notes, 4096);
        StateRecord { seq, sealed: primitive::seal(&self.state, &state_context(self.account, seq), &plain, rng).into() }
    }

    /// Opens the notes. `seen` is the highest number that this profile remembers: `Corrupt` for an
    /// older record (a rollback). A fresh machine has none to give and cannot know.
    pub fn open_notes(&self, record: &StateRecord, seen: Option<u64>) -> Result<Notes> {
        if seen.is_some_and(|seen| record.seq < seen) {
            return Err(Error::corrupt("the account's notes were rolled back to an older state"));
        }
        let plain = primitive::open(&self.state, &state_context(self.account, record.seq), &record.sealed)?;
        let notes: Notes = cbor::from_canonical(&plain)?;
        notes.check()?;
        Ok(notes)
    }

    /// Seals something for this account's own disk (journal, outbox, cache). `purpose` tells the
    /// kinds apart, `id` the instances; both are needed to open it.
    pub fn seal_local(&self, purpose: &str, id: &[u8], plain: &[u8], rng: &mut impl CryptoRng) -> Vec<u8> {
        primitive::seal(&self.local, &local_context(self.account, purpose, id), plain, rng)
    }

    /// Opens what [`Unlocked::seal_local`] sealed.
    pub fn open_local(&self, purpose: &str, id: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        primitive::open(&self.local, &local_context(self.account, purpose, id), sealed)
    }

    /// Seals the key of an object whose upload is under way, for the journal that makes it resumable.
    pub fn seal_content_key(&self, object: ObjectId, key: &ContentKey, rng: &mut impl CryptoRng) -> Vec<u8> {
        self.seal_local("content-key", &object.0, key.bytes(), rng)
    }

    /// Opens what [`Unlocked::seal_content_key`] sealed.
    pub fn open_content_key(&self, object: ObjectId, sealed: &[u8]) -> Result<ContentKey> {
        let key = self.open_local("content-key", &object.0, sealed)?;
        ContentKey::from_slice(&key).ok_or_else(|| Error::corrupt("the journal holds no content key here"))
    }

    /// Everything above, for the session file. **Secret**: whoever reads these bytes is this
    /// account. They go into the OS keyring or a file of mode 0600 and nowhere else.
    pub fn export_session(&self) -> Zeroizing<Vec<u8>> {
        let session = Session {
            kind: SESSION.into(),
            cluster: self.cluster,
            account: self.account,
            name: self.name.clone(),
            identity: self.identity.clone(),
            signing: (*self.signing.seed()).into(),
            kem: (*self.kem.bytes()).into(),
            state: (*self.state.bytes()).into(),
            local: (*self.local.bytes()).into(),
        };
        encode_secret(&session, 4096)
    }

    /// Reads [`Unlocked::export_session`] and checks that keys and identity still belong together.
    pub fn import_session(bytes: &[u8]) -> Result<Self> {
        let session: Session = cbor::from_canonical(bytes)?;
        if session.kind != SESSION {
            return Err(Error::corrupt("this is no session file of this version"));
        }
        let unlocked = Unlocked {
            cluster: session.cluster,
            account: session.account,
            name: session.name.clone(),
            fingerprint: session.identity.fingerprint(),
            identity: session.identity.clone(),
            signing: SigningKey::from_seed(&session.signing),
            kem: KemKey::from_bytes(&session.kem),
            state: SealKey::from_bytes(&session.state),
            local: SealKey::from_bytes(&session.local),
        };
        unlocked.check_identity()?;
        Ok(unlocked)
    }
}

const SESSION: &str = "shardkeep/v1/session";

#[derive(Encode, Decode)]
struct Session {
    #[n(0)]
    kind: String,
    #[n(1)]
    cluster: ClusterId,
    #[n(2)]
    account: AccountId,
    #[n(3)]
    name: String,
    #[n(4)]
    identity: Identity,
    #[n(5)]
    signing: ByteArray<32>,
    #[n(6)]
    kem: ByteArray<32>,
    #[n(7)]
    state: ByteArray<32>,
    #[n(8)]
    local: ByteArray<32>,
}

impl Drop for Session {
    fn drop(&mut self) {
        for key in [&mut self.signing, &mut self.kem, &mut self.state, &mut self.local] {
            key.zeroize();
        }
    }
}

/// What a client must remember across machines: sealed as the account's `state`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct Notes {
    /// Identities seen first, sorted by account. Another fingerprint is a hard stop.
    #[n(0)]
    pub pins: Vec<Pin>,
    /// Highest member set seen of each space, sorted by space.
    #[n(1)]
    pub spaces: Vec<Seen>,
    /// Links made (a later step), sorted by id.
    #[n(2)]
    pub links: Vec<LinkSecret>,
    /// When these notes were written, milliseconds since 1970: shown on a fresh machine.
    #[n(3)]
    pub time_ms: u64,
    /// How far messages went, sorted by account; `None`: never any.
    #[n(4)]
    pub threads: Option<Vec<ThreadMark>>,
    /// What others share, where this account calls it otherwise or hides it: sorted by space.
    #[n(5)]
    pub shares: Option<Vec<ShareNote>>,
    /// Keys of this account's gateways, sorted by id; `None`: never any.
    #[n(6)]
    pub gateway_keys: Option<Vec<GatewayKey>>,
}

/// How far messages with one other account went, as far as this account has seen.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ThreadMark {
    /// The other account.
    #[n(0)]
    pub account: AccountId,
    /// The last one sent: its number, and the BLAKE3 of its envelope.
    #[n(1)]
    pub sent: (u64, Hash),
    /// The last one received and read: the same.
    #[n(2)]
    pub received: (u64, Hash),
    /// Number in the mailbox of the last one received and read.
    #[n(3)]
    pub number: u64,
}

/// What an account makes of a space that is shared with it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ShareNote {
    /// Space.
    #[n(0)]
    pub space: SpaceId,
    /// Not listed.
    #[n(1)]
    pub hidden: bool,
    /// Another name than its owner's.
    #[n(2)]
    pub name: Option<Name>,
}

impl ShareNote {
    /// Nothing is noted of it.
    pub fn of(space: SpaceId) -> Self {
        ShareNote { space, hidden: false, name: None }
    }
}

/// An account's identity as first met.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Pin {
    /// Account.
    #[n(0)]
    pub account: AccountId,
    /// Its name.
    #[n(1)]
    pub name: String,
    /// Fingerprint of its identity.
    #[n(2)]
    pub fingerprint: Hash,
    /// The safety number was compared.
    #[n(3)]
    pub verified: bool,
    /// When it was pinned, or a changed key accepted: milliseconds since 1970, by this client's clock.
    #[n(4)]
    pub since_ms: Option<u64>,
}

/// The highest member set of a space that was seen.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Seen {
    /// Space.
    #[n(0)]
    pub space: SpaceId,
    /// Its number.
    #[n(1)]
    pub seq: u64,
    /// BLAKE3 of its body.
    #[n(2)]
    pub hash: Hash,
    /// Reserved for the highest folder head.
    #[n(3)]
    pub head: Option<ByteVec>,
}

/// The secret of a link. Wiped when dropped, and not printed.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct LinkSecret {
    /// The link's id.
    #[n(0)]
    pub id: ByteVec,
    /// Its secret.
    #[n(1)]
    secret: ByteVec,
    /// The path that it leads to, for its maker.
    #[n(2)]
    pub path: Option<String>,
    /// It takes a password too.
    #[n(3)]
    pub password: Option<bool>,
}

impl LinkSecret {
    /// Of a link and its secret.
    pub fn new(id: &[u8], secret: &[u8]) -> Self {
        LinkSecret { id: id.to_vec().into(), secret: secret.to_vec().into(), path: None, password: None }
    }

    /// The secret of a link; `None` where it is none of this version.
    pub fn secret(&self) -> Option<crate::link::Secret> {
        <&[u8; 32]>::try_from(self.secret.as_slice()).ok().map(crate::link::Secret::from_bytes)
    }
}

impl std::fmt::Debug for LinkSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinkSecret").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Drop for LinkSecret {
    fn drop(&mut self) {
        self.secret.as_mut_slice().zeroize();
    }
}

/// Encodes into memory reserved beforehand, so that growing leaves no copies of secrets behind
/// (as long as `capacity`, in bytes, suffices).
fn encode_secret<T: Encode<()>>(value: &T, capacity: usize) -> Zeroizing<Vec<u8>> {
    let mut plain = Zeroizing::new(Vec::with_capacity(capacity));
    minicbor::encode(value, &mut *plain).expect("encoding into memory");
    plain
}

impl Notes {
    /// The member set remembered of a space.
    pub fn seen(&self, space: SpaceId) -> Option<&Seen> {
        self.spaces.iter().find(|s| s.space == space)
    }

    /// Remembers a member set; an older one of the same space is replaced.
    pub fn remember(&mut self, seen: Seen) {
        match self.spaces.binary_search_by_key(&seen.space, |s| s.space) {
            Ok(i) => {
                if let Some(old) = self.spaces.get_mut(i).filter(|old| old.seq < seen.seq) {
                    *old = seen;
                }
            }
            Err(i) => self.spaces.insert(i, seen),
        }
    }

    /// How far messages with an account went.
    pub fn thread(&self, account: AccountId) -> ThreadMark {
        let known = self.threads.iter().flatten().find(|t| t.account == account).cloned();
        known.unwrap_or(ThreadMark { account, sent: Default::default(), received: Default::default(), number: 0 })
    }

    /// Sets how far messages with an account went.
    pub fn set_thread(&mut self, mark: ThreadMark) {
        let threads = self.threads.get_or_insert_default();
        threads.retain(|t| t.account != mark.account);
        let at = threads.partition_point(|t| t.account < mark.account);
        threads.insert(at, mark);
    }

    /// The pin of an account, by id.
    pub fn pin(&self, account: AccountId) -> Option<&Pin> {
        self.pins.iter().find(|p| p.account == account)
    }

    /// Pins an identity that was met for the first time, or finds it pinned: `true` when it is new.
    /// `Denied` when another key, or another account, is pinned under its account id or name: somebody
    /// has replaced it, or the account was made anew. Notes stay as they are then.
    pub fn meet(&mut self, account: AccountId, name: &str, fingerprint: Hash, now_ms: u64) -> Result<bool> {
        if let Some(pin) = self.pins.iter().find(|p| p.account == account || p.name == name) {
            return if pin.account == account && pin.name == name && pin.fingerprint == fingerprint {
                Ok(false)
            } else {
                Err(Error::denied(format!("the key of '{name}' is another than the one pinned here before"))
                    .hint(format!("shardkeep verify-user {name}")))
            };
        }
        self.set_pin(Pin { account, name: name.into(), fingerprint, verified: false, since_ms: Some(now_ms) });
        Ok(true)
    }

    /// Sets a pin, in place of any of the same account or name.
    pub fn set_pin(&mut self, pin: Pin) {
        self.pins.retain(|p| p.account != pin.account && p.name != pin.name);
        let at = self.pins.partition_point(|p| p.account < pin.account);
        self.pins.insert(at, pin);
    }

    /// What is noted of a share.
    pub fn share(&self, space: SpaceId) -> Option<&ShareNote> {
        self.shares.iter().flatten().find(|s| s.space == space)
    }

    /// Notes something of a share.
    pub fn set_share(&mut self, note: ShareNote) {
        let mut shares = self.shares.take().unwrap_or_default();
        shares.retain(|s| s.space != note.space);
        if note.hidden || note.name.is_some() {
            let at = shares.partition_point(|s| s.space < note.space);
            shares.insert(at, note);
        }
        self.shares = Some(shares).filter(|s| !s.is_empty());
    }

    fn check(&self) -> Result<()> {
        let sorted = self.pins.is_sorted_by(|a, b| a.account < b.account)
            && self.spaces.is_sorted_by(|a, b| a.space < b.space)
            && self.gateway_keys.iter().flatten().is_sorted_by(|a, b| a.id < b.id)
            && self.links.is_sorted_by(|a, b| a.id < b.id)
            && self.threads.as_ref().is_none_or(|t| !t.is_empty() && t.is_sorted_by(|a, b| a.account < b.account))
            && self.shares.as_ref().is_none_or(|s| s.is_sorted_by(|a, b| a.space < b.space));
        if sorted { Ok(()) } else { Err(Error::corrupt("the account's notes are not in order")) }
    }
}

fn pw_wrap_context(account: AccountId, fingerprint: Hash, n: u64) -> Vec<u8> {
    cbor::to_vec(&("pw-wrap", account, fingerprint, n))
}

fn secrets_context(account: AccountId, fingerprint: Hash) -> Vec<u8> {
    cbor::to_vec(&("account", account, fingerprint))
}

fn state_context(account: AccountId, seq: u64) -> Vec<u8> {
    cbor::to_vec(&("state", account, seq))
}

fn local_context(account: AccountId, purpose: &str, id: &[u8]) -> Vec<u8> {
    cbor::to_vec(&("local", account, purpose, ByteVec::from(id.to_vec())))
}
