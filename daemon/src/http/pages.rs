//! What the four pages say.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::readiness::Readiness;
use crate::metrics::Metrics;

/// Where the pages get what they say.
#[derive(Clone)]
pub struct Pages {
    /// For `/metrics`.
    pub metrics: Arc<Metrics>,
    /// For `/ready`.
    pub readiness: Arc<Readiness>,
    /// For `/status`: any JSON object, made anew for each request.
    pub status: Arc<dyn Fn() -> Value + Send + Sync>,
}

impl Pages {
    /// Returns the routes.
    pub(super) fn routes(self) -> Router {
        Router::new()
            .route("/metrics", get(metrics))
            .route("/live", get(|| async { "live\n" }))
            .route("/ready", get(ready))
            .route("/status", get(status))
            .with_state(self)
    }
}

async fn metrics(State(pages): State<Pages>) -> Response {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, pages.metrics.render()).into_response()
}

async fn ready(State(pages): State<Pages>) -> Response {
    let reasons: Vec<Value> = pages
        .readiness
        .reasons()
        .into_iter()
        .map(|(what, text)| json!({ "reason": what.name(), "text": text }))
        .collect();
    let code = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(json!({ "ready": reasons.is_empty(), "reasons": reasons }))).into_response()
}

async fn status(State(pages): State<Pages>) -> Response {
    Json((pages.status)()).into_response()
}
