//! The text of a link, as people hand it on. Everything that is secret, and everything that says whom to
//! trust, stands behind the `#`, which no browser and no client sends anywhere.
//!
//! ```text
//! text = "https://" HOST "/s/" hex(id 16) "#1" base64url(secret 32 ‖ root fingerprint 32 ‖ flags 1 ‖
//!        addresses, joined by "," ‖ first 4 bytes of BLAKE3(id ‖ all before))
//! ```
//! Flag 1: it takes a password too. The four bytes find typing errors; they protect against nothing else.

use data_encoding::BASE64URL_NOPAD;
use model::{Error, Hash, LinkId, Result};
use zeroize::{Zeroize, Zeroizing};

const PASSWORD: u8 = 1;

/// What a link's text says. Secret.
#[derive(Clone, PartialEq, Eq)]
pub struct LinkText {
    /// Which link.
    pub id: LinkId,
    /// Its secret.
    pub secret: [u8; 32],
    /// BLAKE3 of the cluster's root certificate.
    pub root: Hash,
    /// It takes a password too.
    pub password: bool,
    /// Where to go, `host:port`, any of them; the first one is the host of the text.
    pub coordinators: Vec<String>,
}

impl std::fmt::Debug for LinkText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LinkText({}, …)", self.id)
    }
}

impl Drop for LinkText {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl LinkText {
    /// Whether a text is meant as a link.
    pub fn is_one(text: &str) -> bool {
        text.starts_with("https://") && text.contains("/s/") && text.contains('#')
    }

    /// The text to hand on. Secret.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(512));
        bytes.extend_from_slice(&self.secret);
        bytes.extend_from_slice(&self.root.0);
        bytes.push(if self.password { PASSWORD } else { 0 });
        bytes.extend_from_slice(self.coordinators.join(",").as_bytes());
        let check = check(self.id, &bytes);
        bytes.extend_from_slice(&check);
        let host = self.coordinators.first().map_or("", String::as_str);
        Zeroizing::new(format!("https://{host}/s/{}#1{}", self.id, BASE64URL_NOPAD.encode(&bytes)))
    }

    /// Reads the text; `Invalid` where it is none.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |why: &str| Error::invalid(format!("this is no link: {why}"));
        let rest = text.trim().strip_prefix("https://").ok_or_else(|| bad("it does not begin with https://"))?;
        let (front, fragment) = rest.split_once('#').ok_or_else(|| bad("what stands behind its # is missing"))?;
        let (_, id) = front.split_once("/s/").ok_or_else(|| bad("it has no /s/"))?;
        let id: LinkId = id.parse().map_err(|_| bad("its id is mistyped"))?;
        let fragment = fragment.strip_prefix('1').ok_or_else(|| bad("it is of a version that this software does not know"))?;
        let bytes = BASE64URL_NOPAD.decode(fragment.as_bytes()).map_err(|_| bad("what stands behind its # is mistyped or cut off"))?;
        let bytes = Zeroizing::new(bytes);
        let (body, sum) = bytes.split_last_chunk::<4>().ok_or_else(|| bad("it is cut off"))?;
        if *sum != check(id, body) {
            return Err(bad("it is mistyped or cut off"));
        }
        let (secret, rest) = body.split_first_chunk::<32>().ok_or_else(|| bad("it is cut off"))?;
        let (root, rest) = rest.split_first_chunk::<32>().ok_or_else(|| bad("it is cut off"))?;
        let (flags, addresses) = rest.split_first().ok_or_else(|| bad("it is cut off"))?;
        if *flags & !PASSWORD != 0 {
            return Err(bad("it is of a version that this software does not know"));
        }
        let addresses = std::str::from_utf8(addresses).map_err(|_| bad("it names no coordinator"))?;
        let coordinators: Vec<String> = addresses.split(',').filter(|a| !a.is_empty()).map(Into::into).collect();
        if coordinators.is_empty() || coordinators.len() > 64 {
            return Err(bad("it names no coordinator"));
        }
        Ok(LinkText { id, secret: *secret, root: Hash(*root), password: *flags & PASSWORD != 0, coordinators })
    }
}

fn check(id: LinkId, body: &[u8]) -> [u8; 4] {
    let [a, b, c, d, ..] = model::signed::hash_parts(&[&id.0, body]).0;
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link() -> LinkText {
        LinkText {
            id: LinkId([0xab; 16]),
            secret: [7; 32],
            root: Hash([9; 32]),
            password: true,
            coordinators: vec!["files.example:7000".into(), "[::1]:7001".into()],
        }
    }

    #[test]
    fn a_link_reads_back_from_its_text() {
        let text = link().to_text();
        assert!(text.starts_with("https://files.example:7000/s/abababababababababababababababab#1"), "{}", *text);
        assert!(LinkText::is_one(&text));
        assert_eq!(LinkText::parse(&format!(" {}\n", *text)).unwrap(), link());
        assert_eq!(format!("{:?}", link()), "LinkText(abababababababababababababababab, …)");
    }

    #[test]
    fn a_link_that_was_cut_or_mistyped_is_told_from_a_good_one() {
        let text = link().to_text();
        for i in 0..text.len() {
            assert!(LinkText::parse(&text[..i]).is_err());
        }
        let (front, back) = text.split_once('#').unwrap();
        for bad in [
            front.to_string(),
            format!("{front}#2{}", &back[1..]),
            format!("{front}#1"),
            format!("{front}#1{}", &back[3..]),
            text.replace("/s/ab", "/s/ac"),
            text.replace("https", "http"),
        ] {
            assert!(LinkText::parse(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn attack_22_nothing_secret_stands_before_the_fragment() {
        let text = link().to_text();
        let (front, _) = text.split_once('#').unwrap();
        assert_eq!(front, "https://files.example:7000/s/abababababababababababababababab");
    }
}
