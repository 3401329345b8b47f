//! How a command fails: the exit code by kind, a plain sentence, the server, and what to try next;
//! with `--json` the same as an object on standard error.

use crate::out::Out;
use crate::safe::safe;
use clap::error::{ContextKind, ErrorKind};
use model::{Error, Kind};
use serde_json::{Value, json};

/// An exit code: how a command that has printed everything itself has ended.
pub type Done = u8;

/// Done, and well.
pub const OK: Done = 0;

/// Why a command has failed.
#[derive(Debug)]
pub enum Failure {
    /// What was typed makes no sense.
    Usage(String),
    /// Told to stop by SIGTERM or Ctrl-C.
    Interrupted(String),
    /// Anything else.
    Error(Error),
}

impl Failure {
    /// What was typed makes no sense.
    pub fn usage(message: impl Into<String>) -> Self {
        Failure::Usage(message.into())
    }

    /// The exit code.
    pub fn code(&self) -> Done {
        match self {
            Failure::Usage(_) => 2,
            // As shells have it: 128 + SIGINT.
            Failure::Interrupted(_) => 130,
            Failure::Error(e) => exit_code(e.kind),
        }
    }

    /// Prints it; answers with the exit code.
    pub fn report(&self, out: &Out) -> Done {
        if out.json() {
            out.error_line(&self.to_json().to_string());
        } else {
            match self {
                Failure::Usage(message) => out.error_line(&format!("{} {}", out.red("error:"), safe(message))),
                Failure::Interrupted(message) => out.error_line(&safe(message)),
                Failure::Error(e) => out.error_line(&human(e, out)),
            }
        }
        self.code()
    }

    fn to_json(&self) -> Value {
        match self {
            Failure::Usage(message) => usage_json(message),
            Failure::Interrupted(message) => json!({ "error": { "kind": "interrupted", "message": message, "node": null, "hint": null } }),
            Failure::Error(e) => json!({ "error": {
                "kind": kind_word(e.kind),
                "message": e.message,
                "node": e.node.map(|n| n.to_string()),
                "hint": e.hint,
            }}),
        }
    }
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        Failure::Error(e)
    }
}

/// Failures shown to people one by one; of more, the number is told.
const SHOWN: usize = 20;

/// Prints what failed in several places, by path; answers with the exit code, which is 0 when
/// nothing has failed.
pub fn report_each(failed: &[(String, Error)], out: &Out) -> Done {
    for (i, (path, e)) in failed.iter().enumerate() {
        let failure = Failure::Error(e.clone());
        if out.json() {
            let mut object = failure.to_json();
            object["error"]["path"] = path.as_str().into();
            out.error_line(&object.to_string());
        } else if i < SHOWN {
            // Many files that fail alike need the advice once.
            let told = failed.iter().take(i).any(|(_, before)| before.hint == e.hint);
            let hint = e.hint.clone().filter(|_| !told);
            let message = if e.message.contains(path) { e.message.clone() } else { format!("{path}: {}", e.message) };
            out.error_line(&human(&Error { message, hint, ..e.clone() }, out));
        } else if i == SHOWN {
            out.error_line(&format!("and {} more like these", failed.len() - SHOWN));
        }
    }
    worst(failed.iter().map(|(_, e)| e.kind)).map_or(OK, exit_code)
}

fn human(e: &Error, out: &Out) -> String {
    let mut text = format!("{} {}", out.red("error:"), safe(&e.message));
    if let Some(node) = e.node
        && !e.message.contains(&format!("node-{node}"))
    {
        text += &format!(" (on node-{node})");
    }
    if let Some(hint) = &e.hint {
        text += &format!("\n  try: {}", safe(hint));
    }
    text
}

/// The exit code of a kind of error.
pub fn exit_code(kind: Kind) -> Done {
    match kind {
        Kind::NotFound => 3,
        Kind::Denied => 4,
        Kind::Unavailable => 5,
        Kind::Corrupt => 6,
        Kind::Exists | Kind::Conflict => 7,
        Kind::Insufficient => 8,
        Kind::Invalid => 1,
    }
}

/// The word for a kind in JSON.
pub fn kind_word(kind: Kind) -> &'static str {
    match kind {
        Kind::NotFound => "not-found",
        Kind::Exists => "exists",
        Kind::Denied => "denied",
        Kind::Conflict => "conflict",
        Kind::Unavailable => "unavailable",
        Kind::Insufficient => "insufficient",
        Kind::Corrupt => "corrupt",
        Kind::Invalid => "invalid",
    }
}

/// The kind by which a command ends that failed in several places: what hurts most comes first.
pub fn worst(kinds: impl IntoIterator<Item = Kind>) -> Option<Kind> {
    const ORDER: [Kind; 8] =
        [Kind::Corrupt, Kind::Unavailable, Kind::Insufficient, Kind::Denied, Kind::Conflict, Kind::Exists, Kind::NotFound, Kind::Invalid];
    kinds.into_iter().min_by_key(|kind| ORDER.iter().position(|k| k == kind))
}

fn usage_json(message: &str) -> Value {
    json!({ "error": { "kind": "usage", "message": message, "node": null, "hint": "shardkeep --help" } })
}

/// Prints what the parser says and ends the process: 0 for help and version, 2 for errors.
pub fn usage_error(e: &clap::Error, json: bool) -> ! {
    let is_answer = matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if json && !is_answer {
        eprintln!("{}", usage_json(&one_sentence(e)));
        std::process::exit(2)
    }
    e.exit()
}

/// The parser's message without its advice.
fn one_sentence(e: &clap::Error) -> String {
    if e.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "a command is missing".into();
    }
    let text = e.to_string();
    let first = text.split("\n\n").next().unwrap_or("").trim_start_matches("error: ");
    let mut message = first.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some(suggested) = e.get(ContextKind::SuggestedArg).or_else(|| e.get(ContextKind::SuggestedSubcommand)) {
        message += &format!(" (did you mean {suggested}?)");
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::NodeId;

    #[test]
    fn exit_codes_are_those_that_scripts_rely_on() {
        use Kind::*;
        let codes: Vec<_> = [NotFound, Denied, Unavailable, Corrupt, Exists, Conflict, Insufficient, Invalid].map(exit_code).into();
        assert_eq!(codes, [3, 4, 5, 6, 7, 7, 8, 1]);
        assert_eq!(Failure::usage("x").code(), 2);
    }

    #[test]
    fn the_worst_failure_gives_the_exit_code() {
        assert_eq!(worst([Kind::NotFound, Kind::Corrupt, Kind::Denied]), Some(Kind::Corrupt));
        assert_eq!(worst([]), None);
    }

    #[test]
    fn errors_are_objects_in_json() {
        let e = Error::unavailable("only 1 of 2 servers answer").on(NodeId(3)).hint("shardkeep cluster status");
        assert_eq!(
            Failure::from(e).to_json(),
            json!({"error": {"kind": "unavailable", "message": "only 1 of 2 servers answer", "node": "3", "hint": "shardkeep cluster status"}})
        );
    }

    #[test]
    fn the_sentence_for_people_names_server_and_next_step() {
        let e = Error::unavailable("a shard could not be read").on(NodeId(3)).hint("shardkeep cluster status");
        assert_eq!(human(&e, &Out::plain()), "error: a shard could not be read (on node-3)\n  try: shardkeep cluster status");
        let e = Error::unavailable("node-3 does not answer").on(NodeId(3));
        assert_eq!(human(&e, &Out::plain()), "error: node-3 does not answer");
    }
}
