//! A real Consul agent: instances that come, go, fall ill and are drained; an agent that is killed
//! and comes back with nothing; tokens; and an instance of our own with each kind of check.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use forebay_exporters::discovery::consul::{self, Address, Check, Consul, Registration};
use forebay_exporters::discovery::dns::{Dns, DnsSrv};
use forebay_exporters::discovery::registrar::{self, Health, News, Registrar, State};
use forebay_exporters::discovery::secret::Secret;
use forebay_exporters::discovery::{Discovery, Watcher};
use serde_json::{Value, json};

use crate::rig::{
    PATIENCE, addresses, cpu_of_this_thread, descriptors, next, quick, quiet, recovered, trouble,
    until,
};
use crate::server::{Server, post, program};

/// An agent that is its own cluster and keeps everything in memory: a restart empties it.
async fn start(name: &str, configuration: &str) -> Option<Server> {
    let usual = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/interop/.tools/bin/consul");
    let program = program("FOREBAY_CONSUL", Path::new(usual))?;
    let server = Server::start(program, name, |folder, [http, dns, rpc, serf]| {
        let file = folder.join("configuration.json");
        std::fs::write(&file, configuration).unwrap();
        let ports = format!("-http-port={http} -dns-port={dns} -server-port={rpc}");
        let ports = format!("{ports} -serf-lan-port={serf} -serf-wan-port=-1 -grpc-port=-1");
        let fixed = "agent -dev -bind=127.0.0.1";
        let arguments = format!("{fixed} {ports} -config-file={}", file.display());
        arguments.split(' ').map(str::to_owned).collect()
    });
    has_leader(&server).await;
    Some(server)
}

async fn has_leader(server: &Server) {
    let elected = async {
        loop {
            let asked = post(&server.address(), "GET", "/v1/status/leader", "").await;
            if asked.0 == 200 && asked.1.contains(':') {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, elected).await.expect("a leader is elected");
}

fn agent(server: &Server) -> Address {
    Address::parse(&format!("http://{}", server.address()), consul::PORT_DEFAULT).unwrap()
}

fn watch(server: &Server) -> Watcher {
    quick(Discovery::Consul(Consul::of(agent(server), "collector")))
}

async fn put(server: &Server, path: &str, body: Value) {
    let (status, answer) = post(&server.address(), "PUT", path, &body.to_string()).await;
    assert_eq!(status, 200, "{path}: {answer}");
}

async fn register(server: &Server, id: &str, port: u16) {
    let body = json!({
        "ID": id, "Name": "collector", "Address": "10.0.0.1", "Port": port, "Tags": [id],
        "Meta": {"zone": "a"}, "Weights": {"Passing": 5, "Warning": 1},
        "Check": {"CheckID": format!("check-{id}"), "TTL": "1h", "Status": "passing"},
    });
    put(server, "/v1/agent/service/register", body).await;
}

async fn mark(server: &Server, id: &str, status: &str) {
    put(server, &format!("/v1/agent/check/update/check-{id}"), json!({"Status": status})).await;
}

async fn deregister(server: &Server, id: &str) {
    put(server, &format!("/v1/agent/service/deregister/{id}"), Value::Null).await;
}

#[tokio::test]
async fn instances_that_are_well_are_the_set() {
    let Some(server) = start("consul-instances", "{}").await else { return };
    register(&server, "one", 1).await;
    let mut watcher = watch(&server);
    until(&mut watcher, &["10.0.0.1:1"]).await;
    let endpoint = watcher.status().update.unwrap().endpoints[0].clone();
    assert_eq!((endpoint.weight, endpoint.zone.as_deref()), (5, Some("a")));
    register(&server, "two", 2).await;
    until(&mut watcher, &["10.0.0.1:1", "10.0.0.1:2"]).await;
    mark(&server, "one", "critical").await;
    until(&mut watcher, &["10.0.0.1:2"]).await;
    mark(&server, "one", "warning").await;
    until(&mut watcher, &["10.0.0.1:1", "10.0.0.1:2"]).await;
    let weights: Vec<u32> =
        watcher.status().update.unwrap().endpoints.iter().map(|e| e.weight).collect();
    assert_eq!(weights, [1, 5]);
    let drain = "/v1/agent/service/maintenance/two?enable=true";
    put(&server, drain, Value::Null).await;
    until(&mut watcher, &["10.0.0.1:1"]).await;
    let tags = vec!["two".to_owned()];
    let two = Consul { tags, ..Consul::of(agent(&server), "collector") };
    let mut of_two = quick(Discovery::Consul(two));
    trouble(&mut of_two).await;
    put(&server, &drain.replace("true", "false"), Value::Null).await;
    until(&mut of_two, &["10.0.0.1:2"]).await;
    // The last ones go: nobody is left, and the set stays.
    deregister(&server, "one").await;
    deregister(&server, "two").await;
    while watcher.status().failures == 0 || of_two.status().failures == 0 {
        let moment = Duration::from_millis(100);
        let _ = tokio::time::timeout(moment, watcher.next()).await;
        let _ = tokio::time::timeout(moment, of_two.next()).await;
    }
    assert_eq!(addresses(&of_two), ["10.0.0.1:2"]);
}

#[tokio::test]
async fn its_own_name_server_tells_the_same_by_dns() {
    let Some(server) = start("consul-dns", "{}").await else { return };
    register(&server, "one", 4317).await;
    register(&server, "two", 4318).await;
    let asked = Some(server.second_address());
    let dns = Dns { server: asked, ..Dns::of("collector.service.consul.", 55) };
    let mut watcher = quick(Discovery::Dns(dns));
    until(&mut watcher, &["10.0.0.1:55"]).await;
    let srv = DnsSrv { server: asked, ..DnsSrv::of("collector.service.consul.") };
    let mut watcher = quick(Discovery::DnsSrv(srv));
    until(&mut watcher, &["10.0.0.1:4317", "10.0.0.1:4318"]).await;
    let endpoints = watcher.status().update.unwrap().endpoints.clone();
    assert!(endpoints.iter().all(|e| (e.weight, e.priority) == (5, 1)), "{endpoints:?}");
    deregister(&server, "one").await;
    until(&mut watcher, &["10.0.0.1:4318"]).await;
    deregister(&server, "two").await;
    trouble(&mut watcher).await;
    assert_eq!(addresses(&watcher), ["10.0.0.1:4318"]);
}

#[tokio::test]
async fn an_agent_that_is_killed_leaves_the_last_good_set_and_is_followed_again() {
    let Some(mut server) = start("consul-killed", "{}").await else { return };
    for port in 1..=20 {
        register(&server, &format!("i{port}"), port).await;
    }
    let mut watcher = watch(&server);
    while watcher.status().update.is_none_or(|update| update.endpoints.len() < 20) {
        next(&mut watcher).await;
    }
    server.kill();
    trouble(&mut watcher).await;
    // It comes back with nothing, and with smaller indices than it had.
    server.restart();
    has_leader(&server).await;
    while !watcher.status().failing.is_some_and(|why| why.contains("no endpoint")) {
        let _ = tokio::time::timeout(Duration::from_millis(100), watcher.next()).await;
    }
    assert_eq!(addresses(&watcher).len(), 20);
    register(&server, "new", 7).await;
    until(&mut watcher, &["10.0.0.1:7"]).await;
    recovered(&mut watcher).await;
}

#[tokio::test]
async fn a_thousand_changes_arrive_as_few_and_leave_nothing_open() {
    let Some(server) = start("consul-churn", "{}").await else { return };
    register(&server, "always", 1).await;
    let mut watcher = watch(&server);
    until(&mut watcher, &["10.0.0.1:1"]).await;
    let metrics = tokio::runtime::Handle::current().metrics();
    assert_eq!(metrics.num_alive_tasks(), 0, "a watcher is no task");
    let (before, begun) = (descriptors("socket"), watcher.status().answers_total);
    for port in 2..=501 {
        register(&server, "churn", port).await;
        deregister(&server, "churn").await;
        // As it goes on meanwhile.
        let _ = tokio::time::timeout(Duration::from_millis(1), watcher.next()).await;
    }
    register(&server, "end", 9).await;
    until(&mut watcher, &["10.0.0.1:1", "10.0.0.1:9"]).await;
    assert_eq!(metrics.num_alive_tasks(), 0);
    assert!(descriptors("socket") < before + 50, "{before} sockets before");
    let answers = watcher.status().answers_total - begun;
    assert!(answers < 900, "{answers} answers for 1,001 changes");
    // A blocking query that ends without a change changes nothing.
    quiet(&mut watcher, 1).await;
}

#[tokio::test]
async fn a_hundred_changes_a_second_among_a_thousand_instances_cost_little() {
    let Some(server) = start("consul-cost", "{}").await else { return };
    for port in 1..=1000 {
        register(&server, &format!("i{port}"), port).await;
    }
    // Its own pace, as in earnest.
    let consul = Consul::of(agent(&server), "collector");
    let mut watcher = Watcher::new(Discovery::Consul(consul));
    while watcher.status().update.is_none_or(|update| update.endpoints.len() < 1000) {
        next(&mut watcher).await;
    }
    let generation = watcher.status().update.unwrap().generation;
    let (begun, cpu_begun) = (Instant::now(), cpu_of_this_thread());
    let feeding = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut ticks = tokio::time::interval(Duration::from_millis(10));
            for change in 1..=500 {
                ticks.tick().await;
                register(&server, &format!("i{change}"), 10_000 + change).await;
            }
        });
        server
    });
    while !feeding.is_finished() {
        let _ = tokio::time::timeout(Duration::from_millis(200), watcher.next()).await;
    }
    let share = (cpu_of_this_thread() - cpu_begun) / begun.elapsed().as_secs_f64();
    let updates = watcher.status().update.unwrap().generation - generation;
    println!("{:.2} percent of a core, {updates} sets of 1,000", 100.0 * share);
    // One in a second at most, however long it took.
    let seconds = begun.elapsed().as_secs();
    assert!((1..=seconds + 2).contains(&updates), "{updates} sets in {seconds} s");
    // The whole list comes with each change; without optimisation it takes several times as long.
    let share_max = if cfg!(debug_assertions) { 0.30 } else { 0.05 };
    assert!(share < share_max, "{:.2} percent of a core", 100.0 * share);
    drop(feeding.join().unwrap());
}

#[tokio::test]
async fn a_token_opens_and_is_shown_nowhere() {
    const TOKEN: &str = "7ac0ffee-1234-4321-8888-0123456789ab";
    let acl = json!({"acl": {"enabled": true, "default_policy": "deny",
        "tokens": {"master": TOKEN, "agent": TOKEN}}});
    let Some(server) = start("consul-token", &acl.to_string()).await else { return };
    let wrong = TOKEN.replace("7ac0ffee", "deadbeef");
    let of = |token: &str| {
        let token = Some(Secret::new(token));
        Consul { token, ..Consul::of(agent(&server), "collector") }
    };
    let mut refused = quick(Discovery::Consul(of(&wrong)));
    let told = trouble(&mut refused).await;
    assert!(told.what.contains("403"), "{told}");
    assert!(!format!("{told} {:?}", of(&wrong)).contains(&wrong), "{told}");
    let mut registration = registration(&server, Check::Ttl(Duration::from_secs(30)));
    registration.token = Some(Secret::new(&wrong));
    let consul = registrar::Registration::Consul(registration.clone());
    let told = Registrar::new(consul, health(State::Passing)).next().await;
    assert!(matches!(told, News::Trouble(_)), "{told}");
    assert!(!format!("{told} {registration:?}").contains(&wrong), "{told}");
    registration.token = Some(Secret::new(TOKEN));
    let consul = registrar::Registration::Consul(registration);
    let mut registrar = Registrar::new(consul, health(State::Passing));
    let told = loop {
        match registrar.next().await {
            // A new leader may not know its tokens yet.
            News::Trouble(_) => {}
            told => break told,
        }
    };
    assert!(matches!(told, News::Registered { .. }), "{told}");
    let mut watcher = quick(Discovery::Consul(of(TOKEN)));
    until(&mut watcher, &["10.0.0.9:4317"]).await;
}

fn registration(server: &Server, check: Check) -> Registration {
    Registration {
        agent: agent(server),
        token: None,
        service: "collector".to_owned(),
        id: "forebay 1/é".to_owned(),
        host: "10.0.0.9".to_owned(),
        port: 4317,
        tags: vec!["otlp".to_owned()],
        meta: BTreeMap::from([("zone".to_owned(), "a".to_owned())]),
        check,
        forget_after: Some(Duration::from_secs(90)),
    }
}

fn health(state: State) -> Health {
    Health { state, note: "as a test says".to_owned() }
}

/// Follows both until the set is this one.
async fn both_until(registrar: &mut Registrar, watcher: &mut Watcher, addresses: &[&str]) {
    let wanted = async {
        tokio::select! {
            () = until(watcher, addresses) => {}
            () = async { loop { registrar.next().await; } } => {}
        }
    };
    tokio::time::timeout(PATIENCE, wanted).await.expect("the entry is seen");
}

#[tokio::test]
async fn our_own_entry_is_found_falls_ill_is_forgotten_and_comes_back() {
    let Some(mut server) = start("consul-registration", "{}").await else { return };
    register(&server, "always", 1).await;
    let mut watcher = watch(&server);
    until(&mut watcher, &["10.0.0.1:1"]).await;
    let ttl = Check::Ttl(Duration::from_secs(3));
    let ours = registrar::Registration::Consul(registration(&server, ttl));
    let mut registrar = Registrar::new(ours, health(State::Passing));
    let both = ["10.0.0.1:1", "10.0.0.9:4317"];
    both_until(&mut registrar, &mut watcher, &both).await;
    registrar.set_health(health(State::Critical));
    both_until(&mut registrar, &mut watcher, &["10.0.0.1:1"]).await;
    registrar.set_health(health(State::Passing));
    both_until(&mut registrar, &mut watcher, &both).await;
    // Nobody drives the registrar: without a sign of life it is critical after its TTL.
    until(&mut watcher, &["10.0.0.1:1"]).await;
    both_until(&mut registrar, &mut watcher, &both).await;
    // The agent forgets everything.
    server.restart();
    has_leader(&server).await;
    both_until(&mut registrar, &mut watcher, &["10.0.0.9:4317"]).await;
    register(&server, "always", 1).await;
    both_until(&mut registrar, &mut watcher, &both).await;
    registrar.leave(PATIENCE).await.expect("the agent is there");
    until(&mut watcher, &["10.0.0.1:1"]).await;
}

#[tokio::test]
async fn consul_looks_at_our_health_by_itself() {
    let Some(mut server) = start("consul-looks", "{}").await else { return };
    let well = answering();
    let interval = Duration::from_millis(300);
    let check = Check::Http { url: format!("http://{well}/health"), interval };
    let ours = registrar::Registration::Consul(registration(&server, check));
    let mut registrar = Registrar::new(ours, health(State::Passing));
    let mut watcher = watch(&server);
    both_until(&mut registrar, &mut watcher, &["10.0.0.9:4317"]).await;
    server.restart();
    has_leader(&server).await;
    register(&server, "always", 1).await;
    both_until(&mut registrar, &mut watcher, &["10.0.0.1:1", "10.0.0.9:4317"]).await;
    // gRPC's health protocol is not spoken there: the instance is ill.
    let check = Check::Grpc { target: well.to_string(), interval };
    let ours = registrar::Registration::Consul(registration(&server, check));
    let mut registrar = Registrar::new(ours, health(State::Passing));
    both_until(&mut registrar, &mut watcher, &["10.0.0.1:1"]).await;
    registrar.leave(PATIENCE).await.expect("the agent is there");
}

/// A server that says that it is well.
fn answering() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    });
    address
}
