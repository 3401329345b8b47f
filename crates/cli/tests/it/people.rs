//! People by the command line: accounts from the invite to the end, keys that are compared, messages, and
//! links for those who have no account.

use crate::support::files::noise;
use crate::support::{Cluster, User, text};

const ANOTHER: &str = "another horse, another battery";

/// Registers somebody; the recovery words.
fn register(cluster: &Cluster, user: &User, name: &str) -> String {
    let invite = cluster.owner.json(&["cluster", "invite", name])["invite"].as_str().unwrap().to_string();
    user.json(&["register", &invite])["recovery_words"].as_str().unwrap().to_string()
}

/// Where the cluster is, for a machine that does not know it.
fn at(cluster: &Cluster) -> [String; 4] {
    ["--coordinator".into(), cluster.address.clone(), "--fingerprint".into(), cluster.fingerprint.clone()]
}

fn with<'a>(args: &[&'a str], more: &'a [String]) -> Vec<&'a str> {
    args.iter().copied().chain(more.iter().map(String::as_str)).collect()
}

#[test]
fn an_account_lives_on_many_machines_is_recovered_shut_out_and_let_in_again() {
    let cluster = Cluster::start(4);
    let (owner, ann) = (&cluster.owner, cluster.user("ann"));
    let words = register(&cluster, &ann, "ann");
    let file = cluster.path("file");
    std::fs::write(&file, noise(1, 300_000)).unwrap();
    ann.ok(&["put", text(&file), "/"]);
    ann.ok(&["verify-user", "admin"]);

    let at = at(&cluster);
    let office = cluster.user("office");
    let ran = office.ok(&with(&["login", "--user", "ann"], &at));
    assert!(ran.err.contains("first time") && ran.err.contains("1 pinned identities"), "{}", ran.err);
    assert_eq!(office.read("/file"), std::fs::read(&file).unwrap());
    office.ok(&["logout"]);
    office.run(&["ls"]).exits(4);
    assert_eq!(ann.ok(&["ls"]).lines(), ["file"]);
    office.ok(&["login", "--user", "ann"]);

    // The words on a machine that never was: old sessions and the old password end.
    let words_file = cluster.path("words");
    std::fs::write(&words_file, format!("{words}\n")).unwrap();
    let fresh = User::with_password(cluster.dir.path(), "fresh", ANOTHER);
    let recover = ["recover", "--user", "ann", "--words-file", text(&words_file)];
    fresh.ok(&with(&recover, &at));
    assert_eq!(fresh.read("/file"), std::fs::read(&file).unwrap());
    ann.run(&["ls"]).exits(4);
    office.run(&["ls"]).exits(4);
    ann.run(&["login"]).exits(4);

    // Admins shut out and let in, and see nothing.
    fresh.run(&["cluster", "users"]).exits(4);
    fresh.run(&["cluster", "users", "disable", "admin"]).exits(4);
    owner.run(&["cluster", "users", "disable", "admin"]).exits(1);
    owner.run(&["cluster", "users", "disable", "nobody"]).exits(3);
    assert_eq!(owner.json(&["cluster", "users", "disable", "ann"])["disabled"], true);
    fresh.run(&["ls"]).exits(4);
    let (shut_out, never_was) = (fresh.run(&["login"]).exits(4), fresh.run(&["login", "--user", "nobody"]).exits(4));
    assert_eq!(shut_out.err, never_was.err);
    let listed = owner.objects(&["cluster", "users"]);
    assert!(listed.iter().any(|u| u["account"] == "ann" && u["disabled"] == true), "{listed:?}");
    owner.ok(&["cluster", "users", "enable", "ann"]);
    fresh.ok(&["login"]);
    owner.ok(&["cluster", "users", "quota", "ann", "1K"]);
    assert_eq!(fresh.json(&["whoami"])["quota"], 1024);
    fresh.run(&["put", text(&file), "/again"]).exits(8);
    owner.ok(&["cluster", "users", "quota", "ann", "none"]);
    fresh.ok(&["put", text(&file), "/again"]);
    assert_eq!(owner.ok(&["ls"]).lines(), Vec::<&str>::new());
    // What has keys in its memory leaves no picture of it on a disk.
    let pid = cluster.coordinator.as_ref().unwrap().pid();
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits.lines().find(|l| l.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);
}

#[test]
fn people_compare_keys_and_write_to_each_other() {
    let cluster = Cluster::start(4);
    let (ann, bea) = (cluster.user("ann"), cluster.user("bea"));
    register(&cluster, &ann, "ann");
    register(&cluster, &bea, "bea");
    let mine = ann.json(&["verify-user", "bea"]);
    let theirs = bea.json(&["verify-user", "ann"]);
    assert_eq!((&mine["state"], &mine["safety_number"]), (&"new".into(), &theirs["safety_number"]));
    assert_eq!(ann.json(&["verify-user", "bea"])["state"], "pinned");
    assert_eq!(ann.json(&["verify-user", "bea", "--verified"])["state"], "verified");
    let shown = ann.ok(&["verify-user", "bea"]);
    assert!(shown.out.contains("safety number") && shown.out.contains("was compared"), "{}", shown.out);
    ann.run(&["verify-user", "nobody"]).exits(3);
    ann.run(&["verify-user", "ann"]).exits(1);

    assert_eq!(bea.json(&["whoami"])["unread"], 0);
    ann.ok(&["message", "send", "bea", "hello bea"]);
    assert_eq!(ann.run_with_input(&["message", "send", "bea", "-"], b"from a pipe\n").code, 0);
    ann.run(&["message", "send", "nobody", "hello"]).exits(3);
    ann.run(&["message", "send", "ann", "hello"]).exits(1);
    ann.run(&["message", "send", "bea", &"x".repeat(20_000)]).exits(1);
    assert_eq!(bea.json(&["whoami"])["unread"], 2);
    let list = bea.objects(&["message", "list"]);
    assert_eq!((&list[0]["from"], &list[0]["text"], &list[0]["read"]), (&"ann".into(), &"hello bea".into(), &false.into()));
    assert_eq!(list[1]["text"], "from a pipe");
    assert!(bea.ok(&["message", "read", "1"]).out.contains("hello bea"));
    assert_eq!(bea.json(&["whoami"])["unread"], 1);
    bea.run(&["message", "read", "99"]).exits(3);
    let read = bea.objects(&["message", "read"]);
    assert_eq!((read.len(), &read[0]["number"]), (1, &2.into()));
    assert!(bea.ok(&["message", "read"]).out.is_empty());
    assert_eq!(ann.objects(&["message", "list"])[0]["to"], "bea");

    // What comes along: small files whole, larger ones as links; an invitation by itself.
    let (small, large) = (cluster.path("small"), cluster.path("large"));
    std::fs::write(&small, b"a small file\n").unwrap();
    std::fs::write(&large, noise(2, 200_000)).unwrap();
    ann.ok(&["put", text(&small), text(&large), "/"]);
    ann.ok(&["message", "send", "bea", "both", "--attach", "/small"]);
    ann.ok(&["message", "send", "bea", "", "--attach", "/large"]);
    ann.ok(&["mkdir", "/Trip"]);
    ann.ok(&["share", "/Trip", "bea:write"]);
    let save = cluster.path("save");
    std::fs::create_dir_all(&save).unwrap();
    let read = bea.objects(&["message", "read", "--save", text(&save)]);
    assert_eq!(std::fs::read(save.join("small")).unwrap(), b"a small file\n");
    let link = read[1]["attachment"]["link"].as_str().unwrap();
    bea.ok(&["get", link, text(&save)]);
    assert_eq!(std::fs::read(save.join("large")).unwrap(), std::fs::read(&large).unwrap());
    assert_eq!((&read[2]["share"]["name"], &read[2]["share"]["role"]), (&"Trip".into(), &"write".into()));
    assert_eq!(bea.ok(&["ls", "/Shared/ann"]).lines(), ["Trip"]);
}

#[test]
fn links_are_read_on_a_machine_without_an_account() {
    let cluster = Cluster::start(4);
    let (owner, stranger) = (&cluster.owner, cluster.user("stranger"));
    let src = cluster.path("src");
    std::fs::create_dir_all(src.join("sub")).unwrap();
    std::fs::write(src.join("a.txt"), b"alpha\n").unwrap();
    std::fs::write(src.join("sub/b.bin"), noise(1, 5 << 20)).unwrap();
    owner.ok(&["put", "-r", text(&src), "/Trip"]);

    let made = owner.json(&["link", "create", "/Trip/sub/b.bin", "--expires", "1h", "--count", "2"]);
    let link = made["link"].as_str().unwrap();
    assert!(link.starts_with(&format!("https://{}/s/", cluster.address)) && link.contains("#1"), "{link}");
    let to = cluster.path("b.bin");
    stranger.ok(&["get", link, text(&to)]);
    assert_eq!(std::fs::read(&to).unwrap(), std::fs::read(src.join("sub/b.bin")).unwrap());
    assert_eq!(stranger.read(link), std::fs::read(&to).unwrap());
    let used_up = stranger.run(&["cat", link]).exits(4);
    assert!(used_up.err.contains("this link is not good"), "{}", used_up.err);

    let folder = owner.ok(&["link", "create", "/Trip"]).lines()[0].to_string();
    assert_eq!(stranger.ok(&["ls", &folder]).lines(), ["a.txt", "sub"]);
    assert_eq!(stranger.ok(&["ls", "-R", &folder]).lines(), ["/Trip/a.txt", "/Trip/sub", "/Trip/sub/b.bin"]);
    assert_eq!(stranger.objects(&["ls", &folder])[0]["size"], 6);
    stranger.run(&["get", &folder, text(&cluster.path("no"))]).exits(2);
    let back = cluster.path("back");
    stranger.ok(&["get", "-r", &folder, text(&back)]);
    assert_eq!(std::fs::read(back.join("sub/b.bin")).unwrap(), std::fs::read(&to).unwrap());
    assert_eq!(std::fs::read(back.join("a.txt")).unwrap(), b"alpha\n");

    let (good, wrong) = (cluster.path("good"), cluster.path("wrong"));
    std::fs::write(&good, "open sesame\n").unwrap();
    std::fs::write(&wrong, "open barley\n").unwrap();
    let locked = owner.json(&["link", "create", "/Trip/a.txt", "--password-file", text(&good)])["link"].as_str().unwrap().to_string();
    stranger.run(&["cat", &locked]).exits(2);
    stranger.run(&["cat", &locked, "--link-password-file", text(&wrong)]).exits(4);
    assert_eq!(stranger.ok(&["cat", &locked, "--link-password-file", text(&good)]).bytes, b"alpha\n");

    let list = owner.objects(&["link", "list"]);
    assert_eq!(list.iter().map(|l| l["path"].as_str().unwrap()).collect::<Vec<_>>(), ["/Trip/sub/b.bin", "/Trip", "/Trip/a.txt"]);
    assert_eq!((&list[0]["left"], &list[0]["opened"], &list[2]["password"]), (&0.into(), &2.into(), &true.into()));
    assert_eq!(list[1]["link"], folder.as_str());
    owner.ok(&["link", "revoke", &folder]);
    stranger.run(&["ls", &folder]).exits(4);
    owner.ok(&["link", "revoke", list[2]["id"].as_str().unwrap()]);
    owner.run(&["link", "revoke", list[2]["id"].as_str().unwrap()]).exits(3);
    assert_eq!(owner.objects(&["link", "list"]).len(), 1);
    // A link that was cut is told from a good one before anybody is asked.
    stranger.run(&["cat", &folder[..folder.len() - 3]]).exits(1);
    owner.run(&["link", "create", "/nothing"]).exits(3);
    owner.run(&["get", &folder, "/Trip/a.txt", text(&back)]).exits(2);
}
