//! SDK exporters that hand each batch to both destinations and note what either refused.

use std::time::Duration;

use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogBatch, LogExporter};
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};

use crate::ledger::Ledger;

#[derive(Debug)]
pub struct Tee<E> {
    pub via: E,
    pub twin: E,
    pub ledger: Ledger,
}

impl<E> Tee<E> {
    /// The answer of the server under test is the answer; the twin's only has to be good.
    fn note(&self, signal: &str, via: OTelSdkResult, twin: OTelSdkResult) -> OTelSdkResult {
        for (name, result) in [("via", &via), ("twin", &twin)] {
            if let Err(error) = result {
                self.ledger.failed(format!("{signal} to {name}: {error}"));
            }
        }
        via
    }
}

impl<E: SpanExporter> SpanExporter for Tee<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let via = self.via.export(batch.clone()).await;
        let twin = self.twin.export(batch).await;
        self.note("traces", via, twin)
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.twin.shutdown_with_timeout(timeout)?;
        self.via.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.via.set_resource(resource);
        self.twin.set_resource(resource);
    }
}

impl<E: LogExporter> LogExporter for Tee<E> {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        let records: Vec<_> = batch.iter().collect();
        let via = self.via.export(LogBatch::new(&records)).await;
        let twin = self.twin.export(LogBatch::new(&records)).await;
        self.note("logs", via, twin)
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.twin.shutdown_with_timeout(timeout)?;
        self.via.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.via.set_resource(resource);
        self.twin.set_resource(resource);
    }
}

impl<E: PushMetricExporter> PushMetricExporter for Tee<E> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let via = self.via.export(metrics).await;
        let twin = self.twin.export(metrics).await;
        self.note("metrics", via, twin)
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.twin.shutdown_with_timeout(timeout)?;
        self.via.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.via.temporality()
    }
}
