pub(super) mod delete;
mod follow;
pub(super) mod input;
mod output;
mod run;
mod show;
pub(super) mod wait;

use std::process::ExitCode;

use anyhow::Result;
use berth_model::api::{JobView, List};
use berth_model::id::JobName;

use super::logs;
use crate::args::Job;
use crate::client::Client;
use crate::{output as out, table, words};

pub(super) async fn run(client: &Client, job: Job) -> Result<ExitCode> {
    match job {
        Job::Run(wanted) => return run::run(client, wanted).await,
        Job::List(reading) => {
            let list: List<JobView> = client.get("/v1/jobs").await?;
            out::show(reading.output, &list.items, |width| {
                jobs(&list.items, words::now(), width)
            })?;
        }
        Job::Show { job, reading } => {
            let view = one(client, &job).await?;
            out::show(reading.output, &view, |width| {
                show::job(&view, words::now(), width)
            })?;
        }
        Job::Logs(wanted) => logs::run(client, wanted).await?,
        Job::Output { job, dir } => return output::run(client, &job, dir.as_deref()).await,
        Job::Delete { job, timeout } => return delete::run(client, &job, timeout).await,
    }
    Ok(ExitCode::SUCCESS)
}

async fn one(client: &Client, job: &JobName) -> Result<JobView> {
    client.get(&format!("/v1/jobs/{job}")).await
}

fn jobs(jobs: &[JobView], now: berth_model::time::Timestamp, width: Option<usize>) -> String {
    if jobs.is_empty() {
        return "No jobs. `berth job run MODEL` runs one\n".to_owned();
    }
    let rows: Vec<Vec<String>> = jobs
        .iter()
        .map(|job| {
            let why = job.reason.as_ref().map(ToString::to_string);
            vec![
                job.name.to_string(),
                job.state.to_string(),
                format!("{}/{}", job.done, job.completions),
                job.running.to_string(),
                job.failed.to_string(),
                format!("{}@{}", job.model, job.version),
                job.runtime.to_string(),
                words::age(job.created, now),
                why.or_else(|| job.reasons.first().cloned())
                    .unwrap_or_default(),
            ]
        })
        .collect();
    let heading = [
        "NAME", "STATE", "DONE", "RUNNING", "FAILED", "MODEL", "RUNTIME", "AGE", "WHY",
    ];
    table::render(&heading, &rows, width)
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_model::time::Timestamp;

    #[test]
    fn the_list_says_how_far_and_why_not_further() {
        let mut failed = show::tests::view();
        failed.name = "score-2".parse().unwrap();
        failed.reason = Some(berth_model::instance::Reason::Completed);
        let text = jobs(&[show::tests::view(), failed], Timestamp(90_000), None);
        assert_eq!(text, include_str!("../../tests/golden/job-list.txt"));
    }
}
