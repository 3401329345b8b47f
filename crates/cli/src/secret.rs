//! Secrets that are arguments (join tokens, invites): themselves, or where they are to be read, since every user of a
//! machine sees the arguments of its processes.

use crate::local;
use env::Env;
use model::{Error, Result};
use std::path::PathBuf;
use zeroize::Zeroizing;

/// The secret that an argument gives: `@FILE` and `-` (the first line of standard input) say where it is. `what` is
/// its name in words.
pub async fn given(env: &Env, argument: &str, what: &str) -> Result<Zeroizing<String>> {
    let text = match argument.strip_prefix('@') {
        Some(file) => {
            let file = PathBuf::from(file);
            Zeroizing::new(env.blocking(move || local::read_text(&file)).await?)
        }
        None if argument == "-" => {
            let line = env.blocking(|| std::io::stdin().lines().next()).await;
            let line = line.and_then(|line| line.ok());
            Zeroizing::new(line.ok_or_else(|| Error::invalid(format!("{what} is awaited on standard input, and there is none")))?)
        }
        None => Zeroizing::new(argument.to_string()),
    };
    Ok(Zeroizing::new(text.trim().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_secret_may_come_from_a_file() {
        let env = env::real::env();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        local::write(&file, b"  SKJ1-abc\n").unwrap();
        assert_eq!(*given(&env, &format!("@{}", file.display()), "a join token").await.unwrap(), "SKJ1-abc");
        assert_eq!(*given(&env, "SKJ1-xyz", "a join token").await.unwrap(), "SKJ1-xyz");
        assert_eq!(given(&env, "@/does/not/exist", "a join token").await.unwrap_err().kind, model::Kind::NotFound);
    }
}
