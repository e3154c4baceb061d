use super::*;

#[tokio::test]
async fn frames_become_lines() {
    let dir = tempfile::tempdir().unwrap();
    let store = small(dir.path());
    let mut log = Log::new();
    log.line(1, "plain");
    log.frame(2, PARTIAL, b"first ");
    log.frame(3, 0, b"rest");
    log.frame(4, 0, b"\xffraw");
    let gap = Gap {
        lines: 123,
        bytes: 4567,
    };
    log.frame(5, GAP, &gap.to_payload());
    store
        .append(&key("web.1.0.1", 2), 0, log.all())
        .await
        .unwrap();
    let lines = all(store.read(service("web"))).await;
    assert_eq!(
        texts(&lines),
        [
            "plain",
            "first ",
            "rest",
            "\u{fffd}raw",
            "… 123 lines (4567 bytes) dropped: log budget full …"
        ]
    );
    let first = &lines[0];
    assert_eq!(
        (first.time_nanos, first.start, first.process.as_str()),
        (1, 2, "module")
    );
    assert_eq!(first.instance.to_string(), "web.1.0.1");
    assert_eq!(
        (first.stream, first.partial, lines[1].partial),
        (Stream::Stdout, false, true)
    );
    assert_eq!(
        (lines[3].raw.as_deref(), lines[2].raw.as_deref()),
        (Some("/3Jhdw=="), None)
    );
    assert_eq!((lines[4].stream, lines[4].gap_lines), (Stream::Berth, 123));
    let counters = store.counters();
    assert_eq!(
        (counters.lines, counters.gap_lines, counters.bytes),
        (3, 123, log.len())
    );
}

#[tokio::test]
async fn streams_are_merged_by_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = small(dir.path());
    for (instance, times) in [("web.1.0.1", [10, 30, 50]), ("web.1.1.1", [20, 30, 40])] {
        let mut log = Log::new();
        for time in times {
            log.line(time, &format!("{instance}@{time}"));
        }
        store.append(&key(instance, 1), 0, log.all()).await.unwrap();
    }
    let mut other = Log::new();
    other.line(5, "of another service");
    store
        .append(&key("webx.1.0.1", 1), 0, other.all())
        .await
        .unwrap();
    let expected = [
        "web.1.0.1@10",
        "web.1.1.1@20",
        "web.1.0.1@30",
        "web.1.1.1@30",
        "web.1.1.1@40",
        "web.1.0.1@50",
    ];
    assert_eq!(read(&store, service("web")).await, expected);
    let one = Query::of(Scope::Instance("web.1.1.1".parse().unwrap()));
    assert_eq!(
        read(&store, one).await,
        ["web.1.1.1@20", "web.1.1.1@30", "web.1.1.1@40"]
    );
    let tail = Query {
        tail: Some(4),
        ..service("web")
    };
    assert_eq!(read(&store, tail).await, expected[2..]);
    let between = Query {
        since: Some(30),
        until: Some(40),
        ..service("web")
    };
    assert_eq!(read(&store, between).await, expected[2..5]);
    let limited = Query {
        limit: Some(2),
        ..service("web")
    };
    assert_eq!(read(&store, limited).await, expected[..2]);
    assert_eq!(read(&store, service("none")).await, [""; 0]);
}

/// A log of many segments and of several starts: every combination of limits against the plain way.
#[tokio::test]
async fn limits_are_as_if_all_was_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = small(dir.path());
    let mut expected = Vec::new();
    let mut time = 1000;
    for start in 1..4 {
        let mut log = Log::new();
        for i in 0..60 {
            time += 7;
            let text = format!("start {start} line {i}");
            log.line(time, &text);
            expected.push((time, text));
        }
        for pair in log.starts.chunks(5) {
            let end = pair[0] + log.bytes[pair[0]..].len().min(pair.len() * 60);
            let end = log
                .starts
                .iter()
                .copied()
                .find(|s| *s >= end)
                .unwrap_or(log.bytes.len());
            let durable = store.durable(&key("web.1.0.1", start)).await.unwrap();
            let from = usize::try_from(durable).unwrap();
            if end > from {
                store
                    .append(&key("web.1.0.1", start), durable, log.range(from..end))
                    .await
                    .unwrap();
            }
        }
    }
    // Also by a store that has just been opened, which knows no lengths.
    drop(store);
    let store = small(dir.path());
    for since in [
        None,
        Some(0),
        Some(1211),
        Some(1500),
        Some(time),
        Some(time + 1),
    ] {
        for grep in [None, Some("line 1"), Some("start 2"), Some("none")] {
            for tail in [None, Some(0), Some(1), Some(10), Some(70), Some(1000)] {
                let query = Query {
                    since,
                    grep: grep.map(|re| regex::Regex::new(re).unwrap()),
                    tail,
                    ..service("web")
                };
                let wanted = expected.iter().filter(|(time, text)| {
                    *time >= since.unwrap_or(0) && text.contains(grep.unwrap_or(""))
                });
                let wanted: Vec<&String> = wanted.map(|(_, text)| text).collect();
                let skipped = wanted.len().saturating_sub(tail.unwrap_or(usize::MAX));
                let found = read(&store, query).await;
                let found: Vec<&String> = found.iter().collect();
                assert_eq!(found, wanted[skipped..], "{since:?} {grep:?} {tail:?}");
            }
        }
    }
}

#[tokio::test]
async fn long_logs_are_handed_over_bit_by_bit() {
    let dir = tempfile::tempdir().unwrap();
    let store = LogStore::open(dir.path(), keep_all()).unwrap();
    let mut log = Log::new();
    for i in 0..50_000 {
        log.line(i, &format!("{i:0200}"));
    }
    let mut at = 0;
    while at < log.bytes.len() {
        let end = log
            .starts
            .iter()
            .copied()
            .find(|s| *s > at + 1_000_000)
            .unwrap_or(log.bytes.len());
        store
            .append(&key("web.1.0.1", 1), at as u64, log.range(at..end))
            .await
            .unwrap();
        at = end;
    }
    let mut lines = store.read(service("web"));
    let mut count = 0;
    while let Some(line) = lines.next().await {
        assert_eq!(line.unwrap().text, format!("{count:0200}"));
        count += 1;
    }
    assert_eq!(count, 50_000);
}

#[tokio::test]
async fn a_clock_that_jumps_back_changes_no_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = small(dir.path());
    let mut log = Log::new();
    let times = [100, 200, 50, 60, 300];
    for time in times {
        log.line(time, &time.to_string());
    }
    store
        .append(&key("web.1.0.1", 1), 0, log.all())
        .await
        .unwrap();
    assert_eq!(
        read(&store, service("web")).await,
        ["100", "200", "50", "60", "300"]
    );
    let tail = Query {
        tail: Some(3),
        ..service("web")
    };
    assert_eq!(read(&store, tail).await, ["50", "60", "300"]);
}

#[tokio::test]
async fn damage_and_holes_are_told_and_passed() {
    let dir = tempfile::tempdir().unwrap();
    let store = small(dir.path());
    let key = key("web.1.0.1", 1);
    let mut log = Log::new();
    for i in 0..30 {
        log.line(i, &format!("line {i}"));
    }
    for (at, start) in log.starts.iter().enumerate() {
        let end = log.starts.get(at + 1).copied().unwrap_or(log.bytes.len());
        store
            .append(&key, *start as u64, log.range(*start..end))
            .await
            .unwrap();
    }
    assert_eq!(store.skip_to(&key, 10_000).await.unwrap(), 10_000);
    let mut more = Log::default();
    more.line(99, "after the hole");
    store.append(&key, 10_000, more.all()).await.unwrap();
    drop(store);
    let folder = key.dir(dir.path());
    let second = berth_logfile::segments(&folder).unwrap()[1].path.clone();
    let mut bytes = std::fs::read(&second).unwrap();
    bytes[30] ^= 1;
    std::fs::write(&second, bytes).unwrap();
    let store = small(dir.path());
    let found = read(&store, service("web")).await;
    assert_eq!(found[0], "line 0");
    assert_eq!(found.last().unwrap(), "after the hole");
    let told = found
        .iter()
        .filter(|text| text.contains("not kept any more"))
        .count();
    assert_eq!(told, 2, "{found:?}");
    assert!(found.len() > 20);
}
