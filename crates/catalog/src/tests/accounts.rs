//! Invites, registration, passwords, recovery, notes and sessions.

use super::*;
use crate::row::Session;
use model::account::RecoverBody;

fn login(n: u64) -> LoginRecord {
    LoginRecord { opaque: vec![7; 64].into(), pw_wrap: vec![n as u8; 105].into(), n }
}

fn replace(user: &User, expect_n: u64, login: LoginRecord) -> Command {
    Command::ReplaceLogin { account: user.id, expect_n, login, recovery: None, proof: None }
}

fn account(world: &World, user: &User) -> Account {
    match world.ask(&Query::AccountByName(user.name.clone())) {
        Answer::Account(Some(account)) => *account,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_cluster_is_initialised_once_and_before_anything_else() {
    let mut world = World::empty();
    assert_eq!(kind(&world.propose(None, Command::Tick)), Kind::Unavailable);
    assert_eq!(kind(&world.propose(None, Command::MakeLayout { width: 4 })), Kind::Unavailable);
    let init = Command::Init(Box::new(genesis(&world.capability)));
    assert_eq!(world.propose(None, init.clone()), Ok(Outcome::Done));
    assert_eq!(kind(&world.propose(None, init)), Kind::Exists);
    let Answer::Cluster(view) = world.ask(&Query::Cluster) else { panic!() };
    assert_eq!((view.policy, view.power, view.nodes.len(), view.layouts.len()), (Policy::DEFAULT, 4, 0, 0));
    assert_eq!(
        view.coordinators,
        vec![Coordinator { id: CoordinatorId(1), address: "127.0.0.1:7000".into(), key: Default::default(), version: String::new() }]
    );
    assert_eq!(view.time_ms, START);
}

#[test]
fn an_impossible_genesis_is_refused() {
    let mut world = World::empty();
    let good = genesis(&world.capability);
    let bad = [
        Genesis { power: 21, ..good.clone() },
        Genesis { policy: Policy { k: 0, m: 2 }, ..good.clone() },
        Genesis { policy: Policy { k: 30, m: 3 }, ..good.clone() },
        Genesis { invite: Invite { name: "Operator".into(), ..good.invite.clone() }, ..good },
    ];
    for genesis in bad {
        assert_eq!(kind(&world.propose(None, Command::Init(Box::new(genesis)))), Kind::Invalid);
    }
}

#[test]
fn an_invite_makes_one_account() {
    let (mut world, operator) = World::new();
    assert!(account(&world, &operator).admin);
    world.done(Some(operator.id), Command::CreateInvite(Invite { quota: Some(5000), ..invite("guest") }));
    let guest = stranger("guest");
    assert_eq!(world.propose(None, registration(&guest)), Ok(Outcome::Done));
    // What the account said of itself does not count.
    let made = account(&world, &guest);
    assert_eq!((made.admin, made.quota, made.disabled), (false, Some(5000), false));
    assert_eq!(world.totals().accounts, 2);
    let Answer::Space(Some(home)) = world.ask(&Query::Space { space: guest.space, account: guest.id }) else { panic!() };
    assert_eq!((home.root, home.used, home.member_sets.len(), home.grants.len(), home.identities.len()), (guest.root, 0, 1, 1, 1));
    assert_eq!(world.ask(&Query::Space { space: guest.space, account: operator.id }), Answer::Space(None));
    // Used up.
    assert_eq!(world.ask(&Query::Invite(invite("guest").id)), Answer::Invite(None));
    assert_eq!(kind(&world.propose(None, registration(&guest))), Kind::Denied);
}

#[test]
fn only_admins_invite_and_only_new_names() {
    let (mut world, operator) = World::new();
    let guest = world.user(&operator, "guest");
    assert_eq!(kind(&world.propose(Some(guest.id), Command::CreateInvite(invite("other")))), Kind::Denied);
    assert_eq!(kind(&world.propose(None, Command::CreateInvite(invite("other")))), Kind::Denied);
    assert_eq!(
        kind(&world.propose(Some(operator.id), Command::CreateInvite(Invite { id: InviteId([1; 16]), ..invite("guest") }))),
        Kind::Exists
    );
    assert_eq!(kind(&world.propose(Some(operator.id), Command::CreateInvite(invite("Other")))), Kind::Invalid);
    assert_eq!(kind(&world.propose(Some(operator.id), Command::CreateInvite(invite("")))), Kind::Invalid);
    world.done(Some(operator.id), Command::CreateInvite(invite("other")));
    assert_eq!(
        kind(&world.propose(Some(operator.id), Command::CreateInvite(Invite { name: "third".into(), ..invite("other") }))),
        Kind::Exists
    );
}

#[test]
fn two_invites_for_one_name_make_one_account() {
    let (mut world, operator) = World::new();
    world.done(Some(operator.id), Command::CreateInvite(invite("guest")));
    let second = Invite { id: InviteId([1; 16]), ..invite("guest") };
    world.done(Some(operator.id), Command::CreateInvite(second.clone()));
    world.done(None, registration(&stranger("guest")));
    let Command::Register { account, home, secret_hash, .. } = registration(&stranger("guest")) else { panic!() };
    assert_eq!(kind(&world.propose(None, Command::Register { invite: second.id, secret_hash, account, home })), Kind::Exists);
}

#[test]
fn an_invite_is_refused_with_the_wrong_secret_or_name_or_too_late() {
    let (mut world, operator) = World::new();
    world.done(Some(operator.id), Command::CreateInvite(Invite { expires_ms: START + HOUR, ..invite("guest") }));
    let guest = stranger("guest");
    let Command::Register { invite: id, secret_hash, account, home } = registration(&guest) else { panic!() };
    let wrong = Command::Register { invite: id, secret_hash: Hash([1; 32]), account: account.clone(), home: home.clone() };
    assert_eq!(kind(&world.propose(None, wrong)), Kind::Denied);
    let unknown = Command::Register { invite: InviteId([1; 16]), secret_hash, account, home };
    assert_eq!(kind(&world.propose(None, unknown)), Kind::Denied);
    let (account, home) = account_of(&stranger("other"));
    let other = Command::Register { invite: id, secret_hash, account: Box::new(account), home };
    assert_eq!(kind(&world.propose(None, other)), Kind::Denied);
    world.now = START + HOUR;
    assert_eq!(kind(&world.propose(None, registration(&guest))), Kind::Denied);
}

#[test]
fn an_invite_that_nobody_used_is_swept_away() {
    let (mut world, operator) = World::new();
    world.done(Some(operator.id), Command::CreateInvite(Invite { expires_ms: START + HOUR, ..invite("guest") }));
    world.pass(3 * DAY);
    assert_eq!(world.ask(&Query::Invite(invite("guest").id)), Answer::Invite(None));
}

/// Each part of a registration, tampered with by a coordinator that relays it.
#[test]
fn a_registration_that_was_tampered_with_is_refused() {
    let (mut world, operator) = World::new();
    world.done(Some(operator.id), Command::CreateInvite(invite("guest")));
    let (guest, other) = (stranger("guest"), stranger("other"));
    let (account, home) = account_of(&guest);
    let (others_account, others_home) = account_of(&other);
    let body = |signing: PublicKey, id: AccountId, name: &str| {
        cbor::to_vec(&IdentityBody { account: id, name: name.into(), signing, kem: vec![5; 1216].into() })
    };
    let identity = |key: &SigningKey, body: Vec<u8>| Identity { signature: sign(key, "identity", &body), body: body.into() };
    let set = |change: &dyn Fn(&mut MemberSetBody), key: &SigningKey| {
        let mut body: MemberSetBody = cbor::from_canonical(&home.members.body).expect("set");
        change(&mut body);
        let body = cbor::to_vec(&body);
        MemberSet { author: guest.id, signature: sign(key, "member-set", &body), body: body.into() }
    };
    let grant = |change: &dyn Fn(&mut GrantBody), key: &SigningKey| {
        let mut body: GrantBody = cbor::from_canonical(&home.grant.body).expect("grant");
        change(&mut body);
        let body = cbor::to_vec(&body);
        Grant { author: guest.id, signature: sign(key, "grant", &body), body: body.into() }
    };
    let long = || vec![0u8; 70_000].into();
    let id = |body| Account { identity: identity(&guest.key, body), ..account.clone() };
    let mut cases: Vec<(&str, Account, NewSpace)> = vec![
        (
            "identity signed by another",
            Account { identity: identity(&other.key, body(public(&guest.key), guest.id, "guest")), ..account.clone() },
            home.clone(),
        ),
        ("identity of another id", id(body(public(&guest.key), other.id, "guest")), home.clone()),
        ("identity of another name", id(body(public(&guest.key), guest.id, "other")), home.clone()),
        ("another's identity", Account { identity: others_account.identity.clone(), ..account.clone() }, home.clone()),
        ("identity with bytes behind it", id([body(public(&guest.key), guest.id, "guest"), vec![0]].concat()), home.clone()),
        (
            "identity replaced after the space was made",
            id(cbor::to_vec(&IdentityBody {
                account: guest.id,
                name: "guest".into(),
                signing: public(&guest.key),
                kem: vec![6; 1216].into(),
            })),
            home.clone(),
        ),
        (
            "identity that is too long",
            id(cbor::to_vec(&IdentityBody { account: guest.id, name: "guest".into(), signing: public(&guest.key), kem: long() })),
            home.clone(),
        ),
        ("another home", Account { home: other.space, ..account.clone() }, home.clone()),
        ("another's space", Account { home: other.space, ..account.clone() }, others_home.clone()),
        ("another's genesis", account.clone(), NewSpace { genesis: others_home.genesis.clone(), ..home.clone() }),
        ("garbage genesis", account.clone(), NewSpace { genesis: vec![1, 2, 3].into(), ..home.clone() }),
        ("another's member set", account.clone(), NewSpace { members: others_home.members.clone(), ..home.clone() }),
        ("another's grant", account.clone(), NewSpace { grant: others_home.grant.clone(), ..home.clone() }),
        ("long secrets", Account { secrets: long(), ..account.clone() }, home.clone()),
        ("long notes", Account { state: StateRecord { seq: 1, sealed: long() }, ..account.clone() }, home.clone()),
        ("long login", Account { login: LoginRecord { opaque: long(), ..account.login.clone() }, ..account.clone() }, home.clone()),
        (
            "long recovery",
            Account { recovery: RecoveryRecord { rec_wrap: long(), ..account.recovery.clone() }, ..account.clone() },
            home.clone(),
        ),
        ("login number", Account { login: LoginRecord { n: u64::MAX, ..account.login.clone() }, ..account.clone() }, home.clone()),
        ("recovery number", Account { recovery: RecoveryRecord { n: 2, ..account.recovery.clone() }, ..account.clone() }, home.clone()),
        ("number of the notes", Account { state: StateRecord { seq: u64::MAX, ..account.state.clone() }, ..account.clone() }, home.clone()),
    ];
    let sets: [(&str, MemberSet); 8] = [
        ("set signed by another", set(&|_| {}, &other.key)),
        (
            "set with a ghost",
            set(&|s| s.members.push(Member { account: other.id, fingerprint: Hash([1; 32]), role: Role::Read }), &guest.key),
        ),
        ("set of nobody", set(&|s| s.members.clear(), &guest.key)),
        ("set in which the owner only writes", set(&|s| s.members[0].role = Role::Write, &guest.key)),
        ("set of another space", set(&|s| s.space = other.space, &guest.key)),
        ("second set", set(&|s| s.seq = 2, &guest.key)),
        ("set of epoch 2", set(&|s| s.epoch = KeyEpoch(2), &guest.key)),
        ("set after another", set(&|s| s.prev = Hash([1; 32]), &guest.key)),
    ];
    cases.extend(sets.map(|(what, members)| (what, account.clone(), NewSpace { members, ..home.clone() })));
    let authored = MemberSet { author: other.id, ..home.members.clone() };
    cases.push(("set that names another author", account.clone(), NewSpace { members: authored, ..home.clone() }));
    let grants: [(&str, Grant); 7] = [
        ("grant signed by another", grant(&|_| {}, &other.key)),
        ("grant of another space", grant(&|g| g.space = other.space, &guest.key)),
        ("grant of epoch 2", grant(&|g| g.epoch = KeyEpoch(2), &guest.key)),
        ("grant under another set", grant(&|g| g.members = Hash([1; 32]), &guest.key)),
        ("grant from another", grant(&|g| g.sender = Hash([1; 32]), &guest.key)),
        ("grant to another", grant(&|g| g.recipient = other.id, &guest.key)),
        ("grant to another identity", grant(&|g| g.recipient_fingerprint = Hash([1; 32]), &guest.key)),
    ];
    cases.extend(grants.map(|(what, grant)| (what, account.clone(), NewSpace { grant, ..home.clone() })));
    let authored = Grant { author: other.id, ..home.grant.clone() };
    cases.push(("grant that names another author", account.clone(), NewSpace { grant: authored, ..home.clone() }));

    let invite = invite("guest");
    let register = |account: Account, home: NewSpace| Command::Register {
        invite: invite.id,
        secret_hash: invite.secret_hash,
        account: Box::new(account),
        home,
    };
    for (what, account, home) in cases {
        let applied = world.propose(None, register(account, home));
        let refused = applied.as_ref().is_err_and(|e| matches!(e.kind, Kind::Denied | Kind::Invalid | Kind::Corrupt));
        assert!(refused, "{what}: {applied:?}");
    }
    // And as it was made, it is taken.
    assert_eq!(world.propose(None, register(account, home)), Ok(Outcome::Done));
}

#[test]
fn a_new_password_ends_all_sessions() {
    let (mut world, operator) = World::new();
    let guest = world.user(&operator, "guest");
    let tokens = [Hash([1; 32]), Hash([2; 32])];
    for token_hash in tokens {
        world.done(None, Command::OpenSession { token_hash, account: guest.id, expires_ms: START + DAY });
    }
    let kept = Hash([3; 32]);
    world.done(None, Command::OpenSession { token_hash: kept, account: operator.id, expires_ms: START + DAY });
    assert_eq!(world.ask(&Query::Session(tokens[0])), Answer::Session(Some(guest.id)));

    assert_eq!(kind(&world.propose(Some(guest.id), replace(&guest, 2, login(3)))), Kind::Conflict);
    assert_eq!(kind(&world.propose(Some(guest.id), replace(&guest, 0, login(1)))), Kind::Conflict);
    assert_eq!(kind(&world.propose(Some(guest.id), replace(&guest, 1, login(3)))), Kind::Invalid);
    assert_eq!(kind(&world.propose(Some(operator.id), replace(&guest, 1, login(2)))), Kind::Denied);
    assert_eq!(kind(&world.propose(None, replace(&guest, 1, login(2)))), Kind::Denied);
    assert_eq!(world.ask(&Query::Session(tokens[0])), Answer::Session(Some(guest.id)));

    assert_eq!(world.propose(Some(guest.id), replace(&guest, 1, login(2))), Ok(Outcome::Done));
    assert_eq!(account(&world, &guest).login, login(2));
    assert_eq!(tokens.map(|t| world.ask(&Query::Session(t))), [Answer::Session(None), Answer::Session(None)]);
    assert_eq!(world.ask(&Query::Session(kept)), Answer::Session(Some(operator.id)));
    assert_eq!(kind(&world.propose(Some(guest.id), replace(&guest, 1, login(2)))), Kind::Conflict);
}

#[test]
fn the_words_replace_a_password_and_nothing_else_does() {
    let (mut world, operator) = World::new();
    let guest = world.user(&operator, "guest");
    let proof = |account: AccountId, login: &LoginRecord, n: u64, key: &SigningKey| {
        let body = RecoverBody { account, binding: vec![1; 32].into(), login: Hash::of(&cbor::to_vec(login)), n };
        let body = cbor::to_vec(&body);
        let signature = sign(key, "recover", &body);
        Some((body.into(), signature))
    };
    let command = |login: LoginRecord, proof| Command::ReplaceLogin { account: guest.id, expect_n: 1, login, recovery: None, proof };
    for (what, proof) in [
        ("another's words", proof(guest.id, &login(2), 2, &operator.words)),
        ("the account's own key", proof(guest.id, &login(2), 2, &guest.key)),
        ("another account", proof(operator.id, &login(2), 2, &guest.words)),
        ("another record", proof(guest.id, &login(3), 2, &guest.words)),
        ("another number", proof(guest.id, &login(2), 3, &guest.words)),
    ] {
        assert_eq!(kind(&world.propose(None, command(login(2), proof))), Kind::Denied, "{what}");
    }
    // A session does not make a wrong proof right.
    let wrong = proof(guest.id, &login(2), 2, &operator.words);
    assert_eq!(kind(&world.propose(Some(guest.id), command(login(2), wrong))), Kind::Denied);

    let words = key_of("new words");
    let recovery = Some(RecoveryRecord { rec_wrap: vec![8; 105].into(), rec_auth: public(&words), n: 2 });
    let skipped = recovery.clone().map(|r| RecoveryRecord { n: 3, ..r });
    let right = proof(guest.id, &login(2), 2, &guest.words);
    let with = |recovery, proof| Command::ReplaceLogin { account: guest.id, expect_n: 1, login: login(2), recovery, proof };
    assert_eq!(kind(&world.propose(None, with(skipped, right.clone()))), Kind::Invalid);
    assert_eq!(world.propose(None, with(recovery.clone(), right.clone())), Ok(Outcome::Done));
    assert_eq!((account(&world, &guest).login, Some(account(&world, &guest).recovery)), (login(2), recovery));
    // The proof is good once, and the old words are worth nothing now.
    assert_eq!(kind(&world.propose(None, with(None, right))), Kind::Denied);
}

#[test]
fn notes_are_numbered() {
    let (mut world, operator) = World::new();
    let guest = world.user(&operator, "guest");
    let put = |by: &User, seq: u64, len: usize| (Some(by.id), StateRecord { seq, sealed: vec![0; len].into() });
    let mut propose = |(by, state)| world.propose(by, Command::PutState { account: guest.id, state });
    assert_eq!(propose(put(&guest, 2, 10)), Ok(Outcome::Done));
    assert_eq!(kind(&propose(put(&guest, 2, 10))), Kind::Conflict);
    assert_eq!(kind(&propose(put(&guest, 4, 10))), Kind::Conflict);
    assert_eq!(kind(&propose(put(&operator, 3, 10))), Kind::Denied);
    assert_eq!(kind(&propose(put(&guest, 3, (1 << 20) + 1))), Kind::Invalid);
    assert_eq!(propose(put(&guest, 3, 10)), Ok(Outcome::Done));
    assert_eq!(account(&world, &guest).state.seq, 3);
}

#[test]
fn sessions_end_by_log_time_or_when_closed() {
    let (mut world, operator) = World::new();
    let (one, two) = (Hash([1; 32]), Hash([2; 32]));
    let open = |token_hash, expires_ms| Command::OpenSession { token_hash, account: operator.id, expires_ms };
    world.done(None, open(one, START + HOUR));
    world.done(None, open(two, START + 2 * HOUR));
    assert_eq!(kind(&world.propose(None, open(one, START + HOUR))), Kind::Invalid);
    assert_eq!(kind(&world.propose(None, open(Hash([3; 32]), START))), Kind::Invalid);
    let unknown = Command::OpenSession { token_hash: Hash([4; 32]), account: AccountId([1; 16]), expires_ms: START + HOUR };
    assert_eq!(kind(&world.propose(None, unknown)), Kind::Denied);

    world.done(None, Command::CloseSession { token_hash: two });
    world.done(None, Command::CloseSession { token_hash: two });
    assert_eq!(world.ask(&Query::Session(two)), Answer::Session(None));
    assert_eq!(world.ask(&Query::Session(one)), Answer::Session(Some(operator.id)));
    world.pass(HOUR);
    assert_eq!(world.ask(&Query::Session(one)), Answer::Session(None));
    assert_eq!(rows_of(&world.kv).keys().filter(|k| k[0] == 0x13 || k[0] == 0x14).count(), 0);
}

/// A token that was closed and given out again must not end when the first would have.
#[test]
fn a_session_reopened_ends_at_its_own_time() {
    let (mut world, operator) = World::new();
    let token_hash = Hash([1; 32]);
    let open = |expires_ms| Command::OpenSession { token_hash, account: operator.id, expires_ms };
    world.done(None, open(START + HOUR));
    world.done(None, Command::CloseSession { token_hash });
    world.done(None, open(START + 3 * HOUR));
    world.pass(2 * HOUR);
    assert_eq!(world.ask(&Query::Session(token_hash)), Answer::Session(Some(operator.id)));
    world.pass(HOUR);
    assert_eq!(world.ask(&Query::Session(token_hash)), Answer::Session(None));
}

#[test]
fn a_disabled_account_opens_no_session_and_administers_nothing() {
    let (mut world, operator) = World::new();
    let disabled = Account { disabled: true, ..account(&world, &operator) };
    crate::kv::KvMut::put(&mut world.kv, &crate::key::account(operator.id), &cbor::to_vec(&disabled)).expect("memory");
    let open = Command::OpenSession { token_hash: Hash([1; 32]), account: operator.id, expires_ms: START + HOUR };
    assert_eq!(kind(&world.propose(None, open)), Kind::Denied);
    assert_eq!(kind(&world.propose(Some(operator.id), Command::CreateInvite(invite("guest")))), Kind::Denied);
    let session = Session { account: operator.id, expires_ms: START };
    assert_eq!(cbor::from_slice::<Session>(&cbor::to_vec(&session)), Ok(session));
}
