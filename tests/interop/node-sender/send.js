/**
 * Sends traces, metrics and logs with the OpenTelemetry JavaScript SDK.
 *
 * Every export call goes out twice with the same SDK objects: to --via, the server under test, and
 * to --twin, a Collector that nothing stands before. What reached the two is compared elsewhere.
 * The ids of everything sent are written to --ledger, with every export that did not succeed.
 */

import { randomUUID } from "node:crypto";
import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";

import {
  ROOT_CONTEXT,
  SeverityNumber,
  SpanKind,
  SpanStatusCode,
  createTraceState,
  trace,
} from "@opentelemetry/api";
import { resourceFromAttributes } from "@opentelemetry/resources";
import { BatchLogRecordProcessor, LoggerProvider } from "@opentelemetry/sdk-logs";
import {
  AggregationType,
  MeterProvider,
  PeriodicExportingMetricReader,
} from "@opentelemetry/sdk-metrics";
import { BatchSpanProcessor, TracerProvider } from "@opentelemetry/sdk-trace";

// Where the SDK keeps its exporters: grpc, "http" (which is JSON) and proto.
const PACKAGES = { grpc: "grpc", "http-proto": "proto", "http-json": "http" };
const SIGNALS = {
  traces: { part: "trace", kind: "OTLPTraceExporter" },
  metrics: { part: "metrics", kind: "OTLPMetricExporter" },
  logs: { part: "logs", kind: "OTLPLogExporter" },
};
const SUCCESS = 0;
const START_MS = 1_790_000_000_000;

const resource = resourceFromAttributes({
  "service.name": "schleuse-anzeige",
  "service.namespace": "wasserstraße",
  "interop.cores": 2,
  "interop.load": 0.125,
  "interop.zones": ["a", "b"],
});

const { values: options } = parseArgs({
  options: {
    protocol: { type: "string" },
    compression: { type: "string", default: "none" },
    via: { type: "string" },
    twin: { type: "string" },
    count: { type: "string", default: "200" },
    batch: { type: "string", default: "64" },
    "timeout-s": { type: "string", default: "10" },
    ledger: { type: "string" },
  },
});
const count = Number(options.count);
const batch = {
  maxQueueSize: count * 2 + 64,
  maxExportBatchSize: Number(options.batch),
  scheduledDelayMillis: 50,
};
const ids = { traces: [], metrics: [], logs: [] };
const failures = [];

await sendTraces();
await sendMetrics();
await sendLogs();
writeFileSync(options.ledger, JSON.stringify({ sender: "node-sdk", ids, failures }));

async function sendTraces() {
  const exporter = await tee("traces");
  const provider = new TracerProvider({
    resource,
    spanProcessors: [new BatchSpanProcessor({ exporter, ...batch })],
  });
  const tracers = [
    provider.getTracer("interop.locks", "0.9.0", {
      schemaUrl: "https://opentelemetry.io/schemas/1.30.0",
    }),
    provider.getTracer("interop.lamps"),
  ];
  for (let number = 0; number < count; number += 1) oneSpan(tracers[number % 2], number);
  await provider.forceFlush();
  await provider.shutdown();
}

function oneSpan(tracer, number) {
  const remote = {
    traceId: "5b8efff798038103d269b633813fc60c",
    spanId: "eee19b7ec3c1b174",
    traceFlags: 1,
    isRemote: true,
    traceState: createTraceState("schleuse=hoch,forebay=2"),
  };
  const parent = number % 3 === 0 ? trace.setSpanContext(ROOT_CONTEXT, remote) : ROOT_CONTEXT;
  const kinds = [
    SpanKind.INTERNAL,
    SpanKind.SERVER,
    SpanKind.CLIENT,
    SpanKind.PRODUCER,
    SpanKind.CONSUMER,
  ];
  const span = tracer.startSpan(
    `Schleuse ${number % 5} füllen 🚢`,
    {
      kind: kinds[number % kinds.length],
      startTime: START_MS + number + 0.25,
      attributes: { "interop.id": take("traces"), ...scalars(number) },
      links: number % 5 === 0 ? [{ context: remote, attributes: { why: "Schleppzug" } }] : [],
    },
    parent,
  );
  if (number % 2 === 0) span.addEvent("gefüllt", { level: number / 7 }, START_MS + number + 1);
  if (number % 4 === 0) span.recordException(new RangeError("Tor klemmt"), START_MS + number + 2);
  if (number % 4 === 1) span.setStatus({ code: SpanStatusCode.ERROR, message: "満水" });
  if (number % 4 === 2) span.setStatus({ code: SpanStatusCode.OK });
  span.end(START_MS + number + 3);
}

async function sendMetrics() {
  const exporter = await tee("metrics");
  const reader = new PeriodicExportingMetricReader({
    exporter,
    exportIntervalMillis: 3_600_000,
    exportTimeoutMillis: 30_000,
  });
  const provider = new MeterProvider({
    resource,
    readers: [reader],
    views: [
      {
        instrumentName: "lock.flow",
        aggregation: { type: AggregationType.EXPONENTIAL_HISTOGRAM, options: { maxSize: 30 } },
      },
    ],
  });
  const meter = provider.getMeter("interop.meters", "2.0");
  const made = [
    meter.createCounter("lock.fills", { unit: "1", description: "how often a lock was filled" }),
    meter.createUpDownCounter("ships.waiting", { description: "Schiffe, die warten" }),
    meter.createHistogram("lock.wait", { unit: "s" }),
    meter.createHistogram("lock.flow", { unit: "m3" }),
    meter.createGauge("water.level", { unit: "cm" }),
  ];
  const observed = [take("metrics"), take("metrics")];
  meter.createObservableGauge("lamp.current").addCallback((result) => {
    observed.forEach((id, n) => result.observe(n + 0.5, { "interop.id": id }));
  });
  for (let number = 0; number < count; number += 1) {
    const attributes = { "interop.id": take("metrics"), number, even: number % 2 === 0 };
    const instrument = made[number % made.length];
    const value = ((number * 37) % 1000) / 8;
    for (const act of ["add", "record"]) instrument[act]?.(value, attributes);
  }
  await provider.forceFlush();
  await provider.shutdown();
}

async function sendLogs() {
  const exporter = await tee("logs");
  const provider = new LoggerProvider({
    resource,
    processors: [new BatchLogRecordProcessor({ exporter, ...batch })],
  });
  const logger = provider.getLogger("interop.logs", "1.0");
  const bodies = [
    "Schiff vor Tor 🛳",
    { a: { b: ["c", 1, 2.5, { d: true }] } },
    ["gemischt", 7, false],
    new Uint8Array([0, 255, 16]),
    42,
    0.1,
  ];
  for (let number = 0; number < count; number += 1) {
    const severityNumber = (number % SeverityNumber.FATAL4) + 1;
    logger.emit({
      timestamp: START_MS + number,
      observedTimestamp: START_MS + number + 9,
      severityNumber,
      severityText: SeverityNumber[severityNumber],
      body: bodies[number % bodies.length],
      eventName: number % 3 === 0 ? "lock.event" : undefined,
      attributes: {
        "interop.id": take("logs"),
        ...scalars(number),
        map: { leaf: ["ä", 1], n: number },
        blob: new Uint8Array([1, 2, 254]),
      },
    });
  }
  await provider.forceFlush();
  await provider.shutdown();
}

function scalars(number) {
  return {
    text: `Zeile ${number}\t"quoted" \\ / \u2028`,
    empty: "",
    "int.safe": Number.MAX_SAFE_INTEGER,
    "int.negative": -number,
    real: number * 0.1,
    tiny: 5e-324,
    yes: number % 2 === 0,
    texts: ["a", "", "ß"],
    long: "x".repeat(number % 400),
  };
}

function take(signal) {
  const id = randomUUID();
  ids[signal].push(id);
  return id;
}

/** An SDK exporter that hands each batch to both destinations and notes what either refused. */
async function tee(signal) {
  const both = {
    via: await sdkExporter(signal, options.via),
    twin: await sdkExporter(signal, options.twin),
  };
  const all = (act) => Promise.all(Object.values(both).map((exporter) => exporter[act]()));
  return {
    export(items, done) {
      const sent = Object.entries(both).map(
        ([name, exporter]) =>
          new Promise((resolve) => {
            exporter.export(items, (result) => {
              if (result.code !== SUCCESS) failures.push(`${signal} to ${name}: ${result.error}`);
              resolve(result);
            });
          }),
      );
      Promise.all(sent).then(([viaResult]) => done(viaResult));
    },
    forceFlush: () => all("forceFlush"),
    shutdown: () => all("shutdown"),
  };
}

async function sdkExporter(signal, baseUrl) {
  const { part, kind } = SIGNALS[signal];
  const module = `@opentelemetry/exporter-${part}-otlp-${PACKAGES[options.protocol]}`;
  const Exporter = (await import(module))[kind];
  return new Exporter({
    url: options.protocol === "grpc" ? baseUrl : `${baseUrl}/v1/${signal}`,
    compression: options.compression,
    timeoutMillis: Number(options["timeout-s"]) * 1000,
    // A flush exports all its batches at once; by default the SDK gives up on the 31st.
    concurrencyLimit: count + 1,
  });
}
