#![allow(clippy::unwrap_used)]
use super::*;

const ID: RequestId = RequestId([0xab; 16]);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Every request with the bytes that its version published. These lines are never edited.
fn requests() -> Vec<(Request, String)> {
    let id = "ab".repeat(16);
    let name = Digest([7; 32]);
    let asks = [
        (Ask::Put { content: vec![1, 2, 3] }, format!("0001010000000003{id}010203")),
        (Ask::Get { name }, format!("0001020000000020{id}{}", "07".repeat(32))),
        (Ask::Ping, format!("0001030000000000{id}")),
        (
            Ask::Append { log: name, nonce: [5; 16], content: vec![1, 2, 3] },
            format!("0002040000000033{id}{}{}010203", "07".repeat(32), "05".repeat(16)),
        ),
        (
            Ask::ReadLog { log: name, from: 258 },
            format!("0002050000000028{id}{}0000000000000102", "07".repeat(32)),
        ),
    ];
    asks.into_iter().map(|(ask, bytes)| (Request { id: ID, ask }, bytes)).collect()
}

/// Every answer, likewise.
fn answers() -> Vec<(Answer, String)> {
    let name = Digest([7; 32]);
    let text = || "why".to_owned();
    vec![
        (Answer::Stored { name }, format!("0001010000000020{}", "07".repeat(32))),
        (Answer::Content { content: vec![9] }, "000102000000000109".to_owned()),
        (Answer::NotFound, "0001030000000000".to_owned()),
        (
            Answer::Pong { term: 5, release: "1.0.0".to_owned() },
            "000104000000000d0000000000000005312e302e30".to_owned(),
        ),
        (Answer::Retry { after_ms: 250, reason: text() }, "0001100000000007000000fa776879".to_owned()),
        (Answer::Refused { reason: text() }, "0001110000000003776879".to_owned()),
        (Answer::TooLarge { limit: 1 << 20 }, "000112000000000400100000".to_owned()),
        (Answer::Unsupported { spoken: Range { min: 1, max: 2 } }, "000113000000000400010002".to_owned()),
        (Answer::Malformed { reason: text() }, "0001140000000003776879".to_owned()),
        (
            Answer::Appended { id: name, index: 258 },
            format!("0002050000000028{}0000000000000102", "07".repeat(32)),
        ),
        (
            Answer::Log { length: 258, entries: vec![vec![1, 2], Vec::new()] },
            "0002060000000012000000000000010200000002010200000000".to_owned(),
        ),
        (Answer::NotYet { reason: text() }, "0002150000000003776879".to_owned()),
    ]
}

#[test]
fn every_message_has_the_bytes_that_were_published_and_reads_back_from_them() {
    for (request, bytes) in requests() {
        assert_eq!(hex(&request.encode()), bytes);
        assert_eq!(Request::decode(&request.encode(), SPOKEN), Ok(request));
    }
    for (answer, bytes) in answers() {
        assert_eq!(hex(&answer.encode()), bytes);
        assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
    }
    for (signal, bytes) in [(Signal::Hello(Range { min: 1, max: 3 }), "0100010003"), (Signal::Goaway, "02")] {
        assert_eq!(hex(&signal.encode()), bytes);
        assert_eq!(Signal::decode(&signal.encode()), Ok(Some(signal)));
    }
}

#[test]
fn no_prefix_and_no_extension_of_a_message_is_a_message() {
    for (request, _) in requests() {
        let mut bytes = request.encode();
        for length in 0..bytes.len() {
            assert!(Request::decode(&bytes[..length], SPOKEN).is_err());
        }
        bytes.push(0);
        assert!(Request::decode(&bytes, SPOKEN).is_err());
    }
    for (answer, _) in answers() {
        let mut bytes = answer.encode();
        for length in 0..bytes.len() {
            assert!(Answer::decode(&bytes[..length]).is_err());
        }
        bytes.push(0);
        assert!(Answer::decode(&bytes).is_err());
    }
}

#[test]
fn a_body_that_is_too_long_is_refused_by_its_header_alone() {
    let head = |kind: u8, length: u32| {
        let mut bytes = [0; REQUEST_HEADER];
        bytes[..4].copy_from_slice(&[0, 2, kind, 0]);
        bytes[4..8].copy_from_slice(&length.to_be_bytes());
        RequestHead::decode(&bytes, SPOKEN)
    };
    assert_eq!(head(1, 1 << 20).unwrap().length, CHUNK);
    assert_eq!(head(1, (1 << 20) + 1), Err(Answer::TooLarge { limit: 1 << 20 }));
    assert_eq!(head(2, 33), Err(Answer::TooLarge { limit: 32 }));
    assert_eq!(head(4, 48 + 4096).unwrap().length, 48 + 4096);
    assert_eq!(head(4, 48 + 4097), Err(Answer::TooLarge { limit: 48 + 4096 }));
    assert_eq!(head(5, 41), Err(Answer::TooLarge { limit: 40 }));
    assert_eq!(head(3, u32::MAX), Err(Answer::TooLarge { limit: 0 }));
    let mut answer = Answer::NotFound.encode();
    answer[7] = 1;
    assert_eq!(Answer::decode(&answer), Err(WireError::TooLong { length: 1, limit: 0 }));
}

#[test]
fn an_unknown_version_or_kind_is_answered_with_the_range_that_is_spoken() {
    let mut bytes = Request { id: ID, ask: Ask::Ping }.encode();
    bytes[2] = 77;
    assert_eq!(Request::decode(&bytes, SPOKEN), Err(Answer::Unsupported { spoken: SPOKEN }));
    bytes[..3].copy_from_slice(&[0, 9, 3]);
    assert_eq!(Request::decode(&bytes, SPOKEN), Err(Answer::Unsupported { spoken: SPOKEN }));
    assert_eq!(Signal::decode(&[99, 1, 2]), Ok(None));
    assert!(Signal::decode(&[]).is_err());
    assert!(Signal::decode(&[1, 0]).is_err());
}

#[test]
fn a_request_of_version_2_is_unknown_to_a_node_that_speaks_1_and_in_a_header_of_version_1() {
    let one = Range { min: 1, max: 1 };
    for (request, bytes) in requests() {
        let later = bytes.starts_with("0002");
        let expected = if later { Err(Answer::Unsupported { spoken: one }) } else { Ok(request.clone()) };
        assert_eq!(Request::decode(&request.encode(), one), expected);
        let mut first = request.encode();
        first[1] = 1;
        assert_eq!(Request::decode(&first, SPOKEN).is_err(), later, "{request:?}");
    }
}

#[test]
fn a_long_reason_is_cut_between_characters() {
    let reason = "ä".repeat(400);
    let Answer::Refused { reason: cut } = Answer::decode(&Answer::Refused { reason }.encode()).unwrap()
    else {
        panic!("another answer");
    };
    assert_eq!(cut, "ä".repeat(256));
}
