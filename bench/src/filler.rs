//! Entries by the million: an account of its own that seals and signs each of them, as the client does, and
//! commits 256 at a time, several commits at once. Without folders on a disk to walk through, questions about what
//! is there, and progress to report, the coordinator is what limits it.

use futures::StreamExt;
use model::command::{Answer, Command, Query};
use model::tree::{COMMIT_MAX, Change, Expect};
use model::{ClusterId, EntryId, Hash, RequestId};
use seal::account::{NewAccount, Unlocked, new_account};
use seal::login::Registration;
use seal::password::Password;
use seal::space::OpenSpace;
use seal::tree::{Attributes, Content, Entry, FolderKeys, Name, new_folder};
use std::time::Duration;
use transport::{ClientTls, InviteText, Mode, Pool, PoolConfig, Target, Trust};
use wire::coordinator::{Ask, Propose, ProposeRequest, RegisterFinish, RegisterFinishRequest, RegisterStart, RegisterStartRequest};
use wire::{Authed, Rpc, SessionToken};

/// Deadline of everything: the coordinator may be busy with a snapshot.
const DEADLINE: Duration = Duration::from_secs(120);
/// Commits under way at a time.
const COMMITS: usize = 8;

/// Somebody who makes entries.
pub struct Filler {
    env: env::Env,
    pool: Pool,
    at: Target,
    session: SessionToken,
    me: Unlocked,
    space: OpenSpace,
}

impl Filler {
    /// Uses an invite.
    pub async fn register(invite: &str, cluster: ClusterId) -> Self {
        let env = env::real::env();
        let invite = InviteText::parse(invite).expect("an invite");
        let tls = ClientTls::new(&env, Trust::Fingerprint(invite.root), None).expect("TLS");
        let pool = Pool::new(env.clone(), tls, PoolConfig::default(), None);
        let at = Target::coordinator(invite.coordinators.first().expect("an address")).with(Mode::Control);
        let mut rng = env.rand();
        let password = Password::new("a long enough passphrase 9");
        let (registration, request) = Registration::start(password, &invite.name, &mut rng).expect("a registration");
        let secret_hash = Hash::of(&invite.secret);
        let start = RegisterStartRequest { invite: invite.id, secret_hash, request: request.into() };
        let start = pool.rpc::<RegisterStart>(&at, &start, DEADLINE).await.expect("an answer");
        let registered = registration.finish(&start.response, cluster, &start.name, &mut rng).expect("registered");
        let NewAccount { account, home, unlocked: me, .. } = new_account(&registered, &start.name, cluster, &mut rng).expect("an account");
        let request = RequestId::new(env.now_ms(), env.random());
        let (id, home_id) = (account.id, account.home);
        let finish = RegisterFinishRequest { invite: invite.id, secret_hash, request, account, home };
        let session = pool.rpc::<RegisterFinish>(&at, &finish, DEADLINE).await.expect("an answer").session;
        let query = Authed { session, request: Query::Space { space: home_id, account: id } };
        let Answer::Space(Some(info)) = pool.rpc::<Ask>(&at, &query, DEADLINE).await.expect("an answer") else { panic!("no space") };
        let space = OpenSpace::open(&info, &me, None).expect("a space");
        Filler { env, pool, at, session, me, space }
    }

    /// A folder with so many files of so many bytes.
    pub async fn fill(&self, name: &str, files: usize, bytes: usize) {
        let root = self.space.root().expect("a root");
        let (id, key) = new_folder(&mut self.env.rand());
        let folder = self.entry(name, 0, Content::Folder { id, key, epoch: self.space.epoch() });
        let keys = root.of_child(&folder).expect("a folder");
        self.commit(vec![Change { child: Some(id), ..self.change(&root, &folder) }]).await;
        let keys = &keys;
        let commits = (0..files).step_by(COMMIT_MAX).map(|from| async move {
            let change = |i: usize| {
                let content = format!("{i:0bytes$}").into_bytes();
                self.change(keys, &self.entry(&format!("file-{i:06}"), content.len() as u64, Content::Inline(content)))
            };
            self.commit((from..files.min(from + COMMIT_MAX)).map(change).collect()).await;
        });
        futures::stream::iter(commits).buffer_unordered(COMMITS).collect::<Vec<()>>().await;
    }

    fn entry(&self, name: &str, size: u64, content: Content) -> Entry {
        let mtime_ns = self.env.now_ms() as i64 * 1_000_000;
        Entry { name: Name::new(name).expect("a name"), attributes: Attributes { mode: 0o644, mtime_ns, more: Vec::new() }, size, content }
    }

    fn change(&self, folder: &FolderKeys, entry: &Entry) -> Change {
        let row = folder.seal(EntryId(self.env.random()), 1, entry, &mut self.env.rand()).expect("sealed");
        Change { row, expect: Expect::Absent, child: None, manifest: None, new_manifest: None, purge: false }
    }

    async fn commit(&self, changes: Vec<Change>) {
        let rows = changes.iter().map(|c| &c.row);
        let (_, record) = self.space.sign_commit(&self.me, rows, &mut self.env.rand()).expect("signed");
        let request = RequestId::new(self.env.now_ms(), self.env.random());
        let request = ProposeRequest { request, command: Command::Commit { record, changes, grants: Vec::new() } };
        self.rpc::<Propose, _>(request).await.expect("committed");
    }

    async fn rpc<R: Rpc<Request = Authed<T>>, T: Sync>(&self, request: T) -> R::Response
    where
        R::Request: Sync,
    {
        self.pool.rpc::<R>(&self.at, &Authed { session: self.session, request }, DEADLINE).await.expect("an answer")
    }
}
