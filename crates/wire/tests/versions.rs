//! Peers one minor version apart understand each other; another major version is told who is too old.

use minicbor::{Decode, Encode};
use model::{Kind, NodeId, PublicKey, Signature};
use wire::coordinator::{HeartbeatRequest, HelloResponse, JoinResponse, RepairReport};
use wire::node::ProveRequest;
use wire::raft::{Announcement, Head};
use wire::{PROTOCOL, Version, unserved};

/// A message as a later minor version would send it: with a field that this one does not know.
fn with_another_field<T: Encode<()>>(message: &T) -> Vec<u8> {
    let mut bytes = wire::encode(message);
    // Arrays of fewer than 24 elements have their length in the first byte.
    assert!((0x80..0x97).contains(&bytes[0]), "a short array");
    bytes[0] += 1;
    bytes.extend(minicbor::to_vec("news").unwrap());
    bytes
}

/// A message as an earlier minor version would send it: with the first fields only.
fn with_fields<T: Encode<()>>(message: &T, fields: u64) -> Vec<u8> {
    let bytes = wire::encode(message);
    let mut decoder = minicbor::Decoder::new(&bytes);
    decoder.array().unwrap();
    let start = decoder.position();
    (0..fields).for_each(|_| decoder.skip().unwrap());
    let mut earlier = vec![0x80 + fields as u8];
    earlier.extend_from_slice(&bytes[start..decoder.position()]);
    earlier
}

fn same<T: Encode<()> + for<'b> Decode<'b, ()> + PartialEq + std::fmt::Debug>(message: T) {
    assert_eq!(wire::decode::<T>(&with_another_field(&message)).unwrap(), message);
}

/// A node's heartbeat of the first version, which had seven fields.
fn first_heartbeat() -> HeartbeatRequest {
    let devices: Vec<u8> = Vec::new();
    let seven = ("192.0.2.7:7000", "a", devices, "0.1.0", RepairReport::default(), 7u64, None::<u8>);
    wire::decode(&minicbor::to_vec(seven).unwrap()).unwrap()
}

#[test]
fn a_heartbeat_of_the_first_version_is_understood() {
    let first = first_heartbeat();
    assert_eq!((first.address.as_str(), first.started_ms, first.protocol), ("192.0.2.7:7000", 7, Version::default()));
    assert_eq!((first.layouts.len(), first.frozen), (0, None));
}

#[test]
fn a_field_more_is_left_out() {
    same(HeartbeatRequest { protocol: PROTOCOL, ..first_heartbeat() });
    same(Head::new(0));
    same(Announcement {
        head: Head::new(0),
        address: "192.0.2.7:7000".into(),
        version: "0.1.0".into(),
        damaged: false,
        short_of_room: false,
        now_ms: 0,
    });
    same(ProveRequest { protocol: PROTOCOL, holder: PublicKey([1; 32]), signature: Signature([2; 64]) });
    same(PROTOCOL);
}

#[test]
fn a_field_less_has_its_default() {
    let hello = HelloResponse {
        protocol: PROTOCOL,
        software: "0.1.0".into(),
        cluster: model::ClusterId([1; 16]),
        leader: None,
        root: Vec::new().into(),
        leads: true,
    };
    let old: HelloResponse = wire::decode(&with_fields(&hello, 5)).unwrap();
    assert_eq!(old, HelloResponse { leads: false, ..hello });
    let join = JoinResponse {
        cluster: model::ClusterId([1; 16]),
        root: Vec::new().into(),
        certificate: Vec::new().into(),
        node: Some(NodeId(1)),
        coordinator: None,
        coordinators: vec![(model::CoordinatorId(1), "192.0.2.1:7000".into())],
    };
    let old: JoinResponse = wire::decode(&with_fields(&join, 5)).unwrap();
    assert_eq!(old, JoinResponse { coordinators: Vec::new(), ..join });
}

#[test]
fn a_minor_version_apart_works_and_a_major_one_says_who_is_too_old() {
    let (major, minor) = (PROTOCOL.major, PROTOCOL.minor);
    assert_eq!(PROTOCOL.check(Version { major, minor: minor + 1 }), Ok(()));
    let newer = PROTOCOL.check(Version { major: major + 1, minor: 0 }).unwrap_err();
    assert_eq!(newer.kind, Kind::Invalid);
    assert_eq!(
        newer.message,
        format!(
            "the server speaks protocol {}.0 and this program {major}.{minor}: this program is too old and needs an upgrade",
            major + 1
        )
    );
    let older = PROTOCOL.check(Version { major: major - 1, minor: 9 }).unwrap_err();
    assert!(older.message.ends_with("the server is too old and needs an upgrade"), "{older}");
    // The server says the same, to whoever called.
    assert_eq!(PROTOCOL.admit(Version { major, minor: minor + 1 }), Ok(()));
    let refused = PROTOCOL.admit(Version { major: major - 1, minor: 9 }).unwrap_err();
    assert!(refused.message.ends_with("this program is too old and needs an upgrade"), "{refused}");
    // Also where the first word is not about versions.
    let refused = unserved(&format!("/v{}/put", major + 1));
    assert!(refused.message.ends_with("the server is too old and needs an upgrade"), "{refused}");
    for path in ["/v1/nonsense", "/vx/put", "/put", "/v99999/put"] {
        assert_eq!(unserved(path).message, format!("this server does not serve {path}"));
    }
}

#[test]
fn a_coordinators_message_of_another_group_or_version_is_refused() {
    assert_eq!(Head::new(3).check(3), Ok(()));
    assert_eq!(Head { protocol: Version { major: PROTOCOL.major, minor: PROTOCOL.minor + 1 }, group: 3 }.check(3), Ok(()));
    assert_eq!(Head::new(4).check(3).unwrap_err().message, "a message of consensus group 4, where group 3 was expected");
    let other = Head { protocol: Version { major: PROTOCOL.major + 1, minor: 0 }, group: 3 };
    assert!(other.check(3).unwrap_err().message.contains("too old"));
}
