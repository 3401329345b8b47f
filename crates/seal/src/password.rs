//! Passwords: held wiped-on-drop, normalised, and too weak ones refused.
//!
//! A coordinator can guess passwords offline (it holds the OPAQUE record); Argon2id makes each
//! guess cost, and the gate here keeps out what falls to the first thousands of them.

use model::{Error, Result};
use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

/// Fewest characters of a password.
pub const CHARS_MIN: usize = 10;

/// A password as typed, in NFC so that the same keys give the same bytes on every machine.
pub struct Password(Zeroizing<String>);

impl Password {
    /// Takes what was typed. No other change is made: blanks and case count.
    pub fn new(typed: &str) -> Self {
        // NFC at most triples the length: reserved, so that no half-grown copy stays in memory.
        let mut text = Zeroizing::new(String::with_capacity(typed.len() * 3));
        text.extend(typed.nfc());
        Password(text)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// `Invalid`, with the reason as a plain sentence, for a password that is too easily guessed.
    /// To be asked when a password is chosen, never at login.
    pub fn check_strength(&self, account: &str) -> Result<()> {
        let refuse = |why: &str| Err(Error::invalid(why).hint("choose a longer one, for example four or five unrelated words"));
        let lower = Zeroizing::new(self.0.to_lowercase());
        let chars = Zeroizing::new(lower.chars().collect::<Vec<char>>());
        if chars.len() < CHARS_MIN {
            return refuse("the password is too short: it needs at least 10 characters");
        }
        let first = chars.first().copied().unwrap_or_default();
        if chars.iter().all(|c| *c == first) {
            return refuse("the password is one character repeated");
        }
        let mut distinct = Zeroizing::new(chars.to_vec());
        distinct.sort_unstable();
        distinct.dedup();
        if distinct.len() < 4 {
            return refuse("the password uses too few different characters");
        }
        let account = account.to_lowercase();
        if account.chars().count() >= 3 && lower.contains(&account) {
            return refuse("the password contains the account name");
        }
        let step = |by: i64| chars.windows(2).all(|w| w[1] as i64 - w[0] as i64 == by);
        let keys = ["qwertyuiopasdfghjklzxcvbnm", "qwertzuiopasdfghjklyxcvbnm", "azertyuiopqsdfghjklmwxcvbn", "12345678901234567890"];
        if step(1) || step(-1) || keys.iter().any(|row| row.contains(lower.as_str())) {
            return refuse("the password is a plain sequence of characters");
        }
        // "Passw0rd!2024" is "password" to everybody who guesses.
        let bare = lower.trim_matches(|c: char| !c.is_alphabetic());
        let core = Zeroizing::new(bare.chars().map(plain_letter).collect::<String>());
        if COMMON.iter().any(|w| core.as_str() == *w || bare == *w || lower.as_str() == *w || repeats(&lower, w)) {
            return refuse("the password is among the most common ones");
        }
        Ok(())
    }
}

/// The letter that a digit or sign usually stands for.
fn plain_letter(c: char) -> char {
    match c {
        '0' => 'o',
        '1' | '!' => 'i',
        '3' => 'e',
        '4' | '@' => 'a',
        '5' | '$' => 's',
        '7' => 't',
        c => c,
    }
}

/// Whether `text` is nothing but `word` again and again.
fn repeats(text: &str, word: &str) -> bool {
    !word.is_empty() && text.len() >= 2 * word.len() && text.replace(word, "").is_empty()
}

/// The heads of the public lists of leaked passwords, without their trailing digits and signs.
const COMMON: &[&str] = &[
    "password",
    "passwort",
    "passwords",
    "mypassword",
    "thepassword",
    "motdepasse",
    "contraseña",
    "changeme",
    "changemenow",
    "letmein",
    "letmeinplease",
    "welcome",
    "iloveyou",
    "iloveyousomuch",
    "qwerty",
    "qwertyuiop",
    "qwertyqwerty",
    "asdfghjkl",
    "zxcvbnm",
    "qazwsx",
    "qazwsxedc",
    "administrator",
    "admin",
    "adminadmin",
    "root",
    "default",
    "secret",
    "supersecret",
    "topsecret",
    "master",
    "superman",
    "batman",
    "spiderman",
    "starwars",
    "football",
    "baseball",
    "basketball",
    "princess",
    "sunshine",
    "shadow",
    "dragon",
    "monkey",
    "michael",
    "jennifer",
    "jordan",
    "hunter",
    "charlie",
    "computer",
    "internet",
    "samsung",
    "pokemon",
    "liverpool",
    "chelsea",
    "trustnoone",
    "trustno",
    "whatever",
    "abc",
    "abcd",
    "abcdef",
    "abcabc",
    "test",
    "testtest",
    "testing",
    "guest",
    "login",
    "access",
    "shardkeep",
    "correcthorsebatterystaple",
    "1q2w3e4r5t",
    "1q2w3e4r5t6y",
    "1qaz2wsx3edc",
    "q1w2e3r4t5",
    "q1w2e3r4t5y6",
    "123123",
    "1234",
    "12345",
    "123456",
    "111222",
    "112233",
    "987654321",
    "0987654321",
    "123321",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weak_ones_are_refused_with_a_sentence() {
        for weak in [
            "short",
            "aaaaaaaaaaaa",
            "ababababab",
            "1234567890",
            "9876543210",
            "abcdefghij",
            "qwertyuiop",
            "Password123!",
            "P@ssw0rd2024!!",
            "xx-anna-xx-1",
            "letmein123456",
            "1234123412341234",
            "zzzzyyyyxxxx",
            "correcthorsebatterystaple",
            "0987654321",
        ] {
            let refused = Password::new(weak).check_strength("anna");
            assert!(refused.is_err(), "{weak} was accepted");
        }
        for good in ["tulip Anchor 94 lamp", "xK9#mm2pQz!r", "ein sehr langer satz", "пароль из букв"] {
            assert_eq!(Password::new(good).check_strength("anna"), Ok(()), "{good}");
        }
        // A one-letter account name must not make every password contain it.
        assert_eq!(Password::new("tulip Anchor 94 lamp").check_strength("a"), Ok(()));
    }

    #[test]
    fn composed_and_decomposed_forms_are_the_same_password() {
        assert_eq!(Password::new("e\u{301}te\u{301}").bytes(), Password::new("été").bytes());
    }
}
