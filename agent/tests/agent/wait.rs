//! Waiting for conditions.

use std::time::{Duration, Instant};

/// Long enough for a busy machine that makes a Python environment.
pub(crate) const PATIENCE: Duration = Duration::from_secs(150);

/// Asks until there is an answer. Fails the test after [`PATIENCE`] with what it says then.
pub(crate) async fn until<T>(what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let begin = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(state) if begin.elapsed() > PATIENCE => {
                panic!("waited in vain for {what}: {state}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// As [`until`], for a plain condition.
pub(crate) async fn until_true(what: &str, mut ask: impl FnMut() -> bool) {
    until(what, || if ask() { Ok(()) } else { Err("no".to_owned()) }).await;
}
