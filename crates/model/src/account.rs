//! Accounts, spaces and invites as servers keep them. Everything secret in them is ciphertext.

use crate::{AccountId, FolderId, Hash, InviteId, KeyEpoch, PublicKey, Signature, SpaceId};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

/// Longest account name, in bytes.
pub const NAME_MAX: usize = 64;

/// The canonical form of an account name: 1–64 of `a-z 0-9 . _ -`, beginning with a letter or digit.
pub fn canonical_name(name: &str) -> crate::Result<String> {
    let name = name.trim().to_ascii_lowercase();
    let good = !name.is_empty()
        && name.len() <= NAME_MAX
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
        && name.as_bytes()[0].is_ascii_alphanumeric();
    if good {
        Ok(name)
    } else {
        Err(crate::Error::invalid(
            "an account name has 1 to 64 characters of a-z, 0-9, '.', '_' and '-', and begins with a letter or digit",
        ))
    }
}

/// A public identity: signing key and KEM key in one bundle, signed with the signing key as type
/// `"identity"`. `fingerprint = BLAKE3(body)`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Identity {
    /// Encoded [`IdentityBody`], as received.
    #[n(0)]
    pub body: ByteVec,
    /// Its signature.
    #[n(1)]
    pub signature: Signature,
}

/// What an [`Identity`] signs.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct IdentityBody {
    /// Account.
    #[n(0)]
    pub account: AccountId,
    /// Canonical account name.
    #[n(1)]
    pub name: String,
    /// Ed25519 public key.
    #[n(2)]
    pub signing: PublicKey,
    /// HPKE KEM 0x647a (MLKEM768-X25519) public key, 1,216 bytes.
    #[n(3)]
    pub kem: ByteVec,
}

impl Identity {
    /// BLAKE3 of the body.
    pub fn fingerprint(&self) -> Hash {
        Hash::of(&self.body)
    }

    /// Decodes the body and checks its signature against the key inside.
    pub fn verify(&self) -> crate::Result<IdentityBody> {
        let body: IdentityBody = crate::cbor::from_canonical(&self.body)?;
        crate::signed::verify(&body.signing, "identity", &self.body, &self.signature)?;
        Ok(body)
    }
}

/// What a password login needs on the server: replaced as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct LoginRecord {
    /// OPAQUE registration record (RFC 9807 `RegistrationRecord`).
    #[n(0)]
    pub opaque: ByteVec,
    /// `RK` sealed under the password's export key.
    #[n(1)]
    pub pw_wrap: ByteVec,
    /// Number of this record, from 1; grows with each change.
    #[n(2)]
    pub n: u64,
}

/// What recovery by words needs on the server: replaced as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct RecoveryRecord {
    /// `RK` sealed under the recovery words.
    #[n(0)]
    pub rec_wrap: ByteVec,
    /// Ed25519 key from the words: signs the replacement of the login record.
    #[n(1)]
    pub rec_auth: PublicKey,
    /// Number of this record, from 1.
    #[n(2)]
    pub n: u64,
}

/// What recovery by words signs (type `"recover"`, with `rec_auth`) to replace the login record.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct RecoverBody {
    /// Account.
    #[n(0)]
    pub account: AccountId,
    /// The connection's TLS exporter (channel binding): the proof is good on it alone.
    #[n(1)]
    pub binding: ByteVec,
    /// BLAKE3 of the encoded new [`LoginRecord`].
    #[n(2)]
    pub login: Hash,
    /// Number of the new record.
    #[n(3)]
    pub n: u64,
}

/// The client's sealed notes (pins, member sets seen, link secrets) with their number.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct StateRecord {
    /// Grows by one with each change.
    #[n(0)]
    pub seq: u64,
    /// Opaque.
    #[n(1)]
    pub sealed: ByteVec,
}

/// An account row.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Account {
    /// Id.
    #[n(0)]
    pub id: AccountId,
    /// Canonical name; never changes (it is OPAQUE's credential identifier).
    #[n(1)]
    pub name: String,
    /// Public identity.
    #[n(2)]
    pub identity: Identity,
    /// Password login.
    #[n(3)]
    pub login: LoginRecord,
    /// Recovery by words.
    #[n(4)]
    pub recovery: RecoveryRecord,
    /// Private keys, sealed under `RK`.
    #[n(5)]
    pub secrets: ByteVec,
    /// The client's sealed notes.
    #[n(6)]
    pub state: StateRecord,
    /// The account's home space.
    #[n(7)]
    pub home: SpaceId,
    /// May administer the cluster (never read data).
    #[n(8)]
    pub admin: bool,
    /// Bytes on disk that the account's spaces may use; `None`: no limit.
    #[n(9)]
    pub quota: Option<u64>,
    /// May not log in.
    #[n(10)]
    pub disabled: bool,
}

/// What a member may do in a space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Role {
    /// Holds keys.
    #[n(0)]
    Read,
    /// And signs writes.
    #[n(1)]
    Write,
    /// And changes the member set.
    #[n(2)]
    Admin,
}

/// One member of a space.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Member {
    /// Account.
    #[n(0)]
    pub account: AccountId,
    /// Fingerprint of the identity that was meant.
    #[n(1)]
    pub fingerprint: Hash,
    /// Role.
    #[n(2)]
    pub role: Role,
}

/// Who belongs to a space, as signed by an admin of the previous set (type `"member-set"`).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct MemberSetBody {
    /// Space.
    #[n(0)]
    pub space: SpaceId,
    /// Number, from 1; grows by one.
    #[n(1)]
    pub seq: u64,
    /// Key epoch; grows by one exactly when someone is removed or demoted.
    #[n(2)]
    pub epoch: KeyEpoch,
    /// BLAKE3 of the previous set's body; zeros in the first.
    #[n(3)]
    pub prev: Hash,
    /// Floor of the cryptographic suite: 1.
    #[n(4)]
    pub min_suite: u16,
    /// Sorted by account.
    #[n(5)]
    pub members: Vec<Member>,
}

/// A signed member set.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct MemberSet {
    /// Encoded [`MemberSetBody`], as received.
    #[n(0)]
    pub body: ByteVec,
    /// Who signed.
    #[n(1)]
    pub author: AccountId,
    /// Signature.
    #[n(2)]
    pub signature: Signature,
}

/// The space key of an epoch for one member: HPKE, signed by an admin (type `"grant"`).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Grant {
    /// Encoded [`GrantBody`].
    #[n(0)]
    pub body: ByteVec,
    /// Who signed.
    #[n(1)]
    pub author: AccountId,
    /// Signature.
    #[n(2)]
    pub signature: Signature,
}

/// What a [`Grant`] signs.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct GrantBody {
    /// Space.
    #[n(0)]
    pub space: SpaceId,
    /// Key epoch of the key inside.
    #[n(1)]
    pub epoch: KeyEpoch,
    /// BLAKE3 of the member set's body.
    #[n(2)]
    pub members: Hash,
    /// Fingerprint of the sender.
    #[n(3)]
    pub sender: Hash,
    /// Recipient.
    #[n(4)]
    pub recipient: AccountId,
    /// Fingerprint of the recipient.
    #[n(5)]
    pub recipient_fingerprint: Hash,
    /// HPKE encapsulated key.
    #[n(6)]
    pub enc: ByteVec,
    /// HPKE ciphertext of the space key.
    #[n(7)]
    pub sealed: ByteVec,
    /// Reserved for the folder head that a new member starts from.
    #[n(8)]
    pub head: Option<ByteVec>,
}

/// A new space: `id = BLAKE3(genesis)[..16]`, genesis = CBOR [creator fingerprint, nonce].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct NewSpace {
    /// Encoded `[creator fingerprint bstr32, nonce bstr16]`.
    #[n(0)]
    pub genesis: ByteVec,
    /// Root folder: derived by the client; random to servers.
    #[n(1)]
    pub root: FolderId,
    /// First member set (seq 1, epoch 1, the creator as admin).
    #[n(2)]
    pub members: MemberSet,
    /// The creator's grant to itself.
    #[n(3)]
    pub grant: Grant,
}

impl NewSpace {
    /// The space's id: the first 16 bytes of BLAKE3(genesis).
    pub fn id(&self) -> SpaceId {
        let mut id = [0u8; 16];
        id.copy_from_slice(&Hash::of(&self.genesis).0[..16]);
        SpaceId(id)
    }
}

/// What a member gets to open a space.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct SpaceInfo {
    /// Space.
    #[n(0)]
    pub space: SpaceId,
    /// Genesis record.
    #[n(1)]
    pub genesis: ByteVec,
    /// Root folder.
    #[n(2)]
    pub root: FolderId,
    /// Member sets, oldest first.
    #[n(3)]
    pub member_sets: Vec<MemberSet>,
    /// Grants to the asker, one an epoch.
    #[n(4)]
    pub grants: Vec<Grant>,
    /// Identities of all members named.
    #[n(5)]
    pub identities: Vec<Identity>,
    /// Policy of new files; `None`: the cluster's default.
    #[n(6)]
    pub policy: Option<crate::Policy>,
    /// Bytes on disk used by the space (all shards).
    #[n(7)]
    pub used: u64,
    /// Whose quota it counts against, as the servers say; `None` from a server that does not know yet.
    #[n(8)]
    pub owner: Option<AccountId>,
    /// The space in which it was a folder when it was shared first.
    #[n(9)]
    pub parent: Option<SpaceId>,
    /// What it is called, sealed and signed by an admin.
    #[n(10)]
    pub label: Option<SpaceLabel>,
    /// Members that have left by themselves, whom the newest member set still lists.
    #[n(11)]
    #[cbor(default)]
    pub left: Vec<AccountId>,
    /// Since when each member has its role, milliseconds since 1970, as the servers say.
    #[n(12)]
    #[cbor(default)]
    pub since: Vec<(AccountId, u64)>,
}

/// What a space is called, as its admins say: sealed under the space key, signed as type `"space-label"`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct SpaceLabel {
    /// Encoded [`LabelBody`], as received.
    #[n(0)]
    pub body: ByteVec,
    /// Who signed.
    #[n(1)]
    pub author: AccountId,
    /// Signature.
    #[n(2)]
    pub signature: Signature,
}

/// What a [`SpaceLabel`] signs.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct LabelBody {
    /// Space.
    #[n(0)]
    pub space: SpaceId,
    /// Key epoch in which it is sealed.
    #[n(1)]
    pub epoch: KeyEpoch,
    /// Sealed name and members that were named one by one (opaque to servers).
    #[n(2)]
    pub sealed: ByteVec,
}

/// A space that an account is a member of, as the servers say.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Membership {
    /// Space.
    #[n(0)]
    pub space: SpaceId,
    /// Its owner.
    #[n(1)]
    pub owner: AccountId,
    /// The space in which it was a folder when it was shared first.
    #[n(2)]
    pub parent: Option<SpaceId>,
    /// The account's role.
    #[n(3)]
    pub role: Role,
    /// Since when, milliseconds since 1970.
    #[n(4)]
    pub since_ms: u64,
    /// Number of the newest member set.
    #[n(5)]
    pub seq: u64,
    /// Where in the parent the entry lies that leads to it, for whoever is in both.
    #[n(6)]
    pub door: Option<(FolderId, crate::NameTag)>,
}

/// An invite, as kept. The secret itself is known to its holder only.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Invite {
    /// Id.
    #[n(0)]
    pub id: InviteId,
    /// BLAKE3 of the one-time secret.
    #[n(1)]
    pub secret_hash: Hash,
    /// Account name that it is for.
    #[n(2)]
    pub name: String,
    /// Makes an admin.
    #[n(3)]
    pub admin: bool,
    /// Quota of the new account, in bytes on disk.
    #[n(4)]
    pub quota: Option<u64>,
    /// Catalog time after which it is refused, milliseconds since 1970.
    #[n(5)]
    pub expires_ms: u64,
}
