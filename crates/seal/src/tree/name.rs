//! Names of entries: text or, where a file system holds something else, raw bytes.

use minicbor::data::Type;
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use model::{Error, Result};
use std::fmt::Write as _;
use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

/// Longest name, in bytes.
pub const NAME_MAX: usize = 255;

/// The name of an entry in its folder. Exactly as given (not normalised); two names are the same
/// place when their tags are, that is when they are equal in NFC.
///
/// Invariant, kept by every way of making one: 1–255 bytes, not `.` nor `..`, without `/` and NUL;
/// raw only where the bytes are no UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Repr);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Repr {
    Text(String),
    Raw(Vec<u8>),
}

impl Name {
    /// From text. `Invalid` for what cannot be a name.
    pub fn new(name: &str) -> Result<Self> {
        check(name.as_bytes())?;
        Ok(Name(Repr::Text(name.into())))
    }

    /// From the bytes that a file system gave: text where they are UTF-8, else raw.
    pub fn from_bytes(name: &[u8]) -> Result<Self> {
        check(name)?;
        Ok(Name(match std::str::from_utf8(name) {
            Ok(text) => Repr::Text(text.into()),
            Err(_) => Repr::Raw(name.into()),
        }))
    }

    /// The bytes, for a file system that takes them.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Text(text) => text.as_bytes(),
            Repr::Raw(raw) => raw,
        }
    }

    /// The text, unless the name is raw.
    pub fn as_str(&self) -> Option<&str> {
        match &self.0 {
            Repr::Text(text) => Some(text),
            Repr::Raw(_) => None,
        }
    }

    /// For people: control characters, bidirectional overrides, other invisible format characters
    /// and bytes that are no text come out escaped, so that no name can disguise itself on a terminal.
    pub fn printable(&self) -> String {
        let mut out = String::new();
        for part in self.as_bytes().utf8_chunks() {
            for c in part.valid().chars() {
                if disguises(c) {
                    let _ = write!(out, "\\u{{{:x}}}", c as u32);
                } else {
                    out.push(c);
                }
            }
            for b in part.invalid() {
                let _ = write!(out, "\\x{b:02x}");
            }
        }
        out
    }

    /// `01 ‖ NFC(text)` or `02 ‖ raw`.
    pub(super) fn tag_input(&self) -> Zeroizing<Vec<u8>> {
        let mut input = Zeroizing::new(Vec::with_capacity(1 + NAME_MAX));
        match &self.0 {
            Repr::Text(text) => {
                input.push(1);
                if text.is_ascii() {
                    input.extend_from_slice(text.as_bytes());
                } else {
                    let mut utf8 = [0u8; 4];
                    text.nfc().for_each(|c| input.extend_from_slice(c.encode_utf8(&mut utf8).as_bytes()));
                }
            }
            Repr::Raw(raw) => {
                input.push(2);
                input.extend_from_slice(raw);
            }
        }
        input
    }
}

fn check(name: &[u8]) -> Result<()> {
    let refuse = |why: &str| Err(Error::invalid(why));
    match name {
        [] => refuse("a name is empty"),
        b"." | b".." => refuse("'.' and '..' are no names"),
        _ if name.contains(&b'/') => refuse("a name contains '/'"),
        _ if name.contains(&0) => refuse("a name contains a NUL"),
        _ if name.len() > NAME_MAX => refuse("a name is longer than 255 bytes"),
        _ => Ok(()),
    }
}

/// Control characters, and format characters (Unicode Cf) that reorder or hide text.
fn disguises(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

impl<C> Encode<C> for Name {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        match &self.0 {
            Repr::Text(text) => e.str(text)?.ok(),
            Repr::Raw(raw) => e.bytes(raw)?.ok(),
        }
    }
}

impl<'b, C> Decode<'b, C> for Name {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        let bad = |e: Error| decode::Error::message(e.message);
        match d.datatype()? {
            Type::String => Name::new(d.str()?).map_err(bad),
            _ => match Name::from_bytes(d.bytes()?).map_err(bad)? {
                Name(Repr::Text(_)) => Err(decode::Error::message("a name of text is kept as bytes")),
                raw => Ok(raw),
            },
        }
    }
}
