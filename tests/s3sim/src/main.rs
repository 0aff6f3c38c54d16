//! The endpoint as a program: says where it listens, and ends on SIGTERM or SIGINT.

use std::io::Write;
use std::path::PathBuf;

use clap::Parser;
use s3sim::{Options, S3Sim};
use tokio::signal::unix::{SignalKind, signal};

/// An S3 endpoint for tests, on the loopback interface.
#[derive(Debug, Parser)]
#[command(name = "s3sim")]
struct Arguments {
    /// Port of the endpoint; 0 takes a free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Bucket that is there from the start; may be repeated
    #[arg(long)]
    bucket: Vec<String>,
    /// Write objects through to plain files in this folder, and begin with what it holds
    #[arg(long)]
    folder: Option<PathBuf>,
    /// What tags are made of: md5, as S3 does, or fast
    #[arg(long, default_value = "md5", value_parser = ["md5", "fast"])]
    etag: String,
    /// Keep only the lengths of what is written
    #[arg(long)]
    discard: bool,
    /// Region to be in
    #[arg(long, default_value = "us-east-1")]
    region: String,
}

fn main() -> std::io::Result<()> {
    let arguments = Arguments::parse();
    let sim = S3Sim::start(Options {
        port: arguments.port,
        buckets: arguments.bucket,
        folder: arguments.folder,
        fast_etags: arguments.etag == "fast",
        discard: arguments.discard,
        region: arguments.region,
    })?;
    println!("endpoint={} control={}", sim.url(), sim.control_url());
    std::io::stdout().flush()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    })
}
