//! What helps at the keyboard: completions for shells, manual pages.

use crate::args;
use crate::context::Context;
use crate::failure::{Done, Failure, OK};
use crate::local;
use clap::Args;
use clap_complete::Shell;
use model::Error;
use serde_json::json;
use std::path::PathBuf;

/// `completions`.
#[derive(Debug, Args)]
pub struct Completions {
    /// Which shell
    pub shell: Shell,
}

/// `man`.
#[derive(Debug, Args)]
pub struct Man {
    /// Of this command, for example 'cluster status' [default: the overview]
    #[arg(value_name = "COMMAND")]
    pub command: Vec<String>,
    /// Write the pages of all commands into this folder
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    pub dir: Option<PathBuf>,
}

/// Prints completions for a shell.
pub fn completions(cx: &Context, args: Completions) -> Result<Done, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut args::command(), "shardkeep", &mut script);
    let script = String::from_utf8_lossy(&script);
    if cx.out.json() {
        cx.out.object(&json!({ "shell": args.shell.to_string(), "script": script }));
    } else {
        cx.out.line(script.trim_end());
    }
    Ok(OK)
}

/// Prints a manual page, or writes all of them.
pub fn man(cx: &Context, args: Man) -> Result<Done, Failure> {
    let mut top = args::command();
    top.build();
    if let Some(dir) = args.dir {
        local::make_folders(&dir)?;
        let mut written = Vec::new();
        for (name, page) in pages("shardkeep", &top)? {
            let path = dir.join(format!("{name}.1"));
            local::write(&path, &page)?;
            written.push(path.display().to_string());
        }
        cx.out.answer(&json!({ "pages": written }), &format!("{} pages are in {}", written.len(), dir.display()));
        return Ok(OK);
    }
    let mut command = &top;
    let mut name = String::from("shardkeep");
    for word in &args.command {
        command = command.find_subcommand(word).ok_or_else(|| Failure::usage(format!("there is no command '{name} {word}'")))?;
        name += &format!("-{word}");
    }
    let page = page(command)?;
    let page = String::from_utf8_lossy(&page);
    if cx.out.json() {
        cx.out.object(&json!({ "name": name, "page": page }));
    } else {
        cx.out.line(page.trim_end());
    }
    Ok(OK)
}

/// One manual page, in troff.
fn page(command: &clap::Command) -> Result<Vec<u8>, Error> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone())
        .source(concat!("shardkeep ", env!("CARGO_PKG_VERSION")))
        .render(&mut page)
        .map_err(|e| Error::invalid(format!("a manual page could not be made: {e}")))?;
    Ok(page)
}

/// The pages of a command and all below it, by name.
fn pages(name: &str, command: &clap::Command) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let mut all = vec![(name.to_string(), page(command)?)];
    for below in command.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help") {
        all.extend(pages(&format!("{name}-{}", below.get_name()), below)?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_and_every_shell_its_completions() {
        let mut top = args::command();
        top.build();
        let pages = pages("shardkeep", &top).unwrap();
        let page = |name: &str| pages.iter().find(|(n, _)| n == name).map(|(_, page)| String::from_utf8_lossy(page).into_owned());
        assert!(page("shardkeep-put").unwrap().contains("if\\-absent"));
        assert!(page("shardkeep-serve-node").is_some());
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut args::command(), "shardkeep", &mut script);
            assert!(String::from_utf8_lossy(&script).contains("shardkeep"));
        }
    }
}
