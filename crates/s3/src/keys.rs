//! Object keys and the paths at which they lie.
//!
//! A key is cut at its slashes: all but the last part are folders, the last one is a file, so that `ls` and a
//! mount show the same tree. What a tree of folders cannot hold as it is gets a name that begins with `.s3~`:
//!
//! ```text
//! .s3~=X   the part X, which is no name by itself: empty (`a//b`, `a/`), `.`, `..`, or beginning with `.s3~`
//! .s3~%H   the part that H is the percent-encoding of: not in Unicode's form C, or with a NUL in it. Names that
//!          differ in their form only are the same to the catalog, and are two keys to S3
//! .s3~+X   a folder: the part begins with X and goes on in there (parts longer than 240 bytes)
//! .s3~fX   the file X, where X is a folder too (`a` beside `a/b`)
//! .s3~dX   the mark that X was deleted, with X's earlier versions
//! ```

use std::fmt::Write;
use unicode_normalization::is_nfc;

/// What all names that are the gateway's own begin with.
const OWN: &str = ".s3~";
const ESCAPED: &str = ".s3~=";
const ENCODED: &str = ".s3~%";
const PIECE: &str = ".s3~+";
const ASIDE: &str = ".s3~f";
const DELETED: &str = ".s3~d";
/// The folder of a bucket in which multipart uploads lie.
pub const UPLOADS: &str = ".s3~uploads";
/// The file of a bucket that holds its configuration.
pub const CONFIG: &str = ".s3~bucket";

/// Longest key, in bytes.
pub const KEY_MAX: usize = 1024;
/// Longest part that is a name by itself, in bytes: room is left for two prefixes.
const PLAIN_MAX: usize = 240;
/// Longest part that is percent-encoded as one, in bytes.
const ENCODED_MAX: usize = PLAIN_MAX / 3;

/// Where a key's object lies below its bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Folders, from the bucket on.
    pub folders: Vec<String>,
    /// The file.
    pub name: String,
}

impl Place {
    /// The place of a key.
    pub fn of(key: &str) -> Self {
        let mut names = Vec::new();
        key.split('/').for_each(|part| add_names(part, &mut names));
        let name = names.pop().unwrap_or_default();
        Place { folders: names, name }
    }

    /// The file's name where its own is taken by a folder.
    pub fn aside(&self) -> String {
        format!("{ASIDE}{}", self.name)
    }

    /// The name of the mark that the file was deleted.
    pub fn deleted(&self) -> String {
        format!("{DELETED}{}", self.name)
    }
}

/// The name by which a file gives way to a folder of its name.
pub fn aside(name: &str) -> String {
    format!("{ASIDE}{name}")
}

fn add_names(part: &str, names: &mut Vec<String>) {
    let mut rest = part;
    let encoded = !is_nfc(part) || part.contains('\0');
    let longest = if encoded { ENCODED_MAX } else { PLAIN_MAX };
    while rest.len() > longest {
        let at = (1..=longest).rev().find(|at| rest.is_char_boundary(*at)).unwrap_or(rest.len());
        let (head, tail) = rest.split_at(at);
        names.push(if encoded { format!("{PIECE}{}", percent(head)) } else { format!("{PIECE}{}", escape(head)) });
        rest = tail;
    }
    names.push(if encoded { format!("{ENCODED}{}", percent(rest)) } else { plain(rest) });
}

/// A name that stands for a part in Unicode's form C.
fn plain(part: &str) -> String {
    if part.is_empty() || part == "." || part == ".." || part.starts_with(OWN) { format!("{ESCAPED}{part}") } else { part.into() }
}

/// In pieces a percent sign is always encoded, so that both kinds are read alike.
fn escape(part: &str) -> String {
    part.replace('%', "%25")
}

fn percent(part: &str) -> String {
    let mut out = String::with_capacity(3 * part.len());
    for byte in part.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => out.push(byte.into()),
            _ => _ = write!(out, "%{byte:02X}"),
        }
    }
    out
}

/// Percent-encoded UTF-8; `None` for what is none.
pub fn unpercent(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        out.push((digit()? * 16 + digit()?) as u8);
    }
    String::from_utf8(out).ok()
}

/// What the name of an entry stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// A part of a key: a file of it, or a folder.
    Part(String),
    /// A file whose own name is a folder's.
    Aside(String),
    /// The mark that a file was deleted.
    Deleted(String),
    /// A folder in which the part goes on that begins so.
    Piece(String),
    /// Nothing of S3's: the gateway's own, or no text.
    Other,
}

/// Reads the name of an entry.
pub fn read(name: &str) -> Named {
    let part = |rest: &str| match rest.strip_prefix(ENCODED) {
        Some(encoded) => unpercent(encoded),
        None => match rest.strip_prefix(ESCAPED) {
            Some(part) => Some(part.to_string()),
            None => Some(rest.to_string()).filter(|r| !r.starts_with(OWN) && !r.is_empty()),
        },
    };
    let named = if let Some(rest) = name.strip_prefix(ASIDE) {
        part(rest).map(Named::Aside)
    } else if let Some(rest) = name.strip_prefix(DELETED) {
        part(rest).map(Named::Deleted)
    } else if let Some(rest) = name.strip_prefix(PIECE) {
        unpercent(rest).filter(|p| !p.is_empty()).map(Named::Piece)
    } else {
        part(name).map(Named::Part)
    };
    named.unwrap_or(Named::Other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(key: &str) -> Vec<String> {
        let place = Place::of(key);
        place.folders.into_iter().chain([place.name]).collect()
    }

    #[test]
    fn keys_that_are_paths_are_the_same_paths() {
        assert_eq!(names("a"), ["a"]);
        assert_eq!(names("2024/05/ä b.jpg"), ["2024", "05", "ä b.jpg"]);
        assert_eq!(names("100%"), ["100%"]);
    }

    #[test]
    fn what_is_no_name_is_escaped() {
        assert_eq!(names("a/"), ["a", ".s3~="]);
        assert_eq!(names("/a"), [".s3~=", "a"]);
        assert_eq!(names("a//b"), ["a", ".s3~=", "b"]);
        assert_eq!(names("./.."), [".s3~=.", ".s3~=.."]);
        assert_eq!(names(".s3~uploads/x"), [".s3~=.s3~uploads", "x"]);
        assert_eq!(names("e\u{301}"), [".s3~%e%CC%81"]);
        assert_eq!(names("\0"), [".s3~%%00"]);
        let long = "x".repeat(500);
        assert_eq!(names(&long), [format!(".s3~+{}", "x".repeat(240)), format!(".s3~+{}", "x".repeat(240)), "x".repeat(20)]);
        assert_eq!(read(UPLOADS), Named::Other);
        assert_eq!(read(CONFIG), Named::Other);
        assert_eq!(read(&aside("a")), Named::Aside("a".into()));
        assert_eq!(read(&Place::of("x/y").deleted()), Named::Deleted("y".into()));
    }

    /// The key that names give together.
    fn key_of(names: &[String]) -> String {
        let mut key = String::new();
        for (i, name) in names.iter().enumerate() {
            match read(name) {
                Named::Piece(piece) => key += &piece,
                Named::Part(part) => {
                    key += &part;
                    if i + 1 < names.len() {
                        key.push('/');
                    }
                }
                other => panic!("{name}: {other:?}"),
            }
        }
        key
    }

    proptest! {
        #[test]
        fn every_key_comes_back(key in "(\\PC|/|\\.|%|\u{301}|e|\u{0}|\\.s3~){0,400}") {
            let names = names(&key);
            prop_assert_eq!(key_of(&names), key);
            for name in &names {
                prop_assert!(name.len() <= 250 && !name.is_empty() && !name.contains(['/', '\0']) && name != "." && name != "..");
                prop_assert!(is_nfc(name));
            }
        }

        #[test]
        fn names_are_read_without_panic(name in "\\PC{0,60}") {
            read(&name);
            read(&format!("{ENCODED}{name}"));
            read(&format!("{PIECE}{name}"));
        }
    }
}
