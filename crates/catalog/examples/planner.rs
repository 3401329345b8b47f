//! How long planning takes, what it moves and how long a layout is, at a thousand devices: figures for docs/scale.md.
//!
//! ```text
//! cargo run --release -p catalog --example planner -- [DEVICES] [POWER]
//! ```

#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // it measures the real machine

use catalog::layout::{describe, plan};
use model::layout::DeviceInfo;
use model::{DeviceId, Epoch, Layout, NodeId, cbor};
use std::time::Instant;

/// Nodes of four devices of unequal size, in eight zones.
fn devices(count: u64) -> Vec<DeviceInfo> {
    let device = |i: u64| {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&(i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_be_bytes());
        id[8..].copy_from_slice(&i.to_be_bytes());
        let node = i / 4;
        DeviceInfo { device: DeviceId(id), node: NodeId(node + 1), zone: format!("zone {}", node % 8), capacity: 4000 + i * 977 % 12_000 }
    };
    (0..count).map(device).collect()
}

fn timed(what: &str, old: Option<&Layout>, power: u8, width: u8, devices: &[DeviceInfo]) -> Layout {
    let start = Instant::now();
    let epoch = old.map_or(Epoch(1), |o| Epoch(o.epoch.0 + 1));
    let layout = plan(old, epoch, power, width, devices).expect("planned");
    let took = start.elapsed().as_secs_f64();
    let about = describe(old.unwrap_or(&layout), &layout);
    let (moved, minimum, balance) = (about.moved, about.minimum, about.balance_ppm as f64 / 1e4);
    println!("{what:<28} width {width:>2}: {took:>7.3} s, moved {moved:>8} of at least {minimum:>8}, balance within {balance:.3} %");
    if let Some(patch) = old.and_then(|old| old.patch_to(&layout)) {
        println!("  difference encoded in {} bytes", cbor::to_vec(&patch).len());
    }
    layout
}

fn main() {
    let mut args = std::env::args().skip(1);
    let count: u64 = args.next().and_then(|a| a.parse().ok()).unwrap_or(1000);
    let power: u8 = args.next().and_then(|a| a.parse().ok()).unwrap_or(16);
    let all = devices(count + 4);
    let first = &all[..count as usize];
    for width in [4, 14] {
        let old = timed("first", None, power, width, first);
        println!("  encoded {} bytes", cbor::to_vec(&old).len());
        timed("one node more", Some(&old), power, width, &all);
        timed("one node fewer", Some(&old), power, width, &first[4..]);
        timed("a tenth of them fewer", Some(&old), power, width, &first[(count / 10) as usize..]);
        let mut grown = first.to_vec();
        grown.iter_mut().take(40).for_each(|d| d.capacity *= 2);
        timed("forty devices twice as large", Some(&old), power, width, &grown);
        let mut moved = first.to_vec();
        moved.iter_mut().filter(|d| d.node.0 <= 4).for_each(|d| d.zone = "zone 7".into());
        timed("four nodes in another zone", Some(&old), power, width, &moved);
    }
}
