//! Each rule, with a planted violation. Planted text is put together from halves, so that this
//! file passes the check itself.

use super::{check, check_lints};

#[test]
fn ordinary_code_passes() {
    let code = concat!(
        "//! Never to",
        "do!() here.\nuse super::*;\npub use chunk::{ChunkRef, Descriptor};\nlet version = \"0.10.0-alpha.37\";\nserve(\"127.0.0.1:0\")\n"
    );
    assert_eq!(check("crates/model/src/lib.rs", code), Vec::<String>::new());
    assert_eq!(check("README.md", "See https://docs.rs/redb and 192.0.2.1"), Vec::<String>::new());
}

#[test]
fn unfinished_work_is_caught() {
    for name in ["todo", "unimplemented", "dbg"] {
        let found = check("crates/a/src/b.rs", &format!("fn f() {{\n    {name}!(1)\n}}\n"));
        assert_eq!(found, [format!("crates/a/src/b.rs:2: {name}! marks unfinished work")]);
    }
}

#[test]
fn glob_reexports_are_caught() {
    for line in ["pub use ids::*;", "pub(crate) use a::b::*;", "pub use a::{b, c::*};"] {
        assert_eq!(check("a.rs", line), ["a.rs:1: glob re-export; name what is re-exported"], "{line}");
    }
}

#[test]
fn a_file_of_two_ideas_is_caught() {
    assert_eq!(check("a.rs", &"\n".repeat(800)), Vec::<String>::new());
    assert_eq!(check("a.rs", &"\n".repeat(801)), ["a.rs has 801 lines, over 800: split it, it is two ideas"]);
}

#[test]
fn the_consensus_library_outside_its_module_is_caught() {
    let line = "use openraft::Raft;\n";
    assert_eq!(
        check("crates/server/src/coordinator.rs", line),
        ["crates/server/src/coordinator.rs:1: names openraft; only crates/server/src/consensus may"]
    );
    assert_eq!(check("crates/server/src/consensus/log.rs", line), Vec::<String>::new());
}

#[test]
fn private_networks_are_caught() {
    for (a, b) in [("10", "1.2.3"), ("172", "16.0.1"), ("192", "168.0.7"), ("169", "254.1.1"), ("100", "64.0.1")] {
        let found = check("docs/a.md", &format!("connect to {a}.{b}:443"));
        assert_eq!(found, [format!("docs/a.md:1: {a}.{b} is an address of a private network; examples use 192.0.2.x (RFC 5737)")]);
    }
    let found = check("a.toml", concat!("index = \"https://crates.example.inter", "nal/index\""));
    assert_eq!(found, [concat!("a.toml:1: crates.example.inter", "nal is a host of a private network")]);
}

#[test]
fn other_registries_are_caught() {
    assert_eq!(check("Cargo.lock", "source = \"registry+https://github.com/rust-lang/crates.io-index\"\n"), Vec::<String>::new());
    assert_eq!(check("Cargo.lock", "source = \"registry+https://example.org/index\"\n").len(), 1);
    assert_eq!(check(".cargo/config.toml", "[source.crates-io]\nreplace-with = \"mirror\"\n").len(), 2);
}

#[test]
fn a_crate_without_the_workspaces_lints_is_caught() {
    assert_eq!(check_lints("a", "[package]\nname = \"a\"\n\n[lints]\nworkspace = true\n"), Vec::<String>::new());
    for bad in ["[package]\n", "[lints]\n", "[lints.rust]\nworkspace = true\n"] {
        assert_eq!(check_lints("a", bad), ["crate a has no `[lints] workspace = true` in its Cargo.toml"], "{bad}");
    }
}
