//! `cluster`: for those who look after the servers.

mod add;
mod audit;
mod backup;
mod change;
mod events;
mod invite;
mod layout;
pub mod policy;
mod scrub;
mod status;
mod thaw;
mod token;
mod users;

use crate::context::Context;
use crate::failure::{Done, Failure, OK};
use crate::stop::unless_told;
use clap::Subcommand;
use client::Client;
use model::Result;
use std::collections::BTreeSet;

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Cluster {
    /// Is the data safe, and how are the servers?
    Status(status::StatusArgs),
    /// Take nodes in that have joined: a part of the data moves to them
    Add(add::AddArgs),
    /// Empty nodes: what they hold moves to the others
    Drain(add::DrainArgs),
    /// Forget a server for good; a node that still holds data counts as lost
    Remove(add::RemoveArgs),
    /// Which server holds what, and changes of it
    #[command(subcommand)]
    Layout(layout::LayoutCommand),
    /// Make a token with which a server joins
    Token(token::TokenArgs),
    /// Invite a user
    Invite(invite::InviteArgs),
    /// What happened: servers joined and lost, damage found, accounts made
    Events(events::EventsArgs),
    /// Check the log of events, or export it
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Write the catalog to a file that only a passphrase opens
    Backup(backup::BackupArgs),
    /// Make a fresh coordinator from a backup, on this machine
    Restore(backup::RestoreArgs),
    /// Show how a space is coded, or give it another policy
    Policy(policy::PolicyArgs),
    /// Who has an account, and how much it uses; disable, enable, or set a quota
    Users(users::UsersArgs),
    /// Check every shard on every node now
    Scrub(scrub::ScrubArgs),
    /// Release collection, after a restore or when nodes froze it
    Thaw(thaw::ThawArgs),
}

/// Runs it.
pub async fn run(cx: Context, command: Cluster) -> Result<Done, Failure> {
    let forever = match &command {
        Cluster::Status(args) => args.watch,
        Cluster::Events(args) => args.follow,
        _ => false,
    };
    let done = unless_told(async {
        match command {
            Cluster::Status(args) => status::run(cx, args).await,
            Cluster::Add(args) => add::add(cx, args).await,
            Cluster::Drain(args) => add::drain(cx, args).await,
            Cluster::Remove(args) => add::remove(cx, args).await,
            Cluster::Layout(command) => layout::run(cx, command).await,
            Cluster::Token(args) => token::run(cx, args).await,
            Cluster::Invite(args) => invite::run(cx, args).await,
            Cluster::Events(args) => events::run(cx, args).await,
            Cluster::Audit(args) => audit::run(cx, args).await,
            Cluster::Backup(args) => backup::backup(cx, args).await,
            Cluster::Restore(args) => backup::restore(cx, args).await,
            Cluster::Policy(args) => policy::run(cx, args).await,
            Cluster::Users(args) => users::run(cx, args).await,
            Cluster::Scrub(args) => scrub::run(cx, args).await,
            Cluster::Thaw(args) => thaw::run(cx, args).await,
        }
    });
    match done.await {
        // How else should it end?
        Err(Failure::Interrupted(_)) if forever => Ok(OK),
        done => done,
    }
}

/// Further nodes that may be lost, whichever, as `cluster status` counts them; `None` before
/// anything can be stored.
pub async fn survivable(client: &Client) -> Result<Option<u8>> {
    let status = client.status().await?;
    let layouts = client::status::Layouts::fetch(client, &status, Default::default()).await?;
    Ok(client::status::Report::of(&status, &layouts, &BTreeSet::new()).failures_survivable)
}
