//! A real etcd: keys that come and go, a watch that breaks, a server that is killed and comes back,
//! compaction, passwords, and an entry of our own that lives by a lease.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use forebay_exporters::discovery::etcd::{self, Address, Etcd, Registration, User};
use forebay_exporters::discovery::registrar::{self, Health, News, Registrar, State};
use forebay_exporters::discovery::secret::Secret;
use forebay_exporters::discovery::{Discovery, Event, Watcher};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::rig::{
    PATIENCE, addresses, cpu_of_this_thread, descriptors, next, quick, quiet, recovered, trouble,
    until,
};
use crate::server::{Server, post, program};

const PREFIX: &str = "/services/collector/";

fn start(name: &str) -> Option<Server> {
    let program = program("FOREBAY_ETCD", Path::new("/usr/bin/etcd"))?;
    Some(Server::start(program, name, |folder, [clients, peers]| {
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let data = folder.join("data").display().to_string();
        [
            ("--name", "one".to_owned()),
            ("--data-dir", data),
            ("--listen-client-urls", url(clients)),
            ("--advertise-client-urls", url(clients)),
            ("--listen-peer-urls", url(peers)),
            ("--initial-advertise-peer-urls", url(peers)),
            ("--initial-cluster", format!("one={}", url(peers))),
        ]
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
    }))
}

fn member(server: &Server) -> Address {
    Address::parse(&server.address(), etcd::PORT_DEFAULT).unwrap()
}

fn watch(server: &Server) -> Watcher {
    quick(Discovery::Etcd(Etcd::of(member(server), PREFIX)))
}

async fn call(server: &Server, path: &str, body: Value) -> Value {
    let (status, answer) = post(&server.address(), "POST", path, &body.to_string()).await;
    assert_eq!(status, 200, "{path}: {answer}");
    serde_json::from_str(&answer).unwrap()
}

async fn put(server: &Server, key: &str, value: &str) -> Value {
    let key = STANDARD.encode(format!("{PREFIX}{key}"));
    call(server, "/v3/kv/put", json!({"key": key, "value": STANDARD.encode(value)})).await
}

async fn delete(server: &Server, key: &str) {
    let key = STANDARD.encode(format!("{PREFIX}{key}"));
    call(server, "/v3/kv/deleterange", json!({"key": key})).await;
}

#[tokio::test]
async fn keys_are_members_and_their_values_say_where() {
    let Some(server) = start("etcd-keys") else { return };
    put(&server, "1", "10.0.0.1:4317").await;
    let go = r#"{"Op":0,"Addr":"10.0.0.2:4317","Metadata":{"zone":"b","weight":4}}"#;
    put(&server, "2", go).await;
    let neighbour = STANDARD.encode("/services/collectors/3");
    call(&server, "/v3/kv/put", json!({"key": neighbour, "value": STANDARD.encode("n:1")})).await;
    let mut watcher = watch(&server);
    until(&mut watcher, &["10.0.0.1:4317", "10.0.0.2:4317"]).await;
    let update = watcher.status().update.unwrap();
    assert_eq!(update.endpoints[1].weight, 4);
    assert_eq!(update.endpoints[1].zone.as_deref(), Some("b"));
    put(&server, "3", "10.0.0.3:4317").await;
    until(&mut watcher, &["10.0.0.1:4317", "10.0.0.2:4317", "10.0.0.3:4317"]).await;
    delete(&server, "1").await;
    until(&mut watcher, &["10.0.0.2:4317", "10.0.0.3:4317"]).await;
    put(&server, "4", "no address").await;
    assert!(trouble(&mut watcher).await.what.contains("no address"));
    put(&server, "4", "10.0.0.4:4317").await;
    until(&mut watcher, &["10.0.0.2:4317", "10.0.0.3:4317", "10.0.0.4:4317"]).await;
    for key in ["2", "3", "4"] {
        delete(&server, key).await;
    }
    let last = loop {
        match next(&mut watcher).await {
            Event::Trouble(trouble) => break trouble,
            Event::Changed(update) => assert!(!update.endpoints.is_empty()),
            Event::Recovered(recovered) => panic!("{recovered}"),
        }
    };
    // Of one endpoint, or of more that went at once.
    assert!(last.to_string().contains("the last good set of "), "{last}");
    assert!(!addresses(&watcher).is_empty());
}

#[tokio::test]
async fn a_server_that_is_killed_leaves_the_last_good_set_and_is_followed_again() {
    let Some(mut server) = start("etcd-killed") else { return };
    put(&server, "1", "a:1").await;
    let mut watcher = watch(&server);
    until(&mut watcher, &["a:1"]).await;
    server.kill();
    trouble(&mut watcher).await;
    assert_eq!(addresses(&watcher), ["a:1"]);
    server.restart();
    recovered(&mut watcher).await;
    put(&server, "2", "b:1").await;
    until(&mut watcher, &["a:1", "b:1"]).await;
    // A cluster restored from nothing: empty, and with smaller revisions than were seen.
    server.restart_empty();
    while watcher.status().failures == 0 {
        let _ = tokio::time::timeout(Duration::from_millis(100), watcher.next()).await;
    }
    assert_eq!(addresses(&watcher), ["a:1", "b:1"]);
    put(&server, "1", "c:1").await;
    until(&mut watcher, &["c:1"]).await;
}

#[tokio::test]
async fn a_server_that_hangs_is_found_out_though_its_watch_stays_open() {
    let Some(server) = start("etcd-hangs") else { return };
    put(&server, "1", "a:1").await;
    let mut watcher = watch(&server);
    until(&mut watcher, &["a:1"]).await;
    server.signal(Signal::STOP);
    let told = trouble(&mut watcher).await;
    assert!(told.what.contains("no answer within 5 s"), "{told}");
    assert_eq!(addresses(&watcher), ["a:1"]);
    server.signal(Signal::CONT);
    put(&server, "2", "b:1").await;
    until(&mut watcher, &["a:1", "b:1"]).await;
}

#[tokio::test]
async fn a_member_that_fails_is_left_for_the_next_one() {
    let Some(server) = start("etcd-members") else { return };
    put(&server, "1", "a:1").await;
    let nobody = Address::parse("127.0.0.1:9", etcd::PORT_DEFAULT).unwrap();
    let members = vec![nobody, member(&server)];
    let mut watcher = quick(Discovery::Etcd(Etcd { members, ..Etcd::of(member(&server), PREFIX) }));
    until(&mut watcher, &["a:1"]).await;
    assert_eq!(watcher.status().failures_total, 0);
}

#[tokio::test]
async fn a_thousand_changes_arrive_as_few_and_leave_nothing_open() {
    let Some(server) = start("etcd-churn") else { return };
    put(&server, "0", "a:1").await;
    let mut watcher = watch(&server);
    until(&mut watcher, &["a:1"]).await;
    let metrics = tokio::runtime::Handle::current().metrics();
    assert_eq!(metrics.num_alive_tasks(), 0, "a watcher is no task");
    let (before, begun) = (descriptors("socket"), watcher.status().answers_total);
    for change in 1..=500 {
        put(&server, "churn", &format!("b:{change}")).await;
        delete(&server, "churn").await;
        if change % 100 == 0 {
            // So that what is watched lies further back than what is kept.
            let answer = put(&server, "0", "a:1").await;
            let revision = answer["header"]["revision"].clone();
            call(&server, "/v3/kv/compaction", json!({"revision": revision})).await;
        }
    }
    put(&server, "end", "z:1").await;
    until(&mut watcher, &["a:1", "z:1"]).await;
    assert_eq!(metrics.num_alive_tasks(), 0);
    assert!(descriptors("socket") < before + 50, "{before} sockets before");
    let answers = watcher.status().answers_total - begun;
    assert!(answers < 500, "{answers} answers for 1,001 changes");
    // Snapshots check the watch, and change nothing.
    quiet(&mut watcher, 2).await;
}

#[tokio::test]
async fn a_hundred_changes_a_second_among_a_thousand_members_cost_next_to_nothing() {
    let Some(server) = start("etcd-cost") else { return };
    let entry = |port: u32| {
        let metadata = json!({"zone": "a", "version": "1.2.3", "weight": 10});
        json!({"Addr": format!("10.0.0.1:{port}"), "Metadata": metadata}).to_string()
    };
    for member in 1..=1000 {
        put(&server, &format!("{member:04}"), &entry(member)).await;
    }
    // Its own pace, as in earnest.
    let mut watcher = Watcher::new(Discovery::Etcd(Etcd::of(member(&server), PREFIX)));
    while watcher.status().update.is_none() {
        next(&mut watcher).await;
    }
    let generation = watcher.status().update.unwrap().generation;
    let (begun, cpu_begun) = (Instant::now(), cpu_of_this_thread());
    let feeding = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut ticks = tokio::time::interval(Duration::from_millis(10));
            for change in 0..500 {
                ticks.tick().await;
                put(&server, &format!("{:04}", change % 1000), &entry(10_000 + change)).await;
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
    assert!(share < 0.05, "{:.2} percent of a core", 100.0 * share);
    drop(feeding.join().unwrap());
}

#[tokio::test]
async fn a_password_opens_and_is_shown_nowhere() {
    let Some(server) = start("etcd-password") else { return };
    put(&server, "1", "a:1").await;
    let user = json!({"name": "root", "password": "s3cret"});
    call(&server, "/v3/auth/user/add", user).await;
    call(&server, "/v3/auth/role/add", json!({"name": "root"})).await;
    call(&server, "/v3/auth/user/grant", json!({"user": "root", "role": "root"})).await;
    call(&server, "/v3/auth/enable", json!({})).await;
    let of = |password: &str| {
        let user = User { name: "root".to_owned(), password: Secret::new(password) };
        Discovery::Etcd(Etcd { user: Some(user), ..Etcd::of(member(&server), PREFIX) })
    };
    let mut refused = quick(of("wr0ng"));
    let trouble = trouble(&mut refused).await;
    assert!(!format!("{trouble} {:?}", of("wr0ng")).contains("wr0ng"), "{trouble}");
    let mut watcher = quick(of("s3cret"));
    until(&mut watcher, &["a:1"]).await;
    quiet(&mut watcher, 1).await;
}

fn registration(server: &Server) -> registrar::Registration {
    registrar::Registration::Etcd(Registration {
        members: vec![member(server)],
        user: None,
        key: format!("{PREFIX}forebay-1"),
        address: "10.0.0.9:4317".to_owned(),
        attributes: BTreeMap::from([("zone".to_owned(), "a".to_owned())]),
        ttl: Duration::from_secs(3),
    })
}

fn health(state: State) -> Health {
    Health { state, note: String::new() }
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
async fn our_own_entry_is_found_lives_is_lost_and_comes_back() {
    let Some(mut server) = start("etcd-registration") else { return };
    put(&server, "always", "a:1").await;
    let mut watcher = watch(&server);
    let mut registrar = Registrar::new(registration(&server), health(State::Passing));
    until(&mut watcher, &["a:1"]).await;
    let registered = registrar.next().await;
    assert!(matches!(registered, News::Registered { .. }), "{registered}");
    both_until(&mut registrar, &mut watcher, &["10.0.0.9:4317", "a:1"]).await;
    // It says that it is ill, and nobody sends to it; then it is well again.
    registrar.set_health(health(State::Critical));
    both_until(&mut registrar, &mut watcher, &["a:1"]).await;
    registrar.set_health(health(State::Passing));
    both_until(&mut registrar, &mut watcher, &["10.0.0.9:4317", "a:1"]).await;
    // Somebody deletes it.
    delete(&server, "forebay-1").await;
    both_until(&mut registrar, &mut watcher, &["a:1"]).await;
    both_until(&mut registrar, &mut watcher, &["10.0.0.9:4317", "a:1"]).await;
    // Everything is lost: the lease, too.
    server.restart_empty();
    both_until(&mut registrar, &mut watcher, &["10.0.0.9:4317"]).await;
    put(&server, "always", "a:1").await;
    both_until(&mut registrar, &mut watcher, &["10.0.0.9:4317", "a:1"]).await;
    // Without a sign of life it is gone after its TTL, and comes back with one.
    until(&mut watcher, &["a:1"]).await;
    both_until(&mut registrar, &mut watcher, &["10.0.0.9:4317", "a:1"]).await;
    registrar.leave(PATIENCE).await.expect("etcd is there");
    until(&mut watcher, &["a:1"]).await;
}

#[tokio::test]
async fn a_registry_that_is_away_is_trouble_and_the_entry_is_made_when_it_is_back() {
    let Some(mut server) = start("etcd-away") else { return };
    // It listens before it is ready, and one that is killed in between may stay unready for good.
    put(&server, "always", "a:1").await;
    server.kill();
    let mut registrar = Registrar::new(registration(&server), health(State::Passing));
    let told = registrar.next().await;
    assert!(matches!(told, News::Trouble(_)), "{told}");
    server.restart();
    let mut news = Vec::new();
    while news.len() < 2 {
        match registrar.next().await {
            // It listens and is not ready yet.
            News::Trouble(_) => {}
            told => news.push(told),
        }
    }
    let [News::Registered { .. }, News::Recovered(_)] = &news[..] else {
        panic!("{news:?}");
    };
}
