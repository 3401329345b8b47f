use super::*;

const NOW: u64 = 1_800_000_000_000;
const CLUSTER: ClusterId = ClusterId([0xab; 16]);

#[test]
fn a_certificate_says_what_was_issued() {
    let env = env::real::env();
    let root = ClusterRoot::generate(CLUSTER, NOW, &env).unwrap();
    let key = ServerKey::generate(&env).unwrap();
    for id in [ServerId::Node(NodeId(5)), ServerId::Coordinator(CoordinatorId(1))] {
        let cert = root.issue(id, CLUSTER, key.spki(), NOW, CERTIFICATE_VALIDITY).unwrap();
        let info = certificate_info(&cert).unwrap();
        assert_eq!(info.id, id);
        assert_eq!(info.cluster, CLUSTER);
        assert_eq!(info.spki, key.spki());
        assert_eq!(info.not_before_ms, 0);
        assert_eq!(info.not_after_ms, NOW + 90 * 86_400_000);
        assert_eq!(cert, root.issue(id, CLUSTER, key.spki(), NOW, CERTIFICATE_VALIDITY).unwrap(), "the same again");
    }
    assert!(certificate_info(root.cert_der()).is_err(), "a root is no server");
    let again = ClusterRoot::load(root.cert_der(), root.key_der()).unwrap();
    assert_eq!(again.fingerprint(), root.fingerprint());
    assert!(ClusterRoot::load(root.cert_der(), key.pkcs8()).is_err());
    assert_eq!(ServerKey::load(key.pkcs8()).unwrap().hash(), key.hash());
}

#[test]
fn certificates_have_one_size() {
    let env = env::real::env();
    let root = ClusterRoot::generate(CLUSTER, NOW, &env).unwrap();
    let sizes: Vec<usize> = (0..50)
        .map(|i| {
            let key = ServerKey::generate(&env).unwrap();
            root.issue(ServerId::Node(NodeId(1)), CLUSTER, key.spki(), NOW + i, CERTIFICATE_VALIDITY).unwrap().len()
        })
        .collect();
    assert!(sizes.iter().all(|s| *s == sizes[0]), "{sizes:?}");
}

#[test]
fn names_stand_for_exactly_one_server() {
    let parse = |names: &[&str]| {
        ServerId::from_names(&names.iter().map(|n| n.replace("C", &CLUSTER.to_string())).collect::<Vec<_>>()).map(|(id, _)| id)
    };
    assert_eq!(parse(&["node-7.C.shardkeep"]), Some(ServerId::Node(NodeId(7))));
    assert_eq!(parse(&["coordinator-7.C.shardkeep", "coordinator.C.shardkeep"]), Some(ServerId::Coordinator(CoordinatorId(7))));
    for names in [
        &["node-7.C.shardkeep", "coordinator.C.shardkeep"][..],
        &["coordinator-7.C.shardkeep"],
        &["coordinator.C.shardkeep"],
        &["node-07.C.shardkeep"],
        &["node-+7.C.shardkeep"],
        &["node-7.C.example"],
        &["node-7.shardkeep"],
        &["x-7.C.shardkeep"],
        &["NODE-7.C.shardkeep"],
        &[],
        &[""],
    ] {
        assert_eq!(parse(names), None, "{names:?}");
    }
}

#[test]
fn garbage_is_refused() {
    let env = env::real::env();
    let root = ClusterRoot::generate(CLUSTER, NOW, &env).unwrap();
    let id = ServerId::Node(NodeId(1));
    let key = ServerKey::generate(&env).unwrap();
    for garbage in [&b""[..], b"x", &[0x30; 44], &[0xff; 300], &key.spki()[..43]] {
        assert!(root.issue(id, CLUSTER, garbage, NOW, CERTIFICATE_VALIDITY).is_err());
        assert!(certificate_info(garbage).is_err());
        assert!(ServerKey::load(garbage).is_err());
        assert!(ClusterRoot::load(garbage, garbage).is_err());
    }
    let cert = root.issue(id, CLUSTER, key.spki(), NOW, CERTIFICATE_VALIDITY).unwrap();
    for end in 0..cert.len() {
        assert!(certificate_info(&cert[..end]).is_err());
    }
}
