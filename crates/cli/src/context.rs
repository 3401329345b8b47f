//! What every command has at hand: the world, where profiles are, and how to print.

use crate::args::Global;
use crate::failure::Failure;
use crate::out::Out;
use client::{Client, ClientOptions, Profile};
use env::Env;
use model::{Policy, Result};
use std::path::PathBuf;

/// What every command has at hand.
#[derive(Clone)]
pub struct Context {
    pub env: Env,
    /// Folder of profiles.
    pub home: PathBuf,
    profile: String,
    pub out: Out,
}

impl Context {
    pub fn new(global: &Global, out: Out) -> Result<Self, Failure> {
        let home = match &global.home {
            Some(home) => home.clone(),
            None => std::env::home_dir().ok_or_else(|| Failure::usage("there is no home folder: say --home DIR"))?.join(".shardkeep"),
        };
        Ok(Context { env: env::real::env(), home, profile: global.profile.clone(), out })
    }

    /// The same with another folder of profiles.
    pub fn at_home(&self, home: PathBuf) -> Self {
        Context { home, ..self.clone() }
    }

    /// The profile chosen.
    pub fn profile(&self) -> Result<Profile> {
        Profile::new(self.env.clone(), &self.home, &self.profile)
    }

    /// The name of the profile chosen.
    pub fn profile_name(&self) -> &str {
        &self.profile
    }

    /// Whoever is logged in.
    pub async fn client(&self) -> Result<Client> {
        self.client_with(None).await
    }

    /// The same, with a policy for new files.
    pub async fn client_with(&self, policy: Option<Policy>) -> Result<Client> {
        self.client_of(ClientOptions { policy, ..Default::default() }).await
    }

    /// The same, with all options.
    pub async fn client_of(&self, options: ClientOptions) -> Result<Client> {
        let client = Client::open(self.profile()?, options).await?;
        // What lies in the outbox since this machine was last on.
        if let Err(e) = crate::queue::wake(self).await {
            tracing::warn!(error = %e, "the agent of the outbox could not be started");
        }
        Ok(client)
    }
}
