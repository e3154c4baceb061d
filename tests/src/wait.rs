//! Waiting for conditions, never for time.

use std::fmt::Debug;
use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Longest wait for anything in a test: far beyond what a loaded machine needs.
const PATIENCE: Duration = Duration::from_secs(90);

/// Pauses between two questions are as long as the question took, within these limits.
const SHORTEST: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_millis(500);

/// Asks `probe` until it says yes; fails after [`PATIENCE`] with what it last said.
pub async fn until<F, T>(what: &str, mut probe: impl FnMut() -> F) -> Result<()>
where
    F: Future<Output = Result<(bool, T)>>,
    T: Debug,
{
    until_some(what, || {
        let asked = probe();
        async move {
            let (yes, seen) = asked.await?;
            if yes { Ok(Some(())) } else { bail!("{seen:?}") }
        }
    })
    .await
}

/// Asks `probe` until it has a value; errors and `None` are asked again.
pub async fn until_some<F, T>(what: &str, mut probe: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    let began = Instant::now();
    loop {
        let asked = Instant::now();
        let last = match probe().await {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => "nothing yet".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        if began.elapsed() > PATIENCE {
            bail!("waited {PATIENCE:?} for {what}; last: {last}");
        }
        // A question that costs much is not asked all the time: what is waited for needs the machine, too.
        let pause = asked.elapsed().clamp(SHORTEST, LONGEST);
        tokio::time::sleep(pause).await;
    }
}
