//! The codec beside its library counterparts: check, splice, split, JSON, compression.
//!
//! `cargo bench -p forebay-bench --bench codec` prints one line a contest: the two costs, their
//! ratio, the bar that forebay sets itself, and what both came to.

mod cutting;
mod json;
mod payloads;
mod timing;

use std::io::{Read, Write};
use std::process::ExitCode;

use bytes::Bytes;
use forebay_codec::check::{Checked, check};
use forebay_codec::compress::{Compressor, Decompressor, Encoding};
use forebay_codec::signal::Signal;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest as Logs;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest as Metrics;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest as Traces;
use prost::Message;

use timing::{Bar, Contender, Contest, Cpu, Outcome, Session};

fn main() -> ExitCode {
    let mut session = Session::start("The codec");
    let traces = payloads::traces(1, 100);
    let logs = payloads::logs(2, 512);
    let metrics = payloads::histograms(3, 100);
    let one = payloads::traces(4, 1);
    session.run(checking("check 100 spans", "span", Signal::Traces, &traces, Bar::Ratio(12.0)));
    session.run(checking("check 512 logs", "record", Signal::Logs, &logs, Bar::Ratio(10.0)));
    let bar = Bar::Ratio(10.0);
    session.run(checking("check 100 histograms", "point", Signal::Metrics, &metrics, bar));
    session.run(checking("check 1 span", "span", Signal::Traces, &one, Bar::Nanos(160.0)));
    cutting::contests(&mut session);
    json::contests(&mut session, &traces, &logs, &metrics);
    compression(&mut session, &traces.encode_to_vec());
    session.finish()
}

/// An export request in the form that the libraries know, to tell what a result means.
trait Request: Message + Default + serde::Serialize + for<'a> serde::Deserialize<'a> {
    fn items(&self) -> u64;
}

impl Request for Traces {
    fn items(&self) -> u64 {
        let scopes = self.resource_spans.iter().flat_map(|group| &group.scope_spans);
        scopes.map(|scope| scope.spans.len() as u64).sum()
    }
}

impl Request for Logs {
    fn items(&self) -> u64 {
        let scopes = self.resource_logs.iter().flat_map(|group| &group.scope_logs);
        scopes.map(|scope| scope.log_records.len() as u64).sum()
    }
}

impl Request for Metrics {
    /// Of metrics with one point each, as these are.
    fn items(&self) -> u64 {
        let scopes = self.resource_metrics.iter().flat_map(|group| &group.scope_metrics);
        scopes.map(|scope| scope.metrics.len() as u64).sum()
    }
}

fn decoded<R: Request>(bytes: &[u8]) -> R {
    R::decode(bytes).expect("prost reads what prost wrote, and what check has passed")
}

fn outcome<R: Request>(request: &R) -> Outcome {
    Outcome::of(request.items(), &request.encode_to_vec())
}

fn passed(signal: Signal, bytes: &Bytes) -> Checked {
    check(signal, bytes.clone()).expect("prost wrote a valid request")
}

fn checking<R: Request>(
    name: &'static str,
    unit: &'static str,
    signal: Signal,
    request: &R,
    bar: Bar,
) -> Contest<'static> {
    let bytes = Bytes::from(request.encode_to_vec());
    let [ours, ours_told, theirs, theirs_told] = [(); 4].map(|()| bytes.clone());
    Contest {
        name,
        unit,
        bytes: bytes.len() as u64,
        cpu: Cpu::ThisThread,
        ours: Contender {
            name: "check",
            work: Box::new(move || passed(signal, &ours).counts().items),
            outcome: Box::new(move || {
                let checked = passed(signal, &ours_told);
                let told = outcome(&decoded::<R>(checked.bytes()));
                Outcome { count: checked.counts().items, ..told }
            }),
        },
        theirs: Contender {
            name: "prost decode",
            work: Box::new(move || decoded::<R>(&theirs).items()),
            outcome: Box::new(move || outcome(&decoded::<R>(&theirs_told))),
        },
        bar,
    }
}

fn compression(session: &mut Session, bytes: &[u8]) {
    const BYTES_MAX: usize = 64 << 20;
    let chain: Vec<Bytes> = bytes.chunks(4_000).map(Bytes::copy_from_slice).collect();
    let input = bytes.len() as u64;
    let gzip = |chain: &[Bytes]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
        chain.iter().for_each(|part| encoder.write_all(part).expect("to memory"));
        encoder.finish().expect("to memory")
    };
    let zstd = |chain: &[Bytes]| {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).expect("level 3 exists");
        chain.iter().for_each(|part| encoder.write_all(part).expect("to memory"));
        encoder.finish().expect("to memory")
    };
    for (name, encoding, packed) in [
        ("gzip in, 100 spans", Encoding::Gzip, gzip(&chain)),
        ("zstd in, 100 spans", Encoding::Zstd, zstd(&chain)),
    ] {
        let unpack = |decompressor: &mut Decompressor| {
            decompressor.decompress(encoding, &packed, BYTES_MAX).expect("the library packed it")
        };
        let (mut ours, mut ours_told) = (Decompressor::new(), Decompressor::new());
        let (mut theirs, mut theirs_told) = (Unpacker::new(encoding), Unpacker::new(encoding));
        session.run(Contest {
            name,
            unit: "byte",
            bytes: input,
            cpu: Cpu::ThisThread,
            ours: Contender {
                name: "Decompressor",
                work: Box::new(|| unpack(&mut ours).len() as u64),
                outcome: Box::new(|| {
                    let bytes = unpack(&mut ours_told);
                    Outcome::of(bytes.len() as u64, &bytes)
                }),
            },
            theirs: Contender {
                name: if encoding == Encoding::Gzip { "libdeflate" } else { "zstd bulk" },
                work: Box::new(|| theirs.unpack(&packed, bytes.len()).len() as u64),
                outcome: Box::new(|| {
                    let bytes = theirs_told.unpack(&packed, bytes.len());
                    Outcome::of(bytes.len() as u64, &bytes)
                }),
            },
            // The libraries are told the size before, which we must guess.
            bar: if encoding == Encoding::Gzip { Bar::Ratio(1.0) } else { Bar::None },
        });
    }
    let (mut ours, mut ours_told) = (Compressor::new(), Compressor::new());
    let pack = |compressor: &mut Compressor, encoding| {
        compressor.compress(encoding, None, &chain).expect("the usual level")
    };
    for encoding in [Encoding::Gzip, Encoding::Zstd] {
        let is_gzip = encoding == Encoding::Gzip;
        let library = |chain: &[Bytes]| if is_gzip { gzip(chain) } else { zstd(chain) };
        // Two encoders of one format need not write the same bytes; what comes out must be one.
        let told = |packed: &[u8]| {
            let mut bytes = Vec::new();
            match is_gzip {
                true => flate2::read::GzDecoder::new(packed).read_to_end(&mut bytes),
                false => zstd::stream::read::Decoder::new(packed)
                    .and_then(|mut decoder| decoder.read_to_end(&mut bytes)),
            }
            .expect("what was packed can be unpacked");
            Outcome::of(bytes.len() as u64, &bytes)
        };
        let packed_told = pack(&mut ours_told, encoding);
        let sizes = (packed_told.len(), library(&chain).len());
        assert!(sizes.0 * 10 <= sizes.1 * 11, "{encoding}: larger than the library's: {sizes:?}");
        session.run(Contest {
            name: if is_gzip {
                "gzip out, 100 spans in 10 parts"
            } else {
                "zstd out, 100 spans in 10 parts"
            },
            unit: "byte",
            bytes: input,
            cpu: Cpu::ThisThread,
            ours: Contender {
                name: "Compressor",
                work: Box::new(|| {
                    std::hint::black_box(pack(&mut ours, encoding));
                    input
                }),
                outcome: Box::new(|| told(&packed_told)),
            },
            theirs: Contender {
                name: if is_gzip { "flate2 on zlib-rs, level 6" } else { "zstd stream, level 3" },
                work: Box::new(|| {
                    std::hint::black_box(library(&chain));
                    input
                }),
                outcome: Box::new(|| told(&library(&chain))),
            },
            bar: Bar::None,
        });
    }
}

/// The decoders of the libraries, kept between calls, as those that use them well do.
enum Unpacker {
    Gzip(libdeflater::Decompressor),
    Zstd(zstd::bulk::Decompressor<'static>),
}

impl Unpacker {
    fn new(encoding: Encoding) -> Unpacker {
        match encoding {
            Encoding::Gzip => Unpacker::Gzip(libdeflater::Decompressor::new()),
            _ => Unpacker::Zstd(zstd::bulk::Decompressor::new().expect("memory for a decoder")),
        }
    }

    /// `size` is that of the output, which these must be told.
    fn unpack(&mut self, packed: &[u8], size: usize) -> Vec<u8> {
        match self {
            Unpacker::Gzip(libdeflate) => {
                let mut output = vec![0; size];
                let written = libdeflate.gzip_decompress(packed, &mut output);
                assert_eq!(written, Ok(size));
                output
            }
            Unpacker::Zstd(zstd) => zstd.decompress(packed, size).expect("it packed it"),
        }
    }
}
