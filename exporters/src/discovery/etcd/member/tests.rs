//! Values as people, etcd's Go resolver and we write them.

use super::*;

#[test]
fn the_forms_of_a_value_mean_the_same() {
    let plain = parse(b" collector-1:4317\n", None).expect("a member").expect("a willing one");
    assert_eq!(plain.address(), "collector-1:4317");
    let flat = br#"{"address": "collector-1:4317", "zone": "a", "weight": 3, "rack": "7"}"#;
    let go = br#"{"Op":0,"Addr":"collector-1:4317","Metadata":{"zone":"a","weight":"3","rack":7}}"#;
    let flat = parse(flat, None).expect("a member").expect("a willing one");
    let go = parse(go, None).expect("a member").expect("a willing one");
    assert_eq!(flat, go);
    assert_eq!((flat.weight, flat.zone.as_deref()), (3, Some("a")));
    assert_eq!(flat.attributes["rack"], "7");
    let bare = br#"{"Op":0,"Addr":"collector-1:4317","Metadata":null}"#;
    assert_eq!(parse(bare, None).expect("a member").expect("a willing one"), plain);
}

#[test]
fn what_we_write_we_read_and_one_that_is_ill_gets_nothing() {
    let attributes = BTreeMap::from([("zone".to_owned(), "b".to_owned())]);
    for state in [State::Passing, State::Warning, State::Critical] {
        let health = Health { state, note: "disk \"full\"".to_owned() };
        let entry = entry("[::1]:4317", &attributes, &health);
        let read = parse(entry.as_bytes(), None).expect("a member");
        assert_eq!(read.is_some(), state != State::Critical, "{entry}");
        if let Some(endpoint) = read {
            assert_eq!(endpoint.address(), "[::1]:4317");
            assert_eq!(endpoint.zone.as_deref(), Some("b"));
        }
    }
}

#[test]
fn what_is_no_member_is_said_to_be_none() {
    let values: [&[u8]; 7] = [
        b"",
        b"collector",
        b"{",
        b"{}",
        b"\xff\xfe",
        br#"{"address": "a:1", "weight": "much"}"#,
        br#"{"address": 1}"#,
    ];
    for value in values {
        let said = parse(value, None);
        assert!(said.is_err(), "{:?}: {said:?}", String::from_utf8_lossy(value));
    }
}
