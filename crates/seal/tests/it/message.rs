//! Messages: only between the two that they name, only whole, only as signed.

use crate::support::{Stream, kind, person};
use minicbor::bytes::ByteVec;
use model::account::Role;
use model::message::{Envelope, Message};
use model::{Hash, Kind, SpaceId, cbor};
use seal::message::{Attachment, INLINE_MAX, MessageBody, Said, TEXT_MAX, open, open_copy, seal};

fn text(text: &str) -> Said {
    Said { time_ms: 7, body: MessageBody::Text { text: text.into(), attachment: None } }
}

#[test]
fn a_message_opens_at_its_recipient_and_its_copy_at_the_sender() {
    let (anna, berta) = (person("anna"), person("berta"));
    let mut rng = Stream::new("messages");
    let attachment = Some(Attachment::Inline { name: "a.txt".into(), bytes: ByteVec::from(vec![1, 2]) });
    let invite = MessageBody::ShareInvite { space: SpaceId([3; 16]), name: "Trip".into(), role: Role::Write };
    let bodies = [MessageBody::Text { text: "hello".into(), attachment }, invite];
    let mut prev = Hash([0; 32]);
    for (body, seq) in bodies.into_iter().zip(1..) {
        let said = Said { time_ms: 7, body };
        let sent = seal(anna.me(), berta.me().identity(), seq, prev, &said, &mut rng).unwrap();
        prev = sent.hash();
        let (envelope, got) = open(berta.me(), anna.me().identity(), &sent.message).unwrap();
        assert_eq!((envelope.seq, got), (seq, said.clone()));
        assert_eq!(open_copy(anna.me(), &sent.copy).unwrap().1, said);
    }
}

#[test]
fn attack_38_reflected_exchanged_and_changed_messages_do_not_open() {
    let (anna, berta, carla) = (person("anna"), person("berta"), person("carla"));
    let mut rng = Stream::new("messages");
    let sent = seal(anna.me(), berta.me().identity(), 1, Hash([0; 32]), &text("hello"), &mut rng).unwrap();
    let refused = |what: model::Result<(Envelope, Said)>| assert_eq!(kind(what), Kind::Corrupt);
    // Back to the sender, to another one, from another one; a copy as a message and the other way round.
    refused(open(anna.me(), berta.me().identity(), &sent.message));
    refused(open(anna.me(), anna.me().identity(), &sent.message));
    refused(open(carla.me(), anna.me().identity(), &sent.message));
    refused(open(berta.me(), carla.me().identity(), &sent.message));
    refused(open(berta.me(), anna.me().identity(), &sent.copy));
    refused(open(anna.me(), anna.me().identity(), &sent.copy));
    refused(open_copy(anna.me(), &sent.message));
    refused(open_copy(berta.me(), &sent.copy));
    // Another number, another one before, ciphertext of another message: the signature, and behind it the
    // associated data. Anna herself signs here what servers cannot.
    let body: Envelope = cbor::from_canonical(&sent.message.body).unwrap();
    let other = seal(anna.me(), berta.me().identity(), 2, sent.hash(), &text("other"), &mut rng).unwrap();
    let other: Envelope = cbor::from_canonical(&other.message.body).unwrap();
    let forgeries = [
        Envelope { seq: 2, prev: Hash([1; 32]), ..body.clone() },
        Envelope { seq: 0, ..body.clone() },
        Envelope { prev: Hash([1; 32]), ..body.clone() },
        Envelope { enc: other.enc.clone(), sealed: other.sealed.clone(), ..body.clone() },
        Envelope { sender: berta.me().fingerprint(), ..body.clone() },
        Envelope { enc: vec![0; 1120].into(), ..body.clone() },
        Envelope { enc: Vec::new().into(), ..body.clone() },
        Envelope { sealed: Vec::new().into(), ..body },
    ];
    for envelope in forgeries {
        let body = cbor::to_vec(&envelope);
        let unsigned = Message { body: body.clone().into(), signature: sent.message.signature };
        refused(open(berta.me(), anna.me().identity(), &unsigned));
        let signed = Message { signature: anna.key().sign("message", &body), body: body.into() };
        refused(open(berta.me(), anna.me().identity(), &signed));
    }
    let mut bits = sent.message.clone();
    for i in (0..bits.body.len()).step_by(97) {
        bits.body[i] ^= 1;
        refused(open(berta.me(), anna.me().identity(), &bits));
        bits.body[i] ^= 1;
    }
    assert!(open(berta.me(), anna.me().identity(), &bits).is_ok());
}

#[test]
fn attack_27_messages_hide_their_length_and_are_bounded() {
    let (anna, berta) = (person("anna"), person("berta"));
    let mut rng = Stream::new("messages");
    let mut send = |said: &Said| seal(anna.me(), berta.me().identity(), 1, Hash([0; 32]), said, &mut rng);
    let len = |sent: &seal::message::Outgoing| (sent.message.body.len(), sent.copy.body.len());
    assert_eq!(len(&send(&text("")).unwrap()), len(&send(&text(&"x".repeat(200))).unwrap()));
    assert!(send(&text(&"x".repeat(TEXT_MAX))).is_ok());
    let long = [
        text(&"x".repeat(TEXT_MAX + 1)),
        Said {
            time_ms: 0,
            body: MessageBody::Text {
                text: String::new(),
                attachment: Some(Attachment::Inline { name: "a".into(), bytes: vec![0; INLINE_MAX + 1].into() }),
            },
        },
        Said { time_ms: 0, body: MessageBody::ShareInvite { space: SpaceId([0; 16]), name: "x".repeat(256), role: Role::Read } },
    ];
    for said in long {
        assert_eq!(kind(send(&said)), Kind::Invalid);
    }
}
