//! TLS at the receiver: a whole server on a quiet network, visited by rustls's own client.

mod attacks;
mod blind;
mod certificates;
mod forger;
mod place;

use std::sync::Arc;

use forebay_net::ring::fake::LineEnd;
use forebay_net::tls::Failure;
use forebay_net::tls::settings::{Door, Settings, Version, terms, tickets};
use rcgen::{CertificateParams, CustomExtension, KeyPair, SanType, SerialNumber, date_time_ymd};
use rustls::{
    AlertDescription, CipherSuiteCommon, ClientConfig, Error, HandshakeKind, SignatureScheme,
    SupportedCipherSuite, Tls12CipherSuite,
};

use self::blind::Blind;
use self::certificates::{Authority, Paper, names, settings, terms_of};
use self::place::{HANDSHAKE_TIMEOUT, Place, SECOND};

const PREFACE_AND_SETTINGS: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

struct Scene {
    authority: Authority,
    place: Place,
}

fn scene() -> Scene {
    bounded(100)
}

fn bounded(handshakes_max: usize) -> Scene {
    let authority = Authority::new("ours");
    let terms = terms_of(&settings(&[&authority.server("localhost")]));
    let place = Place::new(terms.config, handshakes_max);
    Scene { authority, place }
}

#[test]
fn what_a_client_says_through_tls_is_answered_through_tls_in_what_both_chose_to_speak() {
    let Scene { authority, mut place } = scene();
    for alpn in [&[][..], &["http/1.1"], &["h2", "http/1.1"]] {
        let mut visitor = place.visit(&authority.client(None, alpn), "localhost");
        let speaks_h2 = alpn.first() == Some(&"h2");
        visitor.say(match speaks_h2 {
            true => PREFACE_AND_SETTINGS,
            false => b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello",
        });
        visitor.live(&mut place);
        assert_eq!(visitor.error, None);
        match speaks_h2 {
            // Its settings, a window update, and the acknowledgement of ours.
            true => assert_eq!(visitor.heard[3], 4, "{:?}", visitor.heard),
            false => assert!(visitor.text().ends_with("\r\n\r\n/a of 5 bytes")),
        }
        assert_eq!(visitor.tls.alpn_protocol(), alpn.first().map(|name| name.as_bytes()));
    }
    let stats = place.server.stats().tls;
    assert_eq!((stats.completed, stats.pending), (3, 0));
}

#[test]
fn who_chose_http2_and_speaks_http1_is_not_served() {
    let Scene { authority, mut place } = scene();
    let heard = place.ask(&authority.client(None, &["h2"])).expect("TLS itself is proper");
    assert!(!heard.contains("200 OK"), "{heard}");
    assert!(place.porter.seen.is_empty());
}

#[test]
fn a_hello_in_single_bytes_and_a_long_body_in_many_records_are_both_read() {
    let Scene { authority, mut place } = scene();
    let mut visitor = place.visit(&authority.client(None, &[]), "localhost");
    let mut hello = Vec::new();
    visitor.tls.write_tls(&mut hello).expect("a vector takes all");
    for byte in hello {
        visitor.client.write(&[byte]);
        place.turn();
    }
    visitor.pull();
    visitor.say(b"POST /long HTTP/1.1\r\nhost: a\r\ncontent-length: 50000\r\n\r\n");
    for _ in 0..10 {
        visitor.say(&[7; 5000]);
        visitor.live(&mut place);
    }
    assert!(visitor.text().ends_with("/long of 50000 bytes"), "{}", visitor.text());
}

#[test]
fn the_server_says_goodbye_and_whoever_has_said_it_still_gets_its_answer() {
    let Scene { authority, mut place } = scene();
    place.answers_at_once = false;
    let mut visitor = place.visit(&authority.client(None, &[]), "localhost");
    visitor.live(&mut place);
    visitor.say(b"GET /late HTTP/1.1\r\nhost: a\r\n\r\n");
    visitor.tls.send_close_notify();
    visitor.live(&mut place);
    assert_eq!(visitor.text(), "");
    place.answer();
    visitor.live(&mut place);
    assert!(visitor.text().contains("/late of 0 bytes"), "{}", visitor.text());
    assert!(visitor.was_told_goodbye());
}

#[test]
fn who_leaves_without_goodbye_gets_the_answers_to_whole_requests_and_to_nothing_else() {
    let Scene { authority, mut place } = scene();
    let mut visitor = place.visit(&authority.client(None, &[]), "localhost");
    visitor.say(b"GET /whole HTTP/1.1\r\nhost: a\r\n\r\nPOST /part HTTP/1.1\r\ncontent-len");
    visitor.live(&mut place);
    visitor.client.finish();
    visitor.live(&mut place);
    assert!(visitor.text().contains("/whole of 0 bytes"), "{}", visitor.text());
    assert_eq!(place.porter.seen.len(), 1, "the other one never was whole");
    assert!(visitor.was_told_goodbye());
    assert_eq!(place.server.connections(), 0);
}

#[test]
fn a_record_that_was_tampered_with_ends_its_connection_with_an_alert() {
    let Scene { authority, mut place } = scene();
    let mut visitor = place.visit(&authority.client(None, &[]), "localhost");
    visitor.live(&mut place);
    visitor.client.write(&[&[0x17, 3, 3, 0, 40][..], &[9; 40]].concat());
    visitor.live(&mut place);
    assert_eq!(visitor.error, Some(Error::AlertReceived(AlertDescription::BadRecordMac)));
    assert_eq!(visitor.client.end(), Some(LineEnd::Finished));
}

#[test]
fn plaintext_at_a_port_with_tls_is_told_so_and_counted() {
    let Scene { mut place, .. } = scene();
    for (said, is_told) in [
        (&b"POST /v1/traces HTTP/1.1\r\n\r\n"[..], true),
        (PREFACE_AND_SETTINGS, true),
        (&[0, 1, 2, 3], false),
    ] {
        let client = place.network.connect(0).expect("it listens");
        client.write(said);
        place.turn();
        let heard = client.read(1000);
        assert_eq!(heard.starts_with(b"HTTP/1.1 400 "), is_told, "{heard:?}");
        assert_eq!(heard.ends_with(b"TLS set up"), is_told);
        assert!(client.end().is_some());
    }
    assert_eq!(place.failed(Failure::Plaintext), 3);
    assert!(place.porter.seen.is_empty());
}

#[test]
fn tls_at_a_port_without_it_is_ended_at_once_and_counted() {
    let Scene { mut place, .. } = scene();
    let client = place.network.connect(1).expect("it listens");
    client.write(&[0x16]);
    place.turn();
    assert!(client.end().is_some() && client.read(100).is_empty());
    assert_eq!(place.server.stats().tls.misdirected, 1);
}

#[test]
fn half_open_handshakes_are_bounded_and_end_in_time() {
    let Scene { authority, mut place } = bounded(3);
    let halves: Vec<_> = (0..5)
        .map(|_| {
            let client = place.network.connect(0).expect("it listens");
            client.write(&[0x16, 3, 1]);
            place.turn();
            client
        })
        .collect();
    let silent = place.network.connect(0).expect("it listens");
    place.turn();
    assert_eq!(place.server.stats().tls.pending, 3);
    assert_eq!(place.failed(Failure::TooMany), 2);
    assert_eq!(halves.iter().filter(|client| client.end().is_some()).count(), 2);
    place.wait(HANDSHAKE_TIMEOUT + SECOND);
    assert_eq!(place.failed(Failure::Timeout), 3);
    assert_eq!(place.server.stats().tls.pending, 0);
    assert!(silent.end().is_some() && halves.iter().all(|client| client.end().is_some()));
    assert_eq!(place.server.connections(), 0);
    let heard = place.ask(&authority.client(None, &[])).expect("there is room again");
    assert!(heard.contains("200 OK"));
}

#[test]
fn a_good_client_gets_in_during_a_flood_of_half_open_handshakes() {
    let Scene { authority, mut place } = bounded(3);
    let client = authority.client(None, &[]);
    let mut flood = Vec::new();
    for round in 1..=10 {
        for _ in 0..4 {
            let half = place.network.connect(0).expect("it listens");
            half.write(&[0x16]);
            place.turn();
            flood.push(half);
        }
        assert_eq!(place.server.stats().tls.pending, 3);
        assert!(place.ask(&client).expect("somebody gives way").contains("200 OK"));
        assert_eq!(place.server.stats().tls.completed, round);
    }
    let ended = flood.iter().filter(|half| half.end().is_some()).count();
    assert_eq!((place.failed(Failure::TooMany), ended), (38, 38));
    assert_eq!(place.failed(Failure::Timeout), 0);
}

#[test]
fn whoever_was_answered_has_a_second_before_it_gives_way() {
    let Scene { authority, mut place } = bounded(3);
    let client = authority.client(None, &[]);
    let mut slow: Vec<_> = (0..3).map(|_| place.visit(&client, "localhost")).collect();
    for visitor in &mut slow {
        visitor.say(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n");
        visitor.push();
        place.turn();
    }
    assert!(place.ask(&client).map_or(true, |heard| heard.is_empty()), "no room yet");
    assert_eq!((place.failed(Failure::TooMany), place.server.stats().tls.completed), (1, 0));
    slow[0].pull();
    slow[0].live(&mut place);
    assert!(slow[0].text().contains("/slow of 0 bytes"), "{}", slow[0].text());
    let late = place.network.connect(0).expect("it listens");
    late.write(&[0x16, 3, 1]);
    place.wait(SECOND);
    assert!(place.ask(&client).expect("the one that says nothing gives way").contains("200 OK"));
    assert!(late.end().is_some() && slow[1].client.end().is_none());
    let late = place.network.connect(0).expect("it listens");
    late.write(&[0x16, 3, 1]);
    place.turn();
    let newer = place.network.connect(0).expect("it listens");
    newer.write(&[0x16, 3, 1]);
    place.turn();
    assert!(late.end().is_some() && newer.end().is_none() && slow[1].client.end().is_none());
    assert_eq!(place.failed(Failure::TooMany), 3);
}

#[test]
fn a_certificate_that_says_nothing_readable_lets_nobody_in() {
    let authority = Authority::new("ours");
    let ours = settings(&[&authority.server("localhost")]);
    let config = terms_of(&Settings { client_ca_pem: Some(authority.pem()), ..ours }).config;
    let mut place = Place::new(config, 100);
    // Its alternative names end in the middle of one: rustls does not look at them.
    let cut_off = CustomExtension::from_oid_content(&[2, 5, 29, 17], vec![0x30, 1, 0x82]);
    let paper = authority.issue("a", |params| {
        params.subject_alt_names.clear();
        params.custom_extensions.push(cut_off);
    });
    let heard = place.ask(&authority.client(Some(&paper), &[]));
    assert_eq!(heard, Ok(String::new()), "rustls itself has nothing against it");
    let tls = place.server.stats().tls;
    assert_eq!((place.failed(Failure::BadCertificate), tls.completed, tls.pending), (1, 0, 0));
    assert!(place.porter.seen.is_empty());
}

#[test]
fn a_hello_that_never_ends_is_given_up_before_it_costs_much() {
    let Scene { mut place, .. } = scene();
    let client = place.network.connect(0).expect("it listens");
    // A hello of 60,000 bytes, in records of 4,000.
    let mut said = 0;
    for number in 0..15 {
        let mut record = vec![0x16, 3, 1, 0x0f, 0xa0];
        record.extend(if number == 0 { [1, 0, 0xea, 0x60] } else { [0; 4] });
        record.resize(4005, 0);
        if place.failed(Failure::Other) == 0 {
            said += client.write(&record);
        }
        place.turn();
    }
    assert!(client.end().is_some());
    assert!((20_000..45_000).contains(&said), "{said}");
    assert_eq!((place.failed(Failure::Other), place.server.stats().tls.pending), (1, 0));
}

#[test]
fn a_client_proves_who_it_is_and_its_requests_say_so() {
    let authority = Authority::new("ours");
    let ours = settings(&[&authority.server("localhost")]);
    let config = terms_of(&Settings { client_ca_pem: Some(authority.pem()), ..ours }).config;
    let mut place = Place::new(config, 100);
    let paper = authority.issue("agent.example.org", names);
    let client = authority.client(Some(&paper), &[]);
    for _ in 0..2 {
        let mut visitor = place.visit(&client, "localhost");
        visitor.say(b"GET /1 HTTP/1.1\r\nhost: a\r\n\r\nGET /2 HTTP/1.1\r\nhost: a\r\n\r\n");
        visitor.live(&mut place);
        // A session that is resumed would show no certificate, nor that it has expired since.
        assert_eq!(visitor.tls.handshake_kind(), Some(HandshakeKind::Full));
        assert!(visitor.text().contains("/2 of 0 bytes"), "{}", visitor.text());
    }
    assert_eq!(place.porter.seen.len(), 4);
    for peer in &place.porter.seen {
        let peer = peer.as_ref().expect("an identity");
        assert_eq!(peer.uri.as_deref(), Some("spiffe://example.org/edge/7"));
        assert_eq!(peer.dns_names, ["*.edge.example.org", "agent.example.org"]);
        assert_eq!(peer.subject, "O=Wells\\, Fargo \\+ Sons,CN=\\#7\\ ");
    }
}

#[test]
fn a_client_whose_certificate_is_not_good_enough_is_told_so_and_counted_by_the_reason() {
    let (authority, stranger) = (Authority::new("ours"), Authority::new("theirs"));
    let server = authority.server("localhost");
    let numbered = |number: u64| {
        move |params: &mut CertificateParams| {
            params.serial_number = Some(SerialNumber::from(number));
        }
    };
    let good = authority.issue("a", numbered(1));
    let revoked = authority.issue("a", numbered(2));
    let expired = authority.issue("a", |params| params.not_after = date_time_ymd(2020, 1, 1));
    let unknown = stranger.issue("a", |_| {});
    let ours = Settings {
        client_ca_pem: Some(authority.pem()),
        client_crl_pem: Some(authority.revoke(&[2])),
        ..settings(&[&server])
    };
    let mut place = Place::new(terms_of(&ours).config, 100);
    let mut ask = |paper: Option<&Paper>, failure: Option<Failure>| {
        let before = failure.map_or(0, |failure| place.failed(failure));
        let answer = place.ask(&authority.client(paper, &[]));
        assert_eq!(failure.map_or(1, |failure| place.failed(failure)), before + 1, "{failure:?}");
        answer
    };
    assert!(ask(Some(&good), None).is_ok_and(|heard| heard.contains("200 OK")));
    for (paper, failure, alert) in [
        (None, Failure::BadCertificate, AlertDescription::CertificateRequired),
        (Some(&revoked), Failure::Revoked, AlertDescription::CertificateRevoked),
        (Some(&expired), Failure::Expired, AlertDescription::CertificateExpired),
        (Some(&unknown), Failure::UnknownCa, AlertDescription::UnknownCA),
    ] {
        let refused = ask(paper, Some(failure)).expect_err("it is not let in");
        assert_eq!(refused, Error::AlertReceived(alert));
    }
    assert_eq!(place.porter.seen.len(), 1, "the others asked for nothing");
}

#[test]
fn a_client_that_does_not_trust_us_or_speaks_nothing_of_ours_is_counted_by_the_reason() {
    let Scene { authority, mut place } = scene();
    let stranger = Authority::new("theirs").client(None, &[]);
    assert!(matches!(place.ask(&stranger), Err(Error::InvalidCertificate(_))));
    assert_eq!(place.failed(Failure::UnknownCa), 1);
    let refused = place.ask(&authority.client(None, &["spdy/3"])).expect_err("not ours");
    assert_eq!(refused, Error::AlertReceived(AlertDescription::NoApplicationProtocol));
    assert_eq!(place.failed(Failure::NoCommonProtocol), 1);
}

#[test]
fn a_session_of_one_core_resumes_on_another_and_not_under_other_terms() {
    let authority = Authority::new("ours");
    let ours = settings(&[&authority.server("localhost")]);
    let shared = terms_of(&ours).config;
    let mut cores = [Place::new(shared.clone(), 9), Place::new(shared, 9)];
    let mut stranger = Place::new(terms_of(&ours).config, 9);
    let client = authority.client(None, &[]);
    assert!(cores[0].ask(&client).is_ok());
    assert!(cores[1].ask(&client).is_ok());
    assert!(cores[0].ask(&client).is_ok());
    let resumed = |place: &Place| place.server.stats().tls.resumed;
    assert_eq!((resumed(&cores[0]), resumed(&cores[1])), (1, 1));
    assert!(stranger.ask(&client).is_ok());
    assert_eq!(resumed(&stranger), 0);
}

#[test]
fn new_connections_get_new_terms_and_old_ones_go_on() {
    let Scene { authority, mut place } = scene();
    let mut old = place.visit(&authority.client(None, &[]), "localhost");
    old.live(&mut place);
    let successor = Authority::new("successor");
    let renewed = terms_of(&settings(&[&successor.server("localhost")]));
    place.acceptor.replace(renewed.config);
    old.say(b"GET /old HTTP/1.1\r\nhost: a\r\n\r\n");
    old.live(&mut place);
    assert!(old.text().contains("/old of 0 bytes"));
    assert!(place.ask(&authority.client(None, &[])).is_err());
    assert!(place.ask(&successor.client(None, &[])).is_ok());
}

#[test]
fn a_client_gets_the_certificate_for_the_name_that_it_asks_for() {
    let authority = Authority::new("ours");
    let papers = ["first.test", "second.test", "*.wild.test"].map(|name| authority.server(name));
    let terms = terms_of(&settings(&[&papers[0], &papers[1], &papers[2]]));
    assert_eq!(terms.shown.len(), 3);
    let mut place = Place::new(terms.config, 9);
    for (name, paper) in [
        ("first.test", &papers[0]),
        ("SECOND.test", &papers[1]),
        ("a.wild.test", &papers[2]),
        ("a.b.wild.test", &papers[0]),
        ("192.0.2.1", &papers[0]),
    ] {
        let mut visitor = place.visit(&authority.client(None, &[]), name);
        visitor.live(&mut place);
        let shown = visitor.tls.peer_certificates().map(|chain| chain[0].clone());
        match visitor.error {
            None => assert_eq!(shown.as_ref(), Some(&paper.der), "{name}"),
            // It saw one for another name, which is the first.
            Some(error) => {
                assert!(matches!(error, Error::InvalidCertificate(_)), "{error}");
                assert_eq!(paper.der, papers[0].der, "{name}");
            }
        }
    }
}

#[test]
fn a_name_that_nobody_has_gets_the_first_certificate_whatever_keys_the_client_can_verify() {
    let authority = Authority::new("ours");
    let paper = |names: &[&str], is_p384| {
        let key = match is_p384 {
            true => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
            false => KeyPair::generate(),
        };
        authority.issue_for(key, "a", |params| {
            let name = |text: &&str| SanType::DnsName((*text).try_into().expect("plain text"));
            params.subject_alt_names = names.iter().map(name).collect();
        })
    };
    let first = paper(&["first.test"], false);
    let (other, nameless) = (paper(&["other.test"], true), paper(&[], true));
    let twin = paper(&["twin.test", "FIRST.test"], true);
    let with_p384_alone = |settings: &Settings| {
        let terms = terms_of(settings);
        let mut client = ClientConfig::clone(&authority.client(None, &[]));
        let blind = Blind(SignatureScheme::ECDSA_NISTP384_SHA384);
        client.dangerous().set_certificate_verifier(Arc::new(blind));
        let mut place = Place::new(terms.config, 9);
        let mut visitor = place.visit(&Arc::new(client), "unknown.test");
        visitor.live(&mut place);
        let shown = visitor.tls.peer_certificates().map(|chain| chain[0].clone());
        (shown, terms.never_shown.len())
    };
    // None of the first's that this client can verify: it hears so, and of no other's.
    assert_eq!(with_p384_alone(&settings(&[&first, &other, &nameless])), (None, 1));
    assert_eq!(with_p384_alone(&settings(&[&first, &other, &twin])), (Some(twin.der.clone()), 0));
}

#[test]
fn a_connection_whose_keys_have_sealed_half_of_what_they_may_is_told_to_leave_in_order() {
    let authority = Authority::new("ours");
    let paper = authority.server("localhost");
    let ours = Settings { version_max: Version::Tls12, ..settings(&[&paper]) };
    let mut provider =
        rustls::crypto::CryptoProvider::clone(terms_of(&ours).config.crypto_provider());
    for suite in &mut provider.cipher_suites {
        if let SupportedCipherSuite::Tls12(proper) = *suite {
            let short = CipherSuiteCommon { confidentiality_limit: 20, ..proper.common };
            let made = Tls12CipherSuite { common: short, ..*proper };
            *suite = SupportedCipherSuite::Tls12(Box::leak(Box::new(made)));
        }
    }
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .expect("TLS 1.2 is there")
        .with_no_client_auth()
        .with_single_cert(vec![paper.der.clone()], paper.private_key())
        .expect("its own key");
    let mut place = Place::new(Arc::new(config), 9);
    let mut visitor = place.visit(&authority.client(None, &[]), "localhost");
    let mut answers = 0;
    while visitor.client.end().is_none() && answers < 30 {
        visitor.say(b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n");
        visitor.live(&mut place);
        answers += 1;
        assert_eq!(visitor.text().matches("/a of 0 bytes").count(), answers);
    }
    assert_eq!((answers, place.server.stats().aged), (11, 1));
    assert!(visitor.text().contains("connection: close"), "{}", visitor.text());
    assert!(visitor.was_told_goodbye());
}

type Change<'a> = &'a dyn Fn(&mut Settings);

#[test]
fn settings_that_can_not_serve_are_refused_with_the_reason() {
    let (authority, other) = (Authority::new("ours"), Authority::new("theirs"));
    let paper = authority.server("localhost");
    let good = settings(&[&paper]);
    let refused = |change: Change<'_>| {
        let mut settings = good.clone();
        change(&mut settings);
        terms(&settings, tickets().expect("randomness")).expect_err("it can't serve")
    };
    let foreign_key = other.server("localhost").identity().key_pem;
    let cases: [(&str, Change<'_>); 8] = [
        ("cert_file: the key is not the certificate's", &|settings| {
            settings.identities[0].key_pem.clone_from(&foreign_key);
        }),
        ("cert_file: no CERTIFICATE in it", &|settings| {
            settings.identities[0].chain_pem = b"nothing".to_vec();
        }),
        ("cert_file: no private key can be read", &|settings| {
            settings.identities[0].key_pem = paper.pem.clone().into_bytes();
        }),
        ("no certificate", &|settings| settings.identities.clear()),
        ("client_crl_file without client_ca_file", &|settings| {
            settings.client_crl_pem = Some(authority.revoke(&[]));
        }),
        ("client_ca_file: no CERTIFICATE in it", &|settings| {
            settings.client_ca_pem = Some(Vec::new());
        }),
        ("known are TLS_AES", &|settings| {
            settings.cipher_suites = vec!["TLS_RSA_WITH_RC4_128_SHA".to_owned()];
        }),
        ("known are X25519, P256", &|settings| settings.curves = vec!["P521".to_owned()]),
    ];
    for (reason, change) in cases {
        let why = refused(change);
        assert!(why.contains(reason), "{why}");
    }
}

#[test]
fn a_key_that_can_not_be_read_is_never_shown() {
    let authority = Authority::new("ours");
    let paper = authority.server("localhost");
    let good = settings(&[&paper]);
    let key = String::from_utf8(good.identities[0].key_pem.clone()).expect("text");
    let secret = key.lines().nth(1).expect("a line of the key").to_owned();
    let half = key.len() / 2;
    let begin = "-----BEGIN PRIVATE KEY-----";
    for (wrong, reason) in [
        (key.replace('\n', " "), "newlines turned into spaces"),
        (key.replace('\n', ""), "newlines turned into spaces"),
        (key[..half].to_owned(), "is the text cut off"),
        (key[..half].replace('\n', " "), "were its newlines lost"),
        (key.replace(begin, ""), "no section of the right kind"),
        (key.replacen('\n', "", 1), "were its newlines lost"),
        (key.replace(&secret[4..8], "!\u{e9}"), "is not base64"),
    ] {
        // A key may be in any of the files, by mistake.
        for place in 0..4 {
            let mut settings = good.clone();
            let wrong = wrong.clone().into_bytes();
            match place {
                0 => settings.identities[0].key_pem = wrong,
                1 => settings.identities[0].chain_pem = wrong,
                2 => settings.client_ca_pem = Some(wrong),
                _ => {
                    settings.client_ca_pem = Some(authority.pem());
                    settings.client_crl_pem = Some(wrong);
                }
            }
            let why = terms(&settings, tickets().expect("randomness")).expect_err("no key");
            assert!(place > 0 || why.contains(reason), "{why}");
            for part in secret.as_bytes().windows(6) {
                let decimals = format!("{part:?}");
                assert!(!why.contains(decimals.trim_matches(['[', ']'])), "{why}");
                assert!(!why.contains(std::str::from_utf8(part).expect("base64")), "{why}");
            }
        }
    }
}

#[test]
fn a_named_suite_limits_tls12_alone_and_the_same_terms_serve_quic() {
    let authority = Authority::new("ours");
    let named = Settings {
        cipher_suites: vec!["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256".to_owned()],
        curves: vec!["P256".to_owned()],
        ..settings(&[&authority.server("localhost")])
    };
    let terms = terms_of(&named);
    let provider = terms.config.crypto_provider();
    let suites = |is_13| {
        provider.cipher_suites.iter().filter(|suite| suite.tls13().is_some() == is_13).count()
    };
    assert_eq!((suites(false), suites(true), provider.kx_groups.len()), (1, 3, 1));
    let quic = terms.for_door(Door::Quic);
    assert_eq!(quic.alpn_protocols, [b"h3".to_vec()]);
    rustls::quic::ServerConnection::new(quic, rustls::quic::Version::V1, Vec::new())
        .expect("QUIC takes it");
}
