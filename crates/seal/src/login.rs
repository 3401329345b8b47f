//! The client's side of OPAQUE (RFC 9807): the server never sees the password, nor anything from
//! which it could be tested without guessing through Argon2id.
//!
//! Suite: ristretto255-SHA512, 3DH, Argon2id. The key stretching runs on the client alone, so a
//! server uses the same suite with `ksf::Identity` and the messages are the same (see
//! `tests/login.rs`). Both sides name the parties: the client by its canonical account name (which
//! is the credential identifier too), the server by the cluster's id. The OPAQUE context is empty.

use crate::keys::ExportKey;
use crate::password::Password;
use argon2::{Algorithm, Argon2, Params, Version};
use model::{ClusterId, Error, Result};
use opaque_ke::errors::{InternalError, ProtocolError};
use opaque_ke::generic_array::{ArrayLength, GenericArray};
use opaque_ke::{
    CipherSuite, ClientLogin, ClientLoginFinishParameters, ClientRegistration, ClientRegistrationFinishParameters, CredentialResponse,
    Identifiers, RegistrationResponse, Ristretto255, TripleDh,
};
use rand_core::CryptoRng;
use zeroize::Zeroize;

/// Argon2id of 64 MiB, three passes, one lane: the floor, compiled in. No server can lower it.
/// As in RFC 9807 §7 the salt is 16 zero bytes: the input is an OPRF output, salted already.
#[derive(Default)]
pub struct Stretch;

/// Memory of [`Stretch`], in KiB.
pub const ARGON2_KIB: u32 = 64 << 10;
/// Passes of [`Stretch`].
pub const ARGON2_PASSES: u32 = 3;

impl opaque_ke::ksf::Ksf for Stretch {
    fn hash<L: ArrayLength<u8>>(&self, input: GenericArray<u8, L>) -> Result<GenericArray<u8, L>, InternalError> {
        let params = Params::new(ARGON2_KIB, ARGON2_PASSES, 1, None).map_err(|_| InternalError::KsfError)?;
        let mut output = GenericArray::default();
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(&input, &[0; 16], &mut output)
            .map_err(|_| InternalError::KsfError)?;
        Ok(output)
    }
}

/// The client's suite.
pub struct Suite;

impl CipherSuite for Suite {
    type OprfCs = Ristretto255;
    type KeyExchange = TripleDh<Ristretto255, sha2::Sha512>;
    type Ksf = Stretch;
}

/// A registration (or change of password) under way: between the two messages.
pub struct Registration {
    state: ClientRegistration<Suite>,
    password: Password,
}

/// What a finished registration gives.
pub struct Registered {
    /// The OPAQUE record for the server (`LoginRecord::opaque`).
    pub record: Vec<u8>,
    /// Wraps the root key.
    pub export_key: ExportKey,
}

impl Registration {
    /// Begins, and gives the `RegistrationRequest` to send. Refuses weak passwords (`Invalid`).
    pub fn start(password: Password, name: &str, rng: &mut impl CryptoRng) -> Result<(Self, Vec<u8>)> {
        password.check_strength(name)?;
        let started = ClientRegistration::<Suite>::start(&mut Old(rng), password.bytes()).map_err(client_side)?;
        let message = started.message.serialize().to_vec();
        Ok((Registration { state: started.state, password }, message))
    }

    /// Ends with the server's `RegistrationResponse`. Takes about 0.1 s and 64 MiB.
    pub fn finish(self, response: &[u8], cluster: ClusterId, name: &str, rng: &mut impl CryptoRng) -> Result<Registered> {
        let response = RegistrationResponse::deserialize(response).map_err(|_| malformed())?;
        let params = ClientRegistrationFinishParameters::new(identifiers(&cluster, name), None);
        let mut done = self.state.finish(&mut Old(rng), self.password.bytes(), response, params).map_err(client_side)?;
        let export_key = ExportKey::from_slice(&done.export_key).ok_or_else(malformed)?;
        done.export_key.zeroize();
        Ok(Registered { record: done.message.serialize().to_vec(), export_key })
    }
}

/// A login under way: between KE1 and KE3.
pub struct Login {
    state: ClientLogin<Suite>,
    password: Password,
}

/// What a good login gives.
pub struct LoggedIn {
    /// KE3 (`CredentialFinalization`), to send: it proves to the server that the password was right.
    pub message: Vec<u8>,
    /// Unwraps the root key.
    pub export_key: ExportKey,
}

impl Login {
    /// Begins, and gives KE1 (`CredentialRequest`) to send.
    pub fn start(password: Password, rng: &mut impl CryptoRng) -> Result<(Self, Vec<u8>)> {
        let started = ClientLogin::<Suite>::start(&mut Old(rng), password.bytes()).map_err(client_side)?;
        let message = started.message.serialize().to_vec();
        Ok((Login { state: started.state, password }, message))
    }

    /// Ends with the server's KE2 (`CredentialResponse`). `Denied` alike for a wrong password, an
    /// unknown name, and a server that does not hold the registered keys.
    pub fn finish(self, response: &[u8], cluster: ClusterId, name: &str, rng: &mut impl CryptoRng) -> Result<LoggedIn> {
        let response = CredentialResponse::deserialize(response).map_err(|_| malformed())?;
        let params = ClientLoginFinishParameters::new(None, identifiers(&cluster, name), None);
        let mut done = self.state.finish(&mut Old(rng), self.password.bytes(), response, params).map_err(client_side)?;
        let export_key = ExportKey::from_slice(&done.export_key).ok_or_else(malformed)?;
        done.export_key.zeroize();
        done.session_key.zeroize();
        Ok(LoggedIn { message: done.message.serialize().to_vec(), export_key })
    }
}

/// How both sides name themselves in OPAQUE.
fn identifiers<'a>(cluster: &'a ClusterId, name: &'a str) -> Identifiers<'a> {
    Identifiers { client: Some(name.as_bytes()), server: Some(cluster.as_bytes()) }
}

fn malformed() -> Error {
    Error::corrupt("the coordinator's login answer is malformed")
}

fn client_side(e: ProtocolError) -> Error {
    match e {
        ProtocolError::InvalidLoginError => Error::denied("wrong account name or password"),
        ProtocolError::LibraryError(InternalError::KsfError) => {
            Error::new(model::Kind::Insufficient, "not enough memory to stretch the password: 64 MiB are needed")
        }
        ProtocolError::LibraryError(_) => Error::invalid("this password cannot be used"),
        _ => malformed(),
    }
}

/// A `rand_core` 0.10 generator as opaque-ke (0.6) wants it.
struct Old<'r, R>(&'r mut R);

impl<R: CryptoRng> opaque_ke::rand::RngCore for Old<'_, R> {
    fn next_u32(&mut self) -> u32 {
        self.0.next_u32()
    }
    fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }
    fn fill_bytes(&mut self, dest: &mut [u8]) {
        self.0.fill_bytes(dest);
    }
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), opaque_ke::rand::Error> {
        self.0.fill_bytes(dest);
        Ok(())
    }
}

impl<R: CryptoRng> opaque_ke::rand::CryptoRng for Old<'_, R> {}
