//! Becoming somebody: registration, login, recovery by words, change of password.

use crate::connection::Cluster;
use crate::profile::{Profile, ProfileInfo, StoredSession};
use crate::session::{Client, ClientOptions};
use env::Env;
use model::account::canonical_name;
use model::{ClusterId, Error, Hash, RequestId, Result};
use seal::account::{NewAccount, Unlocked, login_record, new_account, open_root};
use seal::login::{Login, Registration};
use seal::password::Password;
use seal::recovery::RecoveryWords;
use transport::{InviteText, OneConnection, Target, Trust};
use wire::PROTOCOL;
use wire::coordinator::{
    Hello, LoginFinish, LoginFinishRequest, LoginFinishResponse, LoginStart, LoginStartRequest, LoginStartResponse, Logout, PasswordFinish,
    PasswordFinishRequest, PasswordStart, RecoverFinish, RecoverFinishRequest, RecoverStart, RecoverStartRequest, RecoverStartResponse,
    RegisterFinish, RegisterFinishRequest, RegisterStart, RegisterStartRequest, SessionResponse, WhoAmI,
};
use zeroize::Zeroizing;

const CALL: std::time::Duration = std::time::Duration::from_secs(30);

/// Where a cluster is, for a machine that does not know it yet.
pub struct Address {
    /// `host:port` of a coordinator.
    pub coordinator: String,
    /// BLAKE3 of the cluster's root certificate, as its operator told.
    pub fingerprint: Hash,
}

/// The account name that an invite is for.
pub fn invite_name(invite: &str) -> Result<String> {
    Ok(InviteText::parse(invite)?.name)
}

/// A coordinator reached by a first contact.
pub(crate) struct Contact {
    connection: OneConnection,
    /// Its root certificate, which has the fingerprint that was asked for.
    pub root: Vec<u8>,
    pub cluster: ClusterId,
    coordinators: Vec<String>,
}

pub(crate) async fn contact(env: &Env, trust: Trust, coordinators: Vec<String>) -> Result<Contact> {
    let cluster = Cluster::new(env, trust, coordinators, None, None)?;
    let coordinators = cluster.leader_first().await;
    let mut last = Error::unavailable("no coordinator is known");
    for address in &coordinators {
        let connected = cluster.pool().connect_once(&Target::coordinator(address.clone()), CALL).await;
        match connected {
            Err(e) if e.kind == model::Kind::Unavailable => last = e,
            Err(e) => return Err(e),
            Ok(mut connection) => {
                let hello = connection.rpc::<Hello>(&PROTOCOL, CALL).await?;
                PROTOCOL.check(hello.protocol)?;
                if hello.root.len() > 64 << 10 || Hash::of(&hello.root) != cluster.fingerprint() {
                    return Err(Error::denied("the coordinator's root certificate has another fingerprint than the one given"));
                }
                let root = hello.root.to_vec();
                return Ok(Contact { connection, root, cluster: hello.cluster, coordinators });
            }
        }
    }
    Err(Error::unavailable(format!("no coordinator answers ({}): {}", coordinators.join(", "), last.message)))
}

/// Trust and addresses: from what the user said, else from the profile.
fn known(profile: &Profile, address: Option<Address>) -> Result<(Trust, Vec<String>)> {
    match address {
        Some(a) => Ok((Trust::Fingerprint(a.fingerprint), vec![a.coordinator])),
        None => {
            let info = profile.info()?;
            Ok((Trust::Root(info.root.to_vec()), info.coordinators))
        }
    }
}

fn fresh_request(env: &Env) -> RequestId {
    RequestId::new(env.now_ms(), env.random())
}

impl Contact {
    /// Saves profile and session, and opens the client.
    async fn finish(self, profile: Profile, session: SessionResponse, unlocked: Unlocked, options: ClientOptions) -> Result<Client> {
        let info = ProfileInfo::new(self.cluster, self.root, self.coordinators, unlocked.name().to_string());
        profile.save_info(&info)?;
        profile.save_session(&StoredSession::new(session.session, session.expires_ms, &unlocked.export_session()))?;
        Client::open(profile, options).await
    }
}

impl Client {
    /// Makes the account that an invite is for, and logs in. Returns the recovery words, to be shown
    /// once. `Invalid` for a weak password, `Denied` for an invite that is used up or expired.
    pub async fn register(profile: Profile, invite: &str, password: &str, options: ClientOptions) -> Result<(Client, Zeroizing<String>)> {
        let env = profile.env.clone();
        let invite = InviteText::parse(invite)?;
        let name = canonical_name(&invite.name)?;
        let mut rng = env.rand();
        let (registration, request) = Registration::start(Password::new(password), &name, &mut rng)?;
        let mut contact = contact(&env, Trust::Fingerprint(invite.root), invite.coordinators.clone()).await?;
        let secret_hash = Hash::of(&invite.secret);
        let start = RegisterStartRequest { invite: invite.id, secret_hash, request: request.into() };
        let answer = contact.connection.rpc::<RegisterStart>(&start, CALL).await?;
        if answer.name != name {
            return Err(Error::corrupt("the coordinator knows this invite under another name"));
        }
        let cluster = contact.cluster;
        let made = env
            .blocking({
                let name = name.clone();
                move || -> Result<NewAccount> {
                    let registered = registration.finish(&answer.response, cluster, &name, &mut rng)?;
                    new_account(&registered, &name, cluster, &mut rng)
                }
            })
            .await?;
        let finish =
            RegisterFinishRequest { invite: invite.id, secret_hash, request: fresh_request(&env), account: made.account, home: made.home };
        let session = contact.connection.rpc::<RegisterFinish>(&finish, CALL).await?;
        let words = made.words.words();
        let client = contact.finish(profile, session, made.unlocked, options).await?;
        Ok((client, words))
    }

    /// Logs in. `Denied` alike for a wrong password and an unknown name. `user` defaults to the
    /// profile's account; `address` is needed where the profile does not know the cluster.
    pub async fn login(
        profile: Profile,
        user: Option<&str>,
        address: Option<Address>,
        password: &str,
        options: ClientOptions,
    ) -> Result<Client> {
        let name = match user {
            Some(name) => canonical_name(name)?,
            None => profile.info()?.account,
        };
        let (trust, coordinators) = known(&profile, address)?;
        let mut contact = contact(&profile.env, trust, coordinators).await?;
        let (session, unlocked, _) = authenticate(&profile.env, &mut contact, &name, password).await?;
        contact.finish(profile, session, unlocked, options).await
    }

    /// Sets a new password with the recovery words, and logs in.
    pub async fn recover(
        profile: Profile,
        user: &str,
        address: Option<Address>,
        words: &str,
        password: &str,
        options: ClientOptions,
    ) -> Result<Client> {
        let env = profile.env.clone();
        let name = canonical_name(user)?;
        let words = RecoveryWords::parse(words)?;
        let mut rng = env.rand();
        let (registration, request) = Registration::start(Password::new(password), &name, &mut rng)?;
        let (trust, coordinators) = known(&profile, address)?;
        let mut contact = contact(&env, trust, coordinators).await?;
        let start = RecoverStartRequest { name: name.clone(), request: request.into() };
        let RecoverStartResponse { response, account } = contact.connection.rpc::<RecoverStart>(&start, CALL).await?;
        let root = words.open_root(&account)?;
        let unlocked = Unlocked::from_root(&root, &account, contact.cluster)?;
        let expect_n = account.login.n;
        let cluster = contact.cluster;
        let (id, fingerprint) = (account.id, account.identity.fingerprint());
        let login = env
            .blocking({
                let name = name.clone();
                move || -> Result<_> {
                    let registered = registration.finish(&response, cluster, &name, &mut rng)?;
                    Ok(login_record(&registered, id, fingerprint, expect_n + 1, &root, &mut rng))
                }
            })
            .await?;
        let (proof_body, proof) = words.prove(account.id, &contact.connection.binding().exporter, &login);
        let finish = RecoverFinishRequest { name, request: fresh_request(&env), expect_n, login, proof_body: proof_body.into(), proof };
        let session = contact.connection.rpc::<RecoverFinish>(&finish, CALL).await?;
        contact.finish(profile, session, unlocked, options).await
    }

    /// Changes the password, which takes the old one. Other sessions end.
    pub async fn change_password(&self, old: &str, new: &str) -> Result<()> {
        let env = self.env().clone();
        let info = self.profile().info()?;
        let mut contact = contact(&env, Trust::Root(info.root.to_vec()), info.coordinators).await?;
        let name = self.unlocked().name().to_string();
        let (session, unlocked, root) = authenticate(&env, &mut contact, &name, old).await?;
        let mut rng = env.rand();
        let (registration, request) = Registration::start(Password::new(new), &name, &mut rng)?;
        let token = session.session;
        let start = wire::Authed { session: token, request: request.into() };
        let response = contact.connection.rpc::<PasswordStart>(&start, CALL).await?;
        let (account, fingerprint, cluster) = (unlocked.account(), unlocked.fingerprint(), contact.cluster);
        let who = wire::Authed { session: token, request: () };
        let expect_n = contact.connection.rpc::<WhoAmI>(&who, CALL).await?.account.login.n;
        let login = env
            .blocking(move || -> Result<_> {
                let registered = registration.finish(&response, cluster, &name, &mut rng)?;
                Ok(login_record(&registered, account, fingerprint, expect_n + 1, &root, &mut rng))
            })
            .await?;
        let finish = PasswordFinishRequest { request: fresh_request(&env), expect_n, login, recovery: None };
        contact.connection.rpc::<PasswordFinish>(&wire::Authed { session: token, request: finish }, CALL).await?;
        self.profile().save_session(&StoredSession::new(token, session.expires_ms, &unlocked.export_session()))
    }
}

/// OPAQUE over one connection: a session, the account opened, and its root key.
async fn authenticate(
    env: &Env,
    contact: &mut Contact,
    name: &str,
    password: &str,
) -> Result<(SessionResponse, Unlocked, seal::keys::RootKey)> {
    let mut rng = env.rand();
    let (login, ke1) = Login::start(Password::new(password), &mut rng)?;
    let start = LoginStartRequest { name: name.to_string(), ke1: ke1.into() };
    let LoginStartResponse { login: id, ke2 } = contact.connection.rpc::<LoginStart>(&start, CALL).await?;
    let (cluster, owned) = (contact.cluster, name.to_string());
    let logged_in = env.blocking(move || login.finish(&ke2, cluster, &owned, &mut rng)).await?;
    let finish = LoginFinishRequest { login: id, ke3: logged_in.message.into() };
    let LoginFinishResponse { session, account } = contact.connection.rpc::<LoginFinish>(&finish, CALL).await?;
    if account.name != name {
        return Err(Error::corrupt("the coordinator answered with another account"));
    }
    let root = open_root(&logged_in.export_key, &account)?;
    let unlocked = Unlocked::from_root(&root, &account, cluster)?;
    Ok((session, unlocked, root))
}

/// Ends a session on the server.
pub(crate) async fn logout(cluster: &Cluster) -> Result<()> {
    cluster.authed::<Logout, _>(()).await
}
