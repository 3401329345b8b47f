//! A reproducible generator, people, and a server's view of their spaces.

use minicbor::bytes::ByteArray;
use model::account::{Account, Grant, GrantBody, Identity, Member, MemberSet, MemberSetBody, NewSpace, Role, SpaceInfo};
use model::command::Rows;
use model::tree::{CommitRecord, EntryRow, Row};
use model::{AccountId, ClusterId, CommitId, Hash, KeyEpoch, Kind, Result, cbor};
use seal::account::{NewAccount, Unlocked, new_account};
use seal::keys::{ExportKey, SigningKey};
use seal::login::Registered;
use seal::space::OpenSpace;
use seal::tree::{Content, Entry, Found, RowVerifier};

pub const CLUSTER: ClusterId = ClusterId(*b"a test's cluster");

/// BLAKE3 in output mode: the same bytes for the same seed, everywhere.
pub struct Stream(blake3::OutputReader);

impl Stream {
    pub fn new(seed: &str) -> Self {
        Stream(blake3::Hasher::new().update(seed.as_bytes()).finalize_xof())
    }
    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        let mut out = vec![0; n];
        self.0.fill(&mut out);
        out
    }
    pub fn below(&mut self, n: usize) -> usize {
        let mut b = [0; 8];
        self.0.fill(&mut b);
        (u64::from_le_bytes(b) % n as u64) as usize
    }
}

impl rand_core::TryRng for Stream {
    type Error = std::convert::Infallible;
    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        let mut b = [0; 4];
        self.0.fill(&mut b);
        Ok(u32::from_le_bytes(b))
    }
    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        let mut b = [0; 8];
        self.0.fill(&mut b);
        Ok(u64::from_le_bytes(b))
    }
    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Self::Error> {
        self.0.fill(dst);
        Ok(())
    }
}
impl rand_core::TryCryptoRng for Stream {}

/// The kind of an expected error.
pub fn kind<T>(result: Result<T>) -> Kind {
    match result {
        Ok(_) => panic!("this should have failed"),
        Err(e) => e.kind,
    }
}

/// Someone with an account, without the cost of OPAQUE.
pub struct Person {
    pub new: NewAccount,
    pub export: ExportKey,
}

pub fn person(name: &str) -> Person {
    let mut rng = Stream::new(&format!("person {name}"));
    let export: [u8; 64] = rng.bytes(64).try_into().unwrap();
    let registered = Registered { record: rng.bytes(192), export_key: ExportKey::from_bytes(&export) };
    Person { new: new_account(&registered, name, CLUSTER, &mut rng).unwrap(), export: ExportKey::from_bytes(&export) }
}

impl Person {
    pub fn me(&self) -> &Unlocked {
        &self.new.unlocked
    }
    pub fn account(&self) -> &Account {
        &self.new.account
    }
    pub fn id(&self) -> AccountId {
        self.new.account.id
    }
    pub fn identity(&self) -> Identity {
        self.new.account.identity.clone()
    }
    pub fn member(&self, role: Role) -> Member {
        Member { account: self.id(), fingerprint: self.me().fingerprint(), role }
    }
    /// The signing key, as a person who cheats would use it.
    pub fn key(&self) -> SigningKey {
        let session = self.me().export_session();
        let mut d = minicbor::Decoder::new(&session);
        d.array().unwrap();
        for _ in 0..5 {
            d.skip().unwrap();
        }
        let seed: ByteArray<32> = d.decode().unwrap();
        SigningKey::from_seed(&seed)
    }
    /// The key of the home space, by drawing what [`person`] and `new_account` drew once more.
    pub fn space_key(&self) -> [u8; 32] {
        let mut rng = Stream::new(&format!("person {}", self.new.account.name));
        // Export key and record; account id; RK, words, signing and KEM seeds; three salts; nonce.
        rng.bytes(64 + 192 + 16 + 4 * 32 + 3 * 24 + 16);
        rng.bytes(32).try_into().unwrap()
    }
    pub fn home(&self) -> OpenSpace {
        OpenSpace::open(&info(&self.new.home, &[self]), self.me(), None).unwrap()
    }
    /// Signs a member set.
    pub fn sign_set(&self, body: &MemberSetBody) -> MemberSet {
        let body = cbor::to_vec(body);
        MemberSet { author: self.id(), signature: self.key().sign("member-set", &body), body: body.into() }
    }
    pub fn sign_grant(&self, body: &GrantBody) -> Grant {
        let body = cbor::to_vec(body);
        Grant { author: self.id(), signature: self.key().sign("grant", &body), body: body.into() }
    }
    /// Signs a commit without any of the checks that an honest client makes.
    pub fn sign_rows(&self, space: model::SpaceId, epoch: u64, rows: &[Row]) -> (CommitId, CommitRecord) {
        let mut id = [0; 16];
        id.copy_from_slice(&Hash::of(&cbor::to_vec(&rows.iter().map(Row::hash).collect::<Vec<_>>())).0[..16]);
        let body =
            model::tree::CommitBody { space, epoch: KeyEpoch(epoch), commit: CommitId(id), rows: rows.iter().map(Row::hash).collect() };
        let body = cbor::to_vec(&body);
        (CommitId(id), CommitRecord { author: self.id(), signature: self.key().sign("commit", &body), body: body.into() })
    }
}

/// A new space as a server returns it.
pub fn info(new: &NewSpace, members: &[&Person]) -> SpaceInfo {
    SpaceInfo {
        space: new.id(),
        genesis: new.genesis.clone(),
        root: new.root,
        member_sets: vec![new.members.clone()],
        grants: vec![new.grant.clone()],
        identities: members.iter().map(|p| p.identity()).collect(),
        policy: None,
        used: 0,
        owner: None,
        parent: None,
        label: None,
        left: vec![],
        since: vec![],
    }
}

/// Rows with their commit, as a server returns them.
pub fn answer(rows: &[Row], (commit, record): (CommitId, CommitRecord)) -> Rows {
    let rows = rows.iter().map(|row| EntryRow { row: row.clone(), commit, child: None, manifest: None, time_ms: 7 }).collect();
    Rows { rows, commits: vec![(commit, record)], ..Rows::default() }
}

/// What the rows' own author would open, with the child and manifest that the entries name.
pub fn file(name: &str, bytes: &[u8]) -> Entry {
    Entry {
        name: seal::tree::Name::new(name).unwrap(),
        attributes: seal::tree::Attributes { mode: 0o644, mtime_ns: 1_700_000_000_123_456_789, more: vec![] },
        size: bytes.len() as u64,
        content: Content::Inline(bytes.to_vec()),
    }
}

pub fn inline(found: &Found) -> &[u8] {
    match &found.entry.content {
        Content::Inline(bytes) => bytes,
        _ => panic!("not inline"),
    }
}

/// Looks one name up in one answer.
pub fn look(space: &OpenSpace, rows: &Rows, keys: &seal::tree::FolderKeys, name: &str) -> Result<Option<Found>> {
    let name = seal::tree::Name::new(name)?;
    Ok(RowVerifier::new(space).verify(rows)?.lookup(&[(keys, &name)])?.remove(0))
}

/// Bytes of many lengths, valid bytes with one bit changed, cut and extended: `decode` must refuse
/// each (or, for plain garbage, at least not panic).
pub fn torment(seed: &str, valid: &[u8], mut decode: impl FnMut(&[u8]) -> bool) {
    assert!(decode(valid), "the valid bytes must be accepted");
    let mut rng = Stream::new(seed);
    for len in (0..200).chain([255, 256, 1000, 5000]) {
        let garbage = rng.bytes(len);
        assert!(!decode(&garbage), "garbage of {len} bytes was accepted");
    }
    let step = (valid.len() / 400).max(1);
    for at in (0..valid.len()).step_by(step).chain(0..valid.len().min(64)) {
        let mut changed = valid.to_vec();
        changed[at] ^= 1 << rng.below(8);
        assert!(!decode(&changed), "a flipped bit in byte {at} was accepted");
        assert!(!decode(&valid[..at]), "a cut at {at} was accepted");
    }
    let mut longer = valid.to_vec();
    longer.push(0);
    assert!(!decode(&longer), "an extension was accepted");
}
