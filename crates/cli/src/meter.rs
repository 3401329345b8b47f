//! Progress of transfers: a bar on a terminal, at most two objects a second with `--json`, nothing
//! otherwise. Counting is a few atomics; drawing happens on the side, while the transfer runs.

use crate::context::Context;
use crate::failure::Failure;
use crate::out::Out;
use crate::{stop, units};
use client::Progress;
use env::Env;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use model::Result;
use serde_json::{Value, json};
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often the bar is drawn.
const FRAME: Duration = Duration::from_millis(200);
/// How often an object is printed.
const OBJECT: Duration = Duration::from_millis(500);
/// The rate shown is that of about the last so many seconds.
const RATE_WINDOW: f64 = 5.0;

/// What was counted at a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Known to be there to do. 0: not known.
    pub total_files: u64,
    pub total_bytes: u64,
    /// Done.
    pub files: u64,
    pub bytes: u64,
}

/// Counts a transfer and shows how it goes.
pub struct Meter {
    env: Env,
    started: Duration,
    total_files: AtomicU64,
    total_bytes: AtomicU64,
    files: AtomicU64,
    bytes: AtomicU64,
    shown: Shown,
}

enum Shown {
    Bar(ProgressBar, Mutex<Rate>),
    Objects(Out, Mutex<(Rate, Counts)>),
    Nothing,
}

impl Progress for Meter {
    fn total(&self, files: u64, bytes: u64) {
        self.total_files.fetch_add(files, Ordering::Relaxed);
        self.total_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn bytes(&self, done: u64) {
        self.bytes.fetch_add(done, Ordering::Relaxed);
    }

    fn file(&self, _: &str) {
        self.files.fetch_add(1, Ordering::Relaxed);
    }
}

impl Meter {
    /// For transfers: a bar, or objects, as flags and terminal allow.
    pub fn new(cx: &Context) -> Arc<Self> {
        let shown = if cx.out.prints_progress() { Shown::Objects(cx.out.clone(), Mutex::default()) } else { bar(&cx.out) };
        Meter::with(cx, shown)
    }

    /// For commands whose JSON is one document, and for transfers to standard output: a bar at most.
    pub fn bar_only(cx: &Context) -> Arc<Self> {
        Meter::with(cx, bar(&cx.out))
    }

    fn with(cx: &Context, shown: Shown) -> Arc<Self> {
        let zero = AtomicU64::default;
        let started = cx.env.clock.monotonic();
        Arc::new(Meter { env: cx.env.clone(), started, total_files: zero(), total_bytes: zero(), files: zero(), bytes: zero(), shown })
    }

    /// Runs a transfer to its end, or until SIGTERM or Ctrl-C, and shows its progress meanwhile.
    /// `redo` says what becomes of an interrupted one.
    pub async fn watch<T, E: Into<Failure>>(&self, redo: &str, work: impl Future<Output = Result<T, E>>) -> Result<T, Failure> {
        tokio::pin!(work);
        let told = stop::told();
        tokio::pin!(told);
        let every = match self.shown {
            Shown::Objects(..) => OBJECT,
            _ => FRAME,
        };
        let result = loop {
            tokio::select! {
                biased;
                done = &mut work => break done.map_err(Into::into),
                () = &mut told => break Err(Failure::Interrupted(self.interrupted(redo))),
                () = self.env.sleep(every) => self.show(),
            }
        };
        if let Shown::Bar(bar, _) = &self.shown {
            bar.finish_and_clear();
        }
        result
    }

    /// What was counted until now.
    pub fn counts(&self) -> Counts {
        let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
        Counts {
            total_files: get(&self.total_files),
            total_bytes: get(&self.total_bytes),
            files: get(&self.files),
            bytes: get(&self.bytes),
        }
    }

    /// Time since the transfer began.
    pub fn elapsed(&self) -> Duration {
        self.env.clock.monotonic().saturating_sub(self.started)
    }

    fn interrupted(&self, redo: &str) -> String {
        let counts = self.counts();
        let done = match (counts.files, counts.total_files) {
            (done, total) if total > 1 => format!(" after {done} of {total} files"),
            _ => String::new(),
        };
        format!("interrupted{done}; {redo}")
    }

    fn show(&self) {
        let (now, counts) = (self.elapsed(), self.counts());
        match &self.shown {
            Shown::Nothing => {}
            Shown::Bar(bar, rate) => {
                let mut rate = lock(rate);
                rate.update(now, counts.bytes);
                bar.update(|state| {
                    state.set_len(counts.total_bytes.max(counts.bytes).max(1));
                    state.set_pos(counts.bytes);
                });
                bar.set_message(sentence(&counts, rate.per_second));
            }
            Shown::Objects(out, state) => {
                let mut state = lock(state);
                let (rate, last) = &mut *state;
                rate.update(now, counts.bytes);
                if *last != counts {
                    *last = counts;
                    out.object(&object(&counts, rate.per_second, now));
                }
            }
        }
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bar(out: &Out) -> Shown {
    if !out.draws_bars() {
        return Shown::Nothing;
    }
    let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr());
    // A template that does not parse would be a mistake of ours; the default one shows less.
    if let Ok(style) = ProgressStyle::with_template("{bar:24.green/dim} {msg}") {
        bar.set_style(style.progress_chars("━━╌"));
    }
    Shown::Bar(bar, Mutex::default())
}

/// A rate that follows the last few seconds.
#[derive(Debug, Default)]
struct Rate {
    at: Duration,
    done: u64,
    /// Bytes a second; `None` until there was time to measure.
    per_second: Option<f64>,
}

impl Rate {
    fn update(&mut self, now: Duration, done: u64) {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        if passed <= 0.0 {
            return;
        }
        let present = done.saturating_sub(self.done) as f64 / passed;
        let weight = 1.0 - (-passed / RATE_WINDOW).exp();
        self.per_second = Some(match self.per_second {
            Some(before) => before + (present - before) * weight,
            None => present,
        });
        (self.at, self.done) = (now, done);
    }
}

/// Seconds left, where that can be said.
fn eta(counts: &Counts, rate: Option<f64>) -> Option<f64> {
    let left = counts.total_bytes.checked_sub(counts.bytes).filter(|_| counts.total_bytes > 0)?;
    if left == 0 {
        return Some(0.0);
    }
    rate.filter(|r| *r >= 1.0).map(|r| left as f64 / r)
}

fn sentence(counts: &Counts, rate: Option<f64>) -> String {
    let mut parts = Vec::new();
    if counts.total_bytes > 0 {
        let percent = (u128::from(counts.bytes) * 100 / u128::from(counts.total_bytes)).min(100);
        parts.push(format!("{percent:>3}%  {} of {}", units::size(counts.bytes), units::size(counts.total_bytes)));
    } else {
        parts.push(units::size(counts.bytes));
    }
    if counts.total_files > 1 {
        parts.push(format!("{} of {} files", counts.files, counts.total_files));
    }
    if let Some(rate) = rate {
        parts.push(format!("{}/s", units::size(rate as u64)));
    }
    if let Some(left) = eta(counts, rate).filter(|s| *s >= 1.0) {
        parts.push(format!("{} left", units::duration(Duration::from_secs_f64(left.min(1e9)))));
    }
    parts.join("  ")
}

fn object(counts: &Counts, rate: Option<f64>, elapsed: Duration) -> Value {
    json!({
        "done": false,
        "files": counts.files,
        "bytes": counts.bytes,
        "total_files": counts.total_files,
        "total_bytes": counts.total_bytes,
        "seconds": tenths(elapsed.as_secs_f64()),
        "rate": rate.map(|r| r as u64),
        "eta": eta(counts, rate).map(tenths),
    })
}

/// The last object of a transfer. `failed` files make it say that not all is done.
pub fn last_object(files: u64, bytes: u64, elapsed: Duration, degraded: bool, failed: usize) -> Value {
    let seconds = (elapsed.as_secs_f64() * 1000.0).round() / 1000.0;
    let mut last = json!({ "done": failed == 0, "files": files, "bytes": bytes, "seconds": seconds, "degraded": degraded });
    if failed > 0 {
        last["failed"] = failed.into();
    }
    last
}

/// The same for people: `12 files, 4.2 GiB in 3.2 s (1.3 GiB/s)`. What takes no time has no rate.
pub fn last_sentence(files: u64, bytes: u64, elapsed: Duration) -> String {
    let (noun, seconds) = (if files == 1 { "file" } else { "files" }, elapsed.as_secs_f64());
    if seconds < 0.1 {
        return format!("{files} {noun}, {}", units::size(bytes));
    }
    format!("{files} {noun}, {} in {} ({}/s)", units::size(bytes), units::duration(elapsed), units::size((bytes as f64 / seconds) as u64))
}

fn tenths(seconds: f64) -> f64 {
    (seconds * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: Counts = Counts { total_files: 4, total_bytes: 4 << 20, files: 1, bytes: 2 << 20 };

    #[test]
    fn a_progress_object_has_counts_rate_and_time_left() {
        assert_eq!(
            object(&HALF, Some(1048576.0), Duration::from_millis(2040)),
            json!({ "done": false, "files": 1, "bytes": 2097152, "total_files": 4, "total_bytes": 4194304, "seconds": 2.0, "rate": 1048576, "eta": 2.0 })
        );
        let unknown = object(&Counts { bytes: 7, ..Default::default() }, None, Duration::ZERO);
        assert_eq!((&unknown["rate"], &unknown["eta"]), (&Value::Null, &Value::Null));
    }

    #[test]
    fn the_last_object_is_the_one_that_scripts_wait_for() {
        assert_eq!(
            last_object(3, 12, Duration::from_millis(1234), false, 0),
            json!({ "done": true, "files": 3, "bytes": 12, "seconds": 1.234, "degraded": false })
        );
        let partly = last_object(2, 12, Duration::ZERO, false, 1);
        assert_eq!((&partly["done"], &partly["failed"]), (&json!(false), &json!(1)));
    }

    #[test]
    fn people_read_a_sentence() {
        assert_eq!(sentence(&HALF, Some(1048576.0)), " 50%  2.0 MiB of 4.0 MiB  1 of 4 files  1.0 MiB/s  2.0 s left");
        assert_eq!(sentence(&Counts { bytes: 1024, ..Default::default() }, None), "1.0 KiB");
        assert_eq!(last_sentence(2, 6, Duration::from_millis(40)), "2 files, 6 B");
        assert_eq!(last_sentence(1, 2048, Duration::from_secs(2)), "1 file, 2.0 KiB in 2.0 s (1.0 KiB/s)");
    }

    #[test]
    fn the_rate_follows_what_happens_now() {
        let mut rate = Rate::default();
        rate.update(Duration::from_secs(1), 1000);
        assert_eq!(rate.per_second, Some(1000.0));
        for second in 2..40 {
            rate.update(Duration::from_secs(second), 1000 + 100 * (second - 1));
        }
        let now = rate.per_second.unwrap();
        assert!((100.0..105.0).contains(&now), "{now}");
        assert_eq!(eta(&Counts { total_bytes: 200, bytes: 100, ..Default::default() }, Some(0.0)), None);
    }
}
