//! The frozen vectors of format v1: made here once (`cargo run -p seal --example make_vectors`),
//! opened by every release, and by `scripts/check_vectors.py` independently.

use crate::support::{CLUSTER, Person, Stream, file, person};
use minicbor::bytes::ByteVec;
use model::account::{GrantBody, MemberSetBody};
use model::cluster::{CapabilityBody, Operation};
use model::tree::Row;
use model::{
    AccountId, ChunkRef, Descriptor, EntryId, FolderId, Hash, KeyEpoch, ManifestId, NodeId, ObjectId, Policy, PublicKey, Signature,
    SpaceId, cbor, signed,
};
use seal::content::{ChunkRecord, Cut, Manifest, open_chunk, seal_chunk};
use seal::keys::{ContentKey, FolderKey, ManifestKey, SealKey, SigningKey, derive};
use seal::tree::{Attributes, Content, Entry, FolderKeys, Name};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Where the frozen files stand.
pub fn directory() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/formats/v1"))
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(v: &Value) -> Vec<u8> {
    let text = v.as_str().expect("a hex string");
    text.as_bytes().chunks(2).map(|p| u8::from_str_radix(std::str::from_utf8(p).unwrap(), 16).unwrap()).collect()
}

fn fixed<const N: usize>(v: &Value) -> [u8; N] {
    unhex(v).try_into().expect("hex of the right length")
}

/// Plaintexts too long to print: BLAKE3 in output mode of "plaintext N".
fn plaintext(n: usize) -> Vec<u8> {
    Stream::new(&format!("plaintext {n}")).bytes(n)
}

/// All vectors: file name and content.
pub fn make() -> Vec<(&'static str, Value)> {
    let anna = person("anna");
    vec![
        ("derive.json", make_derive()),
        ("seal.json", make_seal()),
        ("name_tag.json", make_name_tag()),
        ("entry.json", make_entry()),
        ("manifest.json", make_manifest()),
        ("manifest_parts.json", make_manifest_of_parts()),
        ("chunk.json", make_chunk()),
        ("commit.json", make_commit()),
        ("identity.json", make_identity(&anna)),
        ("account.json", make_account(&anna)),
        ("space.json", make_space(&anna)),
        ("descriptor.json", make_descriptor()),
        ("capability.json", make_capability()),
    ]
}

fn make_derive() -> Value {
    let mut rng = Stream::new("derive vectors");
    let cases = [(32, "entry", 32), (32, "name-tag", 32), (32, "root-id", 16), (64, "pw-wrap", 32), (32, "", 100)];
    let vectors = cases.map(|(key_len, purpose, len)| {
        let key = rng.bytes(key_len);
        let mut out = vec![0; len];
        derive(&key, purpose.as_bytes(), &mut out);
        json!({ "key": hex(key), "purpose": hex(purpose), "out": hex(out) })
    });
    json!({ "what": "Derive(key, purpose, length of out)", "vectors": vectors })
}

fn make_seal() -> Value {
    let mut rng = Stream::new("seal vectors");
    let vectors = [0, 1, 100, 16_383, 16_384, 16_385, 32_768].map(|n| {
        let (key, ctx): ([u8; 32], _) = (rng.bytes(32).try_into().unwrap(), cbor::to_vec(&("vector", n as u64)));
        let sealed = seal::primitive::seal(&SealKey::from_bytes(&key), &ctx, &plaintext(n), &mut rng);
        json!({ "key": hex(key), "ctx": hex(ctx), "length": n, "sealed": hex(sealed) })
    });
    json!({ "what": "Seal(key, ctx, plaintext); plaintext = BLAKE3-XOF(\"plaintext N\") of length N", "vectors": vectors })
}

const SPACE: SpaceId = SpaceId([0x51; 16]);
const FOLDER: FolderId = FolderId([0x52; 16]);
const DK: [u8; 32] = [0x53; 32];

fn folder_keys() -> FolderKeys {
    FolderKeys::new(SPACE, FOLDER, KeyEpoch(3), &FolderKey::from_bytes(&DK))
}

fn make_name_tag() -> Value {
    let names: [&[u8]; 5] = [b"a", "é".as_bytes(), "e\u{301}".as_bytes(), b"\xff raw", "日本.txt".as_bytes()];
    let vectors = names.map(|name| json!({ "name": hex(name), "tag": hex(folder_keys().tag(&Name::from_bytes(name).unwrap()).0) }));
    json!({ "what": "name tags under one DK", "dk": hex(DK), "vectors": vectors })
}

fn make_entry() -> Value {
    let mut rng = Stream::new("entry vectors");
    let more = vec![(ByteVec::from(b"user.k".to_vec()), ByteVec::from(b"v".to_vec()))];
    let entry = |name: &[u8], size, content| Entry {
        name: Name::from_bytes(name).unwrap(),
        attributes: Attributes { mode: 0o640, mtime_ns: -1_500_000_000, more: more.clone() },
        size,
        content,
    };
    let entries = [
        file("inline.txt", b"hello"),
        file("full", &plaintext(4096)),
        entry(b"big", 1 << 33, Content::Manifest { key: ManifestKey::from_bytes(&[1; 32]), hash: Hash([2; 32]), id: ManifestId([3; 16]) }),
        entry(b"dir", 0, Content::Folder { id: FolderId([4; 16]), key: FolderKey::from_bytes(&[5; 32]), epoch: KeyEpoch(2) }),
        entry(b"link \xff", 6, Content::Symlink(b"../x/y".to_vec())),
        entry(b"space", 0, Content::Space(SpaceId([6; 16]))),
    ];
    let vectors: Vec<Value> = (1..)
        .zip(&entries)
        .map(|(n, entry)| {
            let row = folder_keys().seal(EntryId([n; 16]), u64::from(n), entry, &mut rng).unwrap();
            json!({ "row": hex(cbor::to_vec(&row)), "name": hex(entry.name.as_bytes()), "size": entry.size, "mtime_ns": entry.attributes.mtime_ns,
                    "content": hex(content_bytes(&entry.content)) })
        })
        .collect();
    json!({ "what": "rows with sealed entries; content: inline bytes, manifest id, folder id, target or space id", "dk": hex(DK), "vectors": vectors })
}

fn content_bytes(content: &Content) -> Vec<u8> {
    match content {
        Content::Inline(b) | Content::Symlink(b) => b.clone(),
        Content::Manifest { id, .. } => id.0.to_vec(),
        Content::Folder { id, .. } => id.0.to_vec(),
        Content::Space(id) => id.0.to_vec(),
    }
}

fn make_manifest() -> Value {
    let mut rng = Stream::new("manifest vectors");
    let vectors: Vec<Value> = [0u64, 5000, (4 << 20) + 5000].into_iter().map(|size| sealed_manifest(Cut::whole(size), &mut rng)).collect();
    json!({ "what": "sealed manifests of one object", "mk": hex([0x61; 32]), "object": hex([0x62; 16]), "fk": hex([0x63; 32]), "vectors": vectors })
}

fn make_manifest_of_parts() -> Value {
    let mut rng = Stream::new("vectors of manifests of parts");
    let cuts: [&[(u64, u64)]; 3] = [&[(2, 1)], &[(3, 5 << 20), (1, 77)], &[(1, 4 << 20), (1, 3000), (2, 4 << 20)]];
    let vectors = cuts.into_iter().map(|runs| {
        let cut = Cut::of_runs(runs.iter().copied()).unwrap();
        let mut vector = sealed_manifest(cut, &mut rng);
        vector["runs"] = json!(runs);
        vector
    });
    let vectors: Vec<Value> = vectors.collect();
    json!({ "what": "sealed manifests of files of several parts; runs: how many parts of how many bytes", "mk": hex([0x61; 32]),
            "object": hex([0x62; 16]), "fk": hex([0x63; 32]), "vectors": vectors })
}

fn sealed_manifest(cut: Cut, rng: &mut Stream) -> Value {
    let records = (0..cut.chunks())
        .map(|i| {
            let sealed_len = seal::primitive::sealed_len(seal::pad::padme(cut.chunk_len(i))) as u32;
            let header: [u8; 56] = rng.bytes(56).try_into().unwrap();
            ChunkRecord { object: 0, number: i as u32, sealed_len, hash: Hash([i as u8; 32]), header: header.into() }
        })
        .collect();
    let size = cut.size();
    let objects = vec![(ObjectId([0x62; 16]), ContentKey::from_bytes(&[0x63; 32]))];
    let m = Manifest { cut, mtime_ns: 1_700_000_000_000_000_000, objects, level: 0, records };
    let id = ManifestId([size as u8; 16]);
    let sealed = m.seal(id, &ManifestKey::from_bytes(&[0x61; 32]), rng).unwrap();
    json!({ "id": hex(id.0), "size": size, "chunks": m.records.len(), "hash": hex(Hash::of(&sealed).0), "sealed": hex(sealed) })
}

fn make_chunk() -> Value {
    let mut rng = Stream::new("chunk vectors");
    let key = ContentKey::from_bytes(&[0x71; 32]);
    let object = ObjectId([0x72; 16]);
    let vectors: Vec<Value> = (0..)
        .zip([1usize, 256, 5000, 16_384, 20_000])
        .map(|(number, n)| {
            let sealed = seal_chunk(&key, object, number, &plaintext(n), true, &mut rng).unwrap();
            let record = ChunkRecord::of(0, number, &sealed).unwrap();
            json!({ "number": number, "length": n, "record": hex(cbor::to_vec(&record)), "sealed": hex(sealed) })
        })
        .collect();
    json!({ "what": "padded chunks; plaintext as in seal.json", "fk": hex([0x71; 32]), "object": hex(object.0), "vectors": vectors })
}

fn make_commit() -> Value {
    let mut rng = Stream::new("commit vectors");
    let key = SigningKey::from_seed(&[0x81; 32]);
    let rows: Vec<Row> =
        (1..=3u8).map(|n| folder_keys().seal(EntryId([n; 16]), 1, &file(&format!("f{n}"), &[n]), &mut rng).unwrap()).collect();
    let body = model::tree::CommitBody {
        space: SPACE,
        epoch: KeyEpoch(3),
        commit: model::CommitId([0x82; 16]),
        rows: rows.iter().map(Row::hash).collect(),
    };
    let body = cbor::to_vec(&body);
    json!({ "what": "a signed commit of rows", "seed": hex([0x81; 32]), "public": hex(key.public().0), "type": "commit",
            "rows": rows.iter().map(|r| hex(cbor::to_vec(r))).collect::<Vec<_>>(),
            "signature": hex(key.sign("commit", &body).0), "body": hex(body) })
}

fn make_identity(anna: &Person) -> Value {
    let identity = anna.identity();
    let body = identity.verify().unwrap();
    let berta = person("berta");
    let number = seal::identity::safety_number((anna.id(), anna.me().fingerprint()), (berta.id(), berta.me().fingerprint()));
    json!({ "what": "an identity, and a safety number with another", "type": "identity", "account": hex(anna.id().0), "name": "anna",
            "public": hex(body.signing.0), "body": hex(&*identity.body), "signature": hex(identity.signature.0),
            "fingerprint": hex(identity.fingerprint().0), "other_account": hex(berta.id().0),
            "other_fingerprint": hex(berta.me().fingerprint().0), "safety_number": number })
}

fn make_account(anna: &Person) -> Value {
    let a = anna.account();
    let mut rng = Stream::new("person anna");
    let export = rng.bytes(64);
    let login = model::account::LoginRecord { opaque: vec![9].into(), pw_wrap: vec![8].into(), n: 2 };
    let (proof, signature) = anna.new.words.prove(a.id, b"binding", &login);
    json!({ "what": "what opens an account, by export key and by words; n is 1 in both", "export_key": hex(export), "words": &**anna.new.words.words(),
            "account": hex(a.id.0), "fingerprint": hex(a.identity.fingerprint().0), "pw_wrap": hex(&*a.login.pw_wrap),
            "rec_wrap": hex(&*a.recovery.rec_wrap), "rec_auth": hex(a.recovery.rec_auth.0), "secrets": hex(&*a.secrets),
            "identity": hex(&*a.identity.body), "state_seq": a.state.seq, "state": hex(&*a.state.sealed), "home": hex(a.home.0),
            "new_login": hex(cbor::to_vec(&login)), "proof": hex(proof), "proof_signature": hex(signature.0) })
}

fn make_space(anna: &Person) -> Value {
    let home = &anna.new.home;
    json!({ "what": "a new space: genesis, member set, grant to self, root", "space": hex(home.id().0), "genesis": hex(&*home.genesis),
            "public": hex(anna.key().public().0), "members": hex(&*home.members.body), "members_signature": hex(home.members.signature.0),
            "grant": hex(&*home.grant.body), "grant_signature": hex(home.grant.signature.0), "kem_seed": hex(kem_seed(anna)),
            "space_key": hex(anna.space_key()), "root": hex(home.root.0),
            "root_tag_of_a": hex(anna.home().root().unwrap().tag(&Name::new("a").unwrap()).0) })
}

/// The KEM seed of a person, from the session.
fn kem_seed(anna: &Person) -> [u8; 32] {
    let session = anna.me().export_session();
    let mut d = minicbor::Decoder::new(&session);
    d.array().unwrap();
    for _ in 0..6 {
        d.skip().unwrap();
    }
    d.bytes().unwrap().try_into().unwrap()
}

fn make_descriptor() -> Value {
    let shards: Vec<Vec<u8>> = (0..4u8).map(|i| vec![i; 50]).collect();
    let d = Descriptor {
        version: 1,
        chunk: ChunkRef { object: ObjectId([0x91; 16]), number: 7 },
        generation: 0,
        policy: Policy { k: 2, m: 2 },
        sealed_len: 99,
        sealed_hash: Hash([0x92; 32]),
        shard_hashes: shards.iter().map(|s| Hash::of(s)).collect(),
    };
    let partition = d.chunk.partition(16).0;
    json!({ "what": "a shard descriptor of policy 2+2, and the chunk's partition of 2^16", "bytes": hex(d.to_bytes()), "id": hex(d.id().0),
            "object": hex([0x91; 16]), "number": 7, "partition": partition, "shards": shards.iter().map(hex).collect::<Vec<_>>() })
}

fn make_capability() -> Value {
    let key = SigningKey::from_seed(&[0xa1; 32]);
    let body = CapabilityBody {
        audience: NodeId(4),
        account: AccountId([0xa2; 16]),
        operations: vec![Operation::Put, Operation::Get],
        objects: vec![ObjectId([0xa3; 16])],
        byte_limit: 1 << 40,
        holder: SigningKey::from_seed(&[0xa4; 32]).public(),
        not_before_ms: 1_700_000_000_000,
        expires_ms: 1_700_000_600_000,
    };
    let body = cbor::to_vec(&body);
    json!({ "what": "a signed node capability", "type": "capability", "public": hex(key.public().0),
            "signature": hex(key.sign("capability", &body).0), "body": hex(body) })
}

fn frozen(name: &str) -> Value {
    let text = std::fs::read_to_string(directory().join(name)).expect("a frozen vector file");
    serde_json::from_str(&text).expect("JSON")
}

fn each(file: &Value) -> &[Value] {
    file["vectors"].as_array().expect("a list of vectors")
}

fn signature_holds(v: &Value, kind: &str, body: &str, signature: &str) {
    let key = PublicKey(fixed(&v["public"]));
    assert_eq!(signed::verify(&key, kind, &unhex(&v[body]), &Signature(fixed(&v[signature]))), Ok(()));
}

/// Whatever we come to write, these bytes keep opening, and to the same values.
#[test]
fn frozen_files_open() {
    for v in each(&frozen("derive.json")) {
        let mut out = vec![0; unhex(&v["out"]).len()];
        derive(&unhex(&v["key"]), &unhex(&v["purpose"]), &mut out);
        assert_eq!(hex(out), v["out"]);
    }
    for v in each(&frozen("seal.json")) {
        let opened = seal::primitive::open(&SealKey::from_bytes(&fixed(&v["key"])), &unhex(&v["ctx"]), &unhex(&v["sealed"])).unwrap();
        assert_eq!(*opened, plaintext(v["length"].as_u64().unwrap() as usize));
    }
    for v in each(&frozen("name_tag.json")) {
        assert_eq!(hex(folder_keys().tag(&Name::from_bytes(&unhex(&v["name"])).unwrap()).0), v["tag"]);
    }
    for v in [frozen("manifest.json"), frozen("manifest_parts.json")] {
        let mk = ManifestKey::from_bytes(&fixed(&v["mk"]));
        for v in each(&v) {
            let (id, hash, size) = (ManifestId(fixed(&v["id"])), Hash(fixed(&v["hash"])), v["size"].as_u64().unwrap());
            let m = Manifest::open(id, &mk, &hash, size, &unhex(&v["sealed"])).unwrap();
            assert_eq!((m.records.len() as u64, m.objects.len()), (v["chunks"].as_u64().unwrap(), 1));
            if let Some(runs) = v["runs"].as_array() {
                assert_eq!(json!(m.cut.runs().collect::<Vec<_>>()), json!(runs));
            }
        }
    }
    let v = frozen("chunk.json");
    let (fk, object) = (ContentKey::from_bytes(&fixed(&v["fk"])), ObjectId(fixed(&v["object"])));
    for v in each(&v) {
        let record: ChunkRecord = cbor::from_canonical(&unhex(&v["record"])).unwrap();
        let mut out = Vec::new();
        let n = v["length"].as_u64().unwrap() as usize;
        open_chunk(&mut out, &fk, object, &record, n, &unhex(&v["sealed"])).unwrap();
        assert_eq!(out, plaintext(n));
    }
}

/// Rows open through the only public way there is: a commit, signed by a member, of the frozen rows'
/// own space. That space is no real one, so the seal is opened by hand here, as Python does.
#[test]
fn frozen_entries_open() {
    let v = frozen("entry.json");
    let mut key = [0; 32];
    derive(&unhex(&v["dk"]), b"entry", &mut key);
    for v in each(&v) {
        let row: Row = cbor::from_canonical(&unhex(&v["row"])).unwrap();
        let ctx = cbor::to_vec(&("entry", row.space, row.folder, row.entry, row.rev, row.epoch));
        let plain = seal::primitive::open(&SealKey::from_bytes(&key), &ctx, &row.sealed).unwrap();
        assert_eq!(plain.len() % 128, 0);
        assert_eq!(folder_keys().tag(&Name::from_bytes(&unhex(&v["name"])).unwrap()), row.tag);
        let content = unhex(&v["content"]);
        assert!(plain.windows(content.len()).any(|w| w == content));
    }
}

#[test]
fn frozen_signatures_and_accounts_hold() {
    let v = frozen("commit.json");
    signature_holds(&v, "commit", "body", "signature");
    let body: model::tree::CommitBody = cbor::from_canonical(&unhex(&v["body"])).unwrap();
    let rows = v["rows"].as_array().unwrap().iter().map(|r| Hash::of(&unhex(r)));
    assert!(rows.eq(body.rows));
    let v = frozen("identity.json");
    let identity = model::account::Identity { body: unhex(&v["body"]).into(), signature: Signature(fixed(&v["signature"])) };
    assert_eq!(seal::identity::verify(&identity).unwrap().name, v["name"].as_str().unwrap());
    assert_eq!(hex(identity.fingerprint().0), v["fingerprint"]);
    let other = (AccountId(fixed(&v["other_account"])), Hash(fixed(&v["other_fingerprint"])));
    assert_eq!(seal::identity::safety_number((AccountId(fixed(&v["account"])), identity.fingerprint()), other), v["safety_number"]);

    let a = frozen("account.json");
    let s = frozen("space.json");
    let (id, home) = (AccountId(fixed(&a["account"])), SpaceId(fixed(&s["space"])));
    let account = model::account::Account {
        id,
        name: "anna".into(),
        identity: identity.clone(),
        login: model::account::LoginRecord { opaque: vec![].into(), pw_wrap: unhex(&a["pw_wrap"]).into(), n: 1 },
        recovery: model::account::RecoveryRecord {
            rec_wrap: unhex(&a["rec_wrap"]).into(),
            rec_auth: PublicKey(fixed(&a["rec_auth"])),
            n: 1,
        },
        secrets: unhex(&a["secrets"]).into(),
        state: model::account::StateRecord { seq: a["state_seq"].as_u64().unwrap(), sealed: unhex(&a["state"]).into() },
        home,
        admin: false,
        quota: None,
        disabled: false,
    };
    let me = seal::account::unlock(&seal::keys::ExportKey::from_bytes(&fixed(&a["export_key"])), &account, CLUSTER).unwrap();
    let words = seal::recovery::RecoveryWords::parse(a["words"].as_str().unwrap()).unwrap();
    let again = seal::account::Unlocked::from_root(&words.open_root(&account).unwrap(), &account, CLUSTER).unwrap();
    assert_eq!(me.fingerprint(), again.fingerprint());
    let seen = me.open_notes(&account.state, None).unwrap().spaces.remove(0);
    assert_eq!(signed::verify(&words.auth_key(), "recover", &unhex(&a["proof"]), &Signature(fixed(&a["proof_signature"]))), Ok(()));

    let set = |body, signature| model::account::MemberSet {
        author: id,
        body: unhex(&s[body]).into(),
        signature: Signature(fixed(&s[signature])),
    };
    let members = set("members", "members_signature");
    let grant = set("grant", "grant_signature");
    let info = model::account::SpaceInfo {
        space: home,
        genesis: unhex(&s["genesis"]).into(),
        root: FolderId(fixed(&s["root"])),
        member_sets: vec![members],
        grants: vec![model::account::Grant { author: id, body: grant.body, signature: grant.signature }],
        identities: vec![identity],
        policy: None,
        used: 0,
        owner: None,
        parent: None,
        label: None,
        left: vec![],
        since: vec![],
    };
    let space = seal::space::OpenSpace::open(&info, &me, Some(&seen)).unwrap();
    assert_eq!(hex(space.root().unwrap().tag(&Name::new("a").unwrap()).0), s["root_tag_of_a"]);
    let _: (MemberSetBody, GrantBody) =
        (cbor::from_canonical(&unhex(&s["members"])).unwrap(), cbor::from_canonical(&unhex(&s["grant"])).unwrap());

    let v = frozen("descriptor.json");
    let d = Descriptor::from_bytes(&unhex(&v["bytes"])).unwrap();
    assert_eq!(hex(d.id().0), v["id"]);
    assert!((0..).zip(v["shards"].as_array().unwrap()).all(|(i, shard)| d.certifies(i, &unhex(shard))));
    assert_eq!(u64::from(d.chunk.partition(16).0), v["partition"].as_u64().unwrap());
    let v = frozen("capability.json");
    signature_holds(&v, "capability", "body", "signature");
    let _: CapabilityBody = cbor::from_canonical(&unhex(&v["body"])).unwrap();
}

/// What we write today is what was frozen, byte for byte (given the same randomness).
#[test]
fn today_s_bytes_are_the_frozen_ones() {
    for (name, value) in make() {
        assert_eq!(frozen(name), value, "{name}");
    }
}
