//! What a process of Berth tells systemd of itself: that it is ready, what it does, that it still lives.
//!
//! Without systemd (no `NOTIFY_SOCKET` in the environment) all of this does nothing, so the same program runs in a
//! terminal, under `berth up` and as a unit.
//!
//! **Ready** is said once the process does its work. **Alive** is said by [`watch`], and only after something in the
//! process has answered that takes part in its work: a process whose one thread hangs is started anew although another
//! one still turns.
#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::future::Future;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// Between two signs of life where systemd does not say how often it wants them: it does not tell a process that took
/// over from the one that it started. A third of the shortest `WatchdogSec=` of Berth's units.
const PERIOD: Duration = Duration::from_secs(10);

/// Environment variable with the pid of the helper that started this process, and ends when this process serves.
pub const STARTED_BY: &str = "BERTH_STARTED_BY";

/// For that helper to end.
const HELPER: Duration = Duration::from_secs(20);
/// Between looks whether it has.
const LOOK: Duration = Duration::from_millis(20);
/// For systemd to hear of a new main process.
const REPLACED: Duration = Duration::from_secs(30);

/// Whether systemd listens.
pub fn supervised() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some_and(|socket| !socket.is_empty())
}

/// Says that this process does its work now, and what that is. It is the unit's main process from now on, also if it
/// took over from another.
///
/// systemd waits only for the end of its own children, and decides what is one when it hears of a main process. So one
/// that was started by a helper ([`STARTED_BY`]) says it when that has ended.
pub async fn ready(status: &str) {
    if supervised() {
        let helper = std::env::var(STARTED_BY).ok();
        let helper = helper.and_then(|pid| pid.parse().ok());
        let until = Instant::now() + HELPER;
        while helper == Some(std::os::unix::process::parent_id()) && Instant::now() < until {
            tokio::time::sleep(LOOK).await;
        }
    }
    tell(&[
        NotifyState::MainPid(std::process::id()),
        NotifyState::Ready,
        NotifyState::Status(status),
    ]);
}

/// For a process that another one has replaced: ends when systemd has long heard of that one. A main process that ended
/// before would be taken for the end of its unit.
pub async fn replaced() {
    if supervised() {
        tokio::time::sleep(REPLACED).await;
    }
}

/// Says what this process is at; `systemctl status` shows it.
pub fn status(status: &str) {
    tell(&[NotifyState::Status(status)]);
}

/// Says that this process ends in order, and what it still does.
pub fn stopping(status: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// Says again and again that this process lives, each time after `probe` has said so itself. A probe that fails, or does
/// not end, is told in the log; when that goes on for `WatchdogSec=`, systemd starts the process anew.
pub async fn watch<F>(mut probe: impl FnMut() -> F) -> Infallible
where
    F: Future<Output = Result<(), String>>,
{
    if !supervised() {
        return std::future::pending().await;
    }
    let period = period(std::env::var("WATCHDOG_USEC").ok().as_deref());
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match tokio::time::timeout(period, probe()).await {
            Ok(Ok(())) => tell(&[NotifyState::Watchdog]),
            Ok(Err(why)) => tracing::warn!(why, "no sign of life to systemd"),
            Err(_) => tracing::warn!(why = "no answer", "no sign of life to systemd"),
        }
    }
}

/// Thrice within the time that systemd gives.
fn period(watchdog_usec: Option<&str>) -> Duration {
    watchdog_usec
        .and_then(|text| text.parse().ok())
        .filter(|usec| *usec > 0)
        .map_or(PERIOD, |usec| (Duration::from_micros(usec) / 3).min(PERIOD))
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot talk to systemd");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::process::Command;

    use super::*;

    #[test]
    fn signs_of_life_come_thrice_within_the_time() {
        assert_eq!(period(Some("6000000")), Duration::from_secs(2));
        assert_eq!(period(Some("600000000")), PERIOD);
        for none in [None, Some(""), Some("0"), Some("x")] {
            assert_eq!(period(none), PERIOD, "{none:?}");
        }
    }

    /// Run by the test below, with a socket.
    #[test]
    #[ignore = "the child of another test"]
    fn child() {
        assert!(supervised());
        let done = std::sync::Arc::new(tokio::sync::Notify::new());
        let mut asked = 0;
        let end = done.clone();
        // The second answer is a bad one; by the fourth question, what came of the third is told.
        let probe = move || {
            asked += 1;
            if asked == 4 {
                end.notify_one();
            }
            std::future::ready(match asked {
                2 | 4 => Err("not now".to_owned()),
                _ => Ok(()),
            })
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            ready("serves").await;
            tokio::select! {
                never = watch(probe) => match never {},
                () = done.notified() => {}
            }
        });
        stopping("drains");
    }

    #[test]
    fn what_is_said_arrives_and_no_life_is_claimed_that_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tests::child", "--ignored"])
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "30000")
            .spawn()
            .unwrap();
        let pid = child.id();
        assert!(child.wait().unwrap().success());
        let mut said = Vec::new();
        socket.set_nonblocking(true).unwrap();
        let mut buffer = [0; 512];
        while let Ok(length) = socket.recv(&mut buffer) {
            said.push(String::from_utf8_lossy(&buffer[..length]).trim().to_owned());
        }
        assert_eq!(said[0], format!("MAINPID={pid}\nREADY=1\nSTATUS=serves"));
        let last = said.pop().unwrap();
        assert_eq!(last, "STOPPING=1\nSTATUS=drains");
        // Of three probes, one failed.
        assert_eq!(said[1..], ["WATCHDOG=1", "WATCHDOG=1"]);
    }
}
