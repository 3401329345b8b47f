//! The account's sealed notes on the servers: read, and changed by whoever is first. Another machine
//! that changes them at the same time is noticed, and the change made again on top of its own.

use crate::session::Client;
use model::command::Command;
use model::{Error, Kind, Result};
use seal::account::Notes;
use wire::coordinator::WhoAmI;

/// How often a change is tried while other machines change the notes.
const TRIES: usize = 20;

/// How old the notes are that a machine without a memory of its own was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotesAge {
    /// Identities pinned in them.
    pub pins: usize,
    /// When they were written, milliseconds since 1970; 0: at registration, and never since.
    pub time_ms: u64,
}

impl Client {
    /// The notes as they are now, with their number. `Corrupt` when the servers show older ones than
    /// this machine has seen.
    pub(crate) async fn notes(&self) -> Result<(u64, Notes)> {
        let seen = self.profile().info()?.state_seq;
        let record = self.cluster().authed::<WhoAmI, _>(()).await?.account.state;
        let notes = self.unlocked().open_notes(&record, Some(seen).filter(|seq| *seq > 0))?;
        self.remember_notes(record.seq)?;
        Ok((record.seq, notes))
    }

    /// Changes the notes. `change` answers what the caller wants to know, and whether anything changed;
    /// it is called again, on the newer notes, when another machine was faster.
    pub(crate) async fn change_notes<T>(&self, mut change: impl FnMut(&mut Notes) -> Result<(T, bool)>) -> Result<T> {
        for _ in 0..TRIES {
            let (seq, mut notes) = self.notes().await?;
            let (answer, changed) = change(&mut notes)?;
            if !changed {
                return Ok(answer);
            }
            notes.time_ms = self.env().now_ms();
            let state = self.unlocked().seal_notes(&notes, seq + 1, &mut self.env().rand());
            match self.propose(Command::PutState { account: self.unlocked().account(), state }).await {
                Ok(_) => {
                    self.remember_notes(seq + 1)?;
                    return Ok(answer);
                }
                Err(e) if e.kind == Kind::Conflict => {}
                Err(e) => return Err(e),
            }
        }
        Err(Error::conflict("the account's notes are being changed by other machines all the time").hint("try again"))
    }

    /// From now on this machine takes no older notes.
    fn remember_notes(&self, seq: u64) -> Result<()> {
        self.profile().update_info(|info| {
            if self.cluster().is_of(info) && info.account == self.unlocked().name() {
                info.state_seq = info.state_seq.max(seq);
            }
        })
    }
}
