//! Writes `testdata/formats/v1/*.json`. Only for a new version of the format or a new vector: frozen
//! files never change.

#![allow(dead_code, unused_imports, reason = "only a part of the tests' support is needed here")]

#[path = "../tests/it/support.rs"]
mod support;
#[path = "../tests/it/vectors.rs"]
mod vectors;

#[expect(clippy::disallowed_methods, reason = "a tool of ours outside of any cluster")]
fn main() -> std::io::Result<()> {
    std::fs::create_dir_all(vectors::directory())?;
    for (name, value) in vectors::make() {
        let path = vectors::directory().join(name);
        std::fs::write(&path, serde_json::to_string_pretty(&value)? + "\n")?;
        println!("{}", path.display());
    }
    Ok(())
}
