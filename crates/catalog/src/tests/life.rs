//! The life of the catalog: scrubs, thaws, backups, and what a restore begins.

use super::*;
use model::cluster::{CatalogLife, ClusterView, Event};

fn view(world: &World) -> ClusterView {
    match world.ask(&Query::Cluster) {
        Answer::Cluster(view) => *view,
        other => panic!("{other:?}"),
    }
}

fn last_event(world: &World) -> Event {
    match world.ask(&Query::Events { after: world.totals().events - 1, limit: 1 }) {
        Answer::Events(mut events) => events.pop().expect("an event"),
        other => panic!("{other:?}"),
    }
}

fn coordinator(id: u64) -> Coordinator {
    Coordinator { id: CoordinatorId(id), address: String::new(), key: Hash([1; 32]), version: "0.1.0".into() }
}

fn restored(incarnation: u8, id: u64) -> Command {
    Command::Restored { incarnation: [incarnation; 16], coordinator: coordinator(id) }
}

#[test]
fn a_catalog_has_a_life_from_the_first_command_on() {
    let (world, _) = World::new();
    let (other, _) = World::new();
    let life = view(&world).life;
    assert_ne!(life.incarnation, [0; 16]);
    assert_eq!(life, CatalogLife { incarnation: life.incarnation, ..CatalogLife::default() });
    assert_eq!(life, view(&other).life, "every replica says the same");
}

#[test]
fn admins_ask_for_scrubs_and_thaws_and_note_backups() {
    let (mut world, user) = World::ready();
    let operator = stranger("operator");
    for (command, what) in
        [(Command::RequestScrub, "scrub-requested"), (Command::Thaw, "collection-thawed"), (Command::NoteBackup, "catalog-backed-up")]
    {
        assert_eq!(kind(&world.propose(Some(user.id), command.clone())), Kind::Denied);
        let before = view(&world).revision;
        world.done(Some(operator.id), command);
        assert_eq!(last_event(&world).what, what);
        assert!(view(&world).revision > before, "{what}: everybody asks again");
    }
    let life = view(&world).life;
    assert_eq!((life.scrub_ms, life.thaws, life.backup_ms, life.frozen), (world.now, 1, world.now, false));
    // Asked again within the same millisecond it is another scrub.
    world.done(Some(operator.id), Command::RequestScrub);
    assert_eq!(view(&world).life.scrub_ms, world.now + 1);
    for command in [Command::RequestScrub, Command::Thaw] {
        assert_eq!(kind(&world.propose(None, command)), Kind::Denied);
    }
}

#[test]
fn snapshots_of_servers_do_not_fill_the_log_of_events() {
    let (mut world, _) = World::new();
    let before = world.totals().events;
    for _ in 0..10 {
        world.now += 10 * 60 * 1000;
        world.done(None, Command::NoteBackup);
        assert_eq!((view(&world).life.snapshot_ms, view(&world).life.backup_ms), (world.now, 0));
    }
    assert_eq!(world.totals().events, before + 1);
}

/// Rule 8: the catalog is data too. What was restored is another incarnation that drops nothing, with one
/// coordinator that nobody has met, and gives no number out a second time.
#[test]
fn rule_08_a_restored_catalog_is_frozen_and_repeats_no_number() {
    let (mut world, _) = World::ready();
    let operator = stranger("operator");
    let before = view(&world);
    assert_eq!(kind(&world.propose(None, restored(9, 1))), Kind::Invalid, "an id that was there before");
    assert_eq!(
        kind(&world.propose(None, Command::Restored { incarnation: before.life.incarnation, coordinator: coordinator(2) })),
        Kind::Invalid
    );
    world.done(None, restored(9, 2));
    let after = view(&world);
    assert_eq!(after.coordinators, [coordinator(2)]);
    assert_eq!((after.life.incarnation, after.life.frozen), ([9; 16], true));
    assert_eq!(after.layouts, [(4, Epoch(1 + crate::RESTORE_GAP))]);
    assert!(after.revision > before.revision);
    assert_eq!(last_event(&world).what, "catalog-restored");
    let next = world.node(&operator, None, &[1_000]);
    assert!(before.nodes.iter().all(|n| n.id.0 + crate::RESTORE_GAP <= next.0));
    world.done(Some(operator.id), Command::Thaw);
    assert!(!view(&world).life.frozen);
    // A second restore, from a backup of this one.
    assert_eq!(kind(&world.propose(None, restored(10, 2))), Kind::Invalid);
    world.done(None, restored(10, 3));
    assert_eq!(view(&world).life.thaws, 1, "thaws are counted over all lives");
}
