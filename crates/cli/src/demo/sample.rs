//! The demo's own files: something to read, something large, something small, names that tell
//! something, and a phrase that must be found in no server's files.

use crate::context::Context;
use crate::local;
use model::Result;
use std::path::{Path, PathBuf};

/// In contents and in a name.
pub const CANARY: &str = "the canary sings at midnight";

/// Makes the files; answers with what is to be stored.
pub async fn make(cx: &Context, dir: &Path) -> Result<Vec<PathBuf>> {
    let dir = dir.to_path_buf();
    let seed: [u8; 32] = cx.env.random();
    cx.env
        .blocking(move || {
            let top = dir.join("sample");
            let notes = top.join("notes");
            local::make_folders(&notes)?;
            local::write(&top.join(format!("Why {CANARY}.txt")), letter(400).as_bytes())?;
            local::write(&top.join("photo.raw"), &noise(&seed, 24 << 20))?;
            local::write(&top.join("ledger.csv"), ledger(40_000).as_bytes())?;
            local::write(&notes.join("to do.txt"), format!("Tell nobody that {CANARY}.\n").as_bytes())?;
            local::write(&notes.join("nothing yet.txt"), b"")?;
            Ok(vec![top])
        })
        .await
}

/// A text of so many lines, each with the phrase.
fn letter(lines: u32) -> String {
    (1..=lines).map(|n| format!("{n:>4}. Remember that {CANARY}, and that nobody else is to know it.\n")).collect()
}

fn ledger(lines: u32) -> String {
    (1..=lines).map(|n| format!("{n},2026-{:02}-{:02},{}\n", n % 12 + 1, n % 28 + 1, n * 7919 % 100_000)).collect()
}

/// Bytes without any pattern, with the phrase in their midst.
fn noise(seed: &[u8; 32], len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new_keyed(seed).finalize_xof().fill(&mut bytes);
    if let Some(middle) = bytes.get_mut(len / 2..).and_then(|b| b.get_mut(..CANARY.len())) {
        middle.copy_from_slice(CANARY.as_bytes());
    }
    bytes
}
