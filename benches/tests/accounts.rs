//! The accounts, from a real load to a real sink over every transport: exact when all is well, and
//! exact when the sink is broken on purpose.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use clap::Parser;
use forebay_bench::account::Verdict;
use forebay_bench::control::{Loaded, Sunk};
use forebay_bench::load::{self, Load};
use forebay_bench::sink::{self, Sink};

const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Parser)]
struct LoadLine {
    #[command(flatten)]
    settings: load::Settings,
}

#[derive(Parser)]
struct SinkLine {
    #[command(flatten)]
    settings: sink::Settings,
}

/// Sends at least `requests` requests from a load to a sink, and audits.
fn play(load: &str, sink: &str, requests: u64) -> (Loaded, Verdict, Sunk) {
    let sink = format!("sink --run 7 {sink}");
    let sink = SinkLine::parse_from(sink.split_whitespace()).settings;
    let sink = Sink::start(&sink).expect("a sink starts");
    let is_grpc = !load.contains("http");
    let target = if is_grpc { sink.ready.grpc } else { sink.ready.http };
    let target: SocketAddr = target.expect("a sink listens");
    let load = format!("load {target} --run 7 {load}");
    let load = LoadLine::parse_from(load.split_whitespace()).settings;
    let load = Load::start(&load).expect("a load starts");
    load.begin();
    let deadline = Instant::now() + PATIENCE;
    while load.progress().ok_requests < requests {
        assert!(Instant::now() < deadline, "{:?}", load.progress());
        std::thread::sleep(Duration::from_millis(1));
    }
    let loaded = load.stop();
    let (book, sunk) = sink.stop();
    let verdict = book.audit(&loaded.claims);
    (loaded, verdict, sunk)
}

#[test]
fn over_every_transport_and_compression_each_item_arrives_once() {
    for transport in ["grpc", "http1", "http2"] {
        for compression in ["none", "gzip", "zstd"] {
            for signal in ["traces", "metrics", "logs"] {
                let repeating = if compression == "none" { "" } else { "--repeating" };
                let line = format!(
                    "--transport {transport} --compression {compression} --signal {signal} \
                     --items 7 --connections 3"
                );
                let (loaded, verdict, sunk) = play(&line, repeating, 300);
                assert!(verdict.is_clean(), "{line}: {verdict:?} {:?}", loaded.problems);
                assert_eq!(verdict.arrivals, loaded.progress.ok_items, "{line}");
                assert_eq!(sunk.items, loaded.progress.ok_items, "{line}");
                // The last answers, one for each stream, come when latencies no longer count.
                let ok = loaded.progress.ok_requests;
                assert!((ok - 12..=ok).contains(&loaded.latencies), "{line}");
            }
        }
    }
}

#[test]
fn requests_larger_than_every_window_arrive_whole() {
    let (loaded, verdict, _) = play("--items 8192 --connections 2 --streams 3", "", 8);
    assert!(verdict.is_clean(), "{verdict:?} {:?}", loaded.problems);
    assert!(verdict.arrivals >= 8 * 8192);
}

#[test]
fn several_threads_share_the_work_and_their_numbers_never_meet() {
    let line = "--items 3 --connections 8 --cores 0,0,0";
    let (loaded, verdict, _) = play(line, "--cores 0,0", 3000);
    assert!(verdict.is_clean(), "{verdict:?} {:?}", loaded.problems);
    let sources: std::collections::BTreeSet<u8> = loaded.claims.iter().map(|c| c.source).collect();
    assert_eq!(sources.len(), 3);
}

#[test]
fn a_sink_that_drops_one_item_in_1000_is_caught_with_the_exact_count() {
    for (load, sink) in [("", ""), ("--compression gzip", "--repeating")] {
        let load = format!("--items 100 {load}");
        let sink = format!("--drop-every 1000 {sink}");
        let (loaded, verdict, sunk) = play(&load, &sink, 500);
        assert_eq!(sunk.dropped_items, loaded.progress.ok_items / 1000, "one in a thousand");
        assert_eq!(verdict.missing, sunk.dropped_items);
        assert!(verdict.missing > 0 && verdict.duplicates == 0 && verdict.unexpected == 0);
    }
}

#[test]
fn a_sink_that_doubles_one_item_in_1000_is_caught_with_the_exact_count() {
    for (load, sink) in [("", ""), ("--compression zstd", "--repeating")] {
        let load = format!("--items 100 --transport http1 {load}");
        let sink = format!("--double-every 1000 {sink}");
        let (loaded, verdict, sunk) = play(&load, &sink, 500);
        assert_eq!(sunk.doubled_items, loaded.progress.ok_items / 1000, "one in a thousand");
        assert_eq!(verdict.duplicates, sunk.doubled_items);
        assert!(verdict.duplicates > 0 && verdict.missing == 0 && verdict.unexpected == 0);
    }
}

#[test]
fn refused_requests_are_no_success_and_their_items_are_not_expected() {
    for transport in ["grpc", "http1", "http2"] {
        let line = format!("--items 5 --connections 4 --transport {transport}");
        let (loaded, verdict, sunk) = play(&line, "--fail-every 10 --retry-ms 20", 200);
        assert!(verdict.is_clean(), "{transport}: {verdict:?}");
        assert_eq!(loaded.progress.refused_requests, sunk.refused_requests, "{transport}");
        assert!(sunk.refused_requests >= 20);
        assert_eq!(sunk.items, loaded.progress.ok_items);
    }
}

#[test]
fn what_a_broken_connection_swallowed_is_neither_missing_nor_doubled() {
    for fault in ["--reset-every 50", "--garbage-every 50"] {
        let line = "--items 5 --connections 4 --streams 4";
        let (loaded, verdict, _) = play(line, fault, 500);
        assert!(verdict.is_clean(), "{fault}: {verdict:?} {:?}", loaded.problems);
        assert!(loaded.connections_broken > 0, "{fault}");
    }
}

#[test]
fn connections_that_come_and_go_lose_nothing() {
    for transport in ["grpc", "http1"] {
        let line = format!("--items 2 --connections 5 --churn 3 --transport {transport}");
        let (loaded, verdict, _) = play(&line, "", 500);
        assert!(verdict.is_clean(), "{verdict:?} {:?}", loaded.problems);
        assert_eq!(loaded.connections_broken, 0, "{:?}", loaded.problems);
        assert_eq!(loaded.progress.failed_requests, 0, "{:?}", loaded.problems);
    }
}

/// A stall is felt by every request that was due meanwhile, not by one (no coordinated omission).
#[test]
fn in_open_mode_latency_counts_from_the_intended_time() {
    let line = "--items 1 --connections 1 --streams 1 --rate 400 --arrivals even";
    let (loaded, verdict, _) = play(line, "--latency-ms 10", 30);
    assert!(verdict.is_clean(), "{verdict:?}");
    // One stream, 10 ms each, due every 2.5 ms: the thirtieth waits for all before it.
    assert!(loaded.latency_us.p50 > 50_000.0, "{:?}", loaded.latency_us);
    assert!(loaded.latency_us.max > 150_000.0, "{:?}", loaded.latency_us);
}

#[test]
fn what_was_sent_before_a_stop_is_counted() {
    // It lies in the sockets, and nobody waits for the sink to read it.
    const BYTES: usize = 256 << 10;
    for round in 0..20 {
        let settings = SinkLine::parse_from(["sink"]).settings;
        let sink = Sink::start(&settings).expect("a sink starts");
        let raw = sink.ready.raw.expect("a sink listens");
        let mut streams: Vec<TcpStream> =
            (0..4).map(|_| TcpStream::connect(raw).expect("it accepts")).collect();
        for stream in &mut streams {
            stream.write_all(&[7; BYTES]).expect("the sockets have room");
        }
        let (_, sunk) = sink.stop();
        assert_eq!(sunk.bytes, (4 * BYTES) as u64, "round {round}");
    }
}
