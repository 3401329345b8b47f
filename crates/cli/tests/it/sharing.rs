//! Three people at three homes share a folder: reading, writing, administering, and taking it back.

use crate::support::three::Three;
use crate::support::{Cluster, User, text};

fn people(cluster: &Cluster, names: &[&str]) -> Vec<User> {
    let one = |name: &&str| {
        let user = cluster.user(name);
        let invite = cluster.owner.json(&["cluster", "invite", name])["invite"].as_str().unwrap().to_string();
        let file = cluster.path(&format!("invite-{name}"));
        std::fs::write(&file, invite + "\n").unwrap();
        user.ok(&["register", &format!("@{}", file.display())]);
        user
    };
    names.iter().map(one).collect()
}

#[test]
fn a_folder_is_shared_and_taken_back_by_the_command_line() {
    let mut three = Three::start(4);
    let users = people(&three.cluster, &["ann", "bea", "cem"]);
    let [ann, bea, cem] = users.as_slice() else { unreachable!() };
    let src = three.cluster.path("src");
    std::fs::create_dir_all(src.join("sub")).unwrap();
    std::fs::write(src.join("a.txt"), b"alpha\n").unwrap();
    std::fs::write(src.join("sub/b.bin"), crate::support::files::noise(1, 3 << 20)).unwrap();
    ann.ok(&["put", "-r", text(&src), "/Work"]);

    assert_eq!(ann.run(&["share", "/Work", "bea:owner"]).exits(2).code, 2);
    assert_eq!(ann.run(&["share", "/Work", "nobody"]).exits(3).code, 3);
    assert_eq!(ann.run(&["share", "/Work/a.txt", "bea"]).exits(1).code, 1);
    assert_eq!(ann.run(&["share", "/", "bea"]).exits(1).code, 1);
    let done = ann.json(&["share", "/Work", "bea", "cem:write"]);
    assert_eq!((&done["rekeyed"], &done["shared"][1]["role"]), (&3.into(), &"write".into()), "{done}");

    // Everything that reads works for whoever may read.
    assert_eq!(bea.ok(&["ls", "/"]).lines(), ["Shared"]);
    assert_eq!(bea.ok(&["ls", "/Shared/ann/Work"]).lines(), ["a.txt", "sub"]);
    assert_eq!(
        bea.ok(&["tree", "/Shared"]).lines(),
        ["/Shared", "└── ann", "    └── Work", "        ├── a.txt", "        └── sub", "            └── b.bin"]
    );
    assert_eq!(bea.read("/Shared/ann/Work/a.txt"), b"alpha\n");
    let back = three.cluster.path("back");
    bea.ok(&["get", "-r", "/Shared/ann/Work/sub", text(&back)]);
    assert_eq!(std::fs::read(back.join("b.bin")).unwrap(), std::fs::read(src.join("sub/b.bin")).unwrap());
    assert_eq!(bea.json(&["stat", "/Shared/ann/Work/a.txt"])["size"], 6);
    assert_eq!(bea.objects(&["du", "-s", "/Shared/ann/Work"])[0]["files"], 2);
    assert_eq!(bea.ok(&["find", "/Shared", "-name", "*.bin"]).lines(), ["/Shared/ann/Work/sub/b.bin"]);
    let verified = bea.json(&["verify", "-r", "/Shared/ann/Work"]);
    assert_eq!((&verified["files"], &verified["ok"]), (&2.into(), &verified["chunks"]));
    bea.ok(&["cp", "-r", "/Shared/ann/Work/sub", "/mine"]);
    assert_eq!(bea.ok(&["ls", "/mine"]).lines(), ["b.bin"]);
    // Nothing that writes does, and it says why.
    let file = src.join("a.txt");
    let refused: [&[&str]; 6] = [
        &["put", text(&file), "/Shared/ann/Work/"],
        &["mkdir", "/Shared/ann/Work/new"],
        &["rm", "/Shared/ann/Work/a.txt"],
        &["mv", "/Shared/ann/Work/a.txt", "/Shared/ann/Work/c.txt"],
        &["mv", "/Shared/ann/Work/a.txt", "/c.txt"],
        &["cp", "/Shared/ann/Work/a.txt", "/Shared/ann/Work/c.txt"],
    ];
    for args in refused {
        let ran = bea.run(args).exits(4);
        assert!(ran.err.contains("only read"), "{args:?}: {}", ran.err);
    }
    bea.run(&["share", "/Shared/ann/Work", "cem:admin"]).exits(4);
    bea.run(&["unshare", "/Shared/ann/Work", "cem"]).exits(4);
    // Whoever may write does.
    cem.ok(&["put", text(&file), "/Shared/ann/Work/c.txt"]);
    cem.ok(&["mv", "/Shared/ann/Work/c.txt", "/Shared/ann/Work/sub/d.txt"]);
    cem.ok(&["mkdir", "-p", "/Shared/ann/Work/x/y"]);
    cem.ok(&["rm", "-r", "/Shared/ann/Work/x"]);
    assert_eq!(ann.ok(&["ls", "/Work/sub"]).lines(), ["b.bin", "d.txt"]);
    assert_eq!(ann.read("/Work/sub/d.txt"), b"alpha\n");

    let shares = ann.objects(&["shares"]);
    let told = &shares[0];
    assert_eq!(
        (&told["owner"], &told["name"], &told["mine"], &told["role"]),
        (&"ann".into(), &"Work".into(), &true.into(), &"admin".into())
    );
    assert_eq!((&told["members"][1]["name"], &told["members"][1]["role"]), (&"bea".into(), &"read".into()));
    assert!(told["members"][1]["since"].as_str().unwrap().starts_with("20"));
    let theirs = &bea.objects(&["shares"])[0];
    assert_eq!((&theirs["path"], &theirs["role"], &theirs["mine"]), (&"/Shared/ann/Work".into(), &"read".into(), &false.into()));
    bea.ok(&["shares", "rename", "/Shared/ann/Work", "Job"]);
    assert_eq!(bea.ok(&["ls", "/Shared/ann"]).lines(), ["Job"]);
    bea.ok(&["shares", "hide", "/Shared/ann/Job"]);
    assert!(bea.ok(&["ls", "/Shared"]).lines().is_empty());
    bea.ok(&["shares", "show", "/Shared/ann/Job"]);

    // Whoever administers brings others in and takes them out again; the leader is lost on the way.
    let leader = three.leader();
    three.kill(leader);
    ann.ok(&["share", "/Work", "cem:admin"]);
    cem.ok(&["share", "/Shared/ann/Work", "admin"]);
    let owner = &three.cluster.owner;
    assert_eq!(owner.read("/Shared/ann/Work/a.txt"), b"alpha\n");
    owner.run(&["rm", "/Shared/ann/Work/a.txt"]).exits(4);
    three.restart(leader);
    cem.ok(&["unshare", "/Shared/ann/Work", "admin"]);
    three.cluster.owner.run(&["cat", "/Shared/ann/Work/a.txt"]).exits(3);
    // What is the owner's alone is not the admin's.
    cem.run(&["shares", "transfer", "/Shared/ann/Work", "cem"]).exits(4);

    ann.run(&["rm", "-r", "/Work"]).exits(1);
    let done = ann.json(&["unshare", "/Work", "bea", "--reencrypt"]);
    // Three files, a folder, and one in the trash.
    assert_eq!((&done["rekeyed"], &done["reencrypted"]), (&5.into(), &1.into()), "{done}");
    bea.run(&["ls", "/Shared/ann/Job"]).exits(3);
    assert_eq!(bea.ok(&["ls", "/"]).lines(), ["mine"]);
    assert_eq!(cem.read("/Shared/ann/Work/a.txt"), b"alpha\n");
    cem.ok(&["shares", "leave", "/Shared/ann/Work"]);
    assert!(cem.objects(&["shares"]).is_empty());
    assert_eq!(ann.objects(&["shares"])[0]["members"].as_array().unwrap().len(), 1);
    assert_eq!(ann.read("/Work/sub/d.txt"), b"alpha\n");
}
