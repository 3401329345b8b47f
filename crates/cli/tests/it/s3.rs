//! The S3 gateway with real processes and a real client (boto3, as Debian has it).

use crate::support::files::noise;
use crate::support::{Cluster, Ran, Running, Server, until};
use std::path::Path;
use std::process::Command;

/// A gateway that serves.
struct Gateway {
    server: Server,
    url: String,
    key: (String, String),
}

impl Gateway {
    fn start(cluster: &Cluster, more: &[&str]) -> Gateway {
        let key = cluster.owner.json(&["s3", "key", "create"]);
        let key = (key["access_key"].as_str().unwrap().to_string(), key["secret_key"].as_str().unwrap().to_string());
        Gateway::with_key(cluster, more, key)
    }

    fn with_key(cluster: &Cluster, more: &[&str], key: (String, String)) -> Gateway {
        let args = [&["--json", "s3", "--listen", "127.0.0.1:0", "--until-stdin-ends"], more].concat();
        let server = Server::start(cluster.owner.command(&args), &cluster.logs(), "s3").unwrap_or_else(|ran| panic!("no gateway: {ran:?}"));
        assert_eq!(server.ready["role"], "s3");
        let url = server.ready["url"].as_str().unwrap().to_string();
        Gateway { server, url, key }
    }

    /// Runs Python with boto3 against it.
    fn python(&self, args: &[&str]) -> Ran {
        let mut command = Command::new("/usr/bin/python3");
        command.args(args).env("S3_URL", &self.url).env("S3_ACCESS_KEY", &self.key.0).env("S3_SECRET_KEY", &self.key.1);
        for name in ["AWS_CA_BUNDLE", "AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "HTTP_PROXY", "http_proxy"] {
            command.env_remove(name);
        }
        Running::of(command).wait()
    }

    /// A few lines of Python, with `s3` at hand.
    #[track_caller]
    fn does(&self, lines: &str) -> String {
        let script = format!(
            "import boto3, os, sys\nfrom botocore.config import Config\nfrom botocore.exceptions import ClientError\n\
             s3 = boto3.client('s3', endpoint_url=os.environ['S3_URL'], aws_access_key_id=os.environ['S3_ACCESS_KEY'], \
             aws_secret_access_key=os.environ['S3_SECRET_KEY'], region_name='us-east-1', config=Config(retries={{'max_attempts': 0}}))\n{lines}"
        );
        self.python(&["-c", &script]).ok().out
    }

    /// The code of the error with which a line ends.
    #[track_caller]
    fn fails(&self, line: &str) -> String {
        self.does(&format!("try:\n  {line}\nexcept ClientError as e: print(e.response['Error']['Code'])")).trim().into()
    }
}

#[test]
fn clients_find_what_they_know_of_s3() {
    let cluster = Cluster::start(4);
    let gateway = Gateway::start(&cluster, &[]);
    let story = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/s3/story.py");
    let ran = gateway.python(&[story.to_str().unwrap()]);
    assert_eq!((ran.code, ran.out.as_str()), (0, ""), "{}", ran.err);
    // What is noted of requests has no signature in it.
    let log = std::fs::read_to_string(cluster.logs().join("s3.err")).unwrap();
    assert!(log.contains("/sig/posted") && !log.contains("Signature") && !log.contains(&gateway.key.1));
    assert_eq!(gateway.server.stop().0, 0);
}

#[test]
fn objects_are_files_and_files_are_objects() {
    let cluster = Cluster::start(4);
    let gateway = Gateway::start(&cluster, &["--bucket", "elsewhere=/Photos"]);
    let owner = &cluster.owner;
    let source = cluster.path("big");
    std::fs::write(&source, noise(7, 9_000_000)).unwrap();
    gateway.does("s3.create_bucket(Bucket='box'); s3.put_object(Bucket='box', Key='a/b.txt', Body=b'from S3')");
    assert_eq!(owner.read("/s3/box/a/b.txt"), b"from S3");
    owner.ok(&["put", source.to_str().unwrap(), "/s3/box/a/big"]);
    owner.ok(&["mkdir", "/Photos"]);
    owner.ok(&["put", source.to_str().unwrap(), "/Photos/big"]);
    // Listed at once, whoever stored it, and read the same.
    assert_eq!(gateway.does("print([o['Key'] for o in s3.list_objects_v2(Bucket='box')['Contents']])").trim(), "['a/b.txt', 'a/big']");
    let same = format!(
        "print(all(s3.get_object(Bucket=b, Key=k)['Body'].read() == open({source:?}, 'rb').read() for b, k in [('box', 'a/big'), ('elsewhere', 'big')]))"
    );
    assert_eq!(gateway.does(&same).trim(), "True");
    owner.ok(&["rm", "/s3/box/a/b.txt"]);
    assert_eq!(gateway.does("print([o['Key'] for o in s3.list_objects_v2(Bucket='box')['Contents']])").trim(), "['a/big']");
    assert_eq!(gateway.fails("s3.get_object(Bucket='box', Key='a/b.txt')"), "NoSuchKey");
    // A file gives way to a folder of its name, and both are there.
    gateway.does("s3.put_object(Bucket='box', Key='n', Body=b'1'); s3.put_object(Bucket='box', Key='n/m', Body=b'2')");
    assert_eq!(owner.read("/s3/box/n/m"), b"2");
    assert_eq!(gateway.does("print(s3.get_object(Bucket='box', Key='n')['Body'].read())").trim(), "b'1'");
    // Folders are remembered, also when one above them is moved and another one takes its place.
    gateway.does("[s3.put_object(Bucket='box', Key=k, Body=b'') for k in ['old/x/1', 'old/x/2']]; s3.list_objects_v2(Bucket='box')");
    owner.ok(&["mv", "/s3/box/old", "/s3/box/new"]);
    gateway.does("s3.put_object(Bucket='box', Key='old/x/3', Body=b'')");
    let moved = "print([o['Key'] for o in s3.list_objects_v2(Bucket='box')['Contents'] if 'x' in o['Key']], \
        [v['Key'] for v in s3.list_object_versions(Bucket='box', Prefix='new')['Versions']])";
    assert_eq!(gateway.does(moved).trim(), "['new/x/1', 'new/x/2', 'old/x/3'] ['new/x/1', 'new/x/2']");
    gateway.does("s3.delete_object(Bucket='box', Key='a/big')");
    assert_eq!(owner.run(&["stat", "/s3/box/a/big"]).code, 3);
    owner.ok(&["restore", "/s3/box/a/big"]);
    assert_eq!(gateway.does(&same).trim(), "True");
}

#[test]
fn losses_and_crashes_lose_nothing_that_was_acknowledged() {
    let mut cluster = Cluster::start(4);
    let gateway = Gateway::start(&cluster, &[]);
    let upload = gateway.does(
        "s3.create_bucket(Bucket='box'); s3.put_object(Bucket='box', Key='whole', Body=b'w' * 9_000_000)\n\
         u = s3.create_multipart_upload(Bucket='box', Key='parts')['UploadId']\n\
         s3.upload_part(Bucket='box', Key='parts', UploadId=u, PartNumber=1, Body=b'1' * 6_000_000); print(u)",
    );
    let upload = upload.trim().to_string();
    let key = gateway.key.clone();
    gateway.server.kill();
    let gateway = Gateway::with_key(&cluster, &["--allow-degraded"], key);
    for node in cluster.nodes.iter_mut().take(2) {
        node.take().unwrap().kill();
    }
    // The upload goes on where it was, with two of four servers.
    let lines = format!(
        "u = {upload:?}\n\
         s3.upload_part(Bucket='box', Key='parts', UploadId=u, PartNumber=2, Body=b'2' * 6_000_000)\n\
         parts = [{{'PartNumber': p['PartNumber'], 'ETag': p['ETag']}} for p in s3.list_parts(Bucket='box', Key='parts', UploadId=u)['Parts']]\n\
         s3.complete_multipart_upload(Bucket='box', Key='parts', UploadId=u, MultipartUpload={{'Parts': parts}})\n\
         print(s3.get_object(Bucket='box', Key='parts')['Body'].read() == b'1' * 6_000_000 + b'2' * 6_000_000, \
         s3.get_object(Bucket='box', Key='whole')['Body'].read() == b'w' * 9_000_000)"
    );
    assert_eq!(gateway.does(&lines).trim(), "True True");
}

#[test]
fn a_key_allows_what_it_says_and_no_longer_than_it_is_there() {
    let cluster = Cluster::start(4);
    let gateway = Gateway::start(&cluster, &[]);
    gateway.does("[s3.create_bucket(Bucket=b) for b in ['one', 'two']]; s3.put_object(Bucket='one', Key='k', Body=b'1')");
    let made = cluster.owner.json(&["s3", "key", "create", "--read-only", "--bucket", "one"]);
    let key = (made["access_key"].as_str().unwrap().to_string(), made["secret_key"].as_str().unwrap().to_string());
    let limited = Gateway::with_key(&cluster, &[], key.clone());
    assert_eq!(limited.does("print(s3.get_object(Bucket='one', Key='k')['Body'].read())").trim(), "b'1'");
    assert_eq!(limited.does("print([b['Name'] for b in s3.list_buckets()['Buckets']])").trim(), "['one']");
    assert_eq!(limited.fails("s3.put_object(Bucket='one', Key='k', Body=b'2')"), "AccessDenied");
    assert_eq!(limited.fails("s3.list_objects_v2(Bucket='two')"), "AccessDenied");
    assert_eq!(cluster.owner.objects(&["s3", "key", "list"]).len(), 2);
    cluster.owner.ok(&["s3", "key", "revoke", &key.0]);
    until("the revoked key is refused", 15, || limited.fails("s3.head_bucket(Bucket='one')") == "403");
    assert_eq!(cluster.owner.run(&["s3", "key", "revoke", &key.0]).code, 3);
    // Nobody else on the network, unless it is said.
    assert_eq!(cluster.owner.run(&["s3", "--listen", "0.0.0.0:0"]).code, 2);
}

/// Attack 34: a page in the user's browser, or a name that an attacker makes lead to this machine.
#[test]
fn attack_34_a_web_page_gets_nothing_from_a_local_gateway() {
    let cluster = Cluster::start(4);
    let gateway = Gateway::start(&cluster, &[]);
    gateway.does("s3.create_bucket(Bucket='box'); s3.put_object(Bucket='box', Key='secret', Body=b'mine')");
    let lines = "import urllib.request, urllib.error\n\
        form = {'Content-Type': 'multipart/form-data; boundary=X'}\n\
        body = b'--X\\r\\nContent-Disposition: form-data; name=\"key\"\\r\\n\\r\\nk\\r\\n--X\\r\\nContent-Disposition: form-data; name=\"file\"\\r\\n\\r\\nx\\r\\n--X--\\r\\n'\n\
        for host in ['evil.example', 'box.localhost']:\n  \
          for method, path, data, more in [('GET', '/', None, {}), ('GET', '/box/secret', None, {}), ('GET', '/secret', None, {}), \
              ('DELETE', '/box/secret', None, {}), ('PUT', '/box/k', b'x', {}), ('POST', '/box', body, form), \
              ('OPTIONS', '/box/secret', None, {'Access-Control-Request-Method': 'PUT'})]:\n    \
            asked = urllib.request.Request(os.environ['S3_URL'] + path, data=data, method=method, headers={'Origin': 'http://evil.example', 'Host': host, **more})\n    \
            try: print('answered', method, path, urllib.request.urlopen(asked).status)\n    \
            except urllib.error.HTTPError as e:\n      \
              if e.code not in (403, 405) or 'access-control-allow-origin' in e.headers: print(method, path, e.code, e.headers)\n\
        print(s3.get_object(Bucket='box', Key='secret')['Body'].read(), s3.list_objects_v2(Bucket='box')['KeyCount'])";
    assert_eq!(gateway.does(lines).trim(), "b'mine' 1");
    let argv = std::fs::read(format!("/proc/{}/cmdline", gateway.server.pid())).unwrap();
    assert!(!argv.windows(40).any(|w| w == gateway.key.1.as_bytes()));
}
