//! Names, entries, rows and commits; and what malicious servers and members make of them.

use crate::support::{Person, Stream, answer, file, info, inline, kind, look, person};
use minicbor::bytes::ByteVec;
use model::account::{MemberSetBody, Role, SpaceInfo};
use model::command::Rows;
use model::tree::Row;
use model::{EntryId, FolderId, Hash, KeyEpoch, Kind, ManifestId, SpaceId, cbor};
use seal::keys::{FolderKey, ManifestKey};
use seal::primitive::sealed_len;
use seal::space::OpenSpace;
use seal::tree::{Attributes, Content, Entry, FolderKeys, Kind as What, Listing, Name, RowVerifier, new_folder};

fn id(n: u8) -> EntryId {
    EntryId([n; 16])
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// Anna's home with one committed file, `a` = "alpha".
fn stored(anna: &Person) -> (OpenSpace, FolderKeys, Row, Rows) {
    let space = anna.home();
    let root = space.root().unwrap();
    let mut rng = Stream::new("stored");
    let row = root.seal(id(1), 1, &file("a", b"alpha"), &mut rng).unwrap();
    let commit = space.sign_commit(anna.me(), [&row], &mut rng).unwrap();
    let rows = answer(std::slice::from_ref(&row), commit);
    (space, root, row, rows)
}

#[test]
fn a_file_comes_back() {
    let anna = person("anna");
    let (space, root, row, rows) = stored(&anna);
    let found = look(&space, &rows, &root, "a").unwrap().unwrap();
    assert_eq!(inline(&found), b"alpha");
    assert_eq!((found.id, found.rev, found.tag, found.author, found.time_ms), (id(1), 1, row.tag, anna.id(), 7));
    assert_eq!(found.entry.attributes, Attributes { mode: 0o644, mtime_ns: 1_700_000_000_123_456_789, more: vec![] });
    assert_eq!(found.entry.kind(), What::File);
    assert!(look(&space, &Rows::default(), &root, "a").unwrap().is_none());
}

#[test]
fn every_kind_of_entry_comes_back() {
    let anna = person("anna");
    let space = anna.home();
    let root = space.root().unwrap();
    let mut rng = Stream::new("kinds");
    let (folder, key) = new_folder(&mut rng);
    let more = vec![(ByteVec::from(b"user.a".to_vec()), ByteVec::from(b"1".to_vec()))];
    let entry = |name: Name, size, content| Entry {
        name,
        attributes: Attributes { mode: 0o7777, mtime_ns: -1, more: more.clone() },
        size,
        content,
    };
    let entries = [
        entry(name("empty"), 0, Content::Inline(vec![])),
        entry(name("full"), 4096, Content::Inline(vec![9; 4096])),
        entry(
            name("big"),
            5 << 30,
            Content::Manifest { key: ManifestKey::from_bytes(&[1; 32]), hash: Hash([2; 32]), id: ManifestId([3; 16]) },
        ),
        entry(name("folder"), 0, Content::Folder { id: folder, key, epoch: KeyEpoch(1) }),
        entry(Name::from_bytes(b"raw \xff").unwrap(), 6, Content::Symlink(b"../\xfe/x".to_vec())),
        entry(name("space"), 0, Content::Space(SpaceId([4; 16]))),
    ];
    let rows: Vec<Row> = (1..).zip(&entries).map(|(n, e)| root.seal(id(n), 1, e, &mut rng).unwrap()).collect();
    assert!(rows.iter().all(|r| (r.sealed.len() - 72) % 128 == 0 || r.entry == id(1) || r.entry == id(2)));
    let mut rows = answer(&rows, space.sign_commit(anna.me(), &rows, &mut rng).unwrap());
    rows.rows[2].manifest = Some(ManifestId([3; 16]));
    rows.rows[3].child = Some(folder);
    let verified = RowVerifier::new(&space).verify(&rows).unwrap();
    let names: Vec<&Name> = entries.iter().map(|e| &e.name).collect();
    let steps: Vec<_> = names.iter().map(|n| (&root, *n)).collect();
    for (entry, found) in entries.iter().zip(verified.lookup(&steps).unwrap()) {
        let found = found.unwrap().entry;
        assert_eq!((&found.name, found.size, found.kind(), &found.attributes), (&entry.name, entry.size, entry.kind(), &entry.attributes));
        match (&found.content, &entry.content) {
            (Content::Inline(a), Content::Inline(b)) | (Content::Symlink(a), Content::Symlink(b)) => assert_eq!(a, b),
            (Content::Manifest { hash, id, .. }, Content::Manifest { .. }) => {
                assert_eq!((hash, id), (&Hash([2; 32]), &ManifestId([3; 16])))
            }
            (Content::Space(a), Content::Space(b)) => assert_eq!(a, b),
            (Content::Folder { id, epoch, .. }, Content::Folder { .. }) => {
                assert_eq!((*id, *epoch), (folder, KeyEpoch(1)));
                // The same DK: the child's rows open with it.
                let ours = FolderKeys::of_child(&root, entry).unwrap();
                let theirs = FolderKeys::of_child(&root, &found).unwrap();
                assert_eq!(ours.tag(&name("x")), theirs.tag(&name("x")));
            }
            _ => panic!("another kind"),
        }
    }
}

#[test]
fn impossible_entries_are_not_sealed() {
    let root = person("anna").home().root().unwrap();
    let mut rng = Stream::new("impossible");
    let mut refuse = |entry: Entry| assert_eq!(kind(root.seal(id(1), 1, &entry, &mut rng)), Kind::Invalid);
    refuse(file("a", &[0; 4097]));
    refuse(Entry { size: 4, ..file("a", b"alpha") });
    refuse(Entry { content: Content::Symlink(vec![]), size: 0, ..file("a", b"") });
    refuse(Entry { content: Content::Symlink(b"a\0b".to_vec()), size: 3, ..file("a", b"") });
    refuse(Entry { content: Content::Symlink(vec![b'a'; 4097]), size: 4097, ..file("a", b"") });
    refuse(Entry { content: Content::Space(SpaceId([1; 16])), size: 1, ..file("a", b"") });
    let with = |mode, more| Entry { attributes: Attributes { mode, mtime_ns: 0, more }, ..file("a", b"") };
    refuse(with(0o100644, vec![]));
    let x = || ByteVec::from(b"x".to_vec());
    refuse(with(0o644, vec![(x(), x()), (x(), x())]));
    refuse(with(0o644, vec![(x(), ByteVec::from(vec![0; 20_000]))]));
    assert_eq!(kind(root.seal(id(1), 0, &file("a", b""), &mut rng)), Kind::Invalid);
}

#[test]
fn names_and_their_tags() {
    let root = person("anna").home().root().unwrap();
    assert_eq!(root.tag(&name("e\u{301}")), root.tag(&name("é")), "one place in any normal form");
    assert_ne!(name("e\u{301}"), name("é"), "but kept as given");
    assert_ne!(root.tag(&name("a")), root.tag(&name("A")));
    let mut rng = Stream::new("tags");
    let (folder, key) = new_folder(&mut rng);
    let other = FolderKeys::new(root.space, folder, root.epoch, &key);
    assert_ne!(root.tag(&name("a")), other.tag(&name("a")), "tags of different folders tell nothing");
    // 01 and 02 keep text and raw bytes apart.
    assert_ne!(root.tag(&Name::from_bytes(b"\xff").unwrap()), root.tag(&name("\u{ff}")));
}

#[test]
fn attack_32_hostile_names() {
    for bad in ["", ".", "..", "a/b", "/", "../a", "a\0", "\0", &"x".repeat(256)] {
        assert_eq!(kind(Name::new(bad)), Kind::Invalid, "{bad:?}");
        assert_eq!(kind(Name::from_bytes(bad.as_bytes())), Kind::Invalid);
    }
    assert!(Name::new(&"x".repeat(255)).is_ok());
    assert_eq!(kind(Name::from_bytes(b"\xff/")), Kind::Invalid);
    assert!(Name::from_bytes(b"plain").unwrap().as_str().is_some());
    for (given, shown) in [
        ("a\u{202e}gpj.exe", "a\\u{202e}gpj.exe"),
        ("\x1b[2J", "\\u{1b}[2J"),
        ("zero\u{200b}width", "zero\\u{200b}width"),
        ("line\nbreak", "line\\u{a}break"),
        ("Grüße 日本", "Grüße 日本"),
    ] {
        assert_eq!(name(given).printable(), shown);
    }
    assert_eq!(Name::from_bytes(b"a\xff\xfe.txt").unwrap().printable(), "a\\xff\\xfe.txt");
}

/// A co-member who seals by hand cannot bring a hostile name or shape in either: the decoder refuses.
#[test]
fn attack_32_and_36_hostile_plaintexts_of_a_member() {
    let root = person("anna").home().root().unwrap();
    let good = Plain::default();
    assert!(good.opens(&root), "the hand-made entry is right to begin with");
    let text = |n: &str| [&[0x60 + n.len() as u8][..], n.as_bytes()].concat();
    let bytes = |n: &[u8]| [&[0x40 + n.len() as u8][..], n].concat();
    for (what, name) in [
        ("..", text("..")),
        ("slash", text("../etc")),
        ("NUL", text("a\0b")),
        ("empty", text("")),
        ("text as bytes", bytes(b"a")),
        ("length in a longer form", vec![0x78, 1, b'a']),
        ("chunked text", vec![0x7f, 0x61, b'a', 0xff]),
        ("tagged", vec![0xc0, 0x61, b'a']),
        ("integer", vec![1]),
    ] {
        assert!(!Plain { name, ..Plain::default() }.opens(&root), "{what}");
    }
    for (what, rest) in [
        ("size of another", hex("83 1901a4 00 80 05 82 00 41 61")),
        ("integer in a longer form", hex("83 1901a4 00 80 1801 82 00 41 61")),
        ("mode too large", hex("83 19ffff 00 80 01 82 00 41 61")),
        ("unknown content", hex("83 1901a4 00 80 01 82 05 41 61")),
        ("symlink with the fields of a folder", hex("83 1901a4 00 80 01 84 03 41 61 00 00")),
        ("indefinite array", hex("83 1901a4 00 80 01 9f 00 41 61 ff")),
        ("a field too many in the attributes", hex("84 1901a4 00 80 00 01 82 00 41 61")),
        ("float", hex("83 1901a4 fb0000000000000000 80 01 82 00 41 61")),
    ] {
        assert!(!Plain { rest, ..Plain::default() }.opens(&root), "{what}");
    }
    assert!(!Plain { padding: |p| p.push(0), ..Plain::default() }.opens(&root), "one byte too much");
    assert!(
        !Plain {
            padding: |p| {
                p.pop();
            },
            ..Plain::default()
        }
        .opens(&root),
        "one byte too little"
    );
    assert!(!Plain { padding: |p| p.extend([0; 128]), ..Plain::default() }.opens(&root), "a step too much");
    assert!(!Plain { padding: |p| *p.last_mut().unwrap() = 1, ..Plain::default() }.opens(&root), "padding that speaks");
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| *b != b' ').collect();
    digits.chunks(2).map(|p| u8::from_str_radix(std::str::from_utf8(p).unwrap(), 16).unwrap()).collect()
}

/// An entry's plaintext made by hand and sealed with the folder's true key.
struct Plain {
    name: Vec<u8>,
    rest: Vec<u8>,
    padding: fn(&mut Vec<u8>),
}

impl Default for Plain {
    fn default() -> Self {
        Plain { name: hex("61 61"), rest: hex("83 1901a4 00 80 01 82 00 41 61"), padding: |_| () }
    }
}

impl Plain {
    fn opens(&self, root: &FolderKeys) -> bool {
        let mut plain = [&[0x84][..], &self.name, &self.rest].concat();
        let padded = (plain.len() - 1 + 256).next_multiple_of(128);
        plain.resize(padded, 0);
        (self.padding)(&mut plain);
        // The keys of the root, as every member can derive them: here from the session's space.
        let anna = person("anna");
        let space = anna.home();
        let mut entry_key = [0; 32];
        seal::keys::derive(&root_dk(&anna), b"entry", &mut entry_key);
        let ctx = cbor::to_vec(&("entry", root.space, root.folder, id(1), 1u64, root.epoch));
        let mut rng = Stream::new("by hand");
        let sealed = seal::primitive::seal(&seal::keys::SealKey::from_bytes(&entry_key), &ctx, &plain, &mut rng);
        let row = Row {
            space: root.space,
            folder: root.folder,
            entry: id(1),
            rev: 1,
            epoch: root.epoch,
            tag: root.tag(&name("a")),
            sealed: sealed.into(),
        };
        let rows = answer(std::slice::from_ref(&row), space.sign_commit(anna.me(), [&row], &mut rng).unwrap());
        look(&space, &rows, root, "a").is_ok()
    }
}

/// The root's DK, derived by hand from the space key that person("anna") drew.
fn root_dk(anna: &Person) -> [u8; 32] {
    let home = &anna.new.home;
    let sk = anna.space_key();
    let ctx = cbor::to_vec(&("root", home.id(), home.root, KeyEpoch(1)));
    let mut dk = [0; 32];
    seal::keys::derive(&sk, &[b"root\0", ctx.as_slice()].concat(), &mut dk);
    dk
}

#[test]
fn attack_13_a_question_answered_with_something_else() {
    let anna = person("anna");
    let (space, root, row, rows) = stored(&anna);
    let mut rng = Stream::new("swap");
    let b = root.seal(id(2), 1, &file("b", b"beta"), &mut rng).unwrap();
    let both = answer(&[row.clone(), b.clone()], space.sign_commit(anna.me(), [&row, &b], &mut rng).unwrap());
    let only = |i: usize| Rows { rows: vec![both.rows[i].clone()], ..both.clone() };
    assert_eq!(inline(&look(&space, &only(1), &root, "b").unwrap().unwrap()), b"beta");
    assert_eq!(kind(look(&space, &only(0), &root, "b")), Kind::Corrupt, "a for b");
    assert_eq!(kind(look(&space, &both, &root, "b")), Kind::Corrupt, "more than was asked");
    // The tag asked for, over a's row: the commit does not list it.
    let mut renamed = rows.clone();
    renamed.rows[0].row.tag = b.tag;
    assert_eq!(kind(look(&space, &renamed, &root, "b")), Kind::Corrupt);
    // A writing member who signs a's sealed bytes under b's tag.
    let mut crooked = row.clone();
    crooked.tag = b.tag;
    let rows = answer(std::slice::from_ref(&crooked), anna.sign_rows(space.id(), 1, std::slice::from_ref(&crooked)));
    assert_eq!(kind(look(&space, &rows, &root, "b")), Kind::Corrupt);
    // Another folder's row of the same name.
    let (folder, key) = new_folder(&mut rng);
    let other = FolderKeys::new(space.id(), folder, KeyEpoch(1), &key);
    let theirs = other.seal(id(3), 1, &file("a", b"theirs"), &mut rng).unwrap();
    let rows = answer(std::slice::from_ref(&theirs), space.sign_commit(anna.me(), [&theirs], &mut rng).unwrap());
    assert_eq!(kind(look(&space, &rows, &root, "a")), Kind::Corrupt);
}

#[test]
fn listings_refuse_doubles_and_disorder() {
    let anna = person("anna");
    let space = anna.home();
    let root = space.root().unwrap();
    let mut rng = Stream::new("list");
    let mut rows: Vec<Row> = (1..=9).map(|n| root.seal(id(n), 1, &file(&format!("file {n}"), &[n]), &mut rng).unwrap()).collect();
    rows.sort_by_key(|r| r.tag);
    let commit = space.sign_commit(anna.me(), &rows, &mut rng).unwrap();
    let all = answer(&rows, commit);
    let list = |pages: &[&Rows]| -> model::Result<usize> {
        let mut listing = Listing::new();
        let mut n = 0;
        for page in pages {
            let verified = listing.page(&space, page)?;
            n += verified.rows().map(|row| row.open(&root)).collect::<model::Result<Vec<_>>>()?.len();
        }
        Ok(n)
    };
    let page = |range: std::ops::Range<usize>| Rows { rows: all.rows[range].to_vec(), ..all.clone() };
    assert_eq!(list(&[&all]), Ok(9));
    assert_eq!(list(&[&page(0..4), &page(4..9)]), Ok(9));
    // What an earlier page brought need not come again; what none brought is missed.
    let bare = |range| Rows { commits: Vec::new(), ..page(range) };
    assert_eq!(list(&[&page(0..4), &bare(4..6), &page(6..7), &bare(7..9)]), Ok(9));
    assert!(list(&[&bare(0..4), &page(4..9)]).is_err(), "a commit that nobody has");
    let mut listing = Listing::new();
    let have: Vec<usize> = [page(0..4), bare(4..9)].map(|page| listing.page(&space, &page).map(|_| listing.have().len()).unwrap()).into();
    assert_eq!(have, [1, 0], "kept until all its rows have come");
    assert!(list(&[&page(0..4), &page(3..9)]).is_err(), "a row twice");
    assert!(list(&[&page(4..9), &page(0..4)]).is_err(), "pages swapped");
    let mut swapped = all.clone();
    swapped.rows.swap(0, 1);
    assert!(list(&[&swapped]).is_err());
    // One entry under two names: renamed, and the old row kept by the server.
    let moved = root.seal(rows[0].entry, 2, &file("new name", b""), &mut rng).unwrap();
    let mut two = vec![rows[0].clone(), moved];
    two.sort_by_key(|r| r.tag);
    let two = answer(&two, space.sign_commit(anna.me(), &two, &mut rng).unwrap());
    assert!(list(&[&two]).is_err());
    // The same place asked for twice is the caller's mistake.
    let verified = RowVerifier::new(&space).verify(&all).unwrap();
    assert_eq!(kind(verified.lookup(&[(&root, &name("é")), (&root, &name("e\u{301}"))])), Kind::Invalid);
}

#[test]
fn attack_14_size_time_and_type_are_under_the_seal() {
    let anna = person("anna");
    let (space, root, row, rows) = stored(&anna);
    for at in (0..row.sealed.len()).step_by(3) {
        let mut changed = rows.clone();
        changed.rows[0].row.sealed[at] ^= 1;
        assert_eq!(kind(look(&space, &changed, &root, "a")), Kind::Corrupt, "{at}");
        // And even signed by a member, since the seal itself breaks.
        let mut signed = row.clone();
        signed.sealed[at] ^= 1;
        let rows = answer(std::slice::from_ref(&signed), anna.sign_rows(space.id(), 1, std::slice::from_ref(&signed)));
        assert_eq!(kind(look(&space, &rows, &root, "a")), Kind::Corrupt, "{at}");
    }
    // What stands beside the row: a file with a child folder, or with a manifest.
    let mut changed = rows.clone();
    changed.rows[0].child = Some(FolderId([1; 16]));
    assert_eq!(kind(look(&space, &changed, &root, "a")), Kind::Corrupt);
    let mut changed = rows.clone();
    changed.rows[0].manifest = Some(ManifestId([1; 16]));
    assert_eq!(kind(look(&space, &changed, &root, "a")), Kind::Corrupt);
}

/// Every field of a row is under the commit's signature and the seal's context.
#[test]
fn row_fields_cannot_be_changed() {
    let anna = person("anna");
    let (space, root, row, rows) = stored(&anna);
    for (what, change) in [
        ("space", (|r: &mut Row| r.space.0[0] ^= 1) as fn(&mut Row)),
        ("folder", |r| r.folder.0[0] ^= 1),
        ("entry", |r| r.entry.0[0] ^= 1),
        ("rev", |r| r.rev += 1),
        ("epoch", |r| r.epoch.0 += 1),
        ("tag", |r| r.tag.0[0] ^= 1),
        ("removed", |r| r.sealed = ByteVec::from(vec![])),
    ] {
        let mut changed = rows.clone();
        change(&mut changed.rows[0].row);
        assert_eq!(kind(look(&space, &changed, &root, "a")), Kind::Corrupt, "{what}");
        let mut row = row.clone();
        change(&mut row);
        let rows = answer(std::slice::from_ref(&row), anna.sign_rows(space.id(), 1, std::slice::from_ref(&row)));
        assert_eq!(kind(look(&space, &rows, &root, "a")), Kind::Corrupt, "{what}, signed");
    }
}

/// A space with a writer and a reader, both with keys (as every member has): what the reader signs,
/// what an outsider signs, and what nobody signs must not be shown.
#[test]
fn attack_15_files_injected_by_a_reader_and_servers() {
    let (anna, rosa, mallory) = (person("anna"), person("rosa"), person("mallory"));
    let (space, root) = shared(&anna, &[rosa.member(Role::Read)], &[&anna, &rosa, &mallory]);
    let mut rng = Stream::new("inject");
    let row = root.seal(id(1), 1, &file("evil", b"evil"), &mut rng).unwrap();
    let rows = std::slice::from_ref(&row);
    for (who, signed) in [("reader", rosa.sign_rows(space.id(), 1, rows)), ("outsider", mallory.sign_rows(space.id(), 1, rows))] {
        assert_eq!(kind(look(&space, &answer(rows, signed.clone()), &root, "evil")), Kind::Corrupt, "{who}");
        let mut as_anna = signed;
        as_anna.1.author = anna.id();
        assert_eq!(kind(look(&space, &answer(rows, as_anna), &root, "evil")), Kind::Corrupt, "{who} as anna");
    }
    // A folder, in the same way.
    let (folder, key) = new_folder(&mut rng);
    let door = Entry { content: Content::Folder { id: folder, key, epoch: KeyEpoch(1) }, size: 0, ..file("evil", b"") };
    let row = root.seal(id(2), 1, &door, &mut rng).unwrap();
    let mut rows = answer(std::slice::from_ref(&row), rosa.sign_rows(space.id(), 1, std::slice::from_ref(&row)));
    rows.rows[0].child = Some(folder);
    assert_eq!(kind(look(&space, &rows, &root, "evil")), Kind::Corrupt);
}

/// A space of Anna's with more members (all in epoch 1).
fn shared(anna: &Person, more: &[model::account::Member], people: &[&Person]) -> (OpenSpace, FolderKeys) {
    let info = shared_info(anna, more, people);
    let space = OpenSpace::open(&info, anna.me(), None).unwrap();
    let root = space.root().unwrap();
    (space, root)
}

fn shared_info(anna: &Person, more: &[model::account::Member], people: &[&Person]) -> SpaceInfo {
    let mut info = info(&anna.new.home, people);
    let mut body: MemberSetBody = cbor::from_canonical(&info.member_sets[0].body).unwrap();
    body.seq = 2;
    body.prev = Hash::of(&info.member_sets[0].body);
    body.members.extend_from_slice(more);
    body.members.sort_by_key(|m| m.account);
    info.member_sets.push(anna.sign_set(&body));
    info
}

/// The *last* set of an epoch decides: a reader promoted within the epoch may write, and a writer's
/// signature of an old epoch is good for no row of a newer one.
#[test]
fn attack_20_rights_are_those_of_the_epochs_last_set() {
    let (anna, wim) = (person("anna"), person("wim"));
    let mut info = shared_info(&anna, &[wim.member(Role::Read)], &[&anna, &wim]);
    let mut body: MemberSetBody = cbor::from_canonical(&info.member_sets[1].body).unwrap();
    body.seq = 3;
    body.prev = Hash::of(&info.member_sets[1].body);
    body.members.iter_mut().filter(|m| m.account == wim.id()).for_each(|m| m.role = Role::Write);
    info.member_sets.push(anna.sign_set(&body));
    let space = OpenSpace::open(&info, anna.me(), None).unwrap();
    let root = space.root().unwrap();
    let mut rng = Stream::new("rights");
    let row = root.seal(id(1), 1, &file("w", b"wim"), &mut rng).unwrap();
    let rows = answer(std::slice::from_ref(&row), wim.sign_rows(space.id(), 1, std::slice::from_ref(&row)));
    assert_eq!(look(&space, &rows, &root, "w").unwrap().unwrap().author, wim.id());
    // A row that claims epoch 2, under a commit of epoch 1.
    let mut newer = row.clone();
    newer.epoch = KeyEpoch(2);
    let rows = answer(std::slice::from_ref(&newer), wim.sign_rows(space.id(), 1, std::slice::from_ref(&newer)));
    assert_eq!(kind(look(&space, &rows, &root, "w")), Kind::Corrupt);
    // A commit of an epoch that does not exist yet.
    let rows = answer(std::slice::from_ref(&row), wim.sign_rows(space.id(), 2, std::slice::from_ref(&row)));
    assert_eq!(kind(look(&space, &rows, &root, "w")), Kind::Corrupt);
}

/// There is no path on which a bad, missing or foreign signature is shrugged off.
#[test]
fn attack_21_signatures_fail_hard() {
    let anna = person("anna");
    let berta = person("berta");
    let (space, root, row, rows) = stored(&anna);
    let refused = |what: &str, change: &dyn Fn(&mut Rows)| {
        let mut rows = rows.clone();
        change(&mut rows);
        assert_eq!(kind(look(&space, &rows, &root, "a")), Kind::Corrupt, "{what}");
    };
    for at in 0..64 {
        refused("a flipped bit", &|r| r.commits[0].1.signature.0[at] ^= 0x10);
    }
    refused("zeros", &|r| r.commits[0].1.signature.0 = [0; 64]);
    refused("no commit", &|r| r.commits.clear());
    refused("commit twice", &|r| r.commits.push(r.commits[0].clone()));
    refused("other id", &|r| {
        r.commits[0].0.0[0] ^= 1;
        r.rows[0].commit.0[0] ^= 1;
    });
    refused("other author", &|r| r.commits[0].1.author = berta.id());
    refused("changed body", &|r| {
        let last = r.commits[0].1.body.len() - 1;
        r.commits[0].1.body[last] ^= 1;
    });
    // A commit that is bad is refused even when no row names it.
    refused("an unused bad commit", &|r| {
        let mut extra = r.commits[0].clone();
        extra.0.0[0] ^= 1;
        r.commits.push(extra);
    });
    // The identity's signature used as a commit's: types are part of what is signed.
    let (commit, mut record) = space.sign_commit(anna.me(), [&row], &mut Stream::new("type")).unwrap();
    record.signature = anna.key().sign("member-set", &record.body);
    assert_eq!(kind(look(&space, &answer(std::slice::from_ref(&row), (commit, record)), &root, "a")), Kind::Corrupt);
}

/// Ciphertext moved to where the attacker may read: another folder, entry, revision or space whose
/// rows carry the same bytes do not open there, for anybody.
#[test]
fn attack_25_transplanted_ciphertext() {
    let anna = person("anna");
    let (space, root, row, _) = stored(&anna);
    let mut rng = Stream::new("transplant");
    let (folder, key) = new_folder(&mut rng);
    let attackers = FolderKeys::new(space.id(), folder, KeyEpoch(1), &key);
    let mut moved = row.clone();
    moved.folder = folder;
    moved.tag = attackers.tag(&name("a"));
    let rows = answer(std::slice::from_ref(&moved), space.sign_commit(anna.me(), [&moved], &mut rng).unwrap());
    assert_eq!(kind(look(&space, &rows, &attackers, "a")), Kind::Corrupt);
    // With the same DK but another place, the context still refuses.
    let dk = FolderKey::from_bytes(&root_dk(&anna));
    let elsewhere = FolderKeys::new(space.id(), folder, KeyEpoch(1), &dk);
    assert_eq!(elsewhere.tag(&name("a")), root.tag(&name("a")));
    moved.tag = row.tag;
    let rows = answer(std::slice::from_ref(&moved), space.sign_commit(anna.me(), [&moved], &mut rng).unwrap());
    assert_eq!(kind(look(&space, &rows, &elsewhere, "a")), Kind::Corrupt);
}

/// What a server sees of sizes: steps, not bytes.
#[test]
fn attack_27_exact_sizes_are_hidden() {
    let root = person("anna").home().root().unwrap();
    let mut rng = Stream::new("sizes");
    let mut len = |n: usize, name: &str| root.seal(id(1), 1, &file(name, &vec![1; n]), &mut rng).unwrap().sealed.len();
    assert_eq!(len(0, "a"), len(256, "a name of ordinary length.txt"));
    assert_eq!(len(1, "a"), sealed_len(384));
    let sizes: std::collections::BTreeSet<usize> = (0..=4096).step_by(16).map(|n| len(n, "a")).collect();
    assert_eq!(sizes.len(), 31, "4,097 lengths look like 31");
}

#[test]
fn commits_are_signed_only_with_the_right_and_in_bounds() {
    let (anna, rosa) = (person("anna"), person("rosa"));
    let (space, root, row, _) = stored(&anna);
    let mut rng = Stream::new("commit");
    assert_eq!(kind(space.sign_commit(anna.me(), [], &mut rng)), Kind::Invalid);
    assert_eq!(kind(space.sign_commit(anna.me(), std::iter::repeat_n(&row, 257), &mut rng)), Kind::Invalid);
    assert_eq!(kind(space.sign_commit(rosa.me(), [&row], &mut rng)), Kind::Denied);
    let mut foreign = row.clone();
    foreign.space = SpaceId([1; 16]);
    assert_eq!(kind(space.sign_commit(anna.me(), [&foreign], &mut rng)), Kind::Invalid);
    let many: Vec<Row> = (0..=255).map(|n| root.seal(id(n), 1, &file(&format!("f{n}"), &[n]), &mut rng).unwrap()).collect();
    let rows = answer(&many, space.sign_commit(anna.me(), &many, &mut rng).unwrap());
    assert_eq!(RowVerifier::new(&space).verify(&rows).unwrap().rows().count(), 256);
}

#[test]
fn removals_are_signed_and_never_listed() {
    let anna = person("anna");
    let (space, root, _, _) = stored(&anna);
    let mut rng = Stream::new("removal");
    let gone = root.removal(id(1), 2, &name("a"));
    let rows = answer(std::slice::from_ref(&gone), space.sign_commit(anna.me(), [&gone], &mut rng).unwrap());
    let verified = RowVerifier::new(&space).verify(&rows).unwrap();
    assert!(verified.rows().all(|r| r.is_removal() && r.author() == anna.id()));
    assert_eq!(kind(look(&space, &rows, &root, "a")), Kind::Corrupt);
    assert!(verified.rows().all(|r| r.open(&root).is_err()));
}

#[test]
fn garbage_rows_and_commits_are_refused() {
    let anna = person("anna");
    let (space, root, row, rows) = stored(&anna);
    let mut rng = Stream::new("rows garbage");
    for len in (0..200).chain([1000, 16_384, 16_385, 20_000]) {
        let mut bad = row.clone();
        bad.sealed = rng.bytes(len).into();
        let signed = answer(std::slice::from_ref(&bad), anna.sign_rows(space.id(), 1, std::slice::from_ref(&bad)));
        assert_eq!(kind(look(&space, &signed, &root, "a")), Kind::Corrupt, "{len}");
        let mut bad = rows.clone();
        let body = rng.bytes(len);
        bad.commits[0].1.signature = anna.key().sign("commit", &body);
        bad.commits[0].1.body = body.into();
        assert_eq!(kind(look(&space, &bad, &root, "a")), Kind::Corrupt, "{len}");
    }
}
