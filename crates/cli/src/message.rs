//! `message`: writing to other accounts, and reading what they wrote.

use crate::context::Context;
use crate::failure::{Done, Failure, OK, exit_code};
use crate::safe::safe;
use crate::{local, units};
use clap::{Args, Subcommand};
use client::{Attachment, Client, EntryKind, LinkOptions, Mail, MessageBody, RemotePath};
use model::account::Role;
use model::{Error, Result};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use tokio::io::AsyncReadExt;

/// `message`.
#[derive(Debug, Subcommand)]
pub enum MessageCommand {
    /// Write to somebody
    Send(SendArgs),
    /// List the mailbox
    List,
    /// Read what is unread, or one message
    Read(ReadArgs),
}

/// `message send`.
#[derive(Debug, Args)]
pub struct SendArgs {
    /// Account name
    pub user: String,
    /// What to say; '-' reads it from standard input
    pub text: String,
    /// Send one of your stored files along; a folder, or a file over 4 KiB, as a link ('link list' shows it)
    #[arg(long, value_name = "PATH")]
    pub attach: Option<String>,
}

/// `message read`.
#[derive(Debug, Args)]
pub struct ReadArgs {
    /// Number of the message, as 'message list' shows it [default: all that are unread]
    pub number: Option<u64>,
    /// Write attached files into this folder
    #[arg(long, value_name = "DIR")]
    pub save: Option<PathBuf>,
}

pub async fn run(cx: Context, command: MessageCommand) -> Result<Done, Failure> {
    match command {
        MessageCommand::Send(args) => send(cx, args).await,
        MessageCommand::List => list(cx).await,
        MessageCommand::Read(args) => read(cx, args).await,
    }
}

async fn send(cx: Context, args: SendArgs) -> Result<Done, Failure> {
    let text = if args.text == "-" { from_stdin().await? } else { args.text };
    let client = cx.client().await?;
    let attachment = match args.attach {
        Some(path) => Some(attach(&client, &RemotePath::parse(&path)?).await?),
        None => None,
    };
    if text.is_empty() && attachment.is_none() {
        return Err(Error::invalid("there is nothing to send").into());
    }
    let to = client.pinned(&args.user).await?;
    let number = client.send_message(&to, MessageBody::Text { text, attachment }).await?;
    cx.out.answer(&json!({ "sent": true, "to": args.user, "number": number }), &format!("sent to {}", cx.out.name(&args.user)));
    Ok(OK)
}

/// At most so many bytes as a message holds, and one more, so that more is noticed.
async fn from_stdin() -> Result<String> {
    let mut bytes = Vec::new();
    let mut input = tokio::io::stdin().take(client::TEXT_MAX as u64 + 1);
    input.read_to_end(&mut bytes).await.map_err(|e| Error::invalid(format!("standard input: {e}")))?;
    let mut text = String::from_utf8(bytes).map_err(|_| Error::invalid("standard input is no text in UTF-8"))?;
    text.truncate(text.trim_end_matches(['\n', '\r']).len());
    Ok(text)
}

/// A stored file.
async fn attach(client: &Client, path: &RemotePath) -> Result<Attachment> {
    let entry = client.stat(path).await?;
    if entry.kind != EntryKind::File || entry.size > client::ATTACHED_MAX as u64 {
        let link = client.create_link(path, LinkOptions::default()).await?;
        let text = link.text.ok_or_else(|| Error::invalid("the link was made and not noted"))?;
        return Ok(Attachment::Link { name: entry.name(), size: entry.size, link: text.to_string() });
    }
    let mut bytes = Vec::new();
    client.cat(path, None, &mut bytes).await?;
    Ok(Attachment::Inline { name: entry.name(), bytes: bytes.into() })
}

async fn list(cx: Context) -> Result<Done, Failure> {
    let mail = cx.client().await?.mail().await?;
    if cx.out.json() {
        mail.iter().for_each(|m| cx.out.object(&document(m)));
        return Ok(worst(&mail));
    }
    if mail.is_empty() {
        cx.out.note("There are no messages.");
    }
    for m in &mail {
        let mark = if m.incoming && !m.read { cx.out.bold("*") } else { " ".into() };
        let (arrow, when) =
            (if m.incoming { "from" } else { "to  " }, units::short_time(i64::try_from(m.time_ms).unwrap_or(0) * 1_000_000));
        missing(&cx, m);
        let said = match &m.said {
            Ok(said) => shorten(&safe(&summary(&said.body))),
            Err(e) => cx.out.red(&format!("not shown: {}", safe(&e.message))),
        };
        cx.out.line(&format!("{:>5} {mark} {when}  {arrow} {:<12}  {said}", m.number, cx.out.name(&m.peer)));
    }
    Ok(worst(&mail))
}

async fn read(cx: Context, args: ReadArgs) -> Result<Done, Failure> {
    let client = cx.client().await?;
    let mut mail = client.mail().await?;
    match args.number {
        Some(number) => {
            mail.retain(|m| m.number == number);
            if mail.is_empty() {
                return Err(Error::not_found(format!("there is no message {number}")).hint("shardkeep message list").into());
            }
        }
        None => mail.retain(|m| m.incoming && !m.read),
    }
    if mail.is_empty() && !cx.out.json() {
        cx.out.note("There are no unread messages.");
    }
    for m in &mail {
        if cx.out.json() {
            cx.out.object(&document(m));
        } else {
            show(&cx, m);
        }
        if let (Some(dir), Ok(said)) = (&args.save, &m.said) {
            save(&cx, dir, &said.body).await?;
        }
    }
    client.mark_read(&mail.iter().filter(|m| m.incoming).map(|m| m.number).collect::<BTreeSet<_>>()).await?;
    Ok(worst(&mail))
}

/// Writes an attached file under its last name, in place of nothing that is there.
async fn save(cx: &Context, dir: &Path, body: &MessageBody) -> Result<()> {
    let MessageBody::Text { attachment: Some(Attachment::Inline { name, bytes }), .. } = body else { return Ok(()) };
    // A name, and nothing that leads elsewhere: it comes from somebody else.
    let plain = RemotePath::parse(name).is_ok_and(|p| p.names().len() == 1) && !name.contains('/');
    if !plain {
        return Err(Error::corrupt("the attachment has a name that is none"));
    }
    let (path, bytes) = (dir.join(name), bytes.to_vec());
    let shown = path.display().to_string();
    cx.env.blocking(move || local::write_new(&path, &bytes)).await?;
    cx.out.note(&format!("attachment written to {}", safe(&shown)));
    Ok(())
}

fn show(cx: &Context, m: &Mail) {
    let at = units::rfc3339_ms(m.time_ms);
    missing(cx, m);
    let line = format!("{} {}, {at}, message {}", if m.incoming { "From" } else { "To" }, cx.out.name(&m.peer), m.number);
    cx.out.line(&cx.out.bold(&line));
    match &m.said {
        Ok(said) => {
            let text = match &said.body {
                MessageBody::Text { text, .. } => text.clone(),
                invite => summary(invite),
            };
            text.lines().for_each(|line| cx.out.line(&cx.out.name(line)));
            if let MessageBody::Text { attachment: Some(attached), .. } = &said.body {
                let line = match attached {
                    Attachment::Inline { name, bytes } => {
                        format!("attached: {} ({}); --save DIR writes it", safe(name), units::size(bytes.len() as u64))
                    }
                    Attachment::Link { name, link, .. } => format!("attached: {}; shardkeep get '{}' .", safe(name), safe(link)),
                };
                cx.out.line(&cx.out.dim(&line));
            }
        }
        Err(e) => cx.out.line(&cx.out.red(&format!("not shown: {}", safe(&e.message)))),
    }
    cx.out.line("");
}

fn missing(cx: &Context, m: &Mail) {
    if m.missing > 0 {
        let (n, before) = (m.missing, m.number);
        cx.out.error_line(&format!(
            "{n} messages of {} before message {before} are missing: the servers hold them back or lost them",
            cx.out.name(&m.peer)
        ));
    }
}

/// Exit code 6 when something did not verify, 4 where a key has changed.
fn worst(mail: &[Mail]) -> Done {
    mail.iter().filter_map(|m| m.said.as_ref().err()).map(|e| exit_code(e.kind)).max().unwrap_or(OK)
}

/// One line of what is said.
fn summary(body: &MessageBody) -> String {
    match body {
        MessageBody::Text { text, attachment } => match attachment {
            Some(Attachment::Inline { name, .. } | Attachment::Link { name, .. }) => format!("{text} [{name}]"),
            None => text.clone(),
        },
        MessageBody::ShareInvite { name, role, .. } => {
            let may = match role {
                Role::Read => "read",
                Role::Write => "read and change",
                Role::Admin => "read, change and share",
            };
            format!("shared the folder '{name}' with you: you may {may} it")
        }
    }
}

fn shorten(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() > 60 { format!("{}…", line.chars().take(59).collect::<String>()) } else { line.to_string() }
}

fn document(m: &Mail) -> Value {
    let mut document = json!({
        "number": m.number,
        "from": if m.incoming { json!(m.peer) } else { Value::Null },
        "to": if m.incoming { Value::Null } else { json!(m.peer) },
        "time": units::rfc3339_ms(m.time_ms),
        "read": m.read,
        "missing": m.missing,
    });
    match &m.said {
        Ok(said) => {
            document["sent"] = json!(units::rfc3339_ms(said.time_ms));
            match &said.body {
                MessageBody::Text { text, attachment } => {
                    document["text"] = json!(text);
                    document["attachment"] = match attachment {
                        Some(Attachment::Inline { name, bytes }) => json!({ "name": name, "size": bytes.len() }),
                        Some(Attachment::Link { name, size, link }) => json!({ "name": name, "size": size, "link": link }),
                        None => Value::Null,
                    };
                }
                MessageBody::ShareInvite { space, name, role } => {
                    let role = match role {
                        Role::Read => "read",
                        Role::Write => "write",
                        Role::Admin => "admin",
                    };
                    document["share"] = json!({ "space": space.to_string(), "name": name, "role": role });
                }
            }
        }
        Err(e) => document["error"] = json!(e.message),
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_shows_one_short_line_of_each_message() {
        assert_eq!(shorten("one\ntwo"), "one");
        assert_eq!(shorten(&"x".repeat(80)).chars().count(), 60);
        let invite = MessageBody::ShareInvite { space: model::SpaceId([1; 16]), name: "Trip".into(), role: Role::Read };
        assert_eq!(summary(&invite), "shared the folder 'Trip' with you: you may read it");
    }
}
