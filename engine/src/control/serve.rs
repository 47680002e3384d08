//! The control plane's HTTP servers: `/metrics`, `/ledger` and `/delivery` on one address, health
//! on another.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use super::View;
use super::{delivery, health, metrics};

/// Binds; the error names the address and what to do.
pub async fn bind(address: SocketAddr, what: &str, key: &str) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|error| {
        format!(
            "{what} can't listen on {address}: {error}\n  cost: forebay does not start\n  hint: end \
             the process that has this port, or change `{key}`"
        )
    })
}

/// Serves until the process ends.
pub async fn serve_metrics(listener: TcpListener, view: Arc<View>) -> std::io::Result<()> {
    let (ledger_view, delivery_view) = (view.clone(), view.clone());
    let router = Router::new()
        .route(
            "/metrics",
            get(async move || {
                let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
                (content_type, metrics::render(&view))
            }),
        )
        .route(
            "/ledger",
            get(async move || {
                let content_type = [(header::CONTENT_TYPE, "application/json")];
                (content_type, ledger_view.ledger.totals(&ledger_view.plan).to_json())
            }),
        )
        .route(
            "/delivery",
            get(async move || {
                let content_type = [(header::CONTENT_TYPE, "application/json")];
                (content_type, delivery::to_json(&delivery_view).to_string())
            }),
        );
    axum::serve(listener, router).await
}

/// Serves until the process ends.
pub async fn serve_health(listener: TcpListener, view: Arc<View>) -> std::io::Result<()> {
    let answer = async move || {
        let health = health::health(&view);
        let status = match health {
            Ok(()) => StatusCode::OK,
            Err(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        let body = health::body(&health, view.epoch.elapsed().as_secs());
        (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
    };
    axum::serve(listener, Router::new().fallback(get(answer))).await
}
