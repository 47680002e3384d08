//! Addresses as people and registries write them, and sets as properties over shuffled lists.

use super::*;

#[test]
fn one_place_has_one_address_however_it_is_spelt() {
    let spelt = [
        ("Collector-1.example.COM:4317", "collector-1.example.com:4317"),
        ("collector-1.example.com.:4317", "collector-1.example.com:4317"),
        (" 10.0.0.1:4317 ", "10.0.0.1:4317"),
        ("10.0.0.1", "10.0.0.1:55"),
        ("[2001:DB8:0:0::1]:4317", "[2001:db8::1]:4317"),
        ("2001:db8::1", "[2001:db8::1]:55"),
        ("[::1]", "[::1]:55"),
        ("my_service:1", "my_service:1"),
    ];
    for (text, address) in spelt {
        let endpoint = Endpoint::parse(text, Some(55));
        assert_eq!(endpoint.expect(text).address(), address, "{text}");
    }
}

#[test]
fn what_is_no_address_is_refused_and_said_why() {
    let texts = [
        "",
        ":1",
        "a:0",
        "a:65536",
        "a:+80",
        "a: 80",
        "a:b",
        "a:",
        "http://a:80",
        "a b:80",
        "[::1",
        "[a]:80",
        "[::1]80",
        "1:2:3:4",
        ".a:80",
        "a/b:80",
        "a@b:80",
        "a\u{0}:80",
        "\u{e4}:80",
    ];
    for text in texts {
        let refused = Endpoint::parse(text, Some(55));
        let said = refused.expect_err(text).to_string();
        assert!(said.contains("host:port") && !said.contains('\u{0}'), "{text}: {said}");
    }
    assert!(Endpoint::parse("a", None).is_err());
    assert!(Endpoint::parse(&format!("{}:1", "a".repeat(254)), None).is_err());
}

#[test]
fn a_set_depends_on_its_members_and_not_on_their_order() {
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut one: Vec<Endpoint> = (0..random.usize(0..60))
            .map(|_| {
                let address = format!("10.0.0.{}:{}", random.u8(0..20), random.u16(1..4));
                let mut endpoint = Endpoint::parse(&address, None).expect("an address");
                endpoint.priority = random.u16(0..3);
                endpoint.weighing(random.u32(0..3))
            })
            .collect();
        let endpoints_max = random.usize(1..40);
        let mut other = one.clone();
        random.shuffle(&mut other);
        let surplus = normalise(&mut one, endpoints_max);
        assert_eq!(surplus, normalise(&mut other, endpoints_max), "seed {seed}");
        assert_eq!(one, other, "seed {seed}");
        assert!(one.len() <= endpoints_max, "seed {seed}");
        let is_sorted = one.windows(2).all(|pair| pair[0].address() < pair[1].address());
        assert!(is_sorted, "seed {seed}: {one:?}");
    }
}

#[test]
fn attributes_from_outside_are_bounded_in_number_and_size() {
    let mut endpoint = Endpoint::parse("a:1", None).expect("an address");
    let long = "x".repeat(TEXT_BYTES_MAX + 1);
    endpoint.describe(&long, "value");
    endpoint.describe("name", &long);
    assert!(endpoint.attributes.is_empty());
    endpoint.describe("zone", "eu-1");
    for at in 0..2 * ATTRIBUTES_MAX {
        endpoint.describe(&format!("name-{at}"), "value");
    }
    assert_eq!(endpoint.attributes.len(), ATTRIBUTES_MAX);
    assert_eq!(endpoint.zone.as_deref(), Some("eu-1"));
    endpoint.describe("name-0", "another");
    assert_eq!(endpoint.attributes["name-0"], "another");
}

#[test]
fn what_others_sent_fits_a_line_of_a_log() {
    let hostile = format!("\u{1b}[2Ja\nb\r{}", "\u{e4}".repeat(1000));
    let short = shortened(&hostile);
    assert!(short.chars().count() < 210, "{short}");
    assert!(!short.chars().any(char::is_control), "{short:?}");
}
