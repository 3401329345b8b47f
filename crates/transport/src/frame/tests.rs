use super::*;

#[test]
fn a_body_comes_apart_as_it_was_put_together() {
    for (head, body) in [(0, 0), (5, 0), (0, 7), (100, 100_000), (100_000, 3), (JOIN_UP_TO, 1)] {
        let (head, body) = (Bytes::from(vec![1; head]), Bytes::from(vec![2; body]));
        let Ok(Outgoing::Whole(queue)) = Outgoing::new(head.clone(), body.clone().into()) else { panic!() };
        let wire: Vec<u8> = queue.iter().flat_map(|b| b.to_vec()).collect();
        assert_eq!(split(wire.into()).unwrap(), (head, body));
    }
}

#[test]
fn garbage_is_refused() {
    for garbage in [&b""[..], b"abc", &[0, 0, 0, 1], &[0xff; 4], &[0xff; 100], &[0, 0, 0, 9, 1, 2, 3]] {
        assert_eq!(split(Bytes::from_static(garbage)).unwrap_err().kind, Kind::Invalid);
        assert_eq!(decode_error(garbage).kind, Kind::Invalid);
    }
    let mut d = Deframer::default();
    d.push(&[0x7f, 0xff, 0xff, 0xff]);
    assert!(d.frame().is_err());
    let mut d = Deframer::default();
    d.push(&[0, 0, 1, 0]);
    assert!(d.head(255).is_err());
}

#[test]
fn frames_come_out_of_any_splitting_of_their_bytes() {
    let error = cbor::to_vec(&Error::corrupt("the source broke"));
    let mut wire = Vec::new();
    for part in [&b"head"[..], b"one", b"", b"three"] {
        wire.extend((part.len() as u32).to_be_bytes());
        wire.extend(part);
    }
    wire.extend((error.len() as u32 | BROKEN).to_be_bytes());
    wire.extend(&error);
    for step in 1..20 {
        let (mut d, mut out, mut head, mut broken) = (Deframer::default(), Vec::new(), None, None);
        for part in wire.chunks(step) {
            d.push(part);
            if head.is_none() {
                head = d.head(100).unwrap();
            }
            while head.is_some() && broken.is_none() {
                match d.frame() {
                    Ok(Some(frame)) => out.push(frame),
                    Ok(None) => break,
                    Err(e) => broken = Some(e),
                }
            }
        }
        assert_eq!(head.unwrap(), "head");
        assert_eq!(out, ["one", "", "three"]);
        assert_eq!(broken.unwrap(), Error::corrupt("the source broke"));
        assert!(d.is_empty());
    }
}

#[test]
fn collecting_keeps_its_limit() {
    let mut c = Collect::new(10, 10);
    c.push(Bytes::from_static(b"12345")).unwrap();
    c.push(Bytes::from_static(b"67890")).unwrap();
    assert_eq!(c.parts.capacity(), 10);
    assert!(c.push(Bytes::from_static(b"x")).is_err());
    assert_eq!(c.finish(), "1234567890");
    let mut c = Collect::new(0, 4);
    c.push(Bytes::from_static(b"12")).unwrap();
    c.push(Bytes::from_static(b"34")).unwrap();
    assert!(c.push(Bytes::from_static(b"5")).is_err());
    assert_eq!(c.finish(), "1234");
    assert!(Collect::new(u64::MAX, 4).push(Bytes::from_static(b"12345")).is_err());
}
