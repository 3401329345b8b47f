//! W8: how the catalog grows with its entries: what a coordinator keeps of each on disk and in memory, and how
//! long it takes to list a large folder, to back all of it up, to start again after a crash, and to give a
//! second coordinator the whole of it. The entries are small files, sealed and signed as any other, committed
//! through the consensus log of a real coordinator: the first folder by the client, the others by
//! [`crate::filler`], which is faster.

use crate::filler::Filler;
use crate::machine::{forget_peak, median, memory_mb};
use crate::workloads::{Row, Run, at};
use client::{Put, PutOptions, Source};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Entries of a folder.
const FOLDER: usize = 100_000;
/// Bytes in each file: sealed into its row.
const INLINE: usize = 16;
/// Files of one call of the client.
const AT_ONCE: usize = 10_000;
/// Longest wait for a second coordinator.
const PATIENCE: Duration = Duration::from_secs(3600);

impl Run {
    /// So many entries in folders of 100,000.
    pub async fn w8(&mut self, entries: usize) -> Vec<Row> {
        let entries = if self.small { FOLDER } else { entries.next_multiple_of(FOLDER) };
        let dir = self.cluster.coordinator_dir();
        let (disk, memory) = (disk_mb(&dir), self.coordinator_memory("VmRSS"));
        let (start, client) = (Instant::now(), &self.cluster.client);
        let (invite, _) = client.create_invite("filler", false, None, Duration::from_secs(600)).await.expect("an invite");
        let cluster = client.whoami().await.expect("whoami").cluster;
        let filler = Filler::register(&invite, cluster).await;
        let mut by_client = 0.0;
        for folder in 0..entries / FOLDER {
            let begun = Instant::now();
            if folder == 0 {
                self.fill_folder().await;
                by_client = FOLDER as f64 / begun.elapsed().as_secs_f64();
            } else {
                filler.fill(&format!("folder-{folder:04}"), FOLDER, INLINE).await;
            }
            let rate = FOLDER as f64 / begun.elapsed().as_secs_f64();
            let (disk, memory) = (disk_mb(&dir), self.coordinator_memory("VmRSS"));
            eprintln!("  {:>9} entries: {rate:.0} /s, disk {disk:.0} MB, memory {memory:.0} MB", (folder + 1) * FOLDER);
        }
        let n = entries as f64;
        let all = n / start.elapsed().as_secs_f64();
        let mut rows = vec![
            Self::plain_row("W8 create, by the client", by_client, "/s"),
            Self::plain_row(&format!("W8 create, {entries} entries"), all, "/s"),
        ];
        // What waits for a checkpoint is written, and the log before it goes.
        tokio::time::sleep(Duration::from_secs(5)).await;
        let catalog = std::fs::metadata(dir.join("catalog.redb")).map_or(0.0, |m| m.len() as f64);
        rows.push(Self::plain_row("W8 coordinator disk an entry", (disk_mb(&dir) - disk) * 1e6 / n, "bytes"));
        rows.push(Self::plain_row("W8 of that the catalog", catalog / n, "bytes"));
        rows.push(Self::plain_row("W8 coordinator memory, before", memory, "MB"));
        rows.push(Self::plain_row("W8 coordinator memory, after", self.coordinator_memory("VmRSS"), "MB"));
        rows.push(self.lists().await);
        rows.extend(self.backs_up().await);
        rows.extend(self.starts_again().await);
        rows.extend(self.grows_in_number(&dir).await);
        rows
    }

    async fn fill_folder(&self) {
        let client = &self.cluster.client;
        client.mkdir(&at("/w8"), false).await.expect("mkdir");
        for some in (0..FOLDER).collect::<Vec<_>>().chunks(AT_ONCE) {
            let put =
                |i: &usize| Put { source: Source::Bytes(format!("{i:0INLINE$}").into_bytes()), remote: at(&format!("/w8/file-{i:06}")) };
            let report = client.put(some.iter().map(put).collect(), PutOptions::default(), Arc::new(())).await.expect("put");
            assert!(report.failed.is_empty(), "put failed: {:?}", report.failed.first());
        }
    }

    fn coordinator_memory(&self, what: &str) -> f64 {
        memory_mb(self.cluster.coordinator_pid(), what)
    }

    async fn lists(&self) -> Row {
        let mut seconds = Vec::new();
        for _ in 0..self.rounds {
            let start = Instant::now();
            let listed = self.cluster.client.list(&at("/w8")).await.expect("list");
            seconds.push(start.elapsed().as_secs_f64());
            assert_eq!(listed.len(), FOLDER);
        }
        Self::plain_row(&format!("W8 list a folder of {FOLDER}"), median(seconds), "s")
    }

    async fn backs_up(&self) -> Vec<Row> {
        let file = self.dir.join("backup");
        forget_peak();
        let start = Instant::now();
        let report = self.cluster.client.backup(&file, "a long enough passphrase 9", false, &()).await.expect("a backup");
        let seconds = start.elapsed().as_secs_f64();
        std::fs::remove_file(&file).expect("removing");
        vec![
            Self::plain_row("W8 backup", seconds, "s"),
            Self::plain_row("W8 backup, size", report.bytes as f64 / 1e6, "MB"),
            Self::plain_row("W8 backup, rows", report.rows as f64, "rows"),
            Self::plain_row("W8 coordinator memory, at the most", self.coordinator_memory("VmHWM"), "MB"),
        ]
    }

    /// The coordinator is killed, and stopped, and started again each time.
    async fn starts_again(&mut self) -> Vec<Row> {
        let mut rows = Vec::new();
        for (kill, name) in [(true, "W8 restart after kill -9"), (false, "W8 restart after a stop")] {
            let mut seconds = Vec::new();
            for round in 0..self.rounds {
                // Something is behind the last checkpoint.
                self.cluster.client.mkdir(&at(&format!("/w8-{kill}-{round}")), false).await.expect("mkdir");
                self.cluster.stop_coordinator(kill);
                let start = Instant::now();
                self.cluster.start_coordinator();
                self.cluster.client.stat(&at(&format!("/w8-{kill}-{round}"))).await.expect("an answer");
                seconds.push(start.elapsed().as_secs_f64());
            }
            // The first one: after it little is to be done again.
            rows.push(Self::plain_row(name, seconds.first().copied().unwrap_or(0.0), "s"));
        }
        rows
    }

    /// A second coordinator gets the whole catalog as a snapshot.
    async fn grows_in_number(&mut self, dir: &Path) -> Vec<Row> {
        let start = Instant::now();
        self.cluster.join_coordinator("c2").await;
        let mut most = 0.0f64;
        loop {
            let status = self.cluster.client.status().await.expect("status");
            if status.coordinators.len() == 2 && status.learners.is_empty() {
                break;
            }
            assert!(start.elapsed() < PATIENCE, "the second coordinator has not caught up");
            most = most.max(self.cluster.second_coordinator_pid().map_or(0.0, |pid| memory_mb(pid, "VmRSS")));
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let second = dir.with_file_name("c2");
        vec![
            Self::plain_row("W8 a second coordinator has all", start.elapsed().as_secs_f64(), "s"),
            Self::plain_row("W8 disk of the second one", disk_mb(&second), "MB"),
            Self::plain_row("W8 memory of the second one, most", most, "MB"),
        ]
    }
}

/// All files of a folder, in MB as they lie on the disk.
fn disk_mb(dir: &Path) -> f64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir(dir) else { return 0.0 };
    let of = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(m) if m.is_dir() => disk_mb(&entry.path()),
        Ok(m) => m.blocks() as f64 * 512.0 / 1e6,
        // It went meanwhile.
        Err(_) => 0.0,
    };
    entries.filter_map(Result::ok).map(of).sum()
}
