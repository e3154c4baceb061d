//! Thousands of simulated agents over real TLS sessions against one real coordinator, on loopback: what they
//! cost when nothing happens, and how soon all are back after the coordinator was killed.
//!
//! `bench_fleet [--agents N] [--quiet SECONDS] [--rounds N] [--away SECONDS]`; the coordinator's program is `BERTH_COORDINATOR`.
#![allow(clippy::print_stdout, reason = "what it measures goes to the terminal")]

mod agent;
mod coordinator;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use futures_util::StreamExt;

use agent::{Agent, Tally};
use coordinator::{Coordinator, Usage};

#[derive(Parser)]
struct Options {
    /// Simulated agents, in this one process
    #[arg(long, default_value_t = 10_000)]
    agents: usize,
    /// How long the quiet fleet is looked at, in seconds
    #[arg(long, default_value_t = 30)]
    quiet: u64,
    /// How often the coordinator is killed
    #[arg(long, default_value_t = 2)]
    rounds: usize,
    /// How long it is away each time, in seconds
    #[arg(long, default_value_t = 0)]
    away: u64,
}

/// Joins at a time.
const JOINING: usize = 64;
/// Longest time for all to be there.
const PATIENCE: Duration = Duration::from_secs(300);

fn main() -> Result<()> {
    let options = Options::parse();
    let _ = rustls::crypto::ring::default_provider().install_default();
    coordinator::allow_files()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(bench(&options))
}

async fn bench(options: &Options) -> Result<()> {
    let wanted = options.agents;
    let mut coordinator = Coordinator::start(wanted).await?;
    let alone = coordinator.usage()?;
    let began = Instant::now();
    let agents = join(&coordinator, wanted).await?;
    println!(
        "{wanted} agents joined in {:.1} s",
        began.elapsed().as_secs_f64()
    );

    let tally = Arc::new(Tally::default());
    let began = Instant::now();
    for agent in agents {
        tokio::spawn(agent.run(Arc::clone(&tally)));
    }
    all(&tally, wanted).await?;
    // As after a power cut of the whole site: nothing has told them to take their time.
    println!(
        "all began at once: their sessions are open after {:.1} s and {} attempts",
        began.elapsed().as_secs_f64(),
        tally.attempts.load(Ordering::SeqCst)
    );

    // First heartbeats, and what was to be written of them, are over.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let quiet = over(&coordinator, &tally, options.quiet).await?;
    report(wanted, &alone, &quiet, options.quiet);

    println!(
        "\n| the coordinator killed and started anew | all back after | half back after | most in one second | attempts | CPU until all were back |"
    );
    println!("|---|---|---|---|---|---|");
    for round in 1..=options.rounds {
        tally.reset();
        coordinator.kill().await?;
        while tally.there.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_secs(options.away)).await;
        let began = Instant::now();
        tally.begin(began);
        tally.attempts.store(0, Ordering::SeqCst);
        coordinator.again().await?;
        all(&tally, wanted).await?;
        let used = coordinator.usage()?;
        let back = tally.back();
        println!(
            "| {round} | {:.1} s | {:.1} s | {} | {} | {:.1} s |",
            back.last().map_or(0.0, Duration::as_secs_f64),
            back.get(back.len() / 2).map_or(0.0, Duration::as_secs_f64),
            busiest(&back),
            tally.attempts.load(Ordering::SeqCst),
            used.cpu.as_secs_f64(),
        );
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    let failed = tally.refused.load(Ordering::SeqCst);
    if failed > 0 {
        bail!("{failed} sessions were refused");
    }
    Ok(())
}

async fn join(coordinator: &Coordinator, wanted: usize) -> Result<Vec<Agent>> {
    let token = coordinator.token().await?;
    let joining = (0..wanted).map(|number| {
        let (endpoint, ca, token) = (coordinator.endpoint(), coordinator.ca(), token.clone());
        async move { Agent::join(number, endpoint, &ca, &token).await }
    });
    let mut joining = futures_util::stream::iter(joining).buffer_unordered(JOINING);
    let mut agents = Vec::with_capacity(wanted);
    while let Some(agent) = joining.next().await {
        agents.push(agent.context("an agent cannot join")?);
    }
    Ok(agents)
}

async fn all(tally: &Tally, wanted: usize) -> Result<()> {
    let since = Instant::now();
    while tally.there.load(Ordering::SeqCst) < wanted {
        if since.elapsed() > PATIENCE {
            let there = tally.there.load(Ordering::SeqCst);
            let last = tally.last_error();
            bail!("only {there} of {wanted} agents have a session; the last failure: {last}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// What the coordinator uses in that time, in which no session may end.
async fn over(coordinator: &Coordinator, tally: &Tally, seconds: u64) -> Result<Usage> {
    let lost = tally.lost.load(Ordering::SeqCst);
    let before = coordinator.usage()?;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let after = coordinator.usage()?;
    let more = tally.lost.load(Ordering::SeqCst) - lost;
    if more > 0 {
        bail!(
            "{more} sessions ended while nothing happened: {}",
            tally.last_error()
        );
    }
    Ok(Usage {
        cpu: after.cpu.saturating_sub(before.cpu),
        resident: after.resident,
    })
}

fn report(wanted: usize, alone: &Usage, quiet: &Usage, seconds: u64) {
    let thousands = wanted as f64 / 1000.0;
    let share = quiet.cpu.as_secs_f64() / seconds as f64 * 100.0;
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let more = megabytes(quiet.resident.saturating_sub(alone.resident));
    println!("\n| {wanted} quiet agents, {seconds} s | all | per 1,000 |");
    println!("|---|---|---|");
    println!(
        "| CPU of one core | {share:.1} % | {:.2} % |",
        share / thousands
    );
    println!(
        "| resident memory ({:.0} MB without any) | {:.0} MB | {:.1} MB |",
        megabytes(alone.resident),
        megabytes(quiet.resident),
        more / thousands
    );
}

/// The most that came back within any one second.
fn busiest(back: &[Duration]) -> usize {
    let second = Duration::from_secs(1);
    let within =
        |(first, from): (usize, &Duration)| back.partition_point(|at| *at < *from + second) - first;
    back.iter().enumerate().map(within).max().unwrap_or(0)
}
