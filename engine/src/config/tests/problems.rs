//! What is refused or warned of, and that it says where and what to do.

use super::*;

/// Errors of `yaml` laid over a configuration that is fine.
#[track_caller]
fn refuses(yaml: &str, expected: &[&str]) {
    let problems = load_over(yaml).map(|_| ()).expect_err("this is no proper configuration");
    check(&problems, expected);
}

/// `yaml` runs, with these warnings.
#[track_caller]
fn warns(yaml: &str, expected: &[&str]) {
    check(&loaded(load_over(yaml)).warnings, expected);
}

/// The keys of an `otlp_grpc` exporter that is in a pipeline.
fn grpc(keys: &str) -> String {
    let pipelines =
        "{traces: {exporters: [otlp_grpc]}, logs: {receivers: [otlp], exporters: [debug]}}";
    format!("exporters: {{otlp_grpc: {{{keys}}}}}\nservice: {{pipelines: {pipelines}}}")
}

#[test]
fn unknown_keys_are_refused_with_place_and_suggestion() {
    refuses(
        "exporters:\n  debug:\n    verbosty: basic\n",
        &["error: c.yaml:3:5: unknown key \"verbosty\" in exporters.debug\n hint: did you mean \
           \"verbosity\"?"],
    );
    refuses("engine: {zebra: 1}", &["c.yaml:1:10: & hint: known here: cores, limits, memory"]);
    refuses("recievers: {}", &["unknown key \"recievers\" in the configuration & \"receivers\"?"]);
    refuses("exporters: {nop: {a: 1}}", &["exporters.nop & known here: no keys"]);
}

#[test]
fn all_mistakes_of_a_file_are_reported_in_its_order() {
    refuses(
        "receivers:\n  otlp:\n    protocols:\n      grpc:\n        max_recv_msg_size_mib: lots\n\
         engine:\n  drain_timeout: 10\n  drain_timeout: 11s\n  cores: {receivers: [a]}\n\
         exporters:\n  kafka: {}\n  debug: {verbosity: loud}\n",
        &[
            "c.yaml:5:32: & must be a whole number from 0; this is \"lots\" & key it is 64",
            "c.yaml:7:18: engine.drain_timeout must be a duration with a unit",
            "c.yaml:8:3: duplicate key \"drain_timeout\": it also stands at c.yaml:7:3",
            "c.yaml:9:22: engine.cores.receivers is no CPU list & \"a\"",
            "c.yaml:11:3: unknown exporter type \"kafka\" & leave \"kafka\" to a Collector",
            "c.yaml:12:22: exporters.debug.verbosity must be one of basic, normal, detailed",
        ],
    );
}

#[test]
fn wrong_forms_are_named() {
    refuses("engine: [1]", &["engine must be a map, not a list"]);
    refuses("engine: {drain_timeout: {a: 1}}", &["must be a single value (duration), not a map"]);
    refuses(
        "exporters: 5",
        &["names the exporter \"debug\"", "\"exporters\" must be a map, not a single value & 1:12"],
    );
    refuses(
        "service: {pipelines: {traces: {exporters: [[debug]]}}}",
        &["must hold names only, not a list", "traces.exporters is missing or empty"],
    );
    refuses("exporters: {'debug/': {}}", &["\"debug/\" is no name for a component"]);
    let problems = load_text("just a text").map(|_| ()).expect_err("no map");
    assert!(problems[0].to_string().contains("the configuration must be a map"));
}

#[test]
fn what_the_collector_has_and_forebay_has_not_says_what_to_do() {
    refuses(
        "connectors: {forward: }",
        &["unknown connector type \"forward\" & leave \"forward\" to a Collector"],
    );
    refuses(
        "receivers: {otlp: {protocols: {grpc: {auth: {authenticator: b}, \
         keepalive: {server_parameters: {time: 1s}, enforcement_policy: {}}, transport: unix, include_metadata: true}}}}",
        &[
            "grpc.auth",
            "server_parameters.time is not supported & max_connection_idle",
            "keepalive.enforcement_policy is not supported & remove it",
            "transport can only be tcp & unix sockets",
            "include_metadata can only be false",
        ],
    );
    refuses(
        "receivers: {otlp: {protocols: {http: {endpoint: 'localhost:0', auth: {}, \
         read_timeout: 1s, compression_algorithms: [br]}}}}",
        &["http.auth", "http.read_timeout & engine.limits", "unknown compression algorithm \"br\""],
    );
    refuses(
        &grpc(
            "endpoint: 'http://a:1', sending_queue: {enabled: false, storage: file_storage, \
                   sizer: bytes}, auth: {}",
        ),
        &[
            "enabled can only be true & wait_for_result",
            "storage is not supported",
            "sizer can only be requests & budget_bytes",
            "auth is not supported & headers.authorization",
        ],
    );
    refuses(
        "processors: {transform: {}}",
        &["unknown processor type \"transform\" & batch, queue_batch"],
    );
    refuses("extensions: {zpagse: {}}", &["did you mean \"zpages\"?"]);
}

#[test]
fn refused_keys_may_be_null_which_is_how_not_set_is_written() {
    warns("receivers: {otlp: {protocols: {grpc: {auth: , keepalive: null}}}}", &[]);
}

#[test]
fn endpoints_are_checked_and_credentials_in_them_are_not_repeated() {
    refuses(&grpc(""), &["otlp_grpc.endpoint is missing"]);
    refuses(&grpc("endpoint: 'http://tempo'"), &["needs a port"]);
    refuses(&grpc("endpoint: 'http://a:1/path'"), &["must be host:port"]);
    refuses(&grpc("endpoint: 'unix:///a'"), &["unix socket"]);
    refuses("exporters: {otlp_http: {endpoint: 'collector:4318'}}", &["the scheme is missing"]);
    for yaml in [
        grpc("endpoint: 'http://user:s3cret@a:1'"),
        "exporters: {otlp_http: {endpoint: 'http://user:s3cret@a:1'}}".to_owned(),
    ] {
        let problems = load_over(&yaml).map(|_| ()).expect_err("credentials");
        assert!(!texts(&problems).concat().contains("s3cret"), "{}", problems[0]);
    }
}

#[test]
fn header_values_are_checked_and_never_repeated() {
    let problems = load_over(&grpc(
        "endpoint: 'http://a:1', headers: {'a b': s3cret, te: s3cret, x: \"s3cret\\n\", \
         y: [s3cret]}",
    ));
    let problems = problems.map(|_| ()).expect_err("four bad headers");
    check(
        &problems,
        &[
            "\"a b\" is no header name",
            "\"te\" is forebay's own",
            "\"x\" can't be sent & newline",
            "\"y\" must have a single value",
        ],
    );
    assert!(!texts(&problems).concat().contains("s3cret"));
}

#[test]
fn pipelines_name_what_there_is() {
    refuses(
        "service:\n  pipelines:\n    traces:\n      receivers: [otpl]\n      \
         exporters: [debug, debug]\n      processors: [batch]\n    \
         spans: {receivers: [otlp], exporters: [debug]}\n",
        &[
            "c.yaml:4:19: & names the receiver \"otpl\", which is not configured & mean \"otlp\"?",
            "c.yaml:5:26: & names \"debug\" twice",
            "c.yaml:6:20: & the processor \"batch\" & add \"batch:\" under \"processors:\"",
            "c.yaml:7:5: & of no known signal & traces, metrics, logs, profiles",
        ],
    );
    refuses("service: {pipelines: {traces: {receivers: []}}}", &["receivers is missing or empty"]);
    refuses("service: {pipelines: }", &["service.pipelines is missing or empty"]);
    refuses(
        "service: {extensions: [health_chek]}\nextensions: {health_check: }",
        &["service.extensions names \"health_chek\" & mean \"health_check\"?"],
    );
    check(&load_text("").map(|_| ()).expect_err("nothing"), &["service.pipelines is missing"]);
}

#[test]
fn what_is_configured_and_not_used_is_warned_of() {
    warns(
        "receivers: {otlp/b: {protocols: {grpc: }}}\nprocessors: {batch: }\nexporters: {nop: }\n\
         extensions: {health_check: }",
        &[
            "receivers.otlp/b is in no pipeline",
            "processors.batch",
            "exporters.nop",
            "the extension \"health_check\" is not used",
        ],
    );
}

#[test]
fn what_is_taken_without_effect_is_warned_of() {
    warns(
        "receivers: {otlp: {protocols: {grpc: {read_buffer_size: 1}}}}\n\
         processors: {memory_limiter: {check_interval: 1s, limit_mib: 400}}\n\
         extensions: {pprof: {endpoint: 'localhost:1777'}, zpages: }\n\
         service: {extensions: [pprof, zpages], \
         pipelines: {traces: {processors: [memory_limiter]}}}",
        &[
            "grpc.read_buffer_size has no effect",
            "memory_limiter does not limit memory & engine.memory.budget_bytes",
            "pprof has no effect",
            "zpages has no effect",
        ],
    );
}

#[test]
fn addresses_are_taken_once() {
    let two = |grpc: &str, http: &str| {
        format!(
            "receivers: {{otlp: {{protocols: {{grpc: {{endpoint: '{grpc}'}}}}}}, \
                 otlp/b: {{protocols: {{http: {{endpoint: '{http}'}}}}}}}}\n\
                 service: {{pipelines: {{traces: {{receivers: [otlp, otlp/b]}}}}}}"
        )
    };
    refuses(&two("localhost:4317", "127.0.0.1:4317"), &["127.0.0.1:4317 is taken & c.yaml:1:"]);
    refuses(&two("localhost:4317", "0.0.0.0:4317"), &["is taken by 127.0.0.1:4317"]);
    loaded(load_over(&two("localhost:0", "localhost:0")));
    loaded(load_over(&two("localhost:4317", "localhost:4318")));
    refuses(
        "service: {telemetry: {metrics: {level: normal, address: 'localhost:13133'}}, \
             extensions: [health_check]}\nextensions: {health_check: }",
        &["13133 is taken"],
    );
    refuses("receivers: {otlp: {protocols: }}", &["receivers.otlp takes no protocol"]);
}

#[test]
fn a_budget_below_the_largest_request_is_refused() {
    refuses(
        "engine:\n  memory:\n    budget_bytes: 32MiB\n",
        &["c.yaml:3:5: & 33554432 bytes & receivers.otlp takes requests of up to 67108864 bytes"],
    );
    let smaller = "receivers: {otlp: {protocols: {grpc: {max_recv_msg_size_mib: 16}}}}\n";
    loaded(load_over(&format!("{smaller}engine: {{memory: {{budget_bytes: 32MiB}}}}")));
}

#[test]
fn batching_and_acks_must_agree_within_a_pipeline() {
    let pair = |a: &str, b: &str| {
        format!(
            "exporters: {{otlp_grpc: {{endpoint: 'http://a:1', sending_queue: {{{a}}}}}, \
                 otlp_http: {{endpoint: 'http://a:1', sending_queue: {{{b}}}}}}}\n\
                 service: {{pipelines: {{traces: {{exporters: [otlp_grpc, otlp_http, debug]}}}}}}"
        )
    };
    let batch = "service.pipelines.traces has more than one way to batch";
    refuses(&pair("batch: {min_size: 1}", "batch: {min_size: 2}"), &[batch]);
    refuses(&pair("batch: {}", ""), &[batch]);
    loaded(load_over(&pair("batch: {}", "batch: {}")));
    let ack = "waits for only some of its destinations & exporters.otlp_http has not";
    refuses(&pair("wait_for_result: true", ""), &[ack]);
    loaded(load_over(&pair("wait_for_result: true", "wait_for_result: true")));
    let engine = "\nengine: {acks: {pipelines: {traces: accepted, trace: delivered}}}";
    let both = pair("wait_for_result: true", "wait_for_result: true") + engine;
    refuses(
        &both,
        &[
            "engine.acks says \"accepted\" for traces",
            "names \"trace\", which is no pipeline & \"traces\"?",
        ],
    );
    refuses(
        &pair("batch: {min_size: 10, max_size: 5}", "batch: {min_size: 10, max_size: 5}"),
        &["max_size must be 0 or at least min_size (10)", "max_size must be"],
    );
}

/// A traces pipeline with one processor of this kind and these keys.
fn processor(kind: &str, keys: &str) -> String {
    format!(
        "processors: {{{kind}: {{{keys}}}}}\n\
         service: {{pipelines: {{traces: {{processors: [{kind}]}}}}}}"
    )
}

#[test]
fn actions_on_attributes_say_what_they_lack_and_what_they_can_not() {
    let attributes = |action: &str| processor("attributes", &format!("actions: [{action}]"));
    for (action, expected) in [
        ("{key: a, action: insert}", "c.yaml:1:37: & actions[0].value is missing: set it, or from"),
        ("{key: a, value: 1}", "actions[0].action is missing"),
        ("{value: 1, action: upsert}", "actions[0].key is missing or empty"),
        ("{key: a, action: extract}", "must be one of insert, update, upsert, delete, hash"),
        ("{key: a, action: delete, value: 1}", "value has no meaning for delete and hash"),
        ("{key: a, action: update, value: 1, from_attribute: b}", "and value exclude each other"),
        ("{key: a, action: update, value: [1]}", "lists and maps are not supported"),
        ("{key: a, action: update, from_context: b}", "from_context is not supported & value is"),
        ("{pattern: a, key: b, action: delete}", "pattern is not supported & one by one"),
    ] {
        let problems = load_over(&attributes(action)).map(|_| ()).expect_err("no proper action");
        let all = texts(&problems).join("\n");
        assert!(expected.split(" & ").all(|part| all.contains(part)), "{action}: {all}");
    }
    refuses(&processor("attributes", ""), &["actions is missing or empty"]);
    refuses(&processor("attributes", "actions: {key: a}"), &["actions must be a list of actions"]);
    refuses(
        &processor(
            "attributes",
            "actions: [{key: a, action: hash}], include: {match_type: strict}",
        ),
        &["processors.attributes.include is not supported & write the condition into a `filter`"],
    );
    refuses(&processor("resource", "attributes: [{action: delete}]"), &["attributes[0].key is"]);
}

#[test]
fn conditions_that_forebay_can_not_read_are_refused_by_their_column() {
    refuses(
        &processor("filter", "traces: {span: ['name == \"a\" and duration > 5']}"),
        &[
            "error: c.yaml:1:39: & traces.span is no condition that forebay can read & at column 17 \
           & \"duration\" is not supported here & leave what needs more of OTTL to a Collector",
        ],
    );
    refuses(
        &processor("filter", "traces: {spanevent: ['true']}"),
        &["spanevent is not supported & pass with their spans"],
    );
    refuses(
        &processor("filter", "metric_conditions: ['datapoint.attributes[\"a\"] = 1']"),
        &["metric_conditions is no condition & at column 27: expected a comparison"],
    );
    refuses(&processor("filter", "error_mode: panic, logs: {log_record: ['true']}"), &["one of"]);
    warns(&processor("filter", ""), &["processors.filter has no condition, and drops nothing"]);
}

#[test]
fn samplers_need_a_percentage_and_a_signal_that_can_be_sampled() {
    let sampler = |keys: &str| processor("probabilistic_sampler", keys);
    refuses(&sampler(""), &["sampling_percentage is missing"]);
    refuses(&sampler("sampling_percentage: -1"), &["must not be negative"]);
    refuses(&sampler("sampling_percentage: 1, mode: fair"), &["must be one of hash_seed"]);
    refuses(&sampler("sampling_percentage: 1, sampling_precision: 15"), &["from 1 to 14"]);
    refuses(
        &sampler("sampling_percentage: 1, attribute_source: record"),
        &["from_attribute is missing: attribute_source is record"],
    );
    let of = |signal: &str, processor: &str| {
        format!(
            "processors: {{{processor}}}\nservice: {{pipelines: {{{signal}: {{receivers: [otlp], \
             processors: [{}], exporters: [debug]}}}}}}",
            processor.split(':').next().unwrap_or_default()
        )
    };
    refuses(
        &of("metrics", "probabilistic_sampler: {sampling_percentage: 5}"),
        &[
            "service.pipelines.metrics can't use processors.probabilistic_sampler & only traces and \
           logs can be sampled & remove it from the metrics pipeline",
        ],
    );
    refuses(
        &of("profiles", "resource: {attributes: [{key: a, action: delete}]}"),
        &["can't use processors.resource & their attributes lie in a shared table"],
    );
}
