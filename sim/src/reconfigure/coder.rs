//! The coder: gives the users' space another policy now and then, while everything else goes on. Each of them
//! survives the loss of two nodes, so what is promised stays the same.

use super::stage::{Phase, Stage};
use super::user::{Scene, opened};
use crate::cluster::dice::Dice;
use env::Env;
use model::{Error, Policy, SpaceId};
use std::time::Duration;
use wire::coordinator::Administration;

/// Of two widths, and two of one width.
const POLICIES: &[&str] = &["2+2", "1+2", "1+3"];
/// Longest time between mending and the last object coded as its space is to be.
const CODED_WITHIN: Duration = Duration::from_secs(20 * 60);

/// The coder's program.
pub async fn coder(env: Env, stage: Stage, seed: u64) -> env::sim::Result {
    let client = opened(&env, &stage, "coder", None).await;
    let scene = Scene { env: env.clone(), stage, name: "coder".into(), client };
    let mut dice = Dice::new(seed, "coder");
    scene.ready(Phase::Setup).await;
    while scene.phase() == Phase::Play {
        let pause = dice.between(3_000, 40_000);
        env.sleep(Duration::from_millis(pause)).await;
        let _ = set(&scene, &mut dice).await;
    }
    settle(&scene, &mut dice).await;
    scene.ready(Phase::Mend).await;
    scene.ready(Phase::Check).await;
    std::future::pending().await
}

/// Sets another policy, or the same again.
async fn set(scene: &Scene, dice: &mut Dice) -> Result<(), Error> {
    let policy = dice.pick(POLICIES);
    let wanted = async {
        let space = space(scene).await?.0;
        scene.client.administer(Administration::SetPolicy { space, policy: policy.parse::<Policy>()? }).await
    };
    let done = scene.bounded("set the policy", wanted).await;
    scene.tell(format!("policy {policy}: {}", done.as_ref().map_or_else(|e| format!("{:?}: {e}", e.kind), |()| "ok".into())));
    done
}

/// The users' space, and how many of its objects are still to be coded anew.
async fn space(scene: &Scene) -> Result<(SpaceId, u64), Error> {
    let known = scene.client.space_policy("admin").await?;
    Ok((known.space, known.coding.left))
}

/// Sets a last policy, and waits until everything has it.
async fn settle(scene: &Scene, dice: &mut Dice) {
    let began = scene.now();
    while set(scene, dice).await.is_err() {
        scene.env.sleep(Duration::from_secs(5)).await;
    }
    loop {
        let left = match scene.bounded("the policy", space(scene)).await {
            Ok((_, 0)) => return scene.tell("sees everything coded as it is to be"),
            Ok((_, left)) => format!("{left} objects are still to be coded anew"),
            Err(e) => format!("{:?}: {e}", e.kind),
        };
        let now = scene.now();
        if now > began + CODED_WITHIN {
            return scene.stage.lock().fail(now, format!("not coded {CODED_WITHIN:?} after the last fault: {left}"));
        }
        scene.env.sleep(Duration::from_secs(5)).await;
    }
}
