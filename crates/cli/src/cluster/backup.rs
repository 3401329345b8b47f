//! `cluster backup` and `cluster restore`: the catalog as a file that only a passphrase opens, and a fresh
//! coordinator from it.

use crate::context::Context;
use crate::failure::{Done, Failure, OK};
use crate::local;
use crate::meter::Meter;
use crate::password::{self, Secret};
use crate::units;
use clap::Args;
use client::BackupReader;
use model::{Error, Result};
use serde_json::json;
use server::coordinator::Restored;
use std::path::{Path, PathBuf};

/// `cluster backup`.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// New file to write
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Read the passphrase from this file (a line break at its end is left out)
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Also of a damaged catalog: where there is no other one, better than nothing
    #[arg(long)]
    pub damaged: bool,
}

/// `cluster restore`.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The backup; or else --from-node
    #[arg(value_name = "FILE", required_unless_present = "from_node", conflicts_with = "from_node")]
    pub file: Option<PathBuf>,
    /// Take the newest snapshot that a lone coordinator left on these nodes
    #[arg(long, value_name = "HOST:PORT", num_args = 1.., requires = "recovery_key")]
    pub from_node: Vec<String>,
    /// Copy of the lost coordinator's DIR/recovery-key, for --from-node
    #[arg(long, value_name = "FILE", requires = "from_node")]
    pub recovery_key: Option<PathBuf>,
    /// Empty folder for the new coordinator, on this machine
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// Read the passphrase from this file (a line break at its end is left out)
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
}

pub async fn backup(cx: Context, args: BackupArgs) -> Result<Done, Failure> {
    let client = cx.client().await?;
    if cx.env.disk.try_exists(&args.file).map_err(|e| local::io_error(&args.file, &e))? {
        return Err(Error::exists(format!("{} is there already", args.file.display())).into());
    }
    let passphrase = new_passphrase(&cx, args.password_file.as_deref()).await?;
    let meter = Meter::bar_only(&cx);
    let report = meter.watch("nothing was written: begin it again", client.backup(&args.file, &passphrase, args.damaged, &*meter)).await?;
    let time = units::rfc3339_ms(report.info.time_ms);
    let document = json!({
        "file": args.file.display().to_string(), "bytes": report.bytes, "entries": report.info.entries, "rows": report.rows,
        "time": time, "cluster": report.info.cluster.to_string(), "damaged": report.damaged,
    });
    if report.damaged {
        cx.out.error_line("warning: the catalog is damaged: some rows in this backup are not what was written");
    }
    let text = format!(
        "{} the catalog as of {time}, {} entries, is in {} ({})\n  Keep it and its passphrase away from this cluster. It holds the catalog, not the files' contents.",
        cx.out.green("✓"),
        report.info.entries,
        args.file.display(),
        units::size(report.bytes)
    );
    cx.out.answer(&document, &text);
    Ok(OK)
}

pub async fn restore(cx: Context, args: RestoreArgs) -> Result<Done, Failure> {
    let (file, key) = (args.file, args.recovery_key);
    let file = match (file, key) {
        (Some(file), _) => file,
        (None, Some(key)) => {
            let restored = server::coordinator::restore_from_nodes(cx.env.clone(), &args.from_node, &key, &args.dir).await?;
            tell(&cx, &args.dir, &restored);
            return Ok(OK);
        }
        (None, None) => return Err(Failure::usage("say which backup, or --from-node with --recovery-key")),
    };
    let passphrase = passphrase(&cx, args.password_file.as_deref()).await?;
    let env = cx.env.clone();
    let mut reader = cx.env.blocking(move || BackupReader::open(&env, &file, &passphrase)).await?;
    let restored = server::coordinator::restore(cx.env.clone(), &args.dir, move || reader.next_rows()).await;
    tell(&cx, &args.dir, &restored?);
    Ok(OK)
}

/// Says what comes next.
fn tell(cx: &Context, dir: &Path, restored: &Restored) {
    let time = units::rfc3339_ms(restored.time_ms);
    let document = json!({
        "dir": dir.display().to_string(), "cluster": restored.cluster.to_string(), "fingerprint": restored.fingerprint.to_string(),
        "coordinator": restored.coordinator.to_string(), "time": time, "entries": restored.entries, "rows": restored.rows,
    });
    let (dir, id) = (dir.display(), restored.coordinator);
    let text = format!(
        "{} the catalog as of {time}, {} entries, is in {dir}, for coordinator {id}. All other coordinators are forgotten:\n\
         make sure that none of them runs any more. Then:\n\n\
         \x20 shardkeep serve coordinator --dir {dir} --listen HOST:PORT\n\
         \x20 shardkeep serve node --dir … --coordinator HOST:PORT     each node that looks for it at the old address\n\
         \x20 shardkeep serve node --dir … --join TOKEN                each that joined after the backup: it keeps its shards\n\
         \x20 shardkeep login --coordinator HOST:PORT --user NAME      each user, likewise\n\
         \x20 shardkeep cluster status                                 what the nodes hold that this catalog does not know\n\
         \x20 shardkeep cluster thaw                                   until then nothing is dropped",
        cx.out.green("✓"),
        restored.entries,
    );
    cx.out.answer(&document, &text);
}

async fn passphrase(cx: &Context, file: Option<&Path>) -> Result<Secret, Failure> {
    match file {
        Some(file) => Ok(password::from_file(cx, file).await?),
        None => password::ask(cx, "Passphrase of the backup: ", "--password-file").await,
    }
}

async fn new_passphrase(cx: &Context, file: Option<&Path>) -> Result<Secret, Failure> {
    if let Some(file) = file {
        let secret = password::from_file(cx, file).await?;
        client::check_passphrase(&secret)?;
        return Ok(secret);
    }
    for _ in 0..3 {
        let secret = password::ask(cx, "Passphrase for the backup: ", "--password-file").await?;
        if let Err(e) = client::check_passphrase(&secret) {
            cx.out.error_line(&format!("{}, please choose another", e.message));
            continue;
        }
        if *password::ask(cx, "The same once more: ", "--password-file").await? == *secret {
            return Ok(secret);
        }
        cx.out.error_line("these were not the same, please begin again");
    }
    Err(Error::invalid("no passphrase was chosen").into())
}
