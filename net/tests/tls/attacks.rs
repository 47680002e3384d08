//! Attacks on TLS over TCP: certificates that are not good, ports taken for each other, handshakes
//! that stop in the middle, and floods of what TLS allows and nobody needs.
//!
//! Each is held to what becomes of it, to the counter that shows it, and to what it costs.

use forebay_net::ring::fake::Client;
use forebay_net::tls::Failure;
use forebay_net::tls::settings::{Settings, Version};
use rcgen::{ExtendedKeyUsagePurpose, date_time_ymd};
use rustls::{AlertDescription, Error};

use crate::certificates::{Authority, Paper, settings, terms_of};
use crate::forger::Forger;
use crate::place::{HANDSHAKE_TIMEOUT, Place, SECOND, Visitor};

const HANDSHAKE: u8 = 22;
const ALERT: u8 = 21;
const CHANGE_CIPHER_SPEC: u8 = 20;
const DATA: u8 = 23;

fn place(authority: &Authority, version: Version) -> Place {
    let ours = settings(&[&authority.server("localhost")]);
    let ours = Settings { version_min: version, version_max: version, ..ours };
    Place::new(terms_of(&ours).config, 100)
}

/// A client whose handshake is done, and which goes on by hand.
fn forger(place: &mut Place, authority: &Authority, version: Version) -> Forger {
    let mut visitor = place.visit(&Forger::config(authority, version), "localhost");
    visitor.live(place);
    assert_eq!(visitor.error, None);
    Forger::new(visitor, version)
}

/// Somebody honest is served all the same.
fn assert_serves(place: &mut Place, authority: &Authority) {
    let heard = place.ask(&authority.client(None, &[])).expect("it is served");
    assert!(heard.contains("200 OK"), "{heard}");
}

#[test]
fn a_client_certificate_that_is_not_for_now_or_not_for_this_is_told_so_and_counted() {
    let (authority, other) = (Authority::new("ours"), Authority::new("theirs"));
    let server = authority.server("localhost");
    let early = authority.issue("a", |params| params.not_before = date_time_ymd(2098, 1, 1));
    let expired = authority.issue("a", |params| params.not_after = date_time_ymd(2020, 1, 1));
    let for_servers = authority.issue("a", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    let for_mail = authority.issue("a", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::EmailProtection];
    });
    let unknown = other.issue("a", |_| {});
    let good = authority.issue("a", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    for version in [Version::Tls12, Version::Tls13] {
        let ours = Settings {
            client_ca_pem: Some(authority.pem()),
            version_min: version,
            version_max: version,
            ..settings(&[&server])
        };
        let mut place = Place::new(terms_of(&ours).config, 100);
        for (what, paper, failure, alert) in [
            ("not yet", &early, Failure::BadCertificate, AlertDescription::CertificateExpired),
            ("no more", &expired, Failure::Expired, AlertDescription::CertificateExpired),
            (
                "for servers",
                &for_servers,
                Failure::BadCertificate,
                AlertDescription::UnsupportedCertificate,
            ),
            (
                "for mail",
                &for_mail,
                Failure::BadCertificate,
                AlertDescription::UnsupportedCertificate,
            ),
            ("of others", &unknown, Failure::UnknownCa, AlertDescription::UnknownCA),
        ] {
            let before = place.failed(failure);
            let refused = place.ask(&authority.client(Some(paper), &[])).expect_err(what);
            assert_eq!(refused, Error::AlertReceived(alert), "{what}");
            assert_eq!(place.failed(failure), before + 1, "{what}");
        }
        let stats = place.server.stats().tls;
        assert_eq!((stats.completed, stats.pending, place.porter.seen.len()), (0, 0, 0));
        let heard = place.ask(&authority.client(Some(&good), &[])).expect("one that is good");
        assert!(heard.contains("200 OK"));
    }
}

#[test]
fn a_client_whose_issuer_nobody_can_say_to_have_revoked_it_is_not_let_in() {
    let (authority, other) = (Authority::new("ours"), Authority::new("theirs"));
    let ours = Settings {
        client_ca_pem: Some([authority.pem(), other.pem()].concat()),
        // The list of one of both.
        client_crl_pem: Some(authority.revoke(&[77])),
        ..settings(&[&authority.server("localhost")])
    };
    let mut place = Place::new(terms_of(&ours).config, 100);
    let (known, unknown) = (authority.issue("a", |_| {}), other.issue("a", |_| {}));
    assert!(place.ask(&authority.client(Some(&known), &[])).is_ok());
    assert!(place.ask(&authority.client(Some(&unknown), &[])).is_err());
    assert_eq!((place.failed(Failure::BadCertificate), place.porter.seen.len()), (1, 1));
}

#[test]
fn a_server_for_another_host_or_time_is_left_by_its_clients_and_that_is_counted() {
    let authority = Authority::new("ours");
    let cases: [(Paper, Failure); 3] = [
        (authority.server("another.test"), Failure::BadCertificate),
        (
            authority.issue("localhost", |params| params.not_after = date_time_ymd(2020, 1, 1)),
            Failure::Expired,
        ),
        (Authority::new("theirs").server("localhost"), Failure::UnknownCa),
    ];
    for (paper, failure) in cases {
        let mut place = Place::new(terms_of(&settings(&[&paper])).config, 100);
        for times in 1..4 {
            let refused = place.ask(&authority.client(None, &[]));
            assert!(matches!(refused, Err(Error::InvalidCertificate(_))), "{refused:?}");
            assert_eq!(place.failed(failure), times, "{failure:?}");
        }
        place.wait(10 * SECOND);
        assert_eq!((place.server.stats().tls.pending, place.server.connections()), (0, 0));
    }
}

#[test]
fn a_version_that_is_not_spoken_is_refused_and_counted() {
    let authority = Authority::new("ours");
    for (ours, theirs) in [(Version::Tls12, Version::Tls13), (Version::Tls13, Version::Tls12)] {
        let mut place = place(&authority, ours);
        let refused = place.ask(&Forger::config(&authority, theirs)).expect_err("not spoken");
        assert_eq!(refused, Error::AlertReceived(AlertDescription::ProtocolVersion));
        assert_eq!(place.failed(Failure::NoCommonProtocol), 1);
    }
}

#[test]
fn what_begins_as_no_handshake_does_is_ended_at_once_and_counted() {
    let authority = Authority::new("ours");
    let mut place = place(&authority, Version::Tls13);
    let beginnings: [&[u8]; 7] = [
        &[0x80, 0x2e, 1, 3, 1],          // SSL 2's hello
        &[ALERT, 3, 3, 0, 2, 1, 0],      // a goodbye
        &[DATA, 3, 3, 0, 5, 1, 2, 3, 4], // data without keys
        &[CHANGE_CIPHER_SPEC, 3, 3, 0, 1, 1],
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        &[0],
    ];
    for (times, beginning) in beginnings.iter().enumerate() {
        let client = place.network.connect(0).expect("it listens");
        client.write(beginning);
        place.turn();
        assert!(client.read(1_000).len() < 300);
        assert!(client.end().is_some(), "{}", beginning.escape_ascii());
        assert_eq!(place.failed(Failure::Plaintext), 1 + times as u64);
    }
    // What comes in a handshake's records and is none.
    let malformed: [&[u8]; 4] = [
        &[HANDSHAKE, 3, 1, 0, 5, 2, 0, 0, 1, 0], // a server's hello
        &[HANDSHAKE, 3, 1, 0, 4, 20, 0, 0, 0],   // the end before the beginning
        &[HANDSHAKE, 3, 1, 0, 6, 1, 0, 0, 2, 3, 3], // a hello that is cut off
        &[HANDSHAKE, 3, 1, 0xff, 0xff, 1],       // longer than a record can be
    ];
    for (times, bytes) in malformed.iter().enumerate() {
        let client = place.network.connect(0).expect("it listens");
        client.write(bytes);
        place.turn();
        assert!(client.read(1_000).len() < 50, "an alert");
        assert!(client.end().is_some(), "{}", bytes.escape_ascii());
        assert_eq!(place.failed(Failure::Other), 1 + times as u64);
    }
    assert_eq!((place.server.stats().tls.pending, place.porter.seen.len()), (0, 0));
    assert_serves(&mut place, &authority);
}

#[test]
fn handshakes_that_stop_after_our_answer_have_their_time_and_leave_their_places() {
    let authority = Authority::new("ours");
    for version in [Version::Tls12, Version::Tls13] {
        let mut place = place(&authority, version);
        let client = Forger::config(&authority, version);
        let mut stalled: Vec<Visitor> =
            (0..20).map(|_| place.visit(&client, "localhost")).collect();
        for visitor in &mut stalled {
            visitor.push();
            place.turn();
        }
        assert_eq!(place.server.stats().tls.pending, 20);
        // An honest one needs no patience.
        let heard = place.ask(&client).expect("there is room");
        assert!(heard.contains("200 OK"));
        place.wait(HANDSHAKE_TIMEOUT + SECOND);
        assert_eq!((place.failed(Failure::Timeout), place.server.stats().tls.pending), (20, 0));
        for visitor in &stalled {
            assert!(visitor.client.read(1 << 20).len() < 4_000, "our part of a handshake");
            assert!(visitor.client.end().is_some());
        }
        assert!(place.server.stats().timeouts >= 20);
    }
}

/// A flood of records after the handshake. Returns how many were sent until the connection ended,
/// if it did, and how many bytes came back.
fn flood(
    place: &mut Place,
    forger: &mut Forger,
    mut record: impl FnMut(&mut Forger) -> Vec<u8>,
) -> (Option<usize>, usize, usize) {
    let (mut said, mut heard) = (0, 0);
    for times in 0..400 {
        let bytes = record(forger);
        said += bytes.len();
        forger.client.write(&bytes);
        if times % 8 == 7 {
            place.turn();
            heard += forger.client.read(1 << 20).len();
        }
        if forger.client.end().is_some() {
            return (Some(times), said, heard);
        }
    }
    (None, said, heard)
}

type Record = fn(&mut Forger) -> Vec<u8>;

#[test]
fn floods_that_tls_allows_end_the_connection_soon_and_bring_little_back() {
    use Version::{Tls12, Tls13};
    let authority = Authority::new("ours");
    let hello = |forger: &mut Forger| forger.seal(HANDSHAKE, &[1, 0, 0, 2, 3, 3]);
    let floods: [(&str, Version, Record); 10] = [
        ("empty records", Tls13, |forger| forger.seal(DATA, &[])),
        ("empty records", Tls12, |forger| forger.seal(DATA, &[])),
        ("warnings", Tls13, |forger| forger.seal(ALERT, &[1, 90])),
        ("warnings", Tls12, |forger| forger.seal(ALERT, &[1, 90])),
        ("renegotiations", Tls12, hello),
        ("requests to be asked", Tls12, |forger| forger.seal(HANDSHAKE, &[0, 0, 0, 0])),
        ("hellos in the middle", Tls13, hello),
        ("empty handshake records", Tls13, |forger| forger.seal(HANDSHAKE, &[])),
        ("changes of cipher in clear", Tls13, |_| vec![CHANGE_CIPHER_SPEC, 3, 3, 0, 1, 1]),
        ("records of an unknown kind", Tls13, |forger| forger.seal(99, b"?")),
    ];
    for (what, version, record) in floods {
        let mut place = place(&authority, version);
        let mut forger = forger(&mut place, &authority, version);
        let (ended, said, heard) = flood(&mut place, &mut forger, record);
        assert!(ended.is_some_and(|times| times < 50), "{what} of {version:?}: {ended:?}");
        assert!(heard <= said, "{what}: {heard} bytes for {said}");
        assert_eq!(place.server.stats().tls.broken, 1, "{what}");
        place.wait(SECOND * 10);
        assert_eq!((place.server.connections(), place.porter.seen.len()), (0, 0), "{what}");
        assert_serves(&mut place, &authority);
    }
}

#[test]
fn new_keys_are_asked_for_a_few_times_and_then_no_more() {
    let authority = Authority::new("ours");
    let mut place = place(&authority, Version::Tls13);
    let mut visitor = place.visit(&authority.client(None, &[]), "localhost");
    visitor.live(&mut place);
    let mut times = 0;
    while visitor.client.end().is_none() {
        visitor.tls.refresh_traffic_keys().expect("it is open");
        visitor.push();
        place.turn();
        times += 1;
        assert!(times < 100, "it has no end");
    }
    assert!((10..50).contains(&times), "{times}");
    let alert = visitor.client.read(1 << 20).len();
    assert!(alert < 50 * times, "{alert} bytes for {times}");
    assert_serves(&mut place, &authority);
    // Between requests they are nobody's harm.
    let mut visitor = place.visit(&authority.client(None, &[]), "localhost");
    for times in 1..100 {
        visitor.live(&mut place);
        visitor.tls.refresh_traffic_keys().expect("it is open");
        visitor.say(b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n");
        visitor.live(&mut place);
        assert_eq!(visitor.text().matches("/a of 0 bytes").count(), times);
    }
}

#[test]
fn empty_records_now_and_then_keep_no_connection_alive() {
    let authority = Authority::new("ours");
    for version in [Version::Tls12, Version::Tls13] {
        let mut place = place(&authority, version);
        let mut forger = forger(&mut place, &authority, version);
        forger.client.read(1 << 20);
        let began = place.network.now();
        while forger.client.end().is_none() {
            let record = forger.seal(DATA, &[]);
            forger.client.write(&record);
            place.wait(4 * SECOND);
            forger.client.read(1 << 20);
            assert!(place.network.now() < began + 90 * SECOND, "it lives on nothing");
        }
        assert!(place.network.now() >= began + 59 * SECOND, "who says nothing has 60 s");
        let stats = place.server.stats();
        assert_eq!((stats.timeouts, stats.tls.broken), (1, 0), "{version:?}");
        assert_serves(&mut place, &authority);
    }
}

#[test]
fn heads_in_records_of_a_byte_have_their_time_and_no_more() {
    let authority = Authority::new("ours");
    let mut place = place(&authority, Version::Tls13);
    let mut forger = forger(&mut place, &authority, Version::Tls13);
    forger.client.read(1 << 20);
    let head = b"GET /slow HTTP/1.1\r\nx-a: ".iter().chain([b'a'].iter().cycle());
    let (began, mut heard) = (place.network.now(), Vec::new());
    for byte in head {
        let record = forger.seal(DATA, &[*byte]);
        forger.client.write(&record);
        place.wait(SECOND / 4);
        heard.extend(forger.client.read(1 << 20));
        if forger.client.end().is_some() {
            break;
        }
        assert!(place.network.now() < began + 20 * SECOND, "it has no end");
    }
    assert!(place.network.now() >= began + 4 * SECOND, "a head's time is 5 s");
    assert!(heard.len() < 500 && place.server.stats().timeouts > 0, "{heard:?}");
    assert_eq!(place.porter.seen.len(), 0);
    assert_serves(&mut place, &authority);
}

/// What one hello costs whoever sends nothing else, in bytes that come back.
#[test]
fn a_hello_brings_back_no_more_than_a_certificate_and_a_flood_of_them_is_bounded() {
    let authority = Authority::new("ours");
    let ours = settings(&[&authority.server("localhost")]);
    let mut place = Place::new(terms_of(&ours).config, 8);
    let client = authority.client(None, &[]);
    let mut clients: Vec<Client> = Vec::new();
    let mut heard = 0;
    for _ in 0..100 {
        let mut visitor = place.visit(&client, "localhost");
        visitor.push();
        place.turn();
        heard += visitor.client.read(1 << 20).len();
        clients.push(visitor.client);
        assert!(place.server.stats().tls.pending <= 8);
    }
    assert!(heard < 100 * 4_000, "{heard}");
    assert_eq!(place.failed(Failure::TooMany), 92);
    place.wait(HANDSHAKE_TIMEOUT + SECOND);
    assert_eq!((place.failed(Failure::Timeout), place.server.connections()), (8, 0));
    assert_serves(&mut place, &authority);
}
