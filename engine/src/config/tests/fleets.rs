//! Destinations with more than one endpoint: what the keys mean, and what is refused of them.

use std::time::Duration;

use forebay_exporters::balance::{RoutingKey, Strategy};
use forebay_exporters::destination::{Backends, Destination, Kind, Probe, RetryCodes};
use forebay_exporters::discovery::registrar::Registration;
use forebay_exporters::discovery::{Discovery, consul};

use super::*;

const CLEARTEXT: &str = "tls: {insecure: true}";

/// The only network destination of a configuration with this exporter.
fn made(kind: &str, keys: &str) -> Result<Destination, Vec<Problem>> {
    let pipelines = format!(
        "{{traces: {{exporters: [{kind}]}}, logs: {{receivers: [otlp], \
                              exporters: [debug]}}}}"
    );
    let yaml = format!("exporters: {{{kind}: {{{keys}}}}}\nservice: {{pipelines: {pipelines}}}");
    let plan = load_over(&yaml)?.plan;
    Ok(plan.destinations.into_iter().find(|one| one.name == kind).expect("it is in a pipeline"))
}

#[track_caller]
fn takes(kind: &str, keys: &str) -> Destination {
    made(kind, keys).unwrap_or_else(|problems| panic!("{keys}\n{}", texts(&problems).join("\n")))
}

#[track_caller]
fn grpc(keys: &str) -> Destination {
    takes("otlp_grpc", &format!("{keys}, {CLEARTEXT}"))
}

#[track_caller]
fn refuses(kind: &str, keys: &str, expected: &[&str]) {
    let problems = made(kind, keys).map(|_| ()).expect_err("this is no proper exporter");
    check(&problems, expected);
}

/// `address*weight` of each, in order.
fn listed(backends: &Backends) -> Vec<String> {
    let Discovery::Static(list) = &backends.discovery else { panic!("{:?}", backends.discovery) };
    list.endpoints.iter().map(|e| format!("{}*{}", e.address(), e.weight)).collect()
}

fn authority(destination: &Destination) -> Option<&str> {
    match &destination.kind {
        Kind::OtlpGrpc(settings) => settings.authority.as_deref(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_list_of_endpoints_may_have_weights_and_those_choose_the_strategy() {
    let even = grpc("endpoints: ['a:1', 'http://b:2', '[::1]:3']").backends;
    assert_eq!(listed(&even), ["a:1*1", "b:2*1", "[::1]:3*1"]);
    assert_eq!(even.strategy, Strategy::RoundRobin);
    let uneven = grpc("endpoints: [{endpoint: 'a:1', weight: 3}, 'b:2']").backends;
    assert_eq!(listed(&uneven), ["a:1*3", "b:2*1"]);
    assert_eq!(uneven.strategy, Strategy::WeightedRoundRobin);
    let chosen = grpc("endpoints: ['a:1'], balancing: {strategy: least_outstanding}").backends;
    assert_eq!(chosen.strategy, Strategy::LeastOutstanding);
    let http = takes("otlp_http", "endpoints: ['http://a:1', {endpoint: 'http://b', weight: 0}]");
    assert_eq!(listed(&http.backends), ["a:1*1", "b:80*0"]);
}

#[test]
fn requests_to_several_http_endpoints_name_each_unless_one_name_is_given() {
    let settings = |keys: &str| match takes("otlp_http", keys).kind {
        Kind::OtlpHttp(settings) => settings,
        other => panic!("{other:?}"),
    };
    let nameless = settings("endpoints: ['http://a:1', 'http://b:1']");
    assert!(nameless.authority_of_endpoint && nameless.addresses.is_none());
    assert_eq!(nameless.urls[2].path(), "/v1/logs");
    let named = settings("endpoints: ['http://a:1'], endpoint: 'http://name/x/'");
    assert!(!named.authority_of_endpoint && named.addresses.is_none());
    assert_eq!(named.urls[0], "http://name/x/v1/traces");
    let found = settings(&format!("discovery: {{dns: {{hostname: c.example}}}}, {CLEARTEXT}"));
    assert!(!found.authority_of_endpoint);
    assert_eq!(found.urls[1], "http://c.example:4318/v1/metrics");
}

#[test]
fn each_source_of_discovery_has_its_keys() {
    let source = |keys: &str| {
        let backends = grpc(&format!("discovery: {{{keys}}}")).backends;
        (backends.discovery, backends.pace, backends.strategy)
    };
    let (found, pace, strategy) = source("file: {path: /a/b.json, format: plain, port: 9}");
    let text = format!("{found:?}");
    assert!(text.contains("/a/b.json") && text.contains("Plain") && text.contains("Some(9)"));
    assert_eq!((pace, strategy), (found.pace(), Strategy::WeightedRoundRobin));
    let (found, pace, _) = source(
        "interval: 2s, dns: {hostname: c.example., families: ipv4, \
                                   server: '127.0.0.1:5353'}",
    );
    let Discovery::Dns(dns) = &found else { panic!("{found:?}") };
    assert_eq!((dns.host.as_str(), dns.port), ("c.example.", 4317));
    assert_eq!(dns.server, Some(([127, 0, 0, 1], 5353).into()));
    let seconds = Duration::from_secs;
    assert_eq!((pace.interval_min, pace.interval_max), (seconds(2), seconds(2)));
    let (found, ..) = source("dns_srv: {service: _otlp._tcp.example, server: '::1'}");
    let Discovery::DnsSrv(srv) = &found else { panic!("{found:?}") };
    assert_eq!(srv.server, "[::1]:53".parse().ok());
    let (found, ..) = source("consul: {service: c, tags: [a, b], token: s3cret, stale: false}");
    let Discovery::Consul(consul) = &found else { panic!("{found:?}") };
    assert_eq!((consul.agent.to_string(), consul.tags.len()), ("127.0.0.1:8500".to_owned(), 2));
    assert!(!consul.stale && !format!("{consul:?}").contains("s3cret"));
    let (found, ..) = source(
        "etcd: {endpoints: ['http://a', 'b:1'], prefix: /c/, username: u, \
                              password: s3cret}",
    );
    let Discovery::Etcd(etcd) = &found else { panic!("{found:?}") };
    let members: Vec<String> = etcd.members.iter().map(ToString::to_string).collect();
    assert_eq!(members, ["a:2379", "b:1"]);
    assert!(!format!("{etcd:?}").contains("s3cret"));
    let listed_there = grpc("discovery: {static: {endpoints: [{endpoint: 'a:1', weight: 2}]}}");
    assert_eq!(listed(&listed_there.backends), ["a:1*2"]);
}

#[test]
fn a_name_is_all_of_its_addresses_where_grpc_would_have_it_so() {
    let dns = |keys: &str| {
        let made = grpc(keys);
        let authority = authority(&made).map(str::to_owned);
        let strategy = made.backends.strategy;
        match made.backends.discovery {
            Discovery::Dns(dns) => Some((dns.host, dns.port, authority, strategy)),
            _ => None,
        }
    };
    let name = |text: &str| Some(text.to_owned());
    let (round_robin, least) = (Strategy::RoundRobin, Strategy::LeastOutstanding);
    let both = Some(("c.example".to_owned(), 4317, name("c.example:4317"), round_robin));
    assert_eq!(dns("endpoint: 'dns:///c.example:4317'"), both);
    assert_eq!(dns("endpoint: 'c.example:4317', balancer_name: round_robin"), both);
    assert_eq!(
        dns("endpoint: 'http://c.example:1', balancer_name: least_request, authority: other"),
        Some(("c.example".to_owned(), 1, name("other"), least))
    );
    for one in [
        "endpoint: 'c.example:4317'",
        "endpoint: 'dns:///c.example:4317', balancer_name: pick_first",
        "endpoint: '10.0.0.1:4317', balancer_name: round_robin",
        "endpoint: 'localhost:4317', balancer_name: round_robin",
        "endpoint: 'passthrough:///c.example:4317'",
    ] {
        assert_eq!(dns(one), None, "{one}");
        assert_eq!(listed(&grpc(one).backends).len(), 1, "{one}");
    }
}

#[test]
fn hashing_goes_by_the_usual_key_of_each_signal_unless_another_is_named() {
    let key = |keys: &str| {
        let list = "endpoints: ['a:1', 'b:1']";
        let all = format!("{list}, balancing: {{strategy: consistent_hashing, {keys}}}");
        grpc(&all).backends.routing_key.expect("hashing goes by something")
    };
    assert_eq!(key("routing_key: "), RoutingKey::TraceId);
    assert_eq!(key("routing_key: traceID"), RoutingKey::TraceId);
    assert_eq!(key("routing_key: service"), RoutingKey::Service);
    assert_eq!(key("routing_key: metric"), RoutingKey::Metric);
    let tenant = RoutingKey::Attribute("tenant".to_owned());
    assert_eq!(key("routing_key: attributes, routing_attributes: [tenant]"), tenant);
    assert_eq!(grpc("endpoints: ['a:1', 'b:1']").backends.routing_key, None);
}

#[test]
fn the_collectors_load_balancing_exporter_is_otlp_with_hashing() {
    for kind in ["load_balancing", "loadbalancing", "load_balancing/b"] {
        let made = takes(
            kind,
            "routing_key: service, protocol: {otlp: {tls: {insecure: true}, timeout: 1s, \
             sending_queue: {queue_size: 5}, retry_on_failure: {max_interval: 1m}}}, \
             resolver: {static: {hostnames: [a, 'b:1']}}, sending_queue: {queue_size: 7}, \
             timeout: 3s",
        );
        assert_eq!(listed(&made.backends), ["a:4317*1", "b:1*1"]);
        assert_eq!(made.backends.strategy, Strategy::ConsistentHashing);
        assert_eq!(made.backends.routing_key, Some(RoutingKey::Service));
        assert_eq!((made.queue.batches_max, made.retry.max_interval.as_secs()), (7, 60));
        let Kind::OtlpGrpc(settings) = made.kind else { panic!("{:?}", made.kind) };
        assert_eq!(settings.timeout, Duration::from_secs(3));
    }
    let by_name = takes(
        "load_balancing",
        "resolver: {dns: {hostname: c.example}}, protocol: {otlp: {tls: {insecure: true}}}",
    );
    assert_eq!(authority(&by_name), Some("c.example:4317"));
    assert_eq!(by_name.backends.pace.interval_max, Duration::from_secs(5));
    assert_eq!(by_name.backends.routing_key, Some(RoutingKey::TraceId));
}

#[test]
fn load_balancing_says_what_it_lacks_and_what_to_do_instead() {
    let otlp = "protocol: {otlp: {tls: {insecure: true}}}";
    let refuses = |keys: &str, expected: &[&str]| refuses("load_balancing", keys, expected);
    let missing = ["load_balancing.resolver is missing", "protocol.otlp is missing & insecure"];
    refuses("", &missing);
    refuses(&format!("resolver: {{k8s: {{service: c}}}}, {otlp}"), &["k8s is not & headless"]);
    refuses(
        &format!("resolver: {{aws_cloud_map: {{namespace: c}}}}, {otlp}"),
        &["resolver.aws_cloud_map is not supported & Route 53"],
    );
    let fixed = "resolver: {static: {hostnames: [a]}}";
    refuses(&format!("{fixed}, {otlp}, routing_key: streamID"), &["can't be streamID & metric"]);
    refuses(&format!("{fixed}, {otlp}, routing_key: resource"), &["needs an attribute & service"]);
    refuses(
        &format!("{fixed}, {otlp}, routing_key: attributes, routing_attributes: [a, b]"),
        &["routing_attributes has more than one name"],
    );
    refuses(
        &format!("{fixed}, protocol: {{otlp: {{tls: {{insecure: true}}, endpoints: [a]}}}}"),
        &["protocol.otlp.endpoints has no place here & resolver says who"],
    );
    refuses(
        &format!("resolver: {{static: {{hostnames: [a]}}, dns: {{hostname: b}}}}, {otlp}"),
        &["resolver.dns stands beside static"],
    );
    refuses(
        &format!("resolver: {{static: {{hostname: [a]}}}}, {otlp}"),
        &["hostnames is missing", "unknown key \"hostname\" & did you mean \"hostnames\"?"],
    );
}

#[test]
fn one_way_to_name_endpoints_is_enough_and_one_is_needed() {
    let refuses = |keys: &str, expected: &[&str]| {
        refuses("otlp_grpc", &format!("{keys}{CLEARTEXT}"), expected);
    };
    refuses("endpoint: 'a:1', endpoints: ['b:1'], ", &["endpoints stands beside endpoint"]);
    refuses("discovery: {}, ", &["otlp_grpc.discovery has no source & dns_srv"]);
    refuses("discovery: {dns: {hostname: a}, file: {path: b}}, ", &["dns stands beside file"]);
    refuses("endpoint: 'a!b:1', ", &["otlp_grpc.endpoint must be host:port"]);
    refuses("endpoints: [], ", &["endpoints is empty"]);
    refuses("endpoints: 'a:1', ", &["endpoints must be a list"]);
    refuses("endpoints: ['a:1', 'A:1'], ", &["names a:1 twice"]);
    refuses("endpoints: ['a'], ", &["endpoints[0] needs a port"]);
    refuses("endpoints: [{endpoint: 'a:1', weight: -1}], ", &["endpoints[0].weight must be"]);
    refuses("endpoints: [{endpoint: 'a:1', weight: 0}], ", &["weight 0 all"]);
    refuses("endpoints: [{weight: 2}], ", &["endpoints[0].endpoint is missing"]);
    refuses("discovery: {dns: {hostname: 'a:1'}}, ", &["hostname must be a host's name"]);
    refuses("discovery: {file: {}}, ", &["discovery.file.path is missing"]);
    refuses("discovery: {etcd: {}}, ", &["etcd.endpoints is missing", "etcd.prefix is missing"]);
    refuses("discovery: {consul: {service: a, agent: 'ftp://b'}}, ", &["only HTTP is spoken"]);
    refuses("discovery: {k8s: {}, dns: {hostname: a}}, ", &["discovery.k8s & headless service"]);
    refuses("discovery: {interval: 1ms, dns: {hostname: a}}, ", &["interval must be 100ms"]);
    refuses("discovrey: {}, endpoint: 'a:1', ", &["did you mean \"discovery\"?"]);
    let beside = "endpoints: ['http://a:1'], logs_endpoint: 'http://b/'";
    super::fleets::refuses("otlp_http", beside, &["logs_endpoint can't be set beside endpoints"]);
}

#[test]
fn credentials_in_endpoints_are_not_repeated() {
    for keys in [
        "endpoints: ['u:s3cret@a:1']",
        "endpoint: 'dns:///u:s3cret@a:1'",
        "discovery: {static: {endpoints: ['http://u:s3cret@a:1']}}",
        "discovery: {consul: {service: a, agent: 'http://u:s3cret@a:1'}}",
    ] {
        let problems = made("otlp_grpc", &format!("{keys}, {CLEARTEXT}")).expect_err("credentials");
        assert!(!texts(&problems).concat().contains("s3cret"), "{}", problems[0]);
    }
}

#[test]
fn guards_are_read_and_their_contradictions_are_found() {
    let made = grpc(
        "endpoint: 'a:1', circuit_breaker: {failure_threshold: 2, failure_rate: 0, window: 30s, \
         recovery_timeout: 1s, max_ejection_percent: 33}, retry_budget: {ratio: 0.5}, \
         health_check: {probe: grpc, service: a.B, interval: 3s}, pool: {age_max: 0, \
         idle_timeout: 1m, warm: false}, sending_queue: {queue_bytes_max: 2MiB}, timeout: 20s",
    );
    let breaker = made.backends.breaker;
    assert_eq!((breaker.failure_threshold, breaker.window.as_secs()), (2, 30));
    assert!(breaker.failure_rate > 1.0, "0 is never");
    assert!(breaker.probe_timeout > Duration::from_secs(200));
    assert_eq!(made.backends.ejection.max_ejection_percent, 33);
    assert_eq!(made.backends.retry_budget.ratio, 0.5);
    let least = grpc("endpoint: 'a:1', retry_budget: {ratio: 0, min_per_second: 0}");
    let least = least.backends.retry_budget;
    assert_eq!((least.ratio, least.min_per_second), (0.0, 0.0), "the floor alone");
    assert_eq!(made.backends.health_check.probe, Probe::Grpc("a.B".to_owned()));
    assert_eq!(made.backends.pool.age_max, None);
    assert_eq!(made.backends.pool.idle_timeout, Some(Duration::from_secs(60)));
    assert_eq!(made.queue.bytes_max, Some(2 << 20));
    let off = grpc("endpoint: 'a:1', circuit_breaker: {enabled: false}").backends.breaker;
    assert_eq!(off.failure_threshold, 0);
    assert!(off.failure_rate > 1.0 && off.slow_call_rate > 1.0);
    let http = takes("otlp_http", "endpoint: 'http://a', idle_conn_timeout: 7s");
    assert_eq!(http.backends.pool.idle_timeout, Some(Duration::from_secs(7)));

    let refuses = |keys: &str, expected: &str| {
        refuses("otlp_grpc", &format!("endpoint: 'a:1', {CLEARTEXT}, {keys}"), &[expected]);
    };
    refuses("circuit_breaker: {failure_rate: 50}", "failure_rate must lie from 0 to 1");
    refuses("circuit_breaker: {recovery_timeout: 2m}", "recovery_timeout_max must be at least");
    refuses("circuit_breaker: {minimum_calls: 200}", "minimum_calls must be at most window_calls");
    refuses("circuit_breaker: {treshold: 2}", "unknown key \"treshold\" & known here");
    refuses("circuit_breaker: {failure_treshold: 2}", "did you mean \"failure_threshold\"?");
    refuses("health_check: {probe: http}", "probe must be one of off, connect, grpc");
    refuses("health_check: {service: a}", "service is for probe: grpc alone");
    refuses("balancing: {routing_key: service}", "routing_key is for consistent_hashing alone");
    refuses("balancing: {strategy: random}", "strategy must be one of round_robin");
    refuses("balancer_name: grpclb", "balancer_name must be one of round_robin");
    let http = "endpoint: 'http://a', health_check: {probe: grpc}";
    super::fleets::refuses("otlp_http", http, &["probe can't be grpc"]);
}

#[test]
fn retries_may_be_counted_and_be_for_codes_of_ones_own() {
    let retry = |keys: &str| grpc(&format!("endpoint: 'a:1', retry_on_failure: {{{keys}}}")).retry;
    assert_eq!(retry("max_attempts: 0").max_attempts, None);
    assert_eq!(retry("max_attempts: 4").max_attempts, Some(4));
    assert_eq!(retry("multiplier: 2").codes, RetryCodes::default());
    let codes = retry("retryable_codes: [unavailable, 8, DATA_LOSS]").codes;
    assert_eq!(codes, RetryCodes { grpc: Some(vec![14, 8, 15]), http: None });
    let http = takes("otlp_http", "endpoint: 'http://a', retry_on_failure: {retryable_codes: 503}");
    assert_eq!(http.retry.codes, RetryCodes { grpc: None, http: Some(vec![503]) });
    refuses(
        "otlp_http",
        "endpoint: 'http://a', retry_on_failure: {retryable_codes: [200, UNAVAILABLE]}",
        &["has \"200\", which is no status", "has \"UNAVAILABLE\""],
    );
    let keys = "retry_on_failure: {retryable_codes: [UNAVALABLE, OK]}";
    refuses(
        "otlp_grpc",
        &format!("endpoint: 'http://a:1', {keys}"),
        &["did you mean UNAVAILABLE?", "can't have OK"],
    );
}

#[test]
fn a_process_makes_itself_known_to_one_registry() {
    let registration = |keys: &str| {
        let made = load_over(&format!("engine: {{registration: {{{keys}}}}}"));
        made.map(|made| made.plan.engine.registration)
    };
    let none = load_over("engine: {registration: }").expect("null is not set");
    assert!(none.plan.engine.registration.is_none());
    let made = registration(
        "address: 'Me:4317', ttl: 9s, attributes: {zone: a}, consul: {tags: [x], token: s3cret}",
    );
    let Ok(Some(Registration::Consul(consul))) = made else { panic!("{made:?}") };
    assert_eq!((consul.service.as_str(), consul.id.as_str()), ("forebay", "forebay-me:4317"));
    assert_eq!((consul.host.as_str(), consul.port), ("me", 4317));
    assert_eq!(consul.check, consul::Check::Ttl(Duration::from_secs(9)));
    assert_eq!(consul.meta["zone"], "a");
    let made = registration("address: '[::1]:1', etcd: {endpoints: [a], prefix: /p/}");
    let Ok(Some(Registration::Etcd(etcd))) = made else { panic!("{made:?}") };
    assert_eq!((etcd.key.as_str(), etcd.address.as_str()), ("/p/[::1]:1", "[::1]:1"));
    for (keys, expected) in [
        ("consul: {}", "registration.address is missing"),
        ("address: 'a:1'", "registration names no registry & etcd"),
        ("address: a, consul: {}", "registration.address is wrong: & names no port"),
        ("address: 'a:1', consul: {}, etcd: {endpoints: [b]}", "etcd stands beside consul"),
        ("address: 'a:1', ttl: 1500ms, consul: {}", "ttl must be whole seconds"),
        ("address: 'a:1', consul: {forget_after: 5s}", "forget_after must be 0 or 1m"),
        ("address: 'a:1', etcd: {endpoints: [b], username: u}", "password is missing"),
    ] {
        check(&registration(keys).map(|_| ()).expect_err("no proper entry"), &[expected]);
    }
}

#[test]
fn printing_shows_a_fleet_and_none_of_its_secrets() {
    let yaml = "exporters:\n  otlp_grpc:\n    tls: {insecure: true}\n    discovery:\n      \
                consul: {service: c, token: s3cret}\n    endpoint: \nengine:\n  registration:\n    \
                address: a:1\n    etcd: {endpoints: [b:1], username: u, password: s3cret}\n\
                service: {pipelines: {traces: {exporters: [otlp_grpc]}}}";
    let printed = loaded(load_over(yaml)).printable;
    assert!(printed.contains("service: c") && !printed.contains("s3cret"), "{printed}");
}
