//! What can be typed: the global flags and the list of commands. The arguments of each command
//! stand beside the code that runs it.

use crate::context::Context;
use crate::failure::{Done, Failure, usage_error};
use crate::out::Out;
use crate::stop::unless_told;
use crate::{
    account, bench, change, cluster, demo, link, listing, manual, message, people, queue, s3, serve, share, transfer, trash, up, usage,
    verify, versions, watch,
};
use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;

const ABOUT: &str = "Private, fault-tolerant file storage on servers you don't have to trust";
const EXAMPLES: &str = "\
Begin here:
  shardkeep demo                      see it work: servers die, files come back
  shardkeep up                        a cluster on this machine; then, in another terminal:
  shardkeep put -r Photos /           store a folder
  shardkeep get -r /Photos Restored   and fetch it
  shardkeep cluster status            is my data safe?

Remote paths begin at your own root: /Photos/a.jpg. '-' is standard input or output.
Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 denied, 5 too few servers, 6 corrupt,
            7 exists or conflict, 8 no space or quota.";

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "shardkeep", version, about = ABOUT, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Flags that every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Where profiles and sessions are kept [default: ~/.shardkeep]
    #[arg(long, global = true, env = "SHARDKEEP_HOME", hide_env_values = true, value_name = "DIR")]
    pub home: Option<PathBuf>,
    /// Which of the profiles in it
    #[arg(long, global = true, default_value = "default", value_name = "NAME")]
    pub profile: String,
    /// Print JSON: one document, or one object a line
    #[arg(long, global = true)]
    pub json: bool,
    /// Print results and errors only
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Log more to standard error (twice: everything)
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// No progress display
    #[arg(long, global = true)]
    pub no_progress: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show it all in a minute: a throwaway cluster that loses servers and heals
    Demo(demo::Demo),
    /// Run a cluster on this machine: coordinator and nodes in one process
    Up(up::Up),
    /// Run one server
    #[command(subcommand)]
    Serve(serve::Serve),
    /// Look after a cluster
    #[command(subcommand)]
    Cluster(cluster::Cluster),
    /// Make your account from an invite, and log in
    Register(account::Register),
    /// Log in
    Login(account::Login),
    /// End the session; its keys leave this machine
    Logout,
    /// Who is logged in
    Whoami,
    /// Set a new password with your recovery words, and log in
    Recover(account::Recover),
    /// Change your password
    Passwd(account::Passwd),
    /// Show the safety number of somebody, to compare with them
    VerifyUser(people::VerifyUser),
    /// Let people without an account read a file or folder
    #[command(subcommand)]
    Link(link::LinkCommand),
    /// Write to another account, and read what others wrote
    #[command(subcommand)]
    Message(message::MessageCommand),
    /// Store files and folders
    Put(transfer::PutArgs),
    /// Fetch files and folders
    Get(transfer::GetArgs),
    /// Write a file's content to standard output
    Cat(transfer::Cat),
    /// List a folder
    Ls(listing::Ls),
    /// Show a folder with all below it
    Tree(listing::Tree),
    /// Find by name and kind
    Find(listing::Find),
    /// Tell everything about one file or folder
    Stat(usage::Stat),
    /// Sum up sizes
    Du(usage::Du),
    /// Make folders
    Mkdir(change::Mkdir),
    /// Move or rename
    Mv(change::Mv),
    /// Copy; contents are shared, not stored twice
    Cp(change::Cp),
    /// Remove
    Rm(change::Rm),
    /// List what a file was before, and what lost against somebody else's write
    Versions(versions::Versions),
    /// Bring back an earlier version, or what was removed
    Restore(versions::Restore),
    /// What was removed: list it, bring it back, destroy it
    #[command(subcommand)]
    Trash(trash::Trash),
    /// The outbox of 'put --background'
    #[command(subcommand)]
    Queue(queue::Queue),
    /// Print changes as they happen
    Watch(watch::Watch),
    /// Share a folder with others
    Share(share::Share),
    /// Take a shared folder back from somebody, and change its keys
    Unshare(share::Unshare),
    /// List what you share and what is shared with you; rename, hide, leave, hand on
    Shares(share::Shares),
    /// Serve S3 on this machine, for tools that speak it; everything is encrypted before it leaves
    S3(s3::S3),
    /// Check that every chunk is there, at full redundancy, and opens
    Verify(verify::Verify),
    /// Measure sealing, coding, hashing, and whole transfers, against this machine's limits
    Bench(bench::Bench),
    /// Print completions for a shell
    Completions(manual::Completions),
    /// Print the manual page
    Man(manual::Man),
}

impl Cli {
    /// Runs the command; answers with the exit code.
    pub async fn run(self, out: Out) -> Result<Done, Failure> {
        let cx = Context::new(&self.global, out)?;
        match self.command {
            Command::Demo(a) => demo::run(cx, a).await,
            Command::Up(a) => up::run(cx, a).await,
            Command::Serve(a) => serve::run(cx, a).await,
            Command::Cluster(a) => cluster::run(cx, a).await,
            Command::Register(a) => account::register(cx, a).await,
            Command::Login(a) => account::login(cx, a).await,
            Command::Logout => account::logout(cx).await,
            Command::Whoami => unless_told(account::whoami(cx)).await,
            Command::Recover(a) => account::recover(cx, a).await,
            Command::Passwd(a) => account::passwd(cx, a).await,
            Command::VerifyUser(a) => unless_told(people::verify_user(cx, a)).await,
            Command::Link(a) => unless_told(link::run(cx, a)).await,
            Command::Message(a) => unless_told(message::run(cx, a)).await,
            Command::Put(a) => transfer::put(cx, a).await,
            Command::Get(a) => transfer::get(cx, a).await,
            Command::Cat(a) => transfer::cat(cx, a).await,
            Command::Ls(a) => unless_told(listing::ls(cx, a)).await,
            Command::Tree(a) => unless_told(listing::tree(cx, a)).await,
            Command::Find(a) => unless_told(listing::find(cx, a)).await,
            Command::Stat(a) => unless_told(usage::stat(cx, a)).await,
            Command::Du(a) => unless_told(usage::du(cx, a)).await,
            Command::Mkdir(a) => unless_told(change::mkdir(cx, a)).await,
            Command::Mv(a) => unless_told(change::mv(cx, a)).await,
            Command::Cp(a) => unless_told(change::cp(cx, a)).await,
            Command::Rm(a) => unless_told(change::rm(cx, a)).await,
            Command::Versions(a) => unless_told(versions::versions(cx, a)).await,
            Command::Restore(a) => unless_told(versions::restore(cx, a)).await,
            Command::Trash(a) => unless_told(trash::run(cx, a)).await,
            Command::Queue(a) => queue::run(cx, a).await,
            Command::Watch(a) => watch::run(cx, a).await,
            Command::Share(a) => unless_told(share::share(cx, a)).await,
            Command::Unshare(a) => share::unshare(cx, a).await,
            Command::Shares(a) => unless_told(share::shares(cx, a)).await,
            Command::S3(a) => s3::run(cx, a).await,
            Command::Verify(a) => verify::run(cx, a).await,
            Command::Bench(a) => bench::run(cx, a).await,
            Command::Completions(a) => manual::completions(&cx, a),
            Command::Man(a) => manual::man(&cx, a),
        }
    }

    /// Whether this process is a server, whose log is of interest.
    pub fn serves(&self) -> bool {
        matches!(&self.command, Command::Serve(_) | Command::Up(_) | Command::S3(s3::S3 { command: None, .. }))
    }
}

/// Reads the command line; on an error it says what is wrong and ends the process (2).
pub fn parse() -> Cli {
    let args: Vec<OsString> = spelled_out(std::env::args_os().collect());
    match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(e) => usage_error(&e, wants_json(&args)),
    }
}

/// The whole command with its name, for completions and manual pages.
pub fn command() -> clap::Command {
    Cli::command()
}

/// `find -name X -type f` as people type it, in the long form that the parser knows.
fn spelled_out(args: Vec<OsString>) -> Vec<OsString> {
    let is_find = args.iter().skip(1).any(|a| a == "find");
    let long = |a: OsString| match a.to_str() {
        Some("-name") if is_find => "--name".into(),
        Some("-type") if is_find => "--kind".into(),
        _ => a,
    };
    args.into_iter().map(long).collect()
}

/// Whether `--json` was given on a line that does not parse.
fn wants_json(args: &[OsString]) -> bool {
    args.iter().take_while(|a| *a != "--").any(|a| a == "--json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn find_is_understood_as_people_type_it() {
        let cli =
            Cli::try_parse_from(spelled_out(["shardkeep", "find", "/a", "-name", "*.txt", "-type", "f"].map(OsString::from).to_vec()))
                .unwrap();
        let Command::Find(find) = cli.command else { panic!("not find") };
        assert_eq!((find.name.as_deref(), find.kind), (Some("*.txt"), Some(listing::KindArg::File)));
    }

    #[test]
    fn json_is_seen_on_lines_that_do_not_parse_but_not_behind_the_end_of_flags() {
        let args = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        assert!(wants_json(&args("shardkeep ls --nonsense --json")));
        assert!(!wants_json(&args("shardkeep ls -- --json")));
    }

    #[test]
    fn global_flags_may_stand_anywhere() {
        for line in ["shardkeep --json -q ls /", "shardkeep ls / --json -q"] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert!(cli.global.json && cli.global.quiet);
        }
    }
}
