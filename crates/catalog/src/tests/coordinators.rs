//! Coordinators come with a token, say where they are, and go; their ids are used once.

use super::*;

fn coordinators(world: &World) -> Vec<(u64, String)> {
    match world.ask(&Query::Cluster) {
        Answer::Cluster(view) => view.coordinators.into_iter().map(|c| (c.id.0, c.address)).collect(),
        other => panic!("{other:?}"),
    }
}

fn revision(world: &World) -> u64 {
    match world.ask(&Query::Cluster) {
        Answer::Cluster(view) => view.revision,
        other => panic!("{other:?}"),
    }
}

fn join(world: &mut World, operator: &User) -> CoordinatorId {
    let token = Token { role: ServerRole::Coordinator, ..world.token(START + 100 * HOUR, None) };
    world.done(Some(operator.id), Command::CreateToken(token.clone()));
    let command = Command::ConsumeToken { token: token.id, role: ServerRole::Coordinator, key: Hash([9; 32]) };
    match world.done(None, command.clone()) {
        Outcome::Joined { node: None, coordinator: Some(id) } => {
            assert_eq!(kind(&world.propose(None, command)), Kind::Denied, "a token is good once");
            id
        }
        other => panic!("{other:?}"),
    }
}

fn is_at(id: CoordinatorId, address: &str) -> Command {
    Command::UpdateCoordinator { id, address: address.into(), version: "0.1.0".into() }
}

#[test]
fn coordinators_join_and_say_where_they_are() {
    let (mut world, operator) = World::new();
    let before = revision(&world);
    assert_eq!(join(&mut world, &operator), CoordinatorId(2));
    assert_eq!(coordinators(&world), [(1, "127.0.0.1:7000".into()), (2, String::new())]);
    world.done(None, is_at(CoordinatorId(2), "192.0.2.2:7000"));
    assert_eq!(coordinators(&world)[1], (2, "192.0.2.2:7000".into()));
    assert!(revision(&world) > before, "whoever keeps a copy asks again");
    assert_eq!(kind(&world.propose(None, is_at(CoordinatorId(3), "192.0.2.3:7000"))), Kind::NotFound);
    assert_eq!(kind(&world.propose(None, is_at(CoordinatorId(2), ""))), Kind::Invalid);
}

#[test]
fn an_id_is_never_used_again() {
    let (mut world, operator) = World::new();
    let two = join(&mut world, &operator);
    world.done(None, is_at(two, "192.0.2.2:7000"));
    assert_eq!(kind(&world.propose(None, Command::RemoveCoordinator(two))), Kind::Denied, "only an admin removes");
    world.done(Some(operator.id), Command::RemoveCoordinator(two));
    assert_eq!(kind(&world.propose(Some(operator.id), Command::RemoveCoordinator(two))), Kind::NotFound);
    assert_eq!(kind(&world.propose(None, is_at(two, "192.0.2.2:7000"))), Kind::NotFound);
    assert_eq!(join(&mut world, &operator), CoordinatorId(3));
}

#[test]
fn the_last_coordinator_stays() {
    let (mut world, operator) = World::new();
    let admin = Some(operator.id);
    assert_eq!(kind(&world.propose(admin, Command::RemoveCoordinator(CoordinatorId(1)))), Kind::Invalid);
    // One that has a certificate and never came does not count, and may go.
    let two = join(&mut world, &operator);
    assert_eq!(kind(&world.propose(admin, Command::RemoveCoordinator(CoordinatorId(1)))), Kind::Invalid);
    world.done(admin, Command::RemoveCoordinator(two));
    // The founder may go when others are there.
    let three = join(&mut world, &operator);
    world.done(None, is_at(three, "192.0.2.3:7000"));
    world.done(admin, Command::RemoveCoordinator(CoordinatorId(1)));
    assert_eq!(coordinators(&world), [(3, "192.0.2.3:7000".into())]);
}
