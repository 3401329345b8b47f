//! The crate graph, as `cargo metadata` prints it. Development dependencies are left out: what
//! tests use never ships.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A crate of the workspace.
#[derive(Debug, Clone)]
pub struct Member {
    pub name: String,
    /// Path of its Cargo.toml.
    pub manifest: String,
}

/// Crates and what they depend on (normal and build dependencies, all platforms and the default
/// features of the workspace).
#[derive(Debug, Default)]
pub struct Graph {
    /// Crates of the workspace, in order of name.
    pub members: Vec<Member>,
    /// Package id → (name, ids of its dependencies).
    packages: BTreeMap<String, (String, Vec<String>)>,
    ours: BTreeSet<String>,
}

impl Graph {
    /// Reads format version 1. The error names what is missing.
    pub fn parse(metadata: &Value) -> Result<Graph, String> {
        let list = |v: &Value, what: &str| v.as_array().cloned().ok_or_else(|| format!("cargo metadata has no {what}"));
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let mut graph =
            Graph { ours: list(&metadata["workspace_members"], "workspace_members")?.iter().map(text).collect(), ..Graph::default() };
        for package in list(&metadata["packages"], "packages")? {
            let (id, name) = (text(&package["id"]), text(&package["name"]));
            if graph.ours.contains(&id) {
                graph.members.push(Member { name: name.clone(), manifest: text(&package["manifest_path"]) });
            }
            graph.packages.insert(id, (name, Vec::new()));
        }
        for node in list(&metadata["resolve"]["nodes"], "resolved graph")? {
            let mut dependencies = Vec::new();
            for dependency in list(&node["deps"], "deps")? {
                if list(&dependency["dep_kinds"], "dep_kinds")?.iter().any(|k| k["kind"] != "dev") {
                    dependencies.push(text(&dependency["pkg"]));
                }
            }
            if let Some(package) = graph.packages.get_mut(&text(&node["id"])) {
                package.1 = dependencies;
            }
        }
        graph.members.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(graph)
    }

    /// Names of the direct dependencies of a workspace crate: (name, whether it is ours too).
    pub fn direct(&self, name: &str) -> Vec<(&str, bool)> {
        let ids = self.id(name).and_then(|id| self.packages.get(id)).map(|(_, ids)| ids.as_slice()).unwrap_or_default();
        ids.iter().filter_map(|id| self.packages.get(id).map(|(name, _)| (name.as_str(), self.ours.contains(id)))).collect()
    }

    /// The shortest chain of names from a workspace crate to a package for which `wanted(name, ours)`.
    pub fn path(&self, from: &str, wanted: impl Fn(&str, bool) -> bool) -> Option<Vec<&str>> {
        let start = self.id(from)?;
        let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
        let mut frontier = vec![start];
        while !frontier.is_empty() {
            let mut next = Vec::new();
            for id in frontier {
                for dependency in &self.packages.get(id)?.1 {
                    if dependency == start || came_from.contains_key(dependency.as_str()) {
                        continue;
                    }
                    came_from.insert(dependency, id);
                    let (name, _) = self.packages.get(dependency)?;
                    if wanted(name, self.ours.contains(dependency)) {
                        let mut chain = vec![name.as_str()];
                        let mut at = dependency.as_str();
                        while let Some(previous) = came_from.get(at) {
                            chain.push(&self.packages.get(*previous)?.0);
                            at = previous;
                        }
                        chain.reverse();
                        return Some(chain);
                    }
                    next.push(dependency.as_str());
                }
            }
            frontier = next;
        }
        None
    }

    fn id(&self, member: &str) -> Option<&str> {
        self.ours.iter().find(|id| self.packages.get(*id).is_some_and(|(name, _)| name == member)).map(String::as_str)
    }
}
