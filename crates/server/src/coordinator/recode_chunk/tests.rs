use super::*;
use catalog::layout::plan;
use model::{DeviceId, Epoch, ObjectId};

const ALL: [&str; 8] = ["1+0", "1+1", "1+2", "2+1", "2+2", "4+2", "8+3", "10+4"];

fn chunk(number: u32) -> ChunkRef {
    ChunkRef { object: ObjectId([7; 16]), number }
}

fn sealed() -> Vec<u8> {
    (0..100_003u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// Every policy over fourteen nodes: each shard on a node of its own, and devices filled alike.
#[test]
fn every_policy_has_a_layout_over_fourteen_nodes() {
    let device = |i: u8| DeviceInfo { device: DeviceId([i; 16]), node: NodeId(u64::from(i)), zone: String::new(), capacity: 1 << 40 };
    let devices: Vec<DeviceInfo> = (1..=14).map(device).collect();
    for policy in ALL.map(|text| text.parse::<Policy>().unwrap()) {
        let layout = plan(None, Epoch(1), 10, policy.width(), &devices).unwrap();
        let mut held: BTreeMap<NodeId, u32> = BTreeMap::new();
        for number in 0..2000 {
            let holders: Vec<NodeId> = (0..policy.width()).map(|i| layout.holder(&chunk(number), i).unwrap().node).collect();
            assert_eq!(holders.iter().collect::<BTreeSet<_>>().len(), usize::from(policy.width()), "{policy}");
            holders.into_iter().for_each(|node| *held.entry(node).or_default() += 1);
        }
        assert_eq!(held.len(), 14, "{policy}: all nodes are used");
    }
    assert_eq!(plan(None, Epoch(1), 10, 15, &devices).unwrap_err().kind, Kind::Unavailable);
}

/// Rule 10: any policy becomes any other, the sealed bytes stay what they are, and coding again gives the
/// same shards: a re-coding that was interrupted finds its own.
#[test]
fn rule_10_a_chunk_goes_from_every_policy_to_every_other() {
    let policies = ALL.map(|text| text.parse::<Policy>().unwrap());
    for (i, was) in policies.iter().enumerate() {
        let first = Coder::new(*was).unwrap().encode(chunk(0), 0, sealed()).unwrap();
        // The data shards that may be lost are lost.
        let left: Vec<Option<Bytes>> = first.shards.iter().zip(0u8..).map(|(s, i)| (i >= was.m).then(|| s.clone())).collect();
        for becomes in policies.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, p)| *p) {
            let again = || {
                let sealed = Coder::new(*was).unwrap().decode(&first.descriptor, &left).unwrap();
                Coder::new(becomes).unwrap().encode(chunk(0), 1, sealed).unwrap()
            };
            let coded = again();
            assert_eq!(coded.descriptor.sealed_hash, first.descriptor.sealed_hash, "{was} to {becomes}");
            assert_eq!(coded.descriptor.id(), again().descriptor.id());
            let left: Vec<Option<Bytes>> = coded.shards.iter().zip(0u8..).map(|(s, i)| (i >= becomes.m).then(|| s.clone())).collect();
            assert!(Coder::new(becomes).unwrap().decode(&coded.descriptor, &left).unwrap() == sealed(), "{was} to {becomes}");
        }
    }
}
