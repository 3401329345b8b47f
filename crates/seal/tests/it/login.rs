//! OPAQUE between our client and a server that has no key stretching at all.

use crate::support::{CLUSTER, Stream, kind};
use model::{ClusterId, Kind};
use opaque_ke::{
    CipherSuite, CredentialFinalization, CredentialRequest, Identifiers, RegistrationRequest, RegistrationUpload, Ristretto255,
    ServerLogin, ServerLoginParameters, ServerRegistration, ServerSetup, TripleDh,
};
use seal::account::{new_account, unlock};
use seal::login::{LoggedIn, Login, Registered, Registration};
use seal::password::Password;

/// The server's suite: the client's but for the stretching, which servers never run.
struct ServerSuite;

impl CipherSuite for ServerSuite {
    type OprfCs = Ristretto255;
    type KeyExchange = TripleDh<Ristretto255, sha2::Sha512>;
    type Ksf = opaque_ke::ksf::Identity;
}

struct OldRng(Stream);

impl opaque_ke::rand::RngCore for OldRng {
    fn next_u32(&mut self) -> u32 {
        rand_core::Rng::next_u32(&mut self.0)
    }
    fn next_u64(&mut self) -> u64 {
        rand_core::Rng::next_u64(&mut self.0)
    }
    fn fill_bytes(&mut self, dest: &mut [u8]) {
        rand_core::Rng::fill_bytes(&mut self.0, dest);
    }
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), opaque_ke::rand::Error> {
        rand_core::Rng::fill_bytes(&mut self.0, dest);
        Ok(())
    }
}
impl opaque_ke::rand::CryptoRng for OldRng {}

const NAME: &str = "anna";
const PASSWORD: &str = "tulip Anchor 94 lamp";

fn parameters(cluster: &ClusterId) -> ServerLoginParameters<'static, '_> {
    ServerLoginParameters { context: None, identifiers: Identifiers { client: Some(NAME.as_bytes()), server: Some(cluster.as_bytes()) } }
}

/// A registration over the wire.
fn register(setup: &ServerSetup<ServerSuite>, rng: &mut Stream) -> Registered {
    let (registration, request) = Registration::start(Password::new(PASSWORD), NAME, rng).unwrap();
    let request = RegistrationRequest::deserialize(&request).unwrap();
    let response = ServerRegistration::start(setup, request, NAME.as_bytes()).unwrap().message.serialize();
    registration.finish(&response, CLUSTER, NAME, rng).unwrap()
}

/// A login over the wire: the client's end, and whether the server took KE3.
fn login(
    setup: &ServerSetup<ServerSuite>,
    record: Option<&[u8]>,
    password: &str,
    cluster: ClusterId,
    rng: &mut Stream,
) -> model::Result<LoggedIn> {
    let (login, request) = Login::start(Password::new(password), rng).unwrap();
    let record = record.map(|r| ServerRegistration::finish(RegistrationUpload::deserialize(r).unwrap()));
    let request = CredentialRequest::deserialize(&request).unwrap();
    let mut server_rng = OldRng(Stream::new("server"));
    let ke2 = ServerLogin::start(&mut server_rng, setup, record, request, NAME.as_bytes(), parameters(&CLUSTER)).unwrap();
    let logged_in = login.finish(&ke2.message.serialize(), cluster, NAME, rng)?;
    let ke3 = CredentialFinalization::deserialize(&logged_in.message).unwrap();
    ke2.state.finish(ke3, parameters(&CLUSTER)).unwrap();
    Ok(logged_in)
}

#[test]
fn register_log_in_unlock_and_be_refused() {
    let mut rng = Stream::new("opaque");
    let setup = ServerSetup::<ServerSuite>::new(&mut OldRng(Stream::new("setup")));
    let registered = register(&setup, &mut rng);
    let new = new_account(&registered, NAME, CLUSTER, &mut rng).unwrap();
    assert_eq!(new.account.login.opaque.as_slice(), registered.record);

    let good = login(&setup, Some(&registered.record), PASSWORD, CLUSTER, &mut rng).unwrap();
    let unlocked = unlock(&good.export_key, &new.account, CLUSTER).unwrap();
    assert_eq!(unlocked.fingerprint(), new.unlocked.fingerprint());

    // Wrong password, unknown name (the server's dummy answer), another cluster: one and the same.
    let wrong = login(&setup, Some(&registered.record), "tulip Anchor 94 lamq", CLUSTER, &mut rng).map(|_| ()).unwrap_err();
    let unknown = login(&setup, None, PASSWORD, CLUSTER, &mut rng).map(|_| ()).unwrap_err();
    let elsewhere = login(&setup, Some(&registered.record), PASSWORD, ClusterId([9; 16]), &mut rng).map(|_| ()).unwrap_err();
    assert_eq!(wrong.kind, Kind::Denied);
    assert_eq!(wrong, unknown);
    assert_eq!(wrong, elsewhere);
}

#[test]
fn garbage_from_the_coordinator_is_refused() {
    let mut rng = Stream::new("garbage answers");
    for len in [0, 1, 31, 32, 64, 191, 192, 320, 1000] {
        let garbage = rng.bytes(len);
        let (registration, _) = Registration::start(Password::new(PASSWORD), NAME, &mut rng).unwrap();
        assert_eq!(kind(registration.finish(&garbage, CLUSTER, NAME, &mut rng)), Kind::Corrupt, "{len}");
        let (login, _) = Login::start(Password::new(PASSWORD), &mut rng).unwrap();
        assert_eq!(kind(login.finish(&garbage, CLUSTER, NAME, &mut rng)), Kind::Corrupt, "{len}");
    }
    // The client's own blinded element, sent back to it.
    let (login, request) = Login::start(Password::new(PASSWORD), &mut rng).unwrap();
    let mut reflected = request[..32].to_vec();
    reflected.extend(rng.bytes(288));
    assert_eq!(kind(login.finish(&reflected, CLUSTER, NAME, &mut rng)), Kind::Corrupt);
}

#[test]
fn weak_passwords_are_not_registered() {
    let mut rng = Stream::new("weak");
    assert_eq!(kind(Registration::start(Password::new("anna-anna-1"), NAME, &mut rng)), Kind::Invalid);
}

/// Argon2id as RFC 9807 names it: checked against the RustCrypto defaults' own parameters, so that a
/// change of ours cannot pass unseen.
#[test]
fn attack_07_the_stretching_floor_is_compiled_in() {
    assert_eq!((seal::login::ARGON2_KIB, seal::login::ARGON2_PASSES), (65_536, 3));
    let input = opaque_ke::generic_array::GenericArray::<u8, opaque_ke::generic_array::typenum::U64>::default();
    let out = opaque_ke::ksf::Ksf::hash(&seal::login::Stretch, input).unwrap();
    let mut expected = [0u8; 64];
    argon2::Argon2::new(
        argon2::Algorithm::Argon2id,
        argon2::Version::V0x13,
        argon2::ParamsBuilder::new().m_cost(65_536).t_cost(3).p_cost(1).build().unwrap(),
    )
    .hash_password_into(&[0; 64], &[0; 16], &mut expected)
    .unwrap();
    assert_eq!(out.as_slice(), expected);
}
