//! The archivist: backs the catalog up in a moment of rest, has a fresh coordinator restored from that when
//! all are lost, lets the others join it, and releases collection a while after.
//!
//! What was stored after the backup is forgotten; everything that was there at the backup comes back, since
//! nothing of it was purged meanwhile, whatever happened to layouts and servers.

use super::servers::{BACKUP, BACKUP_PASSPHRASE, Build};
use super::stage::{Phase, Stage, Wish};
use super::user::{LOOK, Scene, opened};
use crate::check::Recorder;
use crate::cluster::dice::Dice;
use env::{DiskExt, Env};
use model::cluster::ServerRole;
use model::{Error, Kind};
use std::path::Path;
use std::time::Duration;
use wire::coordinator::Administration;

/// Longest time until the coordinators of before are there again.
const BACK_WITHIN: Duration = Duration::from_secs(10 * 60);

/// The archivist's program.
pub async fn archivist(env: Env, stage: Stage, seed: u64, build: Build) -> env::sim::Result {
    let client = opened(&env, &stage, "archivist", None).await;
    let scene = Scene { env: env.clone(), stage, name: "archivist".into(), client };
    let mut dice = Dice::new(seed, "archivist");
    scene.ready(Phase::Check).await;
    let (backup, kept) = back_up(&scene).await;
    scene.ready(Phase::Rest).await;
    bring_back(&scene, &build, dice.one_in(3), backup, Recorder::of(kept)).await;
    scene.ready(Phase::Restore).await;
    let pause = dice.below(120_000);
    env.timeout(Duration::from_millis(pause), until_mended(&scene)).await;
    while !thaw(&scene).await {
        env.sleep(Duration::from_secs(1)).await;
    }
    scene.stage.lock().ready.insert(scene.name.clone(), Phase::CheckAnew);
    // Whoever was away when it was said meets the restored catalog only now, with what nobody has looked at.
    loop {
        env.sleep(Duration::from_secs(5)).await;
        let Ok(status) = scene.bounded("status", scene.client.status()).await else { continue };
        if status.nodes.iter().any(|n| n.heartbeat.as_ref().is_some_and(|h| h.frozen.is_some())) {
            thaw(&scene).await;
        }
    }
}

async fn thaw(scene: &Scene) -> bool {
    let done = scene.bounded("thaw", scene.client.administer(Administration::Thaw)).await;
    scene.tell(format!("thaws: {}", done.as_ref().map_or_else(|e| format!("{:?}: {e}", e.kind), |()| "done".into())));
    done.is_ok()
}

async fn until_mended(scene: &Scene) {
    while scene.phase() < Phase::MendAnew {
        scene.env.sleep(LOOK).await;
    }
}

/// A backup, and what is there at its moment.
async fn back_up(scene: &Scene) -> (Vec<u8>, crate::check::State) {
    loop {
        let made = scene.client.backup(Path::new(BACKUP), BACKUP_PASSPHRASE, false, &());
        match scene.bounded("backup", made).await {
            Ok(report) => {
                let kept = scene.stage.lock().record.last_seen();
                scene.tell(format!("{report:?} of {kept:?}"));
                match scene.env.disk.read(Path::new(BACKUP)) {
                    Ok(bytes) => return (bytes, kept),
                    Err(e) => scene.stage.lock().fail(scene.now(), format!("no backup: {e}")),
                }
            }
            Err(e) if e.kind == Kind::Unavailable => scene.tell(format!("no backup: {e}")),
            Err(e) => scene.stage.lock().fail(scene.now(), format!("no backup: {:?}: {e}", e.kind)),
        }
        scene.env.sleep(Duration::from_secs(1)).await;
    }
}

/// All coordinators lose their disks. The first is restored, and as many as there were join it.
async fn bring_back(scene: &Scene, build: &Build, interrupted: bool, backup: Vec<u8>, record: Recorder) {
    let began = scene.now();
    {
        let mut shared = scene.stage.lock();
        (shared.backup, shared.record) = (Some(backup), record);
        (0..build.coordinators).for_each(|i| shared.wishes.push_back(Wish::Vacate(i)));
        if interrupted {
            shared.wishes.push_back(Wish::Interrupt(0));
        }
    }
    for i in 1..build.coordinators {
        let name = format!("coordinator{i}");
        while let Err(e) = admit(scene, &name).await {
            scene.tell(format!("token for {name}: {e}"));
            scene.env.sleep(Duration::from_secs(1)).await;
        }
    }
    while scene.stage.lock().seats.len() < build.coordinators {
        scene.env.sleep(LOOK).await;
        if scene.now() > began + BACK_WITHIN {
            let seats = scene.stage.lock().seats.clone();
            return scene.stage.lock().fail(scene.now(), format!("only {seats:?} are back {BACK_WITHIN:?} after a restore"));
        }
    }
}

async fn admit(scene: &Scene, name: &str) -> Result<(), Error> {
    let asked = scene.client.create_token(ServerRole::Coordinator, Duration::from_secs(24 * 3600), None);
    let (token, _) = scene.bounded("token", asked).await?;
    scene.stage.lock().tokens.insert(name.into(), token);
    Ok(())
}
