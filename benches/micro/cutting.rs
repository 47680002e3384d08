//! Views, merging and splitting beside prost, which must decode to do any of it.

use bytes::Bytes;
use forebay_codec::check::Checked;
use forebay_codec::hash::stable_hash;
use forebay_codec::signal::Signal;
use forebay_codec::splice::{Chain, Merger};
use forebay_codec::split::by::{Key, Request as Part, split_by};
use forebay_codec::split::split;
use forebay_codec::view::groups;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest as Traces;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;

use crate::timing::{Bar, Contender, Contest, Cpu, Outcome, Session};
use crate::{Request, decoded, outcome, passed, payloads};

pub(crate) fn contests(session: &mut Session) {
    session.run(viewing());
    session.run(splicing());
    session.run(merging());
    session.run(splitting());
    session.run(sharding());
}

/// What routing wants to know of a request. Both write it down, one after another.
fn viewing() -> Contest<'static> {
    const SPANS: usize = 100;
    let bytes = Bytes::from(payloads::traces(1, SPANS).encode_to_vec());
    let checked = passed(Signal::Traces, &bytes);
    let viewed = |checked: &Checked, out: &mut Vec<u8>| {
        out.clear();
        let mut count = 0;
        for group in groups(checked) {
            out.extend_from_slice(group.resource().service_name().unwrap_or_default().as_bytes());
            for span in group.scopes().flat_map(|scope| scope.spans()) {
                out.extend_from_slice(span.trace_id());
                count += 1;
            }
        }
        count
    };
    let read = |bytes: &[u8], out: &mut Vec<u8>| {
        out.clear();
        let mut count = 0;
        for group in decoded::<Traces>(bytes).resource_spans {
            let attributes = group.resource.map(|resource| resource.attributes).unwrap_or_default();
            let name = attributes.into_iter().find(|pair| pair.key == "service.name");
            if let Some(Value::StringValue(name)) =
                name.and_then(|pair| pair.value).and_then(|any| any.value)
            {
                out.extend_from_slice(name.as_bytes());
            }
            for span in group.scope_spans.iter().flat_map(|scope| &scope.spans) {
                out.extend_from_slice(&span.trace_id);
                count += 1;
            }
        }
        count
    };
    let [ours, ours_told] = [(); 2].map(|()| checked.clone());
    let [theirs, theirs_told] = [(); 2].map(|()| bytes.clone());
    let [mut ours_out, mut ours_told_out, mut theirs_out, mut theirs_told_out] =
        [(); 4].map(|()| Vec::new());
    Contest {
        name: "view: service.name, trace ids, 100 spans",
        unit: "span",
        bytes: bytes.len() as u64,
        cpu: Cpu::ThisThread,
        ours: Contender {
            name: "view (checked before)",
            work: Box::new(move || viewed(&ours, &mut ours_out)),
            outcome: Box::new(move || {
                let count = viewed(&ours_told, &mut ours_told_out);
                Outcome::of(count, &ours_told_out)
            }),
        },
        theirs: Contender {
            name: "prost decode",
            work: Box::new(move || read(&theirs, &mut theirs_out)),
            outcome: Box::new(move || {
                let count = read(&theirs_told, &mut theirs_told_out);
                Outcome::of(count, &theirs_told_out)
            }),
        },
        bar: Bar::None,
    }
}

fn requests() -> Vec<Bytes> {
    (0..64).map(|seed| payloads::traces(seed, 10).encode_to_vec().into()).collect()
}

fn spliced(requests: &[Bytes]) -> Chain {
    let mut chain = Chain::new(Signal::Traces);
    requests.iter().for_each(|request| chain.push(passed(Signal::Traces, request)));
    chain
}

fn told_chain(chain: &Chain) -> Outcome {
    outcome(&decoded::<Traces>(&chain.parts.concat()))
}

/// 64 requests of 10 spans into one batch, as bytes that can be sent.
fn splicing() -> Contest<'static> {
    let requests = requests();
    let merged = |requests: &[Bytes]| {
        let mut batch = Traces::default();
        for request in requests {
            batch.merge(request.as_ref()).expect("prost wrote it");
        }
        (batch.items(), batch.encode_to_vec())
    };
    let [ours, ours_told, theirs, theirs_told] = [(); 4].map(|()| requests.clone());
    Contest {
        name: "check and splice 64 requests of 10 spans",
        unit: "span",
        bytes: requests.iter().map(|request| request.len() as u64).sum(),
        cpu: Cpu::ThisThread,
        ours: Contender {
            name: "check, splice",
            work: Box::new(move || spliced(&ours).counts.items),
            outcome: Box::new(move || told_chain(&spliced(&ours_told))),
        },
        theirs: Contender {
            name: "prost merge, encode",
            work: Box::new(move || merged(&theirs).0),
            outcome: Box::new(move || outcome(&decoded::<Traces>(&merged(&theirs_told).1))),
        },
        bar: Bar::None,
    }
}

/// The same 64 requests, all of one resource and scope, under one header.
fn merging() -> Contest<'static> {
    let requests = requests();
    let chain = spliced(&requests);
    let regrouped = |requests: &[Bytes]| {
        let mut batch = Traces::default();
        for request in requests {
            for group in decoded::<Traces>(request).resource_spans {
                merge_group(&mut batch.resource_spans, group);
            }
        }
        (batch.items(), batch.encode_to_vec())
    };
    let [theirs, theirs_told] = [(); 2].map(|()| requests.clone());
    let [ours, ours_told] = [(); 2].map(|()| chain.clone());
    let (mut merger, mut merger_told) = (Merger::new(), Merger::new());
    let merge = |merger: &mut Merger, chain: &Chain| {
        merger.merge(chain, 1).expect("equal headers need not be sent twice").chain
    };
    Contest {
        name: "merge equal groups of 64 requests",
        unit: "span",
        bytes: chain.bytes,
        cpu: Cpu::ThisThread,
        ours: Contender {
            name: "merge (checked before)",
            work: Box::new(move || merge(&mut merger, &ours).counts.items),
            outcome: Box::new(move || told_chain(&merge(&mut merger_told, &ours_told))),
        },
        theirs: Contender {
            name: "prost decode, regroup, encode",
            work: Box::new(move || regrouped(&theirs).0),
            outcome: Box::new(move || outcome(&decoded::<Traces>(&regrouped(&theirs_told).1))),
        },
        bar: Bar::None,
    }
}

fn merge_group(groups: &mut Vec<ResourceSpans>, group: ResourceSpans) {
    let is_equal = |own: &&mut ResourceSpans| {
        own.resource == group.resource && own.schema_url == group.schema_url
    };
    let Some(own) = groups.iter_mut().find(is_equal) else { return groups.push(group) };
    for scope in group.scope_spans {
        let is_equal =
            |own: &&mut ScopeSpans| own.scope == scope.scope && own.schema_url == scope.schema_url;
        match own.scope_spans.iter_mut().find(is_equal) {
            Some(own) => own.spans.extend(scope.spans),
            None => own.scope_spans.push(scope),
        }
    }
}

/// About 1 MiB of spans into 8 requests of as many items each.
fn splitting() -> Contest<'static> {
    const PIECE: usize = SPANS / 8;
    let bytes = mebibyte();
    let cut = |bytes: &Bytes| split(passed(Signal::Traces, bytes), PIECE as u64, 0);
    let regrouped = |bytes: &Bytes| -> Vec<Vec<u8>> {
        let mut pieces = Vec::new();
        for group in decoded::<Traces>(bytes).resource_spans {
            for ScopeSpans { scope, spans, schema_url } in group.scope_spans {
                let mut spans = spans.into_iter().peekable();
                while spans.peek().is_some() {
                    let spans = spans.by_ref().take(PIECE).collect();
                    let scope = scope.clone();
                    let scope_spans =
                        vec![ScopeSpans { scope, spans, schema_url: schema_url.clone() }];
                    let resource = group.resource.clone();
                    let schema_url = group.schema_url.clone();
                    let piece = ResourceSpans { resource, scope_spans, schema_url };
                    pieces.push(Traces { resource_spans: vec![piece] }.encode_to_vec());
                }
            }
        }
        pieces
    };
    let [ours, ours_told, theirs, theirs_told] = [(); 4].map(|()| bytes.clone());
    Contest {
        name: "check and split 1 MiB of spans into 8",
        unit: "piece",
        bytes: bytes.len() as u64,
        cpu: Cpu::ThisThread,
        ours: Contender {
            name: "check, split",
            work: Box::new(move || cut(&ours).len() as u64),
            outcome: Box::new(move || {
                let pieces = cut(&ours_told);
                let pieces: Vec<_> = pieces.iter().map(|piece| piece.parts.concat()).collect();
                told(pieces.len() as u64, &pieces)
            }),
        },
        theirs: Contender {
            name: "prost decode, regroup, encode",
            work: Box::new(move || regrouped(&theirs).len() as u64),
            outcome: Box::new(move || {
                let pieces = regrouped(&theirs_told);
                told(pieces.len() as u64, &pieces)
            }),
        },
        bar: Bar::Ratio(8.0),
    }
}

/// About 1 MiB of spans, each to the endpoint of its trace.
fn sharding() -> Contest<'static> {
    const SHARDS: usize = 8;
    let bytes = mebibyte();
    let cut = |bytes: &Bytes| -> Vec<(usize, Chain)> {
        let checked = passed(Signal::Traces, bytes);
        let parts = std::slice::from_ref(checked.bytes());
        let whole = [Part { parts, counts: checked.counts(), tenant: b"" }];
        let shards = split_by(Signal::Traces, &whole, Key::TraceId, SHARDS, stable_hash);
        shards.into_iter().map(|shard| (shard.index, shard.chain)).collect()
    };
    let regrouped = |bytes: &Bytes| -> Vec<(usize, Vec<u8>)> {
        let mut shards = vec![Traces::default(); SHARDS];
        for ResourceSpans { resource, scope_spans, schema_url } in
            decoded::<Traces>(bytes).resource_spans
        {
            for ScopeSpans { scope, spans, schema_url: scope_url } in scope_spans {
                let mut apart: [Vec<Span>; SHARDS] = Default::default();
                for span in spans {
                    apart[(stable_hash(&span.trace_id) % SHARDS as u64) as usize].push(span);
                }
                for (shard, spans) in shards.iter_mut().zip(apart) {
                    let (scope, schema_url) = (scope.clone(), schema_url.clone());
                    let scope_spans =
                        vec![ScopeSpans { scope, spans, schema_url: scope_url.clone() }];
                    let resource = resource.clone();
                    let group = ResourceSpans { resource, scope_spans, schema_url };
                    shard.resource_spans.push(group);
                }
            }
        }
        shards.iter().map(Traces::encode_to_vec).enumerate().collect()
    };
    let [ours, ours_told, theirs, theirs_told] = [(); 4].map(|()| bytes.clone());
    Contest {
        name: "split 1 MiB by trace id to 8",
        unit: "span",
        bytes: bytes.len() as u64,
        cpu: Cpu::ThisThread,
        ours: Contender {
            name: "check, split",
            work: Box::new(move || cut(&ours).iter().map(|(_, chain)| chain.counts.items).sum()),
            outcome: Box::new(move || {
                let shards = cut(&ours_told);
                assert!(shards.iter().map(|(index, _)| *index).eq(0..SHARDS));
                let pieces = shards.iter().map(|(_, chain)| chain.parts.concat());
                told(SPANS as u64, &pieces.collect::<Vec<_>>())
            }),
        },
        theirs: Contender {
            name: "prost decode, regroup, encode",
            work: Box::new(move || {
                let shards = std::hint::black_box(regrouped(&theirs));
                shards.len() as u64 * SPANS as u64 / SHARDS as u64
            }),
            outcome: Box::new(move || {
                let pieces = regrouped(&theirs_told).into_iter().map(|(_, piece)| piece);
                told(SPANS as u64, &pieces.collect::<Vec<_>>())
            }),
        },
        bar: Bar::Ratio(8.0),
    }
}

const SPANS: usize = 2_688;

fn mebibyte() -> Bytes {
    payloads::traces(5, SPANS).encode_to_vec().into()
}

/// All pieces in order; the hash sees where each begins.
fn told(count: u64, pieces: &[Vec<u8>]) -> Outcome {
    let pieces: Vec<Traces> = pieces.iter().map(|piece| decoded(piece)).collect();
    let delimited = pieces.iter().flat_map(|piece| piece.encode_length_delimited_to_vec());
    Outcome::of(count, &delimited.collect::<Vec<_>>())
}
