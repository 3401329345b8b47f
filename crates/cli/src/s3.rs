//! `s3`: the gateway for tools that speak S3, and the keys by which they prove themselves to it.

use crate::context::Context;
use crate::failure::{Done, Failure, OK};
use crate::serve::End;

use crate::units;
use clap::{Args, Subcommand};
use client::{GatewayKey, RemotePath};
use env::DiskExt;
use model::{Error, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

/// `s3`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct S3 {
    #[command(subcommand)]
    pub command: Option<S3Command>,
    #[command(flatten)]
    pub serve: ServeS3,
}

/// What there is beside serving.
#[derive(Debug, Subcommand)]
pub enum S3Command {
    /// Access keys of this account's gateways
    #[command(subcommand)]
    Key(KeyCommand),
}

/// `s3 key`.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make an access key
    Create(CreateArgs),
    /// List the access keys
    List,
    /// End an access key: running gateways refuse it within 10 s
    Revoke(RevokeArgs),
}

/// `s3 key create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// It may read only
    #[arg(long)]
    pub read_only: bool,
    /// It is for this bucket only; may be given several times
    #[arg(long = "bucket", value_name = "NAME")]
    pub buckets: Vec<String>,
    /// What you call it
    #[arg(long, value_name = "TEXT")]
    pub label: Option<String>,
}

/// `s3 key revoke`.
#[derive(Debug, Args)]
pub struct RevokeArgs {
    /// The access key
    #[arg(value_name = "KEY")]
    pub key: String,
}

/// The gateway.
#[derive(Debug, Args)]
pub struct ServeS3 {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:9000", value_name = "HOST:PORT")]
    pub listen: String,
    /// A bucket that is a folder elsewhere than below /s3, such as photos=/Shared/ann/Photos; may be given several
    /// times
    #[arg(long = "bucket", value_name = "NAME=PATH", value_parser = mapped)]
    pub buckets: Vec<(String, RemotePath)>,
    /// A domain below which buckets are hosts (BUCKET.DOMAIN); may be given several times
    #[arg(long = "domain", default_value = "localhost", value_name = "DOMAIN")]
    pub domains: Vec<String>,
    /// The region that it says it is in
    #[arg(long, default_value = "us-east-1", value_name = "NAME")]
    pub region: String,
    /// Certificate chain (PEM): TLS, needed beyond this machine
    #[arg(long, requires = "tls_key", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, requires = "tls_cert", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Serve others without TLS: what they store and fetch crosses the network readable
    #[arg(long, conflicts_with = "tls_cert")]
    pub plain_http: bool,
    /// Settle for k shards where the write quorum does not answer, for everything that is stored
    #[arg(long)]
    pub allow_degraded: bool,
    /// Stop when standard input ends
    #[arg(long, hide = true)]
    pub until_stdin_ends: bool,
}

fn mapped(text: &str) -> Result<(String, RemotePath), String> {
    let (name, path) = text.split_once('=').ok_or("say NAME=PATH")?;
    if !s3::is_bucket_name(name) {
        return Err(format!("'{name}' is no name of a bucket: 3 to 63 of a-z, 0-9, '-' and '.'"));
    }
    Ok((name.into(), RemotePath::parse(path).map_err(|e| e.message)?))
}

/// Serves, or looks after keys.
pub async fn run(cx: Context, args: S3) -> Result<Done, Failure> {
    match args.command {
        None => serve(cx, args.serve).await,
        Some(S3Command::Key(KeyCommand::Create(args))) => create(cx, args).await,
        Some(S3Command::Key(KeyCommand::List)) => list(cx).await,
        Some(S3Command::Key(KeyCommand::Revoke(args))) => revoke(cx, args).await,
    }
}

async fn serve(cx: Context, args: ServeS3) -> Result<Done, Failure> {
    let mut end = End::new(&cx.env, args.until_stdin_ends);
    if args.tls_cert.is_none() && !args.plain_http && !is_loopback(&args.listen)? {
        return Err(Failure::usage(format!(
            "{} can be reached by others: give --tls-cert and --tls-key, or --plain-http where something else encrypts",
            args.listen
        )));
    }
    let tls = match (&args.tls_cert, &args.tls_key) {
        (Some(chain), Some(key)) => Some((read(&cx, chain).await?, read(&cx, key).await?)),
        _ => None,
    };
    let client = match end.or(cx.client()).await {
        Some(client) => client?,
        None => return Ok(OK),
    };
    let account = client.whoami().await?.account;
    let keys = client.gateway_keys().await?.len();
    let config = s3::Config {
        listen: args.listen,
        tls,
        buckets: args.buckets.into_iter().collect::<BTreeMap<_, _>>(),
        domains: args.domains,
        region: args.region,
        account,
        allow_degraded: args.allow_degraded,
    };
    let running = s3::serve(client, config).await?;
    let ready = json!({ "ready": true, "role": "s3", "address": running.address, "url": running.url });
    let mut text = format!("{} S3 gateway serves at {}", cx.out.green("✓"), cx.out.bold(&running.url));
    if keys == 0 {
        text += "\n  there is no access key yet: shardkeep s3 key create";
    }
    cx.out.answer(&ready, &text);
    end.wait().await;
    cx.out.note("stopping …");
    running.stop().await;
    Ok(OK)
}

fn is_loopback(listen: &str) -> Result<bool, Failure> {
    let addresses: Vec<SocketAddr> = listen.to_socket_addrs().map_err(|e| Failure::usage(format!("--listen {listen}: {e}")))?.collect();
    Ok(!addresses.is_empty() && addresses.iter().all(|a| a.ip().is_loopback()))
}

async fn read(cx: &Context, file: &Path) -> Result<Vec<u8>, Failure> {
    let (disk, path) = (cx.env.disk.clone(), file.to_path_buf());
    let bytes = cx.env.blocking(move || disk.read(&path)).await;
    bytes.map_err(|e| Error::not_found(format!("{} cannot be read: {e}", file.display())).into())
}

async fn create(cx: Context, args: CreateArgs) -> Result<Done, Failure> {
    if let Some(bad) = args.buckets.iter().find(|b| !s3::is_bucket_name(b)) {
        return Err(Failure::usage(format!("'{}' is no name of a bucket", bad.escape_debug())));
    }
    let client = cx.client().await?;
    let key = client
        .create_gateway_key(|key| {
            key.read_only = args.read_only;
            key.buckets = Some(args.buckets.clone()).filter(|b| !b.is_empty());
            key.label = args.label.clone();
        })
        .await?;
    if cx.out.json() {
        cx.out.object(&json!({ "access_key": key.id, "secret_key": key.secret() }));
        return Ok(OK);
    }
    cx.out.line(&format!("Access key: {}\nSecret key: {}", key.id, key.secret()));
    cx.out.note(&format!("It may {}. The secret is not shown again.", rights(&key)));
    Ok(OK)
}

fn rights(key: &GatewayKey) -> String {
    let what = if key.read_only { "read" } else { "read and write" };
    match &key.buckets {
        Some(buckets) => format!("{what} {}", buckets.join(", ")),
        None => format!("{what} all buckets"),
    }
}

fn document(key: &GatewayKey) -> Value {
    json!({
        "access_key": key.id,
        "read_only": key.read_only,
        "buckets": key.buckets,
        "created": units::rfc3339_ms(key.created_ms),
        "label": key.label,
    })
}

async fn list(cx: Context) -> Result<Done, Failure> {
    let keys = cx.client().await?.gateway_keys().await?;
    if cx.out.json() {
        keys.iter().for_each(|key| cx.out.object(&document(key)));
        return Ok(OK);
    }
    if keys.is_empty() {
        cx.out.note("There are no access keys: shardkeep s3 key create");
    }
    for key in &keys {
        let label = key.label.as_deref().map(|l| format!("  {}", crate::safe::safe(l))).unwrap_or_default();
        cx.out.line(&format!("{}  {}  may {}{label}", key.id, units::rfc3339_ms(key.created_ms), rights(key)));
    }
    Ok(OK)
}

async fn revoke(cx: Context, args: RevokeArgs) -> Result<Done, Failure> {
    cx.client().await?.revoke_gateway_key(&args.key).await?;
    if cx.out.json() {
        cx.out.object(&json!({ "revoked": args.key }));
    } else {
        cx.out.note(&format!("{} is revoked: running gateways refuse it within 10 s.", args.key));
    }
    Ok(OK)
}
