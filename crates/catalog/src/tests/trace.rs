//! Traces as expectations: `testdata/*.txt`, a command and its outcome on each line.

use super::*;

/// A user's view of the tree: where entries stand now, where they stood before.
struct Tree {
    world: World,
    user: User,
    now: BTreeMap<String, Entry>,
    before: BTreeMap<String, Entry>,
    objects: BTreeMap<ManifestId, ObjectId>,
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::NotFound => "not found",
        Kind::Exists => "exists",
        Kind::Denied => "denied",
        Kind::Conflict => "conflict",
        Kind::Unavailable => "unavailable",
        Kind::Insufficient => "insufficient",
        Kind::Corrupt => "corrupt",
        Kind::Invalid => "invalid",
    }
}

/// Folder and name of a path.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').expect("a path")
}

impl Tree {
    /// The folder of a path; one that never was for a path that never was.
    fn folder(&self, path: &str) -> FolderId {
        match path.trim_end_matches('/') {
            "" => self.user.root,
            path => self.now.get(path).and_then(|e| e.child).unwrap_or(FolderId([0xee; 16])),
        }
    }

    fn entry(&self, path: &str, stale: bool) -> &Entry {
        let entries = if stale { &self.before } else { &self.now };
        entries.get(path).unwrap_or_else(|| panic!("{path} was never made"))
    }

    fn commit(&mut self, change: Change, path: &str, after: Option<Entry>) -> String {
        match self.world.commit(&self.user.clone(), vec![change]) {
            Err(e) => word(e.kind).into(),
            Ok(_) => {
                if let Some(after) = after
                    && let Some(before) = self.now.insert(path.into(), after)
                {
                    self.before.insert(path.into(), before);
                }
                "ok".into()
            }
        }
    }

    fn run(&mut self, line: &str) -> String {
        let (stale, line) = line.strip_prefix("stale ").map_or((false, line), |rest| (true, rest));
        let words: Vec<&str> = line.split_whitespace().collect();
        let user = self.user.clone();
        match words[..] {
            ["mkdir", path] => {
                let (change, after) = self.world.new_folder(&user, self.folder(split(path).0), split(path).1);
                self.commit(change, path, Some(after))
            }
            ["put", path, bytes] => {
                let bytes = bytes.parse().expect("bytes");
                let (change, after) = match self.now.contains_key(path) {
                    true => World::overwrite(&user, self.entry(path, stale), bytes),
                    false => self.world.new_file(&user, self.folder(split(path).0), split(path).1, bytes),
                };
                self.commit(change, path, Some(after))
            }
            ["upload", path, bytes] => {
                let object = self.world.object();
                let content = ObjectUse { bytes: bytes.parse().expect("bytes"), ..used(object) };
                let manifest = self.world.manifest(vec![content]);
                self.objects.insert(manifest.id, object);
                let (change, after) = self.world.new_large(&user, self.folder(split(path).0), split(path).1, manifest);
                self.commit(change, path, Some(after))
            }
            ["cp", from, to] => {
                let manifest = self.entry(from, stale).manifest;
                let (mut change, mut after) = self.world.new_file(&user, self.folder(split(to).0), split(to).1, 128);
                (change.manifest, after.manifest) = (manifest, manifest);
                self.commit(change, to, Some(after))
            }
            ["mv", from, to] => {
                let entry = self.entry(from, stale).clone();
                let (change, after) = World::moved(&user, &entry, self.folder(split(to).0), split(to).1, 128);
                let answer = self.commit(change, to, Some(after));
                if answer == "ok" {
                    self.now.remove(from);
                    let below: Vec<_> = self.now.keys().filter(|p| p.starts_with(&format!("{from}/"))).cloned().collect();
                    for path in below {
                        let entry = self.now.remove(&path).expect("there");
                        self.now.insert(format!("{to}{}", &path[from.len()..]), entry);
                    }
                }
                answer
            }
            ["rm", path] => self.commit(World::removal(&user, self.entry(path, stale)), path, None),
            ["purge", path] => self.commit(World::purge(&user, self.entry(path, stale)), path, None),
            ["wait", time] => {
                let unit = if time.ends_with('d') { DAY } else { HOUR };
                self.world.pass(unit * time[..time.len() - 1].parse::<u64>().expect("a time"));
                "ok".into()
            }
            ["ls", path] => {
                let listed = self.world.list(&user, self.folder(path));
                let named = self.now.values().map(|e| (tag(&e.name), e.name.clone())).collect::<BTreeMap<_, _>>();
                let mut names: Vec<String> = listed.iter().map(|(tag, rev)| format!("{}@{rev}", named[tag])).collect();
                names.sort();
                names.join(" ")
            }
            ["versions", path] => {
                let rows = self.world.rows(&Query::Versions { space: user.space, entry: self.entry(path, stale).id }).rows;
                rows.iter().map(|r| format!("{}:{}", r.row.rev, r.row.sealed.len())).collect::<Vec<_>>().join(" ")
            }
            ["used"] => self.world.used(&user).to_string(),
            ["entries"] => self.world.totals().entries.to_string(),
            ["objects"] => self.world.totals().objects.to_string(),
            ["object", path] => {
                let object = self.objects[&self.entry(path, stale).manifest.expect("a file with content")];
                match self.world.ask(&Query::Objects(vec![object])) {
                    Answer::Objects(states) => format!("{:?}", states[0]).to_lowercase(),
                    other => panic!("{other:?}"),
                }
            }
            _ => panic!("not a command: {line}"),
        }
    }
}

/// Runs a trace; panics at the first line whose outcome is another.
fn replay(trace: &str) {
    let (world, user) = World::ready();
    let mut tree = Tree { world, user, now: BTreeMap::new(), before: BTreeMap::new(), objects: BTreeMap::new() };
    for (number, line) in (1..).zip(trace.lines()).filter(|(_, l)| !l.is_empty() && !l.starts_with('#')) {
        let (command, expected) = line.split_once('|').unwrap_or_else(|| panic!("line {number} has no outcome"));
        assert_eq!(tree.run(command.trim()), expected.trim(), "line {number}: {}", command.trim());
    }
}

#[test]
fn one_life_of_a_small_tree() {
    replay(include_str!("../../testdata/life.txt"));
}
