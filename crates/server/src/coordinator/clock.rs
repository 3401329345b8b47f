//! The leader's clock is the catalog's: log time is the greatest time that any leader ever proposed,
//! so a clock that jumps ahead would end uploads, sessions and tokens before their time, for good.
//! While it leads, a coordinator compares its wall clock with the clock that only counts, and does
//! not believe a jump of more than [`JUMP`]. A machine that slept has not jumped: that clock goes on.
//!
//! Pure: both clocks go in.

use std::time::Duration;

/// What a wall clock may be set forward or back while its coordinator leads, and be believed.
pub(crate) const JUMP: Duration = Duration::from_secs(3600);

/// Both clocks at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    /// Milliseconds since 1970.
    pub wall_ms: u64,
    /// The clock that only counts.
    pub uptime: Duration,
}

impl Moment {
    /// Now.
    pub fn of(env: &env::Env) -> Self {
        Moment { wall_ms: env.now_ms(), uptime: env.clock.uptime() }
    }

    /// The time to propose now, by what has passed since this moment, and by how many milliseconds the
    /// wall clock differs from it where it is not believed.
    pub fn believed(&self, now: Moment) -> (u64, Option<i64>) {
        let passed = now.uptime.saturating_sub(self.uptime).as_millis() as u64;
        let expected = self.wall_ms.saturating_add(passed);
        if u128::from(now.wall_ms.abs_diff(expected)) <= JUMP.as_millis() {
            return (now.wall_ms, None);
        }
        (expected, Some(now.wall_ms.wrapping_sub(expected) as i64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;
    const START: Moment = Moment { wall_ms: 1_800_000_000_000, uptime: Duration::from_secs(1000) };

    fn after(seconds: u64, off: i64) -> (u64, Option<i64>) {
        let wall_ms = (START.wall_ms + seconds * 1000).wrapping_add_signed(off);
        START.believed(Moment { wall_ms, uptime: START.uptime + Duration::from_secs(seconds) })
    }

    #[test]
    fn a_clock_that_drifts_or_is_set_right_is_believed() {
        assert_eq!(after(60, 0), (START.wall_ms + 60_000, None));
        assert_eq!(after(60, 5000), (START.wall_ms + 65_000, None));
        assert_eq!(after(86_400, -(HOUR as i64)), (START.wall_ms + 86_400_000 - HOUR, None));
    }

    #[test]
    fn a_jump_of_more_than_an_hour_is_not_believed() {
        let day = 24 * HOUR as i64;
        assert_eq!(after(60, day), (START.wall_ms + 60_000, Some(day)));
        assert_eq!(after(60, -day), (START.wall_ms + 60_000, Some(-day)));
        assert_eq!(after(60, HOUR as i64 + 1).1, Some(HOUR as i64 + 1));
    }

    #[test]
    fn after_a_jump_time_goes_on_at_its_pace_and_a_clock_set_right_counts_again() {
        let day = 24 * HOUR as i64;
        assert_eq!(after(600, day).0 - after(60, day).0, 540_000);
        assert_eq!(after(660, 0), (START.wall_ms + 660_000, None));
    }
}
