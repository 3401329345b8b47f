//! Printing: results to standard output, everything else to standard error; colour and progress
//! only where a terminal shows them.

use crate::args::Global;
use crate::safe::safe;
use serde_json::Value;
use std::io::{ErrorKind, IsTerminal, Write};

/// How to print.
#[derive(Debug, Clone)]
pub struct Out {
    json: bool,
    quiet: bool,
    /// Standard output is a terminal.
    terminal: bool,
    /// Colour there, and on standard error.
    colour: bool,
    /// A progress bar on standard error.
    bar: bool,
    /// Progress objects on standard output.
    objects: bool,
}

impl Out {
    /// As the flags and the terminal allow.
    pub fn new(global: &Global) -> Self {
        let terminal = std::io::stdout().is_terminal();
        let error_terminal = std::io::stderr().is_terminal();
        let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty()) || std::env::var_os("TERM").is_some_and(|v| v == "dumb");
        let shown = !global.no_progress && !global.quiet;
        Out {
            json: global.json,
            quiet: global.quiet,
            terminal,
            colour: terminal && error_terminal && !plain && !global.json,
            bar: error_terminal && shown && !global.json,
            objects: global.json && shown,
        }
    }

    /// For tests: no terminal, nothing special.
    #[cfg(test)]
    pub fn plain() -> Self {
        Out { json: false, quiet: false, terminal: false, colour: false, bar: false, objects: false }
    }

    /// JSON was asked for.
    pub fn json(&self) -> bool {
        self.json
    }

    /// A progress bar may be drawn on standard error.
    pub fn draws_bars(&self) -> bool {
        self.bar
    }

    /// Progress is printed as objects.
    pub fn prints_progress(&self) -> bool {
        self.objects
    }

    /// Standard output is a terminal.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// A line of the result.
    pub fn line(&self, text: &str) {
        write(&mut std::io::stdout().lock(), text);
    }

    /// A JSON document or object on a line of its own.
    pub fn object(&self, value: &Value) {
        self.line(&value.to_string());
    }

    /// The result: a document with `--json`, else a line for people (not with `-q`).
    pub fn answer(&self, value: &Value, text: &str) {
        if self.json {
            self.object(value);
        } else if !self.quiet {
            self.line(text);
        }
    }

    /// A remark for people, beside the result.
    pub fn note(&self, text: &str) {
        if !self.quiet && !self.json {
            self.error_line(text);
        }
    }

    /// A line on standard error, whatever the flags.
    pub fn error_line(&self, text: &str) {
        write(&mut std::io::stderr().lock(), text);
    }

    /// A name or path as it may be printed: on a terminal, nothing in it can disguise itself.
    pub fn name(&self, name: &str) -> String {
        if self.terminal { safe(name) } else { name.to_string() }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }
    pub fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }
    pub fn dim(&self, text: &str) -> String {
        self.paint("2", text)
    }
    pub fn red(&self, text: &str) -> String {
        self.paint("31;1", text)
    }
    pub fn green(&self, text: &str) -> String {
        self.paint("32", text)
    }
    pub fn yellow(&self, text: &str) -> String {
        self.paint("33", text)
    }
    pub fn blue(&self, text: &str) -> String {
        self.paint("34;1", text)
    }
}

/// Writes a line at once. Whoever closes the pipe (`shardkeep ls | head`) has seen enough.
fn write(to: &mut dyn Write, text: &str) {
    let written = to.write_all(format!("{text}\n").as_bytes()).and_then(|()| to.flush());
    if written.is_err_and(|e| e.kind() == ErrorKind::BrokenPipe) {
        std::process::exit(0);
    }
}
