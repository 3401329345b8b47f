//! The server's half of OPAQUE (RFC 9807): registration answers, KE2, and the check of KE3.
//!
//! The suite is that of the clients but for the key stretching function, which only clients run.
//! Identities under the key exchange: the client is its canonical account name (the credential
//! identifier too), the server the cluster's id; the context is empty. Unknown names take opaque-ke's
//! dummy record: same cost, same shape of answer.

use env::Env;
use model::{ClusterId, Error, Result};
use opaque_ke::rand::{CryptoRng, RngCore};
use opaque_ke::{
    CipherSuite, CredentialFinalization, CredentialRequest, Identifiers, RegistrationRequest, Ristretto255, ServerLogin,
    ServerLoginParameters, ServerRegistration, ServerSetup, TripleDh,
};

/// `TripleDh<Ristretto255, Sha512>`; servers never stretch a password.
pub struct Suite;

impl CipherSuite for Suite {
    type OprfCs = Ristretto255;
    type KeyExchange = TripleDh<Ristretto255, sha2::Sha512>;
    type Ksf = opaque_ke::ksf::Identity;
}

/// [`env::Rng`] as a generator of `rand_core` 0.6.
struct Random<'a>(&'a Env);

impl RngCore for Random<'_> {
    fn next_u32(&mut self) -> u32 {
        u32::from_le_bytes(self.0.random())
    }
    fn next_u64(&mut self) -> u64 {
        u64::from_le_bytes(self.0.random())
    }
    fn fill_bytes(&mut self, dest: &mut [u8]) {
        self.0.rng.fill(dest);
    }
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), opaque_ke::rand::Error> {
        self.0.rng.fill(dest);
        Ok(())
    }
}
impl CryptoRng for Random<'_> {}

/// The cluster's OPAQUE keys.
pub struct Opaque {
    setup: ServerSetup<Suite>,
    cluster: ClusterId,
}

/// A login between KE2 and KE3. Secret; lives in memory only.
pub struct Pending(ServerLogin<Suite>);

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pending(…)")
    }
}

impl Opaque {
    /// Fresh keys for a new cluster, as bytes for the catalog. Made once: every registration
    /// depends on them.
    pub fn make(env: &Env) -> Vec<u8> {
        ServerSetup::<Suite>::new(&mut Random(env)).serialize().to_vec()
    }

    /// From the catalog's bytes.
    pub fn load(setup: &[u8], cluster: ClusterId) -> Result<Self> {
        let setup = ServerSetup::deserialize(setup).map_err(|_| Error::corrupt("the catalog's OPAQUE setup cannot be read"))?;
        Ok(Opaque { setup, cluster })
    }

    /// Answers a registration request under the (canonical) account name.
    pub fn register(&self, name: &str, request: &[u8]) -> Result<Vec<u8>> {
        let bad = || Error::invalid("not a registration request");
        let request = RegistrationRequest::<Suite>::deserialize(request).map_err(|_| bad())?;
        let started = ServerRegistration::<Suite>::start(&self.setup, request, name.as_bytes()).map_err(|_| bad())?;
        Ok(started.message.serialize().to_vec())
    }

    /// `Invalid` unless the bytes are a registration record.
    pub fn check_record(record: &[u8]) -> Result<()> {
        ServerRegistration::<Suite>::deserialize(record).map(|_| ()).map_err(|_| Error::invalid("not a registration record"))
    }

    /// KE2 for KE1. `record`: the account's registration record; `None` for an unknown name.
    pub fn start(&self, env: &Env, name: &str, record: Option<&[u8]>, ke1: &[u8]) -> Result<(Vec<u8>, Pending)> {
        let bad = || Error::invalid("not a login request");
        let request = CredentialRequest::<Suite>::deserialize(ke1).map_err(|_| bad())?;
        let record = match record {
            Some(bytes) => Some(
                ServerRegistration::<Suite>::deserialize(bytes)
                    .map_err(|_| Error::corrupt("a login record in the catalog cannot be read"))?,
            ),
            None => None,
        };
        let started = ServerLogin::start(&mut Random(env), &self.setup, record, request, name.as_bytes(), self.parameters(name))
            .map_err(|_| bad())?;
        Ok((started.message.serialize().to_vec(), Pending(started.state)))
    }

    /// Whether KE3 proves the password.
    pub fn finish(&self, pending: Pending, name: &str, ke3: &[u8]) -> bool {
        CredentialFinalization::<Suite>::deserialize(ke3).is_ok_and(|ke3| pending.0.finish(ke3, self.parameters(name)).is_ok())
    }

    fn parameters<'a>(&'a self, name: &'a str) -> ServerLoginParameters<'a, 'a> {
        ServerLoginParameters { context: None, identifiers: Identifiers { client: Some(name.as_bytes()), server: Some(&self.cluster.0) } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opaque_ke::{ClientLogin, ClientLoginFinishParameters, ClientRegistration, ClientRegistrationFinishParameters};
    use opaque_ke::{CredentialResponse, RegistrationResponse};

    const CLUSTER: ClusterId = ClusterId([7; 16]);
    const IDS: Identifiers<'static> = Identifiers { client: Some(b"ada"), server: Some(&[7; 16]) };

    fn server(env: &Env) -> Opaque {
        Opaque::load(&Opaque::make(env), CLUSTER).unwrap()
    }

    fn register(env: &Env, server: &Opaque, password: &[u8]) -> Vec<u8> {
        let start = ClientRegistration::<Suite>::start(&mut Random(env), password).unwrap();
        let answer = server.register("ada", &start.message.serialize()).unwrap();
        let parameters = ClientRegistrationFinishParameters::new(IDS, None);
        let answer = RegistrationResponse::deserialize(&answer).unwrap();
        start.state.finish(&mut Random(env), password, answer, parameters).unwrap().message.serialize().to_vec()
    }

    #[test]
    fn the_right_password_proves_itself_and_a_wrong_one_does_not() {
        let env = env::real::env();
        let server = server(&env);
        let record = register(&env, &server, b"correct horse");
        Opaque::check_record(&record).unwrap();
        for (password, good) in [(&b"correct horse"[..], true), (b"wrong", false)] {
            let start = ClientLogin::<Suite>::start(&mut Random(&env), password).unwrap();
            let (ke2, pending) = server.start(&env, "ada", Some(&record), &start.message.serialize()).unwrap();
            let parameters = ClientLoginFinishParameters::new(None, IDS, None);
            let ke2 = CredentialResponse::deserialize(&ke2).unwrap();
            match start.state.finish(&mut Random(&env), password, ke2, parameters) {
                Ok(finish) => assert!(good && server.finish(pending, "ada", &finish.message.serialize())),
                Err(_) => assert!(!good && !server.finish(pending, "ada", &[0; 64])),
            }
        }
    }

    #[test]
    fn an_unknown_name_is_answered_in_the_same_shape() {
        let env = env::real::env();
        let server = server(&env);
        let record = register(&env, &server, b"correct horse");
        let ke1 = ClientLogin::<Suite>::start(&mut Random(&env), b"x").unwrap().message.serialize();
        let (known, _) = server.start(&env, "ada", Some(&record), &ke1).unwrap();
        let (unknown, _) = server.start(&env, "nobody", None, &ke1).unwrap();
        assert_eq!(known.len(), unknown.len());
    }

    #[test]
    fn garbage_is_refused() {
        let env = env::real::env();
        let server = server(&env);
        for len in [0, 1, 31, 32, 64, 96, 128, 4096] {
            let garbage = vec![0xff; len];
            assert!(server.register("ada", &garbage).is_err());
            assert!(server.start(&env, "ada", None, &garbage).is_err());
            assert!(Opaque::check_record(&garbage).is_err());
            assert!(Opaque::load(&garbage, CLUSTER).is_err());
        }
    }
}
