//! Names and services, from name servers that are well, slow, broken or of two minds.

use std::net::SocketAddr;
use std::time::Duration;

use forebay_exporters::discovery::dns::{Dns, DnsSrv, Families};
use forebay_exporters::discovery::event::Cost;
use forebay_exporters::discovery::keeper::{Limits, Pace};
use forebay_exporters::discovery::{Discovery, Event, Watcher};
use hickory_resolver::proto::rr::rdata::A;
use hickory_resolver::proto::rr::{RData, RecordType};

use crate::name_server::{NameServer, Reply, srv};
use crate::rig::{
    PATIENCE, QUICK, addresses, descriptors, next, quick, quiet, recovered, trouble, until,
};

const NAME: &str = "fleet.test.";

fn host(server: SocketAddr) -> Dns {
    Dns { host: NAME.to_owned(), port: 4317, server: Some(server), families: Families::Both }
}

fn watch(server: &NameServer) -> Watcher {
    quick(Discovery::Dns(host(server.address)))
}

fn watch_service(server: &NameServer) -> Watcher {
    let service = "_otlp._tcp.fleet.test.".to_owned();
    let (server, families) = (Some(server.address), Families::Both);
    quick(Discovery::DnsSrv(DnsSrv { service, server, families }))
}

#[tokio::test]
async fn a_name_has_its_addresses_of_both_families_and_follows_their_changes() {
    let server = NameServer::start();
    server.set_addresses(NAME, 0, &["10.0.0.2", "10.0.0.1", "fd00::1", "10.0.0.1"]);
    let mut watcher = watch(&server);
    until(&mut watcher, &["10.0.0.1:4317", "10.0.0.2:4317", "[fd00::1]:4317"]).await;
    let update = watcher.status().update.unwrap();
    assert!(update.endpoints.iter().all(|e| e.name.as_deref() == Some("fleet.test")));
    server.set_addresses(NAME, 0, &["10.0.0.3"]);
    until(&mut watcher, &["10.0.0.3:4317"]).await;
    quiet(&mut watcher, 5).await;
}

#[tokio::test]
async fn a_name_is_asked_for_again_when_its_ttl_has_passed_and_not_before() {
    let server = NameServer::start();
    server.set_addresses(NAME, 1, &["10.0.0.1"]);
    // The absence of AAAA is good for longer than the address.
    server.set(NAME, RecordType::AAAA, Reply::NoData(600));
    let mut watcher = watch(&server);
    until(&mut watcher, &["10.0.0.1:4317"]).await;
    quiet(&mut watcher, 3).await;
    let asked = server.asked();
    let times: Vec<_> = asked.iter().filter(|a| a.kind == RecordType::A).map(|a| a.at).collect();
    assert!(times.len() >= 4, "{asked:?}");
    let gaps: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // A little less than a second where the first of two answers was slow to come. One that the
    // server, stopped for longer than a client waits, left unanswered arrives with its repetition.
    let is_apart = |gap: &Duration| *gap > Duration::from_millis(950);
    let stopped = |gap: &Duration| *gap > Duration::from_millis(2_500);
    assert!(gaps.first().is_some_and(is_apart), "{gaps:?}");
    let holds = |pair: &[Duration]| is_apart(&pair[1]) || stopped(&pair[0]);
    assert!(gaps.windows(2).all(holds), "{gaps:?}");
}

#[tokio::test]
async fn failures_and_absences_leave_the_last_good_set_in_use() {
    for (reply, said) in [
        (Reply::Fails, "Server Failure"),
        (Reply::NoName(0), "no endpoint"),
        (Reply::NoData(0), "no endpoint"),
        (Reply::Records(0, Vec::new()), "no endpoint"),
        (Reply::Silent, "timed out"),
    ] {
        let server = NameServer::start();
        server.set_addresses(NAME, 0, &["10.0.0.1", "fd00::1"]);
        let mut watcher = watch(&server);
        until(&mut watcher, &["10.0.0.1:4317", "[fd00::1]:4317"]).await;
        // No question is under way now: none is answered half before and half after this.
        server.set(NAME, RecordType::A, reply.clone());
        server.set(NAME, RecordType::AAAA, reply.clone());
        let told = async {
            while !watcher.status().failing.is_some_and(|why| why.contains(said)) {
                let event = tokio::time::timeout(Duration::from_millis(100), watcher.next()).await;
                assert!(!matches!(event, Ok(Event::Changed(_))), "{reply:?}: {event:?}");
            }
        };
        let told = tokio::time::timeout(PATIENCE, told).await;
        assert!(told.is_ok(), "{reply:?}: {:?}", watcher.status());
        assert_eq!(addresses(&watcher), ["10.0.0.1:4317", "[fd00::1]:4317"], "{reply:?}");
        server.set_addresses(NAME, 0, &["10.0.0.9"]);
        until(&mut watcher, &["10.0.0.9:4317"]).await;
        recovered(&mut watcher).await;
    }
}

#[tokio::test]
async fn a_family_that_fails_keeps_its_addresses_while_the_other_changes() {
    let server = NameServer::start();
    server.set_addresses(NAME, 0, &["10.0.0.1", "fd00::1"]);
    let mut watcher = watch(&server);
    until(&mut watcher, &["10.0.0.1:4317", "[fd00::1]:4317"]).await;
    server.set(NAME, RecordType::AAAA, Reply::Fails);
    let partial = trouble(&mut watcher).await;
    assert_eq!(partial.cost, Cost::PartUnused);
    assert!(partial.what.starts_with("AAAA of fleet.test."), "{partial}");
    server.set(NAME, RecordType::A, Reply::Records(0, vec![RData::A(A::new(10, 0, 0, 2))]));
    until(&mut watcher, &["10.0.0.2:4317", "[fd00::1]:4317"]).await;
    // "There are none" is an answer, other than "I could not say".
    server.set(NAME, RecordType::AAAA, Reply::NoData(0));
    until(&mut watcher, &["10.0.0.2:4317"]).await;
}

#[tokio::test]
async fn an_answer_too_long_for_a_datagram_is_fetched_by_tcp() {
    let server = NameServer::start();
    let ips: Vec<String> = (1..=200).map(|n| format!("10.0.1.{n}")).collect();
    let records = ips.iter().map(|ip| RData::A(ip.parse().unwrap())).collect();
    server.set(NAME, RecordType::A, Reply::Truncated(0, records));
    server.set(NAME, RecordType::AAAA, Reply::NoData(0));
    let mut watcher = watch(&server);
    let Event::Changed(update) = next(&mut watcher).await else {
        panic!("{:?}", watcher.status());
    };
    assert_eq!(update.endpoints.len(), 200);
    assert!(server.asked().iter().any(|asked| asked.by_tcp));
}

#[tokio::test]
async fn a_service_has_targets_with_ports_weights_and_priorities() {
    let server = NameServer::start();
    let service = "_otlp._tcp.fleet.test.";
    let targets = vec![
        srv(0, 5, 4317, "one.test."),
        srv(0, 0, 4318, "One.test."),
        srv(9, 2, 4317, "two.test."),
        srv(0, 1, 4317, "gone.test."),
        srv(0, 1, 4317, "."),
    ];
    server.set(service, RecordType::SRV, Reply::Records(0, targets));
    server.set_addresses("one.test.", 0, &["10.0.0.1"]);
    server.set_addresses("One.test.", 0, &["10.0.0.1"]);
    server.set_addresses("two.test.", 0, &["10.0.0.2", "fd00::2"]);
    let mut watcher = watch_service(&server);
    let all = ["10.0.0.1:4317", "10.0.0.1:4318", "10.0.0.2:4317", "[fd00::2]:4317"];
    until(&mut watcher, &all).await;
    let update = watcher.status().update.unwrap();
    let read: Vec<_> = update.endpoints.iter().map(|e| (e.weight, e.priority)).collect();
    assert_eq!(read, [(5, 0), (1, 0), (2, 9), (2, 9)]);
    let named: Vec<_> = update.endpoints.iter().map(|e| e.name.as_deref().unwrap()).collect();
    assert_eq!(named, ["one.test", "one.test", "two.test", "two.test"]);
    // A target whose name can't be resolved for now stays with what it had.
    server.set("two.test.", RecordType::A, Reply::Fails);
    server.set("two.test.", RecordType::AAAA, Reply::Fails);
    trouble(&mut watcher).await;
    assert_eq!(addresses(&watcher), all);
    let targets = vec![srv(0, 1, 9, "one.test."), srv(0, 1, 9, "two.test.")];
    server.set(service, RecordType::SRV, Reply::Records(0, targets));
    until(&mut watcher, &["10.0.0.1:9", "10.0.0.2:9", "[fd00::2]:9"]).await;
    // And the whole service: absent, then back.
    server.set(service, RecordType::SRV, Reply::NoName(0));
    while watcher.status().failures == 0 {
        let _ = tokio::time::timeout(Duration::from_millis(50), watcher.next()).await;
    }
    assert_eq!(addresses(&watcher), ["10.0.0.1:9", "10.0.0.2:9", "[fd00::2]:9"]);
    server.set(service, RecordType::SRV, Reply::Records(0, vec![srv(0, 1, 7, "one.test.")]));
    until(&mut watcher, &["10.0.0.1:7"]).await;
}

#[tokio::test]
async fn only_the_families_that_are_wanted_are_asked_for() {
    let server = NameServer::start();
    server.set_addresses(NAME, 0, &["10.0.0.1", "fd00::1"]);
    server.set(NAME, RecordType::A, Reply::Fails);
    let v6 = Dns { families: Families::V6, ..host(server.address) };
    let mut watcher = quick(Discovery::Dns(v6));
    until(&mut watcher, &["[fd00::1]:4317"]).await;
    assert!(server.asked().iter().all(|asked| asked.kind == RecordType::AAAA));
    assert!(server.asked().iter().all(|asked| asked.name == NAME));
}

#[tokio::test]
async fn an_address_and_a_name_of_the_hosts_file_need_no_server() {
    let mut watcher = quick(Discovery::Dns(Dns::of("10.0.0.7", 4317)));
    until(&mut watcher, &["10.0.0.7:4317"]).await;
    let v4 = Dns { families: Families::V4, ..Dns::of("localhost", 4317) };
    let mut watcher = quick(Discovery::Dns(v4));
    until(&mut watcher, &["127.0.0.1:4317"]).await;
}

#[tokio::test]
async fn five_hundred_changes_leave_neither_tasks_nor_sockets() {
    let server = NameServer::start();
    let metrics = tokio::runtime::Handle::current().metrics();
    let pace = Pace { interval_min: Duration::from_millis(1), ..QUICK };
    let dns = Discovery::Dns(host(server.address));
    let mut watcher = Watcher::with(dns, pace, Limits::default());
    for change in 0..500 {
        let address = format!("10.0.{}.{}", change / 250, change % 250 + 1);
        server.set_addresses(NAME, 0, &[&address]);
        until(&mut watcher, &[&format!("{address}:4317")]).await;
    }
    assert_eq!(watcher.status().update.unwrap().generation, 500);
    drop(watcher);
    let gone = async {
        // Other tests of this process have sockets, too, but not hundreds.
        while metrics.num_alive_tasks() > 0 || descriptors("socket") > 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let gone = tokio::time::timeout(PATIENCE, gone).await;
    assert!(gone.is_ok(), "{} tasks, {} sockets", metrics.num_alive_tasks(), descriptors("socket"));
}
