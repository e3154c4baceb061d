use std::sync::Arc;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_between_history_and_live() {
    let dir = tempfile::tempdir().unwrap();
    let store = small(dir.path());
    let count = 400;
    let logs: Vec<Log> = (0..3)
        .map(|stream| {
            let mut log = Log::new();
            for i in 0..count {
                log.line(i * 10 + stream, &format!("{stream} {i}"));
            }
            log
        })
        .collect();
    let logs = Arc::new(logs);
    let writers: Vec<_> = (0..3)
        .map(|stream| {
            let (store, logs) = (store.clone(), Arc::clone(&logs));
            tokio::spawn(async move {
                let log = &logs[stream];
                let key = key(&format!("web.1.{stream}.1"), 1);
                for (at, start) in log.starts.iter().enumerate() {
                    let end = log.starts.get(at + 1).copied().unwrap_or(log.bytes.len());
                    store
                        .append(&key, *start as u64, log.range(*start..end))
                        .await
                        .unwrap();
                }
            })
        })
        .collect();
    // Begun at any moment, and again from a cursor after every so many lines.
    let mut seen: Vec<Vec<String>> = vec![Vec::new(); 3];
    let mut from = None;
    let mut left = 3 * usize::try_from(count).unwrap();
    while left > 0 {
        let mut lines = store.follow(service("web"), from.take());
        for _ in 0..left.min(157) {
            let line = lines.next().await.unwrap().unwrap();
            let stream = usize::try_from(line.instance.slot.ordinal).unwrap();
            seen[stream].push(line.text);
            left -= 1;
        }
        from = Some(lines.cursor().to_string().parse().unwrap());
    }
    for writer in writers {
        writer.await.unwrap();
    }
    for (stream, seen) in seen.iter().enumerate() {
        let wanted: Vec<String> = (0..count).map(|i| format!("{stream} {i}")).collect();
        assert_eq!(seen, &wanted);
    }
    let tail = Query {
        tail: Some(0),
        ..service("web")
    };
    let mut lines = store.follow(tail, from);
    let next = tokio::time::timeout(Duration::from_millis(50), lines.next()).await;
    assert!(next.is_err());
}

#[tokio::test]
async fn a_service_without_logs_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let store = small(dir.path());
    let mut lines = store.follow(service("web"), None);
    let next = tokio::time::timeout(Duration::from_millis(20), lines.next()).await;
    assert!(next.is_err());
    let mut log = Log::new();
    log.line(1, "first");
    store
        .append(&key("web.1.0.1", 1), 0, log.all())
        .await
        .unwrap();
    assert_eq!(lines.next().await.unwrap().unwrap().text, "first");
    // A restart is a new stream.
    let mut log = Log::new();
    log.line(2, "second");
    store
        .append(&key("web.1.0.1", 2), 0, log.all())
        .await
        .unwrap();
    assert_eq!(lines.next().await.unwrap().unwrap().text, "second");
}

#[tokio::test]
async fn the_last_lines_and_then_all_that_come() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::new();
    for i in 0..50 {
        log.line(i, &format!("line {i}"));
    }
    let half = log.starts[41];
    let key = key("web.1.0.1", 1);
    {
        let store = small(dir.path());
        store.append(&key, 0, log.range(0..half)).await.unwrap();
        let mut old = Log::new();
        old.line(0, "old");
        store
            .append(&super::key("web.1.0.1", 7), 0, old.all())
            .await
            .unwrap();
    }
    // A store just opened knows no lengths, and must not hand out what was there as new.
    let store = small(dir.path());
    let query = Query {
        tail: Some(2),
        ..service("web")
    };
    let mut lines = store.follow(query, None);
    for wanted in ["line 38", "line 39"] {
        assert_eq!(lines.next().await.unwrap().unwrap().text, wanted);
    }
    store.durable(&super::key("web.1.0.1", 7)).await.unwrap();
    store
        .append(&key, half as u64, log.range(half..log.bytes.len()))
        .await
        .unwrap();
    for i in 40..50 {
        let line = lines.next().await.unwrap().unwrap();
        assert_eq!(
            (line.text.as_str(), line.process.as_str()),
            (format!("line {i}").as_str(), "module")
        );
    }
}
