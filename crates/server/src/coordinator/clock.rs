//! The leader's clock is the catalog's: log time is the greatest time that any leader ever proposed,
//! so a clock that is ahead would end uploads, sessions and tokens before their time, for good. So no
//! leader's clock is believed for itself: it is compared with the catalog's time when a term begins,
//! and with the clock that only counts from then on. Where they differ by more than [`JUMP`], because
//! the whole cluster was off or because that clock is wrong, the clocks of all servers decide: nodes
//! say theirs with each heartbeat, coordinators when they announce themselves. The median is taken, so
//! a minority of wrong or lying clocks changes nothing (as with *convergence functions* of clock
//! synchronisation: Lamport, Melliar-Smith, Synchronizing Clocks in the Presence of Faults, 1985).
//!
//! A machine that slept has not jumped: the clock that counts goes on.
//!
//! Pure: all clocks go in.

use std::collections::BTreeMap;
use std::time::Duration;
use transport::ServerId;

/// What a wall clock may differ from what is expected of it, and be believed.
pub(crate) const JUMP: Duration = Duration::from_secs(3600);
/// After this in a term, those servers decide that were heard.
const PATIENCE: Duration = Duration::from_secs(10);

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
}

/// The time to propose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogTime {
    /// Milliseconds since 1970.
    pub ms: u64,
    /// By how many milliseconds this machine's clock is ahead of it, where it is not believed.
    pub off: Option<i64>,
    /// `false`: the other servers' clocks are awaited; nothing should be proposed before.
    pub is_settled: bool,
}

/// A leader's idea of the time, for one term.
#[derive(Debug, Clone)]
pub(crate) struct TermClock {
    /// When the term began, by the clock that counts.
    began: Duration,
    /// A time that is taken for right, and when it was so.
    base: Moment,
    /// Servers of the cluster when the term began, this one too.
    servers: usize,
    /// By how many milliseconds the others' clocks are ahead of this machine's clock that counts.
    others: BTreeMap<ServerId, i128>,
    was_settled: bool,
    /// Too few were heard to be sure.
    is_doubtful: bool,
    /// Somebody was heard who does not say what its clock shows.
    was_mute_heard: bool,
}

impl TermClock {
    /// A term begins. `catalog_ms` is the catalog's time, `servers` the number of all servers.
    pub fn begin(now: Moment, catalog_ms: u64, servers: usize) -> Self {
        let base = Moment { wall_ms: catalog_ms, uptime: now.uptime };
        TermClock {
            began: now.uptime,
            base,
            servers,
            others: BTreeMap::new(),
            was_settled: false,
            is_doubtful: false,
            was_mute_heard: false,
        }
    }

    /// Another server says what its clock shows; 0: it is of a version that does not say.
    pub fn hear(&mut self, who: ServerId, wall_ms: u64, now: Duration) {
        if wall_ms == 0 {
            self.was_mute_heard = true;
            return;
        }
        self.others.insert(who, i128::from(wall_ms) - millis(now));
    }

    /// The time to propose now.
    pub fn read(&mut self, now: Moment) -> LogTime {
        if self.is_doubtful || !is_near(now.wall_ms, self.expected(now)) {
            self.ask_all(now);
        }
        let expected = self.expected(now);
        if is_near(now.wall_ms, expected) {
            self.was_settled = true;
            return LogTime { ms: now.wall_ms, off: None, is_settled: true };
        }
        let off = now.wall_ms.wrapping_sub(expected) as i64;
        LogTime { ms: expected, off: Some(off), is_settled: self.was_settled }
    }

    fn expected(&self, now: Moment) -> u64 {
        self.base.wall_ms.saturating_add(now.uptime.saturating_sub(self.base.uptime).as_millis() as u64)
    }

    /// Takes the median of all clocks, if most servers agree on it; or after a while that of those that were heard, but
    /// never one before the catalog's time. Nobody's clock is believed for itself where there are others.
    fn ask_all(&mut self, now: Moment) {
        let mut clocks: Vec<u64> = self.others.values().map(|ahead| u64::try_from(ahead + millis(now.uptime)).unwrap_or(0)).collect();
        clocks.push(now.wall_ms);
        clocks.sort_unstable();
        // Of two in the middle the earlier: the catalog's time can be moved on later, but never back.
        let median = clocks[(clocks.len() - 1) / 2];
        let agree = clocks.iter().filter(|clock| is_near(**clock, median)).count();
        let was_heard = !self.others.is_empty() || self.was_mute_heard;
        let waited = !self.was_settled && was_heard && now.uptime.saturating_sub(self.began) >= PATIENCE;
        if 2 * agree > self.servers {
            self.base = Moment { wall_ms: median, uptime: now.uptime };
            (self.was_settled, self.is_doubtful) = (true, false);
        } else if waited {
            self.base = Moment { wall_ms: median.max(self.expected(now)), uptime: now.uptime };
            (self.was_settled, self.is_doubtful) = (true, true);
        }
    }
}

fn is_near(a: u64, b: u64) -> bool {
    u128::from(a.abs_diff(b)) <= JUMP.as_millis()
}

fn millis(of: Duration) -> i128 {
    of.as_millis() as i128
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{CoordinatorId, NodeId};

    const HOUR: u64 = 3_600_000;
    const DAY: i64 = 24 * HOUR as i64;
    const START: u64 = 1_800_000_000_000;

    /// So many seconds after the start, by a clock that is so many milliseconds ahead.
    fn at(seconds: u64, ahead: i64) -> Moment {
        let wall_ms = (START + seconds * 1000).wrapping_add_signed(ahead);
        Moment { wall_ms, uptime: Duration::from_secs(1000 + seconds) }
    }

    fn believed(ms: u64) -> LogTime {
        LogTime { ms, off: None, is_settled: true }
    }

    /// `count` nodes say at the same moment how far ahead they are.
    fn nodes_say(clock: &mut TermClock, count: u64, seconds: u64, ahead: i64) {
        for node in 1..=count {
            let now = at(seconds, ahead);
            clock.hear(ServerId::Node(NodeId(node)), now.wall_ms, now.uptime);
        }
    }

    /// A leader of a cluster of four nodes, whose clock was right when its term began.
    fn settled() -> TermClock {
        let mut clock = TermClock::begin(at(0, 0), START, 5);
        assert_eq!(clock.read(at(0, 0)), believed(START));
        clock
    }

    #[test]
    fn a_clock_that_drifts_or_is_set_right_is_believed() {
        for (seconds, ahead) in [(60, 0), (60, 5000), (86_400, -(HOUR as i64))] {
            assert_eq!(settled().read(at(seconds, ahead)), believed(at(seconds, ahead).wall_ms));
        }
    }

    #[test]
    fn a_jump_of_more_than_an_hour_is_not_believed() {
        for ahead in [DAY, -DAY, HOUR as i64 + 1] {
            let mut clock = settled();
            nodes_say(&mut clock, 4, 30, 0);
            assert_eq!(clock.read(at(60, ahead)), LogTime { ms: START + 60_000, off: Some(ahead), is_settled: true });
        }
    }

    #[test]
    fn after_a_jump_time_goes_on_at_its_pace_and_a_clock_set_right_counts_again() {
        let mut clock = settled();
        assert_eq!(clock.read(at(600, DAY)).ms - clock.read(at(60, DAY)).ms, 540_000);
        assert_eq!(clock.read(at(660, 0)), believed(START + 660_000));
    }

    #[test]
    fn a_clock_that_all_servers_have_is_believed_when_it_jumps() {
        let mut clock = settled();
        nodes_say(&mut clock, 4, 60, DAY);
        assert_eq!(clock.read(at(61, DAY)), believed(at(61, DAY).wall_ms));
    }

    #[test]
    fn a_cluster_that_was_off_for_long_goes_on_as_soon_as_most_servers_say_the_same() {
        let mut clock = TermClock::begin(at(0, 0), START - 30 * DAY as u64, 5);
        assert!(!clock.read(at(0, 0)).is_settled);
        nodes_say(&mut clock, 1, 1, 0);
        assert!(!clock.read(at(1, 0)).is_settled, "two of five");
        nodes_say(&mut clock, 2, 1, 100);
        assert_eq!(clock.read(at(1, 0)), believed(at(1, 0).wall_ms));
    }

    #[test]
    fn a_leader_that_is_alone_in_the_cluster_is_believed_and_one_that_hears_nobody_is_not() {
        let mut alone = TermClock::begin(at(0, 0), START - DAY as u64, 1);
        assert_eq!(alone.read(at(0, 0)), believed(START));
        let mut unheard = TermClock::begin(at(0, 0), START - DAY as u64, 5);
        assert!(!unheard.read(at(10_000, 0)).is_settled);
        nodes_say(&mut unheard, 1, 10_001, 0);
        assert_eq!(unheard.read(at(10_002, 0)), believed(START + 10_002_000));
    }

    /// They cannot be waited for: a coordinator one version ahead of all nodes works as it did before.
    #[test]
    fn a_leader_that_hears_only_servers_that_do_not_say_is_believed_after_a_while() {
        let mut clock = TermClock::begin(at(0, 0), START - DAY as u64, 5);
        clock.hear(ServerId::Node(NodeId(1)), 0, at(1, 0).uptime);
        assert!(!clock.read(at(9, 0)).is_settled);
        assert_eq!(clock.read(at(10, 0)), believed(START + 10_000));
    }

    #[test]
    fn what_few_have_said_is_put_right_by_most() {
        let mut clock = TermClock::begin(at(0, DAY), START - 2 * DAY as u64, 5);
        nodes_say(&mut clock, 1, 1, DAY);
        assert_eq!(clock.read(at(11, DAY)), believed(at(11, DAY).wall_ms), "two say so");
        nodes_say(&mut clock, 4, 20, 0);
        assert_eq!(clock.read(at(20, DAY)), LogTime { ms: START + 20_000, off: Some(DAY), is_settled: true });
    }

    #[test]
    fn the_catalogs_time_is_never_gone_back_from() {
        let mut clock = TermClock::begin(at(0, 30 * DAY), START, 3);
        clock.hear(ServerId::Node(NodeId(1)), 1, at(0, 0).uptime);
        assert_eq!(clock.read(at(11, 30 * DAY)), LogTime { ms: START + 11_000, off: Some(30 * DAY), is_settled: true });
    }

    #[test]
    fn a_leader_whose_clock_is_wrong_from_the_start_takes_the_others_time() {
        for wrong in [400 * DAY, -400 * DAY] {
            let mut clock = TermClock::begin(at(0, wrong), START - 10_000, 5);
            nodes_say(&mut clock, 3, 1, 0);
            assert_eq!(clock.read(at(1, wrong)), LogTime { ms: START + 1000, off: Some(wrong), is_settled: true });
        }
    }

    #[test]
    fn one_liar_moves_nothing_whatever_it_says() {
        let mut clock = TermClock::begin(at(0, 0), START - 30 * DAY as u64, 3);
        clock.hear(ServerId::Node(NodeId(1)), u64::MAX, at(0, 0).uptime);
        assert!(!clock.read(at(1, 0)).is_settled);
        clock.hear(ServerId::Coordinator(CoordinatorId(2)), START, at(0, 0).uptime);
        assert_eq!(clock.read(at(1, 0)), believed(START + 1000));
        clock.hear(ServerId::Node(NodeId(1)), 1, at(1, 0).uptime);
        assert_eq!(clock.read(at(2, 0)), believed(START + 2000));
    }

    #[test]
    fn of_two_that_do_not_agree_the_earlier_is_taken() {
        let mut clock = TermClock::begin(at(0, DAY), START, 2);
        nodes_say(&mut clock, 1, 1, 0);
        assert!(!clock.read(at(1, DAY)).is_settled);
        assert_eq!(clock.read(at(11, DAY)), LogTime { ms: START + 11_000, off: Some(DAY), is_settled: true });
    }
}
