//! The coder: gives the users' space another policy now and then, while everything else goes on. Each of them
//! survives the loss of two nodes, so what is promised stays the same.

use super::stage::{Phase, Stage, Wish};
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
    let (mut last, mut later) = ("", None);
    loop {
        let phase = scene.phase();
        match phase {
            Phase::Anew if later.is_some() => {}
            Phase::Play | Phase::Anew => {
                while scene.phase() == phase {
                    let pause = dice.between(3_000, 40_000);
                    env.sleep(Duration::from_millis(pause)).await;
                    let _ = set(&scene, dice.pick(POLICIES)).await;
                }
            }
            Phase::Mend | Phase::MendAnew => {
                // The restored catalog gives out numbers of codings that were given out after the backup: to the same
                // policy here, since nodes hold what was coded then.
                last = later.unwrap_or_else(|| dice.pick(POLICIES));
                settle(&scene, last).await;
            }
            Phase::Later => {
                for _ in 0..dice.below(3) {
                    let others: Vec<&str> = POLICIES.iter().copied().filter(|p| *p != last).collect();
                    last = dice.pick(&others);
                    insist(&scene, last).await;
                    later.get_or_insert(last);
                }
            }
            Phase::Rest if later.is_some() => {
                settle(&scene, last).await;
                // The earlier coding would be dropped, but that the backup is of before.
                scene.stage.lock().wishes.push_back(Wish::Hours(2));
                env.sleep(Duration::from_secs(dice.below(1300))).await;
            }
            _ => {}
        }
        scene.ready(phase).await;
    }
}

/// Sets a policy, however long that takes.
async fn insist(scene: &Scene, policy: &str) {
    while set(scene, policy).await.is_err() {
        scene.env.sleep(Duration::from_secs(5)).await;
    }
}

/// Sets another policy, or the same again.
async fn set(scene: &Scene, policy: &str) -> Result<(), Error> {
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

/// Sets a policy, and waits until everything has it.
async fn settle(scene: &Scene, policy: &str) {
    let began = scene.now();
    insist(scene, policy).await;
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
