//! The numbers for Prometheus: a tiny HTTP server that answers `GET /metrics` in the OpenMetrics text format.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::metrics::{
    ByKind, Derived, HistogramSnapshot, Metrics, PriceTable, RequestKind, Snapshot, estimate_usd, snake_case,
};

/// A client that sends nothing for so long is let go.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// Clients that are served at the same time; others wait.
const CONNECTIONS_MAX: usize = 16;
/// The content type of OpenMetrics text.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What each line carries.
#[derive(Clone, Debug)]
pub struct Labels {
    /// The bucket.
    pub bucket: String,
    /// The mount's name.
    pub mount: String,
}

/// The server; it ends when dropped.
#[derive(Debug)]
pub struct PrometheusServer {
    /// Where it listens.
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl PrometheusServer {
    /// Ends; the address is free when this returns.
    pub async fn stop(mut self) {
        self.task.abort();
        // Cancelled, as it was meant to be.
        let _ = (&mut self.task).await;
    }
}

impl Drop for PrometheusServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads the numbers out whenever somebody asks.
#[derive(Debug)]
struct Numbers {
    metrics: Arc<Metrics>,
    prices: Arc<PriceTable>,
    clock: Clock,
}

impl Collector for Numbers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let snapshot = self.metrics.snapshot();
        let age = snapshot.dirty_age(self.clock.now());
        numbers(&mut encoder, &snapshot, age, &self.prices)
    }
}

fn numbers(
    encoder: &mut DescriptorEncoder<'_>,
    snapshot: &Snapshot,
    age: Duration,
    prices: &PriceTable,
) -> fmt::Result {
    for (counter, value) in &snapshot.counters {
        let (name, help) = (snake_case(counter.name()), counter.meaning());
        let mut out = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
        out.encode_counter::<NoLabelSet, _, u64>(value, None)?;
    }
    for (gauge, value) in &snapshot.gauges {
        let (name, help) = (snake_case(gauge.name()), gauge.meaning());
        encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?.encode_gauge(value)?;
    }
    for (what, by_kind) in [(ByKind::Requests, &snapshot.requests), (ByKind::Errors, &snapshot.errors)] {
        let name = snake_case(what.name());
        let mut out = encoder.encode_descriptor(&name, what.meaning(), None, MetricType::Counter)?;
        for (kind, value) in by_kind {
            let label = [("operation", RequestKind::name(*kind))];
            out.encode_family(&label)?.encode_counter::<NoLabelSet, _, u64>(value, None)?;
        }
    }
    for (latency, histogram) in &snapshot.latencies {
        let name = format!("{}_seconds", snake_case(latency.name()));
        let mut out = encoder.encode_descriptor(&name, latency.meaning(), None, MetricType::Histogram)?;
        out.encode_histogram::<NoLabelSet>(histogram.sum.as_secs_f64(), histogram.count, &buckets(histogram), None)?;
    }
    let help = Derived::OldestDirtySeconds.meaning();
    let name = snake_case(Derived::OldestDirtySeconds.name());
    encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?.encode_gauge(&age.as_secs_f64())?;
    let name = format!("{}_usd", snake_case(Derived::EstimatedCost.name()));
    let usd = estimate_usd(snapshot, prices);
    let mut out = encoder.encode_descriptor(&name, Derived::EstimatedCost.meaning(), None, MetricType::Counter)?;
    out.encode_counter::<NoLabelSet, _, u64>(&usd, None)
}

/// Every eighth end of a bucket is told (they then double, roughly), for each is a series to Prometheus.
fn buckets(histogram: &HistogramSnapshot) -> Vec<(f64, u64)> {
    const EVERY: usize = 8;
    let end = |bucket| HistogramSnapshot::bucket_end(bucket).as_secs_f64();
    let chunks = histogram.buckets.chunks(EVERY).enumerate();
    let last = histogram.buckets.len() - 1;
    let told = chunks.map(|(number, counts)| {
        let bucket = number * EVERY + counts.len() - 1;
        // The last bucket is open: it has everything that took longer.
        (if bucket == last { f64::INFINITY } else { end(bucket) }, counts.iter().sum())
    });
    told.collect()
}

/// Serves the numbers at `address`.
///
/// # Errors
/// It cannot be listened on.
pub async fn serve(
    address: SocketAddr,
    (metrics, prices): (Arc<Metrics>, Arc<PriceTable>),
    clock: Clock,
    labels: Labels,
) -> io::Result<PrometheusServer> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    let labels = [("bucket".into(), labels.bucket.into()), ("mount".into(), labels.mount.into())];
    let mut registry = Registry::with_prefix_and_labels("s3mount", labels.into_iter());
    registry.register_collector(Box::new(Numbers { metrics, prices, clock }));
    let task = tokio::spawn(accept(listener, Arc::new(registry)));
    tracing::info!(%address, "numbers for Prometheus");
    Ok(PrometheusServer { address, task })
}

async fn accept(listener: TcpListener, registry: Arc<Registry>) {
    let places = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors: it passes, or it does not.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let registry = Arc::clone(&registry);
        tokio::spawn(async move {
            let _place = place;
            let service = service_fn(|request| {
                let response = answer(&request, &registry);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            // Who scrapes every minute connects anew: nothing is kept for it.
            let _ = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await;
        });
    }
}

fn answer(request: &Request<Incoming>, registry: &Registry) -> Response<Full<Bytes>> {
    let text = |status, text: &str| {
        let mut response = Response::new(Full::new(Bytes::from(text.to_owned())));
        *response.status_mut() = status;
        response
    };
    if request.uri().path() != "/metrics" {
        return text(StatusCode::NOT_FOUND, "the numbers are at /metrics\n");
    }
    if request.method() != Method::GET {
        return text(StatusCode::METHOD_NOT_ALLOWED, "GET alone\n");
    }
    let mut body = String::new();
    if let Err(error) = encode(&mut body, registry) {
        tracing::debug!(%error, "numbers for Prometheus");
        return text(StatusCode::INTERNAL_SERVER_ERROR, "the numbers cannot be written\n");
    }
    let mut response = Response::new(Full::new(Bytes::from(body)));
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static(CONTENT_TYPE));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::metrics::{Counter, Latency};

    async fn get(server: &PrometheusServer, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(server.address).await.expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("it answers");
        answer
    }

    #[tokio::test]
    async fn numbers_are_answered_with_their_labels() {
        let metrics = Arc::new(Metrics::default());
        metrics.add(Counter::BytesRead, 77);
        metrics.request(RequestKind::Get);
        metrics.observe(Latency::Read, Duration::from_millis(30));
        metrics.observe(Latency::Read, Duration::from_secs(500));
        let labels = Labels { bucket: "b".into(), mount: "/mnt".into() };
        let address = "127.0.0.1:0".parse().expect("an address");
        let server = serve(address, (metrics, Arc::default()), Clock::system(), labels).await.expect("a free port");
        let text = get(&server, "/metrics").await;
        for line in [
            "s3mount_bytes_read_total{bucket=\"b\",mount=\"/mnt\"} 77\n",
            "s3mount_s3_requests_total{bucket=\"b\",mount=\"/mnt\",operation=\"GetObject\"} 1\n",
            "s3mount_read_latency_seconds_count{bucket=\"b\",mount=\"/mnt\"} 2\n",
            "s3mount_read_latency_seconds_sum{bucket=\"b\",mount=\"/mnt\"} 500.03\n",
            "s3mount_read_latency_seconds_bucket{bucket=\"b\",mount=\"/mnt\",le=\"+Inf\"} 2\n",
            "s3mount_oldest_dirty_seconds{bucket=\"b\",mount=\"/mnt\"} 0.0\n",
            "# EOF\n",
        ] {
            assert!(text.contains(line), "{line}in\n{text}");
        }
        assert!(text.contains("openmetrics-text"));
        assert!(get(&server, "/").await.starts_with("HTTP/1.1 404"));
    }

    #[test]
    fn buckets_rise_and_hold_everything() {
        let metrics = Metrics::default();
        (1..2000).for_each(|ms| metrics.observe(Latency::Write, Duration::from_millis(ms)));
        let snapshot = metrics.snapshot();
        let (_, write) = snapshot.latencies.iter().find(|(it, _)| *it == Latency::Write).expect("it is there");
        let buckets = buckets(write);
        assert!(buckets.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert_eq!(buckets.iter().map(|(_, count)| count).sum::<u64>(), 1999);
    }
}
