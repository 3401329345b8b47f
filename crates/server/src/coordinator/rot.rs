//! Whether a coordinator's database still holds what was written to it: all rows are read once a day, and when
//! an operator has everything scrubbed, and their sum is compared with the one that was kept up with each change.
//!
//! What has rotted is not mended here: nobody knows which row it is. Where others keep the catalog as well, this
//! one lets them lead, and `cluster status` says that it is to be replaced; a lone one needs its backup.

use super::part::Part;
use super::state::confused;
use crate::store::{Sum, View};
use env::Env;
use model::Result;
use model::command::{Answer, Query};
use std::sync::Arc;
use std::time::Duration;

/// How long after a start all is read for the first time.
const FIRST: Duration = Duration::from_secs(600);
/// The same after a failure of the disk, where it was found damaged before that.
const SOON: Duration = Duration::from_secs(60);
/// Longest pause between two readings.
const EVERY: Duration = Duration::from_secs(24 * 3600);
/// How often it is looked whether somebody asks for one.
const LOOK: Duration = Duration::from_secs(5);
/// Readings that may fail before that counts as damage.
const TRIES: u32 = 3;
/// Bytes read in one go; then it rests for as long as that took.
const SOME: usize = 4 << 20;

/// Runs until the process stops.
pub(crate) async fn run(part: Arc<Part>) {
    let env = part.env.clone();
    // Found damaged before its disk failed: soon it is known whether it still is.
    let first = if part.consensus.roster().health().damaged { SOON } else { FIRST };
    let mut next = env.clock.monotonic() + first;
    let mut answered = asked_ms(&part).ok();
    loop {
        env.sleep(LOOK).await;
        let asked = asked_ms(&part).ok();
        answered = answered.or(asked);
        if env.clock.monotonic() < next && asked == answered {
            continue;
        }
        answered = asked;
        let why = damage(&part).await;
        if let Some(why) = &why {
            tracing::error!(why, "the catalog's database is damaged: this coordinator is to be replaced");
        }
        part.consensus.roster().set_damaged(why.is_some());
        next = env.clock.monotonic() + EVERY;
    }
}

/// What is wrong with the rows. A disk that once does not answer is asked again before that counts.
async fn damage(part: &Arc<Part>) -> Option<String> {
    let mut why = None;
    for _ in 0..TRIES {
        // In a task of its own: over pages that make no sense the database panics.
        let (env, reading) = (part.env.clone(), part.clone());
        let read = part.env.spawn(async move { is_whole(&env, Arc::new(reading.consensus.view()?)).await });
        why = match read.await {
            Ok(Ok(true)) => return None,
            Ok(Ok(false)) => return Some("rows are not what was written".into()),
            Ok(Err(e)) => Some(e.message),
            Err(_) => return Some("its pages make no sense".into()),
        };
        // At once: a database that could not be read is closed, and this with it.
        part.consensus.roster().set_damaged(true);
        part.env.sleep(LOOK).await;
    }
    why
}

/// When a scrub was last asked for, by the catalog as it was applied here.
fn asked_ms(part: &Part) -> Result<u64> {
    match part.consensus.query_local(&Query::Cluster)? {
        Answer::Cluster(view) => Ok(view.life.scrub_ms),
        _ => Err(confused()),
    }
}

/// Whether all rows of a view are what was written.
async fn is_whole(env: &Env, view: Arc<View>) -> Result<bool> {
    let (mut sum, mut after) = (Sum::default(), None);
    loop {
        let began = env.clock.monotonic();
        let (view, start) = (view.clone(), after);
        let read = env.blocking(move || {
            let mut some = sum;
            view.sum_some(start.as_deref(), SOME, &mut some).map(|last| (some, last))
        });
        (sum, after) = read.await?;
        if after.is_none() {
            break;
        }
        env.sleep(env.clock.monotonic().saturating_sub(began)).await;
    }
    Ok(view.sum()? == Some(sum))
}
