//! The log of events, checked: each event carries the hash of the one before, from the first on.
//!
//! What was verified last is remembered in the profile. A log that does not contain it, however well
//! it is chained, is another one or was rewritten. Against a server that rewrites what was never
//! looked at there is no defence: the log is for operators.

use crate::profile::Profile;
use crate::session::Client;
use env::DiskExt;
use minicbor::{Decode, Encode};
use model::cluster::Event;
use model::{Error, Hash, Result, cbor};

/// Version of the file.
const VERSION: u8 = 1;

/// A place in the log of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Verified {
    #[n(0)]
    version: u8,
    /// Number of the event; 0: before the first.
    #[n(1)]
    pub seq: u64,
    /// BLAKE3 of its encoding; zeros before the first.
    #[n(2)]
    pub hash: Hash,
}

/// A walk along the chain.
#[derive(Debug)]
pub struct Chain {
    at: Verified,
    /// Where an earlier walk ended, as long as this one has not come by.
    earlier: Option<Verified>,
}

impl Chain {
    /// From the first event on. `earlier`: an event that must be on the way.
    pub fn new(earlier: Option<Verified>) -> Self {
        Chain { at: Verified { version: VERSION, seq: 0, hash: Hash([0; 32]) }, earlier }
    }

    /// Takes the next event and answers its hash. `Corrupt` when it does not follow.
    pub fn next(&mut self, event: &Event) -> Result<Hash> {
        if event.seq != self.at.seq + 1 {
            return Err(Error::corrupt(format!("event {} is missing: event {} follows {}", self.at.seq + 1, event.seq, self.at.seq)));
        }
        if event.prev != self.at.hash {
            return Err(Error::corrupt(format!("event {} does not follow the one before it: one of both was changed", event.seq)));
        }
        let hash = Hash::of(&cbor::to_vec(event));
        if let Some(earlier) = self.earlier.filter(|e| e.seq == event.seq) {
            if earlier.hash != hash {
                return Err(other(earlier.seq));
            }
            self.earlier = None;
        }
        self.at = Verified { version: VERSION, seq: event.seq, hash };
        Ok(hash)
    }

    /// The end of the log. `Corrupt` when it is shorter than what was verified earlier.
    pub fn end(self) -> Result<Verified> {
        match self.earlier {
            Some(earlier) => Err(Error::corrupt(format!(
                "the log of events ends at {}, and it went to {} when it was last verified here",
                self.at.seq, earlier.seq
            ))
            .hint(AFTER_RESTORE)),
            None => Ok(self.at),
        }
    }
}

const AFTER_RESTORE: &str = "after a restore from a backup this is so: shardkeep cluster audit verify --forget";

fn other(seq: u64) -> Error {
    Error::corrupt(format!("event {seq} is another one than when it was last verified here: the log was rewritten")).hint(AFTER_RESTORE)
}

impl Client {
    /// Checks the whole log of events against itself and against what was verified here before, and
    /// remembers how far. Each event is handed to `each` with its hash. `forget`: whatever was
    /// verified before does not count.
    pub async fn verify_events(&self, forget: bool, mut each: impl FnMut(&Event, &Hash) -> Result<()>) -> Result<Verified> {
        let earlier = if forget { None } else { self.profile().verified_events()? };
        let mut chain = Chain::new(earlier);
        loop {
            let events = self.events(chain.at.seq).await?;
            if events.is_empty() {
                break;
            }
            for event in &events {
                let hash = chain.next(event)?;
                each(event, &hash)?;
            }
        }
        let verified = chain.end()?;
        self.profile().remember_events(&verified)?;
        Ok(verified)
    }
}

impl Profile {
    /// How far the log of events was verified here.
    fn verified_events(&self) -> Result<Option<Verified>> {
        let path = self.path("audit");
        if !self.env.disk.exists(&path) {
            return Ok(None);
        }
        let damaged = || Error::corrupt(format!("{} is damaged or of another version", path.display())).hint("remove it and verify again");
        let bytes = self.env.disk.read(&path).map_err(|_| damaged())?;
        let verified: Verified = cbor::from_slice(&bytes).map_err(|_| damaged())?;
        if verified.version != VERSION || verified.seq == 0 { Err(damaged()) } else { Ok(Some(verified)) }
    }

    fn remember_events(&self, verified: &Verified) -> Result<()> {
        if verified.seq == 0 {
            return Ok(());
        }
        self.write("audit", &cbor::to_vec(verified))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(count: u64) -> Vec<Event> {
        let mut prev = Hash([0; 32]);
        let mut event = |seq| {
            let event = Event { seq, time_ms: 1000 + seq, what: "node-up".into(), node: None, detail: format!("{seq}"), prev };
            prev = Hash::of(&cbor::to_vec(&event));
            event
        };
        (1..=count).map(&mut event).collect()
    }

    fn walk(events: &[Event], earlier: Option<Verified>) -> Result<Verified> {
        let mut chain = Chain::new(earlier);
        for event in events {
            chain.next(event)?;
        }
        chain.end()
    }

    #[test]
    fn a_log_that_only_grew_is_accepted() {
        let events = log(10);
        let first = walk(&events[..6], None).unwrap();
        assert_eq!(first.seq, 6);
        assert_eq!(walk(&events, Some(first)).unwrap().seq, 10);
        assert_eq!(walk(&events[..6], Some(first)).unwrap(), first);
        assert_eq!(walk(&[], None).unwrap().seq, 0);
    }

    #[test]
    fn changed_missing_reordered_and_rewritten_events_are_refused() {
        let events = log(10);
        let refused = |change: &dyn Fn(&mut Vec<Event>)| {
            let mut changed = events.clone();
            change(&mut changed);
            walk(&changed, None).unwrap_err()
        };
        assert!(refused(&|e| e[4].detail = "nothing happened".into()).message.starts_with("event 6 does not follow"));
        assert!(refused(&|e| drop(e.remove(4))).message.starts_with("event 5 is missing"));
        assert!(refused(&|e| e.swap(2, 3)).message.starts_with("event 3 is missing"));
        assert!(refused(&|e| drop(e.remove(0))).message.starts_with("event 1 is missing"));
        // Chained well, but another history.
        let before = walk(&events, None).unwrap();
        let mut other = log(3);
        other[2].detail = "another".into();
        let mut prev = Hash::of(&cbor::to_vec(&other[2]));
        for seq in 4..=12 {
            let event = Event { seq, time_ms: 0, what: "x".into(), node: None, detail: String::new(), prev };
            prev = Hash::of(&cbor::to_vec(&event));
            other.push(event);
        }
        walk(&other, None).unwrap();
        assert!(walk(&other, Some(before)).unwrap_err().message.contains("rewritten"));
        // Cut off at the end.
        assert!(walk(&events[..9], Some(before)).unwrap_err().message.contains("ends at 9"));
    }
}
