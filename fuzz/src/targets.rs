//! Every decoder, one line each: its name, what it is fed, and what it must do.

use crate::samples;
use minicbor::{Decode, Encode};
use model::account::{Account, GrantBody, IdentityBody, Invite, MemberSetBody, SpaceInfo};
use model::cluster::{CapabilityBody, ClusterView, Event, FeedItem, Token, UploadGrantBody};
use model::command::{Answer, Applied, Genesis, Proposal, Query, Rows};
use model::link::Link;
use model::message::Envelope;
use model::tree::{Change, CommitBody, EntryRow, ManifestRow, Row};
use model::{Descriptor, Error, Layout, Policy, ShardRef, cbor};
use std::str::FromStr;
use wire::{Rpc, coordinator, node};

/// A decoder.
pub struct Target {
    /// Names it on the command line.
    pub name: &'static str,
    /// Valid inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Runs it on any bytes; panics where it misbehaves.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "descriptor", seeds: samples::descriptors, run: descriptor },
    Target { name: "shard-key", seeds: || vec![vec![1; ShardRef::KEY_LEN]], run: shard_key },
    Target { name: "layout", seeds: samples::layouts, run: layout },
    Target { name: "policy-text", seeds: || vec![b"2+2".to_vec(), b"30+2".to_vec()], run: policy_text },
    Target { name: "account-name", seeds: || vec![b"alice.1_x-y".to_vec()], run: account_name },
    Target { name: "erasure", seeds: samples::shard_sets, run: erasure },
    Target { name: "seal-open", seeds: samples::sealed, run: seal_open },
    Target { name: "recovery-words", seeds: samples::recovery_words, run: recovery_words },
    Target { name: "session", seeds: Vec::new, run: |bytes| drop(seal::account::Unlocked::import_session(bytes)) },
    record::<Error>("error", samples::errors),
    record::<Account>("account", samples::accounts),
    record::<IdentityBody>("identity", samples::identities),
    record::<MemberSetBody>("member-set", samples::member_sets),
    record::<GrantBody>("grant", samples::grants),
    record::<SpaceInfo>("space", samples::spaces),
    record::<Invite>("invite", samples::invites),
    record::<Token>("token", samples::tokens),
    record::<CapabilityBody>("capability", samples::capabilities),
    record::<UploadGrantBody>("upload-grant", samples::upload_grants),
    record::<ClusterView>("cluster", samples::clusters),
    record::<Event>("event", samples::events),
    record::<FeedItem>("feed", samples::feed),
    record::<Row>("row", samples::rows),
    record::<EntryRow>("entry-row", samples::entry_rows),
    record::<CommitBody>("commit", samples::commits),
    record::<ManifestRow>("manifest-row", samples::manifests),
    record::<Change>("change", samples::changes),
    record::<Genesis>("genesis", samples::geneses),
    record::<Proposal>("proposal", samples::proposals),
    record::<Applied>("applied", samples::applied),
    record::<Query>("query", samples::queries),
    record::<Answer>("answer", samples::answers),
    record::<Rows>("rows", samples::row_sets),
    record::<Envelope>("message-envelope", samples::envelopes),
    record::<seal::message::Said>("message-said", samples::said),
    record::<Link>("link", samples::links),
    Target { name: "link-text", seeds: samples::link_texts, run: link_text },
    exchange::<coordinator::Hello>("rpc-hello"),
    exchange::<coordinator::LoginStart>("rpc-login-start"),
    exchange::<coordinator::LoginFinish>("rpc-login-finish"),
    exchange::<coordinator::RegisterStart>("rpc-register-start"),
    exchange::<coordinator::RegisterFinish>("rpc-register-finish"),
    exchange::<coordinator::PasswordFinish>("rpc-password-finish"),
    exchange::<coordinator::RecoverFinish>("rpc-recover-finish"),
    exchange::<coordinator::Ask>("rpc-ask"),
    exchange::<coordinator::Propose>("rpc-propose"),
    exchange::<coordinator::Upload>("rpc-upload"),
    exchange::<wire::link::OpenLink>("rpc-open-link"),
    exchange::<coordinator::Status>("rpc-status"),
    exchange::<coordinator::Join>("rpc-join"),
    exchange::<coordinator::Heartbeat>("rpc-heartbeat"),
    exchange::<node::Prove>("rpc-prove"),
    exchange::<node::PutShard>("rpc-put-shard"),
    exchange::<node::GetShard>("rpc-get-shard"),
    exchange::<node::HeadShards>("rpc-head-shards"),
    exchange::<wire::admin::ListUsers>("rpc-users"),
    exchange::<wire::admin::ReadBackup>("rpc-read-backup"),
    exchange::<wire::snapshot::PutSnapshot>("rpc-put-snapshot"),
    exchange::<wire::snapshot::GetSnapshot>("rpc-get-snapshot"),
    Target { name: "backup-rows", seeds: samples::messages, run: |bytes| drop(client::rows_of(bytes)) },
    Target { name: "journal-record", seeds: samples::journal_records, run: journal_record },
    Target { name: "join-token-text", seeds: samples::join_tokens, run: join_token_text },
    Target { name: "catalog-apply", seeds: samples::proposals, run: catalog_apply },
    Target { name: "catalog-query", seeds: samples::queries, run: catalog_query },
];

/// Heads, footers and trailers of journal segments, as they may lie on a damaged disk.
fn journal_record(bytes: &[u8]) {
    use journal::format::{Head, Listed, RECORD_HEADER, read_segment_header, read_trailer};
    let _ = (read_segment_header(bytes), read_trailer(bytes));
    if let Some(head) = Head::peek(bytes, 1) {
        assert!(head.len() >= RECORD_HEADER as u64 && head.stride() >= head.len());
        let meta = bytes.get(RECORD_HEADER..RECORD_HEADER + head.meta_len as usize);
        let _ = meta.map(|meta| Head::verify(&[7; 16], bytes, meta));
    }
    if let Some(listed) = Listed::read_all(bytes) {
        let mut again = Vec::new();
        listed.iter().for_each(|l| l.write(&mut again));
        assert_eq!(again, bytes, "one encoding for one footer");
    }
}

fn join_token_text(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(token) = transport::JoinToken::parse(&text) {
        assert!(transport::JoinToken::parse(&token.to_text()).is_ok());
    }
    let _ = transport::InviteText::parse(&text);
}

fn link_text(bytes: &[u8]) {
    if let Ok(link) = transport::LinkText::parse(&String::from_utf8_lossy(bytes)) {
        assert!(transport::LinkText::parse(&link.to_text()).is_ok_and(|again| again == link));
    }
}

/// A cluster's catalog, just made.
fn young_catalog() -> catalog::kv::MemoryKv {
    let mut kv = catalog::kv::MemoryKv::default();
    let mut genesis: Genesis = samples::geneses().iter().find_map(|g| cbor::from_slice(g).ok()).expect("a sample");
    (genesis.policy, genesis.power) = (Policy::DEFAULT, 4);
    let init = model::command::Command::Init(Box::new(genesis));
    let proposal = Proposal { request: model::RequestId::new(1, [0; 10]), account: None, command: init, time_ms: 1 };
    catalog::apply(&mut kv, &proposal).expect("a store in memory").expect("a new cluster");
    kv
}

/// Whatever is proposed, the catalog refuses it or applies it; it never panics, and says the same twice.
fn catalog_apply(bytes: &[u8]) {
    let Ok(proposal) = cbor::from_slice::<Proposal>(bytes) else { return };
    let (mut a, mut b) = (young_catalog(), young_catalog());
    let first = catalog::apply(&mut a, &proposal).expect("a store in memory does not fail");
    assert_eq!(catalog::apply(&mut b, &proposal).expect("a store in memory does not fail"), first);
    assert_eq!(a, b, "two replicas, one state");
}

fn catalog_query(bytes: &[u8]) {
    if let Ok(query) = cbor::from_slice::<Query>(bytes) {
        let _ = catalog::query(&young_catalog(), &query);
    }
}

/// A CBOR record: what is accepted encodes to canonical bytes that decode to the same again.
const fn record<T: Encode<()> + for<'b> Decode<'b, ()>>(name: &'static str, seeds: fn() -> Vec<Vec<u8>>) -> Target {
    Target { name, seeds, run: |bytes| round_trip(bytes, cbor::from_slice::<T>(bytes)) }
}

/// Both sides of an exchange.
const fn exchange<R: Rpc>(name: &'static str) -> Target {
    Target {
        name,
        seeds: samples::messages,
        run: |bytes| {
            round_trip(bytes, wire::decode::<R::Request>(bytes));
            round_trip(bytes, wire::decode::<R::Response>(bytes));
        },
    }
}

fn round_trip<T: Encode<()> + for<'b> Decode<'b, ()>>(bytes: &[u8], decoded: model::Result<T>) {
    if let Ok(value) = decoded {
        let canonical = cbor::to_vec(&value);
        let again: T = cbor::from_canonical(&canonical).expect("what was encoded decodes canonically");
        assert_eq!(cbor::to_vec(&again), canonical);
    } else {
        assert!(cbor::from_canonical::<T>(bytes).is_err(), "canonical decoding is the stricter one");
    }
}

fn descriptor(bytes: &[u8]) {
    if let Ok(d) = Descriptor::from_bytes(bytes) {
        assert_eq!(d.to_bytes(), bytes, "one encoding for one descriptor");
        assert!(d.shard_len() > 0 && d.shard_hashes.len() == d.policy.width() as usize);
        assert!(!d.certifies(d.policy.width(), &[]));
    }
}

fn shard_key(bytes: &[u8]) {
    if let Some(shard) = ShardRef::from_key(bytes) {
        assert_eq!(shard.to_key(), bytes);
        for power in [0, 1, 16, Layout::MAX_POWER] {
            assert!(shard.chunk.partition(power).0 < 1 << power);
        }
    }
}

fn layout(bytes: &[u8]) {
    let Ok(layout) = cbor::from_slice::<Layout>(bytes) else { return };
    let good = layout.check().is_ok();
    // Also a layout that nobody checked must not panic.
    for partition in [0, 1, u32::MAX] {
        for index in [0, 1, 255] {
            let slot = layout.slot(model::Partition(partition), index);
            assert!(!good || slot.is_none_or(|s| s < layout.devices.len()));
        }
    }
    assert_eq!(layout.slot_indexes().len(), layout.slots.len() / 2);
}

fn policy_text(bytes: &[u8]) {
    if let Ok(policy) = Policy::from_str(&String::from_utf8_lossy(bytes)) {
        assert_eq!(Policy::from_str(&policy.to_string()), Ok(policy));
        assert!((policy.k..=policy.width()).contains(&policy.write_quorum()));
    }
}

fn account_name(bytes: &[u8]) {
    if let Ok(name) = model::account::canonical_name(&String::from_utf8_lossy(bytes)) {
        assert_eq!(model::account::canonical_name(&name), Ok(name));
    }
}

/// Input: policy, length of a descriptor, the descriptor, then shards of equal length. Whatever a
/// liar sends, the result is the certified chunk or an error.
fn erasure(bytes: &[u8]) {
    let [k, m, length, rest @ ..] = bytes else { return };
    let Ok(coder) = erasure::Coder::new(Policy { k: k % 33, m: m % 33 }) else { return };
    let (descriptor, body) = rest.split_at(rest.len().min(usize::from(*length) * 8));
    let piece = body.len() / coder.policy().width() as usize;
    let shards: Vec<Option<&[u8]>> =
        if piece == 0 { Vec::new() } else { body.chunks_exact(piece).map(|s| (s[0] != 0).then_some(s)).collect() };
    let ranges: Vec<(u8, &[u8])> = shards.iter().flatten().map(|s| (s[0] % 34, *s)).collect();
    let _ = coder.decode_range(*m, &ranges);
    if let Ok(descriptor) = Descriptor::from_bytes(descriptor.trim_ascii_end()) {
        if let Ok(sealed) = coder.decode(&descriptor, &shards) {
            assert_eq!(model::Hash::of(&sealed), descriptor.sealed_hash);
        }
        if let Ok(shard) = coder.rebuild(&descriptor, &shards, *k) {
            assert!(descriptor.certifies(*k, &shard));
        }
    }
    // And what is honestly coded comes back without its first m shards.
    if let Ok(coded) = coder.encode(samples::CHUNK, 0, body.to_vec()) {
        let lost = coder.policy().m as usize;
        let some: Vec<Option<bytes::Bytes>> = coded.shards.iter().enumerate().map(|(i, s)| (i >= lost).then(|| s.clone())).collect();
        assert_eq!(coder.decode(&coded.descriptor, &some).as_deref(), Ok(body));
    }
}

/// Nothing opens but what was sealed.
fn seal_open(bytes: &[u8]) {
    if let Ok(plain) = seal::primitive::open(&samples::seal_key(), samples::CONTEXT, bytes) {
        assert!(samples::sealed().iter().any(|s| s == bytes), "opened a forgery");
        assert_eq!(seal::primitive::plain_len(bytes.len()), Ok(plain.len()));
    }
}

fn recovery_words(bytes: &[u8]) {
    if let Ok(words) = seal::recovery::RecoveryWords::parse(&String::from_utf8_lossy(bytes)) {
        let written = words.words();
        assert!(seal::recovery::RecoveryWords::parse(&written).is_ok_and(|again| again.words() == written));
    }
}
