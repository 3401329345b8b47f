//! Who may depend on whom. ARCHITECTURE.md gives the reasons; a new crate is entered here first.

use super::graph::Graph;

/// Layer of each crate. A crate imports only from lower layers.
const LAYERS: &[(&str, u8)] = &[
    ("model", 0),
    ("seal", 1),
    ("erasure", 1),
    ("wire", 1),
    ("env", 1),
    ("journal", 2),
    ("catalog", 2),
    ("transport", 2),
    ("shards", 2),
    ("server", 3),
    ("client", 3),
    ("s3", 4),
    ("webdav", 4),
    ("mount", 4),
    ("console", 4),
    ("shardkeep", 5),
];

/// Dependencies inside a layer that are allowed all the same.
const SAME_LAYER: &[(&str, &str)] = &[("shards", "journal")];

/// Beside the layers: they may use every crate, and none may use them.
const OUTSIDE: &[&str] = &["sim", "bench", "fuzz", "xtask"];

/// Time, randomness and I/O come to these as arguments.
const PURE: &[&str] = &["model", "seal", "erasure", "catalog"];

/// Speak other languages over the client, and need nothing else of ours.
const GATEWAYS: &[&str] = &["s3", "webdav", "mount", "console"];

/// One sentence for each violation.
pub fn check(graph: &Graph) -> Vec<String> {
    let mut found = Vec::new();
    for member in &graph.members {
        let name = member.name.as_str();
        if OUTSIDE.contains(&name) {
            continue;
        }
        let Some(layer) = layer_of(name) else {
            found.push(format!("crate {name} stands in no layer: enter it in ARCHITECTURE.md and in xtask/src/tidy/layers.rs"));
            continue;
        };
        for (dependency, ours) in graph.direct(name) {
            if ours {
                found.extend(layering(name, layer, dependency));
            } else if dependency == "openraft" && name != "server" {
                found.push(format!("{name} depends on openraft: only server::consensus may name the consensus library"));
            }
        }
        if PURE.contains(&name)
            && let Some(chain) = graph.path(name, |n, ours| n == "tokio" || (n == "env" && ours))
        {
            found.push(format!("{name} must stay pure (time and randomness are arguments) but reaches I/O: {}", chain.join(" → ")));
        }
        if name == "server"
            && let Some(chain) = graph.path(name, |n, ours| n == "seal" && ours)
        {
            found.push(format!("the server must not be able to name a key but reaches seal: {}", chain.join(" → ")));
        }
    }
    found
}

fn layering(name: &str, layer: u8, dependency: &str) -> Option<String> {
    if OUTSIDE.contains(&dependency) {
        return Some(format!("{name} depends on {dependency}, which is a tool beside the layers and never ships"));
    }
    if GATEWAYS.contains(&name) && dependency != "client" && dependency != "model" {
        return Some(format!("gateway {name} depends on {dependency}: gateways use client and model only"));
    }
    // A crate without a layer is reported by itself.
    let below = layer_of(dependency)?;
    let allowed = below < layer || SAME_LAYER.contains(&(name, dependency));
    (!allowed).then(|| format!("{name} (layer {layer}) depends on {dependency} (layer {below}): only lower layers are allowed"))
}

fn layer_of(name: &str) -> Option<u8> {
    LAYERS.iter().find(|(n, _)| *n == name).map(|(_, layer)| *layer)
}

#[cfg(test)]
mod tests;
