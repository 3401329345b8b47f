//! Each rule, with a violation planted in otherwise good metadata.

use super::check;
use crate::tidy::graph::Graph;
use serde_json::{Value, json};

/// Metadata of a workspace: crates of ours with their dependencies, `dev:NAME` for a development one.
/// What is not listed as ours is foreign.
fn graph(ours: &[(&str, &[&str])], foreign: &[(&str, &[&str])]) -> Graph {
    let id = |name: &str| format!("{name}-id");
    let node = |(name, deps): &(&str, &[&str])| -> Value {
        let deps: Vec<Value> = deps
            .iter()
            .map(|d| match d.strip_prefix("dev:") {
                Some(d) => json!({"pkg": id(d), "dep_kinds": [{"kind": "dev"}]}),
                None => json!({"pkg": id(d), "dep_kinds": [{"kind": null}]}),
            })
            .collect();
        json!({"id": id(name), "deps": deps})
    };
    let all = || ours.iter().chain(foreign);
    Graph::parse(&json!({
        "workspace_members": ours.iter().map(|(n, _)| id(n)).collect::<Vec<_>>(),
        "packages": all().map(|(n, _)| json!({"id": id(n), "name": n, "manifest_path": ""})).collect::<Vec<_>>(),
        "resolve": {"nodes": all().map(node).collect::<Vec<_>>()},
    }))
    .unwrap()
}

#[test]
fn a_tidy_workspace_passes() {
    let good = graph(
        &[
            ("model", &["minicbor"]),
            ("seal", &["model", "dev:tokio"]),
            ("env", &["tokio"]),
            ("journal", &["env"]),
            ("shards", &["journal", "model"]),
            ("server", &["shards", "openraft", "dev:seal"]),
            ("client", &["seal", "env"]),
            ("s3", &["client", "model"]),
            ("shardkeep", &["server", "client"]),
            ("sim", &["server", "client", "seal"]),
        ],
        &[("minicbor", &[]), ("tokio", &[]), ("openraft", &["tokio"])],
    );
    assert_eq!(check(&good), Vec::<String>::new());
}

#[test]
fn a_server_that_reaches_keys_is_caught_with_the_chain() {
    let bad = graph(&[("server", &["wire"]), ("wire", &["odd"]), ("seal", &[])], &[("odd", &["seal"])]);
    assert_eq!(check(&bad), ["the server must not be able to name a key but reaches seal: server → wire → odd → seal"]);
}

#[test]
fn pure_crates_that_reach_io_are_caught() {
    let bad =
        graph(&[("catalog", &["redb"]), ("model", &[]), ("erasure", &["env"]), ("env", &[])], &[("redb", &["tokio"]), ("tokio", &[])]);
    assert_eq!(
        check(&bad),
        [
            "catalog must stay pure (time and randomness are arguments) but reaches I/O: catalog → redb → tokio",
            "erasure (layer 1) depends on env (layer 1): only lower layers are allowed",
            "erasure must stay pure (time and randomness are arguments) but reaches I/O: erasure → env",
        ]
    );
}

#[test]
fn imports_from_above_or_beside_are_caught() {
    let bad = graph(&[("model", &["wire"]), ("wire", &["sim"]), ("sim", &[]), ("journal", &["shards"]), ("shards", &[])], &[]);
    assert_eq!(
        check(&bad),
        [
            "journal (layer 2) depends on shards (layer 2): only lower layers are allowed",
            "model (layer 0) depends on wire (layer 1): only lower layers are allowed",
            "wire depends on sim, which is a tool beside the layers and never ships",
        ]
    );
}

#[test]
fn gateways_strangers_and_the_consensus_library_are_caught() {
    let bad = graph(&[("webdav", &["client", "seal"]), ("client", &["openraft"]), ("seal", &[]), ("newcomer", &[])], &[("openraft", &[])]);
    assert_eq!(
        check(&bad),
        [
            "client depends on openraft: only server::consensus may name the consensus library",
            "crate newcomer stands in no layer: enter it in ARCHITECTURE.md and in xtask/src/tidy/layers.rs",
            "gateway webdav depends on seal: gateways use client and model only",
        ]
    );
}
