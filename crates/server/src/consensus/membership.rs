//! The group follows the catalog: its coordinators' rows say who should be in it, and the leader
//! takes one step at a time towards that. Decided purely ([`next`]), then done.

use super::Consensus;
use super::types::{StoredMembership, TypeConfig};
use model::cluster::Coordinator;
use model::command::{Answer, Query};
use model::{CoordinatorId, Error, Result};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::impls::BasicNode;
use openraft::{ChangeMembers, RaftMetrics};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How far behind a learner may be, in entries, to become a voter.
pub(super) const LAG: u64 = 100;
/// Time for one step.
const STEP: Duration = Duration::from_secs(10);

/// Who is in the group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Group {
    /// Those that vote.
    pub voters: BTreeSet<CoordinatorId>,
    /// Those that only follow.
    pub learners: BTreeSet<CoordinatorId>,
    /// A change of voters was begun and not ended.
    pub joint: bool,
}

/// One change of the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Ends a change of voters that a leader before this one began.
    Settle,
    /// Out of the group.
    Remove(CoordinatorId),
    /// Into the group, without a vote.
    AddLearner(CoordinatorId, String),
    /// A learner that has caught up gets its vote.
    Promote(CoordinatorId),
}

/// The next step from the group as it is to the one that the catalog's rows describe. `ready`: learners
/// that have caught up and answer. `None`: nothing to do, or nothing that can be done yet.
pub(crate) fn next(group: &Group, rows: &[Coordinator], ready: &BTreeSet<CoordinatorId>) -> Option<Step> {
    if group.joint {
        return Some(Step::Settle);
    }
    let listed: BTreeMap<CoordinatorId, &str> = rows.iter().map(|c| (c.id, c.address.as_str())).collect();
    // A catalog that lists none of the voters is not one to follow: nobody would be left.
    if !group.voters.iter().any(|id| listed.contains_key(id)) {
        return None;
    }
    if let Some(gone) = group.voters.iter().chain(&group.learners).find(|id| !listed.contains_key(*id)) {
        return Some(Step::Remove(*gone));
    }
    if let Some((id, address)) = listed.iter().find(|(id, address)| !address.is_empty() && !group.has(**id)) {
        return Some(Step::AddLearner(*id, address.to_string()));
    }
    group.learners.iter().find(|id| ready.contains(*id)).map(|id| Step::Promote(*id))
}

/// The group as a coordinator's metrics have it: the latest that it knows of, agreed or not.
pub(crate) fn group_of(metrics: &RaftMetrics<TypeConfig>) -> Group {
    Group::new(&metrics.membership_config)
}

/// Those of `listed` and of the members who do not vote in each of some memberships, and in both parts of one that is
/// joint.
fn without_vote(listed: &[CoordinatorId], of: &[&StoredMembership]) -> BTreeSet<CoordinatorId> {
    let configs: Vec<&BTreeSet<u64>> = of.iter().flat_map(|stored| stored.membership().get_joint_config()).collect();
    let members = of.iter().flat_map(|stored| stored.membership().nodes().map(|(id, _)| CoordinatorId(*id)));
    members.chain(listed.iter().copied()).filter(|id| !configs.iter().all(|voters| voters.contains(&id.0))).collect()
}

impl Group {
    fn new(stored: &StoredMembership) -> Self {
        let membership = stored.membership();
        let voters: BTreeSet<CoordinatorId> = membership.voter_ids().map(CoordinatorId).collect();
        let learners = membership.learner_ids().map(CoordinatorId).collect();
        Group { voters, learners, joint: membership.get_joint_config().len() > 1 }
    }

    /// Whether somebody is in it.
    pub(crate) fn has(&self, id: CoordinatorId) -> bool {
        self.voters.contains(&id) || self.learners.contains(&id)
    }
}

impl Consensus {
    /// Who is in the group, as far as this coordinator knows.
    pub(crate) fn group(&self) -> Group {
        group_of(&self.raft.metrics().borrow_watched())
    }

    /// Whether the group can go on without a coordinator: that it is not in it is agreed, and nothing else is known.
    pub(crate) fn is_without(&self, id: CoordinatorId) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        [&metrics.membership_config, &metrics.committed_membership_config].into_iter().all(|stored| !Group::new(stored).has(id))
    }

    /// Whose vote does not count yet for all that is decided: learners, those that are being given a vote while that is
    /// not agreed, and those that the catalog lists but that have not been taken into the group.
    pub(crate) fn without_vote(&self, listed: &[CoordinatorId]) -> BTreeSet<CoordinatorId> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        without_vote(listed, &[&metrics.membership_config, &metrics.committed_membership_config])
    }

    /// One step of the group towards what the catalog lists. For the leader; whether there was one.
    pub(crate) async fn follow_catalog(&self) -> Result<bool> {
        let Answer::Cluster(view) = self.query(Query::Cluster).await? else { return Ok(false) };
        let (group, ready) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let last = metrics.last_log_index.unwrap_or(0);
            let near = |id: &CoordinatorId| {
                let matched = metrics.replication.as_ref().and_then(|r| r.get(&id.0)).and_then(|m| m.as_ref());
                matched.is_some_and(|m| m.index + LAG >= last) && self.roster.is_live(*id)
            };
            let group = group_of(&metrics);
            let ready = group.learners.iter().copied().filter(near).collect();
            (group, ready)
        };
        let Some(step) = next(&group, &view.coordinators, &ready) else { return Ok(false) };
        tracing::info!(?step, "the group of coordinators changes");
        let done = self.env().timeout(STEP, self.take(&step)).await;
        done.unwrap_or_else(|| Err(Error::unavailable("the group could not be changed in time"))).map(|()| true)
    }

    async fn take(&self, step: &Step) -> Result<()> {
        let one = |id: &CoordinatorId| BTreeSet::from([id.0]);
        let change = match step {
            Step::Settle => ChangeMembers::AddVoterIds(BTreeSet::new()),
            Step::Remove(id) if self.group().voters.contains(id) => ChangeMembers::RemoveVoters(one(id)),
            Step::Remove(id) => ChangeMembers::RemoveNodes(one(id)),
            Step::AddLearner(id, address) => ChangeMembers::AddNodes(BTreeMap::from([(id.0, BasicNode::new(address))])),
            Step::Promote(id) => ChangeMembers::AddVoterIds(one(id)),
        };
        let done = self.raft.change_membership(change, false).await;
        done.map(|_| ()).map_err(|e| Error::unavailable(format!("the group cannot be changed now: {e}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(of: &[u64]) -> BTreeSet<CoordinatorId> {
        of.iter().copied().map(CoordinatorId).collect()
    }

    #[test]
    fn a_vote_counts_when_it_is_agreed_everywhere() {
        let stored = |configs: &[&[u64]], all: &[u64]| {
            let configs = configs.iter().map(|voters| voters.iter().copied().collect()).collect();
            let all: BTreeSet<u64> = all.iter().copied().collect();
            StoredMembership::new(None, openraft::Membership::new_with_defaults(configs, all))
        };
        let (two, joint, three) =
            (stored(&[&[1, 2]], &[1, 2, 3]), stored(&[&[1, 2], &[1, 2, 3]], &[1, 2, 3]), stored(&[&[1, 2, 3]], &[1, 2, 3]));
        for (effective, committed, without) in [
            (&two, &two, &[3][..]),
            (&joint, &two, &[3]),
            (&joint, &joint, &[3]),
            (&three, &joint, &[3]),
            (&three, &two, &[3]),
            (&three, &three, &[]),
            // A fresh follower knows of nothing that is agreed.
            (&three, &StoredMembership::default(), &[]),
        ] {
            assert_eq!(without_vote(&[], &[effective, committed]), ids(without), "{effective} {committed}");
        }
        let listed = [CoordinatorId(2), CoordinatorId(4)];
        assert_eq!(without_vote(&listed, &[&three, &three]), ids(&[4]), "it waits to be taken in");
    }

    fn group(voters: &[u64], learners: &[u64]) -> Group {
        Group { voters: ids(voters), learners: ids(learners), joint: false }
    }

    fn rows(of: &[u64]) -> Vec<Coordinator> {
        let row = |id: &u64| Coordinator {
            id: CoordinatorId(*id),
            address: format!("192.0.2.{id}:7000"),
            key: Default::default(),
            version: String::new(),
        };
        of.iter().map(row).collect()
    }

    #[test]
    fn a_newcomer_learns_first_and_votes_when_it_has_caught_up() {
        let (one, two) = (group(&[1], &[]), group(&[1], &[2]));
        assert_eq!(next(&one, &rows(&[1, 2]), &ids(&[])), Some(Step::AddLearner(CoordinatorId(2), "192.0.2.2:7000".into())));
        assert_eq!(next(&two, &rows(&[1, 2]), &ids(&[])), None);
        assert_eq!(next(&two, &rows(&[1, 2]), &ids(&[2])), Some(Step::Promote(CoordinatorId(2))));
        assert_eq!(next(&group(&[1, 2], &[]), &rows(&[1, 2]), &ids(&[2])), None);
    }

    #[test]
    fn one_that_never_said_where_it_is_is_left_out() {
        let mut listed = rows(&[1, 2]);
        listed[1].address.clear();
        assert_eq!(next(&group(&[1], &[]), &listed, &ids(&[])), None);
    }

    #[test]
    fn whoever_is_not_listed_any_more_goes_first() {
        assert_eq!(next(&group(&[1, 2, 3], &[4]), &rows(&[1, 2, 4]), &ids(&[4])), Some(Step::Remove(CoordinatorId(3))));
        assert_eq!(next(&group(&[1, 2], &[4]), &rows(&[1, 2]), &ids(&[4])), Some(Step::Remove(CoordinatorId(4))));
    }

    #[test]
    fn a_change_that_was_begun_is_ended_first() {
        let joint = Group { joint: true, ..group(&[1, 2, 3], &[]) };
        assert_eq!(next(&joint, &rows(&[1, 2, 3, 4]), &ids(&[])), Some(Step::Settle));
    }

    #[test]
    fn a_catalog_that_lists_no_voter_is_not_followed() {
        assert_eq!(next(&group(&[1, 2], &[]), &rows(&[7]), &ids(&[])), None);
    }
}
