//! Registration with an invite, change of password, and recovery by words: everything that
//! replaces a login record. Each of them answers an OPAQUE evaluation, by which a password could be
//! guessed; so each counts like a login.

use super::dummy;
use super::login::{name_of, shown};
use super::opaque::Opaque;
use super::state::{State, confused};
use minicbor::bytes::ByteVec;
use model::account::{Invite, RecoverBody};
use model::command::{Answer, Command, Query};
use model::{Error, Hash, InviteId, Result, cbor, signed};
use std::net::IpAddr;
use wire::SessionToken;
use wire::coordinator::{
    PasswordFinishRequest, RecoverFinishRequest, RecoverStartRequest, RecoverStartResponse, RegisterFinishRequest, RegisterStartRequest,
    RegisterStartResponse, SessionResponse,
};

impl State {
    pub async fn register_start(&self, request: RegisterStartRequest, address: IpAddr) -> Result<RegisterStartResponse> {
        self.count_attempt(&request.invite.to_string(), address)?;
        let invite = self.invite(request.invite, &request.secret_hash).await?;
        // Whoever evaluates the function for a name that is taken could test guesses of that password.
        if self.account_by_name(&invite.name).await?.is_some() {
            return Err(Error::exists(format!("there is an account '{}' already", invite.name)));
        }
        // Not given back here: nobody may evaluate it again and again before the name is taken either.
        let response = self.opaque.register(&invite.name, &request.request)?.into();
        Ok(RegisterStartResponse { name: invite.name, response })
    }

    pub async fn register_finish(&self, request: RegisterFinishRequest, address: IpAddr) -> Result<SessionResponse> {
        let RegisterFinishRequest { invite, secret_hash, request, account, home } = request;
        self.count_attempt(&invite.to_string(), address)?;
        Opaque::check_record(&account.login.opaque)?;
        let name = account.name.clone();
        let account = Box::new(account);
        // The catalog checks invite, secret, name and signatures: it alone knows their order.
        self.propose(request, None, Command::Register { invite, secret_hash, account, home }).await?;
        {
            let mut memory = self.memory();
            memory.backoff.refund(&invite.to_string(), address);
            memory.backoff.refund(&invite.to_string(), address); // the one of `register_start`
        }
        let account = self.account_by_name(&name).await?.ok_or_else(confused)?;
        tracing::info!(account = account.name, "account registered");
        self.open_session(&account, true).await
    }

    /// The invite, if its secret is known to the asker. One answer to everything else.
    async fn invite(&self, id: InviteId, secret_hash: &Hash) -> Result<Invite> {
        let Answer::Invite(invite) = self.ask(Query::Invite(id)).await? else { return Err(confused()) };
        invite
            .filter(|i| same(&i.secret_hash, secret_hash) && i.expires_ms > self.now_ms())
            .ok_or_else(|| Error::denied("this invite is not valid: it was used, has expired, or is mistyped"))
    }

    pub async fn password_start(&self, token: SessionToken, request: ByteVec, address: IpAddr) -> Result<ByteVec> {
        let who = self.who(&token).await?;
        self.check_fresh(&token)?;
        self.count_attempt(&who.name, address)?;
        Ok(self.opaque.register(&who.name, &request)?.into())
    }

    pub async fn password_finish(&self, token: SessionToken, request: PasswordFinishRequest, address: IpAddr) -> Result<()> {
        let who = self.who(&token).await?;
        self.check_fresh(&token)?;
        let PasswordFinishRequest { request, expect_n, login, recovery } = request;
        Opaque::check_record(&login.opaque)?;
        let command = Command::ReplaceLogin { account: who.account, expect_n, login, recovery, proof: None };
        self.propose(request, Some(who.account), command).await?;
        self.memory().backoff.refund(&who.name, address);
        self.memory().sessions.forget_account(who.account);
        Ok(())
    }

    fn check_fresh(&self, token: &SessionToken) -> Result<()> {
        if self.is_fresh(token) {
            return Ok(());
        }
        Err(Error::denied("changing the password needs a fresh login").hint("shardkeep login"))
    }

    pub async fn recover_start(&self, request: RecoverStartRequest, address: IpAddr) -> Result<RecoverStartResponse> {
        let name = name_of(&request.name)?;
        self.count_attempt(&name, address)?;
        // Made in either case, so that both take the same time.
        let dummy = dummy::account(&self.dummies, &name);
        let account = self.account_by_name(&name).await?.filter(|a| !a.disabled).map_or(dummy, |a| *a);
        let response = self.opaque.register(&name, &request.request)?.into();
        Ok(RecoverStartResponse { response, account: shown(account) })
    }

    pub async fn recover_finish(&self, request: RecoverFinishRequest, binding: &[u8; 32], address: IpAddr) -> Result<SessionResponse> {
        let denied = || Error::denied("these are not the recovery words of this account");
        let RecoverFinishRequest { name, request, expect_n, login, proof_body, proof } = request;
        let name = name_of(&name)?;
        // Not counted: `recover_start` was, and here nothing can be learnt of a password.
        let body: RecoverBody = cbor::from_canonical(&proof_body).map_err(|_| denied())?;
        let account = self.account_by_name(&name).await?.filter(|a| !a.disabled).ok_or_else(denied)?;
        signed::verify(&account.recovery.rec_auth, "recover", &proof_body, &proof).map_err(|_| denied())?;
        let bound =
            RecoverBody { account: account.id, binding: binding.to_vec().into(), login: Hash::of(&cbor::to_vec(&login)), n: login.n };
        if body != bound {
            return Err(denied());
        }
        Opaque::check_record(&login.opaque)?;
        let command = Command::ReplaceLogin { account: account.id, expect_n, login, recovery: None, proof: Some((proof_body, proof)) };
        self.propose(request, None, command).await?;
        {
            let mut memory = self.memory();
            memory.backoff.refund(&name, address); // the one of `recover_start`
            memory.sessions.forget_account(account.id);
        }
        tracing::info!(account = account.name, "account recovered by words");
        self.open_session(&account, true).await
    }
}

/// Whether two hashes are the same, in a time that does not tell where they differ.
fn same(a: &Hash, b: &Hash) -> bool {
    blake3::Hash::from_bytes(a.0) == blake3::Hash::from_bytes(b.0)
}
