//! Passwords: nothing tells a wrong one from an unknown name, guessing gets slow, and recovery takes
//! the words.

use crate::support::*;
use model::account::LoginRecord;
use model::{Kind, RequestId};
use seal::login::{Login, Registration};
use seal::password::Password;
use seal::recovery::RecoveryWords;
use wire::Authed;
use wire::coordinator::*;

/// Attack 2: login as an error oracle.
#[tokio::test(flavor = "multi_thread")]
async fn attack_02_an_unknown_user_and_a_wrong_password_are_answered_alike() {
    let cluster = Cluster::start().await;
    let _admin = cluster.register(&cluster.invite.clone()).await.unwrap();
    let wrong = cluster.login("admin", "not the password").await.unwrap_err();
    let unknown = cluster.login("nobody", "not the password").await.unwrap_err();
    assert_eq!(wrong, unknown);
    assert_eq!((wrong.kind, wrong.message.as_str()), (Kind::Denied, "wrong account name or password"));
    assert!(cluster.login("admin", PASSWORD).await.is_ok());
}

/// Attack 24: password guessing without limit.
#[tokio::test(flavor = "multi_thread")]
async fn attack_24_guessing_gets_slow_for_known_and_unknown_names() {
    let cluster = Cluster::start().await;
    let _admin = cluster.register(&cluster.invite.clone()).await.unwrap();
    for name in ["admin", "nobody"] {
        let mut rng = cluster.env.rand();
        let mut refused = None;
        // Each further one must wait twice as long, so that one is too early also where each takes its time.
        for guess in 0..12 {
            let (_, ke1) = Login::start(Password::new("guess"), &mut rng).unwrap();
            refused = cluster.rpc::<LoginStart>(&LoginStartRequest { name: name.into(), ke1: ke1.into() }).await.err();
            if refused.is_some() {
                assert!(guess >= 5, "{refused:?}");
                break;
            }
        }
        let refused = refused.unwrap();
        assert_eq!(refused.kind, Kind::Denied);
        assert!(refused.message.starts_with("too many attempts, try again in "), "{}", refused.message);
    }
}

/// Attack 24, through registration and recovery: their answers are OPRF evaluations too.
#[tokio::test(flavor = "multi_thread")]
async fn attack_24_recovery_counts_like_a_login() {
    let cluster = Cluster::start().await;
    let _admin = cluster.register(&cluster.invite.clone()).await.unwrap();
    let mut rng = cluster.env.rand();
    let mut refused = None;
    for guess in 0..12 {
        let (_, request) = Registration::start(Password::new("a guess of some length"), "admin", &mut rng).unwrap();
        refused = cluster.rpc::<RecoverStart>(&RecoverStartRequest { name: "admin".into(), request: request.into() }).await.err();
        if refused.is_some() {
            assert!(guess >= 5, "{refused:?}");
            break;
        }
    }
    assert!(refused.unwrap().message.starts_with("too many attempts"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_recovery_answer_for_an_unknown_name_looks_like_one() {
    let cluster = Cluster::start().await;
    let admin = cluster.register(&cluster.invite.clone()).await.unwrap();
    let mut rng = cluster.env.rand();
    let mut rows = Vec::new();
    for name in ["admin", "admio", "admio"] {
        let (_, request) = Registration::start(Password::new("a new and long password"), name, &mut rng).unwrap();
        let answer = cluster.rpc::<RecoverStart>(&RecoverStartRequest { name: name.into(), request: request.into() }).await.unwrap();
        rows.push(answer.account);
    }
    assert_eq!(rows[1], rows[2]);
    let lengths = |row: &model::account::Account| {
        (row.secrets.len(), row.login.pw_wrap.len(), row.recovery.rec_wrap.len(), row.state.sealed.len(), row.identity.body.len())
    };
    let mut known = rows[0].clone();
    // `admin` flag aside, which is what this account is.
    known.admin = false;
    assert_eq!(lengths(&known), lengths(&rows[1]));
    assert_eq!(known.login.opaque.len(), 0);
    assert_eq!(rows[1].identity.verify().unwrap().name, "admio");
    drop(admin);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_words_replace_the_password_and_end_all_sessions() {
    let cluster = Cluster::start().await;
    let admin = cluster.register(&cluster.invite.clone()).await.unwrap();
    let mut rng = cluster.env.rand();
    let mut connection = cluster.pool().connect_once(&cluster.at(), SOON).await.unwrap();
    let new = "a quite different pass phrase";
    let (registration, request) = Registration::start(Password::new(new), "admin", &mut rng).unwrap();
    let start = connection.rpc::<RecoverStart>(&RecoverStartRequest { name: "admin".into(), request: request.into() }, SOON).await.unwrap();
    let words = RecoveryWords::parse(&admin.words).unwrap();
    let root = words.open_root(&start.account).unwrap();
    let registered = registration.finish(&start.response, cluster.cluster, "admin", &mut rng).unwrap();
    let n = start.account.login.n + 1;
    let login: LoginRecord =
        seal::account::login_record(&registered, start.account.id, start.account.identity.fingerprint(), n, &root, &mut rng);
    let finish = |binding: &[u8]| {
        let (proof_body, proof) = words.prove(start.account.id, binding, &login);
        let request = RequestId::new(cluster.env.now_ms(), cluster.env.random());
        RecoverFinishRequest { name: "admin".into(), request, expect_n: n - 1, login: login.clone(), proof_body: proof_body.into(), proof }
    };
    // Attack 23: a proof made for another connection.
    let replayed = connection.rpc::<RecoverFinish>(&finish(&[1; 32]), SOON).await.unwrap_err();
    assert_eq!(replayed.kind, Kind::Denied);
    let exporter = connection.binding().exporter;
    connection.rpc::<RecoverFinish>(&finish(&exporter), SOON).await.unwrap();
    assert!(cluster.login("admin", PASSWORD).await.is_err());
    cluster.login("admin", new).await.unwrap();
    assert_eq!(admin.rpc::<WhoAmI, _>(()).await.unwrap_err().kind, Kind::Denied);
}

#[tokio::test(flavor = "multi_thread")]
async fn logout_ends_a_session() {
    let cluster = Cluster::start().await;
    let admin = cluster.register(&cluster.invite.clone()).await.unwrap();
    let me = admin.rpc::<WhoAmI, _>(()).await.unwrap();
    assert_eq!((me.account.name.as_str(), me.account.admin, me.cluster), ("admin", true, cluster.cluster));
    admin.rpc::<Logout, _>(()).await.unwrap();
    assert_eq!(admin.rpc::<WhoAmI, _>(()).await.unwrap_err().kind, Kind::Denied);
    let made_up = Authed { session: wire::SessionToken([3; 32]), request: () };
    assert_eq!(cluster.rpc::<WhoAmI>(&made_up).await.unwrap_err().kind, Kind::Denied);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invite_is_good_once_and_with_its_secret_only() {
    let cluster = Cluster::start().await;
    let admin = cluster.register(&cluster.invite.clone()).await.unwrap();
    assert_eq!(cluster.register(&cluster.invite).await.err().unwrap().kind, Kind::Denied);
    let invite = admin.invite("ada").await;
    let mut other = transport::InviteText::parse(&invite).unwrap();
    other.secret = [1; 32];
    assert_eq!(cluster.register(&other.to_text()).await.err().unwrap().kind, Kind::Denied);
    cluster.register(&invite).await.unwrap();
}
