//! The failure detector: how long a node may be silent before it counts as suspect, down, out.
//!
//! Pure: silence and the state in the catalog go in, the state that holds now comes out.

use model::cluster::NodeState;
use std::time::Duration;

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

/// The state of a node that has been silent for `silent` and stands in the catalog as `stored`.
///
/// A node that talks is what its role in the layout makes it: `Joining` without slots, `Draining`
/// while it is emptied, `Up` otherwise.
pub fn judge(limits: &Limits, stored: NodeState, silent: Duration, holds_slots: bool) -> NodeState {
    if limits.out.is_some_and(|out| silent >= out) {
        return NodeState::Out;
    }
    if silent >= limits.down {
        // Whoever is out stays out until it is heard again.
        return if stored == NodeState::Out { NodeState::Out } else { NodeState::Down };
    }
    if silent >= limits.suspect {
        return if matches!(stored, NodeState::Out | NodeState::Down) { stored } else { NodeState::Suspect };
    }
    match stored {
        NodeState::Draining => NodeState::Draining,
        _ if !holds_slots => NodeState::Joining,
        _ => NodeState::Up,
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

    #[test]
    fn silence_makes_a_node_suspect_then_down_then_out() {
        let limits = Limits::default();
        let at = |s| judge(&limits, Up, Duration::from_secs(s), true);
        assert_eq!([at(0), at(4), at(5), at(9), at(10), at(1799), at(1800)], [Up, Up, Suspect, Suspect, Down, Down, Out]);
    }

    #[test]
    fn out_can_be_switched_off() {
        let limits = Limits { out: None, ..Limits::default() };
        assert_eq!(judge(&limits, Up, Duration::from_secs(1 << 30), true), Down);
    }

    #[test]
    fn a_node_that_talks_again_is_up_or_what_it_was() {
        let limits = Limits::default();
        assert_eq!(judge(&limits, Out, Duration::ZERO, true), Up);
        assert_eq!(judge(&limits, Down, Duration::ZERO, false), Joining);
        assert_eq!(judge(&limits, Draining, Duration::ZERO, true), Draining);
        assert_eq!(judge(&limits, Down, Duration::from_secs(6), true), Down);
    }

    #[test]
    fn suspicion_stays_out_of_the_log() {
        assert!(!worth_a_command(Up, Suspect));
        assert!(worth_a_command(Suspect, Down));
        assert!(!worth_a_command(Down, Down));
    }
}
