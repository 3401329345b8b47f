//! The failure detector: how long a node may be silent before it counts as suspect, down, out, and how
//! often it may come and go before its coming back is believed only later.
//!
//! Pure: silence, what the catalog has, and what was seen of the node before go in; the state that holds
//! now comes out.

use model::cluster::NodeState;
use std::collections::VecDeque;
use std::time::Duration;

/// A node that went down so often …
const FALLS: usize = 3;
/// … within this time …
const FALLS_WITHIN: Duration = Duration::from_secs(10 * 60);
/// … counts as back only after it has been heard for so long without a gap.
const CALM: Duration = Duration::from_secs(60);

/// Limits of silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Suspect after so long.
    pub suspect: Duration,
    /// Down after so long.
    pub down: Duration,
    /// Out after so long; `None`: never.
    pub out: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { suspect: Duration::from_secs(5), down: Duration::from_secs(10), out: Some(Duration::from_secs(30 * 60)) }
    }
}

/// What the catalog has of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Its state.
    pub stored: NodeState,
    /// A readable layout is planned over it.
    pub member: bool,
    /// An operator wants it emptied.
    pub draining: bool,
    /// An operator has taken it out for good.
    pub leaving: bool,
    /// It has talked to this coordinator since that leads.
    pub heard: bool,
}

/// What was seen of a node's comings and goings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Steadiness {
    /// When it went down, as far as that counts.
    fell: VecDeque<Duration>,
    is_down: bool,
    /// Since when it has been heard without a gap.
    calm_since: Option<Duration>,
}

impl Steadiness {
    /// Takes in how long the node has been silent at a moment. To be told every second.
    pub fn observe(&mut self, limits: &Limits, now: Duration, silent: Duration) {
        if silent >= limits.suspect {
            self.calm_since = None;
        } else {
            self.calm_since.get_or_insert(now);
        }
        if silent >= limits.down && !self.is_down {
            self.fell.push_back(now);
        }
        self.is_down = silent >= limits.down;
        while self.fell.front().is_some_and(|fell| now.saturating_sub(*fell) > FALLS_WITHIN) {
            self.fell.pop_front();
        }
    }

    /// Whether it came and went too often for its being there now to be believed.
    pub fn is_flapping(&self, now: Duration) -> bool {
        self.fell.len() >= FALLS && self.calm_since.is_none_or(|since| now.saturating_sub(since) < CALM)
    }
}

/// The state of a node that has been silent for `silent`.
///
/// A node that talks is what its place in the layouts makes it: `Joining` without one, `Draining` while
/// an operator wants it emptied, `Up` otherwise. One that flaps stays what it is until it has calmed
/// down; one that an operator took out stays out whatever it says.
pub fn judge(limits: &Limits, standing: Standing, silent: Duration, flapping: bool) -> NodeState {
    let Standing { stored, member, draining, leaving, heard } = standing;
    if leaving || limits.out.is_some_and(|out| silent >= out) {
        return NodeState::Out;
    }
    let gone = matches!(stored, NodeState::Out | NodeState::Down);
    if silent >= limits.down {
        // Whoever is out stays out until it is heard again.
        return if stored == NodeState::Out { NodeState::Out } else { NodeState::Down };
    }
    if silent >= limits.suspect {
        return if gone { stored } else { NodeState::Suspect };
    }
    // To a new leader all have been silent for a moment only: who was gone is gone until it talks.
    if gone && (flapping || !heard) {
        return stored;
    }
    match (draining, member) {
        (true, _) => NodeState::Draining,
        (false, true) => NodeState::Up,
        (false, false) => NodeState::Joining,
    }
}

/// Whether a change from `stored` to `now` goes through the log. Suspicion does not: it comes and
/// goes with every pause, and clients see it in the status anyway.
pub fn worth_a_command(stored: NodeState, now: NodeState) -> bool {
    stored != now && now != NodeState::Suspect
}

#[cfg(test)]
mod tests {
    use super::*;
    use NodeState::*;

    const MEMBER: Standing = Standing { stored: Up, member: true, draining: false, leaving: false, heard: true };

    fn secs(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    fn after(standing: Standing, silent: u64) -> NodeState {
        judge(&Limits::default(), standing, secs(silent), false)
    }

    #[test]
    fn silence_makes_a_node_suspect_then_down_then_out() {
        let at = |s| after(MEMBER, s);
        assert_eq!([at(0), at(4), at(5), at(9), at(10), at(1799), at(1800)], [Up, Up, Suspect, Suspect, Down, Down, Out]);
    }

    #[test]
    fn out_can_be_switched_off() {
        let limits = Limits { out: None, ..Limits::default() };
        assert_eq!(judge(&limits, MEMBER, secs(1 << 30), false), Down);
    }

    #[test]
    fn a_node_that_talks_again_is_what_its_place_makes_it() {
        assert_eq!(after(Standing { stored: Out, ..MEMBER }, 0), Up);
        assert_eq!(after(Standing { stored: Down, member: false, ..MEMBER }, 0), Joining);
        assert_eq!(after(Standing { stored: Down, ..MEMBER }, 6), Down);
        assert_eq!(after(Standing { stored: Out, ..MEMBER }, 20), Out);
    }

    #[test]
    fn a_draining_node_that_comes_back_is_draining_again() {
        for (stored, member) in [(Draining, true), (Down, true), (Out, true), (Draining, false)] {
            assert_eq!(after(Standing { stored, draining: true, member, ..MEMBER }, 0), Draining);
        }
        assert_eq!(after(Standing { stored: Draining, ..MEMBER }, 0), Up);
    }

    #[test]
    fn a_node_that_was_taken_out_stays_out() {
        assert_eq!(after(Standing { stored: Up, leaving: true, ..MEMBER }, 0), Out);
    }

    #[test]
    fn a_new_leader_takes_nobody_for_back_who_has_not_talked() {
        for stored in [Down, Out] {
            assert_eq!(after(Standing { stored, heard: false, ..MEMBER }, 1), stored);
        }
        assert_eq!(after(Standing { heard: false, ..MEMBER }, 1), Up);
        assert_eq!(after(Standing { heard: false, ..MEMBER }, 10), Down);
    }

    #[test]
    fn suspicion_stays_out_of_the_log() {
        assert!(!worth_a_command(Up, Suspect));
        assert!(worth_a_command(Suspect, Down));
        assert!(!worth_a_command(Down, Down));
    }

    /// A node seen every second: silent for the first part of each span, heard in the second. Gives the
    /// states that would be proposed, with the second of each.
    fn seen(spans: &[(u64, u64)]) -> Vec<(u64, NodeState)> {
        let (limits, mut steadiness, mut stored, mut proposed) = (Limits::default(), Steadiness::default(), Up, Vec::new());
        let mut second = 0;
        for (quiet, heard) in spans {
            for silent in (1..=*quiet).chain(std::iter::repeat_n(0, *heard as usize)) {
                second += 1;
                steadiness.observe(&limits, secs(second), secs(silent));
                let now = judge(&limits, Standing { stored, ..MEMBER }, secs(silent), steadiness.is_flapping(secs(second)));
                if worth_a_command(stored, now) {
                    stored = now;
                    proposed.push((second, now));
                }
            }
        }
        proposed
    }

    #[test]
    fn one_that_comes_and_goes_is_believed_only_when_it_stays() {
        // Down at the tenth second of silence, up with the first word, twice. The third time it has to stay
        // for a minute.
        let flaps = seen(&[(12, 8), (12, 8), (12, 100)]);
        assert_eq!(flaps, [(10, Down), (13, Up), (30, Down), (33, Up), (50, Down), (113, Up)]);
        // A gap begins the minute anew; what is suppressed is not proposed.
        let flaps = seen(&[(12, 8), (12, 8), (12, 50), (6, 50), (11, 70)]);
        assert_eq!(flaps, [(10, Down), (13, Up), (30, Down), (33, Up), (50, Down), (230, Up)]);
    }

    #[test]
    fn what_happened_long_ago_is_forgotten() {
        let seldom = seen(&[(12, 400), (12, 400), (12, 400), (12, 400)]);
        assert_eq!(seldom.len(), 8);
    }
}
