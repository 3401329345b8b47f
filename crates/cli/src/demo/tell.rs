//! How the demo speaks: numbered steps and marks for people, one object a line with `--json`.

use super::servers::Server;
use crate::context::Context;
use crate::out::Out;
use crate::units;
use client::{Entry, EntryKind};
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::time::Duration;

/// Most lines of a listing.
const LISTED: usize = 8;

/// The voice.
pub struct Tell {
    cx: Context,
    start: Duration,
    number: Cell<u32>,
    step: RefCell<String>,
}

impl Tell {
    pub fn new(cx: &Context) -> Self {
        Tell { start: cx.env.clock.monotonic(), cx: cx.clone(), number: Cell::new(0), step: RefCell::default() }
    }

    fn out(&self) -> &Out {
        &self.cx.out
    }

    /// A line for people.
    pub fn note(&self, text: &str) {
        if !self.out().json() {
            self.out().answer(&Value::Null, text);
        }
    }

    pub fn title(&self, text: &str) {
        self.note(&self.out().bold(text));
    }

    /// A step begins.
    pub fn step(&self, word: &str, title: &str) {
        self.number.set(self.number.get() + 1);
        *self.step.borrow_mut() = word.to_string();
        self.note(&format!("\n{} {}", self.out().blue(&self.number.get().to_string()), self.out().bold(title)));
    }

    /// Something held.
    pub fn ok(&self, text: &str, fields: Value) {
        self.note(&format!("  {} {text}", self.out().green("✓")));
        self.object(fields);
    }

    fn object(&self, mut fields: Value) {
        if self.out().json() {
            crate::serve::add(&mut fields, "step", json!(*self.step.borrow()));
            crate::serve::add(&mut fields, "ok", json!(true));
            self.out().object(&fields);
        }
    }

    /// A line of detail.
    pub fn detail(&self, text: &str) {
        self.note(&format!("    {text}"));
    }

    fn about(&self, mark: &str, server: &Server, detail: &str) {
        let what = format!("{:<12} process {:<7} {detail}", server.name, server.pid);
        self.note(&format!("  {mark} {}", what.trim_end()));
    }

    /// A server serves.
    pub fn server(&self, server: &Server) {
        self.about(&self.out().green("✓"), server, &server.field("address").unwrap_or_default());
    }

    /// A server was killed.
    pub fn killed(&self, server: &Server) {
        self.about(&self.out().red("✗"), server, "killed");
        self.object(json!({ "killed": server.name, "pid": server.pid }));
    }

    /// A server is back.
    pub fn back(&self, server: &Server, how: &str) {
        self.about(&self.out().green("✓"), server, how);
        self.object(json!({ "started": server.name, "pid": server.pid }));
    }

    /// The first of some files.
    pub fn listing(&self, entries: &[Entry]) {
        for entry in entries.iter().take(LISTED) {
            let kind = if entry.kind == EntryKind::Symlink { 'l' } else { '-' };
            let (mode, size) = (units::mode_letters(kind, entry.mode), units::size(entry.size));
            let where_ = if entry.inline {
                "in the catalog, sealed".to_string()
            } else {
                match entry.chunks() {
                    1 => "1 chunk".to_string(),
                    n => format!("{n} chunks"),
                }
            };
            let where_ = if entry.kind == EntryKind::Symlink { "link".to_string() } else { where_ };
            let path = self.out().name(&entry.path.to_string());
            self.detail(&format!("{} {size:>10}  {path}  {}", self.out().dim(&mode), self.out().dim(&where_)));
        }
        if entries.len() > LISTED {
            self.detail(&self.out().dim(&format!("… and {} more", entries.len() - LISTED)));
        }
    }

    /// It all held.
    pub fn end(&self, files: u64, bytes: u64) {
        let took = self.cx.env.clock.monotonic() - self.start;
        let all = format!("All held: {} servers died, nothing was lost.", super::VICTIMS.len());
        self.note(&format!("\n{} {}", self.out().green(&all), self.out().dim(&format!("({})", units::duration(took)))));
        if self.out().json() {
            self.out().object(&json!({ "done": true, "held": true, "files": files, "bytes": bytes, "seconds": took.as_secs_f64() }));
        } else {
            self.note("Next: `shardkeep up` for a cluster of your own on this machine.");
        }
    }
}

/// `3 files, 1.2 MiB`.
pub fn files(files: u64, bytes: u64) -> String {
    format!("{files} {}, {}", if files == 1 { "file" } else { "files" }, units::size(bytes))
}

/// ` (120.0 MiB/s)`, where it means anything.
pub fn rate(bytes: u64, took: Duration) -> String {
    if bytes < 1 << 20 || took.is_zero() {
        return String::new();
    }
    format!(" ({}/s)", units::size((bytes as f64 / took.as_secs_f64()) as u64))
}
