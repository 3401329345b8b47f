//! Backups of the catalog: pieces that belong to one file, in one order, up to one end.

use crate::support::Stream;
use model::Kind;
use seal::backup::{BackupKey, HEAD, MAGIC};
use seal::password::Password;

fn passphrase() -> Password {
    Password::new("vier Wörter, die keiner errät")
}

fn written(seed: &str, pieces: &[&[u8]]) -> (Vec<u8>, Vec<Vec<u8>>) {
    let mut rng = Stream::new(seed);
    let mut key = BackupKey::create(&passphrase(), &mut rng).unwrap();
    let head = key.head().to_vec();
    let last = pieces.len() - 1;
    let sealed = pieces.iter().enumerate().map(|(i, p)| key.seal(p, i == last, &mut rng).unwrap()[4..].to_vec()).collect();
    assert!(key.seal(b"one more", false, &mut rng).is_err());
    (head, sealed)
}

fn read(head: &[u8], pieces: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, Kind> {
    let mut key = BackupKey::from_head(&passphrase(), head).map_err(|e| e.kind)?;
    let last = pieces.len() - 1;
    pieces.iter().enumerate().map(|(i, p)| key.open(p, i == last).map(|p| p.to_vec()).map_err(|e| e.kind)).collect()
}

#[test]
fn a_backup_opens_with_its_passphrase_only() {
    let (head, pieces) = written("a", &[b"first", &[7; 40_000], b""]);
    assert_eq!(head.len(), HEAD);
    assert_eq!(read(&head, &pieces).unwrap(), [b"first".to_vec(), vec![7; 40_000], Vec::new()]);
    let mut other = BackupKey::from_head(&Password::new("vier andere Wörter sind es"), &head).unwrap();
    assert_eq!(other.open(&pieces[0], false).map(|_| ()).unwrap_err().kind, Kind::Denied);
}

#[test]
fn attack_09_pieces_left_out_reordered_repeated_spliced_or_cut_off_are_refused() {
    let (head, pieces) = written("a", &[b"first", b"second", b"third"]);
    let (other_head, others) = written("b", &[b"first", b"second", b"third"]);
    let pick = |of: &[usize]| of.iter().map(|i| pieces[*i].clone()).collect::<Vec<_>>();
    for bad in [&[0, 2][..], &[1, 2], &[0, 2, 1], &[0, 1, 1], &[0, 0, 1, 2], &[0, 1], &[0]] {
        assert!(read(&head, &pick(bad)).is_err(), "{bad:?}");
    }
    let spliced = vec![pieces[0].clone(), others[1].clone(), pieces[2].clone()];
    assert_eq!(read(&head, &spliced), Err(Kind::Corrupt));
    assert_eq!(read(&other_head, &pieces), Err(Kind::Denied));
    let mut longer = pick(&[0, 1, 2]);
    longer.push(pieces[2].clone());
    assert!(read(&head, &longer).is_err());
    for (piece, byte) in [(0, 30), (1, 60), (2, 5)] {
        let mut flipped = pick(&[0, 1, 2]);
        flipped[piece][byte] ^= 1;
        assert!(read(&head, &flipped).is_err());
    }
}

#[test]
fn what_is_no_backup_is_said_to_be_none() {
    let kind = |head: &[u8]| BackupKey::from_head(&passphrase(), head).map(|_| ()).unwrap_err();
    assert_eq!(kind(b"").message, "this is no backup of a catalog");
    assert_eq!(kind(&[0; HEAD]).message, "this is no backup of a catalog");
    assert_eq!(kind(MAGIC).kind, Kind::Invalid);
    assert!(kind(b"SKBKUP2\0 and so on").message.contains("version"));
}
