//! Requests in the shapes that the specification's examples show, one for each signal.

use crate::signal::Signal;

pub(super) const ALL: [(Signal, &str); 4] = [
    (Signal::Traces, TRACES),
    (Signal::Metrics, METRICS),
    (Signal::Logs, LOGS),
    (Signal::Profiles, PROFILES),
];

const TRACES: &str = r#"{
  "resourceSpans": [
    {
      "resource": {
        "attributes": [
          { "key": "service.name", "value": { "stringValue": "ticket.counter" } }
        ]
      },
      "scopeSpans": [
        {
          "scope": {
            "name": "ticket.tracer",
            "version": "2.1.0",
            "attributes": [
              { "key": "tracer.region", "value": { "stringValue": "north" } }
            ]
          },
          "spans": [
            {
              "traceId": "0AF7651916CD43DD8448EB211C80319C",
              "spanId": "B7AD6B7169203331",
              "parentSpanId": "00F067AA0BA902B7",
              "flags": 1,
              "name": "sell a ticket \u2602",
              "kind": 2,
              "startTimeUnixNano": "1760000000000000000",
              "endTimeUnixNano": "1760000001000000000",
              "attributes": [
                { "key": "ticket.class", "value": { "stringValue": "second \"quiet\"" } },
                { "key": "ticket.count", "value": { "intValue": "-4" } },
                { "key": "ticket.paid", "value": { "boolValue": true } },
                { "key": "ticket.price", "value": { "doubleValue": 49.9 } },
                { "key": "ticket.seats", "value": { "arrayValue": { "values": [
                  { "stringValue": "12a" }, { "intValue": "13" } ] } } },
                { "key": "ticket.train", "value": { "kvlistValue": { "values": [
                  { "key": "number", "value": { "stringValue": "ICE 9" } } ] } } },
                { "key": "ticket.code", "value": { "bytesValue": "AAEC/w==" } }
              ],
              "events": [
                { "timeUnixNano": "1760000000500000000", "name": "paid" }
              ],
              "links": [
                {
                  "traceId": "5b8efff798038103d269b633813fc60c",
                  "spanId": "eee19b7ec3c1b174",
                  "traceState": "a=1"
                }
              ],
              "status": { "message": "", "code": 1 }
            }
          ],
          "schemaUrl": "https://example.org/schemas/1.0.0"
        }
      ]
    }
  ]
}"#;

const METRICS: &str = r#"{
  "resourceMetrics": [
    {
      "resource": {
        "attributes": [
          { "key": "service.name", "value": { "stringValue": "ticket.counter" } }
        ]
      },
      "scopeMetrics": [
        {
          "scope": { "name": "ticket.meter", "version": "2.1.0" },
          "metrics": [
            {
              "name": "tickets.sold",
              "unit": "1",
              "description": "Tickets sold since the counter opened",
              "sum": {
                "aggregationTemporality": 1,
                "isMonotonic": true,
                "dataPoints": [
                  {
                    "asDouble": 5.5,
                    "startTimeUnixNano": "1760000000000000000",
                    "timeUnixNano": "1760000060000000000",
                    "attributes": [
                      { "key": "class", "value": { "stringValue": "first" } }
                    ]
                  }
                ]
              }
            },
            {
              "name": "queue.length",
              "unit": "1",
              "gauge": {
                "dataPoints": [
                  {
                    "asInt": "-10",
                    "timeUnixNano": "1760000060000000000",
                    "exemplars": [
                      {
                        "timeUnixNano": "1760000030000000000",
                        "asInt": "3",
                        "spanId": "eee19b7ec3c1b174",
                        "traceId": "5b8efff798038103d269b633813fc60c"
                      }
                    ]
                  }
                ]
              }
            },
            {
              "name": "sale.duration",
              "unit": "s",
              "histogram": {
                "aggregationTemporality": 2,
                "dataPoints": [
                  {
                    "startTimeUnixNano": "1760000000000000000",
                    "timeUnixNano": "1760000060000000000",
                    "count": "2",
                    "sum": 2.25,
                    "bucketCounts": ["1", "1"],
                    "explicitBounds": [1.5],
                    "min": 0.25,
                    "max": 2.125
                  }
                ]
              }
            },
            {
              "name": "walk.distance",
              "unit": "m",
              "exponentialHistogram": {
                "aggregationTemporality": 1,
                "dataPoints": [
                  {
                    "startTimeUnixNano": "1760000000000000000",
                    "timeUnixNano": "1760000060000000000",
                    "count": "3",
                    "sum": 10.5,
                    "scale": -1,
                    "zeroCount": "1",
                    "positive": { "offset": 1, "bucketCounts": ["0", "2"] },
                    "negative": { "offset": -3 },
                    "zeroThreshold": 1e-12
                  }
                ]
              }
            },
            {
              "name": "wait.time",
              "unit": "s",
              "summary": {
                "dataPoints": [
                  {
                    "timeUnixNano": "1760000060000000000",
                    "count": "7",
                    "sum": 21.5,
                    "quantileValues": [ { "quantile": 0.5, "value": 3.25 } ]
                  }
                ]
              }
            }
          ]
        }
      ]
    }
  ]
}"#;

const LOGS: &str = r#"{
  "resourceLogs": [
    {
      "resource": {
        "attributes": [
          { "key": "service.name", "value": { "stringValue": "ticket.counter" } }
        ],
        "droppedAttributesCount": 1
      },
      "scopeLogs": [
        {
          "scope": { "name": "ticket.logger", "version": "2.1.0" },
          "logRecords": [
            {
              "timeUnixNano": "1760000000300000000",
              "observedTimeUnixNano": "1760000000400000000",
              "severityNumber": 10,
              "severityText": "Information",
              "traceId": "5B8EFFF798038103D269B633813FC60C",
              "spanId": "EEE19B7EC3C1B174",
              "body": { "stringValue": "line one\nline two\ttabbed" },
              "attributes": [
                { "key": "thread", "value": { "intValue": "9007199254740993" } }
              ],
              "flags": 1,
              "eventName": "sold"
            },
            { "body": { "kvlistValue": { "values": [ { "key": "k", "value": {} } ] } } }
          ]
        }
      ]
    }
  ]
}"#;

const PROFILES: &str = r#"{
  "resourceProfiles": [
    {
      "resource": {},
      "scopeProfiles": [
        {
          "profiles": [
            {
              "sampleType": { "typeStrindex": 1, "unitStrindex": 2 },
              "samples": [
                {
                  "stackIndex": 1,
                  "values": ["10", "-20"],
                  "attributeIndices": [1, 2],
                  "timestampsUnixNano": ["1760000000300000000"]
                }
              ],
              "timeUnixNano": "1760000000000000000",
              "durationNano": "60000000000",
              "period": "-1",
              "profileId": "AAECAwQFBgcICQoLDA0ODw=="
            }
          ]
        }
      ]
    }
  ],
  "dictionary": {
    "mappingTable": [ { "memoryStart": "4096", "filenameStrindex": 3 } ],
    "locationTable": [ { "mappingIndex": 1, "lines": [ { "functionIndex": 1, "line": "7" } ] } ],
    "functionTable": [ { "nameStrindex": 4, "startLine": "1" } ],
    "linkTable": [ { "traceId": "5b8efff798038103d269b633813fc60c" } ],
    "stringTable": ["", "cpu", "nanoseconds", "a.out", "main"],
    "attributeTable": [ { "keyStrindex": 1, "value": { "stringValueStrindex": 2 } } ],
    "stackTable": [ { "locationIndices": [1] } ]
  }
}"#;
