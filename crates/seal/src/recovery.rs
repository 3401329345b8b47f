//! Recovery without the password: 24 words, shown once, that unwrap the root key and authorise the
//! replacement of the password record.

use crate::keys::{RecoveryKey, RootKey, SigningKey, derive};
use crate::primitive;
use bip39::{Language, Mnemonic};
use model::account::{Account, LoginRecord, RecoverBody, RecoveryRecord};
use model::{AccountId, Error, Hash, PublicKey, Result, Signature, cbor};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

/// The entropy W of 24 BIP39 words (English list).
pub struct RecoveryWords(RecoveryKey);

impl RecoveryWords {
    /// Fresh words.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        RecoveryWords(RecoveryKey::generate(rng))
    }

    /// Reads 24 words in any case and spacing; `Invalid` when a word or the checksum is wrong.
    pub fn parse(typed: &str) -> Result<Self> {
        let words = Zeroizing::new(typed.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>().join(" "));
        let mnemonic = Mnemonic::parse_in_normalized(Language::English, &words).map_err(|e| match e {
            bip39::Error::UnknownWord(i) => Error::invalid(format!("recovery word {} is not in the list", i + 1)),
            bip39::Error::BadWordCount(n) => Error::invalid(format!("24 recovery words are needed, there are {n}")),
            bip39::Error::InvalidChecksum => Error::invalid("the recovery words do not fit together: one is wrong or out of order"),
            _ => Error::invalid("these are no recovery words"),
        })?;
        let (mut entropy, len) = mnemonic.to_entropy_array();
        let key = entropy.get(..len).and_then(RecoveryKey::from_slice);
        zeroize::Zeroize::zeroize(&mut entropy);
        key.map(RecoveryWords).ok_or_else(|| Error::invalid(format!("24 recovery words are needed, there are {}", mnemonic.word_count())))
    }

    /// The words, separated by blanks: to be shown once, with a warning, and never stored.
    pub fn words(&self) -> Zeroizing<String> {
        let mnemonic = Mnemonic::from_entropy_in(Language::English, self.0.bytes()).expect("32 bytes are 24 words");
        let mut text = Zeroizing::new(String::with_capacity(24 * 9));
        for (i, word) in mnemonic.words().enumerate() {
            if i > 0 {
                text.push(' ');
            }
            text.push_str(word);
        }
        text
    }

    /// The key that signs with the words' authority: Ed25519 of `Derive(W, "rec-auth")`.
    fn auth(&self) -> SigningKey {
        let mut seed = Zeroizing::new([0u8; 32]);
        derive(self.0.bytes(), b"rec-auth", seed.as_mut_slice());
        SigningKey::from_seed(&seed)
    }

    /// Its public half, as registered in [`RecoveryRecord::rec_auth`].
    pub fn auth_key(&self) -> PublicKey {
        self.auth().public()
    }

    /// Record `n` for the server: the root key sealed under the words, and their public key.
    pub fn record(&self, account: AccountId, fingerprint: Hash, n: u64, root: &RootKey, rng: &mut impl CryptoRng) -> RecoveryRecord {
        let wrap = primitive::seal(&self.0.sealing("rec-wrap"), &rec_wrap_context(account, fingerprint, n), root.bytes(), rng);
        RecoveryRecord { rec_wrap: wrap.into(), rec_auth: self.auth_key(), n }
    }

    /// Opens an account's root key. `Denied` when these are not the account's words, `Corrupt`
    /// when they are and the record was changed.
    pub fn open_root(&self, account: &Account) -> Result<RootKey> {
        if self.auth_key() != account.recovery.rec_auth {
            return Err(Error::denied("these are not the recovery words of this account"));
        }
        let context = rec_wrap_context(account.id, account.identity.fingerprint(), account.recovery.n);
        let root = primitive::open(&self.0.sealing("rec-wrap"), &context, &account.recovery.rec_wrap)?;
        RootKey::from_slice(&root).ok_or_else(|| Error::corrupt("the recovery record holds no root key"))
    }

    /// Authorises the replacement of the password record, on this connection only: body and its
    /// signature of type `"recover"`, for `Command::ReplaceLogin::proof`. `binding` is the
    /// connection's TLS exporter.
    pub fn prove(&self, account: AccountId, binding: &[u8], login: &LoginRecord) -> (Vec<u8>, Signature) {
        let body = RecoverBody { account, binding: binding.to_vec().into(), login: Hash::of(&cbor::to_vec(login)), n: login.n };
        let body = cbor::to_vec(&body);
        let signature = self.auth().sign("recover", &body);
        (body, signature)
    }
}

fn rec_wrap_context(account: AccountId, fingerprint: Hash, n: u64) -> Vec<u8> {
    cbor::to_vec(&("rec-wrap", account, fingerprint, n))
}
