//! The same fleet in each format is the same set; what is broken is said to be.

use std::path::PathBuf;

use super::*;

fn file(name: &str) -> File {
    File { path: PathBuf::from(name), format: Format::Auto, port_default: Some(4317) }
}

const PLAIN: &str = "
# the fleet
10.0.0.1:4318 weight=3 zone=a
collector-2 zone=b rack=7   # the port is the default
[2001:db8::1]:4317
";
const YAML: &str = r#"
- targets: ["10.0.0.1:4318"]
  labels: {zone: a, weight: 3}
- targets: [collector-2]
  labels:
    zone: "b"
    rack: 7
- "[2001:db8::1]:4317"
"#;
const JSON: &str = r#"[
  {"targets": ["10.0.0.1:4318"], "labels": {"zone": "a", "weight": "3"}},
  {"targets": ["collector-2"], "labels": {"zone": "b", "rack": 7}},
  "[2001:db8::1]:4317"
]"#;

#[test]
fn one_fleet_reads_the_same_in_every_format() {
    let (endpoints, notes) = parse(PLAIN, &file("fleet.txt")).expect("a list");
    assert_eq!(notes, Vec::<String>::new());
    assert_eq!(endpoints.len(), 3);
    assert_eq!(endpoints[0].weight, 3);
    assert_eq!(endpoints[0].zone.as_deref(), Some("a"));
    assert_eq!(endpoints[1].address(), "collector-2:4317");
    assert_eq!(endpoints[1].attributes["rack"], "7");
    for (name, text) in [("fleet.yaml", YAML), ("fleet.yml", YAML), ("fleet.json", JSON)] {
        let parsed = parse(text, &file(name)).expect(name);
        assert_eq!(parsed, (endpoints.clone(), Vec::new()), "{name}");
    }
    // JSON is YAML, too.
    let named = File { format: Format::Yaml, ..file("fleet") };
    assert_eq!(parse(JSON, &named).expect("a list").0, endpoints);
}

#[test]
fn an_entry_that_is_no_use_is_named_and_the_others_are_used() {
    let (endpoints, notes) =
        parse("a:1\nb:0\nc:1 weight=much\nd:1\n", &file("fleet")).expect("a list");
    assert_eq!(endpoints.len(), 2);
    assert_eq!(notes.len(), 2);
    assert!(notes[0].starts_with("line 2: \"b:0\""), "{notes:?}");
    assert!(notes[1].starts_with("line 3: weight of c:1"), "{notes:?}");
}

#[test]
fn what_is_not_a_list_is_an_error_and_not_an_empty_list() {
    let texts = [
        ("a.json", ""),
        ("a.json", r#"[{"targets": ["a:1"]}"#),
        ("a.json", r#"{"targets": ["a:1"]}"#),
        ("a.json", r#"[{"targets": "a:1"}]"#),
        ("a.json", "[[\"a:1\"]]"),
        ("a.yaml", "targets: [a:1"),
        ("a.yaml", "a:1"),
        ("a.yaml", "- {? [a] : b}"),
        ("a.yaml", "- a:1\n---\n- b:1\n"),
        ("a.yaml", "- &x [a:1]\n- *x\n"),
    ];
    for (name, text) in texts {
        assert!(parse(text, &file(name)).is_err(), "{name}: {text}");
    }
    let deep = "[".repeat(5000);
    assert!(parse(&deep, &file("a.yaml")).is_err());
    assert!(parse(&deep, &file("a.json")).is_err());
}

#[test]
fn no_text_makes_the_reader_panic() {
    let alphabet: Vec<char> = "[]{}:,-\"'#&*! \n\tab1.0é".chars().collect();
    for seed in 0..3000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let length = random.usize(0..60);
        let text: String = (0..length).map(|_| alphabet[random.usize(..alphabet.len())]).collect();
        for name in ["a.json", "a.yaml", "a"] {
            let parsed = parse(&text, &file(name));
            if let Ok((endpoints, _)) = parsed {
                assert!(endpoints.len() <= text.len(), "seed {seed}");
            }
        }
    }
}
