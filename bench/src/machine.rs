//! What the operating system says of processes and time.

use rustix::time::{ClockId, clock_gettime};
use std::time::Instant;

/// Seconds of CPU that this process has used.
pub fn cpu() -> f64 {
    let t = clock_gettime(ClockId::ProcessCPUTime);
    t.tv_sec as f64 + t.tv_nsec as f64 / 1e9
}

/// Runs something; seconds of CPU and of time that it took.
pub fn costs<T>(work: impl FnOnce() -> T) -> (f64, f64, T) {
    let (cpu_before, start) = (cpu(), Instant::now());
    let value = work();
    (cpu() - cpu_before, start.elapsed().as_secs_f64(), value)
}

/// Seconds of CPU that another process has used; 0 when it is gone.
pub fn cpu_of(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Behind the name, which may hold anything: user and system time are fields 14 and 15, in 1/100 s.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

/// A line of `/proc/PID/status` in MB (`VmRSS`, `VmHWM`); 0 when it is gone.
pub fn memory_mb(pid: u32, what: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix(what)?.strip_prefix(':'));
    let kib = line.and_then(|l| l.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0);
    kib * 1024.0 / 1e6
}

/// From here on the peak of this process's memory is counted anew.
pub fn forget_peak() {
    // Without the right to do it the peak is that of the whole run: too high, never too low.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// The middle value.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// The value below which so many percent lie.
pub fn percentile(mut values: Vec<f64>, percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get((values.len() * percent / 100).min(values.len().saturating_sub(1))).copied().unwrap_or(0.0)
}
