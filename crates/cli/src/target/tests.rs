use super::*;

fn typed(text: &str) -> Typed {
    remote(OsStr::new(text)).unwrap()
}

fn file(name: &str) -> Source<&str> {
    Source { what: name, name: Some(name.as_bytes().to_vec()), folder: false }
}

fn folder(name: &str) -> Source<&str> {
    Source { folder: true, ..file(name) }
}

/// The places of sources at `destination` as typed, or the exit code.
fn go(sources: &[Source<&'static str>], destination: &str, there: There) -> std::result::Result<Vec<String>, u8> {
    let to = typed(destination);
    let placed = places(sources.to_vec(), &to.path, to.slash, sources.len() > 1, there).map_err(|e| e.code())?;
    Ok(placed.into_iter().map(|(what, place)| format!("{what}>{place}")).collect())
}

#[test]
fn remote_paths_are_read_as_typed() {
    let shown = |text| {
        let t = typed(text);
        (t.path.to_string(), t.slash, t.contents)
    };
    assert_eq!(shown("/a/b"), ("/a/b".into(), false, false));
    assert_eq!(shown("a//b/"), ("/a/b".into(), true, false));
    assert_eq!(shown("/a/./b/."), ("/a/b".into(), true, true));
    assert_eq!(shown("/"), ("/".into(), true, true));
    for bad in ["", "-", "/a/../b", ".."] {
        assert_eq!(remote(OsStr::new(bad)).unwrap_err().code(), 2, "{bad}");
    }
    let no_text = remote(OsStr::from_bytes(b"/a/\xff")).unwrap();
    assert_eq!(no_text.path.name().unwrap().as_bytes(), b"\xff");
}

#[test]
fn an_existing_folder_takes_the_sources_under_their_names() {
    assert_eq!(go(&[file("x"), folder("y")], "/d", There::Folder), Ok(vec!["x>/d/x".into(), "y>/d/y".into()]));
    assert_eq!(go(&[file("x")], "/", There::Folder), Ok(vec!["x>/x".into()]));
}

#[test]
fn one_source_becomes_what_is_not_there_or_no_folder() {
    assert_eq!(go(&[file("x")], "/d", There::Nothing), Ok(vec!["x>/d".into()]));
    assert_eq!(go(&[file("x")], "/d", There::Other), Ok(vec!["x>/d".into()]));
    assert_eq!(go(&[folder("x")], "/d", There::Nothing), Ok(vec!["x>/d".into()]));
}

#[test]
fn a_slash_at_the_end_means_a_folder() {
    assert_eq!(go(&[file("x")], "/d/", There::Nothing), Err(3));
    assert_eq!(go(&[file("x")], "/d/", There::Other), Err(1));
    assert_eq!(go(&[folder("x")], "/d/", There::Nothing), Ok(vec!["x>/d".into()]));
}

#[test]
fn several_sources_need_a_folder_that_is_there() {
    assert_eq!(go(&[file("x"), file("y")], "/d", There::Nothing), Err(3));
    assert_eq!(go(&[file("x"), file("y")], "/d", There::Other), Err(1));
}

#[test]
fn no_source_overwrites_another() {
    assert_eq!(go(&[file("x"), file("x")], "/d", There::Folder), Err(2));
}

#[test]
fn what_lies_in_a_folder_goes_to_the_destination_itself() {
    let contents = Source { name: None, ..folder("x") };
    assert_eq!(go(std::slice::from_ref(&contents), "/d", There::Folder), Ok(vec!["x>/d".into()]));
    assert_eq!(go(&[contents.clone(), contents], "/d", There::Folder), Ok(vec!["x>/d".into(), "x>/d".into()]));
}

#[test]
fn local_names_are_those_of_cp() {
    let name = |text: &str| local_name(Path::new(text)).map(|n| String::from_utf8(n).unwrap());
    assert_eq!(name("a/b"), Some("b".into()));
    assert_eq!(name("a/b/"), Some("b".into()));
    for contents in [".", "..", "a/.", "a/..", "/"] {
        assert_eq!(name(contents), None, "{contents}");
    }
}

#[test]
fn local_destinations_are_looked_at_through_symlinks() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    crate::local::make_folders(&at("folder")).unwrap();
    crate::local::write(&at("file"), b"x").unwrap();
    std::os::unix::fs::symlink("folder", at("link")).unwrap();
    std::os::unix::fs::symlink("nowhere", at("dangling")).unwrap();
    let there = ["folder", "link", "file", "dangling", "nothing"].map(|name| local_there(&at(name)));
    assert_eq!(there, [There::Folder, There::Folder, There::Other, There::Other, There::Nothing]);
}
