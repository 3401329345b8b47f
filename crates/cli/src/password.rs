//! Passwords and other secrets: from a file or from the terminal, without echo; never from the
//! command line, which every process on the machine can read.

use crate::context::Context;
use crate::failure::Failure;
use crate::{local, stop};
use clap::Args;
use model::{Error, Result};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// A secret as text, wiped after use.
pub type Secret = Zeroizing<String>;

/// Where the password comes from.
#[derive(Debug, Args)]
pub struct PasswordFrom {
    /// Read the password from this file (a line break at its end is left out)
    #[arg(long, value_name = "FILE", env = "SHARDKEEP_PASSWORD_FILE", hide_env_values = true)]
    pub password_file: Option<PathBuf>,
}

impl PasswordFrom {
    /// The present password.
    pub async fn read(&self, cx: &Context, question: &str) -> Result<Secret, Failure> {
        match &self.password_file {
            Some(file) => Ok(from_file(cx, file).await?),
            None => ask(cx, question, "--password-file").await,
        }
    }

    /// A new password, checked for its strength and asked for twice.
    pub async fn read_new(&self, cx: &Context, account: &str) -> Result<Secret, Failure> {
        match &self.password_file {
            Some(file) => {
                let password = from_file(cx, file).await?;
                client::check_password(account, &password)?;
                Ok(password)
            }
            None => choose(cx, account, "--password-file").await,
        }
    }
}

/// Asks for a new password twice, until it is strong and both are the same.
pub async fn choose(cx: &Context, account: &str, flag: &str) -> Result<Secret, Failure> {
    for _ in 0..3 {
        let password = ask(cx, &format!("New password for {account}: "), flag).await?;
        if let Err(e) = client::check_password(account, &password) {
            cx.out.error_line(&format!("{}, please choose another", e.message));
            continue;
        }
        if *ask(cx, "The same once more: ", flag).await? == *password {
            return Ok(password);
        }
        cx.out.error_line("these were not the same, please begin again");
    }
    Err(Error::invalid("no password was chosen").into())
}

/// A secret from a file, without the line break at its end.
pub async fn from_file(cx: &Context, file: &Path) -> Result<Secret> {
    let path = file.to_path_buf();
    let mut text = Zeroizing::new(cx.env.blocking(move || local::read_text(&path)).await?);
    while text.ends_with(['\n', '\r']) {
        text.pop();
    }
    if text.is_empty() {
        return Err(Error::invalid(format!("{} is empty", file.display())));
    }
    Ok(text)
}

/// Asks on the terminal, without echo. A usage error, naming the flag, where there is none.
pub async fn ask(cx: &Context, question: &str, flag: &str) -> Result<Secret, Failure> {
    let no_terminal = || Failure::usage(format!("there is no terminal to ask on: use {flag} FILE"));
    let tty = local::open_terminal().map_err(|_| no_terminal())?;
    let before = tcgetattr(&tty).map_err(|_| no_terminal())?;
    let mut silent = before.clone();
    silent.local_modes &= !(LocalModes::ECHO | LocalModes::ECHONL);
    tcsetattr(&tty, OptionalActions::Flush, &silent).map_err(|_| no_terminal())?;
    let reading = tty.try_clone().map_err(|_| no_terminal())?;
    let question = question.to_string();
    let typed = tokio::select! {
        typed = cx.env.blocking(move || local::ask_line(reading, &question)) => typed,
        () = stop::told() => {
            let _ = tcsetattr(&tty, OptionalActions::Flush, &before);
            std::process::exit(130)
        }
    };
    let _ = tcsetattr(&tty, OptionalActions::Flush, &before);
    cx.out.error_line("");
    Ok(Zeroizing::new(typed?))
}
