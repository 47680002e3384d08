//! Nothing that can be written in a file hurts: bombs are refused, and no text panics.

use std::io::Write;

use super::*;
use crate::config::tree::{DEPTH_MAX, NODES_MAX};

#[track_caller]
fn refuses(yaml: &str, expected: &str) {
    let problems = load_text(yaml).map(|_| ()).expect_err("a bomb");
    check(&problems[..1], &[expected]);
}

#[test]
fn aliases_that_grow_without_end_are_refused() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let uses = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{uses}]\n"));
    }
    assert!(bomb.len() < 1000);
    refuses(&bomb, &format!("more than {NODES_MAX} values"));
    refuses("a: &a [*a]", "c.yaml:1:");
    let long = format!("a: &a {}\nb: [{}]", "x".repeat(1 << 20), "*a, ".repeat(1_000));
    refuses(&long, "16 MiB of text");
    refuses(&format!("{}: 1", "x".repeat(1 << 10)), "unknown key \"xxx & ...");
}

#[test]
fn nesting_without_end_is_refused_in_every_form() {
    let deep = format!("nested deeper than {DEPTH_MAX} levels");
    refuses(&"- ".repeat(100_000), &deep);
    // The parser has a limit of its own for these.
    refuses(&"[".repeat(100_000), "recursion limit");
    refuses(&"{a: ".repeat(1_000), "recursion limit");
    let mut by_alias = "a0: &a0 {x: 1}\n".to_owned();
    for level in 1..=DEPTH_MAX {
        by_alias.push_str(&format!("a{level}: &a{level} {{x: *a{}}}\n", level - 1));
    }
    refuses(&by_alias, &deep);
}

#[test]
fn sources_that_are_no_configuration_say_so() {
    refuses("a: [", "c.yaml:2:1: no YAML");
    refuses("a: b: c", "no YAML");
    refuses("a: 1\n---\nb: 2", "more than one YAML document");
    refuses("!!map {}", "tags");
    refuses("? [a]\n: b", "a key must be a name");
    let missing = load_in(&environment, &[Source::parse("file:/no/such").expect("a path")], &[]);
    check(&missing.map(|_| ()).expect_err("no file"), &["error: /no/such: can't be read: No such"]);
    let endless = load_in(&environment, &[Source::File("/dev/zero".into())], &[]);
    check(
        &endless.map(|_| ()).expect_err("no end"),
        &["/dev/zero: can't be read: more than 8 MiB"],
    );
    let unset = load_in(&environment, &[Source::Environment("NONE".into())], &[]);
    check(&unset.map(|_| ()).expect_err("not set"), &["NONE is not set"]);
}

#[test]
fn a_file_is_read_and_named_in_its_problems() {
    let path = std::env::temp_dir().join(format!("forebay-config-{}.yaml", std::process::id()));
    let mut file = std::fs::File::create(&path).expect("a file in the temporary folder");
    file.write_all(b"exporters: {debug: {x: 1}}").expect("written");
    let read = load_in(&environment, &[text("a", AROUND), Source::File(path.clone())], &[]);
    std::fs::remove_file(&path).expect("removed");
    let expected = format!("error: {}:1:21: unknown key \"x\"", path.display());
    check(&read.map(|_| ()).expect_err("an unknown key"), &[&expected]);
}

#[test]
fn merge_keys_add_what_the_map_does_not_have() {
    let made = load_over(
        "engine: &e {drain_timeout: 1s}\nexporters:\n  debug: &d {verbosity: detailed}\n  \
         debug/2: {<<: *d, sampling_initial: 5}\n  debug/3: {<<: 4}\n",
    );
    check(&made.map(|_| ()).expect_err("4 is no map"), &["\"<<\" takes a map & c.yaml:5:"]);
}

/// Cuts, doubles and swaps pieces of good configurations: every result is an answer, not a panic.
#[test]
fn no_mutation_of_a_configuration_panics() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_260_817);
    println!("SEED={seed}");
    let mut state: u64 = seed;
    let mut draw = |bound: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % bound.max(1)
    };
    let docs = super::docs::page();
    let mut seeds: Vec<String> =
        super::docs::examples(&docs).into_iter().map(str::to_owned).collect();
    // With numbers, so that hardly any mutant is a name to look up.
    seeds.push(include_str!("../default.yaml").replace("localhost", "127.0.0.1"));
    let pieces =
        ["${env:", "}", "::", "[", "{", "&a ", "*a", "- ", ": ", "\"", "'", "-1", "\u{0}", "é"];
    for _ in 0..3_000 {
        let mut chars: Vec<char> = seeds[draw(seeds.len())].chars().collect();
        for _ in 0..1 + draw(4) {
            let (from, to) = (draw(chars.len()), draw(chars.len()));
            let (from, to) = (from.min(to), from.max(to).min(from.min(to) + 40));
            match draw(3) {
                0 => drop(chars.drain(from..to)),
                1 => drop(chars.splice(from..from, chars[from..to].to_vec())),
                _ => drop(chars.splice(from..from, pieces[draw(pieces.len())].chars())),
            }
        }
        let yaml: String = chars.into_iter().collect();
        match load_text(&yaml) {
            Ok(made) => assert!(!made.plan.pipelines.is_empty()),
            Err(problems) => assert!(!problems.is_empty(), "{yaml}"),
        }
    }
}
