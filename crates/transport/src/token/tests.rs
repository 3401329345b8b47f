use super::*;

fn token() -> JoinToken {
    JoinToken {
        root: Hash([7; 32]),
        id: TokenId([8; 16]),
        role: ServerRole::Node,
        secret: [9; 32],
        expires_ms: 1_800_000_000_000,
        coordinators: vec!["c1.example:7400".into(), "192.0.2.2:7400".into()],
    }
}

#[test]
fn texts_come_back_as_they_were() {
    let text = token().to_text();
    assert!(text.starts_with("sk-join-"));
    assert_eq!(JoinToken::parse(&text).unwrap(), token());
    assert_eq!(JoinToken::parse(&format!("  {}\n {}\n", &text[..40], text[40..].to_uppercase())).unwrap(), token());
    let invite = InviteText {
        root: Hash([1; 32]),
        id: InviteId([2; 16]),
        secret: [3; 32],
        name: "mira".into(),
        expires_ms: 5,
        coordinators: vec!["host:1".into()],
    };
    assert_eq!(InviteText::parse(&invite.to_text()).unwrap(), invite);
    assert!(!format!("{:?} {:?}", token(), invite).contains("[9"));
}

#[test]
fn every_single_typo_is_named_as_one() {
    let text = token().to_text();
    for at in "sk-join-".len()..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[at] = if bytes[at] == b'a' { b'b' } else { b'a' };
        let e = JoinToken::parse(std::str::from_utf8(&bytes).unwrap()).unwrap_err();
        assert_eq!(e.kind, model::Kind::Invalid);
        assert!(e.message.contains("typing error"), "{e}");
    }
    for end in 8..text.len() {
        assert!(JoinToken::parse(&text[..end]).is_err());
    }
}

#[test]
fn the_wrong_kind_of_text_is_named() {
    let e = InviteText::parse(&token().to_text()).unwrap_err();
    assert_eq!(e.message, "not the text of this kind: \"invite\" begins with sk-invite-: this is one of the kind \"join token\"");
    assert!(JoinToken::parse("").is_err());
    assert!(JoinToken::parse("sk-join-ä").is_err());
    let good = cbor::to_vec(&1u8);
    let bytes = [&Hash::of(&good).0[..4], &good].concat();
    let text = format!("sk-join-{}", data_encoding::BASE32_NOPAD.encode(&bytes));
    assert!(JoinToken::parse(&text).unwrap_err().message.contains("another version"));
}

#[test]
fn a_join_proof_binds_all_that_it_names() {
    let (secret, id, exporter, spki) = ([9; 32], TokenId([8; 16]), [1; 32], [2; 44]);
    let proof = join_proof(&secret, id, ServerRole::Node, &exporter, &spki);
    assert!(check_join_proof(&secret, id, ServerRole::Node, &exporter, &spki, &proof).is_ok());
    assert!(check_join_proof(&[0; 32], id, ServerRole::Node, &exporter, &spki, &proof).is_err());
    assert!(check_join_proof(&secret, TokenId([0; 16]), ServerRole::Node, &exporter, &spki, &proof).is_err());
    assert!(check_join_proof(&secret, id, ServerRole::Coordinator, &exporter, &spki, &proof).is_err());
    assert!(check_join_proof(&secret, id, ServerRole::Node, &[0; 32], &spki, &proof).is_err());
    assert!(check_join_proof(&secret, id, ServerRole::Node, &exporter, &[0; 44], &proof).is_err());
    assert!(check_join_proof(&secret, id, ServerRole::Node, &exporter, &spki, &proof[..31]).is_err());
    assert!(check_join_proof(&secret, id, ServerRole::Node, &exporter, &spki, b"").is_err());
}
