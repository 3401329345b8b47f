//! Accounts: making one from an invite, logging in and out, changing and recovering the password.

use crate::context::Context;
use crate::failure::{Done, Failure, OK};
use crate::password::{self, PasswordFrom};
use crate::stop::unless_told;
use crate::{secret, units};
use clap::Args;
use client::{Address, Client, ClientOptions};
use model::{Error, Hash, Kind};
use serde_json::json;
use std::path::PathBuf;

/// `register`.
#[derive(Debug, Args)]
pub struct Register {
    /// The invite, as its maker gave it to you; @FILE or - (standard input) keeps it out of the process list
    pub invite: String,
    #[command(flatten)]
    pub password: PasswordFrom,
}

/// Where the cluster is, for a machine that does not know it yet.
#[derive(Debug, Args)]
pub struct Where {
    /// A coordinator, on a machine that does not know the cluster yet
    #[arg(long, value_name = "HOST:PORT", requires = "fingerprint")]
    pub coordinator: Option<String>,
    /// Fingerprint of the cluster, as its operator told you: 'whoami' shows it
    #[arg(long, value_name = "HEX", requires = "coordinator")]
    pub fingerprint: Option<Hash>,
}

impl Where {
    fn address(self) -> Option<Address> {
        Some(Address { coordinator: self.coordinator?, fingerprint: self.fingerprint? })
    }
}

/// `login`.
#[derive(Debug, Args)]
pub struct Login {
    /// Account name [default: the profile's]
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    #[command(flatten)]
    pub at: Where,
    #[command(flatten)]
    pub password: PasswordFrom,
}

/// `recover`.
#[derive(Debug, Args)]
pub struct Recover {
    /// Account name [default: the profile's]
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    #[command(flatten)]
    pub at: Where,
    /// Read the 24 recovery words from this file
    #[arg(long, value_name = "FILE")]
    pub words_file: Option<PathBuf>,
    #[command(flatten)]
    pub password: PasswordFrom,
}

/// `passwd`.
#[derive(Debug, Args)]
pub struct Passwd {
    /// Read the new password from this file
    #[arg(long, value_name = "FILE")]
    pub new_password_file: Option<PathBuf>,
    #[command(flatten)]
    pub password: PasswordFrom,
}

/// Makes an account. The recovery words are shown once, here.
pub async fn register(cx: Context, args: Register) -> Result<Done, Failure> {
    let invite = secret::given(&cx.env, &args.invite, "an invite").await?;
    let name = client::invite_name(&invite)?;
    let profile = cx.profile()?;
    if profile.exists() {
        let owner = profile.info()?.account;
        return Err(Error::exists(format!("this profile is {owner}'s, and a profile holds one account"))
            .hint(format!("shardkeep --profile {name} register INVITE"))
            .into());
    }
    let password = args.password.read_new(&cx, &name).await?;
    let (client, words) = unless_told(Client::register(profile, &invite, &password, ClientOptions::default())).await?;
    if cx.out.json() {
        let cluster = client.profile().info()?.cluster.to_string();
        cx.out.object(&json!({ "account": name, "cluster": cluster, "recovery_words": words.as_str() }));
    } else {
        cx.out.note(&format!("You are registered and logged in as {}.", cx.out.bold(&name)));
        cx.out.note("These 24 words open your files if you forget the password. They are shown only now: write them down.");
        cx.out.note("");
        for line in numbered(&words) {
            cx.out.line(&line);
        }
        if cx.out.is_terminal() {
            confirm(&cx, &words).await;
        }
    }
    Ok(OK)
}

/// Asks for one of the words, so that they are written down before they are gone from the screen. The account
/// is there in any case.
async fn confirm(cx: &Context, words: &str) {
    let [drawn] = cx.env.random::<1>();
    let number = usize::from(drawn) % words.split_whitespace().count().max(1);
    let word = words.split_whitespace().nth(number).unwrap_or_default();
    for _ in 0..3 {
        let question = format!("Written down? Then type word {}: ", number + 1);
        let Ok(typed) = password::ask(cx, &question, "").await else { return };
        if typed.trim().eq_ignore_ascii_case(word) {
            cx.out.note("Good. Keep them where nobody else finds them: whoever has them has the account.");
            return;
        }
        cx.out.error_line("that is another word: compare what you have written with the list above");
    }
    cx.out.error_line("The words were not confirmed. Without them a forgotten password means that all is lost.");
}

/// The words in lines of four, numbered.
fn numbered(words: &str) -> Vec<String> {
    let words: Vec<_> = words.split_whitespace().zip(1..).map(|(word, n)| format!("{n:>2} {word:<10}")).collect();
    words.chunks(4).map(|line| line.join("  ").trim_end().to_string()).collect()
}

/// Logs in.
pub async fn login(cx: Context, args: Login) -> Result<Done, Failure> {
    let profile = cx.profile()?;
    let address = args.at.address();
    // Before the password is asked for in vain.
    let name = match (args.user, &address) {
        (Some(user), Some(_)) => user,
        (Some(user), None) => profile.info().map(|_| user)?,
        (None, _) => profile.info()?.account,
    };
    let password = args.password.read(&cx, &format!("Password of {name}: ")).await?;
    let client = unless_told(Client::login(profile, Some(&name), address, &password, ClientOptions::default())).await?;
    logged_in(&cx, &client)
}

fn logged_in(cx: &Context, client: &Client) -> Result<Done, Failure> {
    let info = client.profile().info()?;
    cx.out.answer(
        &json!({ "account": info.account, "cluster": info.cluster.to_string() }),
        &format!("You are logged in as {}.", cx.out.bold(&cx.out.name(&info.account))),
    );
    if let Some(age) = client.first_notes() {
        let when = if age.time_ms == 0 { "your registration".into() } else { units::rfc3339_ms(age.time_ms) };
        cx.out.note(&format!(
            "This machine meets your account for the first time, and cannot know whether the servers show it as it is now: \
             {} pinned identities, as of {when}. If you remember more or later, trust none of it.",
            age.pins
        ));
    }
    Ok(OK)
}

/// Ends the session. The keys leave this machine also when no server answers.
pub async fn logout(cx: Context) -> Result<Done, Failure> {
    let profile = cx.profile()?;
    let info = profile.info()?;
    let ended = unless_told(async {
        let client = cx.client().await?;
        client.logout().await
    });
    let ended = ended.await;
    profile.forget_session()?;
    match ended {
        // There was no session any more, here or on the servers.
        Ok(()) | Err(Failure::Error(Error { kind: Kind::Denied, .. })) => {}
        Err(Failure::Error(e)) => {
            let message = format!(
                "the keys have left this machine, but the servers were not told, and the session there runs out by itself: {}",
                e.message
            );
            return Err(Error { message, hint: None, ..e }.into());
        }
        Err(other) => return Err(other),
    }
    cx.out.answer(&json!({ "account": info.account, "logged_out": true }), &format!("{} is logged out.", cx.out.name(&info.account)));
    Ok(OK)
}

/// Who is logged in, and where.
pub async fn whoami(cx: Context) -> Result<Done, Failure> {
    let client = cx.client().await?;
    let who = client.whoami().await?;
    let info = client.profile().info()?;
    if cx.out.json() {
        cx.out.object(&json!({
            "account": who.account,
            "id": who.id.to_string(),
            "cluster": who.cluster.to_string(),
            "cluster_fingerprint": info.fingerprint().to_string(),
            "coordinators": info.coordinators,
            "fingerprint": who.fingerprint.to_string(),
            "admin": who.admin,
            "quota": who.quota,
            "used": who.used,
            "unread": who.unread,
        }));
        return Ok(OK);
    }
    let used = match who.quota {
        Some(quota) => format!("{} of {} on disks", units::size(who.used), units::size(quota)),
        None => format!("{} on disks", units::size(who.used)),
    };
    let role = if who.admin { " (administers the cluster)" } else { "" };
    cx.out.line(&format!("account      {}{role}", cx.out.bold(&cx.out.name(&who.account))));
    cx.out.line(&format!("fingerprint  {}", who.fingerprint));
    cx.out.line(&format!("used         {used}"));
    if who.unread > 0 {
        cx.out.line(&format!("messages     {} unread: shardkeep message read", who.unread));
    }
    cx.out.line(&format!("cluster      {}, fingerprint {}", who.cluster, info.fingerprint()));
    cx.out.line(&format!("coordinators {}", cx.out.name(&info.coordinators.join(", "))));
    Ok(OK)
}

/// Sets a new password with the recovery words, and logs in.
pub async fn recover(cx: Context, args: Recover) -> Result<Done, Failure> {
    let profile = cx.profile()?;
    let address = args.at.address();
    let name = match (args.user, &address) {
        (Some(user), Some(_)) => user,
        (Some(user), None) => profile.info().map(|_| user)?,
        (None, _) => profile.info()?.account,
    };
    let words = match &args.words_file {
        Some(file) => password::from_file(&cx, file).await?,
        None => password::ask(&cx, &format!("The 24 recovery words of {name}: "), "--words-file").await?,
    };
    let password = args.password.read_new(&cx, &name).await?;
    let client = unless_told(Client::recover(profile, &name, address, &words, &password, ClientOptions::default())).await?;
    logged_in(&cx, &client)
}

/// Changes the password; other sessions end.
pub async fn passwd(cx: Context, args: Passwd) -> Result<Done, Failure> {
    let client = unless_told(cx.client()).await?;
    let name = client.profile().info()?.account;
    let old = args.password.read(&cx, &format!("Present password of {name}: ")).await?;
    let new = match &args.new_password_file {
        Some(file) => {
            let new = password::from_file(&cx, file).await?;
            client::check_password(&name, &new)?;
            new
        }
        None => password::choose(&cx, &name, "--new-password-file").await?,
    };
    unless_told(client.change_password(&old, &new)).await?;
    cx.out.answer(&json!({ "account": name, "changed": true }), "The password is changed. Sessions on other machines have ended.");
    Ok(OK)
}

#[cfg(test)]
mod tests {
    use super::numbered;

    #[test]
    fn recovery_words_are_numbered_for_writing_down() {
        assert_eq!(numbered("abandon ability able about above"), [" 1 abandon      2 ability      3 able         4 about", " 5 above"]);
    }
}
